use super::*;
use crate::fixture::pod;
use crate::policy::{Action, DryRun, PolicyScope};

fn name(number: usize) -> PolicyName {
    format!("ns/p{number:03}").as_str().into()
}

fn policy(number: usize, action: Action) -> Arc<Policy> {
    Arc::new(Policy {
        key: name(number),
        name: format!("p{number:03}").into(),
        namespace: "ns".into(),
        scope: PolicyScope::WorkloadSelector,
        action,
        dry_run: DryRun::Enforced,
        rules: vec![],
    })
}

fn refers_to(workload: &str, numbers: impl IntoIterator<Item = usize>) -> Workload {
    Workload { authorization_policies: numbers.into_iter().map(name).collect(), ..pod(workload, &[]) }
}

fn unknown(selection: &Selection) -> Vec<String> {
    selection.unknown.iter().map(ToString::to_string).collect()
}

#[test]
fn workloads_with_equal_references_share_a_selection_until_the_last_has_gone() {
    let (mut all, known) = (Selections::default(), ByKey::default());
    let (one, two) = (refers_to("one", 0..=FEW), refers_to("two", 0..=FEW));
    all.put(&one, &known);
    all.put(&two, &known);
    assert!(std::ptr::eq(all.of(&one).unwrap(), all.of(&two).unwrap()));
    all.put(&refers_to("one", 1..=FEW + 1), &known);
    assert!(all.of(&one).is_none(), "it refers to others by now");
    assert!(all.of(&two).is_some());
    all.remove(&one.uid);
    all.put(&refers_to("two", 1..=FEW), &known);
    assert!(all.is_empty(), "the last refers to few by now");
}

#[test]
fn a_selection_follows_its_policies() {
    let (mut all, mut known) = (Selections::default(), ByKey::default());
    known.insert_mut(name(3), policy(3, Action::Deny));
    let workload = refers_to("one", (0..=FEW).chain([0, 3]));
    all.put(&workload, &known);
    all.learn(&policy(0, Action::Allow));
    let has = |all: &Selections, action| all.of(&workload).unwrap().policies.has(action, DryRun::Enforced);
    assert!(has(&all, Action::Allow) && has(&all, Action::Deny));
    assert_eq!(unknown(all.of(&workload).unwrap())[..2], ["ns/p001", "ns/p002"]);

    all.forget(&policy(0, Action::Allow));
    all.learn(&policy(0, Action::Deny));
    all.forget(&policy(3, Action::Deny));
    assert!(!has(&all, Action::Allow) && has(&all, Action::Deny), "one of them became another, one is gone");
    assert_eq!(unknown(all.of(&workload).unwrap())[..3], ["ns/p001", "ns/p002", "ns/p003"]);
    all.forget(&policy(0, Action::Deny));
    assert!(!has(&all, Action::Deny), "though the workload names it twice");
    all.remove(&workload.uid);
    assert!(all.is_empty());
}

use super::*;
use crate::policy::{List, PolicyScope};

fn policy(name: &str, matches: Vec<Vec<Match>>) -> Arc<Policy> {
    Arc::new(Policy {
        key: name.into(),
        name: name.into(),
        namespace: "ns".into(),
        scope: PolicyScope::Namespace,
        action: Action::Allow,
        dry_run: DryRun::Enforced,
        rules: vec![Rule { clauses: matches.into_iter().map(|matches| Clause { matches }).collect() }],
    })
}

fn any<T>(elements: Vec<T>) -> Group<T> {
    Group { any: elements.into(), ..Group::default() }
}

fn principals(patterns: Vec<StringMatch>) -> Match {
    Match { principals: any(patterns), ..Match::default() }
}

fn exact(text: &str) -> StringMatch {
    StringMatch::Exact(text.into())
}

/// What a connection from 10.1.2.3 to 10.9.0.1:80 finds, whose peer is that principal.
fn found(set: &PolicySet, principal: Option<&str>) -> Vec<String> {
    let mut found = Vec::new();
    look(set, principal, &mut found);
    found.iter().map(|policy| policy.key.to_string()).collect()
}

fn look<'a>(set: &'a PolicySet, principal: Option<&str>, found: &mut Vec<&'a Arc<Policy>>) {
    let (namespace, account) = (Namespace::from("a"), ServiceAccount::from("x"));
    let probe = Probe {
        source: [10, 1, 2, 3].into(),
        destination: [10, 9, 0, 1].into(),
        port: 80,
        account: principal.map(|_| (&namespace, &account)),
        principal,
    };
    set.find(&probe, found);
}

fn set(policies: &[&Arc<Policy>]) -> PolicySet {
    let mut set = PolicySet::default();
    policies.iter().for_each(|policy| set.put(policy));
    set
}

const WHO: &str = "td/ns/a/sa/x";

#[test]
fn a_policy_is_found_by_each_way_of_saying_who() {
    let start = policy("start", vec![vec![principals(vec![StringMatch::Prefix("td/ns/a/".into())])]]);
    let end = policy("end", vec![vec![principals(vec![StringMatch::Suffix("/sa/x".into())])]]);
    let whole = policy("whole", vec![vec![principals(vec![exact("other"), exact(WHO)])]]);
    let stranger = policy("stranger", vec![vec![principals(vec![exact("td/ns/a/sa/y")])]]);
    let set = set(&[&start, &end, &whole, &stranger]);
    assert_eq!(found(&set, Some(WHO)), ["end", "start", "whole"], "in the order of keys");
    assert_eq!(found(&set, None), [""; 0]);
}

#[test]
fn a_policy_is_found_by_address_and_port() {
    let near = Match { source_ips: any(vec!["10.1.0.0/16".parse().unwrap()]), ..Match::default() };
    let far = Match { source_ips: any(vec!["10.2.0.0/16".parse().unwrap()]), ..Match::default() };
    let port = |port| Match { destination_ports: any(vec![port]), ..Match::default() };
    let to = Match { destination_ips: any(vec!["10.9.0.1/32".parse().unwrap()]), ..Match::default() };
    let set = set(&[
        &policy("near", vec![vec![near]]),
        &policy("far", vec![vec![far]]),
        &policy("p80", vec![vec![port(80)]]),
        &policy("p81", vec![vec![port(81)]]),
        &policy("to", vec![vec![to]]),
    ]);
    assert_eq!(found(&set, None), ["near", "p80", "to"]);
}

#[test]
fn what_a_list_does_not_sum_up_is_always_found() {
    let unreadable = Match {
        principals: Group { any: List { elements: vec![exact("other")], unreadable: 1 }, ..Group::default() },
        ..Match::default()
    };
    let not = Match { principals: Group { none: vec![exact("other")].into(), ..Group::default() }, ..Match::default() };
    let set = set(&[
        &policy("any", vec![]),
        &policy("anybody", vec![vec![]]),
        &policy("not", vec![vec![not.clone()]]),
        &policy("one of", vec![vec![principals(vec![exact("other")]), not]]),
        &policy("presence", vec![vec![principals(vec![StringMatch::Presence])]]),
        &policy("unreadable", vec![vec![unreadable]]),
    ]);
    assert_eq!(found(&set, Some(WHO)), ["any", "anybody", "not", "one of", "presence", "unreadable"]);
}

#[test]
fn a_rule_is_found_by_the_clause_that_says_who() {
    let port = Match { destination_ports: any(vec![80]), ..Match::default() };
    let set = set(&[&policy("both", vec![vec![port], vec![principals(vec![exact("other")])]])]);
    assert_eq!(found(&set, Some(WHO)), [""; 0], "the port alone would do");
    assert_eq!(found(&set, Some("other")), ["both"]);
}

#[test]
fn what_is_alike_goes_one_by_one() {
    let start = |name: &str, text: &str| policy(name, vec![vec![principals(vec![StringMatch::Prefix(text.into())])]]);
    let (a, b, c) = (start("a", "td/ns/a/"), start("b", "td/ns/a/"), start("c", "td/ns/b/"));
    let mut set = set(&[&a, &b, &c]);
    set.remove(&c);
    assert_eq!(found(&set, Some(WHO)), ["a", "b"], "they begin with as much as the one that has gone");
    set.remove(&b);
    assert_eq!(found(&set, Some(WHO)), ["a"]);
    assert!(!set.is_empty());
    set.remove(&a);
    assert!(set.is_empty() && set.lengths.is_empty());
}

#[test]
fn whole_texts_are_looked_for_once_however_many_and_long_they_are() {
    let whole = |text: &str| policy(text, vec![vec![principals(vec![exact(text)])]]);
    let set = set(&[&whole("td"), &whole("td/ns"), &whole(WHO)]);
    assert_eq!((set.lengths.size(), found(&set, Some(WHO))), (1, vec![WHO.to_owned()]));
}

#[test]
fn each_is_found_once_beside_what_was_found_before() {
    let twice = |name: &str| policy(name, vec![vec![principals(vec![exact(WHO), StringMatch::Prefix("td".into())])]]);
    let (first, second) = (set(&[&twice("first")]), set(&[&twice("second")]));
    let mut all = Vec::new();
    look(&first, Some(WHO), &mut all);
    look(&second, Some(WHO), &mut all);
    assert_eq!(all.len(), 2);
}

#[test]
fn nothing_is_left_of_what_was_removed() {
    let all = [
        policy("a", vec![vec![principals(vec![exact(WHO), StringMatch::Prefix("td".into()), exact(WHO)])]]),
        policy("b", vec![vec![Match { source_ips: any(vec!["10.1.2.3/8".parse().unwrap()]), ..Match::default() }]]),
        policy("c", vec![]),
    ];
    let mut set = set(&all.iter().collect::<Vec<_>>());
    assert_eq!(found(&set, Some(WHO)), ["a", "b", "c"], "each once");
    assert!(set.has(Action::Allow, DryRun::Enforced) && !set.has(Action::Deny, DryRun::Enforced));
    for policy in &all {
        set.remove(policy);
    }
    assert_eq!(found(&set, Some(WHO)), [""; 0]);
    assert!(set.is_empty() && set.lengths.is_empty() && set.others.is_empty() && set.keyed.keys().len() == 0);
    assert!(!set.has(Action::Allow, DryRun::Enforced));
}

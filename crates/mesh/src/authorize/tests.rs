//! Who may talk to whom, as decision tables, and against an evaluator that knows nothing but the definition.

use ipnet::IpNet;

use super::*;
use crate::account::Decided;
use crate::ask::{Learnt, Need};
use crate::fixture::{NETWORK, Seed, held, pod, socket, view};
use crate::identity::Identity;
use crate::policy::{Clause, Group, List, Match, PolicyScope, Rule, ServiceAccountMatch, StringMatch};
use crate::refusal::ResponseFlag;
use crate::view::{Change, State};

/// A policy of namespace `ns` that matches if any of the rules does.
fn policy(name: &str, action: Action, rules: Vec<Rule>) -> Policy {
    Policy {
        key: format!("ns/{name}").as_str().into(),
        name: name.into(),
        namespace: "ns".into(),
        scope: PolicyScope::Namespace,
        action,
        dry_run: DryRun::Enforced,
        rules,
    }
}

fn allow(name: &str, rules: Vec<Rule>) -> Policy {
    policy(name, Action::Allow, rules)
}

fn deny(name: &str, rules: Vec<Rule>) -> Policy {
    policy(name, Action::Deny, rules)
}

fn dry(policy: Policy) -> Policy {
    Policy { dry_run: DryRun::DryRun, ..policy }
}

fn scoped(scope: PolicyScope, policy: Policy) -> Policy {
    Policy { scope, ..policy }
}

/// A rule of clauses of matches.
fn rule(clauses: Vec<Vec<Match>>) -> Rule {
    Rule { clauses: clauses.into_iter().map(|matches| Clause { matches }).collect() }
}

fn just(m: Match) -> Vec<Rule> {
    vec![rule(vec![vec![m]])]
}

fn always() -> Vec<Rule> {
    vec![rule(vec![])]
}

fn never() -> Vec<Rule> {
    vec![]
}

fn any<T>(elements: Vec<T>) -> Group<T> {
    Group { any: elements.into(), ..Group::default() }
}

fn none<T>(elements: Vec<T>) -> Group<T> {
    Group { none: elements.into(), ..Group::default() }
}

fn port(port: u16) -> Match {
    Match { destination_ports: any(vec![port]), ..Match::default() }
}

fn nets(texts: &[&str]) -> Vec<IpNet> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

fn exact(text: &str) -> StringMatch {
    StringMatch::Exact(text.into())
}

fn prefix(text: &str) -> StringMatch {
    StringMatch::Prefix(text.into())
}

fn suffix(text: &str) -> StringMatch {
    StringMatch::Suffix(text.into())
}

fn account(namespace: &str, service_account: &str) -> ServiceAccountMatch {
    ServiceAccountMatch { namespace: namespace.into(), service_account: service_account.into() }
}

/// From 10.0.0.1 to 10.0.0.2:80, as `spiffe://td/ns/apps/sa/front`.
fn tuple() -> Tuple {
    Tuple {
        source: socket("10.0.0.1:40000"),
        destination: socket("10.0.0.2:80"),
        identity: Some("spiffe://td/ns/apps/sa/front".parse().unwrap()),
        network: NETWORK.into(),
    }
}

/// The same by a peer that has proven nothing.
fn anonymous() -> Tuple {
    Tuple { identity: None, ..tuple() }
}

fn server(refers_to: &[&str]) -> Workload {
    let authorization_policies = refers_to.iter().map(|key| PolicyName::from(*key)).collect();
    Workload { authorization_policies, ..pod("server", &["10.0.0.2"]) }
}

fn decide(policies: Vec<Policy>, refers_to: &[&str], tuple: &Tuple) -> Verdict {
    let changes = policies.into_iter().map(Change::from).chain([server(refers_to).into()]);
    let view = view(changes);
    evaluate(&view, &held(&view, "server"), tuple, UnknownPolicy::Deny)
}

/// The decision in words, with the policy and rule that decided.
fn words(verdict: &Verdict) -> String {
    let deciding = verdict.decision.deciding().map(|d| format!(": {d} rule {}", d.rule)).unwrap_or_default();
    format!("{}{deciding}", verdict.decision.as_str())
}

#[test]
fn the_order_of_decisions() {
    use PolicyScope::{Global, WorkloadSelector};
    let other = |policy: Policy| Policy { namespace: "other".into(), ..policy };
    let no_allow = "no allow policies, allow";
    let none = "no allow policies matched";
    let cases: Vec<(&str, Vec<Policy>, &str)> = vec![
        ("nothing said", vec![], no_allow),
        ("allowed", vec![allow("a", always())], "allow policy match: ns/a rule 0"),
        ("none allows", vec![allow("a", never())], none),
        ("any allows", vec![allow("a", never()), allow("b", always())], "allow policy match: ns/b rule 0"),
        ("denied", vec![deny("d", always())], "deny policy match: ns/d rule 0"),
        ("denied first", vec![allow("a", always()), deny("d", always())], "deny policy match: ns/d rule 0"),
        ("not denied", vec![deny("d", never())], no_allow),
        ("not denied, not allowed", vec![deny("d", never()), allow("a", never())], none),
        (
            "the rule that decided",
            vec![deny("d", vec![rule(vec![vec![port(1)]]), rule(vec![])])],
            "deny policy match: ns/d rule 1",
        ),
        ("dry-run denial", vec![dry(deny("d", always()))], no_allow),
        ("dry-run allowance does not ask for one", vec![dry(allow("a", never()))], no_allow),
        ("dry-run allowance does not allow", vec![allow("a", never()), dry(allow("b", always()))], none),
        ("of another namespace", vec![other(deny("d", always()))], no_allow),
        ("global", vec![scoped(Global, other(deny("d", always())))], "deny policy match: other/d rule 0"),
        ("of workloads that do not refer to it", vec![scoped(WorkloadSelector, deny("d", always()))], no_allow),
    ];
    for (case, policies, expected) in cases {
        assert_eq!(words(&decide(policies, &[], &tuple())), expected, "{case}");
    }
    let selected = vec![scoped(WorkloadSelector, deny("d", always()))];
    assert_eq!(words(&decide(selected, &["ns/d"], &tuple())), "deny policy match: ns/d rule 0");
}

#[test]
fn a_policy_that_goes_leaves_the_others() {
    let mut state = State::new(None);
    let two = ["a", "b"].map(|name| Change::from(deny(name, always())));
    let _ = state.apply([server(&[]).into()].into_iter().chain(two));
    let mut without = |name: &str| {
        let _ = state.apply([Change::RemovePolicy(format!("ns/{name}").as_str().into())]);
        let view = state.view();
        words(&evaluate(&view, &held(&view, "server"), &tuple(), UnknownPolicy::Deny))
    };
    assert_eq!(without("a"), "deny policy match: ns/b rule 0");
    assert_eq!(without("b"), "no allow policies, allow");
}

#[test]
fn a_namespace_policy_without_a_namespace_is_not_global() {
    let policy = Policy { namespace: "".into(), ..deny("d", always()) };
    assert_eq!(words(&decide(vec![policy], &[], &tuple())), "no allow policies, allow");
}

#[test]
fn dry_run_policies_are_reported() {
    let told = |policies| {
        let verdict = decide(policies, &[], &tuple());
        let hits = verdict.dry_run.iter();
        hits.map(|hit| {
            let deciding = hit.deciding().map(|d| format!(": {d} rule {}", d.rule)).unwrap_or_default();
            format!("{}{deciding}", hit.as_str())
        })
        .collect::<Vec<_>>()
    };
    let all = vec![dry(deny("d", always())), dry(allow("a", always()))];
    assert_eq!(told(all), ["dry-run: deny policy match: ns/d rule 0", "dry-run: allow policy match: ns/a rule 0"]);
    assert_eq!(told(vec![dry(deny("d", never())), dry(allow("a", never()))]), ["dry-run: no allow policies match"]);
    assert_eq!(
        told(vec![dry(allow("a", never())), allow("b", never())]),
        [""; 0],
        "an enforced one asks for one anyway"
    );
    assert_eq!(told(vec![dry(deny("d", always())), deny("e", always())]), ["dry-run: deny policy match: ns/d rule 0"]);
}

#[test]
fn degenerate_policies() {
    let cases: Vec<(&str, Vec<Rule>, bool)> = vec![
        ("no rules", vec![], false),
        ("a rule without clauses", vec![rule(vec![])], true),
        ("a clause without matches", vec![rule(vec![vec![]])], true),
        ("a match that says nothing", just(Match::default()), false),
        ("a match that says nothing beside one that does", vec![rule(vec![vec![Match::default(), port(80)]])], true),
        ("both clauses", vec![rule(vec![vec![port(80)], vec![port(80)]])], true),
        ("one of two clauses", vec![rule(vec![vec![port(80)], vec![port(81)]])], false),
        ("one of two matches", vec![rule(vec![vec![port(81), port(80)]])], true),
        ("one of two rules", vec![rule(vec![vec![port(81)]]), rule(vec![vec![port(80)]])], true),
    ];
    for (case, rules, matches) in cases {
        let denied = decide(vec![deny("d", rules.clone())], &[], &tuple()).denial().is_some();
        assert_eq!(denied, matches, "{case}, as DENY");
        let allowed = decide(vec![allow("a", rules)], &[], &tuple()).denial().is_none();
        assert_eq!(allowed, matches, "{case}, as ALLOW");
    }
}

/// Whether a match does, for a peer with and one without identity.
fn matches(m: Match) -> (bool, bool) {
    let denies = |tuple| decide(vec![deny("d", just(m.clone()))], &[], &tuple).denial().is_some();
    (denies(tuple()), denies(anonymous()))
}

#[test]
fn addresses_and_ports() {
    let (yes, no) = ((true, true), (false, false));
    let source = |group| Match { source_ips: group, ..Match::default() };
    let destination = |group| Match { destination_ips: group, ..Match::default() };
    let ports = |group| Match { destination_ports: group, ..Match::default() };
    for (case, m, expected) in [
        ("source", source(any(nets(&["9.0.0.0/8", "10.0.0.1/32"]))), yes),
        ("not that source", source(any(nets(&["10.0.0.2/32"]))), no),
        ("another family", source(any(nets(&["::/0"]))), no),
        ("everybody", source(any(nets(&["0.0.0.0/0"]))), yes),
        ("but for that source", source(none(nets(&["10.0.0.0/24"]))), no),
        ("but for others", source(none(nets(&["10.0.0.2/32"]))), yes),
        ("destination", destination(any(nets(&["10.0.0.2/32"]))), yes),
        ("not that destination", destination(any(nets(&["10.0.0.1/32"]))), no),
        ("but for that destination", destination(none(nets(&["10.0.0.2/31"]))), no),
        ("port", ports(any(vec![79, 80])), yes),
        ("not that port", ports(any(vec![79, 40000])), no),
        ("but for that port", ports(none(vec![80])), no),
        ("but for others ports", ports(none(vec![81])), yes),
        ("both lists", ports(Group { any: vec![80, 81].into(), none: vec![80].into() }), no),
        ("two groups", Match { source_ips: any(nets(&["10.0.0.1/32"])), ..port(80) }, yes),
        ("one of two groups", Match { source_ips: any(nets(&["10.0.0.1/32"])), ..port(81) }, no),
    ] {
        assert_eq!(matches(m), expected, "{case}");
    }
}

#[test]
fn identities() {
    let principals = |group| Match { principals: group, ..Match::default() };
    let namespaces = |group| Match { namespaces: group, ..Match::default() };
    let accounts = |group| Match { service_accounts: group, ..Match::default() };
    // (what, match, with identity, without)
    for (case, m, with, without) in [
        ("principal", principals(any(vec![exact("td/ns/apps/sa/front")])), true, false),
        ("principal with its scheme", principals(any(vec![exact("spiffe://td/ns/apps/sa/front")])), false, false),
        ("in another case", principals(any(vec![exact("td/ns/apps/sa/Front")])), false, false),
        ("principal prefix", principals(any(vec![prefix("td/ns/apps/")])), true, false),
        ("principal suffix", principals(any(vec![suffix("/sa/front")])), true, false),
        ("any principal", principals(any(vec![StringMatch::Presence])), true, false),
        ("an empty prefix", principals(any(vec![prefix("")])), true, false),
        ("no principal at all: plain text", principals(none(vec![StringMatch::Presence])), false, true),
        ("but for one principal", principals(none(vec![exact("td/ns/apps/sa/front")])), false, true),
        ("but for another principal", principals(none(vec![exact("td/ns/apps/sa/back")])), true, true),
        ("namespace", namespaces(any(vec![exact("apps")])), true, false),
        ("namespace prefix", namespaces(any(vec![prefix("ap")])), true, false),
        ("namespace suffix", namespaces(any(vec![suffix("ps")])), true, false),
        ("another namespace", namespaces(any(vec![exact("app"), prefix("pps"), suffix("app")])), false, false),
        ("any namespace", namespaces(any(vec![StringMatch::Presence])), true, false),
        ("the empty namespace", namespaces(any(vec![exact("")])), false, true),
        ("an empty namespace prefix", namespaces(any(vec![prefix("")])), true, true),
        ("but for a namespace", namespaces(none(vec![exact("apps")])), false, true),
        ("service account", accounts(any(vec![account("apps", "front")])), true, false),
        ("of another namespace", accounts(any(vec![account("ns", "front")])), false, false),
        ("another of its namespace", accounts(any(vec![account("apps", "back")])), false, false),
        ("but for a service account", accounts(none(vec![account("apps", "front")])), false, true),
        ("but for one of that name elsewhere", accounts(none(vec![account("ns", "front")])), true, true),
        ("but for another of its namespace", accounts(none(vec![account("apps", "back")])), true, true),
    ] {
        assert_eq!(matches(m), (with, without), "{case}");
    }
}

#[test]
fn what_could_not_be_read_denies() {
    let unreadable = |elements: Vec<u16>| List { elements, unreadable: 1 };
    let only_any = |list| Match { destination_ports: Group { any: list, none: List::default() }, ..Match::default() };
    let only_none = |list| Match { destination_ports: Group { any: List::default(), none: list }, ..Match::default() };
    let elsewhere = || nets(&["9.0.0.0/8"]);
    // (what, match, does it as DENY, does it as ALLOW)
    for (case, m, denies, allows) in [
        ("nothing readable", only_any(unreadable(vec![])), true, false),
        ("what is readable matches", only_any(unreadable(vec![80])), true, true),
        ("what is readable does not", only_any(unreadable(vec![81])), true, false),
        ("nothing readable, negated", only_none(unreadable(vec![])), true, false),
        ("what is readable matches, negated", only_none(unreadable(vec![80])), false, false),
        ("what is readable does not, negated", only_none(unreadable(vec![81])), true, false),
        (
            "another group settles it",
            Match { source_ips: any(elsewhere()), ..only_any(unreadable(vec![])) },
            false,
            false,
        ),
    ] {
        assert_eq!(
            decide(vec![deny("d", just(m.clone()))], &[], &tuple()).denial().is_some(),
            denies,
            "{case}, as DENY"
        );
        assert_eq!(decide(vec![allow("a", just(m))], &[], &tuple()).denial().is_none(), allows, "{case}, as ALLOW");
    }
    let settled = rule(vec![vec![only_any(unreadable(vec![])), port(80)]]);
    assert_eq!(words(&decide(vec![allow("a", vec![settled])], &[], &tuple())), "allow policy match: ns/a rule 0");
}

#[test]
fn a_policy_that_is_referred_to_and_not_known_denies_unless_told_otherwise() {
    let refers = ["ns/there", "ns/gone"];
    let there = |policy| scoped(PolicyScope::WorkloadSelector, policy);
    let unknown = decide(vec![there(allow("there", always()))], &refers, &tuple());
    assert_eq!(
        unknown.denial().map(|d| d.to_string()).unwrap(),
        "policy ns/gone applies to the workload but is not known yet"
    );
    let denied = decide(vec![there(deny("there", always()))], &refers, &tuple());
    assert_eq!(words(&denied), "deny policy match: ns/there rule 0", "a reason that is known is the better one");

    let view = view([there(allow("there", always())).into(), server(&refers).into()]);
    let skipping = evaluate(&view, &held(&view, "server"), &tuple(), UnknownPolicy::Skip);
    assert_eq!(
        (words(&skipping).as_str(), &skipping.skipped[..]),
        ("allow policy match: ns/there rule 0", &["ns/gone".into()][..])
    );
}

#[test]
fn whichever_policy_decided_is_put_on_record() {
    let told = |policies, refers_to: &[&str]| {
        let verdict = decide(policies, refers_to, &tuple());
        let denied = verdict.denial().and_then(|denial| Decided::of_denial(&denial));
        (Decided::of(&verdict.decision), denied)
    };
    let by = |policy: &str, rule| Some(Decided { policy: policy.into(), rule });
    assert_eq!(told(vec![allow("a", always())], &[]), (by("ns/a", Some(0)), None));
    let second = vec![rule(vec![vec![port(1)]]), rule(vec![])];
    assert_eq!(told(vec![deny("d", second)], &[]), (by("ns/d", Some(1)), by("ns/d", Some(1))));
    assert_eq!(told(vec![], &["ns/gone"]), (by("ns/gone", None), by("ns/gone", None)));
    assert_eq!(told(vec![], &[]), (None, None));
    assert_eq!(told(vec![allow("a", never())], &[]), (None, None));
}

fn admission(view: &View, identity: Option<&Identity>, unknown_policy: UnknownPolicy) -> Admission {
    let settings = crate::admit::AdmitSettings {
        network: NETWORK.into(),
        illegal_ports: vec![],
        preserve_source: false,
        localhost_app_tunnel: false,
        baggage: false,
        unknown_policy,
        on_demand: false,
    };
    let request = crate::admit::HboneRequest {
        peer: socket("10.0.0.1:40000"),
        local: socket("10.0.0.2:15008"),
        identity,
        method: "CONNECT",
        authority: "10.0.0.2:80",
        baggage: &[],
        forwarded: None,
        forwarded_network: None,
    };
    crate::admit::admit_hbone(view, &held(view, "server"), &request, &Learnt::default(), &settings).unwrap()
}

#[test]
fn a_denial_gives_the_admission_back_and_says_what_to_wait_for() {
    let mut state = State::new(None);
    let _ = state.apply([server(&["ns/late"]).into()]);
    let identity = tuple().identity;
    let denied =
        authorize(&state.view(), admission(&state.view(), identity.as_ref(), UnknownPolicy::Deny)).unwrap_err();
    assert_eq!(denied.refusal.need(), Some(Need::Policy("ns/late".into())));
    assert_eq!((denied.refusal.status(), denied.refusal.flag()), (401, ResponseFlag::Deny));

    let late = scoped(PolicyScope::WorkloadSelector, allow("late", always()));
    let _ = state.apply([late.clone().into()]);
    let skipping =
        authorize(&State::new(None).view(), admission(&state.view(), identity.as_ref(), UnknownPolicy::Skip));
    assert!(skipping.expect("unless nobody waits").standing().unwrap().recheck(&State::new(None).view()).is_ok());
    let permit = authorize(&state.view(), denied.admission).expect("it is known by now and allows");
    assert_eq!(permit.hop().dial(), socket("10.0.0.2:80"));

    let _ = state.apply([Policy { rules: never(), ..late }.into()]);
    let denied =
        authorize(&state.view(), admission(&state.view(), identity.as_ref(), UnknownPolicy::Deny)).unwrap_err();
    assert_eq!(
        denied.refusal.to_string(),
        "connection closed due to policy rejection: allow policies exist, but none allowed"
    );
    assert_eq!(denied.refusal.need(), None);
}

#[test]
fn a_permit_is_rechecked_against_policies_and_the_workload_of_now() {
    let mut state = State::new(None);
    let _ = state.apply([server(&[]).into()]);
    let view = state.view();
    let permit = authorize(&view, admission(&view, None, UnknownPolicy::Deny)).unwrap().standing().unwrap();
    assert_eq!(permit.recheck(&state.view()), Ok(()));

    let _ = state.apply([deny("d", always()).into()]);
    let refused = permit.recheck(&state.view()).unwrap_err();
    assert_eq!(refused.to_string(), "connection closed due to policy change");
    assert_eq!(refused.flag(), ResponseFlag::Deny);
    assert_eq!(permit.recheck(&view), Ok(()), "the older view still says yes");

    let _ = state.apply([Change::RemovePolicy("ns/d".into())]);
    assert_eq!(permit.recheck(&state.view()), Ok(()));

    let selected = scoped(PolicyScope::WorkloadSelector, deny("d", always()));
    let _ = state.apply([selected.into()]);
    assert_eq!(permit.recheck(&state.view()), Ok(()));
    let _ = state.apply([server(&["ns/d"]).into()]);
    assert!(permit.recheck(&state.view()).is_err(), "the workload is selected only now");

    let _ = state.apply([Change::RemoveWorkload(server(&[]).uid)]);
    assert_eq!(permit.recheck(&state.view()), Ok(()), "it is judged as it was when it was admitted");

    let _ = state.apply([server(&["ns/late"]).into()]);
    assert_eq!(permit.recheck(&state.view()).unwrap_err().need(), Some(Need::Policy("ns/late".into())));
}

/// Whether a policy matches, by the definition alone. What could not be read is what `unread` says, one by one.
fn naive(policy: &Policy, tuple: &Tuple, unread: &mut dyn FnMut() -> bool) -> bool {
    fn list<T>(list: &List<T>, hit: &dyn Fn(&T) -> bool, unread: &mut dyn FnMut() -> bool) -> Vec<bool> {
        let read = list.elements.iter().map(hit);
        read.chain((0..list.unreadable).map(|_| unread())).collect()
    }
    fn group<T>(group: &Group<T>, hit: &dyn Fn(&T) -> bool, unread: &mut dyn FnMut() -> bool) -> bool {
        let any = list(&group.any, hit, unread);
        let none = list(&group.none, hit, unread);
        (any.is_empty() || any.contains(&true)) && !none.contains(&true)
    }
    let text = |pattern: &StringMatch, text: &str| match pattern {
        StringMatch::Exact(wanted) => text == &**wanted,
        StringMatch::Prefix(wanted) => text.starts_with(&**wanted),
        StringMatch::Suffix(wanted) => text.ends_with(&**wanted),
        StringMatch::Presence => !text.is_empty(),
    };
    let id = tuple.identity.as_ref();
    let principal = id.map(|i| format!("{}/ns/{}/sa/{}", i.trust_domain, i.namespace, i.service_account));
    let namespace = id.map_or(String::new(), |i| i.namespace.to_string());
    // Nothing is skipped anywhere, so that every unread value is asked for exactly once.
    let mut one = |m: &Match| {
        let groups = [
            group(&m.namespaces, &|p| text(p, &namespace), unread),
            group(&m.principals, &|p| principal.as_ref().is_some_and(|principal| text(p, principal)), unread),
            group(
                &m.service_accounts,
                &|a| id.is_some_and(|i| i.namespace == a.namespace && i.service_account == a.service_account),
                unread,
            ),
            group(&m.source_ips, &|net| net.contains(&tuple.source.ip()), unread),
            group(&m.destination_ips, &|net| net.contains(&tuple.destination.ip()), unread),
            group(&m.destination_ports, &|port| *port == tuple.destination.port(), unread),
        ];
        *m != Match::default() && groups.iter().all(|group| *group)
    };
    let rules: Vec<bool> = policy
        .rules
        .iter()
        .map(|rule| {
            let clauses = rule.clauses.iter().map(|clause| {
                let matches: Vec<bool> = clause.matches.iter().map(&mut one).collect();
                matches.is_empty() || matches.contains(&true)
            });
            !clauses.collect::<Vec<_>>().contains(&false)
        })
        .collect();
    rules.contains(&true)
}

fn random_list<T>(seed: &mut Seed, of: impl Fn(&mut Seed) -> T) -> List<T> {
    if !seed.one_in(5) {
        return List::default();
    }
    let elements = (0..seed.below(3)).map(|_| of(seed)).collect();
    List { elements, unreadable: usize::from(seed.one_in(8)) }
}

fn random_group<T>(seed: &mut Seed, of: impl Fn(&mut Seed) -> T) -> Group<T> {
    Group { any: random_list(seed, &of), none: random_list(seed, &of) }
}

fn random_text(seed: &mut Seed, of: &[&str]) -> StringMatch {
    let text = seed.pick(of);
    match seed.below(4) {
        0 => exact(text),
        1 => prefix(text),
        2 => suffix(text),
        _ => StringMatch::Presence,
    }
}

fn random_match(seed: &mut Seed) -> Match {
    let net = |seed: &mut Seed| {
        seed.pick(&["10.0.0.1/32", "10.0.0.0/24", "10.0.0.2/32", "0.0.0.0/0", "::/0"]).parse().unwrap()
    };
    Match {
        namespaces: random_group(seed, |seed| random_text(seed, &["apps", "ap", "ps", ""])),
        principals: random_group(seed, |seed| random_text(seed, &["td/ns/apps/sa/front", "td/", "front", ""])),
        service_accounts: random_group(seed, |seed| account(seed.pick(&["apps", "ns"]), seed.pick(&["front", "back"]))),
        source_ips: random_group(seed, net),
        destination_ips: random_group(seed, net),
        destination_ports: random_group(seed, |seed| seed.pick(&[80, 81])),
    }
}

fn random_policy(seed: &mut Seed, name: &str) -> Policy {
    let mut many = |most: u64| 0..seed.below(most + 1);
    let (rules, clauses, matches) = (many(2), many(2), many(2));
    let rules =
        rules.map(|_| rule(clauses.clone().map(|_| matches.clone().map(|_| random_match(seed)).collect()).collect()));
    let rules = rules.collect();
    let action = seed.pick(&[Action::Allow, Action::Deny]);
    let dry_run = if seed.one_in(5) { DryRun::DryRun } else { DryRun::Enforced };
    Policy { dry_run, ..policy(name, action, rules) }
}

/// Whether the enforced policies let a connection pass, by the definition alone.
fn naively_allowed(policies: &[Policy], tuple: &Tuple, unread: &mut dyn FnMut() -> bool) -> bool {
    let mut matching = |action| {
        let of = policies.iter().filter(|p| p.action == action && p.dry_run == DryRun::Enforced);
        of.map(|policy| naive(policy, tuple, unread)).collect::<Vec<_>>()
    };
    let (denials, allowances) = (matching(Action::Deny), matching(Action::Allow));
    !denials.contains(&true) && (allowances.is_empty() || allowances.contains(&true))
}

#[test]
fn any_policies_decide_as_defined_and_what_is_unread_is_taken_for_the_worst() {
    let (mut allowed, mut denied, mut doubtful) = (0, 0, 0);
    for number in 0..30_000 {
        let mut seed = Seed(number);
        let policies: Vec<Policy> =
            (0..seed.below(4)).map(|index| random_policy(&mut seed, &format!("p{index}"))).collect();
        let tuple = if seed.one_in(3) { anonymous() } else { tuple() };
        let mut values = 0_u32;
        naively_allowed(&policies, &tuple, &mut || {
            values += 1;
            false
        });
        let worlds = 1_u64 << values.min(12);
        let passes = (0..worlds).filter(|world| {
            let mut bits = *world;
            naively_allowed(&policies, &tuple, &mut || {
                let bit = bits & 1 == 1;
                bits >>= 1;
                bit
            })
        });
        let passes = u64::try_from(passes.count()).unwrap();
        let expected = passes == worlds;
        let verdict = decide(policies.clone(), &[], &tuple);
        assert_eq!(verdict.denial().is_none(), expected, "seed {number}: {policies:#?}\n{tuple:?}\n{verdict:?}");
        match passes {
            0 => denied += 1,
            _ if expected => allowed += 1,
            _ => doubtful += 1,
        }
    }
    assert!(allowed > 1_000 && denied > 1_000 && doubtful > 100, "{allowed} {denied} {doubtful}");
}

#[test]
fn many_references_decide_as_each_of_them_looked_at() {
    let here = crate::name::NodeName::from("here");
    let key = |number| format!("ns/p{number:02}");
    let (mut compared, mut found, mut missed) = (0, 0, 0);
    for number in 0..60 {
        let (mut seed, mut state) = (Seed(number), State::new(Some(here.clone())));
        for _ in 0..120 {
            let name = format!("p{:02}", seed.below(40));
            let of = pod(seed.pick(&["a", "b", "c"]), &["10.0.0.2"]);
            let change = match seed.below(8) {
                0 => Change::RemovePolicy(format!("ns/{name}").as_str().into()),
                1..=4 => scoped(PolicyScope::WorkloadSelector, random_policy(&mut seed, &name)).into(),
                5 => Change::RemoveWorkload(of.uid),
                _ => {
                    // Often the same lists, sometimes short ones.
                    let (from, count) = (10 * seed.below(2), seed.pick(&[3, 20, 25]));
                    let references = (from..from + count).map(|number| key(number).as_str().into()).collect();
                    let node = if seed.one_in(5) { "there".into() } else { here.clone() };
                    Workload { authorization_policies: references, node, ..of }.into()
                }
            };
            let _ = state.apply([change]);
            let view = state.view();
            for workload in view.workloads() {
                // A list that is not the one that was announced has no selection.
                let references = workload.authorization_policies.iter().cloned().collect();
                let alike = Workload { authorization_policies: references, ..Workload::clone(workload) };
                assert!(view.selection(&alike).is_none());
                let many = workload.node == here && workload.authorization_policies.len() > 3;
                assert_eq!(view.selection(workload).is_some(), many, "seed {number}: {workload:?}");
                for unknown in [UnknownPolicy::Skip, UnknownPolicy::Deny] {
                    let verdict = evaluate(&view, workload, &tuple(), unknown);
                    assert_eq!(verdict, evaluate(&view, &alike, &tuple(), unknown), "seed {number}");
                    if many {
                        compared += 1;
                        found += u32::from(matches!(verdict.decision, Decision::Allowed(_) | Decision::Denied(_)));
                        missed += u32::from(matches!(verdict.decision, Decision::Unknown(_)));
                    }
                }
            }
        }
    }
    assert!(compared > 5_000 && found > 1_000 && missed > 1_000, "{compared} {found} {missed}");
}

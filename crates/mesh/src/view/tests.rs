//! Whatever the order of announcements, a view holds what was said last and nothing else.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use super::policies::Probe;
use super::*;
use crate::fixture::{NETWORK, Seed, ip, key, pod, ports, service, view};
use crate::policy::{Action, DryRun, PolicyScope, Rule};
use crate::service::{HealthPolicy, LoadBalancer, Mode, NetworkCidr, Scope, Visibility};
use crate::workload::{Health, NetworkMode, Protocol};

fn at(text: &str) -> NetworkAddress {
    text.parse().unwrap()
}

fn names<'a>(workloads: impl IntoIterator<Item = &'a Arc<Workload>>) -> Vec<String> {
    let mut names: Vec<_> = workloads.into_iter().map(|workload| workload.name.to_string()).collect();
    names.sort();
    names
}

fn endpoints(view: &View, service: &str) -> Vec<String> {
    names(view.endpoints(&key(service)).map(|endpoint| endpoint.workload))
}

fn apply(state: &mut State, changes: impl IntoIterator<Item = Change>) -> View {
    let _ = state.apply(changes);
    state.view()
}

#[test]
fn of_workloads_at_one_address_the_likeliest_is_meant() {
    let entry =
        |name: &str| Workload { uid: format!("c/WorkloadEntry/{name}").as_str().into(), ..pod(name, &["10.0.0.1"]) };
    let plain = |workload: Workload| Workload { protocol: Protocol::Tcp, ..workload };
    let shared = |name: &str| pod(name, &["10.0.0.1"]);
    let versionless = |name: &str| Workload { uid: format!("c//Pod/ns/{name}").as_str().into(), ..plain(shared(name)) };
    let cases = [
        ("a pod in the mesh", vec![plain(shared("b")), shared("a"), entry("c")], "a"),
        ("a pod", vec![plain(shared("b")), entry("c"), plain(entry("d"))], "b"),
        ("a pod, its group written without a version", vec![versionless("b"), entry("c")], "b"),
        ("one in the mesh", vec![plain(entry("d")), entry("c"), plain(entry("e"))], "c"),
        ("the latest", vec![shared("a"), shared("b")], "b"),
        ("the latest, whatever is updated", vec![shared("a"), shared("b"), shared("a")], "b"),
    ];
    for (case, workloads, expected) in cases {
        let view = view(workloads.into_iter().map(Change::from));
        assert_eq!(&*view.workload_at(&at("net1/10.0.0.1")).unwrap().name, expected, "{case}");
    }
}

#[test]
fn removing_one_of_several_uncovers_the_others() {
    let mut state = State::new(None);
    let view = apply(&mut state, [pod("a", &["10.0.0.1"]).into(), pod("b", &["10.0.0.1"]).into()]);
    assert_eq!(names(view.workloads_at(&at("net1/10.0.0.1"))), ["a", "b"]);
    let view = apply(&mut state, [Change::RemoveWorkload(pod("b", &[]).uid)]);
    assert_eq!(&*view.workload_at(&at("net1/10.0.0.1")).unwrap().name, "a");
    let view = apply(&mut state, [Change::RemoveWorkload(pod("a", &[]).uid)]);
    assert!(view.workload_at(&at("net1/10.0.0.1")).is_none());
}

#[test]
fn an_updated_workload_is_found_by_what_it_is_now_only() {
    let mut state = State::new(None);
    let old = Workload { hostname: "old.example".into(), ..pod("a", &["10.0.0.1", "10.0.0.2"]) };
    let new = Workload { hostname: "new.example".into(), ..pod("a", &["10.0.0.2", "10.0.0.3"]) };
    let before = apply(&mut state, [old.of("ns/x", &[]).of("ns/y", &[]).into()]);
    let after = apply(&mut state, [new.of("ns/y", &[(1, 2)]).of("ns/z", &[]).into()]);
    let found = |view: &View| {
        let addresses = ["net1/10.0.0.1", "net1/10.0.0.2", "net1/10.0.0.3"];
        let hosts = ["ns/old.example", "ns/new.example"];
        let services = ["ns/x", "ns/y", "ns/z"];
        (
            addresses.map(|address| view.workload_at(&at(address)).is_some()),
            hosts.map(|host| view.workload_named(&key(host)).is_some()),
            services.map(|service| endpoints(view, service).len()),
        )
    };
    assert_eq!(found(&after), ([false, true, true], [false, true], [0, 1, 1]));
    assert_eq!(after.endpoint(&key("ns/y"), &pod("a", &[]).uid).unwrap().ports.get(1), Some(2));
    assert_eq!(found(&before), ([true, true, false], [true, false], [1, 1, 0]), "the older view is as it was");
}

#[test]
fn host_network_workloads_are_endpoints_without_an_address_of_their_own() {
    let view =
        view([Workload { network_mode: NetworkMode::HostNetwork, ..pod("a", &["10.0.0.1"]).of("ns/x", &[]) }.into()]);
    assert!(view.workload_at(&at("net1/10.0.0.1")).is_none());
    assert_eq!(endpoints(&view, "ns/x"), ["a"]);
}

#[test]
fn addresses_mean_something_only_in_their_network() {
    let view = view([pod("a", &["10.0.0.1"]).into()]);
    assert!(view.workload_at(&at("/10.0.0.1")).is_none());
    assert!(view.workload_at(&NetworkAddress::new(NETWORK.into(), ip("::ffff:10.0.0.1"))).is_some());
}

#[test]
fn the_local_workload_is_of_this_node_and_of_all_three_names() {
    let on = |node: &str| Workload { node: node.into(), ..pod("a", &[]) };
    let who = pod("a", &[]).local();
    let mut here = State::new(Some("n1".into()));
    let found = |state: &mut State, node: &str| apply(state, [on(node).into()]).local(&who).is_some();
    assert!(!found(&mut here, "n2"));
    assert!(found(&mut here, "n1"));
    assert!(!found(&mut here, "n2"), "it has moved away");
    assert!(found(&mut State::new(None), "n2"), "without a node all are local");
    let view = view([on("n1").into()]);
    for other in [
        LocalWorkload { name: "b".into(), ..who.clone() },
        LocalWorkload { namespace: "b".into(), ..who.clone() },
        LocalWorkload { service_account: "b".into(), ..who.clone() },
    ] {
        assert!(view.local(&other).is_none(), "{other}");
    }
}

#[test]
fn endpoints_outlive_their_service_and_wait_for_it() {
    let mut state = State::new(None);
    let web = || Change::from(service("web", &[], &[(80, 1)]));
    let member = || pod("a", &["10.0.0.1"]).of("ns/web.example", &[]);
    let view = apply(&mut state, [member().into()]);
    assert_eq!(view.staged().map(ToString::to_string).collect::<Vec<_>>(), ["ns/web.example"]);
    let view = apply(&mut state, [web()]);
    assert_eq!((view.staged().count(), endpoints(&view, "ns/web.example")), (0, vec!["a".to_owned()]));
    let view = apply(&mut state, [Change::RemoveService(key("ns/web.example")), web()]);
    assert_eq!(endpoints(&view, "ns/web.example"), ["a"]);
    let second = pod("b", &["10.0.0.2"]).of("ns/web.example", &[]);
    let view = apply(&mut state, [second.clone().into(), Change::RemoveWorkload(second.uid)]);
    assert_eq!(endpoints(&view, "ns/web.example"), ["a"], "one of two has left");
    let view = apply(&mut state, [Change::RemoveWorkload(member().uid)]);
    assert_eq!(endpoints(&view, "ns/web.example"), [""; 0]);
    let view = apply(&mut state, [Change::RemoveService(key("ns/web.example"))]);
    assert_eq!((view.staged().count(), view.services().count()), (0, 0));
}

#[test]
fn changes_of_one_batch_take_effect_in_their_order() {
    let member = || pod("a", &["10.0.0.1"]).of("ns/web.example", &[]);
    let gone = || Change::RemoveWorkload(member().uid);
    let view = |changes: Vec<Change>| endpoints(&view(changes), "ns/web.example").len();
    assert_eq!(view(vec![member().into(), gone()]), 0, "no endpoint dangles");
    assert_eq!(view(vec![gone(), member().into()]), 1);
}

#[test]
fn services_that_share_a_vip_survive_each_other() {
    let mut state = State::new(None);
    let at_vip = |name: &str| service(name, &["net1/10.1.0.1"], &[]);
    let found =
        |view: &View| view.service_at(&at("net1/10.1.0.1"), Some(&"ns".into())).map(|service| service.name.to_string());
    let view = apply(&mut state, [at_vip("a").into(), at_vip("b").into()]);
    assert_eq!(found(&view).as_deref(), Some("b"));
    let view = apply(&mut state, [Change::RemoveService(at_vip("b").key())]);
    assert_eq!(found(&view).as_deref(), Some("a"));
    let view = apply(&mut state, [at_vip("b").into(), Change::RemoveService(at_vip("a").key())]);
    assert_eq!(found(&view).as_deref(), Some("b"));
    let view = apply(&mut state, [Change::RemoveService(at_vip("b").key())]);
    assert_eq!(found(&view), None);
}

#[test]
fn ranges_follow_their_service() {
    let mut state = State::new(None);
    let ranged = |ranges: &[&str]| {
        let cidr = |text: &&str| NetworkCidr { network: NETWORK.into(), cidr: text.parse().unwrap() };
        service("web", &[], &[]).with(|extra| extra.cidr_vips = ranges.iter().map(cidr).collect())
    };
    let covers = |view: &View, ip: &str| view.service_at(&at(ip), None).is_some();
    let view = apply(&mut state, [ranged(&["10.0.0.9/8", "fd00::/8"]).into()]);
    assert!(covers(&view, "net1/10.255.0.1") && covers(&view, "net1/fd12::1"));
    assert!(!covers(&view, "net1/11.0.0.1") && !covers(&view, "net2/10.0.0.1") && !covers(&view, "net1/fe12::1"));
    let view = apply(&mut state, [ranged(&["10.0.0.0/16", "0.0.0.0/0"]).into()]);
    assert!(covers(&view, "net1/11.0.0.1") && !covers(&view, "net1/fd12::1"));
    let view = apply(&mut state, [pod("a", &["10.7.0.1"]).of("ns/web.example", &[]).into()]);
    assert!(covers(&view, "net1/10.0.0.1"));
    let view = apply(&mut state, [Change::RemoveService(key("ns/web.example"))]);
    assert!(!covers(&view, "net1/10.0.0.1") && !covers(&view, "net1/11.0.0.1"));
}

#[test]
fn host_names_are_found_for_who_may_see_them() {
    let of = |namespace: &str, visibility| {
        let named = Service { namespace: namespace.into(), visibility, ..service("web", &[], &[]) };
        Service { hostname: "Web.Example".into(), ..named }
    };
    let view = view([of("a", Visibility::Public).into(), of("ns", Visibility::Namespace).into()]);
    let found =
        |client: &str| view.service_named(&"web.example.".into(), &client.into()).unwrap().namespace.to_string();
    assert_eq!((found("ns").as_str(), found("other").as_str()), ("ns", "a"));
    assert_eq!(view.services_named(&"web.example".into()).len(), 2);
    assert!(view.service_named(&"nobody.example".into(), &"ns".into()).is_none());
}

#[test]
fn what_was_applied_is_counted_and_what_was_not_there_is_named() {
    let mut state = State::new(None);
    let applied = state.apply([
        pod("a", &[]).into(),
        service("web", &[], &[]).into(),
        Change::RemoveService(key("ns/nobody")),
        Change::RemoveWorkload("nobody".into()),
        Change::RemovePolicy("nobody".into()),
    ]);
    assert_eq!(applied, Applied { workloads: 1, services: 1, policies: 0, absent: vec![key("ns/nobody")] });

    let policy = Policy {
        key: "ns/p".into(),
        name: "p".into(),
        namespace: "ns".into(),
        scope: PolicyScope::Global,
        action: Action::Allow,
        dry_run: DryRun::Enforced,
        rules: vec![],
    };
    let applied = state.apply([
        pod("b", &[]).into(),
        Change::RemoveWorkload(pod("a", &[]).uid),
        policy.into(),
        Change::RemovePolicy("ns/p".into()),
        service("api", &[], &[]).into(),
        Change::RemoveService(key("ns/web.example")),
    ]);
    assert_eq!(applied, Applied { workloads: 2, services: 2, policies: 2, absent: vec![] });
}

/// Everything that a view says, in an order that does not depend on how it came about.
#[derive(Debug, PartialEq)]
struct Said {
    workloads: BTreeMap<String, Workload>,
    services: BTreeMap<String, Service>,
    policies: BTreeMap<String, Policy>,
    at: BTreeMap<String, Vec<String>>,
    vips: BTreeMap<String, BTreeSet<String>>,
    in_ranges: BTreeMap<String, bool>,
    endpoints: BTreeMap<String, Vec<(String, PortMap)>>,
    staged: BTreeSet<String>,
    locals: Vec<bool>,
    over: Vec<Vec<String>>,
}

const ADDRESSES: [&str; 4] = ["10.0.0.1", "10.0.0.2", "10.1.0.1", "fd00::1"];
const SERVICES: [&str; 3] = ["ns/a.example", "ns/b.example", "other/a.example"];
const PODS: [&str; 4] = ["p", "q", "r", "s"];

fn said(view: &View) -> Said {
    let addresses = || ADDRESSES.iter().map(|ip| at(&format!("{NETWORK}/{ip}")));
    let shown = |address: &NetworkAddress| address.to_string();
    let sorted = |endpoints: &mut Vec<(String, PortMap)>| endpoints.sort_by(|a, b| a.0.cmp(&b.0));
    Said {
        workloads: view.workloads().map(|w| (w.uid.to_string(), Workload::clone(w))).collect(),
        services: view.services().map(|s| (s.key().to_string(), Service::clone(s))).collect(),
        policies: view.policies().map(|p| (p.key.to_string(), Policy::clone(p))).collect(),
        at: addresses().map(|address| (shown(&address), names(view.workloads_at(&address)))).collect(),
        vips: addresses()
            .map(|address| {
                let slot = view.vips.get(&address).map_or(&[][..], Slot::as_slice);
                (shown(&address), slot.iter().map(|service| service.key().to_string()).collect())
            })
            .collect(),
        in_ranges: addresses().map(|address| (shown(&address), view.cidrs.best(&address, None).is_some())).collect(),
        endpoints: SERVICES
            .iter()
            .map(|service| {
                let all = view.endpoints(&key(service));
                let mut all: Vec<_> = all.map(|e| (e.workload.uid.to_string(), e.ports.clone())).collect();
                sorted(&mut all);
                ((*service).to_owned(), all)
            })
            .collect(),
        staged: view.staged().map(ToString::to_string).collect(),
        locals: PODS.iter().map(|name| view.local(&pod(name, &[]).local()).is_some()).collect(),
        over: ["ns", "other"]
            .iter()
            .map(|namespace| {
                let (nowhere, mut found) = (Ipv4Addr::UNSPECIFIED.into(), Vec::new());
                let probe = Probe { source: nowhere, destination: nowhere, port: 0, account: None, principal: None };
                view.policies_over(&(*namespace).into()).for_each(|set| set.find(&probe, &mut found));
                found.into_iter().map(|policy| policy.key.to_string()).collect()
            })
            .collect(),
    }
}

fn random_change(seed: &mut Seed) -> Change {
    let name = seed.pick(&PODS);
    let service_key = key(seed.pick(&SERVICES));
    let policy_key = seed.pick(&["ns/x", "ns/y"]);
    match seed.below(9) {
        0 => Change::RemoveWorkload(pod(name, &[]).uid),
        1 => Change::RemoveService(service_key),
        2 => Change::RemovePolicy(policy_key.into()),
        3 => Policy {
            key: policy_key.into(),
            name: "p".into(),
            namespace: seed.pick(&["ns", "other"]).into(),
            scope: seed.pick(&[PolicyScope::Global, PolicyScope::Namespace, PolicyScope::WorkloadSelector]),
            action: Action::Allow,
            dry_run: DryRun::Enforced,
            rules: vec![Rule::default()],
        }
        .into(),
        4 | 5 => {
            let mut changed = Service { ports: ports(&[(80, 80)]), ..Service::new(service_key) };
            let random = |seed: &mut Seed| at(&format!("{NETWORK}/{}", seed.pick(&ADDRESSES)));
            changed.vips = (0..seed.below(3)).map(|_| random(seed)).collect();
            let ranges = ["10.0.0.0/8", "10.1.0.0/16", "fd00::/8"];
            let cidr = |seed: &mut Seed| seed.pick(&ranges).parse().unwrap();
            changed.extras.cidr_vips =
                (0..seed.below(3)).map(|_| NetworkCidr { network: NETWORK.into(), cidr: cidr(seed) }).collect();
            changed.extras.load_balancer = seed.one_in(2).then(|| LoadBalancer {
                preferences: vec![Scope::Network, Scope::Zone],
                mode: Mode::Failover,
                health: seed.pick(&[HealthPolicy::OnlyHealthy, HealthPolicy::AllowAll]),
            });
            changed.into()
        }
        _ => {
            let mut changed = pod(name, &[]);
            changed.addresses = (0..seed.below(3)).map(|_| ip(seed.pick(&ADDRESSES))).collect();
            changed.status = seed.pick(&[Health::Healthy, Health::Unhealthy]);
            changed.node = seed.pick(&["n1", "n2"]).into();
            changed.network_mode = seed.pick(&[NetworkMode::Standard, NetworkMode::Standard, NetworkMode::HostNetwork]);
            for service in SERVICES {
                if seed.one_in(2) {
                    changed = changed.of(service, seed.pick(&[&[][..], &[(80, 1)]]));
                }
            }
            changed.into()
        }
    }
}

#[test]
fn any_history_comes_to_the_same_as_its_last_words() {
    for number in 0..3_000 {
        let mut seed = Seed(number);
        let mut state = State::new(Some("n1".into()));
        let mut last: BTreeMap<String, Change> = BTreeMap::new();
        for _ in 0..seed.below(25) {
            let change = random_change(&mut seed);
            let (about, object) = match &change {
                Change::Workload(w) => (format!("w {}", w.uid), true),
                Change::RemoveWorkload(uid) => (format!("w {uid}"), false),
                Change::Service(s) => (format!("s {}", s.key()), true),
                Change::RemoveService(key) => (format!("s {key}"), false),
                Change::Policy(p) => (format!("p {}", p.key), true),
                Change::RemovePolicy(key) => (format!("p {key}"), false),
            };
            let _ = state.apply([change.clone()]);
            last.remove(&about);
            if object {
                last.insert(about, change);
            }
        }
        let mut fresh = State::new(Some("n1".into()));
        let _ = fresh.apply(last.into_values());
        assert_eq!(said(&state.view()), said(&fresh.view()), "seed {number}");
    }
}

#[test]
fn changes_that_come_all_at_once_come_to_the_same_as_one_after_the_other() {
    for number in 0..3_000 {
        let mut seed = Seed(number);
        let changes: Vec<Change> = (0..seed.below(25)).map(|_| random_change(&mut seed)).collect();
        let (mut at_once, mut one_by_one) = (State::new(Some("n1".into())), State::new(Some("n1".into())));
        let applied = at_once.apply(changes.clone());
        let each: Vec<Applied> = changes.into_iter().map(|change| one_by_one.apply([change])).collect();
        assert_eq!(said(&at_once.view()), said(&one_by_one.view()), "seed {number}");
        assert_eq!(applied.workloads, each.iter().map(|applied| applied.workloads).sum::<usize>(), "seed {number}");
    }
}

use super::*;
use crate::fixture::{NETWORK, gateway, held, pod, service, socket, view};
use crate::policy::{Action, Clause, DryRun, Group, Match, Policy, PolicyScope, Rule};
use crate::view::Change;

fn forecast(view: &View, source: &str, target: &str) -> Forecast {
    let route = RouteSettings {
        network: NETWORK.into(),
        hbone_port: 15008,
        illegal_ports: vec![15001, 15006, 15008],
        on_demand: false,
    };
    let admit = AdmitSettings {
        network: NETWORK.into(),
        illegal_ports: route.illegal_ports.clone(),
        preserve_source: true,
        localhost_app_tunnel: true,
        baggage: true,
        unknown_policy: crate::UnknownPolicy::Deny,
        on_demand: false,
    };
    let source = held(view, source);
    let thought =
        Thought { view, source: &source, target: socket(target), route: &route, admit: &admit, now: Instant::now() };
    thought.forecast()
}

fn mesh(more: impl IntoIterator<Item = Change>) -> View {
    let plain = Workload { protocol: Protocol::Tcp, ..pod("plain", &["10.0.0.9"]) };
    let web = pod("web", &["10.0.0.2"]).of("ns/shop.example", &[(80, 8080)]);
    let all = [pod("client", &["10.0.0.1"]), web, plain].map(|w| Change::Workload(w.into()));
    let shop = Change::Service(service("shop", &["net1/10.1.0.1"], &[(80, 0)]).into());
    view(all.into_iter().chain([shop]).chain(more))
}

fn policy(action: Action) -> Change {
    let policy = Policy {
        key: "ns/strict".into(),
        name: "strict".into(),
        namespace: "ns".into(),
        scope: PolicyScope::Namespace,
        action,
        dry_run: DryRun::Enforced,
        rules: vec![Rule::default()],
    };
    Change::Policy(policy.into())
}

/// The arrival in words.
fn said(arrival: &Arrival) -> String {
    match arrival {
        Arrival::Judged(workload, verdict) => format!("{}: {}", workload.name, verdict.decision.as_str()),
        Arrival::Refused(workload, refusal) => format!("{}: {refusal}", workload.name),
        other => format!("{other:?}"),
    }
}

#[test]
fn a_connection_to_a_service_is_followed_to_the_policies_of_its_endpoint() {
    let forecast = forecast(&mesh([policy(Action::Deny)]), "client", "10.1.0.1:80");
    let Way::Route(route) = &forecast.way else { panic!("{forecast:?}") };
    assert_eq!(route.hop.dial(), socket("10.0.0.2:15008"));
    assert_eq!(said(&forecast.arrival), "web: deny policy match");
}

#[test]
fn without_policies_it_is_allowed() {
    let forecast = forecast(&mesh([]), "client", "10.0.0.2:8080");
    assert_eq!(said(&forecast.arrival), "web: no allow policies, allow");
}

#[test]
fn what_is_refused_here_arrives_nowhere() {
    let forecast = forecast(&mesh([]), "client", "10.1.0.1:81");
    assert!(matches!(&forecast.way, Way::Refused(Refusal::NoHealthyUpstream(_))), "{forecast:?}");
    assert_eq!(said(&forecast.arrival), "Nowhere");
}

#[test]
fn a_client_outside_the_mesh_arrives_in_plain_and_is_judged_without_an_identity() {
    let forecast = forecast(&mesh([policy(Action::Deny)]), "plain", "10.0.0.2:8080");
    assert!(matches!(forecast.way, Way::Plain));
    assert_eq!(said(&forecast.arrival), "web: deny policy match");
}

#[test]
fn a_client_outside_the_mesh_is_followed_to_pods_only() {
    let beside = Workload { protocol: Protocol::Tcp, ..pod("beside", &["10.0.0.8"]) };
    let view = mesh([policy(Action::Deny), Change::Workload(beside.into())]);
    let arrival = |target| said(&forecast(&view, "plain", target).arrival);
    assert_eq!(arrival("10.1.0.1:80"), "Elsewhere", "it is not for us to choose an endpoint");
    assert_eq!(arrival("10.0.0.8:80"), "Unenforced");
    assert_eq!(arrival("192.0.2.1:80"), "Unenforced");
}

#[test]
fn a_client_is_judged_by_its_address_of_the_targets_family() {
    let from = |range: &str| {
        let sources = vec![range.parse().unwrap()];
        let source_ips = Group { any: sources.into(), ..Group::default() };
        let m = Match { source_ips, ..Match::default() };
        let rules = vec![Rule { clauses: vec![Clause { matches: vec![m] }] }];
        let Change::Policy(policy) = policy(Action::Deny) else { unreachable!() };
        Change::Policy(Policy { rules, ..Policy::clone(&policy) }.into())
    };
    let dual = || [pod("dual", &["fd00::5", "10.0.0.5"]), pod("both", &["10.0.0.6", "fd00::6"])];
    let judged = |range: &str, target: &str| {
        let view = mesh([from(range)].into_iter().chain(dual().map(|pod| Change::Workload(pod.into()))));
        said(&forecast(&view, "dual", target).arrival)
    };
    assert_eq!(judged("10.0.0.5/32", "10.0.0.6:80"), "both: deny policy match");
    assert_eq!(judged("fd00::5/128", "10.0.0.6:80"), "both: no allow policies, allow");
    assert_eq!(judged("fd00::5/128", "[fd00::6]:80"), "both: deny policy match");
}

#[test]
fn nobody_judges_what_leaves_the_mesh() {
    for target in ["10.0.0.9:80", "192.0.2.1:443"] {
        assert_eq!(said(&forecast(&mesh([policy(Action::Deny)]), "client", target).arrival), "Unenforced", "{target}");
    }
}

#[test]
fn behind_a_waypoint_the_waypoint_decides() {
    let waypoint = pod("waypoint", &["10.0.0.7"]);
    let behind = Workload { waypoint: Some(gateway("net1/10.0.0.7", 15008).into()), ..pod("behind", &["10.0.0.3"]) };
    let view = mesh([Change::Workload(waypoint.into()), Change::Workload(behind.into())]);
    assert_eq!(said(&forecast(&view, "client", "10.0.0.3:80").arrival), "Elsewhere");
}

//! Where connections go, as decision tables: a mesh, a target, and the route in words.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::Instant;

use super::*;
use crate::ask::{Need, Replay, Resolution};
use crate::fixture::{NETWORK, NoDraw, Script, chances, gateway, held, ip, pod, service, socket, view};
use crate::refusal::Refusal;
use crate::retry::Failures;
use crate::service::{IpFamilies, LoadBalancer, Mode, Visibility};
use crate::view::Change;
use crate::workload::{ApplicationTunnel, Health, NetworkMode, Protocol, TunnelProtocol};

mod gateways;
mod waypoints;

/// What the operator set, unless a test says otherwise.
pub(super) fn settings() -> RouteSettings {
    RouteSettings {
        network: NETWORK.into(),
        hbone_port: 15008,
        illegal_ports: vec![15001, 15006, 15008],
        on_demand: false,
    }
}

/// The client of all tests.
pub(super) fn client() -> Workload {
    pod("client", &["10.0.0.1", "fd00::1"])
}

pub(super) fn ask(
    view: &View,
    source: &Arc<Workload>,
    target: &str,
    learnt: &Learnt,
    settings: &RouteSettings,
    draw: &mut dyn Draw,
) -> Result<Route, Halt> {
    let client = SocketAddr::new(source.addresses.first().copied().unwrap_or(ip("127.0.0.1")), 40000);
    let past = Past { failures: &Failures::default(), tried: &[], now: Instant::now() };
    route(&Outbound { view, source, client, target: socket(target), learnt, settings, past }, draw)
}

/// A route in words: how, where to, for what, whom it expects; then workload and service that telemetry gets.
pub(super) fn words(outcome: Result<Route, Halt>) -> String {
    let route = match outcome {
        Err(Halt::Refuse(refusal)) => return format!("no: {refusal}"),
        Err(Halt::Need(Need::Address(address))) => return format!("ask for address {address}"),
        Err(Halt::Need(Need::Host(name))) => return format!("ask for host {name}"),
        Err(Halt::Need(Need::Resolve { workload, hostname })) => return format!("resolve {hostname} for {workload}"),
        Err(Halt::Need(need)) => return format!("{need:?}"),
        Ok(route) => route,
    };
    let names = |identities: &[Identity]| {
        let names: Vec<&str> = identities.iter().map(|identity| identity.service_account.as_str()).collect();
        names.join("|")
    };
    let mut words = match &route.hop {
        Hop::Tcp { target } => format!("tcp {target}"),
        Hop::Hbone { next, authority, expect } => format!("hbone {next} for {authority} of {}", names(expect)),
        Hop::DoubleHbone { gateway, gateway_expect, authority, inner_expect } => {
            format!("double {gateway} of {} for {authority} of {}", names(gateway_expect), names(inner_expect))
        }
    };
    if let Some(workload) = &route.destination {
        let _ = write!(words, "; workload {}", workload.name);
    }
    if let Some(service) = &route.service {
        let _ = write!(words, "; service {}", service.hostname);
    }
    words
}

/// The route of the client to `target`, where nothing is left to chance.
pub(super) fn to(view: &View, target: &str) -> String {
    words(ask(view, &held(view, "client"), target, &Learnt::default(), &settings(), &mut NoDraw))
}

/// The routes that chance may lead to, with how probable each is.
pub(super) fn spread(view: &View, target: &str) -> BTreeMap<String, f64> {
    chances(|draw| words(ask(view, &held(view, "client"), target, &Learnt::default(), &settings(), draw)))
}

/// Checks a table of meshes, targets and routes.
pub(super) fn check(rows: impl IntoIterator<Item = (&'static str, Vec<Change>, &'static str, &'static str)>) {
    for (case, changes, target, expected) in rows {
        let view = view([client().into()].into_iter().chain(changes));
        assert_eq!(to(&view, target), expected, "{case}");
    }
}

/// A server in the mesh, an endpoint of `web`.
pub(super) fn server() -> Workload {
    pod("server", &["10.0.0.2"]).of("ns/web.example", &[])
}

/// Its service.
pub(super) fn web() -> Service {
    service("web", &["net1/10.1.0.1"], &[(80, 8080)])
}

fn balanced(service: Service, mode: Mode) -> Service {
    let lb = LoadBalancer { preferences: vec![], mode, health: Default::default() };
    service.with(|extra| extra.load_balancer = Some(lb))
}

#[test]
fn addresses_of_workloads_and_strangers() {
    let plain = || Workload { protocol: Protocol::Tcp, ..server() };
    let host = || Workload { network_mode: NetworkMode::HostNetwork, ..server() };
    let ill = || Workload { status: Health::Unhealthy, ..server() };
    let other = || Workload { network: "net2".into(), ..server() };
    check([
        ("a stranger", vec![], "9.9.9.9:80", "tcp 9.9.9.9:80"),
        (
            "a pod in the mesh",
            vec![server().into()],
            "10.0.0.2:80",
            "hbone 10.0.0.2:15008 for 10.0.0.2:80 of server; workload server",
        ),
        (
            "the same as mapped IPv6",
            vec![server().into()],
            "[::ffff:10.0.0.2]:80",
            "hbone 10.0.0.2:15008 for 10.0.0.2:80 of server; workload server",
        ),
        ("a pod outside the mesh", vec![plain().into()], "10.0.0.2:80", "tcp 10.0.0.2:80; workload server"),
        ("a node, though pods share its address", vec![host().into()], "10.0.0.2:80", "tcp 10.0.0.2:80"),
        (
            "an unhealthy pod, by its address",
            vec![ill().into()],
            "10.0.0.2:80",
            "hbone 10.0.0.2:15008 for 10.0.0.2:80 of server; workload server",
        ),
        ("an address of another network", vec![other().into()], "10.0.0.2:80", "tcp 10.0.0.2:80"),
    ]);
}

#[test]
fn calls_to_ourselves_are_refused() {
    let recursion = "no: attempted recursive call to ourselves";
    check([
        ("our outbound port", vec![], "127.0.0.1:15001", recursion),
        ("our inbound port", vec![], "127.0.0.1:15006", recursion),
        ("our HBONE port", vec![], "[::1]:15008", recursion),
        ("mapped", vec![], "[::ffff:127.0.0.1]:15008", recursion),
        ("another port of ours is not captured", vec![], "127.0.0.1:15000", "tcp 127.0.0.1:15000"),
        ("elsewhere the port is anybody's", vec![], "9.9.9.9:15001", "tcp 9.9.9.9:15001"),
    ]);
}

#[test]
fn services_by_address() {
    let ill = || Workload { status: Health::Unhealthy, ..server() };
    let sans = || web().with(|e| e.subject_alt_names = vec!["spiffe://td/ns/a/sa/extra".into(), "no identity".into()]);
    let hidden = |namespace: &str| Service { namespace: namespace.into(), visibility: Visibility::Namespace, ..web() };
    let through = "hbone 10.0.0.2:15008 for 10.0.0.2:8080 of server; workload server; service web.example";
    check([
        ("a healthy endpoint", vec![web().into(), server().into()], "10.1.0.1:80", through),
        ("in either order", vec![server().into(), web().into()], "10.1.0.1:80", through),
        (
            "the service's identities count too",
            vec![sans().into(), server().into()],
            "10.1.0.1:80",
            "hbone 10.0.0.2:15008 for 10.0.0.2:8080 of extra|server; workload server; service web.example",
        ),
        ("no endpoint", vec![web().into()], "10.1.0.1:80", "no: no healthy upstream: 10.1.0.1:80"),
        (
            "no healthy endpoint",
            vec![web().into(), ill().into()],
            "10.1.0.1:80",
            "no: no healthy upstream: 10.1.0.1:80",
        ),
        (
            "a port that it does not declare",
            vec![web().into(), server().into()],
            "10.1.0.1:81",
            "no: no healthy upstream: 10.1.0.1:81",
        ),
        ("hidden, so unknown", vec![hidden("other").into()], "10.1.0.1:80", "tcp 10.1.0.1:80"),
        ("not hidden from its own namespace", vec![hidden("ns").into(), server().into()], "10.1.0.1:80", through),
    ]);
}

#[test]
fn passthrough_services_are_left_alone() {
    let passthrough = || balanced(web(), Mode::Passthrough);
    let range =
        || Service { vips: [].into(), ..passthrough() }.with(|extra| extra.cidr_vips = vec![range("10.0.0.0/8")]);
    check([
        ("by VIP", vec![passthrough().into(), server().into()], "10.1.0.1:80", "tcp 10.1.0.1:80"),
        ("by range", vec![range().into()], "10.2.3.4:443", "tcp 10.2.3.4:443"),
        (
            "a pod within the range stays in the mesh",
            vec![range().into(), server().into()],
            "10.0.0.2:80",
            "hbone 10.0.0.2:15008 for 10.0.0.2:80 of server; workload server",
        ),
    ]);
}

fn range(cidr: &str) -> crate::service::NetworkCidr {
    crate::service::NetworkCidr { network: NETWORK.into(), cidr: cidr.parse().unwrap() }
}

#[test]
fn an_address_has_one_meaning() {
    let pod_and_vip = || Service { vips: ["net1/10.0.0.2".parse().unwrap()].into(), ..web() };
    let waypoint = || pod("waypoint", &["10.0.0.9"]);
    let guarded = || pod_and_vip().with(|extra| extra.waypoint = Some(gateway("net1/10.0.0.9", 15008)));
    let ranged = |cidr| Service { vips: [].into(), ..web() }.with(|extra| extra.cidr_vips = vec![range(cidr)]);
    let by_service = "hbone 10.0.0.2:15008 for 10.0.0.2:8080 of server; workload server; service web.example";
    check([
        ("a VIP goes before a pod", vec![pod_and_vip().into(), server().into()], "10.0.0.2:80", by_service),
        (
            "its waypoint is not passed by",
            vec![guarded().into(), server().into(), waypoint().into()],
            "10.0.0.2:80",
            "hbone 10.0.0.9:15008 for 10.0.0.2:80 of waypoint; workload waypoint; service web.example",
        ),
        (
            "a pod goes before a range",
            vec![ranged("10.0.0.0/8").into(), server().into()],
            "10.0.0.2:81",
            "hbone 10.0.0.2:15008 for 10.0.0.2:81 of server; workload server",
        ),
        ("a range goes before nothing", vec![ranged("10.0.0.0/8").into(), server().into()], "10.0.0.3:80", by_service),
        ("outside the range", vec![ranged("10.0.0.0/24").into(), server().into()], "10.0.1.3:80", "tcp 10.0.1.3:80"),
    ]);
}

#[test]
fn chance_spreads_over_endpoints() {
    let second = Workload { protocol: Protocol::Tcp, ..pod("second", &["10.0.0.3"]).of("ns/web.example", &[(80, 1)]) };
    let view = view([client().into(), web().into(), server().into(), second.into()]);
    let expected = [
        ("hbone 10.0.0.2:15008 for 10.0.0.2:8080 of server; workload server; service web.example".to_owned(), 0.5),
        ("tcp 10.0.0.3:1; workload second; service web.example".to_owned(), 0.5),
    ];
    assert_eq!(spread(&view, "10.1.0.1:80"), BTreeMap::from(expected));
}

#[test]
fn addresses_follow_the_families_of_service_and_target() {
    let dual = || pod("server", &["10.0.0.2", "fd00::2", "10.0.0.3"]).of("ns/web.example", &[]);
    let v4_only = || pod("server", &["10.0.0.2"]).of("ns/web.example", &[]);
    let vips = |ip_families| Service {
        vips: ["net1/10.1.0.1", "net1/fd01::1", "net1/10.0.0.3"].map(|vip| vip.parse().unwrap()).into(),
        ip_families,
        ..web()
    };
    use IpFamilies::{Automatic, Dual, Ipv4Only, Ipv6Only};
    for (families, endpoint, target, address) in [
        (Automatic, dual(), "10.1.0.1:80", Some("10.0.0.2")),
        (Automatic, dual(), "[fd01::1]:80", Some("[fd00::2]")),
        (Dual, dual(), "[fd01::1]:80", Some("[fd00::2]")),
        (Ipv4Only, dual(), "[fd01::1]:80", Some("10.0.0.2")),
        (Ipv6Only, dual(), "10.1.0.1:80", Some("[fd00::2]")),
        (Automatic, v4_only(), "[fd01::1]:80", Some("10.0.0.2")),
        (Ipv6Only, v4_only(), "10.1.0.1:80", None),
        (Automatic, dual(), "10.0.0.3:80", Some("10.0.0.3")),
    ] {
        let view = view([client().into(), vips(families).into(), endpoint.into()]);
        let expected = match address {
            Some(ip) => format!("hbone {ip}:15008 for {ip}:8080 of server; workload server; service web.example"),
            None => {
                "no: no valid routing destination for workload: Workload{server with uid c//v1/Pod/ns/server (HBONE)}"
                    .to_owned()
            }
        };
        assert_eq!(to(&view, target), expected, "{families:?} {target}");
    }
}

#[test]
fn endpoints_may_have_only_a_host_name() {
    let named =
        Workload { hostname: "db.example.".into(), protocol: Protocol::Tcp, addresses: vec![].into(), ..server() };
    let view = view([client().into(), web().into(), named.into()]);
    let source = held(&view, "client");
    let with = |learnt: &Learnt, draws: &[u64]| {
        words(ask(&view, &source, "10.1.0.1:80", learnt, &settings(), &mut Script(draws.to_vec())))
    };
    let learn = |addresses: &[&str]| {
        let mut learnt = Learnt::default();
        learnt.resolved("db.example.".into(), Resolution::Addresses(addresses.iter().map(|text| ip(text)).collect()));
        learnt
    };
    assert_eq!(with(&Learnt::default(), &[0]), "resolve db.example. for c//v1/Pod/ns/server");
    assert_eq!(with(&learn(&["1.1.1.1"]), &[0]), "tcp 1.1.1.1:8080; workload server; service web.example");
    assert_eq!(
        with(&learn(&["::1", "1.1.1.1", "2.2.2.2"]), &[0, 1]),
        "tcp 2.2.2.2:8080; workload server; service web.example"
    );
    assert_eq!(with(&learn(&["::1"]), &[0]), "tcp [::1]:8080; workload server; service web.example");
    assert_eq!(
        with(&learn(&[]), &[0]),
        "no: ip addresses were resolved for workload c//v1/Pod/ns/server, but valid dns response had no A/AAAA records"
    );
    let mut failed = Learnt::default();
    failed.resolved("db.example".into(), Resolution::Failed);
    assert_eq!(with(&failed, &[0]), "no: no ip addresses were resolved for workload: c//v1/Pod/ns/server");
}

#[test]
fn a_host_with_several_addresses_has_others_to_try_the_families_in_turn() {
    let others = |protocol, addresses: &[&str]| -> Vec<String> {
        let named = Workload { hostname: "db.example".into(), protocol, addresses: vec![].into(), ..server() };
        let view = view([client().into(), web().into(), named.into()]);
        let mut learnt = Learnt::default();
        learnt.resolved("db.example".into(), Resolution::Addresses(addresses.iter().map(|text| ip(text)).collect()));
        let source = held(&view, "client");
        let route = ask(&view, &source, "10.1.0.1:80", &learnt, &settings(), &mut Script(vec![0, 0])).unwrap();
        route.others.iter().map(ToString::to_string).collect()
    };
    assert_eq!(others(Protocol::Tcp, &["1.1.1.1"]), [""; 0]);
    assert_eq!(others(Protocol::Tcp, &["1.1.1.1", "::1"]), ["[::1]:8080"]);
    assert_eq!(others(Protocol::Tcp, &["::1", "::2"]), ["[::2]:8080"]);
    let many = ["1.1.1.1", "2.2.2.2", "3.3.3.3", "4.4.4.4", "::1", "::2"];
    assert_eq!(others(Protocol::Tcp, &many), ["[::1]:8080", "2.2.2.2:8080", "[::2]:8080"]);
    // The far end of a tunnel is asked for the very address that it is reached at.
    assert_eq!(others(Protocol::Hbone, &many), [""; 0]);
}

#[test]
fn asking_again_comes_to_the_same_endpoint() {
    let named = |name: &str| {
        let hostname = format!("{name}.example").as_str().into();
        Workload { hostname, addresses: vec![].into(), ..pod(name, &[]).of("ns/web.example", &[]) }
    };
    let view = view([client().into(), web().into(), named("a").into(), named("b").into(), named("c").into()]);
    let source = held(&view, "client");
    // Fresh draws would go on to other endpoints; the script has no more than one.
    for first in 0..3 {
        let mut draw = Replay::new(Script(vec![first]));
        let mut learnt = Learnt::default();
        let asked = ask(&view, &source, "10.1.0.1:80", &learnt, &settings(), &mut draw);
        let Err(Halt::Need(Need::Resolve { hostname, workload })) = asked else { panic!("{asked:?}") };
        learnt.resolved(hostname, Resolution::Addresses(vec![ip("1.1.1.1")]));
        draw.rewind();
        let route = ask(&view, &source, "10.1.0.1:80", &learnt, &settings(), &mut draw).unwrap();
        assert_eq!(route.destination.unwrap().uid, workload);
    }
}

#[test]
fn an_unknown_address_is_asked_for_once_if_there_is_anybody_to_ask() {
    let view = view([client().into()]);
    let source = held(&view, "client");
    let on_demand = RouteSettings { on_demand: true, ..settings() };
    let mut learnt = Learnt::default();
    let asked = ask(&view, &source, "10.0.0.2:80", &learnt, &on_demand, &mut NoDraw);
    assert_eq!(words(asked.clone()), "ask for address net1/10.0.0.2");
    let Err(Halt::Need(need)) = asked else { unreachable!() };
    learnt.asked(need);
    assert_eq!(words(ask(&view, &source, "10.0.0.2:80", &learnt, &on_demand, &mut NoDraw)), "tcp 10.0.0.2:80");
    assert_eq!(to(&view, "10.0.0.2:80"), "tcp 10.0.0.2:80");
}

#[test]
fn a_node_in_another_network_than_its_workload_does_not_turn_services_into_strangers() {
    let far = Service { vips: ["net9/10.1.0.1".parse().unwrap()].into(), ..web() };
    let view = view([client().into(), far.into(), Workload { network: "net9".into(), ..server() }.into()]);
    let source = held(&view, "client");
    let misconfigured = RouteSettings { network: "net9".into(), ..settings() };
    let go = |target: &str| words(ask(&view, &source, target, &Learnt::default(), &misconfigured, &mut NoDraw));
    let refused =
        "no: no valid routing destination for workload: Workload{server with uid c//v1/Pod/ns/server (HBONE)}";
    assert_eq!(go("10.1.0.1:80"), refused);
    assert_eq!(go("10.0.0.2:80"), "no: no service for target address: 10.0.0.2:80");
}

#[test]
fn services_that_share_an_address_or_range() {
    let at = |namespace: &str, name: &str| Service {
        namespace: namespace.into(),
        hostname: format!("{name}.example").as_str().into(),
        ..balanced(web(), Mode::Standard)
    };
    let canonical = |namespace: &str, name: &str| Service { canonical: true, ..at(namespace, name) };
    let ranged = |service: Service, cidr| {
        Service { vips: [].into(), ..service }.with(|extra| extra.cidr_vips = vec![range(cidr)])
    };
    let hidden = |service: Service| Service { visibility: Visibility::Namespace, ..service };
    let cases: Vec<(&str, Vec<Service>, &str)> = vec![
        ("the client's namespace", vec![at("a", "x"), canonical("b", "y"), at("ns", "mine")], "mine.example"),
        ("then a canonical one", vec![at("a", "x"), canonical("b", "y"), at("c", "z")], "y.example"),
        ("then the first", vec![at("a", "x"), at("b", "y")], "x.example"),
        ("within one namespace the latest", vec![at("a", "x"), at("b", "y"), at("a", "z")], "z.example"),
        ("hidden ones do not count", vec![hidden(canonical("a", "x")), at("b", "y")], "y.example"),
        (
            "a range of the client's namespace",
            vec![ranged(at("a", "x"), "10.1.0.0/24"), ranged(at("ns", "y"), "10.0.0.0/8")],
            "y.example",
        ),
        (
            "then the longest",
            vec![ranged(at("a", "x"), "10.0.0.0/8"), ranged(at("b", "y"), "10.1.0.0/24")],
            "y.example",
        ),
        (
            "then a canonical one of ranges",
            vec![ranged(at("a", "x"), "10.1.0.0/24"), ranged(canonical("b", "y"), "10.1.0.0/24")],
            "y.example",
        ),
        (
            "then the first of ranges",
            vec![ranged(at("a", "x"), "10.1.0.0/24"), ranged(at("b", "y"), "10.1.0.0/24")],
            "x.example",
        ),
        ("a VIP before ranges", vec![ranged(at("ns", "x"), "10.1.0.1/32"), at("b", "y")], "y.example"),
        (
            "a hidden VIP leaves it to ranges",
            vec![hidden(at("b", "y")), ranged(at("a", "x"), "10.0.0.0/8")],
            "x.example",
        ),
    ];
    for (case, services, expected) in cases {
        let endpoints = services.iter().enumerate().map(|(index, service)| {
            pod(&format!("e{index}"), &[&format!("10.5.0.{index}")]).of(&service.key().to_string(), &[]).into()
        });
        let endpoints: Vec<Change> = endpoints.collect();
        let view = view([client().into()].into_iter().chain(services.into_iter().map(Change::from)).chain(endpoints));
        let found = to(&view, "10.1.0.1:80");
        assert!(found.ends_with(&format!("; service {expected}")), "{case}: {found}");
    }
}

#[test]
fn a_route_is_leave_to_dial_what_it_says() {
    let view = view([client().into(), server().into()]);
    let route =
        ask(&view, &held(&view, "client"), "10.0.0.2:80", &Learnt::default(), &settings(), &mut NoDraw).unwrap();
    let permit = route.clone().permit();
    assert_eq!(permit.hop(), route.hop);
    assert_eq!(permit.hop().dial(), socket("10.0.0.2:15008"));
    assert!(permit.standing().is_none(), "the far side decides");
    assert!(matches!(permit.grant(), crate::permit::Grant::Outbound(granted) if *granted == route));
    assert_eq!(words(Err(Refusal::Recursion.into())), "no: attempted recursive call to ourselves");
}

/// An app tunnel without a header.
fn tunnel(port: Option<u16>) -> Option<ApplicationTunnel> {
    Some(ApplicationTunnel { protocol: TunnelProtocol::None, port })
}

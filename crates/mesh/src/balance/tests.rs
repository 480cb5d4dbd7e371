//! Endpoints are chosen as the specification defines it, with exactly the chances that it gives them.

use crate::workload::Deployment;
use std::collections::BTreeMap;
use std::time::Instant;

use super::*;
use crate::fixture::{NoDraw, Seed, chances, gateway, held, pod, ports, service, view};
use crate::retry::Failures;
use crate::service::{HealthPolicy, LoadBalancer};
use crate::view::{Change, State};
use crate::workload::{ApplicationTunnel, Health, TunnelProtocol};

mod past;

/// What it is about, mode, preferences, endpoints, and the names of those that may be chosen.
type Case<'a> = (&'a str, Mode, &'a [Scope], &'a [Workload], &'a [&'a str]);

/// Name and port of what is chosen, with its chance.
type Chances = BTreeMap<Option<(String, u16)>, f64>;

fn choices(view: &View, service: &Service, source: &Workload, port: u16, rule: PortRule) -> Chances {
    let failures = Failures::default();
    let past = Past { failures: &failures, tried: &[], now: Instant::now() };
    chances(|draw| {
        let chosen = choose(view, service, source, (port, rule), &past, draw)?;
        Some((chosen.workload.name.to_string(), chosen.port))
    })
}

/// Names that may be chosen, in order, for port 80.
fn chosen(changes: impl IntoIterator<Item = Change>, source: &str) -> Vec<String> {
    let view = view(changes);
    let service = view.services().next().unwrap();
    let all = choices(&view, service, &held(&view, source), 80, PortRule::Declared);
    all.into_keys().map(|one| one.map_or("none".to_owned(), |(name, _)| name)).collect()
}

fn web(mode: Mode, preferences: &[Scope]) -> Service {
    let lb = LoadBalancer { preferences: preferences.to_vec(), mode, health: HealthPolicy::OnlyHealthy };
    service("web", &["net1/10.1.0.1"], &[(80, 8080)]).with(|extra| extra.load_balancer = Some(lb))
}

fn client() -> Workload {
    Workload { node: "n1".into(), ..pod("client", &["10.0.0.1"]).at("eu", "a") }
}

fn server(name: &str, ip: &str) -> Workload {
    pod(name, &[ip]).of("ns/web.example", &[])
}

#[test]
fn every_endpoint_gets_the_share_that_its_capacity_is() {
    let view = view([
        web(Mode::Standard, &[]).into(),
        client().into(),
        Workload { capacity: 1, ..server("a", "10.0.0.2") }.into(),
        Workload { capacity: 3, ..server("b", "10.0.0.3") }.into(),
        Workload { capacity: 0, ..server("c", "10.0.0.4") }.into(),
    ]);
    let service = view.services().next().unwrap();
    let all = choices(&view, service, &held(&view, "client"), 80, PortRule::Declared);
    let expected = [(Some(("a".to_owned(), 8080)), 0.25), (Some(("b".to_owned(), 8080)), 0.75)];
    assert_eq!(all, BTreeMap::from(expected));
}

#[test]
fn endpoints_without_weight_are_no_choice() {
    let all =
        [web(Mode::Standard, &[]).into(), client().into(), Workload { capacity: 0, ..server("a", "10.0.0.2") }.into()];
    assert_eq!(chosen(all, "client"), ["none"]);
}

#[test]
fn preferences_decide_as_the_table_says() {
    use Mode::{Failover, Passthrough, Standard, Strict};
    use Scope::{Cluster, Network, Node, Region, Subzone, Zone};
    let near = || server("near", "10.0.0.2").at("eu", "a");
    let zone = || server("zone", "10.0.0.3").at("eu", "b");
    let far = || server("far", "10.0.0.4").at("us", "a");
    let farther = || server("farther", "10.0.0.5").at("us", "c");
    let remote = |name: &str| Workload {
        network: "net2".into(),
        network_gateway: Some(gateway("net2/10.9.0.1", 15008).into()),
        ..server(name, "10.0.0.9")
    };
    let remote_near = || remote("remote-near").at("eu", "a");
    let remote_far = || remote("remote-far").at("us", "c");
    let off_node = || Workload { node: "n2".into(), ..near() };
    let on_node = || Workload { name: "on-node".into(), node: "n1".into(), ..zone() };
    let cases: &[Case<'_>] = &[
        ("no mode: preferences mean nothing", Standard, &[Region], &[near(), far()], &["far", "near"]),
        ("no preferences: all are alike", Failover, &[], &[near(), far()], &["far", "near"]),
        ("strict without preferences", Strict, &[], &[near(), far()], &["far", "near"]),
        ("most in common", Failover, &[Region, Zone], &[near(), zone(), far()], &["near"]),
        ("less in common", Failover, &[Region, Zone], &[zone(), far()], &["zone"]),
        ("nothing in common", Failover, &[Region, Zone], &[far()], &["far"]),
        (
            "a zone of another region is nothing in common",
            Failover,
            &[Region, Zone],
            &[far(), farther()],
            &["far", "farther"],
        ),
        ("a zone of another region does not count", Failover, &[Region, Zone], &[far(), zone()], &["zone"]),
        ("only the order of the list counts", Failover, &[Zone, Region], &[far(), zone()], &["far"]),
        ("empty equals empty", Failover, &[Region, Zone, Subzone], &[near(), zone()], &["near"]),
        ("node", Failover, &[Node], &[off_node(), on_node()], &["on-node"]),
        ("cluster", Failover, &[Cluster, Zone], &[near(), zone()], &["near"]),
        ("strict: all or nothing", Strict, &[Region, Zone], &[zone(), far()], &["none"]),
        ("strict: all", Strict, &[Region, Zone], &[near(), zone()], &["near"]),
        ("strict on the network", Strict, &[Network, Region], &[remote_near(), far()], &["none"]),
        ("own network first", Failover, &[Network, Region, Zone], &[far(), remote_near()], &["far"]),
        ("within the network", Failover, &[Network, Region, Zone], &[far(), zone(), near()], &["near"]),
        ("among other networks", Failover, &[Network, Region], &[remote_near(), remote_far()], &["remote-near"]),
        ("any other network", Failover, &[Network, Region], &[remote_far()], &["remote-far"]),
        ("the network later in the list", Failover, &[Region, Network], &[far(), remote_near()], &["remote-near"]),
        ("asked by name, passthrough is failover", Passthrough, &[Region], &[near(), far()], &["near"]),
    ];
    for (case, mode, preferences, endpoints, expected) in cases {
        let objects = [web(*mode, preferences).into(), client().into()];
        let changes = objects.into_iter().chain(endpoints.iter().enumerate().map(|(index, endpoint)| {
            Change::from(Workload { uid: format!("c//v1/Pod/ns/{index}").as_str().into(), ..endpoint.clone() })
        }));
        assert_eq!(chosen(changes, "client"), *expected, "{case}");
    }
}

#[test]
fn where_the_nearest_cannot_be_reached_the_others_are_told_apart_as_ever() {
    use Scope::{Network, Region, Zone};
    let unreachable = || Workload { addresses: vec![].into(), ..server("unreachable", "10.0.0.2").at("eu", "a") };
    let region = || server("region", "10.0.0.3").at("eu", "b");
    let far = || server("far", "10.0.0.4").at("us", "c");
    let remote = || Workload {
        network: "net2".into(),
        network_gateway: Some(gateway("net2/10.9.0.1", 15008).into()),
        ..server("remote", "10.0.0.9").at("eu", "a")
    };
    let without = |endpoints: &[Workload]| {
        let objects = [web(Mode::Failover, &[Network, Region, Zone]).into(), client().into(), unreachable().into()];
        chosen(objects.into_iter().chain(endpoints.iter().cloned().map(Change::from)), "client")
    };
    assert_eq!(without(&[region(), far(), remote()]), ["region"]);
    assert_eq!(without(&[far(), remote()]), ["far"]);
    assert_eq!(without(&[remote()]), ["remote"]);
}

#[test]
fn there_is_no_overflow_to_farther_endpoints() {
    let all = [
        web(Mode::Failover, &[Scope::Region]).into(),
        client().into(),
        Workload { capacity: 0, ..server("near", "10.0.0.2").at("eu", "a") }.into(),
        server("far", "10.0.0.3").at("us", "a").into(),
    ];
    assert_eq!(chosen(all, "client"), ["none"]);
}

#[test]
fn health_matters_unless_the_service_takes_all() {
    let ill = || Workload { status: Health::Unhealthy, ..server("ill", "10.0.0.2").at("eu", "a") };
    let well = || server("well", "10.0.0.3").at("us", "b");
    let only_healthy = web(Mode::Failover, &[Scope::Region]);
    let mut any = only_healthy.clone();
    any.extras.load_balancer.as_mut().unwrap().health = HealthPolicy::AllowAll;
    let all = |service: Service| [service.into(), client().into(), ill().into(), well().into()];
    assert_eq!(chosen(all(only_healthy.clone()), "client"), ["well"]);
    assert_eq!(chosen(all(any.clone()), "client"), ["ill"]);

    let widened = all(only_healthy).into_iter().chain([any.into()]);
    assert_eq!(chosen(widened, "client"), ["ill"], "an unhealthy endpoint is not forgotten while it does not count");
}

#[test]
fn endpoints_have_to_be_reachable() {
    let bare = || Workload { addresses: vec![].into(), ..server("bare", "10.0.0.2") };
    let cases = [
        ("neither address nor name", bare(), "none"),
        ("a name will do", Workload { hostname: "bare.example".into(), ..bare() }, "bare"),
        (
            "a gateway will not do here",
            Workload { network_gateway: Some(gateway("net1/10.9.0.1", 1).into()), ..bare() },
            "none",
        ),
        (
            "a gateway will do from elsewhere",
            Workload { network: "net2".into(), network_gateway: Some(gateway("net2/10.9.0.1", 1).into()), ..bare() },
            "bare",
        ),
        ("elsewhere without a gateway", Workload { network: "net2".into(), ..bare() }, "none"),
    ];
    for (case, endpoint, expected) in cases {
        let all = [web(Mode::Standard, &[]).into(), client().into(), endpoint.into()];
        assert_eq!(chosen(all, "client"), [expected], "{case}");
    }
}

#[test]
fn ports_lead_where_the_table_says() {
    let tunnel = |port| Some(ApplicationTunnel { protocol: TunnelProtocol::None, port });
    let declared = &[(80, 8080), (90, 0)];
    // (what, port asked for, rule, endpoint's ports, its tunnel, port chosen)
    let cases = [
        ("the service's target", 80, PortRule::Declared, &[][..], None, Some(8080)),
        ("the endpoint's own target", 80, PortRule::Declared, &[(80, 1)], None, Some(1)),
        ("a named port", 90, PortRule::Declared, &[(90, 9090)], None, Some(9090)),
        ("a named port that it does not define", 90, PortRule::Declared, &[(80, 1)], None, None),
        ("a port that the service does not declare", 81, PortRule::Declared, &[(81, 1)], None, None),
        ("the same with a tunnel", 81, PortRule::Declared, &[(81, 1)], tunnel(Some(7)), None),
        ("waypoint: declared", 80, PortRule::Waypoint, &[], None, Some(8080)),
        ("waypoint: not declared", 15008, PortRule::Waypoint, &[], None, None),
        ("waypoint: not declared, but mapped", 15008, PortRule::Waypoint, &[(15008, 7)], None, None),
        ("waypoint: by its tunnel", 15008, PortRule::Waypoint, &[], tunnel(Some(15088)), Some(15008)),
        ("waypoint: mapped, with a tunnel", 15008, PortRule::Waypoint, &[(15008, 7)], tunnel(None), Some(7)),
        ("waypoint: a tunnel without a port", 15008, PortRule::Waypoint, &[], tunnel(None), None),
        ("waypoint: a named port by its tunnel", 90, PortRule::Waypoint, &[], tunnel(Some(1)), Some(90)),
    ];
    for (case, port, rule, endpoint_ports, application_tunnel, expected) in cases {
        let endpoint = pod("a", &["10.0.0.2"]).of("ns/web.example", endpoint_ports);
        let service = service("web", &[], declared);
        let view = view([service.clone().into(), client().into(), Workload { application_tunnel, ..endpoint }.into()]);
        let past = Past { failures: &Failures::default(), tried: &[], now: Instant::now() };
        let chosen = choose(&view, &service, &held(&view, "client"), (port, rule), &past, &mut NoDraw);
        assert_eq!(chosen.map(|chosen| chosen.port), expected, "{case}");
    }
}

#[test]
fn a_named_port_is_served_by_those_that_define_it_with_their_shares() {
    let named = |name: &str, ip: &str, capacity, defined: &[(u16, u16)]| Workload {
        capacity,
        ..pod(name, &[ip]).of("ns/web.example", defined)
    };
    let view = view([
        service("web", &[], &[(90, 0)]).into(),
        client().into(),
        named("a", "10.0.0.2", 2, &[(90, 1)]).into(),
        named("b", "10.0.0.3", 5, &[]).into(),
        named("c", "10.0.0.4", 1, &[(90, 3)]).into(),
    ]);
    let service = view.services().next().unwrap();
    let all = choices(&view, service, &held(&view, "client"), 90, PortRule::Declared);
    assert_eq!(all.len(), 2, "{all:?}");
    assert!((all[&Some(("a".to_owned(), 1))] - 2.0 / 3.0).abs() < 1e-9, "{all:?}");
    assert!((all[&Some(("c".to_owned(), 3))] - 1.0 / 3.0).abs() < 1e-9, "{all:?}");
}

/// The choice straight from spec state-and-dns 7.3 to 7.5, from the objects themselves.
fn naive(service: &Service, workloads: &[Workload], source: &Workload, port: u16, rule: PortRule) -> Chances {
    let key = service.key();
    let health = service.extras.load_balancer.as_ref().map_or(HealthPolicy::OnlyHealthy, |lb| lb.health);
    let declared = service.ports.get(port);
    let mut ranked: Vec<(usize, &Workload)> = Vec::new();
    for w in workloads {
        let Some(own) = w.ports_for(&key) else { continue };
        let healthy = w.status == Health::Healthy || health == HealthPolicy::AllowAll;
        let addressed = !w.addresses.is_empty() || !w.hostname.is_empty();
        let gatewayed = w.network != source.network && w.network_gateway.is_some();
        let served = match rule {
            PortRule::Declared => declared.is_some() && (declared != Some(0) || own.get(port).is_some()),
            PortRule::Waypoint => declared.is_some() || w.application_tunnel.is_some(),
        };
        if !(healthy && (addressed || gatewayed) && served) {
            continue;
        }
        let mut rank = 0;
        let mut all_match = true;
        if let Some(lb) = service.extras.load_balancer.as_ref().filter(|lb| lb.mode != Mode::Standard) {
            let mut walking = true;
            for (index, scope) in lb.preferences.iter().enumerate() {
                let same = value(*scope, w) == value(*scope, source);
                all_match &= same;
                let special = index == 0 && *scope == Scope::Network;
                match (walking, same, special) {
                    (true, true, true) => rank += 1 + (lb.preferences.len() - 1),
                    (true, true, false) => rank += 1,
                    (true, false, true) | (false, ..) => {}
                    (true, false, false) => walking = false,
                }
            }
            if lb.mode == Mode::Strict && !all_match {
                continue;
            }
        }
        ranked.push((rank, w));
    }
    let best = ranked.iter().map(|(rank, _)| *rank).max().unwrap_or(0);
    ranked.retain(|(rank, _)| *rank == best);
    let total: f64 = ranked.iter().map(|(_, w)| f64::from(w.capacity)).sum();
    let mut chances = Chances::new();
    if total == 0.0 {
        chances.insert(None, 1.0);
        return chances;
    }
    for (_, w) in ranked.into_iter().filter(|(_, w)| w.capacity > 0) {
        let own = w.ports_for(&key).and_then(|own| own.get(port));
        let tunnel = w.application_tunnel.and_then(|tunnel| tunnel.port).map(|_| port);
        let target = own.or(declared.filter(|target| *target > 0)).or(tunnel);
        let result = target.map(|target| (w.name.to_string(), target));
        *chances.entry(result).or_insert(0.0) += f64::from(w.capacity) / total;
    }
    chances
}

fn random_workload(seed: &mut Seed, name: &str) -> Workload {
    let services = [("ns/web.example", &[(80, 1)][..]), ("ns/web.example", &[(90, 2)]), ("ns/web.example", &[])];
    let (key, own) = seed.pick(&services);
    let mut workload = Workload {
        node: (seed.pick(&["n1", "n2"])).into(),
        network: (seed.pick(&["net1", "net1", "net2"])).into(),
        deployment: Deployment { cluster_id: (seed.pick(&["c1", "c2"])).into(), ..Deployment::default() }.into(),
        capacity: seed.pick(&[0, 1, 1, 2]),
        status: if seed.one_in(4) { Health::Unhealthy } else { Health::Healthy },
        ..pod(name, if seed.one_in(4) { &[] } else { &["10.0.0.2"] })
    };
    workload = workload.at(seed.pick(&["eu", "us", ""]), seed.pick(&["a", "b"]));
    if seed.one_in(2) {
        workload.network_gateway = Some(gateway("net2/10.9.0.1", 15008).into());
    }
    if seed.one_in(3) {
        let port = seed.pick(&[None, Some(7)]);
        workload.application_tunnel = Some(ApplicationTunnel { protocol: TunnelProtocol::None, port });
    }
    if seed.one_in(10) { workload } else { workload.of(key, own) }
}

fn random_service(seed: &mut Seed) -> Service {
    let all = [Scope::Region, Scope::Zone, Scope::Subzone, Scope::Node, Scope::Cluster, Scope::Network];
    let mut preferences: Vec<Scope> = (0..seed.below(4)).map(|_| seed.pick(&all)).collect();
    if seed.one_in(2) {
        preferences.insert(0, Scope::Network);
    }
    let modes = [Mode::Standard, Mode::Strict, Mode::Failover, Mode::Failover];
    let mut service = web(seed.pick(&modes), &preferences);
    service.ports = ports(seed.pick(&[&[(80, 8080), (90, 0)][..], &[(80, 0)], &[]]));
    if seed.one_in(3) {
        service.extras.load_balancer.as_mut().unwrap().health = HealthPolicy::AllowAll;
    }
    if seed.one_in(5) {
        service.extras.load_balancer = None;
    }
    service
}

#[test]
fn any_mesh_gives_the_chances_of_the_definition() {
    for number in 0..1_500 {
        let mut seed = Seed(number);
        let mut state = State::new(None);
        let mut workloads: Vec<Workload> = Vec::new();
        let mut service = random_service(&mut seed);
        // Objects come in any order, change and go, so that what is prepared has to follow.
        let _ = state.apply([service.clone().into()]);
        for _ in 0..seed.below(14) {
            let name = seed.pick(&["a", "b", "c", "d", "e"]);
            workloads.retain(|workload| *workload.name != *name);
            if seed.one_in(5) {
                let _ = state.apply([Change::RemoveWorkload(pod(name, &[]).uid)]);
            } else {
                let workload = random_workload(&mut seed, name);
                let _ = state.apply([workload.clone().into()]);
                workloads.push(workload);
            }
            if seed.one_in(6) {
                service = random_service(&mut seed);
                let _ = state.apply([service.clone().into()]);
            }
            if seed.one_in(10) {
                let _ = state.apply([Change::RemoveService(service.key()), service.clone().into()]);
            }
        }
        let source = random_workload(&mut seed, "client");
        for port in [80, 90, 91] {
            for rule in [PortRule::Declared, PortRule::Waypoint] {
                let found = choices(&state.view(), &service, &source, port, rule);
                let expected = naive(&service, &workloads, &source, port, rule);
                let context = format!("seed {number}, port {port}, {rule:?}:\n{found:#?}\n{expected:#?}");
                assert!(found.keys().eq(expected.keys()), "{context}");
                assert!(found.values().zip(expected.values()).all(|(a, b)| (a - b).abs() < 1e-9), "{context}");
            }
        }
    }
}

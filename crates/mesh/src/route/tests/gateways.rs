//! Other networks, reached by their gateways (spec data-plane 5.4; state-and-dns 7.7).

use super::*;
use crate::service::Scope;

/// An endpoint of `web` in another network, behind a gateway.
fn remote(by: &str) -> Workload {
    Workload {
        network: "net2".into(),
        network_gateway: Some(gateway(by, 15009).into()),
        ..pod("remote", &["10.0.0.2"]).of("ns/web.example", &[])
    }
}

/// The gateway of the other network, found by its address, or as the endpoint of the service `gate`.
fn gate() -> Workload {
    Workload { network: "net2".into(), ..pod("gate", &["20.0.0.9"]).of("ns/gate.example", &[]) }
}

fn gate_service() -> Service {
    service("gate", &["net2/20.1.0.9"], &[(15009, 15008)])
}

fn vouched(service: Service) -> Service {
    service.with(|extra| extra.subject_alt_names = vec!["spiffe://td/ns/a/sa/vouched".into()])
}

#[test]
fn a_remote_endpoint_is_reached_by_its_gateway() {
    let by = |reference: &str| {
        vec![vouched(web()).into(), remote(reference).into(), gate().into(), vouched(gate_service()).into()]
    };
    let unreachable =
        "no: no valid routing destination for workload: Workload{remote with uid c//v1/Pod/ns/remote (HBONE)}";
    check([
        (
            "by the gateway's address",
            by("net2/20.0.0.9"),
            "10.1.0.1:80",
            "double 20.0.0.9:15009 of gate for web.example:80 of vouched; workload gate; service web.example",
        ),
        (
            "by its service's host name",
            by("ns/gate.example"),
            "10.1.0.1:80",
            "double 20.0.0.9:15008 of vouched|gate for web.example:80 of vouched; workload gate; service web.example",
        ),
        (
            "by its service's address",
            by("net2/20.1.0.9"),
            "10.1.0.1:80",
            "double 20.0.0.9:15008 of vouched|gate for web.example:80 of vouched; workload gate; service web.example",
        ),
        (
            "an unknown gateway by name",
            by("ns/nobody.example"),
            "10.1.0.1:80",
            "no: unknown network gateway: network gateway nobody.example not found",
        ),
        (
            "an unknown gateway by address",
            by("net2/20.0.0.8"),
            "10.1.0.1:80",
            "no: unknown network gateway: network gateway net2/20.0.0.8:15009 not found",
        ),
        (
            "no gateway",
            vec![web().into(), Workload { network_gateway: None, ..remote("net2/20.0.0.9") }.into()],
            "10.1.0.1:80",
            unreachable,
        ),
        ("by its own address it is a stranger", by("net2/20.0.0.9"), "10.0.0.2:80", "tcp 10.0.0.2:80"),
    ]);
}

#[test]
fn a_gateway_is_found_by_whoever_is_sent_there() {
    let hidden = || Service { namespace: "edge".into(), visibility: Visibility::Namespace, ..gate_service() };
    let of_hidden = || Workload { network: "net2".into(), ..pod("gate", &["20.0.0.9"]).of("edge/gate.example", &[]) };
    check(["edge/gate.example", "net2/20.1.0.9"].map(|reference| {
        (
            "though its service is hidden from the client",
            vec![web().into(), remote(reference).into(), of_hidden().into(), hidden().into()],
            "10.1.0.1:80",
            "double 20.0.0.9:15008 of gate for web.example:80 of remote; workload gate; service web.example",
        )
    }));
}

#[test]
fn a_gateway_service_has_to_declare_its_port() {
    let undeclared = || service("gate", &["net2/20.1.0.9"], &[]);
    let tunnelled = || Workload { application_tunnel: tunnel(Some(1)), ..gate() };
    check([(
        "unlike a waypoint's",
        vec![web().into(), remote("ns/gate.example").into(), tunnelled().into(), undeclared().into()],
        "10.1.0.1:80",
        "no: unknown network gateway: network gateway gate.example not found",
    )]);
}

#[test]
fn without_identities_of_the_service_only_the_endpoint_chosen_will_do() {
    check([(
        "the endpoint's own",
        vec![web().into(), remote("net2/20.0.0.9").into(), gate().into()],
        "10.1.0.1:80",
        "double 20.0.0.9:15009 of gate for web.example:80 of remote; workload gate; service web.example",
    )]);
}

#[test]
fn an_endpoint_behind_a_gateway_needs_no_address() {
    let bare = || Workload { addresses: vec![].into(), ..remote("net2/20.0.0.9") };
    check([(
        "none at all",
        vec![web().into(), bare().into(), gate().into()],
        "10.1.0.1:80",
        "double 20.0.0.9:15009 of gate for web.example:80 of remote; workload gate; service web.example",
    )]);
}

#[test]
fn a_failure_is_laid_at_the_choice_that_can_be_made_differently() {
    let other =
        |name: &str, ip: &str, service: &str| Workload { network: "net2".into(), ..pod(name, &[ip]).of(service, &[]) };
    let second_gate = || other("gate2", "20.0.0.8", "ns/gate.example");
    let here = || pod("here", &["10.0.0.3"]).of("ns/web.example", &[]);
    let by_service = || vec![web().into(), remote("ns/gate.example").into(), gate().into(), gate_service().into()];
    let by_address = || vec![web().into(), remote("net2/20.0.0.9").into(), gate().into()];
    let with = |mut all: Vec<Change>, more: Workload| {
        all.push(more.into());
        all
    };
    // The remote endpoint and the first gateway are chosen wherever there is a choice.
    for (case, changes, on_the_way, beyond) in [
        ("a gateway by its address is no choice", by_address(), "remote", "remote"),
        ("the only gateway, the only endpoint", by_service(), "remote", "remote"),
        ("one of two gateways", with(by_service(), second_gate()), "gate", "remote"),
        ("the only gateway, one of two endpoints", with(by_service(), here()), "remote", "remote"),
    ] {
        let view = view([client().into()].into_iter().chain(changes));
        let mut names = BTreeMap::new();
        chances(|draw| {
            let route =
                ask(&view, &held(&view, "client"), "10.1.0.1:80", &Learnt::default(), &settings(), draw).unwrap();
            let name =
                |fault| route.at_fault(fault).map(|pick| pick.uid.as_str().rsplit('/').next().unwrap().to_owned());
            let last = route.picks().last().map(|pick| &pick.uid);
            assert_eq!(
                last,
                route.at_fault(Fault::Unavailable).map(|pick| &pick.uid),
                "the endpoint is beyond its gateway"
            );
            let through_first =
                matches!(&route.hop, Hop::DoubleHbone { gateway, .. } if gateway.ip() == ip("20.0.0.9"));
            if through_first {
                names.insert("way", name(Fault::Unreachable));
                names.insert("beyond", name(Fault::Unavailable));
            }
            String::new()
        });
        let expected = [("beyond", Some(beyond.to_owned())), ("way", Some(on_the_way.to_owned()))];
        assert_eq!(names, BTreeMap::from(expected), "{case}");
    }
}

#[test]
fn a_gateway_of_the_same_network_is_ignored() {
    let local = || Workload { network_gateway: Some(gateway("net1/20.0.0.9", 15009).into()), ..server() };
    check([(
        "near",
        vec![web().into(), local().into()],
        "10.1.0.1:80",
        "hbone 10.0.0.2:15008 for 10.0.0.2:8080 of server; workload server; service web.example",
    )]);
}

#[test]
fn failover_leaves_the_network_only_when_nobody_is_left() {
    let failover = || {
        let lb = LoadBalancer { preferences: vec![Scope::Network], mode: Mode::Failover, health: Default::default() };
        web().with(|extra| extra.load_balancer = Some(lb))
    };
    let ill = || Workload { status: Health::Unhealthy, ..server() };
    let with = |local: Workload| vec![failover().into(), local.into(), remote("net2/20.0.0.9").into(), gate().into()];
    check([
        (
            "a healthy one is left",
            with(server()),
            "10.1.0.1:80",
            "hbone 10.0.0.2:15008 for 10.0.0.2:8080 of server; workload server; service web.example",
        ),
        (
            "only an unhealthy one is left",
            with(ill()),
            "10.1.0.1:80",
            "double 20.0.0.9:15009 of gate for web.example:80 of remote; workload gate; service web.example",
        ),
    ]);
}

#[test]
fn a_remote_waypoint_is_reached_by_its_gateway() {
    let guarded = || vouched(web()).with(|extra| extra.waypoint = Some(gateway("ns/way.example", 15008)));
    let way = || service("way", &[], &[(15008, 15008)]);
    let waypoint = || Workload {
        network: "net2".into(),
        network_gateway: Some(gateway("net2/20.0.0.9", 15009).into()),
        ..pod("waypoint", &["20.0.0.8"]).of("ns/way.example", &[])
    };
    let other = |service: Service| service.with(|e| e.subject_alt_names = vec!["spiffe://td/ns/a/sa/way".into()]);
    check([
        (
            "for a service",
            vec![guarded().into(), waypoint().into(), other(way()).into(), gate().into()],
            "10.1.0.1:81",
            "double 20.0.0.9:15009 of gate for web.example:81 of way; workload gate; service web.example",
        ),
        (
            "not for a workload",
            vec![
                Workload { waypoint: Some(gateway("ns/way.example", 15008).into()), ..server() }.into(),
                waypoint().into(),
                way().into(),
                gate().into(),
            ],
            "10.0.0.2:80",
            "no: no service for target address: 10.0.0.2:80",
        ),
    ]);
}

#[test]
fn a_remote_waypoint_without_a_gateway_is_out_of_reach() {
    let guarded = || web().with(|extra| extra.waypoint = Some(gateway("ns/way.example", 15008)));
    let waypoint = || Workload { network: "net2".into(), ..pod("waypoint", &["20.0.0.8"]).of("ns/way.example", &[]) };
    check([(
        "nobody is asked instead of it",
        vec![guarded().into(), waypoint().into(), service("way", &[], &[(15008, 15008)]).into(), server().into()],
        "10.1.0.1:80",
        "no: no valid routing destination for workload: Workload{waypoint with uid c//v1/Pod/ns/waypoint (HBONE)}",
    )]);
}

#[test]
fn a_gateway_is_dialled_in_the_family_of_its_reference_or_else_of_the_target() {
    let dual = || Workload { addresses: vec![ip("20.0.0.9"), ip("fd02::9")].into(), ..gate() };
    let web = || service("web", &["net1/10.1.0.1", "net1/fd01::1"], &[(80, 8080)]);
    let by = |reference: &str| vec![web().into(), remote(reference).into(), dual().into(), gate_service().into()];
    let v6 = "double [fd02::9]:15008 of gate for web.example:80 of remote; workload gate; service web.example";
    check([
        (
            "by an IPv4 address",
            by("net2/20.0.0.9"),
            "[fd01::1]:80",
            "double 20.0.0.9:15009 of gate for web.example:80 of remote; workload gate; service web.example",
        ),
        ("by name", by("ns/gate.example"), "[fd01::1]:80", v6),
    ]);
}

#[test]
fn identities_that_are_none_are_passed_over() {
    let names = || vec!["gate.example".into(), "spiffe://td/ns/a/sa/vouched".into()];
    let sans = |service: Service| service.with(|extra| extra.subject_alt_names = names());
    check([(
        "of the service and of the gateway's",
        vec![sans(web()).into(), remote("ns/gate.example").into(), gate().into(), sans(gate_service()).into()],
        "10.1.0.1:80",
        "double 20.0.0.9:15008 of vouched|gate for web.example:80 of vouched; workload gate; service web.example",
    )]);
}

#[test]
fn chance_spreads_over_the_endpoints_of_a_gateway() {
    let second = Workload { network: "net2".into(), ..pod("gate2", &["20.0.0.8"]).of("ns/gate.example", &[]) };
    let all = [client().into(), web().into(), remote("ns/gate.example").into(), gate().into(), gate_service().into()];
    let routes = spread(&view(all.into_iter().chain([second.into()])), "10.1.0.1:80");
    let to = |ip: &str, name: &str| {
        format!("double {ip}:15008 of {name} for web.example:80 of remote; workload {name}; service web.example")
    };
    assert_eq!(routes, BTreeMap::from([(to("20.0.0.9", "gate"), 0.5), (to("20.0.0.8", "gate2"), 0.5)]));
}

#[test]
fn a_gateway_may_have_only_a_host_name() {
    let named = Workload { hostname: "gate.cloud.".into(), addresses: vec![].into(), ..gate() };
    let view =
        view([client().into(), web().into(), remote("ns/gate.example").into(), named.into(), gate_service().into()]);
    let with = |learnt: &Learnt| {
        words(ask(&view, &held(&view, "client"), "10.1.0.1:80", learnt, &settings(), &mut Script(vec![0, 0, 0])))
    };
    assert_eq!(with(&Learnt::default()), "resolve gate.cloud. for c//v1/Pod/ns/gate");
    let mut learnt = Learnt::default();
    learnt.resolved("gate.cloud.".into(), Resolution::Addresses(vec![ip("1.1.1.1")]));
    assert_eq!(
        with(&learnt),
        "double 1.1.1.1:15008 of gate for web.example:80 of remote; workload gate; service web.example"
    );
}

#[test]
fn a_gateway_that_is_not_known_is_asked_for_once() {
    let on_demand = RouteSettings { on_demand: true, ..settings() };
    for (reference, need, refusal) in [
        (
            "net2/20.0.0.9",
            "ask for address net2/20.0.0.9",
            "no: unknown network gateway: network gateway net2/20.0.0.9:15009 not found",
        ),
        (
            "ns/gate.example",
            "ask for host ns/gate.example",
            "no: unknown network gateway: network gateway gate.example not found",
        ),
    ] {
        let view = view([client().into(), web().into(), remote(reference).into()]);
        let mut learnt = Learnt::default();
        let ask = |learnt: &Learnt| ask(&view, &held(&view, "client"), "10.1.0.1:80", learnt, &on_demand, &mut NoDraw);
        assert_eq!(words(ask(&learnt)), need);
        let Err(Halt::Need(need)) = ask(&learnt) else { unreachable!() };
        learnt.asked(need);
        assert_eq!(words(ask(&learnt)), refusal);
    }
}

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
    Service { subject_alt_names: vec!["spiffe://td/ns/a/sa/vouched".into()], ..service }
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
        Service { load_balancer: Some(lb), ..web() }
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
    let guarded = || Service { waypoint: Some(gateway("ns/way.example", 15008)), ..vouched(web()) };
    let way = || service("way", &[], &[(15008, 15008)]);
    let waypoint = || Workload {
        network: "net2".into(),
        network_gateway: Some(gateway("net2/20.0.0.9", 15009).into()),
        ..pod("waypoint", &["20.0.0.8"]).of("ns/way.example", &[])
    };
    let other = |service: Service| Service { subject_alt_names: vec!["spiffe://td/ns/a/sa/way".into()], ..service };
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

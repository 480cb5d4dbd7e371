//! Waypoints: which traffic goes through which (spec data-plane 5.2, 5.3, 5.5; state-and-dns 7.6).

use super::*;
use crate::service::WeightedWaypoint;

/// A waypoint pod, found by its address, its host name, or as the endpoint of the service `way`.
fn waypoint() -> Workload {
    Workload { hostname: "way.pod".into(), ..pod("waypoint", &["10.0.0.9"]).of("ns/way.example", &[]) }
}

/// Its service.
fn way() -> Service {
    service("way", &["net1/10.1.0.9"], &[(15008, 15009)])
}

fn guarded_pod(by: &str) -> Workload {
    Workload { waypoint: Some(gateway(by, 15008).into()), ..server() }
}

fn guarded_service(by: &str) -> Service {
    web().with(|extra| extra.waypoint = Some(gateway(by, 15008)))
}

#[test]
fn traffic_to_a_workload_goes_through_its_waypoint() {
    let by = |reference: &str| vec![guarded_pod(reference).into(), waypoint().into(), way().into()];
    let by_pod = "hbone 10.0.0.9:15008 for 10.0.0.2:80 of waypoint; workload waypoint";
    let by_service = "hbone 10.0.0.9:15009 for 10.0.0.2:80 of waypoint; workload waypoint";
    check([
        ("by its address", by("net1/10.0.0.9"), "10.0.0.2:80", by_pod),
        ("by its host name", by("ns/way.pod"), "10.0.0.2:80", by_pod),
        ("by its service's host name", by("ns/way.example"), "10.0.0.2:80", by_service),
        ("by its service's address", by("net1/10.1.0.9"), "10.0.0.2:80", by_service),
        (
            "a host name means one namespace",
            by("other/way.example"),
            "10.0.0.2:80",
            "no: unknown waypoint: waypoint way.example not found",
        ),
        (
            "nobody there",
            by("net1/10.0.0.8"),
            "10.0.0.2:80",
            "no: unknown waypoint: waypoint net1/10.0.0.8:15008 not found",
        ),
        (
            "another network",
            by("net2/10.0.0.9"),
            "10.0.0.2:80",
            "no: unknown waypoint: waypoint net2/10.0.0.9:15008 not found",
        ),
        (
            "not for traffic to its service",
            vec![guarded_pod("net1/10.0.0.9").into(), waypoint().into(), web().into()],
            "10.1.0.1:80",
            "hbone 10.0.0.2:15008 for 10.0.0.2:8080 of server; workload server; service web.example",
        ),
    ]);
}

#[test]
fn traffic_to_a_service_goes_through_its_waypoint() {
    let by =
        |reference: &str| vec![guarded_service(reference).into(), server().into(), waypoint().into(), way().into()];
    let passthrough = || balanced(guarded_service("net1/10.0.0.9"), Mode::Passthrough);
    let sans = || way().with(|extra| extra.subject_alt_names = vec!["spiffe://td/ns/a/sa/extra".into()]);
    check([
        (
            "by its address",
            by("net1/10.0.0.9"),
            "10.1.0.1:80",
            "hbone 10.0.0.9:15008 for 10.1.0.1:80 of waypoint; workload waypoint; service web.example",
        ),
        (
            "by its service's host name",
            by("ns/way.example"),
            "10.1.0.1:80",
            "hbone 10.0.0.9:15009 for 10.1.0.1:80 of waypoint; workload waypoint; service web.example",
        ),
        (
            "even to a port that the service does not declare",
            by("net1/10.0.0.9"),
            "10.1.0.1:81",
            "hbone 10.0.0.9:15008 for 10.1.0.1:81 of waypoint; workload waypoint; service web.example",
        ),
        ("unknown", by("ns/nobody.example"), "10.1.0.1:80", "no: unknown waypoint: waypoint nobody.example not found"),
        (
            "not for traffic to its endpoints",
            by("net1/10.0.0.9"),
            "10.0.0.2:80",
            "hbone 10.0.0.2:15008 for 10.0.0.2:80 of server; workload server",
        ),
        (
            "also where endpoints are not chosen",
            vec![passthrough().into(), waypoint().into()],
            "10.1.0.1:80",
            "hbone 10.0.0.9:15008 for 10.1.0.1:80 of waypoint; workload waypoint; service web.example",
        ),
        (
            "the waypoint's service vouches for more",
            vec![guarded_service("ns/way.example").into(), waypoint().into(), sans().into()],
            "10.1.0.1:80",
            "hbone 10.0.0.9:15009 for 10.1.0.1:80 of extra|waypoint; workload waypoint; service web.example",
        ),
    ]);
}

#[test]
fn a_waypoint_is_found_by_whoever_is_sent_there() {
    let hidden = || Service {
        namespace: "edge".into(),
        visibility: Visibility::Namespace,
        ..service("way", &["net1/10.1.0.9"], &[(15008, 15009)])
    };
    let of_hidden = || pod("waypoint", &["10.0.0.9"]).of("edge/way.example", &[]);
    let through = "hbone 10.0.0.9:15009 for 10.0.0.2:80 of waypoint; workload waypoint";
    for reference in ["edge/way.example", "net1/10.1.0.9"] {
        check([(
            "though its service is hidden from the client",
            vec![guarded_pod(reference).into(), of_hidden().into(), hidden().into()],
            "10.0.0.2:80",
            through,
        )]);
    }
}

#[test]
fn a_waypoint_is_reached_on_any_port_by_its_app_tunnel() {
    let no_ports = || service("way", &["net1/10.1.0.9"], &[]);
    let tunnelled = |port| Workload { application_tunnel: tunnel(port), ..waypoint() };
    check([
        (
            "a tunnel with a port",
            vec![guarded_pod("net1/10.1.0.9").into(), tunnelled(Some(15088)).into(), no_ports().into()],
            "10.0.0.2:80",
            "hbone 10.0.0.9:15008 for 10.0.0.2:80 of waypoint; workload waypoint",
        ),
        (
            "a tunnel without",
            vec![guarded_pod("net1/10.1.0.9").into(), tunnelled(None).into(), no_ports().into()],
            "10.0.0.2:80",
            "no: unknown waypoint: waypoint net1/10.1.0.9:15008 not found",
        ),
        (
            "no tunnel",
            vec![guarded_pod("net1/10.1.0.9").into(), waypoint().into(), no_ports().into()],
            "10.0.0.2:80",
            "no: unknown waypoint: waypoint net1/10.1.0.9:15008 not found",
        ),
    ]);
}

#[test]
fn a_waypoint_service_that_passes_traffic_through_is_none_by_address() {
    let passthrough = || balanced(way(), Mode::Passthrough);
    check([
        (
            "by address",
            vec![guarded_pod("net1/10.1.0.9").into(), waypoint().into(), passthrough().into()],
            "10.0.0.2:80",
            "no: unknown waypoint: waypoint net1/10.1.0.9:15008 not found",
        ),
        (
            "by host name its endpoints are",
            vec![guarded_pod("ns/way.example").into(), waypoint().into(), passthrough().into()],
            "10.0.0.2:80",
            "hbone 10.0.0.9:15009 for 10.0.0.2:80 of waypoint; workload waypoint",
        ),
    ]);
}

#[test]
fn the_waypoint_reference_or_the_target_decides_the_family() {
    let v6 = |by: &str| Workload {
        addresses: vec![ip("fd00::2")].into(),
        waypoint: Some(gateway(by, 15008).into()),
        ..server()
    };
    let dual = || Workload { addresses: vec![ip("10.0.0.9"), ip("fd00::9")].into(), ..waypoint() };
    check([
        (
            "an IPv4 waypoint for an IPv6 target",
            vec![v6("net1/10.0.0.9").into(), dual().into()],
            "[fd00::2]:80",
            "hbone 10.0.0.9:15008 for [fd00::2]:80 of waypoint; workload waypoint",
        ),
        (
            "an IPv4 VIP for an IPv6 target",
            vec![v6("net1/10.1.0.9").into(), dual().into(), way().into()],
            "[fd00::2]:80",
            "hbone 10.0.0.9:15009 for [fd00::2]:80 of waypoint; workload waypoint",
        ),
        (
            "by name the target decides",
            vec![v6("ns/way.example").into(), dual().into(), way().into()],
            "[fd00::2]:80",
            "hbone [fd00::9]:15009 for [fd00::2]:80 of waypoint; workload waypoint",
        ),
    ]);
}

/// The route of `source`, seen at `client`.
fn from(view: &View, source: &str, client: &str, target: &str) -> String {
    let (source, settings, learnt) = (held(view, source), settings(), Learnt::default());
    let client = SocketAddr::new(ip(client), 40000);
    let past = Past { failures: &Failures::default(), tried: &[], now: Instant::now() };
    words(route(
        &Outbound { view, source: &source, client, target: socket(target), learnt: &learnt, settings: &settings, past },
        &mut NoDraw,
    ))
}

#[test]
fn a_waypoint_does_not_go_through_itself() {
    let direct_pod = "hbone 10.0.0.2:15008 for 10.0.0.2:80 of server; workload server";
    let direct_service = "hbone 10.0.0.2:15008 for 10.0.0.2:8080 of server; workload server; service web.example";
    for reference in ["net1/10.0.0.9", "ns/way.pod", "ns/way.example", "net1/10.1.0.9"] {
        let view =
            view([guarded_pod(reference).into(), guarded_service(reference).into(), waypoint().into(), way().into()]);
        assert_eq!(from(&view, "waypoint", "10.0.0.9", "10.0.0.2:80"), direct_pod, "{reference}");
        assert_eq!(from(&view, "waypoint", "10.0.0.9", "10.1.0.1:80"), direct_service, "{reference}");
        let elsewhere = from(&view, "waypoint", "10.0.0.77", "10.0.0.2:80");
        assert!(elsewhere.ends_with("workload waypoint"), "from an address that is not the waypoint's: {elsewhere}");
    }
}

#[test]
fn only_the_waypoint_itself_is_exempt() {
    let impostor = Workload { addresses: waypoint().addresses, network_mode: NetworkMode::HostNetwork, ..client() };
    let sibling = Workload {
        uid: "sibling".into(),
        service_account: "waypoint".into(),
        ..pod("sibling", &["10.0.0.8"]).of("ns/other.example", &[])
    };
    let view =
        view([guarded_pod("ns/way.example").into(), waypoint().into(), way().into(), impostor.into(), sibling.into()]);
    let through = "hbone 10.0.0.9:15009 for 10.0.0.2:80 of waypoint; workload waypoint";
    assert_eq!(from(&view, "client", "10.0.0.9", "10.0.0.2:80"), through, "another identity at the same address");
    assert_eq!(from(&view, "sibling", "10.0.0.8", "10.0.0.2:80"), through, "the same identity at another address");
}

#[test]
fn a_waypoint_known_under_two_keys_is_still_itself() {
    let entry = Workload { uid: "c/WorkloadEntry/ns/waypoint".into(), services: [].into(), ..waypoint() };
    let second = Workload { name: "entry".into(), ..entry };
    let view = view([guarded_pod("ns/way.example").into(), waypoint().into(), way().into(), second.into()]);
    let direct = "hbone 10.0.0.2:15008 for 10.0.0.2:80 of server; workload server";
    assert_eq!(from(&view, "entry", "10.0.0.9", "10.0.0.2:80"), direct);
}

fn weighted(weights: &[(&str, u32)], single: Option<&str>) -> Service {
    let one = |(to, weight): &(&str, u32)| WeightedWaypoint { destination: gateway(to, 15008), weight: *weight };
    web().with(|extra| {
        extra.waypoint = single.map(|to| gateway(to, 15008));
        extra.weighted_waypoints = weights.iter().map(one).collect();
    })
}

#[test]
fn weighted_waypoints_get_their_shares() {
    let numbered = |n: u8| pod(&format!("w{n}"), &[&format!("10.0.9.{n}")]);
    let shares = |service: Service| {
        let view = view([client().into(), service.into(), numbered(1).into(), numbered(2).into(), numbered(3).into()]);
        let routes = spread(&view, "10.1.0.1:80");
        let name = |words: &str| {
            words.split("workload ").nth(1).map_or(words, |rest| rest.split(';').next().unwrap()).to_owned()
        };
        routes.iter().map(|(words, chance)| (name(words), (chance * 100.0).round())).collect::<Vec<_>>()
    };
    let of = |name: &str, chance: f64| (name.to_owned(), chance);
    let (a, b, c) = ("net1/10.0.9.1", "net1/10.0.9.2", "net1/10.0.9.3");
    assert_eq!(shares(weighted(&[(a, 1), (b, 3)], Some(c))), [of("w1", 25.0), of("w2", 75.0)]);
    assert_eq!(shares(weighted(&[(a, 0), (b, 3)], Some(c))), [of("w2", 100.0)]);
    assert_eq!(shares(weighted(&[(a, 0), (b, 0)], Some(c))), [of("w3", 100.0)]);
    assert_eq!(
        shares(weighted(&[(a, 1), ("net1/10.0.9.9", 1)], Some(c))),
        [of("w1", 50.0), of("no: unknown waypoint: waypoint net1/10.0.9.9:15008 not found", 50.0)],
        "there is no second choice"
    );
    let (large, larger) = (u32::MAX, u32::MAX);
    let view = view([client().into(), weighted(&[(a, large), (b, larger)], None).into(), numbered(1).into()]);
    let last = u64::from(large) + u64::from(larger) - 1;
    let route =
        ask(&view, &held(&view, "client"), "10.1.0.1:80", &Learnt::default(), &settings(), &mut Script(vec![last]));
    assert_eq!(words(route), "no: unknown waypoint: waypoint net1/10.0.9.2:15008 not found", "weights do not overflow");
}

#[test]
fn no_weight_at_all_and_no_single_waypoint_means_none() {
    check([(
        "zero weights",
        vec![weighted(&[("net1/10.0.0.9", 0)], None).into(), server().into()],
        "10.1.0.1:80",
        "hbone 10.0.0.2:15008 for 10.0.0.2:8080 of server; workload server; service web.example",
    )]);
}

#[test]
fn any_of_several_waypoints_is_exempt() {
    let direct = "hbone 10.0.0.2:15008 for 10.0.0.2:8080 of server; workload server; service web.example";
    for weight in [1, 0] {
        let service = weighted(&[("net1/10.0.0.8", 1), ("net1/10.0.0.9", weight)], None);
        let view = view([service.into(), server().into(), waypoint().into()]);
        assert_eq!(from(&view, "waypoint", "10.0.0.9", "10.1.0.1:80"), direct, "weight {weight}");
    }
}

#[test]
fn a_waypoint_that_is_not_known_is_asked_for_once() {
    let on_demand = RouteSettings { on_demand: true, ..settings() };
    for (reference, need, refusal) in [
        (
            "net1/10.0.0.9",
            "ask for address net1/10.0.0.9",
            "no: unknown waypoint: waypoint net1/10.0.0.9:15008 not found",
        ),
        ("ns/way.example", "ask for host ns/way.example", "no: unknown waypoint: waypoint way.example not found"),
    ] {
        let view = view([client().into(), guarded_pod(reference).into()]);
        let mut learnt = Learnt::default();
        let asked = ask(&view, &held(&view, "client"), "10.0.0.2:80", &learnt, &on_demand, &mut NoDraw);
        assert_eq!(words(asked.clone()), need);
        let Err(Halt::Need(need)) = asked else { unreachable!() };
        learnt.asked(need);
        assert_eq!(words(ask(&view, &held(&view, "client"), "10.0.0.2:80", &learnt, &on_demand, &mut NoDraw)), refusal);
    }
}

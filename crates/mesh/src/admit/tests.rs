//! What reaches a pod, as decision tables (spec data-plane 10, 11).

use crate::workload::Deployment;
use std::fmt::Write;

use super::*;
use crate::ask::Need;
use crate::connect::baggage;
use crate::fixture::{NETWORK, gateway, held, ip, key, pod, service, socket, view};
use crate::refusal::ResponseFlag;
use crate::service::{Visibility, WeightedWaypoint};
use crate::view::Change;
use crate::workload::{ApplicationTunnel, TunnelProtocol};

fn settings() -> AdmitSettings {
    AdmitSettings {
        network: NETWORK.into(),
        illegal_ports: vec![15001, 15006, 15008],
        preserve_source: true,
        localhost_app_tunnel: true,
        baggage: true,
        unknown_policy: UnknownPolicy::Deny,
        on_demand: false,
    }
}

/// The workload that all requests reach, at the first of its addresses.
fn server() -> Workload {
    pod("server", &["10.0.0.2", "fd00::2"]).of("ns/web.example", &[(90, 9090)])
}

fn web() -> Service {
    service("web", &["net2/10.9.0.1", "net1/fd01::1", "net1/10.1.0.1"], &[(80, 8080), (90, 0), (91, 0)])
}

fn request<'a>(authority: &'a str) -> HboneRequest<'a> {
    HboneRequest {
        peer: socket("10.0.0.1:40000"),
        local: socket("10.0.0.2:15008"),
        identity: None,
        method: "CONNECT",
        authority,
        baggage: &[],
        forwarded: None,
        forwarded_network: None,
    }
}

fn admit(view: &View, request: &HboneRequest<'_>, settings: &AdmitSettings) -> Result<Admission, Halt> {
    admit_hbone(view, &held(view, "server"), request, &Learnt::default(), settings)
}

fn refusal(outcome: Result<Admission, Halt>) -> Refusal {
    match outcome {
        Err(Halt::Refuse(refusal)) => refusal,
        other => panic!("{other:?}"),
    }
}

/// An admission in words: what is dialled from where, what authorization sees, what the app is told.
fn words(outcome: Result<Admission, Halt>) -> String {
    let admission = match outcome {
        Err(Halt::Refuse(refusal)) => return format!("{}: {refusal}", refusal.status()),
        Err(Halt::Need(need)) => return format!("{need:?}"),
        Ok(admission) => admission,
    };
    let mut words = format!("dial {}", admission.app());
    if let Some(ip) = admission.source_ip() {
        let _ = write!(words, " from {ip}");
    }
    if admission.tuple().destination != admission.app() {
        let _ = write!(words, " as {}", admission.tuple().destination);
    }
    if let Some(header) = admission.proxy_header() {
        let _ = write!(words, " told {}", header.destination);
    }
    words
}

/// Checks a table of meshes, authorities and admissions.
fn check(rows: impl IntoIterator<Item = (&'static str, Vec<Change>, &'static str, &'static str)>) {
    for (case, changes, authority, expected) in rows {
        let view = view(changes);
        assert_eq!(words(admit(&view, &request(authority), &settings())), expected, "{case}");
    }
}

#[test]
fn requests_have_to_be_connect_to_a_host_and_port() {
    let view = view([server().into()]);
    for (method, authority, status, wording) in [
        ("GET", "10.0.0.2:80", 400, "expected method CONNECT, got GET"),
        ("connect", "10.0.0.2:80", 400, "expected method CONNECT, got connect"),
        ("CONNECT", "10.0.0.2", 400, "no valid authority pseudo header: 10.0.0.2"),
        ("CONNECT", "", 400, "no valid authority pseudo header: "),
    ] {
        let refused = refusal(admit(&view, &HboneRequest { method, ..request(authority) }, &settings()));
        assert_eq!((refused.status(), refused.to_string().as_str()), (status, wording));
        assert_eq!(refused.flag(), ResponseFlag::Connect);
    }
}

#[test]
fn addresses_have_to_be_the_pods_own() {
    check([
        ("its own", vec![server().into()], "10.0.0.2:80", "dial 10.0.0.2:80 from 10.0.0.1"),
        ("its own, mapped", vec![server().into()], "[::ffff:10.0.0.2]:80", "dial 10.0.0.2:80 from 10.0.0.1"),
        ("another of its own", vec![server().into()], "[fd00::2]:80", "400: ip mismatch: 10.0.0.2 != fd00::2"),
        (
            "somebody else's",
            vec![server().into(), pod("other", &["10.0.0.3"]).into()],
            "10.0.0.3:80",
            "400: ip mismatch: 10.0.0.2 != 10.0.0.3",
        ),
        ("nobody's", vec![server().into()], "9.9.9.9:80", "400: ip mismatch: 10.0.0.2 != 9.9.9.9"),
        ("a service's", vec![server().into(), web().into()], "10.1.0.1:80", "400: ip mismatch: 10.0.0.2 != 10.1.0.1"),
        ("port 0 is for the dial to refuse", vec![server().into()], "10.0.0.2:0", "dial 10.0.0.2:0 from 10.0.0.1"),
        ("one of our ports", vec![server().into()], "10.0.0.2:15006", "503: attempted recursive call to ourselves"),
    ]);
}

/// Something at 10.0.0.7 or 10.1.0.7 that is behind a waypoint.
fn behind(by: &str) -> Vec<Change> {
    let backend = Workload { waypoint: Some(gateway(by, 15008).into()), ..pod("backend", &["10.0.0.7"]) };
    let backends = service("backends", &["net1/10.1.0.7"], &[]).with(|extra| extra.waypoint = Some(gateway(by, 15008)));
    let other = service("other", &["net1/10.1.0.2"], &[]);
    vec![server().into(), web().into(), backend.into(), backends.into(), other.into()]
}

#[test]
fn a_waypoint_takes_requests_for_what_is_behind_it() {
    let through = "dial 10.0.0.2:80 from 10.0.0.1";
    let host = || pod("named", &["10.0.0.2"]);
    let named = || Workload { hostname: "server.pod".into(), ..host() };
    for target in ["10.0.0.7", "10.1.0.7"] {
        for (case, by, accepted) in [
            ("by its address", "net1/10.0.0.2", true),
            ("by the address of its service", "net1/10.1.0.1", true),
            ("by the name of its service", "ns/web.example", true),
            ("by its host name", "ns/server.pod", true),
            ("another address of its own than the one that was reached", "net1/fd00::2", true),
            ("another workload's", "net1/10.0.0.3", false),
            ("a service that it is no endpoint of", "net1/10.1.0.2", false),
            ("another network's", "net2/10.0.0.2", false),
            ("a name that nobody has", "ns/nobody.example", false),
        ] {
            let view = view(behind(by).into_iter().chain([named().into()]));
            let authority = format!("{target}:80");
            let expected =
                if accepted { through.to_owned() } else { format!("400: ip mismatch: 10.0.0.2 != {target}") };
            assert_eq!(words(admit(&view, &request(&authority), &settings())), expected, "{case}, {target}");
        }
    }
}

#[test]
fn what_a_waypoint_may_not_see_it_still_serves() {
    let hidden = || Service {
        namespace: "other".into(),
        visibility: Visibility::Namespace,
        ..service("backends", &["net1/10.1.0.7"], &[])
            .with(|extra| extra.waypoint = Some(gateway("net1/10.0.0.2", 15008)))
    };
    let through = "dial 10.0.0.2:80 from 10.0.0.1";
    check([("by its address", vec![server().into(), hidden().into()], "10.1.0.7:80", through)]);
}

#[test]
fn any_of_several_waypoints_takes_requests() {
    let one = |to: &str, weight| WeightedWaypoint { destination: gateway(to, 15008), weight };
    let weighted = service("backends", &["net1/10.1.0.7"], &[])
        .with(|extra| extra.weighted_waypoints = vec![one("net1/10.0.0.3", 1), one("net1/10.0.0.2", 0)]);
    check([(
        "even with weight 0, while connections drain",
        vec![server().into(), weighted.into()],
        "10.1.0.7:80",
        "dial 10.0.0.2:80 from 10.0.0.1",
    )]);
}

#[test]
fn what_is_asked_for_is_fetched_once_where_there_is_somebody_to_ask() {
    let view = view([server().into(), pod("client", &["10.0.0.1"]).into()]);
    let on_demand = AdmitSettings { on_demand: true, ..settings() };
    let mut learnt = Learnt::default();
    let ask = |learnt: &Learnt, authority: &str| {
        words(admit_hbone(&view, &held(&view, "server"), &request(authority), learnt, &on_demand))
    };
    let need = Need::Address("net1/9.9.9.9".parse().unwrap());
    assert_eq!(ask(&learnt, "9.9.9.9:80"), format!("{need:?}"));
    learnt.asked(need);
    assert_eq!(ask(&learnt, "9.9.9.9:80"), "400: ip mismatch: 10.0.0.2 != 9.9.9.9");
    assert_eq!(ask(&learnt, "10.0.0.2:80"), "dial 10.0.0.2:80 from 10.0.0.1");
    assert_eq!(ask(&learnt, "10.0.0.1:80"), "400: ip mismatch: 10.0.0.2 != 10.0.0.1", "it is known whose that is");

    let need = Need::Host(key("ns/late.example"));
    assert_eq!(ask(&learnt, "late.example:80"), format!("{need:?}"));
    learnt.asked(need);
    assert_eq!(ask(&learnt, "late.example:80"), "503: no service or workload for hostname: late.example");

    let stranger = HboneRequest { peer: socket("9.9.9.9:1"), ..request("10.0.0.2:80") };
    let server = held(&view, "server");
    let need = Need::Address("net1/9.9.9.9".parse().unwrap());
    let fresh = Learnt::default();
    assert_eq!(admit_hbone(&view, &server, &stranger, &fresh, &on_demand).unwrap_err(), Halt::Need(need.clone()));
    assert!(admit_hbone(&view, &server, &stranger, &learnt, &on_demand).unwrap().source().is_none());
    let (peer, local) = (socket("9.9.9.9:1"), socket("10.0.0.2:80"));
    assert_eq!(admit_plaintext(&view, &server, peer, local, &fresh, &on_demand).unwrap_err(), Halt::Need(need));
}

#[test]
fn host_names_are_services_of_the_pod() {
    let all = || vec![server().into(), web().into()];
    let hidden = || Service { namespace: "other".into(), visibility: Visibility::Namespace, ..web() };
    check([
        ("the service's target", all(), "web.example:80", "dial 10.0.0.2:8080 from 10.0.0.1"),
        ("in another spelling", all(), "WEB.example.:80", "dial 10.0.0.2:8080 from 10.0.0.1"),
        ("a named port", all(), "web.example:90", "dial 10.0.0.2:9090 from 10.0.0.1"),
        (
            "a named port that it does not define",
            all(),
            "web.example:91",
            "503: requested service web.example:91 found, but cannot resolve port",
        ),
        (
            "a port that the service does not declare",
            all(),
            "web.example:92",
            "503: requested service web.example:92 found, but cannot resolve port",
        ),
        ("no such service", all(), "nobody.example:80", "503: no service or workload for hostname: nobody.example"),
        (
            "one that it may not see",
            vec![server().into(), hidden().into()],
            "web.example:80",
            "503: no service or workload for hostname: web.example",
        ),
    ]);
}

/// The server with an application tunnel.
fn tunnelled(protocol: TunnelProtocol, port: Option<u16>) -> Vec<Change> {
    let application_tunnel = Some(ApplicationTunnel { protocol, port });
    vec![Workload { application_tunnel, ..server() }.into(), web().into()]
}

#[test]
fn application_tunnels_decide_port_header_and_address() {
    use TunnelProtocol::{None as Bare, Proxy};
    let no_vip = || Service { vips: [].into(), ..web() };
    let without_vip = |protocol| {
        let mut all = tunnelled(protocol, Some(15088));
        all.push(no_vip().into());
        all
    };
    check([
        ("a port of its own", tunnelled(Bare, Some(15088)), "10.0.0.2:80", "dial 10.0.0.2:15088 from 10.0.0.1"),
        ("no port of its own", tunnelled(Bare, None), "10.0.0.2:80", "dial 10.0.0.2:80 from 10.0.0.1"),
        ("any address will do", tunnelled(Bare, None), "9.9.9.9:80", "dial 10.0.0.2:80 from 10.0.0.1"),
        (
            "a header, by loopback",
            tunnelled(Proxy, Some(15088)),
            "9.9.9.9:80",
            "dial 127.0.0.1:15088 from 127.0.0.1 as 10.0.0.2:15088 told 9.9.9.9:80",
        ),
        (
            "a header about a service: a VIP of this network, IPv4 first",
            tunnelled(Proxy, Some(15088)),
            "web.example:80",
            "dial 127.0.0.1:15088 from 127.0.0.1 as 10.0.0.2:15088 told 10.1.0.1:80",
        ),
        (
            "the service's port without one of its own",
            tunnelled(Proxy, None),
            "web.example:80",
            "dial 127.0.0.1:8080 from 127.0.0.1 as 10.0.0.2:8080 told 10.1.0.1:80",
        ),
        (
            "a header about a service without a VIP",
            without_vip(Proxy),
            "web.example:80",
            "503: requested service web.example found, but has no IP addresses",
        ),
        ("no header, no VIP needed", without_vip(Bare), "web.example:80", "dial 10.0.0.2:15088 from 10.0.0.1"),
        (
            "the port asked for is ours",
            tunnelled(Bare, Some(15088)),
            "10.0.0.2:15008",
            "503: attempted recursive call to ourselves",
        ),
        (
            "its own port is ours",
            tunnelled(Bare, Some(15008)),
            "10.0.0.2:80",
            "503: attempted recursive call to ourselves",
        ),
    ]);
}

#[test]
fn the_only_vip_may_be_of_another_network() {
    let mut all = tunnelled(TunnelProtocol::Proxy, Some(15088));
    all.push(
        Service { vips: ["net2/fd09::1", "net2/10.9.0.1"].map(|vip| vip.parse().unwrap()).into(), ..web() }.into(),
    );
    let told = admit(&view(all), &request("web.example:80"), &settings()).unwrap().proxy_header().unwrap().destination;
    assert_eq!(told, socket("10.9.0.1:80"));
}

#[test]
fn loopback_and_source_preservation_are_settings() {
    let plain = AdmitSettings { preserve_source: false, localhost_app_tunnel: false, ..settings() };
    let view = view(tunnelled(TunnelProtocol::Proxy, Some(15088)));
    assert_eq!(words(admit(&view, &request("9.9.9.9:80"), &plain)), "dial 10.0.0.2:15088 told 9.9.9.9:80");
    let v6 = HboneRequest { local: socket("[fd00::2]:15008"), ..request("9.9.9.9:80") };
    assert_eq!(
        words(admit(&view, &v6, &settings())),
        "dial [::1]:15088 from ::1 as [fd00::2]:15088 told 9.9.9.9:80",
        "the loopback address is of the app address's family"
    );
}

#[test]
fn the_app_is_told_who_the_peer_is() {
    let identity: Identity = "spiffe://td/ns/a/sa/b".parse().unwrap();
    let view = view(tunnelled(TunnelProtocol::Proxy, None));
    let request = HboneRequest { identity: Some(&identity), ..request("9.9.9.9:80") };
    let admission = admit(&view, &request, &settings()).unwrap();
    let header = admission.proxy_header().unwrap();
    assert_eq!((header.source, header.identity.as_ref()), (socket("10.0.0.1:40000"), Some(&identity)));
    assert_eq!(admission.tuple().identity.as_ref(), Some(&identity));
    assert_eq!(admission.arrived_at(), socket("10.0.0.2:15008"));
}

#[test]
fn the_source_is_who_has_the_peers_address_unless_a_gateway_is_between() {
    let view = view([server().into(), pod("client", &["10.0.0.1"]).into()]);
    for (network, known) in [
        (None, true),
        (Some(&b"net1"[..]), true),
        (Some(b"NET1"), true),
        (Some(b"net2"), false),
        (Some(b""), false),
        (Some(b"net2\xff"), true),
    ] {
        let request = HboneRequest { forwarded_network: network, ..request("10.0.0.2:80") };
        let admission = admit(&view, &request, &settings()).unwrap();
        assert_eq!(admission.source().map(|w| &*w.name), known.then_some("client"), "{network:?}");
    }
}

#[test]
fn baggage_is_read_and_written_if_it_is_on() {
    let srv = Deployment { canonical_name: "srv".into(), ..Deployment::default() };
    let view = view([Workload { deployment: srv.into(), ..server() }.into()]);
    let lines = [&b"service.name=peer"[..]];
    let request = HboneRequest { baggage: &lines, ..request("10.0.0.2:80") };
    let on = admit(&view, &request, &settings()).unwrap();
    assert_eq!(on.baggage().service_name.as_deref(), Some("peer"));
    assert_eq!(on.response_baggage(), Some(baggage::write(&held(&view, "server"))));
    let off = admit(&view, &request, &AdmitSettings { baggage: false, ..settings() }).unwrap();
    assert_eq!((off.baggage(), off.response_baggage()), (&Baggage::default(), None));
    let broken = [&b"service.name=peer"[..], b"\xff"];
    let unread = admit(&view, &HboneRequest { baggage: &broken, ..request }, &settings()).unwrap();
    assert_eq!(unread.baggage(), &Baggage::default());
}

#[test]
fn the_service_meant_is_guessed() {
    let one = service("one", &[], &[(80, 8080)]);
    let two = service("two", &[], &[(80, 8080), (81, 8181)]);
    let three = service("three", &[], &[(82, 0)]);
    let member = server().of("ns/unknown.example", &[]).of("ns/one.example", &[]).of("ns/two.example", &[]);
    let member = member.of("ns/three.example", &[(82, 8282)]);
    let stranger = service("stranger", &[], &[(80, 7070)]);
    let view = view([one.into(), two.into(), three.into(), member.into(), stranger.into()]);
    for (case, authority, forwarded, expected) in [
        ("the first that leads to the port", "10.0.0.2:8080", None, Some("one.example")),
        ("by port alone", "10.0.0.2:8181", None, Some("two.example")),
        ("by the endpoint's own port", "10.0.0.2:8282", None, Some("three.example")),
        ("no service leads there", "10.0.0.2:7070", None, None),
        ("what the peer says", "10.0.0.2:8080", Some("host=two.example"), Some("two.example")),
        (
            "what the peer says, whatever the port",
            "10.0.0.2:1",
            Some("for=x;host=\"two.example\""),
            Some("two.example"),
        ),
        ("not a service of this pod", "10.0.0.2:8080", Some("host=stranger.example"), Some("one.example")),
        ("the one asked for by name", "two.example:80", None, Some("two.example")),
        ("not another than the one asked for", "two.example:80", Some("host=one.example"), Some("two.example")),
    ] {
        let request = HboneRequest { forwarded: forwarded.map(str::as_bytes), ..request(authority) };
        let admission = admit(&view, &request, &settings()).unwrap_or_else(|halt| panic!("{case}: {halt:?}"));
        assert_eq!(admission.service().map(|s| s.hostname.as_str()), expected, "{case}");
    }
}

#[test]
fn plaintext_goes_where_it_was_sent() {
    let view = view([server().into(), web().into(), pod("client", &["10.0.0.1"]).into()]);
    let server = held(&view, "server");
    let admit = |peer: &str, local: &str, settings: &AdmitSettings| {
        admit_plaintext(&view, &server, socket(peer), socket(local), &Learnt::default(), settings)
    };
    let admission = admit("[::ffff:10.0.0.1]:1", "10.0.0.2:9090", &settings()).unwrap();
    assert_eq!(admission.app(), socket("10.0.0.2:9090"));
    assert_eq!(admission.source_ip(), Some(ip("10.0.0.1")));
    assert_eq!(admission.tuple().source, socket("10.0.0.1:1"));
    assert_eq!(admission.tuple().identity, None);
    assert_eq!(admission.source().map(|w| &*w.name), Some("client"));
    assert_eq!(admission.service().map(|s| s.key()), Some(key("ns/web.example")));
    assert!(admission.authority().is_none() && admission.proxy_header().is_none());
    assert!(admission.response_baggage().is_none());

    let not_kept = AdmitSettings { preserve_source: false, ..settings() };
    assert_eq!(admit("10.0.0.1:1", "10.0.0.2:9090", &not_kept).unwrap().source_ip(), None);
    for port in [15001, 15006, 15008] {
        assert_eq!(refusal(admit("10.0.0.1:1", &format!("9.9.9.9:{port}"), &settings())), Refusal::Recursion);
    }
}

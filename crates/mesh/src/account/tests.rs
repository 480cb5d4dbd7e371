//! What telemetry is told of a connection (spec admin-and-telemetry 3, 4; data-plane 16.4, 19.2, 19.4).

use std::ops::Deref;
use std::time::Instant;

use super::*;
use crate::admit::{AdmitSettings, HboneRequest, admit_hbone, admit_plaintext};
use crate::ask::Learnt;
use crate::authorize::UnknownPolicy;
use crate::connect::Traceparent;
use crate::fixture::{NETWORK, NoDraw, gateway, held, pod, service, socket, view};
use crate::retry::{Failures, Past};
use crate::route::{Outbound, RouteSettings, route};
use crate::view::View;
use crate::workload::Deployment;
use crate::workload::Protocol;

const TRACE: Traceparent = Traceparent { trace: TraceId(7), parent: 8 };

fn described(name: &str, ip: &str) -> Workload {
    Workload {
        deployment: Deployment {
            workload_name: format!("{name}-deploy").as_str().into(),
            canonical_name: format!("{name}-app").as_str().into(),
            canonical_revision: "v1".into(),
            ..Deployment::default()
        }
        .into(),
        locality: Locality { region: "eu".into(), zone: "a".into(), ..Locality::default() }.into(),
        ..pod(name, &[ip])
    }
}

fn mesh() -> View {
    view([
        described("client", "10.0.0.1").into(),
        described("server", "10.0.0.2").of("ns/web.example", &[]).into(),
        Workload { protocol: Protocol::Tcp, ..described("plain", "10.0.0.3") }.into(),
        service("web", &["net1/10.1.0.1"], &[(80, 8080)]).into(),
    ])
}

fn outbound(view: &View, target: &str) -> Flow {
    let settings =
        RouteSettings { network: NETWORK.into(), hbone_port: 15008, illegal_ports: vec![], on_demand: false };
    let (source, learnt) = (held(view, "client"), Learnt::default());
    let (client, target) = (socket("10.0.0.1:40000"), socket(target));
    let past = Past { failures: &Failures::default(), tried: &[], now: Instant::now() };
    let request = Outbound { view, source: &source, client, target, learnt: &learnt, settings: &settings, past };
    Flow::outbound(&route(&request, &mut NoDraw).unwrap(), TRACE)
}

fn settings() -> AdmitSettings {
    AdmitSettings {
        network: NETWORK.into(),
        illegal_ports: vec![],
        preserve_source: false,
        localhost_app_tunnel: false,
        baggage: true,
        unknown_policy: UnknownPolicy::Deny,
        on_demand: false,
    }
}

fn inbound(view: &View, peer: &str, identity: Option<&Identity>, baggage: &[&[u8]]) -> Flow {
    let request = HboneRequest {
        peer: socket(peer),
        local: socket("10.0.0.2:15008"),
        identity,
        method: "CONNECT",
        authority: "10.0.0.2:8080",
        baggage,
        forwarded: None,
        forwarded_network: None,
    };
    let admission = admit_hbone(view, &held(view, "server"), &request, &Learnt::default(), &settings()).unwrap();
    Flow::inbound(&admission, TRACE)
}

fn text<T: Deref<Target = str>>(part: &Option<T>) -> &str {
    part.as_deref().unwrap_or("-")
}

fn identity(identity: Option<&Identity>) -> String {
    identity.map_or("-".to_owned(), ToString::to_string)
}

/// Every part of a party, `-` where it is not known.
fn all(flow: &Flow, party: &Party) -> Vec<String> {
    let texts = [
        &party.workload,
        &party.canonical_service,
        &party.canonical_revision,
        &party.namespace,
        &party.app,
        &party.version,
        &party.cluster,
    ];
    let place = party.locality.as_ref().map_or("-".to_owned(), |place| format!("{}/{}", place.region, place.zone));
    let ends = [identity(party.principal.as_ref()), identity(flow.proven(party)), place];
    let pod = text(&party.pod).to_owned();
    std::iter::once(pod).chain(texts.iter().map(|part| text(part).to_owned())).chain(ends).collect()
}

const CLIENT: &str = "spiffe://cluster.local/ns/ns/sa/client";
const SERVER: &str = "spiffe://cluster.local/ns/ns/sa/server";

#[test]
fn an_outbound_tunnel_tells_both_sides_with_identities() {
    let flow = outbound(&mesh(), "10.1.0.1:80");
    assert_eq!((flow.reporter.as_str(), flow.reporter.direction().as_str()), ("source", "outbound"));
    assert_eq!(flow.source_address, socket("10.0.0.1:40000"));
    assert_eq!(flow.destination_address, socket("10.0.0.2:15008"));
    assert_eq!(flow.hbone_authority.as_ref().map(ToString::to_string).as_deref(), Some("10.0.0.2:8080"));
    assert_eq!(flow.security.as_str(), "mutual_tls");
    assert_eq!(
        all(&flow, &flow.source),
        ["client", "client-deploy", "client-app", "v1", "ns", "client-app", "v1", "Kubernetes", CLIENT, CLIENT, "eu/a"]
    );
    assert_eq!(
        all(&flow, &flow.destination),
        ["server", "server-deploy", "server-app", "v1", "ns", "server-app", "v1", "Kubernetes", SERVER, SERVER, "eu/a"]
    );
    let labels = flow.service.unwrap();
    assert_eq!((&*labels.hostname, &*labels.namespace, &*labels.name), ("web.example", "ns", "web"));
}

#[test]
fn outbound_plain_text_has_a_destination_principal_and_no_logged_identities() {
    let flow = outbound(&mesh(), "10.0.0.3:80");
    assert_eq!((flow.destination_address, &flow.hbone_authority), (socket("10.0.0.3:80"), &None));
    assert_eq!(flow.security.as_str(), "unknown");
    assert_eq!(
        (identity(flow.source.principal.as_ref()), identity(flow.proven(&flow.source))),
        ("-".into(), "-".into())
    );
    assert_eq!(identity(flow.destination.principal.as_ref()), "spiffe://cluster.local/ns/ns/sa/plain");
    assert_eq!(identity(flow.proven(&flow.destination)), "-");
}

#[test]
fn nothing_is_told_of_a_stranger() {
    let flow = outbound(&mesh(), "9.9.9.9:80");
    assert_eq!((flow.destination, flow.service), (Party::default(), None));
}

#[test]
fn a_party_without_a_name_goes_by_its_canonical_service_in_the_log() {
    assert_eq!(Party::of(&Workload { name: "".into(), ..described("x", "10.0.0.9") }).pod.as_deref(), Some("x-app"));
    let nowhere = Deployment { cluster_id: "".into(), ..Deployment::default() };
    let empty = Workload { name: "".into(), deployment: nowhere.into(), ..Workload::new("u".into()) };
    assert_eq!(Party::of(&empty), Party { locality: Some(Arc::default()), ..Party::default() });
}

#[test]
fn an_inbound_tunnel_tells_the_peer_by_its_certificate() {
    let peer: Identity = "spiffe://elsewhere/ns/x/sa/y".parse().unwrap();
    let lines = [&b"k8s.deployment.name=claimed,k8s.cluster.name=c9"[..]];
    let flow = inbound(&mesh(), "10.0.0.1:40000", Some(&peer), &lines);
    assert_eq!((flow.reporter.as_str(), flow.reporter.direction().as_str()), ("destination", "inbound"));
    assert_eq!(flow.destination_address, socket("10.0.0.2:15008"));
    assert_eq!(flow.hbone_authority.as_ref().map(ToString::to_string).as_deref(), Some("10.0.0.2:8080"));
    let known = ["client", "client-deploy", "client-app", "v1", "ns", "client-app", "v1", "Kubernetes"];
    assert_eq!(all(&flow, &flow.source)[..8], known, "what the mesh knows goes before what is claimed");
    assert_eq!(
        (identity(flow.source.principal.as_ref()), identity(flow.proven(&flow.source))),
        (peer.to_string(), peer.to_string())
    );
    assert_eq!(
        (identity(flow.destination.principal.as_ref()), identity(flow.proven(&flow.destination))),
        (SERVER.into(), SERVER.into())
    );
    assert_eq!(flow.service.map(|labels| labels.hostname.to_string()).as_deref(), Some("web.example"));
    assert_eq!((flow.trace, flow.hop), (TRACE.trace, TRACE.parent));
}

#[test]
fn an_unknown_peer_is_what_it_claims_to_be() {
    let lines = [&b"k8s.cluster.name=c9,k8s.namespace.name=n9,k8s.pod.name=w9,service.name=s9,service.version=v9,cloud.region=r9,cloud.availability_zone=z9"[..]];
    let flow = inbound(&mesh(), "10.9.9.9:1", None, &lines);
    assert_eq!(all(&flow, &flow.source), ["s9", "w9", "s9", "v9", "n9", "w9", "v9", "c9", "-", "-", "r9/z9"]);
    let silent = inbound(&mesh(), "10.9.9.9:1", None, &[]);
    assert_eq!(all(&silent, &silent.source), ["-"; 11]);
}

#[test]
fn inbound_plain_text_logs_no_identities() {
    let view = mesh();
    let (peer, local) = (socket("10.0.0.1:1"), socket("10.0.0.2:8080"));
    let admission =
        admit_plaintext(&view, &held(&view, "server"), peer, local, &Learnt::default(), &settings()).unwrap();
    let flow = Flow::inbound(&admission, TRACE);
    assert_eq!((flow.security, flow.destination_address), (SecurityPolicy::Unknown, local));
    assert_eq!(flow.hbone_authority, None);
    assert_eq!(text(&flow.source.pod), "client");
    assert_eq!(
        (identity(flow.source.principal.as_ref()), identity(flow.proven(&flow.source))),
        ("-".into(), "-".into())
    );
    assert_eq!(
        (identity(flow.destination.principal.as_ref()), identity(flow.proven(&flow.destination))),
        (SERVER.into(), "-".into())
    );
}

#[test]
fn behind_a_gateway_the_far_end_takes_its_place() {
    let gate = Workload { network: "net2".into(), ..described("gate", "20.0.0.9") };
    let remote = Workload {
        network: "net2".into(),
        network_gateway: Some(gateway("net2/20.0.0.9", 15008).into()),
        ..pod("remote", &[]).of("ns/far.example", &[])
    };
    let far = service("far", &["net1/10.1.0.2"], &[(80, 8080)]);
    let view = view([described("client", "10.0.0.1").into(), gate.into(), remote.into(), far.into()]);
    let flow = outbound(&view, "10.1.0.2:80");
    assert_eq!((text(&flow.destination.pod), flow.destination_address), ("gate", socket("20.0.0.9:15008")));
    assert_eq!(flow.hbone_authority.as_ref().map(ToString::to_string).as_deref(), Some("far.example:80"));

    let peer: Identity = "spiffe://td/ns/a/sa/far".parse().unwrap();
    let said = Baggage { service_name: Some("far-app".into()), ..Baggage::default() };
    let told = flow.clone().through_gateway(Some(&said), Some(peer.clone()));
    assert_eq!((text(&told.destination.pod), text(&told.destination.namespace)), ("far-app", "-"));
    assert_eq!((told.destination.principal.as_ref(), told.proven(&told.destination)), (Some(&peer), Some(&peer)));
    let silent = flow.clone().through_gateway(Some(&Baggage::default()), None);
    assert_eq!(silent.destination, Party::default());
    assert_eq!(flow.clone().through_gateway(None, Some(peer)), flow, "an answer that cannot be read changes nothing");
}

#[test]
fn bytes_are_told_from_the_local_workloads_side() {
    let view = mesh();
    let record = |flow: Flow| Record {
        flow: Arc::new(flow),
        tally: Tally { upstream_bytes: 11, downstream_bytes: 22 },
        duration: Duration::from_millis(3),
        outcome: Outcome::Complete,
        decided: None,
    };
    let source = record(outbound(&view, "10.0.0.2:80"));
    assert_eq!((source.bytes_sent(), source.bytes_recv()), (11, 22));
    let destination = record(inbound(&view, "10.0.0.1:1", None, &[]));
    assert_eq!((destination.bytes_sent(), destination.bytes_recv()), (22, 11));
}

#[test]
fn outcomes_have_a_flag_and_a_wording() {
    let failed = Outcome::failed(Cause::Denied, "why".into());
    assert_eq!((failed.flag().as_str(), failed.error(), failed.reason()), ("DENY", Some("why"), Some("denied")));
    let refused =
        Outcome::Failed { cause: Cause::PeerRefused, error: "why".into(), peer_reason: Some("denied".into()) };
    assert_eq!((refused.peer_reason(), refused.reason()), (Some("denied"), Some("peer-refused")));
    assert_eq!((failed.peer_reason(), Outcome::Complete.peer_reason()), (None, None));
    assert_eq!((Outcome::Complete.flag().as_str(), Outcome::Complete.error()), ("-", None));
    let reset = Outcome::Reset { by: End::Server };
    assert_eq!((reset.flag().as_str(), reset.error(), reset.reset_by().map(End::as_str)), ("-", None, Some("server")));
    assert_eq!((failed.reset_by(), End::Client.as_str()), (None, "client"));
    let drained = Outcome::Drained;
    assert_eq!((drained.flag().as_str(), drained.error()), ("-", Some("connection closed due to connection drain")));
}

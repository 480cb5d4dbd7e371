use std::sync::Arc;

use std::net::IpAddr;

use istio_api::discovery::{Payload, Resource};
use istio_api::security as policy;
use istio_api::security::string_match::MatchType;
use istio_api::workload as wire;
use istio_api::workload::Address;
use istio_api::workload::address::Type;
use istio_api::workload::gateway_address::Destination;
use mesh::authorize::Decision;
use mesh::workload::GatewayDestination;
use mesh::{Policy, Service, Workload};
use prost::Message as _;

use super::{Change, Interner, Kind, Lookups, Verdict, removal};

const UID: &str = "c1//v1/Pod/ns/a";

fn resource_of(name: &str, payload: Vec<u8>) -> Resource {
    let payload = Payload { type_url: "ignored".into(), value: payload.into() };
    Resource { name: name.into(), version: "v1".into(), resource: Some(payload), ..Resource::default() }
}

fn decode(kind: Kind, resource: Resource) -> (Verdict, Option<Change>) {
    let bytes = resource.encode_to_vec();
    let read = istio_api::borrowed::Resource::read(&bytes).unwrap();
    let (received, change) = super::resource(kind, &read, Lookups::Everything, &mut Interner::default());
    (received.verdict, change)
}

fn addressed(address: Address) -> Result<Change, String> {
    match decode(Kind::Address, resource_of("x", address.encode_to_vec())) {
        (Verdict::Accepted, Some(change)) => Ok(change),
        (Verdict::Rejected(why), None) => Err(why),
        other => panic!("{other:?}"),
    }
}

fn workload(change: impl FnOnce(&mut wire::Workload)) -> Result<Workload, String> {
    let mut workload = wire::Workload { uid: UID.into(), ..wire::Workload::default() };
    change(&mut workload);
    match addressed(Address { r#type: Some(Type::Workload(workload)) })? {
        Change::Workload(workload) => Ok(Arc::unwrap_or_clone(workload)),
        other => panic!("{other:?}"),
    }
}

fn service(change: impl FnOnce(&mut wire::Service)) -> Result<Service, String> {
    let mut service = wire::Service { hostname: "h".into(), namespace: "ns".into(), ..wire::Service::default() };
    change(&mut service);
    match addressed(Address { r#type: Some(Type::Service(service)) })? {
        Change::Service(service) => Ok(Arc::unwrap_or_clone(service)),
        other => panic!("{other:?}"),
    }
}

/// A policy with one match.
fn authorization(change: impl FnOnce(&mut policy::Authorization, &mut policy::Match)) -> (Verdict, Option<Policy>) {
    let (mut authorization, mut m) = (policy::Authorization::default(), policy::Match::default());
    change(&mut authorization, &mut m);
    authorization.rules = vec![policy::Rule { clauses: vec![policy::Clause { matches: vec![m] }] }];
    let (verdict, change) = decode(Kind::Authorization, resource_of("ns/p", authorization.encode_to_vec()));
    let policy = change.map(|change| match change {
        Change::Policy(policy) => Arc::unwrap_or_clone(policy),
        other => panic!("{other:?}"),
    });
    (verdict, policy)
}

fn network_address(address: &[u8], length: Option<u32>) -> wire::NetworkAddress {
    wire::NetworkAddress { network: "net".into(), address: address.to_vec(), length }
}

#[test]
fn what_is_not_said_has_the_control_planes_defaults() {
    let plain = workload(|_| {}).unwrap();
    assert_eq!(plain, Workload { hostname: "".into(), ..Workload::new(UID.into()) });
    let plain = service(|_| {}).unwrap();
    assert_eq!(plain, Service::new("ns/h".parse().unwrap()));
}

#[test]
fn malformed_protobuf_and_empty_envelopes_are_rejected() {
    let (verdict, change) = decode(Kind::Address, resource_of("x", vec![0xff, 0xff, 0xff]));
    let why = verdict.complaint().unwrap();
    assert!(why.starts_with("decode: failed to decode Protobuf message") && change.is_none(), "{why}");
    let empty = Resource { name: "x".into(), ..Resource::default() };
    assert_eq!(decode(Kind::Address, empty).0, Verdict::Rejected("XDS payload without resource".into()));
    assert_eq!(addressed(Address { r#type: None }), Err("unknown address type".into()));
    assert_eq!(workload(|w| w.uid.clear()), Err("uid is empty".into()));
    assert_eq!(service(|s| s.hostname.clear()), Err("hostname is empty".into()));
}

#[test]
fn addresses_of_other_than_4_or_16_bytes_are_rejected_and_mapped_ones_are_plain() {
    for length in [0, 3, 5, 15, 17] {
        let why = Err(format!("failed to parse address, had {length} bytes"));
        assert_eq!(workload(|w| w.addresses = vec![vec![1, 2, 3, 4], vec![0; length]]).map(|_| ()), why);
        assert_eq!(service(|s| s.addresses = vec![network_address(&vec![0; length], None)]).map(|_| ()), why);
    }
    let mapped: IpAddr = "::ffff:10.0.0.1".parse().unwrap();
    let IpAddr::V6(v6) = mapped else { panic!() };
    let w = workload(|w| w.addresses = vec![v6.octets().to_vec(), vec![10, 0, 0, 2]]).unwrap();
    assert_eq!(*w.addresses, ["10.0.0.1", "10.0.0.2"].map(|ip| ip.parse::<IpAddr>().unwrap()));
}

#[test]
fn unknown_numbers_are_rejected_where_they_decide_something() {
    let unknown = |field: &str| Err(format!("decode error: unknown enumeration value 77 of {field}"));
    assert_eq!(workload(|w| w.tunnel_protocol = 77).map(|_| ()), unknown("tunnel_protocol"));
    assert_eq!(workload(|w| w.network_mode = 77).map(|_| ()), unknown("network_mode"));
    assert_eq!(workload(|w| w.status = 77).map(|_| ()), unknown("status"));
    let tunnel = |protocol| Some(wire::ApplicationTunnel { protocol, port: 0 });
    let why = unknown("application_tunnel.protocol");
    assert_eq!(workload(|w| w.application_tunnel = tunnel(77)).map(|_| ()), why);
    let legacy = workload(|w| w.tunnel_protocol = wire::TunnelProtocol::LegacyIstioMtls.into());
    assert_eq!(legacy, Err("unknown enum: unsupported tunnel protocol: legacy istio mtls".into()));
    assert_eq!(service(|s| s.ip_families = 77).map(|_| ()), unknown("ip_families"));
    let lb = |routing_preference: Vec<i32>, mode, health_policy| {
        let lb = wire::LoadBalancing { routing_preference, mode, health_policy };
        service(|s| s.load_balancing = Some(lb)).map(|_| ())
    };
    assert_eq!(lb(vec![1, 77], 0, 0), unknown("routing_preference"));
    assert!(lb(vec![0], 0, 0).unwrap_err().contains("unknown enumeration value 0 of routing_preference"));
    assert_eq!(lb(vec![], 77, 0), unknown("load_balancing.mode"));
    assert_eq!(lb(vec![], 0, 77), unknown("health_policy"));

    assert_eq!(workload(|w| w.workload_type = 77).unwrap().deployment.workload_type.as_str(), "deployment");
    assert_eq!(service(|s| s.visibility = 77).unwrap().visibility, mesh::service::Visibility::Public);
}

#[test]
fn ports_that_do_not_fit_are_rejected_and_never_cut() {
    let ports = |service_port, target_port| vec![wire::Port { service_port, target_port, app_protocol: 77 }];
    assert_eq!(service(|s| s.ports = ports(65_616, 80)).unwrap_err(), "service_port 65616 is larger than 65535");
    assert_eq!(service(|s| s.ports = ports(80, 0)).unwrap().ports.get(80), Some(0));
    let list = wire::PortList { ports: ports(80, 70_000) };
    let why = workload(|w| drop(w.services.insert("ns/h".into(), list))).unwrap_err();
    assert_eq!(why, "target_port 70000 is larger than 65535");
    let tunnel = wire::ApplicationTunnel { protocol: 1, port: 65_536 };
    assert!(workload(|w| w.application_tunnel = Some(tunnel)).is_err());
    let destination = Some(Destination::Address(network_address(&[10, 0, 0, 1], None)));
    let gateway = wire::GatewayAddress { destination, hbone_mtls_port: 80_544 };
    assert_eq!(workload(|w| w.waypoint = Some(gateway)).unwrap_err(), "hbone_mtls_port 80544 is larger than 65535");
}

#[test]
fn gateways_have_a_destination() {
    let nowhere = || wire::GatewayAddress { destination: None, hbone_mtls_port: 15008 };
    let why = Err("nonempty gateway address is missing address".to_owned());
    assert_eq!(workload(|w| w.waypoint = Some(nowhere())).map(|_| ()), why);
    assert_eq!(workload(|w| w.network_gateway = Some(nowhere())).map(|_| ()), why);
    assert_eq!(service(|s| s.waypoint = Some(nowhere())).map(|_| ()), why);
    let weighted = |destination| vec![wire::WeightedWaypoint { destination, weight: 1 }];
    assert_eq!(service(|s| s.weighted_waypoints = weighted(None)).map(|_| ()), why);
    let name = wire::NamespacedHostname { namespace: "ns".into(), hostname: "WAY.ns".into() };
    let by_name = wire::GatewayAddress { destination: Some(Destination::Hostname(name)), hbone_mtls_port: 15008 };
    let waypoint =
        service(|s| s.weighted_waypoints = weighted(Some(by_name))).unwrap().extras.weighted_waypoints.clone();
    assert_eq!(waypoint[0].destination.destination, GatewayDestination::Hostname("ns/way.ns".parse().unwrap()));
}

#[test]
fn vips_are_hosts_or_ranges_and_one_that_is_listed_twice_counts_once() {
    let s = service(|s| {
        s.addresses = vec![
            network_address(&[10, 0, 0, 1], None),
            network_address(&[10, 0, 0, 1], Some(32)),
            network_address(&[10, 1, 0, 0], Some(16)),
            network_address(&[0; 16], Some(128)),
        ];
    })
    .unwrap();
    assert_eq!(s.vips.iter().map(ToString::to_string).collect::<Vec<_>>(), ["net/10.0.0.1", "net/::"]);
    assert_eq!(s.extras.cidr_vips.iter().map(|c| c.cidr.to_string()).collect::<Vec<_>>(), ["10.1.0.0/16"]);
    for (address, length, text) in [(&[10, 0, 0, 1][..], 33, "10.0.0.1/33"), (&[10, 0, 0, 1], 288, "10.0.0.1/288")] {
        let why = service(|s| s.addresses = vec![network_address(address, Some(length))]).unwrap_err();
        assert_eq!(why, format!("invalid cidr: {text}"));
    }
}

#[test]
fn services_of_a_workload_are_named_by_namespace_and_hostname_known_or_not() {
    let why = workload(|w| drop(w.services.insert("noslash".into(), wire::PortList::default()))).unwrap_err();
    assert_eq!(why, "failed to parse namespaced hostname: noslash");
    let w = workload(|w| drop(w.services.insert("ns/missing.example".into(), wire::PortList::default()))).unwrap();
    let mut state = mesh::State::new(None);
    let _ = state.apply([w.into()]);
    assert_eq!(state.view().staged().count(), 1, "the service may come later, or never");
}

#[test]
fn policies_are_known_by_the_name_of_their_resource() {
    let (verdict, policy) = authorization(|a, m| {
        a.name = "p".into();
        a.namespace = "ns".into();
        m.destination_ports = vec![80];
        m.principals = vec![policy::StringMatch { match_type: Some(MatchType::Presence(())) }];
        m.not_source_ips = vec![policy::Address { address: vec![10, 0, 0, 0], length: 8 }];
    });
    let policy = policy.unwrap();
    assert_eq!((verdict, policy.key.as_str()), (Verdict::Accepted, "ns/p"));
    let m = &policy.rules[0].clauses[0].matches[0];
    assert_eq!((m.destination_ports.any.elements.as_slice(), m.source_ips.none.elements.len()), (&[80][..], 1));
}

#[test]
fn a_part_of_a_match_that_cannot_be_read_is_never_left_out() {
    type Break = fn(&mut policy::Match);
    let breaks: [Break; 7] = [
        |m| m.principals = vec![policy::StringMatch { match_type: None }],
        |m| m.not_namespaces = vec![policy::StringMatch { match_type: None }],
        |m| m.source_ips = vec![policy::Address { address: vec![1, 2, 3], length: 24 }],
        |m| m.not_destination_ips = vec![policy::Address { address: vec![], length: 0 }],
        |m| m.destination_ips = vec![policy::Address { address: vec![10, 0, 0, 0], length: 264 }],
        |m| m.destination_ports = vec![65_616],
        |m| m.not_destination_ports = vec![1 << 31],
    ];
    for (i, spoil) in breaks.into_iter().enumerate() {
        let (verdict, policy) = authorization(|_, m| spoil(m));
        let why = verdict.complaint().unwrap_or_else(|| panic!("break {i} is not noticed"));
        assert!(
            matches!(verdict, Verdict::Flawed(_)) && why.contains("1 part of its matches cannot be read"),
            "{i}: {why}"
        );
        assert!(policy.is_some(), "break {i}: the policy must apply, or it would deny nothing");
    }
}

/// What two workloads make of a policy.
fn decides(policy: Policy, source: &str) -> bool {
    let mut state = mesh::State::new(None);
    let server = Workload { namespace: "ns".into(), ..Workload::new("server".into()) };
    let _ = state.apply([server.clone().into(), policy.into()]);
    let tuple = mesh::Tuple {
        source: source.parse().unwrap(),
        destination: "10.0.0.2:80".parse().unwrap(),
        identity: None,
        network: "".into(),
    };
    let decision = mesh::evaluate(&state.view(), &server, &tuple, mesh::UnknownPolicy::Deny).decision;
    matches!(decision, Decision::Allowed(_) | Decision::NoAllowPolicies)
}

#[test]
fn a_policy_with_an_unreadable_match_fails_closed() {
    let broken = || policy::Address { address: vec![1, 2, 3], length: 24 };
    for action in [policy::Action::Allow, policy::Action::Deny] {
        let (_, policy) = authorization(|a, m| {
            a.action = action.into();
            m.source_ips = vec![broken()];
        });
        assert!(!decides(policy.unwrap(), "10.0.0.1:1"), "{action:?}");
    }
    // What can be read still decides where the rest makes no difference.
    let (_, policy) = authorization(|_, m| {
        m.source_ips = vec![broken(), policy::Address { address: vec![10, 0, 0, 1], length: 32 }];
    });
    assert!(decides(policy.unwrap(), "10.0.0.1:1"));
}

#[test]
fn a_policy_of_an_unknown_scope_or_action_is_rejected() {
    let (verdict, policy) = authorization(|a, _| a.scope = 9);
    assert_eq!((verdict.complaint(), policy), (Some("decode error: unknown enumeration value 9 of scope"), None));
    let (verdict, policy) = authorization(|a, _| a.action = 9);
    assert_eq!((verdict.complaint(), policy), (Some("decode error: unknown enumeration value 9 of action"), None));
}

#[test]
fn removals_are_of_workloads_services_or_nothing_that_we_know() {
    let mut state = mesh::State::new(None);
    let _ = state.apply([Workload::new(UID.into()).into()]);
    let view = state.view();
    let remove = |kind, name: &str| removal(kind, &name.into(), &view);
    assert_eq!(remove(Kind::Address, UID), Some(Change::RemoveWorkload(UID.into())));
    assert_eq!(remove(Kind::Address, "c1//v1/Pod/ns/unknown"), None);
    assert_eq!(remove(Kind::Address, "ns/h"), Some(Change::RemoveService("ns/h".parse().unwrap())));
    assert_eq!(remove(Kind::Address, "noslash"), None);
    assert_eq!(remove(Kind::Authorization, "ns/p"), Some(Change::RemovePolicy("ns/p".into())));
}

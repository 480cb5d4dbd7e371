//! The same state as resources of discovery.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::{IpAddr, Ipv4Addr};

use bytes::Bytes;
use istio_api::security as policy;
use istio_api::security::string_match::MatchType;
use istio_api::workload as wire;
use istio_api::workload::address::Type;
use istio_api::workload::gateway_address::Destination;
use prost::Message;

use super::file::{Action, Match, Policy, Scope, StringMatch};
use super::{AppProtocol, CLUSTER, KnownPod, Plane, Reference, Service, TRUST_DOMAIN};
use crate::mesh::Capture;

/// A resource as it is sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resource {
    /// Its encoded message.
    pub payload: Bytes,
    /// `network/ip` of each of its addresses.
    pub aliases: Vec<String>,
    /// Of a workload: its node, whose ztunnel is told of it unasked.
    pub node: String,
    /// Of a workload: the names of its services, with which it is told.
    pub services: Vec<String>,
}

impl Resource {
    /// Nothing but a payload.
    pub fn of(payload: impl Into<Bytes>) -> Resource {
        Resource { payload: payload.into(), aliases: Vec::new(), node: String::new(), services: Vec::new() }
    }

    /// Tells one content from another.
    pub fn version(&self) -> String {
        let mut hasher = DefaultHasher::new();
        self.payload.hash(&mut hasher);
        format!("{:016x}", hasher.finish())
    }
}

/// All resources of a mesh by type URL and name.
pub type Resources = BTreeMap<(&'static str, String), Resource>;

/// Type URL of workloads and services.
pub const ADDRESS: &str = "type.googleapis.com/istio.workload.Address";
/// Type URL of policies.
pub const AUTHORIZATION: &str = "type.googleapis.com/istio.security.Authorization";

/// A large mesh: workloads with names as Kubernetes makes them, in services of about as many members each, over
/// [`NODES`] nodes and [`NAMESPACES`] namespaces.
pub fn population(workloads: u32, services: u32) -> Resources {
    let members = (0..workloads).map(|i| member(i, services, 0));
    let services = (0..services).map(|i| {
        let (namespace, name, hostname) =
            (format!("namespace-{}", i % NAMESPACES), format!("service-{i}"), service_name(i));
        let vip = service_address(i);
        let service = wire::Service {
            name,
            hostname: hostname.clone(),
            addresses: vec![network_address("", &vip)],
            ports: ports(&BTreeMap::from([(80, 8080)])),
            namespace: namespace.clone(),
            ..wire::Service::default()
        };
        let address = wire::Address { r#type: Some(Type::Service(service)) };
        let resource = Resource { aliases: vec![format!("/{vip}")], ..Resource::of(address.encode_to_vec()) };
        ((ADDRESS, format!("{namespace}/{hostname}")), resource)
    });
    members.chain(services).collect()
}

/// Host name of the `i`-th service of a [`population`].
pub fn service_name(i: u32) -> String {
    format!("service-{i}.namespace-{}.svc.cluster.local", i % NAMESPACES)
}

/// Nodes of a [`population`].
const NODES: u32 = 1_000;
/// Namespaces of a [`population`].
const NAMESPACES: u32 = 200;

/// The `i`-th workload of a [`population`] with that many services; `revision` tells versions of it apart.
pub fn member(i: u32, services: u32, revision: u32) -> ((&'static str, String), Resource) {
    member_by(wire::TunnelProtocol::Hbone, i, services, revision)
}

/// As [`member`], of a workload that takes no tunnels; its address is the `i`-th of [`MEMBERS`].
pub fn plain_member(i: u32, services: u32, revision: u32) -> ((&'static str, String), Resource) {
    member_by(wire::TunnelProtocol::None, i, services, revision)
}

/// The network of the workloads of a [`population`], and the length of its prefix.
pub const MEMBERS: (IpAddr, u8) = (IpAddr::V4(Ipv4Addr::new(11, 0, 0, 0)), 8);

/// Virtual address of the `i`-th service of a [`population`]; its port is 80, that of its endpoints 8080.
pub fn service_address(i: u32) -> IpAddr {
    IpAddr::from(u32::to_be_bytes(0x0A60_0000 + i))
}

fn member_by(
    protocol: wire::TunnelProtocol,
    i: u32,
    services: u32,
    revision: u32,
) -> ((&'static str, String), Resource) {
    let of = i % services.max(1);
    let namespace = format!("namespace-{}", of % NAMESPACES);
    // The numbers look as random as the parts that Kubernetes appends.
    let name = format!("service-{of}-{:010x}-{:05x}", of.wrapping_mul(0x9E37_79B9), i);
    let uid = format!("Kubernetes//Pod/{namespace}/{name}");
    let ip = IpAddr::from(u32::to_be_bytes(0x0B00_0000 + i));
    let hostname = format!("{namespace}/service-{of}.{namespace}.svc.cluster.local");
    let workload = wire::Workload {
        uid: uid.clone(),
        name,
        namespace: namespace.clone(),
        trust_domain: TRUST_DOMAIN.to_owned(),
        service_account: format!("service-{of}"),
        cluster_id: "Kubernetes".to_owned(),
        node: format!("node-{}", i % NODES),
        workload_name: format!("service-{of}"),
        canonical_name: format!("service-{of}"),
        canonical_revision: format!("v{revision}"),
        addresses: vec![octets(&ip)],
        tunnel_protocol: protocol.into(),
        services: [(hostname, wire::PortList { ports: ports(&BTreeMap::from([(80, 8080)])) })].into(),
        ..wire::Workload::default()
    };
    let address = wire::Address { r#type: Some(Type::Workload(workload)) };
    let resource = Resource { aliases: vec![format!("/{ip}")], ..Resource::of(address.encode_to_vec()) };
    ((ADDRESS, uid), resource)
}

pub(super) fn render(plane: &Plane, pods: &[KnownPod]) -> Resources {
    let aliases = |network: &str, ips: &[IpAddr]| ips.iter().map(|ip| format!("{network}/{ip}")).collect();
    let workloads = pods.iter().map(|pod| {
        let address = wire::Address { r#type: Some(Type::Workload(workload(plane, pod))) };
        let serving = plane.services.iter().filter(|service| service.endpoints.contains(&pod.uid));
        let resource = Resource {
            aliases: aliases(plane.particulars.get(&pod.name).map_or("", |p| &p.network), &pod.addresses),
            node: pod.node.clone(),
            services: serving.map(|service| format!("{}/{}", service.namespace, service.hostname())).collect(),
            ..Resource::of(address.encode_to_vec())
        };
        ((ADDRESS, pod.uid.clone()), resource)
    });
    let services = plane.services.iter().map(|service| {
        let address = wire::Address { r#type: Some(Type::Service(self::service(service))) };
        let resource =
            Resource { aliases: aliases(&service.network, &service.vips), ..Resource::of(address.encode_to_vec()) };
        ((ADDRESS, format!("{}/{}", service.namespace, service.hostname())), resource)
    });
    let policies = plane.policies.iter().map(|policy| {
        let resource = Resource::of(authorization(policy).encode_to_vec());
        ((AUTHORIZATION, format!("{}/{}", policy.namespace, policy.name)), resource)
    });
    workloads.chain(services).chain(policies).collect()
}

fn workload(plane: &Plane, pod: &KnownPod) -> wire::Workload {
    let serving = plane.services.iter().filter(|service| service.endpoints.contains(&pod.uid));
    let particulars = plane.particulars.get(&pod.name).cloned().unwrap_or_default();
    let pod = pod.told(&particulars);
    let protocol = match pod.capture {
        Capture::Off => wire::TunnelProtocol::None,
        Capture::Enrolled | Capture::Redirected | Capture::Dedicated => wire::TunnelProtocol::Hbone,
    };
    wire::Workload {
        uid: pod.uid.clone(),
        name: pod.name.clone(),
        namespace: pod.namespace.clone(),
        trust_domain: particulars.trust_domain.unwrap_or_else(|| TRUST_DOMAIN.to_owned()),
        service_account: pod.service_account.clone(),
        cluster_id: particulars.cluster.unwrap_or_else(|| CLUSTER.to_owned()),
        network: particulars.network,
        network_gateway: particulars.network_gateway.as_ref().map(reference),
        waypoint: particulars.waypoint.as_ref().map(reference),
        application_tunnel: particulars.application_tunnel.map(|(protocol, port)| wire::ApplicationTunnel {
            protocol: match protocol {
                AppProtocol::None => wire::application_tunnel::Protocol::None,
                AppProtocol::Proxy => wire::application_tunnel::Protocol::Proxy,
            }
            .into(),
            port: port.unwrap_or_default().into(),
        }),
        node: pod.node.clone(),
        workload_name: pod.name.clone(),
        workload_type: wire::WorkloadType::Pod.into(),
        canonical_name: pod.name.clone(),
        canonical_revision: "v1".to_owned(),
        addresses: pod.addresses.iter().map(octets).collect(),
        hostname: pod.hostname.clone(),
        tunnel_protocol: protocol.into(),
        status: if plane.unhealthy.contains(&pod.name) {
            wire::WorkloadStatus::Unhealthy.into()
        } else {
            wire::WorkloadStatus::Healthy.into()
        },
        authorization_policies: plane.selections.get(&pod.name).cloned().unwrap_or_default(),
        services: serving
            .map(|service| {
                let ports = wire::PortList { ports: ports(&service.ports) };
                (format!("{}/{}", service.namespace, service.hostname()), ports)
            })
            .collect(),
        ..wire::Workload::default()
    }
}

fn service(service: &Service) -> wire::Service {
    wire::Service {
        name: service.name.clone(),
        namespace: service.namespace.clone(),
        hostname: service.hostname(),
        addresses: service.vips.iter().map(|vip| network_address(&service.network, vip)).collect(),
        ports: ports(&service.declared()),
        waypoint: service.waypoint.as_ref().map(reference),
        subject_alt_names: service.subject_alt_names.clone(),
        ..wire::Service::default()
    }
}

fn reference((destination, port): &Reference) -> wire::GatewayAddress {
    let (first, second) = destination.split_once('/').unwrap_or(("", destination));
    let destination = match second.parse::<IpAddr>() {
        Ok(ip) => Destination::Address(network_address(first, &ip)),
        Err(_) => {
            Destination::Hostname(wire::NamespacedHostname { namespace: first.to_owned(), hostname: second.to_owned() })
        }
    };
    wire::GatewayAddress { destination: Some(destination), hbone_mtls_port: (*port).into() }
}

fn network_address(network: &str, ip: &IpAddr) -> wire::NetworkAddress {
    wire::NetworkAddress { network: network.to_owned(), address: octets(ip), length: None }
}

fn ports(ports: &BTreeMap<u16, u16>) -> Vec<wire::Port> {
    let port = |(from, to): (&u16, &u16)| wire::Port {
        service_port: (*from).into(),
        target_port: (*to).into(),
        app_protocol: 0,
    };
    ports.iter().map(port).collect()
}

fn octets(ip: &IpAddr) -> Vec<u8> {
    match ip {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    }
}

fn authorization(policy: &Policy) -> policy::Authorization {
    let clause = |matches: &Vec<Match>| policy::Clause { matches: matches.iter().map(one).collect() };
    policy::Authorization {
        name: policy.name.clone(),
        namespace: policy.namespace.clone(),
        scope: match policy.scope {
            Scope::Global => policy::Scope::Global,
            Scope::Namespace => policy::Scope::Namespace,
            Scope::WorkloadSelector => policy::Scope::WorkloadSelector,
        }
        .into(),
        action: match policy.action {
            Action::Allow => policy::Action::Allow,
            Action::Deny => policy::Action::Deny,
        }
        .into(),
        rules: policy.rules.iter().map(|rule| policy::Rule { clauses: rule.iter().map(clause).collect() }).collect(),
        dry_run: policy.dry_run,
        extensions: Vec::new(),
    }
}

fn one(m: &Match) -> policy::Match {
    let texts = |list: &[StringMatch]| list.iter().map(text).collect();
    policy::Match {
        namespaces: texts(&m.namespaces),
        not_namespaces: texts(&m.not_namespaces),
        principals: texts(&m.principals),
        not_principals: texts(&m.not_principals),
        source_ips: m.source_ips.iter().map(|range| cidr(range)).collect(),
        destination_ports: m.destination_ports.iter().map(|port| (*port).into()).collect(),
        not_destination_ports: m.not_destination_ports.iter().map(|port| (*port).into()).collect(),
        ..policy::Match::default()
    }
}

fn text(m: &StringMatch) -> policy::StringMatch {
    let match_type = match m {
        StringMatch::Exact(text) => MatchType::Exact(text.clone()),
        StringMatch::Prefix(text) => MatchType::Prefix(text.clone()),
        StringMatch::Suffix(text) => MatchType::Suffix(text.clone()),
    };
    policy::StringMatch { match_type: Some(match_type) }
}

/// What is no range stays one that nobody can read, as it would be in the file.
fn cidr(range: &str) -> policy::Address {
    let parts = range.split_once('/').and_then(|(ip, length)| Some((ip.parse().ok()?, length.parse().ok()?)));
    let (address, length) = parts.map_or((Vec::new(), 0), |(ip, length): (IpAddr, u32)| (octets(&ip), length));
    policy::Address { address, length }
}

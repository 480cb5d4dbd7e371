//! Workloads and services.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::IpNet;
use istio_api::borrowed;
use istio_api::workload as wire;
use istio_api::workload::gateway_address::Destination;
use mesh::name::Text;
use mesh::service::{
    Extra, HealthPolicy, IpFamilies, LoadBalancer, Mode, NetworkCidr, Scope, Visibility, WeightedWaypoint,
};
use mesh::workload::{
    ApplicationTunnel, DEFAULT_CAPACITY, DEFAULT_CLUSTER, DEFAULT_SERVICE_ACCOUNT, DEFAULT_TRUST_DOMAIN,
    GatewayDestination, Health, Membership, NetworkMode, Protocol, TunnelProtocol, WorkloadType,
};
use mesh::{GatewayAddress, NamespacedHostname, NetworkAddress, PortMap, Service, Uid, Workload};

use super::intern::{DeploymentTexts, Place};
use super::{Interner, Name, Rejection};

/// Bits of an IPv6 address before the IPv4 address that is mapped into it (RFC 4291 §2.5.5.2).
const MAPPED_PREFIX: u32 = 96;

pub(super) fn workload(name: &Name, w: borrowed::Workload<'_>, names: &mut Interner) -> Result<Workload, Rejection> {
    if w.uid.is_empty() {
        return Err(Rejection::NoKey("uid"));
    }
    names.make_room();
    let deployment = DeploymentTexts {
        trust_domain: or(w.trust_domain, DEFAULT_TRUST_DOMAIN),
        canonical_name: w.canonical_name,
        canonical_revision: w.canonical_revision,
        workload_name: w.workload_name,
        workload_type: workload_type(w.workload_type),
        cluster_id: or(w.cluster_id, DEFAULT_CLUSTER),
    };
    let mut services = Vec::with_capacity(w.services.len());
    for membership in &w.services {
        services
            .push(Membership { service: names.service(membership.service)?, ports: ports(membership.ports.iter())? });
    }
    // As a rule the resource has the same name: one text for both.
    let uid: Uid = if *w.uid == **name { name.clone().into() } else { w.uid.into() };
    Ok(Workload {
        name: Text::part_of(uid.shared(), w.name),
        uid,
        namespace: names.get(w.namespace),
        service_account: names.get(or(w.service_account, DEFAULT_SERVICE_ACCOUNT)),
        addresses: w.addresses.iter().map(|bytes| ip(bytes)).collect::<Result<_, _>>()?,
        deployment: names.deployment(&deployment),
        network: names.get(w.network),
        protocol: protocol(w.tunnel_protocol)?,
        network_mode: match known("network_mode", w.network_mode)? {
            wire::NetworkMode::Standard => NetworkMode::Standard,
            wire::NetworkMode::HostNetwork => NetworkMode::HostNetwork,
        },
        status: match known("status", w.status)? {
            wire::WorkloadStatus::Healthy => Health::Healthy,
            wire::WorkloadStatus::Unhealthy => Health::Unhealthy,
        },
        waypoint: w.waypoint.map(|gateway| self::gateway(gateway, names)).transpose()?.map(Box::new),
        network_gateway: w.network_gateway.map(|gateway| self::gateway(gateway, names)).transpose()?.map(Box::new),
        native_tunnel: w.native_tunnel,
        application_tunnel: w.application_tunnel.map(application_tunnel).transpose()?,
        hostname: w.hostname.into(),
        node: names.get(w.node),
        locality: names.locality(&Place { region: w.region, zone: w.zone, subzone: w.subzone }),
        capacity: w.capacity.unwrap_or(DEFAULT_CAPACITY),
        authorization_policies: names.policies(&w.authorization_policies),
        services: names.memberships(services),
    })
}

/// The text, or what an empty one stands for.
fn or<'a>(text: &'a str, default: &'a str) -> &'a str {
    if text.is_empty() { default } else { text }
}

pub(super) fn service(s: wire::Service, names: &mut Interner) -> Result<Service, Rejection> {
    if s.hostname.is_empty() {
        return Err(Rejection::NoKey("hostname"));
    }
    names.make_room();
    let key = names.service(&format!("{}/{}", s.namespace, s.hostname))?;
    // A VIP that is listed twice is one VIP.
    let (mut vips, mut cidr_vips) = (BTreeSet::new(), BTreeSet::new());
    for address in &s.addresses {
        let (network, ip) = (names.get(&address.network), ip(&address.address)?);
        match address.length {
            Some(length) if length != full(&address.address) => {
                cidr_vips.insert(NetworkCidr { network, cidr: cidr(&address.address, length)? });
            }
            _ => {
                vips.insert(NetworkAddress::new(network, ip));
            }
        }
    }
    let mut weighted_waypoints = Vec::with_capacity(s.weighted_waypoints.len());
    for waypoint in s.weighted_waypoints {
        let destination = gateway(waypoint.destination.ok_or(Rejection::NoGateway)?, names)?;
        weighted_waypoints.push(WeightedWaypoint { destination, weight: waypoint.weight });
    }
    let ports = ports(s.ports.iter().map(|port| (port.service_port, port.target_port)))?;
    let extra = Extra {
        cidr_vips: cidr_vips.into_iter().collect(),
        subject_alt_names: s.subject_alt_names.iter().map(|name| names.get(name)).collect(),
        waypoint: s.waypoint.map(|waypoint| gateway(waypoint, names)).transpose()?,
        weighted_waypoints,
        load_balancer: s.load_balancing.map(|lb| load_balancer(&lb)).transpose()?,
    };
    Ok(Service {
        name: Text::part_of(key.hostname.shared(), &s.name),
        namespace: key.namespace,
        hostname: key.hostname,
        vips: vips.into_iter().collect(),
        ports: names.ports(ports),
        ip_families: match known("ip_families", s.ip_families)? {
            wire::IpFamilies::Automatic => IpFamilies::Automatic,
            wire::IpFamilies::Ipv4Only => IpFamilies::Ipv4Only,
            wire::IpFamilies::Ipv6Only => IpFamilies::Ipv6Only,
            wire::IpFamilies::Dual => IpFamilies::Dual,
        },
        canonical: s.canonical,
        // A number of the future is tolerated (spec wire-protocols 3).
        visibility: match wire::service::Visibility::try_from(s.visibility) {
            Ok(wire::service::Visibility::Namespace) => Visibility::Namespace,
            Ok(wire::service::Visibility::Public) | Err(_) => Visibility::Public,
        },
        extras: extra.into(),
    })
}

fn protocol(number: i32) -> Result<Protocol, Rejection> {
    match known("tunnel_protocol", number)? {
        wire::TunnelProtocol::None => Ok(Protocol::Tcp),
        wire::TunnelProtocol::Hbone => Ok(Protocol::Hbone),
        wire::TunnelProtocol::LegacyIstioMtls => Err(Rejection::LegacyMtls),
    }
}

/// A number of the future is tolerated: it is for telemetry only (spec wire-protocols 3).
fn workload_type(number: i32) -> WorkloadType {
    match wire::WorkloadType::try_from(number) {
        Ok(wire::WorkloadType::Cronjob) => WorkloadType::CronJob,
        Ok(wire::WorkloadType::Pod) => WorkloadType::Pod,
        Ok(wire::WorkloadType::Job) => WorkloadType::Job,
        Ok(wire::WorkloadType::Deployment) | Err(_) => WorkloadType::Deployment,
    }
}

fn application_tunnel(tunnel: wire::ApplicationTunnel) -> Result<ApplicationTunnel, Rejection> {
    let protocol = match known("application_tunnel.protocol", tunnel.protocol)? {
        wire::application_tunnel::Protocol::None => TunnelProtocol::None,
        wire::application_tunnel::Protocol::Proxy => TunnelProtocol::Proxy,
    };
    let port = port("application_tunnel.port", tunnel.port)?;
    Ok(ApplicationTunnel { protocol, port: Some(port).filter(|port| *port > 0) })
}

fn load_balancer(lb: &wire::LoadBalancing) -> Result<LoadBalancer, Rejection> {
    use wire::load_balancing as lbs;
    let scope = |number: &i32| match known("routing_preference", *number)? {
        lbs::Scope::UnspecifiedScope => Err(Rejection::UnknownEnum { field: "routing_preference", value: 0 }),
        lbs::Scope::Region => Ok(Scope::Region),
        lbs::Scope::Zone => Ok(Scope::Zone),
        lbs::Scope::Subzone => Ok(Scope::Subzone),
        lbs::Scope::Node => Ok(Scope::Node),
        lbs::Scope::Cluster => Ok(Scope::Cluster),
        lbs::Scope::Network => Ok(Scope::Network),
    };
    Ok(LoadBalancer {
        preferences: lb.routing_preference.iter().map(scope).collect::<Result<_, _>>()?,
        mode: match known("load_balancing.mode", lb.mode)? {
            lbs::Mode::UnspecifiedMode => Mode::Standard,
            lbs::Mode::Strict => Mode::Strict,
            lbs::Mode::Failover => Mode::Failover,
            lbs::Mode::Passthrough => Mode::Passthrough,
        },
        health: match known("health_policy", lb.health_policy)? {
            lbs::HealthPolicy::OnlyHealthy => HealthPolicy::OnlyHealthy,
            lbs::HealthPolicy::AllowAll => HealthPolicy::AllowAll,
        },
    })
}

fn gateway(gateway: wire::GatewayAddress, names: &mut Interner) -> Result<GatewayAddress, Rejection> {
    let destination = match gateway.destination.ok_or(Rejection::NoGateway)? {
        Destination::Hostname(name) => GatewayDestination::Hostname(NamespacedHostname {
            namespace: names.get(&name.namespace),
            hostname: name.hostname.into(),
        }),
        Destination::Address(address) => {
            GatewayDestination::Address(NetworkAddress::new(names.get(&address.network), ip(&address.address)?))
        }
    };
    Ok(GatewayAddress { destination, hbone_port: port("hbone_mtls_port", gateway.hbone_mtls_port)? })
}

fn ports(pairs: impl Iterator<Item = (u32, u32)>) -> Result<PortMap, Rejection> {
    pairs.map(|(from, to)| Ok((port("service_port", from)?, port("target_port", to)?))).collect()
}

fn port(field: &'static str, value: u32) -> Result<u16, Rejection> {
    u16::try_from(value).map_err(|_| Rejection::Port { field, value })
}

/// An enum of which every number has to be known.
fn known<T: TryFrom<i32>>(field: &'static str, value: i32) -> Result<T, Rejection> {
    T::try_from(value).map_err(|_| Rejection::UnknownEnum { field, value })
}

/// An address as it came, mapped or not.
fn raw(bytes: &[u8]) -> Result<IpAddr, Rejection> {
    match bytes.len() {
        4 => <[u8; 4]>::try_from(bytes).map(IpAddr::from),
        16 => <[u8; 16]>::try_from(bytes).map(IpAddr::from),
        _ => return Err(Rejection::Address(bytes.len())),
    }
    .map_err(|_| Rejection::Address(bytes.len()))
}

fn ip(bytes: &[u8]) -> Result<IpAddr, Rejection> {
    Ok(raw(bytes)?.to_canonical())
}

/// The prefix length that means one host.
fn full(bytes: &[u8]) -> u32 {
    8 * u32::try_from(bytes.len()).unwrap_or(u32::MAX / 8)
}

/// A range; one of mapped addresses is the range of the plain ones.
pub(super) fn cidr(bytes: &[u8], length: u32) -> Result<IpNet, Rejection> {
    let address = raw(bytes)?;
    let plain = address.to_canonical();
    let bits = if plain.is_ipv4() && address.is_ipv6() { length.checked_sub(MAPPED_PREFIX) } else { Some(length) };
    // A range that is wider than all mapped addresses stays one of IPv6.
    let (base, bits) = bits.map_or((address, length), |bits| (plain, bits));
    let fitting = u8::try_from(bits).ok().and_then(|bits| IpNet::new(base, bits).ok());
    fitting.ok_or(Rejection::Cidr { address, length })
}

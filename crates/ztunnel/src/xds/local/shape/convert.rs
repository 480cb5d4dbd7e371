//! From what is written to what the mesh knows. The other way is the dump's.

use std::sync::Arc;

use mesh::name::Text;
use mesh::policy::{Clause, DryRun, Group, List, Rule};
use mesh::workload::{DEFAULT_CLUSTER, DEFAULT_SERVICE_ACCOUNT, DEFAULT_TRUST_DOMAIN, Membership, WorkloadType};

use super::{
    Cidr, Gateway, IpFamilies, Match, Policy, Service, ServiceAccountMatch, StaticWorkload, StringMatch,
    WeightedWaypoint,
};

/// A name, or what the control plane takes for it where it is not given.
fn or<T: From<Arc<str>>>(text: Arc<str>, default: &str) -> T {
    if text.is_empty() { Arc::<str>::from(default).into() } else { text.into() }
}

impl From<StaticWorkload> for mesh::Workload {
    fn from(shape: StaticWorkload) -> Self {
        let named = |kind: &WorkloadType| kind.as_str().eq_ignore_ascii_case(&shape.workload_type);
        let workload_type = WorkloadType::ALL.into_iter().find(named).unwrap_or_default();
        Self {
            name: Text::part_of(&shape.uid, &shape.name),
            uid: shape.uid.into(),
            namespace: shape.namespace.into(),
            service_account: or(shape.service_account, DEFAULT_SERVICE_ACCOUNT),
            addresses: shape.workload_ips.into_iter().map(|ip| ip.to_canonical()).collect(),
            deployment: mesh::Deployment {
                trust_domain: or(shape.trust_domain, DEFAULT_TRUST_DOMAIN),
                canonical_name: shape.canonical_name,
                canonical_revision: shape.canonical_revision,
                workload_name: shape.workload_name,
                workload_type,
                cluster_id: or(shape.cluster_id, DEFAULT_CLUSTER),
            }
            .into(),
            network: shape.network.into(),
            protocol: shape.protocol.into(),
            network_mode: shape.network_mode.into(),
            status: shape.status.into(),
            waypoint: shape.waypoint.map(|gateway| Box::new(gateway.into())),
            network_gateway: shape.network_gateway.map(|gateway| Box::new(gateway.into())),
            native_tunnel: shape.native_tunnel,
            application_tunnel: shape.application_tunnel.map(|tunnel| mesh::workload::ApplicationTunnel {
                protocol: tunnel.protocol.into(),
                port: tunnel.port.filter(|port| *port > 0),
            }),
            hostname: shape.hostname.as_ref().into(),
            node: shape.node.into(),
            locality: mesh::Locality {
                region: shape.locality.region,
                zone: shape.locality.zone,
                subzone: shape.locality.subzone,
            }
            .into(),
            capacity: shape.capacity,
            authorization_policies: shape.authorization_policies.into_iter().map(Into::into).collect(),
            services: shape
                .services
                .into_iter()
                .map(|(service, ports)| Membership { service: service.0, ports: ports.into() })
                .collect(),
        }
    }
}

impl From<Service> for mesh::Service {
    fn from(shape: Service) -> Self {
        let range = |range: Cidr| mesh::service::NetworkCidr { network: range.network.into(), cidr: range.cidr };
        let waypoint = |weighted: WeightedWaypoint| mesh::service::WeightedWaypoint {
            destination: weighted.destination.into(),
            weight: weighted.weight,
        };
        let extra = mesh::service::Extra {
            cidr_vips: shape.cidr_vips.into_iter().map(range).collect(),
            subject_alt_names: shape.subject_alt_names,
            waypoint: shape.waypoint.map(Into::into),
            weighted_waypoints: shape.weighted_waypoints.into_iter().map(waypoint).collect(),
            load_balancer: shape.load_balancer.map(|lb| mesh::service::LoadBalancer {
                preferences: lb.routing_preferences.into_iter().map(Into::into).collect(),
                mode: lb.mode.into(),
                health: lb.health_policy.into(),
            }),
        };
        Self {
            name: shape.name.into(),
            namespace: shape.namespace.into(),
            hostname: shape.hostname.as_ref().into(),
            vips: shape.vips.into_iter().map(|vip| vip.0).collect(),
            ports: shape.ports.into(),
            ip_families: match shape.ip_families {
                None => mesh::service::IpFamilies::Automatic,
                Some(IpFamilies::Dual) => mesh::service::IpFamilies::Dual,
                Some(IpFamilies::Ipv4) => mesh::service::IpFamilies::Ipv4Only,
                Some(IpFamilies::Ipv6) => mesh::service::IpFamilies::Ipv6Only,
            },
            canonical: shape.canonical,
            visibility: shape.visibility.into(),
            extras: extra.into(),
        }
    }
}

impl From<Gateway> for mesh::GatewayAddress {
    fn from(shape: Gateway) -> Self {
        Self { destination: shape.destination.0, hbone_port: shape.hbone_mtls_port }
    }
}

impl From<Policy> for mesh::Policy {
    fn from(shape: Policy) -> Self {
        let clause = |matches: Vec<Match>| Clause { matches: matches.into_iter().map(Into::into).collect() };
        let rule = |clauses: Vec<Vec<Match>>| Rule { clauses: clauses.into_iter().map(clause).collect() };
        Self {
            key: format!("{}/{}", shape.namespace, shape.name).into(),
            name: shape.name,
            namespace: shape.namespace.into(),
            scope: shape.scope.into(),
            action: shape.action.into(),
            dry_run: if shape.dry_run { DryRun::DryRun } else { DryRun::Enforced },
            rules: shape.rules.into_iter().map(rule).collect(),
        }
    }
}

/// Both lists of a group.
fn group<Shape, T: From<Shape>>(any: Option<Vec<Shape>>, none: Option<Vec<Shape>>) -> Group<T> {
    let list = |shapes: Option<Vec<Shape>>| List::from(shapes.into_iter().flatten().map(T::from).collect::<Vec<T>>());
    Group { any: list(any), none: list(none) }
}

impl From<Match> for mesh::policy::Match {
    fn from(shape: Match) -> Self {
        Self {
            namespaces: group(shape.namespaces, shape.not_namespaces),
            principals: group(shape.principals, shape.not_principals),
            service_accounts: group(shape.service_accounts, shape.not_service_accounts),
            source_ips: group(shape.source_ips, shape.not_source_ips),
            destination_ips: group(shape.destination_ips, shape.not_destination_ips),
            destination_ports: group(shape.destination_ports, shape.not_destination_ports),
        }
    }
}

impl From<StringMatch> for mesh::policy::StringMatch {
    fn from(shape: StringMatch) -> Self {
        match shape {
            StringMatch::Exact(text) => Self::Exact(text),
            StringMatch::Prefix(text) => Self::Prefix(text),
            StringMatch::Suffix(text) => Self::Suffix(text),
            StringMatch::Presence() => Self::Presence,
        }
    }
}

impl From<ServiceAccountMatch> for mesh::policy::ServiceAccountMatch {
    fn from(shape: ServiceAccountMatch) -> Self {
        Self { namespace: shape.namespace.into(), service_account: shape.service_account.into() }
    }
}

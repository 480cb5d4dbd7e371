//! The objects of the mesh as the configuration dump shows them (spec admin-and-telemetry 2, `config_dump`).
//!
//! From what the mesh knows to the shapes that static state files share with the dump. Every list is sorted here; keys
//! are sorted by the shapes. A view is read, never locked, so a dump of any size holds up nothing.

use std::collections::BTreeMap;

use mesh::policy::{DryRun, Group, List};
use mesh::view::Endpoint as MeshEndpoint;
use mesh::{GatewayAddress, NamespacedHostname, View};

use crate::xds::local::shape::{
    ApplicationTunnel, Cidr, Destination, DumpedWorkload, Endpoint, Gateway, IpFamilies, LoadBalancer, Locality, Match,
    Policy, Ports, Service, ServiceAccountMatch, ServiceKey, StringMatch, Vip, WeightedWaypoint,
};

/// What the dump shows of a workload.
pub type Dumped = DumpedWorkload;
/// What the dump shows of a service.
pub type DumpedService = Service;
/// What the dump shows of a policy.
pub type DumpedPolicy = Policy;

/// All workloads, by key.
pub fn workloads(view: &View) -> impl ExactSizeIterator<Item = DumpedWorkload> {
    let mut all: Vec<_> = view.workloads().collect();
    all.sort_by(|a, b| a.uid.cmp(&b.uid));
    all.into_iter().map(|one| workload(one))
}

/// All services, by host name.
pub fn services(view: &View) -> impl ExactSizeIterator<Item = Service> {
    let mut all: Vec<_> = view.services().collect();
    all.sort_by(|a, b| (&a.hostname, &a.namespace).cmp(&(&b.hostname, &b.namespace)));
    all.into_iter().map(|one| service(view, one))
}

/// All policies, by key.
pub fn policies(view: &View) -> impl ExactSizeIterator<Item = Policy> {
    let mut all: Vec<_> = view.policies().collect();
    all.sort_by(|a, b| a.key.cmp(&b.key));
    all.into_iter().map(|one| policy(one))
}

/// Endpoints of services that are not known, by service and workload.
pub fn staged_services(view: &View) -> BTreeMap<ServiceKey, BTreeMap<std::sync::Arc<str>, Endpoint>> {
    view.staged().map(|key| (ServiceKey(key.clone()), endpoints(view, key))).collect()
}

fn endpoints(view: &View, service: &NamespacedHostname) -> BTreeMap<std::sync::Arc<str>, Endpoint> {
    let shape = |endpoint: MeshEndpoint<'_>| Endpoint {
        port: Ports::from(endpoint.ports),
        status: endpoint.workload.status.into(),
        workload_uid: endpoint.workload.uid.shared().clone(),
    };
    view.endpoints(service).map(|endpoint| (endpoint.workload.uid.shared().clone(), shape(endpoint))).collect()
}

fn workload(workload: &mesh::Workload) -> DumpedWorkload {
    DumpedWorkload {
        application_tunnel: workload
            .application_tunnel
            .map(|tunnel| ApplicationTunnel { port: tunnel.port, protocol: tunnel.protocol.into() }),
        authorization_policies: workload.authorization_policies.iter().map(|key| key.shared().clone()).collect(),
        canonical_name: workload.deployment.canonical_name.clone(),
        canonical_revision: workload.deployment.canonical_revision.clone(),
        capacity: workload.capacity,
        cluster_id: workload.deployment.cluster_id.shared().clone(),
        hostname: workload.hostname.shared().clone(),
        locality: Locality {
            region: workload.locality.region.clone(),
            subzone: workload.locality.subzone.clone(),
            zone: workload.locality.zone.clone(),
        },
        name: workload.name.as_str().into(),
        namespace: workload.namespace.shared().clone(),
        native_tunnel: workload.native_tunnel,
        network: workload.network.shared().clone(),
        network_gateway: workload.network_gateway.as_deref().map(gateway),
        network_mode: workload.network_mode.into(),
        node: workload.node.shared().clone(),
        protocol: workload.protocol.into(),
        service_account: workload.service_account.shared().clone(),
        services: workload.services.iter().map(|membership| ServiceKey(membership.service.clone())).collect(),
        status: workload.status.into(),
        trust_domain: workload.deployment.trust_domain.shared().clone(),
        uid: workload.uid.shared().clone(),
        waypoint: workload.waypoint.as_deref().map(gateway),
        workload_ips: workload.addresses.to_vec(),
        workload_name: workload.deployment.workload_name.clone(),
        workload_type: workload.deployment.workload_type.as_str().into(),
    }
}

fn service(view: &View, service: &mesh::Service) -> Service {
    let extras = &service.extras;
    Service {
        canonical: service.canonical,
        cidr_vips: extras
            .cidr_vips
            .iter()
            .map(|range| Cidr { cidr: range.cidr, network: range.network.shared().clone() })
            .collect(),
        endpoints: endpoints(view, &service.key()),
        hostname: service.hostname.shared().clone(),
        ip_families: match service.ip_families {
            mesh::service::IpFamilies::Automatic => None,
            mesh::service::IpFamilies::Dual => Some(IpFamilies::Dual),
            mesh::service::IpFamilies::Ipv4Only => Some(IpFamilies::Ipv4),
            mesh::service::IpFamilies::Ipv6Only => Some(IpFamilies::Ipv6),
        },
        load_balancer: extras.load_balancer.as_ref().map(|lb| LoadBalancer {
            health_policy: lb.health.into(),
            mode: lb.mode.into(),
            routing_preferences: lb.preferences.iter().map(|scope| (*scope).into()).collect(),
        }),
        name: service.name.as_str().into(),
        namespace: service.namespace.shared().clone(),
        ports: Ports::from(&service.ports),
        subject_alt_names: extras.subject_alt_names.clone(),
        vips: service.vips.iter().cloned().map(Vip).collect(),
        visibility: service.visibility.into(),
        waypoint: extras.waypoint.as_ref().map(gateway),
        weighted_waypoints: extras
            .weighted_waypoints
            .iter()
            .map(|one| WeightedWaypoint { destination: gateway(&one.destination), weight: one.weight })
            .collect(),
    }
}

fn gateway(gateway: &GatewayAddress) -> Gateway {
    Gateway { destination: Destination(gateway.destination.clone()), hbone_mtls_port: gateway.hbone_port }
}

fn policy(policy: &mesh::Policy) -> Policy {
    let rules = policy.rules.iter().map(|rule| {
        let clauses = rule.clauses.iter().map(|clause| clause.matches.iter().map(one).collect());
        clauses.collect()
    });
    Policy {
        action: policy.action.into(),
        dry_run: policy.dry_run == DryRun::DryRun,
        name: policy.name.clone(),
        namespace: policy.namespace.shared().clone(),
        rules: rules.collect(),
        scope: policy.scope.into(),
    }
}

/// One list of a group, if it says anything; what could not be read is not shown.
fn list<T, Shape>(list: &List<T>, shape: impl Fn(&T) -> Shape) -> Option<Vec<Shape>> {
    (!list.is_empty()).then(|| list.elements.iter().map(shape).collect())
}

/// Both lists of a group, the negative one second.
fn lists<T, Shape>(group: &Group<T>, shape: impl Fn(&T) -> Shape) -> (Option<Vec<Shape>>, Option<Vec<Shape>>) {
    (list(&group.any, &shape), list(&group.none, &shape))
}

fn one(m: &mesh::policy::Match) -> Match {
    let (namespaces, not_namespaces) = lists(&m.namespaces, text);
    let (principals, not_principals) = lists(&m.principals, text);
    let (service_accounts, not_service_accounts) = lists(&m.service_accounts, |account| ServiceAccountMatch {
        namespace: account.namespace.shared().clone(),
        service_account: account.service_account.shared().clone(),
    });
    let (source_ips, not_source_ips) = lists(&m.source_ips, |net| *net);
    let (destination_ips, not_destination_ips) = lists(&m.destination_ips, |net| *net);
    let (destination_ports, not_destination_ports) = lists(&m.destination_ports, |port| *port);
    Match {
        destination_ips,
        destination_ports,
        namespaces,
        not_destination_ips,
        not_destination_ports,
        not_namespaces,
        not_principals,
        not_service_accounts,
        not_source_ips,
        principals,
        service_accounts,
        source_ips,
    }
}

fn text(pattern: &mesh::policy::StringMatch) -> StringMatch {
    match pattern {
        mesh::policy::StringMatch::Exact(text) => StringMatch::Exact(text.clone()),
        mesh::policy::StringMatch::Prefix(text) => StringMatch::Prefix(text.clone()),
        mesh::policy::StringMatch::Suffix(text) => StringMatch::Suffix(text.clone()),
        mesh::policy::StringMatch::Presence => StringMatch::Presence(),
    }
}

#[cfg(test)]
mod tests;

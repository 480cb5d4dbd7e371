//! What a reference to a waypoint or a network gateway means (spec data-plane 5.3, 5.5).

use std::net::IpAddr;

use crate::address::NetworkAddress;
use crate::view::{Addressed, View};
use crate::workload::{GatewayAddress, GatewayDestination, Workload};

/// What is referred to; visibility does not matter, since not the client but the control plane refers to it.
pub(crate) fn referred<'a>(view: &'a View, reference: &GatewayAddress) -> Option<Addressed<'a>> {
    match &reference.destination {
        GatewayDestination::Address(address) => view.find(address, None),
        GatewayDestination::Hostname(name) => {
            let workload = || view.workload_named(name).map(Addressed::Workload);
            view.service(name).map(Addressed::Service).or_else(workload)
        }
    }
}

/// Whether a connection of `source` comes from the gateway or waypoint itself.
pub(crate) fn is_source(view: &View, reference: &GatewayAddress, source: &Workload, client: IpAddr) -> bool {
    let is_source = |workload: &Workload| same_identity(workload, source) && workload.addresses.contains(&client);
    match referred(view, reference) {
        None => false,
        Some(Addressed::Workload(workload)) => is_source(workload),
        Some(Addressed::Service(service)) => {
            let key = service.key();
            let endpoint = |workload: &Workload| is_source(workload) && view.endpoint(&key, &workload.uid).is_some();
            let address = NetworkAddress::new(source.network.clone(), client);
            endpoint(source) || view.workloads_at(&address).iter().any(|workload| endpoint(workload))
        }
    }
}

/// Whether a request that arrived at `local`, an address of `workload`, may be for something behind the waypoint
/// (spec data-plane 10.4, "sandwich").
pub(crate) fn is_local(view: &View, reference: &GatewayAddress, workload: &Workload, local: IpAddr) -> bool {
    match referred(view, reference) {
        None => false,
        Some(Addressed::Workload(waypoint)) => waypoint.addresses.contains(&local),
        Some(Addressed::Service(service)) => view.endpoint(&service.key(), &workload.uid).is_some(),
    }
}

fn same_identity(a: &Workload, b: &Workload) -> bool {
    a.service_account == b.service_account
        && a.namespace == b.namespace
        && a.deployment.trust_domain == b.deployment.trust_domain
}

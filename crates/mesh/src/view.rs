//! What the control plane said, as one consistent and immutable whole.
//!
//! A view never changes; [`State::apply`] makes the next one, which shares with it all that stayed the same. All
//! lookups of spec data-plane 4 and state-and-dns 6 are here. Which endpoint of a service a connection gets is
//! [`crate::balance`]'s to say.

use std::sync::Arc;

use crate::address::NetworkAddress;
use crate::name::{Hostname, LocalWorkload, Namespace, NamespacedHostname, PolicyName, Uid};
use crate::policy::Policy;
use crate::ports::PortMap;
use crate::service::Service;
use crate::workload::Workload;

mod addressed;
mod by_key;
mod by_uid;
mod cidr;
pub(crate) mod endpoints;
mod map;
pub(crate) mod policies;
pub(crate) mod pool;
mod slot;
mod state;

use by_key::{ByKey, Key};
use by_uid::ByUid;
use cidr::Cidrs;
use endpoints::Endpoints;
pub(crate) use map::Map;
use policies::{Policies, PolicySet, Selection};
use slot::Slot;
pub use state::{Applied, Change, State};

/// Everything that is known at one moment; cloning it costs next to nothing.
#[derive(Clone, Debug, Default)]
pub struct View {
    workloads: Map<ByUid, ()>,
    /// Workloads of this node, by the triple that a proxy instance knows.
    locals: Map<LocalWorkload, Slot<Workload>>,
    /// Workloads by address, those in host-network mode left out.
    addresses: addressed::Addressed<Workload>,
    /// Workloads that have a host name.
    hostnames: Map<NamespacedHostname, Slot<Workload>>,
    services: Map<ByKey, ()>,
    services_by_hostname: Map<Hostname, Slot<Service>>,
    vips: addressed::Addressed<Service>,
    cidrs: Cidrs,
    /// Endpoints by service, known or not.
    endpoints: Map<NamespacedHostname, Arc<Endpoints>>,
    policies: Policies,
}

/// An endpoint of a service.
#[derive(Clone, Copy, Debug)]
pub struct Endpoint<'a> {
    /// The workload behind it.
    pub workload: &'a Arc<Workload>,
    /// Service port to target port.
    pub ports: &'a PortMap,
}

/// What an address belongs to.
#[derive(Clone, Copy, Debug)]
pub enum Addressed<'a> {
    /// A service, by a virtual address.
    Service(&'a Arc<Service>),
    /// A workload, by an address of its own.
    Workload(&'a Arc<Workload>),
}

impl View {
    /// The workload of that key.
    pub fn workload(&self, uid: &Uid) -> Option<&Arc<Workload>> {
        self.workloads.key(uid).map(|ByUid(workload)| workload)
    }

    /// The workload that a proxy instance stands for, if it runs on this node.
    pub fn local(&self, who: &LocalWorkload) -> Option<&Arc<Workload>> {
        self.locals.get(who)?.likeliest()
    }

    /// The workload at an address; of several, the one that most likely is meant (spec data-plane 4.1).
    pub fn workload_at(&self, address: &NetworkAddress) -> Option<&Arc<Workload>> {
        self.addresses.get(address)?.likeliest()
    }

    /// All workloads at an address.
    pub fn workloads_at(&self, address: &NetworkAddress) -> &[Arc<Workload>] {
        self.addresses.get(address).map_or(&[], Slot::as_slice)
    }

    /// The workload of that host name and namespace.
    pub fn workload_named(&self, name: &NamespacedHostname) -> Option<&Arc<Workload>> {
        self.hostnames.get(name)?.likeliest()
    }

    /// The service of that key.
    pub fn service(&self, key: &NamespacedHostname) -> Option<&Arc<Service>> {
        self.services.key(key as &dyn Key).map(|ByKey(service)| service)
    }

    /// The service that a client of that namespace means by a host name (spec state-and-dns 6.2).
    pub fn service_named(&self, hostname: &Hostname, client: &Namespace) -> Option<&Arc<Service>> {
        self.services_by_hostname.get(hostname)?.best(Some(client))
    }

    /// All services of a host name, one for each namespace that has one.
    pub fn services_named(&self, hostname: &Hostname) -> &[Arc<Service>] {
        self.services_by_hostname.get(hostname).map_or(&[], Slot::as_slice)
    }

    /// The same by the name's text: in lower case, without a final dot.
    pub(crate) fn services_called(&self, name: &str) -> &[Arc<Service>] {
        self.services_by_hostname.get(name).map_or(&[], Slot::as_slice)
    }

    /// The service that a client of that namespace means by an address: by exact VIP, else by range; without a client
    /// all services are visible (spec state-and-dns 6.1).
    pub fn service_at(&self, address: &NetworkAddress, client: Option<&Namespace>) -> Option<&Arc<Service>> {
        self.service_at_vip(address, client).or_else(|| self.cidrs.best(address, client))
    }

    fn service_at_vip(&self, address: &NetworkAddress, client: Option<&Namespace>) -> Option<&Arc<Service>> {
        self.vips.get(address)?.best(client)
    }

    /// What a client means by an address: the service whose VIP it is, else the workload that has it, else the service
    /// whose range it is in. There is no second lookup with another precedence.
    pub fn find(&self, address: &NetworkAddress, client: Option<&Namespace>) -> Option<Addressed<'_>> {
        self.service_at_vip(address, client)
            .map(Addressed::Service)
            .or_else(|| self.workload_at(address).map(Addressed::Workload))
            .or_else(|| self.cidrs.best(address, client).map(Addressed::Service))
    }

    /// All endpoints of a service, healthy or not, in no order; the service need not be known.
    pub fn endpoints<'a>(&'a self, service: &NamespacedHostname) -> impl Iterator<Item = Endpoint<'a>> + use<'a> {
        let all = self.endpoints.get(service).into_iter().flat_map(|endpoints| endpoints.members());
        all.map(|member| Endpoint { workload: &member.workload, ports: member.ports() })
    }

    /// The endpoint of a service that a workload is.
    pub fn endpoint(&self, service: &NamespacedHostname, workload: &Uid) -> Option<Endpoint<'_>> {
        let member = self.endpoints.get(service)?.member(workload)?;
        Some(Endpoint { workload: &member.workload, ports: member.ports() })
    }

    pub(crate) fn endpoints_of(&self, service: &NamespacedHostname) -> Option<&Endpoints> {
        self.endpoints.get(service).map(|endpoints| &**endpoints)
    }

    /// Services that workloads say they belong to and that are not known, in no order.
    pub fn staged(&self) -> impl Iterator<Item = &NamespacedHostname> {
        self.endpoints.keys().filter(|key| self.service(key).is_none())
    }

    /// The policy of that key.
    pub fn policy(&self, key: &PolicyName) -> Option<&Arc<Policy>> {
        self.policies.get(key)
    }

    /// The policies that apply to workloads of a namespace without their referring to them: those of the namespace,
    /// then the global ones.
    pub(crate) fn policies_over<'a>(&'a self, namespace: &Namespace) -> impl Iterator<Item = &'a PolicySet> + use<'a> {
        self.policies.over(namespace)
    }

    /// The policies that a workload refers to; `None` if they are few, or if it is not of this node or not its latest version.
    pub(crate) fn selection(&self, workload: &Workload) -> Option<&Selection> {
        self.policies.selection(workload)
    }

    /// All workloads, in no order.
    pub fn workloads(&self) -> impl ExactSizeIterator<Item = &Arc<Workload>> {
        self.workloads.keys().map(|ByUid(workload)| workload)
    }

    /// All services, in no order.
    pub fn services(&self) -> impl ExactSizeIterator<Item = &Arc<Service>> {
        self.services.keys().map(|ByKey(service)| service)
    }

    /// All policies, in no order.
    pub fn policies(&self) -> impl ExactSizeIterator<Item = &Arc<Policy>> {
        self.policies.all()
    }
}

#[cfg(test)]
mod tests;

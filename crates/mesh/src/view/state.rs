//! Applying what the control plane says, one change after another.
//!
//! Changes take effect in their order, removals included, so that the same batch always comes to the same view.

mod load;

use std::hash::Hash;
use std::sync::Arc;

use super::by_key::{ByKey, Key};
use super::by_uid::ByUid;
use super::endpoints::Endpoints;
use super::pool::Member;
use super::slot::{Keyed, Slot};
use super::{Map, View};
use crate::address::NetworkAddress;
use crate::name::{NamespacedHostname, NodeName, PolicyName, Uid};
use crate::policy::Policy;
use crate::service::Service;
use crate::workload::{NetworkMode, Workload};

/// The newest view, and the only way to make another.
#[derive(Clone, Debug, Default)]
pub struct State {
    view: View,
    node: Option<NodeName>,
}

/// One thing that the control plane says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// A workload is thus.
    Workload(Arc<Workload>),
    /// A service is thus.
    Service(Arc<Service>),
    /// A policy is thus.
    Policy(Arc<Policy>),
    /// A workload is no more.
    RemoveWorkload(Uid),
    /// A service is no more.
    RemoveService(NamespacedHostname),
    /// A policy is no more.
    RemovePolicy(PolicyName),
}

impl From<Workload> for Change {
    fn from(workload: Workload) -> Self {
        Self::Workload(Arc::new(workload))
    }
}

impl From<Service> for Change {
    fn from(service: Service) -> Self {
        Self::Service(Arc::new(service))
    }
}

impl From<Policy> for Change {
    fn from(policy: Policy) -> Self {
        Self::Policy(Arc::new(policy))
    }
}

/// What came of applying changes.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
#[must_use]
pub struct Applied {
    /// How many workloads were put or removed.
    pub workloads: usize,
    /// How many services were put or removed.
    pub services: usize,
    /// How many policies were put or removed.
    pub policies: usize,
    /// Services that were to be removed and are not known.
    pub absent: Vec<NamespacedHostname>,
}

impl State {
    /// Nothing is known. With `node`, only workloads of that node are ever [`local`](View::local).
    pub fn new(node: Option<NodeName>) -> Self {
        Self { view: View::default(), node }
    }

    /// Applies changes in their order.
    pub fn apply(&mut self, changes: impl IntoIterator<Item = Change>) -> Applied {
        let mut applied = Applied::default();
        // While no workload is known, they wait to be put all together; nothing but their removal depends on them.
        let mut first = self.view.workloads.is_empty().then(Vec::new);
        for change in changes {
            match change {
                Change::Workload(workload) => {
                    applied.workloads += 1;
                    match &mut first {
                        Some(first) => first.push(workload),
                        None => self.put_workload(workload),
                    }
                }
                Change::RemoveWorkload(uid) => {
                    self.load(first.take().unwrap_or_default());
                    applied.workloads += usize::from(self.remove_workload(&uid));
                }
                Change::Service(service) => {
                    self.put_service(service);
                    applied.services += 1;
                }
                Change::RemoveService(key) => {
                    if self.remove_service(&key) {
                        applied.services += 1;
                    } else {
                        applied.absent.push(key);
                    }
                }
                Change::Policy(policy) => {
                    self.view.policies.put(policy);
                    applied.policies += 1;
                }
                Change::RemovePolicy(key) => applied.policies += usize::from(self.view.policies.remove(&key)),
            }
        }
        self.load(first.unwrap_or_default());
        applied
    }

    /// What is known now.
    pub fn view(&self) -> View {
        self.view.clone()
    }

    fn put_workload(&mut self, workload: Arc<Workload>) {
        if let Some(old) = self.view.workload(&workload.uid).cloned() {
            self.forget_workload(&old, Some(&workload));
        }
        let view = &mut self.view;
        if self.node.as_ref().is_none_or(|node| *node == workload.node) {
            put(&mut view.locals, workload.local(), &workload);
            view.policies.put_workload(&workload);
        }
        for key in addresses(&workload) {
            view.addresses.put(&key, &workload);
        }
        if let Some(key) = hostname(&workload) {
            put(&mut view.hostnames, key, &workload);
        }
        for index in 0..workload.services.len() {
            join(view, &workload, index);
        }
        view.workloads.insert_mut(ByUid(workload), ());
    }

    fn remove_workload(&mut self, uid: &Uid) -> bool {
        let Some(old) = self.view.workload(uid).cloned() else {
            return false;
        };
        self.forget_workload(&old, None);
        self.view.workloads.remove_mut(uid)
    }

    /// Takes a workload out of every index where `next`, its newer version, will not be.
    fn forget_workload(&mut self, old: &Workload, next: Option<&Workload>) {
        let view = &mut self.view;
        let local = |workload: &Workload| (workload.local(), workload.node.clone());
        if next.is_none_or(|next| local(next) != local(old)) {
            remove(&mut view.locals, &old.local(), old);
        }
        if next.is_none_or(|next| next.node != old.node) {
            view.policies.remove_workload(&old.uid);
        }
        for key in addresses(old) {
            if !next.is_some_and(|next| addresses(next).any(|kept| kept == key)) {
                view.addresses.remove(&key, old);
            }
        }
        if let Some(key) = hostname(old).filter(|key| next.and_then(hostname).as_ref() != Some(key)) {
            remove(&mut view.hostnames, &key, old);
        }
        for membership in old.services.iter() {
            let service = &membership.service;
            if next.is_some_and(|next| next.ports_for(service).is_some()) {
                continue;
            }
            if let Some(endpoints) = view.endpoints.get_mut(service) {
                Arc::make_mut(endpoints).remove(&old.uid);
                if endpoints.is_empty() {
                    view.endpoints.remove_mut(service);
                }
            }
        }
    }

    fn put_service(&mut self, service: Arc<Service>) {
        let key = service.key();
        if let Some(old) = self.view.service(&key).cloned() {
            self.forget_service(&old, Some(&service));
        }
        let view = &mut self.view;
        put(&mut view.services_by_hostname, service.hostname.clone(), &service);
        for vip in &service.vips {
            view.vips.put(vip, &service);
        }
        for range in &service.extras.cidr_vips {
            view.cidrs.put(range, &service);
        }
        if let Some(endpoints) = view.endpoints.get_mut(&key) {
            Arc::make_mut(endpoints).plan(&service);
        }
        view.services.insert_mut(ByKey(service), ());
    }

    fn remove_service(&mut self, key: &NamespacedHostname) -> bool {
        let Some(old) = self.view.service(key).cloned() else {
            return false;
        };
        self.forget_service(&old, None);
        self.view.services.remove_mut(key as &dyn Key)
    }

    /// Takes a service out of every index where `next`, its newer version, will not be. Its endpoints stay.
    fn forget_service(&mut self, old: &Service, next: Option<&Service>) {
        let view = &mut self.view;
        if next.is_none() {
            remove(&mut view.services_by_hostname, &old.hostname, old);
        }
        for vip in &old.vips {
            if !next.is_some_and(|next| next.vips.contains(vip)) {
                view.vips.remove(vip, old);
            }
        }
        for range in &old.extras.cidr_vips {
            if !next.is_some_and(|next| next.extras.cidr_vips.contains(range)) {
                view.cidrs.remove(range, old);
            }
        }
    }
}

/// The addresses by which a workload is found; in host-network mode they are its node's (spec data-plane 4.1).
fn addresses(workload: &Workload) -> impl Iterator<Item = NetworkAddress> + '_ {
    let own = workload.network_mode == NetworkMode::Standard;
    let all = workload.addresses.iter().filter(move |_| own);
    all.map(|ip| NetworkAddress::new(workload.network.clone(), *ip))
}

/// The name by which a workload is found as a gateway or waypoint.
fn hostname(workload: &Workload) -> Option<NamespacedHostname> {
    let hostname = Some(&workload.hostname).filter(|hostname| !hostname.is_empty())?;
    Some(NamespacedHostname { namespace: workload.namespace.clone(), hostname: hostname.clone() })
}

/// Makes a workload an endpoint of the service that it names at `index`.
fn join(view: &mut View, workload: &Arc<Workload>, index: usize) {
    let Some((member, membership)) = Member::new(workload.clone(), index, true).zip(workload.services.get(index))
    else {
        return;
    };
    match view.endpoints.get_mut(&membership.service) {
        Some(endpoints) => Arc::make_mut(endpoints).put(member),
        None => {
            let service = view.service(&membership.service);
            let mut endpoints = Endpoints::new(service.map(|service| &**service));
            endpoints.put(member);
            view.endpoints.insert_mut(membership.service.clone(), Arc::new(endpoints));
        }
    }
}

fn put<K: Hash + Eq + Clone, T: Keyed + Clone>(index: &mut Map<K, Slot<T>>, key: K, object: &Arc<T>) {
    index.insert_with(key, |slot| Slot::with(slot, object));
}

fn remove<K: Hash + Eq + Clone, T: Keyed + Clone>(index: &mut Map<K, Slot<T>>, key: &K, object: &T) {
    let Some(slot) = index.get(key) else {
        return;
    };
    match slot.without(object) {
        Some(rest) => index.insert_mut(key.clone(), rest),
        None => {
            index.remove_mut(key);
        }
    }
}

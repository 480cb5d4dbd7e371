//! What many objects share is kept once: namespaces, nodes, service names, localities, lists of services and the like.
//!
//! Bounded by what is in use: what nobody else holds is dropped whenever the collection has doubled.

use std::borrow::Borrow;
use std::collections::{HashMap, HashSet};
use std::hash::Hash;
use std::sync::Arc;

use mesh::name::InvalidNamespacedHostname;
use mesh::workload::Membership;
use mesh::{Deployment, Locality, NamespacedHostname, PolicyName};

/// Size up to which nothing is dropped.
const SMALL: usize = 4_096;

/// What is in use.
#[derive(Debug)]
pub struct Interner {
    texts: HashSet<Arc<str>>,
    services: HashMap<Box<str>, NamespacedHostname>,
    memberships: HashSet<Arc<[Membership]>>,
    policies: HashSet<Arc<[PolicyName]>>,
    localities: HashSet<Arc<Locality>>,
    deployments: HashSet<Arc<Deployment>>,
    /// Size at which to look for what nobody holds.
    full: usize,
}

impl Default for Interner {
    fn default() -> Self {
        Self {
            texts: HashSet::new(),
            services: HashMap::new(),
            memberships: HashSet::new(),
            policies: HashSet::new(),
            localities: HashSet::new(),
            deployments: HashSet::new(),
            full: SMALL,
        }
    }
}

/// The one of `all` that equals `one`, which is put there if there is none.
fn shared<T: ?Sized + Eq + Hash, O: Borrow<T> + Into<Arc<T>>>(all: &mut HashSet<Arc<T>>, one: O) -> Arc<T> {
    if let Some(known) = all.get(one.borrow()) {
        return known.clone();
    }
    let fresh: Arc<T> = one.into();
    all.insert(fresh.clone());
    fresh
}

impl Interner {
    /// The text, shared with all who asked for the same.
    pub fn get<T: From<Arc<str>>>(&mut self, text: &str) -> T {
        self.make_room();
        if let Some(known) = self.texts.get(text) {
            return Arc::clone(known).into();
        }
        let fresh: Arc<str> = text.into();
        self.texts.insert(Arc::clone(&fresh));
        fresh.into()
    }

    /// The key of a service, likewise.
    ///
    /// # Errors
    /// If it is none.
    pub fn service(&mut self, text: &str) -> Result<NamespacedHostname, InvalidNamespacedHostname> {
        if let Some(known) = self.services.get(text) {
            return Ok(known.clone());
        }
        self.make_room();
        let mut fresh: NamespacedHostname = text.parse()?;
        fresh.namespace = self.get(fresh.namespace.as_str());
        self.services.insert(text.into(), fresh.clone());
        Ok(fresh)
    }

    /// Memberships, likewise: those of a deployment's workloads are the same.
    pub fn memberships(&mut self, all: Vec<Membership>) -> Arc<[Membership]> {
        self.make_room();
        shared(&mut self.memberships, all)
    }

    /// Names of policies, likewise.
    pub fn policies(&mut self, names: &[String]) -> Arc<[PolicyName]> {
        let all: Vec<PolicyName> = names.iter().map(|name| self.get(name)).collect();
        shared(&mut self.policies, all)
    }

    /// A place, likewise.
    pub fn locality(&mut self, region: &str, zone: &str, subzone: &str) -> Arc<Locality> {
        let place = Locality { region: self.get(region), zone: self.get(zone), subzone: self.get(subzone) };
        shared(&mut self.localities, place)
    }

    /// What workloads of a deployment have in common, likewise.
    pub fn deployment(&mut self, deployment: Deployment) -> Arc<Deployment> {
        shared(&mut self.deployments, deployment)
    }

    fn size(&self) -> usize {
        let lists = self.memberships.len() + self.policies.len();
        self.texts.len() + self.services.len() + lists + self.localities.len() + self.deployments.len()
    }

    fn make_room(&mut self) {
        if self.size() < self.full {
            return;
        }
        // Lists first: they hold texts.
        self.memberships.retain(|list| Arc::strong_count(list) > 1);
        self.policies.retain(|list| Arc::strong_count(list) > 1);
        self.localities.retain(|place| Arc::strong_count(place) > 1);
        self.deployments.retain(|deployment| Arc::strong_count(deployment) > 1);
        self.services.retain(|_, key| Arc::strong_count(key.hostname.shared()) > 1);
        self.texts.retain(|text| Arc::strong_count(text) > 1);
        self.full = SMALL.max(2 * self.size());
    }
}

#[cfg(test)]
mod tests {
    use mesh::PortMap;

    use super::*;

    #[test]
    fn equal_texts_are_one_and_those_that_nobody_holds_are_dropped() {
        let mut names = Interner::default();
        let (a, b): (Arc<str>, Arc<str>) = (names.get("ns"), names.get("ns"));
        assert!(Arc::ptr_eq(&a, &b));
        let key = names.service("ns/web.ns.svc").unwrap();
        assert!(Arc::ptr_eq(key.hostname.shared(), names.service("ns/web.ns.svc").unwrap().hostname.shared()));
        for i in 0..10 * SMALL {
            let _: Arc<str> = names.get(&i.to_string());
            let service = names.service(&format!("ns/{i}")).unwrap();
            let _ = names.memberships(vec![Membership { service, ports: PortMap::default() }]);
            let _ = names.policies(&[format!("policy-{i}")]);
            let _ = names.locality(&i.to_string(), "zone", "");
        }
        assert!(names.size() <= SMALL + 8, "{}", names.size());
        assert!(Arc::ptr_eq(&a, &names.get("ns")), "what is held stays");
    }
}

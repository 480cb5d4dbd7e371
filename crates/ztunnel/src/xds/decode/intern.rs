//! What many objects share is kept once: namespaces, nodes, service names, localities, lists of services and the like.
//!
//! Bounded by what is in use: what nobody else holds is dropped whenever the collection has doubled. Composed things are
//! found by their texts, so that nothing is made to see that it is there already.

use std::collections::HashSet;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use hashbrown::Equivalent;
use mesh::name::InvalidNamespacedHostname;
use mesh::workload::{Membership, WorkloadType};
use mesh::{Deployment, Locality, NamespacedHostname, PolicyName, PortMap};
use rustc_hash::FxBuildHasher;

/// Size up to which nothing is dropped.
const SMALL: usize = 4_096;

/// A set in which an element is found by what it consists of.
type Composed<T> = hashbrown::HashSet<Arc<T>, FxBuildHasher>;

/// What is in use.
#[derive(Debug)]
pub struct Interner {
    texts: HashSet<Arc<str>, FxBuildHasher>,
    services: hashbrown::HashSet<Key, FxBuildHasher>,
    memberships: HashSet<Arc<[Membership]>, FxBuildHasher>,
    policies: HashSet<Arc<[PolicyName]>, FxBuildHasher>,
    ports: HashSet<PortMap, FxBuildHasher>,
    localities: Composed<Locality>,
    deployments: Composed<Deployment>,
    nowhere: Arc<Locality>,
    /// Size at which to look for what nobody holds.
    full: usize,
}

/// The key of a service, equal to what is written in the same way only: a final dot makes a difference to resolvers.
#[derive(Debug)]
struct Key(NamespacedHostname);

impl Key {
    fn text(&self) -> KeyText<'_> {
        KeyText { namespace: self.0.namespace.as_str(), hostname: self.0.hostname.as_str() }
    }
}

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.text().hash(state);
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        self.text() == other.text()
    }
}

impl Eq for Key {}

/// A [`Key`] to be, in lower case; hashes like it.
#[derive(Debug, PartialEq, Eq, Hash)]
struct KeyText<'a> {
    namespace: &'a str,
    hostname: &'a str,
}

impl Equivalent<Key> for KeyText<'_> {
    fn equivalent(&self, known: &Key) -> bool {
        *self == known.text()
    }
}

/// A [`Deployment`] to be; hashes like it.
#[derive(Debug, Hash)]
pub(super) struct DeploymentTexts<'a> {
    pub(super) trust_domain: &'a str,
    pub(super) canonical_name: &'a str,
    pub(super) canonical_revision: &'a str,
    pub(super) workload_name: &'a str,
    pub(super) workload_type: WorkloadType,
    pub(super) cluster_id: &'a str,
}

impl Equivalent<Arc<Deployment>> for DeploymentTexts<'_> {
    fn equivalent(&self, known: &Arc<Deployment>) -> bool {
        *known.workload_name == *self.workload_name
            && *known.canonical_name == *self.canonical_name
            && *known.canonical_revision == *self.canonical_revision
            && known.trust_domain.as_str() == self.trust_domain
            && known.workload_type == self.workload_type
            && known.cluster_id.as_str() == self.cluster_id
    }
}

/// A [`Locality`] to be; hashes like it.
#[derive(Debug, Hash)]
pub(super) struct Place<'a> {
    pub(super) region: &'a str,
    pub(super) zone: &'a str,
    pub(super) subzone: &'a str,
}

impl Equivalent<Arc<Locality>> for Place<'_> {
    fn equivalent(&self, known: &Arc<Locality>) -> bool {
        *known.region == *self.region && *known.zone == *self.zone && *known.subzone == *self.subzone
    }
}

impl Default for Interner {
    fn default() -> Self {
        Self {
            texts: HashSet::default(),
            services: hashbrown::HashSet::default(),
            memberships: HashSet::default(),
            policies: HashSet::default(),
            ports: HashSet::default(),
            localities: Composed::default(),
            deployments: Composed::default(),
            nowhere: Arc::default(),
            full: SMALL,
        }
    }
}

impl Interner {
    /// The text, shared with all who asked for the same.
    pub fn get<T: From<Arc<str>>>(&mut self, text: &str) -> T {
        if text.is_empty() {
            return Arc::<str>::default().into(); // of which there is one
        }
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
        let Some((namespace, hostname)) = text.split_once('/') else {
            return text.parse(); // which says what is wrong
        };
        let lower = hostname.bytes().any(|b| b.is_ascii_uppercase()).then(|| hostname.to_ascii_lowercase());
        let hostname = lower.as_deref().unwrap_or(hostname);
        if let Some(Key(known)) = self.services.get(&KeyText { namespace, hostname }) {
            return Ok(known.clone());
        }
        let fresh = NamespacedHostname { namespace: self.get(namespace), hostname: hostname.into() };
        self.services.insert(Key(fresh.clone()));
        Ok(fresh)
    }

    /// Ports, likewise: most services have the same few.
    pub fn ports(&mut self, all: PortMap) -> PortMap {
        if let Some(known) = self.ports.get(&all) {
            return known.clone();
        }
        self.ports.insert(all.clone());
        all
    }

    /// Memberships, likewise: those of a deployment's workloads are the same.
    pub fn memberships(&mut self, all: Vec<Membership>) -> Arc<[Membership]> {
        if let Some(known) = self.memberships.get(&all[..]) {
            return known.clone();
        }
        let fresh: Arc<[Membership]> = all.into();
        self.memberships.insert(fresh.clone());
        fresh
    }

    /// Names of policies, likewise.
    pub fn policies(&mut self, names: &[&str]) -> Arc<[PolicyName]> {
        if names.is_empty() {
            return Arc::default();
        }
        let all: Vec<PolicyName> = names.iter().map(|name| self.get(name)).collect();
        if let Some(known) = self.policies.get(&all[..]) {
            return known.clone();
        }
        let fresh: Arc<[PolicyName]> = all.into();
        self.policies.insert(fresh.clone());
        fresh
    }

    /// A place, likewise.
    pub(super) fn locality(&mut self, place: &Place<'_>) -> Arc<Locality> {
        if place.region.is_empty() && place.zone.is_empty() && place.subzone.is_empty() {
            return self.nowhere.clone();
        }
        if let Some(known) = self.localities.get(place) {
            return known.clone();
        }
        let (region, zone, subzone) = (self.get(place.region), self.get(place.zone), self.get(place.subzone));
        let fresh = Arc::new(Locality { region, zone, subzone });
        self.localities.insert(fresh.clone());
        fresh
    }

    /// What workloads of a deployment have in common, likewise.
    pub(super) fn deployment(&mut self, texts: &DeploymentTexts<'_>) -> Arc<Deployment> {
        if let Some(known) = self.deployments.get(texts) {
            return known.clone();
        }
        let fresh = Arc::new(Deployment {
            trust_domain: self.get(texts.trust_domain),
            canonical_name: self.get(texts.canonical_name),
            canonical_revision: self.get(texts.canonical_revision),
            workload_name: self.get(texts.workload_name),
            workload_type: texts.workload_type,
            cluster_id: self.get(texts.cluster_id),
        });
        self.deployments.insert(fresh.clone());
        fresh
    }

    fn size(&self) -> usize {
        let lists = self.memberships.len() + self.policies.len() + self.ports.len();
        self.texts.len() + self.services.len() + lists + self.localities.len() + self.deployments.len()
    }

    /// To be called before each object that is made of what is here: drops what nobody holds if there is much more than
    /// there was after the last time.
    pub fn make_room(&mut self) {
        if self.size() < self.full {
            return;
        }
        // Lists first: they hold texts.
        self.memberships.retain(|list| Arc::strong_count(list) > 1);
        self.policies.retain(|list| Arc::strong_count(list) > 1);
        self.localities.retain(|place| Arc::strong_count(place) > 1);
        self.deployments.retain(|deployment| Arc::strong_count(deployment) > 1);
        self.services.retain(|Key(key)| Arc::strong_count(key.hostname.shared()) > 1);
        self.ports.retain(PortMap::is_shared);
        self.texts.retain(|text| Arc::strong_count(text) > 1);
        self.full = SMALL.max(2 * self.size());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_texts_are_one_and_those_that_nobody_holds_are_dropped() {
        let mut names = Interner::default();
        let (a, b): (Arc<str>, Arc<str>) = (names.get("ns"), names.get("ns"));
        assert!(Arc::ptr_eq(&a, &b));
        let key = names.service("ns/web.ns.svc").unwrap();
        assert!(Arc::ptr_eq(key.hostname.shared(), names.service("ns/web.ns.svc").unwrap().hostname.shared()));
        for i in 0..10 * SMALL {
            names.make_room();
            let text = i.to_string();
            let _: Arc<str> = names.get(&text);
            let service = names.service(&format!("ns/{i}")).unwrap();
            let _ = names.memberships(vec![Membership { service, ports: PortMap::default() }]);
            let _ = names.policies(&[&format!("policy-{i}")]);
            let _ = names.ports([(i as u16, (i >> 16) as u16)].into_iter().collect());
            let _ = names.locality(&Place { region: &text, zone: "zone", subzone: "" });
        }
        assert!(names.size() <= SMALL + 8, "{}", names.size());
        assert!(Arc::ptr_eq(&a, &names.get("ns")), "what is held stays");
    }

    #[test]
    fn keys_of_services_are_one_however_they_are_capitalised_but_not_without_their_final_dot() {
        let mut names = Interner::default();
        let mut key = |text: &str| Arc::clone(names.service(text).unwrap().hostname.shared());
        let lower = key("ns/web.example");
        assert!(Arc::ptr_eq(&lower, &key("ns/Web.Example")));
        assert_eq!(&*key("ns/web.example."), "web.example.");
        assert!(!Arc::ptr_eq(&lower, &key("other/web.example")), "of another namespace");
        assert!(names.service("web.example").is_err(), "of none");
    }

    #[test]
    fn what_is_composed_is_found_by_its_texts() {
        let mut names = Interner::default();
        let place = |zone| Place { region: "region", zone, subzone: "" };
        assert!(Arc::ptr_eq(&names.locality(&place("a")), &names.locality(&place("a"))));
        assert!(!Arc::ptr_eq(&names.locality(&place("a")), &names.locality(&place("b"))));
        let parts = |texts: [&'static str; 5], workload_type| {
            let [trust_domain, canonical_name, canonical_revision, workload_name, cluster_id] = texts;
            DeploymentTexts {
                trust_domain,
                canonical_name,
                canonical_revision,
                workload_name,
                workload_type,
                cluster_id,
            }
        };
        let all = ["td", "name", "v1", "workload", "cluster"];
        let first = names.deployment(&parts(all, WorkloadType::Pod));
        assert!(Arc::ptr_eq(&first, &names.deployment(&parts(all, WorkloadType::Pod))));
        assert!(!Arc::ptr_eq(&first, &names.deployment(&parts(all, WorkloadType::Job))));
        for changed in 0..all.len() {
            let mut others = all;
            others[changed] = "other";
            assert!(!Arc::ptr_eq(&first, &names.deployment(&parts(others, WorkloadType::Pod))), "part {changed}");
        }
    }
}

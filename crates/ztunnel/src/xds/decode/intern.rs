//! Texts that many objects share are kept once: namespaces, nodes, service names and the like.
//!
//! Bounded by what is in use: texts that nobody else holds are dropped whenever the collection has doubled.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use mesh::NamespacedHostname;
use mesh::name::InvalidNamespacedHostname;

/// Size up to which nothing is dropped.
const SMALL: usize = 4_096;

/// The texts in use.
#[derive(Debug)]
pub struct Interner {
    texts: HashSet<Arc<str>>,
    services: HashMap<Box<str>, NamespacedHostname>,
    /// Size at which to look for texts that nobody holds.
    full: usize,
}

impl Default for Interner {
    fn default() -> Self {
        Self { texts: HashSet::new(), services: HashMap::new(), full: SMALL }
    }
}

impl Interner {
    /// The text, shared with all who asked for the same.
    pub fn get<T: From<Arc<str>>>(&mut self, text: &str) -> T {
        if let Some(known) = self.texts.get(text) {
            return Arc::clone(known).into();
        }
        self.make_room();
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

    fn make_room(&mut self) {
        if self.texts.len() + self.services.len() < self.full {
            return;
        }
        self.services.retain(|_, key| Arc::strong_count(key.hostname.shared()) > 1);
        self.texts.retain(|text| Arc::strong_count(text) > 1);
        self.full = SMALL.max(2 * (self.texts.len() + self.services.len()));
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
            let _: Arc<str> = names.get(&i.to_string());
            let _ = names.service(&format!("ns/{i}")).unwrap();
        }
        assert!(names.texts.len() + names.services.len() <= SMALL + 2);
        assert!(Arc::ptr_eq(&a, &names.get("ns")), "what is held stays");
    }
}

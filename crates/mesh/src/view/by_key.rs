//! A service as its own key: an entry of the map of all services is one pointer.

use std::borrow::Borrow;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use crate::name::{Hostname, Namespace, NamespacedHostname};
use crate::service::Service;

/// A service; equal to all of its versions.
#[derive(Clone, Debug)]
pub(super) struct ByKey(pub(super) Arc<Service>);

/// Whatever has the primary key of a service in parts.
pub(super) trait Key {
    /// Both parts.
    fn parts(&self) -> (&Namespace, &Hostname);
}

impl Key for ByKey {
    fn parts(&self) -> (&Namespace, &Hostname) {
        (&self.0.namespace, &self.0.hostname)
    }
}

impl Key for NamespacedHostname {
    fn parts(&self) -> (&Namespace, &Hostname) {
        (&self.namespace, &self.hostname)
    }
}

impl Hash for dyn Key + '_ {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.parts().hash(state);
    }
}

impl PartialEq for dyn Key + '_ {
    fn eq(&self, other: &Self) -> bool {
        self.parts() == other.parts()
    }
}

impl Eq for dyn Key + '_ {}

impl<'a> Borrow<dyn Key + 'a> for ByKey {
    fn borrow(&self) -> &(dyn Key + 'a) {
        self
    }
}

impl PartialEq for ByKey {
    fn eq(&self, other: &Self) -> bool {
        self.parts() == other.parts()
    }
}

impl Eq for ByKey {}

impl Hash for ByKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.parts().hash(state);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::service;
    use crate::view::Map;

    #[test]
    fn a_service_is_found_by_its_key_and_is_equal_to_its_versions() {
        let of = |host: &str, vip: &str| ByKey(service(host, &[vip], &[]).into());
        assert!(
            of("a", "net1/10.0.0.1") == of("a", "net1/10.0.0.2")
                && of("a", "net1/10.0.0.1") != of("b", "net1/10.0.0.1")
        );
        let mut all = Map::default();
        all.insert_mut(of("a", "net1/10.0.0.1"), ());
        let key = |text: &str| text.parse::<NamespacedHostname>().unwrap();
        let found = |text: &str| all.key(&key(text) as &dyn Key).is_some();
        assert!(found("ns/a.example") && found("ns/A.example."), "as host names compare");
        assert!(!found("ns/b.example") && !found("other/a.example"));
    }
}

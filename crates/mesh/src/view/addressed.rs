//! What is found by an address: by network first, so that an entry holds no more of its key than the IP.

use std::net::IpAddr;
use std::sync::Arc;

use super::Map;
use super::slot::{Keyed, Slot};
use crate::address::NetworkAddress;
use crate::name::NetworkId;

/// Objects by address, in each network that has any.
#[derive(Clone, Debug)]
pub(super) struct Addressed<T>(Map<NetworkId, Map<IpAddr, Slot<T>>>);

impl<T> Default for Addressed<T> {
    fn default() -> Self {
        Self(Map::default())
    }
}

impl<T: Keyed + Clone> Addressed<T> {
    /// The objects at an address.
    pub(super) fn get(&self, address: &NetworkAddress) -> Option<&Slot<T>> {
        self.0.get(&address.network)?.get(&address.ip)
    }

    /// Puts an object at an address, in the place of its older version or behind all others.
    pub(super) fn put(&mut self, address: &NetworkAddress, object: &Arc<T>) {
        if !self.0.contains_key(&address.network) {
            self.0.insert_mut(address.network.clone(), Map::default());
        }
        if let Some(network) = self.0.get_mut(&address.network) {
            network.insert_with(address.ip, |slot| Slot::with(slot, object));
        }
    }

    /// Takes an object from an address.
    pub(super) fn remove(&mut self, address: &NetworkAddress, object: &T) {
        let Some(rest) = self.get(address).map(|slot| slot.without(object)) else {
            return;
        };
        let Some(network) = self.0.get_mut(&address.network) else {
            return;
        };
        match rest {
            Some(rest) => network.insert_mut(address.ip, rest),
            None => drop(network.remove_mut(&address.ip)),
        }
        if network.is_empty() {
            self.0.remove_mut(&address.network);
        }
    }
}

//! Services by address range.
//!
//! One lookup for every prefix length in use, so its cost does not grow with the number of ranges.

use std::sync::Arc;

use ipnet::IpNet;

use super::Map;
use super::slot::Slot;
use crate::address::NetworkAddress;
use crate::name::Namespace;
use crate::service::{NetworkCidr, Service};

/// All ranges.
#[derive(Clone, Debug, Default)]
pub(super) struct Cidrs {
    ranges: Map<NetworkCidr, Slot<Service>>,
    lengths: Arc<Vec<Length>>,
}

/// A prefix length in use.
#[derive(Clone, Debug)]
struct Length {
    v6: bool,
    bits: u8,
    /// How many ranges have it, over all networks.
    ranges: usize,
}

impl Length {
    fn of(&self, range: &NetworkCidr) -> bool {
        self.bits == range.cidr.prefix_len() && self.v6 == is_v6(range)
    }
}

fn is_v6(range: &NetworkCidr) -> bool {
    matches!(range.cidr, IpNet::V6(_))
}

/// The range without host bits, as it is indexed.
fn truncated(range: &NetworkCidr) -> NetworkCidr {
    NetworkCidr { network: range.network.clone(), cidr: range.cidr.trunc() }
}

impl Cidrs {
    pub(super) fn put(&mut self, range: &NetworkCidr, service: &Arc<Service>) {
        let range = truncated(range);
        let old = self.ranges.get(&range);
        if old.is_none() {
            let lengths = Arc::make_mut(&mut self.lengths);
            match lengths.iter_mut().find(|length| length.of(&range)) {
                Some(length) => length.ranges += 1,
                None => lengths.push(Length { v6: is_v6(&range), bits: range.cidr.prefix_len(), ranges: 1 }),
            }
        }
        let slot = Slot::with(old, service);
        self.ranges.insert_mut(range, slot);
    }

    pub(super) fn remove(&mut self, range: &NetworkCidr, service: &Service) {
        let range = truncated(range);
        let Some(slot) = self.ranges.get(&range) else {
            return;
        };
        if let Some(rest) = slot.without(service) {
            self.ranges.insert_mut(range, rest);
            return;
        }
        self.ranges.remove_mut(&range);
        let lengths = Arc::make_mut(&mut self.lengths);
        if let Some(length) = lengths.iter_mut().find(|length| length.of(&range)) {
            length.ranges -= 1;
        }
        lengths.retain(|length| length.ranges > 0);
    }

    /// The visible service whose range contains the address: best of the client's namespace, then of the longest
    /// prefix, then canonical, then the first (spec data-plane 4.2).
    pub(super) fn best(&self, address: &NetworkAddress, client: Option<&Namespace>) -> Option<&Arc<Service>> {
        let visible = |service: &&Arc<Service>| client.is_none_or(|client| service.visible_to(client));
        let rank = |service: &Service, bits: u8| (client == Some(&service.namespace), bits, service.canonical);
        let candidates = self.containing(address).flat_map(|(slot, bits)| {
            slot.as_slice().iter().filter(visible).map(move |service| (rank(service, bits), service))
        });
        candidates.reduce(|best, next| if next.0 > best.0 { next } else { best }).map(|(_, service)| service)
    }

    /// The ranges that contain an address, with their prefix lengths.
    fn containing(&self, address: &NetworkAddress) -> impl Iterator<Item = (&Slot<Service>, u8)> {
        let of_family = self.lengths.iter().filter(|length| length.v6 == address.ip.is_ipv6());
        of_family.filter_map(|length| {
            let cidr = IpNet::new(address.ip, length.bits).ok()?.trunc();
            let slot = self.ranges.get(&NetworkCidr { network: address.network.clone(), cidr })?;
            Some((slot, length.bits))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::service;

    fn range(text: &str) -> NetworkCidr {
        NetworkCidr { network: "net1".into(), cidr: text.parse().unwrap() }
    }

    #[test]
    fn a_prefix_length_is_in_use_as_long_as_one_range_has_it() {
        let web = Arc::new(service("web", &[], &[]));
        let mut cidrs = Cidrs::default();
        let ranges = ["10.1.0.0/16", "10.2.0.0/16", "10.3.0.0/16", "fd00::/16"].map(range);
        ranges.iter().for_each(|range| cidrs.put(range, &web));
        ranges.iter().for_each(|range| cidrs.put(range, &web));
        assert_eq!(
            cidrs.lengths.iter().map(|length| (length.v6, length.ranges)).collect::<Vec<_>>(),
            [(false, 3), (true, 1)]
        );

        cidrs.remove(&ranges[0], &web);
        cidrs.remove(&ranges[0], &web);
        cidrs.remove(&ranges[1], &web);
        assert!(cidrs.best(&"net1/10.1.0.1".parse().unwrap(), None).is_none());
        assert!(cidrs.best(&"net1/10.3.0.1".parse().unwrap(), None).is_some());
        cidrs.remove(&ranges[2], &web);
        cidrs.remove(&ranges[3], &web);
        assert!(cidrs.lengths.is_empty());
    }
}

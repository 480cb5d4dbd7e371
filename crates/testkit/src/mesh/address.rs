//! Which addresses nodes, ztunnels and pods get; the picture is in [`super`].

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Which address families a mesh has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Families {
    /// IPv4 only.
    Ipv4,
    /// IPv4 and IPv6; everything has an address of each.
    Dual,
}

impl Families {
    fn choose(self, v4: Ipv4Addr, v6: Ipv6Addr) -> Vec<IpAddr> {
        match self {
            Families::Ipv4 => vec![v4.into()],
            Families::Dual => vec![v4.into(), v6.into()],
        }
    }
}

/// A node's number, from 1 to [`Place::LAST`].
#[derive(Debug, Clone, Copy)]
pub(super) struct Place(pub(super) u8);

impl Place {
    pub(super) const LAST: usize = 250;

    pub(super) fn new(number: usize) -> Option<Place> {
        u8::try_from(number).ok().filter(|number| usize::from(*number) <= Place::LAST).map(Place)
    }

    pub(super) fn fabric(self, families: Families) -> Vec<IpAddr> {
        let v6 = Ipv6Addr::new(0xfd00, 0x30, 0, 0, 0, 0, 0, self.0.into());
        families.choose(Ipv4Addr::new(172, 30, 0, self.0), v6)
    }

    /// The network of its pods, as base address.
    pub(super) fn network(self, families: Families) -> Vec<IpAddr> {
        self.host(families, 0, 0)
    }

    pub(super) fn gateway(self, families: Families) -> Vec<IpAddr> {
        self.host(families, 0, 1)
    }

    /// Of the ztunnel that was started `count` ztunnels after the first.
    pub(super) fn ztunnel(self, families: Families, count: usize) -> Option<Vec<IpAddr>> {
        let low = u8::try_from(count + 2).ok().filter(|low| *low <= 250)?;
        Some(self.host(families, 0, low))
    }

    /// Of the pod that was added `count` pods after the first.
    pub(super) fn pod(self, families: Families, count: usize) -> Option<Vec<IpAddr>> {
        let high = u8::try_from(count / 250 + 1).ok().filter(|high| *high <= 240)?;
        let low = u8::try_from(count % 250 + 1).ok()?;
        Some(self.host(families, high, low))
    }

    fn host(self, families: Families, high: u8, low: u8) -> Vec<IpAddr> {
        let v6 = Ipv6Addr::new(0xfd00, 0x10, self.0.into(), 0, 0, 0, high.into(), low.into());
        families.choose(Ipv4Addr::new(10, self.0, high, low), v6)
    }
}

/// Length of the prefix of a node's pods, and of the fabric.
pub(super) fn pod_prefix(address: IpAddr) -> u8 {
    if address.is_ipv4() { 16 } else { 64 }
}

pub(super) fn fabric_prefix(address: IpAddr) -> u8 {
    if address.is_ipv4() { 24 } else { 64 }
}

/// The unspecified address of the same family.
pub(super) fn any(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    }
}

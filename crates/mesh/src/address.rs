//! Addresses: an IP within a network, and what a CONNECT request asks for.
//!
//! An IPv4 address written as IPv4-mapped IPv6 means the same host, so everything here is canonical: a mapped address
//! is turned into plain IPv4 wherever one is made from outside input.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::ops::Deref;
use std::str::FromStr;

use crate::name::{Hostname, NetworkId};
use crate::refusal::excerpt;

/// An IP address within a network, printed as `network/ip`; the key of every lookup by address (spec data-plane 4.1).
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NetworkAddress {
    /// The network; empty is the default one.
    pub network: NetworkId,
    /// The address, canonical.
    pub ip: IpAddr,
}

/// Text that is no `network/ip`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no network address; write it as network/ip, for example `/10.0.0.1` for the default network")]
pub struct InvalidNetworkAddress(pub String);

impl NetworkAddress {
    /// An address whose IP is made canonical.
    pub fn new(network: NetworkId, ip: IpAddr) -> Self {
        Self { network, ip: ip.to_canonical() }
    }
}

impl FromStr for NetworkAddress {
    type Err = InvalidNetworkAddress;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parsed = text.split_once('/').and_then(|(network, ip)| Some((network, ip.parse().ok()?)));
        let (network, ip) = parsed.ok_or_else(|| InvalidNetworkAddress(text.to_owned()))?;
        Ok(Self::new(network.into(), ip))
    }
}

impl fmt::Display for NetworkAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.network, self.ip)
    }
}

/// The addresses of a workload, in their order. Nearly all workloads have one, and there are very many workloads: one is
/// kept in place.
#[derive(Clone)]
pub struct Addresses(Kept);

#[derive(Clone)]
enum Kept {
    One(IpAddr),
    Any(Box<[IpAddr]>),
}

impl Default for Addresses {
    /// None.
    fn default() -> Self {
        Self(Kept::Any(Box::default()))
    }
}

impl Deref for Addresses {
    type Target = [IpAddr];

    fn deref(&self) -> &[IpAddr] {
        match &self.0 {
            Kept::One(one) => std::slice::from_ref(one),
            Kept::Any(any) => any,
        }
    }
}

impl FromIterator<IpAddr> for Addresses {
    fn from_iter<I: IntoIterator<Item = IpAddr>>(all: I) -> Self {
        let mut all = all.into_iter();
        let Some(first) = all.next() else {
            return Self::default();
        };
        let Some(second) = all.next() else {
            return Self(Kept::One(first));
        };
        Self(Kept::Any([first, second].into_iter().chain(all).collect()))
    }
}

impl From<Vec<IpAddr>> for Addresses {
    fn from(all: Vec<IpAddr>) -> Self {
        all.into_iter().collect()
    }
}

impl PartialEq for Addresses {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl Eq for Addresses {}

impl fmt::Debug for Addresses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&**self, f)
    }
}

/// The same address with an IPv4-mapped IPv6 address turned into plain IPv4 (spec data-plane 2.4).
pub fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// What a CONNECT request asks for: the `:authority` (spec data-plane 10.3).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Authority {
    /// `1.2.3.4:80` or `[2001:db8::1]:80`.
    Address(SocketAddr),
    /// `host.name:80`: a service, by its host name and service port.
    Host {
        /// The service's host name.
        host: Hostname,
        /// A port of the service.
        port: u16,
    },
}

/// Text that names no host and port (wording: spec data-plane 19.1).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no valid authority pseudo header: {0}")]
pub struct InvalidAuthority(pub String);

/// The longest host name that DNS allows in text form (RFC 1035 §2.3.4), final dot included.
const MAX_HOST: usize = 254;

impl Authority {
    /// The port asked for.
    pub fn port(&self) -> u16 {
        match self {
            Self::Address(address) => address.port(),
            Self::Host { port, .. } => *port,
        }
    }
}

impl FromStr for Authority {
    type Err = InvalidAuthority;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if let Ok(address) = text.parse::<SocketAddr>() {
            // `[fe80::1%3]:80` parses: a scope means nothing to another node.
            if let SocketAddr::V6(v6) = address
                && v6.scope_id() != 0
            {
                return Err(InvalidAuthority(excerpt(text)));
            }
            return Ok(Self::Address(canonical(address)));
        }
        let parse = || {
            let (host, port) = text.rsplit_once(':')?;
            let name = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b'*');
            let digits = !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit());
            if host.is_empty() || host.len() > MAX_HOST || !host.bytes().all(name) || !digits {
                return None;
            }
            Some(Self::Host { host: host.into(), port: port.parse().ok()? })
        };
        parse().ok_or_else(|| InvalidAuthority(excerpt(text)))
    }
}

impl fmt::Display for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => address.fmt(f),
            Self::Host { host, port } => write!(f, "{host}:{port}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn authority(text: &str) -> Option<Authority> {
        text.parse().ok()
    }

    #[test]
    fn addresses_keep_their_number_and_order() {
        for number in 0..4 {
            let all: Vec<IpAddr> = (0..number).map(|i| IpAddr::from([10, 0, 0, 9 - i])).collect();
            let kept = Addresses::from(all.clone());
            assert_eq!(*kept, *all);
            assert_eq!(format!("{kept:?}"), format!("{all:?}"), "a list is shown as a list");
            assert!(kept == all.clone().into() && kept != Addresses::from([IpAddr::from([10, 0, 0, 77])].to_vec()));
        }
    }

    #[test]
    fn network_addresses_print_as_they_parse() {
        for text in ["net1/10.0.0.1", "/10.0.0.1", "net1/2001:db8::1"] {
            assert_eq!(text.parse::<NetworkAddress>().unwrap().to_string(), text);
        }
        assert_eq!("/::ffff:10.0.0.1".parse::<NetworkAddress>().unwrap().to_string(), "/10.0.0.1");
        for text in ["10.0.0.1", "net1/", "net1/host", "a/b/10.0.0.1"] {
            assert!(text.parse::<NetworkAddress>().is_err(), "{text}");
        }
    }

    #[test]
    fn authorities_are_addresses_or_host_names_with_a_port() {
        for text in ["1.2.3.4:80", "[2001:db8::1]:80", "web.shop.svc.cluster.local:8080", "web:0"] {
            assert_eq!(authority(text).unwrap().to_string(), text);
        }
        assert_eq!(authority("WEB:80"), authority("web:80"));
    }

    #[test]
    fn a_mapped_authority_is_the_plain_address() {
        assert_eq!(authority("[::ffff:10.0.0.1]:80"), authority("10.0.0.1:80"));
    }

    #[test]
    fn authorities_without_host_or_numeric_port_are_refused() {
        for text in
            ["", ":80", "web", "web:", "web:http", "web:+80", "web:65536", "1.2.3.4", "[::1]", "::1", "u@web:80"]
        {
            let error = text.parse::<Authority>().unwrap_err();
            assert_eq!(error.to_string(), format!("no valid authority pseudo header: {text}"));
        }
        for text in ["we b:80", "web/x:80", "[fe80::1%3]:80", "wéb:80", "web\r\n:80"] {
            assert!(authority(text).is_none(), "{text:?}");
        }
        assert!(authority(&format!("{}:80", "a".repeat(MAX_HOST + 1))).is_none());
        assert!(authority(&format!("{}:80", "a".repeat(MAX_HOST))).is_some(), "the longest name is one");
    }
}

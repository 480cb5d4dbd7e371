//! Values that are written as one text, and port maps.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use mesh::workload::GatewayDestination;
use mesh::{NamespacedHostname, NetworkAddress, PortMap};
use serde::de::{Error, MapAccess, Unexpected, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A service's key: `namespace/hostname`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ServiceKey(pub NamespacedHostname);

/// A virtual address: `network/ip`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vip(pub NetworkAddress);

/// What a gateway reference names: `network/ip` or `namespace/hostname`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Destination(pub GatewayDestination);

impl FromStr for ServiceKey {
    type Err = mesh::name::InvalidNamespacedHostname;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse().map(Self)
    }
}

impl FromStr for Vip {
    type Err = mesh::address::InvalidNetworkAddress;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse().map(Self)
    }
}

impl FromStr for Destination {
    type Err = mesh::name::InvalidNamespacedHostname;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let address = text.split_once('/').and_then(|(network, ip)| Some((network, ip.parse::<IpAddr>().ok()?)));
        Ok(Self(match address {
            Some((network, ip)) => GatewayDestination::Address(NetworkAddress::new(network.into(), ip)),
            None => GatewayDestination::Hostname(text.parse()?),
        }))
    }
}

macro_rules! as_text {
    ($($name:ident)+) => {$(
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
            }
        }
    )+};
}

as_text! { ServiceKey Vip Destination }

/// Service port to target port. Keys are read with or without quotes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Ports(pub BTreeMap<u16, u16>);

impl From<&PortMap> for Ports {
    fn from(ports: &PortMap) -> Self {
        Self(ports.iter().collect())
    }
}

impl From<Ports> for PortMap {
    fn from(ports: Ports) -> Self {
        ports.0.into_iter().collect()
    }
}

impl<'de> Deserialize<'de> for Ports {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct PortsVisitor;

        impl<'de> Visitor<'de> for PortsVisitor {
            type Value = Ports;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a map from service ports to target ports, such as {80: 8080}")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Ports, A::Error> {
                let mut ports = BTreeMap::new();
                while let Some((PortKey(service), target)) = map.next_entry()? {
                    if ports.insert(service, target).is_some() {
                        return Err(A::Error::custom(format_args!("duplicate service port {service}")));
                    }
                }
                Ok(Ports(ports))
            }
        }

        deserializer.deserialize_map(PortsVisitor)
    }
}

/// A port as the key of a map, with or without quotes.
struct PortKey(u16);

impl<'de> Deserialize<'de> for PortKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct PortVisitor;

        impl Visitor<'_> for PortVisitor {
            type Value = PortKey;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a port from 0 to 65535")
            }

            fn visit_u64<E: Error>(self, port: u64) -> Result<PortKey, E> {
                u16::try_from(port).map(PortKey).map_err(|_| E::invalid_value(Unexpected::Unsigned(port), &self))
            }

            fn visit_str<E: Error>(self, port: &str) -> Result<PortKey, E> {
                port.parse().map(PortKey).map_err(|_| E::invalid_value(Unexpected::Str(port), &self))
            }
        }

        deserializer.deserialize_any(PortVisitor)
    }
}

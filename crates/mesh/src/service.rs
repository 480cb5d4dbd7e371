//! A service: a name and virtual addresses in front of workloads.
//!
//! Values are valid by construction of the decoders. Endpoints are not part of a service: workloads say which services
//! they belong to, and [`crate::View`] brings the two together.

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use ipnet::IpNet;

use crate::address::NetworkAddress;
use crate::few::Few;
use crate::identity::Identity;
use crate::name::{Hostname, Namespace, NamespacedHostname, NetworkId, Text};
use crate::ports::PortMap;
use crate::workload::GatewayAddress;

/// A service of the mesh (spec state-and-dns 5 says what each field is for).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// Its name.
    pub name: Text,
    /// Its namespace; with `hostname` the primary key.
    pub namespace: Namespace,
    /// Its host name, fully qualified or a wildcard.
    pub hostname: Hostname,
    /// Virtual addresses.
    pub vips: Few<NetworkAddress>,
    /// Service port to target port; target 0 is a named port.
    pub ports: PortMap,
    /// Which of an endpoint's addresses may be used.
    pub ip_families: IpFamilies,
    /// Preferred among services that share a name or an address.
    pub canonical: bool,
    /// Who may see it.
    pub visibility: Visibility,
    /// What few services have.
    pub extras: Extras,
}

/// What few services have: one pointer for those that have none of it. Read and changed as [`Extra`].
#[derive(Clone, Default)]
pub struct Extras(Option<Box<Extra>>);

/// See [`Extras`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Extra {
    /// Virtual address ranges.
    pub cidr_vips: Vec<NetworkCidr>,
    /// Identities accepted from endpoints besides their own, as the control plane wrote them.
    pub subject_alt_names: Vec<Arc<str>>,
    /// Waypoint for traffic addressed to the service.
    pub waypoint: Option<GatewayAddress>,
    /// Waypoints to choose from by weight; overrides `waypoint` if the weights sum up to something.
    pub weighted_waypoints: Vec<WeightedWaypoint>,
    /// How to choose among endpoints.
    pub load_balancer: Option<LoadBalancer>,
}

/// None of it.
static PLAIN: Extra = Extra {
    cidr_vips: Vec::new(),
    subject_alt_names: Vec::new(),
    waypoint: None,
    weighted_waypoints: Vec::new(),
    load_balancer: None,
};

impl Deref for Extras {
    type Target = Extra;

    fn deref(&self) -> &Extra {
        self.0.as_deref().unwrap_or(&PLAIN)
    }
}

impl DerefMut for Extras {
    fn deref_mut(&mut self) -> &mut Extra {
        self.0.get_or_insert_with(|| Box::new(PLAIN.clone()))
    }
}

impl From<Extra> for Extras {
    fn from(extra: Extra) -> Self {
        Self((extra != PLAIN).then(|| Box::new(extra)))
    }
}

impl PartialEq for Extras {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl Eq for Extras {}

impl fmt::Debug for Extras {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&**self, f)
    }
}

impl Service {
    /// A service with nothing but its key and the control plane's defaults.
    pub fn new(key: NamespacedHostname) -> Self {
        Self {
            name: Text::default(),
            namespace: key.namespace,
            hostname: key.hostname,
            vips: Few::default(),
            ports: PortMap::default(),
            ip_families: IpFamilies::Automatic,
            canonical: false,
            visibility: Visibility::Public,
            extras: Extras::default(),
        }
    }

    /// The same with other [extras](Extras).
    #[must_use]
    pub fn with(mut self, change: impl FnOnce(&mut Extra)) -> Self {
        change(&mut self.extras);
        self
    }

    /// The primary key.
    pub fn key(&self) -> NamespacedHostname {
        NamespacedHostname { namespace: self.namespace.clone(), hostname: self.hostname.clone() }
    }

    /// How endpoints are chosen, if the service says so.
    pub fn mode(&self) -> Mode {
        self.extras.load_balancer.as_ref().map_or(Mode::Standard, |lb| lb.mode)
    }

    /// Whether a client of that namespace may see the service.
    pub fn visible_to(&self, client: &Namespace) -> bool {
        self.visibility == Visibility::Public || self.namespace == *client
    }

    /// The identities among `subject_alt_names`; the rest is skipped (spec data-plane 5.2, "U SANs").
    pub fn identities(&self) -> impl Iterator<Item = Identity> + '_ {
        self.extras.subject_alt_names.iter().filter_map(|text| text.parse().ok())
    }

    /// The waypoints that traffic to the service goes through, with their weights: the weighted ones if their weights
    /// sum up to more than 0, else the single one (spec state-and-dns 7.6).
    pub fn waypoints(&self) -> impl Iterator<Item = (&GatewayAddress, u32)> {
        let weighted = self.extras.weighted_waypoints.iter().any(|w| w.weight > 0);
        let (many, one) = if weighted {
            (&self.extras.weighted_waypoints[..], None)
        } else {
            (&[][..], self.extras.waypoint.as_ref())
        };
        many.iter().map(|w| (&w.destination, w.weight)).chain(one.map(|w| (w, 1)))
    }
}

/// An address range within a network.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NetworkCidr {
    /// The network; empty is the default one.
    pub network: NetworkId,
    /// The range.
    pub cidr: IpNet,
}

/// One of several waypoints of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WeightedWaypoint {
    /// The waypoint.
    pub destination: GatewayAddress,
    /// Its share of connections.
    pub weight: u32,
}

/// How to choose among the endpoints of a service (spec state-and-dns 7.4).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoadBalancer {
    /// What endpoint and source should have in common, most important first.
    pub preferences: Vec<Scope>,
    /// What the preferences mean.
    pub mode: Mode,
    /// Which endpoints take part.
    pub health: HealthPolicy,
}

/// Something that two workloads may have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scope {
    /// Region of the locality.
    Region,
    /// Zone of the locality.
    Zone,
    /// Subzone of the locality.
    Subzone,
    /// Node.
    Node,
    /// Cluster.
    Cluster,
    /// Network.
    Network,
}

/// What routing preferences mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Mode {
    /// Nothing: all endpoints are alike.
    #[default]
    Standard,
    /// Only endpoints that match all of them.
    Strict,
    /// The endpoints that match most of them.
    Failover,
    /// No endpoint is chosen: traffic goes to the address that it was sent to.
    Passthrough,
}

/// Which endpoints take part in load balancing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum HealthPolicy {
    /// The healthy ones.
    #[default]
    OnlyHealthy,
    /// All.
    AllowAll,
}

/// Which of an endpoint's addresses may be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum IpFamilies {
    /// Any; nothing was said.
    #[default]
    Automatic,
    /// Any.
    Dual,
    /// IPv4 only.
    Ipv4Only,
    /// IPv6 only.
    Ipv6Only,
}

impl IpFamilies {
    /// Whether an address may be used.
    pub fn accept(self, ip: std::net::IpAddr) -> bool {
        match self {
            Self::Automatic | Self::Dual => true,
            Self::Ipv4Only => ip.is_ipv4(),
            Self::Ipv6Only => ip.is_ipv6(),
        }
    }
}

/// Who may see a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Visibility {
    /// All namespaces.
    #[default]
    Public,
    /// Its own namespace.
    Namespace,
}

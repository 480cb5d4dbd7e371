//! The shapes in which objects of the mesh are written: in static state files and in the configuration dump.
//!
//! Reading and dumping share one set of shapes because they share their keys (spec configuration 5, 7). Fields are
//! declared in alphabetical order of their keys, the order in which the dump shows them.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

mod convert;
mod policy;
mod text;

pub use policy::{Match, Policy, ServiceAccountMatch, StringMatch};
pub use text::{Destination, Ports, ServiceKey, Vip};

/// A whole document.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct StaticConfig {
    /// Policies.
    pub policies: Vec<Policy>,
    /// Services.
    pub services: Vec<Service>,
    /// Workloads.
    pub workloads: Vec<StaticWorkload>,
}

/// A workload of a document, with the ports at which it serves each of its services.
pub type StaticWorkload = Workload<BTreeMap<ServiceKey, Ports>>;

/// A workload of the dump, with the names of its services.
pub type DumpedWorkload = Workload<Vec<ServiceKey>>;

/// A workload; the dump omits what is empty.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
#[allow(missing_docs, reason = "the fields of mesh::Workload, documented there")]
pub struct Workload<Services: Default + PartialEq> {
    #[serde(default, skip_serializing_if = "is_default")]
    pub application_tunnel: Option<ApplicationTunnel>,
    #[serde(default, skip_serializing_if = "is_default")]
    pub authorization_policies: Vec<Arc<str>>,
    #[serde(default, skip_serializing_if = "is_default")]
    pub canonical_name: Arc<str>,
    #[serde(default, skip_serializing_if = "is_default")]
    pub canonical_revision: Arc<str>,
    #[serde(default = "one")]
    pub capacity: u32,
    #[serde(default)]
    pub cluster_id: Arc<str>,
    #[serde(default, skip_serializing_if = "is_default")]
    pub hostname: Arc<str>,
    #[serde(default, skip_serializing_if = "is_default")]
    pub locality: Locality,
    #[serde(default)]
    pub name: Arc<str>,
    pub namespace: Arc<str>,
    #[serde(default, skip_serializing_if = "is_default")]
    pub native_tunnel: bool,
    #[serde(default, skip_serializing_if = "is_default")]
    pub network: Arc<str>,
    #[serde(default, skip_serializing_if = "is_default")]
    pub network_gateway: Option<Gateway>,
    #[serde(default)]
    pub network_mode: NetworkMode,
    #[serde(default, skip_serializing_if = "is_default")]
    pub node: Arc<str>,
    #[serde(default)]
    pub protocol: Protocol,
    #[serde(default, skip_serializing_if = "is_default")]
    pub service_account: Arc<str>,
    #[serde(default, skip_serializing_if = "is_default")]
    pub services: Services,
    #[serde(default)]
    pub status: Status,
    #[serde(default, skip_serializing_if = "is_default")]
    pub trust_domain: Arc<str>,
    #[serde(default, skip_serializing_if = "is_default")]
    pub uid: Arc<str>,
    #[serde(default, skip_serializing_if = "is_default")]
    pub waypoint: Option<Gateway>,
    pub workload_ips: Vec<IpAddr>,
    #[serde(default, skip_serializing_if = "is_default")]
    pub workload_name: Arc<str>,
    #[serde(default, skip_serializing_if = "is_default")]
    pub workload_type: Arc<str>,
}

/// A service; the dump omits what is not set.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
#[allow(missing_docs, reason = "the fields of mesh::Service, documented there")]
pub struct Service {
    #[serde(default)]
    pub canonical: bool,
    #[serde(default, skip_serializing_if = "is_default")]
    pub cidr_vips: Vec<Cidr>,
    /// By workload key.
    #[serde(default)]
    pub endpoints: BTreeMap<Arc<str>, Endpoint>,
    pub hostname: Arc<str>,
    #[serde(default, skip_serializing_if = "is_default")]
    pub ip_families: Option<IpFamilies>,
    #[serde(default, skip_serializing_if = "is_default")]
    pub load_balancer: Option<LoadBalancer>,
    pub name: Arc<str>,
    pub namespace: Arc<str>,
    pub ports: Ports,
    #[serde(default)]
    pub subject_alt_names: Vec<Arc<str>>,
    pub vips: Vec<Vip>,
    #[serde(default)]
    pub visibility: Visibility,
    #[serde(default, skip_serializing_if = "is_default")]
    pub waypoint: Option<Gateway>,
    #[serde(default, skip_serializing_if = "is_default")]
    pub weighted_waypoints: Vec<WeightedWaypoint>,
}

/// An endpoint of a service.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Endpoint {
    /// Service port to target port.
    pub port: Ports,
    /// Whether it is fit to serve.
    #[serde(default)]
    pub status: Status,
    /// Key of the workload.
    pub workload_uid: Arc<str>,
}

/// A reference to a waypoint or a network gateway.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Gateway {
    /// `network/ip` or `namespace/hostname`.
    pub destination: Destination,
    /// The port to ask for.
    pub hbone_mtls_port: u16,
}

/// One of several waypoints.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WeightedWaypoint {
    /// The waypoint.
    pub destination: Gateway,
    /// Its share.
    pub weight: u32,
}

/// How an app takes tunnelled connections.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ApplicationTunnel {
    /// The port to dial.
    #[serde(default)]
    pub port: Option<u16>,
    /// What comes first.
    pub protocol: TunnelProtocol,
}

/// A place; all parts have to be given.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the fields of mesh::Locality, documented there")]
pub struct Locality {
    pub region: Arc<str>,
    pub subzone: Arc<str>,
    pub zone: Arc<str>,
}

/// An address range.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Cidr {
    /// With its prefix length.
    pub cidr: ipnet::IpNet,
    /// Empty for the default network.
    pub network: Arc<str>,
}

/// How endpoints are chosen; all parts have to be given.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
#[allow(missing_docs, reason = "the fields of mesh::service::LoadBalancer, documented there")]
pub struct LoadBalancer {
    pub health_policy: HealthPolicy,
    pub mode: Mode,
    pub routing_preferences: Vec<Scope>,
}

/// Enums whose names are written as they are, one to one with an enum of `mesh`.
macro_rules! names {
    ($($(#[$doc:meta])+ $name:ident = $mesh:path { $($variant:ident $(= $text:literal)? => $to:ident,)+ })+) => {$(
        $(#[$doc])+
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
        #[allow(missing_docs, reason = "the variants of the enum of mesh, documented there")]
        pub enum $name { $($(#[serde(rename = $text)])? $variant,)+ }

        impl From<$name> for $mesh {
            fn from(shape: $name) -> Self {
                match shape { $($name::$variant => Self::$to,)+ }
            }
        }

        impl From<$mesh> for $name {
            fn from(value: $mesh) -> Self {
                match value { $(<$mesh>::$to => Self::$variant,)+ }
            }
        }
    )+};
}

names! {
    /// How a workload is reached.
    Protocol = mesh::workload::Protocol { Tcp = "TCP" => Tcp, Hbone = "HBONE" => Hbone, }
    /// Whether a workload has addresses of its own.
    NetworkMode = mesh::workload::NetworkMode { Standard => Standard, HostNetwork => HostNetwork, }
    /// Whether a workload is fit to serve.
    Status = mesh::workload::Health { Healthy => Healthy, Unhealthy => Unhealthy, }
    /// What precedes the bytes of a tunnelled connection.
    TunnelProtocol = mesh::workload::TunnelProtocol { None = "NONE" => None, Proxy = "PROXY" => Proxy, }
    /// Who may see a service.
    Visibility = mesh::service::Visibility { Public => Public, Namespace => Namespace, }
    /// What routing preferences mean.
    Mode = mesh::service::Mode {
        Standard => Standard, Strict => Strict, Failover => Failover, Passthrough => Passthrough,
    }
    /// Which endpoints take part.
    HealthPolicy = mesh::service::HealthPolicy { OnlyHealthy => OnlyHealthy, AllowAll => AllowAll, }
    /// Something that two workloads may have in common.
    Scope = mesh::service::Scope {
        Region => Region, Zone => Zone, Subzone => Subzone, Node => Node, Cluster => Cluster, Network => Network,
    }
    /// Which workloads a policy is for.
    PolicyScope = mesh::policy::PolicyScope {
        Global => Global, Namespace => Namespace, WorkloadSelector => WorkloadSelector,
    }
    /// What a match means.
    Action = mesh::policy::Action { Allow => Allow, Deny => Deny, }
}

/// Which addresses of endpoints may be used; not given means any.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum IpFamilies {
    /// Both.
    Dual,
    /// IPv4 only.
    #[serde(rename = "IPv4")]
    Ipv4,
    /// IPv6 only.
    #[serde(rename = "IPv6")]
    Ipv6,
}

macro_rules! defaults {
    ($($name:ident::$variant:ident)+) => {$(
        impl Default for $name {
            fn default() -> Self {
                Self::$variant
            }
        }
    )+};
}

defaults! { Protocol::Tcp NetworkMode::Standard Status::Healthy Visibility::Public }

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

fn one() -> u32 {
    mesh::workload::DEFAULT_CAPACITY
}

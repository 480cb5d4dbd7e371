//! A workload: one pod, virtual machine or external endpoint, as the control plane describes it.
//!
//! Values are valid by construction of the decoders, with the control plane's defaults already applied
//! (spec wire-protocols 3, state-and-dns 1). Nothing is decided here.

use std::fmt;
use std::sync::Arc;

use crate::address::{Addresses, NetworkAddress};
use crate::identity::Identity;
use crate::name::{ClusterId, Hostname, LocalWorkload, Namespace, NamespacedHostname, NetworkId, NodeName, PolicyName};
use crate::name::{ServiceAccount, Text, TrustDomain, Uid};
use crate::ports::PortMap;

/// Trust domain of a workload that names none.
pub const DEFAULT_TRUST_DOMAIN: &str = "cluster.local";
/// Service account of a workload that names none.
pub const DEFAULT_SERVICE_ACCOUNT: &str = "default";
/// Cluster of a workload that names none.
pub const DEFAULT_CLUSTER: &str = "Kubernetes";
/// Weight of a workload that states none.
pub const DEFAULT_CAPACITY: u32 = 1;

/// One endpoint of the mesh (spec state-and-dns 5 says what each field is for).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Workload {
    /// Primary key.
    pub uid: Uid,
    /// Name of the pod or entry; as a rule a part of its key.
    pub name: Text,
    /// Its namespace.
    pub namespace: Namespace,
    /// Service account of its identity.
    pub service_account: ServiceAccount,
    /// Its addresses, canonical, in the order given.
    pub addresses: Addresses,
    /// What it has in common with others.
    pub deployment: Arc<Deployment>,
    /// The network in which the addresses are valid.
    pub network: NetworkId,
    /// How it is reached.
    pub protocol: Protocol,
    /// Whether it has addresses of its own.
    pub network_mode: NetworkMode,
    /// Whether it takes part in load balancing of services that ask for healthy endpoints.
    pub status: Health,
    /// Waypoint for traffic addressed to the workload itself.
    pub waypoint: Option<Box<GatewayAddress>>,
    /// Gateway by which other networks reach it.
    pub network_gateway: Option<Box<GatewayAddress>>,
    /// Whether it speaks the tunnel itself; matters for certificates only.
    pub native_tunnel: bool,
    /// How its app wants to be handed tunnelled connections.
    pub application_tunnel: Option<ApplicationTunnel>,
    /// Resolved by DNS when there is no usable address; empty if none.
    pub hostname: Hostname,
    /// The node that it runs on; empty if unknown.
    pub node: NodeName,
    /// Where it runs, for routing preferences and telemetry.
    pub locality: Arc<Locality>,
    /// Load-balancing weight; 0 is never chosen.
    pub capacity: u32,
    /// Policies that select this workload.
    pub authorization_policies: Arc<[PolicyName]>,
    /// Services that it is an endpoint of; workloads of one deployment may share them.
    pub services: Arc<[Membership]>,
}

/// What all workloads of a deployment have in common, kept once for all of them.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Deployment {
    /// Trust domain of its identity.
    pub trust_domain: TrustDomain,
    /// Canonical service, for telemetry.
    pub canonical_name: Arc<str>,
    /// Canonical revision, for telemetry.
    pub canonical_revision: Arc<str>,
    /// Name of the owner (deployment level), for telemetry.
    pub workload_name: Arc<str>,
    /// Kind of the owner, for telemetry.
    pub workload_type: WorkloadType,
    /// Its cluster.
    pub cluster_id: ClusterId,
}

impl Default for Deployment {
    fn default() -> Self {
        Self {
            trust_domain: DEFAULT_TRUST_DOMAIN.into(),
            canonical_name: Arc::default(),
            canonical_revision: Arc::default(),
            workload_name: Arc::default(),
            workload_type: WorkloadType::Deployment,
            cluster_id: DEFAULT_CLUSTER.into(),
        }
    }
}

/// That a workload is an endpoint of a service, and on which ports.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Membership {
    /// The service; it need not be known (yet).
    pub service: NamespacedHostname,
    /// Service port to target port of this endpoint.
    pub ports: PortMap,
}

impl Workload {
    /// A workload with nothing but its key and the control plane's defaults.
    pub fn new(uid: Uid) -> Self {
        Self {
            uid,
            name: Text::default(),
            namespace: Namespace::default(),
            service_account: DEFAULT_SERVICE_ACCOUNT.into(),
            addresses: Addresses::default(),
            deployment: Arc::default(),
            network: NetworkId::default(),
            protocol: Protocol::Tcp,
            network_mode: NetworkMode::Standard,
            status: Health::Healthy,
            waypoint: None,
            network_gateway: None,
            native_tunnel: false,
            application_tunnel: None,
            hostname: Hostname::default(),
            node: NodeName::default(),
            locality: Arc::default(),
            capacity: DEFAULT_CAPACITY,
            authorization_policies: Arc::default(),
            services: Arc::default(),
        }
    }

    /// The identity that its certificate carries.
    pub fn identity(&self) -> Identity {
        Identity {
            trust_domain: self.deployment.trust_domain.clone(),
            namespace: self.namespace.clone(),
            service_account: self.service_account.clone(),
        }
    }

    /// The triple by which a proxy instance would look it up.
    pub fn local(&self) -> LocalWorkload {
        LocalWorkload {
            name: self.name.as_str().into(),
            namespace: self.namespace.clone(),
            service_account: self.service_account.clone(),
        }
    }

    /// Its port map as an endpoint of `service`, if it is one.
    pub fn ports_for(&self, service: &NamespacedHostname) -> Option<&PortMap> {
        self.services.iter().find(|m| m.service == *service).map(|m| &m.ports)
    }
}

/// How a workload is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Protocol {
    /// Directly, in plain TCP.
    #[default]
    Tcp,
    /// Through a tunnel to its HBONE port.
    Hbone,
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "TCP",
            Self::Hbone => "HBONE",
        })
    }
}

/// Whether a workload has addresses of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum NetworkMode {
    /// Its addresses are its own.
    #[default]
    Standard,
    /// It shares its node's addresses, which therefore do not identify it (spec data-plane 4.1).
    HostNetwork,
}

/// Whether a workload is fit to serve.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Health {
    /// It is.
    #[default]
    Healthy,
    /// It is not, unless a service asks for all endpoints.
    Unhealthy,
}

/// Kind of a workload's owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Hash)]
pub enum WorkloadType {
    /// A deployment, and everything that is none of the others.
    #[default]
    Deployment,
    /// A cron job.
    CronJob,
    /// A bare pod.
    Pod,
    /// A job.
    Job,
}

impl WorkloadType {
    /// All kinds.
    pub const ALL: [Self; 4] = [Self::Deployment, Self::CronJob, Self::Pod, Self::Job];

    /// The name used in baggage and dumps, in lower case.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Deployment => "deployment",
            Self::CronJob => "cronjob",
            Self::Pod => "pod",
            Self::Job => "job",
        }
    }
}

/// A place in the world: each part is empty if unknown.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Default)]
pub struct Locality {
    /// For example a cloud region.
    pub region: Arc<str>,
    /// An availability zone of the region.
    pub zone: Arc<str>,
    /// A part of the zone.
    pub subzone: Arc<str>,
}

/// How an app wants to be handed tunnelled connections (spec data-plane 10.5, 10.6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ApplicationTunnel {
    /// What precedes the connection's bytes.
    pub protocol: TunnelProtocol,
    /// The port to dial instead of the one asked for.
    pub port: Option<u16>,
}

/// What an application tunnel puts in front of the connection's bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TunnelProtocol {
    /// Nothing.
    None,
    /// A PROXY protocol v2 header.
    Proxy,
}

/// Where a waypoint or an east-west gateway is found.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct GatewayAddress {
    /// By address or by name.
    pub destination: GatewayDestination,
    /// The port to ask for: a service port where the destination is a service.
    pub hbone_port: u16,
}

/// What a [`GatewayAddress`] refers to.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum GatewayDestination {
    /// A VIP or a workload's address.
    Address(NetworkAddress),
    /// A service's or a workload's host name.
    Hostname(NamespacedHostname),
}

impl fmt::Display for GatewayDestination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => address.fmt(f),
            Self::Hostname(name) => name.fmt(f),
        }
    }
}

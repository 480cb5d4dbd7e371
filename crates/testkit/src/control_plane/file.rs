//! The document of the static state file, in its own spelling.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::Serialize;

use super::{AppProtocol, CLUSTER, KnownPod, Plane, Reference, TRUST_DOMAIN};
use crate::mesh::Capture;

#[derive(Debug, Serialize)]
pub(super) struct Document {
    workloads: Vec<Workload>,
    services: Vec<Service>,
    policies: Vec<Policy>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Workload {
    uid: String,
    name: String,
    namespace: String,
    trust_domain: String,
    service_account: String,
    cluster_id: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    network: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    network_gateway: Option<Waypoint>,
    #[serde(skip_serializing_if = "Option::is_none")]
    waypoint: Option<Waypoint>,
    #[serde(skip_serializing_if = "Option::is_none")]
    application_tunnel: Option<ApplicationTunnel>,
    node: String,
    workload_name: String,
    workload_type: &'static str,
    canonical_name: String,
    canonical_revision: &'static str,
    workload_ips: Vec<IpAddr>,
    #[serde(skip_serializing_if = "String::is_empty")]
    hostname: String,
    protocol: &'static str,
    status: &'static str,
    authorization_policies: Vec<String>,
    services: BTreeMap<String, BTreeMap<u16, u16>>,
}

#[derive(Debug, Serialize)]
struct ApplicationTunnel {
    protocol: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    port: Option<u16>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Service {
    name: String,
    namespace: String,
    hostname: String,
    vips: Vec<String>,
    ports: BTreeMap<u16, u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    waypoint: Option<Waypoint>,
    subject_alt_names: Vec<String>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Waypoint {
    destination: String,
    hbone_mtls_port: u16,
}

/// An authorization policy.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Policy {
    /// Unique in its namespace.
    pub name: String,
    /// Where it lives, and what [`Scope::Namespace`] means.
    pub namespace: String,
    /// Whom it binds.
    pub scope: Scope,
    /// What a match means.
    pub action: Action,
    /// Only reported, not enforced.
    pub dry_run: bool,
    /// A rule matches if all of its clauses do; a clause if one of its matches does.
    pub rules: Vec<Vec<Clause>>,
}

/// Alternatives.
pub type Clause = Vec<Match>;

/// Whom a policy binds.
#[derive(Debug, Clone, Copy, Serialize)]
pub enum Scope {
    /// Every workload.
    Global,
    /// Those of its namespace.
    Namespace,
    /// Those that are selected.
    WorkloadSelector,
}

/// What a match means.
#[derive(Debug, Clone, Copy, Serialize)]
pub enum Action {
    /// The connection is admitted, if nothing denies it.
    Allow,
    /// It is not.
    Deny,
}

/// Conditions that must all hold; within a list, one suffices.
#[derive(Debug, Clone, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Match {
    /// Namespace of the peer's identity.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub namespaces: Vec<StringMatch>,
    /// As `namespaces`, negated.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub not_namespaces: Vec<StringMatch>,
    /// The peer's identity without its scheme.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub principals: Vec<StringMatch>,
    /// As `principals`, negated.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub not_principals: Vec<StringMatch>,
    /// The peer's address, as CIDR.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub source_ips: Vec<String>,
    /// The application's port.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub destination_ports: Vec<u16>,
    /// As `destination_ports`, negated.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub not_destination_ports: Vec<u16>,
}

/// A condition on a text.
#[derive(Debug, Clone, Serialize)]
pub enum StringMatch {
    /// Is exactly this.
    Exact(String),
    /// Begins so.
    Prefix(String),
    /// Ends so.
    Suffix(String),
}

pub(super) fn render(plane: &Plane, pods: &[KnownPod]) -> Document {
    Document {
        workloads: pods.iter().map(|pod| workload(plane, pod)).collect(),
        services: plane.services.iter().map(service).collect(),
        policies: plane.policies.clone(),
    }
}

fn workload(plane: &Plane, pod: &KnownPod) -> Workload {
    let serving = plane.services.iter().filter(|service| service.endpoints.contains(&pod.uid));
    let particulars = plane.particulars.get(&pod.name).cloned().unwrap_or_default();
    let pod = pod.told(&particulars);
    Workload {
        uid: pod.uid.clone(),
        name: pod.name.clone(),
        namespace: pod.namespace.clone(),
        trust_domain: particulars.trust_domain.unwrap_or_else(|| TRUST_DOMAIN.to_owned()),
        service_account: pod.service_account.clone(),
        cluster_id: particulars.cluster.unwrap_or_else(|| CLUSTER.to_owned()),
        network: particulars.network,
        network_gateway: particulars.network_gateway.map(Waypoint::from),
        waypoint: particulars.waypoint.map(Waypoint::from),
        application_tunnel: particulars.application_tunnel.map(|(protocol, port)| ApplicationTunnel {
            protocol: match protocol {
                AppProtocol::None => "NONE",
                AppProtocol::Proxy => "PROXY",
            },
            port,
        }),
        node: pod.node.clone(),
        workload_name: pod.name.clone(),
        workload_type: "pod",
        canonical_name: pod.name.clone(),
        canonical_revision: "v1",
        workload_ips: pod.addresses.clone(),
        hostname: pod.hostname.clone(),
        protocol: match pod.capture {
            Capture::Off => "TCP",
            Capture::Enrolled | Capture::Redirected | Capture::Dedicated => "HBONE",
        },
        status: if plane.unhealthy.contains(&pod.name) { "Unhealthy" } else { "Healthy" },
        authorization_policies: plane.selections.get(&pod.name).cloned().unwrap_or_default(),
        services: serving
            .map(|service| (format!("{}/{}", service.namespace, service.hostname()), service.ports.clone()))
            .collect(),
    }
}

fn service(service: &super::Service) -> Service {
    Service {
        name: service.name.clone(),
        namespace: service.namespace.clone(),
        hostname: service.hostname(),
        vips: service.vips.iter().map(|vip| format!("{}/{vip}", service.network)).collect(),
        ports: service.declared(),
        waypoint: service.waypoint.clone().map(Waypoint::from),
        subject_alt_names: service.subject_alt_names.clone(),
    }
}

impl From<Reference> for Waypoint {
    fn from((destination, hbone_mtls_port): Reference) -> Self {
        Self { destination, hbone_mtls_port }
    }
}

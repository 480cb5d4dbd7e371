//! What is told of the mesh: written as ztunnel's static state (spec configuration 5), and as resources of discovery for
//! [`istiod`](crate::istiod).
//!
//! Every pod of the mesh is a workload by itself; services and policies are described in [`Plane`]. Invariant: the file
//! is replaced as a whole, so that a reader finds either the former state or the present one.

mod file;
pub mod resources;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::watch;

use crate::mesh::{Capture, Pod};
pub use file::{Action, Clause, Match, Policy, Scope, StringMatch};
use resources::Resources;

/// The state could not be written.
#[derive(Debug, thiserror::Error)]
#[error("cannot write the control plane's state to {path}")]
pub struct ControlPlaneError {
    path: String,
    source: io::Error,
}

/// The cluster that pods belong to unless it is said otherwise.
const CLUSTER: &str = "Kubernetes";
/// The trust domain of identities unless it is said otherwise.
const TRUST_DOMAIN: &str = "cluster.local";

/// What is described by hand.
#[derive(Debug, Default, Clone)]
pub struct Plane {
    /// In any order.
    pub services: Vec<Service>,
    /// A policy of scope [`Scope::WorkloadSelector`] binds the pods in `selections`.
    pub policies: Vec<Policy>,
    /// Pod name to the policies that select it, as `namespace/name`.
    pub selections: BTreeMap<String, Vec<String>>,
    /// Names of pods that are unhealthy or terminating.
    pub unhealthy: BTreeSet<String>,
    /// Pod name to what else there is to say of it.
    pub particulars: BTreeMap<String, Particulars>,
}

/// What is said of a pod that is not as pods are by default.
#[derive(Debug, Default, Clone)]
pub struct Particulars {
    /// The network that its addresses are in.
    pub network: String,
    /// The cluster that it belongs to; the mesh's one if not given.
    pub cluster: Option<String>,
    /// How other networks reach it.
    pub network_gateway: Option<Reference>,
    /// What traffic to it goes through.
    pub waypoint: Option<Reference>,
    /// How its app takes tunnelled connections: what precedes their bytes, and the port.
    pub application_tunnel: Option<(AppProtocol, Option<u16>)>,
    /// The trust domain of its identity; the mesh's one if not given.
    pub trust_domain: Option<String>,
    /// The address of a process that takes HBONE as this pod, in place of the pod's own: a ztunnel with an identity.
    pub process: Option<IpAddr>,
}

/// A waypoint or a gateway: `network/ip` or `namespace/hostname`, and the port for tunnels there.
pub type Reference = (String, u16);

/// What precedes the bytes of a tunnelled connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AppProtocol {
    /// Nothing.
    None,
    /// A header of the PROXY protocol.
    Proxy,
}

impl Plane {
    /// The endpoints that are no pods.
    fn elsewhere(&self) -> impl Iterator<Item = KnownPod> {
        let all = self.services.iter().flat_map(|service| service.elsewhere.iter().map(move |entry| (service, entry)));
        all.map(|(service, (uid, host))| KnownPod {
            uid: uid.clone(),
            name: host.clone(),
            namespace: service.namespace.clone(),
            service_account: "default".to_owned(),
            node: String::new(),
            addresses: Vec::new(),
            hostname: host.clone(),
            capture: Capture::Off,
        })
    }
}

/// A service with its virtual addresses and the pods behind it.
#[derive(Debug, Clone)]
pub struct Service {
    /// Unique in its namespace.
    pub name: String,
    /// Where it lives.
    pub namespace: String,
    /// Virtual addresses.
    pub vips: Vec<IpAddr>,
    /// The network that they are in.
    pub network: String,
    /// Its ports, and those of the endpoints.
    pub ports: BTreeMap<u16, u16>,
    /// Those of its ports whose targets only the endpoints know.
    named: BTreeSet<u16>,
    /// [`Pod::workload_uid`] of the pods that serve it.
    pub endpoints: Vec<String>,
    /// What traffic to it goes through.
    pub waypoint: Option<Reference>,
    /// Identities of which its endpoints have one, beside those that are known.
    pub subject_alt_names: Vec<String>,
    /// The name by which the mesh knows it, if that is not the usual one of a service in a cluster.
    pub host: Option<String>,
    /// Host names of endpoints that are outside the cluster, each with its key in `endpoints`.
    elsewhere: Vec<(String, String)>,
}

impl Service {
    /// A service at `vip`, without ports yet, served by `endpoints`.
    pub fn new(name: &str, namespace: &str, vip: impl Into<IpAddr>, endpoints: &[&Pod]) -> Service {
        Service {
            name: name.to_owned(),
            namespace: namespace.to_owned(),
            vips: vec![vip.into()],
            network: String::new(),
            ports: BTreeMap::new(),
            named: BTreeSet::new(),
            endpoints: endpoints.iter().map(|pod| pod.workload_uid()).collect(),
            waypoint: None,
            subject_alt_names: Vec::new(),
            host: None,
            elsewhere: Vec::new(),
        }
    }

    /// With its addresses in another network than the mesh's unnamed one.
    #[must_use]
    pub fn network(mut self, network: &str) -> Service {
        network.clone_into(&mut self.network);
        self
    }

    /// Its endpoints may prove to be `identity`, too.
    #[must_use]
    pub fn subject_alt_name(mut self, identity: &str) -> Service {
        self.subject_alt_names.push(identity.to_owned());
        self
    }

    /// It is known by this name, as a service entry is.
    #[must_use]
    pub fn host(mut self, host: &str) -> Service {
        self.host = Some(host.to_owned());
        self
    }

    /// One more endpoint: a host of that name, reached in plain TCP.
    #[must_use]
    pub fn elsewhere(mut self, host: &str) -> Service {
        let uid = format!("Kubernetes/networking.istio.io/ServiceEntry/{}/{}/{host}", self.namespace, self.name);
        self.endpoints.push(uid.clone());
        self.elsewhere.push((uid, host.to_owned()));
        self
    }

    /// It has no virtual address of its own.
    #[must_use]
    pub fn headless(mut self) -> Service {
        self.vips.clear();
        self
    }

    /// One more virtual address.
    #[must_use]
    pub fn vip(mut self, vip: impl Into<IpAddr>) -> Service {
        self.vips.push(vip.into());
        self
    }

    /// Connections to `port` go to `target` at the endpoint.
    #[must_use]
    pub fn port(mut self, port: u16, target: u16) -> Service {
        self.ports.insert(port, target);
        self
    }

    /// Connections to `port` go to a port that goes by a name, which at these endpoints is `target`.
    #[must_use]
    pub fn named_port(mut self, port: u16, target: u16) -> Service {
        self.named.insert(port);
        self.port(port, target)
    }

    /// Its ports as the service tells them: 0 stands for a target that goes by a name.
    fn declared(&self) -> BTreeMap<u16, u16> {
        let target = |(&port, &target): (&u16, &u16)| (port, if self.named.contains(&port) { 0 } else { target });
        self.ports.iter().map(target).collect()
    }

    /// Traffic goes through a waypoint: `destination` is `network/ip` or `namespace/hostname`.
    #[must_use]
    pub fn waypoint(mut self, destination: &str, tunnel_port: u16) -> Service {
        self.waypoint = Some((destination.to_owned(), tunnel_port));
        self
    }

    /// The name by which the mesh knows it.
    pub fn hostname(&self) -> String {
        self.host.clone().unwrap_or_else(|| format!("{}.{}.svc.cluster.local", self.name, self.namespace))
    }
}

/// What the control plane knows of a pod.
#[derive(Debug, Clone)]
pub(crate) struct KnownPod {
    pub(crate) uid: String,
    pub(crate) name: String,
    pub(crate) namespace: String,
    pub(crate) service_account: String,
    pub(crate) node: String,
    pub(crate) addresses: Vec<IpAddr>,
    /// Instead of addresses.
    pub(crate) hostname: String,
    pub(crate) capture: Capture,
}

impl KnownPod {
    /// As the mesh is told of it.
    fn told(&self, particulars: &Particulars) -> KnownPod {
        match particulars.process {
            Some(address) => KnownPod { addresses: vec![address], capture: Capture::Enrolled, ..self.clone() },
            None => self.clone(),
        }
    }
}

/// The control plane of one mesh.
#[derive(Debug)]
pub struct ControlPlane {
    path: PathBuf,
    known: Mutex<Known>,
    resources: watch::Sender<Arc<Resources>>,
}

#[derive(Debug, Default)]
struct Known {
    plane: Plane,
    pods: Vec<KnownPod>,
}

impl ControlPlane {
    pub(crate) fn new(path: PathBuf) -> Result<ControlPlane, ControlPlaneError> {
        let control_plane = ControlPlane { path, known: Mutex::default(), resources: watch::Sender::default() };
        control_plane.change(|_| {})?;
        Ok(control_plane)
    }

    /// The file, for `LOCAL_XDS_PATH`.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Changes services and policies, and writes the file anew.
    ///
    /// # Errors
    /// [`ControlPlaneError`]; the file then has its former content.
    pub fn update(&self, change: impl FnOnce(&mut Plane)) -> Result<(), ControlPlaneError> {
        self.change(|known| change(&mut known.plane))
    }

    /// The resources of every later state, the present one included.
    pub(crate) fn watch(&self) -> watch::Receiver<Arc<Resources>> {
        self.resources.subscribe()
    }

    /// Whether a pod of that namespace and service account is known.
    pub(crate) fn has_account(&self, namespace: &str, service_account: &str) -> bool {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.pods.iter().any(|pod| pod.namespace == namespace && pod.service_account == service_account)
    }

    pub(crate) fn add_pod(&self, pod: KnownPod) -> Result<(), ControlPlaneError> {
        self.change(|known| known.pods.push(pod))
    }

    pub(crate) fn remove_pod(&self, uid: &str) -> Result<(), ControlPlaneError> {
        self.change(|known| {
            known.pods.retain(|pod| pod.uid != uid);
            for service in &mut known.plane.services {
                service.endpoints.retain(|endpoint| endpoint != uid);
            }
        })
    }

    fn change(&self, change: impl FnOnce(&mut Known)) -> Result<(), ControlPlaneError> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut known);
        let workloads: Vec<KnownPod> = known.pods.iter().cloned().chain(known.plane.elsewhere()).collect();
        self.resources.send_replace(Arc::new(resources::render(&known.plane, &workloads)));
        self.write(&file::render(&known.plane, &workloads))
            .map_err(|source| ControlPlaneError { path: self.path.display().to_string(), source })
    }

    fn write(&self, document: &file::Document) -> io::Result<()> {
        let text = serde_yaml_ng::to_string(document).map_err(io::Error::other)?;
        let fresh = self.path.with_extension("new");
        fs::write(&fresh, text)?;
        fs::rename(&fresh, &self.path)
    }
}

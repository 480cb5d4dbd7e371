//! A pod: a network namespace with an address, in which closures and commands can be run.

use std::fmt;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;

use super::{MeshError, Node, within};
use redirect::host::{Host, Whose};
use redirect::layout::NODE_AGENT;
use redirect::own::{self, Target};
use redirect::{DnsCapture, RedirectError, ZTUNNEL_MARK, pod as in_pod};

use crate::cni::Enrolment;
use crate::control_plane::KnownPod;
use crate::link::{self, KnownRoute, LinkError};
use crate::netns::NetNs;
use crate::tap::Tap;
use crate::zds::WorkloadInfo;
use crate::ztunnel::{Ztunnel, ZtunnelError, ZtunnelSpec};

/// Whether and how a pod's traffic reaches a ztunnel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Capture {
    /// It does not; to the mesh the pod is a plain workload.
    Off,
    /// Redirected in the pod, served by its node's ztunnel.
    Enrolled,
    /// Redirected as an enrolled pod, but no ztunnel is told: some other program in the pod takes its place.
    Redirected,
    /// What leaves is redirected to a ztunnel of the pod's own ([`Pod::start_dedicated_ztunnel`]).
    Dedicated,
}

/// What a pod shall be.
#[derive(Debug, Clone)]
pub struct PodSpec {
    name: String,
    namespace: String,
    service_account: String,
    capture: Capture,
    dns: DnsCapture,
}

impl PodSpec {
    /// A pod without DNS capture; `name` must be unique in the mesh, whatever the namespace.
    pub fn new(name: &str, namespace: &str, service_account: &str, capture: Capture) -> PodSpec {
        let (name, namespace) = (name.to_owned(), namespace.to_owned());
        PodSpec { name, namespace, service_account: service_account.to_owned(), capture, dns: DnsCapture::Off }
    }

    /// With or without DNS capture, if it is enrolled.
    #[must_use]
    pub fn dns(mut self, dns: DnsCapture) -> PodSpec {
        self.dns = dns;
        self
    }
}

/// A pod of a mesh; a handle that can be cloned.
#[derive(Clone)]
pub struct Pod {
    inner: Arc<Inner>,
}

struct Inner {
    node: Node,
    spec: PodSpec,
    netns: NetNs,
    addresses: Vec<IpAddr>,
}

impl Pod {
    /// In the agent's order: namespace, rules, then ztunnel; applications come after (spec in-pod 2, "Enrolment path").
    pub(super) fn create(node: &Node, spec: PodSpec) -> Result<Pod, MeshError> {
        let pod = Pod::prepare(node, spec)?;
        pod.announce()?;
        if pod.inner.spec.capture == Capture::Enrolled {
            pod.enrol()?;
        }
        Ok(pod)
    }

    /// Namespace and rules; nobody is told.
    pub(super) fn prepare(node: &Node, spec: PodSpec) -> Result<Pod, MeshError> {
        let world = &node.inner.world;
        world.claim_name(&spec.name)?;
        let count = node.inner.pods.fetch_add(1, Ordering::Relaxed);
        let no_room = || MeshError::Name { name: spec.name.clone() };
        let addresses = node.inner.place.pod(world.families, count).ok_or_else(no_room)?;
        let netns = world.directory.namespace(&spec.name)?;
        node.plug_in(&netns, &spec.name, &format!("pod{count}"), &addresses)?;
        let pod = Pod { inner: Arc::new(Inner { node: node.clone(), spec, netns, addresses }) };
        let PodSpec { name, capture, dns, .. } = &pod.inner.spec;
        match capture {
            Capture::Off => {}
            Capture::Enrolled | Capture::Redirected => {
                within(pod.netns(), name, || in_pod::install_as_node_agent(*dns))?
            }
            Capture::Dedicated => within(pod.netns(), name, || dedicated(*dns))?,
        }
        Ok(pod)
    }

    /// Has the control plane tell of it, for a pod that was [prepared](Node::prepare_pod).
    ///
    /// # Errors
    /// [`MeshError::ControlPlane`].
    pub fn announce(&self) -> Result<(), MeshError> {
        Ok(self.node().inner.world.control_plane.add_pod(self.known())?)
    }

    /// Has the node agent tell of it, for a pod that was [prepared](Node::prepare_pod).
    ///
    /// # Errors
    /// [`MeshError::Cni`] if a connected ztunnel does not take the pod.
    pub fn enrol(&self) -> Result<(), MeshError> {
        self.node().cni().add(self.enrolment())?;
        Ok(())
    }

    pub(super) fn withdraw(&self) -> Result<(), MeshError> {
        let node = self.node();
        let world = &node.inner.world;
        let told = match self.inner.spec.capture {
            Capture::Enrolled => node.cni().remove(&self.zds_uid()).map(drop),
            Capture::Off | Capture::Redirected | Capture::Dedicated => Ok(()),
        };
        world.control_plane.remove_pod(&self.workload_uid())?;
        world.directory.withdraw(self.name())?;
        world.layout().names.remove(self.name());
        Ok(told?)
    }

    /// Starts a ztunnel for this pod alone, inside it.
    ///
    /// # Errors
    /// [`ZtunnelError`].
    pub fn start_dedicated_ztunnel(&self, spec: &ZtunnelSpec) -> Result<Ztunnel, ZtunnelError> {
        let PodSpec { name, namespace, service_account, .. } = &self.inner.spec;
        let who = format!("{namespace}/{name}/{service_account}");
        let own = [
            ("PROXY_MODE", "dedicated".into()),
            ("PROXY_WORKLOAD_INFO", who.into()),
            ("PACKET_MARK", ZTUNNEL_MARK.to_string().into()),
            ("NODE_NAME", self.node().name().into()),
        ];
        let world = &self.node().inner.world;
        let log = world.directory.subdirectory(self.node().name())?.join(format!("ztunnel-in-{name}.log"));
        Ztunnel::start(spec, self.netns(), &own, world.control_plane.path(), &log)
    }

    /// Runs `work` in the pod's network, on a thread of its own, and waits for it. A panic goes on in the caller.
    ///
    /// # Errors
    /// The pod's namespace cannot be entered.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> io::Result<T> {
        self.inner.netns.run(work)
    }

    /// As [`Pod::run`], without waiting.
    ///
    /// # Errors
    /// No thread could be had.
    pub fn spawn<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> io::Result<JoinHandle<io::Result<T>>> {
        self.inner.netns.spawn(work)
    }

    /// A command that will run in the pod's network.
    pub fn command(&self, program: impl AsRef<Path>) -> Command {
        self.inner.netns.command(program)
    }

    /// Has the pod's connections use the congestion control `name` from now on, those to itself included.
    ///
    /// # Errors
    /// [`MeshError::Link`]: most likely the kernel has no such algorithm.
    pub fn set_congestion_control(&self, name: &str) -> Result<(), MeshError> {
        let (place, families) = (self.node().inner.place, self.node().inner.world.families);
        let gateways = place.gateway(families).into_iter().map(|gateway| KnownRoute::Default { gateway });
        let network = |network| KnownRoute::Connected { network, prefix: super::address::pod_prefix(network) };
        let mut routes: Vec<KnownRoute> = gateways.chain(place.network(families).into_iter().map(network)).collect();
        routes.extend(self.ips().iter().map(|&address| KnownRoute::Own { address }));
        let redirected = matches!(self.inner.spec.capture, Capture::Enrolled | Capture::Redirected);
        let replies =
            |ip: &IpAddr| KnownRoute::LocalDefault { any: super::address::any(*ip), table: NODE_AGENT.replies.table };
        within(self.netns(), self.name(), || -> Result<(), LinkError> {
            routes.iter().try_for_each(|route| link::set_congestion_control(*route, "eth0", name))?;
            let mut replies = self.ips().iter().filter(|_| redirected).map(replies);
            replies.try_for_each(|route| link::set_congestion_control(route, "lo", name))
        })
    }

    /// Gives it all addresses of `network`/`prefix` besides its own, and has every node that there is send them to it.
    ///
    /// For many endpoints that one program serves: the control plane is told of them by whoever wants them.
    ///
    /// # Errors
    /// [`MeshError::Link`].
    pub fn own_network(&self, network: IpAddr, prefix: u8) -> Result<(), MeshError> {
        within(self.netns(), self.name(), || link::add_own_network(network, prefix))?;
        let Node { inner: own } = self.node();
        within(&own.netns, &own.name, || link::add_route(network, prefix, self.ip()))?;
        let fabric = own.place.fabric(own.world.families)[0];
        let others: Vec<NetNs> = {
            let layout = own.world.layout();
            let others = layout.nodes.iter().filter(|(place, _)| place.0 != own.place.0);
            others.map(|(_, netns)| netns.clone()).collect()
        };
        others.iter().try_for_each(|other| within(other, "a node", || link::add_route(network, prefix, fabric)))
    }

    /// Its IPv4 address.
    pub fn ip(&self) -> IpAddr {
        self.inner.addresses[0]
    }

    /// All its addresses, IPv4 first.
    pub fn ips(&self) -> &[IpAddr] {
        &self.inner.addresses
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.inner.spec.name
    }

    /// Its node.
    pub fn node(&self) -> &Node {
        &self.inner.node
    }

    /// Its network namespace.
    pub fn netns(&self) -> &NetNs {
        &self.inner.netns
    }

    /// Starts to record what passes in it, what it sends to itself included.
    ///
    /// # Errors
    /// No packet socket could be had.
    pub fn tap(&self) -> io::Result<Tap> {
        Tap::open(&self.inner.netns)
    }

    /// The file for `nsenter --net=`.
    pub fn netns_path(&self) -> PathBuf {
        self.node().inner.world.directory.netns_file(self.name())
    }

    /// How the control plane calls it.
    pub fn workload_uid(&self) -> String {
        format!("Kubernetes//v1/Pod/{}/{}", self.inner.spec.namespace, self.name())
    }

    /// How the node agent calls it.
    pub fn zds_uid(&self) -> String {
        format!("uid-of-{}-{}", self.inner.spec.namespace, self.name())
    }

    fn enrolment(&self) -> Enrolment {
        let PodSpec { name, namespace, service_account, .. } = self.inner.spec.clone();
        let info = WorkloadInfo { name, namespace, service_account };
        Enrolment { uid: self.zds_uid(), info, netns: self.inner.netns.clone() }
    }

    fn known(&self) -> KnownPod {
        let PodSpec { name, namespace, service_account, capture, .. } = self.inner.spec.clone();
        let (node, addresses) = (self.node().name().to_owned(), self.inner.addresses.clone());
        let (uid, hostname) = (self.workload_uid(), String::new());
        KnownPod { uid, name, namespace, service_account, node, addresses, hostname, capture }
    }
}

impl fmt::Debug for Pod {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Pod").field(&self.inner.spec.name).field(&self.inner.addresses).finish()
    }
}

/// What leaves the pod goes to a ztunnel of its own.
fn dedicated(dns: DnsCapture) -> Result<(), RedirectError> {
    own::install(&Target::Host(Host { whose: Whose::All, dns, inbound: Vec::new() }), "a dedicated ztunnel's")
}

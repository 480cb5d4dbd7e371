//! A node: a router between its pods and the fabric, with a node agent, and ztunnels when they are started.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::address::{Place, any, fabric_prefix, pod_prefix};
use super::{BRIDGE, Families, MeshError, Pod, PodSpec, World, plug_in, within};
use crate::cni::Cni;
use crate::link::{self, LinkError};
use crate::netns::NetNs;
use crate::ztunnel::{Ztunnel, ZtunnelError, ZtunnelSpec};

/// A node of a mesh; a handle that can be cloned.
#[derive(Clone)]
pub struct Node {
    pub(super) inner: Arc<Inner>,
}

pub(super) struct Inner {
    pub(super) world: Arc<World>,
    pub(super) name: String,
    pub(super) place: Place,
    pub(super) netns: NetNs,
    pub(super) cni: Cni,
    pub(super) pods: AtomicUsize,
    ztunnels: AtomicUsize,
}

impl Node {
    pub(super) fn join(world: &Arc<World>, name: &str) -> Result<Node, MeshError> {
        world.claim_name(name)?;
        let mut layout = world.layout();
        let place = Place::new(layout.nodes.len() + 1).ok_or_else(|| MeshError::Name { name: name.to_owned() })?;
        let netns = world.directory.namespace(name)?;
        let families = world.families;
        let addresses: Vec<(IpAddr, u8)> =
            place.fabric(families).into_iter().map(|ip| (ip, fabric_prefix(ip))).collect();
        plug_in(&world.fabric, &netns, name, &fabric_port(place), &addresses, &[])?;
        within(&netns, name, || lay_out(place, families))?;
        for (other, other_netns) in &layout.nodes {
            within(&netns, name, || route_to(*other, families))?;
            within(other_netns, name, || route_to(place, families))?;
        }
        layout.nodes.push((place, netns.clone()));
        drop(layout);
        let cni = Cni::start(&world.directory.subdirectory(name)?.join("ztunnel.sock"))?;
        let counters = (AtomicUsize::new(0), AtomicUsize::new(0));
        let inner = Inner {
            world: world.clone(),
            name: name.to_owned(),
            place,
            netns,
            cni,
            pods: counters.0,
            ztunnels: counters.1,
        };
        Ok(Node { inner: Arc::new(inner) })
    }

    /// Adds a pod; if it is enrolled, with redirection, and known to the node's ztunnel when this returns.
    ///
    /// # Errors
    /// [`MeshError`]; [`MeshError::Cni`] if a connected ztunnel does not take the pod.
    pub fn add_pod(&self, spec: PodSpec) -> Result<Pod, MeshError> {
        Pod::create(self, spec)
    }

    /// Adds a pod with its redirection, of which neither the control plane nor the node agent tells anybody until they
    /// are asked to ([`Pod::announce`], [`Pod::enrol`]).
    ///
    /// # Errors
    /// [`MeshError`].
    pub fn prepare_pod(&self, spec: PodSpec) -> Result<Pod, MeshError> {
        Pod::prepare(self, spec)
    }

    /// Takes a pod away: from ztunnel, from the control plane, and its name. Its namespace lives while it is in use.
    ///
    /// # Errors
    /// [`MeshError`].
    pub fn remove_pod(&self, pod: &Pod) -> Result<(), MeshError> {
        pod.withdraw()
    }

    /// Starts a ztunnel process that serves the node's enrolled pods; several may run at a time.
    ///
    /// # Errors
    /// [`ZtunnelError`]: no namespace, or the program cannot be started.
    pub fn start_ztunnel(&self, spec: &ZtunnelSpec) -> Result<Ztunnel, ZtunnelError> {
        let count = self.inner.ztunnels.fetch_add(1, Ordering::Relaxed);
        let name = match count {
            0 => format!("ztunnel-{}", self.name()),
            again => format!("ztunnel-{}-{}", self.name(), again + 1),
        };
        let netns = self.ztunnel_namespace(&name, count)?;
        let directory = self.inner.world.directory.subdirectory(self.name())?;
        let socket = directory.join("ztunnel.sock").into_os_string();
        let own = [("PROXY_MODE", "shared".into()), ("INPOD_UDS", socket), ("NODE_NAME", self.name().into())];
        let state = self.inner.world.control_plane.path();
        Ztunnel::start(spec, &netns, &own, state, &directory.join(format!("{name}.log")))
    }

    fn ztunnel_namespace(&self, name: &str, count: usize) -> Result<NetNs, MeshError> {
        let Inner { world, place, .. } = &*self.inner;
        world.claim_name(name)?;
        let addresses =
            place.ztunnel(world.families, count).ok_or_else(|| MeshError::Name { name: name.to_owned() })?;
        let netns = world.directory.namespace(name)?;
        self.plug_in(&netns, name, &format!("zt{count}"), &addresses)?;
        Ok(netns)
    }

    pub(super) fn plug_in(&self, netns: &NetNs, name: &str, port: &str, addresses: &[IpAddr]) -> Result<(), MeshError> {
        let Inner { world, place, netns: node, .. } = &*self.inner;
        let addresses: Vec<(IpAddr, u8)> = addresses.iter().map(|&ip| (ip, pod_prefix(ip))).collect();
        plug_in(node, netns, name, port, &addresses, &place.gateway(world.families))
    }

    /// Pulls its plug: from now on nothing passes between it and other nodes, and nobody is told.
    ///
    /// # Errors
    /// [`MeshError`].
    pub fn cut_off(&self) -> Result<(), MeshError> {
        let Inner { world, place, .. } = &*self.inner;
        within(&world.fabric, "fabric", || link::set_down(&fabric_port(*place)))
    }

    /// Puts the plug in again, after [`Node::cut_off`].
    ///
    /// # Errors
    /// [`MeshError`].
    pub fn reconnect(&self) -> Result<(), MeshError> {
        let Inner { world, place, .. } = &*self.inner;
        within(&world.fabric, "fabric", || link::set_up(&fabric_port(*place)))
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.inner.name
    }

    /// Its own namespace, from which the node's probes and host-network applications would come.
    pub fn netns(&self) -> &NetNs {
        &self.inner.netns
    }

    /// The address by which whatever runs on the node reaches the node itself.
    pub fn gateway(&self) -> IpAddr {
        self.inner.place.gateway(self.inner.world.families)[0]
    }

    /// Its node agent.
    pub fn cni(&self) -> &Cni {
        &self.inner.cni
    }
}

impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Node").field(&self.inner.name).finish()
    }
}

/// The fabric's end of a node's link.
fn fabric_port(place: Place) -> String {
    format!("node{}", place.0)
}

/// A bridge for the pods, and forwarding between it and the fabric.
fn lay_out(place: Place, families: Families) -> Result<(), LinkError> {
    link::add_bridge(BRIDGE)?;
    link::set_up(BRIDGE)?;
    for gateway in place.gateway(families) {
        link::add_address(BRIDGE, gateway, pod_prefix(gateway))?;
    }
    link::enable_forwarding()
}

fn route_to(other: Place, families: Families) -> Result<(), LinkError> {
    for (network, gateway) in other.network(families).into_iter().zip(other.fabric(families)) {
        debug_assert_eq!(any(network), any(gateway));
        link::add_route(network, pod_prefix(network), gateway)?;
    }
    Ok(())
}

//! Nodes and pods as network namespaces, joined by virtual links.
//!
//! ```text
//!                fabric: one bridge, 172.30.0.0/24
//!                 |                            |
//!      node 1: 172.30.0.1           node 2: 172.30.0.2         a router with a bridge, 10.<node>.0.1/16
//!        |        |       |            |        |
//!     ztunnel    pod     pod        ztunnel    pod             10.<node>.0.2 and on; 10.<node>.1.1 and on
//! ```
//!
//! A dual-stack mesh has the same once more: fabric `fd00:30::/64`, node *n* `fd00:10:n::/64` with its bridge at `::1`,
//! ztunnels from `::2`, pods from `::1:1`. Nodes forward; nothing is translated between them, so that a pod sees
//! its peers' own addresses. Each ztunnel process has a namespace of its own on its node's bridge.
//!
//! Every namespace is also a file under the mesh's directory, `/run/testkit/netns/<name>` for the first mesh of a
//! program, for `nsenter --net=`. Invariant: names are unique within a mesh; a mesh that is dropped leaves no file.

mod address;
mod node;
mod pod;

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

pub use address::Families;
pub use node::Node;
pub use pod::{Capture, Pod, PodSpec};

use redirect::RedirectError;

use crate::cni::CniError;
use crate::control_plane::{ControlPlane, ControlPlaneError};
use crate::link::{self, LinkError};
use crate::netns::NetNs;
use crate::tap::Tap;
use address::Place;

/// The mesh could not be made as asked.
#[derive(Debug, thiserror::Error)]
pub enum MeshError {
    /// A namespace or its file.
    #[error("cannot make or enter the namespace {name}; is the program inside a sandbox?")]
    Namespace {
        /// Whose.
        name: String,
        /// Why.
        source: io::Error,
    },
    /// The mesh's directory.
    #[error("cannot use the directory {path}; is the program inside a sandbox?")]
    Directory {
        /// Which.
        path: String,
        /// Why.
        source: io::Error,
    },
    /// Names are unique in a mesh, of a usable form, and there is room for 250 nodes and 60000 pods on each.
    #[error("{name} cannot be added: the name is taken or not of the form [a-z0-9.-]+, or there is no address left")]
    Name {
        /// Which.
        name: String,
    },
    /// Links, addresses, routes.
    #[error(transparent)]
    Link(#[from] LinkError),
    /// Redirection.
    #[error(transparent)]
    Redirect(#[from] RedirectError),
    /// The node agent.
    #[error(transparent)]
    Cni(#[from] CniError),
    /// The control plane.
    #[error(transparent)]
    ControlPlane(#[from] ControlPlaneError),
}

/// A mesh; its processes and namespaces end when it and all that came from it are dropped.
#[derive(Debug, Clone)]
pub struct Mesh {
    world: Arc<World>,
}

/// What all parts of a mesh share.
#[derive(Debug)]
pub(crate) struct World {
    directory: Directory,
    families: Families,
    fabric: NetNs,
    control_plane: ControlPlane,
    layout: Mutex<Layout>,
}

#[derive(Debug, Default)]
struct Layout {
    names: BTreeSet<String>,
    nodes: Vec<(Place, NetNs)>,
}

impl Mesh {
    /// A mesh with IPv4 addresses, without nodes.
    ///
    /// # Errors
    /// [`MeshError`], above all outside a [`sandbox`](crate::sandbox).
    pub fn new() -> Result<Mesh, MeshError> {
        Mesh::with(Families::Ipv4)
    }

    /// As [`Mesh::new`], with a choice of address families.
    ///
    /// # Errors
    /// As [`Mesh::new`].
    pub fn with(families: Families) -> Result<Mesh, MeshError> {
        let directory = Directory::claim()?;
        let fabric = directory.namespace("fabric")?;
        within(&fabric, "fabric", || -> Result<(), MeshError> {
            link::add_bridge(BRIDGE)?;
            Ok(link::set_up(BRIDGE)?)
        })?;
        let control_plane = ControlPlane::new(directory.path.join("mesh.yaml"))?;
        let layout = Layout { names: BTreeSet::from(["fabric".to_owned()]), nodes: Vec::new() };
        let world = World { directory, families, fabric, control_plane, layout: Mutex::new(layout) };
        Ok(Mesh { world: Arc::new(world) })
    }

    /// Adds a node, reachable from all others.
    ///
    /// # Errors
    /// [`MeshError`].
    pub fn add_node(&self, name: &str) -> Result<Node, MeshError> {
        Node::join(&self.world, name)
    }

    /// What ztunnels are told of the mesh.
    pub fn control_plane(&self) -> &ControlPlane {
        &self.world.control_plane
    }

    pub(crate) fn world(&self) -> &Arc<World> {
        &self.world
    }

    /// Starts to record what passes between nodes.
    ///
    /// # Errors
    /// No packet socket could be had.
    pub fn tap(&self) -> Result<Tap, MeshError> {
        Tap::open(&self.world.fabric).map_err(|source| MeshError::Namespace { name: "fabric".to_owned(), source })
    }

    /// Where its files are: `netns/` and, per node, sockets and logs.
    pub fn directory(&self) -> &Path {
        &self.world.directory.path
    }
}

/// The bridge of the fabric, and of each node.
const BRIDGE: &str = "br0";

impl World {
    pub(crate) fn control_plane(&self) -> &ControlPlane {
        &self.control_plane
    }

    fn layout(&self) -> MutexGuard<'_, Layout> {
        self.layout.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn claim_name(&self, name: &str) -> Result<(), MeshError> {
        let fine = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'.' | b'-');
        let usable = !name.is_empty() && name.len() < 100 && name.bytes().all(fine) && !name.starts_with('.');
        if usable && self.layout().names.insert(name.to_owned()) {
            return Ok(());
        }
        Err(MeshError::Name { name: name.to_owned() })
    }
}

/// Does something in a namespace, which has a name for errors.
pub(crate) fn within<T: Send, E: Send>(
    netns: &NetNs,
    name: &str,
    work: impl FnOnce() -> Result<T, E> + Send,
) -> Result<T, MeshError>
where
    MeshError: From<E>,
{
    let outcome = netns.run(work).map_err(|source| MeshError::Namespace { name: name.to_owned(), source })?;
    Ok(outcome?)
}

/// Connects `inside` to the bridge of `outside` by an interface `eth0` with addresses and a default route.
fn plug_in(
    outside: &NetNs,
    inside: &NetNs,
    name: &str,
    port: &str,
    addresses: &[(IpAddr, u8)],
    gateways: &[IpAddr],
) -> Result<(), MeshError> {
    within(outside, name, || -> Result<(), LinkError> {
        use std::os::fd::AsFd;
        link::add_veth(port, "eth0", inside.as_fd())?;
        link::attach(port, BRIDGE)?;
        link::set_up(port)
    })?;
    within(inside, name, || -> Result<(), LinkError> {
        link::set_up("lo")?;
        link::set_up("eth0")?;
        addresses.iter().try_for_each(|&(address, prefix)| link::add_address("eth0", address, prefix))?;
        gateways.iter().try_for_each(|&gateway| link::add_route(address::any(gateway), 0, gateway))
    })
}

/// A directory under `/run` that no other mesh of this program uses.
#[derive(Debug)]
pub(crate) struct Directory {
    path: PathBuf,
}

impl Directory {
    /// `/run/testkit`, or `/run/testkit-2` and so on while the former are in use.
    fn claim() -> Result<Directory, MeshError> {
        let mut number = 1;
        loop {
            let path = if number == 1 { "/run/testkit".to_owned() } else { format!("/run/testkit-{number}") };
            match fs::create_dir(&path) {
                Ok(()) => {
                    let directory = Directory { path: PathBuf::from(path) };
                    return directory.subdirectory("netns").map(|_| directory);
                }
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => number += 1,
                Err(source) => return Err(MeshError::Directory { path, source }),
            }
        }
    }

    fn subdirectory(&self, name: &str) -> Result<PathBuf, MeshError> {
        let path = self.path.join(name);
        let made = fs::create_dir_all(&path);
        made.map_err(|source| MeshError::Directory { path: path.display().to_string(), source })?;
        Ok(path)
    }

    fn netns_file(&self, name: &str) -> PathBuf {
        self.path.join("netns").join(name)
    }

    /// A fresh namespace that can be found by its name.
    fn namespace(&self, name: &str) -> Result<NetNs, MeshError> {
        let made = NetNs::new().and_then(|netns| netns.publish(&self.netns_file(name)).map(|()| netns));
        let netns = made.map_err(|source| MeshError::Namespace { name: name.to_owned(), source })?;
        within(&netns, name, link::trust_addresses)?;
        Ok(netns)
    }

    fn withdraw(&self, name: &str) -> Result<(), MeshError> {
        NetNs::withdraw(&self.netns_file(name)).map_err(|source| MeshError::Namespace { name: name.to_owned(), source })
    }
}

impl Drop for Directory {
    /// As far as it goes: what stays is in the sandbox's own `/run` and ends with it.
    fn drop(&mut self) {
        if let Ok(entries) = fs::read_dir(self.path.join("netns")) {
            for entry in entries.flatten() {
                let _ = NetNs::withdraw(&entry.path());
            }
        }
        let _ = fs::remove_dir_all(&self.path);
    }
}

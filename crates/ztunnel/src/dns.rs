//! The DNS proxy: answers names of the mesh to a pod, and carries everything else on to a resolver (spec state-and-dns 10).
//!
//! Captured queries arrive by UDP and TCP in the pod's own namespace. `mesh::lookup` decides what a name means; `local`
//! makes the answer. What is not the mesh's goes as it came to the server that the app addressed, or, if that is the
//! cluster's own resolver, to those of our `resolv.conf`; `exchange` makes forging answers hard, and `cache` keeps them,
//! beyond their time while nobody answers. `wire` knows the form of messages and `driver` moves them.
//!
//! Host names of endpoints are another matter: connections want their addresses, which are looked up from the process's own
//! namespace and shared by all pods (`hosts`).
//!
//! Each query ends in exactly one count of where its answer came from. An app never waits for something that is in the
//! view, and what it may have open at a time is bounded.
//!
//! Deliberately absent: recursion, validation, and a look into records that are carried on.

mod cache;
mod counts;
mod driver;
mod exchange;
mod hosts;
mod local;
mod resolv_conf;
pub mod wire;

use std::net::SocketAddr;
use std::path::PathBuf;

use mesh::LookupSettings;

pub use counts::Counts;
pub use driver::{HostConfig, HostResolver, PodNames, PodResolver, Resolvers};
pub use resolv_conf::ResolvConf;

use crate::net::listen::PortReuse;
use crate::net::options::Liveness;

/// What the operator set about names.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where pods' queries arrive; what cannot be had for want of IPv6 is left out, if there is another.
    pub addresses: Vec<SocketAddr>,
    /// Mark of the packets that go to resolvers; `None` sends unmarked.
    pub mark: Option<u32>,
    /// Whether another ztunnel may listen beside us.
    pub port_reuse: PortReuse,
    /// Keepalive of connections that bring queries.
    pub apps: Liveness,
    /// What is decided by.
    pub lookup: LookupSettings,
    /// Where resolvers are named, first come first read: the next is looked at if one names only this machine.
    pub resolv_conf: Vec<PathBuf>,
}

/// What the first of these files says that names a server which others than this machine reach; read once.
#[must_use]
pub fn resolvers(resolv_conf: &[PathBuf]) -> ResolvConf {
    driver::read(resolv_conf)
}

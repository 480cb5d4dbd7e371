//! The proxy of one pod: listeners in its namespace, and what happens to the connections they accept.
//!
//! [`Proxies`] makes them; a [`PodProxy`] is one. Opening listeners and accepting are two steps, so that a pod can be
//! reported ready as soon as connections would queue, and connections wait in the kernel until there is a state of the
//! mesh to decide on (spec in-pod 3, data-plane 1.3).

mod context;
mod copy;
mod direct;
mod driver;
mod inbound;
mod limits;
mod neighbours;
mod nested;
mod outbound;
mod passthrough;
mod placement;
mod pool;
mod random;
mod registry;
mod resolve;
mod scratch;
mod socks;
mod tunnel;
mod worker;
mod yielding;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use hbone::h2::Allowance;
use mesh::{AdmitSettings, LocalWorkload, RetrySettings, RouteSettings};
use tokio::sync::watch;

pub use driver::{PodProxy, Proxies};
pub use limits::Limits;
pub use resolve::{HostNames, Resolving};
pub use socks::{Names, NamesOf};
pub use tunnel::EarlyData;
pub use worker::{WorkerThreads, Workers};

use crate::net::listen::{PortReuse, Transparency};
use crate::net::options::Liveness;

/// What the operator set about proxying.
#[derive(Debug, Clone)]
pub struct Config {
    /// Ports and address to listen on in each pod.
    pub listeners: Listeners,
    /// Mark of all packets that we send (spec in-pod 4); `None` sends unmarked.
    pub mark: Option<u32>,
    /// Whether another ztunnel may listen beside us.
    pub port_reuse: PortReuse,
    /// Whether client addresses are kept.
    pub transparency: Transparency,
    /// Keepalive of the sockets of tunnels.
    pub peers: Liveness,
    /// Keepalive of the sockets of apps, and of plain connections.
    pub apps: Liveness,
    /// How long connections wait for the control plane to announce the pod that they belong to
    /// (`UNKNOWN_WORKLOAD_TIMEOUT`).
    pub unknown_workload_timeout: Duration,
    /// How long a connection that has ended in one direction may carry nothing in the other.
    pub half_closed_timeout: Duration,
    /// Whether and for how long connections try one endpoint after the other.
    pub retry: RetrySettings,
    /// Whether what apps say first may go along with the request for their connection.
    pub early_data: EarlyData,
    /// How pods of this process reach each other.
    pub same_node: SameNode,
    /// What the receive windows of all tunnels together may be beyond their first sizes.
    pub allowance: Allowance,
    /// What one pod may take of the process.
    pub limits: Limits,
    /// Who looks up host names of endpoints.
    pub host_names: HostNames,
    /// Routing.
    pub route: RouteSettings,
    /// Admission; its `preserve_source` is what the listeners turn out to allow.
    pub admit: AdmitSettings,
    /// Receive windows and limits of tunnels we open.
    pub client: hbone::limits::Config,
    /// Receive windows and limits of tunnels we accept.
    pub server: hbone::limits::Config,
    /// Connections per tunnel (`POOL_MAX_STREAMS_PER_CONNECTION`).
    pub pool_streams: u32,
    /// How long an unused tunnel is kept (`POOL_UNUSED_RELEASE_TIMEOUT`).
    pub pool_unused_release: Duration,
}

/// How a connection goes whose two pods are both in this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SameNode {
    /// Through a tunnel, as between nodes, which NetworkPolicies see.
    Tunnel,
    /// From app to app.
    Direct,
}

/// Where a pod's listeners are (spec data-plane 1.2).
#[derive(Debug, Clone, Copy)]
pub struct Listeners {
    /// Wildcard address of the family in use.
    pub address: IpAddr,
    /// Captured connections out of the pod.
    pub outbound: u16,
    /// Captured plain connections into the pod.
    pub inbound_plaintext: u16,
    /// HBONE into the pod.
    pub inbound: u16,
    /// SOCKS5 on the pod's loopback, if it is offered.
    pub socks5: Option<u16>,
}

impl Listeners {
    fn at(&self, port: u16) -> SocketAddr {
        SocketAddr::new(self.address, port)
    }
}

/// How far a pod's proxy is from its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Phase {
    /// Accepting and carrying.
    Running,
    /// Not accepting; what is carried may finish.
    Draining,
    /// What is carried is cut.
    Forced,
}

/// Resolves once a pod's proxy has come as far as `phase`, or is gone.
async fn reached(current: &mut watch::Receiver<Phase>, phase: Phase) {
    // An error means that the proxy was dropped, which is as far as it goes.
    let _ = current.wait_for(|current| *current >= phase).await;
}

/// How a pod's proxy is to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shutdown {
    /// Connections get this long to finish (spec data-plane 18.1).
    Graceful(Duration),
    /// Connections are cut at once: the pod is gone.
    Immediate,
}

/// Whom a proxy instance stands for, as messages name it.
fn span(who: &LocalWorkload) -> tracing::Span {
    tracing::info_span!("proxy", wl = format_args!("{}/{}", who.namespace, who.name))
}

/// Shares what does not change between the pods of a process.
type SharedConfig = Arc<Config>;

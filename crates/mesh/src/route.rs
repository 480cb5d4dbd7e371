//! Where a connection that leaves a pod goes (spec data-plane 5).
//!
//! The question and the answer; the tree of decisions in between is in `route/decide.rs`. An address has one meaning
//! throughout one decision: it is looked up once, services first.

use std::net::SocketAddr;
use std::sync::Arc;

use crate::address::{Authority, canonical};
use crate::ask::{Halt, Learnt};
use crate::balance::Draw;
use crate::identity::Identity;
use crate::name::NetworkId;
use crate::permit::Permit;
use crate::retry::{Fault, Others, Past, Pick};
use crate::service::Service;
use crate::view::View;
use crate::workload::Workload;

mod decide;

use decide::Router;

/// Addresses of a host that are tried besides the first: each costs the connection a wait when it is silent, and whoever is
/// not reached at four addresses is down.
pub const MOST_OTHERS: usize = 3;

/// A connection that an app wants to make.
pub struct Outbound<'a> {
    /// What is known.
    pub view: &'a View,
    /// The workload that the app belongs to.
    pub source: &'a Arc<Workload>,
    /// The app's end of the connection.
    pub client: SocketAddr,
    /// Where the app wants to go: the original destination.
    pub target: SocketAddr,
    /// What the caller has found out since it first asked.
    pub learnt: &'a Learnt,
    /// What the operator set.
    pub settings: &'a RouteSettings,
    /// What earlier attempts came to, of this connection and of others.
    pub past: Past<'a>,
}

/// What the operator set about routing.
#[derive(Clone, Debug)]
pub struct RouteSettings {
    /// The network of this node.
    pub network: NetworkId,
    /// The port at which workloads take HBONE.
    pub hbone_port: u16,
    /// Our own ports, never a destination (spec data-plane 1.2).
    pub illegal_ports: Vec<u16>,
    /// Whether an address that is not known is asked for before it is taken for a stranger's.
    pub on_demand: bool,
}

/// Where a connection goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// How to get there.
    pub hop: Hop,
    /// The workload that the connection comes from.
    pub source: Arc<Workload>,
    /// The next hop: endpoint, waypoint or gateway; `None` if the mesh does not know it.
    pub destination: Option<Arc<Workload>>,
    /// The service meant, never a waypoint's own.
    pub service: Option<Arc<Service>>,
    /// The app's end of the connection.
    pub client: SocketAddr,
    /// Where the app wanted to go.
    pub target: SocketAddr,
    /// What was chosen last to get to the next hop; `None` if there was no choice.
    pub pick: Option<Pick>,
    /// What was chosen before that, and is reached by way of it: an endpoint behind a gateway that was itself chosen.
    pub beyond: Option<Pick>,
    /// More addresses of a next hop that is known by its host name and reached in plain TCP, at most [`MOST_OTHERS`], in
    /// the order in which they are to be tried: the families take turns (RFC 8305 §4).
    pub others: Box<[SocketAddr]>,
}

impl Route {
    /// Everything that was chosen.
    pub fn picks(&self) -> impl Iterator<Item = &Pick> {
        self.pick.iter().chain(&self.beyond)
    }

    /// The choice that a failure of this route is laid at, so that another attempt makes it differently: the way, if it was
    /// lost on the way and there are other ways; else what is beyond.
    pub fn at_fault(&self, fault: Fault) -> Option<&Pick> {
        let way = self.pick.as_ref().filter(|pick| fault != Fault::Unavailable && pick.others == Others::Left);
        way.or(self.beyond.as_ref()).or(self.pick.as_ref())
    }

    /// Leave to dial: outbound connections are never denied locally (spec data-plane 13.1).
    pub fn permit(self) -> Permit {
        Permit::outbound(self)
    }
}

/// How to get to the next hop.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Hop {
    /// Plain TCP.
    Tcp {
        /// Where to dial.
        target: SocketAddr,
    },
    /// A stream of a tunnel.
    Hbone {
        /// Where the tunnel ends.
        next: SocketAddr,
        /// What to ask for.
        authority: Authority,
        /// Identities of which the tunnel's end has to prove one.
        expect: Arc<[Identity]>,
    },
    /// A tunnel of its own within a stream of a tunnel to another network's gateway.
    DoubleHbone {
        /// Where the outer tunnel ends.
        gateway: SocketAddr,
        /// Identities of which the gateway has to prove one.
        gateway_expect: Arc<[Identity]>,
        /// What to ask for, of the gateway and then of the far end.
        authority: Authority,
        /// Identities of which the far end has to prove one.
        inner_expect: Arc<[Identity]>,
    },
}

impl Hop {
    /// The address to dial.
    pub fn dial(&self) -> SocketAddr {
        match self {
            Self::Tcp { target } => *target,
            Self::Hbone { next, .. } => *next,
            Self::DoubleHbone { gateway, .. } => *gateway,
        }
    }
}

/// Decides where a connection goes.
///
/// With [`Halt::Need`] the caller finds out what is needed, within a deadline of its own, adds it to
/// [`Outbound::learnt`] and asks again; each need is named once at most, so that this comes to an end. Give a
/// [`Replay`](crate::ask::Replay) as `draw` and rewind it before asking again, so that the choices made before stay made.
pub fn route(request: &Outbound<'_>, draw: &mut dyn Draw) -> Result<Route, Halt> {
    Router {
        request,
        client: canonical(request.client),
        target: canonical(request.target),
        draw,
        pick: None,
        beyond: None,
        others: Vec::new(),
    }
    .route()
}

#[cfg(test)]
mod tests;

//! What to do when an endpoint cannot be reached: whom to avoid for a while, and whether to try another.
//!
//! Nothing of a connection is on its way before its next hop has answered, so that until then it may as well go to
//! another endpoint of the same service. [`Attempts`] decides that for one connection, within one deadline;
//! [`Failures`] remembers for all of them who has failed lately. Both are told the time. Invariant: avoiding never
//! makes a service unreachable, since at most half of its endpoints are avoided at once, and never the last.
//!
//! Not here: whether a failure left bytes in doubt, which only those who sent them know.

mod attempts;
mod failures;

use std::time::Instant;

pub use attempts::{Attempts, Fault, Next, RetrySettings};
pub use failures::Failures;

use crate::name::{NamespacedHostname, Uid};

/// An endpoint that was chosen among those of a service: whom a failure is laid at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pick {
    /// The service that it was chosen from.
    pub service: NamespacedHostname,
    /// The port of the service.
    pub port: u16,
    /// The workload chosen.
    pub uid: Uid,
    /// What it is to the connection.
    pub role: PickRole,
    /// Whether there was anything else to choose.
    pub others: Others,
}

/// What an endpoint that was chosen is to a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PickRole {
    /// Where it ends.
    Endpoint,
    /// What it passes on the way there: a waypoint, or the gateway of another network. That the far end cannot be
    /// reached is not its fault.
    Way,
}

/// Whether there was a choice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Others {
    /// Another endpoint could have been chosen, one that this connection has not tried.
    Left,
    /// There was nothing else to choose.
    None,
}

/// What is known of earlier attempts when a route is asked for.
#[derive(Clone, Copy)]
pub struct Past<'a> {
    /// Who has failed lately, whichever connection it was.
    pub failures: &'a Failures,
    /// What this connection has tried; none of it is chosen again.
    pub tried: &'a [Pick],
    /// The time.
    pub now: Instant,
}

impl<'a> Past<'a> {
    /// Endpoints of a service that this connection has tried.
    pub(crate) fn tried(&self, service: &NamespacedHostname, port: u16) -> impl Iterator<Item = &'a Uid> {
        let of = move |pick: &&Pick| pick.service == *service && pick.port == port;
        self.tried.iter().filter(of).map(|pick| &pick.uid)
    }
}

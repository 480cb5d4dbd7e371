//! Looking in: readiness, metrics, and the admin page with the configuration dump, each on an HTTP server of its own
//! (spec admin-and-telemetry 1 and 2).
//!
//! Nothing here holds a lock that traffic waits for, and whatever takes long to print is printed on another thread. The
//! servers outlive the drain of everything else, so that the last counters can be read and a draining process says so
//! instead of looking dead.
//!
//! Not here: HTTP for users' traffic, of which there is none, and authentication: the admin server is bound to loopback.

mod body;
pub mod debug;
mod driver;
pub mod dump;
mod levels;
mod negotiate;
mod pages;
mod profile;
pub mod ready;

use std::net::SocketAddr;
use std::sync::Arc;

pub use driver::{BindError, Bound, MAX_CONNECTIONS, bind, serve};

use crate::drain::signals::Request;
use crate::telemetry::logging::Logging;
use crate::telemetry::metrics::Metrics;

/// Where the servers listen.
#[derive(Clone, Debug)]
pub struct Config {
    /// Admin: loopback of all families in use, that of IPv4 first.
    pub admin: Vec<SocketAddr>,
    /// Metrics.
    pub stats: SocketAddr,
    /// Readiness.
    pub readiness: SocketAddr,
}

/// What the servers have to tell, and whom they tell what they are asked to do.
#[derive(Debug)]
pub struct Inside {
    /// Readiness.
    pub ready: ready::Ready,
    /// Metrics.
    pub metrics: Arc<Metrics>,
    /// What is logged.
    pub logging: Logging,
    /// Asks for the end of the process.
    pub shutdown: Request,
    /// The configuration dump.
    pub dump: dump::Sources,
    /// What goes on at the moment.
    pub debug: debug::Sources,
}

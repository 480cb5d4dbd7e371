//! SOCKS5 (RFC 1928): a way out of a pod for apps that ask for it, beside the one that captures connections
//! (spec data-plane 12).
//!
//! A client says where it wants to go; from then on its connection is like a captured one, except that it is told how
//! that went: [`Front`] answers, once, when the next hop has or the last attempt has failed. Invariant: no byte behind the
//! request is read here, so that what a client sends ahead is the server's.
//!
//! Deliberately absent: authentication (the port is on the pod's loopback), BIND and UDP ASSOCIATE.

mod driver;
mod front;
mod negotiation;
mod reply;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use mesh::LocalWorkload;
use mesh::ask::Resolution;

pub(super) use driver::accept;
pub(super) use front::Front;
pub(super) use reply::Reply;

use crate::net::netns::Netns;

/// How long a client may take to say where it wants to go; a local app needs a few milliseconds.
const NEGOTIATION_TIMEOUT: Duration = Duration::from_secs(10);

/// Finds out the addresses of a name, as the apps of one pod would get them.
pub type Names = Arc<dyn Fn(String) -> Pin<Box<dyn Future<Output = Resolution> + Send>> + Send + Sync>;

/// Makes [`Names`] for a pod, given its namespace (`None`: our own).
pub type NamesOf = Arc<dyn Fn(&LocalWorkload, Option<Arc<Netns>>) -> Names + Send + Sync>;

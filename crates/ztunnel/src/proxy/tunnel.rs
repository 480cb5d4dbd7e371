//! One task per tunnel, which owns everything the tunnel touches: the TLS socket, the [`hbone::Tunnel`], and the app
//! sockets of its streams. No byte crosses a task or a lock between an app socket and the TLS socket.
//!
//! Others talk to a tunnel through its [`Handle`]: they hand over connections, ask it to check its permits again, to
//! drain or to end. What is not here: which connections go through which tunnel (`pool`), and what a request is
//! answered (`inbound`).

mod driver;
mod failure;
mod pair;
mod ready;
mod ring;
mod streams;
mod transport;
mod unanswered;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use hbone::h2::Header;
use mesh::permit::Standing;
use mesh::{Cause, Outcome, Permit};
use tokio::net::TcpStream;
use tokio::sync::mpsc;

pub(super) use driver::{ClientRole, Driver, Role, ServerRole, refused};
pub(super) use failure::Ended;
pub(super) use pair::{Broken, Half, pair};
pub(super) use transport::Transport;

use super::inbound::Patience;
use super::nested::Nested;
use super::outbound::{Failure, Pursuit};
use super::pool::PoolKey;
use crate::telemetry::{Look, Meter};

/// Commands that may wait for a tunnel's task. A tunnel takes all of them whenever it runs; more than this many can
/// only wait while it is being dialled, and then each is a connection that counts against the tunnel's streams.
const COMMANDS: usize = 1024;

/// What a tunnel's task is asked to do.
pub(super) enum Command {
    /// Carry this connection.
    Open(Box<Opening>),
    /// Policies or workloads have changed: check the permits of all streams again.
    Recheck(Patience),
    /// Lists of revoked certificates have changed: end if they name the peer's.
    Review,
    /// Tell what the kernel knows of the sockets of all streams.
    Look(Look),
    /// The pod is about to end: peers that it lets in are to find another, and what they have under way finishes.
    Retire,
    /// End in order: streams finish, no new ones start.
    Drain,
    /// End now.
    Abort,
}

/// Something that wants a stream.
pub(super) struct Opening {
    /// Which tunnels may carry it.
    pub(super) key: PoolKey,
    /// The tunnels within which such a tunnel runs, if it leads to another network.
    pub(super) through: Option<PoolKey>,
    /// `:authority` of the CONNECT request.
    pub(super) authority: String,
    /// The other headers, in order.
    pub(super) headers: Vec<(&'static str, String)>,
    /// What allowed the connection.
    pub(super) permit: Box<Permit>,
    /// Tunnels that this connection may still be moved to before it has been answered.
    pub(super) moves_left: u8,
    /// What is to be carried. What is said first, at most [`MAX_EARLY`] bytes, is kept until the answer, so that another
    /// tunnel can be given it as well.
    pub(super) passenger: Passenger,
}

/// What a stream is wanted for.
pub(super) enum Passenger {
    /// A captured connection.
    Connection(Box<Pursuit>),
    /// The tunnel of a connection to another network, which runs inside the stream.
    Tunnel(Nested),
}

impl Passenger {
    /// What went before the answer, and is kept until it comes.
    fn early(&self) -> &[u8] {
        match self {
            Self::Connection(pursuit) => &pursuit.early,
            Self::Tunnel(nested) => &nested.early,
        }
    }

    /// Ends with `outcome` before there was an answer, whatever that would have been.
    pub(super) fn finish(self, outcome: Outcome) {
        match self {
            Self::Connection(pursuit) => pursuit.meter.finish(outcome),
            Self::Tunnel(nested) => nested.finish(outcome),
        }
    }
}

/// Most bytes of an app that are sent before its request is answered.
pub(super) const MAX_EARLY: usize = 16 * 1024;

/// Whether what an app says first may leave before the peer has answered the request for its connection, which saves a
/// round trip. HTTP/2 allows it (RFC 9113 §8.5 makes all frames after the request DATA); a peer need not like it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EarlyData {
    /// It may.
    Allowed,
    /// It waits for the answer.
    Off,
}

impl Opening {
    /// The headers besides `:authority`, for HTTP/2.
    fn headers(&self) -> Vec<Header<'_>> {
        self.headers.iter().map(|(name, value)| Header::new(name, value)).collect()
    }

    /// This tunnel does not carry it: the connection goes to another endpoint, or the app sees a reset and the record the
    /// reason.
    pub(super) fn fail(self: Box<Self>, failure: Failure) {
        let Self { permit, passenger, through, .. } = *self;
        let failure = if through.is_some() { failure.behind_gateway() } else { failure };
        match passenger {
            Passenger::Connection(pursuit) => pursuit.try_again(*permit, failure),
            Passenger::Tunnel(nested) => nested.fail(failure),
        }
    }
}

/// The decision about a request that a server's tunnel received.
pub(super) enum Answer {
    /// Carry it to this app.
    Accept(Box<Accepted>),
    /// Refuse it, with the HTTP status and the code of the cause (spec data-plane 6.5).
    Refuse(Cause),
}

impl From<Result<Box<Accepted>, Cause>> for Answer {
    fn from(outcome: Result<Box<Accepted>, Cause>) -> Self {
        outcome.map_or_else(Self::Refuse, Self::Accept)
    }
}

/// An accepted request: the app is connected.
pub(super) struct Accepted {
    pub(super) app: TcpStream,
    /// What the connection is checked by when policies change.
    pub(super) standing: Option<Box<Standing>>,
    /// Version of the view that the permit was given on.
    pub(super) decided_on: u64,
    pub(super) meter: Meter,
    /// Headers of the 200.
    pub(super) headers: Vec<(&'static str, String)>,
    /// Bytes for the app before the first of the stream (a PROXY header).
    pub(super) prologue: Vec<u8>,
}

/// How others reach a tunnel's task.
#[derive(Debug, Clone)]
pub(super) struct Handle {
    commands: mpsc::Sender<Command>,
    load: Arc<Load>,
}

/// How busy a tunnel is; written by its task and by those who place connections on it.
#[derive(Debug)]
pub(super) struct Load {
    /// Connections that have been placed and not ended.
    streams: AtomicU32,
    /// How many it takes at once; none once it is at its end.
    limit: AtomicU32,
    /// Whether it moves as much as it can.
    busy: AtomicBool,
}

/// What a tunnel's task holds of its [`Handle`].
pub(super) struct Mailbox {
    pub(super) commands: mpsc::Receiver<Command>,
    pub(super) load: Arc<Load>,
}

impl Handle {
    /// A tunnel that takes `limit` connections at once, and the task's end of it.
    pub(super) fn new(limit: u32) -> (Self, Mailbox) {
        let (sender, receiver) = mpsc::channel(COMMANDS);
        let (streams, limit, busy) = (AtomicU32::new(0), AtomicU32::new(limit), AtomicBool::new(false));
        let load = Arc::new(Load { streams, limit, busy });
        (Self { commands: sender, load: Arc::clone(&load) }, Mailbox { commands: receiver, load })
    }

    /// Places a connection on the tunnel. It comes back if the tunnel is full, at its end, or not keeping up.
    pub(super) fn place(&self, opening: Box<Opening>) -> Result<(), Box<Opening>> {
        let limit = self.load.limit.load(Ordering::Acquire);
        let placed =
            self.load.streams.fetch_update(Ordering::AcqRel, Ordering::Acquire, |n| (n < limit).then_some(n + 1));
        if placed.is_err() {
            return Err(opening);
        }
        match self.commands.try_reserve() {
            Ok(place) => {
                place.send(Command::Open(opening));
                Ok(())
            }
            Err(_full_or_closed) => {
                self.load.release();
                Err(opening)
            }
        }
    }

    /// Asks for anything but a connection. A task that has ended needs nothing any more.
    pub(super) async fn tell(&self, command: Command) {
        let _ = self.commands.send(command).await;
    }

    /// Whether the task has ended or takes nothing new.
    pub(super) fn is_closed(&self) -> bool {
        self.commands.is_closed() || self.load.limit.load(Ordering::Acquire) == 0
    }

    /// Whether the tunnel moved as much as it could when it last ran, so that another connection would have to share that.
    pub(super) fn is_busy(&self) -> bool {
        self.load.busy.load(Ordering::Relaxed)
    }

    /// Connections placed on it that have not ended.
    pub(super) fn streams(&self) -> u32 {
        self.load.streams.load(Ordering::Relaxed)
    }

    /// Whether this and `other` are the same tunnel.
    pub(super) fn is(&self, other: &Self) -> bool {
        self.commands.same_channel(&other.commands)
    }
}

impl Load {
    pub(super) fn take(&self) {
        self.streams.fetch_add(1, Ordering::AcqRel);
    }

    fn release(&self) {
        self.streams.fetch_sub(1, Ordering::AcqRel);
    }

    pub(super) fn set_busy(&self, busy: bool) {
        self.busy.store(busy, Ordering::Relaxed);
    }

    fn limit_to(&self, limit: u32) {
        self.limit.fetch_min(limit, Ordering::AcqRel);
    }
}

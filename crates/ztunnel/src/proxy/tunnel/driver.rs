//! Moves the bytes of one tunnel: socket to machine, machine to apps, apps to machine, machine to socket.
//!
//! The driver is a future that is polled by its worker whenever one of its sockets, its deadline or its mailbox has
//! something. Each poll does a bounded amount of work in rounds of: commands, one read from the tunnel's socket,
//! deadline, streams that woke up, one batch to the tunnel's socket. Streams share a batch in a ring, so that none starves.

mod apps;
mod ending;
mod receiving;
mod requests;
mod sending;

use std::collections::{HashMap, VecDeque};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use hbone::error::Reason;
use hbone::h2::StreamId;
use hbone::{Outbox, Tunnel};
use mesh::{Cause, Fault};
use rustc_hash::FxBuildHasher;
use slab::Slab;
use tokio::time::Sleep;

use super::failure::{Ended, TunnelFailure};
use super::ready::ReadyQueue;
use super::ring::Ring;
use super::streams::AppStream;
use super::transport::Transport;
use super::unanswered::Unanswered;
use super::{Command, EarlyData, Load, Mailbox, Opening, Passenger};
use crate::identity::Acceptance;
use crate::proxy::inbound::InboundTunnel;
use crate::proxy::outbound::Failure;
use crate::proxy::pool::Pool;
use crate::telemetry::Census;

/// Rounds of work before other tasks of the worker get their turn: about 8 MiB of bulk out and 4 in.
const ROUNDS: usize = 8;
/// What has to be left of a batch for another stream to begin in it.
const MIN_ROOM: usize = 16 * 1024;
/// What a tunnel has to move in one turn to count as busy, or else has to be held up by its socket: many round trips of
/// messages are less.
const BUSY_TURN: usize = 1024 * 1024;
/// How long a tunnel without connections may have been silent to be used without asking: half of what it takes for a
/// keepalive of its own.
const QUIET: Duration = Duration::from_secs(5);
/// How long the peer of a tunnel that was silent may take to answer before connections go elsewhere: several round trips
/// around the world.
const PROBE_PATIENCE: Duration = Duration::from_secs(1);
/// Stands for "no deadline" in a timer, which is set again whenever one appears.
const NO_DEADLINE: Duration = Duration::from_secs(3600);
/// Reads after a deadline before it counts although the peer keeps talking: as much as a socket holds.
const MAX_OVERDUE_READS: u8 = 16;
/// What a peer answers that cannot reach what is behind it (spec data-plane 6.5).
const UNAVAILABLE: u16 = 503;
/// Connections that may wait in a client's tunnel for a stream while the peer allows no more.
const MAX_WAITING: usize = 1024;

/// Which end of the tunnel this is, and what that end needs.
pub(in crate::proxy) enum Role {
    /// Opens streams for captured connections.
    Client(ClientRole),
    /// Serves streams.
    Server(ServerRole),
}

/// What a client's tunnel needs besides connections to carry.
pub(in crate::proxy) struct ClientRole {
    /// Where connections go that this tunnel cannot take any more.
    pub(in crate::proxy) pool: Arc<Pool>,
    /// How long the tunnel is kept without a connection (`POOL_UNUSED_RELEASE_TIMEOUT`).
    pub(in crate::proxy) unused_release: Duration,
    /// Whether apps may be heard before their requests are answered. Off for good once the peer has refused that.
    pub(in crate::proxy) early_data: EarlyData,
}

/// Starts to serve a peer whose handshake is complete.
type Serve = Box<dyn FnOnce(&Tunnel) -> Arc<InboundTunnel> + Send>;

/// What a server's tunnel needs to serve requests.
pub(in crate::proxy) enum ServerRole {
    /// The handshake is not complete: the peer is not known yet. Called with its certificates once it is.
    Unauthenticated(Serve),
    /// The peer is known.
    Serving(Arc<InboundTunnel>),
    /// Between the two, while the closure runs.
    Changing,
}

/// The task of one tunnel.
pub(in crate::proxy) struct Driver {
    carrier: Transport,
    tunnel: Tunnel,
    role: Role,
    acceptance: Acceptance,
    /// Lists of revoked certificates have changed, and the peer's has not been looked at since.
    review_due: bool,
    commands: tokio::sync::mpsc::Receiver<Command>,
    load: Arc<Load>,
    streams: Slab<AppStream>,
    by_id: HashMap<StreamId, usize, FxBuildHasher>,
    ready: ReadyQueue,
    woken: Vec<u32>,
    ring: Ring,
    /// Connections for which the peer allows no stream yet; at most [`MAX_WAITING`].
    waiting: VecDeque<Box<Opening>>,
    /// Sealed bytes that the socket did not take; nothing new is sealed before they are gone.
    unsent: Option<Box<Outbox>>,
    timer: Pin<Box<Sleep>>,
    timer_at: Instant,
    /// How often the socket has been read since the timer fired.
    overdue_reads: u8,
    /// Since when a client's tunnel has carried nothing.
    unused_since: Option<Instant>,
    /// Whether connections wait to know if the peer is still there.
    doubted: bool,
    /// Bytes that the socket has brought and taken in this turn.
    moved: usize,
    half_closed: HalfClosed,
    unanswered: Unanswered,
    census: Census,
    draining: bool,
    /// Whether to drain as soon as the peer's handshake is complete.
    drains_after_greeting: bool,
}

/// What a round of work came to.
enum Round {
    Progress,
    Idle,
    Over(Ended),
}

impl Driver {
    /// Puts a tunnel in charge of what carries it.
    ///
    /// A connection that has ended in one direction may carry nothing in the other for `half_closed_timeout`, or up to
    /// twice as long.
    pub(in crate::proxy) fn new(
        carrier: Transport,
        tunnel: Tunnel,
        role: Role,
        mailbox: Mailbox,
        acceptance: Acceptance,
        half_closed_timeout: Duration,
        census: Census,
    ) -> Self {
        let now = Instant::now();
        let at = tunnel.deadline().unwrap_or(now);
        Self {
            carrier,
            tunnel,
            role,
            acceptance,
            review_due: false,
            commands: mailbox.commands,
            load: mailbox.load,
            streams: Slab::new(),
            by_id: HashMap::default(),
            ready: ReadyQueue::default(),
            woken: Vec::new(),
            ring: Ring::default(),
            waiting: VecDeque::new(),
            unsent: None,
            timer: Box::pin(tokio::time::sleep_until(at.into())),
            timer_at: at,
            overdue_reads: 0,
            unused_since: Some(now),
            doubted: false,
            moved: 0,
            half_closed: HalfClosed { timeout: half_closed_timeout, next_look: None },
            unanswered: Unanswered::default(),
            census,
            draining: false,
            drains_after_greeting: false,
        }
    }

    fn round(&mut self, cx: &mut Context<'_>) -> Round {
        let progress = match self.work(cx) {
            Ok(progress) => progress,
            Err(failure) => return Round::Over(self.fail(failure)),
        };
        if self.is_over() {
            self.say_goodbye();
            return Round::Over(Ended::Clean);
        }
        if progress { Round::Progress } else { Round::Idle }
    }

    fn work(&mut self, cx: &mut Context<'_>) -> Result<bool, TunnelFailure> {
        let mut progress = self.take_commands(cx)?;
        let heard = self.read(cx)?;
        self.check_deadline(cx, heard)?;
        self.review()?;
        progress |= heard;
        if self.doubted && !self.tunnel.is_in_doubt() {
            self.doubted = false;
            self.retry_waiting();
        }
        progress |= self.look_at_woken(cx);
        progress |= self.write(cx)?;
        Ok(progress)
    }

    fn take_commands(&mut self, cx: &mut Context<'_>) -> Result<bool, TunnelFailure> {
        let mut progress = false;
        while let Poll::Ready(Some(command)) = self.commands.poll_recv(cx) {
            progress = true;
            match command {
                Command::Open(opening) => self.open(opening),
                Command::Recheck(patience) => self.recheck(patience),
                Command::Review => self.review_due = true,
                Command::Look(look) => self.answer(&look),
                Command::Retire if matches!(self.role, Role::Client(_)) => {}
                // A peer in its handshake has come for a stream; it is told when it can be served.
                Command::Drain | Command::Retire if self.is_greeting() => self.drains_after_greeting = true,
                Command::Drain | Command::Retire => self.drain(Instant::now()),
                Command::Abort => return Err(TunnelFailure::Aborted),
            }
        }
        Ok(progress)
    }

    /// Ends the tunnel if its peer's certificate has been revoked since the handshake, or during it.
    fn review(&mut self) -> Result<(), TunnelFailure> {
        if !self.review_due || !self.tunnel.is_established() {
            return Ok(());
        }
        self.review_due = false;
        match self.tunnel.peer_certificates() {
            Some(presented) if self.acceptance.is_revoked(presented) => Err(TunnelFailure::Revoked),
            _ => Ok(()),
        }
    }

    /// Does what is due, but not while the socket still brings what came in time: after a pause of the whole process the
    /// peer's answer and its deadline are found together, and the answer counts.
    fn check_deadline(&mut self, cx: &mut Context<'_>, heard: bool) -> Result<(), TunnelFailure> {
        loop {
            // Deadlines mostly move away; the timer is only set again when one comes nearer, or when it has fired.
            let deadline = self.deadline();
            if deadline < self.timer_at {
                self.set_timer(deadline);
            }
            if self.timer.as_mut().poll(cx).is_pending() {
                self.overdue_reads = 0;
                return Ok(());
            }
            if heard && self.overdue_reads < MAX_OVERDUE_READS {
                self.overdue_reads += 1;
                return Ok(());
            }
            let now = Instant::now();
            if self.tunnel.deadline().is_some_and(|at| at <= now) {
                self.tunnel.handle_timeout(now).map_err(TunnelFailure::Machine)?;
            }
            if self.half_closed.next_look.is_some_and(|at| at <= now) {
                self.look_for_half_closed(now);
            }
            if self.unanswered.next_look().is_some_and(|at| at <= now) {
                self.leave_unanswered(now);
            }
            if self.unused_deadline().is_some_and(|at| at <= now) {
                self.drain(now);
            }
            let deadline = self.deadline();
            self.set_timer(deadline);
        }
    }

    fn deadline(&self) -> Instant {
        let looks = [self.half_closed.next_look, self.unanswered.next_look()];
        let nearest = [self.tunnel.deadline(), self.unused_deadline()].into_iter().chain(looks).flatten().min();
        nearest.unwrap_or_else(|| Instant::now() + NO_DEADLINE)
    }

    fn unused_deadline(&self) -> Option<Instant> {
        match &self.role {
            Role::Client(client) if !self.draining => self.unused_since.map(|since| since + client.unused_release),
            _ => None,
        }
    }

    fn set_timer(&mut self, at: Instant) {
        self.timer_at = at;
        self.timer.as_mut().reset(at.into());
    }

    /// Whether this is a server whose peer's handshake is not complete.
    fn is_greeting(&self) -> bool {
        matches!(&self.role, Role::Server(ServerRole::Unauthenticated(_)))
    }

    /// Nothing new from now on. Connections that are on their way to this tunnel find another one.
    fn drain(&mut self, now: Instant) {
        self.draining = true;
        self.load.limit_to(0);
        self.tunnel.shutdown(now);
    }
}

impl Future for Driver {
    type Output = Ended;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Ended> {
        self.moved = 0;
        for _ in 0..ROUNDS {
            match self.round(cx) {
                Round::Progress => {}
                Round::Idle => {
                    self.tell_census();
                    return Poll::Pending;
                }
                Round::Over(ended) => return Poll::Ready(ended),
            }
        }
        self.tell_census();
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

/// That the far side answered with something else than 200.
pub(in crate::proxy) fn refused(status: u16, reason: Option<&str>) -> Failure {
    let fault = if status == UNAVAILABLE { Fault::Unavailable } else { Fault::Final };
    let error = format!("http status: {status} {}", http_status_name(status)).trim_end().to_owned();
    Failure { peer_reason: reason.map(Box::from), ..Failure::new(fault, Cause::PeerRefused, error) }
}

/// Whether a request that failed may have led to bytes of the app having arrived somewhere. What an inner tunnel says
/// first is nobody's but its own.
fn in_doubt(sent_early: bool, opening: &Opening) -> bool {
    sent_early && matches!(opening.passenger, Passenger::Connection(_))
}

/// Whether a stream was reset with a reason that DATA before the answer may have given.
fn is_dislike(reason: Reason) -> bool {
    matches!(reason, Reason::PROTOCOL_ERROR | Reason::STREAM_CLOSED | Reason::FLOW_CONTROL_ERROR)
}

/// When to look for connections that are half closed and quiet.
struct HalfClosed {
    timeout: Duration,
    /// None while no connection is half closed.
    next_look: Option<Instant>,
}

impl HalfClosed {
    /// There is a half-closed connection.
    fn watch(&mut self) {
        if self.next_look.is_none() {
            self.next_look = Instant::now().checked_add(self.timeout);
        }
    }
}

/// Which way bytes went, as seen from the tunnel.
#[derive(Clone, Copy)]
enum Flow {
    ToApp,
    ToPeer,
}

/// Counts bytes for the connection's record: upstream is from the client that opened the connection.
fn count(role: &Role, stream: &mut AppStream, bytes: usize, flow: Flow) {
    if let Some(meter) = &mut stream.meter
        && bytes > 0
    {
        stream.seen_quiet = false;
        match (role, flow) {
            (Role::Client(_), Flow::ToPeer) | (Role::Server(_), Flow::ToApp) => meter.upstream(bytes as u64),
            (Role::Client(_), Flow::ToApp) | (Role::Server(_), Flow::ToPeer) => meter.downstream(bytes as u64),
        }
    }
}

/// Notes for the connection's record that whoever speaks in that direction has said all that it will.
fn note_end(role: &Role, stream: &mut AppStream, flow: Flow) {
    if let Some(meter) = &mut stream.meter {
        meter.ended(match (role, flow) {
            (Role::Client(_), Flow::ToPeer) | (Role::Server(_), Flow::ToApp) => mesh::End::Client,
            (Role::Client(_), Flow::ToApp) | (Role::Server(_), Flow::ToPeer) => mesh::End::Server,
        });
    }
}

/// The name of a status that ztunnels answer with (RFC 9110 §15).
fn http_status_name(status: u16) -> &'static str {
    match status {
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        429 => "Too Many Requests",
        500 => "Internal Server Error",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        _ => "",
    }
}

#[cfg(test)]
mod tests;

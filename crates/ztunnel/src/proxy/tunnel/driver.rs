//! Moves the bytes of one tunnel: socket to machine, machine to apps, apps to machine, machine to socket.
//!
//! The driver is a future that is polled by its worker whenever one of its sockets, its deadline or its mailbox has
//! something. Each poll does a bounded amount of work in rounds of: commands, one read from the tunnel's socket,
//! deadline, streams that woke up, one batch to the tunnel's socket. Streams share a batch in a ring, so that none starves.

use std::collections::{HashMap, VecDeque};
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use hbone::error::{OpenError, Reason};
use hbone::h2::{End, Event, Header, Request, ResetBy, Response, StreamId};
use hbone::{Inbox, Outbox, Tunnel};
use mesh::cause::{Meaning, REASON_HEADER, peer_reason};
use mesh::{Cause, Fault, Outcome};
use slab::Slab;
use tokio::net::TcpStream;
use tokio::time::Sleep;

use super::failure::{Ended, Progress, TunnelFailure};
use super::ready::ReadyQueue;
use super::streams::{AppStream, Pumped, ReceiveHalf, SendHalf, Stage, Turn};
use super::transport::Transport;
use super::unanswered::Unanswered;
use super::{Accepted, Answer, Broken, Command, EarlyData, Load, Mailbox, Opening, Passenger};
use crate::identity::Acceptance;
use crate::net::options::end_in_order;
use crate::proxy::copy;
use crate::proxy::inbound::{InboundTunnel, Patience, TakenBack};
use crate::proxy::nested;
use crate::proxy::outbound::{Failure, Pursuit};
use crate::proxy::pool::Pool;
use crate::proxy::scratch::{self, Reading, Run};
use crate::telemetry::{Carriers, Census, Holding, Look, StreamEnd};

/// Rounds of work before other tasks of the worker get their turn: about 8 MiB of bulk data each way.
const ROUNDS: usize = 16;
/// Smallest share of a batch that a stream is offered, so that a batch of many streams is still made of decent reads and
/// read at the other end in decent pieces; those that find no room in it are first in the next.
const MIN_SHARE: usize = 64 * 1024;
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
    by_id: HashMap<StreamId, usize>,
    ready: ReadyQueue,
    woken: Vec<u32>,
    /// Streams that may have something to send, in the order of their turns.
    ring: VecDeque<usize>,
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
            by_id: HashMap::new(),
            ready: ReadyQueue::default(),
            woken: Vec::new(),
            ring: VecDeque::new(),
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

    // --- from the tunnel's socket ---

    fn read(&mut self, cx: &mut Context<'_>) -> Result<bool, TunnelFailure> {
        match self.carrier.poll_read_ready(cx) {
            Poll::Pending => return Ok(false),
            Poll::Ready(ready) => ready.map_err(TunnelFailure::Socket)?,
        }
        let mut reading = scratch::take_reading();
        let outcome = self.read_into(&mut reading);
        scratch::give_reading(reading);
        outcome
    }

    fn read_into(&mut self, reading: &mut Reading) -> Result<bool, TunnelFailure> {
        self.tunnel.prepare(&mut reading.inbox);
        let room = reading.inbox.room();
        let asked = room.len();
        let n = match self.carrier.try_read(room) {
            Ok(0) => return Err(TunnelFailure::PeerClosed),
            Ok(n) => n,
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(false),
            Err(e) => return Err(self.carrier_failure(e)),
        };
        if n < asked {
            self.carrier.is_drained();
        }
        self.moved += n;
        reading.inbox.fill(n);
        let received = self.tunnel.receive(Instant::now(), &mut reading.inbox, &mut reading.events);
        self.authenticate();
        if self.tunnel.is_established() {
            self.census.established();
        }
        self.dispatch(reading);
        received.map_err(TunnelFailure::Machine)?;
        Ok(true)
    }

    /// Once the handshake is complete, a server knows whom it serves.
    fn authenticate(&mut self) {
        if let Role::Server(server) = &mut self.role
            && self.tunnel.is_established()
            && matches!(server, ServerRole::Unauthenticated(_))
            && let ServerRole::Unauthenticated(serve) = std::mem::replace(server, ServerRole::Changing)
        {
            *server = ServerRole::Serving(serve(&self.tunnel));
            if self.drains_after_greeting {
                self.drain(Instant::now());
            }
        }
    }

    /// Passes on what a read has brought. The payload of a stream goes to its app in one piece, however it was cut into
    /// records and frames, and before whatever else happened to the stream.
    fn dispatch(&mut self, reading: &mut Reading) {
        let mut events = std::mem::take(&mut reading.events);
        for event in events.drain(..) {
            match event {
                Event::Data { id, range, end } => reading.runs.add(id, range, end),
                Event::Reset { id, .. } => {
                    if let Some(run) = reading.runs.take(id) {
                        self.deliver(&run, &reading.inbox);
                    }
                    self.on_event(event);
                }
                other => self.on_event(other),
            }
        }
        reading.events = events;
        for run in reading.runs.all() {
            self.deliver(run, &reading.inbox);
        }
    }

    fn on_event(&mut self, event: Event) {
        match event {
            Event::Request { id, request, end } => self.on_request(id, &request, end),
            Event::Response { id, response, end } => self.on_response(id, &response, end),
            Event::Reset { id, reason, by } => self.on_reset(id, reason, by),
            Event::SendWindow { id: Some(id) } => {
                if let Some(&slot) = self.by_id.get(&id) {
                    self.unblock(slot);
                }
            }
            Event::SendWindow { id: None } => {
                let blocked: Vec<usize> =
                    self.streams.iter().filter(|(_, s)| s.send == SendHalf::Blocked).map(|(slot, _)| slot).collect();
                blocked.into_iter().for_each(|slot| self.unblock(slot));
            }
            Event::SettingsChanged => {
                if let Some(limit) = self.tunnel.peer_max_streams() {
                    self.load.limit_to(limit);
                }
                self.retry_waiting();
            }
            // The machine refuses new streams from now on; those that were not served come back as resets.
            Event::GoingAway { .. } => self.load.limit_to(0),
            Event::Data { .. } => {} // handled by the caller
        }
    }

    /// Passes a stream's payload on to its app.
    fn deliver(&mut self, run: &Run, inbox: &Inbox) {
        let slot = self.by_id.get(&run.id).copied();
        let Some((slot, stream)) = slot.and_then(|slot| Some((slot, self.streams.get_mut(slot)?))) else {
            // The app is gone already; the connection's window is everybody's.
            self.tunnel.credit(run.id, run.ranges.iter().map(ExactSizeIterator::len).sum());
            return;
        };
        if run.end.is_end() {
            stream.receive = ReceiveHalf::Ending;
            note_end(&self.role, stream, Flow::ToApp);
        }
        let outcome = stream.deliver(&run.ranges, inbox);
        self.after_delivery(slot, outcome);
    }

    fn after_delivery(&mut self, slot: usize, outcome: io::Result<usize>) {
        self.recount(slot);
        let Some(stream) = self.streams.get_mut(slot) else { return };
        match outcome {
            Ok(taken) => {
                stream.owed -= taken;
                self.tunnel.credit(stream.id, taken);
                count(&self.role, stream, taken, Flow::ToApp);
                if stream.is_complete() {
                    self.finish(slot, StreamEnd::Clean, Outcome::Complete);
                } else if stream.is_half_closed() {
                    self.half_closed.watch();
                }
            }
            Err(error) => self.app_failed(slot, &error),
        }
    }

    // --- streams ---

    fn open(&mut self, opening: Box<Opening>) {
        let unused = self.streams.is_empty() && self.waiting.len() < MAX_WAITING;
        if unused && self.tunnel.probe(Instant::now(), QUIET, PROBE_PATIENCE) {
            self.doubted = true;
            return self.waiting.push_back(opening);
        }
        match self.tunnel.open(&opening.authority, &opening.headers()) {
            Ok(id) => {
                let slot = self.insert(id, Stage::Requested(opening));
                self.queue(slot);
            }
            Err(OpenError::StreamLimit) if self.waiting.len() < MAX_WAITING => self.waiting.push_back(opening),
            Err(error) => self.move_on(opening, &error.to_string()),
        }
    }

    /// A connection that this tunnel will not carry goes to another one, or fails.
    fn move_on(&mut self, mut opening: Box<Opening>, error: &str) {
        self.load.release();
        match (&self.role, opening.moves_left.checked_sub(1)) {
            (Role::Client(client), Some(left)) => {
                opening.moves_left = left;
                client.pool.place(opening);
            }
            _ => {
                opening.fail(Failure::new(Fault::Unreachable, Cause::Http2, format!("h2 failed: {error}")));
            }
        }
    }

    fn retry_waiting(&mut self) {
        for _ in 0..self.waiting.len() {
            if let Some(opening) = self.waiting.pop_front() {
                self.open(opening);
            }
        }
    }

    fn insert(&mut self, id: StreamId, stage: Stage) -> usize {
        self.unused_since = None;
        let entry = self.streams.vacant_entry();
        let slot = entry.key();
        // Slots are dense and bounded by the stream limit.
        let (slot_waker, waker) = self.ready.waker(u32::try_from(slot).unwrap_or(u32::MAX));
        entry.insert(AppStream {
            id,
            stage,
            meter: None,
            socket: None,
            permit: None,
            spill: Vec::new(),
            spill_taken: 0,
            owed: 0,
            prologue: 0,
            replay: Vec::new(),
            sent_early: false,
            send: SendHalf::Waiting,
            receive: ReceiveHalf::Open,
            unread: false,
            counted: Holding::default(),
            answer_by: None,
            seen_quiet: false,
            slot: slot_waker,
            waker,
        });
        self.by_id.insert(id, slot);
        self.census.opened();
        slot
    }

    fn on_request(&mut self, id: StreamId, request: &Request, end: End) {
        let Role::Server(ServerRole::Serving(tunnel)) = &self.role else {
            self.tunnel.reset(id, Reason::REFUSED_STREAM);
            return;
        };
        let answer = tunnel.answer(request);
        self.load.take();
        let slot = self.insert(id, Stage::Preparing(answer));
        if let Some(stream) = self.streams.get_mut(slot) {
            if end.is_end() {
                stream.receive = ReceiveHalf::Ending;
            }
            stream.waker.wake_by_ref();
        }
    }

    fn on_response(&mut self, id: StreamId, response: &Response, end: End) {
        let status = response.status;
        let Some(&slot) = self.by_id.get(&id) else { return };
        let Some(stream) = self.streams.get_mut(slot) else { return };
        let Stage::Requested(opening) = std::mem::replace(&mut stream.stage, Stage::Closing) else { return };
        if status != 200 {
            self.tunnel.reset(id, Reason::CANCEL);
            self.remove(slot, StreamEnd::NotCarried);
            // Without a 200 there is no tunnel to the app (RFC 9110 §9.3.6): what went early has gone nowhere.
            return opening.fail(refused(status, response.headers.get(REASON_HEADER).and_then(peer_reason)));
        }
        stream.receive = if end.is_end() { ReceiveHalf::Ending } else { stream.receive };
        let Opening { permit, passenger, through, .. } = *opening;
        let pursuit = match passenger {
            Passenger::Connection(pursuit) => pursuit,
            Passenger::Tunnel(mut nested) => {
                nested.carried(&permit);
                if !stream.sent_early {
                    stream.replay = nested.early;
                }
                return self.carry(slot, Transport::Within(nested.half));
            }
        };
        pursuit.outgoing.worked(&permit);
        let Pursuit { app, mut meter, socket, early, front, trace, .. } = *pursuit;
        if through.is_some() {
            nested::reached(&mut meter, &self.tunnel, &permit, trace, response);
        }
        meter.settle();
        front.welcome(&app);
        meter.connected();
        if stream.sent_early {
            meter.upstream(early.len() as u64);
        } else {
            stream.replay = early;
        }
        stream.meter = Some(meter);
        stream.socket = Some(socket);
        stream.permit = Some(permit);
        if end.is_end() {
            note_end(&self.role, stream, Flow::ToApp);
        }
        match TcpStream::from_std(app) {
            Ok(app) => self.carry(slot, Transport::Socket(app)),
            Err(error) => self.app_failed(slot, &error),
        }
    }

    fn on_answer(&mut self, slot: usize, answer: Answer) {
        let Some(stream) = self.streams.get_mut(slot) else { return };
        let id = stream.id;
        match answer {
            Answer::Refuse(cause) => {
                let Meaning { code, status, .. } = cause.meaning();
                // Errors mean that the client has given up already.
                let _ = self.tunnel.respond(id, status, &[Header::new(REASON_HEADER, code)], End::Yes);
                self.tunnel.reset(id, Reason::NO_ERROR);
                self.remove(slot, StreamEnd::NotCarried);
            }
            Answer::Accept(accepted) => {
                let Accepted { app, permit, decided_on, meter, headers, prologue } = *accepted;
                stream.meter = Some(meter);
                stream.permit = Some(permit);
                if stream.receive != ReceiveHalf::Open {
                    note_end(&self.role, stream, Flow::ToApp);
                }
                stream.prologue = prologue.len();
                let early = std::mem::replace(&mut stream.spill, prologue);
                stream.spill.extend_from_slice(&early);
                let headers: Vec<_> = headers.iter().map(|(name, value)| Header::new(name, value)).collect();
                let _ = self.tunnel.respond(id, 200, &headers, End::No);
                self.carry(slot, Transport::Socket(app));
                if let Role::Server(ServerRole::Serving(tunnel)) = &self.role
                    && !tunnel.is_current(decided_on)
                {
                    self.recheck_one(slot, Patience::Wait);
                }
            }
        }
    }

    /// From now on bytes flow.
    fn carry(&mut self, slot: usize, app: Transport) {
        let Some(stream) = self.streams.get_mut(slot) else { return };
        stream.stage = Stage::Open(app);
        let outcome = stream.begin();
        self.queue(slot);
        self.after_delivery(slot, outcome);
    }

    fn on_reset(&mut self, id: StreamId, reason: Reason, by: ResetBy) {
        let Some(&slot) = self.by_id.get(&id) else { return };
        let Some(stream) = self.streams.get_mut(slot) else { return };
        let unprocessed = by == ResetBy::PeerGoingAway || reason == Reason::REFUSED_STREAM;
        match std::mem::replace(&mut stream.stage, Stage::Closing) {
            Stage::Requested(opening) if unprocessed || (stream.sent_early && is_dislike(reason)) => {
                if !unprocessed {
                    self.stop_early_data(&opening);
                }
                self.forget(slot, StreamEnd::NotCarried);
                self.move_on(opening, &format!("stream refused by peer: {reason}"));
            }
            Stage::Requested(opening) => {
                let fault = if in_doubt(stream.sent_early, &opening) { Fault::Final } else { Fault::Unreachable };
                self.remove(slot, StreamEnd::NotCarried);
                let error = format!("h2 failed: stream reset by peer: {reason}");
                opening.fail(Failure::new(fault, Cause::Http2, error));
            }
            Stage::Open(app) if reason == Reason::NO_ERROR && stream.receive != ReceiveHalf::Open => {
                // The peer has said everything and wants nothing more: in order (RFC 9113 §8.1).
                stream.stage = Stage::Open(app);
                stream.send = SendHalf::Ended;
                stream.unread = true;
                self.recount(slot);
                if self.streams.get(slot).is_some_and(AppStream::is_complete) {
                    self.finish(slot, StreamEnd::Clean, Outcome::Complete);
                }
            }
            Stage::Open(app) => {
                app.tell(|| Failure::lost(Cause::Http2, &format!("h2 failed: stream reset by peer: {reason}")));
                stream.stage = Stage::Open(app);
                self.finish(slot, StreamEnd::ResetByPeer, Outcome::Reset { by: self.peer_side() });
            }
            Stage::Preparing(_) | Stage::Closing => drop(self.remove(slot, StreamEnd::NotCarried)),
        }
    }

    /// The peer has refused a stream for what came before its answer: from now on it is given nothing early.
    fn stop_early_data(&mut self, opening: &Opening) {
        if let Role::Client(client) = &mut self.role {
            client.early_data = EarlyData::Off;
            client.pool.stop_early_data(&opening.key);
        }
    }

    fn unblock(&mut self, slot: usize) {
        if let Some(stream) = self.streams.get_mut(slot)
            && stream.send == SendHalf::Blocked
        {
            self.queue(slot);
        }
    }

    /// Counts what a stream holds by now.
    fn recount(&mut self, slot: usize) {
        if let Some(stream) = self.streams.get_mut(slot) {
            let now = stream.holding();
            self.census.changed(std::mem::replace(&mut stream.counted, now), now);
        }
    }

    /// Gives a stream its turn at the next batch.
    fn queue(&mut self, slot: usize) {
        if let Some(stream) = self.streams.get_mut(slot)
            && stream.send != SendHalf::Queued
            && stream.send != SendHalf::Ended
        {
            stream.send = SendHalf::Queued;
            self.ring.push_back(slot);
        }
    }

    fn look_at_woken(&mut self, cx: &mut Context<'_>) -> bool {
        let mut woken = std::mem::take(&mut self.woken);
        self.ready.take(cx.waker(), &mut woken);
        let progress = !woken.is_empty();
        for slot in woken.drain(..) {
            self.look_at(slot as usize);
        }
        self.woken = woken;
        progress
    }

    fn look_at(&mut self, slot: usize) {
        let Some(stream) = self.streams.get_mut(slot) else { return };
        stream.slot.rearm();
        match &mut stream.stage {
            Stage::Preparing(answer) => {
                let mut cx = Context::from_waker(&stream.waker);
                if let Poll::Ready(answer) = answer.as_mut().poll(&mut cx) {
                    self.on_answer(slot, answer);
                }
            }
            Stage::Open(_) => {
                let flushed = (!stream.spill.is_empty()).then(|| stream.flush_spill());
                if stream.send == SendHalf::Waiting {
                    self.queue(slot);
                }
                if let Some(outcome) = flushed {
                    self.after_delivery(slot, outcome);
                }
            }
            // A tunnel that is to run inside the stream has something to say, or has given up.
            Stage::Requested(_) => self.queue(slot),
            Stage::Closing => {}
        }
    }

    /// The app's socket failed: the peer learns that the connection was aborted (RFC 9113 §8.5).
    fn app_failed(&mut self, slot: usize, error: &io::Error) {
        let Some(stream) = self.streams.get_mut(slot) else { return };
        self.tunnel.reset(stream.id, Reason::CONNECT_ERROR);
        let (end, outcome) = if copy::is_reset(error) {
            (StreamEnd::ResetByApp, Outcome::Reset { by: self.app_side() })
        } else {
            let error = format!("io error: {error}");
            (StreamEnd::AppFailure, Outcome::failed(Cause::AppLost, error))
        };
        self.finish(slot, end, outcome);
    }

    /// Tells somebody who looks what the kernel knows of the connections that this tunnel carries.
    fn answer(&self, look: &Look) {
        for (_, stream) in &self.streams {
            if let (Some(meter), Stage::Open(app)) = (&stream.meter, &stream.stage) {
                let (app, peer) = (app.descriptor(), self.carrier.descriptor());
                look.answer(meter, Carriers { app, peer, tls_group: None });
            }
        }
    }

    /// Checks all permits again and aborts what is no longer allowed.
    fn recheck(&mut self, patience: Patience) {
        let slots: Vec<usize> = self.streams.iter().map(|(slot, _)| slot).collect();
        slots.into_iter().for_each(|slot| self.recheck_one(slot, patience));
    }

    fn recheck_one(&mut self, slot: usize, patience: Patience) {
        let Role::Server(ServerRole::Serving(tunnel)) = &self.role else { return };
        let Some(stream) = self.streams.get_mut(slot) else { return };
        let Some(permit) = &stream.permit else { return };
        let Err(TakenBack { outcome, by }) = tunnel.recheck(permit, patience) else { return };
        self.tunnel.reset(stream.id, Reason::CANCEL);
        if let Some(meter) = &mut stream.meter {
            meter.decided(by);
        }
        self.finish(slot, StreamEnd::Policy, outcome);
    }

    /// Connections whose requests have waited long enough for an answer go elsewhere.
    fn leave_unanswered(&mut self, now: Instant) {
        for slot in self.unanswered.late(&self.streams, now) {
            let Some(stream) = self.streams.get_mut(slot) else { continue };
            let Stage::Requested(opening) = std::mem::replace(&mut stream.stage, Stage::Closing) else { continue };
            self.tunnel.reset(stream.id, Reason::CANCEL);
            self.remove(slot, StreamEnd::NotCarried);
            let error = "h2 failed: the request was not answered in time".to_owned();
            opening.fail(Failure::new(Fault::TimedOut, Cause::Http2, error));
        }
    }

    /// Cuts connections of which one direction has ended long ago and the other carries nothing.
    fn look_for_half_closed(&mut self, now: Instant) {
        let mut quiet = Vec::new();
        let mut left = false;
        for (slot, stream) in &mut self.streams {
            if stream.is_half_closed() {
                if std::mem::replace(&mut stream.seen_quiet, true) {
                    quiet.push(slot);
                } else {
                    left = true;
                }
            }
        }
        self.half_closed.next_look = left.then(|| now + self.half_closed.timeout);
        for slot in quiet {
            let Some(stream) = self.streams.get_mut(slot) else { continue };
            self.tunnel.reset(stream.id, Reason::CANCEL);
            self.finish(slot, StreamEnd::HalfClosed, copy::half_closed_too_long(self.half_closed.timeout));
        }
    }

    /// Records the end of a stream and forgets it.
    fn finish(&mut self, slot: usize, end: StreamEnd, outcome: Outcome) {
        let Some(mut stream) = self.remove(slot, end) else { return };
        if let Some(meter) = &mut stream.meter {
            let app = if let Stage::Open(app) = &stream.stage { app.descriptor() } else { None };
            let (peer, tls_group) = (self.carrier.descriptor(), self.tunnel.key_exchange());
            meter.look(&outcome, Carriers { app, peer, tls_group });
        }
        if let Stage::Open(app) = stream.stage {
            match &outcome {
                Outcome::Complete => {
                    if let Some(app) = app.into_socket() {
                        end_in_order(&app);
                        if stream.unread {
                            tokio::spawn(copy::linger(app));
                        }
                    }
                }
                cut => app.cut(cut),
            }
        }
        if let Some(meter) = stream.meter {
            meter.finish(outcome);
        }
    }

    /// Takes a stream out and frees its place for another connection.
    fn remove(&mut self, slot: usize, end: StreamEnd) -> Option<AppStream> {
        let stream = self.forget(slot, end)?;
        self.load.release();
        self.retry_waiting();
        if self.streams.is_empty() {
            self.unused_since = Some(Instant::now());
        }
        Some(stream)
    }

    /// Takes a stream out.
    fn forget(&mut self, slot: usize, end: StreamEnd) -> Option<AppStream> {
        let stream = self.streams.try_remove(slot)?;
        self.census.ended(stream.counted, end);
        self.tunnel.credit(stream.id, stream.owed);
        self.by_id.remove(&stream.id);
        if stream.send == SendHalf::Queued {
            self.ring.retain(|other| *other != slot);
        }
        Some(stream)
    }

    // --- to the tunnel's socket ---

    fn write(&mut self, cx: &mut Context<'_>) -> Result<bool, TunnelFailure> {
        let mut progress = false;
        if let Some(mut outbox) = self.unsent.take() {
            progress |= self.send(cx, &mut outbox)?;
            if !outbox.is_empty() {
                self.unsent = Some(outbox);
                return Ok(progress);
            }
            scratch::give_outbox(outbox);
        }
        let pumps = !self.ring.is_empty() && self.tunnel.is_established();
        if !pumps && !self.tunnel.has_transmit() {
            return Ok(progress);
        }
        let mut outbox = scratch::take_outbox();
        if pumps {
            progress |= self.gather(&mut outbox);
        }
        let sent =
            self.tunnel.seal(&mut outbox).map_err(TunnelFailure::Machine).and_then(|()| self.send(cx, &mut outbox));
        if sent.is_ok() && !outbox.is_empty() {
            self.unsent = Some(outbox);
        } else {
            outbox.clear();
            scratch::give_outbox(outbox);
        }
        Ok(sent? || progress)
    }

    /// Fills a batch from the streams whose turn it is.
    fn gather(&mut self, outbox: &mut Outbox) -> bool {
        let mut progress = false;
        let limit = (outbox.room() / self.ring.len().max(1)).max(MIN_SHARE);
        let early_data = match &self.role {
            Role::Client(client) => client.early_data,
            Role::Server(_) => EarlyData::Off,
        };
        let turn = Turn { limit, early_data };
        while outbox.room() >= MIN_ROOM
            && let Some(slot) = self.ring.pop_front()
        {
            let Some(stream) = self.streams.get_mut(slot) else { continue };
            let mut moved = 0;
            let pumped = stream.pump(&mut self.tunnel, outbox, turn, &mut moved);
            progress |= moved > 0;
            count(&self.role, stream, moved, Flow::ToPeer);
            self.unanswered.watch(stream);
            stream.send = match pumped {
                Pumped::More => {
                    self.ring.push_back(slot);
                    SendHalf::Queued
                }
                Pumped::Full => {
                    self.ring.push_front(slot);
                    stream.send = SendHalf::Queued;
                    break;
                }
                Pumped::Waiting => SendHalf::Waiting,
                Pumped::Blocked => SendHalf::Blocked,
                Pumped::Ended => {
                    note_end(&self.role, stream, Flow::ToPeer);
                    SendHalf::Ended
                }
                Pumped::Failed(error) => {
                    stream.send = SendHalf::Waiting;
                    self.app_failed(slot, &error);
                    continue;
                }
            };
            let (is_complete, is_half_closed) = (stream.is_complete(), stream.is_half_closed());
            self.recount(slot);
            if is_complete {
                self.finish(slot, StreamEnd::Clean, Outcome::Complete);
            } else if is_half_closed {
                self.half_closed.watch();
            }
        }
        progress
    }

    /// Sends what is sealed, as far as the socket takes it. Returns whether any of it went.
    fn send(&mut self, cx: &mut Context<'_>, outbox: &mut Outbox) -> Result<bool, TunnelFailure> {
        let mut progress = false;
        while !outbox.unsent().is_empty() {
            match self.carrier.poll_write_ready(cx) {
                Poll::Pending => break,
                Poll::Ready(ready) => ready.map_err(TunnelFailure::Socket)?,
            }
            match self.carrier.try_write(outbox.unsent()) {
                Ok(n) => {
                    outbox.advance(n);
                    self.moved += n;
                    progress = true;
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                Err(e) => return Err(self.carrier_failure(e)),
            }
        }
        Ok(progress)
    }

    /// Lets metrics, and whoever places connections, see what this turn has changed.
    fn tell_census(&mut self) {
        // A handshake that the socket has not taken yet is no load.
        let moves_all_it_can = self.unsent.is_some() || self.moved >= BUSY_TURN;
        self.load.set_busy(self.tunnel.is_established() && moves_all_it_can);
        let unsent = self.unsent.as_ref().map_or(0, |outbox| outbox.unsent().len());
        self.census.tell_with(unsent);
    }

    // --- the end ---

    /// Which end of the user's connection the app at this tunnel's end is.
    fn app_side(&self) -> mesh::End {
        match self.role {
            Role::Client(_) => mesh::End::Client,
            Role::Server(_) => mesh::End::Server,
        }
    }

    fn peer_side(&self) -> mesh::End {
        match self.role {
            Role::Client(_) => mesh::End::Server,
            Role::Server(_) => mesh::End::Client,
        }
    }

    fn is_over(&self) -> bool {
        self.streams.is_empty()
            && self.waiting.is_empty()
            && self.unsent.is_none()
            && (self.draining || self.tunnel.is_going_away() || self.tunnel.is_peer_closed())
            && (self.tunnel.is_drained() || self.tunnel.is_peer_closed() || !self.tunnel.is_established())
            && !self.tunnel.has_transmit()
    }

    fn abort_streams(&mut self, end: StreamEnd, fault: Fault, outcome: impl Fn() -> Outcome) {
        let slots: Vec<usize> = self.streams.iter().map(|(slot, _)| slot).collect();
        for slot in slots {
            let Some(stream) = self.streams.get_mut(slot) else { continue };
            self.tunnel.reset(stream.id, Reason::CANCEL);
            let sent_early = stream.sent_early;
            match (std::mem::replace(&mut stream.stage, Stage::Closing), outcome()) {
                (Stage::Requested(opening), Outcome::Failed { cause, error, peer_reason }) => {
                    let fault = if in_doubt(sent_early, &opening) { Fault::Final } else { fault };
                    opening.fail(Failure { peer_reason, ..Failure::new(fault, cause, error) });
                }
                (Stage::Requested(opening), outcome) => opening.passenger.finish(outcome),
                (stage, _) => stream.stage = stage,
            }
            self.finish(slot, end, outcome());
        }
    }

    /// The tunnel cannot go on: its streams end as failed, and the peer is told as far as that is possible.
    fn fail(&mut self, failure: TunnelFailure) -> Ended {
        let established = self.tunnel.is_established();
        let progress = if established { Progress::Established } else { Progress::Greeting };
        let told = failure.told(progress, &self.carrier);
        let outcome = || match &told {
            None => Outcome::Drained,
            Some(Failure { cause, error, peer_reason, .. }) => {
                Outcome::Failed { cause: *cause, error: error.clone(), peer_reason: peer_reason.clone() }
            }
        };
        let end = if told.is_some() { StreamEnd::TunnelFailure } else { StreamEnd::Drain };
        let fault = told.as_ref().map_or(Fault::Final, |told| told.fault);
        // Nobody is to come back to this tunnel.
        self.commands.close();
        self.load.limit_to(0);
        self.abort_streams(end, fault, outcome);
        let told =
            told.unwrap_or_else(|| Failure::new(Fault::Final, Cause::TunnelLost, format!("io error: {failure}")));
        let mut left: Vec<Box<Opening>> = self.waiting.drain(..).collect();
        while let Ok(command) = self.commands.try_recv() {
            if let Command::Open(opening) = command {
                left.push(opening);
            }
        }
        // Nothing has been said of them: a tunnel that was up may be followed by another.
        let followed =
            established && matches!(self.carrier, Transport::Socket(_)) && !matches!(failure, TunnelFailure::Aborted);
        for opening in left {
            if followed {
                self.move_on(opening, &told.error);
            } else {
                opening.fail(told.clone());
            }
        }
        self.say_goodbye();
        if established { Ended::Failed(failure) } else { Ended::Handshake(failure) }
    }

    /// What it means that the carrier has failed.
    fn carrier_failure(&self, error: io::Error) -> TunnelFailure {
        match self.carrier.broken() {
            Some(Broken::Failed(failure)) => TunnelFailure::Carrier(failure),
            Some(Broken::Drained) => TunnelFailure::Aborted,
            None => TunnelFailure::Socket(error),
        }
    }

    /// One try to send what the machine still has to say; a socket that is full or gone gets nothing more.
    fn say_goodbye(&mut self) {
        let mut outbox = self.unsent.take().unwrap_or_else(scratch::take_outbox);
        self.tunnel.close(Reason::NO_ERROR, &mut outbox);
        let _ = self.carrier.try_write(outbox.unsent());
        outbox.clear();
        scratch::give_outbox(outbox);
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

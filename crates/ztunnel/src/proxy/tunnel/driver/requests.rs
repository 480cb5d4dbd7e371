//! Streams until they carry something: opened or asked for, answered, refused, reset; and their place in the ring.

use std::time::Instant;

use hbone::error::{OpenError, Reason};
use hbone::h2::{End, Header, Request, ResetBy, Response, StreamId};
use mesh::cause::{Meaning, REASON_HEADER, peer_reason};
use mesh::{Cause, Fault, Outcome};
use tokio::net::TcpStream;

use super::{
    Driver, Flow, MAX_WAITING, PROBE_PATIENCE, QUIET, Role, ServerRole, in_doubt, is_dislike, note_end, refused,
};
use crate::proxy::inbound::{Patience, Said};
use crate::proxy::outbound::{Failure, Pursuit};
use crate::proxy::tunnel::ring::Talk;
use crate::proxy::tunnel::streams::{AppStream, ReceiveHalf, SendHalf, Stage};
use crate::proxy::tunnel::transport::Transport;
use crate::proxy::tunnel::{Accepted, Answer, EarlyData, Opening, Passenger};
use crate::proxy::{nested, yielding};
use crate::telemetry::{Holding, StreamEnd};

impl Driver {
    pub(super) fn open(&mut self, opening: Box<Opening>) {
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
    pub(super) fn move_on(&mut self, mut opening: Box<Opening>, error: &str) {
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

    pub(super) fn retry_waiting(&mut self) {
        for _ in 0..self.waiting.len() {
            if let Some(opening) = self.waiting.pop_front() {
                self.open(opening);
            }
        }
    }

    pub(super) fn insert(&mut self, id: StreamId, stage: Stage) -> usize {
        self.unused_since = None;
        yielding::active(&*self.load, id.value());
        let entry = self.streams.vacant_entry();
        let slot = entry.key();
        // Slots are dense and bounded by the stream limit.
        let (slot_waker, waker) = self.ready.waker(u32::try_from(slot).unwrap_or(u32::MAX));
        entry.insert(AppStream {
            id,
            stage,
            meter: None,
            socket: None,
            standing: None,
            spill: Vec::new(),
            spill_taken: 0,
            owed: 0,
            prologue: 0,
            replay: Vec::new(),
            sent_early: false,
            send: SendHalf::Waiting,
            receive: ReceiveHalf::Open,
            talk: Talk::default(),
            bounded: false,
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

    pub(super) fn on_request(&mut self, id: StreamId, request: Request, end: End) {
        let Role::Server(ServerRole::Serving(tunnel)) = &self.role else {
            self.tunnel.reset(id, Reason::REFUSED_STREAM);
            return;
        };
        let said = Said::default();
        let answer = tunnel.answer(request, said.clone());
        self.load.take();
        let slot = self.insert(id, Stage::Preparing(answer, said));
        if let Some(stream) = self.streams.get_mut(slot) {
            if end.is_end() {
                stream.receive = ReceiveHalf::Ending;
            }
            stream.waker.wake_by_ref();
        }
    }

    pub(super) fn on_response(&mut self, id: StreamId, response: &Response, end: End) {
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
        if end.is_end() {
            note_end(&self.role, stream, Flow::ToApp);
        }
        match TcpStream::from_std(app) {
            Ok(app) => self.carry(slot, Transport::Socket(app)),
            Err(error) => self.app_failed(slot, &error),
        }
    }

    pub(super) fn on_answer(&mut self, slot: usize, answer: Answer) {
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
                let Accepted { app, standing, decided_on, meter, headers, prologue } = *accepted;
                stream.meter = Some(meter);
                stream.standing = standing;
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
    pub(super) fn carry(&mut self, slot: usize, app: Transport) {
        let Some(stream) = self.streams.get_mut(slot) else { return };
        stream.stage = Stage::Open(app);
        let outcome = stream.begin();
        self.queue(slot);
        self.after_delivery(slot, outcome);
    }

    pub(super) fn on_reset(&mut self, id: StreamId, reason: Reason, by: ResetBy) {
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
            Stage::Preparing(..) | Stage::Closing => drop(self.remove(slot, StreamEnd::NotCarried)),
        }
    }

    /// The peer has refused a stream for what came before its answer: from now on it is given nothing early.
    pub(super) fn stop_early_data(&mut self, opening: &Opening) {
        if let Role::Client(client) = &mut self.role {
            client.early_data = EarlyData::Off;
            client.pool.stop_early_data(&opening.key);
        }
    }

    pub(super) fn unblock(&mut self, slot: usize) {
        if let Some(stream) = self.streams.get_mut(slot)
            && stream.send == SendHalf::Blocked
        {
            self.queue(slot);
        }
    }

    /// Counts what a stream holds by now.
    pub(super) fn recount(&mut self, slot: usize) {
        if let Some(stream) = self.streams.get_mut(slot) {
            let now = stream.holding();
            self.census.changed(std::mem::replace(&mut stream.counted, now), now);
        }
    }

    /// Gives a stream its turn at the next batch.
    pub(super) fn queue(&mut self, slot: usize) {
        if let Some(stream) = self.streams.get_mut(slot)
            && stream.send != SendHalf::Queued
            && stream.send != SendHalf::Ended
        {
            stream.send = SendHalf::Queued;
            self.ring.push(slot, stream.talk);
        }
    }
}

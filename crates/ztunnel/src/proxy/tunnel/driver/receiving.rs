//! What the tunnel's socket brings: ciphertext in, payloads to apps in one piece, then what else happened to streams.

use std::io;
use std::task::{Context, Poll};
use std::time::Instant;

use hbone::Inbox;
use hbone::h2::Event;
use mesh::Outcome;

use super::{Driver, Flow, Role, ServerRole, count, note_end};
use crate::proxy::scratch::{Reading, Run};
use crate::proxy::tunnel::failure::TunnelFailure;
use crate::proxy::tunnel::streams::{ReceiveHalf, SendHalf};
use crate::proxy::{scratch, yielding};
use crate::telemetry::StreamEnd;

impl Driver {
    pub(super) fn read(&mut self, cx: &mut Context<'_>) -> Result<bool, TunnelFailure> {
        match self.carrier.poll_read_ready(cx) {
            Poll::Pending => return Ok(false),
            Poll::Ready(ready) => ready.map_err(TunnelFailure::Socket)?,
        }
        let mut reading = scratch::take_reading();
        let outcome = self.read_into(&mut reading);
        scratch::give_reading(reading);
        outcome
    }

    pub(super) fn read_into(&mut self, reading: &mut Reading) -> Result<bool, TunnelFailure> {
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
    pub(super) fn authenticate(&mut self) {
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
    pub(super) fn dispatch(&mut self, reading: &mut Reading) {
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

    pub(super) fn on_event(&mut self, event: Event) {
        match event {
            Event::Request { id, request, end } => self.on_request(id, request, end),
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
    pub(super) fn deliver(&mut self, run: &Run, inbox: &Inbox) {
        let slot = self.by_id.get(&run.id).copied();
        let Some((slot, stream)) = slot.and_then(|slot| Some((slot, self.streams.get_mut(slot)?))) else {
            // The app is gone already; the connection's window is everybody's.
            self.tunnel.credit(run.id, run.ranges.iter().map(ExactSizeIterator::len).sum());
            return;
        };
        yielding::active(&*self.load, run.id.value());
        if run.end.is_end() {
            stream.receive = ReceiveHalf::Ending;
            note_end(&self.role, stream, Flow::ToApp);
        }
        let outcome = stream.deliver(&run.ranges, inbox);
        self.after_delivery(slot, outcome);
    }

    pub(super) fn after_delivery(&mut self, slot: usize, outcome: io::Result<usize>) {
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
}

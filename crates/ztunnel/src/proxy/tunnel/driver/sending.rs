//! What goes to the tunnel's socket: a batch gathered from the apps of the ring, sealed and sent as far as it is taken.

use std::io;
use std::task::{Context, Poll};

use hbone::Outbox;
use mesh::Outcome;

use super::{BUSY_TURN, Driver, Flow, MIN_ROOM, Role, count, note_end};
use crate::proxy::scratch;
use crate::proxy::tunnel::EarlyData;
use crate::proxy::tunnel::failure::TunnelFailure;
use crate::proxy::tunnel::ring::{BRIEF, Talk};
use crate::proxy::tunnel::streams::{Pumped, SendHalf, Turn};
use crate::telemetry::StreamEnd;

/// What an app has said at once, at the least, whose unread bytes get a bound: the kernel has given it much more room by then
/// than connections begin with, and seldom more than the bound yet.
const MUCH: usize = 256 * 1024;

impl Driver {
    pub(super) fn write(&mut self, cx: &mut Context<'_>) -> Result<bool, TunnelFailure> {
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
    pub(super) fn gather(&mut self, outbox: &mut Outbox) -> bool {
        let mut progress = false;
        let early_data = match &self.role {
            Role::Client(client) => client.early_data,
            Role::Server(_) => EarlyData::Off,
        };
        while outbox.room() >= MIN_ROOM
            && let Some((slot, limit)) = self.ring.next(outbox.room())
        {
            let Some(stream) = self.streams.get_mut(slot) else { continue };
            let turn = Turn { limit, early_data };
            let mut moved = 0;
            let pumped = stream.pump(&mut self.tunnel, outbox, turn, &mut moved);
            progress |= moved > 0;
            if moved > 0 {
                stream.talk = if moved < BRIEF { Talk::Brief } else { Talk::Bulk };
            }
            if moved >= MUCH {
                stream.bound_unread();
            }
            count(&self.role, stream, moved, Flow::ToPeer);
            self.unanswered.watch(stream);
            stream.send = match pumped {
                Pumped::More => {
                    self.ring.push(slot, stream.talk);
                    SendHalf::Queued
                }
                Pumped::Full => {
                    self.ring.put_back(slot, stream.talk);
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
    pub(super) fn send(&mut self, cx: &mut Context<'_>, outbox: &mut Outbox) -> Result<bool, TunnelFailure> {
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
    pub(super) fn tell_census(&mut self) {
        // A handshake that the socket has not taken yet is no load.
        let moves_all_it_can = self.unsent.is_some() || self.moved >= BUSY_TURN;
        self.load.set_busy(self.tunnel.is_established() && moves_all_it_can);
        let unsent = self.unsent.as_ref().map_or(0, |outbox| outbox.unsent().len());
        self.census.tell_with(unsent);
    }
}

//! Streams that carry something, seen from their apps: what wakes them, what is looked at again, how they end.

use std::io;
use std::task::{Context, Poll};
use std::time::Instant;

use hbone::error::Reason;
use mesh::{Cause, Fault, Outcome};

use super::{Driver, Role, ServerRole};
use crate::net::options::end_in_order;
use crate::proxy::inbound::{Patience, TakenBack};
use crate::proxy::outbound::Failure;
use crate::proxy::tunnel::streams::{AppStream, SendHalf, Stage};
use crate::proxy::{copy, yielding};
use crate::telemetry::{Carriers, Look, StreamEnd};

impl Driver {
    pub(super) fn look_at_woken(&mut self, cx: &mut Context<'_>) -> bool {
        let mut woken = std::mem::take(&mut self.woken);
        self.ready.take(cx.waker(), &mut woken);
        let progress = !woken.is_empty();
        for slot in woken.drain(..) {
            self.look_at(slot as usize);
        }
        self.woken = woken;
        progress
    }

    pub(super) fn look_at(&mut self, slot: usize) {
        let Some(stream) = self.streams.get_mut(slot) else { return };
        stream.slot.rearm();
        yielding::active(&*self.load, stream.id.value());
        match &mut stream.stage {
            Stage::Preparing(answer, said) => {
                if !stream.spill.is_empty() {
                    said.something();
                }
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
    pub(super) fn app_failed(&mut self, slot: usize, error: &io::Error) {
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
    pub(super) fn answer(&self, look: &Look) {
        for (_, stream) in &self.streams {
            if let (Some(meter), Stage::Open(app)) = (&stream.meter, &stream.stage) {
                let (app, peer) = (app.descriptor(), self.carrier.descriptor());
                look.answer(meter, Carriers { app, peer, tls_group: None });
            }
        }
    }

    /// Checks all permits again and aborts what is no longer allowed.
    pub(super) fn recheck(&mut self, patience: Patience) {
        let slots: Vec<usize> = self.streams.iter().map(|(slot, _)| slot).collect();
        slots.into_iter().for_each(|slot| self.recheck_one(slot, patience));
    }

    pub(super) fn recheck_one(&mut self, slot: usize, patience: Patience) {
        let Role::Server(ServerRole::Serving(tunnel)) = &self.role else { return };
        let Some(stream) = self.streams.get_mut(slot) else { return };
        let Some(standing) = &stream.standing else { return };
        let Err(TakenBack { outcome, by }) = tunnel.recheck(standing, patience) else { return };
        self.tunnel.reset(stream.id, Reason::CANCEL);
        if let Some(meter) = &mut stream.meter {
            meter.decided(by);
        }
        self.finish(slot, StreamEnd::Policy, outcome);
    }

    /// Connections whose requests have waited long enough for an answer go elsewhere.
    pub(super) fn leave_unanswered(&mut self, now: Instant) {
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
    pub(super) fn look_for_half_closed(&mut self, now: Instant) {
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
    pub(super) fn finish(&mut self, slot: usize, end: StreamEnd, outcome: Outcome) {
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
    pub(super) fn remove(&mut self, slot: usize, end: StreamEnd) -> Option<AppStream> {
        let stream = self.forget(slot, end)?;
        self.load.release();
        self.retry_waiting();
        if self.streams.is_empty() {
            self.unused_since = Some(Instant::now());
        }
        Some(stream)
    }

    /// Takes a stream out.
    pub(super) fn forget(&mut self, slot: usize, end: StreamEnd) -> Option<AppStream> {
        let stream = self.streams.try_remove(slot)?;
        self.census.ended(stream.counted, end);
        self.tunnel.credit(stream.id, stream.owed);
        self.by_id.remove(&stream.id);
        if stream.send == SendHalf::Queued {
            self.ring.remove(slot);
        }
        Some(stream)
    }
}

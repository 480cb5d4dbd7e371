//! Time: the preface, SETTINGS and header-block deadlines, the keepalive PING, and the end in two steps.
//!
//! Invariant: there is at most one keepalive PING in flight, and none is sent while the peer is heard from; the peer's
//! own PINGs count as hearing from it, so that on an idle tunnel one end asks and the other only answers.
//!
//! Deliberately absent: measuring round trips, which is `adapt.rs`'s.

use std::time::{Duration, Instant};

use super::{Connection, Ending, Role};
use crate::error::{Fault, Reason, Violation};
use crate::h2::frame;
use crate::h2::stream::StreamId;

/// Payload of a PING that asks whether the peer is alive.
const KEEPALIVE: [u8; 8] = *b"alive?\0\0";
/// Payload of the PING between the two GOAWAYs of a graceful end.
const FAREWELL: [u8; 8] = *b"goodbye\0";

/// What the connection waits for.
#[derive(Debug)]
pub(super) struct Clock {
    started: Instant,
    last_heard: Instant,
    awaiting_preface: bool,
    awaiting_settings_ack: bool,
    /// When a frame or header block began that is not complete.
    assembling_since: Option<Instant>,
    keepalive_sent: Option<Instant>,
    /// When something has to have been heard, because somebody waits for it.
    doubted_until: Option<Instant>,
    farewell_sent: bool,
}

impl Clock {
    pub fn new(now: Instant) -> Self {
        Clock {
            started: now,
            last_heard: now,
            awaiting_preface: true,
            awaiting_settings_ack: true,
            assembling_since: None,
            keepalive_sent: None,
            doubted_until: None,
            farewell_sent: false,
        }
    }

    pub fn heard(&mut self, now: Instant) {
        self.last_heard = self.last_heard.max(now);
        self.doubted_until = None;
    }

    pub fn established(&mut self) {
        self.awaiting_preface = false;
    }

    pub fn acknowledge_settings(&mut self) {
        self.awaiting_settings_ack = false;
    }

    pub fn settings_acknowledged(&self) -> bool {
        !self.awaiting_settings_ack
    }

    /// A frame or block has begun; no effect if one was already under way.
    pub fn assembling(&mut self, now: Instant) {
        self.assembling_since.get_or_insert(now);
    }

    pub fn assembled(&mut self) {
        self.assembling_since = None;
    }

    /// Takes an echo and says which PING it answers.
    pub fn pong(&mut self, echo: [u8; 8]) -> Pong {
        match echo {
            KEEPALIVE if self.keepalive_sent.take().is_some() => Pong::Keepalive,
            FAREWELL if std::mem::take(&mut self.farewell_sent) => Pong::Farewell,
            _ => Pong::Unasked,
        }
    }
}

/// What an acknowledged PING was for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pong {
    Keepalive,
    Farewell,
    /// Nobody has sent it.
    Unasked,
}

/// The instant so much later; `None` if it lies beyond what the platform's clock can express, which never comes.
fn later(from: Instant, by: Duration) -> Option<Instant> {
    from.checked_add(by)
}

impl Connection {
    /// When [`handle_timeout`](Self::handle_timeout) must be called at the latest. Moves with every received byte, so
    /// it need only be looked at again when the previous one has passed.
    pub fn deadline(&self) -> Option<Instant> {
        if self.is_closed() {
            return None;
        }
        [
            self.preface_deadline(),
            self.settings_deadline(),
            self.assembly_deadline(),
            self.farewell_deadline(),
            self.keepalive_deadline(),
            self.growth.deadline(),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// Does what is due at `now`: sends a keepalive PING, finishes a graceful end whose PING was not answered, or gives
    /// the peer up.
    ///
    /// # Errors
    /// The end of the connection, as from [`receive`](Self::receive).
    pub fn handle_timeout(&mut self, now: Instant) -> Result<(), Fault> {
        if let Some(fault) = self.fault {
            return Err(fault);
        }
        if self.is_closed() {
            return Ok(());
        }
        let passed = |deadline: Option<Instant>| deadline.is_some_and(|deadline| deadline <= now);
        if passed(self.preface_deadline()) {
            return Err(self.fail(Violation::PrefaceTimeout));
        }
        if passed(self.settings_deadline()) {
            return Err(self.fail(Violation::SettingsTimeout));
        }
        if passed(self.assembly_deadline()) {
            return Err(self.fail(Violation::HeaderBlockTimeout));
        }
        if passed(self.farewell_deadline()) {
            self.finish_announcement();
        }
        self.look_for_quiet(now);
        if passed(self.keepalive_deadline()) {
            if self.clock.keepalive_sent.is_some() {
                return Err(self.fail(Violation::KeepaliveTimeout));
            }
            self.clock.keepalive_sent = Some(now);
            self.outbox.queue(|out| frame::put_ping(out, KEEPALIVE));
        }
        Ok(())
    }

    fn preface_deadline(&self) -> Option<Instant> {
        let waiting = self.clock.awaiting_preface;
        waiting.then(|| later(self.clock.started, self.config.preface_timeout)).flatten()
    }

    fn settings_deadline(&self) -> Option<Instant> {
        let waiting = self.clock.awaiting_settings_ack;
        waiting.then(|| later(self.clock.started, self.config.settings_timeout)).flatten()
    }

    fn assembly_deadline(&self) -> Option<Instant> {
        later(self.clock.assembling_since?, crate::limits::HEADER_BLOCK_TIMEOUT)
    }

    fn farewell_deadline(&self) -> Option<Instant> {
        match self.ending {
            Ending::Announced { since } => later(since, self.config.keepalive_timeout),
            _ => None,
        }
    }

    /// Makes sure that the peer is there, unless it was heard from within `quiet`: asks with a PING, to which something
    /// has to be heard `within` that time, or the connection fails as for want of a keepalive. Tells whether it is in doubt.
    pub fn probe(&mut self, now: Instant, quiet: Duration, within: Duration) -> bool {
        if self.is_closed() || self.clock.doubted_until.is_some() {
            return self.is_in_doubt();
        }
        if now.saturating_duration_since(self.clock.last_heard) < quiet {
            return false;
        }
        self.clock.doubted_until = later(now, within);
        if self.clock.keepalive_sent.is_none() {
            self.clock.keepalive_sent = Some(now);
            self.outbox.queue(|out| frame::put_ping(out, KEEPALIVE));
        }
        self.is_in_doubt()
    }

    /// Whether a [`probe`](Self::probe) waits to hear something.
    pub fn is_in_doubt(&self) -> bool {
        self.clock.doubted_until.is_some() && !self.is_closed()
    }

    fn keepalive_deadline(&self) -> Option<Instant> {
        let regular = self.regular_deadline();
        self.clock
            .doubted_until
            .map_or(regular, |doubted| Some(regular.map_or(doubted, |regular| regular.min(doubted))))
    }

    fn regular_deadline(&self) -> Option<Instant> {
        match self.clock.keepalive_sent {
            Some(sent) => later(sent.max(self.clock.last_heard), self.config.keepalive_timeout),
            None => later(self.clock.last_heard, self.config.keepalive_interval),
        }
    }

    /// Begins a graceful end: no new streams, those that live go on to their own ends (RFC 9113 §6.8).
    ///
    /// A server does it in two steps, GOAWAY with the highest identifier and PING first, GOAWAY with the last stream's
    /// once the PING is answered, so that streams opened meanwhile are served. A client has nothing to wait for.
    pub fn shutdown(&mut self, now: Instant) {
        if self.ending != Ending::Running {
            return;
        }
        match self.role {
            Role::Server => {
                self.ending = Ending::Announced { since: now };
                self.clock.farewell_sent = true;
                self.outbox.queue(|out| {
                    frame::put_goaway(out, StreamId::MAX, Reason::NO_ERROR, "");
                    frame::put_ping(out, FAREWELL);
                });
            }
            Role::Client => {
                self.ending = Ending::Final;
                self.queue_goaway(Reason::NO_ERROR, "");
            }
        }
    }

    /// The second step of a server's graceful end.
    pub(super) fn finish_announcement(&mut self) {
        if let Ending::Announced { .. } = self.ending {
            self.ending = Ending::Final;
            self.queue_goaway(Reason::NO_ERROR, "");
        }
    }
}

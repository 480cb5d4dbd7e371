//! How large the receive windows of streams are: small at first, larger where that helps, small again when quiet.
//!
//! While a stream has less than half of its window open, a PING measures a round trip. If the application took half a
//! window within it, the window was what held the peer up, and is doubled: that follows both the reader's pace and the
//! delay of the path, without knowing either beforehand. A reader that is slow takes little within a round trip and
//! keeps its first window, which is all that it can pin.
//!
//! Invariant: the windows of all streams together never want to be more than the connection's, so that streams whose
//! readers are slow cannot hold up the others (the first windows of very many streams excepted), and what they are
//! beyond their first size is taken from the [`Allowance`](crate::h2::Allowance) of the whole process.
//!
//! Deliberately absent: the connection's own window, which is as large as it may be from the start, since a byte that
//! counts against it counts against a stream's as well.

use std::time::{Duration, Instant};

use super::Connection;
use crate::h2::frame;
use crate::h2::stream::{Stream, StreamId};
use crate::limits::{MAX_SAMPLE_PAUSE, MIN_SAMPLE_PAUSE, QUIET};

/// Payload of a PING that measures a round trip.
const SAMPLE: [u8; 8] = *b"measure\0";

/// What is known about the path and its readers.
#[derive(Debug)]
pub(super) struct Growth {
    /// The number of the sample that is or was taken last; streams note in which they have read.
    number: u32,
    /// When the PING of the sample left, if it has not come back.
    since: Option<Instant>,
    /// When the last one came back, if one did.
    last: Option<Instant>,
    /// How long after that the next sample; longer if samples lead to nothing. Streams that no sample has been about do not
    /// wait for it: what earlier ones did says nothing of them.
    pause: Duration,
    /// When to look for streams that have gone quiet; none if all have their first window.
    quiet_at: Option<Instant>,
    round_trip: Option<Duration>,
}

/// What a stream's window is about.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Pace {
    sample: u32,
    /// Bytes taken by the application during that sample.
    read: u32,
    /// Whether anything was taken since the last look.
    busy: bool,
    /// Whether a sample has been about it since it began, or was last found quiet.
    measured: bool,
    /// What the window may be beyond its first size.
    pub(crate) extra: u32,
}

impl Growth {
    pub(super) fn new() -> Self {
        Growth { number: 0, since: None, last: None, pause: MIN_SAMPLE_PAUSE, quiet_at: None, round_trip: None }
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        self.quiet_at
    }

    fn wants_sample(&self, now: Instant, pause: Duration) -> bool {
        self.since.is_none() && self.last.is_none_or(|last| now.saturating_duration_since(last) >= pause)
    }
}

impl Pace {
    /// The application has taken `len` bytes.
    pub(super) fn read(&mut self, sample: u32, len: usize) {
        if self.sample != sample {
            self.sample = sample;
            self.read = 0;
        }
        self.read = self.read.saturating_add(u32::try_from(len).unwrap_or(u32::MAX));
        self.busy = true;
    }
}

impl Connection {
    /// The last measured round trip to the peer, including what it took the peer to answer; none before one was.
    #[must_use]
    pub fn round_trip(&self) -> Option<Duration> {
        self.growth.round_trip
    }

    /// The number of the sample in which something is read now.
    pub(super) fn sample(&self) -> u32 {
        self.growth.number
    }

    /// DATA has come for a stream whose window is narrow: is that what holds the peer up?
    pub(super) fn consider_growth(&mut self, now: Instant, id: StreamId) {
        if !self.growth.wants_sample(now, MIN_SAMPLE_PAUSE) {
            return;
        }
        let Some(stream) = self.streams.get_mut(id) else { return };
        if !std::mem::replace(&mut stream.pace.measured, true) {
            self.growth.pause = MIN_SAMPLE_PAUSE;
        }
        if self.growth.wants_sample(now, self.growth.pause) {
            self.growth.number = self.growth.number.wrapping_add(1);
            self.growth.since = Some(now);
            self.outbox.queue(|out| frame::put_ping(out, SAMPLE));
        }
    }

    /// Takes the echo of a PING, if it belongs to a sample.
    pub(super) fn is_sample(&mut self, now: Instant, echo: [u8; 8]) -> bool {
        if echo != SAMPLE {
            return false;
        }
        let Some(since) = self.growth.since.take() else { return false };
        self.growth.round_trip = Some(now.saturating_duration_since(since));
        let grown = self.grow();
        let pause = if grown { MIN_SAMPLE_PAUSE } else { (self.growth.pause * 2).min(MAX_SAMPLE_PAUSE) };
        self.growth.pause = pause;
        self.growth.last = Some(now);
        if grown {
            self.growth.quiet_at = self.growth.quiet_at.or(now.checked_add(QUIET));
        }
        true
    }

    /// Doubles the windows whose readers took half of them during the sample. Returns whether there was one.
    fn grow(&mut self) -> bool {
        let (sample, first, cap) = (self.growth.number, self.config.first_stream_window, self.config.stream_window);
        let promised = self.streams.len() * first as usize + self.streams.extra();
        let mut room = (self.config.connection_window as usize).saturating_sub(promised);
        let mut grown = Vec::new();
        for (id, stream) in self.streams.all_with_ids_mut() {
            let target = stream.receive.target();
            stream.pace.measured |= stream.pace.sample == sample;
            if stream.pace.sample == sample && stream.pace.read >= target / 2 && target < cap {
                let more = target.min(cap - target).min(u32::try_from(room).unwrap_or(u32::MAX));
                if more > 0 {
                    room -= more as usize;
                    grown.push((id, more));
                }
            }
        }
        grown.retain(|(id, more)| {
            let granted = self.streams.grant(*id, *more);
            self.streams.queue_update(*id);
            granted
        });
        !grown.is_empty()
    }

    /// Gives streams that have gone quiet their first windows back.
    pub(super) fn look_for_quiet(&mut self, now: Instant) {
        if self.growth.quiet_at.is_none_or(|at| at > now) {
            return;
        }
        self.streams.revoke(self.config.first_stream_window);
        self.growth.quiet_at = if self.streams.extra() > 0 { now.checked_add(QUIET) } else { None };
    }
}

impl Stream {
    /// Lets the window grow by `more`.
    pub(crate) fn enlarge(&mut self, more: u32) {
        self.receive.resize(self.receive.target() + more);
        self.pace.extra += more;
    }

    /// Makes the window of a quiet stream as small as it was `first`. What the peer has been promised already cannot be
    /// taken back, and stays accounted for until it has been used. Returns by how much less it is accounted for.
    pub(crate) fn calm_down(&mut self, first: u32) -> u32 {
        if !std::mem::take(&mut self.pace.busy) {
            self.receive.resize(first);
            self.pace.measured = false;
        }
        let promised = self.receive.open() + self.receive.held();
        let wanted = u32::try_from(promised).unwrap_or(u32::MAX).max(self.receive.target());
        let extra = wanted.saturating_sub(first).min(self.pace.extra);
        let less = self.pace.extra - extra;
        self.pace.extra = extra;
        less
    }
}

#[cfg(test)]
mod tests;

//! The last connections that failed, with all that is known of each: `/debug/failures`.
//!
//! A ring: what is new takes the place of what is oldest, so that it is bounded however much goes wrong. A connection that
//! succeeds costs nothing here.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use mesh::{Cause, Direction, Flow, Record, Tally};

use super::closing::Closing;

/// Failures that are kept: what somebody can read, and enough for a minute of a node in trouble.
pub const MAX_FAILURES: usize = 512;
/// Longest wording that is kept, in bytes. Texts of peers in it are bounded already; this bounds the rest.
const MAX_ERROR: usize = 1024;

/// A connection that failed.
#[derive(Clone, Debug)]
pub struct Failure {
    /// Counts failures from the start of the process, 1 is the first.
    pub number: u64,
    /// When it ended.
    pub at: SystemTime,
    /// The client's end.
    pub source: SocketAddr,
    /// Where it was going.
    pub destination: SocketAddr,
    /// Which way it was captured.
    pub direction: Direction,
    /// Why.
    pub cause: Cause,
    /// The wording of the log.
    pub error: Box<str>,
    /// The code that the peer gave, if it was the peer that refused.
    pub peer_reason: Option<Box<str>>,
    /// More about it; `None` if it ended before it was known who talks to whom.
    pub record: Option<Ended>,
}

/// What is known of a connection that came as far as being put on record.
#[derive(Clone, Debug)]
pub struct Ended {
    /// Who talked to whom.
    pub flow: Arc<Flow>,
    /// How much.
    pub tally: Tally,
    /// From its opening to its end.
    pub duration: Duration,
    /// How it was carried and closed.
    pub closing: Closing,
}

/// See the top of this file.
#[derive(Debug, Default)]
pub(super) struct Failures(Mutex<Ring>);

#[derive(Debug, Default)]
struct Ring {
    last: VecDeque<Arc<Failure>>,
    seen: u64,
}

impl Failures {
    /// Keeps a connection that ended early.
    pub(super) fn early(&self, source: SocketAddr, destination: SocketAddr, direction: Direction, why: (Cause, &str)) {
        let (cause, error) = why;
        let error = excerpt(error);
        self.keep(Failure {
            number: 0,
            at: SystemTime::now(),
            source,
            destination,
            direction,
            cause,
            error,
            peer_reason: None,
            record: None,
        });
    }

    /// Keeps a record if it is that of a failure.
    pub(super) fn record(&self, record: &Record, closing: &Closing) {
        let Some(cause) = record.outcome.cause() else { return };
        let flow = &record.flow;
        self.keep(Failure {
            number: 0,
            at: SystemTime::now(),
            source: flow.source_address,
            destination: flow.destination_address,
            direction: flow.reporter.direction(),
            cause,
            error: excerpt(record.outcome.error().unwrap_or_default()),
            peer_reason: record.outcome.peer_reason().map(Into::into),
            record: Some(Ended {
                flow: Arc::clone(flow),
                tally: record.tally,
                duration: record.duration,
                closing: closing.clone(),
            }),
        });
    }

    /// Those that are kept, the latest first, and how many there have been.
    pub(super) fn last(&self) -> (Vec<Arc<Failure>>, u64) {
        let ring = self.lock();
        (ring.last.iter().rev().cloned().collect(), ring.seen)
    }

    fn keep(&self, mut failure: Failure) {
        let mut ring = self.lock();
        ring.seen += 1;
        failure.number = ring.seen;
        let oldest = if ring.last.len() >= MAX_FAILURES { ring.last.pop_front() } else { None };
        ring.last.push_back(Arc::new(failure));
        drop(ring);
        drop(oldest);
    }

    fn lock(&self) -> MutexGuard<'_, Ring> {
        // Nothing that runs under the lock can leave the ring half changed.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn excerpt(error: &str) -> Box<str> {
    error[..error.floor_char_boundary(MAX_ERROR)].into()
}

#[cfg(test)]
mod tests {
    use mesh::Outcome;

    use super::*;
    use crate::telemetry::fixtures::outbound;

    fn ended(outcome: Outcome) -> Record {
        Record {
            flow: Arc::new(outbound()),
            tally: Tally { upstream_bytes: 1, downstream_bytes: 2 },
            duration: Duration::from_millis(3),
            outcome,
            decided: None,
        }
    }

    #[test]
    fn only_failures_are_kept_the_latest_first() {
        let failures = Failures::default();
        failures.record(&ended(Outcome::Complete), &Closing::default());
        failures.record(&ended(Outcome::Drained), &Closing::default());
        failures.record(&ended(Outcome::failed(Cause::Denied, "no".into())), &Closing::default());
        let [source, destination] = ["10.0.0.1:5", "10.0.0.2:80"].map(|address| address.parse().unwrap());
        failures.early(source, destination, Direction::Outbound, (Cause::NoHealthyUpstream, "nobody"));
        let (last, seen) = failures.last();
        assert_eq!(seen, 2);
        let told: Vec<_> = last.iter().map(|f| (f.number, f.cause, &*f.error, f.record.is_some())).collect();
        assert_eq!(told, [(2, Cause::NoHealthyUpstream, "nobody", false), (1, Cause::Denied, "no", true)]);
    }

    #[test]
    fn the_oldest_make_way_and_long_texts_are_cut() {
        let failures = Failures::default();
        for _ in 0..MAX_FAILURES + 3 {
            failures.record(&ended(Outcome::failed(Cause::Http2, "ü".repeat(MAX_ERROR))), &Closing::default());
        }
        let (last, seen) = failures.last();
        assert_eq!((last.len(), seen), (MAX_FAILURES, MAX_FAILURES as u64 + 3));
        assert_eq!((last[0].number, last[0].error.len()), (seen, MAX_ERROR));
    }
}

//! Letting others run before a worker goes to sleep, so that it is woken for more at once.
//!
//! Where many connections are small, a worker is woken for the work of microseconds, and waking it costs as much again: it
//! comes before those who sent one packet have sent the next. If it gives the processor away first, it finds what has come
//! meanwhile without having slept. The price is that the kernel lets everybody else go first. With one connection
//! that gains nothing, and beside a program that never rests it costs a time slice. So a worker yields only while it is
//! woken for one connection after the other, and not where it has to wait long for its turn again and again.

use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Sleeps after which it is decided whether to yield before the next as many.
const SLEEPS: u32 = 64;
/// Between so many sleeps at the most another connection than the last has to have had something to do: more, and they come
/// one after the other.
const SLEEPS_OF_ONE: u32 = 2;
/// Connections that have to have taken part.
const SEVERAL: u32 = 4;
/// Whoever runs for longer does so for itself and not for the same connections, unless it happens seldom.
const LONG: Duration = Duration::from_micros(2_500);
/// What a long wait counts for; a short one takes 1 back. So the balance is at one of 25.
const WEIGHT: u32 = 24;
/// From which count on waits are too long: five long ones in a row.
const TOO_LONG: u32 = 5 * WEIGHT;
/// For how long a worker does not yield then.
const RELUCTANCE: Duration = Duration::from_secs(1);

/// When one worker yields.
#[derive(Debug, Default)]
struct Yielding {
    /// The connection that had something to do last.
    last: u64,
    /// How often it was another one than before, since it was last decided.
    changes: u32,
    /// Which connections they were, by some bits of theirs.
    seen: u64,
    sleeps: u32,
    /// What was decided.
    yields: bool,
    /// See [`WEIGHT`].
    waits: u32,
    not_before: Option<Instant>,
    /// Nanoseconds for which others have run.
    total: Arc<AtomicU64>,
}

impl Yielding {
    /// A connection has something to do.
    fn active(&mut self, connection: u64) {
        if connection != self.last {
            self.last = connection;
            self.changes = self.changes.saturating_add(1);
            // Fibonacci hashing: the upper bits depend on all.
            self.seen |= 1 << (connection.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 58);
        }
    }

    /// Whether to yield before the sleep that is about to begin; if so, since when. Time is asked for only if it matters.
    fn is_due(&mut self, now: impl FnOnce() -> Instant) -> Option<Instant> {
        self.sleeps += 1;
        if self.sleeps >= SLEEPS {
            self.yields = self.changes >= SLEEPS / SLEEPS_OF_ONE && self.seen.count_ones() >= SEVERAL;
            (self.sleeps, self.changes, self.seen) = (0, 0, 0);
        }
        if !self.yields {
            return None;
        }
        let now = now();
        self.not_before.is_none_or(|at| at <= now).then_some(now)
    }

    /// Others have run from `begun` to `ended`.
    fn over(&mut self, begun: Instant, ended: Instant) {
        let waited = ended.saturating_duration_since(begun);
        self.total.fetch_add(u64::try_from(waited.as_nanos()).unwrap_or(u64::MAX), Ordering::Relaxed);
        if waited < LONG {
            self.waits = self.waits.saturating_sub(1);
            return;
        }
        self.waits += WEIGHT;
        if self.waits >= TOO_LONG {
            // The next long one is enough; short ones make up for it.
            self.waits = TOO_LONG - WEIGHT;
            self.not_before = Some(ended + RELUCTANCE);
        }
    }
}

thread_local! {
    static YIELDING: RefCell<Yielding> = RefCell::default();
}

/// Adds to `total` the nanoseconds for which this worker lets others run.
pub(super) fn count_in(total: Arc<AtomicU64>) {
    YIELDING.with_borrow_mut(|yielding| yielding.total = total);
}

/// Notes that a connection has something to do in this turn of the worker. It is known by what carries it, and by which
/// of its streams it is.
pub(super) fn active<T>(carrier: &T, stream: u32) {
    let connection = (std::ptr::from_ref(carrier) as u64).rotate_left(32) ^ u64::from(stream);
    YIELDING.with_borrow_mut(|yielding| yielding.active(connection));
}

/// To be called whenever a worker has nothing to do.
pub(super) fn before_sleep() {
    if let Some(begun) = YIELDING.with_borrow_mut(|yielding| yielding.is_due(Instant::now)) {
        std::thread::yield_now();
        YIELDING.with_borrow_mut(|yielding| yielding.over(begun, Instant::now()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHORT: Duration = Duration::from_micros(100);

    /// A worker whose sleeps take no time, and what it is woken for.
    struct Worker {
        yielding: Yielding,
        now: Instant,
        woken: u64,
    }

    impl Worker {
        fn new() -> Self {
            Self { yielding: Yielding::default(), now: Instant::now(), woken: 0 }
        }

        /// How often it yields before its next `sleeps`, each wait being so long. `which` says for which connection it is
        /// woken at which time.
        fn yields(&mut self, sleeps: u32, wait: Duration, which: impl Fn(u64) -> u64) -> u32 {
            let mut yielded = 0;
            for _ in 0..sleeps {
                self.yielding.active(which(self.woken));
                self.woken += 1;
                if let Some(begun) = self.yielding.is_due(|| self.now) {
                    self.now += wait;
                    self.yielding.over(begun, self.now);
                    yielded += 1;
                }
            }
            yielded
        }
    }

    #[test]
    fn a_worker_yields_while_several_connections_have_something_to_do() {
        let mut worker = Worker::new();
        assert_eq!(worker.yields(1_000, SHORT, |_| 7), 0, "one connection");
        assert_eq!(worker.yields(1_000, SHORT, |time| time % 2), 0, "two that take turns");
        assert_eq!(worker.yields(1_000, SHORT, |time| time / 4), 0, "one after the other, each for four times");
        worker.yields(2 * SLEEPS, SHORT, |time| time % 16);
        assert_eq!(worker.yields(1_000, SHORT, |time| time % 16), 1_000);
        worker.yields(2 * SLEEPS, SHORT, |_| 7);
        assert_eq!(worker.yields(1_000, SHORT, |_| 7), 0, "the others have gone");
    }

    #[test]
    fn a_worker_stops_yielding_to_those_who_never_rest() {
        let mut worker = Worker::new();
        let mut yields = |wait, pause| {
            worker.now += pause;
            worker.yields(1_000, wait, |time| time % 16)
        };
        assert_eq!(yields(LONG, Duration::ZERO), TOO_LONG / WEIGHT);
        assert_eq!(yields(LONG, RELUCTANCE), 1, "that it is still so is found out with one");
        assert_eq!(yields(SHORT, RELUCTANCE), 1_000, "they have gone");
        let total = LONG * (TOO_LONG / WEIGHT + 1) + SHORT * 1_000;
        assert_eq!(u128::from(worker.yielding.total.load(Ordering::Relaxed)), total.as_nanos());
    }

    #[test]
    fn a_long_wait_now_and_then_is_borne() {
        let mut worker = Worker::new();
        worker.yields(2 * SLEEPS, SHORT, |time| time % 16);
        for _ in 0..100 {
            assert_eq!(worker.yields(1, LONG, |time| time % 16), 1);
            assert_eq!(worker.yields(WEIGHT, SHORT, |time| time % 16), WEIGHT);
        }
    }
}

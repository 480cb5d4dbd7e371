//! How long to wait before the next connection to the agent.
//!
//! Every connection is preceded by a wait, whatever ended the one before, so that no failure makes a busy loop.

use std::time::Duration;

/// First and longest wait (spec wire-protocols 7).
const RANGE: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(15));

/// Doubles with each wait until it is reset.
#[derive(Debug)]
pub(super) struct Backoff(Duration);

impl Backoff {
    pub(super) const fn new() -> Self {
        Self(RANGE.0)
    }

    /// The next wait, made uneven by `chance` between 0 and 1, so that nodes do not move in step.
    pub(super) fn next(&mut self, chance: f64) -> Duration {
        let wait = self.0.mul_f64(0.8 + 0.4 * chance.clamp(0.0, 1.0));
        self.0 = (self.0 * 2).min(RANGE.1);
        wait
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_from_20_milliseconds_to_15_seconds() {
        let mut backoff = Backoff::new();
        let waits: Vec<_> = (0..12).map(|_| backoff.next(0.5).as_millis()).collect();
        assert_eq!(waits, [20, 40, 80, 160, 320, 640, 1280, 2560, 5120, 10240, 15000, 15000]);
    }

    #[test]
    fn chance_moves_a_wait_by_a_fifth() {
        for (chance, wait) in [(0.0, 16), (1.0, 24), (f64::MAX, 24), (-1.0, 16)] {
            assert_eq!(Backoff::new().next(chance).as_millis(), wait);
        }
    }
}

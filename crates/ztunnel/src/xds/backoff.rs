//! How long to wait before the next conversation with the control plane.
//!
//! Every conversation is preceded by a wait, whatever ended the one before, so that no failure makes a busy loop, and
//! every wait is varied, so that nodes do not move in step (spec state-and-dns 2.6 has the values).

use std::time::Duration;

/// First and longest wait.
const RANGE: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(15));
/// A conversation that lasted this long was a success: the next wait is the first again.
const STABLE: Duration = Duration::from_secs(30);

/// Doubles with each conversation that ended early.
#[derive(Debug)]
pub(super) struct Backoff(Duration);

impl Backoff {
    pub(super) const fn new() -> Self {
        Self(RANGE.0)
    }

    /// The wait after a conversation of that length, varied by `chance` between 0 and 1.
    pub(super) fn after(&mut self, lasted: Duration, chance: f64) -> Duration {
        if lasted >= STABLE {
            self.0 = RANGE.0;
        }
        let wait = self.0.mul_f64(0.5 + chance.clamp(0.0, 1.0));
        self.0 = (self.0 * 2).min(RANGE.1);
        wait
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_until_a_conversation_has_lasted() {
        let mut backoff = Backoff::new();
        let waits: Vec<_> = (0..12).map(|_| backoff.after(Duration::ZERO, 0.5).as_millis()).collect();
        assert_eq!(waits, [20, 40, 80, 160, 320, 640, 1280, 2560, 5120, 10240, 15000, 15000]);
        assert_eq!(backoff.after(STABLE - Duration::from_millis(1), 0.5).as_millis(), 15000);
        assert_eq!(backoff.after(STABLE, 0.5).as_millis(), 20);
    }

    #[test]
    fn no_wait_is_nothing_and_chance_moves_it_by_half() {
        for (chance, wait) in [(0.0, 10), (1.0, 30), (f64::MAX, 30), (-1.0, 10)] {
            assert_eq!(Backoff::new().after(Duration::ZERO, chance).as_millis(), wait);
        }
    }
}

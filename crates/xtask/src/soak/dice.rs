//! Numbers that look like chance and are the same in every run with the same seed.
//!
//! They need not be good: what they choose is lives, waits and faults.

use std::time::Duration;

/// A generator (xorshift).
#[derive(Debug)]
pub(super) struct Dice(u64);

impl Dice {
    /// One of a family: `number` tells those of a seed apart.
    pub(super) fn new(seed: u64, number: u64) -> Self {
        // Neighbours must not begin alike, and none may begin with 0.
        Self(seed.wrapping_add(number).wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub(super) fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        // The high bits of a small seed are poor at first, the product's are not.
        (self.0.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 33) as usize % bound.max(1)
    }

    /// A whole number of milliseconds, less than `longest`.
    pub(super) fn time(&mut self, longest: Duration) -> Duration {
        Duration::from_millis(self.below(longest.as_millis() as usize) as u64)
    }

    /// Sleeps for less than `longest`.
    pub(super) fn wait(&mut self, longest: Duration) {
        std::thread::sleep(self.time(longest));
    }
}

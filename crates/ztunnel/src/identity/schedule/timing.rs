//! When to ask the CA again: half-life of a certificate, backoff after a failure, and the two clocks these live on.
//!
//! Certificates are dated by the wall clock, waiting is measured by the monotonic one. Every call brings both, so a
//! step of the wall clock or a suspended machine moves refreshes with it instead of leaving them behind. Pure
//! arithmetic: nothing here reads a clock or draws a random number.

use std::time::{Duration, Instant, SystemTime};

/// A certificate that has just arrived is not refreshed sooner than this, whatever its dates say: a CA that hands out
/// half-expired certificates must not be asked in a loop.
pub const REFRESH_FLOOR: Duration = Duration::from_secs(5);
/// The same for a certificate that would end before: it is refreshed while it lasts, if it lasts this long.
pub const REFRESH_FLOOR_OF_SHORT_LIVES: Duration = Duration::from_secs(1);
/// Refreshes are spread over this part of the lifetime to either side of half-life, so that certificates issued in one
/// burst do not come back in one.
const REFRESH_SPREAD: f64 = 0.1;

/// First delay after a failure (spec identity-and-tls 4).
const BACKOFF_FIRST: Duration = Duration::from_secs(1);
/// Longest delay after a failure (spec identity-and-tls 4).
pub const BACKOFF_CAP: Duration = Duration::from_secs(150);
/// Delays are varied by this part of themselves to either side (spec identity-and-tls 4).
const BACKOFF_SPREAD: f64 = 0.2;
/// Failures after which the delay has reached its cap for certain; more are not counted.
const BACKOFF_STEPS: u32 = 16;

/// One moment on both clocks.
#[derive(Debug, Clone, Copy)]
pub struct Now {
    /// Monotonic: for delays.
    pub instant: Instant,
    /// Wall clock: for the dates of certificates.
    pub wall: SystemTime,
}

impl Now {
    /// The monotonic moment at which the wall clock shows `wall`, if it runs undisturbed.
    pub(super) fn instant_of(self, wall: SystemTime) -> Instant {
        match wall.duration_since(self.wall) {
            Ok(ahead) => self.instant + ahead,
            Err(past) => self.instant.checked_sub(past.duration()).unwrap_or(self.instant),
        }
    }
}

/// A random number from −1 to 1, drawn by the caller.
#[derive(Debug, Clone, Copy)]
pub struct Jitter(f64);

impl Jitter {
    /// No deviation.
    pub const NONE: Self = Self(0.0);

    /// Takes `random`, which is held to −1..=1.
    #[must_use]
    pub fn new(random: f64) -> Self {
        Self(if random.is_finite() { random.clamp(-1.0, 1.0) } else { 0.0 })
    }

    /// `part` of the whole, varied.
    fn around(self, part: f64, spread: f64) -> f64 {
        part + spread * self.0
    }
}

/// The dates between which a certificate is valid, both ends included, in whole seconds (RFC 5280 §4.1.2.5).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Validity {
    /// First second of validity.
    pub not_before: SystemTime,
    /// Last second of validity.
    pub not_after: SystemTime,
}

impl Validity {
    /// Whether the last second has not passed. A certificate that is not valid yet counts as usable: the clocks of its
    /// CA and its peers may be right and ours behind.
    #[must_use]
    pub fn lasts(&self, wall: SystemTime) -> bool {
        match wall.duration_since(self.not_after) {
            Ok(past) => past < Duration::from_secs(1),
            Err(_) => true,
        }
    }

    /// When to replace a certificate that arrived `now`: at half its life, or at half of what is left of it if that has
    /// passed already (CAs date certificates back to allow for slow clocks, which matters for very short lives).
    pub(super) fn refresh(&self, now: Now, jitter: Jitter) -> SystemTime {
        let life = |from: SystemTime| self.not_after.duration_since(from).unwrap_or_default();
        let half = self.not_before + life(self.not_before) / 2;
        let from = if half > now.wall { self.not_before } else { now.wall };
        let due = from + life(from).mul_f64(jitter.around(0.5, REFRESH_SPREAD));
        let floor = REFRESH_FLOOR.min(life(now.wall) / 2).max(REFRESH_FLOOR_OF_SHORT_LIVES);
        due.min(self.not_after).max(now.wall + floor)
    }
}

/// The delay after the given number of failures in a row, at least 1.
pub(super) fn backoff(failures: u32, jitter: Jitter) -> Duration {
    let doublings = failures.saturating_sub(1).min(BACKOFF_STEPS);
    let delay = BACKOFF_FIRST * 2u32.pow(doublings);
    delay.min(BACKOFF_CAP).mul_f64(jitter.around(1.0, BACKOFF_SPREAD)).min(BACKOFF_CAP)
}

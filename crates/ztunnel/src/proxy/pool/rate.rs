//! How many connections a second are placed, and so on how many tunnels.
//!
//! A tunnel is one task, and so is never more than one core, at either end. Where very many connections come, each of them
//! short, no tunnel has much to move and yet all that establishing them takes is done by one thread.

use std::time::{Duration, Instant};

/// Connections a second that one tunnel is enough for.
const ENOUGH: u32 = 1_000;
/// Over which they are counted.
const SPAN: Duration = Duration::from_millis(250);

/// Counts connections.
#[derive(Debug)]
pub(super) struct Rate {
    since: Instant,
    count: u32,
    /// Of the span before, for a second.
    before: u32,
}

impl Rate {
    /// None so far.
    pub(super) fn new(now: Instant) -> Self {
        Self { since: now, count: 0, before: 0 }
    }

    /// One more. Tells how many tunnels there should be for so many.
    pub(super) fn one_more(&mut self, now: Instant) -> usize {
        let passed = now.saturating_duration_since(self.since);
        if passed >= SPAN {
            let a_second = u128::from(self.count) * 1_000 / passed.as_millis();
            (self.since, self.count, self.before) = (now, 0, u32::try_from(a_second).unwrap_or(u32::MAX));
        }
        self.count = self.count.saturating_add(1);
        1 + (self.before / ENOUGH) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many tunnels there should be after a second of so many connections, evenly spread.
    fn after(rate: &mut Rate, connections: u32) -> usize {
        let start = rate.since;
        let at = |n: u32| start + Duration::from_secs(1) * n / connections;
        (1..=connections).map(|n| rate.one_more(at(n))).last().unwrap_or_default()
    }

    #[test]
    fn very_many_connections_want_more_tunnels_until_they_are_few_again() {
        let mut rate = Rate::new(Instant::now());
        assert_eq!(after(&mut rate, 900), 1);
        assert_eq!(after(&mut rate, 1_100), 2);
        assert_eq!(after(&mut rate, 3_500), 4);
        assert_eq!(after(&mut rate, 4), 1);
    }

    #[test]
    fn a_burst_is_not_a_rate() {
        let start = Instant::now();
        let mut rate = Rate::new(start);
        (0..500).for_each(|_| assert_eq!(rate.one_more(start), 1));
        assert_eq!(rate.one_more(start + Duration::from_secs(10)), 1);
    }
}

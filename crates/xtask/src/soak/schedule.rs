//! Which fault comes when: one at a time, with pauses between, the same for the same seed.
//!
//! Faults are drawn from a bag that is filled anew when it is empty, so that each kind has its turn. Invariant: every one
//! is over, and so is the time to recover from it, before the run ends; ztunnels are killed in the first half only, so
//! that those that live at the end have had time to show what they leak.
//!
//! It has no clock: it is told what time it is.

use std::time::Duration;

use super::dice::Dice;
use super::faults::Kind;

/// Before the first fault: for connections to come about.
const WARM_UP: Duration = Duration::from_secs(5);
/// After the last one: everything has to go on as if nothing had been.
const COOL_DOWN: Duration = Duration::from_secs(5);
/// Between two faults, beside the time for which the first one has consequences: at least, and how much more at most.
const PAUSE: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(4));

/// A fault that is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Due {
    pub(super) kind: Kind,
    /// From the beginning of the run.
    pub(super) at: Duration,
    pub(super) lasts: Duration,
}

#[derive(Debug)]
pub(super) struct Schedule {
    dice: Dice,
    kinds: Vec<Kind>,
    bag: Vec<Kind>,
    length: Duration,
    /// When the last one has passed without a trace.
    clear: Duration,
}

impl Schedule {
    /// For a run of that length.
    pub(super) fn new(kinds: &[Kind], seed: u64, length: Duration) -> Self {
        Self { dice: Dice::new(seed, 0), kinds: kinds.to_vec(), bag: Vec::new(), length, clear: WARM_UP }
    }

    /// The next fault, if there is time for one; `now` is when the one before was undone.
    pub(super) fn next(&mut self, now: Duration) -> Option<Due> {
        let at = now.max(self.clear) + PAUSE.0 + self.dice.time(PAUSE.1);
        let kind = self.draw(at).or_else(|| {
            self.bag.extend(&self.kinds);
            self.draw(at)
        })?;
        let range = kind.profile().lasts;
        let lasts = Duration::from_secs(range.start) + self.dice.time(Duration::from_secs(range.end - range.start));
        Some(Due { kind, at, lasts })
    }

    /// The fault before was undone at this time.
    pub(super) fn undone(&mut self, kind: Kind, at: Duration) {
        self.clear = at + kind.profile().aftermath;
    }

    /// Any of those in the bag for which there is time.
    fn draw(&mut self, at: Duration) -> Option<Kind> {
        let length = self.length;
        let fits = |kind: Kind| {
            let over = at + Duration::from_secs(kind.profile().lasts.end) + kind.profile().aftermath;
            over + COOL_DOWN <= length && (kind != Kind::ZtunnelKilled || at <= length / 2)
        };
        let fitting: Vec<usize> = (0..self.bag.len()).filter(|&index| fits(self.bag[index])).collect();
        let chosen = fitting.get(self.dice.below(fitting.len()))?;
        Some(self.bag.swap_remove(*chosen))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    fn run(seed: u64, length: Duration) -> Vec<Due> {
        let mut schedule = Schedule::new(&Kind::ALL, seed, length);
        let (mut now, mut all) = (Duration::ZERO, Vec::new());
        while let Some(due) = schedule.next(now) {
            now = due.at + due.lasts;
            schedule.undone(due.kind, now);
            all.push(due);
        }
        all
    }

    #[test]
    fn the_same_seed_gives_the_same_faults() {
        assert_eq!(run(7, HOUR), run(7, HOUR));
        assert_ne!(run(7, HOUR), run(8, HOUR));
    }

    #[test]
    fn there_is_one_fault_at_a_time_and_a_pause_after_its_consequences() {
        for pair in run(1, HOUR).windows(2) {
            let clear = pair[0].at + pair[0].lasts + pair[0].kind.profile().aftermath;
            assert!(pair[1].at >= clear + PAUSE.0, "{pair:?}");
        }
    }

    #[test]
    fn all_is_over_before_the_end() {
        for seed in 0..20 {
            for due in run(seed, Duration::from_secs(200)) {
                let over = due.at + due.lasts + due.kind.profile().aftermath;
                assert!(over + COOL_DOWN <= Duration::from_secs(200), "{due:?}");
            }
        }
    }

    #[test]
    fn every_kind_has_its_turn_in_an_hour() {
        let all = run(3, HOUR);
        assert!(Kind::ALL.iter().all(|kind| all.iter().any(|due| due.kind == *kind)), "{all:?}");
    }

    #[test]
    fn ztunnels_are_killed_in_the_first_half_only() {
        let killed = |due: &Due| due.kind == Kind::ZtunnelKilled;
        assert!((0..20).flat_map(|seed| run(seed, HOUR)).filter(killed).all(|due| due.at <= HOUR / 2));
    }

    #[test]
    fn a_run_that_is_too_short_or_without_kinds_has_no_faults() {
        assert_eq!(run(1, Duration::from_secs(10)), []);
        assert_eq!(Schedule::new(&[], 1, HOUR).next(Duration::ZERO), None);
    }
}

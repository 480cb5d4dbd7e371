//! Resident memory of a process in the course of a soak, and whether it stays as it was.
//!
//! Between faults it does, to a few KiB. While a link is cut, each tunnel over it holds what its apps go on saying, and when
//! that has gone the allocator keeps some of it, in holes between what stays. That is seen with the first cut and not
//! again with each (2 to 8 MiB, with five cuts in a row as with one), so that it has a bound of its own; what leaks at all
//! leaks with every one of some hundred thousand connections, in a cut or not.

use std::time::Duration;

/// How much more there may be in the last fifth of a process's life, on average, than in the second fifth, but for what
/// came with cut links. The load is random.
const FLAT: f64 = 1.10;
/// The same where faults come between: what a fault makes wait is there for seconds, of fifths that may be short.
const FLAT_WITH_FAULTS: f64 = 1.25;
/// What cut links may leave, in KiB.
const LEFT_BY_CUTS_KIB: f64 = 16.0 * 1024.0;
/// Fifths of a shorter life are no averages: they are as long as one fault and its aftermath. Half of a run of the usual
/// length is more.
const LONG_ENOUGH: Duration = Duration::from_secs(240);

/// Looks at one process, evenly over its life.
#[derive(Debug, Default)]
pub(super) struct Memory(Vec<Look>);

#[derive(Debug, Clone, Copy)]
struct Look {
    resident_kib: f64,
    /// By how much all cuts so far have changed it.
    by_cuts_kib: f64,
}

impl Memory {
    /// Adds a look; `cut` says whether since the last one a link was cut, or had been shortly before.
    pub(super) fn look(&mut self, resident_kib: f64, cut: bool) {
        let last = self.0.last().copied().unwrap_or(Look { resident_kib, by_cuts_kib: 0.0 });
        let change = if cut { resident_kib - last.resident_kib } else { 0.0 };
        self.0.push(Look { resident_kib, by_cuts_kib: last.by_cuts_kib + change });
    }

    /// The average of a fifth of the process's life, counted from 0, in KiB.
    pub(super) fn fifth_kib(&self, number: usize) -> f64 {
        self.fifth(number, |look| look.resident_kib)
    }

    /// How much cut links have left, in KiB.
    pub(super) fn left_by_cuts_kib(&self) -> f64 {
        self.0.last().map_or(0.0, |look| look.by_cuts_kib)
    }

    /// How many times the second fifth the last one is, but for what came with cut links.
    pub(super) fn growth(&self) -> f64 {
        let level = |look: Look| look.resident_kib - look.by_cuts_kib;
        self.fifth(4, level) / self.fifth(1, level)
    }

    /// What is wrong with it, in a process of this age; one that has not lived long enough to tell is all right.
    pub(super) fn wrong(&self, whose: &str, age: Duration, faults: bool) -> Vec<String> {
        let (mut wrong, most) = (Vec::new(), if faults { FLAT_WITH_FAULTS } else { FLAT });
        if age >= LONG_ENOUGH && self.growth() > most {
            let growth = self.growth();
            wrong.push(format!(
                "the memory of the {whose} ztunnel is not flat: {growth:.3} times what it was, not {most}, without what came \
                 with cut links"
            ));
        }
        if self.left_by_cuts_kib() > LEFT_BY_CUTS_KIB {
            let [left, most] = [self.left_by_cuts_kib(), LEFT_BY_CUTS_KIB].map(|kib| kib / 1024.0);
            wrong.push(format!(
                "cut links have left {left:.1} MiB of the {whose} ztunnel's memory occupied, not {most:.0}"
            ));
        }
        wrong
    }

    fn fifth(&self, number: usize, of: impl Fn(Look) -> f64) -> f64 {
        let length = (self.0.len() / 5).max(1);
        let part: Vec<f64> = self.0.iter().copied().skip(number * length).take(length).map(of).collect();
        part.iter().sum::<f64>() / part.len().max(1) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A hundred looks; `kib` says what there is at each, and `cut` at which a link was.
    fn memory(kib: impl Fn(u32) -> f64, cut: impl Fn(u32) -> bool) -> Memory {
        let mut memory = Memory::default();
        (0..100).for_each(|number| memory.look(kib(number), cut(number)));
        memory
    }

    fn is_flat(memory: &Memory) -> bool {
        memory.wrong("client's", LONG_ENOUGH, true).is_empty()
    }

    #[test]
    fn memory_is_flat_if_its_last_fifth_is_as_its_second() {
        assert!(is_flat(&memory(|_| 100.0, |_| false)));
        let rising = memory(|number| 100.0 + f64::from(number), |_| false);
        assert!(!is_flat(&rising));
        assert!(rising.wrong("client's", LONG_ENOUGH / 2, true).is_empty(), "too short to tell");
    }

    #[test]
    fn a_step_is_forgiven_only_where_a_link_was_cut() {
        let step = |number| if number < 60 { 100.0 } else { 160.0 };
        assert!(!is_flat(&memory(step, |_| false)));
        assert!(!is_flat(&memory(step, |number| number == 50)));
        let at_cut = memory(step, |number| number == 60);
        assert!(is_flat(&at_cut));
        assert_eq!((at_cut.left_by_cuts_kib(), at_cut.growth()), (60.0, 1.0));
        assert_eq!(at_cut.fifth_kib(4), 160.0, "what is told is what there is");
    }

    #[test]
    fn what_goes_again_with_the_cut_leaves_nothing() {
        let peak = |number| if number == 60 { 1e6 } else { 100.0 };
        assert_eq!(memory(peak, |number| (60..62).contains(&number)).left_by_cuts_kib(), 0.0);
    }

    #[test]
    fn what_rises_beside_cuts_is_not_flat() {
        let rising = |number| 100.0 + f64::from(number);
        assert!(!is_flat(&memory(rising, |number| number % 10 == 0)));
    }

    #[test]
    fn cuts_may_not_leave_more_than_their_bound() {
        let stairs = |number| 1000.0 * f64::from(number / 10 * 2);
        assert!(!is_flat(&memory(stairs, |number| number % 10 == 0)), "9 cuts leave 2,000 KiB each");
    }
}

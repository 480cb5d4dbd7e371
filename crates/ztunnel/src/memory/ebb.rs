//! When load has gone: the moment to give back what it occupied.
//!
//! The allocator is asked only then. Under load what is free now is needed in a moment, and to give it back takes locks
//! that everybody waits for.

use std::time::Duration;

/// Between two looks at the load.
pub(super) const LOOK: Duration = Duration::from_secs(5);
/// Less than this is not worth the while.
const WORTH: usize = 8 << 20;
/// Load has gone when no more than this part of what it was at most is left.
const LEFT: usize = 4;

/// What was seen of the load, in bytes that it occupies.
#[derive(Debug, Default)]
pub(super) struct Ebb {
    /// The most since something was given back.
    most: usize,
    /// Whether it had gone at the last look already.
    gone: bool,
}

impl Ebb {
    /// Takes a look. Returns whether to give back now: load was worth it, and has been gone for two looks.
    pub(super) fn look(&mut self, load: usize) -> bool {
        self.most = self.most.max(load);
        let gone = self.most >= WORTH && load <= self.most / LEFT;
        if gone && self.gone {
            *self = Self { most: load, gone: false };
            return true;
        }
        self.gone = gone;
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MUCH: usize = 64 << 20;

    fn looks(loads: &[usize]) -> Vec<bool> {
        let mut ebb = Ebb::default();
        loads.iter().map(|load| ebb.look(*load)).collect()
    }

    #[test]
    fn memory_is_given_back_once_when_load_has_been_gone_for_two_looks() {
        assert_eq!(looks(&[0, MUCH, 0, 0, 0, 0]), [false, false, false, true, false, false]);
    }

    #[test]
    fn nothing_is_given_back_under_load_or_in_a_pause_of_it() {
        assert_eq!(looks(&[MUCH, MUCH / 2, MUCH, 0, MUCH, 0, MUCH / 3, 0]), [false; 8]);
    }

    #[test]
    fn a_little_is_not_worth_it() {
        assert_eq!(looks(&[WORTH - 1, 0, 0, 0]), [false; 4]);
    }

    #[test]
    fn each_load_counts_anew() {
        assert_eq!(looks(&[MUCH, 0, 0, MUCH, 1, 1]), [false, false, true, false, false, true]);
    }
}

//! What the windows of many connections may together promise beyond their first sizes.
//!
//! Invariant: what was taken is given back once, by whoever took it; nobody waits for anybody.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// A number of bytes shared by all connections that hold a clone; they take from it to enlarge a window and give back
/// when the window shrinks or its stream ends. Which connection gets the last of it is chance; none gets less than its
/// first windows (spec data-plane 8 has no such bound; without it, memory is bounded only by the number of streams).
#[derive(Clone, Debug)]
pub struct Allowance(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    limit: usize,
    used: AtomicUsize,
    /// Whose part it is.
    whole: Option<Allowance>,
    /// How often somebody got nothing, from this one or its parts.
    refused: Arc<AtomicU64>,
}

impl Allowance {
    /// An allowance of `limit` bytes.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        Self::of(limit, None, Arc::default())
    }

    /// A part of this allowance, of which no more than `limit` bytes can be taken; they are taken from the whole too.
    #[must_use]
    pub fn part(&self, limit: usize) -> Self {
        Self::of(limit, Some(self.clone()), Arc::clone(&self.0.refused))
    }

    fn of(limit: usize, whole: Option<Self>, refused: Arc<AtomicU64>) -> Self {
        Self(Arc::new(Shared { limit, used: AtomicUsize::new(0), whole, refused }))
    }

    /// How often a window could not be enlarged because this allowance or a part of it was used up.
    #[must_use]
    pub fn refused(&self) -> u64 {
        self.0.refused.load(Ordering::Relaxed)
    }

    /// Bytes that may be taken at once, by all together.
    #[must_use]
    pub fn limit(&self) -> usize {
        self.0.limit
    }

    /// Bytes that have been taken and not been given back.
    #[must_use]
    pub fn used(&self) -> usize {
        self.0.used.load(Ordering::Relaxed)
    }

    /// Takes `n` bytes, all or nothing.
    pub(super) fn take(&self, n: usize) -> bool {
        let taken = self.try_take(n);
        if !taken {
            self.0.refused.fetch_add(1, Ordering::Relaxed);
        }
        taken
    }

    fn try_take(&self, n: usize) -> bool {
        let take = |used: usize| used.checked_add(n).filter(|sum| *sum <= self.0.limit);
        if self.0.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).is_err() {
            return false;
        }
        let taken = self.0.whole.as_ref().is_none_or(|whole| whole.try_take(n));
        if !taken {
            self.0.used.fetch_sub(n, Ordering::Relaxed);
        }
        taken
    }

    /// Gives `n` bytes back that were taken.
    pub(super) fn give(&self, n: usize) {
        self.0.used.fetch_sub(n, Ordering::Relaxed);
        if let Some(whole) = &self.0.whole {
            whole.give(n);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_takes_from_the_whole_and_neither_gives_more_than_it_has() {
        let whole = Allowance::new(100);
        let (a, b) = (whole.part(60), whole.part(60));
        assert!(a.take(60) && !a.take(1), "the part is used up");
        assert!(!b.take(60) && b.take(40), "the whole is used up");
        assert_eq!((a.used(), b.used(), whole.used(), whole.refused()), (60, 40, 100, 2));
        a.give(60);
        assert!(b.take(20) && !b.take(1));
        b.give(60);
        assert_eq!((a.used(), b.used(), whole.used()), (0, 0, 0));
    }
}

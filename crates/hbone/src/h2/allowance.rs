//! What the windows of many connections may together promise beyond their first sizes.
//!
//! Invariant: what was taken is given back once, by whoever took it; nobody waits for anybody.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// A number of bytes shared by all connections that hold a clone; they take from it to enlarge a window and give back
/// when the window shrinks or its stream ends. Which connection gets the last of it is chance; none gets less than its
/// first windows (spec data-plane 8 has no such bound; without it, memory is bounded only by the number of streams).
#[derive(Clone, Debug)]
pub struct Allowance(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    limit: usize,
    used: AtomicUsize,
}

impl Allowance {
    /// An allowance of `limit` bytes.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        Self(Arc::new(Shared { limit, used: AtomicUsize::new(0) }))
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
        let take = |used: usize| used.checked_add(n).filter(|sum| *sum <= self.0.limit);
        self.0.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).is_ok()
    }

    /// Gives `n` bytes back that were taken.
    pub(super) fn give(&self, n: usize) {
        self.0.used.fetch_sub(n, Ordering::Relaxed);
    }
}

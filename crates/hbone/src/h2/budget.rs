//! Budgets against floods: so many events per span of time, and no more.
//!
//! Invariant: a budget is only ever spent with the time that the caller passes in, and forgiven whole at the end of a
//! span. An attacker can get at most twice the limit into any one span, which the limits allow for.

use std::time::Instant;

use crate::limits::BUDGET_WINDOW;

/// A count per [`BUDGET_WINDOW`].
#[derive(Debug)]
pub struct Budget {
    limit: u32,
    spent: u32,
    since: Option<Instant>,
}

impl Budget {
    /// Allows `limit` events per span.
    pub fn new(limit: u32) -> Self {
        Budget { limit, spent: 0, since: None }
    }

    /// Counts one event; `false` if it is one too many.
    #[must_use]
    pub fn spend(&mut self, now: Instant) -> bool {
        let running = self.since.is_some_and(|since| now.saturating_duration_since(since) < BUDGET_WINDOW);
        if !running {
            self.since = Some(now);
            self.spent = 0;
        }
        self.spent = self.spent.saturating_add(1);
        self.spent <= self.limit
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_budget_is_exhausted_by_one_event_too_many_and_forgiven_after_its_span() {
        let start = Instant::now();
        let mut budget = Budget::new(3);
        assert!((0..3).all(|_| budget.spend(start)));
        assert!(!budget.spend(start + BUDGET_WINDOW / 2));
        assert!(budget.spend(start + BUDGET_WINDOW));
    }
}

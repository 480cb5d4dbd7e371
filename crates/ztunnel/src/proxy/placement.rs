//! On which worker a tunnel is begun that may become much work.
//!
//! A pod's connections are accepted on its worker, and a tunnel is best off there too: what is handed to it then needs no
//! other thread. A worker that is busy all the time is the exception, since what is beside it would wait for it. What is
//! decided here counts for a whole tunnel, because a task never moves.

use std::time::{Duration, Instant};

/// Share of its time from which on a worker counts as busy: one that carries bulk has hardly more where the apps that
/// send and take it are on the same cores.
const BUSY: f64 = 0.3;
/// How much less another has to have to do for a tunnel to be better off there.
const LESS: f64 = 0.15;
/// What a tunnel that has been begun counts for until the next look, which sees what it really is.
const EXPECTED: f64 = 0.25;
/// From one look to the next.
pub(super) const LOOK: Duration = Duration::from_secs(1);

/// How busy workers have been lately.
#[derive(Debug)]
pub(super) struct Placement {
    looked: Instant,
    workers: Vec<Worker>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Worker {
    /// For how long it had been at work when it was last looked at.
    busy: Duration,
    /// Which share of the time before that.
    share: f64,
}

impl Placement {
    /// So many workers that have just begun.
    pub(super) fn new(count: usize, now: Instant) -> Self {
        Self { looked: now, workers: vec![Worker::default(); count] }
    }

    /// For how long each worker has been at work by now.
    pub(super) fn look(&mut self, now: Instant, busy: impl Iterator<Item = Duration>) {
        let since = now.saturating_duration_since(self.looked).as_secs_f64();
        if since <= 0.0 {
            return;
        }
        self.looked = now;
        for (worker, busy) in self.workers.iter_mut().zip(busy) {
            worker.share = busy.saturating_sub(worker.busy).as_secs_f64() / since;
            worker.busy = busy;
        }
    }

    /// The worker for a tunnel of a pod whose worker is `home`. Beside others for the same, which are there since one was not
    /// enough, it is the least busy one.
    pub(super) fn choose(&mut self, home: usize, beside: usize) -> usize {
        let Some(at_home) = self.workers.get(home).map(|worker| worker.share) else { return home };
        let most = match beside {
            0 if at_home < BUSY => return home,
            0 => at_home - LESS,
            _ => at_home,
        };
        let others = self.workers.iter_mut().enumerate().filter(|(at, worker)| *at != home && worker.share <= most);
        match others.min_by(|(_, a), (_, b)| a.share.total_cmp(&b.share)) {
            Some((other, worker)) => {
                worker.share += EXPECTED;
                other
            }
            None => home,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Workers that have been at work for these percentages of the last second.
    fn after(percentages: &[u64]) -> Placement {
        let start = Instant::now();
        let mut placement = Placement::new(percentages.len(), start);
        placement.look(start + LOOK, percentages.iter().map(|share| Duration::from_millis(share * 10)));
        placement
    }

    #[test]
    fn a_tunnel_stays_with_its_pod_while_the_worker_has_time() {
        assert_eq!(Placement::new(2, Instant::now()).choose(1, 0), 1);
        assert_eq!(after(&[29, 0]).choose(0, 0), 0);
    }

    #[test]
    fn a_tunnel_leaves_a_busy_worker_for_the_least_busy_one() {
        assert_eq!(after(&[100, 40, 10, 90]).choose(0, 0), 2);
        assert_eq!(after(&[100, 90]).choose(0, 0), 0, "the other has hardly less to do");
    }

    #[test]
    fn tunnels_that_are_begun_at_once_spread() {
        let mut placement = after(&[100, 10, 20, 30]);
        let chosen: Vec<usize> = (0..6).map(|_| placement.choose(0, 0)).collect();
        assert_eq!(chosen, [1, 2, 3, 1, 2, 3]);
    }

    #[test]
    fn tunnels_beside_others_spread_though_nobody_is_busy() {
        let mut placement = Placement::new(3, Instant::now());
        let chosen: Vec<usize> = (0..4).map(|beside| placement.choose(1, beside)).collect();
        assert_eq!(chosen, [1, 0, 2, 1], "until the others have as much to do");
        assert_eq!(after(&[10, 90]).choose(0, 1), 0);
    }

    #[test]
    fn what_was_long_ago_does_not_count() {
        let mut placement = after(&[100, 0]);
        let later = placement.looked + LOOK;
        placement.look(later, [Duration::from_millis(1_100), Duration::from_millis(200)].into_iter());
        assert_eq!(placement.choose(0, 0), 0);
        assert_eq!(placement.choose(1, 0), 1);
    }
}

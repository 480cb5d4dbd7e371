//! Waits of connections for the control plane to announce the pod that they belong to: how many wait, how long it took,
//! and what came of it.
//!
//! Invariant: a wait that is dropped counts as abandoned, so that the number of those who wait comes back to 0.

use std::time::Instant;

use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

/// Upper ends of the buckets, in seconds: the ordinary race of a pod with its announcement, a slow control plane, and
/// what only a raised `UNKNOWN_WORKLOAD_TIMEOUT` allows.
const BUCKETS: [f64; 9] = [0.01, 0.05, 0.25, 1.0, 2.5, 5.0, 10.0, 15.0, 30.0];

/// How a wait ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WaitEnd {
    /// The pod was announced; the connection goes on.
    Announced,
    /// It was not; the connection is refused.
    TimedOut,
    /// Whoever waited no longer does.
    Abandoned,
}

impl WaitEnd {
    fn labels(self) -> [(&'static str, &'static str); 1] {
        let outcome = match self {
            Self::Announced => "announced",
            Self::TimedOut => "timed_out",
            Self::Abandoned => "abandoned",
        };
        [("outcome", outcome)]
    }
}

type Durations = Family<[(&'static str, &'static str); 1], Histogram>;

#[derive(Debug)]
pub(super) struct Waits {
    durations: Durations,
    waiting: Gauge,
}

impl Waits {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let durations = Durations::new_with_constructor(|| Histogram::new(BUCKETS));
        let help = "How long connections waited for the control plane to announce the pod that they belong to";
        registry.register("istio_unknown_workload_wait_duration_seconds", help, durations.clone());
        let waiting = Gauge::default();
        let help = "The number of connections that wait for the control plane to announce the pod that they belong to";
        registry.register("istio_unknown_workload_waiting", help, waiting.clone());
        Self { durations, waiting }
    }

    pub(super) fn begin(&self) -> WorkloadWait {
        self.waiting.inc();
        WorkloadWait {
            began: Instant::now(),
            end: WaitEnd::Abandoned,
            durations: self.durations.clone(),
            waiting: self.waiting.clone(),
        }
    }
}

/// One connection that waits for the announcement of its pod.
#[derive(Debug)]
pub struct WorkloadWait {
    began: Instant,
    end: WaitEnd,
    durations: Durations,
    waiting: Gauge,
}

impl WorkloadWait {
    /// The wait is over.
    pub fn over(mut self, end: WaitEnd) {
        self.end = end;
    }
}

impl Drop for WorkloadWait {
    fn drop(&mut self) {
        self.waiting.dec();
        self.durations.get_or_create(&self.end.labels()).observe(self.began.elapsed().as_secs_f64());
    }
}

#[cfg(test)]
mod tests {
    use prometheus_client::encoding::text::encode;

    use super::*;

    #[test]
    fn a_wait_is_counted_by_its_end_and_whoever_is_dropped_no_longer_waits() {
        let mut registry = Registry::default();
        let waits = Waits::register(&mut registry);
        let show = |registry: &Registry| {
            let mut text = String::new();
            encode(&mut text, registry).unwrap();
            text
        };
        waits.begin().over(WaitEnd::Announced);
        waits.begin().over(WaitEnd::TimedOut);
        drop(waits.begin());
        let kept = waits.begin();
        let text = show(&registry);
        for outcome in ["announced", "timed_out", "abandoned"] {
            let count = format!("istio_unknown_workload_wait_duration_seconds_count{{outcome=\"{outcome}\"}} 1");
            assert!(text.contains(&count), "{text}");
        }
        assert!(text.contains("istio_unknown_workload_waiting 1"), "{text}");
        drop(kept);
        assert!(show(&registry).contains("istio_unknown_workload_waiting 0"));
    }
}

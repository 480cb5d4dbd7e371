//! The runtimes of the data plane, by the names that the existing ztunnel gives them (spec admin-and-telemetry 3).
//!
//! Each worker thread has a runtime of its own here, so that there is no queue that all share: its depth is the sum of
//! those of the workers.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use tokio::runtime::{Handle, RuntimeMetrics};

/// What is known of the worker threads once they run.
#[derive(Debug, Clone, Default)]
pub(super) struct Runtimes(Arc<OnceLock<Vec<Worker>>>);

/// A worker thread of the data plane. Clones are the same one.
#[derive(Debug, Clone)]
pub struct Worker {
    /// Its runtime.
    pub runtime: Handle,
    /// For how many nanoseconds it has let other threads run when it had nothing to do. To its runtime that is work.
    pub yielded: Arc<AtomicU64>,
    work: Arc<Work>,
}

/// How long somebody has been at work, in nanoseconds, as was last told.
#[derive(Debug, Default)]
struct Work(AtomicU64);

impl Worker {
    /// The worker of that runtime.
    #[must_use]
    pub fn new(runtime: Handle) -> Self {
        Self { runtime, yielded: Arc::default(), work: Arc::default() }
    }

    /// For how long it has been at work. Never less than it was.
    #[must_use]
    pub fn busy(&self) -> Duration {
        let yielded = Duration::from_nanos(self.yielded.load(Ordering::Relaxed));
        self.work.without(self.runtime.metrics().worker_total_busy_duration(0), yielded)
    }
}

impl Work {
    /// What of `busy` was not yielded. The runtime counts a wait later than the worker does: a counter that went back
    /// meanwhile would look as if the process had been started anew.
    fn without(&self, busy: Duration, yielded: Duration) -> Duration {
        let worked = u64::try_from(busy.saturating_sub(yielded).as_nanos()).unwrap_or(u64::MAX);
        Duration::from_nanos(self.0.fetch_max(worked, Ordering::Relaxed).max(worked))
    }
}

/// A number of each worker.
type PerWorker<T> = (&'static str, &'static str, fn(&RuntimeMetrics) -> T);

const GAUGES: [PerWorker<usize>; 3] = [
    ("tokio_num_workers", "Threads of the data plane.", RuntimeMetrics::num_workers),
    ("tokio_global_queue_depth", "Tasks woken by other threads and not run yet.", RuntimeMetrics::global_queue_depth),
    ("tokio_num_alive_tasks", "Tasks of the data plane.", RuntimeMetrics::num_alive_tasks),
];

const COUNTERS: [PerWorker<u64>; 2] = [
    ("tokio_worker_park_count", "How often the worker went to sleep.", |runtime| runtime.worker_park_count(0)),
    ("tokio_worker_park_unpark_count", "How often the worker went to sleep or was woken.", |runtime| {
        runtime.worker_park_unpark_count(0)
    }),
];

impl Runtimes {
    /// The workers run; whoever tells a second time is not heard.
    pub(super) fn are(&self, workers: Vec<Worker>) {
        let _ = self.0.set(workers);
    }
}

impl Collector for Runtimes {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let Some(workers) = self.0.get() else { return Ok(()) };
        let runtimes: Vec<RuntimeMetrics> = workers.iter().map(|worker| worker.runtime.metrics()).collect();
        for (name, help, number) in GAUGES {
            let sum: usize = runtimes.iter().map(number).sum();
            let sum = i64::try_from(sum).unwrap_or(i64::MAX);
            encoder.encode_descriptor(name, help, None, MetricType::Gauge)?.encode_gauge(&sum)?;
        }
        let busy = "tokio_worker_total_busy_duration_seconds";
        let help = "How long the worker was at work.";
        let seconds = |worker: &Worker| worker.busy().as_secs_f64();
        each(encoder.encode_descriptor(busy, help, None, MetricType::Counter)?, workers, seconds)?;
        for (name, help, number) in COUNTERS {
            each(encoder.encode_descriptor(name, help, None, MetricType::Counter)?, &runtimes, number)?;
        }
        Ok(())
    }
}

fn each<W, T: prometheus_client::encoding::EncodeCounterValue>(
    mut metric: MetricEncoder<'_>,
    workers: &[W],
    number: impl Fn(&W) -> T,
) -> fmt::Result {
    for (at, worker) in workers.iter().enumerate() {
        metric.encode_family(&[("worker", at)])?.encode_counter::<NoLabelSet, _, u64>(&number(worker), None)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_at_work_is_without_waits_and_never_goes_back() {
        let work = Work::default();
        let seconds = Duration::from_secs;
        assert_eq!(work.without(seconds(5), seconds(2)), seconds(3));
        assert_eq!(work.without(seconds(5), seconds(4)), seconds(3), "a wait that the runtime has not counted yet");
        assert_eq!(work.without(seconds(8), seconds(4)), seconds(4));
    }
}

//! The runtimes of the data plane, by the names that the existing ztunnel gives them (spec admin-and-telemetry 3).
//!
//! Each worker thread has a runtime of its own here, so that there is no queue that all share: its depth is the sum of
//! those of the workers.

use std::fmt;
use std::sync::{Arc, OnceLock};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use tokio::runtime::{Handle, RuntimeMetrics};

/// What is known of the worker threads once they run.
#[derive(Debug, Clone, Default)]
pub(super) struct Runtimes(Arc<OnceLock<Vec<Handle>>>);

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
    pub(super) fn are(&self, workers: Vec<Handle>) {
        let _ = self.0.set(workers);
    }
}

impl Collector for Runtimes {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let Some(workers) = self.0.get() else { return Ok(()) };
        let workers: Vec<RuntimeMetrics> = workers.iter().map(Handle::metrics).collect();
        for (name, help, number) in GAUGES {
            let sum: usize = workers.iter().map(number).sum();
            let sum = i64::try_from(sum).unwrap_or(i64::MAX);
            encoder.encode_descriptor(name, help, None, MetricType::Gauge)?.encode_gauge(&sum)?;
        }
        let busy = "tokio_worker_total_busy_duration_seconds";
        let help = "How long the worker was at work.";
        let seconds = |runtime: &RuntimeMetrics| runtime.worker_total_busy_duration(0).as_secs_f64();
        each(encoder.encode_descriptor(busy, help, None, MetricType::Counter)?, &workers, seconds)?;
        for (name, help, number) in COUNTERS {
            each(encoder.encode_descriptor(name, help, None, MetricType::Counter)?, &workers, number)?;
        }
        Ok(())
    }
}

fn each<T: prometheus_client::encoding::EncodeCounterValue>(
    mut metric: MetricEncoder<'_>,
    workers: &[RuntimeMetrics],
    number: impl Fn(&RuntimeMetrics) -> T,
) -> fmt::Result {
    for (at, runtime) in workers.iter().enumerate() {
        metric.encode_family(&[("worker", at)])?.encode_counter::<NoLabelSet, _, u64>(&number(runtime), None)?;
    }
    Ok(())
}

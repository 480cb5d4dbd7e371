//! What the kernel says of this process.

use std::sync::atomic::AtomicI64;

use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use rustix::process::{Resource, getrlimit};

/// Where the kernel lists our descriptors.
const DESCRIPTORS: &str = "/proc/self/fd";

#[derive(Debug, Default)]
pub(super) struct Process {
    open: Gauge<i64, AtomicI64>,
    max: Gauge<i64, AtomicI64>,
}

impl Process {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let process = Self::default();
        registry.register("process_open_fds", "Number of open file descriptors", process.open.clone());
        registry.register("process_max_fds", "Maximum number of open file descriptors", process.max.clone());
        process
    }

    /// Asks the kernel. What it does not tell keeps its last value.
    pub(super) fn refresh(&self) {
        if let Ok(entries) = std::fs::read_dir(DESCRIPTORS) {
            // One of them is that of the directory being read.
            let open = entries.count().saturating_sub(1);
            self.open.set(i64::try_from(open).unwrap_or(i64::MAX));
        }
        let max = getrlimit(Resource::Nofile).current;
        self.max.set(max.and_then(|max| i64::try_from(max).ok()).unwrap_or(i64::MAX));
    }
}

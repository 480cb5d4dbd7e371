//! Takes profiles: starts the timer, waits, and has what was seen named on a thread where nobody waits for anything else.

use std::sync::Arc;

use pprof::ProfilerGuardBuilder;
use tokio::sync::Semaphore;

use super::{ProfileError, Sampling, encode};

/// Libraries inside which the stack cannot be followed from a signal without the risk of waiting for a lock that the
/// interrupted code holds.
const NOT_IN: [&str; 4] = ["libc", "libgcc", "pthread", "vdso"];

/// Whoever takes profiles, one at a time.
#[derive(Debug)]
pub(in crate::admin) struct Profiler(Arc<Semaphore>);

impl Default for Profiler {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(1)))
    }
}

impl Profiler {
    /// A profile, as uncompressed protobuf. The timer stops when the future is dropped.
    pub(in crate::admin) async fn take(&self, sampling: Sampling) -> Result<Vec<u8>, ProfileError> {
        let turn = Arc::clone(&self.0).try_acquire_owned().map_err(|_| ProfileError::Busy)?;
        let failed = |error: &dyn std::fmt::Display| ProfileError::Failed(error.to_string());
        let builder = ProfilerGuardBuilder::default().frequency(sampling.frequency).blocklist(&NOT_IN);
        let guard = builder.build().map_err(|error| failed(&error))?;
        tokio::time::sleep(sampling.lasts).await;
        let naming = tokio::task::spawn_blocking(move || {
            let _turn = turn;
            let report = guard.report().build();
            drop(guard); // the timer stops
            report.map(|report| encode::encode(&report))
        });
        naming.await.map_err(|error| failed(&error))?.map_err(|error| failed(&error))
    }
}

//! Whether this ztunnel is ready, and what it still waits for (spec admin-and-telemetry 1, Readiness).

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::time::Instant;

/// Something that has to be done before traffic can be served. Ordered as they are named.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum TaskName {
    /// The DNS proxy listens.
    DnsProxy,
    /// The proxy listens.
    Proxy,
    /// The control plane has said what there is.
    StateManager,
    /// The node agent has said which pods there are, and all of them are served.
    WorkloadProxyManager,
}

impl TaskName {
    /// The name as operators and their tools know it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::DnsProxy => "dns proxy",
            Self::Proxy => "proxy",
            Self::StateManager => "state manager",
            Self::WorkloadProxyManager => "workload proxy manager",
        }
    }
}

/// What the readiness probe is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Readiness {
    /// Traffic is served.
    Ready,
    /// These are not done yet, in order; there is at least one.
    Pending(Vec<TaskName>),
    /// New traffic is not served any more.
    Draining,
}

/// The tasks of this process. Clones share them.
#[derive(Clone, Debug)]
pub struct Ready(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    since: Instant,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    pending: BTreeSet<TaskName>,
    draining: bool,
}

/// One task, pending at first. Dropping it changes nothing: what was not done is still not done.
#[derive(Debug)]
pub struct Task {
    ready: Ready,
    name: TaskName,
}

impl Default for Ready {
    fn default() -> Self {
        Self(Arc::new(Shared { since: Instant::now(), state: Mutex::default() }))
    }
}

impl Ready {
    /// Adds a task. All have to be added before the first is done, or the process is ready in between.
    #[must_use]
    pub fn task(&self, name: TaskName) -> Task {
        self.lock().pending.insert(name);
        Task { ready: self.clone(), name }
    }

    /// From now on the process is draining, whatever its tasks say.
    pub fn drain(&self) {
        self.lock().draining = true;
    }

    /// What the readiness probe is told.
    #[must_use]
    pub fn readiness(&self) -> Readiness {
        let state = self.lock();
        match (state.draining, state.pending.is_empty()) {
            (true, _) => Readiness::Draining,
            (false, true) => Readiness::Ready,
            (false, false) => Readiness::Pending(state.pending.iter().copied().collect()),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Task {
    /// The task is done, until it is pending again.
    pub fn done(&self) {
        let left = {
            let mut state = self.ready.lock();
            if !state.pending.remove(&self.name) {
                return;
            }
            state.pending.len()
        };
        let (name, took) = (self.name.as_str(), self.ready.0.since.elapsed());
        match left {
            0 => tracing::info!("Task '{name}' complete ({took:?}), marking server ready"),
            _ => tracing::info!("Task '{name}' complete ({took:?}), still awaiting {left} tasks"),
        }
    }

    /// The task has to be done again.
    pub fn pending(&self) {
        if self.ready.lock().pending.insert(self.name) {
            tracing::info!("Task '{}' is pending again, marking server not ready", self.name.as_str());
        }
    }
}

#[cfg(test)]
mod tests;

//! The pods of this process that others of its pods may reach without a tunnel, if the operator wants that
//! (`SAME_NODE_DIRECT`).
//!
//! Invariant: a pod is here while it accepts, and no longer; who has found it keeps its drain waiting by what it holds.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use mesh::{LocalWorkload, Workload};
use tokio::sync::{Mutex as Queue, watch};

use super::Phase;
use super::context::Context;
use super::limits::Pace;
use crate::telemetry::SocketGuard;

/// See the top of this file. Clones share it.
#[derive(Clone, Default)]
pub(super) struct Neighbours(Arc<Mutex<HashMap<LocalWorkload, Neighbour>>>);

/// A pod that accepts.
#[derive(Clone)]
pub(super) struct Neighbour {
    pub(super) context: Arc<Context>,
    /// Held for as long as a connection to the pod is.
    pub(super) phase: watch::Receiver<Phase>,
    /// The clock of this way into the pod, as each of its ports has one. Who waits for it waits in turn.
    pace: Arc<Queue<Pace>>,
}

/// Keeps a pod among the neighbours.
pub(super) struct Presence {
    neighbours: Neighbours,
    context: Arc<Context>,
}

impl Neighbours {
    /// Adds a pod for as long as the result lives.
    pub(super) fn add(&self, context: &Arc<Context>, phase: watch::Receiver<Phase>) -> Presence {
        let pace = Arc::new(Queue::new(context.quota.pace()));
        let neighbour = Neighbour { context: Arc::clone(context), phase, pace };
        self.lock().insert(context.who.clone(), neighbour);
        Presence { neighbours: self.clone(), context: Arc::clone(context) }
    }

    /// The pod that a workload is.
    pub(super) fn find(&self, workload: &Workload) -> Option<Neighbour> {
        let who = workload.local();
        self.lock().get(&who).cloned()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<LocalWorkload, Neighbour>> {
        // Nothing that runs under the lock can leave the map half changed.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Neighbour {
    /// Takes a connection's place among those of the pod, at the pod's pace; `None` if it may have no more.
    pub(super) async fn admit(&self, reporter: mesh::Reporter) -> Option<SocketGuard> {
        let quota = &self.context.quota;
        quota.keep(&mut *self.pace.lock().await).await;
        quota.has_room().then(|| self.context.telemetry.socket(reporter, quota.sockets()))
    }
}

impl Drop for Presence {
    fn drop(&mut self) {
        let mut neighbours = self.neighbours.lock();
        // A pod of the same name may have taken its place already.
        if neighbours.get(&self.context.who).is_some_and(|other| Arc::ptr_eq(&other.context, &self.context)) {
            neighbours.remove(&self.context.who);
        }
    }
}

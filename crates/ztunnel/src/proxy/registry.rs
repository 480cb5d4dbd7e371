//! The live tunnels and connections of one pod, so that a change of policy or a drain reaches all of them.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use slab::Slab;

use super::tunnel::{Command, Handle};

/// Tunnels of one pod that are up; plain connections watch the pod's drain and the views themselves.
#[derive(Debug, Default)]
pub(super) struct Registry(Mutex<Slab<Handle>>);

/// Takes a tunnel out of the registry when its task ends, however it ends.
#[derive(Debug)]
pub(super) struct Registered {
    registry: Arc<Registry>,
    key: usize,
}

impl Registry {
    /// Adds a tunnel for as long as the result lives.
    pub(super) fn register(self: &Arc<Self>, handle: Handle) -> Registered {
        let key = self.lock().insert(handle);
        Registered { registry: Arc::clone(self), key }
    }

    /// Tells all tunnels of this moment.
    pub(super) async fn tell_all(&self, command: impl Fn() -> Command) {
        let handles: Vec<Handle> = self.lock().iter().map(|(_, handle)| handle.clone()).collect();
        for handle in handles {
            handle.tell(command()).await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Slab<Handle>> {
        // Nothing that runs under the lock can leave the slab half changed.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        self.registry.lock().try_remove(self.key);
    }
}

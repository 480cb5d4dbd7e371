//! Which pods there are, and what each message of the agent means for them (spec in-pod 3).
//!
//! The machine does nothing itself: it says which proxies to start and stop, and is told what came of it. It holds, for
//! each pod that runs, a `P`; for each pod that could not be started, what is needed to try again. A pod is one of the
//! two or neither, never both. Only a Del or a complete snapshot without it ends a pod; a connection that ends does not.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use mesh::LocalWorkload;

use super::zds::PodUid;

/// Pods that are kept track of at the most: many times what a node can have, and a bound to an agent gone wild.
const MOST: usize = 4096;

/// Pods that run or wait to; `N` tells namespaces apart, `P` is a proxy.
pub struct Pods<N, P> {
    running: BTreeMap<PodUid, Running<N, P>>,
    pending: BTreeMap<PodUid, Pending<N>>,
    /// Pods that this connection has mentioned, until its snapshot is complete.
    seen: BTreeSet<PodUid>,
    snapshot: Snapshot,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Snapshot {
    Awaited,
    Complete,
}

struct Running<N, P> {
    who: LocalWorkload,
    netns: N,
    proxy: P,
}

/// A pod that could not be started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pending<N> {
    /// Who it is.
    pub who: LocalWorkload,
    /// Where its sockets will be.
    pub netns: N,
}

/// What an Add means.
#[derive(Debug, PartialEq, Eq)]
pub enum Added<P> {
    /// It runs already, in the same namespace.
    Known,
    /// It is to be started. What ran under its key before is to be stopped: it was another incarnation.
    Start {
        /// That one.
        replaces: Option<P>,
    },
}

/// A message that makes no sense, or not now. It is refused and nothing else follows from it: packets keep their
/// boundaries, so that the next one is as good as any.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// A pod without a key.
    #[error("uid is required but not present")]
    NoUid,
    /// An Add that does not say who the pod is.
    #[error("workload_info is required but not present")]
    NoInfo,
    /// An agent that goes on announcing pods has lost its way.
    #[error("more pods than {MOST}")]
    TooMany,
    /// Keep is part of the snapshot.
    #[error("pod keep received after snapshot")]
    KeepAfterSnapshot,
    /// A connection has one snapshot.
    #[error("pod snapshot received already")]
    SecondSnapshot,
}

impl<N: PartialEq, P> Default for Pods<N, P> {
    fn default() -> Self {
        Self::new()
    }
}

impl<N: PartialEq, P> Pods<N, P> {
    /// None.
    #[must_use]
    pub fn new() -> Self {
        Self { running: BTreeMap::new(), pending: BTreeMap::new(), seen: BTreeSet::new(), snapshot: Snapshot::Awaited }
    }

    /// A connection to the agent has been made: it will tell everything anew.
    pub fn connected(&mut self) {
        self.seen.clear();
        self.snapshot = Snapshot::Awaited;
    }

    /// The connection is gone. Pods go on.
    pub fn disconnected(&mut self) {
        self.snapshot = Snapshot::Awaited;
    }

    /// The agent says that a pod is there, whether or not it says enough to start it.
    ///
    /// # Errors
    /// [`Violation::NoUid`], [`Violation::TooMany`].
    pub fn mention(&mut self, uid: &PodUid) -> Result<(), Violation> {
        if uid.is_empty() {
            return Err(Violation::NoUid);
        }
        let full = [self.running.len(), self.pending.len(), self.seen.len()].into_iter().any(|known| known >= MOST);
        if full && !self.knows(uid) && !self.seen.contains(uid) {
            return Err(Violation::TooMany);
        }
        if self.snapshot == Snapshot::Awaited {
            self.seen.insert(uid.clone());
        }
        Ok(())
    }

    /// A pod that has been mentioned is there in this namespace.
    pub fn add(&mut self, uid: &PodUid, netns: &N) -> Added<P> {
        if self.running.get(uid).is_some_and(|running| running.netns == *netns) {
            return Added::Known;
        }
        Added::Start { replaces: self.running.remove(uid).map(|running| running.proxy) }
    }

    /// The pod runs.
    pub fn started(&mut self, uid: PodUid, who: LocalWorkload, netns: N, proxy: P) {
        self.pending.remove(&uid);
        self.running.insert(uid, Running { who, netns, proxy });
    }

    /// The pod could not be started.
    pub fn failed(&mut self, uid: PodUid, who: LocalWorkload, netns: N) {
        self.pending.insert(uid, Pending { who, netns });
    }

    /// A pod is still there.
    ///
    /// # Errors
    /// [`Violation`].
    pub fn keep(&mut self, uid: &PodUid) -> Result<(), Violation> {
        match self.snapshot {
            Snapshot::Awaited => self.mention(uid),
            Snapshot::Complete => Err(Violation::KeepAfterSnapshot),
        }
    }

    /// The pod is gone; yields what is to be stopped. A pod that is not known is gone already.
    ///
    /// # Errors
    /// [`Violation::NoUid`].
    pub fn del(&mut self, uid: &PodUid) -> Result<Option<P>, Violation> {
        if uid.is_empty() {
            return Err(Violation::NoUid);
        }
        self.seen.remove(uid);
        self.pending.remove(uid);
        Ok(self.running.remove(uid).map(|running| running.proxy))
    }

    /// All pods have been told; yields what the agent no longer knows and is to be stopped.
    ///
    /// # Errors
    /// [`Violation::SecondSnapshot`].
    pub fn snapshot_sent(&mut self) -> Result<Vec<(PodUid, P)>, Violation> {
        if self.snapshot == Snapshot::Complete {
            return Err(Violation::SecondSnapshot);
        }
        self.snapshot = Snapshot::Complete;
        let seen = std::mem::take(&mut self.seen);
        self.pending.retain(|uid, _| seen.contains(uid));
        let gone = self.running.extract_if(.., |uid, _| !seen.contains(uid));
        Ok(gone.map(|(uid, running)| (uid, running.proxy)).collect())
    }

    /// Whether the agent has told everything.
    #[must_use]
    pub fn is_told(&self) -> bool {
        self.snapshot == Snapshot::Complete
    }

    /// Whether the agent has told everything and everything runs.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.is_told() && self.pending.is_empty()
    }

    /// Whether a proxy runs for the pod, or will be tried again.
    #[must_use]
    pub fn knows(&self, uid: &PodUid) -> bool {
        self.running.contains_key(uid) || self.pending.contains_key(uid)
    }

    /// Pods to try again.
    pub fn pending(&self) -> impl ExactSizeIterator<Item = (&PodUid, &Pending<N>)> {
        self.pending.iter()
    }

    /// Pods that run.
    pub fn running(&self) -> impl ExactSizeIterator<Item = (&PodUid, &LocalWorkload)> {
        self.running.iter().map(|(uid, running)| (uid, &running.who))
    }

    /// Everything that runs, to be stopped.
    pub fn into_running(self) -> impl Iterator<Item = P> {
        self.running.into_values().map(|running| running.proxy)
    }
}

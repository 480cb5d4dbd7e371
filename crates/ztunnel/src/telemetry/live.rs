//! Connections that are open, for whoever looks in: `/debug/connections` and the configuration dump.
//!
//! A connection is entered when its meter is made and taken out when the meter is gone. What it counts, it counts here,
//! alone, so that looking costs a connection nothing. Each thread enters its connections into a table of its own, whose
//! lock nobody else takes but those who look.

use std::sync::atomic::{AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use mesh::{Flow, Tally};
use slab::Slab;
use tokio::time::Instant;

/// Tables; threads beyond share. Few nodes give a ztunnel more cores.
const SHARDS: usize = 32;

/// How far an open connection has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// Whoever is to carry it on, a next hop or the app, has not answered.
    Connecting,
    /// It carries bytes.
    Open,
}

impl Progress {
    /// How the progress is shown.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Connecting => "connecting",
            Self::Open => "open",
        }
    }
}

/// An open connection. One task writes it, anybody may look.
#[derive(Debug)]
pub struct Connection {
    flow: Arc<Flow>,
    opened: Instant,
    upstream: AtomicU64,
    downstream: AtomicU64,
    progress: AtomicU8,
}

impl Connection {
    /// Who talks to whom.
    #[must_use]
    pub fn flow(&self) -> &Arc<Flow> {
        &self.flow
    }

    /// When it came.
    #[must_use]
    pub fn opened(&self) -> Instant {
        self.opened
    }

    /// What has gone through it so far.
    #[must_use]
    pub fn tally(&self) -> Tally {
        Tally {
            upstream_bytes: self.upstream.load(Ordering::Relaxed),
            downstream_bytes: self.downstream.load(Ordering::Relaxed),
        }
    }

    /// How far it has come.
    #[must_use]
    pub fn progress(&self) -> Progress {
        if self.progress.load(Ordering::Relaxed) == 0 { Progress::Connecting } else { Progress::Open }
    }
}

/// All open connections of the process.
#[derive(Debug, Default)]
pub(super) struct Live([Shard; SHARDS]);

type Shard = Mutex<Slab<Arc<Connection>>>;

/// A connection's place among those that are open; it is taken out when this is dropped.
#[derive(Debug)]
pub(super) struct Entry {
    live: Arc<Live>,
    shard: usize,
    key: usize,
    connection: Arc<Connection>,
}

impl Live {
    /// Enters a connection that comes now.
    pub(super) fn enter(self: &Arc<Self>, flow: Arc<Flow>) -> Entry {
        let connection = Arc::new(Connection {
            flow,
            opened: Instant::now(),
            upstream: AtomicU64::new(0),
            downstream: AtomicU64::new(0),
            progress: AtomicU8::new(0),
        });
        let shard = this_thread();
        let key = self.lock(shard).insert(Arc::clone(&connection));
        Entry { live: Arc::clone(self), shard, key, connection }
    }

    /// Those of this moment, in no order.
    pub(super) fn all(&self) -> Vec<Arc<Connection>> {
        let mut all = Vec::new();
        for shard in 0..SHARDS {
            all.extend(self.lock(shard).iter().map(|(_, connection)| Arc::clone(connection)));
        }
        all
    }

    fn lock(&self, shard: usize) -> MutexGuard<'_, Slab<Arc<Connection>>> {
        // Nothing that runs under the lock can leave the slab half changed.
        self.0[shard].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Entry {
    /// The connection goes elsewhere than it was said to.
    pub(super) fn redirect(&mut self, flow: Arc<Flow>) {
        let Connection { opened, upstream, downstream, progress, .. } = &*self.connection;
        let same = |number: &AtomicU64| AtomicU64::new(number.load(Ordering::Relaxed));
        let connection = Arc::new(Connection {
            flow,
            opened: *opened,
            upstream: same(upstream),
            downstream: same(downstream),
            progress: AtomicU8::new(progress.load(Ordering::Relaxed)),
        });
        if let Some(place) = self.live.lock(self.shard).get_mut(self.key) {
            *place = Arc::clone(&connection);
        }
        self.connection = connection;
    }

    pub(super) fn connection(&self) -> &Arc<Connection> {
        &self.connection
    }

    /// Bytes that the server was handed.
    pub(super) fn upstream(&mut self, bytes: u64) {
        add(&self.connection.upstream, bytes);
    }

    /// Bytes that the client was handed.
    pub(super) fn downstream(&mut self, bytes: u64) {
        add(&self.connection.downstream, bytes);
    }

    /// It carries bytes from now on.
    pub(super) fn open(&mut self) {
        self.connection.progress.store(1, Ordering::Relaxed);
    }
}

/// There is one who writes, who need not keep others out.
fn add(number: &AtomicU64, bytes: u64) {
    number.store(number.load(Ordering::Relaxed).wrapping_add(bytes), Ordering::Relaxed);
}

impl Drop for Entry {
    fn drop(&mut self) {
        let mut shard = self.live.lock(self.shard);
        let gone = shard.try_remove(self.key);
        if shard.capacity() > SPARE && shard.len() < shard.capacity() / SPARSE {
            shard.shrink_to_fit(); // gives back what lies behind the last that is in use
        }
        drop(shard);
        drop(gone);
    }
}

/// Places of a table that are kept whatever happens.
const SPARE: usize = 4096;
/// A table of which less than one in so many places is used gives back what it can.
const SPARSE: usize = 8;

/// The table of this thread.
fn this_thread() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local!(static SHARD: usize = NEXT.fetch_add(1, Ordering::Relaxed) % SHARDS);
    SHARD.with(|shard| *shard)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::fixtures::{outbound, passthrough};

    #[test]
    fn a_connection_is_seen_with_what_it_has_carried_for_as_long_as_it_is_open() {
        let live = Arc::new(Live::default());
        let mut entry = live.enter(Arc::new(outbound()));
        assert_eq!(live.all()[0].progress(), Progress::Connecting);
        entry.open();
        entry.upstream(5);
        entry.upstream(2);
        entry.downstream(3);
        let seen = live.all();
        assert_eq!((seen.len(), seen[0].progress()), (1, Progress::Open));
        assert_eq!(seen[0].tally(), Tally { upstream_bytes: 7, downstream_bytes: 3 });
        drop(entry);
        assert!(live.all().is_empty());
    }

    #[test]
    fn a_connection_that_goes_elsewhere_is_seen_once() {
        let live = Arc::new(Live::default());
        let mut entry = live.enter(Arc::new(outbound()));
        let opened = entry.connection().opened();
        entry.redirect(Arc::new(passthrough()));
        let seen = live.all();
        assert_eq!(seen.len(), 1);
        assert_eq!((&**seen[0].flow(), seen[0].opened()), (&passthrough(), opened));
    }

    #[test]
    fn many_connections_that_have_gone_leave_no_table_behind() {
        let live = Arc::new(Live::default());
        let flow = Arc::new(outbound());
        let entries: Vec<_> = (0..3 * SPARE).map(|_| live.enter(Arc::clone(&flow))).collect();
        assert_eq!(live.all().len(), 3 * SPARE);
        drop(entries);
        assert!((0..SHARDS).all(|shard| live.lock(shard).capacity() <= SPARE));
        assert_eq!(Arc::strong_count(&flow), 1);
    }
}

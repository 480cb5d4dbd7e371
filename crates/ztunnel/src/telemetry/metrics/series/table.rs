//! Which series there are: found without building a key, bounded in number, and forgotten when nobody has used them for a
//! while.
//!
//! Invariant: a series that a connection holds is never forgotten, so that what a connection counts is shown. Time is told
//! from outside, in rounds ([`Table::sweep`]), so that opening a connection reads no clock for this.

use std::hash::BuildHasher;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Once, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

use foldhash::fast::RandomState;
use hashbrown::HashTable;
use mesh::connect::TraceId;
use mesh::{Flow, Party, Reporter, SecurityPolicy};

use super::super::labels::{Shown, Values};
use super::Series;

/// Sets of labels that are told apart at most (`METRICS_MAX_SERIES`); connections beyond share one series per reporter
/// whose other labels are `unknown`. A node's pods have some thousands of peers at the outside, and peers choose some of
/// their labels themselves. At the bound a scrape is some tens of megabytes.
pub const DEFAULT_MAX_SERIES: usize = 10_000;
/// Rounds that a series has to go unused before it is forgotten: enough for rounds to be short next to the time that the
/// operator set.
const QUIET_ROUNDS: u32 = 4;
/// Series that are taken out under one write lock, which connections that open wait for.
const BATCH: usize = 128;

/// What the operator set about series.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Most sets of labels that are told apart.
    pub most: usize,
    /// How long a series that no connection uses is still shown; `None` is for ever.
    pub quiet: Option<Duration>,
    /// Labels that connections are counted by.
    pub labels: Shown,
}

impl Default for Settings {
    fn default() -> Self {
        Self { most: DEFAULT_MAX_SERIES, quiet: None, labels: Shown::default() }
    }
}

/// All series of this process.
#[derive(Debug)]
pub(in super::super) struct Table {
    settings: Settings,
    hasher: RandomState,
    /// Read once per connection, written once per new set of labels. Scrapes copy the pointers and let go.
    series: RwLock<HashTable<Arc<Series>>>,
    overflow: [Arc<Series>; 2],
    full: Once,
    round: AtomicU32,
    evicted: AtomicU64,
    /// What was counted in series that have been forgotten.
    retired: Retired,
}

#[derive(Debug, Default)]
struct Retired {
    opened: AtomicU64,
    received: AtomicU64,
    sent: AtomicU64,
}

/// What all connections since the start add up to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Connections opened.
    pub opened: u64,
    /// Bytes from clients to servers.
    pub received: u64,
    /// Bytes from servers to clients.
    pub sent: u64,
}

impl Table {
    pub(in super::super) fn new(settings: Settings) -> Self {
        let overflow = |reporter| Arc::new(Series::new(Arc::new(nobody(reporter)), 0));
        Self {
            settings,
            hasher: RandomState::default(),
            series: RwLock::default(),
            overflow: [overflow(Reporter::Source), overflow(Reporter::Destination)],
            full: Once::new(),
            round: AtomicU32::new(0),
            evicted: AtomicU64::new(0),
            retired: Retired::default(),
        }
    }

    pub(in super::super) fn series(&self, flow: &Arc<Flow>) -> Arc<Series> {
        let values = self.values(flow);
        let hash = self.hasher.hash_one(values);
        let same = |series: &Arc<Series>| self.values(&series.flow) == values;
        if let Some(series) = self.read().find(hash, same) {
            return self.used(series);
        }
        let mut table = self.write();
        if let Some(series) = table.find(hash, same) {
            return self.used(series); // somebody else was faster
        }
        if table.len() >= self.settings.most {
            drop(table);
            return self.overflow(flow.reporter);
        }
        let series = Arc::new(Series::new(Arc::clone(flow), self.round()));
        table.insert_unique(hash, Arc::clone(&series), |series| self.hash(series));
        series
    }

    /// How often to [sweep](Self::sweep); `None` is never.
    pub(in super::super) fn interval(&self) -> Option<Duration> {
        self.settings.quiet.map(|quiet| quiet / QUIET_ROUNDS)
    }

    /// Forgets series that nobody has used for [`QUIET_ROUNDS`] rounds, and begins the next round.
    pub(in super::super) fn sweep(&self) {
        let round = self.round.fetch_add(1, Ordering::Relaxed).wrapping_add(1);
        let mut stale = Vec::new();
        for series in self.read().iter() {
            if is_held(series) {
                series.used.store(round, Ordering::Relaxed);
            } else if self.is_stale(series, round) {
                stale.push((self.hash(series), Arc::as_ptr(series)));
            }
        }
        for batch in stale.chunks(BATCH) {
            self.forget(batch, round);
        }
        let mut table = self.write();
        if table.capacity() > 4 * (table.len() + BATCH) {
            let room = 2 * table.len();
            table.shrink_to(room, |series| self.hash(series));
        }
    }

    /// Takes out those that are still unused: only lookups under the lock hand out a series, and there are none now.
    fn forget(&self, batch: &[(u64, *const Series)], round: u32) {
        let mut table = self.write();
        for &(hash, pointer) in batch {
            let Ok(found) = table.find_entry(hash, |series| Arc::as_ptr(series) == pointer) else { continue };
            if !is_held(found.get()) && self.is_stale(found.get(), round) {
                let (series, _) = found.remove();
                self.retire(&series);
                self.evicted.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    fn retire(&self, series: &Series) {
        let Retired { opened, received, sent } = &self.retired;
        for (sum, part) in [(opened, &series.opened), (received, &series.received), (sent, &series.sent)] {
            sum.fetch_add(part.load(Ordering::Relaxed), Ordering::Relaxed);
        }
    }

    /// All connections together, whatever has been forgotten of them.
    pub(in super::super) fn totals(&self) -> Totals {
        let Retired { opened, received, sent } = &self.retired;
        let [opened, received, sent] = [opened, received, sent].map(|sum| sum.load(Ordering::Relaxed));
        let mut totals = Totals { opened, received, sent };
        for series in self.all() {
            totals.opened += series.opened.load(Ordering::Relaxed);
            totals.received += series.received.load(Ordering::Relaxed);
            totals.sent += series.sent.load(Ordering::Relaxed);
        }
        totals
    }

    fn is_stale(&self, series: &Series, round: u32) -> bool {
        round.wrapping_sub(series.used.load(Ordering::Relaxed)) > QUIET_ROUNDS
    }

    fn used(&self, series: &Arc<Series>) -> Arc<Series> {
        series.used.store(self.round(), Ordering::Relaxed);
        Arc::clone(series)
    }

    fn round(&self) -> u32 {
        self.round.load(Ordering::Relaxed)
    }

    fn overflow(&self, reporter: Reporter) -> Arc<Series> {
        self.full.call_once(|| {
            tracing::warn!(
                "metrics tell {} combinations of workloads apart, which is as many as they may (METRICS_MAX_SERIES): \
                 further ones are counted together, with unknown labels",
                self.settings.most
            );
        });
        let [source, destination] = &self.overflow;
        Arc::clone(match reporter {
            Reporter::Source => source,
            Reporter::Destination => destination,
        })
    }

    /// All series that connections were counted in.
    pub(super) fn all(&self) -> Vec<Arc<Series>> {
        let mut all: Vec<_> = self.read().iter().map(Arc::clone).collect();
        all.extend(self.overflow.iter().filter(|series| series.opened.load(Ordering::Relaxed) > 0).map(Arc::clone));
        all
    }

    /// Series forgotten since the start.
    pub(super) fn evicted(&self) -> u64 {
        self.evicted.load(Ordering::Relaxed)
    }

    /// Connections counted in series that tell nothing apart, since the start.
    pub(super) fn overflowed(&self) -> u64 {
        self.overflow.iter().map(|series| series.opened.load(Ordering::Relaxed)).sum()
    }

    #[cfg(test)]
    pub(super) fn capacity(&self) -> usize {
        self.read().capacity()
    }

    pub(super) fn shown(&self) -> Shown {
        self.settings.labels
    }

    fn values<'a>(&self, flow: &'a Flow) -> Values<'a> {
        Values::of(flow, self.settings.labels)
    }

    fn hash(&self, series: &Series) -> u64 {
        self.hasher.hash_one(self.values(&series.flow))
    }

    fn read(&self) -> RwLockReadGuard<'_, HashTable<Arc<Series>>> {
        self.series.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, HashTable<Arc<Series>>> {
        self.series.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether somebody besides the table holds a series.
fn is_held(series: &Arc<Series>) -> bool {
    Arc::strong_count(series) > 1
}

/// A connection between parties about which nothing is known.
fn nobody(reporter: Reporter) -> Flow {
    let nowhere = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0));
    Flow {
        reporter,
        source_address: nowhere,
        destination_address: nowhere,
        original_destination: nowhere,
        hbone_authority: None,
        source: Party::default(),
        destination: Party::default(),
        service: None,
        security: SecurityPolicy::Unknown,
        trace: TraceId(0),
        hop: 0,
    }
}

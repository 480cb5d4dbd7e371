//! Traffic: one set of counters per set of labels, found without building a key.
//!
//! The flag with which connections end is the last dimension and lives inside a series, so that a connection needs no
//! second lookup when it ends.

use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Once, PoisonError, RwLock};

use hashbrown::HashTable;
use mesh::connect::TraceId;
use mesh::{Flow, Party, Reporter, ResponseFlag, SecurityPolicy};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;

use super::labels::{Labels, Values};

/// Sets of labels that are told apart at most; connections beyond share one series per reporter whose other labels are
/// `unknown`. A node's pods have some thousands of peers at the outside, and peers choose some of their labels themselves.
/// At the bound a scrape is some tens of megabytes.
pub const MAX_SERIES: usize = 10_000;

/// All flags, in the order of the slots of [`Series::closed`].
const FLAGS: [ResponseFlag; 8] = [
    ResponseFlag::None,
    ResponseFlag::Deny,
    ResponseFlag::Connect,
    ResponseFlag::TlsFailure,
    ResponseFlag::H2HandshakeFailure,
    ResponseFlag::NetworkPolicy,
    ResponseFlag::IdentityError,
    ResponseFlag::CertRevoked,
];

/// The counters of all connections with the same labels.
#[derive(Debug)]
pub struct Series {
    /// Where the labels are taken from: the first flow that had them.
    flow: Arc<Flow>,
    opened: AtomicU64,
    received: AtomicU64,
    sent: AtomicU64,
    closed: [AtomicU64; FLAGS.len()],
}

impl Series {
    fn new(flow: Arc<Flow>) -> Self {
        let zero = || AtomicU64::new(0);
        Self { flow, opened: zero(), received: zero(), sent: zero(), closed: std::array::from_fn(|_| zero()) }
    }

    /// A connection opened.
    pub fn opened(&self) {
        self.opened.fetch_add(1, Ordering::Relaxed);
    }

    /// Bytes went from client to server.
    pub fn received(&self, bytes: u64) {
        self.received.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Bytes went from server to client.
    pub fn sent(&self, bytes: u64) {
        self.sent.fetch_add(bytes, Ordering::Relaxed);
    }

    /// A connection ended.
    pub fn closed(&self, flag: ResponseFlag) {
        // Every flag has a slot; the compiler sees to that in `slot`, and a test to the order.
        if let Some(count) = self.closed.get(slot(flag)) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }
}

fn slot(flag: ResponseFlag) -> usize {
    match flag {
        ResponseFlag::None => 0,
        ResponseFlag::Deny => 1,
        ResponseFlag::Connect => 2,
        ResponseFlag::TlsFailure => 3,
        ResponseFlag::H2HandshakeFailure => 4,
        ResponseFlag::NetworkPolicy => 5,
        ResponseFlag::IdentityError => 6,
        ResponseFlag::CertRevoked => 7,
    }
}

/// All series of this process.
#[derive(Debug)]
pub(super) struct Table {
    hasher: RandomState,
    /// Read once per connection, written once per new set of labels. Scrapes copy the pointers and let go.
    series: RwLock<HashTable<Arc<Series>>>,
    overflow: [Arc<Series>; 2],
    full: Once,
}

impl Default for Table {
    fn default() -> Self {
        let overflow = |reporter| Arc::new(Series::new(Arc::new(nobody(reporter))));
        Self {
            hasher: RandomState::new(),
            series: RwLock::default(),
            overflow: [overflow(Reporter::Source), overflow(Reporter::Destination)],
            full: Once::new(),
        }
    }
}

impl Table {
    pub(super) fn series(&self, flow: &Arc<Flow>) -> Arc<Series> {
        let values = Values::of(flow);
        let hash = self.hasher.hash_one(values);
        let same = |series: &Arc<Series>| Values::of(&series.flow) == values;
        {
            let table = self.series.read().unwrap_or_else(PoisonError::into_inner);
            if let Some(series) = table.find(hash, same) {
                return Arc::clone(series);
            }
        }
        let mut table = self.series.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(series) = table.find(hash, same) {
            return Arc::clone(series); // somebody else was faster
        }
        if table.len() >= MAX_SERIES {
            drop(table);
            return self.overflow(flow.reporter);
        }
        let series = Arc::new(Series::new(Arc::clone(flow)));
        let rehash = |series: &Arc<Series>| self.hasher.hash_one(Values::of(&series.flow));
        table.insert_unique(hash, Arc::clone(&series), rehash);
        series
    }

    fn overflow(&self, reporter: Reporter) -> Arc<Series> {
        self.full.call_once(|| {
            tracing::warn!(
                "metrics tell {MAX_SERIES} combinations of workloads apart, which is as many as they can: \
                 further ones are counted together, with unknown labels"
            );
        });
        let [source, destination] = &self.overflow;
        Arc::clone(match reporter {
            Reporter::Source => source,
            Reporter::Destination => destination,
        })
    }

    /// All series that connections were counted in.
    fn all(&self) -> Vec<Arc<Series>> {
        let mut all: Vec<_> = {
            let table = self.series.read().unwrap_or_else(PoisonError::into_inner);
            table.iter().map(Arc::clone).collect()
        };
        all.extend(self.overflow.iter().filter(|series| series.opened.load(Ordering::Relaxed) > 0).map(Arc::clone));
        all
    }
}

/// A connection between parties about which nothing is known.
fn nobody(reporter: Reporter) -> Flow {
    let nowhere = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0));
    Flow {
        reporter,
        source_address: nowhere,
        destination_address: nowhere,
        hbone_authority: None,
        source: Party::default(),
        destination: Party::default(),
        service: None,
        security: SecurityPolicy::Unknown,
        trace: TraceId(0),
    }
}

/// Name, help and values of a family of traffic counters.
type FamilyRow = (&'static str, &'static str, fn(&Series, ResponseFlag) -> Option<u64>);

/// The families, in the order in which they are printed. A value is given for each flag; `None` prints no sample.
const FAMILIES: [FamilyRow; 5] = [
    ("istio_tcp_connections_opened", "The total number of TCP connections opened.", |series, flag| {
        open(&series.opened, flag)
    }),
    ("istio_tcp_connections_closed", "The total number of TCP connections closed.", ended),
    (
        "istio_tcp_received_bytes",
        "The size of total bytes received during request in case of a TCP connection.",
        |series, flag| open(&series.received, flag),
    ),
    (
        "istio_tcp_sent_bytes",
        "The size of total bytes sent during response in case of a TCP connection.",
        |series, flag| open(&series.sent, flag),
    ),
    (
        "istio_tcp_connections_failed",
        "The total number of TCP connections that failed to establish (unstable).",
        |series, flag| ended(series, flag).filter(|_| flag != ResponseFlag::None),
    ),
];

/// What is counted while a connection is open, when its flag is not known yet.
fn open(count: &AtomicU64, flag: ResponseFlag) -> Option<u64> {
    (flag == ResponseFlag::None).then(|| count.load(Ordering::Relaxed))
}

/// What is counted when a connection ends.
fn ended(series: &Series, flag: ResponseFlag) -> Option<u64> {
    let count = series.closed.get(slot(flag))?.load(Ordering::Relaxed);
    (count > 0).then_some(count)
}

impl Collector for Table {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let all = self.all();
        for (name, help, value) in FAMILIES {
            let mut samples = all
                .iter()
                .flat_map(|series| FLAGS.into_iter().filter_map(move |flag| Some((series, flag, value(series, flag)?))))
                .peekable();
            if samples.peek().is_none() {
                continue; // a family without samples is not mentioned
            }
            self::encode(&mut encoder, name, help, |family| {
                samples.try_for_each(|(series, flag, count)| {
                    let labels = Labels { values: Values::of(&series.flow), flag };
                    family.encode_family(&labels)?.encode_counter::<NoLabelSet, _, u64>(&count, None)
                })
            })?;
        }
        Ok(())
    }
}

/// Encodes a counter of ours that the registry does not know.
pub(super) fn encode(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    samples: impl FnOnce(&mut MetricEncoder<'_>) -> fmt::Result,
) -> fmt::Result {
    samples(&mut encoder.encode_descriptor(name, help, None, MetricType::Counter)?)
}

#[cfg(test)]
mod tests;

//! Traffic: one set of counters per set of labels.
//!
//! The flag with which connections end is the last dimension and lives inside a series, so that a connection needs no
//! second lookup when it ends. Which series there are is [`table`]'s to know.

mod table;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use mesh::{Flow, ResponseFlag};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;

use super::labels::{Labels, Values};
pub(super) use table::Table;
pub use table::{DEFAULT_MAX_SERIES, Settings, Totals};

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
    /// The round of looking for unused series in which somebody was last seen to use this one.
    used: AtomicU32,
}

impl Series {
    fn new(flow: Arc<Flow>, round: u32) -> Self {
        let zero = || AtomicU64::new(0);
        let closed = std::array::from_fn(|_| zero());
        Self { flow, opened: zero(), received: zero(), sent: zero(), closed, used: AtomicU32::new(round) }
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
        let shown = self.shown();
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
                    let labels = Labels { values: Values::of(&series.flow, shown), shown, flag };
                    family.encode_family(&labels)?.encode_counter::<NoLabelSet, _, u64>(&count, None)
                })
            })?;
        }
        let help = "The number of combinations of labels that connections are counted by.";
        let descriptor = encoder.encode_descriptor("istio_metric_series", help, None, MetricType::Gauge);
        descriptor?.encode_gauge(&i64::try_from(all.len()).unwrap_or(i64::MAX))?;
        let help = "The total number of such combinations forgotten after nobody had used them for a while.";
        self::encode(&mut encoder, "istio_metric_series_evicted", help, |family| {
            family.encode_counter::<NoLabelSet, _, u64>(&self.evicted(), None)
        })?;
        let help =
            "The total number of connections counted under unknown labels because there are too many combinations.";
        self::encode(&mut encoder, "istio_metric_series_overflow", help, |family| {
            family.encode_counter::<NoLabelSet, _, u64>(&self.overflowed(), None)
        })
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

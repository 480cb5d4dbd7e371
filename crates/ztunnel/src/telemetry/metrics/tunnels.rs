//! Tunnels: how many there are, what their streams are doing and how they ended, and the memory that they hold.
//!
//! A tunnel's task keeps a [`Census`] of its own and tells what has changed when it has nothing more to do, so that a
//! number costs an addition per turn and not per batch of bytes; and it adds to the numbers of its thread, on cache lines
//! that other threads rarely touch. A scrape adds them up.
//!
//! Invariant: a census that is dropped has taken back what it told, so that what is over leaves nothing behind.

use std::cell::Cell;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, AtomicUsize, Ordering};
use std::time::Instant;

use hbone::h2::Allowance;
use mesh::Reporter;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;

use super::latency::Latencies;

/// Threads whose numbers are kept apart; more than that share. Few nodes give a ztunnel more cores.
const SHARDS: usize = 32;
/// What goes up and down, [`TUNNELS`] and so on.
const GAUGES: usize = 5;
const ENDS: usize = StreamEnd::ALL.len();

/// How a stream ended, as seen from this end of its tunnel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamEnd {
    /// Both directions ended in order.
    Clean,
    /// The app on this side reset its connection.
    ResetByApp,
    /// The other end of the tunnel reset the stream.
    ResetByPeer,
    /// One direction had ended and the other carried nothing for too long.
    HalfClosed,
    /// The tunnel failed.
    TunnelFailure,
    /// The connection outlasted a drain, or its pod.
    Drain,
    /// Policies no longer allowed it.
    Policy,
    /// The app's socket failed otherwise, for example because the app's host no longer answers.
    AppFailure,
    /// It never carried anything: refused, given up before the answer, or moved to another tunnel.
    NotCarried,
}

impl StreamEnd {
    /// All of them, with the value of the label, in the order of their numbers.
    const ALL: [(Self, &str); 9] = [
        (Self::Clean, "clean"),
        (Self::ResetByApp, "reset_by_app"),
        (Self::ResetByPeer, "reset_by_peer"),
        (Self::HalfClosed, "half_closed_timeout"),
        (Self::TunnelFailure, "tunnel_failure"),
        (Self::Drain, "drain"),
        (Self::Policy, "policy"),
        (Self::AppFailure, "app_failure"),
        (Self::NotCarried, "not_carried"),
    ];
}

/// What one stream adds to the numbers of its tunnel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Holding {
    /// Bytes received and not taken by the app yet.
    pub to_app: usize,
    /// Bytes of the app that are kept and not sent yet, or kept to be sent again.
    pub to_peer: usize,
    /// Whether one direction has ended and the other has not.
    pub half_closed: bool,
}

/// The numbers of one thread, for one end of tunnels. As large as two cache lines, which processors fetch together.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Shard {
    gauges: [AtomicI64; GAUGES],
    ended: [AtomicU64; ENDS],
}

/// The tunnels of this process.
#[derive(Debug)]
pub(super) struct Tunnels {
    shards: [[Shard; 2]; SHARDS],
    allowance: Allowance,
    latencies: Option<Latencies>,
}

/// What one tunnel's task counts.
#[derive(Debug)]
pub struct Census {
    tunnels: Arc<Tunnels>,
    /// Since when the handshake goes on, if anybody wants to know.
    handshake: Option<Instant>,
    shard: usize,
    end: usize,
    now: [i64; GAUGES],
    told: [i64; GAUGES],
}

const TUNNELS: usize = 0;
const STREAMS: usize = 1;
const HALF_CLOSED: usize = 2;
const TO_APP: usize = 3;
const TO_PEER: usize = 4;

/// What the state of a stream takes, in bytes: `idle-connections` of the benchmark.
const STREAM: usize = 2560;

/// The ends of tunnels in the order of the shards' halves, with the value of the label.
const REPORTERS: [&str; 2] = ["source", "destination"];

impl Tunnels {
    pub(super) fn new(allowance: Allowance, latencies: Option<Latencies>) -> Self {
        Self { shards: Default::default(), allowance, latencies }
    }

    /// Counts a tunnel for as long as the census lives; to be called by the thread that the tunnel stays on.
    pub(super) fn census(self: &Arc<Self>, reporter: Reporter) -> Census {
        let end = match reporter {
            Reporter::Source => 0,
            Reporter::Destination => 1,
        };
        let handshake = self.latencies.is_some().then(Instant::now);
        let (shard, now, told) = (this_thread(), [0; GAUGES], [0; GAUGES]);
        let mut census = Census { tunnels: Arc::clone(self), handshake, shard, end, now, told };
        census.now[TUNNELS] = 1;
        census.tell();
        census
    }

    fn gauge(&self, end: usize, gauge: usize) -> i64 {
        self.shards.iter().map(|ends| ends[end].gauges[gauge].load(Ordering::Relaxed)).sum()
    }

    /// About how many bytes all streams occupy: what is held for them, and what each takes itself.
    pub(super) fn load(&self) -> usize {
        let of = |end, gauge| usize::try_from(self.gauge(end, gauge)).unwrap_or_default();
        let each = |end| of(end, STREAMS) * STREAM + of(end, TO_APP) + of(end, TO_PEER);
        (0..REPORTERS.len()).map(each).sum()
    }

    fn ended(&self, end: usize, how: usize) -> u64 {
        self.shards.iter().map(|ends| ends[end].ended[how].load(Ordering::Relaxed)).sum()
    }
}

/// The shard of this thread.
fn this_thread() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local!(static SHARD: Cell<Option<usize>> = const { Cell::new(None) });
    SHARD.with(|shard| {
        let number = shard.get().unwrap_or_else(|| NEXT.fetch_add(1, Ordering::Relaxed) % SHARDS);
        shard.set(Some(number));
        number
    })
}

impl Census {
    /// The handshake is complete; it may be told any number of times.
    pub fn established(&mut self) {
        if let Some((begun, latencies)) = self.handshake.take().zip(self.tunnels.latencies.as_ref()) {
            let reporter = if self.end == 0 { Reporter::Source } else { Reporter::Destination };
            latencies.established(reporter, begun.elapsed());
        }
    }

    /// A stream has begun.
    pub fn opened(&mut self) {
        self.now[STREAMS] += 1;
    }

    /// A stream that held `held` has ended.
    pub fn ended(&mut self, held: Holding, how: StreamEnd) {
        self.changed(held, Holding::default());
        self.now[STREAMS] -= 1;
        self.shard().ended[how as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// A stream that held `before` holds `after`.
    pub fn changed(&mut self, before: Holding, after: Holding) {
        self.now[HALF_CLOSED] += i64::from(after.half_closed) - i64::from(before.half_closed);
        self.now[TO_APP] += signed(after.to_app) - signed(before.to_app);
        self.now[TO_PEER] += signed(after.to_peer) - signed(before.to_peer);
    }

    /// Lets scrapes see what has changed. `unsent` bytes of the tunnel itself wait for its socket.
    pub fn tell_with(&mut self, unsent: usize) {
        self.now[TO_PEER] += signed(unsent);
        self.tell();
        self.now[TO_PEER] -= signed(unsent);
    }

    fn tell(&mut self) {
        for gauge in 0..GAUGES {
            let change = self.now[gauge] - self.told[gauge];
            if change != 0 {
                self.shard().gauges[gauge].fetch_add(change, Ordering::Relaxed);
            }
        }
        self.told = self.now;
    }

    fn shard(&self) -> &Shard {
        &self.tunnels.shards[self.shard][self.end]
    }
}

impl Drop for Census {
    fn drop(&mut self) {
        self.now = [0; GAUGES];
        self.tell();
    }
}

fn signed(bytes: usize) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

impl Collector for Tunnels {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let each_end = |gauge: usize| {
            move |mut metric: MetricEncoder<'_>| {
                REPORTERS.iter().enumerate().try_for_each(|(end, reporter)| {
                    metric.encode_family(&[("reporter", *reporter)])?.encode_gauge(&self.gauge(end, gauge))
                })
            }
        };
        let number = |value: usize| move |mut metric: MetricEncoder<'_>| metric.encode_gauge(&signed(value));
        let gauge = MetricType::Gauge;
        let name = "istio_hbone_tunnels_open";
        each_end(TUNNELS)(encoder.encode_descriptor(name, "The current number of HBONE tunnels.", None, gauge)?)?;
        let name = "istio_hbone_streams_open";
        each_end(STREAMS)(encoder.encode_descriptor(
            name,
            "The current number of streams in tunnels.",
            None,
            gauge,
        )?)?;
        let (name, help) = ("istio_hbone_streams_half_closed", "Streams one direction of which has ended.");
        each_end(HALF_CLOSED)(encoder.encode_descriptor(name, help, None, gauge)?)?;
        let (name, help) = ("istio_hbone_streams_ended", "The total number of streams that have ended, by how.");
        self.encode_ended(encoder.encode_descriptor(name, help, None, MetricType::Counter)?)?;
        let (name, help) = ("istio_hbone_buffered_bytes", "Bytes held for apps or tunnels that do not take them yet.");
        self.encode_buffered(encoder.encode_descriptor(name, help, None, gauge)?)?;
        let (name, help) = ("istio_hbone_window_granted_bytes", "What peers may send ahead beyond first windows.");
        number(self.allowance.used())(encoder.encode_descriptor(name, help, None, gauge)?)?;
        let (name, help) = ("istio_hbone_window_budget_bytes", "The most of it that may be granted (BUFFER_BUDGET).");
        number(self.allowance.limit())(encoder.encode_descriptor(name, help, None, gauge)?)?;
        let name = "istio_hbone_window_refused";
        let help = "How often a window did not grow because that, or its pod's part of it, was used up.";
        let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
        metric.encode_counter::<NoLabelSet, _, u64>(&self.allowance.refused(), None)
    }
}

impl Tunnels {
    fn encode_ended(&self, mut metric: MetricEncoder<'_>) -> fmt::Result {
        for (end, reporter) in REPORTERS.iter().enumerate() {
            for (how, name) in StreamEnd::ALL {
                let labels = [("reporter", *reporter), ("end", name)];
                let count = self.ended(end, how as usize);
                metric.encode_family(&labels)?.encode_counter::<NoLabelSet, _, u64>(&count, None)?;
            }
        }
        Ok(())
    }

    fn encode_buffered(&self, mut metric: MetricEncoder<'_>) -> fmt::Result {
        for (end, reporter) in REPORTERS.iter().enumerate() {
            for (towards, gauge) in [("app", TO_APP), ("peer", TO_PEER)] {
                let labels = [("reporter", *reporter), ("towards", towards)];
                metric.encode_family(&labels)?.encode_gauge(&self.gauge(end, gauge))?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;

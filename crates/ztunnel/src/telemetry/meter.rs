//! What the data path holds while something is open, so that its end is told exactly once.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use mesh::{Decided, Flow, Outcome, Record};
use prometheus_client::metrics::gauge::Gauge;

use super::Telemetry;
use super::live::Entry;
use super::metrics::Series;

/// Counts one connection's bytes and makes its one [`Record`]: when finished, or, saying that the connection was cut,
/// when dropped before that.
#[derive(Debug)]
#[must_use = "a connection whose meter is dropped is on record as cut by a drain"]
pub struct Meter {
    telemetry: Telemetry,
    /// What others may see of it.
    entry: Entry,
    series: Arc<Series>,
    state: State,
    decided: Option<Decided>,
}

/// How much of a connection has been told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Nothing, since it may go elsewhere yet.
    Undecided,
    /// That it has opened.
    Opened,
    /// All of it.
    Recorded,
}

impl Meter {
    pub(super) fn new(telemetry: Telemetry, entry: Entry, series: Arc<Series>) -> Self {
        Self { telemetry, entry, series, state: State::Undecided, decided: None }
    }

    /// The connection goes where its flow says. Counts it as opened.
    pub fn settle(&mut self) {
        if self.state == State::Undecided {
            self.state = State::Opened;
            let (flow, opened) = (self.entry.connection().flow(), self.entry.connection().opened());
            self.telemetry.metrics().connected(flow.reporter, opened);
            self.telemetry.opened(&self.series, flow);
        }
    }

    /// Whoever carries the connection on has answered: it carries bytes from now on.
    pub fn connected(&mut self) {
        self.entry.open();
    }

    /// The connection goes elsewhere; to be called before it is [settled](Self::settle).
    pub fn redirect(&mut self, flow: Arc<Flow>) {
        if self.state == State::Undecided {
            self.series = self.telemetry.metrics().series(&flow);
            self.entry.redirect(flow);
        }
    }

    /// Who talks to whom.
    #[must_use]
    pub fn flow(&self) -> &Arc<Flow> {
        self.entry.connection().flow()
    }

    /// Counts bytes that the server was handed.
    pub fn upstream(&mut self, bytes: u64) {
        self.entry.upstream(bytes);
        self.series.received(bytes);
    }

    /// Counts bytes that the client was handed.
    pub fn downstream(&mut self, bytes: u64) {
        self.entry.downstream(bytes);
        self.series.sent(bytes);
    }

    /// The policy that has decided about the connection; the last word counts.
    pub fn decided(&mut self, by: Option<Decided>) {
        self.decided = by;
    }

    /// Puts the connection on record.
    pub fn finish(mut self, outcome: Outcome) {
        self.record(outcome);
    }

    fn record(&mut self, outcome: Outcome) {
        self.settle();
        if std::mem::replace(&mut self.state, State::Recorded) == State::Recorded {
            return;
        }
        let connection = self.entry.connection();
        let (flow, tally, duration) =
            (Arc::clone(connection.flow()), connection.tally(), connection.opened().elapsed());
        let decided = self.decided.take();
        self.telemetry.record(&self.series, &Record { flow, tally, duration, outcome, decided });
    }
}

impl Drop for Meter {
    fn drop(&mut self) {
        self.record(Outcome::Drained);
    }
}

/// How many accepted sockets of one pod are open.
#[derive(Debug, Default)]
pub struct PodSockets(AtomicUsize);

impl PodSockets {
    /// Those of this moment.
    #[must_use]
    pub fn open(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

/// An accepted socket that is counted as open.
#[derive(Debug)]
pub struct SocketGuard {
    open: Gauge,
    of_pod: Arc<PodSockets>,
}

impl SocketGuard {
    pub(super) fn new(open: Gauge, of_pod: Arc<PodSockets>) -> Self {
        open.inc();
        of_pod.0.fetch_add(1, Ordering::Relaxed);
        Self { open, of_pod }
    }
}

impl Drop for SocketGuard {
    fn drop(&mut self) {
        self.open.dec();
        self.of_pod.0.fetch_sub(1, Ordering::Relaxed);
    }
}

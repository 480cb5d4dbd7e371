//! What the data path holds while something is open, so that its end is told exactly once.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use mesh::{Decided, End, Flow, Outcome, Record};
use prometheus_client::metrics::gauge::Gauge;

use super::Telemetry;
use super::closing::{Carriers, Closing};
use super::live::{Connection, Entry};
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
    /// The app that has ended first, if one has.
    closed_first: Option<End>,
    /// What was seen of its end; only at its end.
    closing: Option<Box<Closing>>,
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
        let (decided, closed_first, closing) = (None, None, None);
        Self { telemetry, entry, series, state: State::Undecided, decided, closed_first, closing }
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

    /// What others may see of the connection.
    pub(super) fn connection(&self) -> Arc<Connection> {
        Arc::clone(self.entry.connection())
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

    /// The app at `end` has said all that it will. What comes first counts.
    pub fn ended(&mut self, end: End) {
        self.closed_first.get_or_insert(end);
    }

    /// Looks at what carries the connection, which is about to end with `outcome`. Sockets are asked about only if it
    /// failed or lasted long.
    pub fn look(&mut self, outcome: &Outcome, carriers: Carriers<'_>) {
        let duration = self.entry.connection().opened().elapsed();
        let [app, peer] = match self.telemetry.is_notable(outcome, duration) {
            true => carriers.paths(),
            false => [None, None],
        };
        let tls_group = carriers.tls_group.cloned();
        self.closing = Some(Box::new(Closing { closed_first: None, tls_group, app, peer }));
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
        let seen = self.closing.take().map(|seen| *seen).unwrap_or_default();
        let closing = Closing { closed_first: self.closed_first.or(outcome.reset_by()), ..seen };
        self.telemetry.record(&self.series, &Record { flow, tally, duration, outcome, decided }, &closing);
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

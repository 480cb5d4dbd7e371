//! What the outside gets to see of connections: one log line and the counters of each, and the log of everything else.
//!
//! The data path holds a [`Meter`] per connection and a [`SocketGuard`] per accepted socket, both counting down when
//! dropped, so that no connection ends unrecorded. Nothing here waits: not for the log's output, nor for a scrape.
//!
//! Not here: serving any of it (`admin`), and what the values mean (`mesh::account`).

pub mod access_log;
mod closing;
mod exported;
mod failures;
mod live;
pub mod logging;
mod looks;
mod meter;
pub mod metrics;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use mesh::authorize::{Deciding, Verdict};
use mesh::refusal::Denial;
use mesh::{Cause, Direction, Flow, Hostname, Outcome, Record, Reporter, Workload};
use tokio::sync::watch;
use tracing::Level;

pub use closing::{Carriers, Closing, Path};
pub use exported::{Attribute, Exported, Exporter, Exporters, Span};
use failures::Failures;
pub use failures::{Ended, Failure, MAX_FAILURES};
use live::Live;
pub use live::{Connection, Progress};
use logging::Logging;
use looks::Looks;
pub use looks::{Look, Paths, Seen};
pub use meter::{Meter, PodSockets, SocketGuard};
pub use metrics::{Census, Holding, PodLimit, StreamEnd, WaitEnd, WorkloadWait};
use metrics::{Metrics, Series};

/// How prominent decisions of authorization policies are in the log (spec data-plane 13.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum PolicyLogging {
    /// For debugging.
    #[default]
    Debug,
    /// Always (`AUTHZ_POLICY_INFO_LOGGING=true`).
    Info,
}

/// What the operator set about telling of connections.
#[derive(Clone, Debug, Default)]
pub struct Config {
    /// How prominent decisions of policies are.
    pub policies: PolicyLogging,
    /// Which connections have a line in the access log.
    pub access: access_log::Filter,
    /// Connections that last at least so long are told with the state of their sockets, as those are that fail.
    pub slow: Duration,
    /// Who is told of connections besides the log; of those that have a line there.
    pub export: Exporters,
}

/// The handle by which the rest of the process tells what happens. Cloning it is cheap.
#[derive(Clone, Debug)]
pub struct Telemetry(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    metrics: Arc<Metrics>,
    logging: Logging,
    config: Config,
    live: Arc<Live>,
    failures: Failures,
    looks: Looks,
}

impl Telemetry {
    /// Telemetry that counts in `metrics` and writes to `logging`.
    #[must_use]
    pub fn new(metrics: Arc<Metrics>, logging: Logging, config: Config) -> Self {
        let (live, failures, looks) = Default::default();
        Self(Arc::new(Shared { metrics, logging, config, live, failures, looks }))
    }

    /// Everything that is counted.
    #[must_use]
    pub fn metrics(&self) -> &Metrics {
        &self.0.metrics
    }

    /// Counts a connection as opened. Its record is made when the meter is finished or dropped.
    pub fn open(&self, flow: Arc<Flow>) -> Meter {
        let mut meter = self.begin(flow);
        meter.settle();
        meter
    }

    /// A connection that may end up elsewhere than its flow says. It counts as opened once it is
    /// [settled](Meter::settle), at its end at the latest.
    pub fn begin(&self, flow: Arc<Flow>) -> Meter {
        let series = self.0.metrics.series(&flow);
        Meter::new(self.clone(), self.0.live.enter(flow), series)
    }

    /// What is logged, as `/logging` says it.
    #[must_use]
    pub fn log_filter(&self) -> String {
        self.0.logging.filter().to_string()
    }

    /// The connections that are open at this moment, in no order.
    #[must_use]
    pub fn connections(&self) -> Vec<Arc<Connection>> {
        self.0.live.all()
    }

    /// What the kernel knows of the sockets of open connections through tunnels; those that do not answer soon are left out.
    pub async fn look(&self) -> Seen {
        self.0.looks.look(&self.0.live).await
    }

    /// Tells those whose sockets may be looked at that somebody does.
    #[must_use]
    pub fn looks(&self) -> watch::Receiver<Option<Look>> {
        self.0.looks.watch()
    }

    /// The last connections that failed, the latest first, and how many have failed since the start.
    #[must_use]
    pub fn failures(&self) -> (Vec<Arc<Failure>>, u64) {
        self.0.failures.last()
    }

    fn opened(&self, series: &Series, flow: &Flow) {
        series.opened();
        if self.0.logging.logs_access(Level::DEBUG) && self.0.config.access.takes_opening(flow) {
            self.0.logging.write(|out| access_log::opened(out, self.0.logging.format(), SystemTime::now(), flow));
        }
    }

    /// Counts an accepted socket for as long as the guard lives.
    #[must_use]
    pub fn socket(&self, reporter: Reporter, of_pod: &Arc<PodSockets>) -> SocketGuard {
        SocketGuard::new(self.0.metrics.sockets(reporter).clone(), Arc::clone(of_pod))
    }

    /// Counts that a pod has reached one of its limits.
    pub fn limit_reached(&self, limit: PodLimit) {
        self.0.metrics.limit_reached(limit);
    }

    /// Counts a tunnel, and what its streams do, for as long as the census lives.
    #[must_use]
    pub fn census(&self, reporter: Reporter) -> Census {
        self.0.metrics.census(reporter)
    }

    /// Times the wait of a connection for the announcement of its pod.
    #[must_use]
    pub fn workload_wait(&self) -> WorkloadWait {
        self.0.metrics.workload_wait()
    }

    /// Counts that the host name of an endpoint is looked up for a connection of `source`.
    pub fn host_resolved(&self, source: Option<&Workload>, hostname: &Hostname) {
        self.0.metrics.host_resolved(source, hostname);
    }

    /// Tells of a connection that ended before it was known who talks to whom, or what about.
    ///
    /// `error` is the wording of the log; what the existing ztunnel does not say is the cause.
    pub fn early_denial(
        &self,
        source: SocketAddr,
        destination: SocketAddr,
        direction: Direction,
        cause: Cause,
        error: &str,
    ) {
        self.0.metrics.denied_early(direction, cause);
        self.0.failures.early(source, destination, direction, (cause, error));
        if !self.0.config.access.takes_direction(direction) {
            return;
        }
        let denial = access_log::Denial { source, destination, direction, cause, error };
        self.0.config.export.denied(&denial);
        if self.0.logging.logs_access(Level::WARN) {
            self.0.logging.write(|out| denial.write(out, self.0.logging.format(), SystemTime::now()));
        }
    }

    /// Tells what authorization policies said of a connection, if they were asked (spec data-plane 13.3).
    pub fn policy_decision(&self, verdict: Option<&Verdict>) {
        let Some(verdict) = verdict else { return };
        self.0.metrics.decisions().came(verdict);
        for name in &verdict.skipped {
            tracing::warn!(target: POLICIES, "skipping unknown policy {name}");
        }
        for hit in &verdict.dry_run {
            self.decision(hit.as_str(), hit.deciding());
        }
        self.decision(verdict.decision.as_str(), verdict.decision.deciding());
    }

    /// Counts that policies no longer allow a live connection.
    pub fn policy_cut(&self, denial: &Denial) {
        self.0.metrics.decisions().cut(denial);
    }

    fn decision(&self, wording: &str, deciding: Option<&Deciding>) {
        // The macros evaluate a field only if somebody reads it, and leave out absent ones.
        let policy = || deciding.map(ToString::to_string);
        match self.0.config.policies {
            PolicyLogging::Debug => tracing::debug!(target: POLICIES, policy = policy(), "{wording}"),
            PolicyLogging::Info => tracing::info!(target: POLICIES, policy = policy(), "{wording}"),
        }
    }

    /// Whether somebody will ask about the sockets of a connection that ended so.
    fn is_notable(&self, outcome: &Outcome, duration: Duration) -> bool {
        outcome.cause().is_some() || duration >= self.0.config.slow
    }

    fn record(&self, series: &Series, record: &Record, closing: &Closing) {
        series.closed(record.outcome.flag());
        self.0.metrics.ended(record.flow.reporter, record.duration);
        if let Some(cause) = record.outcome.cause() {
            self.0.metrics.failed(record.flow.reporter, cause);
            self.0.failures.record(record, closing);
        }
        if !self.0.config.access.takes(record) {
            return;
        }
        self.0.config.export.ended(record, closing);
        if self.0.logging.logs_access(access_log::level(record)) {
            let (format, now) = (self.0.logging.format(), SystemTime::now());
            self.0.logging.write(|out| access_log::complete(out, format, now, record, closing));
        }
    }
}

/// Target of what policies decide.
const POLICIES: &str = "ztunnel::authz";

#[cfg(test)]
pub(crate) mod fixtures;
#[cfg(test)]
mod tests;

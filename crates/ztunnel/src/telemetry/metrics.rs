//! Metrics: what is counted, and how Prometheus reads it (spec admin-and-telemetry 3, data-plane 19.4).
//!
//! A connection looks its [`Series`] up once, when it opens; counting is an addition to an atomic from then on. A scrape
//! copies pointers and lets go before it prints. Label values come from the control plane and from peers: they are
//! escaped, their number is bounded ([`Settings::most`]), and those that nobody uses any more are forgotten.
//!
//! The families of names, of the control plane and of certificates are registered by those who count them.

mod decisions;
mod exposition;
mod labels;
mod latency;
pub mod manual;
mod process;
mod runtimes;
mod series;
mod tunnels;
mod waits;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use mesh::{Cause, Direction, Flow, Hostname, Reporter, Workload};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use decisions::Decisions;
pub use exposition::{Coding, Exposition, Form};
pub use labels::Shown;
use labels::{Build, Denied, Lookup, Reporting};
use latency::Latencies;
use runtimes::Runtimes;
pub use runtimes::Worker;
use series::Table;
pub use series::{DEFAULT_MAX_SERIES, Series, Settings, Totals};
use tokio::time::Instant;
use tunnels::Tunnels;
pub use tunnels::{Census, Holding, StreamEnd};
use waits::Waits;
pub use waits::{WaitEnd, WorkloadWait};

use super::exported::{Exporter, Exporters};
use super::logging::Logging;

/// What metrics say of this process as a whole.
#[derive(Clone, Debug)]
pub struct Config {
    /// Version of Istio that this build stands in for (`ISTIO_META_ISTIO_VERSION`, else `unknown`).
    pub istio_version: String,
    /// Whether this process serves the pods of a node.
    pub pods: PodMetrics,
    /// What windows may be beyond their first sizes; shown, not used.
    pub allowance: hbone::h2::Allowance,
    /// How connections are told apart.
    pub traffic: Settings,
    /// Whether it is counted how long things take.
    pub histograms: Histograms,
    /// Who sends records elsewhere; asked for what they had to drop.
    pub export: Exporters,
}

/// Whether there are histograms of durations (`METRICS_HISTOGRAMS`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Histograms {
    /// Yes.
    Shown,
    /// No.
    Absent,
}

/// Whether the `workload_manager_*` family is there; it is in shared mode only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PodMetrics {
    /// Shared mode.
    Shown,
    /// Dedicated mode.
    Absent,
}

/// A limit of what one pod may take of the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PodLimit {
    /// Connections that are open (`POD_MAX_CONNECTIONS`).
    Connections,
    /// New connections in a second (`POD_MAX_CONNECTIONS_PER_SECOND`).
    Rate,
    /// Handshakes under way (`POD_MAX_HANDSHAKES`).
    Handshakes,
}

/// Everything that is counted.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    traffic: Arc<Table>,
    tunnels: Arc<Tunnels>,
    sockets: [Gauge; 2],
    denied: Family<Denied, Counter>,
    decisions: Decisions,
    failures: Family<[(&'static str, &'static str); 2], Counter>,
    limits: Family<[(&'static str, &'static str); 1], Counter>,
    waits: Waits,
    latencies: Option<Latencies>,
    runtimes: Runtimes,
    names: NameCounts,
    pods: PodCounts,
    process: process::Process,
}

/// Host names of endpoints, resolved for connections.
#[derive(Debug)]
struct NameCounts {
    used: Family<Lookup, Counter>,
    asked: Counter,
}

/// Proxies of pods: how many there are, and how many came and went (`workload_manager_*`).
#[derive(Clone, Debug, Default)]
pub struct PodCounts {
    /// Pods whose proxy runs.
    pub active: Gauge,
    /// Pods whose proxy could not be started yet.
    pub pending: Gauge,
    /// Proxies started since the start of the process.
    pub started: Counter,
    /// Proxies stopped since the start of the process.
    pub stopped: Counter,
}

impl Metrics {
    /// All metrics, at 0. `log` is asked for its dropped lines at each scrape.
    #[must_use]
    pub fn new(config: &Config, log: Logging) -> Self {
        let mut registry = Registry::default();
        let build = Family::<Build, Gauge>::default();
        build.get_or_create(&Build { component: "ztunnel", tag: config.istio_version.clone() }).set(1);
        registry.register("istio_build", "Build of the Istio component", build);

        let open = Family::<Reporting, Gauge>::default();
        let sockets = [Reporter::Source, Reporter::Destination].map(|r| open.get_or_create_owned(&Reporting(r)));
        registry.register("istio_tcp_sockets_open", "The current number of open TCP sockets (unstable)", open);
        let denied = Family::<Denied, Counter>::default();
        let help = "The total number of connections refused before it was known who talks to whom";
        registry.register("istio_tcp_connections_denied_early", help, denied.clone());

        let decisions = Decisions::register(&mut registry);
        let failures = Family::default();
        let help = "The total number of connections that failed, by why";
        registry.register("istio_connection_failures", help, failures.clone());
        let limits = Family::default();
        let help = "How often a pod reached one of its limits, by which limit";
        registry.register("istio_pod_limit_reached", help, limits.clone());
        let waits = Waits::register(&mut registry);
        let pods = PodCounts::default();
        if config.pods == PodMetrics::Shown {
            pods.register(&mut registry);
        }
        let process = process::Process::register(&mut registry);
        let names = NameCounts::register(&mut registry);
        let latencies = (config.histograms == Histograms::Shown).then(|| Latencies::register(&mut registry));
        let traffic = Arc::new(Table::new(config.traffic));
        registry.register_collector(Box::new(Arc::clone(&traffic)));
        let runtimes = Runtimes::default();
        registry.register_collector(Box::new(runtimes.clone()));
        let tunnels = Arc::new(Tunnels::new(config.allowance.clone(), latencies.clone()));
        registry.register_collector(Box::new(Arc::clone(&tunnels)));
        registry.register_collector(Box::new(DroppedLines(log)));
        let Exporters { logs, spans } = &config.export;
        for (exporter, name) in [(logs, DROPPED_RECORDS), (spans, DROPPED_SPANS)] {
            if let Some(exporter) = exporter.clone() {
                registry.register_collector(Box::new(Dropped { exporter, name }));
            }
        }
        Self {
            registry,
            traffic,
            tunnels,
            sockets,
            denied,
            decisions,
            failures,
            limits,
            waits,
            latencies,
            runtimes,
            names,
            pods,
            process,
        }
    }

    /// For those who count things of their own; what is registered later is not shown.
    pub fn registry(&mut self) -> &mut Registry {
        &mut self.registry
    }

    /// The counters that a connection adds to.
    #[must_use]
    pub fn series(&self, flow: &Arc<Flow>) -> Arc<Series> {
        self.traffic.series(flow)
    }

    /// Forgets series that no connection has used for as long as the operator set, again and again.
    pub async fn forget_unused(self: Arc<Self>) {
        let Some(interval) = self.traffic.interval() else { return };
        loop {
            tokio::time::sleep(interval).await;
            self.traffic.sweep();
        }
    }

    /// About how many bytes the streams of all tunnels occupy now.
    #[must_use]
    pub fn load(&self) -> usize {
        self.tunnels.load()
    }

    /// What all connections since the start add up to.
    #[must_use]
    pub fn totals(&self) -> Totals {
        self.traffic.totals()
    }

    /// The threads of the data plane, once they run.
    pub fn workers_are(&self, workers: Vec<Worker>) {
        self.runtimes.are(workers);
    }

    /// Observes that the next hop of a connection that was captured then has answered.
    pub(super) fn connected(&self, reporter: Reporter, captured: Instant) {
        // Those on their way in are counted from the moment at which it is known whom they are for.
        if let (Some(latencies), Reporter::Source) = (&self.latencies, reporter) {
            latencies.connected(reporter, captured.elapsed());
        }
    }

    /// Observes that a connection has ended.
    pub(super) fn ended(&self, reporter: Reporter, after: Duration) {
        if let Some(latencies) = &self.latencies {
            latencies.ended(reporter, after);
        }
    }

    /// Counts a tunnel at this end of it, and its streams, for as long as the census lives.
    #[must_use]
    pub fn census(&self, reporter: Reporter) -> Census {
        self.tunnels.census(reporter)
    }

    /// Accepted sockets that are open, as this end of connections sees them.
    #[must_use]
    pub fn sockets(&self, reporter: Reporter) -> &Gauge {
        let [source, destination] = &self.sockets;
        match reporter {
            Reporter::Source => source,
            Reporter::Destination => destination,
        }
    }

    /// Counts a connection that ended before it was known who talks to whom.
    pub fn denied_early(&self, direction: Direction, cause: Cause) {
        let reporter = match direction {
            Direction::Outbound => Reporter::Source,
            Direction::Inbound => Reporter::Destination,
        };
        self.denied.get_or_create(&Denied { reporter, flag: cause.meaning().flag }).inc();
        self.failed(reporter, cause);
    }

    /// Counts a connection that failed, whether or not it came as far as being put on record.
    pub(super) fn failed(&self, reporter: Reporter, cause: Cause) {
        let labels = [("reporter", reporter.as_str()), ("reason", cause.meaning().code)];
        self.failures.get_or_create(&labels).inc();
    }

    /// What authorization policies decide.
    #[must_use]
    pub(super) fn decisions(&self) -> &Decisions {
        &self.decisions
    }

    /// Counts that the host name of an endpoint is looked up for a connection, whether or not it is known already.
    pub fn host_resolved(&self, source: Option<&Workload>, hostname: &Hostname) {
        self.names.used.get_or_create(&Lookup::new(source, hostname)).inc();
    }

    /// How often resolvers had to be asked for the host name of an endpoint; for whoever asks them.
    #[must_use]
    pub fn hosts_asked(&self) -> Counter {
        self.names.asked.clone()
    }

    /// Counts that a pod has reached one of its limits.
    pub fn limit_reached(&self, limit: PodLimit) {
        let limit = match limit {
            PodLimit::Connections => "connections",
            PodLimit::Rate => "rate",
            PodLimit::Handshakes => "handshakes",
        };
        self.limits.get_or_create(&[("limit", limit)]).inc();
    }

    /// Times the wait of a connection for the announcement of its pod.
    #[must_use]
    pub fn workload_wait(&self) -> WorkloadWait {
        self.waits.begin()
    }

    /// The proxies of this node's pods.
    #[must_use]
    pub fn pods(&self) -> &PodCounts {
        &self.pods
    }

    /// All metrics in OpenMetrics text format, version 1.0.0.
    #[must_use]
    pub fn render(&self) -> String {
        self.process.refresh();
        let mut text = String::new();
        // A String takes everything, and no metric of ours fails to encode.
        let _ = text::encode(&mut text, &self.registry);
        text
    }

    /// All metrics as a scraper wants them.
    #[must_use]
    pub fn expose(&self, exposition: Exposition) -> Vec<u8> {
        exposition.of(self.render())
    }
}

impl NameCounts {
    fn register(registry: &mut Registry) -> Self {
        let counts = Self { used: Family::default(), asked: Counter::default() };
        let help = "The total number of requests that used on-demand DNS (unstable)";
        registry.register("istio_on_demand_dns", help, counts.used.clone());
        let help = "The total number of requests for on-demand DNS that a resolver was asked about (unstable)";
        registry.register("istio_on_demand_dns_cache_misses", help, counts.asked.clone());
        counts
    }
}

impl PodCounts {
    fn register(&self, registry: &mut Registry) {
        let (active, pending) = (self.active.clone(), self.pending.clone());
        registry.register("workload_manager_active_proxy_count", "The number of pods with a running proxy", active);
        registry.register("workload_manager_pending_proxy_count", "The number of pods that wait for a proxy", pending);
        let (started, stopped) = (self.started.clone(), self.stopped.clone());
        registry.register("workload_manager_proxies_started", "The total number of proxies started", started);
        registry.register("workload_manager_proxies_stopped", "The total number of proxies stopped", stopped);
        self.register_aliases(registry);
    }

    /// The same under the names of older dashboards.
    fn register_aliases(&self, registry: &mut Registry) {
        let (active, pending) = (self.active.clone(), self.pending.clone());
        registry.register("istio_active_proxy_count_total", "The number of pods with a running proxy", active);
        registry.register("istio_pending_proxy_count_total", "The number of pods that wait for a proxy", pending);
        let (started, stopped) = (self.started.clone(), self.stopped.clone());
        registry.register("istio_proxies_started", "The total number of proxies started", started);
        registry.register("istio_proxies_stopped", "The total number of proxies stopped", stopped);
    }
}

/// Lines that the log had to drop; the log counts them itself.
#[derive(Debug)]
struct DroppedLines(Logging);

impl Collector for DroppedLines {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let help = "The total number of log lines dropped because the output did not keep up.";
        series::encode(&mut encoder, "istio_log_lines_dropped", help, |family| {
            family.encode_counter::<prometheus_client::encoding::NoLabelSet, _, u64>(&self.0.dropped(), None)
        })
    }
}

/// Records that were not sent elsewhere for want of room; the exporter counts them itself.
#[derive(Debug)]
struct Dropped {
    exporter: Exporter,
    name: &'static str,
}

const DROPPED_RECORDS: &str = "istio_access_log_records_dropped";
const DROPPED_SPANS: &str = "istio_spans_dropped";

impl Collector for Dropped {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let help = "The total number of records dropped because the collector did not keep up.";
        series::encode(&mut encoder, self.name, help, |family| {
            family.encode_counter::<prometheus_client::encoding::NoLabelSet, _, u64>(&self.exporter.dropped(), None)
        })
    }
}

#[cfg(test)]
mod tests;

//! Metrics: what is counted, and how Prometheus reads it (spec admin-and-telemetry 3, data-plane 19.4).
//!
//! A connection looks its [`Series`] up once, when it opens; counting is an addition to an atomic from then on. A scrape
//! takes no lock that a connection waits for. Label values come from the control plane and from peers: they are escaped,
//! and their number is bounded ([`MAX_SERIES`]).
//!
//! The families of names, of the control plane and of certificates are registered by those who count them.

mod labels;
mod process;
mod series;
mod tunnels;
mod waits;

use std::fmt;
use std::sync::Arc;

use mesh::{Direction, Flow, Hostname, Reporter, ResponseFlag, Workload};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use labels::{Build, Denied, Lookup, Reporting};
use series::Table;
pub use series::{MAX_SERIES, Series};
use tunnels::Tunnels;
pub use tunnels::{Census, Holding, StreamEnd};
use waits::Waits;
pub use waits::{WaitEnd, WorkloadWait};

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
    lookups: Family<Lookup, Counter>,
    limits: Family<[(&'static str, &'static str); 1], Counter>,
    waits: Waits,
    pods: PodCounts,
    process: process::Process,
}

/// Proxies of pods: how many there are, and how many came and went (`workload_manager_*`).
#[derive(Clone, Debug, Default)]
pub struct PodCounts {
    /// PodCounts whose proxy runs.
    pub active: Gauge,
    /// PodCounts whose proxy could not be started yet.
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

        let lookups = Family::default();
        let help = "The total number of requests that used on-demand DNS (unstable)";
        registry.register("istio_on_demand_dns", help, lookups.clone());

        let limits = Family::default();
        let help = "How often a pod reached one of its limits, by which limit";
        registry.register("istio_pod_limit_reached", help, limits.clone());
        let waits = Waits::register(&mut registry);
        let pods = PodCounts::default();
        if config.pods == PodMetrics::Shown {
            pods.register(&mut registry);
        }
        let process = process::Process::register(&mut registry);
        let traffic = Arc::new(Table::default());
        registry.register_collector(Box::new(Arc::clone(&traffic)));
        let tunnels = Arc::new(Tunnels::new(config.allowance.clone()));
        registry.register_collector(Box::new(Arc::clone(&tunnels)));
        registry.register_collector(Box::new(DroppedLines(log)));
        Self { registry, traffic, tunnels, sockets, denied, lookups, limits, waits, pods, process }
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
    pub fn denied_early(&self, direction: Direction, flag: ResponseFlag) {
        let reporter = match direction {
            Direction::Outbound => Reporter::Source,
            Direction::Inbound => Reporter::Destination,
        };
        self.denied.get_or_create(&Denied { reporter, flag }).inc();
    }

    /// Counts that the host name of an endpoint is looked up for a connection, whether or not it is known already.
    pub fn host_resolved(&self, source: Option<&Workload>, hostname: &Hostname) {
        self.lookups.get_or_create(&Lookup::new(source, hostname)).inc();
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
}

impl PodCounts {
    fn register(&self, registry: &mut Registry) {
        let (active, pending) = (self.active.clone(), self.pending.clone());
        registry.register("workload_manager_active_proxy_count", "The number of pods with a running proxy", active);
        registry.register("workload_manager_pending_proxy_count", "The number of pods that wait for a proxy", pending);
        let (started, stopped) = (self.started.clone(), self.stopped.clone());
        registry.register("workload_manager_proxies_started", "The total number of proxies started", started);
        registry.register("workload_manager_proxies_stopped", "The total number of proxies stopped", stopped);
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

#[cfg(test)]
mod tests;

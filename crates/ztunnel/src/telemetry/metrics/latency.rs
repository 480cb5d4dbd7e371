//! How long things take: histograms that are there only if they are asked for (`METRICS_HISTOGRAMS`), since each is many
//! series and an observation takes a lock.

use std::time::Duration;

use mesh::Reporter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

/// Upper ends of the buckets of what ought to be quick, in seconds: within a node, within a zone, across a region, a lost
/// packet or two, and the deadlines.
const BRIEF: [f64; 12] = [0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0];
/// Those of connections as a whole: from a request to a day.
const LASTING: [f64; 9] = [0.01, 0.1, 1.0, 10.0, 60.0, 600.0, 3_600.0, 21_600.0, 86_400.0];

type Durations = Family<[(&'static str, &'static str); 1], Histogram>;

/// The histograms.
#[derive(Debug, Clone)]
pub(super) struct Latencies {
    connects: Durations,
    handshakes: Durations,
    connections: Durations,
}

impl Latencies {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let brief = || Durations::new_with_constructor(|| Histogram::new(BRIEF));
        let latencies = Self {
            connects: brief(),
            handshakes: brief(),
            connections: Durations::new_with_constructor(|| Histogram::new(LASTING)),
        };
        let help = "How long it took from the capture of a connection until its next hop had answered";
        registry.register("istio_tcp_connect_duration_seconds", help, latencies.connects.clone());
        let help = "How long TLS handshakes of tunnels took";
        registry.register("istio_hbone_handshake_duration_seconds", help, latencies.handshakes.clone());
        let help = "How long connections were open";
        registry.register("istio_tcp_connection_duration_seconds", help, latencies.connections.clone());
        latencies
    }

    pub(super) fn connected(&self, reporter: Reporter, after: Duration) {
        observe(&self.connects, reporter, after);
    }

    pub(super) fn established(&self, reporter: Reporter, after: Duration) {
        observe(&self.handshakes, reporter, after);
    }

    pub(super) fn ended(&self, reporter: Reporter, after: Duration) {
        observe(&self.connections, reporter, after);
    }
}

fn observe(durations: &Durations, reporter: Reporter, after: Duration) {
    durations.get_or_create(&[("reporter", reporter.as_str())]).observe(after.as_secs_f64());
}

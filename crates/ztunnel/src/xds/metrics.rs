//! What is counted of the conversation with the control plane (spec state-and-dns 2.9, and more).

use std::time::{SystemTime, UNIX_EPOCH};

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

/// One label.
type Label = [(&'static str, &'static str); 1];

/// Counters and gauges; clones share them.
#[derive(Debug, Clone, Default)]
pub struct Counts {
    terminations: Family<Label, Counter>,
    messages: Family<Label, Counter>,
    bytes: Family<Label, Counter>,
    connected: Gauge,
    last_push: Family<Label, Gauge>,
    rejections: Family<Label, Counter>,
    rejected: Gauge,
    resources: Gauge,
}

/// Why a conversation ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ended {
    /// It did not begin.
    NotConnected,
    /// The control plane or the connection failed.
    Failed,
    /// The connection went away as connections do.
    Dropped,
    /// The control plane ended it.
    Completed,
}

impl Counts {
    /// At 0, to be shown by `registry`.
    pub fn register(registry: &mut Registry) -> Self {
        let counts = Self::default();
        let help = "The total number of completed connections to xds server (unstable)";
        registry.register("istio_xds_connection_terminations", help, counts.terminations.clone());
        let help = "Total number of messages received (unstable)";
        registry.register("istio_xds_message", help, counts.messages.clone());
        let help = "Total number of bytes received (unstable)";
        registry.register("istio_xds_message_bytes", help, counts.bytes.clone());
        let help = "Whether the control plane is connected and has answered";
        registry.register("istio_xds_connected", help, counts.connected.clone());
        let help = "When the control plane last sent something, in seconds since 1970";
        registry.register("istio_xds_last_push_timestamp_seconds", help, counts.last_push.clone());
        let help = "The total number of resources that were not accepted as they were sent";
        registry.register("istio_xds_resources_rejected", help, counts.rejections.clone());
        let help = "Resources of which the version sent last was not accepted as it was sent";
        registry.register("istio_xds_rejected_resources", help, counts.rejected.clone());
        registry.register("istio_xds_resources", "Resources that the control plane has told", counts.resources.clone());
        counts
    }

    pub(super) fn ended(&self, why: Ended) {
        let reason = match why {
            Ended::NotConnected => "ConnectionError",
            Ended::Failed => "Error",
            Ended::Dropped => "Reconnect",
            Ended::Completed => "Complete",
        };
        self.terminations.get_or_create(&[("reason", reason)]).inc();
        self.connected.set(0);
    }

    /// A response of a type that we know, or of another.
    pub(super) fn received(&self, url: Option<&'static str>, bytes: usize) {
        let label = [("url", url.unwrap_or("unknown"))];
        self.messages.get_or_create(&label).inc();
        self.bytes.get_or_create(&label).inc_by(bytes as u64);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        self.last_push.get_or_create(&label).set(now.cast_signed());
        self.connected.set(1);
    }

    pub(super) fn rejected(&self, url: &'static str, count: usize) {
        self.rejections.get_or_create(&[("url", url)]).inc_by(count as u64);
    }

    pub(super) fn hold(&self, resources: usize, rejected: usize) {
        let gauge = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
        self.resources.set(gauge(resources));
        self.rejected.set(gauge(rejected));
    }
}

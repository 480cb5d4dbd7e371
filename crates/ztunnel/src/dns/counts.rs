//! What is counted of names (spec admin-and-telemetry 3, "DNS", and more).

use std::sync::Arc;
use std::time::Duration;

use mesh::Workload;
use mesh::workload::Deployment;
use prometheus_client::encoding::{EncodeLabel, EncodeLabelSet, LabelSetEncoder};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::{Family, MetricConstructor};
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

use super::wire::kind;

/// How a client asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Transport {
    /// By datagram.
    Udp,
    /// By connection.
    Tcp,
}

/// Where an answer came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Source {
    /// The mesh.
    Local,
    /// An upstream, just now.
    Forwarded,
    /// An upstream, some time ago.
    Cached,
    /// An upstream, longer ago than it wished.
    Stale,
    /// Nobody.
    Failed,
}

/// Why there is nothing better to tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reason {
    /// There is nothing to complain of.
    None,
    /// The query made no sense.
    Malformed,
    /// It is of a kind that is not wanted.
    NotServed,
    /// The control plane has not announced the workload that asks.
    UnknownClient,
    /// There is nobody to ask.
    NoUpstream,
    /// Nobody answered in time.
    Timeout,
    /// Nobody could be reached.
    Unreachable,
    /// Whoever answered made no sense.
    BadAnswer,
    /// The pod has too many questions open.
    Overload,
}

impl Reason {
    /// As metrics and logs have it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Malformed => "malformed",
            Self::NotServed => "not_served",
            Self::UnknownClient => "unknown_client",
            Self::NoUpstream => "no_upstream",
            Self::Timeout => "timeout",
            Self::Unreachable => "unreachable",
            Self::BadAnswer => "bad_answer",
            Self::Overload => "overload",
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Asked {
    kind: &'static str,
    transport: Transport,
    service: Option<Arc<str>>,
    revision: Option<Arc<str>>,
}

impl EncodeLabelSet for Asked {
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> std::fmt::Result {
        let transport = match self.transport {
            Transport::Udp => "udp",
            Transport::Tcp => "tcp",
        };
        let known = |text: &Option<Arc<str>>| -> String {
            text.as_deref().filter(|text| !text.is_empty()).unwrap_or("unknown").to_owned()
        };
        ("request_query_type", self.kind).encode(encoder.encode_label())?;
        ("request_protocol", transport).encode(encoder.encode_label())?;
        ("source_canonical_service", known(&self.service)).encode(encoder.encode_label())?;
        ("source_canonical_revision", known(&self.revision)).encode(encoder.encode_label())
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Told {
    source: Source,
    reason: Reason,
}

impl EncodeLabelSet for Told {
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> std::fmt::Result {
        let source = match self.source {
            Source::Local => "local",
            Source::Forwarded => "forwarded",
            Source::Cached => "cached",
            Source::Stale => "stale",
            Source::Failed => "failed",
        };
        ("result", source).encode(encoder.encode_label())?;
        ("reason", self.reason.as_str()).encode(encoder.encode_label())
    }
}

#[derive(Debug, Clone, Copy)]
struct Buckets;

impl MetricConstructor<Histogram> for Buckets {
    fn new_metric(&self) -> Histogram {
        Histogram::new([0.0005, 0.001, 0.01, 0.1, 1.0, 5.0])
    }
}

/// Counters; clones share them.
#[derive(Debug, Clone)]
pub struct Counts {
    requests: Family<Asked, Counter>,
    upstream_requests: Family<Asked, Counter>,
    upstream_failures: Family<Asked, Counter>,
    upstream_durations: Family<Asked, Histogram, Buckets>,
    answers: Family<Told, Counter>,
}

impl Counts {
    /// At 0, to be shown by `registry`.
    pub fn register(registry: &mut Registry) -> Self {
        let counts = Self {
            requests: Family::default(),
            upstream_requests: Family::default(),
            upstream_failures: Family::default(),
            upstream_durations: Family::new_with_constructor(Buckets),
            answers: Family::default(),
        };
        let help = "Total number of DNS requests (unstable)";
        registry.register("istio_dns_requests", help, counts.requests.clone());
        let help = "Total number of DNS requests forwarded to upstream (unstable)";
        registry.register("istio_dns_upstream_requests", help, counts.upstream_requests.clone());
        let help = "Total number of DNS requests which failed to be answered upstream (unstable)";
        registry.register("istio_dns_upstream_failures", help, counts.upstream_failures.clone());
        let help = "Total time in seconds Istio takes to get DNS response from upstream (unstable)";
        let (name, unit) = ("istio_dns_upstream_request_duration", Unit::Seconds);
        registry.register_with_unit(name, help, unit, counts.upstream_durations.clone());
        let help = "Total number of DNS answers, by where they came from";
        registry.register("istio_dns_answers", help, counts.answers.clone());
        counts
    }

    /// The counter of where answers come from.
    #[must_use]
    pub fn answers(&self, source: Source, reason: Reason) -> Counter {
        self.answers.get_or_create_owned(&Told { source, reason })
    }

    /// Counts that a query of `client` went to an upstream, how long that took, and whether it was of use.
    pub fn forwarded(
        &self,
        client: Option<&Workload>,
        (kind, transport): (u16, Transport),
        took: Duration,
        outcome: Result<(), Reason>,
    ) {
        let asked = Asked::of(client.map(|client| &*client.deployment), kind, transport);
        self.upstream_requests.get_or_create(&asked).inc();
        self.upstream_durations.get_or_create(&asked).observe(took.as_secs_f64());
        if outcome.is_err() {
            self.upstream_failures.get_or_create(&asked).inc();
        }
    }
}

impl Asked {
    fn of(client: Option<&Deployment>, kind: u16, transport: Transport) -> Self {
        let text = |of: fn(&Deployment) -> &Arc<str>| client.map(of).cloned();
        let (service, revision) = (text(|d| &d.canonical_name), text(|d| &d.canonical_revision));
        Self { kind: kind::name(kind), transport, service, revision }
    }
}

/// Counters of one pod that are wanted for every query, found once.
#[derive(Debug)]
pub struct Frequent {
    counts: Counts,
    /// Where the client's labels come from.
    client: Option<Arc<Deployment>>,
    /// Of A and AAAA, by UDP.
    requests: [Option<Counter>; 2],
    /// From the mesh.
    local: Counter,
}

impl Frequent {
    /// For a pod whose workload is not known yet.
    #[must_use]
    pub fn new(counts: Counts) -> Self {
        let local = counts.answers(Source::Local, Reason::None);
        Self { counts, client: None, requests: [None, None], local }
    }

    /// Counts a query of `client`.
    pub fn asked(&mut self, client: Option<&Workload>, kind: u16, transport: Transport) {
        let deployment = client.map(|client| &client.deployment);
        let same = match (&self.client, deployment) {
            (Some(known), Some(now)) => Arc::ptr_eq(known, now),
            (None, None) => true,
            _ => false,
        };
        if !same {
            (self.client, self.requests) = (deployment.cloned(), [None, None]);
        }
        let slot = match (kind, transport) {
            (kind::A, Transport::Udp) => 0,
            (kind::AAAA, Transport::Udp) => 1,
            _ => {
                let asked = Asked::of(deployment.map(|d| &**d), kind, transport);
                self.counts.requests.get_or_create(&asked).inc();
                return;
            }
        };
        let find = || self.counts.requests.get_or_create_owned(&Asked::of(deployment.map(|d| &**d), kind, transport));
        self.requests[slot].get_or_insert_with(find).inc();
    }

    /// Counts an answer.
    pub fn told(&self, source: Source, reason: Reason) {
        match (source, reason) {
            (Source::Local, Reason::None) => self.local.inc(),
            _ => self.counts.answers(source, reason).inc(),
        };
    }
}

//! What is counted and shown of certificates.

use std::collections::BTreeSet;
use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, MetricEncoder};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use super::error::{IdentityError, SignError};
use super::revocation::{Revocations, Side};
use super::{Identities, Published, certificate::Certificate};
use crate::crypto;

/// Bounds of the latency histogram, in seconds: from a CA next door to the deadline of a request.
const LATENCY: [f64; 8] = [0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0];

/// Counters of requests to the CA; clones share them.
#[derive(Debug, Clone)]
pub struct Counts {
    failures: Family<[(&'static str, &'static str); 1], Counter>,
    issued: Counter,
    last_success: Gauge,
    latency: Histogram,
}

impl Default for Counts {
    fn default() -> Self {
        Self {
            failures: Family::default(),
            issued: Counter::default(),
            last_success: Gauge::default(),
            latency: Histogram::new(LATENCY),
        }
    }
}

impl Counts {
    /// At 0, to be shown by `registry`.
    pub fn register(registry: &mut Registry) -> Self {
        let counts = Self::default();
        let help = "The total number of requests for certificates that failed";
        registry.register("istio_certificate_failures", help, counts.failures.clone());
        let help = "The total number of certificates that were issued";
        registry.register("istio_certificate_issued", help, counts.issued.clone());
        let help = "When a certificate was last issued, in seconds since 1970";
        registry.register("istio_certificate_last_success_timestamp_seconds", help, counts.last_success.clone());
        let help = "How long the CA took to answer, well or not";
        registry.register("istio_ca_request_duration_seconds", help, counts.latency.clone());
        counts
    }

    pub(super) fn answered(&self, after: Duration, outcome: Result<(), &IdentityError>) {
        self.latency.observe(after.as_secs_f64());
        match outcome {
            Ok(()) => {
                self.issued.inc();
                self.last_success.set(seconds(SystemTime::now()));
            }
            Err(error) => drop(self.failures.get_or_create(&[("reason", reason(error))]).inc()),
        }
    }
}

/// Few and fixed, so that the number of series is bounded.
fn reason(error: &IdentityError) -> &'static str {
    match error {
        IdentityError::Sign(SignError::Status { .. }) => "ca_error",
        IdentityError::Unanswered(_) => "unanswered",
        IdentityError::SanMismatch(_) => "wrong_identity",
        IdentityError::EmptyChain(_) => "empty_chain",
        IdentityError::Material(_) | IdentityError::Sign(SignError::Material(_)) => "unusable",
        IdentityError::Forgotten
        | IdentityError::Deadline { .. }
        | IdentityError::Crowded(_)
        | IdentityError::Aborted
        | IdentityError::Stopped => "internal",
    }
}

fn seconds(time: SystemTime) -> i64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs().cast_signed())
}

/// What is in use at the moment of a scrape.
#[derive(Debug)]
pub struct InUse {
    /// The certificates.
    pub identities: Identities,
    /// The lists that refuse some.
    pub revocations: Revocations,
}

impl Collector for InUse {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let table = self.identities.table.load();
        let mut roots = BTreeSet::new();
        let expiry = Expiries(
            table
                .iter()
                .filter_map(|(identity, state)| match state {
                    Published::Available(certificate) => {
                        roots.extend(certificate.roots().iter().map(fingerprint));
                        Some((identity.to_string(), seconds(certificate.validity().not_after)))
                    }
                    Published::Initializing | Published::Unavailable(_) => None,
                })
                .collect(),
        );
        let help = "When the certificate in use ends, in seconds since 1970";
        family(&mut encoder, "istio_certificate_expiry_timestamp_seconds", help, &expiry)?;
        let help = "Roots that are accepted, by the SHA-256 of the certificate";
        family(&mut encoder, "istio_trust_root", help, &Roots(roots))?;
        let help = "The total number of handshakes refused because a certificate of the peer is revoked";
        family(&mut encoder, "istio_crl_policy_rejections", help, &Refused(&self.revocations))
    }
}

fn family(encoder: &mut DescriptorEncoder<'_>, name: &str, help: &str, metric: &impl EncodeMetric) -> fmt::Result {
    metric.encode(encoder.encode_descriptor(name, help, None, metric.metric_type())?)
}

struct Expiries(Vec<(String, i64)>);

impl EncodeMetric for Expiries {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> fmt::Result {
        for (identity, until) in &self.0 {
            encoder.encode_family(&[("identity", identity.as_str())])?.encode_gauge(until)?;
        }
        Ok(())
    }

    fn metric_type(&self) -> MetricType {
        MetricType::Gauge
    }
}

struct Roots(BTreeSet<String>);

impl EncodeMetric for Roots {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> fmt::Result {
        for fingerprint in &self.0 {
            encoder.encode_family(&[("fingerprint", fingerprint.as_str())])?.encode_gauge(&1_i64)?;
        }
        Ok(())
    }

    fn metric_type(&self) -> MetricType {
        MetricType::Gauge
    }
}

struct Refused<'a>(&'a Revocations);

impl EncodeMetric for Refused<'_> {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> fmt::Result {
        for (reporter, side) in [("source", Side::Client), ("destination", Side::Server)] {
            let count = self.0.refused(side);
            encoder
                .encode_family(&[("reporter", reporter)])?
                .encode_counter::<prometheus_client::encoding::NoLabelSet, _, u64>(&count, None)?;
        }
        Ok(())
    }

    fn metric_type(&self) -> MetricType {
        MetricType::Counter
    }
}

fn fingerprint(root: &Certificate) -> String {
    crypto::sha256(root.der()).iter().map(|byte| format!("{byte:02x}")).collect()
}

//! Every metric that there is: the table that `docs/metrics.md` is printed from, and that tests hold expositions against.
//!
//! Families are registered by those who count them, all over the process; this is the one list of them all.

use super::labels::Shown;

/// A family of metrics.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    /// As Prometheus calls its samples; of a histogram, without `_bucket` and so on.
    pub name: &'static str,
    /// `counter`, `gauge` or `histogram`.
    pub kind: &'static str,
    /// Labels in their order; [`TRAFFIC`] stands for those of connections.
    pub labels: &'static [&'static str],
    /// Whether the existing ztunnel has it.
    pub origin: Origin,
    /// What it counts.
    pub meaning: &'static str,
}

/// Whose a metric is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The existing ztunnel has it under this name.
    Existing,
    /// Only this one has it.
    Here,
}

/// Stands for the labels of connections.
pub const TRAFFIC: &[&str] = &["(connection)"];

use Origin::{Existing, Here};

const fn entry(
    name: &'static str,
    kind: &'static str,
    labels: &'static [&'static str],
    origin: Origin,
    meaning: &'static str,
) -> Entry {
    Entry { name, kind, labels, origin, meaning }
}

const DNS: &[&str] =
    &["request_query_type", "request_protocol", "source_canonical_service", "source_canonical_revision"];
const ON_DEMAND: &[&str] = &[
    "source_workload",
    "source_canonical_service",
    "source_canonical_revision",
    "source_workload_namespace",
    "source_principal",
    "source_app",
    "source_version",
    "source_cluster",
    "hostname",
];
const REPORTER: &[&str] = &["reporter"];
const NONE: &[&str] = &[];

/// All of them, by subject.
#[rustfmt::skip]
pub const CATALOG: &[Entry] = &[
    entry("istio_tcp_connections_opened_total", "counter", TRAFFIC, Existing, "Connections for which a next hop has answered, or the last has failed; inbound ones before policies are asked."),
    entry("istio_tcp_connections_closed_total", "counter", TRAFFIC, Existing, "Connections that have ended, by how (`response_flags`)."),
    entry("istio_tcp_connections_failed_total", "counter", TRAFFIC, Existing, "Those of them that did not end well."),
    entry("istio_tcp_received_bytes_total", "counter", TRAFFIC, Existing, "Bytes from clients to servers, as they flow."),
    entry("istio_tcp_sent_bytes_total", "counter", TRAFFIC, Existing, "Bytes from servers to clients, as they flow."),
    entry("istio_tcp_sockets_open", "gauge", REPORTER, Existing, "Sockets of clients that are open: captured connections and accepted tunnels."),
    entry("istio_tcp_connections_denied_early_total", "counter", &["reporter", "response_flags"], Here, "Connections refused before it was known who talks to whom."),
    entry("istio_connection_failures_total", "counter", &["reporter", "reason"], Here, "Failures by the code that the log has and [troubleshooting](troubleshooting.md) explains."),
    entry("istio_authz_decisions_total", "counter", &["policy", "action", "dry_run"], Here, "What authorization policies decided about connections, or would have; policies beyond 2,000 are `others`."),
    entry("istio_tcp_connect_duration_seconds", "histogram", REPORTER, Here, "From the capture of a connection until its next hop had answered. Only with `METRICS_HISTOGRAMS`."),
    entry("istio_tcp_connection_duration_seconds", "histogram", REPORTER, Here, "How long connections were open. Only with `METRICS_HISTOGRAMS`."),
    entry("istio_metric_series", "gauge", NONE, Here, "Combinations of labels that connections are counted by at the moment."),
    entry("istio_metric_series_evicted_total", "counter", NONE, Here, "Combinations forgotten after nobody had used them for `METRICS_QUIET_PERIOD`."),
    entry("istio_metric_series_overflow_total", "counter", NONE, Here, "Connections counted under `unknown` labels because there were `METRICS_MAX_SERIES` combinations already."),
    entry("istio_hbone_tunnels_open", "gauge", REPORTER, Here, "Tunnels, their handshakes included."),
    entry("istio_hbone_streams_open", "gauge", REPORTER, Here, "Streams of tunnels, from request to end."),
    entry("istio_hbone_streams_half_closed", "gauge", REPORTER, Here, "Those of which one direction has ended."),
    entry("istio_hbone_streams_ended_total", "counter", &["reporter", "end"], Here, "Streams that have ended, by how."),
    entry("istio_hbone_buffered_bytes", "gauge", &["reporter", "towards"], Here, "Bytes held for apps or tunnels that do not take them yet."),
    entry("istio_hbone_window_granted_bytes", "gauge", NONE, Here, "What peers may send ahead beyond the first window of each stream."),
    entry("istio_hbone_window_budget_bytes", "gauge", NONE, Here, "The most of it that may be granted, `BUFFER_BUDGET`."),
    entry("istio_hbone_window_refused_total", "counter", NONE, Here, "How often a window did not grow because that, or its pod's part of it, was used up."),
    entry("istio_hbone_handshake_duration_seconds", "histogram", REPORTER, Here, "How long TLS handshakes of tunnels took. Only with `METRICS_HISTOGRAMS`."),
    entry("istio_pod_limit_reached_total", "counter", &["limit"], Here, "How often a pod reached one of its limits: `connections`, `rate`, `handshakes`."),
    entry("istio_unknown_workload_waiting", "gauge", NONE, Here, "Connections that wait for the control plane to announce their pod."),
    entry("istio_unknown_workload_wait_duration_seconds", "histogram", &["outcome"], Here, "How long they waited, and what came of it."),
    entry("istio_on_demand_dns_total", "counter", ON_DEMAND, Existing, "Connections to endpoints that are known by host name only."),
    entry("istio_on_demand_dns_cache_misses_total", "counter", NONE, Existing, "Those of them for which a resolver was asked."),
    entry("istio_dns_requests_total", "counter", DNS, Existing, "Queries of pods. Metrics of names are there if `ISTIO_META_DNS_CAPTURE` is on."),
    entry("istio_dns_upstream_requests_total", "counter", DNS, Existing, "Queries carried on to resolvers."),
    entry("istio_dns_upstream_failures_total", "counter", DNS, Existing, "Those of them that were not answered, or with a failure."),
    entry("istio_dns_upstream_request_duration_seconds", "histogram", DNS, Existing, "How long resolvers took."),
    entry("istio_dns_answers_total", "counter", &["source"], Here, "Answers by where they came from."),
    entry("istio_xds_connection_terminations_total", "counter", &["reason"], Existing, "Conversations with the control plane that have ended: `ConnectionError`, `Error`, `Reconnect`, `Complete`."),
    entry("istio_xds_message_total", "counter", &["url"], Existing, "Messages of the control plane, by type."),
    entry("istio_xds_message_bytes_total", "counter", &["url"], Existing, "Bytes of resources in them."),
    entry("istio_xds_connected", "gauge", NONE, Here, "1 while the control plane is connected and has answered."),
    entry("istio_xds_last_push_timestamp_seconds", "gauge", NONE, Here, "When it last sent something."),
    entry("istio_xds_resources", "gauge", &["url"], Here, "Resources that it has told."),
    entry("istio_xds_resources_rejected_total", "counter", &["url"], Here, "Resources that were not accepted as they were sent."),
    entry("istio_xds_rejected_resources", "gauge", &["url"], Here, "Resources of which that is true of the version sent last; `rejectedResources` of the dump names them."),
    entry("istio_certificate_expiry_timestamp_seconds", "gauge", &["identity"], Here, "When the certificate in use ends."),
    entry("istio_certificate_last_success_timestamp_seconds", "gauge", NONE, Here, "When a certificate was last issued."),
    entry("istio_certificate_issued_total", "counter", NONE, Here, "Certificates issued."),
    entry("istio_certificate_failures_total", "counter", &["reason"], Here, "Requests for certificates that failed."),
    entry("istio_ca_request_duration_seconds", "histogram", NONE, Here, "How long the CA took to answer, well or not."),
    entry("istio_trust_root", "gauge", &["fingerprint"], Here, "Roots that are accepted, by the SHA-256 of the certificate."),
    entry("istio_crl_policy_rejections_total", "counter", REPORTER, Existing, "Handshakes refused and tunnels cut because a certificate of the peer is revoked."),
    entry("istio_build", "gauge", &["component", "tag"], Existing, "1, for the version of Istio in `tag`."),
    entry("workload_manager_active_proxy_count", "gauge", NONE, Existing, "Pods whose proxy runs. These eight are there in shared mode only."),
    entry("workload_manager_pending_proxy_count", "gauge", NONE, Existing, "Pods whose proxy could not be started yet."),
    entry("workload_manager_proxies_started_total", "counter", NONE, Existing, "Proxies started."),
    entry("workload_manager_proxies_stopped_total", "counter", NONE, Existing, "Proxies stopped."),
    entry("istio_active_proxy_count_total", "gauge", NONE, Existing, "`workload_manager_active_proxy_count` under its older name."),
    entry("istio_pending_proxy_count_total", "gauge", NONE, Existing, "`workload_manager_pending_proxy_count` under its older name."),
    entry("istio_proxies_started_total", "counter", NONE, Existing, "`workload_manager_proxies_started_total` under its older name."),
    entry("istio_proxies_stopped_total", "counter", NONE, Existing, "`workload_manager_proxies_stopped_total` under its older name."),
    entry("istio_log_lines_dropped_total", "counter", NONE, Here, "Log lines dropped because the output did not keep up."),
    entry("istio_access_log_records_dropped_total", "counter", NONE, Here, "Records that were not sent to the collector of `ACCESS_LOG_OTLP` for want of room. Only with that setting."),
    entry("istio_spans_dropped_total", "counter", NONE, Here, "The same of spans and the collector of `SPANS_OTLP`."),
    entry("process_open_fds", "gauge", NONE, Existing, "Descriptors that are open."),
    entry("process_max_fds", "gauge", NONE, Existing, "How many may be."),
    entry("tokio_num_workers", "gauge", NONE, Existing, "Threads of the data plane."),
    entry("tokio_global_queue_depth", "gauge", NONE, Existing, "Tasks woken by other threads and not run yet."),
    entry("tokio_num_alive_tasks", "gauge", NONE, Existing, "Tasks of the data plane."),
    entry("tokio_worker_total_busy_duration_seconds_total", "counter", &["worker"], Existing, "How long the worker was at work."),
    entry("tokio_worker_park_count_total", "counter", &["worker"], Existing, "How often it went to sleep."),
    entry("tokio_worker_park_unpark_count_total", "counter", &["worker"], Existing, "How often it went to sleep or was woken."),
];

/// `docs/metrics.md`.
#[must_use]
pub fn manual() -> String {
    let mut out = String::from(HEAD);
    for Entry { name, kind, labels, origin, meaning } in CATALOG {
        let labels = match *labels {
            TRAFFIC => "of connections".to_owned(),
            labels => labels.iter().map(|label| format!("`{label}`")).collect::<Vec<_>>().join(", "),
        };
        let origin = match origin {
            Existing => "",
            Here => "here",
        };
        out += &format!("| `{name}` | {kind} | {labels} | {origin} | {meaning} |\n");
    }
    out += LABELS;
    out += &Shown::names().map(|label| format!("`{label}`")).collect::<Vec<_>>().join(", ");
    out + TAIL
}

const HEAD: &str = "\
# Metrics

`/metrics` and `/stats/prometheus` on port 15020 hand out what is counted: as OpenMetrics text, as Prometheus text 0.0.4 or as
Prometheus' protobuf, whichever the scraper likes best (`Accept`), compressed with gzip if it takes that. A family without
samples is not mentioned.

This page is printed from the table in `crates/ztunnel/src/telemetry/metrics/manual.rs` (`cargo xtask generate`); tests hold
it against what a running ztunnel says. Where the fourth column is empty, the existing ztunnel has the metric too, under the
same name and with the same labels.

| metric | type | labels | | what it counts |
|---|---|---|---|---|
";

const LABELS: &str = "
## Labels of connections

In this order: ";

const TAIL: &str = ".

- `reporter` is `source` for connections out of pods and `destination` for those into pods. A value that is not known is
  `unknown`.
- The last four are there only if the workload of one side is known.
- `response_flags`: `-` (well, or cut by a drain), `DENY`, `CONNECT`, `NETWORK_POLICY`, `IDENTITY_ERROR`, `TLS_FAILURE`,
  `H2_HANDSHAKE_FAILURE`, `CERT_REVOKED`; [troubleshooting](troubleshooting.md) has which failure is which.
- `METRICS_LABELS` names the labels by which connections are told apart; without it, by all of them.
- A combination of labels that no connection has used for `METRICS_QUIET_PERIOD` is forgotten, and begins at 0 when it comes
  back; one of an open connection never is. Beyond `METRICS_MAX_SERIES` combinations, connections are counted together,
  with `unknown` labels, and `istio_metric_series_overflow_total` says how many.
";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_is_that_of_the_table() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/metrics.md");
        let checked_in = std::fs::read_to_string(path).unwrap();
        assert!(checked_in == manual(), "docs/metrics.md is out of date: run `cargo xtask generate`");
    }

    /// The words of a text that look like names of metrics.
    fn mentioned(text: &str) -> impl Iterator<Item = &str> {
        let words = text.split(|c: char| !c.is_ascii_lowercase() && c != '_');
        words.filter(|word| ["istio_", "workload_manager_", "process_", "tokio_"].iter().any(|p| word.starts_with(p)))
    }

    #[test]
    fn dashboard_and_alerts_ask_for_metrics_that_there_are() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../deploy/monitoring");
        let read = |file: &str| std::fs::read_to_string(format!("{folder}/{file}")).unwrap();
        for file in ["alerts.yaml", "dashboard.json"] {
            let text = read(file);
            let unknown: Vec<&str> =
                mentioned(&text).filter(|word| CATALOG.iter().all(|entry| entry.name != *word)).collect();
            assert!(unknown.is_empty(), "{file} asks for {unknown:?}");
            assert!(mentioned(&text).count() > 10, "{file}");
        }
        let alerts: serde_json::Value = serde_yaml_ng::from_str(&read("alerts.yaml")).unwrap();
        assert!(alerts["groups"][0]["rules"].as_array().unwrap().iter().all(|rule| rule["expr"].is_string()));
        serde_json::from_str::<serde_json::Value>(&read("dashboard.json")).unwrap();
    }

    #[test]
    fn names_are_told_once_and_counters_by_their_ending() {
        for (at, entry) in CATALOG.iter().enumerate() {
            assert!(CATALOG[..at].iter().all(|other| other.name != entry.name), "{}", entry.name);
            assert!(entry.kind != "counter" || entry.name.ends_with("_total"), "{}", entry.name);
        }
    }
}

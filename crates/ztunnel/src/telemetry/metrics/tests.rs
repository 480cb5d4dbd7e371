use std::sync::Arc;

use mesh::ResponseFlag;

use super::*;
use crate::telemetry::fixtures::{log, metrics_config, outbound, passthrough};

fn metrics() -> Metrics {
    Metrics::new(&metrics_config(), log(Default::default()).0)
}

/// The part of an exposition that is about `families`, in its order.
fn excerpt(text: &str, families: &[&str]) -> String {
    let about = |line: &&str| {
        let name = line.strip_prefix("# HELP ").or(line.strip_prefix("# TYPE ")).unwrap_or(line);
        families.iter().any(|family| name.starts_with(family))
    };
    text.lines().filter(about).map(|line| format!("{line}\n")).collect()
}

#[test]
fn a_connection_s_exposition_is_golden() {
    let metrics = metrics();
    let series = metrics.series(&Arc::new(outbound()));
    series.opened();
    series.received(77);
    series.sent(43);
    series.closed(ResponseFlag::Connect);
    let series = metrics.series(&Arc::new(passthrough()));
    series.opened();
    let text = excerpt(&metrics.render(), &["istio_tcp_connections", "istio_tcp_received", "istio_tcp_sent"]);
    let mut expected: Vec<_> = include_str!("golden.txt").lines().collect();
    let mut lines: Vec<_> = text.lines().collect();
    // Families come in order; samples of a family do not.
    let families =
        |lines: &[&str]| lines.iter().filter(|l| l.starts_with('#')).map(|l| l.to_string()).collect::<Vec<_>>();
    assert_eq!(families(&lines), families(&expected));
    lines.sort_unstable();
    expected.sort_unstable();
    assert_eq!(lines, expected);
}

#[test]
fn before_any_connection_only_the_process_shows() {
    let text = metrics().render();
    let fds = excerpt(&text, &["process_"]);
    let numbers: Vec<u64> =
        fds.lines().filter(|l| !l.starts_with('#')).map(|l| l.rsplit(' ').next().unwrap().parse().unwrap()).collect();
    assert!(numbers.len() == 2 && 0 < numbers[0] && numbers[0] < numbers[1], "{fds}");
    let tunnels = excerpt(&text, &["istio_hbone_"]);
    assert_eq!(tunnels.lines().filter(|l| !l.starts_with('#')).count(), 3 * 2 + 9 * 2 + 2 * 2 + 3, "{tunnels}");
    assert!(tunnels.contains("\nistio_hbone_window_budget_bytes 1000\n"), "{tunnels}");
    let known = |line: &&str| !fds.contains(line) && !tunnels.contains(line);
    let rest: String = text.lines().filter(known).map(|line| format!("{line}\n")).collect();
    assert_eq!(
        rest,
        "# HELP istio_build Build of the Istio component.\n\
         # TYPE istio_build gauge\n\
         istio_build{component=\"ztunnel\",tag=\"1.30.0\"} 1\n\
         # HELP istio_tcp_sockets_open The current number of open TCP sockets (unstable).\n\
         # TYPE istio_tcp_sockets_open gauge\n"
            .to_owned()
            + &excerpt(&text, &["istio_tcp_sockets_open{"])
            + &excerpt(&text, &["istio_unknown_workload_waiting"])
            + "# HELP workload_manager_active_proxy_count The number of pods with a running proxy.\n\
               # TYPE workload_manager_active_proxy_count gauge\n\
               workload_manager_active_proxy_count 0\n\
               # HELP workload_manager_pending_proxy_count The number of pods that wait for a proxy.\n\
               # TYPE workload_manager_pending_proxy_count gauge\n\
               workload_manager_pending_proxy_count 0\n\
               # HELP workload_manager_proxies_started The total number of proxies started.\n\
               # TYPE workload_manager_proxies_started counter\n\
               workload_manager_proxies_started_total 0\n\
               # HELP workload_manager_proxies_stopped The total number of proxies stopped.\n\
               # TYPE workload_manager_proxies_stopped counter\n\
               workload_manager_proxies_stopped_total 0\n\
               # HELP istio_active_proxy_count_total The number of pods with a running proxy.\n\
               # TYPE istio_active_proxy_count_total gauge\n\
               istio_active_proxy_count_total 0\n\
               # HELP istio_pending_proxy_count_total The number of pods that wait for a proxy.\n\
               # TYPE istio_pending_proxy_count_total gauge\n\
               istio_pending_proxy_count_total 0\n\
               # HELP istio_proxies_started The total number of proxies started.\n\
               # TYPE istio_proxies_started counter\n\
               istio_proxies_started_total 0\n\
               # HELP istio_proxies_stopped The total number of proxies stopped.\n\
               # TYPE istio_proxies_stopped counter\n\
               istio_proxies_stopped_total 0\n\
               # HELP istio_on_demand_dns_cache_misses The total number of requests for on-demand DNS that a resolver \
               was asked about (unstable).\n\
               # TYPE istio_on_demand_dns_cache_misses counter\n\
               istio_on_demand_dns_cache_misses_total 0\n\
               # HELP istio_metric_series The number of combinations of labels that connections are counted by.\n\
               # TYPE istio_metric_series gauge\n\
               istio_metric_series 0\n\
               # HELP istio_metric_series_evicted The total number of such combinations forgotten after nobody had \
               used them for a while.\n\
               # TYPE istio_metric_series_evicted counter\n\
               istio_metric_series_evicted_total 0\n\
               # HELP istio_metric_series_overflow The total number of connections counted under unknown labels \
               because there are too many combinations.\n\
               # TYPE istio_metric_series_overflow counter\n\
               istio_metric_series_overflow_total 0\n\
               # HELP istio_log_lines_dropped The total number of log lines dropped because the output did not keep up.\n\
               # TYPE istio_log_lines_dropped counter\n\
               istio_log_lines_dropped_total 0\n\
               # EOF\n"
    );
}

#[test]
fn dedicated_mode_has_no_pods() {
    let config = Config { pods: PodMetrics::Absent, ..metrics_config() };
    let text = Metrics::new(&config, log(Default::default()).0).render();
    assert!(!text.contains("workload_manager"), "{text}");
}

#[test]
fn label_values_cannot_break_the_exposition() {
    let metrics = metrics();
    let mut flow = outbound();
    flow.source.workload = Some("a\"} 1\nevil{x=\"\\".into());
    flow.source.principal = Some("spiffe://t\"d/ns/a/sa/b".parse().unwrap());
    metrics.series(&Arc::new(flow)).opened();
    let text = metrics.render();
    assert!(text.contains(r#"source_workload="a\"} 1\nevil{x=\"\\",source_canonical"#), "{text}");
    assert!(text.contains(r#"source_principal="spiffe://t\"d/ns/a/sa/b",source_app"#), "{text}");
    assert!(text.lines().all(|line| !line.starts_with("evil")));
}

#[test]
fn pods_are_counted_by_whoever_runs_them() {
    let metrics = metrics();
    metrics.pods().active.set(3);
    metrics.pods().started.inc();
    let text = metrics.render();
    assert!(text.contains("\nworkload_manager_active_proxy_count 3\n"), "{text}");
    assert!(text.contains("\nworkload_manager_proxies_started_total 1\n"), "{text}");
}

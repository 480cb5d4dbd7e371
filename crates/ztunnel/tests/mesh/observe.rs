//! What operators and their tools see of a running mesh: names, labels, keys and their order, as the existing ztunnel has
//! them (spec admin-and-telemetry), and what the admin server tells of connections.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::process::Command;

use serde_json::Value;
use testkit::apps::{connect, exchange, http_get, serve_echo, serve_http};
use testkit::harness::{Test, long_test, test};
use testkit::ztunnel::Ztunnel;
use ztunnel::crypto::{self, Crypto, KeyExchange};
use ztunnel::telemetry::metrics::manual::CATALOG;

use super::policy::deny;
use super::{DEADLINE, Outcome, TwoNodes, access_lines, at, eventually, spec, two_nodes};

/// The tree of keys of a dump, one a line; `[]` is any member of a list, `*` any key of a map.
const KEYS: &str = include_str!("observe/keys.txt");
/// Labels of connections in their order (spec admin-and-telemetry 3).
const LABELS: [&str; 27] = [
    "reporter",
    "source_workload",
    "source_canonical_service",
    "source_canonical_revision",
    "source_workload_namespace",
    "source_principal",
    "source_app",
    "source_version",
    "source_cluster",
    "destination_service",
    "destination_service_namespace",
    "destination_service_name",
    "destination_workload",
    "destination_canonical_service",
    "destination_canonical_revision",
    "destination_workload_namespace",
    "destination_principal",
    "destination_app",
    "destination_version",
    "destination_cluster",
    "request_protocol",
    "response_flags",
    "connection_security_policy",
    "source_region",
    "source_zone",
    "destination_region",
    "destination_zone",
];
/// Samples that a node with traffic, and without names or revocations, shows (spec admin-and-telemetry 3; the last four
/// are the older names of the four before them).
const METRICS: [&str; 25] = [
    "istio_tcp_connections_opened_total",
    "istio_tcp_connections_closed_total",
    "istio_tcp_connections_failed_total",
    "istio_tcp_received_bytes_total",
    "istio_tcp_sent_bytes_total",
    "istio_tcp_sockets_open",
    "istio_build",
    "process_open_fds",
    "process_max_fds",
    "tokio_num_workers",
    "tokio_global_queue_depth",
    "tokio_num_alive_tasks",
    "tokio_worker_total_busy_duration_seconds_total",
    "tokio_worker_park_count_total",
    "tokio_worker_park_unpark_count_total",
    "istio_on_demand_dns_cache_misses_total",
    "istio_xds_rejected_resources",
    "workload_manager_active_proxy_count",
    "workload_manager_pending_proxy_count",
    "workload_manager_proxies_started_total",
    "workload_manager_proxies_stopped_total",
    "istio_active_proxy_count_total",
    "istio_pending_proxy_count_total",
    "istio_proxies_started_total",
    "istio_proxies_stopped_total",
];
/// Fields of the access log in their order (spec admin-and-telemetry 4).
const FIELDS: [&str; 17] = [
    "src.addr",
    "src.workload",
    "src.namespace",
    "src.identity",
    "src.cluster",
    "dst.addr",
    "dst.hbone_addr",
    "dst.service",
    "dst.workload",
    "dst.namespace",
    "dst.identity",
    "dst.cluster",
    "direction",
    "bytes_sent",
    "bytes_recv",
    "duration",
    "error",
];

pub fn tests() -> Vec<Test> {
    vec![
        two_nodes("metrics have the names, types and labels that are known, in their order", |mesh| {
            let _app = serve_http(&mesh.server, 8080)?;
            http_get(&mesh.client, at(&mesh.server, 8080))?;
            assert!(http_get(&mesh.client, at(&mesh.server, 9)).is_err(), "nobody listens there");
            eventually("failures are counted", || {
                let text = mesh.zt_a.http_get(15020, "/metrics").map(|answer| answer.body);
                text.is_ok_and(|text| text.contains("istio_tcp_connections_failed_total{"))
            })?;
            let text = mesh.zt_a.http_get(15020, "/stats/prometheus")?.body;
            let names: BTreeSet<&str> = text.lines().filter(|l| !l.starts_with('#')).filter_map(name).collect();
            for wanted in METRICS.iter().filter(|name| **name != "istio_xds_rejected_resources") {
                assert!(names.contains(wanted), "{wanted} is missing:\n{text}");
            }
            for line in text.lines().filter_map(|line| line.strip_prefix("# TYPE ")) {
                let (family, kind) = line.split_once(' ').ok_or("a type without a name")?;
                let known = CATALOG.iter().find(|entry| entry.name == family);
                let known = known.ok_or_else(|| format!("docs/metrics.md does not have {family}"))?;
                assert_eq!(known.kind, kind, "{family}");
            }
            let opened = text.lines().find(|line| line.starts_with("istio_tcp_connections_opened_total{"));
            assert_eq!(labels(opened.ok_or("nothing was opened")?), LABELS);
            Ok(())
        }),
        two_nodes("a line of the access log has the fields that are known, in their order", |mesh| {
            let _app = serve_http(&mesh.server, 8080)?;
            http_get(&mesh.client, at(&mesh.server, 8080))?;
            let hybrid = crypto::Config { key_exchange: KeyExchange::HybridOnly, ..crypto::Config::default() };
            let group = if Crypto::new(hybrid).is_ok() { "X25519MLKEM768" } else { "X25519" };
            for (zt, direction) in [(&mesh.zt_a, "outbound"), (&mesh.zt_b, "inbound")] {
                let direction = format!("direction=\"{direction}\" bytes_sent=");
                zt.wait_for_log(&direction, DEADLINE)?;
                let line = access_lines(zt, &[&direction]).pop().ok_or("the line is gone")?;
                let fields = line.rsplit('\t').next().ok_or("no fields")?.to_owned();
                let keys: Vec<&str> = fields.split(' ').filter_map(|field| field.split('=').next()).collect();
                let known: Vec<&str> = FIELDS.into_iter().filter(|field| keys.contains(field)).collect();
                // Those of our own come behind them. Nobody asks about the sockets of a connection such as this.
                let (theirs, ours) = keys.split_at(known.len());
                assert_eq!(theirs, known, "{line}");
                assert_eq!(ours, ["closed_first", "tls_group"], "{line}");
                assert!(theirs.len() >= 14, "{line}");
                assert!(line.ends_with(&format!(" tls_group=\"{group}\"")), "{line}");
            }
            Ok(())
        }),
        test("a slow connection is logged with who closed it first and how its packets fared", slow),
        two_nodes("the configuration dump has the keys that are known", |mesh| {
            let _echo = serve_echo(&mesh.server, 9000)?;
            let mut open = connect(&mesh.client, at(&mesh.server, 9000))?;
            echo(&mut open)?;
            let known: BTreeSet<&str> = KEYS.lines().filter(|line| !line.starts_with('#')).collect();
            let mut found = BTreeSet::new();
            for zt in [&mesh.zt_a, &mesh.zt_b] {
                let text = zt.http_get(15000, "/config_dump")?.body;
                let dump: Value = serde_json::from_str(&text)?;
                assert_eq!(text, serde_json::to_string_pretty(&dump)?, "keys are in order");
                tree("", &dump, &mut found);
            }
            let found: BTreeSet<&str> = found.iter().map(String::as_str).collect();
            let unknown: Vec<_> = found.difference(&known).collect();
            assert!(unknown.is_empty(), "the dump has keys that observe/keys.txt does not: {unknown:#?}");
            let optional = |key: &&&str| !KEYS.lines().any(|line| line == format!("#optional {key}"));
            let missing: Vec<_> = known.difference(&found).filter(optional).collect();
            assert!(missing.is_empty(), "the dump lacks {missing:#?}");
            Ok(())
        }),
        two_nodes("an open connection is seen at both of its ends, and in the dump of its pods", |mesh| {
            let _echo = serve_echo(&mesh.server, 9000)?;
            let mut open = connect(&mesh.client, at(&mesh.server, 9000))?;
            echo(&mut open)?;
            let client = format!("{}", open.local_addr()?);
            for (zt, direction) in [(&mesh.zt_a, "outbound"), (&mesh.zt_b, "inbound")] {
                let ask = || json(zt, &format!("/debug/connections?direction={direction}"));
                // A byte is counted once it has been handed over, and so may have been answered before.
                let moved = |row: &Value| row["bytesSent"] == 1 && row["bytesReceived"] == 1;
                eventually("both bytes are counted", || ask().is_ok_and(|rows| moved(&rows["connections"][0])))?;
                let rows = ask()?;
                let row = &rows["connections"][0];
                assert_eq!((&rows["total"], &row["stage"]), (&Value::from(1), &Value::from("open")), "{rows}");
                assert_eq!(row["source"]["workload"], "client");
                assert_eq!(row["destination"]["identity"], "spiffe://cluster.local/ns/shop/sa/cart");
            }
            for zt in [&mesh.zt_a, &mesh.zt_b] {
                let rows = json(zt, "/debug/connections?tcp=true")?;
                let paths = ["appPath", "peerPath"].map(|path| rows["connections"][0][path]["roundTripUs"].as_u64());
                assert!(paths.iter().all(|micros| micros.is_some_and(|micros| micros > 0)), "{rows:#}");
            }
            let dump = json(&mesh.zt_a, "/config_dump?resource=workloadState")?;
            let pods = dump["workloadState"].as_object().ok_or("no pods")?;
            let pod = pods.values().find(|pod| pod["info"]["name"] == "client").ok_or("no client")?;
            let shown = &pod["connections"]["outbound"][0];
            assert_eq!((shown["src"].as_str(), shown["protocol"].as_str()), (Some(&*client), Some("HBONE")));
            assert_eq!(shown["originalDst"], at(&mesh.server, 9000).to_string());
            drop(open);
            eventually("it is gone", || json(&mesh.zt_a, "/debug/connections").is_ok_and(|rows| rows["total"] == 0))
        }),
        two_nodes("what denies a connection is explained before it is made, and told after", |mesh| {
            let _app = serve_http(&mesh.server, 8080)?;
            let target = at(&mesh.server, 8080);
            let explain = format!("/debug/explain?src=shop/client&dst={target}");
            assert_eq!(json(&mesh.zt_a, &explain)?["verdict"], "allowed");
            mesh.mesh.control_plane().update(|plane| plane.policies.push(deny("cluster.local/ns/shop/sa/front")))?;
            eventually("it would be denied", || json(&mesh.zt_a, &explain).is_ok_and(|it| it["verdict"] == "refused"))?;
            let told = json(&mesh.zt_a, &explain)?;
            assert_eq!(told["failure"]["code"], "denied");
            assert_eq!((&told["policy"]["policy"], &told["policy"]["rule"]), (&"shop/no-front".into(), &0.into()));
            assert_eq!(told["certificate"]["state"], "Available");
            // The first to fail may have been let in, and cut when the policy came.
            eventually("the client is denied, and the server's ztunnel tells so", || {
                let failures = || json(&mesh.zt_b, "/debug/failures?code=denied");
                http_get(&mesh.client, target).is_err()
                    && failures().is_ok_and(|it| it["failures"][0]["stage"] == "authz")
            })?;
            mesh.zt_a.wait_for_log("peer_reason=\"denied\"", DEADLINE)?;
            let told = json(&mesh.zt_a, &explain)?;
            assert_eq!(told["lastFailure"]["peerReason"], "denied", "{told:#}");
            Ok(())
        }),
        long_test("the page shows in a browser what goes on; needs Debian's chromium", page),
        two_nodes("the commands ask the ztunnel that runs", |mesh| {
            let _echo = serve_echo(&mesh.server, 9000)?;
            let mut open = connect(&mesh.client, at(&mesh.server, 9000))?;
            echo(&mut open)?;
            let target = at(&mesh.server, 9000).to_string();
            let (status, out) = command(&mesh.zt_a, &["explain", "shop/client", &target])?;
            assert!(status == 0 && out.contains("1 open connection uses such a tunnel."), "{out}");
            let (status, out) = command(&mesh.zt_a, &["connections", "--direction", "outbound"])?;
            assert!(status == 0 && out.starts_with("AGE ") && out.contains("shop/client"), "{out}");
            let (status, out) = command(&mesh.zt_a, &["connections", "--tcp"])?;
            assert!(status == 0 && out.contains("PEER RTT") && out.contains(" us (0)"), "{out}");
            let (status, out) = command(&mesh.zt_a, &["check", "--json"])?;
            let checked: Value = serde_json::from_str(&out)?;
            let about =
                |what: &str| checked["findings"].as_array().is_some_and(|all| all.iter().any(|it| it["what"] == what));
            assert!(status <= 1 && about("descriptors") && about("clock"), "{out}");
            let (status, out) = command(&mesh.zt_a, &["top", "--json"])?;
            let summary: Value = serde_json::from_str(&out)?;
            assert_eq!((status, &summary["connections"]["outbound"]), (0, &Value::from(1)));
            let (status, out) = command(&mesh.zt_a, &["failures", "--limit", "0"])?;
            assert!(status == 1 && out.contains("invalid limit"), "{out}");
            Ok(())
        }),
    ]
}

/// Every connection is slow to somebody who has no patience.
fn slow() -> Outcome {
    let mesh = TwoNodes::start_on(|_, _| Ok(spec().env("ACCESS_LOG_SLOW", "0s")))?;
    let _echo = serve_echo(&mesh.server, 9000)?;
    let (inside, outside) = (at(&mesh.server, 9000), at(&mesh.outside_b, 9000));
    let _plain = serve_echo(&mesh.outside_b, 9000)?;
    for target in [inside, outside] {
        let mut open = connect(&mesh.client, target)?;
        echo(&mut open)?;
    }
    for (zt, direction, target) in
        [(&mesh.zt_a, "outbound", inside), (&mesh.zt_b, "inbound", inside), (&mesh.zt_a, "outbound", outside)]
    {
        let mut fields = String::new();
        eventually("the connection is logged", || {
            let lines =
                access_lines(zt, &["connection complete", &format!("direction=\"{direction}\""), &target.to_string()]);
            fields = lines.last().cloned().unwrap_or_default();
            !fields.is_empty()
        })?;
        let value = |key: &str| {
            let field = fields.split(' ').find_map(|field| field.strip_prefix(key)?.strip_prefix('='));
            field.map(|value| value.trim_matches('"').to_owned())
        };
        assert_eq!(value("closed_first").as_deref(), Some("client"), "{fields}");
        assert_eq!(value("tls_group").is_some(), target == inside, "{fields}");
        for side in ["app", "peer"] {
            let round_trip = value(&format!("{side}_rtt")).ok_or("no round trip")?;
            assert!(round_trip.strip_suffix("us").is_some_and(|micros| micros.parse::<u64>().is_ok_and(|n| n > 0)));
            assert_eq!(value(&format!("{side}_retransmits")).as_deref(), Some("0"), "{fields}");
        }
    }
    Ok(())
}

/// With `SCREENSHOT`, what the browser shows goes to a file of that name.
fn page() -> Outcome {
    let mesh = TwoNodes::start()?;
    let _echo = serve_echo(&mesh.server, 9000)?;
    let (client, target) = (mesh.client.clone(), at(&mesh.server, 9000));
    let mut open = connect(&client, target)?;
    assert!(http_get(&client, at(&mesh.server, 9)).is_err(), "nobody listens there");
    // Goes on until the mesh is gone.
    std::thread::spawn(move || while echo(&mut open).is_ok() && exchange(&client, target, &[0; 4096]).is_ok() {});
    let home = mesh.mesh.directory().join("browser");
    let look = |action: &str| -> Outcome<String> {
        let mut browser = mesh.zt_a.netns().command("chromium");
        browser.args(["--headless", "--no-sandbox", "--disable-gpu", "--window-size=1280,1500", "--hide-scrollbars"]);
        browser.arg(format!("--user-data-dir={}", home.display())).env("HOME", &home);
        // Time that the page may take, as it sees it: some looks at what goes on.
        let output = browser.args(["--virtual-time-budget=9000", action, "http://127.0.0.1:15000/"]).output()?;
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let document = look("--dump-dom")?;
    let shown =
        ["class=\"good\">ready", "shop/client", "shop/server", "peer-refused (app-unreachable)", "ns/shop/sa/front"];
    for wanted in shown {
        assert!(document.contains(wanted), "{wanted} is not shown:\n{document}");
    }
    assert!(document.contains("<polyline points=\""), "there is no curve:\n{document}");
    if let Some(file) = std::env::var_os("SCREENSHOT") {
        look(&format!("--screenshot={}", file.display()))?;
    }
    Ok(())
}

/// Status and output of one of ztunnel's commands, run where a ztunnel runs.
fn command(zt: &Ztunnel, arguments: &[&str]) -> Outcome<(i32, String)> {
    let mut command: Command = zt.netns().command(env!("CARGO_BIN_EXE_ztunnel"));
    let output = command.args(arguments).env_clear().env("FAKE_CA", "true").output()?;
    let text = [output.stdout, output.stderr].concat();
    Ok((output.status.code().unwrap_or(-1), String::from_utf8(text)?))
}

fn echo(stream: &mut std::net::TcpStream) -> Outcome {
    stream.write_all(b"x")?;
    Ok(stream.read_exact(&mut [0])?)
}

fn json(zt: &Ztunnel, path: &str) -> Outcome<Value> {
    Ok(serde_json::from_str(&zt.http_get(15000, path)?.body)?)
}

/// The name of a sample.
fn name(line: &str) -> Option<&str> {
    line.split(['{', ' ']).next()
}

/// The names of a sample's labels.
fn labels(line: &str) -> Vec<&str> {
    let inner = line.split_once('{').and_then(|(_, rest)| rest.rsplit_once('}')).map_or("", |(inner, _)| inner);
    inner.split("\",").filter_map(|label| label.split('=').next()).collect()
}

/// Places in the dump whose keys are data.
fn is_map(path: &str) -> bool {
    const MAPS: [&str; 6] = [
        ".config.proxyMetadata",
        ".services[].endpoints",
        ".services[].ports",
        ".port",
        ".stagedServices",
        ".workloadState",
    ];
    MAPS.iter().any(|map| path.ends_with(map)) || path.ends_with(".stagedServices.*")
}

/// The paths to all leaves.
fn tree(path: &str, value: &Value, into: &mut BTreeSet<String>) {
    match value {
        Value::Object(fields) => {
            into.insert(format!("{path}."));
            for (key, value) in fields {
                let key = if is_map(path) { "*" } else { key };
                tree(&format!("{path}.{key}"), value, into);
            }
        }
        Value::Array(members) => {
            into.insert(format!("{path}[]"));
            for member in members.iter().filter(|member| member.is_object()) {
                tree(&format!("{path}[]"), member, into);
            }
        }
        _ => drop(into.insert(path.to_owned())),
    }
}

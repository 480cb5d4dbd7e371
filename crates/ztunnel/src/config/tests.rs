use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::time::Duration;

use super::reader::Reader;
use super::table::{KNOBS, Kind};
use super::*;

const BASE: &[(&str, &str)] = &[("FAKE_CA", "true"), ("XDS_ADDRESS", "")];

fn environment(variables: &[(&str, &str)]) -> Environment {
    with_file(variables, None)
}

fn with_file(variables: &[(&str, &str)], mesh: Option<&'static str>) -> Environment {
    let variables = BASE.iter().chain(variables).map(|(n, v)| (OsString::from(n), OsString::from(v)));
    let read = move |_: &std::path::Path| mesh.map(str::to_owned).ok_or_else(|| io::ErrorKind::NotFound.into());
    Environment::new(variables, Box::new(read), 8, vec!["proxy".into(), "ztunnel".into()])
}

fn load(variables: &[(&str, &str)]) -> Config {
    Config::load(&environment(variables)).unwrap_or_else(|e| panic!("{variables:?}: {e}"))
}

fn problems(variables: &[(&str, &str)]) -> String {
    Config::load(&environment(variables)).expect_err("these settings are wrong").to_string()
}

#[test]
fn without_settings_the_documented_defaults_hold() {
    let config = load(&[]);
    assert_eq!(config.mode, Mode::Shared);
    assert_eq!(config.packet_mark, Some(1337));
    assert_eq!(config.drain_deadline, Duration::from_secs(5));
    assert_eq!(config.pool_unused_release, Duration::from_secs(300));
    assert_eq!((config.stream_window, config.connection_window, config.frame_size), (4 << 20, 16 << 20, 1 << 20));
    assert_eq!((config.admin_port, config.stats_port), (15000, 15020));
    assert_eq!(config.worker_threads, 2);
    assert_eq!(config.xds_address, None);
    assert_eq!(config.ca_address, None, "the fake CA has no address");
    assert!(config.dns_proxy && config.proxy && config.warnings.is_empty());
}

#[test]
fn every_row_of_the_table_is_read_and_nothing_else() {
    let environment = environment(&[]);
    let mut reader = Reader::new(&environment);
    assert!(read(&mut reader).is_some());
    let mut asked = reader.asked.borrow().clone();
    asked.sort_unstable();
    asked.dedup();
    let mut rows: Vec<&str> = KNOBS.iter().map(|knob| knob.name).collect();
    rows.sort_unstable();
    // Read only in dedicated mode.
    asked.push("PROXY_WORKLOAD_INFO");
    asked.sort_unstable();
    assert_eq!(asked, rows);
}

#[test]
fn every_default_is_a_value_that_the_row_accepts() {
    for knob in KNOBS {
        let Some(default) = knob.default else { continue };
        match knob.kind {
            Kind::Bool => assert!(["true", "false"].contains(&default), "{}", knob.name),
            Kind::Number { min, max } => assert!((min..=max).contains(&default.parse().unwrap()), "{}", knob.name),
            Kind::Duration { min } => {
                assert!(parse::duration(default).unwrap() >= Duration::from_millis(min), "{}", knob.name);
            }
            Kind::Switch | Kind::Text => {}
        }
    }
}

#[test]
fn every_number_time_and_truth_value_is_checked() {
    for knob in KNOBS {
        let wrong: &[String] = &match knob.kind {
            Kind::Bool => vec!["yes".into(), String::new(), "TRUE".into()],
            Kind::Number { min, max } => {
                let below = min.checked_sub(1).map(|n| n.to_string());
                [Some((max + 1).to_string()), below, Some("x".into()), Some(String::new())]
                    .into_iter()
                    .flatten()
                    .collect()
            }
            Kind::Duration { min } => {
                let mut wrong = vec!["soon".to_owned(), String::new()];
                wrong.extend((min > 0).then(|| "0".to_owned()));
                wrong
            }
            Kind::Switch | Kind::Text => Vec::new(),
        };
        for value in wrong {
            let variables = [(knob.name, value.as_str())];
            let environment = Environment::new(
                BASE.iter().filter(|(n, _)| *n != knob.name).chain(&variables).map(|(n, v)| (n.into(), v.into())),
                Box::new(|_| Err(io::ErrorKind::NotFound.into())),
                8,
                Vec::new(),
            );
            let error = Config::load(&environment).expect_err(knob.name).to_string();
            assert!(error.contains(&format!("invalid env var {}={value} (", knob.name)), "{error}");
        }
    }
}

#[test]
fn all_problems_are_reported_at_once() {
    let text = problems(&[("KEEPALIVE_TIME", "x"), ("HTTP2_FRAME_SIZE", "1"), ("PROXY_MODE", "both")]);
    assert_eq!(text.lines().count(), 3, "{text}");
    assert!(text.contains("invalid env var HTTP2_FRAME_SIZE=1 (must be from 16384 to 16777215)"), "{text}");
    assert!(text.contains("PROXY_MODE must be one of dedicated, shared"), "{text}");
}

#[test]
fn a_value_that_is_no_text_is_an_error_only_where_it_matters() {
    let wrong = OsString::from_vec(vec![0xff]);
    let base = || BASE.iter().map(|(n, v)| (OsString::from(n), OsString::from(v)));
    let none = || -> super::environment::Environment {
        Environment::new(
            base().chain([("LS_COLORS".into(), wrong.clone())]),
            Box::new(|_| Err(io::ErrorKind::NotFound.into())),
            1,
            vec![],
        )
    };
    assert!(Config::load(&none()).is_ok());
    let ours = Environment::new(
        base().chain([("NETWORK".into(), wrong.clone())]),
        Box::new(|_| Err(io::ErrorKind::NotFound.into())),
        1,
        vec![],
    );
    let error = Config::load(&ours).unwrap_err().to_string();
    assert_eq!(error, "invalid env var NETWORK (the value is not valid UTF-8)");
}

#[test]
fn dedicated_mode_needs_to_know_its_workload() {
    let config = load(&[("PROXY_MODE", "dedicated"), ("PROXY_WORKLOAD_INFO", "ns/pod/account")]);
    let Mode::Dedicated(who) = &config.mode else { panic!("{:?}", config.mode) };
    assert_eq!((who.namespace.as_str(), &*who.name, who.service_account.as_str()), ("ns", "pod", "account"));
    assert_eq!(config.packet_mark, None);
    let missing = problems(&[("PROXY_MODE", "dedicated")]);
    assert_eq!(missing, "invalid configuration: PROXY_MODE=dedicated requires PROXY_WORKLOAD_INFO to be set");
    let short = problems(&[("PROXY_MODE", "dedicated"), ("PROXY_WORKLOAD_INFO", "ns/pod")]);
    assert!(short.contains("must match the format 'namespace/name/service-account'"), "{short}");
}

#[test]
fn the_drain_deadline_leaves_the_process_time_to_end() {
    for (grace, seconds) in [("30", 25), ("11", 6), ("10", 9), ("2", 1), ("1", 1), ("0", 1)] {
        let config = load(&[("TERMINATION_GRACE_PERIOD_SECONDS", grace)]);
        assert_eq!(config.drain_deadline, Duration::from_secs(seconds), "{grace}");
    }
    let config = load(&[("TERMINATION_GRACE_PERIOD_SECONDS", "30"), ("CONNECTION_TERMINATION_DEADLINE", "1m")]);
    assert_eq!(config.drain_deadline, Duration::from_secs(60));
}

#[test]
fn worker_threads_follow_settings_limits_and_cores_in_this_order() {
    for (variables, threads) in [
        (&[("ZTUNNEL_WORKER_THREADS", "3")][..], 3),
        (&[("ZTUNNEL_WORKER_THREADS", "0")], 8),
        (&[("ZTUNNEL_WORKER_THREADS", "50%")], 4),
        (&[("PROXY_CONFIG", "{concurrency: 5}")], 5),
        (&[("PROXY_CONFIG", "{concurrency: 0}")], 8),
        (&[("ZTUNNEL_RESOURCE_CPU_LIMIT", "1500m")], 2),
        (&[("ZTUNNEL_RESOURCE_CPU_LIMIT", "1"), ("ZTUNNEL_RESOURCE_CPU_REQUEST", "3")], 3),
        (&[("ZTUNNEL_RESOURCE_CPU_REQUEST", "200m")], 2),
        (&[("ZTUNNEL_CPU_LIMIT", "32")], 8),
    ] {
        assert_eq!(load(variables).worker_threads, threads, "{variables:?}");
    }
}

#[test]
fn the_proxy_configuration_needs_no_metadata_and_the_variable_wins_over_the_file() {
    let file = "defaultConfig: {discoveryAddress: 'a:1', statsPort: 1, proxyMetadata: {A: file, B: file}}\nother: 1";
    let variables = [
        ("PROXY_CONFIG", r#"{"statsPort": 2, "proxyMetadata": {"ISTIO_META_B": "variable"}}"#),
        ("ISTIO_META_C", "meta"),
    ];
    let config = Config::load(&with_file(&variables, Some(file))).unwrap();
    assert_eq!(config.stats_port, 2);
    let metadata: Vec<(&str, &str)> = config.proxy_metadata.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
    assert_eq!(metadata, [("A", "file"), ("B", "variable"), ("C", "meta")]);
    let broken = problems(&[("PROXY_CONFIG", "{concurrency: many}")]);
    assert!(broken.starts_with("error parsing proxy config: failed parsing proxy config env: "), "{broken}");
}

#[test]
fn names_are_answered_unless_the_metadata_says_otherwise() {
    for (text, expected) in [("true", true), ("TRUE", true), ("false", false), ("1", false), ("", false)] {
        assert_eq!(load(&[("ISTIO_META_DNS_CAPTURE", text)]).dns_proxy, expected, "{text:?}");
    }
    assert!(load(&[]).dns_proxy);
}

#[test]
fn addresses_of_the_control_plane_have_a_scheme_and_a_default() {
    let unset = |variables: &[(&str, &str)]| {
        let all = variables.iter().chain(&[("FAKE_CA", "false")]).map(|(n, v)| (OsString::from(n), OsString::from(v)));
        let all: Vec<_> = all.collect();
        Config::load(&Environment::new(all, Box::new(|_| Err(io::ErrorKind::NotFound.into())), 1, vec![])).unwrap()
    };
    assert_eq!(unset(&[]).xds_address.as_deref(), Some("https://localhost:15012"));
    let in_cluster = unset(&[("KUBERNETES_SERVICE_HOST", "10.0.0.1")]);
    assert_eq!(in_cluster.ca_address.as_deref(), Some("https://istiod.istio-system.svc:15012"));
    assert_eq!(unset(&[("XDS_ADDRESS", "istiod:1")]).xds_address.as_deref(), Some("https://istiod:1"));
    let configured = unset(&[("PROXY_CONFIG", "{discoveryAddress: 'other:2'}")]);
    assert_eq!(configured.xds_address.as_deref(), Some("https://other:2"));
    assert_eq!(configured.ca_address.as_deref(), Some("https://localhost:15012"), "not used for the CA");
    let error = problems(&[("FAKE_CA", "false"), ("CA_ADDRESS", "")]);
    assert!(error.contains("ca_address must be set to use CA"), "{error}");
}

#[test]
fn only_one_source_of_local_state_may_be_set() {
    let error = problems(&[("LOCAL_XDS", "{}"), ("LOCAL_XDS_PATH", "x")]);
    assert_eq!(error, "only one of LOCAL_XDS_PATH or LOCAL_XDS may be set");
    assert_eq!(load(&[("LOCAL_XDS_PATH", "x")]).local_state, Some(LocalState::Path("x".into())));
}

#[test]
fn settings_that_look_like_typos_are_pointed_out() {
    let config = load(&[("POOL_MAX_STREAM_PER_CONNECTION", "7"), ("XDS_HEADER_X", "1"), ("HOME", "/")]);
    assert_eq!(
        config.warnings,
        ["unknown setting POOL_MAX_STREAM_PER_CONNECTION is ignored; did you mean POOL_MAX_STREAMS_PER_CONNECTION?"]
    );
}

#[test]
fn the_dump_has_exactly_the_documented_keys_and_hides_header_values() {
    let dump = load(&[("XDS_HEADER_Authorization", "secret")]).dump();
    let keys: Vec<&str> = dump.as_object().unwrap().keys().map(String::as_str).collect();
    let mut documented = [
        "adminAddr",
        "statsAddr",
        "readinessAddr",
        "dnsProxyAddr",
        "inboundAddr",
        "inboundPlaintextAddr",
        "outboundAddr",
        "socks5Addr",
        "illegalPorts",
        "proxy",
        "dnsProxy",
        "dnsResolverCfg",
        "dnsResolverOpts",
        "xdsOnDemand",
        "fakeCa",
        "fakeSelfInbound",
        "inpodPortReuse",
        "localhostAppTunnel",
        "ipv6Enabled",
        "enableEnhancedBaggage",
        "windowSize",
        "connectionWindowSize",
        "frameSize",
        "poolMaxStreamsPerConn",
        "numWorkerThreads",
        "poolUnusedReleaseTimeout",
        "secretTtl",
        "selfTerminationDeadline",
        "network",
        "clusterId",
        "clusterDomain",
        "proxyArgs",
        "inpodUds",
        "localNode",
        "caAddress",
        "xdsAddress",
        "altCaHostname",
        "altXdsHostname",
        "preferedServiceNamespace",
        "crlPath",
        "ztunnelIdentity",
        "packetMark",
        "requireOriginalSource",
        "proxyMode",
        "proxyWorkloadInformation",
        "ztunnelWorkload",
        "caRootCert",
        "xdsRootCert",
        "caHeaders",
        "xdsHeaders",
        "proxyMetadata",
        "socketConfig",
    ];
    documented.sort_unstable();
    assert_eq!(keys, documented, "in alphabetical order");
    assert_eq!(dump["xdsHeaders"], serde_json::json!([["authorization", "<redacted>"]]));
    assert_eq!(dump["adminAddr"], serde_json::json!({ "Localhost": [true, 15000] }));
    assert_eq!(dump["inboundAddr"], "[::]:15008");
    assert_eq!(dump["secretTtl"], serde_json::json!({ "secs": 86400, "nanos": 0 }));
    assert_eq!(dump["proxyArgs"], "proxy ztunnel");
}

#[test]
fn the_manual_in_the_repository_is_the_one_printed_from_the_table() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/configuration.md");
    let checked_in = std::fs::read_to_string(path).unwrap_or_default();
    assert!(checked_in == manual(), "docs/configuration.md is out of date: run `cargo xtask generate`");
}

use serde_json::json;

use super::graph::{self, Graph};
use super::rules;
use super::tree::Source;
use super::{Breach, breaches};

/// `text` as the file of a module such as `proxy::pool` of the daemon.
fn daemon(module: &str, text: &str) -> Source {
    let module: Vec<String> = module.split("::").map(str::to_owned).collect();
    Source::new("ztunnel", format!("{}.rs", module.join("/")), module, text).unwrap()
}

fn machine(text: &str) -> Source {
    Source::new("mesh", "view.rs".to_owned(), vec!["view".to_owned()], text).unwrap()
}

/// Lines and first words of what is wrong.
fn told(breaches: &[Breach]) -> Vec<String> {
    breaches
        .iter()
        .map(|breach| {
            let line = breach.place.rsplit(':').next().unwrap_or_default();
            format!("{line}: {}", breach.what.split([' ', ':']).next().unwrap_or_default())
        })
        .collect()
}

#[test]
fn the_workspace_keeps_its_walls() {
    let breaches = breaches(&crate::workspace()).unwrap();
    let lines: Vec<String> = breaches.iter().map(ToString::to_string).collect();
    assert!(lines.is_empty(), "\n{}", lines.join("\n"));
}

mod machines {
    use super::*;

    #[track_caller]
    fn assert_impure(text: &str) {
        assert_eq!(rules::pure(&machine(text)).len(), 1, "{text}");
    }

    #[test]
    fn may_not_touch_sockets_files_threads_locks_or_the_environment() {
        for path in [
            "std::net::TcpStream",
            "std::net::UdpSocket",
            "std::fs::read",
            "std::env::var",
            "std::thread::spawn",
            "std::sync::Mutex",
            "std::sync::RwLock",
            "std::process::exit",
            "tokio::time::sleep",
        ] {
            assert_impure(&format!("use {path};"));
            assert_impure(&format!("fn f() {{ let _ = {path}(); }}"));
        }
    }

    #[test]
    fn may_take_the_time_but_not_ask_for_it() {
        assert!(rules::pure(&machine("use std::time::Instant; fn f(now: Instant) -> Instant { now }")).is_empty());
        assert_impure("use std::time::Instant; fn f() { Instant::now(); }");
        assert_impure("use std::time::Instant as I; fn f() { I::now(); }");
        assert_impure("use std::time; fn f() { time::Instant::now(); }");
        assert_impure("fn f(since: std::time::Instant) { since.elapsed(); }");
        assert_impure("use std::time::SystemTime;");
    }

    #[test]
    fn may_not_print() {
        assert_impure("fn f() { println!(\"{}\", 1); }");
    }

    #[test]
    fn may_use_addresses_and_reference_counts() {
        let text = "use std::net::{IpAddr, SocketAddr}; use std::sync::Arc; use std::time::Duration;";
        assert!(rules::pure(&machine(text)).is_empty());
    }

    #[test]
    fn are_caught_inside_groups_globs_and_macros() {
        assert_impure("use std::{collections::BTreeMap, fs::{self}};");
        assert_impure("use std::fs::*;");
        assert_impure("fn f() { assert!(std::env::var(\"X\").is_ok()); }");
    }

    #[test]
    fn may_do_all_that_in_tests_comments_and_strings() {
        let text = r#"
            //! std::fs::read
            const X: &str = "std::fs::read";
            #[cfg(test)]
            mod tests { use std::fs; fn f() { std::env::var("X"); } }
            #[cfg(all(test, unix))]
            use std::thread;
            #[cfg(test)]
            mod fixture;
        "#;
        let source = machine(text);
        assert!(rules::pure(&source).is_empty());
        assert!(source.mentions.modules.is_empty());
    }

    #[test]
    fn are_caught_after_a_test_item() {
        assert_impure("#[cfg(test)] mod tests { } use std::fs;");
        assert_impure("#[cfg(test)] use a::b; fn f() { std::fs::read(); }");
        assert_impure("#[cfg(not(test))] use std::fs;");
    }
}

mod layers {
    use super::*;

    #[track_caller]
    fn assert_wrong(module: &str, text: &str, expected: &str) {
        let found = rules::layers(&daemon(module, text));
        assert_eq!(found.iter().map(|breach| breach.what.as_str()).collect::<Vec<_>>(), [expected], "{text}");
    }

    #[test]
    fn import_what_is_below() {
        let text = "use crate::net::dial; use crate::identity::Identities; use mesh::View; use super::pool;";
        assert!(rules::layers(&daemon("proxy::driver", text)).is_empty());
        assert!(rules::layers(&daemon("main", "use ztunnel::{app, config};")).is_empty());
    }

    #[test]
    fn do_not_import_what_is_above() {
        assert_wrong("net::dial", "use crate::proxy::Pool;", "net imports proxy above it");
        assert_wrong("net::dial", "fn f() { crate::config::read(); }", "net imports config above it");
        assert_wrong("proxy::pool", "use super::super::inpod::Pods;", "proxy imports inpod above it");
        assert_wrong("proxy", "mod inner { use super::super::inpod::Pods; }", "proxy imports inpod above it");
    }

    #[test]
    fn do_not_import_what_is_beside() {
        assert_wrong("admin::dump", "use crate::inpod::PodStates;", "admin imports inpod beside it");
        assert_wrong("net::dial", "use crate::{telemetry, version};", "net imports telemetry beside it");
    }

    #[test]
    fn are_known_by_name() {
        assert_wrong("helper", "", "module helper has no place in the layers");
        assert_wrong("proxy", "use crate::helper::X;", "proxy imports helper, which has no place in the layers");
        assert_wrong("proxy", "use crate::*;", "proxy imports *, which has no place in the layers");
    }
}

#[test]
fn only_config_reads_the_environment() {
    let text = "use std::env;\nfn f() { env::var(\"X\"); }";
    assert_eq!(told(&rules::environment(&daemon("proxy::pool", text))), ["2: std"]);
    assert_eq!(told(&rules::environment(&daemon("proxy::driver", text))), ["2: std"]);
    assert!(rules::environment(&daemon("config::environment", text)).is_empty());
}

#[test]
fn only_drivers_net_telemetry_and_app_get_hold_of_the_outside() {
    for path in ["tokio::spawn", "std::fs::File::open", "socket2::Socket::new", "std::net::TcpStream::connect"] {
        let text = format!("fn f() {{ {path}(); }}");
        assert_eq!(rules::outside(&daemon("proxy::pool", &text)).len(), 1, "{path}");
        assert_eq!(rules::outside(&daemon("network", &text)).len(), 1, "{path}");
        for module in ["proxy::driver", "proxy::tunnel::driver", "net::dial", "telemetry", "app"] {
            assert!(rules::outside(&daemon(module, &text)).is_empty(), "{path} in {module}");
        }
    }
    let holds = "use tokio::net::TcpStream; fn f(socket: TcpStream) { socket.readable(); }";
    assert!(rules::outside(&daemon("proxy::pool", holds)).is_empty());
}

#[test]
fn one_file_names_the_connections_of_rustls() {
    let tls = || Source::new("hbone", "tls.rs".to_owned(), vec![], "use rustls::client::UnbufferedClientConnection;");
    let other = daemon("proxy::pool", "fn f(_: rustls::ServerConnection) {}");
    let neither = daemon("identity", "use rustls::ClientConfig; use mesh::Connection;");
    assert!(rules::one_file_of_tls(&[tls().unwrap(), neither]).is_empty());
    assert_eq!(told(&rules::one_file_of_tls(&[tls().unwrap(), other])), ["1: one", "1: one"]);
    assert_eq!(rules::one_file_of_tls(&[]).len(), 1, "a rule that guards nothing is broken");
}

mod dependencies {
    use super::*;

    /// A workspace in which each package depends on others, in the given way.
    fn graph(edges: &[(&str, &[&str], Option<&str>)]) -> Graph {
        let node = |(name, needs, kind): &(&str, &[&str], Option<&str>)| {
            let needs = needs.iter().map(|name| json!({ "pkg": name, "dep_kinds": [{ "kind": kind }] }));
            json!({ "id": name, "deps": needs.collect::<Vec<_>>() })
        };
        let ids = edges.iter().flat_map(|(name, needs, _)| needs.iter().chain([name]));
        let packages: Vec<_> = ids.map(|name| json!({ "id": name, "name": name })).collect();
        let nodes: Vec<_> = edges.iter().map(node).collect();
        Graph::read(&json!({ "packages": packages, "resolve": { "nodes": nodes } })).unwrap()
    }

    #[test]
    fn of_machines_bring_no_runtime_however_indirectly() {
        let graph = graph(&[("mesh", &["fine"], None), ("fine", &["deep"], None), ("deep", &["tokio"], None)]);
        let found = graph::machines(&graph);
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].what, "mesh -> fine -> deep -> tokio: not for a machine");
    }

    #[test]
    fn of_machines_may_bring_a_runtime_for_tests_and_builds() {
        assert!(graph::machines(&graph(&[("mesh", &["tokio"], Some("dev"))])).is_empty());
        assert!(graph::machines(&graph(&[("hbone", &["rayon"], Some("build"))])).is_empty());
    }

    #[test]
    fn of_the_lowest_crates_are_not_each_other() {
        let graph = graph(&[
            ("hbone", &["mesh"], None),
            ("mesh", &["ipnet"], None),
            ("istio-api", &[], None),
            ("redirect", &[], None),
            ("ztunnel", &["hbone", "mesh", "testkit"], None),
        ]);
        let found: Vec<_> = graph::ours(&graph).into_iter().map(|breach| breach.what).collect();
        assert_eq!(found, ["hbone knows mesh", "ztunnel knows testkit"]);
    }

    #[test]
    fn of_crates_that_are_missed_are_a_breach() {
        let all = ["hbone", "mesh", "istio-api", "redirect"].map(|name| (name, &[][..], None));
        let found = graph::ours(&graph(&all));
        assert_eq!(found[0].what, "there is no crate ztunnel");
    }
}

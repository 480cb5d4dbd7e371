//! Many live connections, and a policy that allows half of them no more.

use std::net::TcpListener;
use std::time::Instant;

use testkit::apps::connect;
use testkit::control_plane::{Action, Match, Policy, Scope, StringMatch};
use testkit::harness::{Test, long_test};

use super::{Outcome, TwoNodes, at, eventually, metric, spec};

/// Half of them are denied.
const CONNECTIONS: usize = 10_000;
/// Nobody accepts, so that the server's ends cost no descriptors: each port's queue holds its share.
const PORTS: [u16; 4] = [9000, 9001, 9002, 9003];
const BACKLOG: i32 = 4096;

pub fn tests() -> Vec<Test> {
    let name = "ten thousand live connections are checked when a policy comes, and only those it denies are cut";
    vec![long_test(name, checked)]
}

fn checked() -> Outcome {
    raise_descriptor_limit();
    let mesh = TwoNodes::start_with(&spec().env("RUST_LOG", "warn"))?;
    let other = mesh.enrol(&mesh.a, "other", "ops")?;
    let mut listeners = Vec::new();
    for port in PORTS {
        let listener = mesh.server.run(|| TcpListener::bind(("0.0.0.0", port)))??;
        rustix::net::listen(&listener, BACKLOG)?;
        listeners.push(listener);
    }
    let mut open = Vec::new();
    for i in 0..CONNECTIONS {
        let (from, port) = (if i % 2 == 0 { &mesh.client } else { &other }, PORTS[i / 2 % PORTS.len()]);
        open.push(connect(from, at(&mesh.server, port))?);
    }
    let (all, half) = (CONNECTIONS as u64, CONNECTIONS as u64 / 2);
    let carried = || metric(&mesh.zt_b, "istio_hbone_streams_open", &[]);
    eventually("all are carried", || carried().is_ok_and(|open| open == all))?;
    let ended = |zt, how: &str| metric(zt, "istio_hbone_streams_ended_total", &[&format!("end=\"{how}\"")]);

    let start = Instant::now();
    mesh.mesh.control_plane().update(|plane| plane.policies.push(deny_front()))?;
    eventually("all that are denied are cut", || ended(&mesh.zt_b, "policy").is_ok_and(|cut| cut == half))?;
    let there = start.elapsed();
    eventually("at the other side too", || ended(&mesh.zt_a, "reset_by_peer").is_ok_and(|cut| cut == half))?;
    println!("of {all}, {half} were cut within {there:?}, at both sides within {:?}", start.elapsed());
    assert_eq!(carried()?, half, "the others go on");
    let by = ["policy=\"shop/no-front\"", "action=\"deny\""];
    assert_eq!(metric(&mesh.zt_b, "istio_authz_decisions_total", &by)?, half);
    Ok(())
}

fn deny_front() -> Policy {
    let who = StringMatch::Exact("cluster.local/ns/shop/sa/front".into());
    Policy {
        name: "no-front".into(),
        namespace: "shop".into(),
        scope: Scope::Namespace,
        action: Action::Deny,
        dry_run: false,
        rules: vec![vec![vec![Match { principals: vec![who], ..Match::default() }]]],
    }
}

fn raise_descriptor_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    // Where that is not enough, connecting says so.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
}

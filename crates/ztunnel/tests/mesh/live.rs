//! Many live connections, and a policy that allows none of them any more.

use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use testkit::apps::connect;
use testkit::control_plane::{Action, Match, Policy, Scope, StringMatch};
use testkit::harness::{Test, long_test};

use super::{TwoNodes, at, eventually, metric, spec};

const PORT: u16 = 9000;
/// Half of them are denied. Each is three descriptors of this process and of its ztunnels together.
const CONNECTIONS: usize = 10_000;

pub fn tests() -> Vec<Test> {
    vec![long_test(
        "ten thousand live connections are checked when a policy comes, and only those it denies are cut",
        || {
            raise_descriptor_limit();
            let mesh = TwoNodes::start_with(&spec().env("RUST_LOG", "warn"))?;
            let other = mesh.enrol(&mesh.a, "other", "ops")?;
            let listener = mesh.server.run(|| TcpListener::bind(("0.0.0.0", PORT)))??;
            let held: Arc<Mutex<Vec<TcpStream>>> = Arc::default();
            let (keep, over) = (Arc::clone(&held), Arc::new(AtomicBool::new(false)));
            let until = Arc::clone(&over);
            let accepting = listener.try_clone()?;
            std::thread::spawn(move || {
                while let Ok((stream, _)) = accepting.accept() {
                    if until.load(Ordering::Relaxed) {
                        return;
                    }
                    keep.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push(stream);
                }
            });
            let mut open = Vec::new();
            for i in 0..CONNECTIONS {
                let from = if i % 2 == 0 { &mesh.client } else { &other };
                open.push(connect(from, at(&mesh.server, PORT))?);
            }
            let accepted = || held.lock().unwrap_or_else(std::sync::PoisonError::into_inner).len();
            eventually("all are carried", || accepted() == CONNECTIONS)?;
            let cut = |zt, labels: &[&str]| metric(zt, "istio_hbone_streams_ended_total", labels);

            let start = Instant::now();
            mesh.mesh.control_plane().update(|plane| plane.policies.push(deny_front()))?;
            eventually("all that are denied are cut", || {
                cut(&mesh.zt_b, &["end=\"policy\""]).is_ok_and(|cut| cut == CONNECTIONS as u64 / 2)
            })?;
            let there = start.elapsed();
            eventually("and so they are at the other side", || {
                cut(&mesh.zt_a, &["end=\"reset_by_peer\""]).is_ok_and(|cut| cut == CONNECTIONS as u64 / 2)
            })?;
            println!(
                "{CONNECTIONS} live: {} cut in {there:?}, at both sides in {:?}",
                CONNECTIONS / 2,
                start.elapsed()
            );
            assert_eq!(
                metric(&mesh.zt_b, "istio_hbone_streams_open", &[])?,
                CONNECTIONS as u64 / 2,
                "the others go on"
            );
            let by = ["policy=\"shop/no-front\"", "action=\"deny\""];
            assert_eq!(metric(&mesh.zt_b, "istio_authz_decisions_total", &by)?, CONNECTIONS as u64 / 2);
            over.store(true, Ordering::Relaxed);
            Ok(())
        },
    )]
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

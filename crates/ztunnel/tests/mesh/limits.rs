//! What one pod may take, and what that leaves the others.

use std::io::{Read, Write};
use std::net::TcpStream;

use testkit::apps::{connect, exchange, serve_echo};
use testkit::harness::{Test, test};
use testkit::mesh::Pod;

use super::{DEADLINE, Outcome, TwoNodes, at, eventually, metric, spec};

pub fn tests() -> Vec<Test> {
    vec![
        test("a pod with all the connections that it may have is refused more, and its neighbour is not", || {
            let mesh = TwoNodes::start_with(&spec().env("POD_MAX_CONNECTIONS", "3"))?;
            let neighbour = mesh.enrol(&mesh.a, "neighbour", "near")?;
            let _echo = serve_echo(&mesh.server, 9000)?;
            let mut held = (0..3).map(|_| open(&mesh, &mesh.client)).collect::<Outcome<Vec<TcpStream>>>()?;
            assert!(exchange(&mesh.client, at(&mesh.server, 9000), b"one more").is_err());
            assert_eq!(reached(&mesh, "connections")?, 1);
            mesh.zt_a.wait_for_log("POD_MAX_CONNECTIONS", DEADLINE)?;
            assert_eq!(exchange(&neighbour, at(&mesh.server, 9000), b"me too")?, b"me too");
            held.pop();
            eventually("there is room again", || {
                exchange(&mesh.client, at(&mesh.server, 9000), b"again").is_ok_and(|heard| heard == b"again")
            })
        }),
        test("a pod that connects too fast waits, and loses nothing", || {
            let mesh = TwoNodes::start_with(&spec().env("POD_MAX_CONNECTIONS_PER_SECOND", "4"))?;
            let _echo = serve_echo(&mesh.server, 9000)?;
            // All at once: however slow the machine, they do not come slowly enough by themselves.
            std::thread::scope(|scope| {
                let quick = || exchange(&mesh.client, at(&mesh.server, 9000), b"quick");
                let all: Vec<_> = (0..12).map(|_| scope.spawn(quick)).collect();
                all.into_iter().for_each(|one| assert_eq!(one.join().unwrap().unwrap(), b"quick"));
            });
            assert!(reached(&mesh, "rate")? > 0);
            Ok(())
        }),
        test("a handshake that is one too many waits for another to end", || {
            let mesh = TwoNodes::start_with(&spec().env("POD_MAX_HANDSHAKES", "1"))?;
            let _echo = serve_echo(&mesh.server, 9000)?;
            let mut slow = connect(&mesh.outside_a, at(&mesh.server, 15008))?;
            slow.write_all(&[22])?; // a handshake record that never goes on
            let answered = std::thread::scope(|scope| {
                let waits = scope.spawn(|| exchange(&mesh.client, at(&mesh.server, 9000), b"patience"));
                let counted = || metric(&mesh.zt_b, "istio_pod_limit_reached_total", &["limit=\"handshakes\""]);
                let limited = eventually("it waits", || counted().is_ok_and(|times| times > 0));
                drop(slow);
                limited.and_then(|()| Ok(waits.join().map_err(|_| "the client panicked")??))
            })?;
            assert_eq!(answered, b"patience");
            Ok(())
        }),
    ]
}

fn open(mesh: &TwoNodes, from: &Pod) -> Outcome<TcpStream> {
    let mut stream = connect(from, at(&mesh.server, 9000))?;
    stream.write_all(b"x")?;
    stream.read_exact(&mut [0])?;
    Ok(stream)
}

fn reached(mesh: &TwoNodes, limit: &str) -> Outcome<u64> {
    metric(&mesh.zt_a, "istio_pod_limit_reached_total", &[&format!("limit=\"{limit}\"")])
}

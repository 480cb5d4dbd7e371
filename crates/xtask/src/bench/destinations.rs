//! Connections to many destinations: each is its own end of a tunnel, which is there (warm) or not (cold).

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Instant;

use testkit::apps::serve_echo;
use testkit::mesh::{Capture, Mesh, Pod, PodSpec};

use super::contender::Programs;
use super::pods::spec;
use super::process::Ends;
use super::row::Row;
use super::table::{Table, by_build};
use super::{DEADLINE, Outcome};

/// Pods of a node that are connected to.
const DESTINATIONS: usize = 100;
/// Connections to each, when there is a tunnel to all of them.
const WARM: usize = 50;
/// Connections that are opened at one time.
const OPENERS: u32 = 4;
const PORT: u16 = 9000;

const COLUMNS: [&str; 6] =
    ["cold: k/s", "cold: CPU \u{b5}s each, near", "far", "warm: k/s", "warm: CPU \u{b5}s each, near", "far"];

/// The first connection to each of many pods, and many more to all of them in turn.
pub(super) fn table(row: &Row, programs: &Programs, rounds: u32) -> Outcome<Table> {
    by_build(row, programs, rounds, COLUMNS, |program| {
        let mesh = Mesh::new()?;
        let (a, b) = (mesh.add_node("a")?, mesh.add_node("b")?);
        let spec = spec(program, programs);
        let client = a.add_pod(PodSpec::new("client", "shop", "front", Capture::Enrolled))?;
        let pods = (0..=DESTINATIONS)
            .map(|n| b.add_pod(PodSpec::new(&format!("server-{n}"), "shop", "back", Capture::Enrolled)));
        let pods = pods.collect::<Result<Vec<Pod>, _>>()?;
        let _echoes = pods.iter().map(|pod| serve_echo(pod, PORT)).collect::<Result<Vec<_>, _>>()?;
        let (near, far) = (a.start_ztunnel(&spec)?, b.start_ztunnel(&spec)?);
        near.wait_ready(DEADLINE)?;
        far.wait_ready(DEADLINE)?;
        let mut targets = pods.iter().map(|pod| SocketAddr::new(pod.ip(), PORT));
        // Certificates are there before anything counts.
        visit(&client, &targets.by_ref().take(1).collect::<Vec<_>>(), 1)?;
        let targets: Vec<SocketAddr> = targets.collect();
        let measured = |times: usize| -> Outcome<[f64; 3]> {
            let (start, before) = (Instant::now(), Ends::now(&near, &far)?);
            visit(&client, &targets, times)?;
            let count = (targets.len() * times) as f64;
            let [near, far] = Ends::now(&near, &far)?.each(before, count);
            Ok([count / start.elapsed().as_secs_f64() / 1e3, near, far])
        };
        let (cold, warm) = (measured(1)?, measured(WARM)?);
        Ok([cold[0], cold[1], cold[2], warm[0], warm[1], warm[2]])
    })
}

/// So many connections to each of the targets, in turn; every one brings a byte there and back.
pub(super) fn visit(client: &Pod, targets: &[SocketAddr], times: usize) -> Outcome {
    let (next, failed) = (AtomicUsize::new(0), AtomicBool::new(false));
    let open = || {
        while !failed.load(Ordering::Relaxed) {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= targets.len() * times {
                return;
            }
            let talked =
                TcpStream::connect_timeout(&targets[number % targets.len()], DEADLINE).and_then(|mut stream| {
                    stream.set_read_timeout(Some(DEADLINE))?;
                    stream.write_all(b"x")?;
                    stream.read_exact(&mut [0])
                });
            failed.fetch_or(talked.is_err(), Ordering::Relaxed);
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..OPENERS {
            // A pod whose network cannot be entered leaves its connections to the others.
            scope.spawn(|| client.run(open));
        }
    });
    let visited = next.load(Ordering::Relaxed) >= targets.len() * times && !failed.load(Ordering::Relaxed);
    if visited { Ok(()) } else { Err("a connection failed".into()) }
}

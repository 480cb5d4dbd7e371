//! What more worker threads bring: bytes between many pairs of pods at a time, and on many connections between one pair.
//!
//! A machine with few cores has none left for more workers. What the busiest worker has to do for a gigabyte shows it
//! nevertheless: with enough cores that is what decides how much the others can wait for.

use std::fs;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::Scope;
use std::time::{Duration, Instant};

use testkit::mesh::{Capture, Mesh, Pod, PodSpec};
use testkit::ztunnel::Ztunnel;

use super::{Outcome, Plan};
use crate::bench::DEADLINE;
use crate::bench::contender::Programs;
use crate::bench::pods::spec;
use crate::bench::process::TICKS;
use crate::bench::row::Row;
use crate::bench::table::Table;
use crate::patience::accept;

/// Pairs of pods, when there are many.
const PAIRS: usize = 4;
/// Connections in all, of however many pairs.
const CONNECTIONS: usize = 8;
/// From one connection to the next, which is thus opened while the ones before are busy.
const BETWEEN: Duration = Duration::from_millis(300);
const PORT: u16 = 9000;
/// What is written or read at once.
const PIECE: usize = 256 * 1024;

const PLAN: Plan<8> = Plan {
    of: "workers",
    sizes: &[1, 2, 4],
    costs: [
        "many pairs: seconds per GB",
        "many pairs: CPU s/GB of both",
        "many pairs: CPU s/GB of the busiest worker, near",
        "many pairs: CPU s/GB of the busiest worker, far",
        "one busy pair: seconds per GB",
        "one busy pair: CPU s/GB of both",
        "one busy pair: CPU s/GB of the busiest worker, near",
        "one busy pair: CPU s/GB of the busiest worker, far",
    ],
};

pub(super) fn table(row: &Row, programs: &Programs, rounds: u32, seconds: u32) -> Outcome<Table> {
    PLAN.measure_each(row, programs, rounds, |program, workers| {
        let mut all = Vec::new();
        for pairs in [PAIRS, 1] {
            let spec = spec(program, programs).env("ZTUNNEL_WORKER_THREADS", &workers.to_string());
            let mesh = Mesh::new()?;
            let (a, b) = (mesh.add_node("a")?, mesh.add_node("b")?);
            let (near, far) = (a.start_ztunnel(&spec)?, b.start_ztunnel(&spec)?);
            near.wait_ready(DEADLINE)?;
            far.wait_ready(DEADLINE)?;
            let pod = |node: &testkit::mesh::Node, end: &str, account, n| {
                node.add_pod(PodSpec::new(&format!("{end}-{n}"), "shop", account, Capture::Enrolled))
            };
            let pairs = (0..pairs).map(|n| Ok((pod(&a, "client", "front", n)?, pod(&b, "server", "back", n)?)));
            let pairs = pairs.collect::<Outcome<Vec<(Pod, Pod)>>>()?;
            all.extend(measure(&pairs, &near, &far, Duration::from_secs(seconds.into()))?);
        }
        <[f64; 8]>::try_from(all).map_err(|_| "not as many figures as columns".into())
    })
}

/// Seconds, CPU of both ztunnels, CPU of each one's busiest worker, for each GB that arrives.
fn measure(pairs: &[(Pod, Pod)], near: &Ztunnel, far: &Ztunnel, time: Duration) -> Outcome<[f64; 4]> {
    let (arrived, over) = (&AtomicU64::new(0), &AtomicBool::new(false));
    std::thread::scope(|scope| {
        let measured = || -> Outcome<[f64; 4]> {
            for (_, server) in pairs {
                let listener = server.run(|| TcpListener::bind((server.ip(), PORT)))??;
                let connections = CONNECTIONS / pairs.len();
                scope.spawn(move || take_all(scope, listener, connections, arrived));
            }
            for (client, server) in pairs.iter().cycle().take(CONNECTIONS) {
                let to = SocketAddr::new(server.ip(), PORT);
                let stream = client.run(|| TcpStream::connect_timeout(&to, DEADLINE))??;
                scope.spawn(move || send_until(stream, over));
                std::thread::sleep(BETWEEN);
            }
            let workers = || Ok::<_, Box<dyn std::error::Error>>([cpu_of_workers(near)?, cpu_of_workers(far)?]);
            let (start, from, before) = (Instant::now(), arrived.load(Ordering::Relaxed), workers()?);
            std::thread::sleep(time);
            let (seconds, to, after) = (start.elapsed().as_secs_f64(), arrived.load(Ordering::Relaxed), workers()?);
            let gigabytes = (to - from) as f64 / 1e9;
            let spent = [0, 1].map(|end| {
                let each = after[end].iter().zip(&before[end]).map(|(after, before)| after - before);
                each.collect::<Vec<f64>>()
            });
            let busiest = |end: usize| spent[end].iter().copied().fold(0.0, f64::max);
            let both: f64 = spent.iter().flatten().sum();
            Ok([seconds, both, busiest(0), busiest(1)].map(|cost| cost / gigabytes.max(1e-9)))
        };
        let measured = measured();
        over.store(true, Ordering::Relaxed);
        measured
    })
}

/// Accepts so many connections and reads them to their ends.
fn take_all<'scope>(
    scope: &'scope Scope<'scope, '_>,
    listener: TcpListener,
    connections: usize,
    arrived: &'scope AtomicU64,
) {
    for _ in 0..connections {
        // A connection that does not come is missed by who opens it.
        let Ok(mut stream) = accept(&listener, DEADLINE) else { return };
        scope.spawn(move || {
            let mut room = vec![0; PIECE];
            while let Ok(length @ 1..) = stream.read(&mut room) {
                arrived.fetch_add(length as u64, Ordering::Relaxed);
            }
        });
    }
}

fn send_until(mut stream: TcpStream, over: &AtomicBool) {
    let piece = vec![b'x'; PIECE];
    // What does not arrive is missed in what is measured.
    let _ = stream.set_write_timeout(Some(DEADLINE));
    while !over.load(Ordering::Relaxed) && stream.write_all(&piece).is_ok() {}
    let _ = stream.shutdown(Shutdown::Both);
}

/// Seconds of CPU that each worker thread has used.
fn cpu_of_workers(ztunnel: &Ztunnel) -> Outcome<Vec<f64>> {
    let mut all = Vec::new();
    for task in fs::read_dir(format!("/proc/{}/task", ztunnel.pid()))? {
        let stat = fs::read_to_string(task?.path().join("stat"))?;
        let Some((name, rest)) = stat.split_once('(').and_then(|(_, rest)| rest.rsplit_once(')')) else { continue };
        let number = name.strip_prefix("ztunnel-").and_then(|number| number.parse::<usize>().ok());
        let Some(number) = number else { continue };
        let times = rest.split_whitespace().skip(11).take(2).filter_map(|text| text.parse::<f64>().ok());
        all.push((number, times.sum::<f64>() / TICKS));
    }
    all.sort_by_key(|(number, _)| *number);
    Ok(all.into_iter().map(|(_, seconds)| seconds).collect())
}

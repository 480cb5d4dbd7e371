//! What a pod costs before it has a connection, and what its neighbours notice when it goes wild.

use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use testkit::apps::{exchange, serve_echo};
use testkit::mesh::{Capture, Mesh, Node, Pod, PodSpec};
use testkit::redirect::DnsCapture;
use testkit::ztunnel::ZtunnelSpec;

use super::contender::Programs;
use super::process::{Ends, resident_kib};
use super::row::Row;
use super::table::{Table, by_build};
use super::{DEADLINE, Outcome};

/// As many as a node has at the most.
const PODS: u32 = 250;
/// After this, whatever the start needed for itself has been given back.
const SETTLE: Duration = Duration::from_secs(3);
const PER_POD: [&str; 2] = ["resident per pod, KiB", "descriptors per pod"];

/// Connections that the wild pod opens in a second, if it gets as far.
const STORM: u32 = 5_000;
/// Threads that open them.
const STORMERS: u32 = 8;
const PORT: u16 = 9000;
/// Between a neighbour's connections: it is one of many on a node, and not in a storm itself.
const BETWEEN: Duration = Duration::from_millis(2);
/// How much of its rate a stormer makes up for after it was held up.
const MOST_LATE: Duration = Duration::from_millis(100);
const AROUND: [&str; 7] = [
    "undisturbed p50, ms",
    "undisturbed p99, ms",
    "in a storm p50, ms",
    "in a storm p99, ms",
    "storm, connections/s",
    "near: CPU \u{b5}s per connection",
    "far: CPU \u{b5}s per connection",
];

/// Memory and descriptors of a ztunnel for each of many pods, name servers included.
pub(super) fn memory(row: &Row, programs: &Programs, rounds: u32) -> Outcome<Table> {
    by_build(row, programs, rounds, PER_POD, |program| {
        let mesh = Mesh::new()?;
        let node = mesh.add_node("a")?;
        let spec = spec(program, programs).env("ISTIO_META_DNS_CAPTURE", "true");
        let ztunnel = node.start_ztunnel(&spec)?;
        ztunnel.wait_ready(DEADLINE)?;
        // The first one pays for what all share.
        node.add_pod(PodSpec::new("first", "shop", "front", Capture::Enrolled).dns(DnsCapture::On))?;
        std::thread::sleep(SETTLE);
        let (resident, open) = (resident_kib(ztunnel.pid())?, ztunnel.open_fds()?);
        for n in 0..PODS {
            node.add_pod(PodSpec::new(&format!("pod-{n}"), "shop", "front", Capture::Enrolled).dns(DnsCapture::On))?;
        }
        std::thread::sleep(SETTLE);
        let each = |whole: f64| whole / f64::from(PODS);
        let opened = ztunnel.open_fds()?.saturating_sub(open);
        Ok([each(resident_kib(ztunnel.pid())? - resident), each(opened as f64)])
    })
}

/// The time of a neighbour's connections from first packet to first answer, with and without a storm beside it.
pub(super) fn storm(row: &Row, programs: &Programs, rounds: u32, seconds: u32) -> Outcome<Table> {
    let time = Duration::from_secs(seconds.into());
    by_build(row, programs, rounds, AROUND, |program| {
        let mesh = Mesh::new()?;
        let (a, b) = (mesh.add_node("a")?, mesh.add_node("b")?);
        let spec = spec(program, programs);
        let pod = |node: &Node, name: &str| node.add_pod(PodSpec::new(name, "shop", name, Capture::Enrolled));
        let (wild, neighbour) = (pod(&a, "wild")?, pod(&a, "neighbour")?);
        // An app of its own: one that the storm keeps busy would be late whatever ztunnel does.
        let (stormed, server) = (pod(&b, "stormed")?, pod(&b, "server")?);
        let (zt_a, zt_b) = (a.start_ztunnel(&spec)?, b.start_ztunnel(&spec)?);
        zt_a.wait_ready(DEADLINE)?;
        zt_b.wait_ready(DEADLINE)?;
        let _echoes = (serve_echo(&server, PORT)?, serve_echo(&stormed, PORT)?);
        let (to, target) = (SocketAddr::new(server.ip(), PORT), SocketAddr::new(stormed.ip(), PORT));
        latencies(&neighbour, to, time / 4)?; // tunnels and caches are there
        let quiet = latencies(&neighbour, to, time)?;
        let (opened, over) = (AtomicU64::new(0), AtomicBool::new(false));
        let before = Ends::now(&zt_a, &zt_b)?;
        let loud = std::thread::scope(|scope| {
            for _ in 0..STORMERS {
                scope.spawn(|| blow(&wild, target, &opened, &over));
            }
            let loud = latencies(&neighbour, to, time);
            over.store(true, Ordering::Relaxed);
            loud
        })?;
        let opened = opened.load(Ordering::Relaxed) as f64;
        let each = Ends::now(&zt_a, &zt_b)?.each(before, opened + loud.len() as f64);
        let rate = opened / time.as_secs_f64();
        Ok([
            percentile(&quiet, 50),
            percentile(&quiet, 99),
            percentile(&loud, 50),
            percentile(&loud, 99),
            rate,
            each[0],
            each[1],
        ])
    })
}

pub(super) fn spec(program: &Path, programs: &Programs) -> ZtunnelSpec {
    let spec =
        ZtunnelSpec::new(program).env("RUST_LOG", "warn").env("ZTUNNEL_WORKER_THREADS", &programs.threads.to_string());
    programs.environment.iter().fold(spec, |spec, (name, value)| spec.env(name, value))
}

/// Seconds from connecting to the answer, sorted, of one connection after the other.
fn latencies(from: &Pod, to: SocketAddr, time: Duration) -> Outcome<Vec<f64>> {
    let start = Instant::now();
    let mut all = Vec::new();
    while start.elapsed() < time {
        let begun = Instant::now();
        exchange(from, to, b"how long?")?;
        all.push(begun.elapsed().as_secs_f64());
        std::thread::sleep(BETWEEN);
    }
    all.sort_by(f64::total_cmp);
    Ok(all)
}

/// Milliseconds.
pub(super) fn percentile(sorted: &[f64], percent: usize) -> f64 {
    let at = (sorted.len() * percent / 100).min(sorted.len().saturating_sub(1));
    sorted.get(at).map_or(0.0, |seconds| seconds * 1e3)
}

/// Opens connections at this thread's share of the storm, and closes them at once.
fn blow(from: &Pod, to: SocketAddr, opened: &AtomicU64, over: &AtomicBool) {
    // One visit to the pod's network for all of them: what is measured is ztunnel's, not the tools'.
    let storm = || {
        let (start, interval) = (Instant::now(), Duration::from_secs(1) * STORMERS / STORM);
        let mut due = Duration::ZERO;
        while !over.load(Ordering::Relaxed) {
            std::thread::sleep(due.saturating_sub(start.elapsed()));
            due = (due + interval).max(start.elapsed().saturating_sub(MOST_LATE));
            if TcpStream::connect_timeout(&to, DEADLINE).is_ok() {
                opened.fetch_add(1, Ordering::Relaxed);
            }
        }
    };
    // A pod whose network cannot be entered has failed before.
    let _ = from.run(storm);
}

#[cfg(test)]
mod tests {
    use super::percentile;

    #[test]
    fn a_percentile_of_a_hundred_is_the_one_after_so_many() {
        let sorted: Vec<f64> = (0..100).map(|n| f64::from(n) / 1e3).collect();
        assert_eq!((percentile(&sorted, 50), percentile(&sorted, 99)), (50.0, 99.0));
        assert_eq!((percentile(&sorted[..1], 99), percentile(&[], 99)), (0.0, 0.0));
    }
}

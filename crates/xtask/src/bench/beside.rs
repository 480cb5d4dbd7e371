//! What requests notice of what else ztunnels do in a mesh of 100,000 workloads: of pods that come, change and go all
//! the time, and of a dump of all that is known.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use testkit::apps::{Server, serve_echo};
use testkit::control_plane::resources::{ADDRESS, member, population};
use testkit::istiod::Istiod;
use testkit::mesh::{Capture, Mesh, Node, Pod, PodSpec};
use testkit::netns::NetNs;
use testkit::ztunnel::Ztunnel;

use super::contender::Programs;
use super::paced::requests;
use super::pods::{percentile, spec};
use super::process::{Ends, peak_kib, precise_cpu_seconds, reset_peak, resident_kib};
use super::row::Row;
use super::scale::LARGE;
use super::table::{Table, by_build};
use super::{Outcome, READY};

/// Changes in a second: pods of a large mesh that is being rolled out.
const RATE: u32 = 500;
/// Longest time until the last change is answered, after all have been sent: longer means that ztunnel does not keep up.
const CATCH_UP: Duration = Duration::from_secs(5);
/// Shortest time for which requests are made, for their slowest hundredth to be more than a few.
const SHORTEST: u32 = 5;
/// Between dumps.
const BETWEEN: Duration = Duration::from_secs(2);
/// Longest dump.
const PATIENCE: Duration = Duration::from_secs(60);
const PORT: u16 = 9000;

const FLAPPING: [&str; 9] = [
    "undisturbed p50, ms",
    "undisturbed p99, ms",
    "flapping p50, ms",
    "flapping p99, ms",
    "changes/s",
    "near: CPU \u{b5}s per change",
    "far: CPU \u{b5}s per change",
    "near: CPU \u{b5}s per request",
    "far: CPU \u{b5}s per request",
];

const DUMP: [&str; 11] = [
    "undisturbed p50, ms",
    "undisturbed p99, ms",
    "dumped p50, ms",
    "dumped p99, ms",
    "alone, s",
    "alone, CPU s",
    "longest beside requests, s",
    "dump, MiB",
    "peak above resident, MiB",
    "near: CPU \u{b5}s per request",
    "far: CPU \u{b5}s per request",
];

/// Two ztunnels that know a large mesh, and a pod of each.
struct Stage {
    // Processes end before the namespaces they live in.
    near: Ztunnel,
    far: Ztunnel,
    _echo: Server,
    istiod: Istiod,
    client: Pod,
    target: SocketAddr,
    _mesh: Mesh,
}

impl Stage {
    fn set(program: &Path, programs: &Programs) -> Outcome<Self> {
        let mesh = Mesh::new()?;
        let (a, b) = (mesh.add_node("a")?, mesh.add_node("b")?);
        let client = a.add_pod(PodSpec::new("client", "shop", "front", Capture::Enrolled))?;
        let server = b.add_pod(PodSpec::new("server", "shop", "back", Capture::Enrolled))?;
        let (istiod, spec) = (Istiod::start(&mesh)?, spec(program, programs));
        istiod.update(|behaviour| behaviour.extra = population(LARGE.workloads, LARGE.services).into())?;
        let start = |node: &Node| -> Outcome<Ztunnel> {
            istiod.prepare();
            let ztunnel = node.start_ztunnel(&istiod.ztunnel(node, &spec)?)?;
            ztunnel.wait_ready(READY)?;
            Ok(ztunnel)
        };
        let (near, far) = (start(&a)?, start(&b)?);
        let (echo, target) = (serve_echo(&server, PORT)?, SocketAddr::new(server.ip(), PORT));
        let stage = Self { near, far, _echo: echo, istiod, client, target, _mesh: mesh };
        requests(&stage.client, target, Duration::from_secs(1))?; // tunnels and caches are there
        Ok(stage)
    }

    fn cpu(&self) -> Outcome<Ends> {
        Ends::now(&self.near, &self.far)
    }

    /// Requests beside which nothing happens, and the CPU of each at both ends.
    fn undisturbed(&self, time: Duration) -> Outcome<(Vec<f64>, [f64; 2])> {
        let before = self.cpu()?;
        let quiet = requests(&self.client, self.target, time)?;
        let each = self.cpu()?.each(before, quiet.len() as f64);
        Ok((quiet, each))
    }
}

/// The time of requests while workloads come, change and go, and what one such change costs.
pub(super) fn flapping(row: &Row, programs: &Programs, rounds: u32, seconds: u32) -> Outcome<Table> {
    let time = Duration::from_secs(seconds.max(SHORTEST).into());
    by_build(row, programs, rounds, FLAPPING, |program| {
        let stage = Stage::set(program, programs)?;
        let (quiet, each) = stage.undisturbed(time)?;
        // The cost is measured without requests, whose own would have to be taken from it.
        let before = stage.cpu()?;
        let changes = flap(&stage.istiod, 0, time, &AtomicBool::new(false))?;
        let [near, far] = stage.cpu()?.each(before, f64::from(changes));
        let over = AtomicBool::new(false);
        let (loud, flapped) = std::thread::scope(|scope| {
            let flapping = scope.spawn(|| flap(&stage.istiod, changes, 2 * time, &over).map_err(|e| e.to_string()));
            let loud = requests(&stage.client, stage.target, time);
            over.store(true, Ordering::Relaxed);
            (loud, flapping.join())
        });
        let (loud, flapped) = (loud?, flapped.map_err(|_| "the flapping panicked")??);
        if let Some(refusal) = stage.istiod.tally().refusals.first() {
            return Err(format!("ztunnel refused: {refusal}").into());
        }
        let rate = f64::from(flapped) / time.as_secs_f64();
        let [p50, p99] = [50, 99].map(|percent| move |all: &[f64]| percentile(all, percent));
        Ok([p50(&quiet), p99(&quiet), p50(&loud), p99(&loud), rate, near, far, each[0], each[1]])
    })
}

/// Has workloads change, go and come at [`RATE`], from the change `first` on, for some time or until it is over; returns
/// the number of changes, all of which have been answered by both ztunnels.
fn flap(istiod: &Istiod, first: u32, time: Duration, over: &AtomicBool) -> Outcome<u32> {
    let (answered, start, mut count) = (istiod.tally().accepted, Instant::now(), 0);
    while start.elapsed() < time && !over.load(Ordering::Relaxed) {
        let number = first + count;
        // Three changes each: far apart in the order of names.
        let which = (number / 3).wrapping_mul(7_919) % LARGE.workloads;
        let ((_, name), resource) = member(which, LARGE.services, number + 1);
        if number % 3 == 1 {
            istiod.withdraw(ADDRESS, &name)
        } else {
            istiod.push(ADDRESS, &name, resource)
        }
        count += 1;
        std::thread::sleep((Duration::from_secs(1) * count / RATE).saturating_sub(start.elapsed()));
    }
    let all = answered + 2 * count as usize;
    match istiod.wait_for(CATCH_UP, |tally| tally.accepted >= all) {
        true => Ok(count.max(1)),
        false => Err(format!("ztunnels do not keep up with {RATE} changes a second").into()),
    }
}

/// The time of requests with and without dumps of all that is known, and what one costs.
pub(super) fn dump(row: &Row, programs: &Programs, rounds: u32, seconds: u32) -> Outcome<Table> {
    let time = Duration::from_secs(seconds.max(SHORTEST).into());
    by_build(row, programs, rounds, DUMP, |program| {
        let stage = Stage::set(program, programs)?;
        let (quiet, each) = stage.undisturbed(time)?;
        let pid = stage.near.pid();
        reset_peak(pid)?;
        let (resident, cpu, start) = (resident_kib(pid)?, precise_cpu_seconds(pid)?, Instant::now());
        let bytes = stage.near.netns().run(dump_once)??;
        let (alone, cpu) = (start.elapsed().as_secs_f64(), precise_cpu_seconds(pid)? - cpu);
        let peak = (peak_kib(pid)? - resident) / 1024.0;
        let over = AtomicBool::new(false);
        let (loud, longest) = std::thread::scope(|scope| {
            let dumping = scope.spawn(|| dump_until(stage.near.netns(), &over));
            let loud = requests(&stage.client, stage.target, time);
            over.store(true, Ordering::Relaxed);
            (loud, dumping.join())
        });
        let (loud, longest) = (loud?, longest.map_err(|_| "the reader of dumps panicked")??);
        let [p50, p99] = [50, 99].map(|percent| move |all: &[f64]| percentile(all, percent));
        let size = bytes as f64 / f64::from(1 << 20);
        Ok([p50(&quiet), p99(&quiet), p50(&loud), p99(&loud), alone, cpu, longest, size, peak, each[0], each[1]])
    })
}

/// Asks for dumps again and again. Returns how long the longest took, in seconds.
fn dump_until(ztunnel: &NetNs, over: &AtomicBool) -> std::io::Result<f64> {
    let mut longest: f64 = 0.0;
    while !over.load(Ordering::Relaxed) {
        let start = Instant::now();
        ztunnel.run(dump_once)??;
        longest = longest.max(start.elapsed().as_secs_f64());
        while start.elapsed() < BETWEEN && !over.load(Ordering::Relaxed) {
            std::thread::sleep(Duration::from_millis(50));
        }
    }
    Ok(longest)
}

/// The size of a dump, head included. It is not kept: that would be somebody else's memory.
fn dump_once() -> std::io::Result<u64> {
    let mut stream = TcpStream::connect(SocketAddr::from(([127, 0, 0, 1], 15000)))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(b"GET /config_dump HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")?;
    let (mut piece, mut size) = (vec![0; 256 << 10], 0);
    loop {
        match stream.read(&mut piece)? {
            0 => return if size < 1 << 20 { Err(std::io::Error::other("a dump of little")) } else { Ok(size) },
            read => size += read as u64,
        }
    }
}

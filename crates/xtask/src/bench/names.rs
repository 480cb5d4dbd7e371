//! What names cost that the mesh answers: dnsperf asks from a pod for the services of a mesh.
//!
//! dnsperf runs on the same machine, and asks as fast as it gets answers. Beside it an app asks now and then, one name at a
//! time, and sees how long an answer takes under that load.

use std::fmt::Write;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use std::{fs, io};

use testkit::apps::resolve;
use testkit::control_plane::resources::{population, service_name};
use testkit::istiod::Istiod;
use testkit::mesh::{Capture, Mesh, Pod, PodSpec};
use testkit::redirect::DnsCapture;
use testkit::ztunnel::ZtunnelSpec;

use super::contender::Programs;
use super::process::{output, precise_cpu_seconds, resident_kib};
use super::row::Row;
use super::table::{Table, by_build};
use super::{DEADLINE, Outcome};

const WORKLOADS: u32 = 10_000;
const SERVICES: u32 = 1_000;
/// Where no resolver is: queries are redirected on their way there.
const NOBODY: &str = "10.100.0.10:53";
/// Sockets that dnsperf asks from.
const CLIENTS: u32 = 16;
/// dnsperf begins and ends within this, besides the time for which it asks.
const GRACE: Duration = Duration::from_secs(20);
/// Between two looks whether names are known yet.
const PAUSE: Duration = Duration::from_millis(20);

/// Between two questions of the app beside it.
const BETWEEN: Duration = Duration::from_millis(1);

const COLUMNS: [&str; 6] =
    ["k queries/s", "CPU \u{b5}s each", "lost", "average latency, ms", "beside it, p99, ms", "resident grows by, MiB"];

/// Answers of a pod's own name server.
pub(super) fn table(row: &Row, programs: &Programs, rounds: u32, seconds: u32) -> Outcome<Table> {
    by_build(row, programs, rounds, COLUMNS, |program| {
        let spec = ZtunnelSpec::new(program)
            .env("ISTIO_META_DNS_CAPTURE", "true")
            .env("RUST_LOG", "warn")
            .env("ZTUNNEL_WORKER_THREADS", &programs.threads.to_string());
        once(&spec, seconds)
    })
}

fn once(spec: &ZtunnelSpec, seconds: u32) -> Outcome<[f64; COLUMNS.len()]> {
    let mesh = Mesh::new()?;
    let node = mesh.add_node("a")?;
    let istiod = Istiod::start(&mesh)?;
    istiod.update(|behaviour| behaviour.extra = population(WORKLOADS, SERVICES).into())?;
    let ztunnel = node.start_ztunnel(&istiod.ztunnel(&node, spec)?)?;
    ztunnel.wait_ready(DEADLINE)?;
    let client = node.add_pod(PodSpec::new("client", "shop", "front", Capture::Enrolled).dns(DnsCapture::On))?;
    let nobody: SocketAddr = NOBODY.parse()?;
    let start = Instant::now();
    while resolve(&client, nobody, &service_name(0))?.is_empty() {
        if start.elapsed() > DEADLINE {
            return Err("the mesh does not know its first service".into());
        }
        std::thread::sleep(PAUSE);
    }

    let mut names = String::new();
    for service in 0..SERVICES {
        // Far apart in the order of names.
        writeln!(names, "{} A", service_name(service.wrapping_mul(7_919) % SERVICES))?;
    }
    let file = istiod.directory().join("names.txt");
    fs::write(&file, names)?;
    let mut dnsperf = client.command("dnsperf");
    dnsperf.args(["-s", &nobody.ip().to_string(), "-p", &nobody.port().to_string()]);
    dnsperf.args(["-d", &file.display().to_string(), "-c", &CLIENTS.to_string(), "-l", &seconds.to_string()]);
    let (memory, before) = (resident_kib(ztunnel.pid())?, precise_cpu_seconds(ztunnel.pid())?);
    let over = AtomicBool::new(false);
    let (text, beside) = std::thread::scope(|scope| {
        let beside = scope.spawn(|| ask_beside(&client, nobody, &over));
        let text = output(dnsperf, Duration::from_secs(seconds.into()) + GRACE).map_err(|error| error.to_string());
        over.store(true, Ordering::Relaxed);
        (text, beside.join())
    });
    let text = text?;
    let mut beside = beside.map_err(|_| "asking beside dnsperf panicked")??;
    beside.sort_unstable();
    let p99 = beside.get(beside.len() * 99 / 100).ok_or("nobody asked beside dnsperf")?.as_secs_f64();
    let (cpu, grown) = (precise_cpu_seconds(ztunnel.pid())? - before, resident_kib(ztunnel.pid())? - memory);

    let said = Said(&text);
    let answered = said.first("Queries completed")?;
    if said.line("Response codes")?.split_whitespace().nth(1) != Some(&format!("{answered}")) {
        return Err(format!("not all names were found: {}", said.line("Response codes")?).into());
    }
    let latency: Vec<f64> = numbers(said.line("Average Latency (s)")?);
    let Some(average) = latency.first() else { return Err("dnsperf measured no latency".into()) };
    let (rate, lost) = (said.first("Queries per second")?, said.first("Queries lost")?);
    Ok([rate / 1e3, cpu / answered * 1e6, lost, average * 1e3, p99 * 1e3, grown / 1024.0])
}

/// How long answers take to an app that asks for one name after another until it is over.
fn ask_beside(client: &Pod, server: SocketAddr, over: &AtomicBool) -> io::Result<Vec<Duration>> {
    let mut took = Vec::new();
    while !over.load(Ordering::Relaxed) {
        let asked = Instant::now();
        resolve(client, server, &service_name(0))?;
        took.push(asked.elapsed());
        std::thread::sleep(BETWEEN);
    }
    Ok(took)
}

/// The end of dnsperf's output.
struct Said<'a>(&'a str);

impl Said<'_> {
    /// What follows a caption.
    fn line(&self, caption: &str) -> Outcome<&str> {
        let mut lines = self.0.lines().filter_map(|line| line.trim().strip_prefix(caption)?.strip_prefix(':'));
        Ok(lines.next().ok_or_else(|| format!("dnsperf did not say: {caption}"))?.trim())
    }

    fn first(&self, caption: &str) -> Outcome<f64> {
        numbers(self.line(caption)?).first().copied().ok_or_else(|| format!("dnsperf gave no number: {caption}").into())
    }
}

fn numbers(text: &str) -> Vec<f64> {
    let is_number = |c: char| c.is_ascii_digit() || c == '.';
    text.split(|c| !is_number(c)).filter_map(|word| word.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dnsperf_is_understood() {
        let text =
            "  Queries completed:    123 (100.00%)\n  Average Latency (s):  0.000417 (min 0.000021, max 0.012)\n";
        assert_eq!(Said(text).first("Queries completed").unwrap(), 123.0);
        assert_eq!(numbers(Said(text).line("Average Latency (s)").unwrap()), [0.000_417, 0.000_021, 0.012]);
        assert!(Said(text).first("Queries lost").is_err());
    }
}

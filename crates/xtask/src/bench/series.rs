//! What metrics cost those who talk: a scrape of very many series beside requests, and what connections between names that
//! change all the time leave behind.

use std::fmt::Write as _;
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use testkit::apps::serve_echo;
use testkit::mesh::{Capture, Mesh, Pod, PodSpec};
use testkit::ztunnel::Ztunnel;

use super::contender::Programs;
use super::paced::requests;
use super::pods::{percentile, spec};
use super::process::{Ends, resident_kib};
use super::row::Row;
use super::table::{Table, by_build};
use super::{DEADLINE, Outcome, destinations};

/// Services that are talked to before scraping: each is four series, so that there are 50,000.
const SCRAPED: u32 = 12_500;
/// Between scrapes.
const SCRAPE_INTERVAL: Duration = Duration::from_secs(5);
/// Longest scrape.
const SCRAPE_PATIENCE: Duration = Duration::from_secs(60);
const AROUND: [&str; 8] = [
    "undisturbed p50, ms",
    "undisturbed p99, ms",
    "scraped p50, ms",
    "scraped p99, ms",
    "longest scrape, s",
    "samples",
    "near: CPU \u{b5}s per request",
    "far: CPU \u{b5}s per request",
];

/// Names that there are at one time, and connections that are made before there are others.
const GENERATION: u32 = 1_000;
/// Connections in all, and between looks at what they have left.
const CHURN: (u32, u32) = (200_000, 50_000);
/// How long series stay that nobody uses.
const QUIET: &str = "10s";
const LEFT: [&str; 10] = [
    "resident after 50,000, MiB",
    "after 100,000",
    "after 150,000",
    "after 200,000",
    "combinations after 50,000",
    "after 100,000",
    "after 150,000",
    "after 200,000",
    "near: CPU \u{b5}s per connection",
    "far: CPU \u{b5}s per connection",
];

const PORT: u16 = 9000;

/// A mesh whose names are written into a document beside the testkit's.
struct Stage {
    zt_a: Ztunnel,
    zt_b: Ztunnel,
    client: Pod,
    server: Pod,
    mesh: Mesh,
}

impl Stage {
    fn set(program: &Path, programs: &Programs, settings: &[(&str, &str)]) -> Outcome<Self> {
        let mesh = Mesh::new()?;
        let (a, b) = (mesh.add_node("a")?, mesh.add_node("b")?);
        let spec = settings.iter().fold(spec(program, programs), |spec, (name, value)| spec.env(name, value));
        let spec = spec.env("LOCAL_XDS_PATH", &mesh.directory().display().to_string());
        let client = a.add_pod(PodSpec::new("client", "shop", "client", Capture::Enrolled))?;
        let server = b.add_pod(PodSpec::new("server", "shop", "server", Capture::Enrolled))?;
        let (zt_a, zt_b) = (a.start_ztunnel(&spec)?, b.start_ztunnel(&spec)?);
        zt_a.wait_ready(DEADLINE)?;
        zt_b.wait_ready(DEADLINE)?;
        Ok(Self { zt_a, zt_b, client, server, mesh })
    }

    /// Gives the server a new name and so many new services in place of those it had.
    fn rename(&self, generation: u32, services: u32) -> Outcome {
        let file = self.mesh.directory().join("named.yaml");
        std::fs::write(file, document(generation, services, self.server.ip()))?;
        let last = name(generation, services.saturating_sub(1));
        let (query, start) = (format!("/config_dump?resource=services&name={last}"), Instant::now());
        while !self.zt_a.http_get(15000, &query)?.body.contains(&last) {
            if start.elapsed() > DEADLINE {
                return Err(format!("{last} does not become known").into());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// One connection to each of the services.
    fn visit(&self, generation: u32, services: u32) -> Outcome {
        let targets: Vec<SocketAddr> = (0..services).map(|n| vip(generation, services, n)).collect();
        destinations::visit(&self.client, &targets, 1)
    }
}

fn name(generation: u32, n: u32) -> String {
    format!("named-{generation}-{n}")
}

/// Addresses come back long after nobody uses them.
fn vip(generation: u32, services: u32, n: u32) -> SocketAddr {
    let [_, _, high, low] = generation.wrapping_mul(services).wrapping_add(n).to_be_bytes();
    SocketAddr::from(([10, 200, high, low], 80))
}

fn document(generation: u32, services: u32, server: IpAddr) -> String {
    let (mut all, mut member) = (String::from("services:\n"), String::new());
    for n in 0..services {
        let (name, vip) = (name(generation, n), vip(generation, services, n).ip());
        let hostname = format!("{name}.shop.svc.cluster.local");
        let _ = writeln!(
            all,
            "- {{ name: {name}, namespace: shop, hostname: {hostname}, vips: [/{vip}], ports: {{ 80: {PORT} }} }}"
        );
        let _ = write!(member, "shop/{hostname}: {{ 80: {PORT} }}, ");
    }
    let workload = format!("endpoint-{generation}");
    let _ = writeln!(
        all,
        "workloads:\n- {{ uid: {workload}, name: {workload}, workloadName: {workload}, namespace: shop, \
         serviceAccount: server, protocol: HBONE, networkMode: HostNetwork, workloadIps: [{server}], \
         services: {{ {member} }} }}"
    );
    all
}

/// The time of requests with and without scrapes of many series beside them.
pub(super) fn scrape(row: &Row, programs: &Programs, rounds: u32, seconds: u32) -> Outcome<Table> {
    let time = Duration::from_secs(seconds.into()).max(3 * SCRAPE_INTERVAL);
    by_build(row, programs, rounds, AROUND, |program| {
        let settings = [("METRICS_MAX_SERIES", "1000000"), ("METRICS_QUIET_PERIOD", "0s")];
        let stage = Stage::set(program, programs, &settings)?;
        let _echo = serve_echo(&stage.server, PORT)?;
        stage.rename(0, SCRAPED)?;
        stage.visit(0, SCRAPED)?;
        let before = Ends::now(&stage.zt_a, &stage.zt_b)?;
        let quiet = requests(&stage.client, SocketAddr::new(stage.server.ip(), PORT), time)?;
        let each = Ends::now(&stage.zt_a, &stage.zt_b)?.each(before, quiet.len() as f64);
        let over = AtomicBool::new(false);
        let (loud, longest) = std::thread::scope(|scope| {
            let scraping = scope.spawn(|| scrape_until(&stage.zt_a, &over));
            let loud = requests(&stage.client, SocketAddr::new(stage.server.ip(), PORT), time);
            over.store(true, Ordering::Relaxed);
            (loud, scraping.join())
        });
        let (loud, longest) = (loud?, longest.map_err(|_| "the scraper panicked")??);
        let samples =
            stage.zt_a.http_get(15020, "/metrics")?.body.lines().filter(|line| !line.starts_with('#')).count();
        let both = [percentile(&quiet, 50), percentile(&quiet, 99), percentile(&loud, 50), percentile(&loud, 99)];
        Ok([both[0], both[1], both[2], both[3], longest, samples as f64, each[0], each[1]])
    })
}

/// Scrapes again and again. Returns how long the longest took, in seconds.
fn scrape_until(ztunnel: &Ztunnel, over: &AtomicBool) -> Result<f64, String> {
    let mut longest: f64 = 0.0;
    while !over.load(Ordering::Relaxed) {
        let start = Instant::now();
        let read = ztunnel.netns().run(scrape_once).map_err(|error| error.to_string())?;
        if read.map_err(|error| error.to_string())? == 0 {
            return Err("a scrape brought nothing".into());
        }
        longest = longest.max(start.elapsed().as_secs_f64());
        while start.elapsed() < SCRAPE_INTERVAL && !over.load(Ordering::Relaxed) {
            std::thread::sleep(Duration::from_millis(50));
        }
    }
    Ok(longest)
}

/// As Prometheus does; what comes is not unpacked, which would be somebody else's work.
fn scrape_once() -> std::io::Result<usize> {
    let mut stream = TcpStream::connect(SocketAddr::from(([127, 0, 0, 1], 15020)))?;
    stream.set_read_timeout(Some(SCRAPE_PATIENCE))?;
    stream.write_all(
        b"GET /metrics HTTP/1.1\r\nhost: z\r\naccept: application/openmetrics-text;version=1.0.0\r\n\
          accept-encoding: gzip\r\nconnection: close\r\n\r\n",
    )?;
    let mut body = Vec::new();
    stream.read_to_end(&mut body)
}

/// Memory and series of a ztunnel whose connections are to somebody else all the time.
pub(super) fn churn(row: &Row, programs: &Programs, rounds: u32) -> Outcome<Table> {
    by_build(row, programs, rounds, LEFT, |program| {
        let settings = [("METRICS_QUIET_PERIOD", QUIET), ("POOL_UNUSED_RELEASE_TIMEOUT", "5s")];
        let stage = Stage::set(program, programs, &settings)?;
        let _echo = serve_echo(&stage.server, PORT)?;
        let (mut resident, mut combinations) = (Vec::new(), Vec::new());
        let before = Ends::now(&stage.zt_a, &stage.zt_b)?;
        for generation in 0..CHURN.0 / GENERATION {
            stage.rename(generation, GENERATION)?;
            stage.visit(generation, GENERATION)?;
            let made = (generation + 1) * GENERATION;
            if made.is_multiple_of(CHURN.1) {
                resident.push(resident_kib(stage.zt_a.pid())? / 1024.0);
                combinations.push(series(&stage.zt_a)?);
                eprintln!("{made} connections: {resident:.1?} MiB, {combinations:?} combinations of labels");
            }
        }
        let each = Ends::now(&stage.zt_a, &stage.zt_b)?.each(before, f64::from(CHURN.0));
        let mut figures = [0.0; LEFT.len()];
        figures
            .iter_mut()
            .zip(resident.iter().chain(&combinations).chain(&each))
            .for_each(|(figure, seen)| *figure = *seen);
        Ok(figures)
    })
}

/// The combinations of labels that a ztunnel tells apart.
fn series(ztunnel: &Ztunnel) -> Outcome<f64> {
    let text = ztunnel.http_get(15020, "/metrics")?.body;
    let value = text.lines().find_map(|line| line.strip_prefix("istio_metric_series "));
    Ok(value.ok_or("there is no istio_metric_series")?.parse()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_service_of_a_generation_has_a_name_and_an_address_of_its_own() {
        let document = document(7, 3, IpAddr::from([10, 1, 0, 2]));
        assert_eq!(document.lines().filter(|line| line.starts_with("- { name: named-7-")).count(), 3);
        assert!(document.contains("vips: [/10.200.0.23]") && document.contains("uid: endpoint-7,"), "{document}");
        assert_eq!(vip(7, 1_000, 999).ip(), IpAddr::from([10, 200, 31, 63]));
    }
}

//! `cargo xtask soak`: many connections for long, through two real ztunnels, of which nothing may be left.
//!
//! Each of so many clients opens one connection after the other and takes it through one of the
//! [lives](traffic::Life) that a connection can have. Afterwards both ztunnels have to say that no stream, no buffered
//! byte and no enlarged window is left, and their resident memory late in the run has to be what it was early in it.
//!
//! What it does not look at: speed.

mod traffic;

use std::collections::BTreeMap;
use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use testkit::mesh::{Capture, Mesh, PodSpec};
use testkit::sandbox;
use testkit::ztunnel::{Ztunnel, ZtunnelSpec};

use crate::bench::process::{peak_kib, resident_kib};
use traffic::{Score, Traffic};

type Outcome<T = ()> = Result<T, Box<dyn Error>>;

/// Long enough for a loaded machine; only a failing soak waits for it.
const DEADLINE: Duration = Duration::from_secs(60);
/// Between two looks at something that is waited for.
const PAUSE: Duration = Duration::from_millis(100);
/// Looks at resident memory in a run: a fifth of it has enough of them for an average.
const SAMPLES: u32 = 100;
/// How much more resident memory the last fifth of a run may have, on average, than the second fifth. The load is
/// random; what leaks at all leaks with every one of some hundred thousand connections.
const FLAT: f64 = 1.10;
/// What has to be 0 when no connection is left.
const LEFTOVERS: [&str; 4] = [
    "istio_hbone_streams_open",
    "istio_hbone_streams_half_closed",
    "istio_hbone_buffered_bytes",
    "istio_hbone_window_granted_bytes",
];

/// Runs the soak. The first call builds ztunnel (quick profile) and executes this program anew inside a sandbox.
///
/// # Errors
/// What was left, what grew, or what went other than a connection's life has it.
pub fn run(workspace: &Path, seconds: u32, connections: u32) -> Outcome {
    let program = binary()?;
    if sandbox::outer_pid().is_none() {
        let mut build = Command::new("cargo");
        build.current_dir(workspace).args(["build", "--locked", "--profile", "quick"]);
        if !build.args(["--package", "ztunnel", "--bin", "ztunnel"]).status()?.success() {
            return Err("the build failed".into());
        }
    }
    sandbox::enter()?;
    crate::bench::raise_descriptor_limit();
    let mesh = Mesh::new()?;
    let (a, b) = (mesh.add_node("a")?, mesh.add_node("b")?);
    let client = a.add_pod(PodSpec::new("client", "shop", "front", Capture::Enrolled))?;
    let server = b.add_pod(PodSpec::new("server", "shop", "back", Capture::Enrolled))?;
    // A log line for each connection would fill the memory that the sandbox's files live in.
    let spec = ZtunnelSpec::new(program).env("RUST_LOG", "warn");
    let ztunnels = [("client's", a.start_ztunnel(&spec)?), ("server's", b.start_ztunnel(&spec)?)];
    for (_, ztunnel) in &ztunnels {
        ztunnel.wait_ready(DEADLINE)?;
    }
    println!("{connections} connections at a time, for {seconds} s");
    let traffic = Traffic::start(&client, &server, connections)?;
    let memory = watch(&ztunnels, Duration::from_secs(seconds.into()))?;
    let score = traffic.stop();
    report(&ztunnels, &memory, &score)?;
    let left: Vec<Outcome> = ztunnels.iter().map(|(whose, ztunnel)| nothing_left(whose, ztunnel)).collect();
    no_surprises(&score)?;
    left.into_iter().collect::<Outcome>()?;
    flat(&memory)
}

/// Where cargo puts the binary: beside the folder that this program runs from.
fn binary() -> Outcome<PathBuf> {
    let own = std::env::current_exe()?;
    let target = own.parent().and_then(Path::parent).ok_or("this program is not in a target folder")?;
    Ok(target.join("quick/ztunnel"))
}

/// The resident memory of one ztunnel over the run, in KiB.
struct Memory {
    whose: &'static str,
    samples: Vec<f64>,
}

impl Memory {
    /// The average of a fifth of the run, counted from 0.
    fn fifth(&self, number: usize) -> f64 {
        let length = (self.samples.len() / 5).max(1);
        let part: Vec<f64> = self.samples.iter().copied().skip(number * length).take(length).collect();
        part.iter().sum::<f64>() / part.len().max(1) as f64
    }

    fn growth(&self) -> f64 {
        self.fifth(4) / self.fifth(1)
    }
}

fn watch(ztunnels: &[(&'static str, Ztunnel)], time: Duration) -> Outcome<Vec<Memory>> {
    let mut memory: Vec<Memory> = ztunnels.iter().map(|(whose, _)| Memory { whose, samples: Vec::new() }).collect();
    let start = Instant::now();
    for number in 1..=SAMPLES {
        std::thread::sleep((time * number / SAMPLES).saturating_sub(start.elapsed()));
        for (memory, (_, ztunnel)) in memory.iter_mut().zip(ztunnels) {
            memory.samples.push(resident_kib(ztunnel.pid())?);
        }
    }
    Ok(memory)
}

fn report(ztunnels: &[(&'static str, Ztunnel)], memory: &[Memory], score: &Score) -> Outcome {
    println!("{} connections, {} MiB", score.connections(), score.bytes >> 20);
    for (life, count) in &score.lives {
        println!("  {count:>9}  {life}");
    }
    for (memory, (whose, ztunnel)) in memory.iter().zip(ztunnels) {
        let fifths: Vec<String> = (0..5).map(|number| format!("{:.1}", memory.fifth(number) / 1024.0)).collect();
        println!(
            "the {whose} ztunnel: {} MiB in each fifth of the run, the last {:.3} of the second; {:.1} MiB at the most",
            fifths.join(", "),
            memory.growth(),
            peak_kib(ztunnel.pid())? / 1024.0,
        );
        complaints(&ztunnel.logs());
    }
    Ok(())
}

/// Shows what a ztunnel gave as reasons for connections that failed, and how often.
fn complaints(log: &str) {
    let mut reasons = BTreeMap::<&str, u64>::new();
    for line in log.lines() {
        if let Some((_, reason)) = line.split_once(" error=") {
            *reasons.entry(reason).or_default() += 1;
        }
    }
    reasons.iter().for_each(|(reason, count)| println!("  {count:>9}  {reason}"));
}

fn nothing_left(whose: &str, ztunnel: &Ztunnel) -> Outcome {
    let start = Instant::now();
    loop {
        let text = ztunnel.http_get(15020, "/metrics")?.body;
        let left: Vec<&str> = LEFTOVERS.iter().flat_map(|name| samples(&text, name)).collect();
        if left.iter().all(|sample| sample.ends_with(" 0")) {
            let ends: Vec<String> = samples(&text, "istio_hbone_streams_ended_total").map(short).collect();
            println!("the {whose} ztunnel has nothing left; streams ended: {}", ends.join(", "));
            println!("  {:.1} MiB now", resident_kib(ztunnel.pid())? / 1024.0);
            return Ok(());
        }
        if start.elapsed() > DEADLINE {
            return Err(
                format!("the {whose} ztunnel still has, {DEADLINE:?} after the end:\n{}", left.join("\n")).into()
            );
        }
        std::thread::sleep(PAUSE);
    }
}

/// The samples of a metric.
fn samples<'a>(text: &'a str, name: &'a str) -> impl Iterator<Item = &'a str> {
    text.lines().filter(move |line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' '])))
}

/// `clean 17` of a sample with the label `end="clean"`.
fn short(sample: &str) -> String {
    let end = sample.split("end=\"").nth(1).and_then(|rest| rest.split('"').next()).unwrap_or_default();
    format!("{end} {}", sample.rsplit(' ').next().unwrap_or_default())
}

fn no_surprises(score: &Score) -> Outcome {
    let surprises: Vec<String> = score.surprises.iter().map(|(what, count)| format!("{count} × {what}")).collect();
    match surprises.as_slice() {
        [] => Ok(()),
        some => Err(format!("connections went otherwise than they should:\n{}", some.join("\n")).into()),
    }
}

fn flat(memory: &[Memory]) -> Outcome {
    match memory.iter().find(|memory| memory.growth() > FLAT) {
        Some(grown) => {
            let (whose, growth) = (grown.whose, grown.growth());
            Err(format!("the memory of the {whose} ztunnel is not flat: {growth:.3} times what it was, not {FLAT}")
                .into())
        }
        None => Ok(()),
    }
}

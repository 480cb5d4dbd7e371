//! `cargo xtask soak`: many connections for long, through two real ztunnels, while one thing after the other fails.
//!
//! Each of so many clients opens one connection after the other and takes it through one of the lives that a connection
//! can have, under a control plane that gives out certificates of short lives. Meanwhile [faults](faults::Kind) come and
//! go. Whatever goes otherwise than it should must be the consequence of the fault of that time. Afterwards there has to
//! be one record for each connection, and no stream, byte, descriptor or thread may be left; resident memory late in the
//! run has to be what it was early in it.
//!
//! What it does not look at: speed.

mod app;
mod books;
mod checks;
mod dice;
mod faults;
mod history;
mod injection;
mod judge;
mod life;
mod memory;
mod records;
mod report;
mod schedule;
mod seat;
mod stage;
mod traffic;

use std::error::Error;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use testkit::apps::resolve;
use testkit::sandbox;

pub use faults::Faults;

use dice::Dice;
use schedule::Schedule;
use stage::Stage;
use traffic::Traffic;

type Outcome<T = ()> = Result<T, Box<dyn Error>>;

/// Long enough for a loaded machine; only a failing soak waits for it.
const DEADLINE: Duration = Duration::from_secs(60);
/// Between two looks at something that is waited for.
const PAUSE: Duration = Duration::from_millis(100);
/// Looks at resident memory in a run: a fifth of it has enough of them for an average.
const SAMPLES: u32 = 100;
/// Between two questions for a name.
const NAMES: Duration = Duration::from_millis(20);

/// How to soak.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// For how long.
    #[arg(long, default_value_t = 600)]
    seconds: u32,
    /// How many at a time.
    #[arg(long, default_value_t = 2000)]
    connections: u32,
    /// What happens meanwhile: `all`, `none`, or names of faults separated by commas.
    #[arg(long, default_value = "all")]
    faults: Faults,
    /// Chooses lives, waits and faults; the same gives the same.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Soak this ztunnel instead of building one.
    #[arg(long)]
    binary: Option<PathBuf>,
    /// Write the summary to bench/results/soak-NAME.md.
    #[arg(long)]
    save: Option<String>,
}

/// Runs the soak. The first call builds ztunnel (quick profile) and executes this program anew inside a sandbox.
///
/// # Errors
/// What was left, what grew, what is not recorded, or what went other than it should without a fault that explains it.
pub fn run(workspace: &Path, options: &Options) -> Outcome {
    let program = program(workspace, options)?;
    sandbox::enter()?;
    crate::bench::raise_descriptor_limit();
    let stage = Stage::set(&program)?;
    let length = Duration::from_secs(options.seconds.into());
    println!("{} connections at a time, for {length:?}", options.connections);
    let traffic = Traffic::start(&stage.client, stage.server.ip(), options.connections, options.seed, &stage.judge)?;
    let happened = go_on(&stage, options, length);
    traffic.stop(&stage.judge);
    let wrong = checks::all(&stage)?;
    let summary = report::summary(&stage, options, &wrong)?;
    print!("{summary}");
    if let Some(name) = &options.save {
        report::save(workspace, name, &summary)?;
    }
    happened?;
    if wrong.is_empty() { Ok(()) } else { Err("the soak found what should not be; see the summary".into()) }
}

/// The program to be soaked; it is built only before the sandbox is entered.
fn program(workspace: &Path, options: &Options) -> Outcome<PathBuf> {
    if let Some(binary) = &options.binary {
        return std::path::absolute(binary).map_err(Into::into);
    }
    if sandbox::outer_pid().is_none() {
        let mut build = Command::new("cargo");
        build.current_dir(workspace).args(["build", "--locked", "--profile", "quick"]);
        if !build.args(["--package", "ztunnel", "--bin", "ztunnel"]).status()?.success() {
            return Err("the build failed".into());
        }
    }
    let own = std::env::current_exe()?;
    // Where cargo puts it: beside the folder that this program runs from.
    let target = own.parent().and_then(Path::parent).ok_or("this program is not in a target folder")?;
    Ok(target.join("quick/ztunnel"))
}

/// Faults, names and looks at memory, until the time is over.
fn go_on(stage: &Stage, options: &Options, length: Duration) -> Outcome {
    let until = stage.judge.now() + length;
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        // Errors do not leave their thread but in words.
        let conducted = scope.spawn(|| conduct(stage, options, until).map_err(|error| error.to_string()));
        let asked = scope.spawn(|| ask(stage, &over));
        let watched = watch(stage, length);
        let conducted = conducted.join().map_err(|_| "bringing about faults panicked")?;
        over.store(true, Ordering::Relaxed);
        asked.join().map_err(|_| "asking for names panicked")?;
        watched?;
        Ok(conducted?)
    })
}

/// One fault after the other.
fn conduct(stage: &Stage, options: &Options, until: Duration) -> Outcome {
    let judge = &stage.judge;
    let mut schedule = Schedule::new(&options.faults.0, options.seed, until);
    let mut dice = Dice::new(options.seed, 1);
    while let Some(due) = schedule.next(judge.now()) {
        std::thread::sleep(due.at.saturating_sub(judge.now()));
        judge.history().begin(due.kind, judge.now());
        println!("{:8.1} s  {} for {:.1} s", judge.now().as_secs_f64(), due.kind, due.lasts.as_secs_f64());
        let happened = injection::happen(stage, due.kind, due.lasts, &mut dice);
        let undone = judge.now();
        judge.history().undone(undone);
        happened.map_err(|error| format!("{}: {error}", due.kind))?;
        schedule.undone(due.kind, undone);
        stage.recovered().map_err(|error| format!("after {}: {error}", due.kind))?;
        println!("{:8.1} s  {} is over", undone.as_secs_f64(), due.kind);
    }
    Ok(())
}

/// The client asks for a name again and again.
fn ask(stage: &Stage, over: &AtomicBool) {
    let server = SocketAddr::from((Ipv4Addr::new(10, 96, 0, 10), 53));
    let address = IpAddr::from([10, 96, 0, 1]);
    while !over.load(Ordering::Relaxed) {
        let began = stage.judge.now();
        match resolve(&stage.client, server, stage::NAME) {
            Ok(answer) if answer == [address] => stage.judge.resolved(stage.judge.now() - began),
            Ok(answer) => stage.judge.surprise(began, format!("{} has the addresses {answer:?}", stage::NAME)),
            Err(error) => stage.judge.surprise(began, format!("asking for {}: {error}", stage::NAME)),
        }
        std::thread::sleep(NAMES);
    }
}

/// Looks at both ztunnels' memory, evenly over the time.
fn watch(stage: &Stage, time: Duration) -> Outcome {
    let start = Instant::now();
    let mut last = stage.judge.now();
    for number in 1..=SAMPLES {
        std::thread::sleep((time * number / SAMPLES).saturating_sub(start.elapsed()));
        let now = stage.judge.now();
        let cut = stage.judge.history().cut(last, now);
        last = now;
        for seat in stage.seats() {
            seat.look(|serving| {
                let resident = serving.holdings()?.resident_kib;
                serving.memory.look(resident, cut);
                Ok(())
            })?;
        }
    }
    Ok(())
}

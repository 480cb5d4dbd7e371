//! The door to what the repository can do besides building: `cargo xtask --help`.

use std::error::Error;
use std::fmt::Display;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use xtask::bench;
use xtask::demo::{self, Afterwards, Governance};
use xtask::instructions::{self, Verdict};
use xtask::package;
use xtask::soak;

#[derive(Parser)]
#[command(name = "cargo xtask", about = "What the repository can check, generate, measure or package")]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Write the code that is generated from the proto files.
    Generate {
        /// Write nothing; fail if what is checked in differs from what would be written.
        #[arg(long)]
        check: bool,
    },
    /// Show a mesh of two nodes and four pods at work, step by step.
    Demo {
        /// Leave the mesh up afterwards, until Ctrl-C, and print commands to try.
        #[arg(long)]
        keep: bool,
        /// Run the mesh by a file and the built-in CA instead of a stand-in for istiod.
        #[arg(long)]
        file: bool,
    },
    /// Measure the data path, in turns with what it is compared with.
    Bench(Box<bench::Options>),
    /// Count the instructions of the codec's hot functions; fail if they have become more.
    Instructions {
        /// Write the table that they are compared with.
        #[arg(long)]
        bless: bool,
    },
    /// Test against implementations of others: h2spec and Envoy, fetched when missing.
    Interop,
    /// Lint the Dockerfile with checkov, the chart with Helm and the alerts with promtool, fetched when missing.
    Lint,
    /// Test builds with each cryptography library, by themselves and with one another.
    Providers {
        /// Features of ztunnel such as `tls-ring`; without any, all.
        rows: Vec<String>,
    },
    /// Let libFuzzer look for what a target does not survive, and keep what it learnt in the corpus.
    Fuzz {
        /// A file of fuzz/fuzz_targets, without its ending.
        target: String,
        /// For how long.
        #[arg(long, default_value_t = 60)]
        seconds: u32,
    },
    /// Open, use, half-close and reset connections for long while one thing after the other fails; fail if there is anything
    /// that no fault explains, a connection without a record, or something left of them.
    Soak(Box<soak::Options>),
    /// Pack the release binary with units, settings and manual: a tarball and a Debian package.
    Package {
        /// Pack this program instead of building one.
        #[arg(long)]
        binary: Option<PathBuf>,
        /// Also install the package on a fresh Debian root, use it, and remove it without a trace (needs debootstrap).
        #[arg(long = "try")]
        trial: bool,
    },
    /// Run the tests that take too long for every change.
    Full,
    /// Check who imports and touches what, as ARCHITECTURE.md has it.
    Walls,
}

fn main() -> ExitCode {
    match run(&Arguments::parse().task, &xtask::workspace()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(task: &Task, workspace: &Path) -> Result<(), Box<dyn Error>> {
    let api = workspace.join("crates/istio-api");
    match task {
        Task::Generate { check: false } => {
            xtask::generate::write(&api)?;
            Ok(xtask::generate::write_manual(workspace)?)
        }
        Task::Generate { check: true } => {
            Ok(none(&xtask::generate::stale(&api)?, "not what the proto files turn into; run `cargo xtask generate`")?)
        }
        Task::Walls => Ok(none(&xtask::walls::breaches(workspace)?, "walls are broken")?),
        Task::Bench(options) => bench::run(workspace, options),
        Task::Instructions { bless } => {
            instructions::run(workspace, if *bless { Verdict::Bless } else { Verdict::Check })
        }
        Task::Interop => Ok(xtask::interop::run(workspace)?),
        Task::Lint => Ok(xtask::lint::run(workspace)?),
        Task::Providers { rows } => Ok(xtask::providers::run(workspace, rows)?),
        Task::Fuzz { target, seconds } => Ok(xtask::fuzz::run(workspace, target, *seconds)?),
        Task::Soak(options) => soak::run(workspace, options),
        Task::Package { binary, trial } => {
            let make = || package::run(workspace, binary.as_deref());
            if *trial { package::trial(make) } else { Ok(make().map(drop)?) }
        }
        Task::Full => Ok(xtask::full::run(workspace)?),
        Task::Demo { keep, file } => {
            let governance = if *file { Governance::File } else { Governance::Istiod };
            demo::run(workspace, governance, if *keep { Afterwards::Keep } else { Afterwards::Leave })
        }
    }
}

/// Fails if anything was found, after printing it.
fn none(found: &[impl Display], meaning: &str) -> io::Result<()> {
    for one in found {
        eprintln!("{one}");
    }
    if found.is_empty() { Ok(()) } else { Err(io::Error::other(format!("{}: {meaning}", found.len()))) }
}

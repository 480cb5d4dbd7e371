//! `cargo xtask bench`: what the data path costs, compared with what it could cost.
//!
//! Real processes in pods of a mesh of network namespaces, real clients and servers. The figures of a shared machine
//! drift by tens of percent within an hour, so that all contenders take turns and only ratios within a round count. What
//! the rows mean and how to read them is in `bench/README.md`.

mod beside;
mod contender;
mod destinations;
mod fit;
mod growth;
mod idle;
mod load;
mod measure;
mod names;
mod paced;
mod plot;
mod pods;
pub(crate) mod process;
pub(crate) mod report;
mod row;
mod scale;
mod series;
mod table;

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use testkit::sandbox;

use contender::{Contender, Nodes, Party, Programs, Stage};
use idle::Ratios;
use load::Load;
use measure::{Series, Unit};
use row::{Kind, ROWS, Row};
use table::Table;

type Outcome<T = ()> = Result<T, Box<dyn Error>>;

/// Long enough for a loaded machine; only a benchmark that fails waits for it.
const DEADLINE: Duration = Duration::from_secs(20);

/// Longest wait for a ztunnel that has to hear of a large mesh.
const READY: Duration = Duration::from_secs(60);

/// Memory hardly varies between rounds, and its rounds are long.
const MEMORY_ROUNDS: u32 = 3;

/// A turn during which others used more of the machine than this says nothing.
const DISTURBED: f64 = 0.1;
/// How often a turn is repeated for that; then it counts, and the table tells.
const REPEATS: usize = 2;

/// What is asked for on the command line.
#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    /// Rows to measure; all, if none is named. A name may be the beginning of several.
    rows: Vec<String>,
    /// Show the rows and measure nothing.
    #[arg(long)]
    list: bool,
    /// Turns of each contender in each row.
    #[arg(long, default_value_t = 5)]
    rounds: u32,
    /// Length of a turn.
    #[arg(long, default_value_t = 4)]
    seconds: u32,
    /// Congestion controls, each with a mesh of its own.
    #[arg(long, value_delimiter = ',', default_value = "bbr,cubic")]
    congestion: Vec<String>,
    /// Profile to build everything with.
    #[arg(long, default_value = "release")]
    profile: String,
    /// The ztunnel to measure, instead of building one.
    #[arg(long)]
    binary: Option<PathBuf>,
    /// A second ztunnel, which takes turns with the first.
    #[arg(long)]
    against: Option<PathBuf>,
    /// Contenders to leave out, by the names that they have in the tables.
    #[arg(long)]
    without: Vec<String>,
    /// One more setting for ztunnels, as NAME=VALUE.
    #[arg(long = "set")]
    settings: Vec<String>,
    /// Worker threads of every proxy and relay.
    #[arg(long, default_value_t = 2)]
    threads: usize,
    /// Write the figures to `bench/results/NAME.md` and `NAME.json`.
    #[arg(long, value_name = "NAME")]
    save: Option<String>,
}

/// Runs the benchmark. The first call builds what is measured and executes this program anew inside a sandbox.
///
/// # Errors
/// What is missing on this machine, or did not work.
pub fn run(workspace: &Path, options: &Options) -> Outcome {
    if options.list {
        ROWS.iter().for_each(|row| println!("{:<18} {}", row.name, row.says));
        return Ok(());
    }
    let rows = selected(&options.rows)?;
    check_programs()?;
    if sandbox::outer_pid().is_none() {
        build(workspace, options)?;
    }
    let programs = programs(options)?;
    sandbox::enter()?;
    raise_descriptor_limit();
    let bench = Bench { programs, options };
    let mut tables = Vec::new();
    let mut show = |new: Vec<Table>| {
        new.iter().for_each(|table| println!("\n{}", table.text()));
        tables.extend(new);
    };
    for congestion in &options.congestion {
        show(bench.turns(&rows, congestion, Nodes::Two)?);
        show(bench.turns(&rows, congestion, Nodes::One)?);
    }
    for row in &rows {
        show(bench.memory(row)?.into_iter().collect());
    }
    match &options.save {
        Some(name) => report::write(workspace, name, options, &tables),
        None => Ok(()),
    }
}

/// Thousands of idle connections need as many descriptors, here and in the proxies, which inherit the limit.
pub(crate) fn raise_descriptor_limit() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    // With fewer, the row that needs them says so.
    let _ = setrlimit(Resource::Nofile, limit);
}

fn selected(names: &[String]) -> Outcome<Vec<Row>> {
    if let Some(unknown) = names.iter().find(|name| !ROWS.iter().any(|row| row.name.starts_with(name.as_str()))) {
        return Err(format!("there is no row {unknown}; --list shows them").into());
    }
    let wanted = |row: &&Row| names.is_empty() || names.iter().any(|name| row.name.starts_with(name.as_str()));
    Ok(ROWS.iter().filter(wanted).copied().collect())
}

fn check_programs() -> Outcome {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders: Vec<PathBuf> = std::env::split_paths(&path).chain(["/usr/sbin".into()]).collect();
    let missing: Vec<&str> = load::NEEDED
        .iter()
        .filter(|(program, _)| !folders.iter().any(|folder| folder.join(program).is_file()))
        .map(|(_, package)| *package)
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    Err(format!("programs are missing; on Debian: apt-get install {}", missing.join(" ")).into())
}

fn build(workspace: &Path, options: &Options) -> Outcome {
    let mut packages = vec!["--package", "peers"];
    if options.binary.is_none() {
        packages.extend(["--package", "ztunnel", "--bin", "ztunnel", "--bin", "relay", "--bin", "reference"]);
    }
    let mut cargo = Command::new("cargo");
    cargo.current_dir(workspace).args(["build", "--profile", &options.profile]).args(packages);
    if cargo.status()?.success() { Ok(()) } else { Err("the build failed".into()) }
}

fn programs(options: &Options) -> Outcome<Programs> {
    let own = std::env::current_exe()?;
    let target = own.parent().and_then(Path::parent).ok_or("this program is not in a target folder")?;
    let built = target.join(&options.profile);
    let absolute = |path: &PathBuf| path.canonicalize().map_err(|error| format!("{}: {error}", path.display()));
    let setting = |text: &String| text.split_once('=').map(|(name, value)| (name.to_owned(), value.to_owned()));
    Ok(Programs {
        ztunnel: options.binary.as_ref().map(absolute).transpose()?.unwrap_or_else(|| built.join("ztunnel")),
        other: options.against.as_ref().map(absolute).transpose()?,
        reference: built.join("reference"),
        relay: built.join("relay"),
        environment: options.settings.iter().filter_map(setting).collect(),
        threads: options.threads,
        streams_per_tunnel: None,
    })
}

struct Bench<'a> {
    programs: Programs,
    options: &'a Options,
}

impl Bench<'_> {
    /// Those of a row who can take part and are wanted.
    fn contenders(&self, row: &Row) -> Vec<Contender> {
        let wanted = |c: &&Contender| {
            self.programs.has(c.near)
                && self.programs.has(c.far)
                && !self.options.without.iter().any(|name| name == c.name)
        };
        row.contenders().iter().filter(wanted).copied().collect()
    }

    /// All rows in which contenders take turns over so many nodes, in one mesh.
    fn turns(&self, rows: &[Row], congestion: &str, nodes: Nodes) -> Outcome<Vec<Table>> {
        let load = |row: &Row| match (row.kind, nodes) {
            (Kind::Turns(load, _), Nodes::Two) | (Kind::SameNode(load, _), Nodes::One) => Some(load),
            _ => None,
        };
        let loads: Vec<(&Row, Load)> = rows.iter().filter_map(|row| Some((row, load(row)?))).collect();
        if loads.is_empty() {
            return Ok(Vec::new());
        }
        let contenders = loads.iter().flat_map(|(row, _)| self.contenders(row));
        let stage = Stage::set(&self.programs, &parties(contenders), congestion, nodes)?;
        let mut tables = Vec::new();
        for (row, load) in loads {
            let series = self.rounds(&stage, row, load, congestion)?;
            tables.push(Table::of_turns(row, congestion, Unit::of(load), &series));
        }
        Ok(tables)
    }

    fn rounds(&self, stage: &Stage, row: &Row, load: Load, congestion: &str) -> Outcome<Vec<Series>> {
        let fresh = |contender| Series { contender, turns: Vec::new() };
        let mut all: Vec<Series> = self.contenders(row).into_iter().map(fresh).collect();
        for round in 1..=self.options.rounds {
            eprintln!("{} under {congestion}, round {round} of {}", row.name, self.options.rounds);
            for series in &mut all {
                let turn = || {
                    measure::take(stage, &series.contender, load, self.options.seconds)
                        .map_err(|error| format!("{} of {}: {error}", row.name, series.contender.name))
                };
                let mut taken = turn()?;
                for _ in 0..REPEATS {
                    if taken.elsewhere <= DISTURBED {
                        break;
                    }
                    eprintln!("others had {:.0} % of the machine; once more", taken.elsewhere * 100.0);
                    taken = turn()?;
                }
                series.turns.push(taken);
            }
        }
        Ok(all)
    }

    /// A row about memory; every round has processes of its own, since memory is what they are full of afterwards.
    fn memory(&self, row: &Row) -> Outcome<Option<Table>> {
        let (sides, few) = (["near", "far"], self.options.rounds.min(MEMORY_ROUNDS));
        Ok(match row.kind {
            Kind::Turns(..) | Kind::SameNode(..) => None,
            Kind::IdleConnections => {
                Some(idle::table(row, sides, Ratios::Shown, &self.fresh(row, None, idle::connections)?))
            }
            Kind::IdleTunnels => {
                Some(idle::table(row, sides, Ratios::Shown, &self.fresh(row, Some(1), idle::tunnels)?))
            }
            Kind::LargeMesh => Some(scale::table(row, &self.programs, self.options.rounds)?),
            Kind::Names => Some(names::table(row, &self.programs, self.options.rounds, self.options.seconds)?),
            Kind::Pods => Some(pods::memory(row, &self.programs, few)?),
            Kind::Scrape => Some(series::scrape(row, &self.programs, self.options.rounds, self.options.seconds)?),
            Kind::Churn => Some(series::churn(row, &self.programs, few)?),
            Kind::Storm => Some(pods::storm(row, &self.programs, self.options.rounds, self.options.seconds)?),
            Kind::Destinations => Some(destinations::table(row, &self.programs, self.options.rounds)?),
            Kind::Flapping => Some(beside::flapping(row, &self.programs, few, self.options.seconds)?),
            Kind::Dump => Some(beside::dump(row, &self.programs, few, self.options.seconds)?),
            Kind::Growth(growth) => Some(growth::table(growth, row, &self.programs, few, self.options.seconds)?),
            Kind::AfterBulk => {
                let columns = ["near before", "near peak", "near after", "far before", "far peak", "far after"];
                Some(idle::table(row, columns, Ratios::Left, &self.fresh(row, None, idle::bulk)?))
            }
        })
    }

    fn fresh<const N: usize>(
        &self,
        row: &Row,
        streams_per_tunnel: Option<usize>,
        measure: impl Fn(&Stage, &Contender) -> Outcome<[f64; N]>,
    ) -> Outcome<Vec<idle::Rounds<N>>> {
        let programs = Programs { streams_per_tunnel, ..self.programs.clone() };
        let congestion = self.options.congestion.first().ok_or("no congestion control is named")?;
        let mut all = Vec::new();
        for contender in self.contenders(row) {
            let mut rounds = Vec::new();
            for round in 1..=self.options.rounds.min(MEMORY_ROUNDS) {
                eprintln!("{} of {}, round {round}", row.name, contender.name);
                let stage = Stage::set(&programs, &parties([contender]), congestion, Nodes::Two)?;
                let figures = measure(&stage, &contender);
                rounds.push(figures.map_err(|error| format!("{} of {}: {error}", row.name, contender.name))?);
            }
            all.push((contender.name, rounds));
        }
        Ok(all)
    }
}

fn parties(contenders: impl IntoIterator<Item = Contender>) -> Vec<Party> {
    let mut parties: Vec<Party> = contenders.into_iter().flat_map(|c| [c.near, c.far]).collect();
    parties.sort_unstable();
    parties.dedup();
    parties
}

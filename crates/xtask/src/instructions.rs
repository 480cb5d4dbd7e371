//! `cargo xtask instructions`: what the codec's hot functions cost in instructions, compared with a table that is
//! checked in. Times would differ on every machine; counts differ only by compiler and architecture.

use std::collections::BTreeMap;
use std::error::Error;
use std::fs;
use std::path::Path;
use std::process::Command;

type Outcome<T = ()> = Result<T, Box<dyn Error>>;

/// How much more than in the table is still the same: layout and inlining move counts by one or two percent.
const TOLERANCE: f64 = 0.03;
/// Runs that two counts differ by; large enough that what is done once does not matter.
const RUNS: u64 = 2000;
/// Runs of the first count, in which tables grow to their size.
const WARM_UP: u64 = 100;
/// The build that is counted: what is deployed, but for the long link.
const PROFILE: &str = "quick";

/// What becomes of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It is compared with.
    Check,
    /// It is written anew.
    Bless,
}

/// Counts, and compares or writes.
///
/// # Errors
/// An operation has become more expensive, or is not in the table, or nothing could be counted.
pub fn run(workspace: &Path, verdict: Verdict) -> Outcome {
    let mut build = Command::new("cargo");
    build.current_dir(workspace).args(["build", "--quiet", "--profile", PROFILE, "--package", "instructions"]);
    if !build.status()?.success() {
        return Err("the build failed".into());
    }
    let own = std::env::current_exe()?;
    let target = own.parent().and_then(Path::parent).ok_or("this program is not in a target folder")?;
    let program = target.join(PROFILE).join("instructions");
    let names = String::from_utf8(Command::new(&program).output()?.stdout)?;
    let path = workspace.join("bench/instructions.txt");
    let table = read(&fs::read_to_string(&path).unwrap_or_default())?;
    let (mut text, mut grown) = (HEADING.to_owned(), Vec::new());
    for name in names.lines() {
        let each = (count(&program, name, WARM_UP + RUNS)? - count(&program, name, WARM_UP)?) / RUNS as f64;
        text.push_str(&format!("{name:<32} {each:>10.1}\n"));
        let before = table.get(name).copied();
        println!("{}", compared(name, each, before));
        if before.is_none_or(|before| has_grown(before, each)) {
            grown.push(name.to_owned());
        }
    }
    match verdict {
        Verdict::Bless => Ok(fs::write(path, text)?),
        Verdict::Check if grown.is_empty() => Ok(()),
        Verdict::Check => Err(format!(
            "more instructions than in bench/instructions.txt, or not in it: {}; if that is meant, run `cargo xtask \
             instructions --bless`",
            grown.join(", ")
        )
        .into()),
    }
}

const HEADING: &str = "# Instructions per operation (x86-64), written by `cargo xtask instructions --bless`.\n";

fn compared(name: &str, each: f64, before: Option<f64>) -> String {
    match before {
        Some(before) => format!("{name:<32} {each:>10.1}  {:+.1} %", (each / before - 1.0) * 100.0),
        None => format!("{name:<32} {each:>10.1}  new"),
    }
}

fn has_grown(before: f64, now: f64) -> bool {
    now > before * (1.0 + TOLERANCE)
}

fn read(text: &str) -> Outcome<BTreeMap<String, f64>> {
    let mut table = BTreeMap::new();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let (name, count) = line.split_once(' ').ok_or("bench/instructions.txt has a line without a count")?;
        table.insert(name.to_owned(), count.trim().parse()?);
    }
    Ok(table)
}

/// Instructions of a whole run.
fn count(program: &Path, name: &str, runs: u64) -> Outcome<f64> {
    let mut valgrind = Command::new("valgrind");
    valgrind.args(["--tool=callgrind", "--callgrind-out-file=/dev/null"]).arg(program).args([name, &runs.to_string()]);
    let output = valgrind.output().map_err(|error| format!("{error}: on Debian, apt-get install valgrind"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    let collected = said.lines().find_map(|line| line.split_once("Collected :")).ok_or_else(|| said.to_string())?;
    Ok(collected.1.trim().parse()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_percent_more_are_still_the_same() {
        assert!(!has_grown(1000.0, 1030.0) && has_grown(1000.0, 1031.0) && !has_grown(1000.0, 500.0));
    }

    #[test]
    fn the_table_that_is_checked_in_is_readable() {
        let path = crate::workspace().join("bench/instructions.txt");
        assert!(!read(&fs::read_to_string(path).unwrap()).unwrap().is_empty());
    }
}

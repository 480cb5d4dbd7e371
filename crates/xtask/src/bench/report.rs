//! What is written about a run: the tables, and what they were measured on.

use std::fmt::Write;
use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use super::table::Table;
use super::{Options, Outcome};

/// Writes `bench/results/<name>.md`, `.json`, and a drawing of each table in the folder `<name>`.
pub(super) fn write(workspace: &Path, name: &str, options: &Options, tables: &[Table]) -> Outcome {
    let folder = workspace.join("bench/results");
    fs::create_dir_all(&folder)?;
    let facts = facts(workspace, options);
    let mut text = format!("# Benchmark {name}\n\n");
    for (what, value) in &facts {
        writeln!(text, "- {what}: {value}")?;
    }
    text.push_str("\nWhat rows and columns mean is in [the manual](../README.md).\n");
    fs::create_dir_all(folder.join(name))?;
    for table in tables {
        let drawing = format!("{name}/{}.svg", table.name());
        fs::write(folder.join(&drawing), table.plot.svg(&table.title))?;
        write!(text, "\n{}\n![{}]({drawing})\n", table.text(), table.name())?;
    }
    fs::write(folder.join(format!("{name}.md")), text)?;
    let rows: Vec<Value> = tables
        .iter()
        .map(|table| json!({ "row": table.row, "congestion": table.congestion, "figures": table.json }))
        .collect();
    let facts: serde_json::Map<String, Value> =
        facts.into_iter().map(|(what, value)| (what.to_owned(), Value::String(value))).collect();
    let document = json!({ "facts": facts, "rows": rows });
    fs::write(folder.join(format!("{name}.json")), serde_json::to_string_pretty(&document)? + "\n")?;
    Ok(())
}

fn facts(workspace: &Path, options: &Options) -> Vec<(&'static str, String)> {
    let mut facts = circumstances(workspace);
    facts.extend([
        ("profile", options.profile.clone()),
        ("turns", format!("{} rounds of {} s, {} threads per proxy", options.rounds, options.seconds, options.threads)),
        (
            "settings of ztunnels",
            if options.settings.is_empty() { "none".to_owned() } else { options.settings.join(" ") },
        ),
    ]);
    facts
}

/// What was measured, and on what machine.
pub(crate) fn circumstances(workspace: &Path) -> Vec<(&'static str, String)> {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let cpu = read("/proc/cpuinfo");
    let model = cpu.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or_default();
    let cores = cpu.lines().filter(|line| line.starts_with("processor")).count();
    vec![
        ("commit", commit(workspace).unwrap_or_else(|| "unknown".to_owned())),
        ("kernel", read("/proc/sys/kernel/osrelease").trim().to_owned()),
        ("processor", format!("{cores} × {}", model.trim_start_matches([' ', '\t', ':']))),
    ]
}

/// The commit that is checked out, marked if there is anything else in the tree.
fn commit(workspace: &Path) -> Option<String> {
    let git = |arguments: &[&str]| {
        let output = Command::new("git").current_dir(workspace).args(arguments).output().ok()?;
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let commit = git(&["rev-parse", "--short=12", "HEAD"])?;
    let changed = !git(&["status", "--porcelain", "--untracked-files=no", "--", ".", ":!bench/results"])?.is_empty();
    Some(if changed { format!("{commit}, with changes") } else { commit })
}

//! The summary of a soak, as it is printed and kept.

use std::fmt::Write;
use std::fs;
use std::path::Path;

use super::checks::{samples, seen};
use super::judge::lock;
use super::life::Life;
use super::seat::Seat;
use super::stage::Stage;
use super::{Options, Outcome};
use crate::bench::process::peak_kib;
use crate::bench::report::circumstances;

/// What was done, what was seen, and what is wrong.
pub(super) fn summary(stage: &Stage, options: &Options, wrong: &[String]) -> Outcome<String> {
    let mut text = format!(
        "\n{} connections at a time for {} s, seed {}: {}\n",
        options.connections,
        options.seconds,
        options.seed,
        seen(&stage.judge),
    );
    for life in Life::ALL {
        writeln!(text, "  {:>9}  {life:?}", stage.judge.findings().lives.of(life))?;
    }
    let counts = stage.judge.history().counts();
    writeln!(text, "\n{} faults, and the surprises that they explain:", counts.values().sum::<u64>())?;
    for (kind, count) in counts {
        let findings = stage.judge.findings();
        let explained = |what| findings.explained.get(&(kind, what)).copied().unwrap_or_default();
        let (connections, errors) = (explained("connections"), explained("errors"));
        writeln!(text, "  {count:>4} × {kind}: {connections} connections, {errors} errors in logs")?;
    }
    for seat in stage.seats() {
        write!(text, "\n{}", of(seat)?)?;
    }
    match wrong {
        [] => writeln!(text, "\nNothing is wrong.")?,
        wrong => writeln!(text, "\nWhat is wrong:\n{}", wrong.join("\n"))?,
    }
    Ok(text)
}

/// The ztunnel that serves at the end.
fn of(seat: &Seat) -> Outcome<String> {
    let metrics = seat.metrics()?;
    let text = seat.look(|serving| {
        let mib = |kib: f64| kib / 1024.0;
        let fifths: Vec<String> =
            (0..5).map(|number| format!("{:.1}", mib(serving.memory.fifth_kib(number)))).collect();
        let (now, first, records) = (serving.holdings()?, seat.at_first, lock(&serving.records).clone());
        let ends: Vec<String> = samples(&metrics, "istio_hbone_streams_ended_total")
            .filter(|sample| !sample.ends_with(" 0"))
            .map(short)
            .collect();
        let (killed, lost) = seat.killed();
        let mut text = format!("the {} ztunnel, after {killed} that were killed with {lost} records:\n", seat.whose);
        writeln!(text, "  {} records of connections, {} of early refusals", records.complete, records.early)?;
        records.kept.iter().try_for_each(|line| writeln!(text, "    {line}"))?;
        writeln!(text, "  streams ended: {}", ends.join(", "))?;
        let (fifths, peak) = (fifths.join(", "), mib(peak_kib(serving.ztunnel.pid())?));
        writeln!(text, "  {fifths} MiB in the fifths of its life, {peak:.1} at most;")?;
        let (growth, left) = (serving.memory.growth(), mib(serving.memory.left_by_cuts_kib()));
        writeln!(text, "  the last is {growth:.3} of the second without the {left:.1} MiB that cut links have left")?;
        let (resident, resident_first) = (mib(now.resident_kib), mib(first.resident_kib));
        writeln!(text, "  at the end and before the first connection: {resident:.1} and {resident_first:.1} MiB,")?;
        writeln!(
            text,
            "  {} and {} descriptors, {} and {} threads",
            now.descriptors, first.descriptors, now.threads, first.threads
        )?;
        Ok(text)
    })?;
    text.ok_or_else(|| "a ztunnel is gone".into())
}

/// `clean 17` of a sample with the label `end="clean"`.
fn short(sample: &str) -> String {
    let end = sample.split("end=\"").nth(1).and_then(|rest| rest.split('"').next()).unwrap_or_default();
    format!("{end} {}", sample.rsplit(' ').next().unwrap_or_default())
}

/// Writes `bench/results/soak-<name>.md`.
pub(super) fn save(workspace: &Path, name: &str, summary: &str) -> Outcome {
    let folder = workspace.join("bench/results");
    fs::create_dir_all(&folder)?;
    let facts = circumstances(workspace).into_iter().map(|(what, value)| format!("- {what}: {value}\n"));
    let text = format!("# Soak {name}\n\n{}\n```\n{}```\n", facts.collect::<String>(), summary.trim_start());
    Ok(fs::write(folder.join(format!("soak-{name}.md")), text)?)
}

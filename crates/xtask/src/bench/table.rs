//! Tables of figures, as text for people and for Markdown alike, and as JSON.

use std::path::Path;

use serde_json::{Value, json};

use super::Outcome;
use super::contender::{Programs, REFERENCE, RELAY, SEALED};
use super::measure::{Series, Spread, Turn, Unit};
use super::plot::{Bars, Plot};
use super::row::Row;

/// Figures of one row under one congestion control.
pub(super) struct Table {
    pub(super) row: &'static str,
    /// `None` where it does not matter.
    pub(super) congestion: Option<String>,
    pub(super) title: String,
    pub(super) columns: Vec<String>,
    pub(super) lines: Vec<Vec<String>>,
    pub(super) json: Value,
    pub(super) plot: Plot,
}

/// What `once` says of ztunnel, and of the other build if there is one, in so many rounds.
pub(super) fn in_turns<T>(
    row: &Row,
    programs: &Programs,
    rounds: u32,
    once: impl Fn(&Path) -> Outcome<T>,
) -> Outcome<Vec<(&'static str, Vec<T>)>> {
    let builds = std::iter::once(("ztunnel", &programs.ztunnel));
    let builds = builds.chain(programs.other.iter().map(|other| ("other", other)));
    let mut all: Vec<_> = builds.map(|(name, program)| (name, program, Vec::new())).collect();
    for round in 1..=rounds {
        for (name, program, said) in &mut all {
            eprintln!("{} of {name}, round {round} of {rounds}", row.name);
            said.push(once(program)?);
        }
    }
    Ok(all.into_iter().map(|(name, _, said)| (name, said)).collect())
}

/// The middle of what `once` says of each build.
pub(super) fn by_build<const N: usize>(
    row: &Row,
    programs: &Programs,
    rounds: u32,
    columns: [&str; N],
    once: impl Fn(&Path) -> Outcome<[f64; N]>,
) -> Outcome<Table> {
    let all = in_turns(row, programs, rounds, once)?;
    let (mut lines, mut json) = (Vec::new(), Vec::new());
    for (name, all) in &all {
        let medians: Vec<f64> = (0..N).map(|column| Spread::of(all.iter().map(|round| round[column])).median).collect();
        let line = std::iter::once((*name).to_owned()).chain(medians.iter().map(|value| figure(*value)));
        lines.push(line.collect::<Vec<_>>());
        let rounds: Vec<&[f64]> = all.iter().map(|round| &round[..]).collect();
        json.push(json!({ "contender": name, "columns": &columns[..], "rounds": rounds, "medians": medians }));
    }
    Ok(Table {
        row: row.name,
        congestion: None,
        title: format!("{}: {}", row.name, row.says),
        columns: std::iter::once(String::new()).chain(columns.map(str::to_owned)).collect(),
        lines,
        json: json!({ "contenders": json }),
        plot: bars(columns.iter().copied(), &all),
    })
}

/// A panel for each column, in which every contender has its rounds.
pub(super) fn bars<'a, const N: usize>(
    columns: impl IntoIterator<Item = &'a str>,
    all: &[(&'static str, Vec<[f64; N]>)],
) -> Plot {
    let panel = |(column, title): (usize, &str)| {
        let spread = |rounds: &Vec<[f64; N]>| Spread::of(rounds.iter().map(|round| round[column]));
        let bars = all.iter().map(|(name, rounds)| ((*name).to_owned(), spread(rounds))).collect();
        Bars { title: title.to_owned(), bars }
    };
    Plot::Bars(columns.into_iter().take(N).enumerate().map(panel).collect())
}

impl Table {
    /// Of contenders that took turns.
    pub(super) fn of_turns(row: &Row, congestion: &str, unit: Unit, all: &[Series]) -> Self {
        let named = |name: &str| all.iter().find(|series| series.contender.name == name);
        let (reference, floor) = (named(REFERENCE), named(SEALED).or_else(|| named(RELAY)));
        let floor_name = floor.map_or("floor", |series| series.contender.name);
        let columns = vec![
            String::new(),
            unit.rate().to_owned(),
            "least … most".to_owned(),
            format!("{}: near", unit.cost()),
            "far".to_owned(),
            "both".to_owned(),
            format!("rate ÷ {REFERENCE}"),
            format!("rate ÷ {floor_name}"),
            format!("CPU ÷ {REFERENCE}: near"),
            "far".to_owned(),
            "both".to_owned(),
            "elsewhere".to_owned(),
        ];
        let mut lines = Vec::new();
        let mut json = Vec::new();
        for series in all {
            let rate = series.spread(|turn| turn.rate);
            let costs = [series.spread(|turn| turn.near), series.spread(|turn| turn.far), series.spread(Turn::both)];
            let over =
                |other: Option<&Series>, figure: fn(&Turn) -> f64| other.and_then(|other| series.ratio(other, figure));
            let ratios = [
                over(reference, |turn| turn.rate),
                over(floor, |turn| turn.rate),
                over(reference, |turn| turn.near),
                over(reference, |turn| turn.far),
                over(reference, Turn::both),
            ];
            let mut line = vec![series.contender.name.to_owned(), figure(rate.median)];
            line.push(format!("{} … {}", figure(rate.least), figure(rate.most)));
            line.extend(costs.iter().map(|cost| if cost.most > 0.0 { figure(cost.median) } else { String::new() }));
            line.extend(
                ratios.iter().map(|ratio| ratio.filter(|r| *r > 0.0).map_or(String::new(), |r| format!("{r:.2}"))),
            );
            let elsewhere = series.spread(|turn| turn.elsewhere).median;
            line.push(format!("{:.0} %", elsewhere * 100.0));
            lines.push(line);
            json.push(json!({
                "contender": series.contender.name,
                "elsewhere": elsewhere,
                "rate": spread(rate),
                "cpu": { "near": spread(costs[0]), "far": spread(costs[1]), "both": spread(costs[2]) },
                "rate_over_reference": ratios[0],
                "rate_over_floor": ratios[1],
                "cpu_over_reference": { "near": ratios[2], "far": ratios[3], "both": ratios[4] },
            }));
        }
        let json = json!({
            "units": { "rate": unit.rate(), "cpu": unit.cost() }, "floor": floor_name, "contenders": json,
        });
        let panel = |title: &str, of: fn(&Turn) -> f64| {
            let bars = all.iter().map(|series| (series.contender.name.to_owned(), series.spread(of)));
            Bars { title: title.to_owned(), bars: bars.collect() }
        };
        let plot = Plot::Bars(vec![
            panel(unit.rate(), |turn| turn.rate),
            panel(&format!("{} of both", unit.cost()), Turn::both),
        ]);
        Self {
            row: row.name,
            congestion: Some(congestion.to_owned()),
            title: format!("{}, {congestion}: {}", row.name, row.says),
            columns,
            lines,
            json,
            plot,
        }
    }

    /// Its name among those of a run.
    pub(super) fn name(&self) -> String {
        match &self.congestion {
            Some(congestion) => format!("{}-{congestion}", self.row),
            None => self.row.to_owned(),
        }
    }

    /// The table with aligned columns, which is legal Markdown too.
    pub(super) fn text(&self) -> String {
        let all: Vec<&Vec<String>> = std::iter::once(&self.columns).chain(&self.lines).collect();
        let width = |column: usize| all.iter().map(|line| line[column].chars().count()).max().unwrap_or_default();
        let widths: Vec<usize> = (0..self.columns.len()).map(width).collect();
        let row = |line: &Vec<String>| {
            let cells = line.iter().zip(&widths).enumerate().map(|(column, (cell, &width))| {
                if column == 0 { format!("{cell:<width$}") } else { format!("{cell:>width$}") }
            });
            format!("| {} |\n", cells.collect::<Vec<_>>().join(" | "))
        };
        let rule = widths
            .iter()
            .enumerate()
            .map(|(column, &width)| if column == 0 { "-".repeat(width + 2) } else { "-".repeat(width + 1) + ":" });
        let rule = format!("|{}|\n", rule.collect::<Vec<_>>().join("|"));
        format!("### {}\n\n{}{rule}{}", self.title, row(&self.columns), self.lines.iter().map(row).collect::<String>())
    }
}

/// Three significant digits.
pub(super) fn figure(value: f64) -> String {
    match value.abs() {
        size if size >= 99.95 => format!("{value:.0}"),
        size if size >= 9.995 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

fn spread(spread: Spread) -> Value {
    json!({ "median": spread.median, "least": spread.least, "most": spread.most })
}

#[cfg(test)]
mod tests {
    use super::figure;

    #[test]
    fn figures_have_three_significant_digits() {
        assert_eq!([0.123, 9.99, 9.996, 12.34, 1234.5].map(figure), ["0.12", "9.99", "10.0", "12.3", "1234"]);
    }
}

//! What grows with what: the same costs at several sizes, and the order in which they grow.

mod endpoints;
mod mesh;
mod pods;
mod policies;
mod workers;

use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

use super::Outcome;
use super::contender::Programs;
use super::fit::Fit;
use super::measure::Spread;
use super::plot::{Line, Lines, Plot};
use super::row::Row;
use super::table::{Table, figure, in_turns};
pub(super) use policies::Mix;

/// What grows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Growth {
    /// The mesh that a ztunnel hears of.
    Mesh,
    /// The services of that mesh.
    Services,
    /// The policies of a destination's namespace.
    Policies(Mix),
    /// The endpoints of a service.
    Endpoints,
    /// The pods of a node.
    Pods,
    /// The worker threads.
    Workers,
}

/// After this, whatever a start needed for itself has been given back.
const SETTLE: Duration = Duration::from_secs(2);
/// Longest turn of a load: there is one for every size.
const LONGEST: u32 = 3;

/// All costs of one round, size by size.
type Costs<const N: usize> = Vec<[f64; N]>;

/// Measures a row.
pub(super) fn table(growth: Growth, row: &Row, programs: &Programs, rounds: u32, seconds: u32) -> Outcome<Table> {
    let seconds = seconds.min(LONGEST);
    match growth {
        Growth::Mesh => mesh::workloads(row, programs, rounds),
        Growth::Services => mesh::services(row, programs, rounds),
        Growth::Policies(mix) => policies::table(mix, row, programs, rounds, seconds),
        Growth::Endpoints => endpoints::table(row, programs, rounds, seconds),
        Growth::Pods => pods::table(row, programs, rounds),
        Growth::Workers => workers::table(row, programs, rounds, seconds),
    }
}

/// What is measured at which sizes.
struct Plan<const N: usize> {
    /// What the sizes count.
    of: &'static str,
    sizes: &'static [u32],
    costs: [&'static str; N],
}

impl<const N: usize> Plan<N> {
    /// As [`Plan::measure`], with a run for each size.
    fn measure_each(
        &self,
        row: &Row,
        programs: &Programs,
        rounds: u32,
        once: impl Fn(&Path, u32) -> Outcome<[f64; N]>,
    ) -> Outcome<Table> {
        self.measure(row, programs, rounds, |program| {
            let one = |&size: &u32| {
                eprintln!("{}: {size} {}", row.name, self.of);
                once(program, size).map_err(|error| format!("{} with {size} {}: {error}", row.name, self.of).into())
            };
            self.sizes.iter().map(one).collect()
        })
    }

    /// The costs by size in the middle of all rounds, of every build, where `once` says those of one round.
    fn measure(
        &self,
        row: &Row,
        programs: &Programs,
        rounds: u32,
        once: impl Fn(&Path) -> Outcome<Costs<N>>,
    ) -> Outcome<Table> {
        let all = in_turns(row, programs, rounds, once)?;
        let (mut lines, mut contenders) = (Vec::new(), Vec::new());
        let panel = |what: &&str| Lines { title: (*what).to_owned(), of: self.of, lines: Vec::new() };
        let mut panels: Vec<Lines> = self.costs.iter().map(panel).collect();
        for (name, rounds) in &all {
            let mut grown = Vec::new();
            for (cost, what) in self.costs.iter().enumerate() {
                let at = |size: usize| Spread::of(rounds.iter().map(|round| round[size][cost]));
                let spreads: Vec<Spread> = (0..self.sizes.len()).map(at).collect();
                let (line, json) = self.line(name, what, &spreads);
                panels[cost].lines.push(self.drawn(name, &spreads));
                lines.push(line);
                grown.push(json);
            }
            let rounds: Vec<Vec<&[f64]>> =
                rounds.iter().map(|round| round.iter().map(|costs| &costs[..]).collect()).collect();
            contenders.push(json!({ "contender": name, "costs": grown, "rounds": rounds }));
        }
        let sizes = self.sizes.iter().map(|size| format!("{} {}", grouped(*size), self.of));
        let columns = std::iter::once(String::new()).chain(sizes).chain(["order".to_owned()]).collect();
        Ok(Table {
            row: row.name,
            congestion: None,
            title: format!("{}: {}", row.name, row.says),
            columns,
            lines,
            json: json!({ "of": self.of, "sizes": self.sizes, "contenders": contenders }),
            plot: Plot::Lines(panels),
        })
    }

    fn fit(&self, spreads: &[Spread]) -> Option<Fit> {
        let sizes = self.sizes.iter().map(|size| f64::from(*size));
        Fit::of(&sizes.zip(spreads.iter().map(|spread| spread.median)).collect::<Vec<_>>())
    }

    fn drawn(&self, contender: &str, spreads: &[Spread]) -> Line {
        let order = self.fit(spreads).map_or_else(String::new, |fit| format!(": {}", fit.text()));
        let points = self.sizes.iter().map(|size| f64::from(*size)).zip(spreads.iter().copied()).collect();
        Line { says: format!("{contender}{order}"), points }
    }

    fn line(&self, contender: &str, what: &str, spreads: &[Spread]) -> (Vec<String>, Value) {
        let medians: Vec<f64> = spreads.iter().map(|spread| spread.median).collect();
        let fit = self.fit(spreads);
        let mut line = vec![format!("{contender}: {what}")];
        line.extend(medians.iter().map(|cost| figure(*cost)));
        line.push(fit.map_or_else(String::new, Fit::text));
        let json = json!({
            "cost": what,
            "medians": medians,
            "least": spreads.iter().map(|spread| spread.least).collect::<Vec<_>>(),
            "most": spreads.iter().map(|spread| spread.most).collect::<Vec<_>>(),
            "exponent": fit.map(|fit| fit.exponent),
            "order": fit.map(|fit| fit.order.name()),
        });
        (line, json)
    }
}

/// With a comma between thousands.
fn grouped(number: u32) -> String {
    match number {
        0..1_000 => number.to_string(),
        _ => format!("{},{:03}", grouped(number / 1_000), number % 1_000),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_sizes_have_a_comma_between_thousands() {
        assert_eq!([0, 999, 1_000, 100_000, 1_000_050].map(grouped), ["0", "999", "1,000", "100,000", "1,000,050"]);
    }

    #[test]
    fn a_line_has_the_middle_at_every_size_and_the_order_in_which_it_grows() {
        let plan = Plan { of: "pods", sizes: &[1, 10, 100], costs: ["KiB"] };
        let spreads = [2.0, 20.0, 200.0].map(|cost| Spread::of([cost / 2.0, cost, cost * 3.0]));
        let (line, json) = plan.line("ztunnel", "KiB", &spreads);
        assert_eq!(line, ["ztunnel: KiB", "2.00", "20.0", "200", "n^1.00, linear"]);
        assert_eq!(json["most"], json!([6.0, 60.0, 600.0]));
        assert_eq!(plan.drawn("ztunnel", &spreads).says, "ztunnel: n^1.00, linear");
    }
}

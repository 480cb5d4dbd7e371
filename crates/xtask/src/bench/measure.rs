//! Figures: what single turns came to, and what is made of several.

use super::Outcome;
use super::contender::{Contender, Stage};
use super::load::{Done, Load};
use super::process::{Machine, cpu_seconds};

/// One turn of one contender.
#[derive(Debug, Clone, Copy)]
pub(super) struct Turn {
    /// Gb/s, or thousands per second.
    pub(super) rate: f64,
    /// CPU of the proxy at the client: seconds per GB, or µs each; 0 without a proxy.
    pub(super) near: f64,
    /// As `near`, at the server.
    pub(super) far: f64,
    /// Part of the machine that others used meanwhile.
    pub(super) elsewhere: f64,
}

impl Turn {
    pub(super) fn both(&self) -> f64 {
        self.near + self.far
    }
}

/// What figures of a load are counted in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unit {
    Bytes,
    Pieces,
}

impl Unit {
    pub(super) fn of(load: Load) -> Self {
        match load {
            Load::Upload { .. } | Load::Download { .. } => Unit::Bytes,
            Load::Requests { .. } | Load::Connections { .. } => Unit::Pieces,
        }
    }

    pub(super) fn rate(self) -> &'static str {
        match self {
            Unit::Bytes => "Gb/s",
            Unit::Pieces => "k/s",
        }
    }

    pub(super) fn cost(self) -> &'static str {
        match self {
            Unit::Bytes => "CPU s/GB",
            Unit::Pieces => "CPU µs each",
        }
    }

    fn turn(self, done: Done, near: f64, far: f64, elsewhere: f64) -> Turn {
        let (rate, cost) = match self {
            Unit::Bytes => (8e-9, 1e9),
            Unit::Pieces => (1e-3, 1e6),
        };
        let each = cost / done.amount.max(1.0);
        Turn { rate: done.amount / done.seconds.max(1e-9) * rate, near: near * each, far: far * each, elsewhere }
    }
}

/// Has a contender take a turn.
pub(super) fn take(stage: &Stage, contender: &Contender, load: Load, seconds: u32) -> Outcome<Turn> {
    let (near, far) = (stage.party(contender.near)?, stage.party(contender.far)?);
    let proxies = [near.near_pid(), far.far_pid()];
    let cpu = || -> Outcome<[f64; 2]> {
        let [near, far] = proxies.map(|pid| pid.map_or(Ok(0.0), cpu_seconds));
        Ok([near?, far?])
    };
    let machine = Machine::now()?;
    let before = cpu()?;
    let done = load.run(&near.client, &far.server, seconds)?;
    let after = cpu()?;
    let elsewhere = Machine::now()?.elsewhere(&machine);
    Ok(Unit::of(load).turn(done, after[0] - before[0], after[1] - before[1], elsewhere))
}

/// Middle, smallest and largest of some figures.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Spread {
    pub(super) median: f64,
    pub(super) least: f64,
    pub(super) most: f64,
}

impl Spread {
    /// Of no figures: zeros.
    pub(super) fn of(figures: impl IntoIterator<Item = f64>) -> Self {
        let mut sorted: Vec<f64> = figures.into_iter().collect();
        sorted.sort_by(f64::total_cmp);
        let (Some(&least), Some(&most)) = (sorted.first(), sorted.last()) else {
            return Self { median: 0.0, least: 0.0, most: 0.0 };
        };
        let middle = sorted.len() / 2;
        let median = if sorted.len().is_multiple_of(2) {
            f64::midpoint(sorted[middle - 1], sorted[middle])
        } else {
            sorted[middle]
        };
        Self { median, least, most }
    }
}

/// All turns of one contender in one row.
#[derive(Debug, Clone)]
pub(super) struct Series {
    pub(super) contender: Contender,
    pub(super) turns: Vec<Turn>,
}

impl Series {
    pub(super) fn spread(&self, figure: impl Fn(&Turn) -> f64) -> Spread {
        Spread::of(self.turns.iter().map(figure))
    }

    /// The middle of the ratios that the turns of each round have: drift of the machine between rounds cancels out.
    pub(super) fn ratio(&self, other: &Series, figure: impl Fn(&Turn) -> f64) -> Option<f64> {
        let pairs = self.turns.iter().zip(&other.turns);
        let ratios: Vec<f64> =
            pairs.map(|(own, others)| figure(own) / figure(others)).filter(|ratio| ratio.is_finite()).collect();
        if ratios.is_empty() { None } else { Some(Spread::of(ratios).median) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::contender::TUNNELS;

    fn series(rates: &[f64]) -> Series {
        let turns = rates.iter().map(|&rate| Turn { rate, near: 0.0, far: 0.0, elsewhere: 0.0 }).collect();
        Series { contender: TUNNELS[0], turns }
    }

    #[test]
    fn the_middle_of_an_even_number_is_between_the_two_in_the_middle() {
        assert_eq!(Spread::of([4.0, 1.0, 2.0, 8.0]), Spread { median: 3.0, least: 1.0, most: 8.0 });
    }

    #[test]
    fn ratios_are_of_turns_in_the_same_round() {
        // The machine was half as fast in the second round.
        let (fast, slow) = (series(&[20.0, 10.0, 20.0]), series(&[10.0, 5.0, 10.0]));
        assert_eq!(fast.ratio(&slow, |turn| turn.rate), Some(2.0));
        assert_eq!(fast.ratio(&slow, |turn| turn.near), None, "nothing can be compared with nothing");
    }
}

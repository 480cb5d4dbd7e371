//! Which connections have a line: the operator's choice, besides the level of the log.
//!
//! Metrics, and what the admin server shows, are of all connections whatever is chosen here.

use std::time::Duration;

use mesh::{Direction, Flow, Record, Reporter};

/// Parts of a whole in which samples are told: hundredths of a percent.
const WHOLE: u32 = 10_000;

/// What the operator chose. By default every connection has a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filter {
    /// Whether connections that ended well have a line.
    pub wells: Wells,
    /// Connections that were shorter and ended well have none.
    pub at_least: Duration,
    /// Connections of the other direction have none.
    pub direction: Option<Direction>,
    /// Unless it is empty: connections of which neither side is in one of these have none.
    pub namespaces: Vec<String>,
    /// Which part of those that ended well has a line.
    pub sample: Sample,
}

/// Whether connections that ended well are logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wells {
    /// They are.
    Logged,
    /// Only failures are.
    Left,
}

/// A part of all connections, in hundredths of a percent. Both ends of a connection are in it or neither is, for what
/// decides is the id that they share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sample(u32);

impl Sample {
    /// All connections.
    pub const ALL: Self = Self(WHOLE);

    /// Reads a percentage such as `2.5`, with two places at the most.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn percent(text: &str) -> Result<Self, String> {
        let (whole, part) = text.split_once('.').unwrap_or((text, ""));
        let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
        let wrong = || "expected a percentage from 0 to 100, such as 2.5".to_owned();
        if whole.is_empty() || part.len() > 2 || !digits(whole) || !digits(part) {
            return Err(wrong());
        }
        let hundredths: u32 = format!("{whole}{part:0<2}").parse().map_err(|_| wrong())?;
        if hundredths > WHOLE { Err(wrong()) } else { Ok(Self(hundredths)) }
    }

    fn takes(self, flow: &Flow) -> bool {
        // Ids are random; their low bits as much as any.
        let place = flow.trace.0 % u128::from(WHOLE);
        place < u128::from(self.0)
    }
}

impl Default for Filter {
    fn default() -> Self {
        let (at_least, direction, namespaces) = (Duration::ZERO, None, Vec::new());
        Self { wells: Wells::Logged, at_least, direction, namespaces, sample: Sample::ALL }
    }
}

impl Filter {
    /// Whether a connection that ended has a line.
    pub(in crate::telemetry) fn takes(&self, record: &Record) -> bool {
        let well = record.outcome.error().is_none();
        let enough = self.wells == Wells::Logged && record.duration >= self.at_least && self.sample.takes(&record.flow);
        (enough || !well) && self.is_about(&record.flow)
    }

    /// Whether the opening of a connection has a line, when it is not known yet how it ends.
    pub(in crate::telemetry) fn takes_opening(&self, flow: &Flow) -> bool {
        self.wells == Wells::Logged && self.at_least.is_zero() && self.sample.takes(flow) && self.is_about(flow)
    }

    /// Whether a direction is logged.
    pub(in crate::telemetry) fn takes_direction(&self, direction: Direction) -> bool {
        self.direction.is_none_or(|wanted| wanted == direction)
    }

    fn is_about(&self, flow: &Flow) -> bool {
        let reporter: Reporter = flow.reporter;
        let sides = [&flow.source.namespace, &flow.destination.namespace];
        let named = |namespace: &String| sides.iter().any(|side| side.as_deref() == Some(namespace));
        self.takes_direction(reporter.direction()) && (self.namespaces.is_empty() || self.namespaces.iter().any(named))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use mesh::connect::TraceId;
    use mesh::{Cause, Outcome, Tally};

    use super::*;
    use crate::telemetry::fixtures::{inbound, outbound};

    fn record(flow: Flow, outcome: Outcome) -> Record {
        Record {
            flow: Arc::new(flow),
            tally: Tally::default(),
            duration: Duration::from_millis(5),
            outcome,
            decided: None,
        }
    }

    fn failed() -> Outcome {
        Outcome::failed(Cause::Denied, "no".into())
    }

    #[test]
    fn without_a_choice_everything_is_logged() {
        let filter = Filter::default();
        assert!(filter.takes(&record(outbound(), Outcome::Complete)) && filter.takes_opening(&inbound()));
    }

    #[test]
    fn what_ended_well_can_be_left_out_and_what_failed_cannot() {
        for filter in [
            Filter { wells: Wells::Left, ..Filter::default() },
            Filter { at_least: Duration::from_millis(6), ..Filter::default() },
            Filter { sample: Sample(0), ..Filter::default() },
        ] {
            assert!(!filter.takes(&record(outbound(), Outcome::Complete)), "{filter:?}");
            assert!(filter.takes(&record(outbound(), failed())), "{filter:?}");
            assert!(!filter.takes_opening(&outbound()), "{filter:?}");
        }
        let filter = Filter { at_least: Duration::from_millis(5), ..Filter::default() };
        assert!(filter.takes(&record(outbound(), Outcome::Complete)));
    }

    #[test]
    fn directions_and_namespaces_hold_for_failures_too() {
        let filter = Filter { direction: Some(Direction::Inbound), ..Filter::default() };
        assert!(!filter.takes(&record(outbound(), failed())) && filter.takes(&record(inbound(), failed())));
        let mut elsewhere = outbound();
        elsewhere.destination.namespace = Some("shop".into());
        let filter = Filter { namespaces: vec!["shop".into(), "bank".into()], ..Filter::default() };
        assert!(!filter.takes(&record(outbound(), failed())) && filter.takes(&record(elsewhere, failed())));
    }

    #[test]
    fn a_sample_is_of_its_size() {
        let filter = Filter { sample: Sample::percent("2.5").unwrap(), ..Filter::default() };
        let flow = |id: u128| Flow { trace: TraceId(id), ..outbound() };
        let taken = (0..10_000).filter(|id| filter.takes_opening(&flow(id * 7919))).count();
        assert_eq!(taken, 250);
    }

    #[test]
    fn percentages_are_read_or_refused() {
        for (text, hundredths) in [("0", 0), ("100", 10_000), ("0.05", 5), ("2.5", 250), ("1.", 100)] {
            assert_eq!(Sample::percent(text), Ok(Sample(hundredths)), "{text}");
        }
        for text in ["", "-1", "101", "1e1", "0.001", "half", "99999999999999999999"] {
            assert!(Sample::percent(text).is_err(), "{text}");
        }
    }
}

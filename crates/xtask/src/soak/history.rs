//! What happened when, and what of the rest it explains.
//!
//! Times count from the beginning of the run. It has no clock: it is told what time it is.

use std::collections::BTreeMap;
use std::time::Duration;

use super::faults::{Kind, Toll};

/// From when it was brought about until it was undone, if it was.
#[derive(Debug)]
struct Happened {
    kind: Kind,
    from: Duration,
    until: Option<Duration>,
}

impl Happened {
    /// Whether it, or its aftermath, was there at any time of a span.
    fn meets(&self, from: Duration, until: Duration) -> bool {
        self.from <= until && self.until.is_none_or(|undone| from <= undone + self.kind.profile().aftermath)
    }
}

/// The faults of a run, in order.
#[derive(Debug, Default)]
pub(super) struct History(Vec<Happened>);

impl History {
    pub(super) fn begin(&mut self, kind: Kind, at: Duration) {
        self.0.push(Happened { kind, from: at, until: None });
    }

    /// The last one is over.
    pub(super) fn undone(&mut self, at: Duration) {
        if let Some(last) = self.0.last_mut() {
            last.until = Some(at);
        }
    }

    /// A fault because of which a connection of that time may have gone otherwise than it should.
    pub(super) fn explains_end(&self, opened: Duration, ended: Duration) -> Option<Kind> {
        self.find(opened, ended, |kind| kind.profile().toll == Toll::Breaks)
    }

    /// A fault because of which a line at level error may have been logged.
    pub(super) fn explains_error(&self, line: &str, at: Duration) -> Option<Kind> {
        self.find(at, at, |kind| kind.may_log(line))
    }

    /// Whether connections may have been broken since then.
    pub(super) fn broke_any(&self) -> bool {
        self.0.iter().any(|happened| happened.kind.profile().toll == Toll::Breaks)
    }

    /// Whether a link was cut at any time of a span, or had been shortly before.
    pub(super) fn cut(&self, from: Duration, until: Duration) -> bool {
        self.find(from, until, |kind| kind == Kind::LinkCut).is_some()
    }

    /// How often each kind happened.
    pub(super) fn counts(&self) -> BTreeMap<Kind, u64> {
        let mut counts = BTreeMap::new();
        self.0.iter().for_each(|happened| *counts.entry(happened.kind).or_default() += 1);
        counts
    }

    /// The latest of those that meet the span.
    fn find(&self, from: Duration, until: Duration, may: impl Fn(Kind) -> bool) -> Option<Kind> {
        let mut met = self.0.iter().rev().filter(|happened| happened.meets(from, until));
        met.find(|happened| may(happened.kind)).map(|happened| happened.kind)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn second(number: u64) -> Duration {
        Duration::from_secs(number)
    }

    fn history() -> History {
        let mut history = History::default();
        history.begin(Kind::ZtunnelKilled, second(100));
        history.undone(second(103));
        history.begin(Kind::CaRefuses, second(200));
        history.undone(second(205));
        history
    }

    #[test]
    fn a_connection_that_met_a_fault_which_breaks_connections_is_explained() {
        assert_eq!(history().explains_end(second(90), second(101)), Some(Kind::ZtunnelKilled));
        assert_eq!(history().explains_end(second(90), second(150)), Some(Kind::ZtunnelKilled));
        assert_eq!(history().explains_end(second(101), second(102)), Some(Kind::ZtunnelKilled));
    }

    #[test]
    fn one_that_ended_before_or_began_after_the_aftermath_is_not() {
        assert_eq!(history().explains_end(second(90), second(99)), None);
        let after = second(103) + Kind::ZtunnelKilled.profile().aftermath;
        assert!(history().explains_end(after, after).is_some());
        assert_eq!(history().explains_end(after + second(1), after + second(9)), None);
    }

    #[test]
    fn a_fault_that_breaks_no_connection_explains_none() {
        assert_eq!(history().explains_end(second(199), second(206)), None);
    }

    #[test]
    fn a_fault_that_is_not_undone_yet_explains_on() {
        let mut history = history();
        history.begin(Kind::LinkCut, second(300));
        assert_eq!(history.explains_end(second(310), second(900)), Some(Kind::LinkCut));
    }

    #[test]
    fn a_cut_is_one_until_its_aftermath_is_over() {
        let mut history = history();
        history.begin(Kind::LinkCut, second(300));
        history.undone(second(304));
        assert!(!history.cut(second(100), second(299)));
        assert!(history.cut(second(299), second(301)));
        let after = second(304) + Kind::LinkCut.profile().aftermath;
        assert!(history.cut(after, second(900)));
        assert!(!history.cut(after + second(1), second(900)));
    }

    #[test]
    fn an_error_is_explained_only_if_the_fault_of_that_time_names_it() {
        let lost = "error\taccess\tconnection complete\treason=\"tunnel-lost\"";
        assert_eq!(history().explains_error(lost, second(102)), Some(Kind::ZtunnelKilled));
        assert_eq!(history().explains_error(lost, second(99)), None);
        assert_eq!(history().explains_error(lost, second(201)), None);
        assert_eq!(history().explains_error("error\txds\tout of memory", second(102)), None);
    }
}

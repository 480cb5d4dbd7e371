//! Answers that the agent is owed, in the order of its requests.
//!
//! Acknowledgements carry no id, so that their order is all that tells which request they are for (spec in-pod 2). Only
//! the first is ever waited for: what it waits for goes on by itself, and so do the waits behind it.

use std::collections::VecDeque;
use std::future::{Future, pending};
use std::pin::Pin;

/// Requests that may be carried out and not answered. The agent that there is sends one at a time; one that sends more
/// waits in its socket beyond this.
const MOST: usize = 64;

/// What came of a request.
pub(super) type Outcome = Result<(), String>;

/// An answer, and what it waits for.
pub(super) struct Answer {
    until: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
    outcome: Outcome,
}

impl Answer {
    /// To be given as soon as it is its turn.
    pub(super) fn now(outcome: Outcome) -> Self {
        Self { until: None, outcome }
    }

    /// Success, told when `until` is over; that has to have a bound.
    pub(super) fn after(until: impl Future<Output = ()> + Send + 'static) -> Self {
        Self { until: Some(Box::pin(until)), outcome: Ok(()) }
    }
}

/// Answers that are owed, the oldest first.
#[derive(Default)]
pub(super) struct Answers(VecDeque<Answer>);

impl Answers {
    pub(super) fn has_room(&self) -> bool {
        self.0.len() < MOST
    }

    pub(super) fn owe(&mut self, answer: Answer) {
        self.0.push_back(answer);
    }

    /// The next answer once it is due; never while none is owed. Loses nothing when it is dropped.
    pub(super) async fn due(&mut self) -> Outcome {
        let Some(first) = self.0.front_mut() else { return pending().await };
        if let Some(until) = &mut first.until {
            until.await;
            first.until = None;
        }
        self.0.pop_front().map_or_else(|| Ok(()), |answer| answer.outcome)
    }

    /// All that are owed, without waiting.
    pub(super) fn all_at_once(&mut self) -> impl Iterator<Item = Outcome> {
        self.0.drain(..).map(|answer| answer.outcome)
    }
}

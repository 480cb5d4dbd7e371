//! Requests that a peer has taken and does not answer.
//!
//! A connection that could be carried elsewhere waits for its answer no longer than one of its attempts may take.
//! Invariant: one of which anything has been sent along with its request stays where it is, since those bytes may have
//! arrived.

use std::time::Instant;

use slab::Slab;

use super::streams::AppStream;

/// When to look for them.
#[derive(Debug, Default)]
pub(super) struct Unanswered {
    /// None while nobody waits who could go elsewhere.
    next_look: Option<Instant>,
}

impl Unanswered {
    pub(super) fn next_look(&self) -> Option<Instant> {
        self.next_look
    }

    /// A stream has had its turn: if that was the first of its request, the time for an answer begins.
    pub(super) fn watch(&mut self, stream: &mut AppStream) {
        let waits = stream.pursuit().filter(|_| stream.answer_by.is_none());
        let Some(patience) = waits.and_then(|(pursuit, permit)| pursuit.patience_for_answer(permit)) else { return };
        let by = Instant::now() + patience;
        stream.answer_by = Some(by);
        self.look_at(by);
    }

    /// The streams whose time is up.
    pub(super) fn late(&mut self, streams: &Slab<AppStream>, now: Instant) -> Vec<usize> {
        self.next_look = None;
        let mut late = Vec::new();
        for (slot, stream) in streams {
            match stream.answer_by.filter(|_| stream.pursuit().is_some()) {
                Some(by) if by <= now => late.push(slot),
                Some(by) => self.look_at(by),
                None => {}
            }
        }
        late
    }

    fn look_at(&mut self, at: Instant) {
        self.next_look = Some(self.next_look.map_or(at, |next| next.min(at)));
    }
}

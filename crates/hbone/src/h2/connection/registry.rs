//! Which streams live, and which lived lately.
//!
//! Invariant: a stream lives from [`insert`](Registry::insert) until it is reset or both halves have ended, and takes no
//! memory afterwards but a place in one of two bounded lists. All streams are the client's, since push is refused.
//!
//! An ordered map: identifiers are chosen by the peer, and a tree needs neither secret nor luck against bad choices.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;

use crate::h2::allowance::Allowance;
use crate::h2::stream::{State, Stream, StreamId};
use crate::limits::{REMEMBERED_ENDS, REMEMBERED_RESETS};

/// What is known about a stream identifier.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Never used, or not usable (even).
    Idle,
    /// Open or half-closed.
    Live,
    /// This side reset it lately: the peer may not know yet.
    Reset,
    /// The peer ended or reset it lately: it knows.
    Ended,
    /// It is closed, and nobody remembers how; or the client skipped it.
    Forgotten,
}

/// All streams of a connection.
#[derive(Debug, Default)]
pub struct Registry {
    live: BTreeMap<StreamId, Stream>,
    /// The highest identifier ever used.
    highest: StreamId,
    /// The highest identifier whose request was accepted.
    accepted: StreamId,
    resets: VecDeque<StreamId>,
    ends: VecDeque<StreamId>,
    /// Streams whose WINDOW_UPDATE waits; each at most once, as its `update_queued` says.
    updates: Vec<StreamId>,
    /// What the windows of all streams may be beyond their first size, which is taken from `allowance`.
    extra: usize,
    allowance: Option<Allowance>,
}

impl Registry {
    pub fn len(&self) -> usize {
        self.live.len()
    }

    pub fn get(&self, id: StreamId) -> Option<&Stream> {
        self.live.get(&id)
    }

    pub fn get_mut(&mut self, id: StreamId) -> Option<&mut Stream> {
        self.live.get_mut(&id)
    }

    pub fn all_with_ids_mut(&mut self) -> impl Iterator<Item = (StreamId, &mut Stream)> {
        self.live.iter_mut().map(|(id, stream)| (*id, stream))
    }

    pub fn all_mut(&mut self) -> impl Iterator<Item = &mut Stream> {
        self.live.values_mut()
    }

    pub fn standing(&self, id: StreamId) -> Standing {
        if !id.is_client_initiated() || id > self.highest {
            Standing::Idle
        } else if self.live.contains_key(&id) {
            Standing::Live
        } else if self.resets.contains(&id) {
            Standing::Reset
        } else if self.ends.contains(&id) {
            Standing::Ended
        } else {
            Standing::Forgotten
        }
    }

    /// The identifier a client uses next; `None` if all are used up.
    pub fn next_id(&self) -> Option<StreamId> {
        let next = if self.highest.is_connection() { 1 } else { self.highest.value().checked_add(2)? };
        (next <= StreamId::MAX.value()).then_some(StreamId::new(next))
    }

    /// Marks an identifier as used. All lower ones are no longer idle (RFC 9113 §5.1.1).
    pub fn use_id(&mut self, id: StreamId) {
        self.highest = self.highest.max(id);
    }

    pub fn insert(&mut self, id: StreamId, stream: Stream) {
        self.use_id(id);
        self.live.insert(id, stream);
    }

    /// A server has accepted the request on this stream.
    pub fn accept(&mut self, id: StreamId) {
        self.accepted = self.accepted.max(id);
    }

    /// What a GOAWAY names: the highest of the peer's streams that was worked on.
    pub fn last_accepted(&self) -> StreamId {
        self.accepted
    }

    /// Changes a stream's state, and forgets it if it is closed thereby.
    pub fn advance(&mut self, id: StreamId, state: State) {
        if state.is_closed() {
            if self.take_out(id).is_some() {
                remember(&mut self.ends, id, REMEMBERED_ENDS);
            }
        } else if let Some(stream) = self.live.get_mut(&id) {
            stream.state = state;
        }
    }

    /// Forgets a stream that this side resets, for the first time; frames of the peer may still be under way.
    pub fn reset(&mut self, id: StreamId) -> Option<Stream> {
        remember(&mut self.resets, id, REMEMBERED_RESETS);
        self.take_out(id)
    }

    /// Forgets a stream that the peer has reset.
    pub fn reset_by_peer(&mut self, id: StreamId) -> Option<Stream> {
        let stream = self.take_out(id)?;
        remember(&mut self.ends, id, REMEMBERED_ENDS);
        Some(stream)
    }

    /// Forgets all streams above `last`, which the peer will not work on, and names them.
    pub fn abandon_above(&mut self, last: StreamId) -> impl Iterator<Item = StreamId> {
        let above = (Bound::Excluded(last), Bound::Unbounded);
        let abandoned: Vec<StreamId> = self.live.range(above).map(|(id, _)| *id).collect();
        for id in &abandoned {
            self.take_out(*id);
        }
        abandoned.into_iter()
    }

    pub fn clear(&mut self) {
        self.live.clear();
        self.updates = Vec::new();
        self.give_back(self.extra);
    }

    fn take_out(&mut self, id: StreamId) -> Option<Stream> {
        let stream = self.live.remove(&id)?;
        self.give_back(stream.pace.extra as usize);
        Some(stream)
    }

    /// From now on larger windows are taken from `allowance`.
    pub fn draw_on(&mut self, allowance: Allowance) {
        debug_assert_eq!(self.extra, 0);
        self.allowance = Some(allowance);
    }

    /// What the windows of all streams may be beyond their first size.
    pub fn extra(&self) -> usize {
        self.extra
    }

    /// Lets a stream's window grow by `more`, if the allowance has as much. Returns whether it has.
    pub fn grant(&mut self, id: StreamId, more: u32) -> bool {
        let Some(stream) = self.live.get_mut(&id) else { return false };
        if self.allowance.as_ref().is_some_and(|allowance| !allowance.take(more as usize)) {
            return false;
        }
        stream.enlarge(more);
        self.extra += more as usize;
        true
    }

    /// Makes the windows of quiet streams as small as they were `first`.
    pub fn revoke(&mut self, first: u32) {
        let less: usize = self.live.values_mut().map(|stream| stream.calm_down(first) as usize).sum();
        self.give_back(less);
    }

    fn give_back(&mut self, n: usize) {
        self.extra -= n;
        if let Some(allowance) = &self.allowance {
            allowance.give(n);
        }
    }

    /// Notes that a stream's window may have to be announced, if so.
    pub fn queue_update(&mut self, id: StreamId) {
        if let Some(stream) = self.live.get_mut(&id)
            && !stream.update_queued
            && stream.wants_update()
        {
            stream.update_queued = true;
            self.updates.push(id);
        }
    }

    pub fn has_updates(&self) -> bool {
        self.updates.iter().any(|id| self.live.get(id).is_some_and(Stream::wants_update))
    }

    /// Takes all increments that are due.
    pub fn drain_updates(&mut self, mut write: impl FnMut(StreamId, u32)) {
        for id in self.updates.drain(..) {
            let Some(stream) = self.live.get_mut(&id) else { continue };
            stream.update_queued = false;
            if stream.wants_update()
                && let Some(increment) = stream.receive.take_update()
            {
                write(id, increment);
            }
        }
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.give_back(self.extra);
    }
}

fn remember(list: &mut VecDeque<StreamId>, id: StreamId, limit: usize) {
    if list.len() >= limit {
        list.pop_front();
    }
    list.push_back(id);
}

//! Whose turn it is to fill a batch.
//!
//! Bulk is moved in pieces as large as a batch has room for, since a piece costs as much as a smaller one, here, in the kernel
//! and at the other end. Whoever has little to say does not wait for many of them: it goes first, as long as bulk gets at least
//! half of each batch.

use std::collections::VecDeque;

use hbone::BATCH;

/// What a stream whose messages are brief may send in its turn, if others wait; one that has as much is bulk from then on.
pub(super) const BRIEF: usize = 64 * 1024;
/// Of each batch, what is kept for bulk if there is any.
const RESERVED: usize = BATCH / 2;

/// How much a stream has to say.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Talk {
    /// Less than [`BRIEF`] at a time, or it is not known.
    #[default]
    Brief,
    /// More.
    Bulk,
}

/// Streams that may have something to send, by their slots, each at most once.
#[derive(Debug, Default)]
pub(super) struct Ring {
    brief: VecDeque<usize>,
    bulk: VecDeque<usize>,
}

impl Ring {
    /// Whether it is nobody's turn.
    pub(super) fn is_empty(&self) -> bool {
        self.brief.is_empty() && self.bulk.is_empty()
    }

    /// It is the stream's turn after those of its kind.
    pub(super) fn push(&mut self, slot: usize, talk: Talk) {
        self.queue(talk).push_back(slot);
    }

    /// It is the stream's turn again before all others of its kind.
    pub(super) fn put_back(&mut self, slot: usize, talk: Talk) {
        self.queue(talk).push_front(slot);
    }

    /// The stream has ended.
    pub(super) fn remove(&mut self, slot: usize) {
        self.brief.retain(|other| *other != slot);
        self.bulk.retain(|other| *other != slot);
    }

    /// Whose turn it is in a batch that has `room` left, and how much the stream may send.
    pub(super) fn next(&mut self, room: usize) -> Option<(usize, usize)> {
        let kept = if self.bulk.is_empty() { 0 } else { RESERVED };
        if room > kept
            && let Some(slot) = self.brief.pop_front()
        {
            return Some((slot, if self.is_empty() { room } else { BRIEF }));
        }
        Some((self.bulk.pop_front()?, room))
    }

    fn queue(&mut self, talk: Talk) -> &mut VecDeque<usize> {
        match talk {
            Talk::Brief => &mut self.brief,
            Talk::Bulk => &mut self.bulk,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Fills a batch from those whose turn it is, each taking all that it may; tells who has got how much.
    fn batch(ring: &mut Ring) -> Vec<(usize, usize)> {
        let mut room = BATCH;
        let mut all = Vec::new();
        while room > 0
            && let Some((slot, limit)) = ring.next(room)
        {
            let taken = limit.min(room);
            room -= taken;
            all.push((slot, taken));
        }
        all
    }

    #[test]
    fn whoever_is_alone_gets_all_there_is() {
        let mut ring = Ring::default();
        ring.push(1, Talk::Brief);
        assert_eq!(batch(&mut ring), [(1, BATCH)]);
        ring.push(1, Talk::Bulk);
        assert_eq!(batch(&mut ring), [(1, BATCH)]);
        assert!(ring.is_empty());
    }

    #[test]
    fn bulk_takes_turns_and_each_takes_all_the_room_that_is_left() {
        let mut ring = Ring::default();
        (1..=4).for_each(|slot| ring.push(slot, Talk::Bulk));
        assert_eq!(batch(&mut ring), [(1, BATCH)]);
        ring.push(1, Talk::Bulk);
        ring.remove(3);
        assert_eq!(ring.next(BATCH), Some((2, BATCH)));
        assert_eq!(ring.next(1000), Some((4, 1000)), "what the one before has left");
        assert_eq!(batch(&mut ring), [(1, BATCH)], "after those who waited, without those who have ended");
    }

    #[test]
    fn who_has_little_to_say_goes_first_but_does_not_keep_bulk_waiting() {
        let mut ring = Ring::default();
        ring.push(100, Talk::Bulk);
        (0..100).for_each(|slot| ring.push(slot, Talk::Brief));
        let shares = batch(&mut ring);
        let brief = RESERVED / BRIEF;
        assert!(shares[..brief].iter().enumerate().all(|(at, share)| *share == (at, BRIEF)), "{shares:?}");
        assert_eq!(shares[brief], (100, RESERVED));
        ring.put_back(7, Talk::Brief);
        assert_eq!(ring.next(BATCH), Some((7, BRIEF)), "it had not enough room");
    }
}

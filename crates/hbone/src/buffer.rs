//! The two buffers that bytes pass through between a socket and a tunnel.
//!
//! Both are scratch: they belong to a thread, not to a tunnel, and between two uses they hold nothing that a tunnel
//! needs, except for an [`Outbox`] whose socket did not take everything. Payload is never moved inside them: what comes
//! in is opened where the socket put it, and what goes out is put between the headers of the record that it will be.

use std::io::IoSliceMut;
use std::ops::Range;

use crate::h2::FRAME_HEADER;
use crate::tls::{Content, HEADER, MAX_PARTIAL_INPUT, MAX_RECORD_PLAINTEXT, TRAILER};

/// Ciphertext taken from the socket in one read: what senders that take turns in large pieces send in one.
const READ_ROOM: usize = 512 * 1024;
/// Records sealed and sent in one go. Larger batches cost cache, smaller ones system calls.
const BATCH_RECORDS: usize = 64;
/// Plaintext that fills a batch.
pub const BATCH: usize = BATCH_RECORDS * MAX_RECORD_PLAINTEXT;
/// Payload of a frame that fills a record.
const FULL_FRAME_PAYLOAD: usize = MAX_RECORD_PLAINTEXT - FRAME_HEADER;
/// Pieces that one call lays out: as many as a batch has records, and the rest of one that was begun before.
const MAX_PIECES: usize = BATCH_RECORDS + 1;
/// Records that a frame reaches into at the most. Those who handle frames as a whole, as most HTTP/2 libraries do, have as much
/// to do for a small one as for a large one, and wait until all of it is there.
const FRAME_RECORDS: usize = 8;
/// Payload for which it is worth filling up a record that has been begun, rather than to begin another.
const MIN_FRAME_PAYLOAD: usize = 256;

/// Ciphertext on its way in, and the plaintext that came of it.
#[derive(Debug)]
pub struct Inbox {
    cipher: Box<[u8]>,
    filled: usize,
    /// Plaintext that could not be opened in place. Its ranges lie behind those of `cipher`.
    plain: Vec<u8>,
    /// Where the payload of records lies, in order.
    opened: Vec<Range<usize>>,
}

impl Default for Inbox {
    fn default() -> Self {
        let cipher = vec![0; MAX_PARTIAL_INPUT + READ_ROOM].into_boxed_slice();
        Self { cipher, filled: 0, plain: Vec::new(), opened: Vec::new() }
    }
}

/// An [`Inbox`] taken apart for the one who opens records.
pub(crate) struct Opening<'a> {
    /// What has been received and not been dealt with.
    pub(crate) cipher: &'a mut [u8],
    /// For plaintext that was not opened in place; starts at [`aside`](Self::aside) in the address space of ranges.
    pub(crate) plain: &'a mut Vec<u8>,
    pub(crate) aside: usize,
    /// Where plaintext lies, in order.
    pub(crate) opened: &'a mut Vec<Range<usize>>,
}

impl Inbox {
    /// Starts over with ciphertext left from an earlier read.
    pub(crate) fn begin(&mut self, partial: &[u8]) {
        let partial = &partial[..partial.len().min(MAX_PARTIAL_INPUT)];
        self.cipher[..partial.len()].copy_from_slice(partial);
        self.filled = partial.len();
        self.plain.clear();
        self.opened.clear();
    }

    /// Room for what the socket has.
    pub fn room(&mut self) -> &mut [u8] {
        &mut self.cipher[self.filled..]
    }

    /// Notes that the first `n` bytes of [`room`](Self::room) have been filled.
    pub fn fill(&mut self, n: usize) {
        self.filled = (self.filled + n).min(self.cipher.len());
    }

    pub(crate) fn split(&mut self) -> Opening<'_> {
        let aside = self.cipher.len();
        Opening { cipher: &mut self.cipher[..self.filled], plain: &mut self.plain, aside, opened: &mut self.opened }
    }

    /// Where the plaintext of the last read lies, in order.
    pub(crate) fn opened(&self) -> &[Range<usize>] {
        &self.opened
    }

    /// Payload that an event of the last [`Tunnel::receive`](crate::Tunnel::receive) points to.
    #[must_use]
    pub fn payload(&self, range: Range<usize>) -> &[u8] {
        let aside = self.cipher.len();
        let place = if range.start < aside {
            self.cipher.get(range)
        } else {
            self.plain.get(range.start - aside..range.end.saturating_sub(aside))
        };
        place.unwrap_or_default()
    }
}

/// Frames on their way out: laid out as the records that they will be, then sealed, then sent.
///
/// In order, the buffer holds what has been sent, what is sealed, and what is only laid out.
#[derive(Debug, Default)]
pub struct Outbox {
    /// Room once made is kept and not cleared again, which matters for speed.
    bytes: Vec<u8>,
    sent: usize,
    sealed: usize,
    filled: usize,
    /// The records between `sealed` and `filled`. The last one may still grow.
    records: Vec<Record>,
    /// Scratch for frames that the machine writes itself.
    pub(crate) control: Vec<u8>,
    /// What sealing aside has written.
    aside: Aside,
}

#[derive(Debug, Clone, Copy)]
struct Record {
    /// Where its header will be.
    start: usize,
    content: Content,
}

impl Outbox {
    /// Bytes, frame headers included, that may be added before the batch should be sealed.
    #[must_use]
    pub fn room(&self) -> usize {
        BATCH.saturating_sub(self.filled - self.sealed)
    }

    /// Sealed bytes that the socket should take, in order.
    #[must_use]
    pub fn unsent(&self) -> &[u8] {
        &self.bytes[self.sent..self.sealed]
    }

    /// Notes that the socket took the first `n` unsent bytes.
    pub fn advance(&mut self, n: usize) {
        self.sent = (self.sent + n).min(self.sealed);
        if self.is_empty() {
            self.clear();
        }
    }

    /// Whether nothing is left, sealed or not.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.sent == self.filled
    }

    /// Forgets everything, for the next tunnel.
    pub fn clear(&mut self) {
        self.sent = 0;
        self.sealed = 0;
        self.filled = 0;
        self.records.clear();
    }

    /// Whether nothing is laid out that still has to be sealed.
    pub(crate) fn is_sealed(&self) -> bool {
        self.records.is_empty()
    }

    /// Appends bytes that are sealed already; nothing may be laid out.
    pub(crate) fn append_sealed(&mut self, bytes: &[u8]) {
        debug_assert!(self.is_sealed());
        self.make_room(bytes.len());
        self.bytes[self.filled..self.filled + bytes.len()].copy_from_slice(bytes);
        self.filled += bytes.len();
        self.sealed = self.filled;
    }

    /// Begins a record that carries something other than frames, and puts `message` into it.
    pub(crate) fn lay_out_message(&mut self, content: Content, message: &[u8]) {
        self.begin(content);
        self.put(message);
    }

    /// Lays out frames that are complete already.
    pub(crate) fn lay_out(&mut self, mut frames: &[u8]) {
        while !frames.is_empty() {
            if self.open_room() == 0 {
                self.begin(Content::Data);
            }
            let (now, later) = frames.split_at(self.open_room().min(frames.len()));
            self.put(now);
            frames = later;
        }
    }

    /// Offers places for up to `limit` bytes of payload in frames of at most `max_payload` each, and lays out as many
    /// as `fill` says it filled. `head` gives a frame's header for the length of its payload; without one the
    /// frame and all behind it are left out.
    pub(crate) fn lay_out_payload<E>(
        &mut self,
        limit: usize,
        max_payload: usize,
        fill: impl FnOnce(&mut [IoSliceMut<'_>]) -> Result<usize, E>,
        mut head: impl FnMut(usize) -> Option<[u8; FRAME_HEADER]>,
    ) -> Result<usize, E> {
        let limit = limit.min(BATCH);
        self.make_room(limit + (limit / FULL_FRAME_PAYLOAD + 2) * (HEADER + FRAME_HEADER + TRAILER));
        let begun = !self.records.is_empty();
        let records = ((max_payload + FRAME_HEADER) / MAX_RECORD_PLAINTEXT).clamp(1, FRAME_RECORDS);
        let offered = Pieces { at: self.filled, begun, room: self.open_room(), left: limit, records, frame: 0 };
        let filled = {
            let mut places: [IoSliceMut<'_>; MAX_PIECES] = std::array::from_fn(|_| IoSliceMut::new(&mut []));
            let mut used = 0;
            let mut rest = &mut self.bytes[self.filled..];
            let mut at = self.filled;
            for (piece, place) in offered.clone().zip(&mut places) {
                let (_, behind) = rest.split_at_mut(piece.payload.start - at);
                let (payload, behind) = behind.split_at_mut(piece.payload.len());
                *place = IoSliceMut::new(payload);
                rest = behind;
                at = piece.payload.end;
                used += 1;
            }
            fill(&mut places[..used])?
        };
        let mut laid = 0;
        for piece in (Pieces { left: filled.min(limit), ..offered }).take(MAX_PIECES) {
            let head = match piece.frame.map(&mut head) {
                Some(None) => break,
                Some(Some(head)) => Some(head),
                None => None,
            };
            if piece.begins_record {
                self.begin(Content::Data);
            }
            if let Some(head) = head {
                self.put(&head);
            }
            debug_assert_eq!(self.filled, piece.payload.start);
            self.filled = piece.payload.end;
            laid += piece.payload.len();
        }
        Ok(laid)
    }

    /// Seals what is laid out where it is. `seal` is given each record with room for what sealing adds.
    pub(crate) fn seal_in_place<E>(
        &mut self,
        mut seal: impl FnMut(Content, &mut [u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        self.end_record();
        let ends = self.records.iter().skip(1).map(|next| next.start).chain([self.filled]);
        for (record, end) in self.records.iter().zip(ends) {
            seal(record.content, &mut self.bytes[record.start..end])?;
            self.sealed = end;
        }
        self.records.clear();
        Ok(())
    }

    /// Seals what is laid out into another buffer, which then takes this one's place. `seal` is given the plaintext of
    /// each record.
    pub(crate) fn seal_aside<E>(
        &mut self,
        first: &[u8],
        mut seal: impl FnMut(&[u8], &mut Aside) -> Result<(), E>,
    ) -> Result<(), E> {
        self.end_record();
        self.aside.filled = 0;
        self.aside.extend(&self.bytes[self.sent..self.sealed]);
        self.aside.extend(first);
        let ends = self.records.iter().skip(1).map(|next| next.start).chain([self.filled]);
        for (record, end) in self.records.iter().zip(ends) {
            seal(&self.bytes[record.start + HEADER..end - TRAILER], &mut self.aside)?;
        }
        std::mem::swap(&mut self.bytes, &mut self.aside.bytes);
        self.clear();
        self.filled = self.aside.filled;
        self.sealed = self.filled;
        Ok(())
    }

    /// Octets of plaintext that the record begun last still takes.
    fn open_room(&self) -> usize {
        match self.records.last() {
            Some(Record { start, content: Content::Data }) => {
                MAX_RECORD_PLAINTEXT.saturating_sub(self.filled - start - HEADER)
            }
            _ => 0,
        }
    }

    fn begin(&mut self, content: Content) {
        self.end_record();
        self.make_room(HEADER + MAX_RECORD_PLAINTEXT + TRAILER);
        self.records.push(Record { start: self.filled, content });
        self.filled += HEADER;
    }

    /// Leaves room for what closes the record begun last.
    fn end_record(&mut self) {
        if !self.records.is_empty() {
            self.make_room(TRAILER);
            self.filled += TRAILER;
        }
    }

    fn put(&mut self, bytes: &[u8]) {
        self.bytes[self.filled..self.filled + bytes.len()].copy_from_slice(bytes);
        self.filled += bytes.len();
    }

    fn make_room(&mut self, n: usize) {
        let need = self.filled + n;
        if self.bytes.len() < need {
            self.bytes.resize(need, 0);
        }
    }
}

/// Where one stream's payload goes: frames that end where a record does, or where there is no more payload. The places of
/// the first pieces do not depend on how many follow.
#[derive(Debug, Clone)]
struct Pieces {
    /// End of what is laid out.
    at: usize,
    /// Whether a record has been begun, which has to be closed before another.
    begun: bool,
    /// Octets of plaintext that it still takes.
    room: usize,
    /// Payload that has no place yet.
    left: usize,
    /// Records that a frame may reach into.
    records: usize,
    /// Payload that the frame begun last still takes.
    frame: usize,
}

/// Payload within one frame and one record.
struct Piece {
    begins_record: bool,
    /// The payload of the frame that begins here, if one does.
    frame: Option<usize>,
    payload: Range<usize>,
}

impl Iterator for Pieces {
    type Item = Piece;

    fn next(&mut self) -> Option<Piece> {
        if self.left == 0 {
            return None;
        }
        let begins_frame = self.frame == 0;
        let begins_record = if begins_frame { self.room < FRAME_HEADER + MIN_FRAME_PAYLOAD } else { self.room == 0 };
        if begins_record {
            self.at += if self.begun { TRAILER + HEADER } else { HEADER };
            self.begun = true;
            self.room = MAX_RECORD_PLAINTEXT;
        }
        if begins_frame {
            self.at += FRAME_HEADER;
            self.room -= FRAME_HEADER;
            self.frame = self.left.min(self.room + (self.records - 1) * MAX_RECORD_PLAINTEXT);
        }
        let frame = begins_frame.then_some(self.frame);
        let start = self.at;
        let length = self.frame.min(self.room);
        self.at += length;
        self.room -= length;
        self.frame -= length;
        self.left -= length;
        Some(Piece { begins_record, frame, payload: start..self.at })
    }
}

/// Records that were sealed elsewhere than where they were laid out.
#[derive(Debug, Default)]
pub(crate) struct Aside {
    /// Room once made is kept and not cleared again.
    bytes: Vec<u8>,
    filled: usize,
}

impl Aside {
    /// Appends `bytes`.
    pub(crate) fn extend(&mut self, bytes: &[u8]) {
        self.room(bytes.len())[..bytes.len()].copy_from_slice(bytes);
        self.filled += bytes.len();
    }

    /// Room for at least `n` octets, which count once they are [`written`](Self::written).
    pub(crate) fn room(&mut self, n: usize) -> &mut [u8] {
        let need = self.filled + n;
        if self.bytes.len() < need {
            self.bytes.resize(need, 0);
        }
        &mut self.bytes[self.filled..]
    }

    /// Notes that `n` octets of the room have been written.
    pub(crate) fn written(&mut self, n: usize) {
        self.filled = (self.filled + n).min(self.bytes.len());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: usize = 1 << 20;

    /// Lays out so much payload after `before` octets of other frames, with room for `limit`; yields the payload of each
    /// frame, and how much each record carries.
    fn laid_out(before: usize, (filled, limit): (usize, usize), max_payload: usize) -> (Vec<usize>, Vec<usize>) {
        let mut outbox = Outbox::default();
        outbox.lay_out(&vec![b'-'; before]);
        let mut frames = Vec::new();
        let mut next = 0_u8;
        let fill = |places: &mut [IoSliceMut<'_>]| {
            assert_eq!(places.iter().map(|place| place.len()).sum::<usize>(), limit);
            for octet in places.iter_mut().flat_map(|place| place.iter_mut()).take(filled) {
                *octet = next;
                next = (next + 1) % 251;
            }
            Ok::<_, std::convert::Infallible>(filled)
        };
        let head = |payload| {
            frames.push(payload);
            Some([b'H'; FRAME_HEADER])
        };
        assert_eq!(outbox.lay_out_payload(limit, max_payload, fill, head), Ok(filled));
        let (mut records, mut plaintext) = (Vec::new(), Vec::new());
        let seal = |_, record: &mut [u8]| {
            let inside = &record[HEADER..record.len() - TRAILER];
            records.push(inside.len());
            plaintext.extend_from_slice(inside);
            Ok::<_, std::convert::Infallible>(())
        };
        assert!(outbox.seal_in_place(seal).is_ok());
        let mut rest = plaintext.as_slice();
        assert!(rest.split_off(..before).is_some_and(|other| other.iter().all(|octet| *octet == b'-')));
        let mut expected = (0..251_u8).cycle();
        for payload in &frames {
            assert_eq!(rest.split_off(..FRAME_HEADER), Some(&[b'H'; FRAME_HEADER][..]));
            let payload = rest.split_off(..*payload).unwrap_or_default();
            assert!(payload.iter().all(|octet| expected.next() == Some(*octet)));
        }
        assert_eq!(rest, [0; 0]);
        (frames, records)
    }

    #[test]
    fn a_frame_fills_a_record_where_the_peer_takes_no_larger_ones() {
        let (frames, records) = laid_out(0, (40_000, MIB / 2), MAX_RECORD_PLAINTEXT);
        assert_eq!(frames, [16_375, 16_375, 7_250]);
        assert_eq!(records, [16_384, 16_384, 7_259]);
    }

    #[test]
    fn a_frame_fills_several_records_where_the_peer_takes_large_ones() {
        let (frames, records) = laid_out(0, (200_000, MIB / 2), MIB);
        assert_eq!(frames, [131_063, 68_937]);
        assert_eq!(records, [vec![16_384; 12], vec![3_410]].concat());
        assert_eq!(laid_out(0, (100_000, MIB), 40_000).0, [32_759, 32_759, 32_759, 1_723]);
    }

    #[test]
    fn frames_go_on_in_a_record_that_has_been_begun() {
        let (frames, records) = laid_out(1_384, (200_000, BATCH), MIB);
        assert_eq!(frames, [129_679, 70_321]);
        assert_eq!(records, [vec![16_384; 12], vec![4_794]].concat());
        let nearly_full = 16_384 - FRAME_HEADER - MIN_FRAME_PAYLOAD + 1;
        assert_eq!(laid_out(nearly_full, (10, 10), MIB), (vec![10], vec![nearly_full, 19]));
        let whole_batch = laid_out(1_384, (BATCH, BATCH), MIB).0;
        assert_eq!((whole_batch.len(), whole_batch[0], whole_batch[1]), (9, 129_679, 131_063));
    }
}

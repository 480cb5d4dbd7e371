//! What happens to bytes between a read and a write: nothing, or one pass of AES-256-GCM over records of 16 KiB, in
//! batches of 256 KiB.
//!
//! The records look like those of TLS 1.3 and cost what they cost, but **protect nothing**: the key is a constant and
//! every connection counts its nonces from zero.

use std::io::{self, IoSliceMut, Read};
use std::net::TcpStream;
use std::ops::Range;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};

/// Payload of a full record, as in TLS.
const RECORD: usize = 16 * 1024;
const HEADER: usize = 5;
const TAG: usize = 16;
const SLOT: usize = HEADER + RECORD + TAG;
/// Records per batch: 256 KiB.
const BATCH: usize = 16;

/// Whether bytes between two relays are sealed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protection {
    /// They go as they came.
    None,
    /// AES-256-GCM.
    Sealed,
}

/// The large buffer of a thread, and nothing that outlives a turn.
pub(super) struct Scratch {
    bytes: Vec<u8>,
}

impl Default for Scratch {
    fn default() -> Self {
        Self { bytes: vec![0; BATCH * SLOT] }
    }
}

impl Scratch {
    pub(super) fn piece(&self, range: &Range<usize>) -> &[u8] {
        &self.bytes[range.clone()]
    }
}

/// What a read brought.
pub(super) enum Batch {
    /// Not now.
    Nothing,
    /// And never again.
    End,
    /// These parts of the scratch buffer are to be written; `filled` if there may be more right now.
    Bytes { pieces: Vec<Range<usize>>, filled: bool },
}

/// How one direction of a connection treats its bytes.
pub(super) enum Codec {
    Plain,
    Seal(Sealer),
    Open(Sealer, Vec<u8>),
}

pub(super) struct Sealer {
    key: LessSafeKey,
    next: u64,
}

impl Codec {
    pub(super) fn sealing(protection: Protection) -> Codec {
        match protection {
            Protection::None => Codec::Plain,
            Protection::Sealed => Codec::Seal(Sealer::new()),
        }
    }

    pub(super) fn opening(protection: Protection) -> Codec {
        match protection {
            Protection::None => Codec::Plain,
            Protection::Sealed => Codec::Open(Sealer::new(), Vec::new()),
        }
    }

    /// Reads one batch into `scratch`, ready to be written.
    pub(super) fn read(&mut self, from: &TcpStream, scratch: &mut Scratch) -> io::Result<Batch> {
        let bytes = &mut scratch.bytes[..];
        match self {
            Codec::Plain => {
                let room = BATCH * RECORD;
                Ok(match read(from, &mut [IoSliceMut::new(&mut bytes[..room])])? {
                    Taken::Some(n) => Batch::Bytes { pieces: whole(n), filled: n == room },
                    Taken::None(batch) => batch,
                })
            }
            Codec::Seal(sealer) => {
                let mut slots: Vec<IoSliceMut<'_>> =
                    bytes.chunks_exact_mut(SLOT).map(|slot| IoSliceMut::new(&mut slot[HEADER..][..RECORD])).collect();
                let n = match read(from, &mut slots)? {
                    Taken::Some(n) => n,
                    Taken::None(batch) => return Ok(batch),
                };
                let end = sealer.seal(bytes, n)?;
                Ok(Batch::Bytes { pieces: whole(end), filled: n == BATCH * RECORD })
            }
            Codec::Open(sealer, partial) => {
                bytes[..partial.len()].copy_from_slice(partial);
                let room = &mut bytes[partial.len()..];
                let room_bytes = room.len();
                let n = match read(from, &mut [IoSliceMut::new(room)])? {
                    Taken::Some(n) => n,
                    Taken::None(batch) => return Ok(batch),
                };
                let filled = n == room_bytes;
                let have = partial.len() + n;
                let (pieces, rest) = sealer.open(&mut bytes[..have])?;
                partial.clear();
                partial.extend_from_slice(&bytes[rest..have]);
                Ok(Batch::Bytes { pieces, filled })
            }
        }
    }
}

/// One piece: everything before `end`.
fn whole(end: usize) -> Vec<Range<usize>> {
    std::iter::once(0..end).collect()
}

impl Sealer {
    fn new() -> Self {
        let key = UnboundKey::new(&AES_256_GCM, &[0x42; 32]).expect("the key has the algorithm's length");
        Self { key: LessSafeKey::new(key), next: 0 }
    }

    fn nonce(&mut self) -> Nonce {
        let mut bytes = [0; 12];
        bytes[4..].copy_from_slice(&self.next.to_be_bytes());
        self.next += 1;
        Nonce::assume_unique_for_key(bytes)
    }

    /// Seals `payload` bytes that lie in the slots of `bytes`, all of them full but the last; where the last one ends.
    fn seal(&mut self, bytes: &mut [u8], payload: usize) -> io::Result<usize> {
        let (mut start, mut left) = (0, payload);
        while left > 0 {
            let length = left.min(RECORD);
            let header = header(length + TAG);
            let (head, rest) = bytes[start..].split_at_mut(HEADER);
            head.copy_from_slice(&header);
            let (body, rest) = rest.split_at_mut(length);
            let nonce = self.nonce();
            let tag = self
                .key
                .seal_in_place_separate_tag(nonce, Aad::from(header), body)
                .map_err(|_| io::Error::other("sealing failed"))?;
            rest[..TAG].copy_from_slice(tag.as_ref());
            start += HEADER + length + TAG;
            left -= length;
        }
        Ok(start)
    }

    /// Opens all whole records in place: where their payloads are, and where the first incomplete record begins.
    fn open(&mut self, bytes: &mut [u8]) -> io::Result<(Vec<Range<usize>>, usize)> {
        let (mut pieces, mut start) = (Vec::with_capacity(BATCH + 1), 0);
        while let Some(&[_, _, _, high, low]) = bytes.get(start..start + HEADER) {
            let length = usize::from(u16::from_be_bytes([high, low]));
            if !(TAG..=RECORD + TAG).contains(&length) {
                return Err(io::Error::other("not a record"));
            }
            let body = start + HEADER..start + HEADER + length;
            let Some(sealed) = bytes.get_mut(body.clone()) else { break };
            let nonce = self.nonce();
            self.key
                .open_in_place(nonce, Aad::from(header(length)), sealed)
                .map_err(|_| io::Error::other("a record was changed on its way"))?;
            pieces.push(body.start..body.end - TAG);
            start = body.end;
        }
        Ok((pieces, start))
    }
}

/// Type, version, length.
fn header(length: usize) -> [u8; HEADER] {
    let [high, low] = u16::try_from(length).unwrap_or(u16::MAX).to_be_bytes();
    [0x17, 3, 3, high, low]
}

enum Taken {
    Some(usize),
    None(Batch),
}

fn read(mut from: &TcpStream, into: &mut [IoSliceMut<'_>]) -> io::Result<Taken> {
    loop {
        return match from.read_vectored(into) {
            Ok(0) => Ok(Taken::None(Batch::End)),
            Ok(n) => Ok(Taken::Some(n)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(Taken::None(Batch::Nothing)),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => Err(error),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_sealed_is_opened_whole_and_in_order_and_the_rest_waits() {
        let mut bytes = vec![0; BATCH * SLOT];
        for (i, slot) in bytes.chunks_exact_mut(SLOT).enumerate() {
            slot[HEADER..HEADER + RECORD].fill(u8::try_from(i).unwrap());
        }
        let end = Sealer::new().seal(&mut bytes, 2 * RECORD + 7).unwrap();
        assert_eq!(end, 2 * SLOT + HEADER + 7 + TAG);
        let mut opener = Sealer::new();
        let (pieces, rest) = opener.open(&mut bytes[..end - 1]).unwrap();
        assert_eq!((pieces.len(), rest), (2, 2 * SLOT), "the last byte of the third record is missing");
        for (i, piece) in pieces.iter().enumerate() {
            assert!(bytes[piece.clone()].iter().all(|byte| usize::from(*byte) == i));
        }
        let (pieces, _) = opener.open(&mut bytes[rest..end]).unwrap();
        assert_eq!(bytes[rest..][pieces[0].clone()], [2; 7]);
    }

    #[test]
    fn a_record_that_was_changed_is_refused() {
        let mut bytes = vec![0; BATCH * SLOT];
        let end = Sealer::new().seal(&mut bytes, 100).unwrap();
        bytes[HEADER] ^= 1;
        assert!(Sealer::new().open(&mut bytes[..end]).is_err());
    }
}

//! The two buffers that bytes pass through between a socket and a tunnel.
//!
//! Both are scratch: they belong to a thread, not to a tunnel, and between two uses they hold nothing that a tunnel
//! needs, except for an [`Outbox`] whose socket did not take everything.

use std::ops::Range;

use crate::tls::{MAX_PARTIAL_INPUT, MAX_RECORD_PLAINTEXT, Wire};

/// Ciphertext taken from the socket in one read. Larger reads gained nothing measurable.
const READ_ROOM: usize = 256 * 1024;
/// Plaintext sealed and sent in one go: 32 full records. Larger batches cost cache, smaller ones system calls.
pub const BATCH: usize = 32 * MAX_RECORD_PLAINTEXT;

/// Ciphertext on its way in, and the plaintext that came of it.
#[derive(Debug)]
pub struct Inbox {
    cipher: Box<[u8]>,
    filled: usize,
    pub(crate) plain: Vec<u8>,
}

impl Default for Inbox {
    fn default() -> Self {
        let cipher = vec![0; MAX_PARTIAL_INPUT + READ_ROOM].into_boxed_slice();
        Self { cipher, filled: 0, plain: Vec::with_capacity(READ_ROOM) }
    }
}

impl Inbox {
    /// Starts over with ciphertext left from an earlier read.
    pub(crate) fn begin(&mut self, partial: &[u8]) {
        let partial = &partial[..partial.len().min(MAX_PARTIAL_INPUT)];
        self.cipher[..partial.len()].copy_from_slice(partial);
        self.filled = partial.len();
        self.plain.clear();
    }

    /// Room for what the socket has.
    pub fn room(&mut self) -> &mut [u8] {
        &mut self.cipher[self.filled..]
    }

    /// Notes that the first `n` bytes of [`room`](Self::room) have been filled.
    pub fn fill(&mut self, n: usize) {
        self.filled = (self.filled + n).min(self.cipher.len());
    }

    pub(crate) fn split(&mut self) -> (&mut [u8], &mut Vec<u8>) {
        (&mut self.cipher[..self.filled], &mut self.plain)
    }

    /// Payload that an event of the last [`Tunnel::receive`](crate::Tunnel::receive) points to.
    #[must_use]
    pub fn payload(&self, range: Range<usize>) -> &[u8] {
        self.plain.get(range).unwrap_or_default()
    }
}

/// Frames on their way out, first in plain, then sealed.
#[derive(Debug, Default)]
pub struct Outbox {
    /// Room once made is kept and not cleared again, which matters for speed.
    plain: Vec<u8>,
    filled: usize,
    /// Scratch for frames that the machine writes itself.
    pub(crate) control: Vec<u8>,
    pub(crate) wire: Wire,
}

impl Outbox {
    /// Bytes, frame headers included, that may be added before the batch should be sealed.
    #[must_use]
    pub fn room(&self) -> usize {
        BATCH.saturating_sub(self.filled)
    }

    /// Sealed bytes that the socket should take, in order.
    #[must_use]
    pub fn unsent(&self) -> &[u8] {
        self.wire.unsent()
    }

    /// Notes that the socket took the first `n` unsent bytes.
    pub fn advance(&mut self, n: usize) {
        self.wire.advance(n);
    }

    /// Whether nothing is left, sealed or not.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.filled == 0 && self.wire.unsent().is_empty()
    }

    /// Forgets everything, for the next tunnel.
    pub fn clear(&mut self) {
        self.filled = 0;
        let unsent = self.wire.unsent().len();
        self.wire.advance(unsent);
    }

    /// Frames laid out and not sealed, and where they go.
    pub(crate) fn split(&mut self) -> (&[u8], &mut Wire) {
        (&self.plain[..self.filled], &mut self.wire)
    }

    /// A place for `n` bytes behind what is laid out; what is there counts once it is [`laid`](Self::laid).
    pub(crate) fn place(&mut self, n: usize) -> &mut [u8] {
        let need = self.filled + n;
        if self.plain.len() < need {
            self.plain.resize(need, 0);
        }
        &mut self.plain[self.filled..need]
    }

    pub(crate) fn laid(&mut self, n: usize) {
        self.filled = (self.filled + n).min(self.plain.len());
    }

    pub(crate) fn sealed(&mut self) {
        self.filled = 0;
    }
}

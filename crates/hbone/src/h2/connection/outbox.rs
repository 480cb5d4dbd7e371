//! Control frames waiting to be written.
//!
//! Invariant: what the peer alone causes to wait here is bounded by [`MAX_REPLY_BACKLOG`]; what this side's application
//! causes is bounded by its streams. Window updates do not wait here at all: they are worked out when written.

use crate::error::Violation;
use crate::limits::{KEPT_BUFFER, MAX_REPLY_BACKLOG};

/// Encoded frames in the order in which they must be sent.
#[derive(Debug, Default)]
pub struct Outbox {
    bytes: Vec<u8>,
    /// How many of them the peer caused.
    replies: usize,
}

impl Outbox {
    /// Queues what this side wants to send.
    pub fn queue(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        write(&mut self.bytes);
    }

    /// Queues what the peer made this side send.
    ///
    /// # Errors
    /// [`Violation::ReplyBacklog`] if too much of that is waiting, because the peer does not read.
    pub fn reply(&mut self, write: impl FnOnce(&mut Vec<u8>)) -> Result<(), Violation> {
        let before = self.bytes.len();
        write(&mut self.bytes);
        self.replies += self.bytes.len() - before;
        if self.replies > MAX_REPLY_BACKLOG { Err(Violation::ReplyBacklog) } else { Ok(()) }
    }

    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Moves everything to `out`.
    pub fn drain_into(&mut self, out: &mut Vec<u8>) {
        out.append(&mut self.bytes);
        self.bytes.shrink_to(KEPT_BUFFER);
        self.replies = 0;
    }
}

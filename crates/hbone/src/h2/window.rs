//! Flow-control windows (RFC 9113 §5.2 and §6.9), the same arithmetic for streams and connections.
//!
//! Invariant: a [`ReceiveWindow`] never promises the peer more than its target, counting what the peer may still send,
//! what it has sent and nobody has credited yet, and what is announced; once all is credited, it is back at its target
//! within one announcement. A [`SendWindow`] may be negative, after the peer has lowered its initial window.
//!
//! Deliberately absent: deciding how large a window should be.

use crate::error::Violation;
use crate::limits::MAX_WINDOW;

/// What the peer allows us to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SendWindow(i32);

/// Whether a change made a window usable that was not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opened {
    /// It was zero or negative and is positive now.
    Yes,
    /// It was positive before, or still is not.
    No,
}

impl SendWindow {
    /// A window of the peer's initial size, at most 2^31-1.
    pub fn new(size: u32) -> Self {
        SendWindow(i32::try_from(size).unwrap_or(i32::MAX))
    }

    /// Bytes that may be sent now.
    pub fn available(self) -> usize {
        usize::try_from(self.0).unwrap_or(0)
    }

    /// Takes `len` bytes, which must be available.
    pub fn consume(&mut self, len: usize) {
        debug_assert!(len <= self.available());
        self.0 -= i32::try_from(len).unwrap_or(i32::MAX).min(self.0);
    }

    /// Changes the window by a WINDOW_UPDATE or a changed initial size, which may make it negative (RFC 9113 §6.9.2).
    ///
    /// # Errors
    /// [`Violation::WindowOverflow`] beyond 2^31-1 (RFC 9113 §6.9.1).
    pub fn adjust(&mut self, delta: i64) -> Result<Opened, Violation> {
        let sum = i64::from(self.0) + delta;
        let new = i32::try_from(sum).map_err(|_| Violation::WindowOverflow)?;
        let opened = if self.0 <= 0 && new > 0 { Opened::Yes } else { Opened::No };
        self.0 = new;
        Ok(opened)
    }
}

/// What we allow the peer to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReceiveWindow {
    /// What the peer may still send. Negative only if the initial size was lowered after the peer used it.
    open: i32,
    /// What the peer has sent and nobody has credited yet.
    held: u32,
    /// What `open` should be when nothing is held.
    target: u32,
}

impl ReceiveWindow {
    /// A window that wants to be `target` while the peer believes in `granted`.
    pub fn new(granted: u32, target: u32) -> Self {
        ReceiveWindow { open: i32::try_from(granted).unwrap_or(i32::MAX), held: 0, target: target.min(MAX_WINDOW) }
    }

    /// What the peer may still send.
    pub fn open(self) -> usize {
        usize::try_from(self.open).unwrap_or(0)
    }

    /// What the peer has sent and nobody has credited yet.
    pub fn held(self) -> usize {
        self.held as usize
    }

    /// What the peer may send when nothing is held.
    pub fn target(self) -> u32 {
        self.target
    }

    /// Whether less than half of it is open and it may become larger, up to `most`.
    pub fn is_narrow(self, most: u32) -> bool {
        self.target < most && self.open() < self.target as usize / 2
    }

    /// Takes a received frame of `len` flow-controlled bytes into account; `false` if the peer overstepped the window.
    #[must_use]
    pub fn receive(&mut self, len: u32) -> bool {
        match i32::try_from(len) {
            Ok(signed) if signed == 0 || signed <= self.open => {
                self.open -= signed;
                self.held += len;
                true
            }
            _ => false,
        }
    }

    /// Gives bytes back. More than is held is a mistake of the caller and counts as all that is held.
    pub fn credit(&mut self, len: usize) {
        debug_assert!(len <= self.held(), "credited {len} bytes of {}", self.held);
        self.held -= u32::try_from(len).unwrap_or(u32::MAX).min(self.held);
    }

    /// Wants another size from now on. A larger one is announced with the next update, a smaller one is reached by
    /// announcing less than is credited.
    pub fn resize(&mut self, target: u32) {
        self.target = target.min(MAX_WINDOW);
    }

    /// The peer has learned of an initial size that is `by` lower than it was using (RFC 9113 §6.9.2).
    pub fn lower(&mut self, by: u32) {
        self.open = self.open.saturating_sub_unsigned(by);
    }

    /// The increment to announce now, if one is due: at least half of the target, so that a peer gets two updates per
    /// window and not one per read (many small ones cost a conventional peer a third more CPU).
    pub fn update_due(self) -> Option<u32> {
        let due = i64::from(self.target) - i64::from(self.open) - i64::from(self.held);
        let threshold = i64::from(self.target / 2).max(1);
        if due < threshold { None } else { u32::try_from(due).ok().filter(|&due| due <= MAX_WINDOW) }
    }

    /// Takes the increment of [`update_due`](Self::update_due), which must now be sent.
    pub fn take_update(&mut self) -> Option<u32> {
        let increment = self.update_due()?;
        // Cannot pass the target, which is at most 2^31-1.
        self.open = self.open.saturating_add_unsigned(increment);
        Some(increment)
    }
}

#[cfg(test)]
mod tests;

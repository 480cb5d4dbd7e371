//! Large buffers that belong to a worker thread and are lent to whoever moves bytes at the moment.
//!
//! Invariant: a connection with nothing in flight owns no buffer. Buffers are taken when a socket is ready and given
//! back when what they held has been passed on; a thread keeps [`KEPT`] of each kind and frees the rest.

use std::cell::RefCell;
use std::ops::Range;

use hbone::h2::Event;
use hbone::{Inbox, Outbox};

/// Buffers of each kind that a thread keeps for the next use. One is in use at a time unless sockets are stuck, so that
/// more would only be memory held after a burst.
const KEPT: usize = 1;
/// Room for one read on a plain connection. Larger reads gained nothing measurable.
const COPY_ROOM: usize = 256 * 1024;

/// What reading from a tunnel needs room for.
#[derive(Debug, Default)]
pub(super) struct Reading {
    pub(super) inbox: Inbox,
    pub(super) events: Vec<Event>,
    /// Payload of one stream that has not been passed on yet.
    pub(super) run: Vec<Range<usize>>,
}

#[derive(Default)]
#[expect(clippy::vec_box, reason = "buffers are lent out and kept by tunnels as boxes")]
struct Scratch {
    readings: Vec<Box<Reading>>,
    outboxes: Vec<Box<Outbox>>,
    copies: Vec<Box<[u8]>>,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

/// Takes room for reading from a tunnel.
pub(super) fn take_reading() -> Box<Reading> {
    SCRATCH.with_borrow_mut(|s| s.readings.pop()).unwrap_or_default()
}

/// Gives it back.
pub(super) fn give_reading(mut reading: Box<Reading>) {
    reading.events.clear();
    reading.run.clear();
    SCRATCH.with_borrow_mut(|s| give(&mut s.readings, reading));
}

/// Takes a buffer for frames going out.
pub(super) fn take_outbox() -> Box<Outbox> {
    SCRATCH.with_borrow_mut(|s| s.outboxes.pop()).unwrap_or_default()
}

/// Gives it back; it must hold nothing unsent.
pub(super) fn give_outbox(outbox: Box<Outbox>) {
    debug_assert!(outbox.is_empty());
    SCRATCH.with_borrow_mut(|s| give(&mut s.outboxes, outbox));
}

/// Lends a buffer for bytes between two plain sockets.
pub(super) fn with_copy_room<T>(f: impl FnOnce(&mut [u8]) -> T) -> T {
    let taken = SCRATCH.with_borrow_mut(|s| s.copies.pop());
    let mut room = taken.unwrap_or_else(|| vec![0; COPY_ROOM].into_boxed_slice());
    let result = f(&mut room);
    SCRATCH.with_borrow_mut(|s| give(&mut s.copies, room));
    result
}

fn give<T>(kept: &mut Vec<T>, buffer: T) {
    if kept.len() < KEPT {
        kept.push(buffer);
    }
}

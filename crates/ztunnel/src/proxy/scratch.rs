//! Large buffers that belong to a worker thread and are lent to whoever moves bytes at the moment.
//!
//! Invariant: a connection with nothing in flight owns no buffer. Buffers are taken when a socket is ready and given
//! back when what they held has been passed on; a thread keeps [`KEPT`] of each kind and frees the rest.

use std::cell::RefCell;
use std::ops::Range;
use std::rc::Rc;
use std::time::Duration;

use hbone::h2::{End, Event, StreamId};
use hbone::{Inbox, Outbox};
use tokio::sync::Notify;

/// Buffers of each kind that a thread keeps for the next use. One is in use at a time unless sockets are stuck, so that
/// more would only be memory held after a burst.
const KEPT: usize = 1;
/// How long buffers are kept that nobody takes.
const UNUSED: Duration = Duration::from_secs(2);
/// Streams whose payload a read usually brings.
const KEPT_RUNS: usize = 64;
/// Room for one read on a plain connection. What fills it is bulk, and goes through a pipe.
const COPY_ROOM: usize = 64 * 1024;

/// What reading from a tunnel needs room for.
#[derive(Debug, Default)]
pub(super) struct Reading {
    pub(super) inbox: Inbox,
    pub(super) events: Vec<Event>,
    /// Payload that has not been passed on yet, in the order in which its streams were met.
    pub(super) runs: Runs,
}

/// Payload of several streams, each stream's in one piece.
#[derive(Debug, Default)]
pub(super) struct Runs {
    /// The first `used` are in use; the others lend their room.
    runs: Vec<Run>,
    used: usize,
}

/// Payload of one stream.
#[derive(Debug)]
pub(super) struct Run {
    pub(super) id: StreamId,
    pub(super) ranges: Vec<Range<usize>>,
    pub(super) end: End,
}

impl Runs {
    /// Adds to a stream's payload.
    pub(super) fn add(&mut self, id: StreamId, range: Range<usize>, end: End) {
        // Backwards, because frames of a stream often follow one another.
        let known = self.runs[..self.used].iter().rposition(|run| run.id == id);
        let at = known.unwrap_or_else(|| self.begin(id));
        let run = &mut self.runs[at];
        run.ranges.push(range);
        run.end = end;
    }

    fn begin(&mut self, id: StreamId) -> usize {
        let at = self.used;
        self.used += 1;
        match self.runs.get_mut(at) {
            Some(run) => {
                run.id = id;
                run.ranges.clear();
            }
            None => self.runs.push(Run { id, ranges: Vec::new(), end: End::No }),
        }
        at
    }

    /// Takes the payload of one stream, to be passed on before something else that happened to it.
    pub(super) fn take(&mut self, id: StreamId) -> Option<Run> {
        let at = self.runs[..self.used].iter().position(|run| run.id == id)?;
        self.used -= 1;
        Some(self.runs.remove(at))
    }

    /// Everything that has been added and not been taken.
    pub(super) fn all(&self) -> &[Run] {
        &self.runs[..self.used]
    }

    fn clear(&mut self) {
        self.used = 0;
        self.runs.truncate(KEPT_RUNS);
    }
}

#[derive(Default)]
#[expect(clippy::vec_box, reason = "buffers are lent out and kept by tunnels as boxes")]
struct Scratch {
    readings: Vec<Box<Reading>>,
    outboxes: Vec<Box<Outbox>>,
    copies: Vec<Box<[u8]>>,
    /// Whether anything was taken since the last look.
    used: bool,
    /// Whom to wake when something is taken while nothing is kept.
    tender: Option<Rc<Notify>>,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

/// Frees this thread's buffers whenever none has been taken for [`UNUSED`]. Runs for as long as the thread does.
pub(super) async fn tend() {
    let wake = Rc::new(Notify::new());
    SCRATCH.with_borrow_mut(|s| s.tender = Some(Rc::clone(&wake)));
    loop {
        wake.notified().await;
        loop {
            SCRATCH.with_borrow_mut(|s| s.used = false);
            tokio::time::sleep(UNUSED).await;
            if SCRATCH.with_borrow_mut(Scratch::is_freed) {
                break;
            }
        }
    }
}

impl Scratch {
    /// Notes that something is taken.
    fn touch(&mut self) {
        if !std::mem::replace(&mut self.used, true)
            && let Some(tender) = &self.tender
        {
            tender.notify_one();
        }
    }

    /// Frees everything, unless it has been used lately.
    fn is_freed(&mut self) -> bool {
        if self.used {
            return false;
        }
        self.readings = Vec::new();
        self.outboxes = Vec::new();
        self.copies = Vec::new();
        true
    }
}

/// Takes room for reading from a tunnel.
pub(super) fn take_reading() -> Box<Reading> {
    let kept = SCRATCH.with_borrow_mut(|s| {
        s.touch();
        s.readings.pop()
    });
    kept.unwrap_or_default()
}

/// Gives it back.
pub(super) fn give_reading(mut reading: Box<Reading>) {
    reading.events.clear();
    reading.runs.clear();
    SCRATCH.with_borrow_mut(|s| give(&mut s.readings, reading));
}

/// Takes a buffer for frames going out.
pub(super) fn take_outbox() -> Box<Outbox> {
    let kept = SCRATCH.with_borrow_mut(|s| {
        s.touch();
        s.outboxes.pop()
    });
    kept.unwrap_or_default()
}

/// Gives it back; it must hold nothing unsent.
pub(super) fn give_outbox(outbox: Box<Outbox>) {
    debug_assert!(outbox.is_empty());
    SCRATCH.with_borrow_mut(|s| give(&mut s.outboxes, outbox));
}

/// Lends a buffer for bytes between two plain sockets.
pub(super) fn with_copy_room<T>(f: impl FnOnce(&mut [u8]) -> T) -> T {
    let taken = SCRATCH.with_borrow_mut(|s| {
        s.touch();
        s.copies.pop()
    });
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

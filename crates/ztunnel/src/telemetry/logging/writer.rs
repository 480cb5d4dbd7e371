//! The queue between those who log and the output, and the thread that empties it.
//!
//! Lines are copied into one buffer, which the writer swaps for an empty one and writes with one call. A lock is held
//! for the length of a copy or a swap, never during output. A full queue drops and counts.

use std::io::{ErrorKind, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use tracing::Level;

use super::line::{Format, Line, Value};

/// Lines that wait for the output at most; as many as existing deployments are used to (spec admin-and-telemetry 4).
pub const MAX_QUEUED_LINES: usize = 10_000;
/// Bytes that wait at most: room for [`MAX_QUEUED_LINES`] access-log lines of usual length. The writer may hold as many
/// again while it writes.
pub const MAX_QUEUED_BYTES: usize = 8 << 20;
/// How long the end of the process waits for the output (spec admin-and-telemetry 4).
pub const FLUSH_TIMEOUT: Duration = Duration::from_secs(1);
/// How long the writer rests after a write. What is logged meanwhile is written at once afterwards, and under load nobody
/// pays for waking the writer.
const REST: Duration = Duration::from_millis(2);
/// Capacity that a queue keeps after a burst.
const KEPT_BYTES: usize = 256 << 10;

/// How waiting for the output ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Flushed {
    /// Everything was written.
    Complete,
    /// The output stalls; lines are lost if the process ends now.
    Stalled,
}

#[derive(Debug)]
pub(super) struct Queue {
    format: Format,
    state: Mutex<State>,
    /// Tells the writer that there is something to do.
    wake: Condvar,
    /// Tells whoever flushes that everything is written.
    written: Condvar,
    dropped: AtomicU64,
}

#[derive(Debug, Default)]
struct State {
    lines: Vec<u8>,
    count: usize,
    /// Dropped since the last notice.
    unreported: u64,
    writer: Writer,
    /// Somebody waits for the output.
    flushing: bool,
    /// Nobody logs any more.
    closed: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
enum Writer {
    /// Waits to be woken.
    #[default]
    Asleep,
    /// Comes back by itself.
    Busy,
    /// The same, and some lines are in its hands.
    Writing,
}

impl Queue {
    pub(super) fn new(format: Format) -> Self {
        Self {
            format,
            state: Mutex::default(),
            wake: Condvar::new(),
            written: Condvar::new(),
            dropped: AtomicU64::new(0),
        }
    }

    pub(super) fn push(&self, line: &str) {
        let mut state = self.lock();
        if state.count >= MAX_QUEUED_LINES || state.lines.len() + line.len() > MAX_QUEUED_BYTES {
            state.unreported += 1;
            drop(state);
            self.dropped.fetch_add(1, Ordering::Relaxed);
            return;
        }
        state.lines.extend_from_slice(line.as_bytes());
        state.count += 1;
        if state.writer == Writer::Asleep {
            state.writer = Writer::Busy;
            drop(state);
            self.wake.notify_one();
        }
    }

    pub(super) fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    pub(super) fn flush(&self, timeout: Duration) -> Flushed {
        let deadline = Instant::now() + timeout;
        let mut state = self.lock();
        state.flushing = true;
        self.wake.notify_one();
        while state.count > 0 || state.writer == Writer::Writing {
            let Some(left) = deadline.checked_duration_since(Instant::now()) else { return Flushed::Stalled };
            state = self.written.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        state.flushing = false;
        Flushed::Complete
    }

    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.wake.notify_one();
    }

    /// The writer's life: ends when the queue is closed and empty.
    pub(super) fn write_to(&self, mut output: impl Write) {
        let mut batch = Vec::new();
        while let Some(count) = self.take(&mut batch) {
            if write_patiently(&mut output, &batch).is_err() {
                // Nobody reads any more. There is no place left to say so, and traffic must go on.
                self.dropped.fetch_add(count, Ordering::Relaxed);
            }
            batch.clear();
            batch.shrink_to(KEPT_BYTES);
            self.rest();
        }
    }

    /// Waits for lines and takes all of them; `None` once there will be no more.
    fn take(&self, batch: &mut Vec<u8>) -> Option<u64> {
        let mut state = self.lock();
        while state.count == 0 {
            if state.closed {
                return None;
            }
            state.writer = Writer::Asleep;
            state = self.wake.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.writer = Writer::Writing;
        std::mem::swap(&mut state.lines, batch);
        let count = std::mem::take(&mut state.count) as u64;
        let lost = std::mem::take(&mut state.unreported);
        drop(state);
        if lost > 0 {
            // They were lost after the lines of this batch and before any line to come.
            batch.extend_from_slice(self.notice(lost).as_bytes());
        }
        Some(count)
    }

    fn notice(&self, lost: u64) -> String {
        let mut text = String::new();
        let mut line = Line::begin(&mut text, self.format, SystemTime::now(), Level::WARN, module_path!());
        line.message(&"log lines were dropped: the output did not take them fast enough");
        line.field("dropped", Value::Unsigned(lost));
        line.end();
        text
    }

    fn rest(&self) {
        let mut state = self.lock();
        state.writer = Writer::Busy;
        if state.count == 0 {
            self.written.notify_all();
        }
        if !state.flushing && !state.closed {
            let rested = self.wake.wait_timeout(state, REST);
            drop(rested.unwrap_or_else(PoisonError::into_inner));
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing in here is left half done by a panic.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Writes all of it, also to an output that somebody else has made non-blocking.
fn write_patiently(output: &mut impl Write, mut bytes: &[u8]) -> std::io::Result<()> {
    while !bytes.is_empty() {
        match output.write(bytes) {
            Ok(0) => return Err(ErrorKind::WriteZero.into()),
            Ok(n) => bytes = bytes.get(n..).unwrap_or_default(),
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            Err(e) if e.kind() == ErrorKind::WouldBlock => std::thread::sleep(REST),
            Err(e) => return Err(e),
        }
    }
    output.flush()
}

#[cfg(test)]
mod tests;

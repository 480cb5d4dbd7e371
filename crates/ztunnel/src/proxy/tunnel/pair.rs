//! A connection within the process: two halves, of which each reads what the other writes. One carries a tunnel, and the
//! other is what a stream of another tunnel carries, so that the one tunnel runs inside the other.
//!
//! Halves are polled like sockets, by tasks of one worker as a rule, so that the lock is taken once for each batch of bytes
//! and hardly ever waited for. Invariant: at most [`ROOM`] bytes are on their way in each direction, and none of them keep
//! memory when there are none.
//!
//! Unlike a socket, a half that is dropped ends in order; what is written to it afterwards is dropped too. An end out of
//! order says why ([`Half::break_off`]).

use std::collections::VecDeque;
use std::io::{self, IoSliceMut};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use crate::proxy::outbound::Failure;

/// Bytes on their way in one direction: the window that streams begin with. More would only be more memory, since both
/// tasks are on one thread and take turns.
const ROOM: usize = 64 * 1024;

/// One end of the connection.
#[derive(Debug)]
pub(in crate::proxy) struct Half {
    shared: Arc<Mutex<Shared>>,
    /// Which of the two directions this half writes.
    writes: usize,
}

/// Why a connection ended out of order.
#[derive(Debug, Clone)]
pub(in crate::proxy) enum Broken {
    /// What carries it has failed.
    Failed(Failure),
    /// It was cut by a drain.
    Drained,
}

#[derive(Debug, Default)]
struct Shared {
    ways: [Way; 2],
    broken: Option<Broken>,
    /// Whether there is somebody at the far end.
    connected: bool,
}

/// One direction.
#[derive(Debug, Default)]
struct Way {
    bytes: VecDeque<u8>,
    /// Nothing more is written.
    ended: bool,
    /// Nobody reads.
    unread: bool,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

/// A new connection.
pub(in crate::proxy) fn pair() -> (Half, Half) {
    let shared = Arc::<Mutex<Shared>>::default();
    (Half { shared: Arc::clone(&shared), writes: 0 }, Half { shared, writes: 1 })
}

impl Half {
    /// Ready when [`read`](Self::read) does not have to wait.
    pub(in crate::proxy) fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut shared = self.lock();
        let broken = shared.broken.is_some();
        let way = &mut shared.ways[1 - self.writes];
        if broken || way.ended || !way.bytes.is_empty() {
            return Poll::Ready(());
        }
        remember(&mut way.reader, cx);
        Poll::Pending
    }

    /// Wakes the task when the other half says something or is gone, whether or not there is anything to read yet.
    pub(in crate::proxy) fn watch(&self, cx: &Context<'_>) {
        remember(&mut self.lock().ways[1 - self.writes].reader, cx);
    }

    /// Ready when [`write`](Self::write) does not have to wait.
    pub(in crate::proxy) fn poll_writable(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut shared = self.lock();
        let broken = shared.broken.is_some();
        let way = &mut shared.ways[self.writes];
        if broken || way.unread || way.bytes.len() < ROOM {
            return Poll::Ready(());
        }
        remember(&mut way.writer, cx);
        Poll::Pending
    }

    /// Moves what has come into `places`, in order; 0 bytes mean that nothing more will.
    ///
    /// # Errors
    /// `WouldBlock`, or `ConnectionReset` once the connection is [broken](Self::broken).
    pub(in crate::proxy) fn read<'a, 'b: 'a>(
        &self,
        places: impl IntoIterator<Item = &'a mut IoSliceMut<'b>>,
    ) -> io::Result<usize> {
        let mut shared = self.lock();
        shared.check()?;
        let way = &mut shared.ways[1 - self.writes];
        if way.bytes.is_empty() {
            return if way.ended { Ok(0) } else { Err(io::ErrorKind::WouldBlock.into()) };
        }
        let mut moved = 0;
        for place in places {
            moved += way.take(place);
        }
        let writer = way.writer.take_if(|_| moved > 0);
        drop(shared);
        wake(writer);
        Ok(moved)
    }

    /// Takes as much of `parts` as there is room for. Everything, if nobody reads any more.
    ///
    /// # Errors
    /// `WouldBlock`, or `ConnectionReset` once the connection is [broken](Self::broken).
    pub(in crate::proxy) fn write<'a>(&self, parts: impl IntoIterator<Item = &'a [u8]>) -> io::Result<usize> {
        let mut shared = self.lock();
        shared.check()?;
        let way = &mut shared.ways[self.writes];
        if way.unread {
            return Ok(parts.into_iter().map(<[u8]>::len).sum());
        }
        let mut room = ROOM.saturating_sub(way.bytes.len());
        if room == 0 {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let before = room;
        for part in parts {
            let part = &part[..part.len().min(room)];
            way.bytes.extend(part);
            room -= part.len();
        }
        let reader = way.reader.take();
        drop(shared);
        wake(reader);
        Ok(before - room)
    }

    /// Nothing more will be written.
    pub(in crate::proxy) fn end(&self) {
        let mut shared = self.lock();
        let way = &mut shared.ways[self.writes];
        way.ended = true;
        let reader = way.reader.take();
        drop(shared);
        wake(reader);
    }

    /// Ends both directions out of order; what was on its way is lost. Only the first reason counts.
    pub(in crate::proxy) fn break_off(&self, why: Broken) {
        let mut shared = self.lock();
        shared.broken.get_or_insert(why);
        let waiting = shared.ways.each_mut().map(|way| {
            way.bytes = VecDeque::new();
            [way.reader.take(), way.writer.take()]
        });
        drop(shared);
        waiting.into_iter().flatten().for_each(wake);
    }

    /// Why the connection ended out of order, if it did.
    pub(in crate::proxy) fn broken(&self) -> Option<Broken> {
        self.lock().broken.clone()
    }

    /// Whether the other half is gone.
    pub(in crate::proxy) fn is_abandoned(&self) -> bool {
        self.lock().ways[self.writes].unread
    }

    /// What carries the connection has got through to the far end.
    pub(in crate::proxy) fn connect(&self) {
        self.lock().connected = true;
    }

    /// Whether anything has got [through](Self::connect).
    pub(in crate::proxy) fn is_connected(&self) -> bool {
        self.lock().connected
    }

    fn lock(&self) -> MutexGuard<'_, Shared> {
        // Nothing that runs under the lock can leave the directions half changed.
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Half {
    fn drop(&mut self) {
        let mut shared = self.lock();
        let way = &mut shared.ways[self.writes];
        way.ended = true;
        let reader = way.reader.take();
        let way = &mut shared.ways[1 - self.writes];
        way.unread = true;
        way.bytes = VecDeque::new();
        let writer = way.writer.take();
        drop(shared);
        wake(reader);
        wake(writer);
    }
}

impl Shared {
    fn check(&self) -> io::Result<()> {
        if self.broken.is_some() { Err(io::ErrorKind::ConnectionReset.into()) } else { Ok(()) }
    }
}

impl Way {
    /// Moves bytes into `place`; returns how many.
    fn take(&mut self, place: &mut [u8]) -> usize {
        let (first, second) = self.bytes.as_slices();
        let from_first = first.len().min(place.len());
        let (head, tail) = place.split_at_mut(from_first);
        head.copy_from_slice(&first[..from_first]);
        let from_second = second.len().min(tail.len());
        tail[..from_second].copy_from_slice(&second[..from_second]);
        let moved = from_first + from_second;
        if moved == self.bytes.len() {
            self.bytes = VecDeque::new();
        } else {
            self.bytes.drain(..moved);
        }
        moved
    }
}

fn remember(slot: &mut Option<Waker>, cx: &Context<'_>) {
    match slot {
        Some(known) => known.clone_from(cx.waker()),
        none => *none = Some(cx.waker().clone()),
    }
}

fn wake(waker: Option<Waker>) {
    if let Some(waker) = waker {
        waker.wake();
    }
}

#[cfg(test)]
mod tests;

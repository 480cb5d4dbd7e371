//! Bytes between two plain TCP sockets, until both directions have ended.
//!
//! How a side ended is kept: a FIN is passed on as a FIN while the other direction goes on, a reset becomes a reset.
//! Small messages are copied, bulk goes through a kernel pipe and is not. A connection that moves nothing owns neither
//! buffer nor pipe; one whose receiver is slow owns at most what a single read brought.

use std::future::{Future, poll_fn};
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use mesh::{Cause, End, Outcome};
use tokio::io::{AsyncWrite, Interest};
use tokio::net::TcpStream;

use crate::net::options::end_in_order;
use crate::net::pipe::Pipe;

use super::{scratch, yielding};

/// Reads of one direction before the other connections of the thread get their turn.
const READS_PER_TURN: usize = 16;
/// A pipe that brings less than this is not worth its system calls: copying is as cheap.
const LEAST_BULK: usize = 16 * 1024;

/// How long the rest of what an app says is read and dropped after a connection has ended in order. Closing a socket
/// with unread bytes would turn the end into a reset, which could cost the app what it has not read yet.
const LINGER: Duration = Duration::from_secs(2);

/// Why a copy ended early. Both connections are reset when their sockets are dropped.
#[derive(Debug)]
pub(super) enum CopyError {
    /// The app at this side reset its connection.
    Reset(End),
    /// Reading from this side failed.
    Read(End, io::Error),
    /// Writing to this side failed.
    Write(End, io::Error),
    /// One direction has ended, and the other carried nothing for so long.
    HalfClosed(Duration),
}

impl CopyError {
    fn read(side: End, error: io::Error) -> Self {
        if is_reset(&error) { Self::Reset(side) } else { Self::Read(side, error) }
    }

    pub(super) fn write(side: End, error: io::Error) -> Self {
        if is_reset(&error) { Self::Reset(side) } else { Self::Write(side, error) }
    }
}

/// Whether an error means that the other end aborted the connection, as opposed to a failure on the way.
pub(super) fn is_reset(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe | io::ErrorKind::NotConnected)
}

/// Counts bytes that have been written on, by the side they were written to.
pub(super) trait Count {
    /// `bytes` have been written to `to`.
    fn moved(&mut self, to: End, bytes: usize);

    /// `end` has said all that it will.
    fn closed(&mut self, end: End);
}

/// What becomes of a connection whose one direction has ended, while the other carries nothing for `timeout`.
pub(super) fn half_closed_too_long(timeout: Duration) -> Outcome {
    let error =
        format!("one direction ended and the other carried nothing for {} s (HALF_CLOSED_TIMEOUT)", timeout.as_secs());
    Outcome::failed(Cause::HalfClosed, error)
}

/// Ends an app's connection in order although the app goes on talking: reads and drops what it says, for a while.
pub(super) async fn linger(app: TcpStream) {
    let _ = tokio::time::timeout(LINGER, async {
        while app.readable().await.is_ok() {
            let read = scratch::with_copy_room(|room| app.try_read(room));
            match read {
                Ok(0) => return,
                Ok(_) => {}
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                Err(_) => return,
            }
        }
    })
    .await;
}

/// Copies in both directions until both have ended.
///
/// # Errors
/// [`CopyError`] as soon as one direction cannot go on, or has carried nothing for `half_closed_timeout` (up to twice
/// as long) since the other ended.
pub(super) async fn both_ways(
    client: &mut TcpStream,
    server: &mut TcpStream,
    count: &mut impl Count,
    half_closed_timeout: Duration,
) -> Result<(), CopyError> {
    let mut up = Half::new(End::Client, End::Server);
    let mut down = Half::new(End::Server, End::Client);
    let mut patience = Patience { timeout: half_closed_timeout, seen: 0, look: None };
    let outcome = poll_fn(|cx| {
        yielding::active(&*client, 0);
        let a = up.poll(cx, client, server, count)?;
        let b = down.poll(cx, server, client, count)?;
        match (a.is_ready(), b.is_ready()) {
            (true, true) => Poll::Ready(Ok(())),
            (false, false) => Poll::Pending,
            _ => patience.poll(cx, up.moved + down.moved).map(Err),
        }
    })
    .await;
    if outcome.is_ok() {
        end_in_order(client);
        end_in_order(server);
    }
    outcome
}

/// One direction.
struct Half {
    from: End,
    to: End,
    held: Held,
    pace: Pace,
    state: HalfState,
    /// Bytes written so far.
    moved: u64,
}

/// How long a connection that has ended in one direction is borne with.
struct Patience {
    timeout: Duration,
    /// What had been moved at the last look.
    seen: u64,
    /// The next look.
    look: Option<Pin<Box<tokio::time::Sleep>>>,
}

impl Patience {
    fn poll(&mut self, cx: &mut Context<'_>, moved: u64) -> Poll<CopyError> {
        loop {
            let look = self.look.get_or_insert_with(|| {
                self.seen = moved;
                Box::pin(tokio::time::sleep(self.timeout))
            });
            ready!(look.as_mut().poll(cx));
            self.look = None;
            if self.seen == moved {
                return Poll::Ready(CopyError::HalfClosed(self.timeout));
            }
        }
    }
}

/// What was read and could not be written yet.
enum Held {
    Nothing,
    Bytes { bytes: Vec<u8>, written: usize },
    Piped(Pipe),
}

/// How the bytes come.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Pace {
    /// Less than a buffer at a time.
    Messages,
    /// More than the last buffer took.
    Bulk,
}

#[derive(PartialEq, Eq)]
enum HalfState {
    Open,
    Ending,
    Ended,
}

impl Half {
    fn new(from: End, to: End) -> Self {
        Self { from, to, held: Held::Nothing, pace: Pace::Messages, state: HalfState::Open, moved: 0 }
    }

    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        reader: &TcpStream,
        writer: &mut TcpStream,
        count: &mut impl Count,
    ) -> Result<Poll<()>, CopyError> {
        for _ in 0..READS_PER_TURN {
            if self.poll_held(cx, writer, count)?.is_pending() {
                return Ok(Poll::Pending);
            }
            match self.state {
                HalfState::Open => {}
                HalfState::Ending => return self.poll_shutdown(cx, writer),
                HalfState::Ended => return Ok(Poll::Ready(())),
            }
            let ready = reader.poll_read_ready(cx).map_err(|e| CopyError::read(self.from, e))?;
            if ready.is_pending() {
                return Ok(Poll::Pending);
            }
            self.held = match self.pace {
                Pace::Messages => scratch::with_copy_room(|room| self.copy(reader, writer, room, count))?,
                Pace::Bulk => self.fill_pipe(reader, count)?,
            };
        }
        cx.waker().wake_by_ref();
        Ok(Poll::Pending)
    }

    /// Reads into the thread's buffer and writes what the receiver takes at once.
    fn copy(
        &mut self,
        reader: &TcpStream,
        writer: &TcpStream,
        room: &mut [u8],
        count: &mut impl Count,
    ) -> Result<Held, CopyError> {
        let read = match reader.try_read(room) {
            Ok(0) => {
                self.state = HalfState::Ending;
                count.closed(self.from);
                return Ok(Held::Nothing);
            }
            Ok(n) => n,
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(Held::Nothing),
            Err(e) => return Err(CopyError::read(self.from, e)),
        };
        let written = match writer.try_write(&room[..read]) {
            Ok(n) => n,
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => 0,
            Err(e) => return Err(CopyError::write(self.to, e)),
        };
        count.moved(self.to, written);
        self.moved += written as u64;
        if read < room.len() {
            // The socket is drained: saying so now saves the read that would only find that out.
            let _ = reader.try_io(Interest::READABLE, || Err::<(), _>(io::ErrorKind::WouldBlock.into()));
        } else {
            self.pace = Pace::Bulk;
        }
        if written == read {
            return Ok(Held::Nothing);
        }
        Ok(Held::Bytes { bytes: room[written..read].to_vec(), written: 0 })
    }

    /// Moves what has come into a pipe, without looking at it.
    fn fill_pipe(&mut self, reader: &TcpStream, count: &mut impl Count) -> Result<Held, CopyError> {
        let Ok(mut pipe) = Pipe::take() else {
            self.pace = Pace::Messages; // out of descriptors: copying needs none
            return Ok(Held::Nothing);
        };
        match reader.try_io(Interest::READABLE, || pipe.fill_from(reader)) {
            Ok(0) => {
                self.state = HalfState::Ending;
                count.closed(self.from);
            }
            Ok(n) if n < LEAST_BULK => self.pace = Pace::Messages,
            Ok(_) => {}
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
            Err(e) => return Err(CopyError::read(self.from, e)),
        }
        Ok(Held::Piped(pipe))
    }

    fn poll_held(
        &mut self,
        cx: &mut Context<'_>,
        writer: &TcpStream,
        count: &mut impl Count,
    ) -> Result<Poll<()>, CopyError> {
        while self.held.len() > 0 {
            let ready = writer.poll_write_ready(cx).map_err(|e| CopyError::write(self.to, e))?;
            if ready.is_pending() {
                return Ok(Poll::Pending);
            }
            match self.held.write_to(writer) {
                Ok(n) => {
                    count.moved(self.to, n);
                    self.moved += n as u64;
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                Err(e) => return Err(CopyError::write(self.to, e)),
            }
        }
        if let Held::Piped(pipe) = std::mem::replace(&mut self.held, Held::Nothing) {
            pipe.give_back();
        }
        Ok(Poll::Ready(()))
    }

    fn poll_shutdown(&mut self, cx: &mut Context<'_>, writer: &mut TcpStream) -> Result<Poll<()>, CopyError> {
        match Pin::new(writer).poll_shutdown(cx) {
            Poll::Pending => Ok(Poll::Pending),
            // The receiver is gone; that its own direction ended is that direction's to tell.
            Poll::Ready(Err(e)) if !is_reset(&e) => Err(CopyError::write(self.to, e)),
            Poll::Ready(_) => {
                self.state = HalfState::Ended;
                Ok(Poll::Ready(()))
            }
        }
    }
}

impl Held {
    fn len(&self) -> usize {
        match self {
            Self::Nothing => 0,
            Self::Bytes { bytes, written } => bytes.len() - written,
            Self::Piped(pipe) => pipe.filled(),
        }
    }

    fn write_to(&mut self, writer: &TcpStream) -> io::Result<usize> {
        match self {
            Self::Nothing => Ok(0),
            Self::Bytes { bytes, written } => writer.try_write(&bytes[*written..]).inspect(|n| *written += n),
            Self::Piped(pipe) => writer.try_io(Interest::WRITABLE, || pipe.drain_to(writer)),
        }
    }
}

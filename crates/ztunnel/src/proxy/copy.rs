//! Bytes between two plain TCP sockets, until both directions have ended.
//!
//! How a side ended is kept: a FIN is passed on as a FIN while the other direction goes on, a reset becomes a reset.
//! A connection that moves nothing owns no buffer; one whose receiver is slow owns at most what a single read brought.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use mesh::End;
use tokio::io::{AsyncWrite, Interest};
use tokio::net::TcpStream;

use crate::net::options::abort_on_close;

use super::scratch;

/// Reads of one direction before the other connections of the thread get their turn.
const READS_PER_TURN: usize = 16;

/// Why a copy ended early. Both sockets have been set to reset when they are dropped.
#[derive(Debug)]
pub(super) enum CopyError {
    /// The app at this side reset its connection.
    Reset(End),
    /// Reading from this side failed.
    Read(End, io::Error),
    /// Writing to this side failed.
    Write(End, io::Error),
}

impl CopyError {
    fn read(side: End, error: io::Error) -> Self {
        if is_reset(&error) { Self::Reset(side) } else { Self::Read(side, error) }
    }

    fn write(side: End, error: io::Error) -> Self {
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
}

/// Copies in both directions until both have ended.
///
/// # Errors
/// [`CopyError`] as soon as one direction cannot go on.
pub(super) async fn both_ways(
    client: &mut TcpStream,
    server: &mut TcpStream,
    count: &mut impl Count,
) -> Result<(), CopyError> {
    let mut up = Half::new(End::Client, End::Server);
    let mut down = Half::new(End::Server, End::Client);
    let outcome = poll_fn(|cx| {
        let a = up.poll(cx, client, server, count)?;
        let b = down.poll(cx, server, client, count)?;
        if a.is_ready() && b.is_ready() { Poll::Ready(Ok(())) } else { Poll::Pending }
    })
    .await;
    if outcome.is_err() {
        abort_on_close(client);
        abort_on_close(server);
    }
    outcome
}

/// One direction.
struct Half {
    from: End,
    to: End,
    /// What was read and could not be written yet.
    spill: Vec<u8>,
    written: usize,
    state: HalfState,
}

#[derive(PartialEq, Eq)]
enum HalfState {
    Open,
    Ending,
    Ended,
}

impl Half {
    fn new(from: End, to: End) -> Self {
        Self { from, to, spill: Vec::new(), written: 0, state: HalfState::Open }
    }

    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        reader: &TcpStream,
        writer: &mut TcpStream,
        count: &mut impl Count,
    ) -> Result<Poll<()>, CopyError> {
        for _ in 0..READS_PER_TURN {
            if self.poll_spill(cx, writer, count)?.is_pending() {
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
            scratch::with_copy_room(|room| self.read_and_write(reader, writer, room, count))?;
        }
        cx.waker().wake_by_ref();
        Ok(Poll::Pending)
    }

    fn read_and_write(
        &mut self,
        reader: &TcpStream,
        writer: &TcpStream,
        room: &mut [u8],
        count: &mut impl Count,
    ) -> Result<(), CopyError> {
        let read = match reader.try_read(room) {
            Ok(0) => {
                self.state = HalfState::Ending;
                return Ok(());
            }
            Ok(n) => n,
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(e) => return Err(CopyError::read(self.from, e)),
        };
        let written = match writer.try_write(&room[..read]) {
            Ok(n) => n,
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => 0,
            Err(e) => return Err(CopyError::write(self.to, e)),
        };
        count.moved(self.to, written);
        self.spill.extend_from_slice(&room[written..read]);
        if read < room.len() {
            // The socket is drained: saying so now saves the read that would only find that out.
            let _ = reader.try_io(Interest::READABLE, || Err::<(), _>(io::ErrorKind::WouldBlock.into()));
        }
        Ok(())
    }

    fn poll_spill(
        &mut self,
        cx: &mut Context<'_>,
        writer: &TcpStream,
        count: &mut impl Count,
    ) -> Result<Poll<()>, CopyError> {
        while self.written < self.spill.len() {
            let ready = writer.poll_write_ready(cx).map_err(|e| CopyError::write(self.to, e))?;
            if ready.is_pending() {
                return Ok(Poll::Pending);
            }
            match writer.try_write(&self.spill[self.written..]) {
                Ok(n) => {
                    self.written += n;
                    count.moved(self.to, n);
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                Err(e) => return Err(CopyError::write(self.to, e)),
            }
        }
        self.spill = Vec::new();
        self.written = 0;
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

//! Bodies of answers: whole, or sent while they are being printed.
//!
//! Invariant: a body that is not printed to its end is cut, so that nobody takes a part for the whole. What is printed and
//! not sent yet is bounded by [`CHUNK`] times [`QUEUE`].

use std::io::{self, Write};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Frame, SizeHint};
use tokio::runtime::Handle;
use tokio::sync::mpsc;

/// Bytes that are sent at once. A body that is shorter is sent whole, with its length.
pub(super) const CHUNK: usize = 256 << 10;
/// Chunks that wait to be sent.
const QUEUE: usize = 2;
/// How long whoever asked may take for a chunk before the rest is not printed: others wait for their turn.
const PATIENCE: Duration = Duration::from_secs(10);

/// A body.
pub(super) enum Body {
    /// All of it; nothing once it has been sent.
    Whole(Bytes),
    /// What comes next, and the rest as it comes.
    Printed(Bytes, mpsc::Receiver<Chunk>),
}

/// A part of a body.
pub(super) enum Chunk {
    /// There is more to come.
    More(Bytes),
    /// There is not.
    Last(Bytes),
}

/// The printing ended before the body did.
#[derive(Debug, thiserror::Error)]
#[error("what was being printed is not complete")]
pub(super) struct Cut;

impl hyper::body::Body for Body {
    type Data = Bytes;
    type Error = Cut;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Cut>>> {
        let (data, last) = match &mut *self {
            Self::Whole(bytes) => (std::mem::take(bytes), true),
            Self::Printed(next, _) if !next.is_empty() => (std::mem::take(next), false),
            Self::Printed(_, rest) => match ready!(rest.poll_recv(context)) {
                Some(Chunk::More(bytes)) => (bytes, false),
                Some(Chunk::Last(bytes)) => (bytes, true),
                None => return Poll::Ready(Some(Err(Cut))),
            },
        };
        if last {
            *self = Self::Whole(Bytes::new());
        }
        Poll::Ready((!data.is_empty()).then(|| Ok(Frame::data(data))))
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Self::Whole(bytes) if bytes.is_empty())
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Self::Printed(..) => SizeHint::default(),
        }
    }
}

/// Where a body is printed to, on a thread that may block.
pub(super) struct Printer {
    buffer: Vec<u8>,
    chunks: mpsc::Sender<Chunk>,
    runtime: Handle,
}

impl Printer {
    /// A printer, and what comes out of it; `runtime` keeps the time.
    pub(super) fn new(runtime: Handle) -> (Self, mpsc::Receiver<Chunk>) {
        let (chunks, queue) = mpsc::channel(QUEUE);
        (Self { buffer: Vec::new(), chunks, runtime }, queue)
    }

    /// Everything has been printed.
    pub(super) fn finish(mut self) -> io::Result<()> {
        let last = Chunk::Last(std::mem::take(&mut self.buffer).into());
        self.send(last)
    }

    fn send(&self, chunk: Chunk) -> io::Result<()> {
        let sent = self.runtime.block_on(async { tokio::time::timeout(PATIENCE, self.chunks.send(chunk)).await });
        match sent {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(io::ErrorKind::BrokenPipe.into()),
            Err(_) => Err(io::ErrorKind::TimedOut.into()),
        }
    }
}

impl Write for Printer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.buffer.extend_from_slice(bytes);
        if self.buffer.len() >= CHUNK {
            let chunk = std::mem::replace(&mut self.buffer, Vec::with_capacity(CHUNK + (CHUNK >> 2)));
            self.send(Chunk::More(chunk.into()))?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

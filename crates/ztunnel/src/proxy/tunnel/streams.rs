//! The app side of a tunnel's streams: sockets, and bytes that a socket did not take yet.
//!
//! Invariant: what is read from a socket is framed at once, and only while there is room for it; what came for a socket
//! is credited to flow control only once the socket has taken it or is gone, so that [`AppStream::spill`] is bounded by the
//! stream's receive window.

use std::convert::Infallible;
use std::future::Future;
use std::io::{self, IoSlice, IoSliceMut};
use std::net::TcpStream as AppSocket;
use std::ops::Range;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use hbone::h2::StreamId;
use hbone::{Inbox, Outbox, Tunnel};
use mesh::Permit;
use mesh::permit::Standing;

use super::pair::Half;
use super::ready::SlotWaker;
use super::ring::Talk;
use super::transport::{Follows, Transport};
use super::{Answer, EarlyData, MAX_EARLY, Opening, Passenger};
use crate::proxy::inbound::Said;
use crate::proxy::outbound::Pursuit;
use crate::telemetry::{Holding, Meter, SocketGuard};

/// Ranges written with one system call; more payload than a batch of small frames rarely has.
const VECTORED: usize = 64;

/// One stream and the socket it belongs to.
pub(super) struct AppStream {
    pub(super) id: StreamId,
    pub(super) stage: Stage,
    /// Counts and in the end records the connection. A server's stream has one once its request is accepted.
    pub(super) meter: Option<Meter>,
    /// Counts a captured socket as open; a server's streams are not sockets of their own.
    pub(super) socket: Option<SocketGuard>,
    /// What it is checked by when policies change: a server's stream, once its request is accepted.
    pub(super) standing: Option<Box<Standing>>,
    /// Received and not taken by the socket yet, from `spill_taken` on.
    pub(super) spill: Vec<u8>,
    pub(super) spill_taken: usize,
    /// Payload of the peer that has not been credited yet: what is taken is credited at once, the rest when the stream
    /// ends, since the tunnel's window is everybody's.
    pub(super) owed: usize,
    /// Bytes of the spill that are ours (a PROXY header) and so not the peer's to be credited.
    pub(super) prologue: usize,
    /// What the app said before this stream could take it; sent before anything else of it.
    pub(super) replay: Vec<u8>,
    /// Whether [`Opening::early`] went along with this stream's request.
    pub(super) sent_early: bool,
    pub(super) send: SendHalf,
    /// How much the app says at a time.
    pub(super) talk: Talk,
    /// Whether what it may have said unread has been [bounded](Self::bound_unread).
    pub(super) bounded: bool,
    pub(super) receive: ReceiveHalf,
    /// The peer wants nothing more, though the app has not ended: what it still says is read and dropped.
    pub(super) unread: bool,
    /// What has been counted of it in the tunnel's census.
    pub(super) counted: Holding,
    /// When the connection goes elsewhere if its request has not been answered.
    pub(super) answer_by: Option<Instant>,
    /// Half closed and quiet when last looked at.
    pub(super) seen_quiet: bool,
    pub(super) slot: Arc<SlotWaker>,
    pub(super) waker: Waker,
}

/// How far a stream has come.
pub(super) enum Stage {
    /// Server: the request is being decided, and the app dialled; with what that has to be told of.
    Preparing(Pin<Box<dyn Future<Output = Answer> + Send>>, Said),
    /// Client: the request has been sent, the answer not received.
    Requested(Box<Opening>),
    /// Bytes flow.
    Open(Transport),
    /// Being taken apart; never seen between two events.
    Closing,
}

/// App to peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SendHalf {
    /// In the ring of streams that may have something to send.
    Queued,
    /// Waiting for the app, whose socket wakes us.
    Waiting,
    /// Waiting for flow control.
    Blocked,
    /// END_STREAM has been sent, or is not wanted any more.
    Ended,
}

/// Peer to app.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ReceiveHalf {
    /// More may come.
    Open,
    /// The peer has ended; the spill has to be written first.
    Ending,
    /// The app has been told.
    Ended,
}

/// What a stream may do in its turn.
#[derive(Debug, Clone, Copy)]
pub(super) struct Turn {
    /// Bytes that it may send at most.
    pub(super) limit: usize,
    /// Whether it may send any before its request is answered.
    pub(super) early_data: EarlyData,
}

/// What came of a try to send.
pub(super) enum Pumped {
    /// There may be more.
    More,
    /// The app has nothing; its socket will wake us.
    Waiting,
    /// Flow control has no room.
    Blocked,
    /// The batch is full.
    Full,
    /// The app has ended its direction and the peer has been told.
    Ended,
    /// The app's socket failed.
    Failed(io::Error),
}

impl AppStream {
    /// Whether both directions have ended in order.
    pub(super) fn is_complete(&self) -> bool {
        self.send == SendHalf::Ended && self.receive == ReceiveHalf::Ended
    }

    /// Whether one direction has ended and the other has not.
    pub(super) fn is_half_closed(&self) -> bool {
        (self.send == SendHalf::Ended) != (self.receive == ReceiveHalf::Ended)
    }

    /// The bytes that it keeps, and whether it is half closed.
    pub(super) fn holding(&self) -> Holding {
        let early = match &self.stage {
            Stage::Requested(opening) => opening.passenger.early().len(),
            Stage::Preparing(..) | Stage::Open(_) | Stage::Closing => 0,
        };
        Holding {
            to_app: self.spill.len() - self.spill_taken,
            to_peer: self.replay.len() + early,
            half_closed: self.is_half_closed(),
        }
    }

    /// The connection that waits for an answer here, and what allows it, if it could still be carried elsewhere.
    pub(super) fn pursuit(&self) -> Option<(&Pursuit, &Permit)> {
        match &self.stage {
            Stage::Requested(opening) if !self.sent_early => match &opening.passenger {
                Passenger::Connection(pursuit) => Some((pursuit, &opening.permit)),
                Passenger::Tunnel(_) => None,
            },
            Stage::Requested(_) | Stage::Preparing(..) | Stage::Open(_) | Stage::Closing => None,
        }
    }

    fn app(&self) -> Option<&Transport> {
        match &self.stage {
            Stage::Open(app) => Some(app),
            Stage::Preparing(..) | Stage::Requested(_) | Stage::Closing => None,
        }
    }

    /// Before the answer: sends what the app says first along with the request, if that is allowed, and gets a tunnel
    /// going that is to run inside the stream.
    fn prepare(&mut self, tunnel: &mut Tunnel, outbox: &mut Outbox, early_data: EarlyData) -> Pumped {
        let Stage::Requested(opening) = &mut self.stage else { return Pumped::Waiting };
        if let Passenger::Tunnel(nested) = &mut opening.passenger {
            nested.start();
            nested.half.watch(&Context::from_waker(&self.waker));
            if nested.half.is_abandoned() {
                return Pumped::Failed(io::ErrorKind::TimedOut.into());
            }
        }
        if early_data == EarlyData::Allowed && !self.sent_early {
            self.sent_early = send_early(self.id, opening, tunnel, outbox);
        }
        Pumped::Waiting
    }

    /// Moves up to `limit` bytes from the app into frames. Adds the number of bytes moved to `moved`.
    pub(super) fn pump(&mut self, tunnel: &mut Tunnel, outbox: &mut Outbox, turn: Turn, moved: &mut usize) -> Pumped {
        if let Stage::Requested(_) = &self.stage {
            return self.prepare(tunnel, outbox, turn.early_data);
        }
        let limit = turn.limit;
        if !self.replay.is_empty() {
            return self.pump_replay(tunnel, outbox, moved);
        }
        let Some(app) = self.app() else { return Pumped::Waiting };
        let mut cx = Context::from_waker(&self.waker);
        match app.poll_read_ready(&mut cx) {
            Poll::Pending => return Pumped::Waiting,
            Poll::Ready(Err(e)) => return Pumped::Failed(e),
            Poll::Ready(Ok(())) => {}
        }
        let mut asked = 0;
        let read = tunnel.send_data(self.id, limit, outbox, |places| {
            asked = places.iter().map(|p| p.len()).sum();
            app.try_read_vectored(places)
        });
        match read {
            None if tunnel.send_capacity(self.id) == 0 => Pumped::Blocked,
            None => Pumped::Full,
            Some(Ok(0)) => match tunnel.end(self.id, outbox) {
                Ok(()) | Err(_) => Pumped::Ended, // an error means that the stream is gone, which ends it as well
            },
            Some(Ok(n)) => {
                *moved += n;
                if n == asked {
                    return Pumped::More;
                }
                app.is_drained();
                self.wait_readable(app)
            }
            Some(Err(e)) if e.kind() == io::ErrorKind::WouldBlock => self.wait_readable(app),
            Some(Err(e)) => Pumped::Failed(e),
        }
    }

    fn pump_replay(&mut self, tunnel: &mut Tunnel, outbox: &mut Outbox, moved: &mut usize) -> Pumped {
        let rest = &self.replay;
        match tunnel.send_data(self.id, rest.len(), outbox, |places| Ok::<_, Infallible>(put(rest, places))) {
            None if tunnel.send_capacity(self.id) == 0 => Pumped::Blocked,
            None => Pumped::Full,
            Some(Ok(n)) => {
                *moved += n;
                self.replay.drain(..n);
                Pumped::More
            }
        }
    }

    /// The app says much: what of it waits in the kernel gets a bound, if it has none.
    pub(super) fn bound_unread(&mut self) {
        if let Stage::Open(app) = &self.stage
            && !std::mem::replace(&mut self.bounded, true)
        {
            app.bound_unread();
        }
    }

    fn wait_readable(&self, app: &Transport) -> Pumped {
        match app.poll_read_ready(&mut Context::from_waker(&self.waker)) {
            Poll::Pending => Pumped::Waiting,
            Poll::Ready(Ok(())) => Pumped::More,
            Poll::Ready(Err(e)) => Pumped::Failed(e),
        }
    }

    /// Passes payload on to the app; what the app does not take is kept. Returns how much the app took.
    pub(super) fn deliver(&mut self, ranges: &[Range<usize>], inbox: &Inbox) -> io::Result<usize> {
        self.owed += ranges.iter().map(ExactSizeIterator::len).sum::<usize>();
        let mut taken = 0;
        if self.spill.is_empty()
            && let Some(app) = self.app()
        {
            // What is not taken is tried again in a moment, and then without holding anything back.
            let follows = if self.receive == ReceiveHalf::Ending { Follows::Directly } else { Follows::Perhaps };
            taken = write_ranges(app, ranges, inbox, follows)?;
        }
        let mut skip = taken;
        for range in ranges {
            let bytes = inbox.payload(range.clone());
            let rest = bytes.get(skip..).unwrap_or_default();
            skip = skip.saturating_sub(bytes.len());
            self.spill.extend_from_slice(rest);
        }
        // What was kept is written when the socket says that it has room; asking makes it say so.
        Ok(taken + self.flush_spill()?)
    }

    /// Writes what was kept while the app was being connected, without waiting until the runtime has seen its socket; then
    /// goes on as [`flush_spill`](Self::flush_spill) does.
    pub(super) fn begin(&mut self) -> io::Result<usize> {
        let mut taken = 0;
        if let Stage::Open(app) = &self.stage
            && !self.spill.is_empty()
        {
            match app.write_at_once(&[IoSlice::new(&self.spill[self.spill_taken..])], Follows::Perhaps) {
                Ok(n) => taken = took(n, &mut self.spill_taken, &mut self.prologue),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                Err(e) => return Err(e),
            }
        }
        Ok(taken + self.flush_spill()?)
    }

    /// Writes what is kept, as far as the app takes it, and tells the app about the peer's end after it. Returns how
    /// many bytes of the peer's the app took.
    pub(super) fn flush_spill(&mut self) -> io::Result<usize> {
        let Stage::Open(app) = &self.stage else { return Ok(0) };
        let mut cx = Context::from_waker(&self.waker);
        let mut taken = 0;
        while self.spill_taken < self.spill.len() {
            match app.poll_write_ready(&mut cx) {
                Poll::Pending => break,
                Poll::Ready(ready) => ready?,
            }
            match app.try_write(&self.spill[self.spill_taken..]) {
                Ok(n) => taken += took(n, &mut self.spill_taken, &mut self.prologue),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                Err(e) => return Err(e),
            }
        }
        if self.spill_taken == self.spill.len() && !self.spill.is_empty() {
            self.spill = Vec::new();
            self.spill_taken = 0;
        }
        if self.spill.is_empty() && self.receive == ReceiveHalf::Ending {
            self.receive = ReceiveHalf::Ended;
            app.end()?;
        }
        Ok(taken)
    }
}

/// Counts `n` bytes of a spill as taken by the app. Returns how many of them were the peer's.
fn took(n: usize, spill_taken: &mut usize, prologue: &mut usize) -> usize {
    *spill_taken += n;
    let ours = n.min(*prologue);
    *prologue -= ours;
    n - ours
}

/// Who says something before the answer.
enum Speaker<'a> {
    App(&'a AppSocket),
    Tunnel(&'a Half),
}

/// Sends what the app has said so far along with the request, if it has said anything. Returns whether it did; what
/// could not go early goes after the answer.
fn send_early(id: StreamId, opening: &mut Opening, tunnel: &mut Tunnel, outbox: &mut Outbox) -> bool {
    let (early, app) = match &mut opening.passenger {
        Passenger::Connection(pursuit) => (&mut pursuit.early, Speaker::App(&pursuit.app)),
        Passenger::Tunnel(nested) => (&mut nested.early, Speaker::Tunnel(&nested.half)),
    };
    let again = !early.is_empty();
    if again && tunnel.send_capacity(id).min(outbox.room()) < early.len() {
        return false;
    }
    let sent = tunnel.send_data(id, MAX_EARLY, outbox, |places| {
        if again {
            return Ok::<_, io::Error>(put(early, places));
        }
        let read = match app {
            Speaker::App(app) => rustix::io::readv(app, &mut *places).map_err(io::Error::from)?,
            Speaker::Tunnel(half) => half.read(&mut *places)?,
        };
        let mut left = read;
        for place in places {
            let here = place.len().min(left);
            early.extend_from_slice(&place[..here]);
            left -= here;
        }
        Ok(read)
    });
    // An app that has ended or failed already is found out once bytes flow.
    matches!(sent, Some(Ok(n)) if n > 0)
}

/// Copies as much as fits; returns how much that was.
fn put(mut bytes: &[u8], places: &mut [IoSliceMut<'_>]) -> usize {
    let all = bytes.len();
    for place in places {
        let (now, later) = bytes.split_at(place.len().min(bytes.len()));
        place[..now.len()].copy_from_slice(now);
        bytes = later;
    }
    all - bytes.len()
}

fn write_ranges(app: &Transport, ranges: &[Range<usize>], inbox: &Inbox, follows: Follows) -> io::Result<usize> {
    let mut taken = 0;
    for ranges in ranges.chunks(VECTORED) {
        let mut slices = [IoSlice::new(&[]); VECTORED];
        let mut wanted = 0;
        for (slice, range) in slices.iter_mut().zip(ranges) {
            let bytes = inbox.payload(range.clone());
            wanted += bytes.len();
            *slice = IoSlice::new(bytes);
        }
        if wanted == 0 {
            continue;
        }
        match app.write_at_once(&slices[..ranges.len()], follows) {
            Ok(n) => {
                taken += n;
                if n < wanted {
                    break;
                }
            }
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
            Err(e) => return Err(e),
        }
    }
    Ok(taken)
}

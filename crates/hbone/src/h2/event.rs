//! What the machine tells its driver.

use std::ops::Range;

use super::message::{Request, Response};
use super::stream::{End, StreamId};
use crate::error::{Reason, Violation};

/// Something the driver or the application has to know. Events come in the order in which their causes arrived.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// Server: a stream was opened with a well-formed request. It must be answered with
    /// [`respond`](super::Connection::respond) or [`reset`](super::Connection::reset).
    Request {
        /// The stream.
        id: StreamId,
        /// The request.
        request: Request,
        /// Whether the client has already ended its direction.
        end: End,
    },
    /// Client: the final answer to a request. Interim answers are not reported.
    Response {
        /// The stream.
        id: StreamId,
        /// The answer.
        response: Response,
        /// Whether the server has ended its direction.
        end: End,
    },
    /// Payload. The bytes must be given back with [`credit`](super::Connection::credit) once they are written on,
    /// whatever has become of the stream by then.
    Data {
        /// The stream.
        id: StreamId,
        /// Where in the bytes given to this call of [`receive`](super::Connection::receive); may be empty at the end.
        range: Range<usize>,
        /// Whether these are the last bytes of the peer's direction (END_STREAM, be it by DATA or by trailers).
        end: End,
    },
    /// The stream is gone before its time; nothing can be sent or will be received on it any more.
    Reset {
        /// The stream.
        id: StreamId,
        /// The code, as it came if it came from the peer.
        reason: Reason,
        /// Who did it.
        by: ResetBy,
    },
    /// A stream that could not send may be able to now; see [`send_capacity`](super::Connection::send_capacity).
    SendWindow {
        /// The stream; `None` if it may be any.
        id: Option<StreamId>,
    },
    /// The peer's SETTINGS have arrived, for the first time or again; the limit of streams may have changed.
    SettingsChanged,
    /// The peer has sent GOAWAY. A client gets a [`Event::Reset`] for each stream the peer will not have worked on.
    GoingAway {
        /// The highest stream the peer has worked on or may still.
        last: StreamId,
        /// Why.
        reason: Reason,
        /// The peer's words, cut to [`MAX_GOAWAY_DEBUG`](crate::limits::MAX_GOAWAY_DEBUG).
        debug: Box<[u8]>,
    },
}

/// Who ended a stream before its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResetBy {
    /// The peer, by RST_STREAM.
    Peer,
    /// The peer, by a GOAWAY that says it has not worked on the stream: trying again elsewhere is safe (RFC 9113 §6.8).
    PeerGoingAway,
    /// This side, because the peer broke a rule; RST_STREAM has been queued.
    Violation(Violation),
}

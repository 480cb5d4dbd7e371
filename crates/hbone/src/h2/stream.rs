//! One stream: its identifier, its state (RFC 9113 §5.1) and its windows.
//!
//! Invariant: [`State`] is changed by [`State::receive`] and [`State::send`] alone, and those two are a complete table,
//! printed whole in `stream/transitions.txt` and compared in a test. A stream whose two halves have ended, or which was
//! reset, has no [`Stream`] any more.
//!
//! Deliberately absent: reserved states (push is refused) and priorities (ignored, RFC 9113 §5.3.2).

use std::fmt;

use super::connection::Pace;
use super::window::{ReceiveWindow, SendWindow};
use crate::error::{SendError, Violation};

/// A stream's identifier: odd for streams of the client, never zero in this crate's events (RFC 9113 §5.1.1).
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamId(u32);

impl StreamId {
    /// Not a stream but the connection as a whole.
    pub const CONNECTION: StreamId = StreamId(0);
    /// The highest identifier there is.
    pub const MAX: StreamId = StreamId(0x7fff_ffff);

    /// The identifier with this number, whose highest bit is ignored as RFC 9113 §4.1 wants it.
    pub const fn new(number: u32) -> Self {
        StreamId(number & 0x7fff_ffff)
    }

    /// The number on the wire.
    pub const fn value(self) -> u32 {
        self.0
    }

    /// Whether it stands for the connection.
    pub const fn is_connection(self) -> bool {
        self.0 == 0
    }

    /// Whether a client opens streams of this parity.
    pub const fn is_client_initiated(self) -> bool {
        self.0 % 2 == 1
    }
}

impl fmt::Display for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "#{}", self.0)
    }
}

/// Whether something is the last of its direction on a stream (END_STREAM).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum End {
    /// More may follow.
    No,
    /// Nothing follows.
    Yes,
}

impl End {
    /// Whether nothing follows.
    pub const fn is_end(self) -> bool {
        matches!(self, End::Yes)
    }

    pub(crate) const fn from_flag(set: bool) -> Self {
        if set { End::Yes } else { End::No }
    }
}

/// How far one direction of a stream has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Half {
    /// The headers are still to come.
    Head,
    /// DATA may come.
    Body,
    /// END_STREAM has passed.
    Ended,
}

impl Half {
    const fn after(end: End) -> Self {
        match end {
            End::No => Half::Body,
            End::Yes => Half::Ended,
        }
    }
}

/// The state of a stream: both directions, as seen from this side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct State {
    /// From here to the peer.
    pub send: Half,
    /// From the peer to here.
    pub receive: Half,
}

/// What the peer sent on a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Received {
    /// A response with a 1xx status (RFC 9110 §15.2).
    Interim,
    /// A header block: the final response, or trailers.
    Headers(End),
    /// A complete DATA frame.
    Data(End),
}

/// What this side sends on a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sent {
    /// The answer to a request.
    Headers(End),
    /// A DATA frame.
    Data(End),
}

impl State {
    /// A request that this client just sent; CONNECT never ends its stream with the headers.
    pub const REQUESTED: State = State { send: Half::Body, receive: Half::Head };

    /// A request that this server just received.
    pub const fn accepted(end: End) -> Self {
        State { send: Half::Head, receive: Half::after(end) }
    }

    /// Whether both directions have ended, so that nothing need be remembered.
    pub const fn is_closed(self) -> bool {
        matches!((self.send, self.receive), (Half::Ended, Half::Ended))
    }

    /// The state after something has been received.
    ///
    /// # Errors
    /// A stream error (RFC 9113 §5.4.2).
    pub const fn receive(self, what: Received) -> Result<State, Violation> {
        let receive = match (self.receive, what) {
            (Half::Head, Received::Interim) => Half::Head,
            (Half::Head, Received::Headers(end)) => Half::after(end),
            (Half::Head, Received::Data(_)) => return Err(Violation::DataBeforeHeaders),
            (Half::Body, Received::Data(end)) => Half::after(end),
            (Half::Body, Received::Headers(End::Yes)) => Half::Ended,
            (Half::Body, Received::Headers(End::No) | Received::Interim) => return Err(Violation::HeadersTwice),
            (Half::Ended, _) => return Err(Violation::StreamClosed),
        };
        Ok(State { receive, ..self })
    }

    /// The state after something has been sent.
    ///
    /// # Errors
    /// The caller must not send that now.
    pub const fn send(self, what: Sent) -> Result<State, SendError> {
        let send = match (self.send, what) {
            (Half::Head, Sent::Headers(end)) => Half::after(end),
            (Half::Head, Sent::Data(_)) => return Err(SendError::NotAnswered),
            (Half::Body, Sent::Data(end)) => Half::after(end),
            (Half::Body, Sent::Headers(_)) => return Err(SendError::AlreadyAnswered),
            (Half::Ended, _) => return Err(SendError::Ended),
        };
        Ok(State { send, ..self })
    }
}

/// Everything the machine keeps per stream.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stream {
    pub state: State,
    pub send: SendWindow,
    pub receive: ReceiveWindow,
    /// DATA was sent since the peer's last WINDOW_UPDATE, so that another one is not noise.
    pub sent_since_update: bool,
    /// A WINDOW_UPDATE for this stream waits to be written.
    pub update_queued: bool,
    /// How fast the application reads, and what that has earned it.
    pub pace: Pace,
}

impl Stream {
    /// Whether the peer should be told of more room; pointless once it has ended its direction.
    pub fn wants_update(&self) -> bool {
        self.state.receive != Half::Ended && self.receive.update_due().is_some()
    }
}

#[cfg(test)]
mod tests;

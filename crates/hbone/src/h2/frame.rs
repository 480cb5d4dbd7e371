//! HTTP/2 frames on the wire (RFC 9113 §4 and §6): the nine-byte head, typed payloads, and writing both.
//!
//! Invariant: what [`parse`] accepts has a legal length and sits on a legal stream for its type; what the `put_*`
//! functions write does so too. DATA is only ever known by its head, since its payload is never gathered.
//!
//! Deliberately absent: any notion of a stream's or connection's state.

use super::stream::StreamId;
use crate::error::{Reason, Violation};
use crate::limits::MAX_GOAWAY_DEBUG;

/// Length of every frame's head (RFC 9113 §4.1).
pub const HEAD_LEN: usize = 9;

/// What a client sends before its first frame (RFC 9113 §3.4).
pub const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// DATA, HEADERS: the sender ends the stream.
pub const END_STREAM: u8 = 0x1;
/// SETTINGS, PING: an acknowledgement.
pub const ACK: u8 = 0x1;
/// HEADERS, CONTINUATION: the header block is complete.
pub const END_HEADERS: u8 = 0x4;
/// DATA, HEADERS: padding follows the payload.
pub const PADDED: u8 = 0x8;
/// HEADERS: five bytes of priority come before the block.
pub const PRIORITY: u8 = 0x20;

/// A setting's identifier (RFC 9113 §6.5.2).
pub mod setting {
    /// SETTINGS_HEADER_TABLE_SIZE
    pub const HEADER_TABLE_SIZE: u16 = 0x1;
    /// SETTINGS_ENABLE_PUSH
    pub const ENABLE_PUSH: u16 = 0x2;
    /// SETTINGS_MAX_CONCURRENT_STREAMS
    pub const MAX_CONCURRENT_STREAMS: u16 = 0x3;
    /// SETTINGS_INITIAL_WINDOW_SIZE
    pub const INITIAL_WINDOW_SIZE: u16 = 0x4;
    /// SETTINGS_MAX_FRAME_SIZE
    pub const MAX_FRAME_SIZE: u16 = 0x5;
    /// SETTINGS_MAX_HEADER_LIST_SIZE
    pub const MAX_HEADER_LIST_SIZE: u16 = 0x6;
}

/// A frame's type (RFC 9113 §6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// DATA
    Data,
    /// HEADERS
    Headers,
    /// PRIORITY
    Priority,
    /// RST_STREAM
    Reset,
    /// SETTINGS
    Settings,
    /// PUSH_PROMISE
    PushPromise,
    /// PING
    Ping,
    /// GOAWAY
    GoAway,
    /// WINDOW_UPDATE
    WindowUpdate,
    /// CONTINUATION
    Continuation,
    /// A type this crate does not know, to be ignored (RFC 9113 §4.1).
    Unknown(u8),
}

impl Kind {
    /// The type with this number.
    pub const fn from_wire(number: u8) -> Self {
        match number {
            0 => Kind::Data,
            1 => Kind::Headers,
            2 => Kind::Priority,
            3 => Kind::Reset,
            4 => Kind::Settings,
            5 => Kind::PushPromise,
            6 => Kind::Ping,
            7 => Kind::GoAway,
            8 => Kind::WindowUpdate,
            9 => Kind::Continuation,
            other => Kind::Unknown(other),
        }
    }

    /// The number of this type.
    pub const fn to_wire(self) -> u8 {
        match self {
            Kind::Data => 0,
            Kind::Headers => 1,
            Kind::Priority => 2,
            Kind::Reset => 3,
            Kind::Settings => 4,
            Kind::PushPromise => 5,
            Kind::Ping => 6,
            Kind::GoAway => 7,
            Kind::WindowUpdate => 8,
            Kind::Continuation => 9,
            Kind::Unknown(number) => number,
        }
    }
}

/// A frame's head (RFC 9113 §4.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// Payload length in bytes, below 2^24.
    pub length: u32,
    /// The type.
    pub kind: Kind,
    /// Flags, whose meaning depends on the type.
    pub flags: u8,
    /// The stream; zero for the connection.
    pub stream: StreamId,
}

impl Head {
    /// Reads a head; the reserved bit before the stream identifier is ignored.
    pub const fn parse(b: &[u8; HEAD_LEN]) -> Self {
        Head {
            length: u32::from_be_bytes([0, b[0], b[1], b[2]]),
            kind: Kind::from_wire(b[3]),
            flags: b[4],
            stream: StreamId::new(u32::from_be_bytes([b[5], b[6], b[7], b[8]])),
        }
    }

    /// Writes a head.
    pub const fn encode(self) -> [u8; HEAD_LEN] {
        let [_, l0, l1, l2] = self.length.to_be_bytes();
        let [s0, s1, s2, s3] = self.stream.value().to_be_bytes();
        [l0, l1, l2, self.kind.to_wire(), self.flags, s0, s1, s2, s3]
    }

    /// Whether a flag is set.
    pub const fn has(self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    /// Checks what the head alone tells: whether type, stream and length go together.
    ///
    /// # Errors
    /// The rule that is broken. All are treated as connection errors, which RFC 9113 §5.4.1 allows even where a stream
    /// error would do.
    pub const fn check(self) -> Result<(), Violation> {
        let on_stream = !self.stream.is_connection();
        match self.kind {
            Kind::Data | Kind::Headers | Kind::Priority | Kind::Reset | Kind::Continuation if !on_stream => {
                Err(Violation::FrameOnStreamZero)
            }
            Kind::Settings | Kind::Ping | Kind::GoAway if on_stream => Err(Violation::FrameNotOnStreamZero),
            Kind::Reset | Kind::WindowUpdate if self.length != 4 => Err(Violation::FrameLength),
            Kind::Priority if self.length != 5 => Err(Violation::FrameLength),
            Kind::Ping if self.length != 8 => Err(Violation::FrameLength),
            Kind::GoAway if self.length < 8 => Err(Violation::FrameLength),
            Kind::Settings if self.has(ACK) && self.length != 0 => Err(Violation::FrameLength),
            Kind::Settings if !self.length.is_multiple_of(6) => Err(Violation::FrameLength),
            Kind::PushPromise => Err(Violation::PushPromise),
            _ => Ok(()),
        }
    }
}

/// A frame other than DATA, as received. Padding and priority of HEADERS are gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Frame<'a> {
    /// The first part of a header block.
    Headers(&'a [u8]),
    /// A further part of a header block.
    Continuation(&'a [u8]),
    /// Obsolete scheduling advice (RFC 9113 §5.3.2).
    Priority,
    /// The sender gives the stream up.
    Reset(Reason),
    /// Parameters of the sender.
    Settings(Settings<'a>),
    /// The sender has applied our parameters.
    SettingsAck,
    /// To be echoed.
    Ping([u8; 8]),
    /// An echo.
    Pong([u8; 8]),
    /// The sender accepts no streams above the identifier.
    GoAway {
        /// Highest stream the sender has worked on or still may.
        last: StreamId,
        /// Why.
        reason: Reason,
        /// Free text, cut to [`MAX_GOAWAY_DEBUG`].
        debug: &'a [u8],
    },
    /// More room for DATA, 0 to 2^31-1.
    WindowUpdate(u32),
    /// To be ignored.
    Unknown,
}

/// Reads the payload of any frame but DATA whose head has passed [`Head::check`].
///
/// # Errors
/// The rule that the payload breaks.
pub fn parse(head: Head, payload: &[u8]) -> Result<Frame<'_>, Violation> {
    Ok(match head.kind {
        Kind::Headers => Frame::Headers(fragment(head, payload)?),
        Kind::Continuation => Frame::Continuation(payload),
        Kind::Priority => Frame::Priority,
        Kind::Reset => Frame::Reset(Reason(word(payload)?)),
        Kind::Settings if head.has(ACK) => Frame::SettingsAck,
        Kind::Settings => Frame::Settings(Settings(payload)),
        Kind::Ping => {
            let echo = payload.try_into().map_err(|_| Violation::FrameLength)?;
            if head.has(ACK) { Frame::Pong(echo) } else { Frame::Ping(echo) }
        }
        Kind::GoAway => {
            let (ids, rest) = payload.split_at_checked(4).ok_or(Violation::FrameLength)?;
            let (code, debug) = rest.split_at_checked(4).ok_or(Violation::FrameLength)?;
            let debug = debug.get(..MAX_GOAWAY_DEBUG).unwrap_or(debug);
            Frame::GoAway { last: StreamId::new(word(ids)?), reason: Reason(word(code)?), debug }
        }
        Kind::WindowUpdate => Frame::WindowUpdate(word(payload)? & 0x7fff_ffff),
        Kind::PushPromise => return Err(Violation::PushPromise),
        Kind::Data | Kind::Unknown(_) => Frame::Unknown,
    })
}

fn word(bytes: &[u8]) -> Result<u32, Violation> {
    bytes.try_into().map(u32::from_be_bytes).map_err(|_| Violation::FrameLength)
}

/// The header block fragment of a HEADERS frame, without padding and priority (RFC 9113 §6.2).
fn fragment(head: Head, payload: &[u8]) -> Result<&[u8], Violation> {
    let mut rest = payload;
    let mut padding = 0;
    if head.has(PADDED) {
        let (&length, tail) = rest.split_first().ok_or(Violation::FrameLength)?;
        padding = usize::from(length);
        rest = tail;
    }
    if head.has(PRIORITY) {
        rest = rest.get(5..).ok_or(Violation::FrameLength)?;
    }
    let end = rest.len().checked_sub(padding).ok_or(Violation::PaddingTooLong)?;
    Ok(&rest[..end])
}

/// The entries of a SETTINGS frame, in order: identifier and value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings<'a>(&'a [u8]);

impl Settings<'_> {
    /// Number of entries.
    pub fn len(&self) -> usize {
        self.0.len() / 6
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The entries, in the order in which they must be applied (RFC 9113 §6.5.3).
    pub fn entries(&self) -> impl Iterator<Item = (u16, u32)> {
        let (entries, _) = self.0.as_chunks::<6>();
        entries
            .iter()
            .map(|&[i0, i1, v0, v1, v2, v3]| (u16::from_be_bytes([i0, i1]), u32::from_be_bytes([v0, v1, v2, v3])))
    }
}

fn put(out: &mut Vec<u8>, kind: Kind, flags: u8, stream: StreamId, payload: &[u8]) {
    let length = u32::try_from(payload.len()).expect("control payloads are far below 2^24 bytes");
    out.extend_from_slice(&Head { length, kind, flags, stream }.encode());
    out.extend_from_slice(payload);
}

/// Appends a SETTINGS frame.
pub fn put_settings(out: &mut Vec<u8>, entries: &[(u16, u32)]) {
    let payload: Vec<u8> =
        entries.iter().flat_map(|(id, value)| id.to_be_bytes().into_iter().chain(value.to_be_bytes())).collect();
    put(out, Kind::Settings, 0, StreamId::CONNECTION, &payload);
}

/// Appends the acknowledgement of a SETTINGS frame.
pub fn put_settings_ack(out: &mut Vec<u8>) {
    put(out, Kind::Settings, ACK, StreamId::CONNECTION, &[]);
}

/// Appends a PING.
pub fn put_ping(out: &mut Vec<u8>, payload: [u8; 8]) {
    put(out, Kind::Ping, 0, StreamId::CONNECTION, &payload);
}

/// Appends the answer to a PING.
pub fn put_pong(out: &mut Vec<u8>, payload: [u8; 8]) {
    put(out, Kind::Ping, ACK, StreamId::CONNECTION, &payload);
}

/// Appends a RST_STREAM.
pub fn put_reset(out: &mut Vec<u8>, stream: StreamId, reason: Reason) {
    put(out, Kind::Reset, 0, stream, &reason.0.to_be_bytes());
}

/// Appends a WINDOW_UPDATE.
pub fn put_window_update(out: &mut Vec<u8>, stream: StreamId, increment: u32) {
    put(out, Kind::WindowUpdate, 0, stream, &increment.to_be_bytes());
}

/// Appends a GOAWAY with a debug text.
pub fn put_goaway(out: &mut Vec<u8>, last: StreamId, reason: Reason, debug: &str) {
    let mut payload = Vec::with_capacity(8 + debug.len());
    payload.extend_from_slice(&last.value().to_be_bytes());
    payload.extend_from_slice(&reason.0.to_be_bytes());
    payload.extend_from_slice(debug.as_bytes());
    put(out, Kind::GoAway, 0, StreamId::CONNECTION, &payload);
}

/// Appends a header block as HEADERS and as many CONTINUATION frames as `max_frame_size` demands.
pub fn put_headers(out: &mut Vec<u8>, stream: StreamId, block: &[u8], end_stream: bool, max_frame_size: usize) {
    let (mut part, mut rest) = block.split_at(block.len().min(max_frame_size));
    let mut kind = Kind::Headers;
    let mut flags = if end_stream { END_STREAM } else { 0 };
    loop {
        put(out, kind, flags | if rest.is_empty() { END_HEADERS } else { 0 }, stream, part);
        if rest.is_empty() {
            return;
        }
        (part, rest) = rest.split_at(rest.len().min(max_frame_size));
        (kind, flags) = (Kind::Continuation, 0);
    }
}

#[cfg(test)]
mod tests;

//! What can go wrong in a tunnel, whose fault it was, and what the peer gets to see.
//!
//! Invariant: every rule this crate enforces on a peer is one row of the [`Violation`] table below, and the row decides
//! the HTTP/2 error code on the wire, the party at fault and the words in the log. Nothing else in the crate picks an
//! error code for a peer's mistake.
//!
//! Deliberately absent: I/O and TLS failures (they belong to whoever owns the socket), and decisions about a request
//! such as "denied", which are answers and not errors.

use std::fmt;

/// An HTTP/2 error code as it stands in RST_STREAM and GOAWAY (RFC 9113 §7).
///
/// Codes this crate does not know are kept as they came, so that a reset can be passed on with its own code.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Reason(pub u32);

impl Reason {
    /// Graceful end, or no error at all.
    pub const NO_ERROR: Reason = Reason(0x0);
    /// The peer broke the protocol in a way no other code names.
    pub const PROTOCOL_ERROR: Reason = Reason(0x1);
    /// An implementation failed on its own.
    pub const INTERNAL_ERROR: Reason = Reason(0x2);
    /// More DATA than the window allowed, or a window beyond 2^31-1.
    pub const FLOW_CONTROL_ERROR: Reason = Reason(0x3);
    /// SETTINGS were not acknowledged in time.
    pub const SETTINGS_TIMEOUT: Reason = Reason(0x4);
    /// A frame for a stream whose sender had already ended it.
    pub const STREAM_CLOSED: Reason = Reason(0x5);
    /// A frame of a size its type forbids.
    pub const FRAME_SIZE_ERROR: Reason = Reason(0x6);
    /// The stream was refused before any processing; trying again elsewhere is safe (RFC 9113 §8.7).
    pub const REFUSED_STREAM: Reason = Reason(0x7);
    /// The stream is no longer wanted.
    pub const CANCEL: Reason = Reason(0x8);
    /// A header block could not be decompressed.
    pub const COMPRESSION_ERROR: Reason = Reason(0x9);
    /// The TCP connection behind a CONNECT stream was reset or failed (RFC 9113 §8.5).
    pub const CONNECT_ERROR: Reason = Reason(0xa);
    /// The peer's behaviour looks like an attack.
    pub const ENHANCE_YOUR_CALM: Reason = Reason(0xb);
    /// The transport is not secure enough.
    pub const INADEQUATE_SECURITY: Reason = Reason(0xc);
    /// The peer wants HTTP/1.1.
    pub const HTTP_1_1_REQUIRED: Reason = Reason(0xd);

    /// The name of a registered code, `None` for any other.
    pub const fn name(self) -> Option<&'static str> {
        Some(match self.0 {
            0x0 => "NO_ERROR",
            0x1 => "PROTOCOL_ERROR",
            0x2 => "INTERNAL_ERROR",
            0x3 => "FLOW_CONTROL_ERROR",
            0x4 => "SETTINGS_TIMEOUT",
            0x5 => "STREAM_CLOSED",
            0x6 => "FRAME_SIZE_ERROR",
            0x7 => "REFUSED_STREAM",
            0x8 => "CANCEL",
            0x9 => "COMPRESSION_ERROR",
            0xa => "CONNECT_ERROR",
            0xb => "ENHANCE_YOUR_CALM",
            0xc => "INADEQUATE_SECURITY",
            0xd => "HTTP_1_1_REQUIRED",
            _ => return None,
        })
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "{:#x}", self.0),
        }
    }
}

impl fmt::Debug for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Who an operator should look at when a [`Violation`] shows up in a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blame {
    /// The peer's implementation broke the protocol.
    PeerBroken,
    /// The peer stayed within the protocol's letter but behaved like an attacker.
    PeerHostile,
    /// The peer or the network fell silent.
    Silence,
}

impl Blame {
    /// What an operator can do about it, as the tail of a log line.
    pub const fn advice(self) -> &'static str {
        match self {
            Blame::PeerBroken => "check the version and implementation of the peer's proxy",
            Blame::PeerHostile => "the peer floods or probes this proxy: check what runs there",
            Blame::Silence => "check that the peer is alive and that the network passes packets both ways",
        }
    }
}

/// Declares [`Violation`] from one table, so that code, blame and words cannot drift apart.
macro_rules! violations {
    ($($name:ident, $reason:ident, $blame:ident, $text:literal;)*) => {
        /// A rule that the peer broke, or a limit it ran into. One row each of the table in this file.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Violation {
            $(#[doc = $text] $name,)*
        }

        impl Violation {
            /// Every row of the table, in its order.
            pub const ALL: &'static [Violation] = &[$(Violation::$name,)*];

            /// The code that the peer sees, in RST_STREAM if only a stream is lost and in GOAWAY if the connection is.
            pub const fn reason(self) -> Reason {
                match self {
                    $(Violation::$name => Reason::$reason,)*
                }
            }

            /// Whose fault it was.
            pub const fn blame(self) -> Blame {
                match self {
                    $(Violation::$name => Blame::$blame,)*
                }
            }

            /// What happened, in words for a log.
            pub const fn text(self) -> &'static str {
                match self {
                    $(Violation::$name => $text,)*
                }
            }
        }
    };
}

violations! {
    // Connection start.
    BadPreface,             PROTOCOL_ERROR,      PeerBroken,  "the peer did not start with the HTTP/2 client preface";
    SettingsNotFirst,       PROTOCOL_ERROR,      PeerBroken,  "the peer's first frame was not SETTINGS";
    PrefaceTimeout,         PROTOCOL_ERROR,      Silence,     "the peer did not send its HTTP/2 preface in time";

    // Framing.
    FrameTooLarge,          FRAME_SIZE_ERROR,    PeerBroken,  "the peer sent a frame larger than the announced maximum";
    FrameLength,            FRAME_SIZE_ERROR,    PeerBroken,  "the peer sent a frame whose length its type forbids";
    FrameOnStreamZero,      PROTOCOL_ERROR,      PeerBroken,  "the peer sent a stream's frame on stream 0";
    FrameNotOnStreamZero,   PROTOCOL_ERROR,      PeerBroken,  "the peer sent a connection's frame on a stream";
    PaddingTooLong,         PROTOCOL_ERROR,      PeerBroken,  "the peer sent a frame with more padding than payload";
    PushPromise,            PROTOCOL_ERROR,      PeerBroken,  "the peer sent PUSH_PROMISE, which is never allowed here";

    // Stream identifiers and states.
    IdleStream,             PROTOCOL_ERROR,      PeerBroken,  "the peer sent a frame for a stream that was never opened";
    WrongStreamParity,      PROTOCOL_ERROR,      PeerBroken,  "the peer opened a stream with an identifier of the wrong parity";
    StreamIdReused,         PROTOCOL_ERROR,      PeerBroken,  "the peer opened a stream with an identifier that is not higher than all before";
    HeadersOnClosedStream,  STREAM_CLOSED,       PeerBroken,  "the peer sent HEADERS for a stream that had ended";
    StreamClosed,           STREAM_CLOSED,       PeerBroken,  "the peer sent a frame for a stream that it had ended";
    DataBeforeHeaders,      PROTOCOL_ERROR,      PeerBroken,  "the peer sent DATA before the headers of its response";
    HeadersTwice,           PROTOCOL_ERROR,      PeerBroken,  "the peer sent a second header block that does not end the stream";
    TooManyStreams,         REFUSED_STREAM,      PeerBroken,  "the peer opened more streams at once than announced";
    GoingAway,              REFUSED_STREAM,      Silence,     "the stream was opened after this side had announced its end";

    // Header blocks.
    ContinuationExpected,   PROTOCOL_ERROR,      PeerBroken,  "the peer interrupted a header block with another frame";
    ContinuationUnexpected, PROTOCOL_ERROR,      PeerBroken,  "the peer sent CONTINUATION without an open header block";
    TooManyContinuations,   ENHANCE_YOUR_CALM,   PeerHostile, "the peer cut one header block into too many frames";
    HeaderBlockTooLarge,    ENHANCE_YOUR_CALM,   PeerHostile, "the peer sent a header block far above the announced size";
    HeaderListTooLarge,     ENHANCE_YOUR_CALM,   PeerBroken,  "the peer sent more headers than announced as the maximum";
    HeaderBlockTimeout,     ENHANCE_YOUR_CALM,   Silence,     "the peer did not finish a frame or header block in time";
    HpackTruncated,         COMPRESSION_ERROR,   PeerBroken,  "a header block ended in the middle of a field";
    HpackInteger,           COMPRESSION_ERROR,   PeerBroken,  "a header block contained an integer out of range";
    HpackIndex,             COMPRESSION_ERROR,   PeerBroken,  "a header block referred to an entry that does not exist";
    HpackHuffman,           COMPRESSION_ERROR,   PeerBroken,  "a header block contained an invalid Huffman string";
    HpackTableSize,         COMPRESSION_ERROR,   PeerBroken,  "a header block changed the table size where or to what it must not";

    // Messages.
    FieldName,              PROTOCOL_ERROR,      PeerBroken,  "the peer sent a header name with illegal characters";
    FieldValue,             PROTOCOL_ERROR,      PeerBroken,  "the peer sent a header value with illegal characters";
    ConnectionHeader,       PROTOCOL_ERROR,      PeerBroken,  "the peer sent a header that HTTP/2 forbids, such as connection or te";
    PseudoHeaderOrder,      PROTOCOL_ERROR,      PeerBroken,  "the peer sent a pseudo-header after a regular header or in trailers";
    PseudoHeaderUnknown,    PROTOCOL_ERROR,      PeerBroken,  "the peer sent a pseudo-header that does not exist or does not belong here";
    PseudoHeaderTwice,      PROTOCOL_ERROR,      PeerBroken,  "the peer sent the same pseudo-header twice";
    PseudoHeaderMissing,    PROTOCOL_ERROR,      PeerBroken,  "the peer left out a required pseudo-header";
    ConnectPseudoHeader,    PROTOCOL_ERROR,      PeerBroken,  "the peer sent CONNECT with :scheme, :path or :protocol";
    Authority,              PROTOCOL_ERROR,      PeerBroken,  "the peer sent an :authority with illegal characters";
    Status,                 PROTOCOL_ERROR,      PeerBroken,  "the peer sent a response with an impossible :status";

    // Flow control.
    ConnectionWindow,       FLOW_CONTROL_ERROR,  PeerBroken,  "the peer sent more DATA than the connection's window allowed";
    StreamWindow,           FLOW_CONTROL_ERROR,  PeerBroken,  "the peer sent more DATA than the stream's window allowed";
    WindowOverflow,         FLOW_CONTROL_ERROR,  PeerBroken,  "the peer raised a window beyond 2^31-1";
    ZeroIncrement,          PROTOCOL_ERROR,      PeerBroken,  "the peer sent a WINDOW_UPDATE of zero";

    // Settings and liveness.
    SettingValue,           PROTOCOL_ERROR,      PeerBroken,  "the peer announced a setting out of range";
    SettingWindow,          FLOW_CONTROL_ERROR,  PeerBroken,  "the peer announced an initial window beyond 2^31-1";
    TooManySettings,        ENHANCE_YOUR_CALM,   PeerHostile, "the peer sent a SETTINGS frame with far too many entries";
    SettingsTimeout,        SETTINGS_TIMEOUT,    Silence,     "the peer did not acknowledge SETTINGS in time";
    KeepaliveTimeout,       NO_ERROR,            Silence,     "the peer did not answer a keepalive PING in time";
    GoAwayRaised,           PROTOCOL_ERROR,      PeerBroken,  "the peer raised the last stream identifier of an earlier GOAWAY";

    // Budgets.
    RapidReset,             ENHANCE_YOUR_CALM,   PeerHostile, "the peer reset too many streams before they were answered";
    ForcedResets,           ENHANCE_YOUR_CALM,   PeerHostile, "the peer provoked too many stream errors";
    Noise,                  ENHANCE_YOUR_CALM,   PeerHostile, "the peer sent too many frames without effect";
    ReplyBacklog,           ENHANCE_YOUR_CALM,   PeerHostile, "the peer made this side queue too many replies without reading them";
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.text(), self.reason())
    }
}

/// The end of a connection by the peer's fault: a GOAWAY with [`Fault::reason`] is queued and nothing more is accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The rule that was broken.
    pub violation: Violation,
}

impl Fault {
    /// The code in the GOAWAY that the peer sees.
    pub const fn reason(self) -> Reason {
        self.violation.reason()
    }
}

impl From<Violation> for Fault {
    fn from(violation: Violation) -> Self {
        Fault { violation }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; {}", self.violation, self.violation.blame().advice())
    }
}

impl std::error::Error for Fault {}

/// Why a client could not open a stream. Nothing was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenError {
    /// The peer's limit of concurrent streams is reached: use another tunnel or wait for a stream to end.
    StreamLimit,
    /// One side has announced its end: use another tunnel.
    GoingAway,
    /// The 2^30 stream identifiers of this connection are used up: use another tunnel.
    IdsExhausted,
    /// The connection has failed or was closed: use another tunnel.
    Closed,
    /// The headers exceed what the peer announced to accept, or what is ever sent ([`crate::limits::MAX_SENT_HEADERS`]).
    HeadersTooLarge,
    /// A name or value cannot be carried in an HTTP/2 header.
    IllegalHeader,
    /// Only clients open streams.
    NotAClient,
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            OpenError::StreamLimit => "the peer's limit of concurrent streams is reached",
            OpenError::GoingAway => "the tunnel is going away",
            OpenError::IdsExhausted => "the tunnel has used up its stream identifiers",
            OpenError::Closed => "the tunnel is closed",
            OpenError::HeadersTooLarge => "the request's headers are larger than the peer accepts",
            OpenError::IllegalHeader => "the request contains a header that HTTP/2 cannot carry",
            OpenError::NotAClient => "only the client of a tunnel opens streams",
        })
    }
}

impl std::error::Error for OpenError {}

/// Why something could not be sent on a stream. Nothing was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SendError {
    /// The stream is gone: both sides have ended, one side reset it, or the connection is closed.
    StreamGone,
    /// This side of the stream has already ended.
    Ended,
    /// DATA on a server's stream that is not answered yet.
    NotAnswered,
    /// A second answer on the same stream, or an answer by a client.
    AlreadyAnswered,
    /// More DATA than [`send_capacity`](crate::h2::Connection::send_capacity) allows.
    WindowExceeded,
    /// More DATA in one frame than [`max_data_len`](crate::h2::Connection::max_data_len) allows.
    FrameTooLarge,
    /// The headers exceed what the peer announced to accept, or what is ever sent ([`crate::limits::MAX_SENT_HEADERS`]).
    HeadersTooLarge,
    /// A name, value or status cannot be carried in an HTTP/2 header.
    IllegalHeader,
}

impl fmt::Display for SendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            SendError::StreamGone => "the stream is gone",
            SendError::Ended => "this side of the stream has already ended",
            SendError::NotAnswered => "the stream is not answered yet",
            SendError::AlreadyAnswered => "the stream has already been answered",
            SendError::WindowExceeded => "the peer's window does not allow that much data",
            SendError::FrameTooLarge => "the peer does not accept frames of that size",
            SendError::HeadersTooLarge => "the answer's headers are larger than the peer accepts",
            SendError::IllegalHeader => "the answer contains a header that HTTP/2 cannot carry",
        })
    }
}

impl std::error::Error for SendError {}

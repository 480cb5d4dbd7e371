//! Every bound of the HTTP/2 machine, each with its reason, and the parameters that an operator may choose.
//!
//! Invariant: no queue, table, counter or wait of [`crate::h2`] is bounded by a number that is not named here.
//!
//! Deliberately absent: limits on sockets, handshakes and buffered payload; the machine holds no payload, and the
//! others belong to whoever drives it.

use std::time::Duration;

/// The window every stream and connection starts with until a peer learns otherwise (RFC 9113 §6.9.2).
pub const DEFAULT_WINDOW: u32 = 65_535;

/// The largest window HTTP/2 can express (RFC 9113 §6.9.1).
pub const MAX_WINDOW: u32 = 0x7fff_ffff;

/// The frame payload every endpoint must accept (RFC 9113 §4.2).
pub const MIN_MAX_FRAME_SIZE: u32 = 16_384;

/// The largest frame payload a length field can express (RFC 9113 §4.2).
pub const MAX_MAX_FRAME_SIZE: u32 = 16_777_215;

/// Size of the dynamic table offered to the peer's header compressor, in RFC 7541 §4.1 octets. The protocol's default:
/// announcing less would save little and cost an exchange, more would only be memory for the peer to fill.
pub const HEADER_TABLE_SIZE: u32 = 4_096;

/// How far a compressed header block may exceed the announced header list size before it is not even decompressed. An
/// honest peer that is a little over the limit loses its stream, not the tunnel; beyond one more default-sized frame
/// there is no honest explanation.
pub const HEADER_BLOCK_SLACK: usize = 16_384;

/// CONTINUATION frames in one header block. The largest block ([`Config::max_header_list_size`] plus slack) fits into
/// five frames of the minimum size; the rest allows for peers that cut oddly. Without a bound, frames of zero length
/// would cost work for ever and never add to the block (the CONTINUATION flood).
pub const MAX_CONTINUATIONS: u32 = 16;

/// Entries in one SETTINGS frame. Fewer than twenty settings are registered; a frame of the largest size holds 2.7
/// million.
pub const MAX_SETTINGS_ENTRIES: usize = 64;

/// Bytes kept of the debug text in a peer's GOAWAY: enough for a log line, and nothing to fill memory with.
pub const MAX_GOAWAY_DEBUG: usize = 256;

/// Header octets (RFC 9113 §6.5.2 counting) this side ever sends in one message, whatever the peer would accept.
pub const MAX_SENT_HEADERS: usize = 65_536;

/// Streams which this side reset and whose late frames are silently dropped (RFC 9113 §5.1, "closed"). Must exceed the
/// streams that can be reset in one go (a policy change resets all of a tunnel, 200 by default).
pub const REMEMBERED_RESETS: usize = 256;

/// Streams which the peer ended or reset, remembered only to name the error precisely when it goes on using them.
pub const REMEMBERED_ENDS: usize = 16;

/// Bytes of replies (PING and SETTINGS acknowledgements, resets, window updates) that may wait because the peer does
/// not read. 16 KiB are more than 900 PING replies or 1200 resets, far beyond what an honest peer leaves outstanding.
pub const MAX_REPLY_BACKLOG: usize = 16_384;

/// The span over which the budgets below are counted. Short enough to forgive, long enough that a flood fits no gap.
pub const BUDGET_WINDOW: Duration = Duration::from_secs(10);

/// Streams that a client may reset before they are answered, per [`BUDGET_WINDOW`], as a multiple of
/// [`Config::max_concurrent_streams`]: all requests of a tunnel may time out together once, be repeated and time out
/// again. Each costs the server a dial that is thrown away (the rapid-reset attack).
pub const EARLY_RESETS_PER_STREAM_SLOT: u32 = 2;

/// Stream errors (and refused streams) a peer may provoke per [`BUDGET_WINDOW`]. An honest peer provokes none, except
/// by opening a burst of streams before it has read the announced limit. Unbounded, they are rapid reset with the
/// roles swapped ("made you reset").
pub const FORCED_RESETS: u32 = 256;

/// Frames without effect per [`BUDGET_WINDOW`]: PING, SETTINGS, PRIORITY, unknown types, empty DATA, interim
/// responses, window updates for windows that were not used. A frame that follows useful ones is not counted, so that a
/// peer measuring the path with PINGs during a transfer is not punished.
pub const NOISE_FRAMES: u32 = 2_000;

/// How long a peer may take from the first to the last byte of a control frame or header block. Generous for one
/// retransmission after another; without it a frame could be held open for ever beneath the keepalive's notice.
pub const HEADER_BLOCK_TIMEOUT: Duration = Duration::from_secs(10);

/// Shortest time between two measurements of a round trip. Windows double once per measurement, so that this only slows
/// down connections that are faster than it anyway.
pub const MIN_SAMPLE_PAUSE: Duration = Duration::from_millis(1);

/// Longest time between two measurements of a round trip, after many that led to nothing: each costs both sides a frame,
/// and a reader that has become faster waits that long for a larger window.
pub const MAX_SAMPLE_PAUSE: Duration = Duration::from_secs(1);

/// How long an application may read nothing before its stream's window is its first one again.
pub const QUIET: Duration = Duration::from_secs(10);

/// Heap that an emptied internal buffer may keep. What a burst grew beyond it is given back to the allocator, so that
/// an idle tunnel stays small.
pub const KEPT_BUFFER: usize = 1_024;

/// The parameters of one HTTP/2 connection. Values outside the protocol's bounds are pulled to the nearest legal one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Receive window that every stream starts with, in bytes: what a slow reader can pin. 200 streams of 64 KiB fit
    /// into the connection's window with room to spare.
    pub first_stream_window: u32,
    /// Receive window that a stream may grow to, in bytes (spec data-plane 8).
    pub stream_window: u32,
    /// Receive window of the whole connection, in bytes; at least 65535, since it can only be raised (spec data-plane 8).
    pub connection_window: u32,
    /// Largest frame payload the peer may send, 16384 to 16777215 (spec data-plane 8). DATA is never buffered, whatever
    /// its size.
    pub max_frame_size: u32,
    /// Largest header list the peer may send, in RFC 9113 §6.5.2 octets (spec data-plane 8).
    pub max_header_list_size: u32,
    /// Streams the peer may have open at once. Announced by servers only (spec data-plane 8).
    pub max_concurrent_streams: u32,
    /// Streams a client opens at most until the peer's SETTINGS have arrived (spec data-plane 8).
    pub assumed_peer_streams: u32,
    /// Silence after which a PING asks whether the peer is alive (spec data-plane 8).
    pub keepalive_interval: Duration,
    /// Silence after such a PING that means the peer is dead (spec data-plane 8).
    pub keepalive_timeout: Duration,
    /// Time from the start to the peer's first SETTINGS.
    pub preface_timeout: Duration,
    /// Time for the peer to acknowledge SETTINGS (RFC 9113 §6.5.3).
    pub settings_timeout: Duration,
}

impl Config {
    /// The defaults of an outbound tunnel.
    pub fn client() -> Self {
        Config {
            first_stream_window: 64 << 10,
            stream_window: 4 << 20,
            connection_window: 16 << 20,
            max_frame_size: 1 << 20,
            max_header_list_size: 16_384,
            max_concurrent_streams: 200,
            assumed_peer_streams: 100,
            keepalive_interval: Duration::from_secs(10),
            keepalive_timeout: Duration::from_secs(20),
            preface_timeout: Duration::from_secs(10),
            settings_timeout: Duration::from_secs(20),
        }
    }

    /// The defaults of an inbound tunnel.
    pub fn server() -> Self {
        Config { max_header_list_size: 65_536, ..Config::client() }
    }

    /// The same parameters, each pulled into the bounds that HTTP/2 sets.
    pub(crate) fn legal(mut self) -> Self {
        self.stream_window = self.stream_window.min(MAX_WINDOW);
        self.first_stream_window = self.first_stream_window.min(self.stream_window);
        self.connection_window = self.connection_window.clamp(DEFAULT_WINDOW, MAX_WINDOW);
        self.max_frame_size = self.max_frame_size.clamp(MIN_MAX_FRAME_SIZE, MAX_MAX_FRAME_SIZE);
        self
    }
}

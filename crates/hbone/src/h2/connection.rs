//! The HTTP/2 machine: one connection, either role.
//!
//! Invariant: whatever the peer sends, each received byte of DATA is counted once against the windows and given back
//! once, by the caller through [`Connection::credit`] or by the machine if it reported none of it; a stream is kept
//! from its headers until both halves have ended or it is reset, and never after; after a [`Fault`] the machine holds no
//! stream, accepts nothing, and the last thing it has left to send is GOAWAY.
//!
//! Deliberately absent: payload (it stays in the caller's buffers), scheduling between streams, and retries.
//!
//! | file | part |
//! |---|---|
//! | `receive.rs` | cutting bytes into frames; DATA |
//! | `headers.rs` | header blocks: requests, responses, trailers |
//! | `control.rs` | the other frames |
//! | `send.rs` | opening, answering, sending and resetting streams |
//! | `timing.rs` | deadlines, keepalive, the two-step end |
//! | `adapt.rs` | how large receive windows are |
//! | `registry.rs` | which streams live, and which lived lately |
//! | `outbox.rs` | control frames waiting to be written |

mod adapt;
mod control;
mod headers;
mod outbox;
mod receive;
mod registry;
mod send;
mod timing;

use std::time::Instant;

use self::adapt::Growth;
use self::headers::HeaderBlock;
use self::outbox::Outbox;
use self::receive::Reading;
use self::registry::Registry;
use self::timing::Clock;
use super::allowance::Allowance;
use super::budget::Budget;
use super::event::{Event, ResetBy};
use super::frame::{self, setting};
use super::hpack;
use super::stream::StreamId;
use super::window::{ReceiveWindow, SendWindow};
use crate::error::{Fault, Reason, Violation};
use crate::limits::{
    Config, DEFAULT_WINDOW, EARLY_RESETS_PER_STREAM_SLOT, FORCED_RESETS, MIN_MAX_FRAME_SIZE, NOISE_FRAMES,
};

pub(crate) use self::adapt::Pace;

/// Which end of the connection this side is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Opens streams.
    Client,
    /// Answers them.
    Server,
}

/// What the peer's SETTINGS allow us.
#[derive(Debug)]
struct PeerSettings {
    /// The first SETTINGS have arrived.
    arrived: bool,
    initial_window: u32,
    max_frame_size: u32,
    max_streams: Option<u32>,
    max_header_list: Option<u32>,
}

/// How far the connection has come towards its end, as far as this side decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
    /// Not at all.
    Running,
    /// Server: a GOAWAY with the highest possible identifier and a PING are out; streams that cross them are served.
    Announced { since: Instant },
    /// The last GOAWAY is out: no new streams, those that live go on.
    Final,
    /// Nothing more is sent or accepted.
    Closed,
}

/// One HTTP/2 connection.
///
/// The driver's duties, in the order of a turn:
/// 1. hand everything received to [`receive`](Self::receive), and the payload it reports to the applications;
/// 2. [`credit`](Self::credit) payload that has been written on;
/// 3. when the transport can take more, append [`poll_transmit`](Self::poll_transmit), then DATA frames made with
///    [`data_header`](Self::data_header), each followed at once by its payload. What has been handed out must be sent in
///    that order; in particular nothing may be sent on a stream before the control frames queued earlier;
/// 4. call [`handle_timeout`](Self::handle_timeout) when [`deadline`](Self::deadline) has passed;
/// 5. after a [`Fault`], send what `poll_transmit` still yields and close the transport.
#[derive(Debug)]
pub struct Connection {
    role: Role,
    config: Config,
    peer: PeerSettings,
    reading: Reading,
    /// The start of a control frame whose end has not arrived.
    partial: Vec<u8>,
    block: Option<HeaderBlock>,
    decoder: hpack::Decoder,
    encoder: hpack::Encoder,
    streams: Registry,
    send_window: SendWindow,
    /// DATA was sent since the peer's last WINDOW_UPDATE of the connection.
    sent_since_update: bool,
    receive_window: ReceiveWindow,
    outbox: Outbox,
    clock: Clock,
    growth: Growth,
    ending: Ending,
    /// The last stream identifier of the peer's GOAWAY.
    peer_going_away: Option<StreamId>,
    fault: Option<Fault>,
    early_resets: Budget,
    forced_resets: Budget,
    noise: Budget,
    /// Something useful has arrived since the last frame without effect.
    useful: bool,
}

impl Connection {
    /// A new connection over a transport that is ready, with the preface, SETTINGS and window waiting to be sent.
    pub fn new(role: Role, config: Config, now: Instant) -> Self {
        let config = config.legal();
        let mut connection = Connection {
            role,
            peer: PeerSettings {
                arrived: false,
                initial_window: DEFAULT_WINDOW,
                max_frame_size: MIN_MAX_FRAME_SIZE,
                max_streams: Some(config.assumed_peer_streams),
                max_header_list: None,
            },
            reading: match role {
                Role::Client => Reading::HEAD,
                Role::Server => Reading::Preface { matched: 0 },
            },
            partial: Vec::new(),
            block: None,
            decoder: hpack::Decoder::new(),
            encoder: hpack::Encoder::new(),
            streams: Registry::default(),
            send_window: SendWindow::new(DEFAULT_WINDOW),
            sent_since_update: false,
            receive_window: ReceiveWindow::new(config.connection_window, config.connection_window),
            outbox: Outbox::default(),
            clock: Clock::new(now),
            growth: Growth::new(),
            ending: Ending::Running,
            peer_going_away: None,
            fault: None,
            early_resets: Budget::new(config.max_concurrent_streams.saturating_mul(EARLY_RESETS_PER_STREAM_SLOT)),
            forced_resets: Budget::new(FORCED_RESETS),
            noise: Budget::new(NOISE_FRAMES),
            useful: false,
            config,
        };
        connection.greet();
        connection
    }

    /// Queues what comes before everything else (RFC 9113 §3.4, spec data-plane 8).
    fn greet(&mut self) {
        let config = &self.config;
        let mut settings = vec![
            (setting::INITIAL_WINDOW_SIZE, config.first_stream_window),
            (setting::MAX_FRAME_SIZE, config.max_frame_size),
            (setting::MAX_HEADER_LIST_SIZE, config.max_header_list_size),
        ];
        settings.push(match self.role {
            Role::Client => (setting::ENABLE_PUSH, 0),
            Role::Server => (setting::MAX_CONCURRENT_STREAMS, config.max_concurrent_streams),
        });
        let window_raise = config.connection_window - DEFAULT_WINDOW;
        let role = self.role;
        self.outbox.queue(|out| {
            if role == Role::Client {
                out.extend_from_slice(frame::PREFACE);
            }
            frame::put_settings(out, &settings);
            if window_raise > 0 {
                frame::put_window_update(out, StreamId::CONNECTION, window_raise);
            }
        });
    }

    /// Gives back `len` bytes of payload that were reported for a stream and have been written on, or thrown away.
    /// WINDOW_UPDATEs are sent once half of a window can be given back.
    ///
    /// Must be called for every reported byte once, also if the stream is gone: its bytes still count for the
    /// connection's window.
    pub fn credit(&mut self, id: StreamId, len: usize) {
        self.receive_window.credit(len);
        let sample = self.sample();
        if let Some(stream) = self.streams.get_mut(id) {
            stream.receive.credit(len);
            stream.pace.read(sample, len);
            self.streams.queue_update(id);
        }
    }

    /// Takes what windows are beyond their first size from `allowance`, which other connections share. To be called
    /// before anything has been received.
    pub fn draw_on(&mut self, allowance: Allowance) {
        self.streams.draw_on(allowance);
    }

    /// Payload bytes reported to the caller, or announced by a frame that is arriving, and not yet credited.
    pub fn uncredited(&self) -> usize {
        self.receive_window.held()
    }

    /// The bytes the peer may still send on a stream, or on the whole connection for [`StreamId::CONNECTION`]; zero for
    /// a stream that is gone.
    pub fn receive_capacity(&self, id: StreamId) -> usize {
        if id.is_connection() {
            return self.receive_window.open();
        }
        self.streams.get(id).map_or(0, |stream| stream.receive.open())
    }

    /// Appends the control frames that wait to be sent.
    ///
    /// Call it only when the transport can take more: how much waits here is what tells a peer that does not read its
    /// replies ([`MAX_REPLY_BACKLOG`](crate::limits::MAX_REPLY_BACKLOG)), and its windows are opened no earlier.
    pub fn poll_transmit(&mut self, out: &mut Vec<u8>) {
        self.outbox.drain_into(out);
        if self.ending == Ending::Closed {
            return;
        }
        if let Some(increment) = self.receive_window.take_update() {
            frame::put_window_update(out, StreamId::CONNECTION, increment);
        }
        self.streams.drain_updates(|id, increment| frame::put_window_update(out, id, increment));
    }

    /// Whether [`poll_transmit`](Self::poll_transmit) would append anything.
    pub fn has_transmit(&self) -> bool {
        let updates = self.receive_window.update_due().is_some() || self.streams.has_updates();
        !self.outbox.is_empty() || (updates && self.ending != Ending::Closed)
    }

    /// Streams that have been opened and not yet ended on both sides or reset.
    pub fn active_streams(&self) -> usize {
        self.streams.len()
    }

    /// Client: streams that [`open`](Self::open) would grant now.
    pub fn open_slots(&self) -> usize {
        if self.role != Role::Client || self.is_going_away() {
            return 0;
        }
        let limit = self.peer.max_streams.map_or(usize::MAX, |limit| limit as usize);
        limit.saturating_sub(self.streams.len())
    }

    /// The peer's limit of concurrent streams: [`Config::assumed_peer_streams`] until its SETTINGS have arrived, `None`
    /// if it has announced none.
    pub fn peer_max_streams(&self) -> Option<u32> {
        self.peer.max_streams
    }

    /// Whether the peer's SETTINGS have arrived.
    pub fn is_established(&self) -> bool {
        self.peer.arrived
    }

    /// Whether either side has announced the end, or the connection has ended.
    pub fn is_going_away(&self) -> bool {
        self.ending != Ending::Running || self.peer_going_away.is_some()
    }

    /// Whether the end has been announced and no stream is left, so that the transport may be closed once
    /// [`has_transmit`](Self::has_transmit) is false.
    pub fn is_drained(&self) -> bool {
        let announced = match self.ending {
            Ending::Running => self.peer_going_away.is_some(),
            Ending::Announced { .. } => false,
            Ending::Final | Ending::Closed => true,
        };
        announced && self.streams.len() == 0
    }

    /// Whether nothing is accepted any more, after a [`Fault`] or [`close`](Self::close).
    pub fn is_closed(&self) -> bool {
        self.ending == Ending::Closed
    }

    /// Ends the connection at once: GOAWAY with `reason`, all streams forgotten, nothing accepted any more.
    pub fn close(&mut self, reason: Reason) {
        if self.ending != Ending::Closed {
            self.queue_goaway(reason, "");
            self.end();
        }
    }

    fn end(&mut self) {
        self.ending = Ending::Closed;
        self.streams.clear();
        self.partial = Vec::new();
        self.block = None;
    }

    fn fail(&mut self, violation: Violation) -> Fault {
        let fault = Fault { violation };
        self.queue_goaway(fault.reason(), violation.text());
        self.fault = Some(fault);
        self.end();
        fault
    }

    fn queue_goaway(&mut self, reason: Reason, debug: &str) {
        let last = self.streams.last_accepted();
        self.outbox.queue(|out| frame::put_goaway(out, last, reason, debug));
    }

    /// Ends one stream because the peer broke a rule on it. Frames still in flight for it will be ignored.
    fn stream_error(
        &mut self,
        now: Instant,
        id: StreamId,
        violation: Violation,
        events: &mut Vec<Event>,
    ) -> Result<(), Violation> {
        let reason = violation.reason();
        if self.streams.reset(id).is_some() {
            events.push(Event::Reset { id, reason, by: ResetBy::Violation(violation) });
        }
        self.outbox.reply(|out| frame::put_reset(out, id, reason))?;
        if self.forced_resets.spend(now) { Ok(()) } else { Err(Violation::ForcedResets) }
    }

    /// Counts a frame without effect, unless something useful has come before it.
    fn count_noise(&mut self, now: Instant) -> Result<(), Violation> {
        if std::mem::take(&mut self.useful) || self.noise.spend(now) { Ok(()) } else { Err(Violation::Noise) }
    }
}

//! One HBONE tunnel: HTTP/2 CONNECT streams inside mutual TLS, as one machine.
//!
//! Ciphertext goes in through an [`Inbox`], what it meant comes out as [`Event`]s; frames are laid out in an [`Outbox`]
//! and leave it sealed. The tunnel reads no clock: [`Tunnel::deadline`] says when [`Tunnel::handle_timeout`] is due.
//! Because it owns no socket, a tunnel can run inside a stream of another tunnel (double HBONE).

use std::fmt;
use std::io::IoSliceMut;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::pki_types::CertificateDer;
use rustls::{ClientConfig, ServerConfig};

use crate::buffer::{Inbox, Outbox};
use crate::error::{Fault, OpenError, Reason, SendError};
use crate::h2::{Allowance, Config, Connection, End, Event, Header, Role, StreamId};
use crate::tls::{Next, Session, TlsError};

/// How long the TLS handshake may take from its first byte: a handshake is three packets, and a peer that needs longer
/// for them would only hold a socket.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// Why a tunnel ended. All of these are final.
#[derive(Debug, Clone)]
pub enum TunnelError {
    /// The TLS session failed.
    Tls(TlsError),
    /// The peer broke HTTP/2 or a limit of it.
    Http2(Fault),
    /// The TLS handshake took longer than [`HANDSHAKE_TIMEOUT`], or than it was [given](Tunnel::finish_handshake_by).
    HandshakeTimeout,
}

impl fmt::Display for TunnelError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tls(e) => write!(f, "{e}"),
            Self::Http2(e) => write!(f, "{e}"),
            Self::HandshakeTimeout => f.write_str("TLS handshake not complete in time"),
        }
    }
}

impl std::error::Error for TunnelError {}

/// One end of a tunnel.
#[derive(Debug)]
pub struct Tunnel {
    session: Session,
    h2: Connection,
    handshake_deadline: Option<Instant>,
}

impl Tunnel {
    /// The side that opens streams. `tls` decides which peers are acceptable.
    ///
    /// # Errors
    /// [`TunnelError::Tls`] if the configuration is not usable.
    pub fn client(tls: Arc<ClientConfig>, config: Config, now: Instant) -> Result<Self, TunnelError> {
        let session = Session::client(tls).map_err(TunnelError::Tls)?;
        Ok(Self::new(session, Role::Client, config, now))
    }

    /// The side that serves streams. `tls` decides which peers are acceptable.
    ///
    /// # Errors
    /// [`TunnelError::Tls`] if the configuration is not usable.
    pub fn server(tls: Arc<ServerConfig>, config: Config, now: Instant) -> Result<Self, TunnelError> {
        let session = Session::server(tls).map_err(TunnelError::Tls)?;
        Ok(Self::new(session, Role::Server, config, now))
    }

    fn new(session: Session, role: Role, config: Config, now: Instant) -> Self {
        Self { session, h2: Connection::new(role, config, now), handshake_deadline: Some(now + HANDSHAKE_TIMEOUT) }
    }

    /// Gives the handshake less time than [`HANDSHAKE_TIMEOUT`].
    pub fn finish_handshake_by(&mut self, deadline: Instant) {
        self.handshake_deadline = self.handshake_deadline.map(|usual| usual.min(deadline));
    }

    /// Prepares `inbox` for a read from this tunnel's socket.
    pub fn prepare(&self, inbox: &mut Inbox) {
        inbox.begin(self.session.partial());
    }

    /// Takes what was read into `inbox` since [`prepare`](Self::prepare) and appends what it meant to `events`; their
    /// ranges point into [`Inbox::payload`].
    ///
    /// # Errors
    /// Any [`TunnelError`] is final; what [`seal`](Self::seal) still gives tells the peer about it. `events` holds what
    /// came before the fault.
    pub fn receive(&mut self, now: Instant, inbox: &mut Inbox, events: &mut Vec<Event>) -> Result<(), TunnelError> {
        let opened = self.session.open(inbox.split()).map_err(TunnelError::Tls);
        if self.session.is_established() {
            self.handshake_deadline = None;
        }
        for range in inbox.opened() {
            let plain = inbox.payload(range.clone());
            self.h2.receive_at(now, plain, range.start, events).map_err(TunnelError::Http2)?;
        }
        opened
    }

    /// Seals what the tunnel itself has to say and all frames laid out in `outbox`, ready to be sent.
    ///
    /// # Errors
    /// Any [`TunnelError`] is final.
    pub fn seal(&mut self, outbox: &mut Outbox) -> Result<(), TunnelError> {
        let frames = self.session.is_sendable() && self.h2.has_transmit();
        self.lay_out_control(outbox, if frames { Next::Frames } else { Next::Nothing });
        self.session.seal(outbox).map_err(TunnelError::Tls)
    }

    /// Lays out what the session and the machine have to say themselves. Always before DATA: a stream's HEADERS come
    /// first.
    fn lay_out_control(&mut self, outbox: &mut Outbox, next: Next) {
        self.session.lay_out(outbox, next);
        if self.session.is_sendable() && self.h2.has_transmit() {
            let mut control = std::mem::take(&mut outbox.control);
            self.h2.poll_transmit(&mut control);
            outbox.lay_out(&control);
            control.clear();
            outbox.control = control;
        }
    }

    /// Whether [`seal`](Self::seal) would have something to say even without DATA.
    #[must_use]
    pub fn has_transmit(&self) -> bool {
        self.session.has_transmit() || (self.session.is_sendable() && self.h2.has_transmit())
    }

    /// Opens a stream with a CONNECT request to `authority`; the client may send on it once the peer has answered. Before the handshake is complete the
    /// request waits in the machine.
    ///
    /// # Errors
    /// [`OpenError`] says whether another tunnel, or waiting, helps.
    pub fn open(&mut self, authority: &str, headers: &[Header<'_>]) -> Result<StreamId, OpenError> {
        self.h2.open(authority, headers)
    }

    /// Answers a request, with or without more to follow.
    ///
    /// # Errors
    /// If the stream is gone or already answered.
    pub fn respond(&mut self, id: StreamId, status: u16, headers: &[Header<'_>], end: End) -> Result<(), SendError> {
        self.h2.respond(id, status, headers, end)
    }

    /// Lays out DATA frames of at most `limit` payload bytes in all. `fill` is given the places for the payload and
    /// returns how many bytes it put there, in order; with 0 bytes nothing is laid out. Returns `None`, without calling
    /// `fill`, when flow control or `outbox` have no room, and before the handshake is complete.
    pub fn send_data<E>(
        &mut self,
        id: StreamId,
        limit: usize,
        outbox: &mut Outbox,
        fill: impl FnOnce(&mut [IoSliceMut<'_>]) -> Result<usize, E>,
    ) -> Option<Result<usize, E>> {
        if !self.session.is_sendable() {
            return None;
        }
        self.lay_out_control(outbox, Next::Frames);
        let limit = limit.min(self.h2.send_capacity(id)).min(outbox.room());
        if limit == 0 {
            return None;
        }
        // Capacity was asked for before and nothing happened since, so that asking for a header cannot fail; if it did,
        // not laying the frame out keeps the connection consistent.
        let max_payload = self.h2.max_data_len();
        let head = |payload| self.h2.data_header(id, payload, End::No).ok();
        Some(outbox.lay_out_payload(limit, max_payload, fill, head))
    }

    /// Ends our direction of a stream (END_STREAM).
    ///
    /// # Errors
    /// If the stream is gone, our direction has ended already, or the handshake is not complete.
    pub fn end(&mut self, id: StreamId, outbox: &mut Outbox) -> Result<(), SendError> {
        if !self.session.is_sendable() {
            return Err(SendError::NotAnswered);
        }
        self.lay_out_control(outbox, Next::Frames);
        let header = self.h2.data_header(id, 0, End::Yes)?;
        outbox.lay_out(&header);
        Ok(())
    }

    /// Aborts a stream in both directions; the peer sees `reason`.
    pub fn reset(&mut self, id: StreamId, reason: Reason) {
        self.h2.reset(id, reason);
    }

    /// Gives `len` received payload bytes of a stream back to flow control, because they have been written on.
    pub fn credit(&mut self, id: StreamId, len: usize) {
        self.h2.credit(id, len);
    }

    /// Takes what windows are beyond their first size from `allowance`, which other tunnels share. To be called before
    /// anything has been received.
    pub fn draw_on(&mut self, allowance: Allowance) {
        self.h2.draw_on(allowance);
    }

    /// The last measured round trip to the peer, if there was one.
    #[must_use]
    pub fn round_trip(&self) -> Option<Duration> {
        self.h2.round_trip()
    }

    /// Payload bytes that flow control allows now on a stream.
    #[must_use]
    pub fn send_capacity(&self, id: StreamId) -> usize {
        self.h2.send_capacity(id)
    }

    /// Announces a graceful end: streams finish, no new ones start (RFC 9113 §6.8).
    pub fn shutdown(&mut self, now: Instant) {
        self.h2.shutdown(now);
    }

    /// Ends the tunnel at once: GOAWAY with `reason` and close_notify are sealed into `outbox`.
    pub fn close(&mut self, reason: Reason, outbox: &mut Outbox) {
        self.h2.close(reason);
        if self.seal(outbox).is_ok() {
            self.session.close(outbox);
        }
    }

    /// When [`handle_timeout`](Self::handle_timeout) is due.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        match (self.handshake_deadline, self.h2.deadline()) {
            (Some(handshake), _) => Some(handshake),
            (None, h2) => h2,
        }
    }

    /// Does what is due at `now`.
    ///
    /// # Errors
    /// [`TunnelError::HandshakeTimeout`], or a fault of HTTP/2 such as an unanswered keepalive. Final.
    pub fn handle_timeout(&mut self, now: Instant) -> Result<(), TunnelError> {
        match self.handshake_deadline {
            Some(deadline) if deadline <= now => Err(TunnelError::HandshakeTimeout),
            Some(_) => Ok(()),
            None => self.h2.handle_timeout(now).map_err(TunnelError::Http2),
        }
    }

    /// Makes sure that the peer is there before anything is entrusted to it, unless it was heard from within `quiet`: what
    /// it has to say to a PING has to come `within` that time. Tells whether it is in doubt.
    #[must_use]
    pub fn probe(&mut self, now: Instant, quiet: Duration, within: Duration) -> bool {
        self.is_established() && self.h2.probe(now, quiet, within)
    }

    /// Whether a [`probe`](Self::probe) waits for the peer.
    #[must_use]
    pub fn is_in_doubt(&self) -> bool {
        self.h2.is_in_doubt()
    }

    /// Whether the handshake is complete on this side.
    #[must_use]
    pub fn is_established(&self) -> bool {
        self.session.is_established()
    }

    /// Whether the peer has ended the TLS session in order.
    #[must_use]
    pub fn is_peer_closed(&self) -> bool {
        self.session.is_peer_closed()
    }

    /// The peer's verified certificates, leaf first; none before the handshake is complete.
    #[must_use]
    pub fn peer_certificates(&self) -> Option<&[CertificateDer<'static>]> {
        self.session.peer_certificates()
    }

    /// Name of the key exchange group of TLS, such as `X25519MLKEM768`; none before the handshake is complete.
    #[must_use]
    pub fn key_exchange(&self) -> Option<&Arc<str>> {
        self.session.key_exchange()
    }

    /// Streams that have not ended.
    #[must_use]
    pub fn active_streams(&self) -> usize {
        self.h2.active_streams()
    }

    /// How many streams the peer allows at once, once it has said so.
    #[must_use]
    pub fn peer_max_streams(&self) -> Option<u32> {
        self.h2.peer_max_streams()
    }

    /// Whether one side has announced the end of the tunnel.
    #[must_use]
    pub fn is_going_away(&self) -> bool {
        self.h2.is_going_away()
    }

    /// Whether the tunnel is going away and has nothing left to do.
    #[must_use]
    pub fn is_drained(&self) -> bool {
        self.h2.is_drained()
    }
}

//! Mutual TLS as a machine: ciphertext in, plaintext out, and the other way round.
//!
//! rustls does the handshake, and this is the only place of the product that names its connection types. Afterwards the
//! session goes on with records of our own ([`records`]), if the configuration lets rustls hand out the keys
//! (`enable_secret_extraction`) and what was agreed is TLS 1.3 with AES-GCM; else it stays with rustls, at the price of
//! its copies. A [`Session`] keeps nothing but the start of a record whose end has not arrived ([`MAX_PARTIAL_INPUT`]);
//! all other room is the caller's. What a configuration accepts (roots, identities, versions) is decided by whoever
//! builds the rustls configurations.

mod aead;
mod records;

use std::fmt;
use std::sync::Arc;

use rustls::client::UnbufferedClientConnection;
use rustls::pki_types::{CertificateDer, IpAddr, Ipv4Addr, ServerName};
use rustls::server::UnbufferedServerConnection;
use rustls::unbuffered::{ConnectionState, EncodeError, EncryptError, UnbufferedStatus};
use rustls::{CipherSuite, ClientConfig, ProtocolVersion, ServerConfig};

use crate::buffer::{Aside, Opening, Outbox};

pub use records::MAX_USELESS_RECORDS;
pub(crate) use records::{Content, HEADER, TRAILER};
use records::{KeySchedule, Records};

/// Longest plaintext of one TLS record (RFC 8446 §5.1).
pub const MAX_RECORD_PLAINTEXT: usize = 16_384;
/// What sealing adds to a record at the most: header, inner content type, padding allowance and tag (RFC 8446 §5.2).
pub const MAX_RECORD_OVERHEAD: usize = 5 + 256;
/// Most ciphertext that can be waiting for its rest: a handshake message may span records up to 64 KiB in all, and the
/// last record may lack its end.
pub const MAX_PARTIAL_INPUT: usize = MAX_HANDSHAKE_MESSAGE + 4 + 2 * (MAX_RECORD_PLAINTEXT + MAX_RECORD_OVERHEAD);
/// Longest body of a handshake message; certificate chains longer than this have no place in a mesh.
const MAX_HANDSHAKE_MESSAGE: usize = 0xffff;

/// Why a session ended. All of these are fatal.
#[derive(Debug, Clone)]
pub enum TlsError {
    /// The peer broke the protocol, was not acceptable, or sent an alert. An alert for it has been produced already.
    Peer(rustls::Error),
    /// The peer negotiated an application protocol other than HTTP/2.
    Alpn,
    /// More ciphertext is pending than any legal record or handshake message has ([`MAX_PARTIAL_INPUT`]).
    Oversized,
    /// The keys of this session are used up (RFC 8446 §5.5).
    KeysExhausted,
    /// The local configuration cannot start a session.
    Config(rustls::Error),
}

impl fmt::Display for TlsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Peer(e) => write!(f, "{e}"),
            Self::Alpn => f.write_str("peer negotiated an application protocol other than h2"),
            Self::Oversized => f.write_str("peer sent a TLS message larger than the protocol allows"),
            Self::KeysExhausted => f.write_str("keys of the TLS session are used up"),
            Self::Config(e) => write!(f, "TLS configuration is not usable: {e}"),
        }
    }
}

impl std::error::Error for TlsError {}

/// What comes after the session's own messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Next {
    /// Frames of the tunnel.
    Frames,
    /// Nothing for now.
    Nothing,
}

/// One end of a TLS connection.
pub struct Session {
    side: Side,
    /// Ciphertext that is not a whole record or message yet. rustls remembers positions in it, so every look at its
    /// state has to present it, even one that brings nothing new.
    partial: Vec<u8>,
    /// What rustls wants to be sent: handshake messages, alerts and key updates, sealed as far as they have to be.
    flight: Vec<u8>,
    /// Whether rustls will hand out the keys.
    extractable: bool,
    sendable: bool,
    peer_closed: bool,
    /// Known once the handshake is complete.
    peer: Option<Peer>,
}

/// What the handshake found out about the peer.
struct Peer {
    certificates: Vec<CertificateDer<'static>>,
    key_exchange: Option<Arc<str>>,
}

enum Side {
    Client(Box<UnbufferedClientConnection>),
    Server(Box<UnbufferedServerConnection>),
    /// The handshake is complete, and rustls only derives keys.
    Records(Box<Records>),
    /// Between two of the above, or after handing over has failed.
    Gone,
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session")
            .field("partial", &self.partial.len())
            .field("sendable", &self.sendable)
            .field("peer_closed", &self.peer_closed)
            .finish_non_exhaustive()
    }
}

/// What one look at the state of rustls led to.
enum Step {
    Again { discard: usize },
    Idle { discard: usize, sendable: bool },
    PeerClosed { discard: usize },
}

impl Session {
    /// Starts the client side. No server name is sent (spec data-plane 7: SNI is never used on HBONE).
    ///
    /// # Errors
    /// [`TlsError::Config`] if the configuration is not usable.
    pub fn client(config: Arc<ClientConfig>) -> Result<Self, TlsError> {
        let name = ServerName::IpAddress(IpAddr::V4(Ipv4Addr::from([0, 0, 0, 0])));
        let extractable = config.enable_secret_extraction;
        let inner = UnbufferedClientConnection::new(config, name).map_err(TlsError::Config)?;
        let mut session = Self::new(Side::Client(Box::new(inner)), extractable);
        // The client speaks first.
        session.process(&mut [], &mut Vec::new())?;
        Ok(session)
    }

    /// Starts the server side.
    ///
    /// # Errors
    /// [`TlsError::Config`] if the configuration is not usable.
    pub fn server(config: Arc<ServerConfig>) -> Result<Self, TlsError> {
        let extractable = config.enable_secret_extraction;
        let inner = UnbufferedServerConnection::new(config).map_err(TlsError::Config)?;
        Ok(Self::new(Side::Server(Box::new(inner)), extractable))
    }

    fn new(side: Side, extractable: bool) -> Self {
        Self {
            side,
            partial: Vec::new(),
            flight: Vec::new(),
            extractable,
            sendable: false,
            peer_closed: false,
            peer: None,
        }
    }

    /// Ciphertext kept from earlier calls, which has to stand in front of what [`open`](Self::open) is given next.
    #[must_use]
    pub fn partial(&self) -> &[u8] {
        &self.partial
    }

    /// Opens all whole records in `inbox`, which is [`partial`](Self::partial) followed by what has arrived since, and
    /// notes where their plaintext lies.
    ///
    /// # Errors
    /// Any [`TlsError`] is final; what is laid out afterwards ends with the alert for the peer.
    pub(crate) fn open(&mut self, inbox: Opening<'_>) -> Result<(), TlsError> {
        let Opening { cipher, plain, aside, opened } = inbox;
        let mut done = 0;
        if !matches!(self.side, Side::Records(_)) {
            let outcome = self.process(cipher, plain);
            if !plain.is_empty() {
                opened.push(aside..aside + plain.len());
            }
            done = outcome?;
        }
        if let Side::Records(records) = &mut self.side {
            let outcome = records.open(&mut cipher[done..], done, opened);
            self.peer_closed |= records.is_peer_closed();
            done += outcome.inspect_err(|_| self.sendable = false)?;
        }
        self.keep(&cipher[done..])
    }

    fn keep(&mut self, rest: &[u8]) -> Result<(), TlsError> {
        if rest.len() > MAX_PARTIAL_INPUT {
            return Err(TlsError::Oversized);
        }
        if rest.is_empty() {
            self.partial = Vec::new(); // idle tunnels own no buffer
        } else {
            self.partial.clear();
            self.partial.extend_from_slice(rest);
        }
        Ok(())
    }

    /// Lets rustls look at `input`, until it has nothing to do or the handshake is complete and records take over.
    /// Returns how much of `input` has been dealt with.
    fn process(&mut self, input: &mut [u8], plain: &mut Vec<u8>) -> Result<usize, TlsError> {
        let mut done = 0;
        loop {
            match self.step(&mut input[done..], plain) {
                Ok(Step::Again { discard }) => done += discard,
                Ok(Step::PeerClosed { discard }) => {
                    done += discard;
                    self.peer_closed = true;
                }
                Ok(Step::Idle { discard, sendable }) => {
                    if sendable && !self.sendable {
                        self.complete()?;
                    }
                    return Ok(done + discard);
                }
                Err(error) => {
                    // rustls holds the alert for the peer. As long as it does, it looks at nothing else.
                    while self.holds_output() {
                        if self.step(&mut input[done..], plain).is_err() {
                            break;
                        }
                    }
                    return Err(TlsError::Peer(error));
                }
            }
            // Before rustls looks at what follows the handshake, so that it has consumed no part of it.
            if self.extractable && !self.sendable && self.is_handed_over()? {
                return Ok(done);
            }
        }
    }

    fn step(&mut self, input: &mut [u8], plain: &mut Vec<u8>) -> Result<Step, rustls::Error> {
        match &mut self.side {
            Side::Client(c) => step(c.process_tls_records(input), plain, &mut self.flight),
            Side::Server(s) => step(s.process_tls_records(input), plain, &mut self.flight),
            Side::Records(_) | Side::Gone => Err(rustls::Error::HandshakeNotComplete),
        }
    }

    fn holds_output(&self) -> bool {
        match &self.side {
            Side::Client(c) => c.wants_write(),
            Side::Server(s) => s.wants_write(),
            Side::Records(_) | Side::Gone => false,
        }
    }

    /// Takes down what the handshake found out.
    fn complete(&mut self) -> Result<(), TlsError> {
        let (certificates, group, alpn) = match &self.side {
            Side::Client(c) => (c.peer_certificates(), c.negotiated_key_exchange_group(), c.alpn_protocol()),
            Side::Server(s) => (s.peer_certificates(), s.negotiated_key_exchange_group(), s.alpn_protocol()),
            Side::Records(_) | Side::Gone => return Ok(()),
        };
        // A peer that offers no ALPN at all is taken to mean h2; any other choice is an error (spec data-plane 7).
        if alpn.is_some_and(|name| name != b"h2") {
            return Err(TlsError::Alpn);
        }
        self.peer = Some(Peer {
            certificates: certificates.unwrap_or_default().to_vec(),
            key_exchange: group.map(|group| format!("{:?}", group.name()).into()),
        });
        self.sendable = true;
        Ok(())
    }

    /// Goes on without rustls, if the handshake is complete and what was agreed allows it. Returns whether it did.
    fn is_handed_over(&mut self) -> Result<bool, TlsError> {
        let (handshaking, version, suite) = match &self.side {
            Side::Client(c) => (c.is_handshaking(), c.protocol_version(), c.negotiated_cipher_suite()),
            Side::Server(s) => (s.is_handshaking(), s.protocol_version(), s.negotiated_cipher_suite()),
            Side::Records(_) | Side::Gone => return Ok(false),
        };
        let ours = matches!(
            suite.map(|suite| suite.suite()),
            Some(CipherSuite::TLS13_AES_128_GCM_SHA256 | CipherSuite::TLS13_AES_256_GCM_SHA384)
        );
        if handshaking || self.holds_output() || version != Some(ProtocolVersion::TLSv1_3) || !ours {
            return Ok(false);
        }
        self.complete()?;
        let (secrets, schedule) = match std::mem::replace(&mut self.side, Side::Gone) {
            Side::Client(c) => {
                let (secrets, schedule) = c.dangerous_into_kernel_connection().map_err(TlsError::Config)?;
                (secrets, KeySchedule::Client(Box::new(schedule)))
            }
            Side::Server(s) => {
                let (secrets, schedule) = s.dangerous_into_kernel_connection().map_err(TlsError::Config)?;
                (secrets, KeySchedule::Server(Box::new(schedule)))
            }
            Side::Records(_) | Side::Gone => return Ok(false),
        };
        self.side = Side::Records(Box::new(Records::new(schedule, &secrets)?));
        Ok(true)
    }

    /// Whether [`lay_out`](Self::lay_out) has something.
    #[must_use]
    pub fn has_transmit(&self) -> bool {
        let alert = if let Side::Records(records) = &self.side { records.has_alert() } else { false };
        alert || !self.flight.is_empty()
    }

    /// Lays out what the session itself has to say, which comes before the next frames. A key update waits until there
    /// are frames: a peer that asks for many without hearing from us gets one (RFC 8446 §4.6.3).
    pub(crate) fn lay_out(&mut self, outbox: &mut Outbox, next: Next) {
        if outbox.is_sealed() && !self.flight.is_empty() {
            outbox.append_sealed(&self.flight);
            self.flight = Vec::new();
        }
        if let Side::Records(records) = &mut self.side {
            if next == Next::Frames
                && let Some((content, message)) = records.due()
            {
                outbox.lay_out_message(content, message);
            }
            if let Some(alert) = records.take_alert_due() {
                outbox.lay_out_message(Content::Alert, &alert);
            }
        }
    }

    /// Seals what is laid out in `outbox`.
    ///
    /// # Errors
    /// [`TlsError::KeysExhausted`] when the key cannot be replaced in time. Final.
    pub(crate) fn seal(&mut self, outbox: &mut Outbox) -> Result<(), TlsError> {
        match &mut self.side {
            Side::Records(records) => outbox.seal_in_place(|content, record| records.seal(content, record)),
            _ if outbox.is_sealed() => Ok(()),
            _ => self.seal_aside(outbox),
        }
    }

    /// Sealing as rustls does it, from one buffer into another.
    fn seal_aside(&mut self, outbox: &mut Outbox) -> Result<(), TlsError> {
        let mut partial = std::mem::take(&mut self.partial);
        // What rustls wants to send first, such as a key update, is collected on the way.
        let sealed = self.process(&mut partial, &mut Vec::new()).and_then(|done| {
            partial.drain(..done);
            let flight = std::mem::take(&mut self.flight);
            outbox.seal_aside(&flight, |plain, aside| match &mut self.side {
                Side::Client(c) => seal(c.process_tls_records(&mut partial), plain, aside),
                Side::Server(s) => seal(s.process_tls_records(&mut partial), plain, aside),
                Side::Records(_) | Side::Gone => Err(TlsError::Peer(rustls::Error::HandshakeNotComplete)),
            })
        });
        self.partial = partial;
        sealed
    }

    /// Says goodbye: appends a close_notify alert (RFC 8446 §6.1). Nothing may be laid out afterwards.
    pub(crate) fn close(&mut self, outbox: &mut Outbox) {
        if !self.sendable {
            return;
        }
        self.sendable = false;
        let mut goodbye = Vec::new();
        match &mut self.side {
            Side::Client(c) => close(c.process_tls_records(&mut self.partial), &mut goodbye),
            Side::Server(s) => close(s.process_tls_records(&mut self.partial), &mut goodbye),
            Side::Records(records) => {
                outbox.lay_out_message(Content::Alert, &Records::close_notify());
                // A key that is used up leaves no way to say goodbye.
                let _ = outbox.seal_in_place(|content, record| records.seal(content, record));
            }
            Side::Gone => {}
        }
        if outbox.is_sealed() {
            outbox.append_sealed(&goodbye);
        }
    }

    /// Whether application data may be sent: the handshake is complete on this side, and nothing has failed or ended.
    #[must_use]
    pub fn is_sendable(&self) -> bool {
        self.sendable
    }

    /// Whether the handshake has been completed.
    #[must_use]
    pub fn is_established(&self) -> bool {
        self.peer.is_some()
    }

    /// Whether the peer said goodbye with close_notify, so that what came before is known to be everything.
    #[must_use]
    pub fn is_peer_closed(&self) -> bool {
        self.peer_closed
    }

    /// The verified certificates of the peer, leaf first; none before the handshake is complete.
    #[must_use]
    pub fn peer_certificates(&self) -> Option<&[CertificateDer<'static>]> {
        self.peer.as_ref().map(|peer| peer.certificates.as_slice())
    }

    /// Name of the key exchange group in use, such as `X25519MLKEM768`; none before the handshake is complete.
    #[must_use]
    pub fn key_exchange(&self) -> Option<&Arc<str>> {
        self.peer.as_ref()?.key_exchange.as_ref()
    }
}

fn step<D>(
    status: UnbufferedStatus<'_, '_, D>,
    plain: &mut Vec<u8>,
    wire: &mut Vec<u8>,
) -> Result<Step, rustls::Error> {
    let mut discard = status.discard;
    Ok(match status.state? {
        ConnectionState::ReadTraffic(mut traffic) => {
            while let Some(record) = traffic.next_record() {
                let record = record?;
                discard += record.discard;
                plain.extend_from_slice(record.payload);
            }
            Step::Again { discard }
        }
        ConnectionState::EncodeTlsData(mut data) => {
            encode(|room| data.encode(room), wire);
            Step::Again { discard }
        }
        ConnectionState::TransmitTlsData(data) => {
            data.done();
            Step::Again { discard }
        }
        ConnectionState::PeerClosed => Step::PeerClosed { discard },
        ConnectionState::WriteTraffic(_) => Step::Idle { discard, sendable: true },
        // BlockedHandshake and Closed; early data is never enabled by our configurations.
        _ => Step::Idle { discard, sendable: false },
    })
}

/// Runs `write` with as much room as it asks for.
fn encode(mut write: impl FnMut(&mut [u8]) -> Result<usize, EncodeError>, wire: &mut Vec<u8>) {
    let start = wire.len();
    let mut room = 1024;
    loop {
        wire.resize(start + room, 0);
        match write(&mut wire[start..]) {
            Ok(written) => return wire.truncate(start + written),
            Err(EncodeError::InsufficientSize(e)) if e.required_size > room => room = e.required_size,
            Err(_) => return wire.truncate(start),
        }
    }
}

fn seal<D>(status: UnbufferedStatus<'_, '_, D>, plain: &[u8], wire: &mut Aside) -> Result<(), TlsError> {
    match status.state.map_err(TlsError::Peer)? {
        ConnectionState::WriteTraffic(mut traffic) => {
            let written = match traffic.encrypt(plain, wire.room(plain.len() + MAX_RECORD_OVERHEAD)) {
                Ok(written) => written,
                Err(EncryptError::InsufficientSize(e)) => {
                    traffic.encrypt(plain, wire.room(e.required_size)).map_err(|_| TlsError::KeysExhausted)?
                }
                Err(EncryptError::EncryptExhausted) => return Err(TlsError::KeysExhausted),
            };
            wire.written(written);
            Ok(())
        }
        _ => Err(TlsError::Peer(rustls::Error::HandshakeNotComplete)),
    }
}

fn close<D>(status: UnbufferedStatus<'_, '_, D>, wire: &mut Vec<u8>) {
    const ROOM: usize = 64; // an alert is 2 bytes, sealed 24
    if let Ok(ConnectionState::WriteTraffic(mut traffic)) = status.state {
        wire.resize(ROOM, 0);
        // Too little room would mean that something else is queued: then there is no orderly goodbye to say.
        let written = traffic.queue_close_notify(wire).unwrap_or(0);
        wire.truncate(written);
    }
}

#[cfg(test)]
mod tests;

//! Mutual TLS as a machine: ciphertext in, plaintext out, and the other way round.
//!
//! This is the only file of the product that names rustls connection types. A [`Session`] keeps nothing but the start of
//! a record whose end has not arrived ([`MAX_PARTIAL_INPUT`]); all other room is the caller's. What a configuration
//! accepts (roots, identities, versions) is decided by whoever builds the rustls configurations.

use std::fmt;
use std::sync::Arc;

use rustls::client::UnbufferedClientConnection;
use rustls::pki_types::{CertificateDer, IpAddr, Ipv4Addr, ServerName};
use rustls::server::UnbufferedServerConnection;
use rustls::unbuffered::{ConnectionState, EncodeError, EncryptError, UnbufferedStatus};
use rustls::{ClientConfig, ServerConfig};

/// Longest plaintext of one TLS record (RFC 8446 §5.1).
pub const MAX_RECORD_PLAINTEXT: usize = 16_384;
/// What sealing adds to a record at the most: header, inner content type, padding allowance and tag (RFC 8446 §5.2).
pub const MAX_RECORD_OVERHEAD: usize = 5 + 256;
/// Most ciphertext that can be waiting for its rest: a handshake message may span records up to 64 KiB in all, and the
/// last record may lack its end.
pub const MAX_PARTIAL_INPUT: usize = 0xffff + 4 + 2 * (MAX_RECORD_PLAINTEXT + MAX_RECORD_OVERHEAD);

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

/// One end of a TLS connection.
pub struct Session {
    side: Side,
    /// Ciphertext that is not a whole record or message yet. rustls remembers positions in it, so every look at its
    /// state has to present it, even one that brings nothing new.
    partial: Vec<u8>,
    sendable: bool,
    peer_closed: bool,
}

enum Side {
    Client(Box<UnbufferedClientConnection>),
    Server(Box<UnbufferedServerConnection>),
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
        let inner = UnbufferedClientConnection::new(config, name).map_err(TlsError::Config)?;
        Ok(Self::new(Side::Client(Box::new(inner))))
    }

    /// Starts the server side.
    ///
    /// # Errors
    /// [`TlsError::Config`] if the configuration is not usable.
    pub fn server(config: Arc<ServerConfig>) -> Result<Self, TlsError> {
        let inner = UnbufferedServerConnection::new(config).map_err(TlsError::Config)?;
        Ok(Self::new(Side::Server(Box::new(inner))))
    }

    fn new(side: Side) -> Self {
        Self { side, partial: Vec::new(), sendable: false, peer_closed: false }
    }

    /// Ciphertext kept from earlier calls, which has to stand in front of what [`open`](Self::open) is given next.
    #[must_use]
    pub fn partial(&self) -> &[u8] {
        &self.partial
    }

    /// Opens all whole records in `input`, which is [`partial`](Self::partial) followed by what has arrived since.
    /// Plaintext is appended to `plain`, handshake messages and alerts of our own to `wire`.
    ///
    /// # Errors
    /// Any [`TlsError`] is final; `wire` then ends with the alert for the peer.
    pub fn open(&mut self, input: &mut [u8], plain: &mut Vec<u8>, wire: &mut Vec<u8>) -> Result<(), TlsError> {
        let done = self.process(input, plain, wire)?;
        let rest = &input[done..];
        if rest.len() > MAX_PARTIAL_INPUT {
            return Err(TlsError::Oversized);
        }
        self.partial.clear();
        self.partial.extend_from_slice(rest);
        if rest.is_empty() {
            self.partial = Vec::new(); // idle tunnels own no buffer
        }
        Ok(())
    }

    fn process(&mut self, input: &mut [u8], plain: &mut Vec<u8>, wire: &mut Vec<u8>) -> Result<usize, TlsError> {
        let mut done = 0;
        loop {
            match self.step(&mut input[done..], plain, wire) {
                Ok(Step::Again { discard }) => done += discard,
                Ok(Step::PeerClosed { discard }) => {
                    done += discard;
                    self.peer_closed = true;
                }
                Ok(Step::Idle { discard, sendable }) => {
                    if sendable && !self.sendable {
                        self.check_alpn()?;
                        self.sendable = true;
                    }
                    return Ok(done + discard);
                }
                Err(error) => {
                    // rustls holds the alert for the peer. As long as it does, it looks at nothing else.
                    while self.holds_output() {
                        if self.step(&mut input[done..], plain, wire).is_err() {
                            break;
                        }
                    }
                    return Err(TlsError::Peer(error));
                }
            }
        }
    }

    fn holds_output(&self) -> bool {
        match &self.side {
            Side::Client(c) => c.wants_write(),
            Side::Server(s) => s.wants_write(),
        }
    }

    fn step(&mut self, input: &mut [u8], plain: &mut Vec<u8>, wire: &mut Vec<u8>) -> Result<Step, rustls::Error> {
        match &mut self.side {
            Side::Client(c) => step(c.process_tls_records(input), plain, wire),
            Side::Server(s) => step(s.process_tls_records(input), plain, wire),
        }
    }

    /// Seals `plain` into records appended to `wire`.
    ///
    /// # Errors
    /// [`TlsError::KeysExhausted`] after 2^24 or so records without a key update having been possible.
    pub fn seal(&mut self, plain: &[u8], wire: &mut Wire) -> Result<(), TlsError> {
        // What rustls wants to send first, such as a key update, is collected on the way.
        let mut control = Vec::new();
        let mut partial = std::mem::take(&mut self.partial);
        let sealed = self.process(&mut partial, &mut Vec::new(), &mut control).and_then(|done| {
            partial.drain(..done);
            wire.extend(&control);
            match &mut self.side {
                Side::Client(c) => seal(c.process_tls_records(&mut partial), plain, wire),
                Side::Server(s) => seal(s.process_tls_records(&mut partial), plain, wire),
            }
        });
        self.partial = partial;
        sealed
    }

    /// Says goodbye: appends a close_notify alert (RFC 8446 §6.1). Nothing may be sealed afterwards.
    pub fn close(&mut self, wire: &mut Wire) {
        if self.sendable {
            match &mut self.side {
                Side::Client(c) => close(c.process_tls_records(&mut self.partial), wire),
                Side::Server(s) => close(s.process_tls_records(&mut self.partial), wire),
            }
        }
    }

    /// Whether application data may be sent: the handshake is complete on this side.
    #[must_use]
    pub fn is_sendable(&self) -> bool {
        self.sendable
    }

    /// Whether the peer said goodbye with close_notify, so that what came before is known to be everything.
    #[must_use]
    pub fn is_peer_closed(&self) -> bool {
        self.peer_closed
    }

    /// The verified certificates of the peer, leaf first; none before the handshake is complete.
    #[must_use]
    pub fn peer_certificates(&self) -> Option<&[CertificateDer<'static>]> {
        match &self.side {
            Side::Client(c) => c.peer_certificates(),
            Side::Server(s) => s.peer_certificates(),
        }
    }

    /// Name of the key exchange group in use, such as `X25519MLKEM768`; none before the handshake is complete.
    #[must_use]
    pub fn key_exchange(&self) -> Option<String> {
        let group = match &self.side {
            Side::Client(c) => c.negotiated_key_exchange_group(),
            Side::Server(s) => s.negotiated_key_exchange_group(),
        };
        group.map(|g| format!("{:?}", g.name()))
    }

    /// A peer that offers no ALPN at all is taken to mean h2; any other choice is an error (spec data-plane 7).
    fn check_alpn(&self) -> Result<(), TlsError> {
        let chosen = match &self.side {
            Side::Client(c) => c.alpn_protocol(),
            Side::Server(s) => s.alpn_protocol(),
        };
        match chosen {
            None | Some(b"h2") => Ok(()),
            Some(_) => Err(TlsError::Alpn),
        }
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

fn seal<D>(status: UnbufferedStatus<'_, '_, D>, plain: &[u8], wire: &mut Wire) -> Result<(), TlsError> {
    match status.state.map_err(TlsError::Peer)? {
        ConnectionState::WriteTraffic(mut traffic) => {
            let written = match traffic.encrypt(plain, wire.room(sealed_bound(plain.len()))) {
                Ok(written) => written,
                Err(EncryptError::InsufficientSize(e)) => {
                    traffic.encrypt(plain, wire.room(e.required_size)).map_err(|_| TlsError::KeysExhausted)?
                }
                Err(EncryptError::EncryptExhausted) => return Err(TlsError::KeysExhausted),
            };
            wire.filled += written;
            Ok(())
        }
        _ => Err(TlsError::Peer(rustls::Error::HandshakeNotComplete)),
    }
}

fn close<D>(status: UnbufferedStatus<'_, '_, D>, wire: &mut Wire) {
    const ROOM: usize = 64; // an alert is 2 bytes, sealed 24
    if let Ok(ConnectionState::WriteTraffic(mut traffic)) = status.state {
        // Too little room would mean that something else is queued: then there is no orderly goodbye to say.
        wire.filled += traffic.queue_close_notify(wire.room(ROOM)).unwrap_or(0);
    }
}

/// Most bytes that `plain` bytes of plaintext become once sealed.
const fn sealed_bound(plain: usize) -> usize {
    plain + (plain / MAX_RECORD_PLAINTEXT + 1) * MAX_RECORD_OVERHEAD
}

/// Sealed bytes on their way to the socket. Room once made is kept and not cleared again, which matters for speed.
#[derive(Debug, Default)]
pub struct Wire {
    bytes: Vec<u8>,
    sent: usize,
    filled: usize,
}

impl Wire {
    /// Bytes that still have to be sent, in order.
    #[must_use]
    pub fn unsent(&self) -> &[u8] {
        &self.bytes[self.sent..self.filled]
    }

    /// Notes that the first `n` unsent bytes have been sent.
    pub fn advance(&mut self, n: usize) {
        self.sent = (self.sent + n).min(self.filled);
        if self.sent == self.filled {
            self.sent = 0;
            self.filled = 0;
        }
    }

    /// Appends bytes that are sealed already.
    pub fn extend(&mut self, sealed: &[u8]) {
        self.room(sealed.len())[..sealed.len()].copy_from_slice(sealed);
        self.filled += sealed.len();
    }

    fn room(&mut self, n: usize) -> &mut [u8] {
        let need = self.filled + n;
        if self.bytes.len() < need {
            self.bytes.resize(need, 0);
        }
        &mut self.bytes[self.filled..need]
    }
}

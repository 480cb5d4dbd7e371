//! What an attacker would try with TLS records, after an orderly handshake: floods that cost it less than they cost us.
//!
//! The attacker is rustls up to the handshake's end; from there on it seals what it likes with the keys of the session.

use std::io::Write;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hbone::error::Violation;
use hbone::h2::{End, Event, StreamId};
use hbone::limits::Config;
use hbone::tls::{MAX_PARTIAL_INPUT, TlsError};
use hbone::{Inbox, Outbox, Tunnel, TunnelError};
use rustls::crypto::aws_lc_rs::{cipher_suite, default_provider};
use rustls::crypto::cipher::{AeadKey, Iv, MessageEncrypter, OutboundChunks, OutboundPlainMessage};
use rustls::pki_types::{PrivateKeyDer, ServerName};
use rustls::{
    ClientConfig, ClientConnection, ConnectionTrafficSecrets, ContentType, Error, PeerMisbehaved, ProtocolVersion,
    RootCertStore, ServerConfig, Tls13CipherSuite,
};

/// Empty records in a row that rustls takes.
const EMPTY_RECORDS: usize = 32;
/// Requests for new keys, without payload between them, that rustls takes. With payload the payload is what they cost.
const KEY_UPDATES: usize = 32;
/// KeyUpdate with update_requested (RFC 8446 §4.6.3).
const KEY_UPDATE: &[u8] = &[24, 0, 0, 1, 1];
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0\0\0\0\x04\x01\0\0\0\0";
/// HEADERS on stream 1: `:method: CONNECT`, `:authority: a:1`.
const REQUEST: &[u8] = b"\0\0\x0e\x01\x04\0\0\0\x01\x02\x07CONNECT\x01\x03a:1";

/// A server's tunnel that has completed its handshake with an attacker.
struct Victim {
    tunnel: Tunnel,
    inbox: Inbox,
    outbox: Outbox,
    now: Instant,
    attacker: Box<dyn MessageEncrypter>,
    sequence: u64,
}

fn configurations() -> (ClientConfig, ServerConfig) {
    let root_key = rcgen::KeyPair::generate().unwrap();
    let mut root = rcgen::CertificateParams::new(Vec::new()).unwrap();
    root.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let mut roots = RootCertStore::empty();
    roots.add(root.self_signed(&root_key).unwrap().der().clone()).unwrap();
    let roots = Arc::new(roots);
    let issuer = rcgen::Issuer::new(root, root_key);
    let leaf = || {
        let key = rcgen::KeyPair::generate().unwrap();
        let params = rcgen::CertificateParams::new(vec!["0.0.0.0".to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &issuer).unwrap();
        (vec![certificate.der().clone()], PrivateKeyDer::try_from(key.serialize_der()).unwrap())
    };
    let mut provider = default_provider();
    provider.cipher_suites = vec![cipher_suite::TLS13_AES_256_GCM_SHA384];
    let provider = Arc::new(provider);
    let tls13 = &[&rustls::version::TLS13];
    let verifier = rustls::server::WebPkiClientVerifier::builder_with_provider(roots.clone(), provider.clone());
    let (chain, key) = leaf();
    let server = ServerConfig::builder_with_provider(provider.clone()).with_protocol_versions(tls13).unwrap();
    let server = server.with_client_cert_verifier(verifier.build().unwrap()).with_single_cert(chain, key).unwrap();
    let (chain, key) = leaf();
    let client = ClientConfig::builder_with_provider(provider).with_protocol_versions(tls13).unwrap();
    let mut client = client.with_root_certificates(roots).with_client_auth_cert(chain, key).unwrap();
    client.alpn_protocols = vec![b"h2".to_vec()];
    client.enable_secret_extraction = true;
    (client, server)
}

fn suite() -> &'static Tls13CipherSuite {
    cipher_suite::TLS13_AES_256_GCM_SHA384.tls13().unwrap()
}

impl Victim {
    /// A victim whose peer obeys the rules of TLS.
    fn with_peer() -> (Self, ClientConnection) {
        let now = Instant::now();
        let (client, mut server) = configurations();
        server.alpn_protocols = vec![b"h2".to_vec()];
        server.enable_secret_extraction = true; // as the daemon has it
        let tunnel = Tunnel::server(Arc::new(server), Config::server(), now).unwrap();
        let name = ServerName::try_from("0.0.0.0").unwrap();
        let mut client = ClientConnection::new(Arc::new(client), name).unwrap();
        let (inbox, outbox) = Default::default();
        // Until the session's own keys are known.
        let attacker = suite().aead_alg.encrypter(AeadKey::from([0; 32]), Iv::from([0; 12]));
        let mut victim = Self { tunnel, inbox, outbox, now, attacker, sequence: 0 };
        while client.is_handshaking() || client.wants_write() {
            let mut wire = Vec::new();
            client.write_tls(&mut wire).unwrap();
            victim.take(&wire).unwrap();
            let mut answer = &victim.give()[..];
            while !answer.is_empty() {
                client.read_tls(&mut answer).unwrap();
                client.process_new_packets().unwrap();
            }
        }
        (victim, client)
    }

    fn new() -> Self {
        let (mut victim, client) = Self::with_peer();
        let (sequence, secrets) = client.dangerous_extract_secrets().unwrap().tx;
        let ConnectionTrafficSecrets::Aes256Gcm { key, iv } = secrets else { panic!("another suite") };
        victim.attacker = suite().aead_alg.encrypter(key, iv);
        victim.sequence = sequence;
        victim.hit(ContentType::ApplicationData, PREFACE).unwrap();
        victim
    }

    fn take(&mut self, mut bytes: &[u8]) -> Result<Vec<Event>, TunnelError> {
        let mut events = Vec::new();
        while !bytes.is_empty() {
            self.tunnel.prepare(&mut self.inbox);
            let room = self.inbox.room();
            let (piece, rest) = bytes.split_at(bytes.len().min(room.len()));
            room[..piece.len()].copy_from_slice(piece);
            self.inbox.fill(piece.len());
            bytes = rest;
            self.tunnel.receive(self.now, &mut self.inbox, &mut events)?;
        }
        Ok(events)
    }

    fn give(&mut self) -> Vec<u8> {
        let _ = self.tunnel.seal(&mut self.outbox);
        let bytes = self.outbox.unsent().to_vec();
        self.outbox.advance(bytes.len());
        bytes
    }

    /// One record of any type with any content.
    fn seal(&mut self, typ: ContentType, payload: &[u8]) -> Vec<u8> {
        let payload = OutboundChunks::Single(payload);
        let message = OutboundPlainMessage { typ, version: ProtocolVersion::TLSv1_2, payload };
        let sealed = self.attacker.encrypt(message, self.sequence).unwrap().encode();
        self.sequence += 1;
        sealed
    }

    fn hit(&mut self, typ: ContentType, payload: &[u8]) -> Result<Vec<Event>, TunnelError> {
        let record = self.seal(typ, payload);
        self.take(&record)
    }

    /// How many records it takes for the victim to have had enough, and why.
    fn flood(&mut self, mut record: impl FnMut(&mut Self) -> Vec<u8>) -> (usize, TunnelError) {
        for count in 0..10_000 {
            let record = record(self);
            if let Err(error) = self.take(&record) {
                return (count, error);
            }
        }
        panic!("the victim takes anything");
    }
}

fn misbehaviour(error: &TunnelError) -> Option<PeerMisbehaved> {
    match error {
        TunnelError::Tls(TlsError::Peer(Error::PeerMisbehaved(what))) => Some(what.clone()),
        _ => None,
    }
}

#[test]
fn empty_records_are_stopped_by_count() {
    let mut victim = Victim::new();
    let (count, error) = victim.flood(|victim| victim.seal(ContentType::ApplicationData, &[]));
    assert_eq!((count, misbehaviour(&error)), (EMPTY_RECORDS, Some(PeerMisbehaved::TooManyEmptyFragments)));
}

#[test]
fn records_of_one_byte_each_mean_the_same_as_one_record() {
    let mut victim = Victim::new();
    let mut events = Vec::new();
    for byte in REQUEST {
        events.extend(victim.hit(ContentType::ApplicationData, &[*byte]).unwrap());
    }
    assert!(matches!(&events[..], [Event::Request { .. }]), "{events:?}");
}

#[test]
fn a_record_of_one_byte_keeps_no_memory() {
    let mut victim = Victim::new();
    for byte in REQUEST {
        let record = victim.seal(ContentType::ApplicationData, &[*byte]);
        let (most, last) = record.split_at(record.len() - 1);
        victim.take(most).unwrap();
        victim.take(last).unwrap();
    }
    assert_eq!(victim.tunnel.active_streams(), 1);
}

/// What a peer that obeys TLS has to send.
fn sent(peer: &mut ClientConnection) -> Vec<u8> {
    let mut wire = Vec::new();
    while peer.wants_write() {
        peer.write_tls(&mut wire).unwrap();
    }
    wire
}

#[test]
fn requests_for_new_keys_are_stopped_by_count() {
    let (mut victim, mut peer) = Victim::with_peer();
    let (count, error) = victim.flood(|_| {
        peer.refresh_traffic_keys().unwrap();
        sent(&mut peer)
    });
    assert_eq!((count, misbehaviour(&error)), (KEY_UPDATES, Some(PeerMisbehaved::TooManyKeyUpdateRequests)));
}

#[test]
fn answers_to_requests_for_new_keys_do_not_pile_up() {
    let (mut victim, mut peer) = Victim::with_peer();
    peer.writer().write_all(&[PREFACE, REQUEST].concat()).unwrap();
    victim.take(&sent(&mut peer)).unwrap();
    victim.give();
    for _ in 0..1_000 {
        peer.refresh_traffic_keys().unwrap();
        // One byte of DATA, without which the requests would be stopped by their count.
        peer.writer().write_all(b"\0\0\x01\0\0\0\0\0\x01x").unwrap();
        victim.take(&sent(&mut peer)).unwrap();
    }
    assert_eq!(victim.give(), b"", "the answer comes with what is sent next (RFC 8446 §4.6.3)");
    victim.tunnel.respond(StreamId::new(1), 200, &[], End::No).unwrap();
    let sent = victim.give().len();
    assert!((1..200).contains(&sent), "{sent} bytes: one change of keys, HEADERS and no more");
}

#[test]
fn new_keys_must_not_have_anything_behind_them_in_their_record() {
    let mut victim = Victim::new();
    let error = victim.hit(ContentType::Handshake, &KEY_UPDATE.repeat(2)).unwrap_err();
    assert_eq!(misbehaviour(&error), Some(PeerMisbehaved::KeyEpochWithPendingFragment));
}

#[test]
fn a_change_of_cipher_spec_after_the_handshake_ends_the_tunnel() {
    let mut victim = Victim::new();
    let (count, error) = victim.flood(|_| b"\x14\x03\x03\x00\x01\x01".to_vec());
    assert!(count <= 2, "{count} were taken");
    assert!(matches!(error, TunnelError::Tls(TlsError::Peer(_))), "{error}");
}

#[test]
fn a_renegotiation_ends_the_tunnel() {
    // HelloRequest, which TLS 1.3 does not have (RFC 8446 §4), and a new ClientHello.
    for message in [&b"\0\0\0\0"[..], b"\x01\0\0\x02\x03\x03"] {
        let mut victim = Victim::new();
        let error = victim.hit(ContentType::Handshake, message).unwrap_err();
        assert!(matches!(error, TunnelError::Tls(TlsError::Peer(_))), "{error}");
    }
}

#[test]
fn warning_alerts_end_the_tunnel() {
    // RFC 8446 §6: all alerts but two are fatal, whatever their level says. user_canceled is one of the two.
    let mut victim = Victim::new();
    let (count, error) = victim.flood(|victim| victim.seal(ContentType::Alert, &[1, 90]));
    assert!(count <= hbone::tls::MAX_USELESS_RECORDS as usize, "{count} were taken");
    assert!(matches!(error, TunnelError::Tls(TlsError::Peer(_))), "{error}");
}

#[test]
fn a_handshake_message_without_end_is_stopped_by_size() {
    let mut victim = Victim::new();
    let mut sent = 0;
    let (_, error) = victim.flood(|victim| {
        // The head of a message of 16 MiB, and then what could be part of it.
        let start: &[u8] = if sent == 0 { &[24, 0xff, 0xff, 0xff] } else { &[] };
        let mut payload = start.to_vec();
        payload.resize(16_000, 0);
        sent += payload.len();
        victim.seal(ContentType::Handshake, &payload)
    });
    assert!(sent <= MAX_PARTIAL_INPUT + 16_000, "{sent} bytes were gathered");
    assert!(matches!(error, TunnelError::Tls(_)), "{error}");
}

#[test]
fn a_record_that_is_never_completed_is_given_up_by_the_keepalive() {
    let mut victim = Victim::new();
    victim.give();
    let record = victim.seal(ContentType::ApplicationData, &[0; 16_000]);
    let mut given_up = None;
    // A byte a second: enough for any timer that counts bytes of ciphertext.
    for byte in &record[..60] {
        victim.take(&[*byte]).unwrap();
        victim.now += Duration::from_secs(1);
        if let Err(error) = victim.tunnel.handle_timeout(victim.now) {
            given_up = Some(error);
            break;
        }
    }
    let Some(TunnelError::Http2(fault)) = given_up else { panic!("{given_up:?}") };
    assert_eq!(fault.violation, Violation::KeepaliveTimeout);
}

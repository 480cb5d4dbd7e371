//! Two tunnels talk to each other over a link in memory: TLS and HTTP/2 together, with a clock that the tests set.

use std::sync::Arc;
use std::time::{Duration, Instant};

use hbone::error::Reason;
use hbone::h2::{End, Event, Header, StreamId};
use hbone::limits::Config;
use hbone::{HANDSHAKE_TIMEOUT, Inbox, Outbox, Tunnel, TunnelError};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::PrivateKeyDer;
use rustls::version::TLS12;
use rustls::{ClientConfig, RootCertStore, ServerConfig, SupportedProtocolVersion};

/// Whether a tunnel opens and seals its records itself after the handshake, or leaves that to rustls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum By {
    Itself,
    Rustls,
}

/// A root and what it signed, for both ends.
struct Pki {
    client: Arc<ClientConfig>,
    server: Arc<ServerConfig>,
}

fn pki(server_alpn: &[&[u8]]) -> Pki {
    pki_of(server_alpn, rustls::ALL_VERSIONS)
}

/// The same, for clients that speak only `versions`.
fn pki_of(server_alpn: &[&[u8]], versions: &[&'static SupportedProtocolVersion]) -> Pki {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let root_key = rcgen::KeyPair::generate().unwrap();
    let mut root = rcgen::CertificateParams::new(Vec::new()).unwrap();
    root.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let root_certificate = root.self_signed(&root_key).unwrap();
    let issuer = rcgen::Issuer::new(root, root_key);
    let mut roots = RootCertStore::empty();
    roots.add(root_certificate.der().clone()).unwrap();
    let roots = Arc::new(roots);
    let leaf = || {
        let key = rcgen::KeyPair::generate().unwrap();
        // The client never names the server; it verifies an address that every leaf of these tests carries.
        let params = rcgen::CertificateParams::new(vec!["0.0.0.0".to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &issuer).unwrap();
        (vec![certificate.der().clone()], PrivateKeyDer::try_from(key.serialize_der()).unwrap())
    };
    let verifier = rustls::server::WebPkiClientVerifier::builder_with_provider(Arc::clone(&roots), provider.clone())
        .build()
        .unwrap();
    let (chain, key) = leaf();
    let mut server = ServerConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(rustls::ALL_VERSIONS)
        .unwrap()
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain, key)
        .unwrap();
    server.alpn_protocols = server_alpn.iter().map(|name| name.to_vec()).collect();
    let (chain, key) = leaf();
    let mut client = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)
        .unwrap()
        .with_root_certificates(roots)
        .with_client_auth_cert(chain, key)
        .unwrap();
    client.alpn_protocols = vec![b"h2".to_vec()];
    client.enable_secret_extraction = true;
    server.enable_secret_extraction = true;
    Pki { client: Arc::new(client), server: Arc::new(server) }
}

impl Pki {
    fn sealed_by(self, client: By, server: By) -> Self {
        let (mut clients, mut servers) = (ClientConfig::clone(&self.client), ServerConfig::clone(&self.server));
        clients.enable_secret_extraction = client == By::Itself;
        servers.enable_secret_extraction = server == By::Itself;
        Self { client: Arc::new(clients), server: Arc::new(servers) }
    }
}

const ALL_PAIRS: [(By, By); 4] =
    [(By::Itself, By::Itself), (By::Itself, By::Rustls), (By::Rustls, By::Itself), (By::Rustls, By::Rustls)];

/// One end with its buffers, and what it has been told.
struct EndPoint {
    tunnel: Tunnel,
    inbox: Inbox,
    outbox: Outbox,
    events: Vec<Event>,
    received: Vec<u8>,
    ended: bool,
}

impl EndPoint {
    fn new(tunnel: Tunnel) -> Self {
        let (inbox, outbox) = Default::default();
        Self { tunnel, inbox, outbox, events: Vec::new(), received: Vec::new(), ended: false }
    }

    fn take(&mut self, now: Instant, bytes: &[u8]) -> Result<(), TunnelError> {
        self.tunnel.prepare(&mut self.inbox);
        self.inbox.room()[..bytes.len()].copy_from_slice(bytes);
        self.inbox.fill(bytes.len());
        let mut events = Vec::new();
        let outcome = self.tunnel.receive(now, &mut self.inbox, &mut events);
        for event in events {
            if let Event::Data { id, range, end } = event {
                self.received.extend_from_slice(self.inbox.payload(range.clone()));
                self.tunnel.credit(id, range.len());
                self.ended |= end.is_end();
            } else {
                self.events.push(event);
            }
        }
        outcome
    }

    fn give(&mut self) -> Result<Vec<u8>, TunnelError> {
        self.tunnel.seal(&mut self.outbox)?;
        let bytes = self.outbox.unsent().to_vec();
        self.outbox.advance(bytes.len());
        Ok(bytes)
    }

    /// Lays out as much of `data` as there is room for; returns what is left.
    fn send<'a>(&mut self, id: StreamId, data: &'a [u8]) -> &'a [u8] {
        let sent = self.tunnel.send_data(id, data.len(), &mut self.outbox, |places| {
            let mut rest = data;
            for place in places {
                let (now, later) = rest.split_at(place.len().min(rest.len()));
                place[..now.len()].copy_from_slice(now);
                rest = later;
            }
            Ok::<_, ()>(data.len() - rest.len())
        });
        &data[sent.map_or(0, Result::unwrap)..]
    }

    fn request(&self) -> StreamId {
        self.events.iter().rev().find_map(|e| if let Event::Request { id, .. } = e { Some(*id) } else { None }).unwrap()
    }
}

struct Pair {
    now: Instant,
    client: EndPoint,
    server: EndPoint,
    /// Bytes given to the other end at once.
    step: usize,
}

impl Pair {
    fn new() -> Self {
        Self::with(pki(&[b"h2"]))
    }

    fn with(pki: Pki) -> Self {
        let now = Instant::now();
        let client = EndPoint::new(Tunnel::client(pki.client, Config::client(), now).unwrap());
        let server = EndPoint::new(Tunnel::server(pki.server, Config::server(), now).unwrap());
        Self { now, client, server, step: 64 * 1024 }
    }

    /// Carries bytes until both ends are silent.
    fn settle(&mut self) -> Result<(), TunnelError> {
        loop {
            let up = self.client.give()?;
            for bytes in up.chunks(self.step) {
                self.server.take(self.now, bytes)?;
            }
            let down = self.server.give()?;
            for bytes in down.chunks(self.step) {
                self.client.take(self.now, bytes)?;
            }
            if up.is_empty() && down.is_empty() {
                return Ok(());
            }
        }
    }

    /// A stream that has been answered with 200.
    fn open(&mut self) -> StreamId {
        let id = self.client.tunnel.open("10.0.0.1:80", &[Header::new("baggage", "k=v")]).unwrap();
        self.settle().unwrap();
        assert_eq!(self.server.request(), id);
        self.server.tunnel.respond(id, 200, &[], End::No).unwrap();
        self.settle().unwrap();
        assert!(matches!(
            &self.client.events[..],
            [.., Event::Response { id: answered, response, .. }] if *answered == id && response.status == 200
        ));
        id
    }
}

#[test]
fn a_request_opened_before_the_handshake_is_complete_reaches_the_server() {
    let mut pair = Pair::new();
    assert!(!pair.client.tunnel.is_established());
    let id = pair.client.tunnel.open("10.0.0.1:80", &[Header::new("baggage", "k=v")]).unwrap();
    pair.settle().unwrap();
    assert!(pair.client.tunnel.is_established() && pair.server.tunnel.is_established());
    let Some(Event::Request { id: seen, request, end: End::No }) =
        pair.server.events.iter().find(|e| matches!(e, Event::Request { .. }))
    else {
        panic!("no request in {:?}", pair.server.events)
    };
    assert_eq!(*seen, id);
    assert_eq!(request.authority.as_deref(), Some("10.0.0.1:80"));
    assert_eq!(request.headers.get("baggage"), Some(&b"k=v"[..]));
    assert!(pair.server.tunnel.peer_certificates().is_some_and(|chain| chain.len() == 1), "the client is known");
}

#[test]
fn payload_arrives_whole_both_ways_whatever_pieces_the_link_makes_of_it() {
    for step in [1, 7, 1000, 16_406, 64 * 1024] {
        payload_arrives_whole(Pair::new(), step);
    }
}

#[test]
fn it_makes_no_difference_to_the_peer_who_seals_the_records() {
    for (client, server) in ALL_PAIRS {
        for step in [1000, 64 * 1024] {
            payload_arrives_whole(Pair::with(pki(&[b"h2"]).sealed_by(client, server)), step);
        }
    }
}

#[test]
fn a_peer_of_tls_12_is_served_although_its_records_are_others() {
    payload_arrives_whole(Pair::with(pki_of(&[b"h2"], &[&TLS12])), 997);
}

fn payload_arrives_whole(mut pair: Pair, step: usize) {
    pair.step = step;
    let id = pair.open();
    let up: Vec<u8> = (0..300_000u32).map(|i| i as u8).collect();
    let down: Vec<u8> = (0..200_000u32).map(|i| (i >> 3) as u8).collect();
    let (mut up_left, mut down_left) = (&up[..], &down[..]);
    while !up_left.is_empty() || !down_left.is_empty() {
        up_left = pair.client.send(id, up_left);
        down_left = pair.server.send(id, down_left);
        pair.settle().unwrap();
    }
    assert!(pair.server.received == up, "upstream, step {step}");
    assert!(pair.client.received == down, "downstream, step {step}");
}

#[test]
fn frames_of_several_streams_share_records_and_come_apart_again() {
    let mut pair = Pair::new();
    let ids: Vec<StreamId> = (0..5).map(|_| pair.open()).collect();
    let text = |i: usize, round: usize| format!("{i}/{round};").repeat(1 + (i * 97 + round * 31) % 3000);
    let mut expected = String::new();
    for round in 0..20 {
        for (i, id) in ids.iter().enumerate() {
            let text = text(i, round);
            assert!(pair.client.send(*id, text.as_bytes()).is_empty(), "there is room");
            expected += &text;
        }
        pair.settle().unwrap();
    }
    assert!(pair.server.received == expected.as_bytes());
}

#[test]
fn one_direction_ends_while_the_other_goes_on() {
    let mut pair = Pair::new();
    let id = pair.open();
    pair.client.tunnel.end(id, &mut pair.client.outbox).unwrap();
    pair.settle().unwrap();
    assert!(pair.server.ended && !pair.client.ended);
    assert!(pair.server.send(id, b"still here").is_empty());
    pair.server.tunnel.end(id, &mut pair.server.outbox).unwrap();
    pair.settle().unwrap();
    assert_eq!(pair.client.received, b"still here");
    assert!(pair.client.ended);
    assert_eq!((pair.client.tunnel.active_streams(), pair.server.tunnel.active_streams()), (0, 0));
}

#[test]
fn a_reset_arrives_with_its_code_and_after_the_payload_before_it() {
    let mut pair = Pair::new();
    let id = pair.open();
    assert!(pair.client.send(id, b"last words").is_empty());
    pair.client.tunnel.reset(id, Reason::CONNECT_ERROR);
    pair.settle().unwrap();
    assert_eq!(pair.server.received, b"last words");
    assert!(matches!(
        pair.server.events.last(),
        Some(Event::Reset { id: gone, reason: Reason::CONNECT_ERROR, .. }) if *gone == id
    ));
}

#[test]
fn a_client_without_certificate_is_refused_with_an_alert() {
    let mut pki = pki(&[b"h2"]);
    let mut bare = ClientConfig::clone(&pki.client);
    bare.client_auth_cert_resolver = Arc::new(NoCertificate);
    pki.client = Arc::new(bare);
    let mut pair = Pair::with(pki);
    let error = pair.settle().unwrap_err();
    assert!(matches!(&error, TunnelError::Tls(_)), "{error}");
    let alert = pair.server.give().unwrap();
    assert!(!alert.is_empty(), "the server says why");
    let seen = pair.client.take(pair.now, &alert).unwrap_err();
    assert!(seen.to_string().contains("CertificateRequired"), "{seen}");
}

#[derive(Debug)]
struct NoCertificate;

impl rustls::client::ResolvesClientCert for NoCertificate {
    fn resolve(&self, _: &[&[u8]], _: &[rustls::SignatureScheme]) -> Option<Arc<rustls::sign::CertifiedKey>> {
        None
    }

    fn has_certs(&self) -> bool {
        false
    }
}

#[test]
fn a_peer_without_application_protocol_is_taken_for_http2() {
    let mut pair = Pair::with(pki(&[]));
    pair.open();
}

#[test]
fn a_handshake_that_does_not_come_to_an_end_is_given_up() {
    let pki = pki(&[b"h2"]);
    let now = Instant::now();
    let mut server = Tunnel::server(pki.server, Config::server(), now).unwrap();
    assert_eq!(server.deadline(), Some(now + HANDSHAKE_TIMEOUT));
    server.handle_timeout(now + HANDSHAKE_TIMEOUT - Duration::from_millis(1)).unwrap();
    let error = server.handle_timeout(now + HANDSHAKE_TIMEOUT).unwrap_err();
    assert!(matches!(error, TunnelError::HandshakeTimeout));
}

#[test]
fn garbage_instead_of_a_handshake_is_an_error_at_once() {
    let pki = pki(&[b"h2"]);
    let now = Instant::now();
    let mut server = EndPoint::new(Tunnel::server(pki.server, Config::server(), now).unwrap());
    let error = server.take(now, b"GET / HTTP/1.1\r\nhost: example\r\n\r\n").unwrap_err();
    assert!(matches!(error, TunnelError::Tls(_)), "{error}");
}

#[test]
fn a_record_that_was_tampered_with_ends_the_tunnel() {
    for (client, server) in ALL_PAIRS {
        let mut pair = Pair::with(pki(&[b"h2"]).sealed_by(client, server));
        let id = pair.open();
        assert!(pair.client.send(id, b"secret").is_empty());
        let mut bytes = pair.client.give().unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        let error = pair.server.take(pair.now, &bytes).unwrap_err();
        assert!(matches!(error, TunnelError::Tls(_)), "{error}");
        assert!(pair.server.received.is_empty());
        let alert = pair.server.give().unwrap();
        let seen = pair.client.take(pair.now, &alert).unwrap_err();
        assert!(seen.to_string().contains("BadRecordMac"), "{seen}");
    }
}

#[test]
fn a_graceful_end_lets_streams_finish_and_says_goodbye() {
    for (client, server) in ALL_PAIRS {
        graceful_end(Pair::with(pki(&[b"h2"]).sealed_by(client, server)));
    }
}

fn graceful_end(mut pair: Pair) {
    let id = pair.open();
    pair.server.tunnel.shutdown(pair.now);
    pair.settle().unwrap();
    assert!(pair.client.tunnel.is_going_away());
    assert!(pair.client.send(id, b"finishing").is_empty());
    pair.client.tunnel.end(id, &mut pair.client.outbox).unwrap();
    pair.settle().unwrap();
    pair.server.tunnel.end(id, &mut pair.server.outbox).unwrap();
    pair.settle().unwrap();
    assert_eq!(pair.server.received, b"finishing");
    assert!(pair.server.tunnel.is_drained() && pair.client.tunnel.is_drained());
    pair.client.tunnel.close(Reason::NO_ERROR, &mut pair.client.outbox);
    let goodbye = pair.client.outbox.unsent().to_vec();
    pair.server.take(pair.now, &goodbye).unwrap();
    assert!(pair.server.tunnel.is_peer_closed());
}

#[test]
fn a_peer_that_was_silent_is_asked_before_it_is_relied_on() {
    let (quiet, within) = (Duration::from_secs(5), Duration::from_secs(1));
    let mut pair = Pair::new();
    pair.open();
    pair.settle().unwrap();
    assert!(!pair.client.tunnel.probe(pair.now, quiet, within), "it has just been heard");
    pair.now += quiet;
    assert!(pair.client.tunnel.probe(pair.now, quiet, within));
    assert!(pair.client.tunnel.is_in_doubt());
    assert!(pair.client.tunnel.probe(pair.now, quiet, within), "asking again changes nothing");
    assert_eq!(pair.client.tunnel.deadline(), Some(pair.now + within));
    pair.settle().unwrap();
    assert!(!pair.client.tunnel.is_in_doubt(), "it has answered");

    pair.now += quiet;
    assert!(pair.client.tunnel.probe(pair.now, quiet, within));
    pair.client.tunnel.handle_timeout(pair.now).unwrap();
    let error = pair.client.tunnel.handle_timeout(pair.now + within).unwrap_err();
    assert!(matches!(error, TunnelError::Http2(_)), "{error}");
    assert!(!pair.client.tunnel.probe(pair.now + within, quiet, within), "what is over is not asked");
}

#[test]
fn an_idle_tunnel_asks_whether_its_peer_lives_and_gives_up_on_silence() {
    let mut pair = Pair::new();
    pair.open();
    let ask = pair.client.tunnel.deadline().unwrap();
    pair.client.tunnel.handle_timeout(ask).unwrap();
    assert!(pair.client.tunnel.has_transmit(), "a PING is on its way");
    let lost = pair.client.give().unwrap();
    assert!(!lost.is_empty());
    let give_up = pair.client.tunnel.deadline().unwrap();
    assert!(give_up > ask);
    let error = pair.client.tunnel.handle_timeout(give_up).unwrap_err();
    assert!(matches!(error, TunnelError::Http2(_)), "{error}");
}

//! A session against rustls as a whole, which does what a conventional peer does: tickets, key updates, goodbyes.

use std::io::{Read, Write};
use std::ops::Range;
use std::sync::Arc;

use rustls::pki_types::{PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, Connection, RootCertStore, ServerConfig, ServerConnection};

use super::*;
use crate::buffer::{Inbox, Outbox};

fn configs() -> (Arc<ClientConfig>, Arc<ServerConfig>) {
    configs_of(rustls::ALL_VERSIONS)
}

fn configs_of(versions: &[&'static rustls::SupportedProtocolVersion]) -> (Arc<ClientConfig>, Arc<ServerConfig>) {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate = rcgen::CertificateParams::new(vec!["0.0.0.0".to_owned()]).unwrap().self_signed(&key).unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(certificate.der().clone()).unwrap();
    let mut client = ClientConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(versions)
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    client.enable_secret_extraction = true;
    let mut server = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], PrivateKeyDer::try_from(key.serialize_der()).unwrap())
        .unwrap();
    server.enable_secret_extraction = true;
    (Arc::new(client), Arc::new(server))
}

/// A session of ours, and rustls at the other end.
struct Pair {
    session: Session,
    inbox: Inbox,
    outbox: Outbox,
    received: Vec<u8>,
    other: Connection,
}

impl Pair {
    fn our_client() -> Self {
        let (client, server) = configs();
        Self::new(Session::client(client).unwrap(), ServerConnection::new(server).unwrap().into())
    }

    fn our_server() -> Self {
        let (client, server) = configs();
        let name = ServerName::try_from("0.0.0.0").unwrap();
        Self::new(Session::server(server).unwrap(), ClientConnection::new(client, name).unwrap().into())
    }

    fn new(session: Session, other: Connection) -> Self {
        let mut pair =
            Self { session, inbox: Inbox::default(), outbox: Outbox::default(), received: Vec::new(), other };
        pair.settle();
        assert!(matches!(pair.session.side, Side::Records(_)), "rustls has handed over");
        pair
    }

    fn give(&mut self) -> Vec<u8> {
        self.session.lay_out(&mut self.outbox, Next::Nothing);
        self.session.seal(&mut self.outbox).unwrap();
        let bytes = self.outbox.unsent().to_vec();
        self.outbox.advance(bytes.len());
        bytes
    }

    fn take(&mut self, bytes: &[u8]) -> Result<(), TlsError> {
        self.inbox.begin(self.session.partial());
        self.inbox.room()[..bytes.len()].copy_from_slice(bytes);
        self.inbox.fill(bytes.len());
        let outcome = self.session.open(self.inbox.split());
        let opened: Vec<Range<usize>> = self.inbox.opened().to_vec();
        opened.into_iter().for_each(|range| self.received.extend_from_slice(self.inbox.payload(range)));
        outcome
    }

    fn other_gives(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        while self.other.wants_write() {
            self.other.write_tls(&mut bytes).unwrap();
        }
        bytes
    }

    fn other_takes(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            self.other.read_tls(&mut bytes).unwrap();
            self.other.process_new_packets().unwrap();
        }
    }

    /// Carries bytes until both ends are silent.
    fn settle(&mut self) {
        loop {
            let (ours, others) = (self.give(), self.other_gives());
            if ours.is_empty() && others.is_empty() {
                return;
            }
            self.other_takes(&ours);
            others.chunks(1000).for_each(|bytes| self.take(bytes).unwrap());
        }
    }

    fn says(&mut self, text: &str) {
        self.session.lay_out(&mut self.outbox, Next::Frames);
        self.outbox.lay_out(text.as_bytes());
        self.settle();
    }

    fn other_says(&mut self, text: &str) {
        self.other.writer().write_all(text.as_bytes()).unwrap();
        self.settle();
    }

    fn other_heard(&mut self) -> String {
        let mut text = vec![0; 1 << 16];
        let n = self.other.reader().read(&mut text).unwrap_or(0);
        String::from_utf8(text[..n].to_vec()).unwrap()
    }

    fn heard(&mut self) -> String {
        String::from_utf8(std::mem::take(&mut self.received)).unwrap()
    }

    /// A record as the peer would seal it, of any content.
    fn records(&mut self) -> &mut Records {
        match &mut self.session.side {
            Side::Records(records) => records,
            _ => panic!("rustls has not handed over"),
        }
    }
}

/// Two sessions of ours, so that one can be made to send what rustls would not.
fn ours() -> (Pair, Pair) {
    let (mut a, mut b) = (Pair::our_client(), Pair::our_client());
    let (client, server) = configs();
    a.session = Session::client(client).unwrap();
    b.session = Session::server(server).unwrap();
    loop {
        let (up, down) = (a.give(), b.give());
        if up.is_empty() && down.is_empty() {
            return (a, b);
        }
        b.take(&up).unwrap();
        a.take(&down).unwrap();
    }
}

/// Seals `inner`, whose last octet is the content type, with `from`'s key.
fn sealed(from: &mut Pair, inner: &[u8]) -> Vec<u8> {
    from.records().seal_inner(inner)
}

#[test]
fn bytes_pass_both_ways_and_tickets_are_passed_over() {
    for mut pair in [Pair::our_client(), Pair::our_server()] {
        pair.says("hello");
        assert_eq!(pair.other_heard(), "hello");
        pair.other_says("hello yourself");
        assert_eq!(pair.heard(), "hello yourself");
        assert!(pair.session.peer.is_some() && pair.session.is_sendable());
    }
}

#[test]
fn the_peer_may_change_its_key_and_ask_us_to_change_ours() {
    for mut pair in [Pair::our_client(), Pair::our_server()] {
        for round in 0..3 {
            pair.other.refresh_traffic_keys().unwrap();
            pair.other_says("with a new key");
            assert_eq!(pair.heard(), "with a new key", "round {round}");
            pair.says("with mine");
            assert_eq!(pair.other_heard(), "with mine", "round {round}");
        }
    }
}

#[test]
fn many_requests_for_a_key_update_are_answered_by_one_before_the_next_payload() {
    for mut pair in [Pair::our_client(), Pair::our_server()] {
        for _ in 0..20 {
            pair.other.refresh_traffic_keys().unwrap();
            pair.settle();
        }
        assert!(pair.give().is_empty(), "nothing is said without need");
        pair.says("with a new key");
        assert_eq!(pair.other_heard(), "with a new key");
        assert_eq!(pair.records().sealed(), 1, "the payload is the first record of the next key");
    }
}

#[test]
fn a_key_is_replaced_before_it_is_used_up() {
    for mut pair in [Pair::our_client(), Pair::our_server()] {
        pair.records().replace_keys_after(3);
        for i in 0..20 {
            pair.says(&format!("record {i}"));
            assert_eq!(pair.other_heard(), format!("record {i}"));
            assert!(pair.records().sealed() <= 3, "a key seals three records and the change to the next");
        }
    }
}

#[test]
fn goodbye_is_understood_and_said() {
    for mut pair in [Pair::our_client(), Pair::our_server()] {
        pair.other_says("last words");
        pair.other.send_close_notify();
        let goodbye = pair.other_gives();
        pair.take(&goodbye).unwrap();
        assert_eq!(pair.heard(), "last words");
        assert!(pair.session.is_peer_closed());
        // The other direction still works.
        pair.says("still here");
        assert_eq!(pair.other_heard(), "still here");
        pair.session.close(&mut pair.outbox);
        let bytes = pair.outbox.unsent().to_vec();
        pair.other_takes(&bytes);
        assert!(matches!(pair.other.reader().read(&mut [0; 8]), Ok(0)), "the end is known to be the end");
    }
}

#[test]
fn what_comes_after_a_goodbye_is_not_looked_at() {
    let (mut a, mut b) = ours();
    let mut bytes = sealed(&mut a, &[WARNING_ALERT, 0, 21]);
    bytes.extend_from_slice(b"no record at all");
    b.take(&bytes).unwrap();
    assert!(b.session.is_peer_closed() && b.session.partial().is_empty());
}

const WARNING_ALERT: u8 = 1;

#[test]
fn padding_is_taken_off() {
    let (mut a, mut b) = ours();
    let mut inner = b"payload\x17".to_vec();
    inner.extend_from_slice(&[0; 500]);
    let bytes = sealed(&mut a, &inner);
    b.take(&bytes).unwrap();
    assert_eq!(b.heard(), "payload");
}

/// What `b` makes of one record, and what it tells the peer about it.
fn judged(inner: &[u8]) -> (String, String) {
    let (mut a, mut b) = ours();
    let bytes = sealed(&mut a, inner);
    let error = b.take(&bytes).unwrap_err().to_string();
    assert!(!b.session.is_sendable());
    assert_eq!(b.take(&bytes).unwrap_err().to_string(), error, "nothing is opened after an error");
    let alert = b.give();
    let told = a.take(&alert).unwrap_err().to_string();
    (error, told)
}

#[test]
fn records_that_must_not_come_are_named_to_the_peer() {
    let huge = {
        let mut inner = vec![1; MAX_RECORD_PLAINTEXT + 1];
        inner.push(23);
        inner
    };
    let cases: [(&str, &[u8], &str); 9] = [
        ("nothing but padding", &[0, 0, 0], "UnexpectedMessage"),
        ("an unknown content type", &[1, 2, 99], "UnexpectedMessage"),
        ("a change of cipher specs", &[1, 20], "UnexpectedMessage"),
        ("an empty handshake record", &[22], "UnexpectedMessage"),
        ("a handshake message of before", &[1, 0, 0, 0, 22], "UnexpectedMessage"),
        ("a key update of the wrong length", &[24, 0, 0, 2, 0, 0, 22], "DecodeError"),
        ("a key update of no known kind", &[24, 0, 0, 1, 7, 22], "DecodeError"),
        ("a key update in the middle of a record", &[24, 0, 0, 1, 0, 24, 22], "UnexpectedMessage"),
        ("a record of more than 16 KiB", &huge, "RecordOverflow"),
    ];
    for (what, inner, alert) in cases {
        let (_, told) = judged(inner);
        assert!(told.contains(alert), "{what}: {told}");
    }
    // A server is given no tickets.
    let (_, told) = judged(&[4, 0, 0, 1, 0, 22]);
    assert!(told.contains("UnexpectedMessage"), "{told}");
}

#[test]
fn a_message_cut_over_records_lets_nothing_come_between() {
    let (mut a, mut b) = ours();
    let half = sealed(&mut a, &[24, 0, 0, 22]);
    b.take(&half).unwrap();
    let rest = sealed(&mut a, &[1, 0, 22]);
    b.take(&rest).unwrap();
    a.records().advance_sealing_key();
    let text = sealed(&mut a, b"next key\x17");
    b.take(&text).unwrap();
    assert_eq!(b.heard(), "next key");

    let (mut a, mut b) = ours();
    let half = sealed(&mut a, &[24, 0, 0, 22]);
    b.take(&half).unwrap();
    let data = sealed(&mut a, b"between\x17");
    assert!(b.take(&data).is_err());
    assert!(b.received.is_empty());
}

#[test]
fn a_peer_that_sends_records_without_payload_for_ever_is_cut_off() {
    for inner in [&[23u8][..], &[24, 0, 0, 1, 1, 22], &[WARNING_ALERT, 90, 21]] {
        let (mut a, mut b) = ours();
        let mut accepted = 0;
        while accepted <= MAX_USELESS_RECORDS {
            let bytes = sealed(&mut a, inner);
            if b.take(&bytes).is_err() {
                break;
            }
            accepted += 1;
            if inner.ends_with(&[22]) {
                a.records().advance_sealing_key();
            }
        }
        assert_eq!(accepted, MAX_USELESS_RECORDS, "{inner:?}");
    }
}

#[test]
fn payload_now_and_then_makes_records_without_it_harmless() {
    let (mut a, mut b) = ours();
    for _ in 0..10 {
        for _ in 0..MAX_USELESS_RECORDS {
            let bytes = sealed(&mut a, &[23]);
            b.take(&bytes).unwrap();
        }
        let bytes = sealed(&mut a, b".\x17");
        b.take(&bytes).unwrap();
    }
    assert_eq!(b.heard(), "..........");
}

#[test]
fn the_headers_of_records_are_looked_at_before_their_bodies() {
    for (header, alert) in [
        ([22, 3, 3, 0, 40], "UnexpectedMessage"),
        ([20, 3, 3, 0, 1], "UnexpectedMessage"),
        ([23, 2, 0, 0, 40], "UnexpectedMessage"),
        ([23, 3, 3, 0x41, 1], "RecordOverflow"),
        ([23, 3, 3, 0, 16], "BadRecordMac"),
    ] {
        let (mut a, mut b) = ours();
        assert!(b.take(&header).is_err(), "{header:?}");
        let alert_record = b.give();
        let told = a.take(&alert_record).unwrap_err().to_string();
        assert!(told.contains(alert), "{header:?}: {told}");
    }
}

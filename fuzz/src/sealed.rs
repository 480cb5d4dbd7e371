//! Plaintext of the fuzzer's choice inside a real TLS session, sent by a peer that is not ours.

use std::io::Write;
use std::time::Instant;

use hbone::error::Reason;
use hbone::h2::{End, Event};
use hbone::limits::Config;
use rustls::ClientConnection;
use rustls::pki_types::ServerName;

use crate::choices::{Bytes, Choices};
use crate::end::EndPoint;
use crate::pki::pki;

/// A server's tunnel whose client sends records, each a length and so many bytes, and asks for new keys between them.
pub fn sealed(data: &[u8]) {
    let mut bytes = Bytes(data);
    let now = Instant::now();
    let mut server = EndPoint::server(Config::server(), now);
    let name = ServerName::try_from("0.0.0.0").expect("an address");
    let mut client = ClientConnection::new(pki().client.clone(), name).expect("the configuration is valid");
    while client.is_handshaking() {
        let mut wire = Vec::new();
        client.write_tls(&mut wire).expect("memory takes everything");
        server.take(now, &wire, &mut |_, _| {}).expect("a legal handshake");
        let mut answer = &server.give()[..];
        while !answer.is_empty() {
            client.read_tls(&mut answer).expect("memory gives everything");
            client.process_new_packets().expect("a legal handshake");
        }
    }
    while let Some(action) = bytes.next() {
        let mut wire = Vec::new();
        if action % 16 == 0 {
            client.refresh_traffic_keys().expect("the handshake is complete");
        } else {
            let len = bytes.below(1 << 14);
            let taken = bytes.take(len);
            client.writer().write_all(taken).expect("memory takes everything");
        }
        while client.wants_write() {
            client.write_tls(&mut wire).expect("memory takes everything");
        }
        let cut = usize::from(action >> 4) * wire.len() / 16;
        for piece in [&wire[..cut], &wire[cut..]] {
            let mut seen = Vec::new();
            let outcome = server.take(now, piece, &mut |event, payload| seen.push((event.clone(), payload.len())));
            for (event, len) in seen {
                match event {
                    Event::Request { id, .. } => drop(server.tunnel.respond(id, 200, &[], End::No)),
                    Event::Data { id, end: End::Yes, .. } => {
                        server.tunnel.credit(id, len);
                        server.tunnel.reset(id, Reason::NO_ERROR);
                    }
                    Event::Data { id, .. } => server.tunnel.credit(id, len),
                    _ => {}
                }
            }
            let said = server.give();
            if outcome.is_err() {
                assert_eq!(server.tunnel.active_streams(), 0, "a tunnel that failed has no streams");
                return;
            }
            let mut said = &said[..];
            while !said.is_empty() {
                client.read_tls(&mut said).expect("memory gives everything");
                client.process_new_packets().expect("ours obeys TLS");
            }
        }
    }
}

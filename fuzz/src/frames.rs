//! HTTP/2 frames, without TLS around them.

use std::time::{Duration, Instant};

use hbone::h2::{Config, Connection, End, Event, Header, Role, StreamId};
use hbone::limits::MAX_REPLY_BACKLOG;

use crate::choices::{Bytes, Choices};

/// What precedes the fuzzer's bytes, so that it need not find a preface first.
const CLIENT_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
const SERVER_PREFACE: &[u8] = b"\0\0\0\x04\0\0\0\0\0";
/// Octets of a GOAWAY, an announced end and updates of both windows, on top of the backlog of replies.
const MOST_BESIDES_REPLIES: usize = 1024;

/// A machine that is given a preface and then these bytes, in pieces that they say the length of, while its application
/// answers, sends, resets and lets time pass as they say.
pub fn frames(data: &[u8]) {
    let mut bytes = Bytes(data);
    let role = if bytes.below(2) == 0 { Role::Server } else { Role::Client };
    let mut now = Instant::now();
    let config = if role == Role::Server { Config::server() } else { Config::client() };
    let mut machine = Connection::new(role, config.clone(), now);
    let mut written = Vec::new();
    machine.poll_transmit(&mut written);
    let mut known = Vec::new();
    let preface = if role == Role::Server { CLIENT_PREFACE } else { SERVER_PREFACE };
    let mut events = Vec::new();
    machine.receive(now, preface, &mut events).expect("a legal preface");
    if role == Role::Client {
        known.extend((0..3).filter_map(|_| machine.open("10.0.0.1:80", &[Header::new("baggage", "k=v")]).ok()));
    }
    let mut held: Vec<(StreamId, usize)> = Vec::new();
    while !bytes.0.is_empty() {
        let action = bytes.next().unwrap_or(0);
        let id = known.get(usize::from(action >> 4)).copied().unwrap_or(StreamId::new(1));
        match action & 0x0f {
            0 => drop(machine.respond(id, 200, &[], End::No)),
            1 => drop(machine.data_header(id, machine.send_capacity(id).min(100), End::No)),
            2 => drop(machine.data_header(id, 0, End::Yes)),
            3 => machine.reset(id, hbone::error::Reason::CANCEL),
            4 => machine.shutdown(now),
            5 => held.drain(..).for_each(|(id, len)| machine.credit(id, len)),
            6 => {
                now += Duration::from_millis(1 << bytes.below(16));
                let _ = machine.handle_timeout(now);
            }
            _ => {
                let len = bytes.below(1 << 12);
                let piece = bytes.take(len);
                let outcome = machine.receive(now, piece, &mut events);
                for event in events.drain(..) {
                    match event {
                        Event::Request { id, .. } => known.push(id),
                        Event::Data { id, range, .. } => {
                            assert!(range.end <= piece.len());
                            held.push((id, range.len()));
                        }
                        _ => {}
                    }
                }
                if let Err(fault) = outcome {
                    assert_eq!(machine.active_streams(), 0);
                    assert_eq!(machine.receive(now, b"more", &mut events), Err(fault));
                    assert!(events.is_empty());
                }
            }
        }
        if role == Role::Server {
            assert!(machine.active_streams() <= config.max_concurrent_streams as usize);
        }
        assert!(machine.uncredited() <= config.connection_window as usize);
        written.clear();
        machine.poll_transmit(&mut written);
        assert!(written.len() <= MAX_REPLY_BACKLOG + MOST_BESIDES_REPLIES, "{} octets of replies", written.len());
    }
}

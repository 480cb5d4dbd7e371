//! Random frames, legal and not, to both roles: where the transport cuts them makes no difference, and whatever comes
//! out stays within the bounds.

use std::time::Instant;

use hbone::error::Fault;
use hbone::h2::{Config, Connection, End, Event, Header, Role};
use hbone::limits::MAX_REPLY_BACKLOG;

use crate::pair::Dice;
use crate::wire::encode;

/// Streams that a client opens before anything else.
const OPENED_BY_CLIENT: usize = 9;
const REQUEST: &str = "| :method: CONNECT | :authority: a:1";
const RESPONSE: &str = "| :status: 200 | baggage: x";
const FIELDS: [&str; 6] =
    [REQUEST, RESPONSE, "| :method: GET | :scheme: https | :path: /", "| :status: 103", "| t: x", "| T: x"];

/// A frame that is likely to be acceptable, so that a conversation gets somewhere. `opened` streams exist.
fn frame(dice: &mut Dice, role: Role, opened: &mut usize) -> Vec<u8> {
    let id = if dice.one_in(300) { dice.below(20) } else { 2 * dice.below((*opened).max(1)) + 1 };
    let end = ["", "ES"][dice.below(4) / 3];
    let padding = ["", "PAD=0", "PAD=9"][dice.below(5).min(2)];
    let kind = if *opened == 0 { 0 } else { dice.below(12) };
    let text = match kind {
        0 | 1 if role == Role::Server => {
            *opened += 1;
            format!("HEADERS {} {end} {padding} {REQUEST}", 2 * *opened - 1)
        }
        0 | 1 => format!("HEADERS {id} {end} {padding} {RESPONSE}"),
        2 if dice.one_in(6) => format!("HEADERS {id} {end} {padding} {}", FIELDS[dice.below(FIELDS.len())]),
        3 if dice.one_in(20) => format!("HEADERS {id} more {}", FIELDS[dice.below(FIELDS.len())]),
        2..=6 => format!("DATA {id} {end} {padding} \"{}\"", "payload ".repeat(dice.below(9))),
        7 | 8 => format!("RST_STREAM {id} CANCEL"),
        9 => format!("WINDOW_UPDATE {id} +{}", dice.below(1_000) + usize::from(!dice.one_in(9))),
        10 => format!("SETTINGS 4={} 1={}", dice.below(100_000), dice.below(5_000)),
        _ => format!("PING {:016x}", dice.roll()),
    };
    let mut bytes = encode(&text);
    if dice.one_in(60) {
        let at = dice.below(bytes.len());
        bytes[at] = dice.roll() as u8;
    }
    bytes
}

#[derive(Debug, PartialEq)]
struct Outcome {
    events: Vec<Event>,
    payload: Vec<u8>,
    fault: Option<Fault>,
    answers: Vec<u8>,
    uncredited: usize,
    streams: usize,
}

/// Plays the bytes in pieces; payload events are joined and their ranges dropped.
fn play(role: Role, bytes: &[u8], mut cut: impl FnMut() -> usize) -> Outcome {
    let now = Instant::now();
    let mut machine = Connection::new(role, Config { max_concurrent_streams: 5, ..Config::server() }, now);
    if role == Role::Client {
        for _ in 0..OPENED_BY_CLIENT {
            machine.open("a:1", &[Header::new("baggage", "")]).unwrap();
        }
    }
    let (mut events, mut payload, mut fault) = (Vec::new(), Vec::new(), None);
    let mut rest = bytes;
    while !rest.is_empty() && fault.is_none() {
        let (piece, tail) = rest.split_at(cut().clamp(1, rest.len()));
        rest = tail;
        let mut new = Vec::new();
        fault = machine.receive(now, piece, &mut new).err();
        for event in new {
            let Event::Data { id, range, end } = event else {
                events.push(event);
                continue;
            };
            payload.extend(&piece[range]);
            match events.last_mut() {
                Some(Event::Data { id: before, end: last @ End::No, .. }) if *before == id => *last = end,
                _ => events.push(Event::Data { id, range: 0..0, end }),
            }
        }
    }
    let mut answers = Vec::new();
    machine.poll_transmit(&mut answers);
    Outcome { events, payload, fault, answers, uncredited: machine.uncredited(), streams: machine.active_streams() }
}

#[test]
fn where_the_transport_cuts_makes_no_difference() {
    let (mut faults, mut streams) = (0, 0);
    for seed in 0..6_000 {
        let mut dice = Dice(seed);
        let role = if dice.one_in(2) { Role::Client } else { Role::Server };
        let mut bytes = if role == Role::Server { encode("PREFACE") } else { Vec::new() };
        bytes.extend(encode("SETTINGS"));
        let mut opened = if role == Role::Client { OPENED_BY_CLIENT } else { 0 };
        for _ in 0..dice.below(60) {
            bytes.extend(frame(&mut dice, role, &mut opened));
        }
        let whole = play(role, &bytes, || usize::MAX);
        let single = play(role, &bytes, || 1);
        let random = play(role, &bytes, || 1 + dice.below(50));
        assert_eq!(whole, single, "seed {seed}");
        assert_eq!(whole, random, "seed {seed}");

        assert!(whole.answers.len() < MAX_REPLY_BACKLOG + 2_000, "seed {seed}");
        if whole.fault.is_none() {
            assert!(whole.uncredited >= whole.payload.len(), "seed {seed}: nothing is credited unasked");
        }
        faults += usize::from(whole.fault.is_some());
        streams += whole.events.iter().filter(|e| matches!(e, Event::Request { .. } | Event::Response { .. })).count();
    }
    assert!((1_000..5_000).contains(&faults), "{faults} of 6000 conversations end in a fault");
    assert!(streams > 10_000, "{streams} streams come to life");
}

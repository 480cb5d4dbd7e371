//! Two machines on a virtual link that splits, merges, delays and stalls as a seed tells it.
//!
//! Every schedule ends with both byte streams of every stream equal to what was sent, or cut short exactly where a reset
//! said so, and with all windows as they were at the start.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use hbone::error::Reason;
use hbone::h2::{Config, Connection, End, Event, Header, ResetBy, Role, StreamId};

/// SplitMix64: small, seeded, and good enough to be unpredictable to the code under test.
pub struct Dice(pub u64);

impl Dice {
    pub fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, limit: usize) -> usize {
        (self.roll() % limit.max(1) as u64) as usize
    }

    pub fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }
}

/// The byte at an offset of one direction of a stream.
fn pattern(side: Role, id: StreamId, offset: usize) -> u8 {
    let salt = if side == Role::Client { 0 } else { 101 };
    (offset.wrapping_mul(31) ^ (offset >> 8) ^ (id.value() as usize * 7) ^ salt) as u8
}

/// One direction of a stream, as its sender and its receiver know it.
#[derive(Default, Debug)]
struct Direction {
    sent: usize,
    sent_end: bool,
    received: usize,
    received_end: bool,
    uncredited: usize,
}

#[derive(Default, Debug)]
struct Track {
    /// By sender: client, server.
    directions: [Direction; 2],
    answered: bool,
    /// The reason a side reset the stream with.
    reset_sent: [Option<Reason>; 2],
    reset_received: [Option<Reason>; 2],
}

struct Side {
    role: Role,
    machine: Connection,
    /// Sent and not yet delivered.
    wire: Vec<u8>,
}

struct Pair {
    dice: Dice,
    now: Instant,
    sides: [Side; 2],
    tracks: BTreeMap<StreamId, Track>,
    to_open: usize,
    bytes_per_direction: usize,
    reset_one_in: Option<usize>,
}

const CLIENT: usize = 0;
const SERVER: usize = 1;

impl Pair {
    fn new(seed: u64) -> Self {
        let mut dice = Dice(seed);
        let now = Instant::now();
        let window = [1, 10, 1_000, 70_000, 200_000][dice.below(5)];
        let config = Config {
            stream_window: window,
            connection_window: 65_535 + dice.below(3) as u32 * 1_000,
            max_concurrent_streams: 1 + dice.below(8) as u32,
            ..Config::server()
        };
        let sides = [Role::Client, Role::Server].map(|role| Side {
            role,
            machine: Connection::new(role, config.clone(), now),
            wire: Vec::new(),
        });
        let largest = if window < 100 { 100 } else { 40_000 };
        Pair {
            now,
            sides,
            tracks: BTreeMap::new(),
            to_open: 1 + dice.below(12),
            bytes_per_direction: dice.below(largest),
            reset_one_in: [None, Some(200), Some(20)][dice.below(3)],
            dice,
        }
    }

    fn run(mut self) {
        let mut turns = 0;
        while !self.is_done() {
            turns += 1;
            assert!(turns < 1_000_000, "stuck: {:?}", self.tracks);
            let side = self.dice.below(2);
            match self.dice.below(10) {
                0 if side == CLIENT => self.open(),
                0 | 1 => self.answer(),
                2..=4 => self.send(side),
                5..=7 => self.deliver(side),
                8 => self.credit(side),
                _ => self.pass_time(),
            }
        }
        self.settle();
        self.verify();
    }

    fn is_done(&self) -> bool {
        self.to_open == 0 && self.sides.iter().all(|side| side.machine.active_streams() == 0)
    }

    fn open(&mut self) {
        if self.to_open == 0 {
            return;
        }
        let value = "v".repeat(self.dice.below(300));
        let headers = [Header::new("baggage", &value), Header::new("forwarded", "for=x")];
        // A limit that the server has not announced yet shows as REFUSED_STREAM later.
        if let Ok(id) = self.sides[CLIENT].machine.open("10.0.0.1:80", &headers) {
            self.tracks.insert(id, Track::default());
            self.to_open -= 1;
        }
    }

    fn answer(&mut self) {
        for (&id, track) in &mut self.tracks {
            if !track.answered && self.sides[SERVER].machine.respond(id, 200, &[], End::No).is_ok() {
                track.answered = true;
                return;
            }
        }
    }

    fn send(&mut self, side: usize) {
        let live: Vec<StreamId> = self.tracks.keys().copied().collect();
        if live.is_empty() {
            return;
        }
        let id = live[self.dice.below(live.len())];
        let track = self.tracks.get_mut(&id).expect("it was just there");
        if self.reset_one_in.is_some_and(|n| self.dice.one_in(n)) {
            let before = self.sides[side].machine.active_streams();
            let reason = Reason(self.dice.below(20) as u32);
            self.sides[side].machine.reset(id, reason);
            if self.sides[side].machine.active_streams() < before {
                track.reset_sent[side] = Some(reason);
            }
            return;
        }
        let Side { machine, wire, role } = &mut self.sides[side];
        machine.poll_transmit(wire);
        let direction = &mut track.directions[side];
        let left = self.bytes_per_direction - direction.sent;
        let most = machine.send_capacity(id).min(machine.max_data_len()).min(left);
        let len = self.dice.below(most + 1);
        let end = if len == left && self.dice.one_in(2) { End::Yes } else { End::No };
        if len == 0 && end == End::No {
            return;
        }
        let Ok(head) = machine.data_header(id, len, end) else { return };
        wire.extend(head);
        wire.extend((direction.sent..direction.sent + len).map(|offset| pattern(*role, id, offset)));
        direction.sent += len;
        direction.sent_end |= end.is_end();
    }

    /// Delivers some of what a side has sent, in one piece or several.
    fn deliver(&mut self, from: usize) {
        let sender = &mut self.sides[from];
        if self.dice.one_in(2) {
            sender.machine.poll_transmit(&mut sender.wire);
        }
        let most = sender.wire.len();
        let some = match self.dice.below(3) {
            0 => most,
            1 => self.dice.below(most + 1),
            _ => self.dice.below(20).min(most),
        };
        let bytes: Vec<u8> = sender.wire.drain(..some).collect();
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            let (piece, tail) = rest.split_at(1 + self.dice.below(rest.len()));
            rest = tail;
            let mut events = Vec::new();
            self.sides[1 - from].machine.receive(self.now, piece, &mut events).expect("both sides obey the rules");
            for event in events {
                self.observe(from, event, piece);
            }
        }
    }

    fn observe(&mut self, from: usize, event: Event, bytes: &[u8]) {
        match event {
            Event::Data { id, range, end } => {
                let sender = self.sides[from].role;
                let direction = &mut self.tracks.get_mut(&id).expect("a stream that was opened").directions[from];
                for &byte in &bytes[range.clone()] {
                    assert_eq!(byte, pattern(sender, id, direction.received), "{id} at {}", direction.received);
                    direction.received += 1;
                }
                direction.uncredited += range.len();
                assert!(!direction.received_end, "nothing follows the end");
                direction.received_end = end.is_end();
            }
            Event::Reset { id, reason, by } => {
                assert_eq!(by, ResetBy::Peer, "nobody breaks rules here");
                self.tracks.get_mut(&id).expect("a stream that was opened").reset_received[1 - from] = Some(reason);
            }
            Event::Request { request, .. } => assert_eq!(request.authority.as_deref(), Some("10.0.0.1:80")),
            Event::Response { response, .. } => assert_eq!(response.status, 200),
            Event::SendWindow { .. } | Event::SettingsChanged => {}
            Event::GoingAway { .. } => panic!("nobody is going away"),
        }
    }

    fn credit(&mut self, side: usize) {
        for (&id, track) in &mut self.tracks {
            let direction = &mut track.directions[1 - side];
            let len = self.dice.below(direction.uncredited + 1);
            direction.uncredited -= len;
            self.sides[side].machine.credit(id, len);
        }
    }

    fn pass_time(&mut self) {
        self.now += Duration::from_millis(self.dice.below(20) as u64);
        for side in &mut self.sides {
            side.machine.handle_timeout(self.now).expect("nothing takes that long");
        }
    }

    /// Delivers all that is left and credits everything.
    fn settle(&mut self) {
        loop {
            for side in [CLIENT, SERVER] {
                for (&id, track) in &mut self.tracks {
                    let held = std::mem::take(&mut track.directions[1 - side].uncredited);
                    self.sides[side].machine.credit(id, held);
                }
            }
            if self.sides.iter().all(|side| !side.machine.has_transmit() && side.wire.is_empty()) {
                return;
            }
            self.deliver(CLIENT);
            self.deliver(SERVER);
        }
    }

    fn verify(mut self) {
        for (id, track) in &self.tracks {
            let reset = track.reset_sent.iter().chain(&track.reset_received).any(Option::is_some);
            for direction in &track.directions {
                assert!(direction.received <= direction.sent, "{id} invents nothing");
                if !reset {
                    assert_eq!(direction.received, self.bytes_per_direction, "{id} is complete: {track:?}");
                    assert!(direction.sent_end && direction.received_end, "{id} has ended");
                }
            }
            for side in [CLIENT, SERVER] {
                // A reset arrives with its code, unless the other side had given the stream up by itself.
                if let (Some(reason), None) = (track.reset_received[side], track.reset_sent[side]) {
                    let refused = track.reset_sent[1 - side].is_none() && reason == Reason::REFUSED_STREAM;
                    assert!(refused || track.reset_sent[1 - side] == Some(reason), "{id}: {track:?}");
                }
            }
        }
        for side in &self.sides {
            assert_eq!(
                side.machine.uncredited(),
                0,
                "{:?} was given every received byte back: {:?}",
                side.role,
                self.tracks
            );
        }
        self.verify_windows();
    }

    /// What one side may send is what the other is ready to take, and at least half of the full window.
    fn verify_windows(&mut self) {
        let id = self.sides[CLIENT].machine.open("10.0.0.1:80", &[]).expect("no stream is left");
        self.tracks.insert(id, Track::default());
        self.settle();
        self.sides[SERVER].machine.respond(id, 200, &[], End::No).expect("it was just opened");
        self.settle();
        for (from, to) in [(CLIENT, SERVER), (SERVER, CLIENT)] {
            let stream = self.sides[to].machine.receive_capacity(id);
            let connection = self.sides[to].machine.receive_capacity(StreamId::CONNECTION);
            assert_eq!(self.sides[from].machine.send_capacity(id), stream.min(connection));
            assert!(connection > 65_535 / 2, "{connection} is what is left of the connection's window");
        }
    }
}

/// As many as fit into some seconds of an ordinary build; `cargo xtask full` asks for more by `SCHEDULES`.
const IN_EVERY_RUN: u64 = 4_000;

#[test]
fn random_schedules_deliver_every_byte_and_restore_every_window() {
    let count = std::env::var("SCHEDULES").map_or(IN_EVERY_RUN, |count| count.parse().expect("SCHEDULES is a number"));
    for seed in 0..count {
        let run = std::panic::AssertUnwindSafe(|| Pair::new(seed).run());
        if let Err(panic) = std::panic::catch_unwind(run) {
            eprintln!("seed {seed}");
            std::panic::resume_unwind(panic);
        }
    }
}

/// A machine whose input is damaged ends in a fault or goes on, but neither panics nor loops, and its queue stays
/// bounded.
#[test]
fn a_damaged_link_ends_in_a_fault_and_never_in_a_panic() {
    let mut faults = 0;
    for seed in 0..4_000 {
        let mut dice = Dice(seed ^ 0xdead_beef);
        let now = Instant::now();
        let mut client = Connection::new(Role::Client, Config::client(), now);
        let mut server = Connection::new(Role::Server, Config::server(), now);
        let mut wire = Vec::new();
        for i in 0..5 {
            let id = client.open("a:1", &[Header::new("baggage", "k=v")]).expect("the limit is 100");
            client.poll_transmit(&mut wire);
            let end = if i % 2 == 0 { End::Yes } else { End::No };
            wire.extend(client.data_header(id, 100, end).expect("the window is open"));
            wire.extend([i; 100]);
        }
        // Not the preface: that would be noticed at once.
        for _ in 0..1 + dice.below(5) {
            let at = 24 + dice.below(wire.len() - 24);
            match dice.below(3) {
                0 => wire[at] = dice.roll() as u8,
                1 => drop(wire.drain(at..(at + 1 + dice.below(20)).min(wire.len()))),
                _ => wire.insert(at, dice.roll() as u8),
            }
        }
        let mut events = Vec::new();
        let outcome = wire.chunks(1 + dice.below(200)).try_for_each(|piece| server.receive(now, piece, &mut events));
        let mut answers = Vec::new();
        server.poll_transmit(&mut answers);
        assert!(answers.len() < 1_000, "seed {seed}");
        if outcome.is_err() {
            faults += 1;
            assert_eq!(server.active_streams(), 0);
        }
    }
    assert!(faults > 1_000, "damage was noticed in {faults} of 4000 runs");
}

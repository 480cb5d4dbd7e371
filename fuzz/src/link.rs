//! Two tunnels on a link that splits, merges, delays and stalls what they say, and that may be hostile.
//!
//! Whatever the link does: what an app receives is the beginning of what the other one sent, and all of it if it is told
//! of an end; and both ends of the tunnel come to the same conclusion.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use hbone::TunnelError;
use hbone::error::Reason;
use hbone::h2::{Config, End, Event, ResetBy, StreamId};

use crate::choices::{Bytes, Choices};
use crate::end::EndPoint;

/// How a schedule ended for one end of the tunnel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Outcome {
    /// Everything arrived.
    Whole,
    /// The link was cut.
    Cut,
    /// The bytes were not what the other end had sent.
    Damaged,
}

/// Streams of one schedule; more would only be more of the same.
const STREAMS: usize = 6;
/// Bytes that one end sends on a stream.
const MOST: usize = 60_000;
/// Turns of the end game, in which everything is delivered: enough for all windows to be used up many times.
const TURNS: usize = 100_000;

/// Seconds after which somebody must have noticed that nothing arrives: the keepalive and its timeout, twice, as what one
/// end says may be what the other takes for the rest of a record.
const PATIENCE: usize = 70;

/// One direction of a stream.
#[derive(Debug, Default)]
struct Direction {
    sent: usize,
    sent_end: bool,
    received: usize,
    received_end: bool,
    uncredited: usize,
}

#[derive(Debug, Default)]
struct Track {
    /// By sender.
    directions: [Direction; 2],
    answered: bool,
    reset: bool,
}

struct Side {
    end: EndPoint,
    /// Sealed, and still under way.
    wire: Vec<u8>,
    failed: Option<TunnelError>,
}

struct Link<'a> {
    choices: &'a mut dyn Choices,
    now: Instant,
    sides: [Side; 2],
    tracks: BTreeMap<StreamId, Track>,
    hostile: bool,
    /// By the side whose bytes they were.
    damaged: [bool; 2],
    cut: bool,
}

const CLIENT: usize = 0;
const SERVER: usize = 1;

/// Runs the schedule that these bytes describe.
pub fn link(data: &[u8]) {
    schedule(&mut Bytes(data));
}

/// Runs a schedule and returns how it ended, for both ends alike.
///
/// # Panics
/// If the ends differ about that, or an app received what the other one had not sent.
pub fn schedule(choices: &mut dyn Choices) -> Outcome {
    let now = Instant::now();
    let hostile = choices.below(3) == 0;
    let config = Config {
        stream_window: [1_000, 20_000, 4 << 20][choices.below(3)],
        connection_window: 70_000,
        max_concurrent_streams: 1 + choices.below(STREAMS) as u32,
        ..Config::server()
    };
    let ends = [EndPoint::client(config.clone(), now), EndPoint::server(config, now)];
    let sides = ends.map(|end| Side { end, wire: Vec::new(), failed: None });
    let (tracks, damaged, cut) = (BTreeMap::new(), [false; 2], false);
    Link { choices, now, sides, tracks, hostile, damaged, cut }.run()
}

impl Link<'_> {
    fn run(mut self) -> Outcome {
        while let Some(choice) = self.choices.next() {
            let (what, side) = (choice >> 1, usize::from(choice & 1));
            match what % 16 {
                0 => self.open(),
                1 => self.answer(),
                2..=5 => self.send(side),
                6 => self.credit(side),
                7 => self.pass_time(),
                8 if what == 8 => self.reset(side),
                9 if what == 9 => self.sides[side].end.tunnel.shutdown(self.now),
                10 if self.hostile && what == 10 => self.damage(side),
                11 if self.hostile && what == 11 => self.cut = true,
                _ => self.deliver(side),
            }
            if self.cut || self.sides.iter().any(|side| side.failed.is_some()) {
                break;
            }
        }
        self.verdict()
    }

    fn open(&mut self) {
        if self.tracks.len() < STREAMS
            && let Ok(id) = self.sides[CLIENT].end.tunnel.open("10.0.0.1:80", &[])
        {
            self.tracks.insert(id, Track::default());
        }
    }

    fn answer(&mut self) {
        for (&id, track) in &mut self.tracks {
            track.answered |= self.sides[SERVER].end.tunnel.respond(id, 200, &[], End::No).is_ok();
        }
    }

    fn send(&mut self, side: usize) {
        let Some(id) = self.any_stream() else { return };
        let len = self.choices.below(MOST);
        self.send_on(side, id, len);
    }

    fn send_on(&mut self, side: usize, id: StreamId, len: usize) {
        let Some(track) = self.tracks.get_mut(&id) else { return };
        let direction = &mut track.directions[side];
        let end = &mut self.sides[side].end;
        let left = MOST - direction.sent;
        let start = direction.sent;
        direction.sent += end.send(id, len.min(left), &|offset| pattern(side, id, start + offset));
        if direction.sent == MOST && !direction.sent_end {
            direction.sent_end = end.tunnel.end(id, &mut end.outbox).is_ok();
        }
    }

    fn reset(&mut self, side: usize) {
        let Some(id) = self.any_stream() else { return };
        self.sides[side].end.tunnel.reset(id, Reason::CANCEL);
        self.tracks.entry(id).or_default().reset = true;
    }

    fn any_stream(&mut self) -> Option<StreamId> {
        let which = self.choices.below(STREAMS);
        self.tracks.keys().nth(which % self.tracks.len().max(1)).copied()
    }

    fn credit(&mut self, side: usize) {
        for (&id, track) in &mut self.tracks {
            let held = std::mem::take(&mut track.directions[1 - side].uncredited);
            self.sides[side].end.tunnel.credit(id, held);
        }
    }

    /// Less than any deadline in all, as no schedule is long enough to add up to one.
    fn pass_time(&mut self) {
        self.now += Duration::from_micros(self.choices.below(500) as u64);
        for side in &mut self.sides {
            if let Err(error) = side.end.tunnel.handle_timeout(self.now) {
                side.failed.get_or_insert(error);
            }
        }
    }

    fn damage(&mut self, side: usize) {
        let at = self.choices.below(1 << 14);
        let kind = self.choices.below(3);
        let wire = &mut self.sides[side].wire;
        if wire.is_empty() {
            return;
        }
        let at = at % wire.len();
        match kind {
            0 => wire[at] ^= 1 << (at % 8),
            1 => drop(wire.remove(at)),
            _ => wire.insert(at, 0x17),
        }
        self.damaged[side] = true;
    }

    /// Delivers some of what a side has said.
    fn deliver(&mut self, from: usize) {
        let said = self.sides[from].end.give();
        self.sides[from].wire.extend(said);
        let under_way = self.sides[from].wire.len();
        let some = match self.choices.below(4) {
            0 => under_way,
            1 => self.choices.below(16),
            _ => self.choices.below(1 << 15),
        };
        self.deliver_bytes(from, some.min(under_way));
    }

    fn deliver_bytes(&mut self, from: usize, len: usize) {
        let bytes: Vec<u8> = self.sides[from].wire.drain(..len).collect();
        let (tracks, side) = (&mut self.tracks, &mut self.sides[1 - from]);
        if side.failed.is_some() {
            return;
        }
        let outcome = side.end.take(self.now, &bytes, &mut |event, payload| observe(tracks, from, event, payload));
        side.failed = outcome.err();
    }

    /// Delivers everything, unless the link is cut, and lets the apps end what they have begun.
    fn finish(&mut self) {
        for _ in 0..TURNS {
            let mut moved = false;
            for side in [CLIENT, SERVER] {
                self.credit(side);
                let said = self.sides[side].end.give();
                self.sides[side].wire.extend(said);
                let under_way = self.sides[side].wire.len();
                if self.cut {
                    self.sides[side].wire.clear();
                } else if under_way > 0 {
                    self.deliver_bytes(side, under_way);
                    moved = true;
                }
            }
            if self.sides.iter().all(|side| side.failed.is_none()) && !self.cut {
                self.answer();
                for id in self.tracks.keys().copied().collect::<Vec<_>>() {
                    let before: usize = self.sent(id);
                    (CLIENT..=SERVER).for_each(|side| self.send_on(side, id, MOST));
                    moved |= self.sent(id) != before;
                }
            }
            if !moved {
                return;
            }
        }
        panic!("still moving: {:?}", self.tracks);
    }

    fn sent(&self, id: StreamId) -> usize {
        self.tracks[&id].directions.iter().map(|direction| direction.sent + usize::from(direction.sent_end)).sum()
    }

    /// Damage to the length of a record makes its receiver wait for the rest. Time passes until somebody notices.
    fn wait(&mut self) {
        for _ in 0..PATIENCE {
            if self.cut || self.is_whole() || self.sides.iter().any(|side| side.failed.is_some()) {
                return;
            }
            self.now += Duration::from_secs(1);
            for side in &mut self.sides {
                side.failed = side.end.tunnel.handle_timeout(self.now).err();
            }
            self.finish();
        }
    }

    fn is_whole(&self) -> bool {
        let whole = |direction: &Direction| direction.received == MOST && direction.received_end;
        self.tracks.values().all(|track| track.reset || track.directions.iter().all(whole))
            && self.sides.iter().all(|side| side.end.tunnel.active_streams() == 0)
    }

    fn verdict(mut self) -> Outcome {
        self.finish();
        let damaged = self.damaged[CLIENT] || self.damaged[SERVER];
        if damaged {
            self.wait();
        }
        let [client, server] = self.sides.each_ref().map(|side| match &side.failed {
            None if self.cut => Outcome::Cut,
            None => Outcome::Whole,
            Some(TunnelError::Tls(_)) => Outcome::Damaged,
            Some(error) => {
                assert!(damaged, "nobody breaks HTTP/2 or is late here: {error}");
                Outcome::Damaged
            }
        });
        let story = || (self.sides.each_ref().map(|side| side.failed.clone()), &self.tracks);
        assert!(damaged || client.max(server) != Outcome::Damaged, "{:?}", story());
        // An alert reaches the other end, unless the way there is damaged or cut as well.
        let deaf = self.cut || (self.damaged[CLIENT] && self.damaged[SERVER]);
        assert!(client == server || deaf, "{client:?} and {server:?}: {:?}", story());
        if client.max(server) == Outcome::Whole {
            assert!(self.is_whole(), "{:?}", story());
        }
        client.max(server)
    }
}

fn observe(tracks: &mut BTreeMap<StreamId, Track>, from: usize, event: &Event, payload: &[u8]) {
    match event {
        Event::Data { id, end, .. } => {
            let direction = &mut tracks.entry(*id).or_default().directions[from];
            for (i, &byte) in payload.iter().enumerate() {
                assert_eq!(byte, pattern(from, *id, direction.received + i), "{id} at {}", direction.received + i);
            }
            direction.received += payload.len();
            direction.uncredited += payload.len();
            assert!(direction.received <= direction.sent, "{id} invents nothing");
            assert!(!direction.received_end, "{id}: nothing follows the end");
            direction.received_end = end.is_end();
            assert!(!end.is_end() || direction.received == direction.sent, "{id}: an end is the end of everything");
        }
        Event::Reset { id, by, .. } => {
            assert!(*by == ResetBy::Peer || *by == ResetBy::PeerGoingAway, "nobody breaks rules here");
            tracks.entry(*id).or_default().reset = true;
        }
        _ => {}
    }
}

/// The byte at an offset of what a side sends on a stream.
fn pattern(side: usize, id: StreamId, offset: usize) -> u8 {
    (offset.wrapping_mul(31) ^ (offset >> 8) ^ (id.value() as usize * 7) ^ (side * 101)) as u8
}

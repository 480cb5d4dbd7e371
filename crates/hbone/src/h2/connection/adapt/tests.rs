//! What the windows of many streams come to together.

use std::time::{Duration, Instant};

use crate::h2::{Allowance, Config, Connection, Role, StreamId};

const FIRST: u32 = 20_000;
/// Head of a PING frame.
const PING: [u8; 9] = [0, 0, 8, 6, 0, 0, 0, 0, 0];

/// A server with streams that all read whatever comes, within one round trip.
struct Busy {
    machine: Connection,
    now: Instant,
    streams: Vec<StreamId>,
}

impl Busy {
    fn new(config: Config, streams: u32, allowance: Option<Allowance>) -> Self {
        let now = Instant::now();
        let (mut client, mut machine) =
            (Connection::new(Role::Client, Config::client(), now), Connection::new(Role::Server, config, now));
        if let Some(allowance) = allowance {
            machine.draw_on(allowance);
        }
        let streams = (0..streams).map(|_| client.open("a:1", &[]).unwrap()).collect();
        for (from, to) in [(0, 1), (1, 0), (0, 1)] {
            let mut bytes = Vec::new();
            let ends = [&mut client, &mut machine];
            ends[from].poll_transmit(&mut bytes);
            let ends = [&mut client, &mut machine];
            ends[to].receive(now, &bytes, &mut Vec::new()).unwrap();
        }
        Busy { machine, now, streams }
    }

    /// Every stream uses its whole window, and what it used is read before the PING comes back.
    fn round(&mut self) {
        self.now += Duration::from_millis(5);
        for id in self.streams.clone() {
            let len = self.machine.receive_capacity(id).min(16_384);
            let head = [0, (len >> 8) as u8, len as u8, 0, 0, 0, 0, (id.value() >> 8) as u8, id.value() as u8];
            let mut left = self.machine.receive_capacity(id);
            while left > 0 {
                let len = left.min(16_384);
                let mut frame = head;
                frame[1..3].copy_from_slice(&(len as u16).to_be_bytes());
                self.machine.receive(self.now, &frame, &mut Vec::new()).unwrap();
                self.machine.receive(self.now, &vec![0; len], &mut Vec::new()).unwrap();
                self.machine.credit(id, len);
                left -= len;
            }
        }
        self.answer_pings();
    }

    /// A stream uses more than half of its window, which is read only after the PING has come back.
    fn read_slowly(&mut self, id: StreamId) {
        let len = self.fill(id);
        self.answer_pings();
        self.machine.credit(id, len);
        self.answer_pings();
    }

    /// A stream uses more than half of its window. Returns how much.
    fn fill(&mut self, id: StreamId) -> usize {
        let len = FIRST as usize - 4_000;
        let frame = [0, (len >> 8) as u8, len as u8, 0, 0, 0, 0, 0, id.value() as u8];
        self.machine.receive(self.now, &frame, &mut Vec::new()).unwrap();
        self.machine.receive(self.now, &vec![0; len], &mut Vec::new()).unwrap();
        len
    }

    fn answer_pings(&mut self) {
        let mut out = Vec::new();
        self.machine.poll_transmit(&mut out);
        if let Some(at) = out.windows(9).position(|bytes| bytes == PING) {
            let mut pong = out[at..at + 17].to_vec();
            pong[4] = 1;
            self.machine.receive(self.now, &pong, &mut Vec::new()).unwrap();
        }
        out.clear();
        self.machine.poll_transmit(&mut out);
    }

    fn windows(&self) -> Vec<usize> {
        self.streams.iter().map(|id| self.machine.receive_capacity(*id)).collect()
    }
}

fn config() -> Config {
    Config { first_stream_window: FIRST, stream_window: 160_000, connection_window: 500_000, ..Config::server() }
}

#[test]
fn a_stream_alone_grows_to_what_is_configured() {
    let mut busy = Busy::new(config(), 1, None);
    let sizes: Vec<usize> = (0..5)
        .map(|_| {
            busy.round();
            busy.windows()[0]
        })
        .collect();
    assert_eq!(sizes, [40_000, 80_000, 160_000, 160_000, 160_000]);
    assert_eq!(busy.machine.round_trip(), Some(Duration::ZERO));
}

#[test]
fn a_new_stream_does_not_wait_for_what_earlier_ones_led_to() {
    let mut busy = Busy::new(config(), 2, None);
    let later = busy.streams.pop().unwrap();
    // It reads less than half of its window within a round trip, for as long as it takes for samples to become rare.
    for _ in 0..200 {
        busy.now += Duration::from_millis(50);
        busy.read_slowly(busy.streams[0]);
    }
    assert_eq!(busy.windows(), [FIRST as usize]);
    busy.streams = vec![later];
    busy.round();
    assert_eq!(busy.windows(), [2 * FIRST as usize]);
    busy.round();
    assert_eq!(busy.windows(), [4 * FIRST as usize]);
}

#[test]
fn new_streams_cost_one_measurement_at_a_time_and_none_within_a_millisecond_of_the_last() {
    let mut busy = Busy::new(config(), 10, None);
    let ids = busy.streams.clone();
    let pings = |busy: &mut Busy, streams: std::ops::Range<usize>| {
        for &id in &ids[streams] {
            busy.fill(id);
        }
        let mut out = Vec::new();
        busy.machine.poll_transmit(&mut out);
        out.windows(9).filter(|bytes| *bytes == PING).count()
    };
    assert_eq!(pings(&mut busy, 0..5), 1, "the others are in the same one");
    assert_eq!(pings(&mut busy, 5..7), 0, "it has not come back");
    let mut pong = vec![0, 0, 8, 6, 1, 0, 0, 0, 0];
    pong.extend(super::SAMPLE);
    busy.machine.receive(busy.now, &pong, &mut Vec::new()).unwrap();
    assert_eq!(pings(&mut busy, 7..8), 0, "it has just come back");
    busy.now += super::MIN_SAMPLE_PAUSE;
    assert_eq!(pings(&mut busy, 8..10), 1);
}

#[test]
fn many_streams_together_stay_within_the_connections_window() {
    let mut busy = Busy::new(config(), 20, None);
    for _ in 0..10 {
        busy.round();
        let sum: usize = busy.windows().iter().sum();
        assert!(sum <= 500_000, "{sum}");
    }
    assert!(busy.windows().iter().sum::<usize>() > 450_000, "and make use of it: {:?}", busy.windows());
}

#[test]
fn what_all_connections_take_comes_from_one_allowance_and_goes_back_to_it() {
    let allowance = Allowance::new(150_000);
    let mut first = Busy::new(config(), 1, Some(allowance.clone()));
    let mut second = Busy::new(config(), 1, Some(allowance.clone()));
    for _ in 0..5 {
        first.round();
        second.round();
    }
    let beyond: usize = [&first, &second].iter().map(|busy| busy.windows()[0] - FIRST as usize).sum();
    assert_eq!(allowance.used(), beyond);
    assert!(beyond <= 150_000, "{beyond}");

    let id = first.streams[0];
    first.machine.reset(id, crate::error::Reason::CANCEL);
    assert_eq!(allowance.used(), second.windows()[0] - FIRST as usize, "an ended stream gives back what it had");
    drop(second);
    assert_eq!(allowance.used(), 0, "and so does a connection that is gone");
}

#[test]
fn a_quiet_stream_gives_back_what_it_does_not_use() {
    let allowance = Allowance::new(1_000_000);
    let mut busy = Busy::new(config(), 1, Some(allowance.clone()));
    for _ in 0..5 {
        busy.round();
    }
    assert_eq!(allowance.used(), 140_000);
    // The peer holds a window of 160 000 that cannot be taken back; once it has been used it is not renewed.
    for _ in 0..3 {
        busy.now += super::QUIET;
        busy.machine.look_for_quiet(busy.now);
    }
    assert_eq!(allowance.used(), 140_000);
    let id = busy.streams[0];
    let frame = [0, 0x40, 0, 0, 0, 0, 0, 0, 1];
    for _ in 0..9 {
        busy.machine.receive(busy.now, &frame, &mut Vec::new()).unwrap();
        busy.machine.receive(busy.now, &[0; 16_384], &mut Vec::new()).unwrap();
        busy.machine.credit(id, 16_384);
    }
    busy.machine.poll_transmit(&mut Vec::new());
    busy.now += super::QUIET;
    busy.machine.look_for_quiet(busy.now);
    assert!(busy.windows()[0] <= FIRST as usize, "{:?}", busy.windows());
    assert_eq!(allowance.used(), 0);
}

//! What an attacker would try: each named limit, reached and passed.

use std::time::{Duration, Instant};

use hbone::error::{Fault, Reason, Violation};
use hbone::h2::{Config, Connection, End, Event, Role, StreamId};
use hbone::limits::{
    BUDGET_WINDOW, EARLY_RESETS_PER_STREAM_SLOT, FORCED_RESETS, HEADER_BLOCK_SLACK, MAX_CONTINUATIONS,
    MAX_GOAWAY_DEBUG, MAX_REPLY_BACKLOG, MAX_SETTINGS_ENTRIES, NOISE_FRAMES, REMEMBERED_RESETS,
};

use crate::wire::encode;

/// A machine under attack, after the exchange of SETTINGS.
struct Victim {
    machine: Connection,
    now: Instant,
}

/// Whether the attacker reads what the victim answers.
#[derive(Clone, Copy, PartialEq)]
enum Attacker {
    Reads,
    IsDeaf,
}

impl Victim {
    fn new(role: Role, config: Config) -> Self {
        let now = Instant::now();
        let mut victim = Victim { machine: Connection::new(role, config, now), now };
        if role == Role::Server {
            victim.hit("PREFACE").unwrap();
        }
        victim.hit("SETTINGS").unwrap();
        victim.hit("SETTINGS ACK").unwrap();
        victim.drain();
        victim
    }

    fn server() -> Self {
        Victim::new(Role::Server, Config::server())
    }

    fn hit(&mut self, frame: &str) -> Result<Vec<Event>, Fault> {
        let mut events = Vec::new();
        self.machine.receive(self.now, &encode(frame), &mut events).map(|()| events)
    }

    fn drain(&mut self) -> usize {
        let mut out = Vec::new();
        self.machine.poll_transmit(&mut out);
        out.len()
    }

    /// Sends frames until the victim has had enough; says how many it took and why it stopped.
    fn flood(&mut self, attacker: Attacker, mut frame: impl FnMut(u32) -> String) -> (u32, Violation) {
        for count in 0..100_000 {
            if let Err(fault) = self.hit(&frame(count)) {
                return (count, fault.violation);
            }
            if attacker == Attacker::Reads {
                self.drain();
            }
        }
        panic!("the victim takes anything");
    }

    fn open(&mut self, id: u32) -> Result<Vec<Event>, Fault> {
        self.hit(&format!("HEADERS {id} | :method: CONNECT | :authority: a:1"))
    }
}

#[test]
fn rapid_reset_is_stopped_by_its_budget() {
    let mut victim = Victim::server();
    let budget = Config::server().max_concurrent_streams * EARLY_RESETS_PER_STREAM_SLOT;
    let (count, violation) = victim.flood(Attacker::Reads, |i| {
        let id = 2 * (i / 2) + 1;
        if i % 2 == 0 {
            format!("HEADERS {id} | :method: CONNECT | :authority: a:1")
        } else {
            format!("RST_STREAM {id} CANCEL")
        }
    });
    assert_eq!((count / 2, violation), (budget, Violation::RapidReset));
}

#[test]
fn resets_at_a_humane_pace_are_forgiven() {
    let mut victim = Victim::server();
    let budget = Config::server().max_concurrent_streams * EARLY_RESETS_PER_STREAM_SLOT;
    for i in 0..4 * budget {
        let id = 2 * i + 1;
        victim.open(id).unwrap();
        victim.hit(&format!("RST_STREAM {id} CANCEL")).unwrap();
        victim.drain();
        victim.now += BUDGET_WINDOW / budget;
    }
}

#[test]
fn resets_of_answered_streams_are_ordinary() {
    let mut victim = Victim::server();
    for i in 0..5_000 {
        let id = 2 * i + 1;
        victim.open(id).unwrap();
        let stream = StreamId::new(id);
        victim.machine.respond(stream, 200, &[], End::No).unwrap();
        victim.hit(&format!("RST_STREAM {id} CANCEL")).unwrap();
        victim.drain();
    }
}

#[test]
fn provoked_resets_are_stopped_by_their_budget() {
    let mut victim = Victim::server();
    let (count, violation) = victim.flood(Attacker::Reads, |i| {
        let id = 2 * (i / 2) + 1;
        if i % 2 == 0 {
            format!("HEADERS {id} | :method: CONNECT | :authority: a:1")
        } else {
            format!("WINDOW_UPDATE {id} +0")
        }
    });
    assert_eq!((count / 2, violation), (FORCED_RESETS, Violation::ForcedResets));
}

#[test]
fn streams_beyond_the_limit_are_refused_up_to_a_budget() {
    let mut victim = Victim::new(Role::Server, Config { max_concurrent_streams: 1, ..Config::server() });
    let (count, violation) =
        victim.flood(Attacker::Reads, |i| format!("HEADERS {} | :method: CONNECT | :authority: a:1", 2 * i + 1));
    assert_eq!((count, violation), (FORCED_RESETS + 1, Violation::ForcedResets));
}

#[test]
fn a_continuation_flood_is_stopped_by_count() {
    let mut victim = Victim::server();
    let (count, violation) = victim.flood(Attacker::Reads, |i| match i {
        0 => "HEADERS 1 more".into(),
        _ => "CONTINUATION 1 more".into(),
    });
    assert_eq!((count - 1, violation), (MAX_CONTINUATIONS, Violation::TooManyContinuations));
}

#[test]
fn a_header_block_is_stopped_by_size_before_it_is_gathered() {
    let config = Config::server();
    let mut victim = Victim::server();
    let most = config.max_header_list_size as usize + HEADER_BLOCK_SLACK;
    let head = |length: usize, kind: u8| format!("RAW {length:06x} 0{kind} 00 00000001");
    victim.hit(&head(most - 10, 1)).unwrap();
    let zeros = vec![0; most - 10];
    victim.machine.receive(victim.now, &zeros, &mut Vec::new()).unwrap();
    let fault = victim.hit(&head(11, 9)).unwrap_err();
    assert_eq!(fault.violation, Violation::HeaderBlockTooLarge, "the head alone decides");
}

#[test]
fn an_hpack_bomb_costs_the_attacker_its_stream() {
    let mut victim = Victim::server();
    // An entry of 4000 octets in the table, then as many references to it as one block takes: 300 MB of headers.
    let value_length = 4_000;
    let mut block =
        vec![0x40, 1, b'a', 0x7f, 0x80 | ((value_length - 127) % 128) as u8, ((value_length - 127) / 128) as u8];
    block.resize(block.len() + value_length, b'x');
    block.resize(Config::server().max_header_list_size as usize + HEADER_BLOCK_SLACK, 0xbe);
    let block = hex_string(&block);
    let events = victim.hit(&format!("HEADERS 1 hex={block}")).unwrap();
    assert_eq!(events, []);
    assert_eq!(victim.machine.active_streams(), 0);
    victim.open(3).unwrap();
    assert_eq!(victim.machine.active_streams(), 1, "the connection goes on");
}

fn hex_string(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn replies_that_nobody_reads_are_bounded() {
    for (frame, reply) in [("PING 0000000000000001", 17), ("SETTINGS", 9)] {
        let mut victim = Victim::server();
        let (count, violation) = victim.flood(Attacker::IsDeaf, |_| frame.into());
        assert_eq!((count as usize, violation), (MAX_REPLY_BACKLOG / reply, Violation::ReplyBacklog), "{frame}");
        assert!(victim.drain() <= MAX_REPLY_BACKLOG + 1_000, "what waits is bounded");
    }
}

#[test]
fn frames_without_effect_are_bounded() {
    for frame in [
        "PING 0000000000000001",
        "PING ACK 0000000000000001",
        "SETTINGS",
        "SETTINGS ACK",
        "PRIORITY 1",
        "RAW 000000 fa 00 00000000",
        "DATA 1",
        "DATA 1 PAD=1",
        "WINDOW_UPDATE 0 +1",
        "WINDOW_UPDATE 1 +1",
    ] {
        let mut victim = Victim::server();
        victim.open(1).unwrap();
        let (count, violation) = victim.flood(Attacker::Reads, |_| frame.into());
        // One is free, since a request came before it.
        assert_eq!((count, violation), (NOISE_FRAMES + 1, Violation::Noise), "{frame}");
    }
}

#[test]
fn interim_answers_are_bounded() {
    let mut victim = Victim::new(Role::Client, Config::client());
    victim.machine.open("a:1", &[]).unwrap();
    let (count, violation) = victim.flood(Attacker::Reads, |_| "HEADERS 1 | :status: 103".into());
    assert_eq!((count, violation), (NOISE_FRAMES, Violation::Noise));
}

#[test]
fn stragglers_of_closed_streams_are_bounded() {
    for frame in ["WINDOW_UPDATE 1 +1", "RST_STREAM 1 CANCEL"] {
        let mut victim = Victim::server();
        victim.open(1).unwrap();
        victim.hit("RST_STREAM 1 CANCEL").unwrap();
        let (count, violation) = victim.flood(Attacker::Reads, |_| frame.into());
        assert_eq!((count, violation), (NOISE_FRAMES + 1, Violation::Noise), "{frame}");
    }
}

#[test]
fn pings_that_measure_a_transfer_are_no_flood() {
    let mut victim = Victim::server();
    victim.open(1).unwrap();
    for _ in 0..3 * NOISE_FRAMES {
        for event in victim.hit("DATA 1 \"x\"").unwrap() {
            if let Event::Data { id, range, .. } = event {
                victim.machine.credit(id, range.len());
            }
        }
        victim.hit("PING 0000000000000001").unwrap();
        victim.drain();
    }
}

#[test]
fn window_updates_that_follow_data_are_no_flood() {
    for update in ["WINDOW_UPDATE 1 +1", "WINDOW_UPDATE 0 +1"] {
        let mut victim = Victim::server();
        victim.open(1).unwrap();
        let id = StreamId::new(1);
        victim.machine.respond(id, 200, &[], End::No).unwrap();
        victim.drain();
        for _ in 0..3 * NOISE_FRAMES {
            victim.machine.data_header(id, 1, End::No).unwrap();
            victim.hit(update).unwrap();
        }
    }
}

#[test]
fn headers_for_a_stream_that_was_reset_are_bounded() {
    let mut victim = Victim::server();
    victim.open(1).unwrap();
    victim.machine.reset(StreamId::new(1), Reason::CANCEL);
    let (count, violation) = victim.flood(Attacker::Reads, |_| "HEADERS 1 ES | a: b".into());
    assert_eq!((count, violation), (NOISE_FRAMES + 1, Violation::Noise));
}

#[test]
fn a_settings_frame_has_a_bounded_number_of_entries() {
    let mut victim = Victim::server();
    victim.hit(&format!("SETTINGS{}", " 99=1".repeat(MAX_SETTINGS_ENTRIES))).unwrap();
    let fault = victim.hit(&format!("SETTINGS{}", " 99=1".repeat(MAX_SETTINGS_ENTRIES + 1))).unwrap_err();
    assert_eq!(fault.violation, Violation::TooManySettings);
}

#[test]
fn the_text_of_a_goaway_is_cut_and_what_follows_is_understood() {
    let mut victim = Victim::server();
    let events = victim.hit(&format!("GOAWAY last=0 NO_ERROR \"{}\"", "x".repeat(100_000))).unwrap();
    let [Event::GoingAway { debug, .. }] = &events[..] else { panic!("{events:?}") };
    assert_eq!(debug.len(), MAX_GOAWAY_DEBUG);
    victim.hit("PING 0000000000000001").unwrap();
    assert_eq!(victim.drain(), 17);
}

#[test]
fn late_frames_are_forgiven_for_as_many_resets_as_are_remembered() {
    let mut victim = Victim::server();
    let limit = REMEMBERED_RESETS as u32;
    for i in 0..=limit {
        let id = 2 * i + 1;
        victim.open(id).unwrap();
        victim.machine.reset(StreamId::new(id), Reason::CANCEL);
    }
    victim.drain();
    for i in 1..=limit {
        victim.hit(&format!("DATA {} \"late\"", 2 * i + 1)).unwrap();
    }
    assert_eq!(victim.drain(), 0, "none of them is answered");
    victim.hit("DATA 1 \"late\"").unwrap();
    assert_eq!(victim.drain(), 13, "the oldest is forgotten and reset again");
    assert_eq!(victim.machine.uncredited(), 0);
}

#[test]
fn a_deaf_peer_gets_no_window_back() {
    let mut victim = Victim::new(Role::Server, Config { connection_window: 65_535, ..Config::server() });
    victim.open(1).unwrap();
    let mut accepted = 0;
    let fault = loop {
        match victim.hit("DATA 1 len=1000") {
            Ok(events) => {
                for event in events {
                    let Event::Data { id, range, .. } = event else { continue };
                    accepted += range.len();
                    victim.machine.credit(id, range.len());
                }
            }
            Err(fault) => break fault,
        }
    };
    assert_eq!((accepted, fault.violation), (65_000, Violation::ConnectionWindow));
}

#[test]
fn budgets_do_not_depend_on_time_standing_still() {
    let mut victim = Victim::server();
    let mut taken = 0;
    for _ in 0..3 * NOISE_FRAMES {
        if victim.hit("PRIORITY 1").is_err() {
            break;
        }
        taken += 1;
        victim.now += Duration::from_millis(1);
    }
    assert!(taken < 3 * NOISE_FRAMES, "a thousand a second is still a flood");
}

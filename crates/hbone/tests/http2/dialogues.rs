//! Plays the scripts in `dialogues/` against the machine.
//!
//! A script is a `## title` and lines, each beginning with what happens:
//!
//! | line | meaning |
//! |---|---|
//! | `server`, `client` | a machine after the exchange of prefaces and SETTINGS; `key=value` changes its configuration, `fresh` leaves the exchange out |
//! | `> frame` | the peer sends this |
//! | `< frame` | the machine sends this |
//! | `! event` | the machine reports this |
//! | `x Violation` | the machine gives the connection up, and GOAWAY with the violation's code comes with it |
//! | `= action` | the application does this |
//! | `+ 10s` | so much time passes |
//! | `repeat 3` … `end` | the lines between, with `{id}` as 1, 3, 5, … |
//!
//! Whatever the machine sends or reports and the script does not expect is a failure. Every script is played twice: with
//! whole frames, and with single bytes.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use hbone::error::Fault;
use hbone::h2::{Config, Connection, End, Event, Header, Headers, ResetBy, Role, StreamId, hpack};

use crate::wire;

#[derive(Clone, Copy, Debug)]
enum Cut {
    Frames,
    Bytes,
}

struct Player {
    machine: Connection,
    now: Instant,
    cut: Cut,
    headers: hpack::Decoder,
    sent: VecDeque<String>,
    unread: Vec<u8>,
    reported: VecDeque<String>,
    fault: Option<Fault>,
}

impl Player {
    fn new(words: &str, cut: Cut) -> Self {
        let mut words = words.split_whitespace();
        let (role, mut config) = match words.next() {
            Some("client") => (Role::Client, Config::client()),
            Some("server") => (Role::Server, Config::server()),
            other => panic!("a role, not {other:?}"),
        };
        let mut fresh = false;
        for word in words {
            match word.split_once('=') {
                Some(("stream_window", value)) => config.stream_window = value.parse().unwrap(),
                Some(("first_window", value)) => config.first_stream_window = value.parse().unwrap(),
                Some(("connection_window", value)) => config.connection_window = value.parse().unwrap(),
                Some(("max_streams", value)) => config.max_concurrent_streams = value.parse().unwrap(),
                Some(("max_headers", value)) => config.max_header_list_size = value.parse().unwrap(),
                Some(("assumed_streams", value)) => config.assumed_peer_streams = value.parse().unwrap(),
                _ if word == "fresh" => fresh = true,
                _ => panic!("unknown word {word}"),
            }
        }
        let now = Instant::now();
        let mut player = Player {
            machine: Connection::new(role, config, now),
            now,
            cut,
            headers: hpack::Decoder::new(),
            sent: VecDeque::new(),
            unread: Vec::new(),
            reported: VecDeque::new(),
            fault: None,
        };
        player.collect();
        if !fresh {
            player.sent.clear();
            if role == Role::Server {
                player.feed(&wire::encode("PREFACE"));
            }
            player.feed(&wire::encode("SETTINGS"));
            player.feed(&wire::encode("SETTINGS ACK"));
            assert_eq!(player.sent.drain(..).collect::<Vec<_>>(), ["SETTINGS ACK"]);
            assert_eq!(player.reported.drain(..).collect::<Vec<_>>(), ["settings"]);
        }
        player
    }

    fn feed(&mut self, bytes: &[u8]) {
        let size = match self.cut {
            Cut::Frames => bytes.len(),
            Cut::Bytes => 1,
        };
        for piece in bytes.chunks(size.max(1)) {
            let mut events = Vec::new();
            let result = self.machine.receive(self.now, piece, &mut events);
            for event in events {
                self.report(event, piece);
            }
            if let Err(fault) = result {
                self.fault = Some(fault);
                break;
            }
        }
        self.collect();
    }

    /// Adds an event, joining pieces of payload.
    fn report(&mut self, event: Event, bytes: &[u8]) {
        if let Event::Data { id, range, end } = event {
            let payload = String::from_utf8_lossy(&bytes[range]).into_owned();
            let start = format!("data {id} \"");
            let before = match self.reported.back_mut() {
                Some(last) if last.starts_with(&start) && last.ends_with('"') => {
                    let text = last[start.len()..last.len() - 1].to_owned();
                    self.reported.pop_back();
                    text
                }
                _ => String::new(),
            };
            self.reported.push_back(format!("{start}{before}{payload}\"{}", ending(end)));
            return;
        }
        self.reported.push_back(match event {
            Event::Request { id, request, end } => {
                let authority = request.authority.as_deref().unwrap_or("-");
                format!("request {id} {} {authority}{}{}", request.method, ending(end), fields(&request.headers))
            }
            Event::Response { id, response, end } => {
                format!("response {id} {}{}{}", response.status, ending(end), fields(&response.headers))
            }
            Event::Data { .. } => unreachable!("handled above"),
            Event::Reset { id, reason, by: ResetBy::Peer } => format!("reset {id} {reason} by peer"),
            Event::Reset { id, reason, by: ResetBy::PeerGoingAway } => format!("reset {id} {reason} by goaway"),
            Event::Reset { id, reason, by: ResetBy::Violation(rule) } => format!("reset {id} {reason} for {rule:?}"),
            Event::SendWindow { id: Some(id) } => format!("window {id}"),
            Event::SendWindow { id: None } => "window all".into(),
            Event::SettingsChanged => "settings".into(),
            Event::GoingAway { last, reason, debug } => {
                format!("goaway last={last} {reason} \"{}\"", String::from_utf8_lossy(&debug))
            }
        });
    }

    fn collect(&mut self) {
        assert_eq!(self.machine.has_transmit(), {
            let before = self.unread.len();
            self.machine.poll_transmit(&mut self.unread);
            self.unread.len() > before
        });
        while let Some(frame) = wire::decode(&mut self.unread, &mut self.headers) {
            self.sent.push_back(frame);
        }
        assert!(self.unread.is_empty(), "the machine sends whole frames");
    }

    fn act(&mut self, line: &str) {
        let (action, fields) = line.split_once('|').unwrap_or((line, ""));
        let words: Vec<&str> = action.split_whitespace().collect();
        let id = |at: usize| StreamId::new(words[at].parse().unwrap());
        let number = |at: usize| words[at].parse::<usize>().unwrap();
        let end = if words.contains(&"ES") { End::Yes } else { End::No };
        let headers: Vec<Header<'_>> = fields
            .split(" | ")
            .filter_map(|field| field.trim_start().split_once(": "))
            .map(|(name, value)| Header::new(name, value))
            .collect();
        let mut outcome = "ok".to_owned();
        match words[0] {
            "credit" => self.machine.credit(id(1), number(2)),
            "reset" => self.machine.reset(id(1), wire::reason(words[2])),
            "shutdown" => self.machine.shutdown(self.now),
            "close" => self.machine.close(wire::reason(words[1])),
            "respond" => outcome = show(self.machine.respond(id(1), number(2) as u16, &headers, end)),
            "send" => outcome = self.send(id(1), number(2), end),
            "open" => {
                let opened = self.machine.open(words[1], &headers);
                outcome = opened.map_or_else(|error| format!("{error:?}"), |id| id.to_string());
            }
            "capacity" => outcome = self.machine.send_capacity(id(1)).to_string(),
            "slots" => outcome = self.machine.open_slots().to_string(),
            "streams" => outcome = self.machine.active_streams().to_string(),
            "allowed" => outcome = self.machine.receive_capacity(id(1)).to_string(),
            "uncredited" => outcome = self.machine.uncredited().to_string(),
            "drained" => outcome = self.machine.is_drained().to_string(),
            other => panic!("unknown action {other}"),
        }
        let expected = action.split_once("->").map_or("ok", |(_, expected)| expected.trim());
        assert_eq!(outcome, expected);
        self.collect();
    }

    fn send(&mut self, id: StreamId, len: usize, end: End) -> String {
        self.collect();
        match self.machine.data_header(id, len, end) {
            Ok(head) => {
                self.unread.extend(head);
                self.unread.resize(9 + len, b'x');
                self.sent.push_back(wire::decode(&mut self.unread, &mut self.headers).unwrap());
                "ok".into()
            }
            Err(error) => format!("{error:?}"),
        }
    }

    fn pass_time(&mut self, text: &str) {
        let (number, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap());
        let number: u64 = number.parse().unwrap();
        self.now += match unit {
            "s" => Duration::from_secs(number),
            "ms" => Duration::from_millis(number),
            other => panic!("unknown unit {other}"),
        };
        let before = self.machine.deadline();
        self.fault = self.machine.handle_timeout(self.now).err();
        self.collect();
        let idle = self.sent.is_empty() && self.fault.is_none();
        let due = before.is_some_and(|deadline| deadline <= self.now);
        assert!(due || idle, "nothing is done before its deadline");
        assert!(self.machine.deadline().is_none_or(|deadline| deadline > self.now), "what was due is done");
    }

    /// Nothing may be left over when something new happens.
    fn settled(&self) {
        assert!(self.sent.is_empty(), "unexpected: < {:?}", self.sent);
        assert!(self.reported.is_empty(), "unexpected: ! {:?}", self.reported);
        assert!(self.fault.is_none(), "unexpected: x {:?}", self.fault);
    }

    fn play(&mut self, line: &str) {
        let (kind, rest) = line.split_at(1);
        let rest = rest.trim_start();
        match kind {
            "<" => assert_eq!(self.sent.pop_front().as_deref(), Some(rest)),
            "!" => assert_eq!(self.reported.pop_front().as_deref(), Some(rest)),
            "x" => {
                let fault = self.fault.take().unwrap_or_else(|| panic!("no fault; sent {:?}", self.sent));
                assert_eq!(format!("{:?}", fault.violation), rest);
                let goaway = self.sent.pop_back().unwrap_or_default();
                assert!(goaway.starts_with("GOAWAY ") && goaway.ends_with(&fault.reason().to_string()), "{goaway}");
                assert_eq!(self.machine.receive(self.now, b"x", &mut Vec::new()), Err(fault), "it stays that way");
                assert_eq!(self.machine.deadline(), None);
                assert_eq!(self.machine.active_streams(), 0);
            }
            _ => {
                self.settled();
                match kind {
                    ">" => self.feed(&wire::encode(rest)),
                    "=" => self.act(rest),
                    "+" => self.pass_time(rest),
                    _ => panic!("what is this?"),
                }
            }
        }
    }
}

fn show(result: Result<(), impl std::fmt::Debug>) -> String {
    result.map_or_else(|error| format!("{error:?}"), |()| "ok".into())
}

fn ending(end: End) -> &'static str {
    if end.is_end() { " ES" } else { "" }
}

fn fields(headers: &Headers) -> String {
    headers.iter().map(|(name, value)| format!(" | {name}: {}", String::from_utf8_lossy(value))).collect()
}

/// A script with its repetitions written out: line number and text.
fn unroll(script: &str) -> Vec<(usize, String)> {
    let mut lines = Vec::new();
    let mut repeated: Option<(usize, Vec<(usize, &str)>)> = None;
    for (number, line) in script.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        if let Some(count) = line.strip_prefix("repeat ") {
            repeated = Some((count.parse().unwrap(), Vec::new()));
        } else if line == "end" {
            let (count, block) = repeated.take().expect("an open repeat");
            for round in 0..count {
                let id = (2 * round + 1).to_string();
                lines.extend(block.iter().map(|(number, line)| (*number, line.replace("{id}", &id))));
            }
        } else if let Some((_, block)) = &mut repeated {
            block.push((number, line));
        } else {
            lines.push((number, line.to_owned()));
        }
    }
    lines
}

/// Plays all scripts of a file, and names the line that failed.
fn play_all(file: &str, text: &str) {
    let scripts: Vec<&str> = text.split("\n## ").skip(1).collect();
    assert!(!scripts.is_empty(), "{file} has scripts");
    let mut failures = Vec::new();
    for script in scripts {
        for cut in [Cut::Frames, Cut::Bytes] {
            let title = script.lines().next().unwrap();
            let lines = unroll(&script[title.len()..]);
            let (_, first) = lines.first().expect("a role");
            let mut player = Player::new(first, cut);
            for (number, line) in &lines[1..] {
                let play = std::panic::AssertUnwindSafe(|| player.play(line));
                if std::panic::catch_unwind(play).is_err() {
                    failures.push(format!("{file}: {title}: line {number}, in {cut:?}: {line}"));
                    break;
                }
            }
            if failures.is_empty() {
                player.settled();
            }
        }
    }
    assert!(failures.is_empty(), "failed:\n{}", failures.join("\n"));
}

macro_rules! dialogues {
    ($($test:ident: $file:literal;)*) => {
        $(#[test]
        fn $test() {
            play_all($file, include_str!(concat!("dialogues/", $file)));
        })*
    };
}

dialogues! {
    connections_start_as_rfc_9113_3_4_says: "start.txt";
    frames_that_break_the_rules_end_the_connection: "framing.txt";
    requests_are_accepted_refused_and_answered: "server_streams.txt";
    requests_are_made_and_their_answers_read: "client_streams.txt";
    windows_hold_back_and_give_way: "flow_control.txt";
    settings_are_checked_applied_and_acknowledged: "settings.txt";
    connections_end_gracefully_and_otherwise: "ending.txt";
    silence_is_noticed: "timing.txt";
    windows_grow_with_their_readers_and_shrink_again: "windows.txt";
}

//! The whole transition table, and the size of a stream.

use std::fmt::Write;

use super::*;

const HALVES: [Half; 3] = [Half::Head, Half::Body, Half::Ended];

/// RFC 9113 §5.1's name of a state.
fn name(state: State) -> &'static str {
    match (state.send, state.receive) {
        (Half::Ended, Half::Ended) => "closed",
        (Half::Ended, _) => "half-closed (local)",
        (_, Half::Ended) => "half-closed (remote)",
        _ => "open",
    }
}

fn show(state: State) -> String {
    format!("send {:?}, receive {:?}", state.send, state.receive)
}

fn outcome<E: fmt::Debug>(before: State, after: Result<State, E>) -> String {
    match after {
        Ok(state) if state == before => "-".into(),
        Ok(state) => format!("{} [{}]", show(state), name(state)),
        Err(error) => format!("refused: {error:?}"),
    }
}

fn table() -> String {
    let mut text = String::new();
    for send in HALVES {
        for receive in HALVES {
            let state = State { send, receive };
            writeln!(text, "{} [{}]", show(state), name(state)).unwrap();
            for what in [
                Received::Interim,
                Received::Headers(End::No),
                Received::Headers(End::Yes),
                Received::Data(End::No),
                Received::Data(End::Yes),
            ] {
                let label = format!("received {what:?}");
                writeln!(text, "  {label:<22} {}", outcome(state, state.receive(what))).unwrap();
            }
            for what in [Sent::Headers(End::No), Sent::Headers(End::Yes), Sent::Data(End::No), Sent::Data(End::Yes)] {
                let label = format!("sent {what:?}");
                writeln!(text, "  {label:<22} {}", outcome(state, state.send(what))).unwrap();
            }
        }
    }
    text
}

#[test]
fn the_transition_table_is_the_one_on_record() {
    let actual = table();
    let recorded = include_str!("transitions.txt");
    assert_eq!(actual, recorded, "if the change is meant, put this into transitions.txt:\n{actual}");
}

#[test]
fn a_stream_is_small() {
    assert!(size_of::<Stream>() <= 40, "{} bytes", size_of::<Stream>());
}

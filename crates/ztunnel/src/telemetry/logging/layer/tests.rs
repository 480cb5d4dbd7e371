use tracing::subscriber::with_default;

use super::super::{Config, Format};
use crate::telemetry::fixtures::{log, logged};

/// What is logged by `events`, without the time.
fn lines(format: Format, directives: &str, events: impl FnOnce()) -> Vec<String> {
    let (logging, output) = log(Config { format, directives: directives.into() });
    with_default(logging.subscriber(), events);
    let text = logged(&logging, &output);
    text.lines().map(untimed).collect()
}

fn untimed(line: &str) -> String {
    match line.split_once('\t') {
        Some((_, rest)) => rest.to_owned(),
        None => {
            let (before, rest) = line.split_once("\"time\":\"").unwrap();
            format!("{before}{}", rest.split_once("\",").unwrap().1)
        }
    }
}

fn events() {
    let span = tracing::info_span!(target: "ztunnel::proxy", "proxy", wl = %"default/client", n = 1);
    let _outer = span.enter();
    let inner = tracing::info_span!("inbound", id = tracing::field::Empty, "odd \"name\"" = "x");
    inner.record("id", 7);
    let _inner = inner.enter();
    tracing::info!(target: "ztunnel::proxy::inbound", peer = ?Some(1), error = "a\nb", "accepted {}", "it");
    tracing::debug!(target: "dns", query = "A", endpoints = 0);
}

#[test]
fn text_lines_show_spans_with_the_scope() {
    assert_eq!(
        lines(Format::Text, "debug", events),
        [
            "info\tproxy::inbound:proxy{wl=default/client n=1}:inbound{odd \"name\"=\"x\" id=7}\taccepted it\t\
             peer=Some(1) error=\"a\\nb\"",
            "debug\tdns:proxy{wl=default/client n=1}:inbound{odd \"name\"=\"x\" id=7}\t\tquery=\"A\" endpoints=0",
        ]
    );
}

#[test]
fn json_lines_show_spans_after_the_fields() {
    let lines = lines(Format::Json, "debug", events);
    assert_eq!(
        lines[0],
        concat!(
            r#"{"level":"info","scope":"ztunnel::proxy::inbound","message":"accepted it","peer":"Some(1)","#,
            r#""error":"a\nb","proxy":{"wl":"default/client","n":1},"inbound":{"odd \"name\"":"x","id":7}}"#,
        )
    );
    assert!(serde_json::from_str::<serde_json::Value>(&lines[1]).is_ok(), "{}", lines[1]);
}

#[test]
fn the_message_comes_first_wherever_it_is_given() {
    let lines = lines(Format::Text, "info", || tracing::info!(target: "t", n = 1, message = "text"));
    assert_eq!(lines, ["info\tt\ttext\tn=1"]);
}

#[test]
fn a_change_of_the_filter_reaches_places_that_were_off_and_on() {
    let (logging, output) = log(Config::default());
    let speak = |n: u32| {
        tracing::debug!(target: "quiet", n, "debug");
        tracing::info!(target: "loud", n, "info");
    };
    with_default(logging.subscriber(), || {
        speak(1);
        logging.change(super::super::Base::Current, super::super::directives("loud=off,quiet:debug").unwrap());
        speak(2);
        logging.change(super::super::Base::Initial, []);
        speak(3);
    });
    let text = logged(&logging, &output);
    let shown: Vec<_> = text.lines().map(untimed).filter(|line| !line.contains("new log filter")).collect();
    assert_eq!(shown, ["info\tloud\tinfo\tn=1", "debug\tquiet\tdebug\tn=2", "info\tloud\tinfo\tn=3"]);
    let announced =
        "info\ttelemetry::logging\tnew log filter is hickory_server::server=off,quiet=debug,loud=off,info\t";
    assert!(text.lines().map(untimed).any(|line| line == announced), "{text}");
}

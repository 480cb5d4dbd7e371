use std::time::Duration;

use super::*;
use crate::telemetry::fixtures::example_time;

fn line(format: Format, level: Level, write: impl FnOnce(&mut Line<'_>)) -> String {
    let mut out = String::new();
    let mut line = Line::begin(&mut out, format, example_time(), level, "ztunnel::inpod::statemanager");
    write(&mut line);
    line.end();
    out
}

#[test]
fn a_text_line_is_the_reference_s_example() {
    let line = line(Format::Text, Level::INFO, |line| line.message(&"received snapshot sent"));
    assert_eq!(line, "2026-11-21T02:38:35.803626Z\tinfo\tinpod::statemanager\treceived snapshot sent\t\n");
}

#[test]
fn text_and_json_show_every_kind_of_value() {
    let write = |line: &mut Line<'_>| {
        line.message(&"all of it");
        line.field("text", Value::Text("a \"b\" \\ ä\u{7f}'"));
        line.field("quoted", Value::Quoted(&std::net::Ipv4Addr::LOCALHOST));
        line.field("bare", Value::Bare(&std::net::Ipv4Addr::LOCALHOST));
        line.field("unsigned", Value::Unsigned(u64::MAX));
        line.field("signed", Value::Signed(-1));
        line.field("float", Value::Float(0.5));
        line.field("no_number", Value::Float(f64::NAN));
        line.field("yes", Value::Bool(true));
    };
    assert_eq!(
        line(Format::Text, Level::TRACE, write),
        "2026-11-21T02:38:35.803626Z\ttrace\tinpod::statemanager\tall of it\ttext=\"a \\\"b\\\" \\\\ ä\\u{7f}'\" \
         quoted=\"127.0.0.1\" bare=127.0.0.1 unsigned=18446744073709551615 signed=-1 float=0.5 no_number=NaN yes=true\n"
    );
    assert_eq!(
        line(Format::Json, Level::WARN, write),
        "{\"level\":\"warn\",\"time\":\"2026-11-21T02:38:35.803626Z\",\"scope\":\"ztunnel::inpod::statemanager\",\
         \"message\":\"all of it\",\"text\":\"a \\\"b\\\" \\\\ ä\u{7f}'\",\"quoted\":\"127.0.0.1\",\
         \"bare\":\"127.0.0.1\",\"unsigned\":18446744073709551615,\"signed\":-1,\"float\":0.5,\"no_number\":\"NaN\",\
         \"yes\":true}\n"
    );
}

#[test]
fn nothing_that_is_logged_can_end_a_line_or_a_column() {
    let evil = "one\r\ntwo\tthree\u{1b}[31m";
    let write = |line: &mut Line<'_>| {
        line.message(&evil);
        line.field("bare", Value::Bare(&evil));
        line.field("text", Value::Text(evil));
    };
    let escaped = "one\\r\\ntwo\\tthree\\u{1b}[31m";
    assert_eq!(
        line(Format::Text, Level::ERROR, write),
        format!(
            "2026-11-21T02:38:35.803626Z\terror\tinpod::statemanager\t{escaped}\tbare={escaped} text=\"{escaped}\"\n"
        )
    );
    let json = line(Format::Json, Level::ERROR, write);
    assert_eq!(json.matches('\n').count(), 1);
    let value: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!([&value["message"], &value["bare"], &value["text"]], [evil; 3]);
}

#[test]
fn dates_are_right_at_the_edges_of_years_and_out_of_range() {
    let text = |seconds| {
        let mut out = String::new();
        timestamp(&mut out, UNIX_EPOCH + Duration::from_secs(seconds));
        out
    };
    assert_eq!(text(0), "1970-01-01T00:00:00.000000Z");
    assert_eq!(text(951_827_696), "2000-02-29T12:34:56.000000Z");
    assert_eq!(text(4_102_444_799), "2099-12-31T23:59:59.000000Z");
    assert_eq!(text(u64::MAX >> 2), "1970-01-01T00:00:00.000000Z");
    let mut out = String::new();
    timestamp(&mut out, UNIX_EPOCH - Duration::from_secs(1));
    assert_eq!(out, "1970-01-01T00:00:00.000000Z");
}

#[test]
fn a_value_that_logs_while_it_is_printed_does_not_disturb_the_line() {
    let mut inner = String::new();
    let mut outer = String::new();
    with_scratch(|line| {
        line.push_str("outer ");
        with_scratch(|line| {
            line.push_str("inner");
            inner.clone_from(line);
        });
        line.push_str("line");
        outer.clone_from(line);
    });
    assert_eq!((inner.as_str(), outer.as_str()), ("inner", "outer line"));
}

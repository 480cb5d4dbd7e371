use super::*;
use crate::telemetry::fixtures::{log, logged};

fn with(directives: &str) -> Config {
    Config { directives: directives.into(), ..Config::default() }
}

#[test]
fn a_setting_that_cannot_be_read_is_an_error_line_and_the_default() {
    let (logging, output) = log(with("access=loud"));
    let text = logged(&logging, &output);
    let (_, line) = text.split_once('\t').unwrap();
    assert!(line.starts_with("error\ttelemetry::logging\tRUST_LOG is not used: `access=loud` is not"), "{line}");
    assert!(line.ends_with("; logging at hickory_server::server=off,info\t\n"), "{line}");
    assert_eq!(logging.filter().to_string(), "hickory_server::server=off,info");
}

#[test]
fn whether_access_lines_are_on_follows_the_filter() {
    let (logging, _) = log(with("info,access=warn"));
    assert!(logging.logs_access(Level::WARN) && !logging.logs_access(Level::INFO));
    logging.change(Base::Current, directives("access:debug").unwrap());
    assert!(logging.logs_access(Level::DEBUG) && !logging.logs_access(Level::TRACE));
    logging.change(Base::Current, directives("access=off").unwrap());
    assert!(!logging.logs_access(Level::ERROR));
    logging.change(Base::Initial, directives("debug").unwrap());
    assert_eq!(logging.filter().to_string(), "hickory_server::server=off,access=warn,debug");
}

#[test]
fn what_is_queued_when_the_log_goes_away_is_still_written() {
    let (logging, output) = log(Config::default());
    output.stall();
    logging.write(|out| out.push_str("last words\n"));
    output.wait_until_stuck();
    let shared = Arc::downgrade(&logging.0.queue);
    drop(logging);
    output.resume();
    // The writer lets go of the queue when it has written everything.
    while shared.strong_count() > 0 {
        std::thread::yield_now();
    }
    assert_eq!(output.text(), "last words\n");
}

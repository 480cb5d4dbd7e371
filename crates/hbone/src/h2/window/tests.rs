//! Flow-control arithmetic, including windows below zero.

use super::*;

#[test]
fn a_send_window_goes_negative_and_reports_when_it_opens() {
    let mut window = SendWindow::new(100);
    window.consume(80);
    assert_eq!(window.adjust(-50), Ok(Opened::No));
    assert_eq!(window.available(), 0, "it is at -30");
    assert_eq!(window.adjust(30), Ok(Opened::No), "zero is not open");
    assert_eq!(window.adjust(1), Ok(Opened::Yes));
    assert_eq!(window.adjust(1), Ok(Opened::No), "it was open already");
    assert_eq!(window.available(), 2);
}

#[test]
fn a_send_window_cannot_exceed_the_largest_integer() {
    let mut window = SendWindow::new(1);
    assert_eq!(window.adjust(i64::from(MAX_WINDOW)), Err(Violation::WindowOverflow));
    assert_eq!(window.adjust(i64::from(MAX_WINDOW) - 1), Ok(Opened::No));
    assert_eq!(window.available(), MAX_WINDOW as usize);
}

#[test]
fn a_receive_window_refuses_what_exceeds_it_and_keeps_its_count() {
    let mut window = ReceiveWindow::new(10, 10);
    assert!(window.receive(7));
    assert!(!window.receive(4));
    assert!(window.receive(3));
    assert!(window.receive(0), "an empty frame fits a full window");
    assert_eq!((window.open(), window.held()), (0, 10));
}

#[test]
fn updates_are_announced_by_halves() {
    let mut window = ReceiveWindow::new(100, 100);
    assert!(window.receive(100));
    window.credit(49);
    assert_eq!(window.take_update(), None);
    window.credit(1);
    assert_eq!(window.take_update(), Some(50));
    assert_eq!(window.take_update(), None, "it is announced once");
    window.credit(50);
    assert_eq!(window.take_update(), Some(50));
    assert_eq!((window.open(), window.held()), (100, 0));
}

#[test]
fn a_raised_target_is_announced_and_a_lowered_one_is_reached_by_silence() {
    let mut window = ReceiveWindow::new(100, 100);
    window.resize(300);
    assert_eq!(window.take_update(), Some(200));
    window.resize(100);
    assert!(window.receive(200));
    window.credit(200);
    assert_eq!(window.take_update(), None, "the peer may still send all that the new size allows");
    assert!(window.receive(100));
    window.credit(100);
    assert_eq!(window.take_update(), Some(100));
}

#[test]
fn a_window_of_one_byte_still_moves() {
    let mut window = ReceiveWindow::new(1, 1);
    assert!(window.receive(1));
    window.credit(1);
    assert_eq!(window.take_update(), Some(1));
}

#[test]
fn an_initial_size_lowered_under_way_is_repaid_before_more_is_announced() {
    let mut window = ReceiveWindow::new(65_535, 1_000);
    assert!(window.receive(60_000));
    window.lower(64_535);
    assert_eq!(window.open(), 0, "it is at -59000");
    assert!(!window.receive(1));
    window.credit(60_000);
    assert_eq!(window.take_update(), Some(60_000));
    assert_eq!(window.open(), 1_000);
}

//! The two halves, polled by hand.

use std::io::ErrorKind;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Wake;

use mesh::Cause;

use super::*;

/// Counts how often it was woken.
#[derive(Default)]
struct Task(AtomicUsize);

impl Wake for Task {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

impl Task {
    fn woken(&self) -> usize {
        self.0.swap(0, Ordering::Relaxed)
    }
}

fn task() -> (Arc<Task>, Waker) {
    let task = Arc::new(Task::default());
    (Arc::clone(&task), Waker::from(task))
}

/// What one read brings.
fn read(half: &Half, most: usize) -> io::Result<Vec<u8>> {
    let mut room = vec![0; most];
    let n = half.read([&mut IoSliceMut::new(&mut room)])?;
    room.truncate(n);
    Ok(room)
}

fn kind<T>(outcome: io::Result<T>) -> Option<ErrorKind> {
    outcome.err().map(|error| error.kind())
}

#[test]
fn each_half_reads_what_the_other_writes_in_order() {
    let (a, b) = pair();
    assert_eq!(a.write([&b"one "[..], b"two"]).unwrap(), 7);
    assert_eq!(b.write([&b"three"[..]]).unwrap(), 5);
    let (mut first, mut second) = ([0; 3], [0; 10]);
    let places = &mut [IoSliceMut::new(&mut first), IoSliceMut::new(&mut second)];
    assert_eq!(b.read(places).unwrap(), 7);
    assert_eq!((&first[..], &second[..4]), (&b"one"[..], &b" two"[..]));
    assert_eq!(read(&a, 100).unwrap(), b"three");
    assert_eq!(kind(read(&a, 100)), Some(ErrorKind::WouldBlock));
}

#[test]
fn no_more_is_on_its_way_than_there_is_room_for() {
    let (a, b) = pair();
    let (task, waker) = task();
    let mut cx = Context::from_waker(&waker);
    let much: Vec<u8> = (0..ROOM + 1).map(|i| (i % 251) as u8).collect();
    assert_eq!(a.write([&much[..]]).unwrap(), ROOM);
    assert_eq!(kind(a.write([&b"x"[..]])), Some(ErrorKind::WouldBlock));
    assert!(a.poll_writable(&mut cx).is_pending());
    assert_eq!(read(&b, 1000).unwrap(), much[..1000]);
    assert_eq!(task.woken(), 1, "there is room again");
    assert!(a.poll_writable(&mut cx).is_ready());
    assert_eq!(a.write([&much[..]]).unwrap(), 1000);
    let rest = read(&b, 2 * ROOM).unwrap();
    assert_eq!(rest.len(), ROOM);
    assert!(rest.starts_with(&much[1000..ROOM]) && rest.ends_with(&much[..1000]), "also where the room wraps around");
}

#[test]
fn a_reader_is_woken_once_by_what_is_written() {
    let (a, b) = pair();
    let (task, waker) = task();
    assert!(b.poll_readable(&mut Context::from_waker(&waker)).is_pending());
    a.write([&b"x"[..]]).unwrap();
    a.write([&b"y"[..]]).unwrap();
    assert_eq!(task.woken(), 1);
    assert!(b.poll_readable(&mut Context::from_waker(&waker)).is_ready());
}

#[test]
fn an_end_comes_after_what_was_written_before_it() {
    let (a, b) = pair();
    let (task, waker) = task();
    a.write([&b"last"[..]]).unwrap();
    b.watch(&Context::from_waker(&waker));
    a.end();
    assert_eq!(task.woken(), 1);
    assert_eq!(read(&b, 100).unwrap(), b"last");
    assert_eq!(read(&b, 100).unwrap(), b"", "the end");
    assert_eq!(b.write([&b"still here"[..]]).unwrap(), 10);
    assert_eq!(read(&a, 100).unwrap(), b"still here", "the other direction goes on");
}

#[test]
fn a_half_that_is_gone_has_ended_and_takes_everything() {
    let (a, b) = pair();
    let (task, waker) = task();
    b.write([&b"bye"[..]]).unwrap();
    while a.write([&[0; 1000][..]]).is_ok() {}
    a.watch(&Context::from_waker(&waker));
    assert!(a.poll_writable(&mut Context::from_waker(&waker)).is_pending());
    assert!(!a.is_abandoned());
    drop(b);
    assert_eq!(task.woken(), 2, "reader and writer");
    assert!(a.is_abandoned());
    assert_eq!(a.write([&[0; 2 * ROOM][..]]).unwrap(), 2 * ROOM);
    assert_eq!(read(&a, 100).unwrap(), b"bye");
    assert_eq!(read(&a, 100).unwrap(), b"");
}

#[test]
fn what_is_broken_off_says_why_first_and_loses_what_was_on_its_way() {
    let (a, b) = pair();
    let (task, waker) = task();
    a.write([&b"lost"[..]]).unwrap();
    assert!(a.poll_readable(&mut Context::from_waker(&waker)).is_pending());
    b.break_off(Broken::Failed(Failure::lost(Cause::GatewayLost, "first")));
    b.break_off(Broken::Drained);
    assert_eq!(task.woken(), 1);
    for half in [&a, &b] {
        assert_eq!(kind(read(half, 100)), Some(ErrorKind::ConnectionReset));
        assert_eq!(kind(half.write([&b"x"[..]])), Some(ErrorKind::ConnectionReset));
        assert!(matches!(half.broken(), Some(Broken::Failed(failure)) if failure.error == "first"));
    }
}

#[test]
fn whether_anybody_got_through_is_known_to_both() {
    let (a, b) = pair();
    assert!(!a.is_connected() && !b.is_connected());
    a.connect();
    assert!(a.is_connected() && b.is_connected());
}

use std::io;
use std::sync::Arc;
use std::sync::mpsc;
use std::thread;

use super::*;
use crate::telemetry::fixtures::Output;

/// A queue whose output stalls with `first` in the writer's hands.
fn stalled(first: &str) -> (Arc<Queue>, Output, thread::JoinHandle<()>) {
    let (queue, output) = (Arc::new(Queue::new(Format::Text)), Output::default());
    output.stall();
    let writer = thread::spawn({
        let (queue, output) = (Arc::clone(&queue), output.clone());
        move || queue.write_to(output)
    });
    queue.push(first);
    output.wait_until_stuck();
    (queue, output, writer)
}

#[test]
fn a_full_queue_drops_and_counts_and_says_so_when_the_output_moves_again() {
    let (queue, output, writer) = stalled("first\n");
    // This thread would hang here if a full queue made it wait.
    for n in 0..MAX_QUEUED_LINES + 7 {
        queue.push(&format!("line {n}\n"));
    }
    assert_eq!(queue.dropped(), 7);
    output.resume();
    assert_eq!(queue.flush(FLUSH_TIMEOUT), Flushed::Complete);
    queue.push("after\n");
    queue.close();
    writer.join().unwrap();

    let text = output.text();
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(lines.len(), 1 + MAX_QUEUED_LINES + 1 + 1);
    assert_eq!((lines[0], lines[1]), ("first", "line 0"));
    assert_eq!(lines[MAX_QUEUED_LINES], format!("line {}", MAX_QUEUED_LINES - 1));
    let notice = lines[MAX_QUEUED_LINES + 1];
    assert!(
        notice.ends_with(
            "\twarn\ttelemetry::logging::writer\t\
             log lines were dropped: the output did not take them fast enough\tdropped=7"
        ),
        "{notice}"
    );
    assert_eq!(lines[MAX_QUEUED_LINES + 2], "after");
}

#[test]
fn the_queue_is_bounded_in_bytes_too() {
    let (queue, output, writer) = stalled("first\n");
    let big = "x".repeat(MAX_QUEUED_BYTES / 2);
    for _ in 0..3 {
        queue.push(&big);
    }
    assert_eq!(queue.dropped(), 1);
    output.resume();
    queue.close();
    writer.join().unwrap();
    assert!(output.text().len() >= MAX_QUEUED_BYTES);
}

#[test]
fn a_flush_does_not_wait_for_ever() {
    let (queue, output, writer) = stalled("first\n");
    assert_eq!(queue.flush(Duration::ZERO), Flushed::Stalled);
    output.resume();
    assert_eq!(queue.flush(FLUSH_TIMEOUT), Flushed::Complete);
    assert_eq!(output.text(), "first\n");
    queue.close();
    writer.join().unwrap();
}

#[test]
fn lines_of_many_threads_arrive_whole_and_all() {
    let (queue, output) = (Arc::new(Queue::new(Format::Text)), Output::default());
    thread::scope(|scope| {
        scope.spawn(|| queue.write_to(output.clone()));
        let loggers: Vec<_> = (0..4)
            .map(|thread| {
                let queue = &queue;
                scope.spawn(move || (0..500).for_each(|n| queue.push(&format!("{thread} {n}\n"))))
            })
            .collect();
        loggers.into_iter().for_each(|logger| logger.join().unwrap());
        queue.close();
    });
    let text = output.text();
    for thread in 0..4 {
        let own: Vec<_> = text.lines().filter_map(|line| line.strip_prefix(&format!("{thread} "))).collect();
        assert_eq!(own, (0..500).map(|n| n.to_string()).collect::<Vec<_>>());
    }
}

/// An output that fails as told, and then takes one byte at a time.
struct Fickle {
    failures: Vec<ErrorKind>,
    written: mpsc::Sender<u8>,
}

impl Write for Fickle {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if let Some(kind) = self.failures.pop() {
            return Err(kind.into());
        }
        self.written.send(bytes[0]).unwrap();
        Ok(1)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn an_output_that_would_block_is_tried_again() {
    let (written, read) = mpsc::channel();
    let failures = vec![ErrorKind::WouldBlock, ErrorKind::Interrupted];
    write_patiently(&mut Fickle { failures, written }, b"line\n").unwrap();
    assert_eq!(read.into_iter().collect::<Vec<_>>(), b"line\n");
}

#[test]
fn lines_for_an_output_that_is_gone_are_counted_and_the_writer_goes_on() {
    let queue = Queue::new(Format::Text);
    let (written, read) = mpsc::channel();
    let output = Fickle { failures: vec![ErrorKind::BrokenPipe], written };
    thread::scope(|scope| {
        queue.push("lost\n");
        queue.push("lost\n");
        scope.spawn(|| queue.write_to(output));
        assert_eq!(queue.flush(FLUSH_TIMEOUT), Flushed::Complete);
        assert_eq!(queue.dropped(), 2);
        queue.push("k\n");
        queue.close();
    });
    assert_eq!(read.into_iter().collect::<Vec<_>>(), b"k\n");
}

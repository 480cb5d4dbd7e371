//! Who decides, as it happens, whether a fault explains a line of the log or the end of a connection.
//!
//! Invariant: what is not explained is counted, and the first of each sort is kept word for word.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::books::Books;
use super::faults::Kind;
use super::history::History;
use super::life::{Life, PerLife};

/// Sorts of what is not explained that are told apart: one cause has many consequences, and a run may last for days.
const SORTS: usize = 20;

/// What is not explained and reads alike but for its numbers.
#[derive(Debug)]
pub(super) struct Sort {
    /// The first, word for word.
    pub(super) first: String,
    pub(super) first_at: Duration,
    pub(super) last_at: Duration,
    pub(super) count: u64,
}

/// What has been seen so far.
#[derive(Debug, Default)]
pub(super) struct Findings {
    /// Connections that were begun.
    pub(super) lives: PerLife,
    /// Bytes that clients have read and written.
    pub(super) bytes: u64,
    /// Names that were resolved.
    pub(super) names: u64,
    /// How long the slowest of each took.
    pub(super) slowest_connect: Duration,
    pub(super) slowest_name: Duration,
    /// Connections that went otherwise than they should, and errors, by the fault that explains them.
    pub(super) explained: BTreeMap<(Kind, &'static str), u64>,
    /// What nothing explains.
    pub(super) unexplained: u64,
    /// Its first [`SORTS`], by what they have in common.
    pub(super) sorts: BTreeMap<String, Sort>,
}

/// Shared by all that see something.
#[derive(Debug)]
pub(super) struct Judge {
    began: Instant,
    history: Mutex<History>,
    findings: Mutex<Findings>,
    books: Mutex<Books>,
}

impl Judge {
    pub(super) fn new() -> Self {
        let (history, findings, books) = Default::default();
        Self { began: Instant::now(), history, findings, books }
    }

    /// Since the beginning of the run.
    pub(super) fn now(&self) -> Duration {
        self.began.elapsed()
    }

    pub(super) fn history(&self) -> MutexGuard<'_, History> {
        lock(&self.history)
    }

    pub(super) fn findings(&self) -> MutexGuard<'_, Findings> {
        lock(&self.findings)
    }

    /// Of the ztunnel on the clients' node.
    pub(super) fn books(&self) -> MutexGuard<'_, Books> {
        lock(&self.books)
    }

    /// A connection has ended, or did not come about.
    pub(super) fn ended(&self, life: Life, opened: Duration, bytes: u64, surprise: Option<String>) {
        let mut findings = self.findings();
        findings.lives.count(life);
        findings.bytes += bytes;
        drop(findings);
        if let Some(surprise) = surprise {
            self.surprise(opened, format!("{life:?}: {surprise}"));
        }
    }

    /// A name was resolved.
    pub(super) fn resolved(&self, took: Duration) {
        let mut findings = self.findings();
        findings.names += 1;
        findings.slowest_name = findings.slowest_name.max(took);
    }

    /// A connection was established.
    pub(super) fn connected(&self, took: Duration) {
        let mut findings = self.findings();
        findings.slowest_connect = findings.slowest_connect.max(took);
    }

    /// Something went otherwise than it should, which began at that time.
    pub(super) fn surprise(&self, began: Duration, what: String) {
        let now = self.now();
        let cause = self.history().explains_end(began, now);
        let what =
            format!("at {:.3} s, {:.3} s after it began: {what}", now.as_secs_f64(), (now - began).as_secs_f64());
        self.judge(cause, "connections", now, what);
    }

    /// A ztunnel has logged something at level error.
    pub(super) fn error(&self, whose: &str, line: &str) {
        let now = self.now();
        let cause = self.history().explains_error(line, now);
        self.judge(
            cause,
            "errors",
            now,
            format!("at {:.3} s, in the log of the {whose} ztunnel: {line}", now.as_secs_f64()),
        );
    }

    fn judge(&self, cause: Option<Kind>, what: &'static str, now: Duration, words: String) {
        let mut findings = self.findings();
        if let Some(kind) = cause {
            *findings.explained.entry((kind, what)).or_default() += 1;
            return;
        }
        findings.unexplained += 1;
        let (common, room) = (without_numbers(&words), findings.sorts.len() < SORTS);
        match findings.sorts.get_mut(&common) {
            Some(sort) => (sort.count, sort.last_at) = (sort.count + 1, now),
            None if room => {
                // Whoever looks on may want to look into it while it lasts.
                println!("unexplained: {words}");
                findings.sorts.insert(common, Sort { first: words, first_at: now, last_at: now, count: 1 });
            }
            None => {}
        }
    }
}

/// The words of a text that have no digits in them.
fn without_numbers(text: &str) -> String {
    let words = text.split_whitespace().filter(|word| !word.contains(|c: char| c.is_ascii_digit()));
    words.collect::<Vec<_>>().join(" ")
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_what_nothing_explains_the_first_of_each_sort_is_kept_word_for_word() {
        let judge = Judge::new();
        (0..100).for_each(|number| judge.error("client's", &format!("error number {number}")));
        judge.ended(Life::Talk, Duration::ZERO, 0, Some("connection reset".to_owned()));
        let findings = judge.findings();
        assert_eq!(findings.unexplained, 101);
        let kept: Vec<_> = findings.sorts.values().map(|sort| (sort.count, sort.first.as_str())).collect();
        assert!(
            matches!(kept[..], [(100, error), (1, reset)]
                if reset.ends_with("after it began: Talk: connection reset")
                    && error.ends_with("in the log of the client's ztunnel: error number 0")),
            "{kept:?}"
        );
    }

    #[test]
    fn sorts_beyond_a_bound_are_only_counted() {
        let judge = Judge::new();
        ('a'..='z').for_each(|letter| judge.error("client's", &format!("error {letter}")));
        let findings = judge.findings();
        assert_eq!((findings.unexplained, findings.sorts.len()), (26, SORTS));
    }

    #[test]
    fn what_a_fault_explains_is_counted_under_its_name() {
        let judge = Judge::new();
        judge.history().begin(Kind::AppDies, Duration::ZERO);
        judge.ended(Life::Talk, Duration::ZERO, 10, Some("connection reset".to_owned()));
        let findings = judge.findings();
        assert_eq!(findings.explained, BTreeMap::from([((Kind::AppDies, "connections"), 1)]));
        assert_eq!((findings.unexplained, findings.bytes, findings.lives.sum()), (0, 10, 1));
    }
}

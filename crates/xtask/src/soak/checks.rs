//! What has to be true when a soak is over.
//!
//! Each check says in words what is wrong; a soak fails if any of them does, and shows them all.

use std::time::Instant;

use super::judge::{Findings, Judge, lock};
use super::records::Records;
use super::seat::{Holdings, Seat, Serving};
use super::stage::Stage;
use super::{DEADLINE, Outcome, PAUSE};

/// Descriptors beyond those before the first connection: some are cached.
const MORE_DESCRIPTORS: usize = 16;
/// Threads beyond those before the first connection: those for blocking calls end after a while.
const MORE_THREADS: usize = 8;
/// Resident memory, in KiB, beyond that before the first connection: what the allocator keeps of its highest use.
const MORE_RESIDENT_KIB: f64 = 64.0 * 1024.0;
/// What has to be 0 when no connection is left.
const LEFTOVERS: [&str; 5] = [
    "istio_tcp_sockets_open",
    "istio_hbone_streams_open",
    "istio_hbone_streams_half_closed",
    "istio_hbone_buffered_bytes",
    "istio_hbone_window_granted_bytes",
];

/// The samples of a metric.
pub(super) fn samples<'a>(text: &'a str, name: &'a str) -> impl Iterator<Item = &'a str> {
    text.lines().filter(move |line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' '])))
}

/// Their sum.
pub(super) fn total(text: &str, name: &str) -> u64 {
    samples(text, name).filter_map(|sample| sample.rsplit(' ').next()?.parse::<u64>().ok()).sum()
}

/// All that is wrong after the last connection has ended.
pub(super) fn all(stage: &Stage) -> Outcome<Vec<String>> {
    let mut wrong = Vec::new();
    for seat in stage.seats() {
        wrong.extend(settled(seat)?);
        let faults = !stage.judge.history().counts().is_empty();
        let memory = seat.look(|serving| Ok(serving.memory.wrong(seat.whose, serving.since.elapsed(), faults)))?;
        wrong.extend(memory.into_iter().flatten());
    }
    wrong.extend(books(stage)?);
    wrong.extend(unexplained(&stage.judge.findings()));
    Ok(wrong)
}

/// Waits until a ztunnel has nothing left and all records are written; what is still wrong then.
fn settled(seat: &Seat) -> Outcome<Vec<String>> {
    let start = Instant::now();
    loop {
        let wrong = seat.look(|serving| leftovers(serving, &seat.at_first))?.ok_or("a ztunnel is gone")?;
        if wrong.is_empty() || start.elapsed() > DEADLINE {
            let place = |what: String| format!("the {} ztunnel, {DEADLINE:?} after the end: {what}", seat.whose);
            return Ok(wrong.into_iter().map(place).collect());
        }
        std::thread::sleep(PAUSE);
    }
}

fn leftovers(serving: &Serving, first: &Holdings) -> Outcome<Vec<String>> {
    let text = serving.ztunnel.http_get(15020, "/metrics")?.body;
    let left = LEFTOVERS.iter().flat_map(|name| samples(&text, name)).filter(|sample| !sample.ends_with(" 0"));
    let mut wrong: Vec<String> = left.map(str::to_owned).collect();
    wrong.extend(unrecorded(&text, &lock(&serving.records)));
    wrong.extend(more_than_at_first(&serving.holdings()?, first));
    Ok(wrong)
}

/// Whether metrics and log tell of the same connections.
fn unrecorded(metrics: &str, records: &Records) -> Vec<String> {
    let expected = [
        ("istio_tcp_connections_opened_total", records.complete),
        ("istio_tcp_connections_closed_total", records.complete),
        ("istio_tcp_connections_denied_early_total", records.early),
        ("istio_log_lines_dropped_total", 0),
    ];
    let wrong = expected.into_iter().filter(|(name, count)| total(metrics, name) != *count);
    wrong.map(|(name, count)| format!("{name} is {}, the log has {count}", total(metrics, name))).collect()
}

fn more_than_at_first(now: &Holdings, first: &Holdings) -> Vec<String> {
    let mut wrong = Vec::new();
    if now.descriptors > first.descriptors + MORE_DESCRIPTORS {
        wrong.push(format!("{} descriptors, at first {}", now.descriptors, first.descriptors));
    }
    if now.threads > first.threads + MORE_THREADS {
        wrong.push(format!("{} threads, at first {}", now.threads, first.threads));
    }
    if now.resident_kib > first.resident_kib + MORE_RESIDENT_KIB {
        let mib = |kib: f64| kib / 1024.0;
        wrong.push(format!("{:.1} MiB, at first {:.1}", mib(now.resident_kib), mib(first.resident_kib)));
    }
    wrong
}

fn records(seat: &Seat) -> Outcome<Records> {
    let records = seat.look(|serving| Ok(lock(&serving.records).clone()))?;
    records.ok_or_else(|| format!("there is no {} ztunnel", seat.whose).into())
}

/// Whether every connection that clients know of has its record.
fn books(stage: &Stage) -> Outcome<Vec<String>> {
    let (near, far, books) = (records(&stage.clients)?, records(&stage.servers)?, stage.judge.books());
    let mut wrong: Vec<String> = books
        .compare(&near.outbound, near.unplaced)
        .into_iter()
        .map(|what| format!("on the way out, {what}"))
        .collect();
    // A connection that a fault kept from the other node has no record there.
    if !stage.judge.history().broke_any() {
        wrong.extend(
            books.compare(&far.inbound, near.unplaced).into_iter().map(|what| format!("on the way in, {what}")),
        );
    }
    Ok(wrong)
}

fn unexplained(findings: &Findings) -> Vec<String> {
    let count = findings.unexplained;
    let head =
        (count > 0).then(|| format!("{count} surprises that no fault explains, of which the first of each sort are:"));
    let mut sorts: Vec<_> = findings.sorts.values().collect();
    sorts.sort_by_key(|sort| sort.first_at);
    let sorts = sorts.into_iter().map(|sort| {
        format!("{} of which the last at {:.3} s, and the first {}", sort.count, sort.last_at.as_secs_f64(), sort.first)
    });
    head.into_iter().chain(sorts).collect()
}

/// What was seen, for the summary.
pub(super) fn seen(judge: &Judge) -> String {
    let findings = judge.findings();
    let Findings { lives, bytes, names, slowest_connect, slowest_name, .. } = &*findings;
    format!(
        "{} connections, {} MiB, {names} names; the slowest took {slowest_connect:.1?} to be accepted and {slowest_name:.1?} \
         to be answered",
        lives.sum(),
        bytes >> 20
    )
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::soak::judge::Sort;

    const METRICS: &str = "# TYPE istio_tcp_connections_opened counter\n\
                           istio_tcp_connections_opened_total{reporter=\"source\"} 4\n\
                           istio_tcp_connections_opened_total{reporter=\"destination\"} 3\n\
                           istio_tcp_connections_closed_total{reporter=\"source\"} 7\n\
                           istio_tcp_connections_denied_early_total{reporter=\"source\"} 1\n\
                           istio_log_lines_dropped_total 0\n";

    #[test]
    fn samples_of_a_metric_are_summed() {
        assert_eq!(total(METRICS, "istio_tcp_connections_opened_total"), 7);
        assert_eq!(total(METRICS, "istio_tcp_connections"), 0);
    }

    #[test]
    fn every_connection_that_metrics_count_has_a_record() {
        let whole = Records { complete: 7, early: 1, ..Records::default() };
        assert!(unrecorded(METRICS, &whole).is_empty());
        let one_missing = Records { complete: 6, ..whole };
        assert_eq!(
            unrecorded(METRICS, &one_missing),
            [
                "istio_tcp_connections_opened_total is 7, the log has 6",
                "istio_tcp_connections_closed_total is 7, the log has 6"
            ]
        );
    }

    #[test]
    fn what_nothing_explains_is_told_by_sorts_in_the_order_in_which_they_began() {
        let sort = |first: &str, first_at, last_at, count| {
            let [first_at, last_at] = [first_at, last_at].map(Duration::from_secs);
            Sort { first: first.to_owned(), first_at, last_at, count }
        };
        let sorts = [("a".to_owned(), sort("at 7 s: late", 7, 8, 2)), ("b".to_owned(), sort("at 5 s: early", 5, 9, 3))];
        let findings = Findings { unexplained: 5, sorts: sorts.into(), ..Findings::default() };
        assert_eq!(
            unexplained(&findings),
            [
                "5 surprises that no fault explains, of which the first of each sort are:",
                "3 of which the last at 9.000 s, and the first at 5 s: early",
                "2 of which the last at 8.000 s, and the first at 7 s: late"
            ]
        );
        assert!(unexplained(&Findings::default()).is_empty());
    }

    #[test]
    fn what_a_process_has_more_than_at_first_is_told() {
        let first = Holdings { resident_kib: 20_000.0, descriptors: 40, threads: 5 };
        assert!(more_than_at_first(&first, &first).is_empty());
        let more = Holdings { descriptors: 400, ..first };
        assert_eq!(more_than_at_first(&more, &first), ["400 descriptors, at first 40"]);
    }
}

//! Random schedules of two tunnels on a virtual link.

use std::collections::BTreeMap;

use fuzz::{Outcome, Seeded, schedule};

/// As many as fit into some seconds of an ordinary build; `cargo xtask full` asks for 10,000 by `SCHEDULES`.
const IN_EVERY_RUN: u64 = 1_000;
/// Decisions of a schedule.
const DECISIONS: usize = 400;

#[test]
fn random_schedules_end_with_equal_streams_or_with_the_same_error_on_both_sides() {
    let count = std::env::var("SCHEDULES").map_or(IN_EVERY_RUN, |count| count.parse().expect("SCHEDULES is a number"));
    let mut outcomes = BTreeMap::new();
    for seed in 0..count {
        let run = std::panic::catch_unwind(|| schedule(&mut Seeded::new(seed, DECISIONS)));
        let outcome = run.unwrap_or_else(|_| panic!("the schedule of seed {seed} fails; its panic is above"));
        *outcomes.entry(outcome).or_insert(0) += 1;
    }
    println!("{count} schedules: {outcomes:?}");
    for outcome in [Outcome::Whole, Outcome::Cut, Outcome::Damaged] {
        let seen = outcomes.get(&outcome).copied().unwrap_or(0);
        assert!(seen >= count / 100, "only {seen} of {count} schedules end {outcome:?}");
    }
}

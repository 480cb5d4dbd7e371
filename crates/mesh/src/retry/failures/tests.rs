//! Who is avoided, and for how long.

use super::*;
use crate::retry::{Others, PickRole};

fn pick(service: &str, uid: &str) -> Pick {
    Pick {
        service: format!("ns/{service}").parse().unwrap(),
        port: 80,
        uid: uid.into(),
        role: PickRole::Endpoint,
        others: Others::Left,
    }
}

fn is_avoided(failures: &Failures, pick: &Pick, now: Instant) -> bool {
    failures.avoided(&pick.service, pick.port, now).contains(&&pick.uid)
}

/// For how many whole seconds, counted from `now`, a pick is avoided.
fn seconds(failures: &Failures, pick: &Pick, now: Instant) -> u64 {
    (0..).find(|s| !is_avoided(failures, pick, now + Duration::from_secs(*s))).unwrap()
}

#[test]
fn each_failure_doubles_the_time_up_to_half_a_minute() {
    let (mut failures, a, mut now) = (Failures::default(), pick("web", "a"), Instant::now());
    for expected in [1, 2, 4, 8, 16, 30, 30] {
        failures.failed(&a, now);
        assert_eq!(seconds(&failures, &a, now), expected);
        now += Duration::from_secs(expected);
    }
}

#[test]
fn connections_that_failed_together_count_once() {
    let (mut failures, a, now) = (Failures::default(), pick("web", "a"), Instant::now());
    (0..100).for_each(|_| failures.failed(&a, now));
    assert_eq!(seconds(&failures, &a, now), 1);
}

#[test]
fn an_endpoint_whose_time_is_over_is_tried_by_one_connection_at_a_time() {
    let (mut failures, a, start) = (Failures::default(), pick("web", "a"), Instant::now());
    failures.failed(&a, start);
    let later = start + FIRST;
    assert!(!is_avoided(&failures, &a, later), "its time is over");
    failures.chosen(&a, later);
    assert!(is_avoided(&failures, &a, later), "somebody tries it");
    failures.failed(&a, later + Duration::from_millis(1));
    assert_eq!(seconds(&failures, &a, later + Duration::from_millis(1)), 2, "it failed a second time");
    failures.worked(&a);
    assert!(!is_avoided(&failures, &a, later) && failures.is_empty(), "it works");
}

#[test]
fn a_try_that_nobody_hears_of_again_does_not_keep_others_away_for_ever() {
    let (mut failures, a, start) = (Failures::default(), pick("web", "a"), Instant::now());
    failures.failed(&a, start);
    failures.chosen(&a, start + FIRST);
    assert!(!is_avoided(&failures, &a, start + FIRST + TRIAL));
}

#[test]
fn ports_and_services_are_told_apart() {
    let (mut failures, a, now) = (Failures::default(), pick("web", "a"), Instant::now());
    failures.failed(&a, now);
    assert!(!is_avoided(&failures, &Pick { port: 81, ..a.clone() }, now));
    assert!(!is_avoided(&failures, &pick("other", "a"), now));
    failures.worked(&Pick { port: 81, ..a.clone() });
    assert!(is_avoided(&failures, &a, now));
}

#[test]
fn what_has_the_longest_to_go_comes_first() {
    let (mut failures, start) = (Failures::default(), Instant::now());
    let [a, b, c] = ["a", "b", "c"].map(|uid| pick("web", uid));
    failures.failed(&a, start);
    failures.failed(&c, start + Duration::from_millis(2));
    failures.failed(&b, start + Duration::from_millis(1));
    let order: Vec<&Uid> = failures.avoided(&a.service, 80, start + Duration::from_millis(3));
    assert_eq!(order, [&c.uid, &b.uid, &a.uid]);
}

#[test]
fn what_is_remembered_is_bounded_and_forgotten() {
    let (mut failures, now) = (Failures::default(), Instant::now());
    for service in 0..2 * MAX_SERVICES {
        for uid in 0..2 * MAX_ENDPOINTS {
            failures.failed(&pick(&service.to_string(), &uid.to_string()), now);
        }
    }
    assert_eq!(failures.services.len(), MAX_SERVICES);
    assert!(failures.services.values().all(|failing| failing.len() == MAX_ENDPOINTS));
    let later = now + FIRST + LONGEST;
    failures.failed(&pick("web", "a"), later);
    assert_eq!(failures.services.len(), 1);
}

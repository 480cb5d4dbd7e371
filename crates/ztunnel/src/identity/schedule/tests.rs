//! The schedule under a clock that only the test moves.

use std::time::UNIX_EPOCH;

use super::timing::REFRESH_FLOOR;
use super::*;
use crate::identity::error::SignError;

const HOUR: Duration = Duration::from_secs(3600);

/// A certificate that is nothing but its dates and a name to tell it by.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Cert(&'static str, Validity);

impl Dated for Cert {
    fn validity(&self) -> Validity {
        self.1
    }
}

/// A schedule and the two clocks it is shown.
struct Rig {
    schedule: Schedule<Cert>,
    now: Now,
}

impl Rig {
    fn new() -> Self {
        let wall = UNIX_EPOCH + Duration::from_secs(1_800_000_000);
        Self { schedule: Schedule::default(), now: Now { instant: Instant::now(), wall } }
    }

    fn pass(&mut self, time: Duration) {
        self.now.instant += time;
        self.now.wall += time;
    }

    fn pass_secs(&mut self, seconds: u64) {
        self.pass(Duration::from_secs(seconds));
    }

    /// How long it is until the schedule wants to be looked at.
    fn planned(&self) -> Duration {
        let wake = self.schedule.wake(self.now).expect("something is planned");
        wake.saturating_duration_since(self.now.instant)
    }

    /// Lets time pass until the schedule wants to be looked at, and says how long that was.
    fn sleep(&mut self) -> Duration {
        let time = self.planned();
        self.pass(time);
        time
    }

    fn cert(&self, name: &'static str, life: Duration) -> Cert {
        Cert(name, Validity { not_before: self.now.wall, not_after: self.now.wall + life })
    }

    fn demand(&mut self, name: &str, priority: Priority) -> Answer<Cert> {
        self.schedule.demand(self.now, &id(name), priority)
    }

    fn start(&mut self) -> Option<Identity> {
        self.schedule.start(self.now)
    }

    fn started(&mut self) -> Vec<String> {
        std::iter::from_fn(|| self.start()).map(|id| id.service_account.to_string()).collect()
    }

    fn issue(&mut self, name: &str, cert: Cert) -> Settled {
        self.schedule.finish(self.now, &id(name), Ok(cert), Jitter::NONE)
    }

    fn fail(&mut self, name: &str) -> Settled {
        self.fail_with(name, Jitter::NONE)
    }

    fn fail_with(&mut self, name: &str, jitter: Jitter) -> Settled {
        self.schedule.finish(self.now, &id(name), Err(down()), jitter)
    }

    fn status(&self, name: &str) -> Option<Status<'_, Cert>> {
        self.schedule.status(self.now, &id(name))
    }

    /// A rig in which `a` has a certificate for `life`, fetched just now.
    fn with_certificate(life: Duration) -> Self {
        let mut rig = Self::new();
        rig.demand("a", Priority::RealTime);
        assert_eq!(rig.start(), Some(id("a")));
        let cert = rig.cert("first", life);
        rig.issue("a", cert);
        rig
    }
}

fn id(name: &str) -> Identity {
    format!("spiffe://td/ns/ns/sa/{name}").parse().unwrap()
}

fn down() -> IdentityError {
    SignError::Status { code: "Unknown error".into(), message: "client error (Connect)".into() }.into()
}

fn expired_error() -> IdentityError {
    super::expired().into()
}

#[test]
fn many_demands_for_one_identity_make_one_request() {
    let mut rig = Rig::new();
    for _ in 0..100 {
        assert_eq!(rig.demand("a", Priority::RealTime), Answer::Pending);
    }
    assert_eq!(rig.started(), ["a"]);
    assert_eq!(rig.demand("a", Priority::RealTime), Answer::Pending);
    assert!(rig.started().is_empty(), "it is with the CA already");
    let cert = rig.cert("first", HOUR);
    rig.issue("a", cert.clone());
    assert_eq!(rig.demand("a", Priority::RealTime), Answer::Ready(cert));
}

#[test]
fn the_most_urgent_goes_first_and_of_equals_the_oldest() {
    let mut rig = Rig::new();
    rig.demand("w1", Priority::Warmup);
    rig.demand("b1", Priority::Background);
    rig.demand("r1", Priority::RealTime);
    rig.demand("w0", Priority::Warmup);
    rig.demand("r0", Priority::RealTime);
    assert_eq!(rig.started(), ["r1", "r0", "w1", "w0", "b1"]);
}

#[test]
fn a_queued_request_becomes_as_urgent_as_its_most_urgent_demand() {
    let mut rig = Rig::new();
    rig.demand("other", Priority::Warmup);
    rig.demand("a", Priority::Background);
    rig.demand("a", Priority::RealTime);
    rig.demand("a", Priority::Warmup);
    assert_eq!(rig.status("a"), Some(Status::Initializing(Some(Priority::RealTime))));
    assert_eq!(rig.started(), ["a", "other"]);
}

#[test]
fn no_more_than_eight_are_with_the_ca_and_urgent_ones_take_the_next_place() {
    let mut rig = Rig::new();
    for n in 0..10 {
        rig.demand(&format!("w{n}"), Priority::Warmup);
    }
    assert_eq!(rig.started().len(), 8);
    assert_eq!(rig.schedule.wake(rig.now), None, "the queue waits for a place, not for a time");
    rig.demand("urgent", Priority::RealTime);
    assert!(rig.started().is_empty());
    rig.fail("w0");
    assert_eq!(rig.schedule.wake(rig.now), Some(rig.now.instant));
    assert_eq!(rig.started(), ["urgent"]);
}

#[test]
fn refresh_is_at_half_life_give_or_take_a_tenth_of_it() {
    for (jitter, minutes) in [(-1.0, 24), (-0.5, 27), (0.0, 30), (1.0, 36), (7.0, 36), (f64::NAN, 30)] {
        let mut rig = Rig::new();
        rig.demand("a", Priority::RealTime);
        rig.start();
        let cert = rig.cert("first", HOUR);
        let refresh = rig.now.wall + Duration::from_secs(minutes * 60);
        let settled = rig.schedule.finish(rig.now, &id("a"), Ok(cert), Jitter::new(jitter));
        let Settled::Issued { refresh: planned } = settled else { panic!("{settled:?}") };
        let off = planned.duration_since(refresh).unwrap_or_else(|early| early.duration());
        assert!(off < Duration::from_millis(1), "jitter {jitter}: off by {off:?}");

        assert!(rig.sleep().abs_diff(Duration::from_secs(minutes * 60)) < Duration::from_millis(1));
        assert_eq!(rig.started(), ["a"]);
    }
}

#[test]
fn a_certificate_past_its_half_life_on_arrival_is_refreshed_at_half_of_what_is_left_but_not_in_a_loop() {
    for (left, refresh) in [(40, 20), (20, 10), (10, 5), (4, 2), (2, 1), (0, 1)] {
        let mut rig = Rig::new();
        rig.demand("a", Priority::RealTime);
        rig.start();
        let validity =
            Validity { not_before: rig.now.wall - HOUR, not_after: rig.now.wall + Duration::from_secs(left) };
        rig.issue("a", Cert("old", validity));
        assert_eq!(rig.sleep(), Duration::from_secs(refresh), "{left} seconds left");
    }
    assert_eq!(REFRESH_FLOOR, Duration::from_secs(5));
}

#[test]
fn dates_in_the_wrong_order_or_in_the_future_are_survived() {
    let mut rig = Rig::new();
    rig.demand("a", Priority::RealTime);
    rig.start();
    let backwards = Validity { not_before: rig.now.wall + HOUR * 2, not_after: rig.now.wall + HOUR };
    rig.issue("a", Cert("backwards", backwards));
    assert_eq!(rig.sleep(), HOUR, "due when it ends");

    let mut rig = Rig::new();
    rig.demand("a", Priority::RealTime);
    rig.start();
    let early = Validity { not_before: rig.now.wall + HOUR, not_after: rig.now.wall + HOUR * 3 };
    rig.issue("a", Cert("early", early));
    assert!(matches!(rig.demand("a", Priority::RealTime), Answer::Ready(_)));
    assert_eq!(rig.sleep(), HOUR * 2);
}

#[test]
fn refreshes_follow_a_step_of_the_wall_clock() {
    let mut rig = Rig::with_certificate(HOUR);
    rig.now.wall += Duration::from_secs(40 * 60);
    assert_eq!(rig.started(), ["a"], "a suspended machine wakes up past the refresh");

    let mut rig = Rig::with_certificate(HOUR);
    rig.now.wall -= Duration::from_secs(10 * 60);
    assert_eq!(rig.sleep(), Duration::from_secs(40 * 60));
}

#[test]
fn failures_back_off_from_one_second_doubling_to_the_cap() {
    for (jitter, delays) in [
        (0.0, [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 150.0, 150.0]),
        (-1.0, [0.8, 1.6, 3.2, 6.4, 12.8, 25.6, 51.2, 102.4, 120.0, 120.0]),
        (1.0, [1.2, 2.4, 4.8, 9.6, 19.2, 38.4, 76.8, 150.0, 150.0, 150.0]),
    ] {
        let mut rig = Rig::new();
        rig.demand("a", Priority::RealTime);
        for delay in delays {
            assert_eq!(rig.started(), ["a"]);
            let settled = rig.fail_with("a", Jitter::new(jitter));
            let expected = Duration::from_secs_f64(delay);
            let Settled::Failed { retry, .. } = settled else { panic!("{settled:?}") };
            assert!(retry.abs_diff(expected) < Duration::from_micros(1), "{retry:?} instead of {expected:?}");
            assert!(rig.started().is_empty(), "not before its time");
            assert_eq!(rig.sleep(), retry);
        }
    }
}

#[test]
fn a_success_starts_the_backoff_anew() {
    let mut rig = Rig::new();
    rig.demand("a", Priority::RealTime);
    for _ in 0..4 {
        rig.start();
        rig.fail("a");
        rig.sleep();
    }
    rig.start();
    let cert = rig.cert("first", HOUR);
    rig.issue("a", cert);
    rig.sleep();
    rig.start();
    assert!(matches!(rig.fail("a"), Settled::Retained { retry, .. } if retry == Duration::from_secs(1)));
}

#[test]
fn endless_failures_do_not_overflow() {
    let mut rig = Rig::new();
    rig.demand("a", Priority::RealTime);
    for _ in 0..100 {
        rig.start();
        rig.fail("a");
        rig.sleep();
    }
    rig.start();
    assert!(matches!(rig.fail("a"), Settled::Failed { retry, .. } if retry == timing::BACKOFF_CAP));
}

#[test]
fn a_valid_certificate_is_served_to_its_last_second_while_renewal_fails() {
    let mut rig = Rig::with_certificate(Duration::from_secs(100));
    let until = rig.now.wall + Duration::from_secs(100);
    let mut attempts = 0;
    while rig.now.wall < until {
        rig.sleep();
        assert!(matches!(rig.demand("a", Priority::RealTime), Answer::Ready(Cert("first", _))));
        assert_eq!(rig.started(), ["a"]);
        let settled = rig.fail("a");
        assert!(matches!(&settled, Settled::Retained { until: end, .. } if *end == until), "{settled:?}");
        attempts += 1;
    }
    assert_eq!(rig.now.wall, until, "the last attempt is made when the certificate ends");
    assert!(attempts >= 5, "{attempts} attempts");

    rig.pass(Duration::from_millis(999));
    assert!(matches!(rig.status("a"), Some(Status::Available(_))), "the last second counts");
    rig.pass(Duration::from_millis(1));
    assert_eq!(rig.status("a"), Some(Status::Unavailable(&down())));
}

#[test]
fn demand_cuts_a_backoff_short_but_not_below_the_floor() {
    let mut rig = Rig::new();
    rig.demand("a", Priority::RealTime);
    for _ in 0..6 {
        rig.start();
        rig.fail("a");
        rig.sleep();
    }
    rig.start();
    assert!(matches!(rig.fail("a"), Settled::Failed { retry, .. } if retry == Duration::from_secs(64)));

    rig.pass_secs(2);
    assert_eq!(rig.demand("a", Priority::RealTime), Answer::Failed(down()), "too soon after the last attempt");
    assert_eq!(rig.sleep(), DEMAND_FLOOR - Duration::from_secs(2), "but the retry has been brought forward");
    assert_eq!(rig.demand("a", Priority::RealTime), Answer::Pending);
    assert_eq!(rig.started(), ["a"]);
    assert_eq!(rig.demand("a", Priority::RealTime), Answer::Pending, "callers join the attempt");
    rig.fail("a");

    rig.pass_secs(20);
    rig.demand("b", Priority::Warmup);
    assert_eq!(rig.demand("a", Priority::RealTime), Answer::Pending, "past the floor it is tried at once");
    assert_eq!(rig.started(), ["a", "b"], "with the urgency of the demand");
}

#[test]
fn a_retry_that_is_due_anyway_is_not_put_off_by_demand() {
    let mut rig = Rig::new();
    rig.demand("a", Priority::RealTime);
    rig.start();
    rig.fail("a");
    rig.demand("a", Priority::RealTime);
    assert_eq!(rig.sleep(), Duration::from_secs(1), "the first backoff is shorter than the floor");
}

#[test]
fn a_success_shows_that_the_ca_is_back_and_brings_all_retries_forward() {
    let mut rig = Rig::new();
    rig.demand("a", Priority::RealTime);
    for _ in 0..6 {
        rig.start();
        rig.fail("a");
        rig.sleep();
    }
    rig.start();
    rig.fail("a"); // to be retried after 64 s
    rig.demand("b", Priority::RealTime);
    assert_eq!(rig.started(), ["b"]);
    rig.pass_secs(2);
    let cert = rig.cert("b", HOUR);
    rig.issue("b", cert.clone());
    assert_eq!(rig.sleep(), DEMAND_FLOOR - Duration::from_secs(2));
    assert_eq!(rig.started(), ["a"]);
    rig.fail("a");

    rig.demand("c", Priority::RealTime);
    assert_eq!(rig.started(), ["c"]);
    rig.pass_secs(20);
    rig.issue("c", cert);
    assert_eq!(rig.sleep(), Duration::ZERO, "the floor has passed");
    assert_eq!(rig.started(), ["a"]);
}

#[test]
fn an_expired_certificate_from_the_ca_is_a_failure() {
    let mut rig = Rig::with_certificate(HOUR);
    rig.sleep();
    rig.start();
    let dead = Cert("dead", Validity { not_before: rig.now.wall - HOUR * 2, not_after: rig.now.wall - HOUR });
    let settled = rig.issue("a", dead.clone());
    assert!(matches!(settled, Settled::Retained { error, .. } if error == expired_error()));
    assert!(matches!(rig.demand("a", Priority::RealTime), Answer::Ready(Cert("first", _))));

    rig.demand("b", Priority::RealTime);
    rig.start();
    assert!(matches!(rig.issue("b", dead), Settled::Failed { .. }));
    assert_eq!(rig.status("b"), Some(Status::Unavailable(&expired_error())));
}

#[test]
fn a_certificate_that_expired_unnoticed_is_asked_for_by_the_next_demand() {
    let mut rig = Rig::with_certificate(HOUR);
    rig.now.wall += HOUR * 2;
    rig.pass_secs(10);
    assert_eq!(rig.demand("a", Priority::RealTime), Answer::Pending);
    assert_eq!(rig.started(), ["a"]);
}

#[test]
fn forgetting_a_queued_identity_drops_its_request() {
    let mut rig = Rig::new();
    rig.demand("a", Priority::Warmup);
    rig.schedule.forget(rig.now, &id("a"));
    assert_eq!(rig.status("a"), None);
    assert!(rig.started().is_empty());
    rig.schedule.forget(rig.now, &id("never seen"));
}

#[test]
fn the_result_for_a_forgotten_identity_is_dropped_unless_it_is_wanted_again() {
    let mut rig = Rig::new();
    rig.demand("a", Priority::RealTime);
    rig.start();
    rig.schedule.forget(rig.now, &id("a"));
    let cert = rig.cert("first", HOUR);
    assert_eq!(rig.issue("a", cert.clone()), Settled::Discarded);
    assert_eq!(rig.status("a"), None);

    rig.demand("a", Priority::RealTime);
    rig.start();
    rig.schedule.forget(rig.now, &id("a"));
    assert_eq!(rig.demand("a", Priority::RealTime), Answer::Pending);
    assert!(rig.started().is_empty(), "the request under way serves again");
    rig.issue("a", cert.clone());
    assert_eq!(rig.demand("a", Priority::RealTime), Answer::Ready(cert));
}

#[test]
fn a_forgotten_certificate_comes_back_within_the_grace_and_is_not_renewed_meanwhile() {
    let mut rig = Rig::with_certificate(Duration::from_secs(60));
    rig.pass_secs(25);
    rig.schedule.forget(rig.now, &id("a"));
    assert_eq!(rig.status("a"), None, "it is out of use at once");
    rig.pass_secs(10);
    assert!(rig.started().is_empty(), "its refresh is past due, but nobody wants it");
    assert!(matches!(rig.demand("a", Priority::Warmup), Answer::Ready(Cert("first", _))));
    assert_eq!(rig.started(), ["a"], "the refresh is made up for");
}

#[test]
fn after_the_grace_nothing_is_left_of_a_forgotten_identity() {
    let mut rig = Rig::with_certificate(HOUR);
    rig.schedule.forget(rig.now, &id("a"));
    rig.pass_secs(30);
    rig.schedule.forget(rig.now, &id("a"));
    assert_eq!(rig.sleep(), FORGET_GRACE - Duration::from_secs(30), "forgetting twice does not extend it");
    assert!(rig.started().is_empty());
    assert!(rig.schedule.entries.is_empty());
    assert_eq!(rig.schedule.wake(rig.now), None);
    assert_eq!(rig.demand("a", Priority::RealTime), Answer::Pending);
}

#[test]
fn forgetting_during_a_renewal_keeps_the_place_with_the_ca_until_it_answers() {
    let mut rig = Rig::with_certificate(HOUR);
    rig.sleep();
    assert_eq!(rig.started(), ["a"]);
    rig.schedule.forget(rig.now, &id("a"));
    rig.pass(FORGET_GRACE);
    assert!(rig.started().is_empty());
    assert_eq!(rig.demand("a", Priority::RealTime), Answer::Pending);
    assert!(rig.started().is_empty(), "still one request for one identity");
    let cert = rig.cert("second", HOUR);
    assert!(matches!(rig.issue("a", cert), Settled::Issued { .. }));
}

#[test]
fn overdue_retries_keep_the_order_of_their_times() {
    let mut rig = Rig::new();
    for name in ["c", "a", "b"] {
        rig.demand(name, Priority::RealTime);
        assert_eq!(rig.started(), [name]);
        rig.fail(name);
        rig.pass(Duration::from_millis(10));
    }
    rig.pass_secs(3);
    assert_eq!(rig.started(), ["c", "a", "b"]);
}

#[test]
fn a_certificate_that_is_held_back_is_in_use_when_its_time_has_come_or_its_predecessor_has_ended() {
    let lasting = |rig: &Rig, seconds| Validity {
        not_before: rig.now.wall,
        not_after: rig.now.wall + Duration::from_secs(seconds),
    };
    for (lives, held, promoted) in [(3600, 60, 60), (30, 60, 31)] {
        let mut rig = Rig::new();
        let (old, new) = (Cert("old", lasting(&rig, lives)), Cert("new", lasting(&rig, 7200)));
        rig.demand("a", Priority::RealTime);
        rig.start();
        rig.issue("a", new);
        rig.schedule.hold(&id("a"), old.clone(), rig.now.instant + Duration::from_secs(held));
        let start = rig.now;
        for second in 0..=promoted {
            let at = Duration::from_secs(second);
            rig.now = Now { instant: start.instant + at, wall: start.wall + at };
            let due = second == promoted;
            assert_eq!(rig.schedule.promote(rig.now).is_empty(), !due, "after {second} s");
            let status = rig.schedule.status(rig.now, &id("a"));
            assert!(matches!(status, Some(Status::Available(c)) if (c.0 == "new") == due), "after {second} s");
        }
    }
}

#[test]
fn refreshes_are_brought_forward_within_a_spread_and_a_quarter_of_what_is_left() {
    let mut rig = Rig::new();
    rig.demand("a", Priority::RealTime);
    rig.start();
    let validity = Validity { not_before: rig.now.wall, not_after: rig.now.wall + HOUR };
    rig.issue("a", Cert("a", validity));
    assert_eq!(rig.planned(), HOUR / 2);
    rig.schedule.hasten_refreshes(rig.now, 10 * HOUR, || 1.0);
    assert_eq!(rig.planned(), HOUR / 4);
    rig.schedule.hasten_refreshes(rig.now, Duration::from_secs(60), || 0.5);
    assert_eq!(rig.planned(), Duration::from_secs(30));
    rig.schedule.hasten_refreshes(rig.now, HOUR, || 1.0);
    assert_eq!(rig.planned(), Duration::from_secs(30), "nothing is put off");
}

//! One connection's attempts: what each kind of failure leads to, and that there is an end.

use super::*;

const WHOLE: Duration = Duration::from_secs(9);

fn pick(name: &str, role: PickRole, others: Others) -> Pick {
    Pick { service: "ns/web.example".parse().unwrap(), port: 80, uid: name.into(), role, others }
}

fn endpoint(name: &str) -> Pick {
    pick(name, PickRole::Endpoint, Others::Left)
}

#[test]
fn what_follows_a_failure_depends_on_its_kind_and_on_the_alternatives() {
    let last = pick("a", PickRole::Endpoint, Others::None);
    let way = pick("a", PickRole::Way, Others::Left);
    let rows = [
        ("refused, with alternatives", Some(endpoint("a")), Fault::Unreachable, Next::Again),
        ("timed out, with alternatives", Some(endpoint("a")), Fault::TimedOut, Next::Again),
        ("its app refused", Some(endpoint("a")), Fault::Unavailable, Next::Again),
        ("a waypoint cannot be reached", Some(way.clone()), Fault::Unreachable, Next::Again),
        ("a waypoint cannot reach what is behind it", Some(way), Fault::Unavailable, Next::GiveUp),
        ("bytes in doubt", Some(endpoint("a")), Fault::Final, Next::GiveUp),
        ("refused, the last one", Some(last.clone()), Fault::Unreachable, Next::GiveUp),
        ("cut short, the last one", Some(last.clone()), Fault::TimedOut, Next::Again),
        ("its app refused, the last one", Some(last), Fault::Unavailable, Next::GiveUp),
        ("refused, without a choice", None, Fault::Unreachable, Next::GiveUp),
        ("cut short, without a choice", None, Fault::TimedOut, Next::Again),
    ];
    for (case, pick, fault, expected) in rows {
        let now = Instant::now();
        let mut attempts = Attempts::new(RetrySettings::Within(WHOLE), now);
        assert_eq!(attempts.failed(pick.as_ref(), fault, now), expected, "{case}");
        let excluded = expected == Next::Again && pick.as_ref().is_some_and(|pick| pick.others == Others::Left);
        assert_eq!(attempts.tried().len(), usize::from(excluded), "{case}");
        let mut off = Attempts::new(RetrySettings::Off, now);
        assert_eq!(off.failed(pick.as_ref(), fault, now), Next::GiveUp, "{case}, retries off");
    }
}

#[test]
fn attempts_with_alternatives_take_a_third_of_the_time_and_the_last_takes_what_is_left() {
    let start = Instant::now();
    let attempts = Attempts::new(RetrySettings::Within(WHOLE), start);
    let seconds = |pick: Option<&Pick>, at| attempts.patience(pick, start + Duration::from_secs(at)).unwrap().as_secs();
    let last = pick("b", PickRole::Endpoint, Others::None);
    assert_eq!(seconds(Some(&endpoint("a")), 0), 3);
    assert_eq!(seconds(Some(&endpoint("a")), 8), 1);
    assert_eq!(seconds(Some(&last), 3), 6);
    assert_eq!(seconds(None, 0), 9);
    assert_eq!(seconds(None, 20), 0);
    assert_eq!(Attempts::new(RetrySettings::Off, start).patience(None, start), None);
    let (on, off) = (RetrySettings::Within(WHOLE), RetrySettings::Off);
    assert_eq!(
        (on.attempt(), on.tunnel()),
        (Some(WHOLE / 3), Some(WHOLE / 2)),
        "a tunnel is shared, and may take longer"
    );
    assert_eq!((off.attempt(), off.tunnel()), (None, None));
}

#[test]
fn an_answer_is_waited_for_as_long_as_it_takes_where_nobody_else_could_give_it_in_time() {
    let start = Instant::now();
    let at = |attempts: &Attempts, pick: Option<&Pick>, seconds| {
        attempts.patience_for_answer(pick, start + Duration::from_secs(seconds)).map(|patience| patience.as_secs())
    };
    let mut attempts = Attempts::new(RetrySettings::Within(WHOLE), start);
    let (some, last) = (endpoint("a"), pick("b", PickRole::Endpoint, Others::None));
    assert_eq!(at(&attempts, Some(&some), 0), Some(3));
    assert_eq!(at(&attempts, Some(&some), 5), Some(3));
    assert_eq!(at(&attempts, Some(&some), 6), None, "the time that is left is no more than an attempt's");
    assert_eq!((at(&attempts, Some(&last), 0), at(&attempts, None, 0)), (None, None));
    for _ in 0..MAX_ATTEMPTS - 1 {
        assert_eq!(at(&attempts, Some(&some), 0), Some(3));
        let _ = attempts.failed(Some(&some), Fault::Unreachable, start);
    }
    assert_eq!(at(&attempts, Some(&some), 0), None, "there is no attempt after this one");
    assert_eq!(at(&Attempts::new(RetrySettings::Off, start), Some(&some), 0), None);
}

#[test]
fn attempts_end_with_the_deadline_and_are_bounded_before_it() {
    let start = Instant::now();
    let mut late = Attempts::new(RetrySettings::Within(WHOLE), start);
    let just = start + WHOLE - Duration::from_millis(1);
    assert_eq!(late.failed(Some(&endpoint("a")), Fault::Unreachable, just), Next::Again);
    assert_eq!(late.failed(Some(&endpoint("b")), Fault::Unreachable, start + WHOLE), Next::GiveUp);
    let mut many = Attempts::new(RetrySettings::Within(WHOLE), start);
    let again =
        (0..100).take_while(|i| many.failed(Some(&endpoint(&i.to_string())), Fault::Unreachable, start) == Next::Again);
    assert_eq!(again.count(), MAX_ATTEMPTS - 1);
}

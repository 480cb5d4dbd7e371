use super::*;
use crate::dns::wire::tests::{opt, own, query, response};

const UPSTREAM: Option<SocketAddr> = None;

struct Fixture {
    cache: Cache,
    start: Instant,
}

impl Fixture {
    fn new() -> Self {
        Self { cache: Cache::default(), start: Instant::now() }
    }

    fn at(&self, seconds: u64) -> Instant {
        self.start + Duration::from_secs(seconds)
    }

    fn keep(&mut self, asked: &[u8], ttl: u32, data: &[u8]) {
        let message = response(asked, 0, [1, 0, 0], &own(16, ttl, data));
        let parsed = Query::parse(asked).unwrap();
        let answer = Answer::parse(&message, asked, &parsed).unwrap();
        self.cache.keep(self.start, &parsed, asked, UPSTREAM, (&message, &answer));
    }

    fn get(&mut self, seconds: u64, asked: &[u8]) -> Kept {
        let now = self.at(seconds);
        self.cache.get(now, &Query::parse(asked).unwrap(), asked, UPSTREAM)
    }

    fn get_stale(&mut self, seconds: u64, asked: &[u8]) -> Option<Vec<u8>> {
        let now = self.at(seconds);
        self.cache.get_stale(now, &Query::parse(asked).unwrap(), asked, UPSTREAM)
    }
}

#[test]
fn an_answer_is_told_for_its_time_less_what_has_passed_in_the_spelling_of_who_asks() {
    let mut fixture = Fixture::new();
    let (asked, mut again) = (query("a.example", 16, [0; 3], &[]), query("A.Example", 16, [0; 3], &[]));
    again[0] = 0x77;
    fixture.keep(&asked, 60, b"\x01x");
    assert_eq!(fixture.get(45, &again), Kept::Fresh(response(&again, 0, [1, 0, 0], &own(16, 15, b"\x01x"))));
    assert_eq!(fixture.get(60, &again), Kept::Nothing);
}

#[test]
fn whatever_an_answer_depends_on_tells_queries_apart() {
    let mut fixture = Fixture::new();
    let asked = query("a.example", 16, [0; 3], &[]);
    fixture.keep(&asked, 60, b"\x01x");
    let mut checked = asked.clone();
    checked[3] |= 0x10;
    let with = |dnssec| query("a.example", 16, [0, 0, 1], &opt(0, dnssec, &[]));
    for other in [query("b.example", 16, [0; 3], &[]), query("a.example", 1, [0; 3], &[]), checked, with(0), with(0x80)]
    {
        assert_eq!(fixture.get(0, &other), Kept::Nothing, "{other:?}");
    }
    let (parsed, elsewhere) = (Query::parse(&asked).unwrap(), Some("192.0.2.1:53".parse().unwrap()));
    assert_eq!(fixture.cache.get(fixture.start, &parsed, &asked, elsewhere), Kept::Nothing);
    // Options may be for one client alone.
    let own_options = query("a.example", 16, [0, 0, 1], &opt(0, 0, &[0, 10, 0, 0]));
    fixture.keep(&own_options, 60, b"\x01x");
    assert_eq!(fixture.get(0, &own_options), Kept::Nothing);
}

#[test]
fn what_is_over_is_told_while_nobody_answers_at_once_for_a_while_and_not_for_ever() {
    let mut fixture = Fixture::new();
    let asked = query("a.example", 16, [0; 3], &[]);
    fixture.keep(&asked, 60, b"\x01x");
    let stale = response(&asked, 0, [1, 0, 0], &own(16, 30, b"\x01x"));
    assert_eq!(fixture.get(100, &asked), Kept::Nothing, "nobody knows yet that the upstream is gone");
    assert_eq!(fixture.get_stale(101, &asked), Some(stale.clone()));
    assert_eq!(fixture.get(102, &asked), Kept::Stale(stale.clone(), Refresh::Due));
    assert_eq!(fixture.get(102, &asked), Kept::Stale(stale.clone(), Refresh::NotDue));
    assert_eq!(fixture.get(103, &asked), Kept::Stale(stale, Refresh::Due));
    assert_eq!(fixture.get(101 + RECHECK.as_secs(), &asked), Kept::Nothing);
    assert_eq!(fixture.get_stale(60 + STALE_FOR.as_secs(), &asked), None);
}

#[test]
fn an_answer_of_a_year_is_kept_and_told_for_an_hour() {
    let mut fixture = Fixture::new();
    let asked = query("a.example", 16, [0; 3], &[]);
    fixture.keep(&asked, 31_536_000, b"\x01x");
    assert_eq!(fixture.get(0, &asked), Kept::Fresh(response(&asked, 0, [1, 0, 0], &own(16, 3600, b"\x01x"))));
    assert_eq!(fixture.get(3600, &asked), Kept::Nothing);
}

#[test]
fn memory_is_bounded_and_what_is_used_stays() {
    let mut fixture = Fixture::new();
    let used = query("used.example", 16, [0; 3], &[]);
    fixture.keep(&used, 600, b"\x01x");
    for n in 0..20_000 {
        let asked = query(&format!("n{n}.example"), 16, [0; 3], &[]);
        fixture.keep(&asked, 600, &[0; 200]);
        assert!(matches!(fixture.get(1, &used), Kept::Fresh(_)), "{n}");
    }
    let all = fixture.cache.recent.iter().chain(&fixture.cache.former);
    let bytes: usize = all.map(|(key, entry)| key.len() + entry.message.len() + OVERHEAD).sum();
    assert!(bytes <= MOST_BYTES && fixture.cache.bytes <= MOST_BYTES / 2, "{bytes}");
}

//! Addresses of host names that have been found out, kept for as long as they hold (spec data-plane 4.6).
//!
//! One for the whole process, since all names are looked up from its own namespace. Bounded in number; what has not been
//! used for long goes first. What is over is kept for a while, in case nobody answers. Times are arguments; asking is
//! [`driver`](super::driver)'s.

pub(super) mod file;

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// Host names that are kept (spec data-plane 4.6 has as many answers).
pub(super) const MOST_HOSTS: usize = 4096;
/// Addresses kept of one host; no real name has more, and none is needed.
const MOST_ADDRESSES: usize = 64;
/// The shortest that anything is kept: a connection that comes at once need not ask anew.
const SHORTEST: Duration = Duration::from_secs(1);
/// The longest, whatever the answer says: whoever changes a record of a day need not wait for us.
const LONGEST: Duration = Duration::from_secs(3600);
/// The longest that a part of an answer is kept: the rest may have been late.
const PART: Duration = Duration::from_secs(5);
/// How long addresses that are over may be used while nobody answers (RFC 8767).
const STALE_FOR: Duration = Duration::from_secs(3600);
/// How long nobody is asked again then.
const STALE_FOR_NOW: Duration = Duration::from_secs(5);

/// What a host name comes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// These addresses; none if the name has other records only.
    Addresses(Vec<IpAddr>),
    /// There is no such name.
    NoName,
}

/// How much of an answer there was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Extent {
    /// All that was asked for.
    Whole,
    /// One family, while nothing is known of the other.
    Part,
}

/// The names that are known.
#[derive(Debug, Default)]
pub struct Hosts {
    /// Used lately, and before that: when the first is full it becomes the second, which goes.
    recent: HashMap<Box<str>, Entry>,
    former: HashMap<Box<str>, Entry>,
}

#[derive(Debug, Clone)]
struct Entry {
    answer: Answer,
    /// Until when it is told without asking.
    until: Instant,
    /// Until when it is told if nobody answers.
    stale_until: Instant,
}

impl Hosts {
    /// What is known and still holds.
    pub fn get(&mut self, now: Instant, name: &str) -> Option<Answer> {
        self.entry(name).filter(|entry| now < entry.until).map(|entry| entry.answer.clone())
    }

    /// What may be told although it is over, because nobody answers. It then holds for a moment more.
    pub fn get_stale(&mut self, now: Instant, name: &str) -> Option<Answer> {
        let entry = self.entry(name).filter(|entry| now < entry.stale_until)?;
        entry.until = entry.until.max((now + STALE_FOR_NOW).min(entry.stale_until));
        Some(entry.answer.clone())
    }

    /// Keeps what was found out, for as long as it says.
    pub fn keep(&mut self, now: Instant, name: &str, answer: Answer, extent: Extent, ttl: Duration) {
        let most = if extent == Extent::Whole { LONGEST } else { PART };
        let answer = match answer {
            Answer::Addresses(mut addresses) => {
                addresses.truncate(MOST_ADDRESSES);
                Answer::Addresses(addresses)
            }
            Answer::NoName => Answer::NoName,
        };
        let until = now + ttl.clamp(SHORTEST, most);
        self.former.remove(name);
        self.put(name.into(), Entry { answer, until, stale_until: until + STALE_FOR });
    }

    fn entry(&mut self, name: &str) -> Option<&mut Entry> {
        if let Some((name, entry)) = self.former.remove_entry(name) {
            self.put(name, entry);
        }
        self.recent.get_mut(name)
    }

    fn put(&mut self, name: Box<str>, entry: Entry) {
        if self.recent.len() >= MOST_HOSTS / 2 && !self.recent.contains_key(&name) {
            self.former = std::mem::take(&mut self.recent);
        }
        self.recent.insert(name, entry);
    }
}

/// The names to ask for, in their order, where somebody means `name` (resolv.conf(5)): those without a final dot may be
/// meant below a search domain, first if they have fewer dots than `ndots`.
#[must_use]
pub fn candidates(name: &str, search: &[Box<str>], ndots: usize) -> Vec<String> {
    if let Some(absolute) = name.strip_suffix('.') {
        return vec![absolute.to_owned()];
    }
    let mut all: Vec<String> = search.iter().map(|domain| format!("{name}.{domain}")).collect();
    let dots = name.matches('.').count();
    all.insert(if dots >= ndots { 0 } else { all.len() }, name.to_owned());
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(last: u8) -> Answer {
        Answer::Addresses(vec![IpAddr::from([192, 0, 2, last])])
    }

    #[test]
    fn an_answer_holds_for_as_long_as_it_says_within_bounds() {
        let (mut hosts, now) = (Hosts::default(), Instant::now());
        let at = |seconds| now + Duration::from_secs(seconds);
        hosts.keep(now, "a", one(1), Extent::Whole, Duration::from_secs(30));
        assert_eq!((hosts.get(at(29), "a"), hosts.get(at(30), "a"), hosts.get(now, "b")), (Some(one(1)), None, None));
        hosts.keep(now, "a", Answer::NoName, Extent::Whole, Duration::from_secs(1 << 31));
        assert_eq!((hosts.get(at(3599), "a"), hosts.get(at(3600), "a")), (Some(Answer::NoName), None));
        hosts.keep(now, "a", one(2), Extent::Part, Duration::from_secs(300));
        assert_eq!((hosts.get(at(4), "a"), hosts.get(at(5), "a")), (Some(one(2)), None));
        hosts.keep(now, "a", one(3), Extent::Whole, Duration::ZERO);
        assert_eq!(hosts.get(now, "a"), Some(one(3)));
    }

    #[test]
    fn while_nobody_answers_what_is_over_is_told_for_an_hour() {
        let (mut hosts, now) = (Hosts::default(), Instant::now());
        let at = |seconds| now + Duration::from_secs(seconds);
        assert_eq!(hosts.get_stale(now, "a"), None);
        hosts.keep(now, "a", one(1), Extent::Whole, Duration::from_secs(10));
        assert_eq!(hosts.get_stale(at(60), "a"), Some(one(1)));
        assert_eq!((hosts.get(at(64), "a"), hosts.get(at(65), "a")), (Some(one(1)), None));
        assert_eq!(hosts.get_stale(at(3609), "a"), Some(one(1)));
        assert_eq!((hosts.get(at(3610), "a"), hosts.get_stale(at(3610), "a")), (None, None));
    }

    #[test]
    fn what_has_not_been_used_for_long_makes_room() {
        let (mut hosts, now) = (Hosts::default(), Instant::now());
        for n in 0..3 * MOST_HOSTS {
            hosts.keep(now, &format!("host-{n}"), one(1), Extent::Whole, Duration::from_secs(60));
            assert!(hosts.recent.len() + hosts.former.len() <= MOST_HOSTS);
            assert_eq!(hosts.get(now, "host-0"), Some(one(1)), "it is used all the time");
        }
        assert_eq!(hosts.get(now, "host-1"), None);
        let many = Answer::Addresses(vec![IpAddr::from([192, 0, 2, 1]); 1000]);
        hosts.keep(now, "many", many, Extent::Whole, Duration::from_secs(60));
        assert!(matches!(hosts.get(now, "many"), Some(Answer::Addresses(kept)) if kept.len() == MOST_ADDRESSES));
    }

    #[test]
    fn search_domains_come_first_for_short_names_and_never_for_complete_ones() {
        let search = ["ns.svc.cluster.local".into(), Box::<str>::from("corp")];
        let asked = |name: &str, ndots| candidates(name, &search, ndots).join(" ");
        assert_eq!(asked("db", 1), "db.ns.svc.cluster.local db.corp db");
        assert_eq!(asked("db.example", 1), "db.example db.example.ns.svc.cluster.local db.example.corp");
        assert_eq!(asked("db.example", 5), "db.example.ns.svc.cluster.local db.example.corp db.example");
        assert_eq!(asked("db.example.", 5), "db.example");
        assert_eq!(candidates("db", &[], 1), ["db"]);
    }
}

//! Answers of upstreams, kept for as long as they say, and for a while longer in case an upstream is gone (RFC 8767).
//!
//! Each pod has its own: what is in it came from servers that the pod named, through the pod's own network, and must not
//! be told to others. Bounded by bytes; what has not been used for long goes first. Times are arguments.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::wire::answer::{self, Answer};
use super::wire::query::{Extras, Query};
use super::wire::{HEADER, flag};

/// Bytes that the answers for one pod may take, keys included: some thousand ordinary ones. Half of it is what was used
/// last.
const MOST_BYTES: usize = 1 << 20;
/// What an entry takes besides its key and its message.
const OVERHEAD: usize = 160;
/// How long an answer that is over may be told while no upstream answers: as long as an outage may last that nobody is
/// to notice (RFC 8767 §5 suggests more; services move sooner than that).
const STALE_FOR: Duration = Duration::from_secs(3600);
/// For how long a client may keep such an answer, in seconds (RFC 8767 §4).
const STALE_TTL: u32 = 30;
/// How long upstreams that did not answer are believed to be gone: until then what is over is told at once, while they
/// are asked again (RFC 8767 §5, "failure recheck timer").
const RECHECK: Duration = Duration::from_secs(30);
/// How often an upstream that is gone is asked for one name: it may be back at any time, and is not to be flooded then.
const REFRESH: Duration = Duration::from_secs(1);
/// The longest that any answer is kept: whoever changes a record of a day need not wait for us.
const LONGEST: Duration = Duration::from_secs(3600);

/// What is kept for one pod.
#[derive(Debug, Default)]
pub struct Cache {
    /// Used lately, and before that: when the first is full it becomes the second, which goes.
    recent: HashMap<Box<[u8]>, Entry>,
    former: HashMap<Box<[u8]>, Entry>,
    bytes: usize,
    key: Vec<u8>,
}

#[derive(Debug)]
struct Entry {
    message: Box<[u8]>,
    ttls: Box<[u16]>,
    since: Instant,
    until: Instant,
    /// Until when it is told although it is over, without waiting for anybody.
    gone_until: Option<Instant>,
    /// When somebody asks for it again meanwhile.
    refresh_at: Option<Instant>,
}

/// What is kept about a query.
#[derive(Debug, PartialEq, Eq)]
pub enum Kept {
    /// An answer whose time is over; but the upstream was gone a moment ago.
    Stale(Vec<u8>, Refresh),
    /// An answer, as it would be now.
    Fresh(Vec<u8>),
    /// Nothing that may be told without asking.
    Nothing,
}

/// Whether an upstream should be asked again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refresh {
    /// It should.
    Due,
    /// Somebody just has.
    NotDue,
}

impl Cache {
    /// What may be told at once. `upstream` is the server that was addressed, `None` the cluster's own.
    pub fn get(&mut self, now: Instant, query: &Query, asked: &[u8], upstream: Option<SocketAddr>) -> Kept {
        if !write_key(&mut self.key, query, asked, upstream) {
            return Kept::Nothing;
        }
        if !self.recent.contains_key(&self.key[..])
            && let Some((key, entry)) = self.former.remove_entry(&self.key[..])
        {
            self.put(key, entry);
        }
        let Some(entry) = self.recent.get_mut(&self.key[..]) else { return Kept::Nothing };
        if now < entry.until {
            return Kept::Fresh(entry.tell(now, query, asked));
        }
        let gone = entry.gone_until.is_some_and(|until| now < until) && now < entry.until + STALE_FOR;
        if !gone {
            return Kept::Nothing;
        }
        let due = entry.refresh_at.is_none_or(|at| at <= now);
        if due {
            entry.refresh_at = Some(now + REFRESH);
        }
        Kept::Stale(entry.tell_stale(query, asked), if due { Refresh::Due } else { Refresh::NotDue })
    }

    /// What may be told because nobody else answers.
    pub fn get_stale(
        &mut self,
        now: Instant,
        query: &Query,
        asked: &[u8],
        upstream: Option<SocketAddr>,
    ) -> Option<Vec<u8>> {
        if !write_key(&mut self.key, query, asked, upstream) {
            return None;
        }
        let entry = self.recent.get_mut(&self.key[..])?;
        if now >= entry.until + STALE_FOR {
            return None;
        }
        entry.gone_until = Some(now + RECHECK);
        Some(entry.tell_stale(query, asked))
    }

    /// Keeps an answer to a query, if it may be kept.
    pub fn keep(
        &mut self,
        now: Instant,
        query: &Query,
        asked: &[u8],
        upstream: Option<SocketAddr>,
        (message, answer): (&[u8], &Answer),
    ) {
        let Some(ttl) = answer.ttl else { return };
        if !write_key(&mut self.key, query, asked, upstream) {
            return;
        }
        let entry = Entry {
            message: message.into(),
            ttls: answer.ttls.as_slice().into(),
            since: now,
            until: now + Duration::from_secs(ttl.into()).min(LONGEST),
            gone_until: None,
            refresh_at: None,
        };
        self.put(self.key.as_slice().into(), entry);
    }

    fn put(&mut self, key: Box<[u8]>, entry: Entry) {
        let cost = |key: &[u8], entry: &Entry| key.len() + entry.message.len() + 2 * entry.ttls.len() + OVERHEAD;
        let added = cost(&key, &entry);
        if self.bytes + added > MOST_BYTES / 2 {
            self.former = std::mem::take(&mut self.recent);
            self.bytes = 0;
        }
        self.former.remove(&key);
        if let Some((key, old)) = self.recent.remove_entry(&key) {
            self.bytes -= cost(&key, &old);
        }
        self.bytes += added;
        self.recent.insert(key, entry);
    }
}

impl Entry {
    fn tell(&self, now: Instant, query: &Query, asked: &[u8]) -> Vec<u8> {
        let mut message = self.message.to_vec();
        let age = now.saturating_duration_since(self.since).as_secs();
        answer::age(&mut message, &self.ttls, u32::try_from(age).unwrap_or(u32::MAX));
        answer::shorten(&mut message, &self.ttls, LONGEST.as_secs() as u32);
        answer::readdress(&mut message, query, asked);
        message
    }

    fn tell_stale(&self, query: &Query, asked: &[u8]) -> Vec<u8> {
        let mut message = self.message.to_vec();
        answer::shorten(&mut message, &self.ttls, STALE_TTL);
        answer::readdress(&mut message, query, asked);
        message
    }
}

/// What makes two queries the same: everything that an answer may depend on. Tells whether there may be another.
fn write_key(key: &mut Vec<u8>, query: &Query, asked: &[u8], upstream: Option<SocketAddr>) -> bool {
    let Some(question) = asked.get(HEADER..query.question_end()) else { return false };
    if query.extras != Extras::None {
        return false;
    }
    key.clear();
    key.extend(question.iter().map(u8::to_ascii_lowercase));
    // Type and class have no case.
    let name = query.name_end - HEADER;
    key[name..].copy_from_slice(&question[name..]);
    let flags = query.flags & (flag::RECURSION_DESIRED | flag::CHECKING_DISABLED | flag::AUTHENTIC);
    key.extend(flags.to_be_bytes());
    key.push(query.edns.map_or(0, |edns| 1 + u8::from(edns.dnssec)));
    match upstream {
        Some(SocketAddr::V4(v4)) => {
            key.extend(v4.ip().octets());
            key.extend(v4.port().to_be_bytes());
        }
        Some(SocketAddr::V6(v6)) => {
            key.extend(v6.ip().octets());
            key.extend(v6.port().to_be_bytes());
        }
        None => {}
    }
    true
}

#[cfg(test)]
mod tests;

//! What an upstream answers.
//!
//! An answer is kept as the bytes that came, and handed on as such; only its number, the spelling of the question, times
//! to live and what says that it is cut off are ever changed.

use std::net::IpAddr;

use super::query::Query;
use super::{HEADER, INTERNET, Rcode, flag, kind, long_number, number, record, skip_name};

/// An answer's times to live may be changed in this many records; one with more is handed on and not kept.
const MOST_RECORDS: usize = 1024;

/// An answer to a query, checked to be that.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// What came of it.
    pub rcode: u16,
    /// Whether it is cut off.
    pub truncated: bool,
    /// How long it may be kept, in seconds; `None` if it may not.
    pub ttl: Option<u32>,
    /// Where its times to live are.
    pub ttls: Vec<u16>,
}

/// Why bytes are not the answer to a query.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoAnswer {
    /// It is the answer to something else, or somebody guesses.
    Foreign,
    /// It would be, but for the spelling of the name: whoever answered does not keep it, or has not seen it.
    Respelled,
    /// It is, and makes no sense.
    Malformed,
}

impl Answer {
    /// Reads the answer to `asked`, whose bytes are `question`.
    ///
    /// # Errors
    /// Why it is none.
    pub fn parse(message: &[u8], question: &[u8], asked: &Query) -> Result<Self, NoAnswer> {
        let (Some(id), Some(flags)) = (number(message, 0), number(message, 2)) else { return Err(NoAnswer::Foreign) };
        let response = flags & flag::RESPONSE != 0 && flags & flag::OPCODE == 0;
        if message.len() < HEADER || Some(id) != number(question, 0) || !response {
            return Err(NoAnswer::Foreign);
        }
        let rcode = flags & flag::RCODE;
        let truncated = flags & flag::TRUNCATED != 0;
        if number(message, 4) == Some(0) && rcode != 0 && message.len() <= HEADER + 11 {
            // Who understands nothing of a query repeats nothing of it.
            return Ok(Self { rcode, truncated, ttl: None, ttls: Vec::new() });
        }
        let end = asked.question_end();
        let (Some(theirs), Some(ours)) = (message.get(HEADER..end), question.get(HEADER..end)) else {
            return Err(NoAnswer::Foreign);
        };
        if number(message, 4) != Some(1) || !theirs.eq_ignore_ascii_case(ours) {
            return Err(NoAnswer::Foreign);
        }
        if theirs != ours {
            return Err(NoAnswer::Respelled);
        }
        Self::read_records(message, end).ok_or(NoAnswer::Malformed)
    }

    fn read_records(message: &[u8], mut at: usize) -> Option<Self> {
        let flags = number(message, 2)?;
        let (rcode, truncated) = (flags & flag::RCODE, flags & flag::TRUNCATED != 0);
        let [answers, authorities, additionals] =
            [number(message, 6)?, number(message, 8)?, number(message, 10)?].map(usize::from);
        let mut ttls = Vec::new();
        let (mut shortest, mut negative, mut extended) = (u32::MAX, None, 0);
        let mut too_many = false;
        for index in 0..answers + authorities + additionals {
            if truncated && at == message.len() {
                break; // counts of what was cut off
            }
            let one = record(message, at)?;
            at = one.data.end;
            if one.kind == kind::OPT {
                extended = *message.get(one.ttl_at)?;
                continue;
            }
            // The highest bit was a mistake: RFC 2181 §8.
            let ttl = long_number(message, one.ttl_at).filter(|ttl| *ttl <= i32::MAX as u32).unwrap_or(0);
            if one.kind == kind::SOA && (answers..answers + authorities).contains(&index) {
                let minimum = one.data.end.checked_sub(4).and_then(|at| long_number(message, at))?;
                negative = Some(ttl.min(minimum));
            }
            shortest = shortest.min(ttl);
            too_many |= ttls.len() >= MOST_RECORDS;
            if !too_many {
                ttls.push(u16::try_from(one.ttl_at).ok()?);
            }
        }
        let positive = rcode == 0 && answers > 0;
        let denied = matches!(rcode, 0 | 3) && answers == 0;
        let ttl = if positive {
            Some(shortest)
        } else {
            // That there is nothing may be kept if it is said for how long (RFC 2308 §5).
            negative.filter(|_| denied).map(|ttl| ttl.min(shortest))
        };
        let keep = !truncated && !too_many && extended == 0 && at == message.len();
        Some(Self { rcode, truncated, ttl: ttl.filter(|ttl| keep && *ttl > 0), ttls })
    }
}

/// Makes an answer that one for `query` with the bytes `asked`: its number, and the spelling of the name.
pub fn readdress(message: &mut [u8], query: &Query, asked: &[u8]) {
    if let (Some(id), Some(theirs)) = (message.get_mut(..2), asked.get(..2)) {
        id.copy_from_slice(theirs);
    }
    // Everything that refers to the question's name gets its spelling with it.
    if number(message, 4) == Some(1)
        && let (Some(ours), Some(theirs)) = (message.get_mut(HEADER..query.name_end), asked.get(HEADER..query.name_end))
        && ours.eq_ignore_ascii_case(theirs)
    {
        ours.copy_from_slice(theirs);
    }
}

/// Takes time off all times to live; those that are over say 0.
pub fn age(message: &mut [u8], ttls: &[u16], seconds: u32) {
    change(message, ttls, |ttl| ttl.saturating_sub(seconds));
}

/// Makes all times to live at most this.
pub fn shorten(message: &mut [u8], ttls: &[u16], most: u32) {
    change(message, ttls, |ttl| ttl.min(most));
}

fn change(message: &mut [u8], ttls: &[u16], new: impl Fn(u32) -> u32) {
    for at in ttls.iter().map(|at| usize::from(*at)) {
        if let Some(ttl) = long_number(message, at) {
            message[at..at + 4].copy_from_slice(&new(ttl).to_be_bytes());
        }
    }
}

/// Says that there is nothing of the type asked for where the message says that there is no such name.
pub fn to_no_data_if_absent(message: &mut [u8]) {
    if let Some(byte) = message.get_mut(3)
        && *byte & flag::RCODE as u8 == Rcode::NxDomain as u8
    {
        *byte &= !(flag::RCODE as u8);
    }
}

/// The addresses of one type that an answer to a question for them tells; `None` if it does not tell what there is.
#[must_use]
pub fn addresses(message: &[u8], wanted: u16) -> Option<Vec<IpAddr>> {
    let rcode = number(message, 2)? & flag::RCODE;
    if rcode == Rcode::NxDomain as u16 {
        return Some(Vec::new());
    }
    if rcode != Rcode::NoError as u16 {
        return None;
    }
    let mut at = skip_name(message, HEADER)? + 4;
    let mut addresses = Vec::new();
    for _ in 0..count(message) {
        // What is cut off is not there, though it is counted.
        let Some(one) = record(message, at) else { break };
        at = one.data.end;
        let data = message.get(one.data)?;
        if (one.kind, one.class) != (wanted, INTERNET) {
            continue;
        }
        match (wanted, data.len()) {
            (kind::A, 4) => addresses.push(IpAddr::from(<[u8; 4]>::try_from(data).ok()?)),
            (kind::AAAA, 16) => addresses.push(IpAddr::from(<[u8; 16]>::try_from(data).ok()?)),
            _ => {}
        }
    }
    Some(addresses)
}

/// How many records answer the question.
#[must_use]
pub fn count(message: &[u8]) -> usize {
    number(message, 6).map_or(0, usize::from)
}

/// Cuts off an answer that is longer than `limit`, back to its question, and says so.
pub fn cut(message: &mut Vec<u8>, query: &Query, limit: usize) {
    if message.len() <= limit {
        return;
    }
    message.truncate(query.question_end());
    if let Some(flags) = message.get_mut(2) {
        *flags |= (flag::TRUNCATED >> 8) as u8;
    }
    if let Some(counts) = message.get_mut(6..HEADER) {
        counts.fill(0);
    }
}

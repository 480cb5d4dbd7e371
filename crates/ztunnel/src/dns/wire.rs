//! The form of DNS messages: what a query asks, what an upstream's answer holds, and answers of our own.
//!
//! Only as much of a message is understood as the proxy decides on: header, question, EDNS, where records begin and end
//! and how long they live. Everything else stays bytes, so that what is forwarded comes through as it is, whatever type
//! of record it is. Reading never fails but by saying so, and follows a compression pointer only backwards.
//!
//! Public so that the fuzz targets reach it.

pub mod addresses;
pub mod answer;
pub mod query;
pub mod reply;

use std::ops::Range;

/// Length of the header (RFC 1035 §4.1.1).
pub const HEADER: usize = 12;
/// The longest name in wire form (RFC 1035 §2.3.4).
pub const MAX_WIRE_NAME: usize = 255;
/// Size of a UDP answer to whoever does not say otherwise (RFC 1035 §2.3.4).
pub const CLASSIC_UDP: usize = 512;
/// Size of the largest UDP answer of our own: the way leads over the loopback interface, so that fragments are no concern.
pub const LARGEST_UDP: usize = 4096;
/// Size of the largest message (RFC 1035 §4.2.2).
pub const LARGEST: usize = u16::MAX as usize;

/// Bits of the second word of the header.
pub mod flag {
    /// A response.
    pub const RESPONSE: u16 = 0x8000;
    /// Authoritative.
    pub const AUTHORITATIVE: u16 = 0x0400;
    /// Truncated.
    pub const TRUNCATED: u16 = 0x0200;
    /// Recursion is desired.
    pub const RECURSION_DESIRED: u16 = 0x0100;
    /// Recursion is available.
    pub const RECURSION_AVAILABLE: u16 = 0x0080;
    /// Data is authentic (RFC 4035 §3.2.3).
    pub const AUTHENTIC: u16 = 0x0020;
    /// Checking is disabled (RFC 4035 §3.2.2).
    pub const CHECKING_DISABLED: u16 = 0x0010;
    /// What is asked.
    pub const OPCODE: u16 = 0x7800;
    /// What came of it.
    pub const RCODE: u16 = 0x000f;
}

/// What came of a query (RFC 1035 §4.1.1, RFC 6891 §9).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u16)]
pub enum Rcode {
    /// An answer, possibly empty.
    NoError = 0,
    /// The query makes no sense.
    FormErr = 1,
    /// Nobody could be asked.
    ServFail = 2,
    /// There is no such name.
    NxDomain = 3,
    /// This kind of query is not known.
    NotImp = 4,
    /// It is known and not wanted.
    Refused = 5,
    /// This version of EDNS is not known.
    BadVers = 16,
}

/// Types of records and of queries.
pub mod kind {
    /// IPv4 address.
    pub const A: u16 = 1;
    /// Canonical name.
    pub const CNAME: u16 = 5;
    /// Start of a zone.
    pub const SOA: u16 = 6;
    /// Name of an address.
    pub const PTR: u16 = 12;
    /// IPv6 address.
    pub const AAAA: u16 = 28;
    /// EDNS.
    pub const OPT: u16 = 41;
    /// Changes of a zone.
    pub const IXFR: u16 = 251;
    /// A whole zone.
    pub const AXFR: u16 = 252;

    /// Its name in lower case, as metrics and logs have it; `unknown` keeps odd numbers from becoming labels.
    #[must_use]
    pub fn name(kind: u16) -> &'static str {
        match kind {
            1 => "a",
            2 => "ns",
            5 => "cname",
            6 => "soa",
            12 => "ptr",
            13 => "hinfo",
            15 => "mx",
            16 => "txt",
            28 => "aaaa",
            33 => "srv",
            35 => "naptr",
            37 => "cert",
            43 => "ds",
            44 => "sshfp",
            46 => "rrsig",
            47 => "nsec",
            48 => "dnskey",
            50 => "nsec3",
            51 => "nsec3param",
            52 => "tlsa",
            59 => "cds",
            60 => "cdnskey",
            64 => "svcb",
            65 => "https",
            251 => "ixfr",
            252 => "axfr",
            255 => "any",
            257 => "caa",
            _ => "unknown",
        }
    }
}

/// The Internet (RFC 1035 §3.2.4).
pub const INTERNET: u16 = 1;

/// A number of two bytes.
#[must_use]
pub fn number(message: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(message.get(at..at + 2)?.try_into().ok()?))
}

fn long_number(message: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(message.get(at..at + 4)?.try_into().ok()?))
}

/// Where the name that begins at `start` ends, which is after its first pointer if it has one. `None` for what is no name:
/// cut off, too long, or with a pointer that does not lead back.
fn skip_name(message: &[u8], start: usize) -> Option<usize> {
    let (mut at, mut from, mut length, mut end) = (start, start, 0, None);
    loop {
        let head = *message.get(at)?;
        match head >> 6 {
            0b00 => {
                length += usize::from(head) + 1;
                at += usize::from(head) + 1;
                if length > MAX_WIRE_NAME || at > message.len() {
                    return None;
                }
                if head == 0 {
                    return Some(end.unwrap_or(at));
                }
            }
            0b11 => {
                let target = usize::from(number(message, at)? & 0x3fff);
                end.get_or_insert(at + 2);
                // Every pointer leads before the place where its own run of labels began, so that this comes to an end.
                if target >= from || target < HEADER {
                    return None;
                }
                (at, from) = (target, target);
            }
            _ => return None, // no such labels
        }
    }
}

/// A record: where it is, and what is common to all types.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Record {
    /// Its owner's name is at this place.
    start: usize,
    kind: u16,
    class: u16,
    /// Where its time to live is.
    ttl_at: usize,
    data: Range<usize>,
}

fn record(message: &[u8], start: usize) -> Option<Record> {
    let at = skip_name(message, start)?;
    let (kind, class) = (number(message, at)?, number(message, at + 2)?);
    let length = usize::from(number(message, at + 8)?);
    let data = at + 10..at + 10 + length;
    (data.end <= message.len()).then_some(Record { start, kind, class, ttl_at: at + 4, data })
}

#[cfg(test)]
pub(crate) mod tests;

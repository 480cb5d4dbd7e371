//! Answers of our own making.
//!
//! Each begins with the query's own question, byte for byte, so that names in it have the spelling that the client asked
//! with, and records refer to it. Whole records are left out where they do not fit.

use std::net::IpAddr;

use super::query::Query;
use super::{HEADER, INTERNET, Rcode, flag, kind};

/// How long clients may keep what the mesh says, in seconds (spec state-and-dns 10.4).
pub const TTL: u32 = 30;
/// How long they may keep that there is nothing, in seconds: endpoints that are not there yet come soon.
pub const NEGATIVE_TTL: u32 = 5;
/// A reference to the name of the question.
const QUESTION_NAME: [u8; 2] = [0xc0, HEADER as u8];
/// Length of the EDNS record of an answer.
const OPT: usize = 11;

/// A reply that is being written.
pub struct Reply<'a> {
    out: &'a mut Vec<u8>,
    query: &'a Query,
    limit: usize,
    /// Records written into answer and authority sections.
    written: [u16; 2],
    flags: u16,
}

/// What does not fit into an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Full;

impl<'a> Reply<'a> {
    /// An answer to `query`, whose bytes are `message`, into `out`, of at most `limit` bytes.
    pub fn new(out: &'a mut Vec<u8>, message: &[u8], query: &'a Query, limit: usize) -> Self {
        out.clear();
        out.extend_from_slice(&[0; HEADER]);
        out.extend_from_slice(message.get(HEADER..query.question_end()).unwrap_or_default());
        let limit = limit - if query.edns.is_some() { OPT } else { 0 };
        Self { out, query, limit, written: [0; 2], flags: flag::AUTHORITATIVE }
    }

    /// That this is the name's canonical name, whose records follow. Tells where it is written.
    ///
    /// # Errors
    /// If it does not fit, or is no name.
    pub fn canonical(&mut self, name: &str) -> Result<u16, Full> {
        self.name_record(kind::CNAME, name)
    }

    /// That this is the name of an address.
    ///
    /// # Errors
    /// If it does not fit, or is no name.
    pub fn pointer(&mut self, name: &str) -> Result<(), Full> {
        self.name_record(kind::PTR, name).map(drop)
    }

    fn name_record(&mut self, kind: u16, name: &str) -> Result<u16, Full> {
        let start = self.out.len();
        let length = u16::try_from(name.len() + 2).map_err(|_| Full)?;
        self.head(QUESTION_NAME, kind, TTL, length);
        let place = u16::try_from(self.out.len()).map_err(|_| Full)?;
        let fits = write_name(self.out, name) && self.out.len() <= self.limit && place < 0x4000;
        if !fits {
            self.out.truncate(start);
            return Err(Full);
        }
        self.written[0] += 1;
        Ok(place)
    }

    /// An address of the name of the question, or of the canonical name at `owner`.
    ///
    /// # Errors
    /// If it does not fit: then the answer says so.
    pub fn address(&mut self, owner: Option<u16>, ip: IpAddr) -> Result<(), Full> {
        let owner = owner.map_or(QUESTION_NAME, |place| (0xc000 | place).to_be_bytes());
        let length = if ip.is_ipv4() { 4 } else { 16 };
        if self.out.len() + 12 + length > self.limit {
            self.flags |= flag::TRUNCATED;
            return Err(Full);
        }
        match ip {
            IpAddr::V4(v4) => {
                self.head(owner, kind::A, TTL, 4);
                self.out.extend_from_slice(&v4.octets());
            }
            IpAddr::V6(v6) => {
                self.head(owner, kind::AAAA, TTL, 16);
                self.out.extend_from_slice(&v6.octets());
            }
        }
        self.written[0] += 1;
        Ok(())
    }

    /// Who says that there is nothing, which tells for how long that holds (RFC 2308 §3). The name is its own zone.
    fn nothing(&mut self) {
        const CONTACT: &[u8] = b"\x0ahostmaster";
        self.head(QUESTION_NAME, kind::SOA, NEGATIVE_TTL, 2 + CONTACT.len() as u16 + 2 + 20);
        self.out.extend_from_slice(&QUESTION_NAME);
        self.out.extend_from_slice(CONTACT);
        self.out.extend_from_slice(&QUESTION_NAME);
        // Serial, refresh, retry, expire: nobody copies this zone.
        for number in [1, 7200, 1800, 86_400, NEGATIVE_TTL] {
            self.out.extend_from_slice(&number.to_be_bytes());
        }
        self.written[1] += 1;
    }

    fn head(&mut self, owner: [u8; 2], kind: u16, ttl: u32, length: u16) {
        self.out.extend_from_slice(&owner);
        self.out.extend_from_slice(&kind.to_be_bytes());
        self.out.extend_from_slice(&INTERNET.to_be_bytes());
        self.out.extend_from_slice(&ttl.to_be_bytes());
        self.out.extend_from_slice(&length.to_be_bytes());
    }

    /// Finishes an answer of the mesh. One without records says for how long that holds.
    pub fn finish(mut self, rcode: Rcode) {
        if self.written[0] == 0 && self.flags & flag::TRUNCATED == 0 {
            self.nothing();
        }
        self.seal(rcode);
    }

    /// Finishes an answer that says what is wrong.
    pub fn fail(mut self, rcode: Rcode) {
        self.out.truncate(self.query.question_end());
        (self.written, self.flags) = ([0; 2], 0);
        self.seal(rcode);
    }

    fn seal(self, rcode: Rcode) {
        let query = self.query;
        if let Some(edns) = query.edns {
            write_opt(self.out, edns.size, rcode, edns.dnssec);
        }
        let copied = query.flags & (flag::RECURSION_DESIRED | flag::CHECKING_DISABLED);
        let flags = flag::RESPONSE | self.flags | copied | flag::RECURSION_AVAILABLE | (rcode as u16 & flag::RCODE);
        let [answers, authorities] = self.written;
        let words = [query.id, flags, 1, answers, authorities, u16::from(query.edns.is_some())];
        for (place, word) in self.out.chunks_exact_mut(2).zip(words) {
            place.copy_from_slice(&word.to_be_bytes());
        }
    }
}

/// Answers what makes no sense: by its header alone, since nothing else of it is understood.
pub fn refuse(out: &mut Vec<u8>, message: &[u8], rcode: Rcode) {
    out.clear();
    let (id, flags) = (message.get(..2).unwrap_or(&[0; 2]), super::number(message, 2).unwrap_or(0));
    let copied = flags & (flag::OPCODE | flag::RECURSION_DESIRED | flag::CHECKING_DISABLED);
    out.extend_from_slice(id);
    let word = flag::RESPONSE | copied | flag::RECURSION_AVAILABLE | (rcode as u16 & flag::RCODE);
    out.extend_from_slice(&word.to_be_bytes());
    out.extend_from_slice(&[0; 8]);
    if rcode == Rcode::BadVers {
        write_opt(out, super::LARGEST_UDP as u16, rcode, false);
        out[HEADER - 1] = 1;
    }
}

/// RFC 6891 §6.1.2, of version 0 and without options.
fn write_opt(out: &mut Vec<u8>, size: u16, rcode: Rcode, dnssec: bool) {
    let size = size.max(super::CLASSIC_UDP as u16);
    out.push(0);
    out.extend_from_slice(&kind::OPT.to_be_bytes());
    out.extend_from_slice(&size.to_be_bytes());
    out.extend_from_slice(&[(rcode as u16 >> 4) as u8, 0, if dnssec { 0x80 } else { 0 }, 0, 0, 0]);
}

/// Writes a name; tells whether the text was one.
pub(super) fn write_name(out: &mut Vec<u8>, name: &str) -> bool {
    if name.len() > mesh::lookup::MAX_NAME {
        return false;
    }
    for label in name.split('.') {
        let Some(length) = u8::try_from(label.len()).ok().filter(|length| (1..64).contains(length)) else {
            return false;
        };
        out.push(length);
        out.extend_from_slice(label.as_bytes());
    }
    out.push(0);
    true
}

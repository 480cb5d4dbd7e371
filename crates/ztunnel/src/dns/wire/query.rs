//! What a client asks.

use super::{HEADER, INTERNET, LARGEST_UDP, MAX_WIRE_NAME, Rcode, flag, kind, number, record};
use crate::dns::wire::CLASSIC_UDP;

/// A query that makes sense. Its bytes are kept by the caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Query {
    /// Its number.
    pub id: u16,
    /// The second word of its header.
    pub flags: u16,
    /// The type asked for.
    pub kind: u16,
    /// The class asked for.
    pub class: u16,
    /// Where the name asked for ends; it begins after the header.
    pub name_end: usize,
    /// What it says by EDNS.
    pub edns: Option<Edns>,
    /// What else there is to it.
    pub extras: Extras,
}

/// What a query says by EDNS (RFC 6891).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Edns {
    /// Size of the largest UDP answer that it takes.
    pub size: u16,
    /// Whether DNSSEC's records are wanted.
    pub dnssec: bool,
}

/// Whether there is more to a query than its question.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Extras {
    /// No: whoever asks the same is to get the same.
    None,
    /// Options of EDNS: the answer may be for this client alone.
    Options,
    /// Other records, which may sign it: it may not be changed.
    Records,
}

/// What is no query that makes sense.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Nothing that one answers: too short, or an answer itself.
    Ignore,
    /// To be answered with the number of the query and this.
    Answer(Rcode),
}

impl Query {
    /// Reads a message.
    ///
    /// # Errors
    /// How it is to be answered instead.
    pub fn parse(message: &[u8]) -> Result<Self, Fault> {
        let (Some(id), Some(flags)) = (number(message, 0), number(message, 2)) else { return Err(Fault::Ignore) };
        if message.len() < HEADER || flags & flag::RESPONSE != 0 {
            return Err(Fault::Ignore);
        }
        if flags & flag::OPCODE != 0 {
            return Err(Fault::Answer(Rcode::NotImp));
        }
        // One question and no more: RFC 9619 §3.
        if number(message, 4) != Some(1) {
            return Err(Fault::Answer(Rcode::FormErr));
        }
        let malformed = Fault::Answer(Rcode::FormErr);
        let name_end = question_name(message).ok_or(malformed)?;
        let (kind, class) = (number(message, name_end), number(message, name_end + 2));
        let (Some(kind), Some(class)) = (kind, class) else { return Err(malformed) };
        let mut query = Self { id, flags, kind, class, name_end, edns: None, extras: Extras::None };
        let records = [6, 8, 10].map(|at| number(message, at).map_or(0, usize::from));
        query.read_records(message, records).map_err(Fault::Answer)?;
        if matches!(kind, kind::AXFR | kind::IXFR) {
            return Err(Fault::Answer(Rcode::Refused)); // zones are not for apps, and are no single answer
        }
        Ok(query)
    }

    fn read_records(&mut self, message: &[u8], [answers, authorities, additionals]: [usize; 3]) -> Result<(), Rcode> {
        let mut at = self.question_end();
        let mut version = 0;
        for index in 0..answers + authorities + additionals {
            let one = record(message, at).ok_or(Rcode::FormErr)?;
            at = one.data.end;
            if one.kind != kind::OPT || index < answers + authorities {
                self.extras = Extras::Records;
                continue;
            }
            // There is one at most, and it belongs to nobody (RFC 6891 §6.1.1).
            if self.edns.is_some() || message.get(one.start) != Some(&0) {
                return Err(Rcode::FormErr);
            }
            let (high, low) = (number(message, one.ttl_at), number(message, one.ttl_at + 2));
            version = high.unwrap_or(0) & 0xff;
            self.edns = Some(Edns { size: one.class, dnssec: low.unwrap_or(0) & 0x8000 != 0 });
            if !one.data.is_empty() && self.extras == Extras::None {
                self.extras = Extras::Options;
            }
        }
        match (version, at == message.len()) {
            (_, false) => Err(Rcode::FormErr),
            (0, true) => Ok(()),
            (_, true) => Err(Rcode::BadVers),
        }
    }

    /// Where the question ends.
    #[must_use]
    pub fn question_end(&self) -> usize {
        self.name_end + 4
    }

    /// Whether it asks about the Internet, as all do but curious people.
    #[must_use]
    pub fn is_internet(&self) -> bool {
        self.class == INTERNET
    }

    /// Size of the largest UDP answer that may be sent.
    #[must_use]
    pub fn udp_size(&self) -> usize {
        self.edns.map_or(CLASSIC_UDP, |edns| usize::from(edns.size).max(CLASSIC_UDP))
    }

    /// The same for answers of our own making.
    #[must_use]
    pub fn own_udp_size(&self) -> usize {
        self.udp_size().min(LARGEST_UDP)
    }

    /// Writes the name asked for as text: in lower case, without a final dot. Tells whether it is a name that hosts have;
    /// others are names of DNS all the same, and none of the mesh's.
    pub fn write_name(&self, message: &[u8], text: &mut String) -> bool {
        text.clear();
        let mut at = HEADER;
        while let Some(&length) = message.get(at).filter(|length| **length > 0) {
            let end = at + 1 + usize::from(length);
            let Some(label) = message.get(at + 1..end) else { return false };
            let host = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'*');
            if !label.iter().all(host) {
                return false;
            }
            if !text.is_empty() {
                text.push('.');
            }
            text.extend(label.iter().map(|b| char::from(b.to_ascii_lowercase())));
            at = end;
        }
        true
    }

    /// The name asked for as a log shows it, whatever bytes it has.
    #[must_use]
    pub fn shown_name(&self, message: &[u8]) -> String {
        let mut text = String::new();
        let mut at = HEADER;
        while let Some(&length) = message.get(at).filter(|length| **length > 0) {
            let end = at + 1 + usize::from(length);
            let label = message.get(at + 1..end).unwrap_or_default();
            text.extend(label.iter().flat_map(|b| b.to_ascii_lowercase().escape_ascii()).map(char::from));
            text.push('.');
            at = end;
        }
        if text.is_empty() { ".".to_owned() } else { text }
    }
}

/// A query for a type of record of the Internet, which takes answers as large as we give; `None` if that is no name.
#[must_use]
pub fn question(name: &str, kind: u16, id: u16) -> Option<Vec<u8>> {
    let mut message = Vec::with_capacity(HEADER + MAX_WIRE_NAME + 4 + 11);
    for word in [id, flag::RECURSION_DESIRED, 1, 0, 0, 1] {
        message.extend(word.to_be_bytes());
    }
    for label in name.strip_suffix('.').unwrap_or(name).split('.') {
        message.push(u8::try_from(label.len()).ok().filter(|length| (1..64).contains(length))?);
        message.extend(label.as_bytes());
    }
    message.push(0);
    if message.len() - HEADER > MAX_WIRE_NAME {
        return None;
    }
    let [size_high, size_low] = u16::try_from(LARGEST_UDP).ok()?.to_be_bytes();
    for word in [kind, INTERNET] {
        message.extend(word.to_be_bytes());
    }
    let [opt_high, opt_low] = kind::OPT.to_be_bytes();
    message.extend([0, opt_high, opt_low, size_high, size_low, 0, 0, 0, 0, 0, 0]);
    Some(message)
}

/// Where the name of the question ends. It is the first in the message: there is nothing that it could point to.
fn question_name(message: &[u8]) -> Option<usize> {
    let mut at = HEADER;
    loop {
        let length = usize::from(*message.get(at)?);
        at += 1 + length;
        if length > 63 || at - HEADER > MAX_WIRE_NAME {
            return None;
        }
        if length == 0 {
            return Some(at);
        }
    }
}

//! What a header block means: requests, responses and trailers (RFC 9113 §8).
//!
//! Invariant: a [`Request`] or [`Response`] that exists has passed every rule of RFC 9113 §8.2 and §8.3 for its kind;
//! CONNECT in particular has an `:authority` and neither `:scheme`, `:path` nor `:protocol` (§8.5). Whatever else a
//! block contained, it was never stored beyond the limit.
//!
//! Deliberately absent: judging the request. Other methods than CONNECT are handed on, so that they can be answered.

use std::fmt;

use crate::error::Violation;

/// A header to send: a lower-case name and a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header<'a> {
    /// The name, in lower case.
    pub name: &'a str,
    /// The value, without surrounding white space.
    pub value: &'a [u8],
}

impl<'a> Header<'a> {
    /// A header with a text value.
    pub const fn new(name: &'a str, value: &'a str) -> Self {
        Header { name, value: value.as_bytes() }
    }

    /// Whether HTTP/2 can carry it as a regular header.
    pub(crate) fn is_legal(&self) -> bool {
        check_name(self.name.as_bytes()).is_ok()
            && check_value(self.value).is_ok()
            && check_connection_header(self.name.as_bytes(), self.value).is_ok()
    }

    /// Its share of a header list's size (RFC 9113 §6.5.2).
    pub(crate) fn size(&self) -> usize {
        field_size(self.name.as_bytes(), self.value)
    }
}

/// What a field counts in a header list (RFC 9113 §6.5.2).
fn field_size(name: &[u8], value: &[u8]) -> usize {
    name.len() + value.len() + 32
}

/// Room for the names and values of most blocks, in octets.
const USUAL_TEXT: usize = 320;
/// Headers of most blocks.
const USUAL_NUMBER: usize = 4;

/// Received headers in the order of the wire, in one piece of memory.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Headers {
    text: Vec<u8>,
    /// Where each name and each value ends in `text`.
    ends: Vec<(u32, u32)>,
}

impl Headers {
    /// Names and values in order, repeated names included.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &[u8])> {
        // Names passed `check_name` and so are ASCII.
        self.fields().filter_map(|(name, value)| Some((std::str::from_utf8(name).ok()?, value)))
    }

    fn fields(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        let starts = std::iter::once(0).chain(self.ends.iter().map(|&(_, value)| value));
        starts.zip(&self.ends).filter_map(|(start, &(name, value))| {
            let (start, name, value) = (start as usize, name as usize, value as usize);
            Some((self.text.get(start..name)?, self.text.get(name..value)?))
        })
    }

    /// Every value of the headers with this lower-case name, in order.
    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a [u8]> {
        self.fields().filter_map(move |(n, value)| (n == name.as_bytes()).then_some(value))
    }

    /// The first value with this lower-case name.
    pub fn get(&self, name: &str) -> Option<&[u8]> {
        self.fields().find_map(|(n, value)| (n == name.as_bytes()).then_some(value))
    }

    /// Number of headers.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    fn push(&mut self, name: &[u8], value: &[u8]) {
        let end = |text: &Vec<u8>| u32::try_from(text.len()).unwrap_or(u32::MAX);
        if self.text.is_empty() {
            self.text.reserve(USUAL_TEXT);
            self.ends.reserve(USUAL_NUMBER);
        }
        self.text.extend_from_slice(name);
        let name_end = end(&self.text);
        self.text.extend_from_slice(value);
        self.ends.push((name_end, end(&self.text)));
    }
}

impl<'a> FromIterator<Header<'a>> for Headers {
    /// Headers that were not received; whoever makes them up answers for what they say.
    fn from_iter<T: IntoIterator<Item = Header<'a>>>(headers: T) -> Self {
        let mut all = Self::default();
        headers.into_iter().for_each(|header| all.push(header.name.as_bytes(), header.value));
        all
    }
}

impl fmt::Debug for Headers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter().map(|(n, v)| (n, String::from_utf8_lossy(v)))).finish()
    }
}

/// A complete, well-formed request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// `:method`; anything but `CONNECT` is the application's to refuse.
    pub method: Box<str>,
    /// `:authority`; always there for CONNECT, printable ASCII, otherwise unexamined.
    pub authority: Option<Box<str>>,
    /// The regular headers.
    pub headers: Headers,
}

impl Request {
    /// Whether the method is CONNECT.
    pub fn is_connect(&self) -> bool {
        &*self.method == "CONNECT"
    }
}

/// A complete, well-formed response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    /// `:status`, 100 to 999.
    pub status: u16,
    /// The regular headers.
    pub headers: Headers,
}

/// The pseudo-headers that exist (RFC 9113 §8.3, RFC 8441 §4).
#[derive(Clone, Copy)]
enum Pseudo {
    Method,
    Scheme,
    Authority,
    Path,
    Protocol,
    Status,
}

impl Pseudo {
    fn from_name(name: &[u8]) -> Option<Self> {
        Some(match name {
            b":method" => Pseudo::Method,
            b":scheme" => Pseudo::Scheme,
            b":authority" => Pseudo::Authority,
            b":path" => Pseudo::Path,
            b":protocol" => Pseudo::Protocol,
            b":status" => Pseudo::Status,
            _ => return None,
        })
    }
}

/// Takes the fields of one block while it is decoded, and judges the whole at its end.
pub(crate) struct Collector {
    limit: usize,
    size: usize,
    problem: Option<Violation>,
    pseudo: [Option<Box<str>>; 6],
    headers: Headers,
}

impl Collector {
    /// Collects up to `limit` octets of header list (RFC 9113 §6.5.2).
    pub fn new(limit: usize) -> Self {
        Collector { limit, size: 0, problem: None, pseudo: Default::default(), headers: Headers::default() }
    }

    /// Takes one field. After the first problem fields are only counted, and not even that after too many.
    pub fn push(&mut self, name: &[u8], value: &[u8]) {
        self.size = self.size.saturating_add(field_size(name, value));
        if self.problem.is_none() {
            self.problem = self.store(name, value).err();
        }
    }

    fn store(&mut self, name: &[u8], value: &[u8]) -> Result<(), Violation> {
        if self.size > self.limit {
            return Err(Violation::HeaderListTooLarge);
        }
        check_value(value)?;
        if name.first() != Some(&b':') {
            check_name(name)?;
            check_connection_header(name, value)?;
            self.headers.push(name, value);
            return Ok(());
        }
        let pseudo = Pseudo::from_name(name).ok_or(Violation::PseudoHeaderUnknown)?;
        if !self.headers.is_empty() {
            return Err(Violation::PseudoHeaderOrder);
        }
        let slot = &mut self.pseudo[pseudo as usize];
        if slot.is_some() {
            return Err(Violation::PseudoHeaderTwice);
        }
        let illegal = match pseudo {
            Pseudo::Authority => Violation::Authority,
            Pseudo::Status => Violation::Status,
            _ => Violation::FieldValue,
        };
        if !value.iter().all(u8::is_ascii_graphic) {
            return Err(illegal);
        }
        *slot = Some(std::str::from_utf8(value).map_err(|_| illegal)?.into());
        Ok(())
    }

    fn has(&self, pseudo: Pseudo) -> bool {
        self.pseudo[pseudo as usize].is_some()
    }

    fn take(&mut self, pseudo: Pseudo) -> Option<Box<str>> {
        self.pseudo[pseudo as usize].take().filter(|value| !value.is_empty())
    }

    /// The block was a request.
    ///
    /// # Errors
    /// Why it is malformed (RFC 9113 §8.1.1), or too large.
    pub fn request(mut self) -> Result<Request, Violation> {
        if let Some(problem) = self.problem {
            return Err(problem);
        }
        if self.has(Pseudo::Status) {
            return Err(Violation::PseudoHeaderUnknown);
        }
        let method = self.take(Pseudo::Method).ok_or(Violation::PseudoHeaderMissing)?;
        if &*method == "CONNECT" {
            if self.has(Pseudo::Scheme) || self.has(Pseudo::Path) || self.has(Pseudo::Protocol) {
                return Err(Violation::ConnectPseudoHeader);
            }
            let authority = self.take(Pseudo::Authority).ok_or(Violation::PseudoHeaderMissing)?;
            return Ok(Request { method, authority: Some(authority), headers: self.headers });
        }
        if self.has(Pseudo::Protocol) {
            return Err(Violation::PseudoHeaderUnknown);
        }
        if self.take(Pseudo::Scheme).is_none() || self.take(Pseudo::Path).is_none() {
            return Err(Violation::PseudoHeaderMissing);
        }
        Ok(Request { method, authority: self.take(Pseudo::Authority), headers: self.headers })
    }

    /// The block was a response.
    ///
    /// # Errors
    /// Why it is malformed, or too large.
    pub fn response(mut self) -> Result<Response, Violation> {
        if let Some(problem) = self.problem {
            return Err(problem);
        }
        let status = self.take(Pseudo::Status).ok_or(Violation::PseudoHeaderMissing)?;
        if self.pseudo.iter().any(Option::is_some) {
            return Err(Violation::PseudoHeaderUnknown);
        }
        // 101 does not exist in HTTP/2 (RFC 9113 §8.6).
        match status.parse::<u16>() {
            Ok(number @ 100..=999) if status.len() == 3 && number != 101 => {
                Ok(Response { status: number, headers: self.headers })
            }
            _ => Err(Violation::Status),
        }
    }

    /// The block was trailers, whose content is of no use to a tunnel.
    ///
    /// # Errors
    /// Why they are malformed, or too large.
    pub fn trailers(self) -> Result<(), Violation> {
        match self.problem {
            Some(problem) => Err(problem),
            None if self.pseudo.iter().any(Option::is_some) => Err(Violation::PseudoHeaderOrder),
            None => Ok(()),
        }
    }
}

/// A regular header's name: a token of RFC 9110 §5.6.2 without capitals (RFC 9113 §8.2.1).
fn check_name(name: &[u8]) -> Result<(), Violation> {
    let legal = |b: &u8| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'!' | b'#'..=b'\'' | b'*' | b'+' | b'-' | b'.' | b'^' | b'_' | b'`' | b'|' | b'~');
    if !name.is_empty() && name.iter().all(legal) { Ok(()) } else { Err(Violation::FieldName) }
}

/// A value: no NUL, CR or LF, and no white space around it (RFC 9113 §8.2.1).
fn check_value(value: &[u8]) -> Result<(), Violation> {
    let blank = |b: Option<&u8>| matches!(b, Some(b' ' | b'\t'));
    let broken = value.iter().any(|b| matches!(b, 0 | b'\r' | b'\n'));
    if broken || blank(value.first()) || blank(value.last()) { Err(Violation::FieldValue) } else { Ok(()) }
}

/// Headers about the connection belong to HTTP/1.1 (RFC 9113 §8.2.2).
fn check_connection_header(name: &[u8], value: &[u8]) -> Result<(), Violation> {
    match name {
        b"connection" | b"proxy-connection" | b"keep-alive" | b"transfer-encoding" | b"upgrade" => {
            Err(Violation::ConnectionHeader)
        }
        b"te" if value != b"trailers" => Err(Violation::ConnectionHeader),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests;

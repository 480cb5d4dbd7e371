//! The addresses of a host: the question after them, and what of an answer they are.
//!
//! An answer holds a name's addresses, or a chain of canonical names that ends at them. What belongs to other names is
//! passed over: nobody asked for it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::query::Query;
use super::reply::write_name;
use super::{HEADER, INTERNET, MAX_WIRE_NAME, flag, kind, number, record};

/// Canonical names that are followed: real chains have a few.
const MOST_ALIASES: usize = 16;

/// The query after one type of address of `name`, which has no final dot. Its number is whoever sends it to draw.
/// `None` if that is no name.
#[must_use]
pub fn question(name: &str, kind: u16) -> Option<Vec<u8>> {
    let mut message = vec![0; HEADER];
    for (at, word) in [(2, flag::RECURSION_DESIRED), (4, 1)] {
        message[at..at + 2].copy_from_slice(&word.to_be_bytes());
    }
    if !write_name(&mut message, name) {
        return None;
    }
    message.extend(kind.to_be_bytes());
    message.extend(INTERNET.to_be_bytes());
    Some(message)
}

/// The addresses that a message, which is an answer to `query`, has of the name asked for.
#[must_use]
pub fn addresses(message: &[u8], query: &Query) -> Vec<IpAddr> {
    let mut owner = Vec::new();
    if !copy_name(message, HEADER, &mut owner) {
        return Vec::new();
    }
    for _ in 0..MOST_ALIASES {
        let mut found = Vec::new();
        let mut alias = None;
        for (one, name) in Answers::of(message, query) {
            if name != owner || one.class != INTERNET {
                continue;
            }
            match (one.kind, message.get(one.data.clone()).unwrap_or_default()) {
                (kind::A, data) if query.kind == kind::A => {
                    found.extend(<[u8; 4]>::try_from(data).ok().map(|octets| IpAddr::from(Ipv4Addr::from(octets))));
                }
                (kind::AAAA, data) if query.kind == kind::AAAA => {
                    found.extend(<[u8; 16]>::try_from(data).ok().map(|octets| IpAddr::from(Ipv6Addr::from(octets))));
                }
                (kind::CNAME, _) => alias = Some(one.data.start),
                _ => {}
            }
        }
        match alias {
            Some(at) if found.is_empty() && copy_name(message, at, &mut owner) => {}
            _ => return found,
        }
    }
    Vec::new()
}

/// The records of the answer section, with the names of their owners.
struct Answers<'a> {
    message: &'a [u8],
    at: usize,
    left: u16,
}

impl<'a> Answers<'a> {
    fn of(message: &'a [u8], query: &Query) -> Self {
        Self { message, at: query.question_end(), left: number(message, 6).unwrap_or(0) }
    }
}

impl Iterator for Answers<'_> {
    type Item = (super::Record, Vec<u8>);

    fn next(&mut self) -> Option<Self::Item> {
        self.left = self.left.checked_sub(1)?;
        let one = record(self.message, self.at)?;
        self.at = one.data.end;
        let mut owner = Vec::new();
        copy_name(self.message, one.start, &mut owner).then_some((one, owner))
    }
}

/// Writes out the name at `start`, in wire form and lower case; tells whether it is one.
fn copy_name(message: &[u8], start: usize, name: &mut Vec<u8>) -> bool {
    name.clear();
    let (mut at, mut from) = (start, start);
    while let Some(&head) = message.get(at) {
        match head >> 6 {
            0b00 => {
                let end = at + 1 + usize::from(head);
                let Some(label) = message.get(at..end) else { return false };
                name.extend(label.iter().map(u8::to_ascii_lowercase));
                if head == 0 || name.len() > MAX_WIRE_NAME {
                    return head == 0 && name.len() <= MAX_WIRE_NAME;
                }
                at = end;
            }
            0b11 => {
                let Some(target) = number(message, at).map(|word| usize::from(word & 0x3fff)) else { return false };
                // As where names are skipped: pointers lead back.
                if target >= from {
                    return false;
                }
                (at, from) = (target, target);
            }
            _ => return false,
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(name: &str, kind: u16, records: &[(&str, u16, &[u8])]) -> (Vec<u8>, Query) {
        let asked = question(name, kind).unwrap();
        let query = Query::parse(&asked).unwrap();
        let mut message = asked;
        message[2] |= 0x80;
        message[7] = records.len() as u8;
        for (owner, kind, data) in records {
            assert!(write_name(&mut message, owner));
            message.extend(kind.to_be_bytes());
            message.extend([0, 1, 0, 0, 0, 60]);
            message.extend((data.len() as u16).to_be_bytes());
            message.extend(*data);
        }
        (message, query)
    }

    fn found(name: &str, kind: u16, records: &[(&str, u16, &[u8])]) -> Vec<String> {
        let (message, query) = answer(name, kind, records);
        addresses(&message, &query).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn addresses_of_the_name_and_of_what_it_is_called_properly_are_found() {
        let here = [("db.example", 1, &[192, 0, 2, 1][..]), ("DB.example", 1, &[192, 0, 2, 2])];
        assert_eq!(found("db.Example", 1, &here), ["192.0.2.1", "192.0.2.2"]);
        let v6 = [0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
        assert_eq!(found("db.example", 28, &[("db.example", 28, &v6)]), ["2001:db8::1"]);
        // In whatever order; the second name refers to the question's.
        let chain = [
            ("b.example", 1, &[192, 0, 2, 3][..]),
            ("a.example", 5, b"\x01b\x07example\0"),
            ("db.example", 5, b"\x01a\xc0\x0f"),
        ];
        assert_eq!(found("db.example", 1, &chain), ["192.0.2.3"]);
    }

    #[test]
    fn what_belongs_to_others_or_makes_no_sense_is_passed_over() {
        assert_eq!(found("db.example", 1, &[("other.example", 1, &[1, 2, 3, 4])]), [""; 0]);
        assert_eq!(found("db.example", 1, &[("db.example", 28, &[0; 16]), ("db.example", 1, &[1, 2])]), [""; 0]);
        let round = [("db.example", 5, &b"\x01a\xc0\x0f"[..]), ("a.example", 5, b"\xc0\x0c")];
        assert_eq!(found("db.example", 1, &round), [""; 0]);
        let (mut message, query) = answer("db.example", 1, &[("db.example", 5, b"\xc0\x00")]);
        message[7] = 9;
        assert_eq!(addresses(&message, &query), [IpAddr::V4(Ipv4Addr::LOCALHOST); 0]);
        assert_eq!(question(&"a".repeat(64), 1), None);
        assert_eq!(question("a..b", 1), None);
    }
}

//! What the kernel answers: packets of a datagram, attributes of a packet.
//!
//! The kernel is believed, but whatever is cut off or has lengths that do not fit ends an iteration and cannot panic.

use std::io;

const HEADER: usize = 16;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
/// The list changed while it was read.
const NLM_F_DUMP_INTR: u16 = 0x10;
/// Flags above the number of an attribute.
const KIND: u16 = 0x3fff;

/// One answer, or one object of a list.
#[derive(Debug, Clone, Copy)]
pub struct Packet<'a> {
    kind: u16,
    flags: u16,
    /// What follows netlink's header.
    pub body: &'a [u8],
}

impl Packet<'_> {
    /// Whether it answers a request, well or badly.
    pub fn is_answer(&self) -> bool {
        self.kind == NLMSG_ERROR
    }

    /// Whether the list is complete.
    pub fn ends_list(&self) -> bool {
        self.kind == NLMSG_DONE
    }

    /// Whether the list is none, because what it lists changed.
    pub fn was_interrupted(&self) -> bool {
        self.flags & NLM_F_DUMP_INTR != 0
    }

    /// The error that it tells.
    ///
    /// # Errors
    /// That one.
    pub fn error(&self) -> io::Result<()> {
        let told = [NLMSG_ERROR, NLMSG_DONE].contains(&self.kind);
        let code = self.body.get(..4).and_then(|code| Some(i32::from_ne_bytes(code.try_into().ok()?)));
        match code.filter(|code| told && *code != 0) {
            Some(code) => Err(io::Error::from_raw_os_error(code.saturating_neg())),
            None => Ok(()),
        }
    }
}

/// The packets in what was read at once.
pub fn packets(mut bytes: &[u8]) -> impl Iterator<Item = Packet<'_>> {
    std::iter::from_fn(move || {
        let half = |at: usize| Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?));
        let length = u32::from_ne_bytes(bytes.get(..4)?.try_into().ok()?) as usize;
        let packet = Packet { kind: half(4)?, flags: half(6)?, body: bytes.get(HEADER..length)? };
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(packet)
    })
}

/// The attributes in a packet's body or in another attribute, as numbers and payloads.
pub fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let half = |at: usize| Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?));
        let length = usize::from(half(0)?);
        let attribute = (half(2)? & KIND, bytes.get(4..length)?);
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(attribute)
    })
}

/// The payload of the first attribute of that number.
pub fn find(bytes: &[u8], kind: u16) -> Option<&[u8]> {
    attributes(bytes).find(|(other, _)| *other == kind).map(|(_, payload)| payload)
}

/// A string attribute, without the zero at its end.
pub fn text(bytes: &[u8], kind: u16) -> Option<&str> {
    let text = std::str::from_utf8(find(bytes, kind)?).ok()?;
    Some(text.trim_end_matches('\0'))
}

/// Four bytes in network order, as packet filters have them.
pub fn number(payload: Option<&[u8]>) -> Option<u32> {
    Some(u32::from_be_bytes(payload?.try_into().ok()?))
}

/// Eight bytes in network order.
pub fn long_number(payload: Option<&[u8]>) -> Option<u64> {
    Some(u64::from_be_bytes(payload?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A list of one object with two attributes, the second of which holds one, and its end.
    fn answer() -> Vec<u8> {
        let inner = [&8_u16.to_ne_bytes()[..], &1_u16.to_ne_bytes(), &7_u32.to_be_bytes()].concat();
        let outer = [&12_u16.to_ne_bytes()[..], &0x8002_u16.to_ne_bytes(), &inner].concat();
        let name = [&7_u16.to_ne_bytes()[..], &1_u16.to_ne_bytes(), b"ab\0\0"].concat();
        let body = [&name[..], &outer].concat();
        let packet = |kind: u16, body: &[u8]| {
            let length = (HEADER + body.len()) as u32;
            [&length.to_ne_bytes()[..], &kind.to_ne_bytes(), &[0; 10], body].concat()
        };
        [packet(99, &body), packet(NLMSG_DONE, &[0; 4])].concat()
    }

    #[test]
    fn objects_and_what_is_nested_in_them_are_found_and_the_list_ends() {
        let bytes = answer();
        let packets: Vec<_> = packets(&bytes).collect();
        assert_eq!(packets.len(), 2);
        assert_eq!(text(packets[0].body, 1), Some("ab"));
        assert_eq!(number(find(packets[0].body, 2).and_then(|nested| find(nested, 1))), Some(7));
        assert!(!packets[0].ends_list() && packets[1].ends_list() && packets[1].error().is_ok());
    }

    #[test]
    fn what_is_cut_off_ends_the_list_and_nothing_else() {
        let bytes = answer();
        for length in 0..bytes.len() {
            assert!(packets(&bytes[..length]).count() < 2);
            for (start, _) in bytes.iter().enumerate().take(length) {
                let _ = attributes(&bytes[start..length]).count();
            }
        }
    }

    #[test]
    fn an_error_is_the_kernel_s() {
        let body = (-libc::EPERM).to_ne_bytes();
        let packet = Packet { kind: NLMSG_ERROR, flags: 0, body: &body };
        assert_eq!(packet.error().unwrap_err().kind(), io::ErrorKind::PermissionDenied);
    }
}

//! The `traceparent` header: one random id per user connection, by which the logs of both ends are brought together
//! (spec data-plane 6.3, W3C Trace Context §3.2).
//!
//! It is never forwarded further, and nothing is sampled by it.

use std::fmt;

/// The id of a connection, printed as 32 lower-case hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TraceId(pub u128);

impl fmt::Display for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// The value of a `traceparent` header; `Display` writes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Traceparent {
    /// Which connection.
    pub trace: TraceId,
    /// Which of its hops; random.
    pub parent: u64,
}

/// Length of every value of version 00, in bytes.
const LENGTH: usize = 55;

impl Traceparent {
    /// Reads a header's value; `None` means that the receiver makes an id of its own.
    pub fn parse(value: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(value).ok().filter(|text| text.len() == LENGTH)?;
        let mut parts = text.split('-');
        let version = hex(parts.next()?, 2)?;
        let trace = hex(parts.next()?, 32)?;
        let parent = hex(parts.next()?, 16)?;
        let _flags = hex(parts.next()?, 2)?;
        if parts.next().is_some() || version == 0xff || trace == 0 {
            return None;
        }
        Some(Self { trace: TraceId(trace), parent: u64::try_from(parent).ok()? })
    }
}

impl fmt::Display for Traceparent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "00-{}-{:016x}-00", self.trace, self.parent)
    }
}

fn hex(text: &str, digits: usize) -> Option<u128> {
    let valid = text.len() == digits && text.bytes().all(|b| b.is_ascii_hexdigit());
    valid.then(|| u128::from_str_radix(text, 16).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_print_as_they_parse() {
        let text = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00";
        assert_eq!(Traceparent::parse(text.as_bytes()).unwrap().to_string(), text);
        let small = Traceparent { trace: TraceId(1), parent: 2 };
        assert_eq!(small.to_string().len(), LENGTH);
        assert_eq!(Traceparent::parse(small.to_string().as_bytes()), Some(small));
    }

    #[test]
    fn anything_else_means_no_id_and_no_panic() {
        for text in [
            "".to_owned(),
            format!("00-{}", "0".repeat(52)),
            "0".repeat(55),
            "-".repeat(55),
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-0".to_owned(),
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-000".to_owned(),
            "00-+af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00".to_owned(),
            "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00".to_owned(),
            "00-00000000000000000000000000000000-b7ad6b7169203331-00".to_owned(),
            "0-00af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00".to_owned(),
        ] {
            assert_eq!(Traceparent::parse(text.as_bytes()), None, "{text}");
        }
        assert_eq!(Traceparent::parse(&[0xff; 55]), None);
        assert_eq!(Traceparent::parse("é".repeat(27).as_bytes()), None);
    }
}

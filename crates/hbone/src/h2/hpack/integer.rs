//! Integers with an N-bit prefix (RFC 7541 §5.1).
//!
//! Invariant: decoding never yields more than [`MAX`] and never reads more than six bytes.

use crate::error::Violation;

/// Largest integer accepted. All of HPACK's integers are lengths and indices within a header block, which is far smaller.
pub const MAX: usize = (1 << 28) - 1;

/// Appends `value` with `prefix` bits (1 to 8) in the first byte, whose other bits come from `flags`.
pub fn encode(out: &mut Vec<u8>, prefix: u32, flags: u8, value: usize) {
    let full = (1usize << prefix) - 1;
    if value < full {
        out.push(flags | value as u8);
        return;
    }
    out.push(flags | full as u8);
    let mut rest = value - full;
    while rest >= 0x80 {
        out.push(0x80 | (rest & 0x7f) as u8);
        rest >>= 7;
    }
    out.push(rest as u8);
}

/// Takes an integer with `prefix` bits (1 to 8) from the front of `input`.
///
/// # Errors
/// Truncated input, or a value above [`MAX`] or written with needlessly many bytes.
pub fn decode(input: &mut &[u8], prefix: u32) -> Result<usize, Violation> {
    let full = (1usize << prefix) - 1;
    let mut value = usize::from(take_byte(input)?) & full;
    if value < full {
        return Ok(value);
    }
    for shift in [0, 7, 14, 21, 28] {
        let byte = take_byte(input)?;
        value += usize::from(byte & 0x7f) << shift;
        if value > MAX {
            break;
        }
        if byte & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err(Violation::HpackInteger)
}

fn take_byte(input: &mut &[u8]) -> Result<u8, Violation> {
    let (&first, rest) = input.split_first().ok_or(Violation::HpackTruncated)?;
    *input = rest;
    Ok(first)
}

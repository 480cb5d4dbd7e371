//! The Huffman code of header strings (RFC 7541 §5.2 and Appendix B), decoding only: this side never sends it.
//!
//! The code is canonical: among codes of one length, values rise with the symbol, and shorter codes come first. So the
//! table of lengths below is all there is to know; everything else is derived from it at compile time.
//!
//! Invariant: every input is either decoded or refused, in time linear in its length; the output is at most 8/5 of it.

use crate::error::Violation;

/// Symbols of the code: 256 bytes and the end-of-string symbol, which must never appear.
const SYMBOLS: usize = 257;
const EOS: usize = 256;
const SHORTEST: u32 = 5;
const LONGEST: u32 = 30;
/// Codes up to this length are found by one look into [`SHORT`]; they cover all letters, digits and common punctuation.
const SHORT_BITS: u32 = 8;

/// Length in bits of each symbol's code, by symbol (RFC 7541 Appendix B).
#[rustfmt::skip]
const LENGTHS: [u8; SYMBOLS] = [
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28,
    28, 28, 28, 28, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 28,
     6, 10, 10, 12, 13,  6,  8, 11, 10, 10,  8, 11,  8,  6,  6,  6,
     5,  5,  5,  6,  6,  6,  6,  6,  6,  6,  7,  8, 15,  6, 12, 10,
    13,  6,  7,  7,  7,  7,  7,  7,  7,  7,  7,  7,  7,  7,  7,  7,
     7,  7,  7,  7,  7,  7,  7,  7,  8,  7,  8, 13, 19, 13, 14,  6,
    15,  5,  6,  5,  6,  5,  6,  6,  6,  5,  7,  7,  6,  6,  6,  5,
     6,  7,  6,  5,  5,  6,  7,  7,  7,  7,  7, 15, 11, 14, 13, 28,
    20, 22, 20, 20, 22, 22, 22, 23, 22, 23, 23, 23, 23, 23, 24, 23,
    24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24,
    22, 21, 20, 22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23,
    21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23,
    26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25,
    19, 21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28, 27, 27, 27,
    20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23,
    26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26,
    30,
];

/// All codes of one length: they are consecutive numbers.
#[derive(Clone, Copy)]
struct Level {
    /// The first code, aligned to the highest bit of 32.
    first: u32,
    /// One past the last code, aligned alike; in 64 bits since the last level ends at 2^32.
    end: u64,
    /// Where the level's symbols start in [`SORTED`].
    offset: u16,
}

/// Symbols by length, then by value: the order of their codes.
const SORTED: [u16; SYMBOLS] = {
    let mut sorted = [0; SYMBOLS];
    let mut filled = 0;
    let mut length = SHORTEST;
    while length <= LONGEST {
        let mut symbol = 0;
        while symbol < SYMBOLS {
            if LENGTHS[symbol] as u32 == length {
                sorted[filled] = symbol as u16;
                filled += 1;
            }
            symbol += 1;
        }
        length += 1;
    }
    assert!(filled == SYMBOLS);
    sorted
};

const LEVELS: [Level; LONGEST as usize + 1] = {
    let mut levels = [Level { first: 0, end: 0, offset: 0 }; LONGEST as usize + 1];
    let mut next: u64 = 0;
    let mut offset = 0;
    let mut length = SHORTEST;
    while length <= LONGEST {
        let mut count = 0;
        let mut symbol = 0;
        while symbol < SYMBOLS {
            if LENGTHS[symbol] as u32 == length {
                count += 1;
            }
            symbol += 1;
        }
        let end = next + ((count as u64) << (32 - length));
        levels[length as usize] = Level { first: next as u32, end, offset };
        next = end;
        offset += count;
        length += 1;
    }
    // The code uses the whole space: no bit string is without meaning.
    assert!(next == 1 << 32);
    levels
};

/// Symbol and length of the short code that the index starts with; length zero if the code is longer.
const SHORT: [(u8, u8); 1 << SHORT_BITS] = {
    let mut short = [(0, 0); 1 << SHORT_BITS];
    let mut index = 0;
    while index < short.len() {
        let aligned = (index as u32) << (32 - SHORT_BITS);
        let mut length = SHORTEST;
        while length <= SHORT_BITS {
            let level = LEVELS[length as usize];
            if aligned >= level.first && (aligned as u64) < level.end {
                let at = level.offset as u32 + ((aligned - level.first) >> (32 - length));
                short[index] = (SORTED[at as usize] as u8, length as u8);
                break;
            }
            length += 1;
        }
        index += 1;
    }
    short
};

/// Appends the decoded `input` to `out`.
///
/// # Errors
/// The end-of-string symbol in the input, or padding that is longer than seven bits or not all ones (RFC 7541 §5.2).
pub fn decode(input: &[u8], out: &mut Vec<u8>) -> Result<(), Violation> {
    let mut rest = input.iter();
    let mut bits: u64 = 0; // filled from the highest bit
    let mut filled: u32 = 0;
    loop {
        while filled <= 56 {
            let Some(&byte) = rest.next() else { break };
            bits |= u64::from(byte) << (56 - filled);
            filled += 8;
        }
        if filled == 0 {
            return Ok(());
        }
        let window = (bits >> 32) as u32;
        let (symbol, length) = symbol(window);
        if length > filled {
            // Only padding is left: the start of the end-of-string symbol, which is all ones.
            let ones = u64::MAX << (64 - filled);
            return if filled < 8 && bits == ones { Ok(()) } else { Err(Violation::HpackHuffman) };
        }
        let byte = u8::try_from(symbol).map_err(|_| Violation::HpackHuffman)?;
        out.push(byte);
        bits <<= length;
        filled -= length;
    }
}

/// The symbol that `window` starts with, and the length of its code.
fn symbol(window: u32) -> (u16, u32) {
    let (symbol, length) = SHORT[(window >> (32 - SHORT_BITS)) as usize];
    if length != 0 {
        return (u16::from(symbol), u32::from(length));
    }
    let mut length = SHORT_BITS + 1;
    while length < LONGEST && u64::from(window) >= LEVELS[length as usize].end {
        length += 1;
    }
    let level = LEVELS[length as usize];
    let at = usize::from(level.offset) + ((window - level.first) >> (32 - length)) as usize;
    (SORTED.get(at).copied().unwrap_or(EOS as u16), length)
}

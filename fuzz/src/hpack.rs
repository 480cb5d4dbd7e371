//! Header blocks.

use hbone::h2::hpack::{Decoder, Encoder};

use crate::choices::{Bytes, Choices};

/// Octets that one block may turn into; what a block of 64 KiB of indexed fields of the largest size would.
const MOST: usize = (1 << 16) * 4096;

/// Decodes blocks, each a length and so many bytes, with one decoder; what decodes is encoded, and decodes to the same.
pub fn hpack(data: &[u8]) {
    let mut bytes = Bytes(data);
    let (mut decoder, mut encoder, mut second) = (Decoder::new(), Encoder::new(), Decoder::new());
    while !bytes.0.is_empty() {
        let len = bytes.below(1 << 16);
        let mut fields = Vec::new();
        let mut total = 0;
        let decoded = decoder.decode(bytes.take(len), &mut |name, value| {
            total += name.len() + value.len();
            fields.push((name.to_vec(), value.to_vec()));
        });
        assert!(total <= MOST, "{total} octets");
        if decoded.is_err() {
            return;
        }
        let mut block = Vec::new();
        encoder.begin(&mut block);
        for (name, value) in &fields {
            encoder.field(&mut block, name, value);
        }
        let mut again = Vec::new();
        let decoded = second.decode(&block, &mut |name, value| again.push((name.to_vec(), value.to_vec())));
        assert_eq!(decoded, Ok(()), "our own block decodes");
        assert_eq!(again, fields);
    }
}

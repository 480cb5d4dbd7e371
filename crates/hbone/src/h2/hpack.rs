//! HPACK, the compression of header blocks (RFC 7541).
//!
//! Invariant: the decoder implements the whole of RFC 7541 in memory bounded by
//! [`HEADER_TABLE_SIZE`](crate::limits::HEADER_TABLE_SIZE); the encoder uses the static table only, so that it has no
//! state to keep in step and nothing of one stream can be guessed from another's size (RFC 7541 §7.1).
//!
//! Deliberately absent: the meaning of headers and limits on their number, which the receiver of
//! the decoded fields enforces.

mod decoder;
mod encoder;
mod huffman;
mod integer;
mod table;

pub use decoder::Decoder;
pub use encoder::Encoder;

#[cfg(test)]
mod tests;

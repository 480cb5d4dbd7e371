//! Decoding of header blocks (RFC 7541 §3 and §6).
//!
//! Invariant: fields are handed on one by one and never gathered, so that decoding needs no more memory than the table
//! and one string; after an error the table is out of step with the peer's and the connection must end (RFC 9113 §4.3).

use super::table::Table;
use super::{huffman, integer};
use crate::error::Violation;
use crate::limits::{HEADER_TABLE_SIZE, KEPT_BUFFER};

/// Decodes all header blocks of one connection, in their order.
#[derive(Debug)]
pub struct Decoder {
    table: Table,
    /// Scratch for a name or value that is not in the block as such.
    name: Vec<u8>,
    value: Vec<u8>,
}

impl Default for Decoder {
    fn default() -> Self {
        Self::new()
    }
}

impl Decoder {
    /// A decoder that offers the peer a dynamic table of [`HEADER_TABLE_SIZE`].
    pub fn new() -> Self {
        Decoder { table: Table::new(HEADER_TABLE_SIZE as usize), name: Vec::new(), value: Vec::new() }
    }

    /// Decodes one complete block, calling `field` with each name and value in order.
    ///
    /// # Errors
    /// What is wrong with the block; fields before the error have been handed on.
    pub fn decode(&mut self, block: &[u8], field: &mut dyn FnMut(&[u8], &[u8])) -> Result<(), Violation> {
        let mut input = block;
        let mut size_update_allowed = true;
        while let Some(&first) = input.first() {
            match first {
                0x80.. => {
                    let index = integer::decode(&mut input, 7)?;
                    let (name, value) = self.table.get(index).ok_or(Violation::HpackIndex)?;
                    field(name, value);
                }
                0x40.. => {
                    self.literal(&mut input, 6, field, Indexing::Incremental)?;
                }
                0x20.. => {
                    // Only before the first field of a block (RFC 7541 §4.2), and only within what we announced.
                    let size = integer::decode(&mut input, 5)?;
                    if !size_update_allowed || size > HEADER_TABLE_SIZE as usize {
                        return Err(Violation::HpackTableSize);
                    }
                    self.table.set_max_size(size);
                    continue;
                }
                // Without indexing, and never indexed: the difference matters only to who encodes again.
                _ => self.literal(&mut input, 4, field, Indexing::None)?,
            }
            size_update_allowed = false;
        }
        self.name.shrink_to(KEPT_BUFFER);
        self.value.shrink_to(KEPT_BUFFER);
        Ok(())
    }

    fn literal(
        &mut self,
        input: &mut &[u8],
        prefix: u32,
        field: &mut dyn FnMut(&[u8], &[u8]),
        indexing: Indexing,
    ) -> Result<(), Violation> {
        let index = integer::decode(input, prefix)?;
        let indexed_name = match index {
            0 => string(input, &mut self.name)?,
            _ => {
                let (name, _) = self.table.get(index).ok_or(Violation::HpackIndex)?;
                // Copied, because inserting may evict the entry that the name comes from (RFC 7541 §4.4).
                self.name.clear();
                self.name.extend_from_slice(name);
                None
            }
        };
        let plain_value = string(input, &mut self.value)?;
        let name = indexed_name.unwrap_or(&self.name);
        let value = plain_value.unwrap_or(&self.value);
        field(name, value);
        if let Indexing::Incremental = indexing {
            self.table.insert(name, value);
        }
        Ok(())
    }

    #[cfg(test)]
    pub(super) fn table(&self) -> &Table {
        &self.table
    }
}

enum Indexing {
    Incremental,
    None,
}

/// Takes a string literal (RFC 7541 §5.2): borrowed if it is plain, in `scratch` and `None` if it was Huffman-coded.
fn string<'a>(input: &mut &'a [u8], scratch: &mut Vec<u8>) -> Result<Option<&'a [u8]>, Violation> {
    let huffman = input.first().ok_or(Violation::HpackTruncated)? & 0x80 != 0;
    let length = integer::decode(input, 7)?;
    let (text, rest) = input.split_at_checked(length).ok_or(Violation::HpackTruncated)?;
    *input = rest;
    if !huffman {
        return Ok(Some(text));
    }
    scratch.clear();
    huffman::decode(text, scratch)?;
    Ok(None)
}

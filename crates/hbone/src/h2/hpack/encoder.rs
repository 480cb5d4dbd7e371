//! Encoding of header blocks with the static table alone (RFC 7541 §6.1 and §6.2.2).
//!
//! Invariant: nothing sent ever refers to the peer's dynamic table, so a lost or reordered block cannot corrupt another.

use super::integer;
use super::table::STATIC;

/// Encodes all header blocks of one connection.
#[derive(Debug)]
pub struct Encoder {
    /// The dynamic table size the peer's decoder believes we may use.
    table_size: usize,
    /// The peer lowered it: the next block must say so (RFC 7541 §4.2), although we use none.
    update_due: bool,
}

impl Default for Encoder {
    fn default() -> Self {
        Self::new()
    }
}

impl Encoder {
    /// An encoder towards a peer that has said nothing yet.
    pub fn new() -> Self {
        Encoder { table_size: crate::limits::HEADER_TABLE_SIZE as usize, update_due: false }
    }

    /// The peer announced SETTINGS_HEADER_TABLE_SIZE. A larger table than before is simply not used.
    pub fn limit_table(&mut self, size: u32) {
        let size = size as usize;
        if size < self.table_size {
            self.table_size = size;
            self.update_due = true;
        }
    }

    /// Must come first in every block.
    pub fn begin(&mut self, block: &mut Vec<u8>) {
        if std::mem::take(&mut self.update_due) {
            integer::encode(block, 5, 0x20, self.table_size);
        }
    }

    /// Appends a field, whose name must be in lower case.
    pub fn field(&mut self, block: &mut Vec<u8>, name: &[u8], value: &[u8]) {
        let same_name = |(n, _): &(&str, &str)| n.as_bytes() == name;
        let Some(first) = STATIC.iter().position(same_name) else {
            block.push(0);
            string(block, name);
            string(block, value);
            return;
        };
        let same_value = |(_, v): &(&str, &str)| v.as_bytes() == value;
        match STATIC[first..].iter().take_while(|e| same_name(e)).position(same_value) {
            Some(offset) => integer::encode(block, 7, 0x80, first + offset + 1),
            None => {
                integer::encode(block, 4, 0, first + 1);
                string(block, value);
            }
        }
    }
}

fn string(block: &mut Vec<u8>, text: &[u8]) {
    integer::encode(block, 7, 0, text.len());
    block.extend_from_slice(text);
}

//! The static and the dynamic table (RFC 7541 §2.3 and Appendix A).
//!
//! Invariant: the dynamic table's size, counted as RFC 7541 §4.1 wants it, never exceeds its current maximum, which
//! never exceeds what was announced.

use std::collections::VecDeque;

/// What an entry costs beyond its octets (RFC 7541 §4.1).
const ENTRY_OVERHEAD: usize = 32;

/// RFC 7541 Appendix A; index 1 is the first.
#[rustfmt::skip]
pub const STATIC: [(&str, &str); 61] = [
    (":authority", ""), (":method", "GET"), (":method", "POST"), (":path", "/"), (":path", "/index.html"),
    (":scheme", "http"), (":scheme", "https"), (":status", "200"), (":status", "204"), (":status", "206"),
    (":status", "304"), (":status", "400"), (":status", "404"), (":status", "500"), ("accept-charset", ""),
    ("accept-encoding", "gzip, deflate"), ("accept-language", ""), ("accept-ranges", ""), ("accept", ""),
    ("access-control-allow-origin", ""), ("age", ""), ("allow", ""), ("authorization", ""), ("cache-control", ""),
    ("content-disposition", ""), ("content-encoding", ""), ("content-language", ""), ("content-length", ""),
    ("content-location", ""), ("content-range", ""), ("content-type", ""), ("cookie", ""), ("date", ""), ("etag", ""),
    ("expect", ""), ("expires", ""), ("from", ""), ("host", ""), ("if-match", ""), ("if-modified-since", ""),
    ("if-none-match", ""), ("if-range", ""), ("if-unmodified-since", ""), ("last-modified", ""), ("link", ""),
    ("location", ""), ("max-forwards", ""), ("proxy-authenticate", ""), ("proxy-authorization", ""), ("range", ""),
    ("referer", ""), ("refresh", ""), ("retry-after", ""), ("server", ""), ("set-cookie", ""),
    ("strict-transport-security", ""), ("transfer-encoding", ""), ("user-agent", ""), ("vary", ""), ("via", ""),
    ("www-authenticate", ""),
];

#[derive(Debug)]
struct Entry {
    name_len: usize,
    /// Name and value, one after the other.
    text: Box<[u8]>,
}

impl Entry {
    fn size(&self) -> usize {
        self.text.len() + ENTRY_OVERHEAD
    }
}

/// Both tables under one index space (RFC 7541 §2.3.3).
#[derive(Debug)]
pub struct Table {
    /// Newest first.
    dynamic: VecDeque<Entry>,
    size: usize,
    max_size: usize,
}

impl Table {
    pub fn new(max_size: usize) -> Self {
        Table { dynamic: VecDeque::new(), size: 0, max_size }
    }

    /// Name and value at an index; `None` if there is no such entry.
    pub fn get(&self, index: usize) -> Option<(&[u8], &[u8])> {
        let position = index.checked_sub(1)?;
        if let Some((name, value)) = STATIC.get(position) {
            return Some((name.as_bytes(), value.as_bytes()));
        }
        let entry = self.dynamic.get(position - STATIC.len())?;
        Some(entry.text.split_at(entry.name_len))
    }

    /// Adds an entry, evicting old ones; one that is larger than the table empties it (RFC 7541 §4.4).
    pub fn insert(&mut self, name: &[u8], value: &[u8]) {
        let size = name.len() + value.len() + ENTRY_OVERHEAD;
        if size > self.max_size {
            self.shrink_to(0);
            return;
        }
        self.shrink_to(self.max_size - size);
        let entry = Entry { name_len: name.len(), text: [name, value].concat().into() };
        self.size += entry.size();
        self.dynamic.push_front(entry);
    }

    /// Changes the maximum size, evicting what no longer fits (RFC 7541 §4.3).
    pub fn set_max_size(&mut self, max_size: usize) {
        self.max_size = max_size;
        self.shrink_to(max_size);
    }

    /// Octets in use (RFC 7541 §4.1).
    #[cfg(test)]
    pub fn size(&self) -> usize {
        self.size
    }

    fn shrink_to(&mut self, size: usize) {
        while self.size > size {
            let Some(oldest) = self.dynamic.pop_back() else { break };
            self.size -= oldest.size();
        }
    }
}

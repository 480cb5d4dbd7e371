//! Where a target takes its decisions from: the fuzzer's bytes, or a seed.

/// A source of decisions.
pub trait Choices {
    /// The next one, or `None` if there are no more.
    fn next(&mut self) -> Option<u8>;

    /// One below `limit`, which is at least 1; the first alternative when there are no more.
    fn below(&mut self, limit: usize) -> usize {
        let low = usize::from(self.next().unwrap_or(0));
        let number = if limit > 256 { low << 8 | usize::from(self.next().unwrap_or(0)) } else { low };
        number % limit.max(1)
    }
}

/// Decisions by a fuzzer.
#[derive(Debug, Clone, Copy)]
pub struct Bytes<'a>(pub &'a [u8]);

impl Bytes<'_> {
    /// The next `len` bytes, or as many as there are.
    pub fn take(&mut self, len: usize) -> &[u8] {
        let (taken, rest) = self.0.split_at(len.min(self.0.len()));
        self.0 = rest;
        taken
    }
}

impl Choices for Bytes<'_> {
    fn next(&mut self) -> Option<u8> {
        let (&first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(first)
    }
}

/// Decisions by a seed, as many as `left` says (SplitMix64).
#[derive(Debug, Clone, Copy)]
pub struct Seeded {
    state: u64,
    left: usize,
}

impl Seeded {
    /// `count` decisions that follow from `seed`.
    #[must_use]
    pub fn new(seed: u64, count: usize) -> Self {
        Self { state: seed, left: count }
    }
}

impl Choices for Seeded {
    fn next(&mut self) -> Option<u8> {
        self.left = self.left.checked_sub(1)?;
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        Some(((z ^ (z >> 31)) >> 32) as u8)
    }
}

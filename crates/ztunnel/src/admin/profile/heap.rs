//! Profiles of memory: what jemalloc prints of its samples, read and made whole.
//!
//! Only some allocations are sampled, large ones more likely than small ones. What is told is what all of them come to
//! if those that were seen are like the others (jemalloc's own `jeprof` reckons the same).

use std::collections::BTreeMap;

/// What one stack has allocated and not freed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Stack {
    /// Return addresses, the innermost first.
    pub(super) addresses: Vec<u64>,
    /// Allocations.
    pub(super) objects: i64,
    /// Their bytes.
    pub(super) bytes: i64,
}

/// A profile as jemalloc prints it.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub(super) struct Heap {
    /// Bytes between two samples, in the middle.
    pub(super) period: i64,
    pub(super) stacks: Vec<Stack>,
}

/// The format that is understood, which the first line names before the period.
const FORMAT: &str = "heap_v2/";
/// What stands before the counts of all threads together.
const ALL_THREADS: &str = "t*: ";

impl Heap {
    /// Reads what jemalloc has printed; `None` if it is of another format.
    pub(super) fn of(printed: &str) -> Option<Self> {
        let mut lines = printed.lines();
        let period: i64 = lines.next()?.strip_prefix(FORMAT)?.trim().parse().ok()?;
        let mut stacks: BTreeMap<Vec<u64>, (i64, i64)> = BTreeMap::new();
        let mut addresses: Option<Vec<u64>> = None;
        for line in lines.take_while(|line| !line.starts_with("MAPPED_LIBRARIES")) {
            if let Some(stack) = line.strip_prefix('@') {
                addresses = Some(stack.split_whitespace().filter_map(address).collect());
            } else if let Some(counts) = line.trim_start().strip_prefix(ALL_THREADS)
                && let Some(addresses) = addresses.take()
            {
                let (objects, bytes) = whole(counts, period)?;
                let sum = stacks.entry(addresses).or_default();
                *sum = (sum.0 + objects, sum.1 + bytes);
            }
        }
        let stacks = stacks.into_iter().map(|(addresses, (objects, bytes))| Stack { addresses, objects, bytes });
        Some(Self { period, stacks: stacks.collect() })
    }
}

fn address(text: &str) -> Option<u64> {
    u64::from_str_radix(text.strip_prefix("0x")?, 16).ok()
}

/// Objects and bytes, in all, of what `13: 6688 [0: 0]` says was sampled. A sample stands for as many allocations of its
/// size as it takes, on average, until one of them is sampled.
fn whole(counts: &str, period: i64) -> Option<(i64, i64)> {
    let (objects, rest) = counts.split_once(": ")?;
    let bytes = rest.split_whitespace().next()?;
    let (objects, bytes): (i64, i64) = (objects.parse().ok()?, bytes.parse().ok()?);
    if objects == 0 || period <= 1 {
        return Some((objects, bytes));
    }
    let size = bytes as f64 / objects as f64;
    let scale = 1.0 / -(-size / period as f64).exp_m1();
    Some(((objects as f64 * scale).round() as i64, (bytes as f64 * scale).round() as i64))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PRINTED: &str = "heap_v2/524288\n  t*: 3: 1573376 [0: 0]\n  t0: 3: 1573376 [0: 0]\n\
        @ 0x10 0x20 0x30\n  t*: 2: 1572864 [0: 0]\n  t0: 2: 1572864 [0: 0]\n\
        @ 0x10 0x40\n  t*: 1: 512 [0: 0]\n  t0: 1: 512 [0: 0]\n\nMAPPED_LIBRARIES:\n00-ff r--p /bin/z\n@ 0x1\n";

    #[test]
    fn stacks_have_what_all_allocations_come_to() {
        let heap = Heap::of(PRINTED).unwrap();
        assert_eq!((heap.period, heap.stacks.len()), (524_288, 2));
        // 786,432 bytes are one and a half periods: sampled with a probability of 1 - e^-1.5.
        let large = &heap.stacks[0];
        assert_eq!((&*large.addresses, large.objects), (&[0x10, 0x20, 0x30][..], 3));
        assert_eq!(large.bytes, (1_572_864.0 / (1.0 - (-1.5_f64).exp())).round() as i64);
        // One in 1,024 or so of such small ones is sampled.
        let small = &heap.stacks[1];
        assert_eq!((&*small.addresses, small.objects), (&[0x10, 0x40][..], 1025));
    }

    #[test]
    fn what_is_of_another_format_is_not_guessed_at() {
        for printed in ["", "heap_v3/1\n", "heap_v2/x\n", "heap_v2/8\n@ 0x1\n  t*: many: 7\n"] {
            assert_eq!(Heap::of(printed), None, "{printed}");
        }
    }
}

//! The C library's allocator, spared of alignment.
//!
//! tokio aligns each task and each socket to two cache lines, and for that `posix_memalign` takes a larger block, gives
//! back what is before and behind the aligned part, and so breaks up what lay together, at each connection anew. A plain
//! block that is larger by the alignment is a few instructions away instead.

use std::alloc::{GlobalAlloc, Layout, System};
use std::ptr;

/// What every block of the C library is aligned to on the 64-bit targets.
const GIVEN: usize = 16;
/// The largest alignment that is served by a larger block; beyond, the room that it wastes is worth more.
const MOST: usize = 128;

/// The C library's allocator; see the top of this file.
#[derive(Debug, Clone, Copy, Default)]
pub struct Aligned;

/// The layout of the plain block behind an aligned one; `None` if the C library is to align it.
fn plain(layout: Layout) -> Option<Layout> {
    if layout.align() <= GIVEN || layout.align() > MOST {
        return None;
    }
    Layout::from_size_align(layout.size().checked_add(layout.align())?, GIVEN).ok()
}

#[allow(unsafe_code, reason = "an allocator hands out raw memory")]
// SAFETY: a block is either the system's own, or lies within a larger one of the system's, aligned, with room for the
// address of the latter right before it: a plain block is aligned to `GIVEN`, so that between it and the next multiple of
// a larger power of two, which is not the block itself, are at least `GIVEN` bytes. Both ways of freeing are told apart by
// the layout alone, which is the same for both.
unsafe impl GlobalAlloc for Aligned {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let Some(larger) = plain(layout) else {
            // SAFETY: as the caller's.
            return unsafe { System.alloc(layout) };
        };
        // SAFETY: the size is not zero, since it is at least the alignment.
        let start = unsafe { System.alloc(larger) };
        if start.is_null() {
            return start;
        }
        let ahead = layout.align() - start.addr() % layout.align();
        // SAFETY: `ahead` is at most the alignment, by which the block is larger, and at least `GIVEN`.
        unsafe {
            let block = start.add(ahead);
            block.cast::<*mut u8>().sub(1).write(start);
            block
        }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        match plain(layout) {
            // SAFETY: as the caller's.
            None => unsafe { System.dealloc(block, layout) },
            // SAFETY: before a block of this layout is the address of the one that it lies in.
            Some(larger) => unsafe { System.dealloc(block.cast::<*mut u8>().sub(1).read(), larger) },
        }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        if plain(layout).is_none() {
            // SAFETY: as the caller's.
            return unsafe { System.alloc_zeroed(layout) };
        }
        // SAFETY: as the caller's; what is not null has the size that was asked for.
        unsafe {
            let block = self.alloc(layout);
            if !block.is_null() {
                ptr::write_bytes(block, 0, layout.size());
            }
            block
        }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        if plain(layout).is_none() {
            // SAFETY: as the caller's.
            return unsafe { System.realloc(block, layout, size) };
        }
        // SAFETY: the caller's size does not overflow with this alignment, and what is copied fits in both.
        unsafe {
            let other = self.alloc(Layout::from_size_align_unchecked(size, layout.align()));
            if !other.is_null() {
                ptr::copy_nonoverlapping(block, other, layout.size().min(size));
                self.dealloc(block, layout);
            }
            other
        }
    }
}

#[cfg(test)]
#[allow(unsafe_code, reason = "an allocator hands out raw memory")]
mod tests {
    use super::*;

    const SIZES: [usize; 6] = [1, 16, 100, 128, 2_049, 70_000];
    const ALIGNMENTS: [usize; 7] = [1, 8, 16, 32, 64, 128, 4_096];

    /// Fills a block with a pattern that no other seed has at the same place.
    ///
    /// # Safety
    /// The block is as large as that.
    unsafe fn fill(block: *mut u8, size: usize, seed: usize) {
        // SAFETY: the caller's.
        (0..size).for_each(|at| unsafe { block.add(at).write((at + seed) as u8) });
    }

    /// # Safety
    /// As of [`fill`].
    unsafe fn is_filled(block: *mut u8, size: usize, seed: usize) -> bool {
        // SAFETY: the caller's.
        (0..size).all(|at| unsafe { block.add(at).read() } == (at + seed) as u8)
    }

    #[test]
    fn blocks_are_aligned_and_nobody_elses_whatever_their_size() {
        // SAFETY: every block is used within its layout and freed with the same one.
        unsafe {
            let layouts = SIZES.iter().flat_map(|&size| {
                ALIGNMENTS.iter().map(move |&alignment| Layout::from_size_align(size, alignment).unwrap())
            });
            let blocks: Vec<(*mut u8, Layout)> = layouts.map(|layout| (Aligned.alloc(layout), layout)).collect();
            blocks.iter().enumerate().for_each(|(seed, (block, layout))| fill(*block, layout.size(), seed));
            for (seed, (block, layout)) in blocks.into_iter().enumerate() {
                assert_eq!(block.addr() % layout.align(), 0, "{layout:?}");
                assert!(is_filled(block, layout.size(), seed), "{layout:?}");
                Aligned.dealloc(block, layout);
            }
        }
    }

    #[test]
    fn a_block_keeps_what_it_has_when_it_grows_or_shrinks_and_begins_as_zeroes_if_asked() {
        for alignment in ALIGNMENTS {
            // SAFETY: as above; a block that has another size is freed with that.
            unsafe {
                let of = |size| Layout::from_size_align(size, alignment).unwrap();
                let dirty = Aligned.alloc(of(3_000));
                fill(dirty, 3_000, 1);
                Aligned.dealloc(dirty, of(3_000));
                let block = Aligned.alloc_zeroed(of(3_000));
                assert!((0..3_000).all(|at| block.add(at).read() == 0), "{alignment}");
                fill(block, 3_000, 2);
                let larger = Aligned.realloc(block, of(3_000), 9_000);
                assert_eq!(larger.addr() % alignment, 0);
                assert!(is_filled(larger, 3_000, 2), "{alignment}");
                let smaller = Aligned.realloc(larger, of(9_000), 10);
                assert_eq!(smaller.addr() % alignment, 0);
                assert!(is_filled(smaller, 10, 2), "{alignment}");
                Aligned.dealloc(smaller, of(10));
            }
        }
    }
}

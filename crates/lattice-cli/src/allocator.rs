//! The allocator of builds with a GPU.
//!
//! Asking a GPU for a launch takes dozens of short-lived blocks of a few bytes, a fifth of what the host does for a training step with the C
//! library's allocator. Small blocks come from mimalloc, which hands them out faster; large ones stay where freed memory can be told to stay
//! (`lattice_cpu::keep_pages`).

use std::alloc::{GlobalAlloc, Layout, System};

use mimalloc::MiMalloc;

/// Longest block that counts as small, in bytes.
const SMALL: usize = 16 << 10;

/// Chooses by the size that a block was asked for with, which its owner also frees it with.
struct BySize;

#[global_allocator]
static ALLOCATOR: BySize = BySize;

impl BySize {
    fn of(size: usize) -> &'static dyn GlobalAlloc {
        if size <= SMALL { &MiMalloc } else { &System }
    }
}

// SAFETY: both allocators keep the contract; a block goes back to the one it came from, since a block's layout never changes but in `realloc`,
// which moves it where the sizes belong to different ones.
unsafe impl GlobalAlloc for BySize {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promises are those of the allocator's own function.
        unsafe { Self::of(layout.size()).alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as above.
        unsafe { Self::of(layout.size()).alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: as above; the block came from the allocator of its size.
        unsafe { Self::of(layout.size()).dealloc(block, layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        if (layout.size() <= SMALL) == (new_size <= SMALL) {
            // SAFETY: as above; the block stays with its allocator.
            return unsafe { Self::of(layout.size()).realloc(block, layout, new_size) };
        }
        // SAFETY: the caller promises that the new size, rounded up to the alignment, does not pass `isize`. Both blocks hold the bytes
        // that are copied, and do not overlap, since both are allocated.
        unsafe {
            let moved = self.alloc(Layout::from_size_align_unchecked(new_size, layout.align()));
            if !moved.is_null() {
                moved.copy_from_nonoverlapping(block, layout.size().min(new_size));
                self.dealloc(block, layout);
            }
            moved
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_keep_their_bytes_when_they_grow_and_shrink_over_the_limit() {
        for align in [1, 8, 64] {
            let sizes = [1, 100, SMALL, SMALL + 1, 3 * SMALL, SMALL, 7, 2 * SMALL];
            let mut layout = Layout::from_size_align(sizes[0], align).expect("a layout");
            // SAFETY: no size is 0; every layout is the one that its block has.
            unsafe {
                let mut block = BySize.alloc(layout);
                block.write_bytes(0xA5, layout.size());
                for size in &sizes[1..] {
                    let kept = layout.size().min(*size);
                    block = BySize.realloc(block, layout, *size);
                    layout = Layout::from_size_align(*size, align).expect("a layout");
                    assert_eq!(block.addr() % align, 0);
                    assert!(std::slice::from_raw_parts(block, kept).iter().all(|&byte| byte == 0xA5));
                    block.write_bytes(0xA5, layout.size());
                }
                BySize.dealloc(block, layout);
                for size in [SMALL, SMALL + 1] {
                    let layout = Layout::from_size_align(size, align).expect("a layout");
                    let zeros = BySize.alloc_zeroed(layout);
                    assert!(std::slice::from_raw_parts(zeros, size).iter().all(|&byte| byte == 0));
                    BySize.dealloc(zeros, layout);
                }
            }
        }
    }
}

//! Buffers that each thread keeps, so that operations do not fault fresh pages in at every call.

use std::cell::RefCell;

use bytemuck::{Pod, Zeroable};

/// A cache line of `f32`.
#[derive(Clone, Copy, Zeroable, Pod)]
#[repr(C, align(64))]
struct Line([f32; 16]);

/// What a buffer is for: nested uses need different ones.
#[derive(Clone, Copy)]
pub(crate) enum Purpose {
    /// Packed weights of a call.
    Weights,
    /// Sums of a block of rows.
    Tile,
    /// Gathered rows.
    Rows,
    /// Partial weight gradients of a call.
    Partials,
}

/// Bytes of a buffer that a thread keeps for its next operation; a larger one is given back.
const KEEP_BYTES: usize = 32 << 20;

thread_local! {
    static KEPT: RefCell<[Vec<Line>; 4]> = const { RefCell::new([const { Vec::new() }; 4]) };
}

/// Hands `floats` floats to `f`, aligned to a cache line, with whatever the last user left in them.
pub(crate) fn with_scratch<R>(purpose: Purpose, floats: usize, f: impl FnOnce(&mut [f32]) -> R) -> R {
    let place = purpose as usize;
    // Taken out, not borrowed: while `f` waits for others, this thread may run another operation.
    let mut lines = KEPT.with_borrow_mut(|kept| std::mem::take(&mut kept[place]));
    let needed = floats.div_ceil(16);
    if lines.len() < needed {
        lines = Vec::new(); // nothing to copy
        lines.resize(needed, Line([0.0; 16]));
    }
    let result = f(&mut bytemuck::cast_slice_mut(&mut lines[..needed])[..floats]);
    if size_of_val(&lines[..]) <= KEEP_BYTES {
        KEPT.with_borrow_mut(|kept| {
            if kept[place].len() < lines.len() {
                kept[place] = lines;
            }
        });
    }
    result
}

//! Cuts a matrix into rectangles that threads write at the same time.

use std::marker::PhantomData;
use std::ops::Range;

/// A rectangle of a row-major matrix, writable by whoever holds it. Rectangles of one [`split_tiles`] never overlap.
pub(crate) struct TileMut<'a, T> {
    first: *mut T,
    rows: usize,
    stride: usize,
    cols: usize,
    matrix: PhantomData<&'a mut [T]>,
}

// SAFETY: a `TileMut` is the only way to its elements while it lives, as `&mut [T]` is; sending one sends access to `T`s.
unsafe impl<T: Send> Send for TileMut<'_, T> {}

impl<T> TileMut<'_, T> {
    /// Rows of the rectangle.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Row `row` of the rectangle. Panics when it does not exist.
    #[inline]
    pub fn row_mut(&mut self, row: usize) -> &mut [T] {
        assert!(row < self.rows, "row {row} of a tile of {} rows", self.rows);
        // SAFETY: `split_tiles` made sure that these elements lie in the matrix and in no other tile; the borrow of `self` keeps
        // two rows of this tile from being out at once.
        unsafe { std::slice::from_raw_parts_mut(self.first.add(row * self.stride), self.cols) }
    }
}

/// Cuts a matrix of `width` columns into blocks of `block` rows times the given column ranges: block-major, ranges in order.
///
/// Panics unless the ranges ascend without overlap within `width` and the matrix has whole rows.
pub(crate) fn split_tiles<'a, T>(
    matrix: &'a mut [T],
    width: usize,
    block: usize,
    columns: &[Range<usize>],
) -> Vec<TileMut<'a, T>> {
    let mut end = 0;
    for range in columns {
        assert!(
            end <= range.start && range.start <= range.end && range.end <= width,
            "column ranges overlap"
        );
        end = range.end;
    }
    assert!(width > 0 && block > 0 && matrix.len().is_multiple_of(width), "the matrix has no whole rows");
    let rows = matrix.len() / width;
    let base = matrix.as_mut_ptr();
    let mut tiles = Vec::with_capacity(rows.div_ceil(block) * columns.len());
    for start in (0..rows).step_by(block) {
        for range in columns {
            tiles.push(TileMut {
                first: base.wrapping_add(start * width + range.start),
                rows: block.min(rows - start),
                stride: width,
                cols: range.len(),
                matrix: PhantomData,
            });
        }
    }
    tiles
}

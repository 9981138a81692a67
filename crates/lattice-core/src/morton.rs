//! Morton codes as data files and other libraries know them, and sorting by them.

use rayon::prelude::*;

use crate::Coord;
use crate::coord::{Keyed, sort_keyed, sort_rows, spread};

/// Rows a task of a parallel loop takes.
const CHUNK: usize = 16_384;

/// Rows sorted by a code, and the way there and back.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MortonOrdering {
    /// The rows in ascending order of their codes.
    pub coords: Vec<Coord>,
    /// Row that stands at each position: `coords[j] = input[order[j]]`.
    pub order: Vec<u32>,
    /// Position of each row: `inverse_rows[order[j]] = j`.
    pub inverse_rows: Vec<u32>,
}

#[inline]
fn code(c: &Coord) -> i64 {
    let [b, x, y, z] = *c;
    let [x, y, z] = [x, y, z].map(|v| spread(v as u32)); // keeps the low 21 bits
    let bits = x | y << 1 | z << 2;
    bits.wrapping_add((i64::from(b) as u64) << 60) as i64
}

/// The Morton code of every row: bit `3 i` is bit `i` of x, `3 i + 1` of y, `3 i + 2` of z for `i` in `0..21`, plus
/// `batch · 2^60`, wrapping.
///
/// Codes are unique only for `0 <= x, y, z < 2^20` and `0 <= batch <= 7`: the batch id shares bits 60 to 62 with bit 20 of the
/// axes. Negative values sort after positive ones; batch 8 makes a negative code. For any data use [`canonical_order`].
pub fn morton_codes(coords: &[Coord]) -> Vec<i64> {
    coords.par_iter().with_min_len(CHUNK).map(code).collect()
}

/// Row ids in ascending order of the signed [`morton_codes`]; equal codes in row order.
pub fn morton_order(coords: &[Coord]) -> Vec<u32> {
    // Flipping the sign bit makes the unsigned order of the keys the signed order of the codes.
    let keyed = |(row, c): (usize, &Coord)| Keyed { key: code(c) as u64 ^ 1 << 63, row: row as u32, tag: 0 };
    let sorted = sort_keyed(coords.par_iter().with_min_len(CHUNK).enumerate().map(keyed).collect());
    sorted.par_iter().with_min_len(CHUNK).map(|entry| entry.row).collect()
}

/// Rows in [`morton_order`], with the order and its inverse.
pub fn morton_sort(coords: &[Coord]) -> MortonOrdering {
    let order = morton_order(coords);
    let sorted = order.par_iter().with_min_len(CHUNK).map(|&row| coords[row as usize]).collect();
    let mut inverse_rows = vec![0; order.len()];
    for (position, &row) in order.iter().enumerate() {
        inverse_rows[row as usize] = position as u32;
    }
    MortonOrdering { coords: sorted, order, inverse_rows }
}

/// Row ids in canonical order ([`canonical_cmp`](crate::canonical_cmp)) of their coordinates, over the whole range of `i32`; equal
/// rows in row order.
pub fn canonical_order(coords: &[Coord]) -> Vec<u32> {
    sort_rows(coords).order
}

//! Morton codes as data files and other libraries know them, and sorting by them.

use rayon::prelude::*;

use crate::sort::{canonical_rows, sort_narrow};
use crate::{Coord, canonical_cmp};

/// Rows a task of a parallel loop takes.
const CHUNK: usize = 16_384;

/// Bits of each axis that a code keeps.
const AXIS_BITS: u32 = 21;

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

/// Spreads the low 21 bits so that bit `i` lands on bit `3 i`.
#[inline]
fn spread(v: i32) -> u64 {
    let mut x = u64::from(v as u32) & ((1 << AXIS_BITS) - 1);
    x = (x | x << 32) & 0x001f_0000_0000_ffff;
    x = (x | x << 16) & 0x001f_0000_ff00_00ff;
    x = (x | x << 8) & 0x100f_00f0_0f00_f00f;
    x = (x | x << 4) & 0x10c3_0c30_c30c_30c3;
    (x | x << 2) & 0x1249_2492_4924_9249
}

#[inline]
fn code(c: &Coord) -> i64 {
    let [b, x, y, z] = *c;
    let bits = spread(x) | spread(y) << 1 | spread(z) << 2;
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
    let key = |c: &Coord| code(c) as u64 ^ 1 << 63;
    sort_narrow(coords.par_iter().with_min_len(CHUNK).map(key).collect(), 64)
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
    if coords.par_iter().with_min_len(CHUNK).all(|c| c[0] >= 0) {
        return canonical_rows(coords);
    }
    // Packed keys have no place for the sign of a batch id.
    let mut order: Vec<u32> = (0..coords.len() as u32).collect();
    order.par_sort_by(|&a, &b| canonical_cmp(&coords[a as usize], &coords[b as usize]));
    order
}

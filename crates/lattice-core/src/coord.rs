//! Coordinate rows and their canonical order.

use std::cmp::Ordering;

use crate::{Error, Result};

/// One row: batch, x, y, z.
pub type Coord = [i32; 4];

/// Spreads the low 32 bits so that bit `i` lands on bit `3 i`.
fn spread(v: u32) -> u128 {
    (0..32).fold(0, |acc, i| acc | (u128::from(v >> i & 1) << (3 * i)))
}

/// Canonical order: batch, then the interleaved bits of the biased x, y, z from the top, z above y above x.
pub fn canonical_cmp(a: &Coord, b: &Coord) -> Ordering {
    let code = |c: &Coord| {
        let bias = |v: i32| v as u32 ^ 0x8000_0000;
        spread(bias(c[1])) | spread(bias(c[2])) << 1 | spread(bias(c[3])) << 2
    };
    a[0].cmp(&b[0]).then_with(|| code(a).cmp(&code(b)))
}

/// Narrows i64 rows with a range check.
///
/// # Errors
/// [`Error::OutOfRange`] naming the first row outside i32.
pub fn check_coords_i64(rows: &[[i64; 4]]) -> Result<Vec<Coord>> {
    let narrow = |(row, c): (usize, &[i64; 4])| {
        let mut out = [0; 4];
        for (to, &from) in out.iter_mut().zip(c) {
            *to = i32::try_from(from).map_err(|_| Error::OutOfRange {
                op: "coordinates",
                row,
                what: format!("expected values inside i32, found {c:?}"),
            })?;
        }
        Ok(out)
    };
    rows.iter().enumerate().map(narrow).collect()
}

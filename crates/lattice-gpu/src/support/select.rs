//! Choosing rows: by box, by number, by score.

use cubecl::prelude::*;

use super::launch::{Created, kept};
use crate::address::UNITS;
use crate::gpu::{Buffer, Gpu};
use crate::sort::{Keys, sort_rows};

/// `flags[row]`: whether `low <= xyz <= high` on every axis. One unit a row.
#[cube(launch_unchecked)]
fn box_flags_kernel(
    coords: &[Vector<i32, Const<4>>],
    flags: &mut [u32],
    n: u32,
    low_x: i32,
    low_y: i32,
    low_z: i32,
    high_x: i32,
    high_y: i32,
    high_z: i32,
) {
    let row = ABSOLUTE_POS as u32;
    if row < n {
        let c = coords[row as usize];
        let (x, y, z) = (c.extract(1usize), c.extract(2usize), c.extract(3usize));
        let inside = low_x <= x && x <= high_x && low_y <= y && y <= high_y && low_z <= z && z <= high_z;
        flags[row as usize] = select(inside, 1u32, 0u32);
    }
}

/// The rows with `low <= xyz <= high` on every axis, in their order, and the row that each was. One wait.
pub fn inside(gpu: &Gpu, coords: &Buffer, low: [i32; 3], high: [i32; 3]) -> Created {
    let n = coords.len / 4;
    let flags = gpu.empty(n, 4);
    // SAFETY: one unit a row, checked against the count.
    unsafe {
        box_flags_kernel::launch_unchecked(
            gpu.client(),
            Gpu::cubes(n, UNITS as usize),
            CubeDim::new_1d(UNITS),
            coords.arg(4),
            flags.arg(1),
            n as u32,
            low[0],
            low[1],
            low[2],
            high[0],
            high[1],
            high[2],
        );
    }
    kept(gpu, coords, &flags)
}

/// Rows that were named.
#[derive(Clone, Debug)]
pub struct Named {
    /// `[n, 4]`.
    pub coords: Buffer,
    /// Whether every number is above the one before.
    pub ascending: bool,
}

/// Copies named rows. `found[0]`: numbers that are no row or were taken before; `found[1]`: numbers not above the one before. One unit
/// a number.
#[cube(launch_unchecked)]
fn name_rows_kernel(
    coords: &[Vector<i32, Const<4>>],
    numbers: &[i32],
    taken: &mut [Atomic<u32>],
    out: &mut [Vector<i32, Const<4>>],
    found: &mut [Atomic<u32>],
    n_rows: i32,
    n: u32,
) {
    let at = ABSOLUTE_POS as u32;
    if at < n {
        let row = numbers[at as usize];
        if row >= 0i32 && row < n_rows {
            out[at as usize] = coords[row as usize];
            let bit = 1u32 << (u32::cast_from(row) & 31u32);
            let before = taken[(u32::cast_from(row) >> 5u32) as usize].fetch_or(bit);
            if (before & bit) != 0u32 {
                found[0].fetch_or(1u32);
            }
        } else {
            found[0].fetch_or(1u32);
        }
        if at > 0u32 && numbers[(at - 1u32) as usize] >= row {
            found[1].fetch_or(1u32);
        }
    }
}

/// The rows with the given numbers, in the order of the numbers; `None` where one is no row or occurs twice. One wait.
pub fn named(gpu: &Gpu, coords: &Buffer, numbers: &Buffer) -> Option<Named> {
    let (n_rows, n) = (coords.len / 4, numbers.len);
    let taken = gpu.upload(&vec![0u32; n_rows.div_ceil(32)]);
    let found = gpu.upload(&[0u32; 2]);
    let out = gpu.empty(4 * n, 4);
    // SAFETY: one unit a number, checked against the count; numbers that are no row are not followed.
    unsafe {
        name_rows_kernel::launch_unchecked(
            gpu.client(),
            Gpu::cubes(n, UNITS as usize),
            CubeDim::new_1d(UNITS),
            coords.arg(4),
            numbers.arg(1),
            taken.arg(1),
            out.arg(4),
            found.arg(1),
            n_rows as i32,
            n as u32,
        );
    }
    let found = gpu.download::<u32>(&found);
    (found[0] == 0).then_some(Named { coords: out, ascending: found[1] == 0 })
}

/// Keys that sort by batch item, then by score as numbers compare, NaNs of positive sign last. One unit a row.
#[cube(launch_unchecked)]
fn score_keys_kernel(
    coords: &[Vector<i32, Const<4>>],
    scores: &[f32],
    low: &mut [u32],
    high: &mut [u32],
    n: u32,
) {
    let row = ABSOLUTE_POS as u32;
    if row < n {
        let bits = u32::reinterpret(scores[row as usize]);
        // Both zeros are one number.
        let bits = select(bits == 0x8000_0000u32, 0u32, bits);
        let negative = (bits >> 31u32) == 1u32;
        low[row as usize] = select(negative, !bits, bits | 0x8000_0000u32);
        high[row as usize] = u32::cast_from(coords[row as usize].extract(0usize));
    }
}

/// Copies ranges of `order`: range `i` starts at `from[i]` and goes to `to[i]..to[i + 1]`. One unit a result.
#[cube(launch_unchecked)]
fn copy_ranges_kernel(order: &[u32], from: &[u32], to: &[u32], out: &mut [u32], n_ranges: u32, n: u32) {
    let at = ABSOLUTE_POS as u32;
    if at < n {
        // The last range that begins at or before it.
        let mut first = 0u32;
        let mut last = n_ranges;
        while last - first > 1u32 {
            let middle = (first + last) / 2u32;
            if to[middle as usize] <= at {
                first = middle;
            } else {
                last = middle;
            }
        }
        out[at as usize] = order[(from[first as usize] + at - to[first as usize]) as usize];
    }
}

/// Numbers of the rows with the largest f32 `scores [n]` of every batch item, items in order and scores ascending, later rows above
/// earlier ones of one score. Item `b` has `rows[b]` rows, of which `wanted[b]` are taken. A sort and two launches; no wait.
///
/// # Panics
/// Unless `rows` add up to the rows there are, and no item gives more than it has.
pub fn top_rows(gpu: &Gpu, coords: &Buffer, scores: &Buffer, rows: &[usize], wanted: &[usize]) -> Buffer {
    let n = coords.len / 4;
    assert_eq!(rows.iter().sum::<usize>(), n, "top_rows: rows of the batch items");
    assert!(
        wanted.iter().zip(rows).all(|(wanted, rows)| wanted <= rows),
        "top_rows: more rows than there are"
    );
    let items = u32::BITS - (rows.len() as u32).leading_zeros();
    let keys = Keys { low: gpu.empty(n, 4), high: gpu.empty(n, 4), bits: 32 + items };
    let (mut from, mut to, mut end) = (Vec::new(), vec![0u32], 0);
    for (rows, wanted) in rows.iter().zip(wanted) {
        end += rows;
        // Items that give nothing are no ranges.
        if *wanted > 0 {
            from.push((end - wanted) as u32);
            to.push(to[to.len() - 1] + *wanted as u32);
        }
    }
    let total = to[to.len() - 1] as usize;
    let out = gpu.empty(total, 4);
    if total == 0 {
        return out;
    }
    // SAFETY: positions are checked against the counts; ranges lie within the order, as asserted.
    unsafe {
        score_keys_kernel::launch_unchecked(
            gpu.client(),
            Gpu::cubes(n, UNITS as usize),
            CubeDim::new_1d(UNITS),
            coords.arg(4),
            scores.arg(1),
            keys.low.arg(1),
            keys.high.arg(1),
            n as u32,
        );
        let (_, order) = sort_rows(gpu, &keys);
        copy_ranges_kernel::launch_unchecked(
            gpu.client(),
            Gpu::cubes(total, UNITS as usize),
            CubeDim::new_1d(UNITS),
            order.arg(1),
            gpu.upload(&from).arg(1),
            gpu.upload(&to).arg(1),
            out.arg(1),
            from.len() as u32,
            total as u32,
        );
    }
    out
}

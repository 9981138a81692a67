//! Exclusive sums.

use cubecl::prelude::*;

use crate::gpu::{Buffer, Gpu};

/// Units of a cube.
const UNITS: u32 = 256;
/// Values that a unit takes.
const ITEMS: u32 = 8;

/// Replaces every value by the sum of those before it in its cube, and writes the cube's sum.
#[cube(launch_unchecked)]
fn sum_tiles_kernel(values: &mut [u32], totals: &mut [u32], n: u32, n_tiles: u32) {
    let tile = CUBE_POS as u32;
    if tile >= n_tiles {
        terminate!();
    }
    let mut sums = Shared::<[u32]>::new_slice(comptime!(UNITS as usize));
    let mut own = Array::<u32>::new(comptime!(ITEMS as usize));
    let first = (tile * UNITS + UNIT_POS) * ITEMS;
    let mut sum = 0u32;
    #[unroll]
    for item in 0u32..ITEMS {
        own[item as usize] = sum;
        if first + item < n {
            sum += values[(first + item) as usize];
        }
    }
    sums[UNIT_POS as usize] = sum;
    sync_cube();
    let mut step = 1u32;
    while step < UNITS {
        let mut before = 0u32;
        if UNIT_POS >= step {
            before = sums[(UNIT_POS - step) as usize];
        }
        sync_cube();
        sums[UNIT_POS as usize] += before;
        sync_cube();
        step *= 2u32;
    }
    let before = sums[UNIT_POS as usize] - sum;
    #[unroll]
    for item in 0u32..ITEMS {
        if first + item < n {
            values[(first + item) as usize] = before + own[item as usize];
        }
    }
    if UNIT_POS == UNITS - 1u32 {
        totals[tile as usize] = sums[UNIT_POS as usize];
    }
}

/// Adds each tile's start to its values.
#[cube(launch_unchecked)]
fn add_starts_kernel(values: &mut [u32], starts: &[u32], n: u32) {
    let at = ABSOLUTE_POS as u32;
    if at < n {
        values[at as usize] += starts[(at / comptime!(UNITS * ITEMS)) as usize];
    }
}

/// Replaces every value by the sum of those before it; returns a buffer of one value, the sum of all. Sums wrap at 2^32.
pub fn exclusive_sum(gpu: &Gpu, values: &Buffer) -> Buffer {
    let n = values.len;
    let tile = (UNITS * ITEMS) as usize;
    let n_tiles = n.div_ceil(tile).max(1);
    let totals = gpu.empty(n_tiles, 4);
    // SAFETY: positions are checked against the lengths given.
    unsafe {
        sum_tiles_kernel::launch_unchecked(
            gpu.client(),
            Gpu::cubes(n_tiles, 1),
            CubeDim::new_1d(UNITS),
            values.arg(1),
            totals.arg(1),
            n as u32,
            n_tiles as u32,
        );
    }
    if n_tiles == 1 {
        return totals;
    }
    let all = exclusive_sum(gpu, &totals);
    // SAFETY: as above.
    unsafe {
        add_starts_kernel::launch_unchecked(
            gpu.client(),
            Gpu::cubes(n, UNITS as usize),
            CubeDim::new_1d(UNITS),
            values.arg(1),
            totals.arg(1),
            n as u32,
        );
    }
    all
}

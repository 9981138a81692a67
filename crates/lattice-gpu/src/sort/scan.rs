//! Exclusive sums.

use cubecl::prelude::*;

use crate::arena::Life;
use crate::gpu::{Buffer, Gpu};

/// Units of a cube.
pub(crate) const SUM_UNITS: u32 = 256;
/// Values that a unit takes.
const ITEMS: u32 = 8;

/// Sum of the values of the units before this one in a cube of [`SUM_UNITS`], and of all units; `sums` has a place for each unit.
/// `lanes` are the units of a plane, which add up among themselves; 0 where planes are of no use (see [`plane_lanes`]).
#[cube]
pub(crate) fn cube_exclusive_sum(value: u32, sums: &mut Shared<[u32]>, #[comptime] lanes: u32) -> (u32, u32) {
    let mut before = 0u32;
    let mut total = 0u32;
    if comptime!(lanes > 0) {
        // The sums of an earlier call were read. Also brings the units of a plane together: on some compilers a plane operation asks only
        // those that have arrived, and units that took other ways before may be late.
        sync_cube();
        let within = plane_exclusive_sum(value);
        if UNIT_POS % lanes == comptime!(lanes - 1) {
            sums[(UNIT_POS / lanes) as usize] = within + value;
        }
        sync_cube();
        before += within;
        #[unroll]
        for plane in 0u32..comptime!(SUM_UNITS / lanes) {
            let sum = sums[plane as usize];
            total += sum;
            before += select(plane < UNIT_POS / lanes, sum, 0u32);
        }
    } else {
        sums[UNIT_POS as usize] = value;
        sync_cube();
        let mut step = 1u32;
        while step < SUM_UNITS {
            let mut below = 0u32;
            if UNIT_POS >= step {
                below = sums[(UNIT_POS - step) as usize];
            }
            sync_cube();
            sums[UNIT_POS as usize] += below;
            sync_cube();
            step *= 2u32;
        }
        before += sums[UNIT_POS as usize] - value;
        total += sums[comptime!(SUM_UNITS as usize - 1)];
        sync_cube();
    }
    (before, total)
}

/// Units of a device's planes, where all have equally many and a ballot of them is one word; else 0.
pub(crate) fn plane_lanes(gpu: &Gpu) -> u32 {
    let hardware = &gpu.client().properties().hardware;
    match (hardware.plane_size_min, hardware.plane_size_max) {
        (least, most) if least == most && [8, 16, 32].contains(&most) => most,
        _ => 0,
    }
}

/// Replaces every value by the sum of those before it in its cube, and writes the cube's sum.
#[cube(launch_unchecked)]
fn sum_tiles_kernel(values: &mut [u32], totals: &mut [u32], n: u32, n_tiles: u32, #[comptime] lanes: u32) {
    let tile = CUBE_POS as u32;
    if tile >= n_tiles {
        terminate!();
    }
    let mut sums = Shared::<[u32]>::new_slice(comptime!(SUM_UNITS as usize));
    let mut own = Array::<u32>::new(comptime!(ITEMS as usize));
    let first = (tile * SUM_UNITS + UNIT_POS) * ITEMS;
    let mut sum = 0u32;
    #[unroll]
    for item in 0u32..ITEMS {
        own[item as usize] = sum;
        if first + item < n {
            sum += values[(first + item) as usize];
        }
    }
    let (before, total) = cube_exclusive_sum(sum, &mut sums, lanes);
    #[unroll]
    for item in 0u32..ITEMS {
        if first + item < n {
            values[(first + item) as usize] = before + own[item as usize];
        }
    }
    if UNIT_POS == SUM_UNITS - 1u32 {
        totals[tile as usize] = total;
    }
}

/// Adds each tile's start to its values.
#[cube(launch_unchecked)]
fn add_starts_kernel(values: &mut [u32], starts: &[u32], n: u32) {
    let at = ABSOLUTE_POS as u32;
    if at < n {
        values[at as usize] += starts[(at / comptime!(SUM_UNITS * ITEMS)) as usize];
    }
}

/// Values that one cube sums alone: fewer launches, while a cube's time stays below theirs.
const ALONE: usize = 1 << 15;

/// [`sum_tiles_kernel`] for cubes that go through all tiles of a segment of `n` values each; writes the sums of all.
#[cube(launch_unchecked)]
fn sum_alone_kernel(values: &mut [u32], total: &mut [u32], n: u32, #[comptime] lanes: u32) {
    let segment = CUBE_POS as u32;
    let origin = segment * n;
    let mut sums = Shared::<[u32]>::new_slice(comptime!(SUM_UNITS as usize));
    let mut own = Array::<u32>::new(comptime!(ITEMS as usize));
    let mut carry = 0u32;
    let mut start = 0u32;
    while start < n {
        let first = start + UNIT_POS * ITEMS;
        let mut sum = 0u32;
        #[unroll]
        for item in 0u32..ITEMS {
            own[item as usize] = sum;
            if first + item < n {
                sum += values[(origin + first + item) as usize];
            }
        }
        let (within, all) = cube_exclusive_sum(sum, &mut sums, lanes);
        let before = carry + within;
        #[unroll]
        for item in 0u32..ITEMS {
            if first + item < n {
                values[(origin + first + item) as usize] = before + own[item as usize];
            }
        }
        carry += all;
        start += comptime!(SUM_UNITS * ITEMS);
    }
    if UNIT_POS == 0u32 {
        total[segment as usize] = carry;
    }
}

/// Replaces every value by the sum of those before it in its segment, of equal lengths; returns the sums of all segments. Sums wrap at 2^32.
/// One launch, in which one cube goes through a segment.
pub(crate) fn sum_segments(gpu: &Gpu, values: &Buffer, segments: usize) -> Buffer {
    let totals = gpu.empty(segments, 4);
    // SAFETY: positions are checked against the length of a segment.
    unsafe {
        sum_alone_kernel::launch_unchecked(
            gpu.client(),
            CubeCount::Static(segments as u32, 1, 1),
            CubeDim::new_1d(SUM_UNITS),
            values.arg(1),
            totals.arg(1),
            (values.len / segments) as u32,
            plane_lanes(gpu),
        );
    }
    totals
}

/// Replaces every value by the sum of those before it; returns a buffer of one value, the sum of all. Sums wrap at 2^32.
pub fn exclusive_sum(gpu: &Gpu, values: &Buffer) -> Buffer {
    let n = values.len;
    if n <= ALONE {
        return sum_segments(gpu, values, 1);
    }
    let tile = (SUM_UNITS * ITEMS) as usize;
    let n_tiles = n.div_ceil(tile);
    let totals = gpu.room(n_tiles, 4, Life::Passing);
    // SAFETY: positions are checked against the lengths given.
    unsafe {
        sum_tiles_kernel::launch_unchecked(
            gpu.client(),
            Gpu::cubes(n_tiles, 1),
            CubeDim::new_1d(SUM_UNITS),
            values.arg(1),
            totals.arg(1),
            n as u32,
            n_tiles as u32,
            plane_lanes(gpu),
        );
    }
    let all = exclusive_sum(gpu, &totals);
    // SAFETY: as above.
    unsafe {
        add_starts_kernel::launch_unchecked(
            gpu.client(),
            Gpu::cubes(n, SUM_UNITS as usize),
            CubeDim::new_1d(SUM_UNITS),
            values.arg(1),
            totals.arg(1),
            n as u32,
        );
    }
    all
}

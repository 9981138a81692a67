//! How cubes of the statistics' kernels share the work: each has a group of channels and a part of the rows.
//!
//! Where a device lets cubes read what others wrote, the cube of a group that comes last puts the parts together; elsewhere a second launch does.
//! Either way in the order of the parts.

use cubecl::prelude::*;

/// Channels of a cube.
pub(crate) const CHANNELS: u32 = 32;
/// Units of a cube of the statistics' kernels.
pub(crate) const UNITS: u32 = 256;
/// Runs that the parts of a channel are cut into: units that put them together.
pub(super) const RUNS: u32 = UNITS / CHANNELS;
/// Rows that a unit asks for at a time.
pub(super) const AHEAD: usize = 4;
/// Parts that a unit asks for at a time.
pub(super) const PARTS_AHEAD: usize = 16;

/// Rows, out of `AHEAD` that are `stride` apart from `row` on, that lie before `end`.
#[cube]
pub(super) fn rows_ahead(row: usize, end: usize, stride: usize) -> usize {
    min((end - row).div_ceil(stride), AHEAD)
}

/// Sums a value over the units that share a channel; all of them get the sum.
#[cube]
pub(super) fn sum_runs(value: f32, shared: &mut Shared<[f32]>) -> f32 {
    sync_cube();
    shared[UNIT_POS as usize] = value;
    sync_cube();
    let mut total = 0.0f32;
    for run in 0u32..RUNS {
        total += shared[(run * CHANNELS + UNIT_POS % CHANNELS) as usize];
    }
    total
}

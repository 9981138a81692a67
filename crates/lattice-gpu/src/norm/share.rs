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

/// The vector of channels and the rows of a unit.
#[derive(CubeType, Clone, Copy)]
pub(super) struct Own {
    /// Its place among the units along the channels, and among those that share their rows.
    pub(super) column: u32,
    pub(super) share: u32,
    /// Vectors of a row, and which of them is the unit's; there may be none.
    pub(super) width: usize,
    pub(super) vector: usize,
    /// The part of its cube, its first row and its end.
    pub(super) part: usize,
    pub(super) first: usize,
    pub(super) end: usize,
}

/// What a unit has of `n` rows of `c` channels in vectors of `lanes`, of which a cube takes `rows`.
#[cube]
pub(super) fn own(n: usize, c: usize, rows: usize, #[comptime] lanes: usize) -> Own {
    let columns = comptime!(CHANNELS / lanes as u32);
    let part = CUBE_POS_X as usize;
    let column = UNIT_POS % columns;
    Own {
        column,
        share: UNIT_POS / columns,
        width: c / lanes,
        vector: (CUBE_POS_Y * columns + column) as usize,
        part,
        first: part * rows,
        end: min(part * rows + rows, n),
    }
}

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

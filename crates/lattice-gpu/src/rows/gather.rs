//! Row maps of one entry a row at most.

use cubecl::prelude::*;

use super::map::DeviceRowMap;
use crate::address::UNITS;
use crate::gpu::{Buffer, Gpu};
use crate::sort::exclusive_sum;

/// `counts[row]`: whether a row has a source. One unit a row, and one for the end.
#[cube(launch_unchecked)]
fn count_present_kernel(sources: &[i32], counts: &mut [u32], n: u32) {
    let row = ABSOLUTE_POS as u32;
    if row < n {
        counts[row as usize] = select(sources[row as usize] >= 0i32, 1u32, 0u32);
    }
    if row == n {
        counts[row as usize] = 0u32;
    }
}

/// Moves present sources to their places. One unit a row.
#[cube(launch_unchecked)]
fn move_present_kernel(sources: &[i32], splits: &[u32], rows: &mut [u32], n: u32) {
    let row = ABSOLUTE_POS as u32;
    if row < n {
        let source = sources[row as usize];
        if source >= 0i32 {
            rows[splits[row as usize] as usize] = u32::cast_from(source);
        }
    }
}

impl DeviceRowMap {
    /// Copies row `sources[o]` of `n_in` to row `o`, nothing where it is -1. A sum and two launches; nothing is waited for.
    ///
    /// The caller answers for sources below `n_in`.
    pub fn gather(gpu: &Gpu, sources: &Buffer, n_in: usize) -> Self {
        let n = sources.len;
        let (splits, rows) = (gpu.empty(n + 1, 4), gpu.empty(n, 4));
        let dim = CubeDim::new_1d(UNITS);
        // SAFETY: one unit a row, checked against the count; places are counts of rows before, so below it.
        unsafe {
            count_present_kernel::launch_unchecked(
                gpu.client(),
                Gpu::cubes(n + 1, UNITS as usize),
                dim,
                sources.arg(1),
                splits.arg(1),
                n as u32,
            );
            exclusive_sum(gpu, &splits);
            move_present_kernel::launch_unchecked(
                gpu.client(),
                Gpu::cubes(n, UNITS as usize),
                dim,
                sources.arg(1),
                splits.arg(1),
                rows.arg(1),
                n as u32,
            );
        }
        Self::from_parts(gpu, [n_in, n], rows, None, splits, Some(1))
    }
}

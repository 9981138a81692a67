//! Row maps between points and the voxels that hold them.

use cubecl::prelude::*;

use super::map::DeviceRowMap;
use crate::address::UNITS;
use crate::gpu::{Buffer, Gpu};
use crate::points::{Voxels, share_of};

/// `weights[e] = 1 / counts[voxel]`, where the voxel is that of the point `rows[e]`, or `rows[e]` itself. One unit an entry.
#[cube(launch_unchecked)]
fn mean_weights_kernel(
    rows: &[u32],
    voxel_of_point: &[i32],
    counts: &[u32],
    weights: &mut [f32],
    n_entries: u32,
    #[comptime] of_points: bool,
) {
    let entry = ABSOLUTE_POS as u32;
    if entry < n_entries {
        let mut voxel = rows[entry as usize];
        if comptime!(of_points) {
            voxel = u32::cast_from(voxel_of_point[voxel as usize]);
        }
        weights[entry as usize] = share_of(counts[voxel as usize]);
    }
}

fn mean_weights(gpu: &Gpu, voxels: &Voxels, rows: &Buffer, of_points: bool) -> Buffer {
    let n = voxels.points.len;
    let weights = gpu.empty(n, 4);
    // SAFETY: one unit an entry, checked against the count; rows are points that have voxels, or voxels.
    unsafe {
        mean_weights_kernel::launch_unchecked(
            gpu.client(),
            Gpu::cubes(n, UNITS as usize),
            CubeDim::new_1d(UNITS),
            rows.arg(1),
            voxels.voxel_of_point.arg(1),
            voxels.counts.arg(1),
            weights.arg(1),
            n as u32,
            of_points,
        );
    }
    weights
}

impl DeviceRowMap {
    /// Sum or mean of each voxel's points, in ascending order of the points: `lattice_core::RowMap::voxel_sum` and `voxel_mean`, entry for
    /// entry. One launch for a mean; a wait where a voxel has more than 512 points.
    pub fn voxels_of_points(gpu: &Gpu, voxels: &Voxels, mean: bool) -> Self {
        let weights = mean.then(|| mean_weights(gpu, voxels, &voxels.points, true));
        let (sides, splits) = ([voxels.n_points(), voxels.n_voxels], voxels.splits.clone());
        Self::from_parts(gpu, sides, voxels.points.clone(), weights, splits, Some(voxels.longest))
    }

    /// The transpose of [`voxels_of_points`](Self::voxels_of_points): each point reads its voxel. A sum and two launches, one more for
    /// a mean; nothing is waited for.
    pub fn points_of_voxels(gpu: &Gpu, voxels: &Voxels, mean: bool) -> Self {
        let mut map = Self::gather(gpu, &voxels.voxel_of_point, voxels.n_voxels);
        map.weights = mean.then(|| mean_weights(gpu, voxels, &map.rows, false));
        map
    }
}

//! Assigns points to voxels.

use cubecl::prelude::*;
use lattice_core::{Coord, NonFinite, VoxelGrid};

use super::kernel::{
    FOUND, LocateShape, finish_voxels_kernel, locate_points_kernel, longest_voxel_kernel, split_voxels_kernel,
};
use crate::address::UNITS;
use crate::gpu::{Buffer, Gpu};
use crate::support::{Uncounted, canonical_order};

/// The voxels that points fall into: [`lattice_core::Voxelization`] on a device, value for value.
#[derive(Clone, Debug)]
pub struct Voxels {
    /// Occupied voxels `[n_voxels, 4]`, in canonical order.
    pub coords: Buffer,
    /// Their number, 1 or more.
    pub n_voxels: usize,
    /// Smallest and largest value of each column of the voxels.
    pub bounds: (Coord, Coord),
    /// Voxel row of every point `[n_points]` in `i32`, -1 for one left out.
    pub voxel_of_point: Buffer,
    /// Points of every voxel `[n_voxels]`.
    pub counts: Buffer,
    /// Points that were left out.
    pub dropped: usize,
    /// The points that were kept, voxel by voxel and in ascending order within each.
    pub points: Buffer,
    /// Bounds of every voxel's points in `points` `[n_voxels + 1]`.
    pub splits: Buffer,
    /// Points of the voxel that has most.
    pub longest: usize,
}

impl Voxels {
    /// Number of points, with those left out.
    pub fn n_points(&self) -> usize {
        self.voxel_of_point.len
    }
}

/// What became of points that were to be assigned to voxels.
#[derive(Clone, Debug)]
pub enum Quantized {
    /// They have voxels.
    Voxels(Box<Voxels>),
    /// Something is wrong with a point, of which this is the first: `lattice_core::quantize` says what.
    Fault(usize),
    /// No point is left, or keys of the voxels pass 64 bits (see [`canonical_order`]): the host answers.
    Elsewhere,
}

/// The voxel of every point, `floor((p - origin) / voxel_size)` with the bits of `f32` on the host, and the distinct voxels in canonical
/// order. Without batch ids all points are of item 0.
///
/// `points`: `[n, 3]` in f32; `batch`: `[n]` in i32. Two waits: for the bounds of the voxels and for their number. A sort of the
/// points by keys as long as the bounds need, and seven launches.
///
/// # Panics
/// Unless there are as many batch ids as points, for more than 2^30 points, and for a grid that [`VoxelGrid::try_new`] refuses.
pub fn quantize(
    gpu: &Gpu,
    points: &Buffer,
    batch: Option<&Buffer>,
    grid: &VoxelGrid,
    non_finite: NonFinite,
) -> Quantized {
    let n = points.len / 3;
    check_points("quantize", n, batch);
    VoxelGrid::try_new(grid.voxel_size, grid.origin).unwrap_or_else(|error| panic!("{error}"));
    if n == 0 {
        return Quantized::Elsewhere;
    }
    let mut start = [0i32; FOUND];
    start[..4].fill(i32::MAX);
    start[4..8].fill(i32::MIN);
    start[9] = i32::MAX;
    let (cells, found) = (gpu.empty(4 * n, 4), gpu.upload(&start));
    let shape = LocateShape { batched: batch.is_some(), drops: non_finite == NonFinite::Drop };
    let ([ox, oy, oz], [sx, sy, sz]) = (grid.origin.map(f32::to_bits), grid.voxel_size.map(f32::to_bits));
    // SAFETY: one unit a point, checked against the count; there are as many batch ids.
    unsafe {
        locate_points_kernel::launch_unchecked(
            gpu.client(),
            Gpu::cubes(n, UNITS as usize),
            CubeDim::new_1d(UNITS),
            points.arg(1),
            batch.unwrap_or(points).arg(1),
            cells.arg(4),
            found.arg(1),
            n as u32,
            ox,
            oy,
            oz,
            sx,
            sy,
            sz,
            shape,
        );
    }
    let found = gpu.download::<i32>(&found);
    if found[9] < i32::MAX {
        return Quantized::Fault(found[9] as usize);
    }
    let dropped = found[8] as usize;
    if dropped == n {
        return Quantized::Elsewhere;
    }
    let columns = |from: usize| -> Coord { std::array::from_fn(|column| found[from + column]) };
    let bounds = (columns(0), columns(4));
    match assign(gpu, &cells, bounds, dropped) {
        Some(voxels) => Quantized::Voxels(Box::new(voxels)),
        None => Quantized::Elsewhere,
    }
}

/// Sorts cells and numbers the distinct ones; those of points left out have batch id -1.
fn assign(gpu: &Gpu, cells: &Buffer, bounds: (Coord, Coord), dropped: usize) -> Option<Voxels> {
    let n = cells.len / 4;
    let order = match dropped {
        0 => canonical_order(gpu, cells, &bounds)?,
        // The cell of points left out stands below all others.
        _ => {
            let below = |c: Coord| c.map(|v| v.min(-1));
            canonical_order(gpu, cells, &(below(bounds.0), bounds.1))?
        }
    };
    let marks = Uncounted::heads(gpu, cells, Some(&order), 0);
    let voxel_of_point = gpu.empty(n, 4);
    let splits = gpu.empty(n + 1, 4);
    let longest = gpu.upload(&[0u32]);
    let points = if dropped > 0 { gpu.empty(n - dropped, 4) } else { order.clone() };
    let unwritten = gpu.empty(1, 4);
    let (cubes, dim) = (|units| Gpu::cubes(units, UNITS as usize), CubeDim::new_1d(UNITS));
    // SAFETY: one unit a position of the order, which lists every point once; marks number at most as many voxels as there are points.
    unsafe {
        split_voxels_kernel::launch_unchecked(
            gpu.client(),
            cubes(n),
            dim,
            order.arg(1),
            marks.places.arg(1),
            marks.starts.arg(1),
            voxel_of_point.arg(1),
            splits.arg(1),
            if dropped > 0 { points.arg(1) } else { unwritten.arg(1) },
            n as u32,
            dropped as u32,
            dropped > 0,
        );
        longest_voxel_kernel::launch_unchecked(
            gpu.client(),
            cubes(n),
            dim,
            splits.arg(1),
            marks.all.arg(1),
            longest.arg(1),
            n as u32,
        );
    }
    let counted = gpu.download_all(&[&marks.all, &longest]);
    let n_voxels = counted[0][0] as usize;
    let splits = splits.first(n_voxels + 1);
    let (coords, counts) = (gpu.empty(4 * n_voxels, 4), gpu.empty(n_voxels, 4));
    // SAFETY: one unit a voxel, checked against the count.
    unsafe {
        finish_voxels_kernel::launch_unchecked(
            gpu.client(),
            cubes(n_voxels),
            dim,
            cells.arg(4),
            points.arg(1),
            splits.arg(1),
            coords.arg(4),
            counts.arg(1),
            n_voxels as u32,
        );
    }
    let longest = counted[1][0] as usize;
    Some(Voxels { coords, n_voxels, bounds, voxel_of_point, counts, dropped, points, splits, longest })
}

/// Refuses points that kernels cannot number, and batch ids that do not fit.
pub(super) fn check_points(op: &str, n: usize, batch: Option<&Buffer>) {
    assert!(n <= 1 << 30, "{op}: expected at most 2^30 points, found {n}");
    assert!(batch.is_none_or(|batch| batch.len == n), "{op}: expected {n} batch ids, one a point");
}

//! The voxels around points, with their weights.

use cubecl::prelude::*;
use lattice_core::{Interpolation, VoxelGrid};

use super::exact::{divide, floor, is_finite, position, subtract};
use super::launch::check_points;
use crate::address::UNITS;
use crate::gpu::{Buffer, Gpu};
use crate::index::{BlockIndex, EMPTY, find_block, lookup_row};
use crate::rows::DeviceRowMap;
use crate::sort::exclusive_sum;

/// Corners of a cell.
const CORNERS: usize = 8;
/// The bits of -0.5.
const MINUS_HALF: u32 = 0xBF00_0000;

/// What [`find_corners_kernel`] is compiled for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct CornerShape {
    /// Whether points have batch ids; else all are of item 0.
    batched: bool,
    /// One corner, the nearest; else all eight.
    nearest: bool,
    /// Whether weights are divided by their sum.
    renormalize: bool,
}

/// Row of a cell in an index, `EMPTY` where it has none.
#[cube]
fn row_at(
    coords: &[Vector<i32, Const<4>>],
    slots: &[u32],
    occupancy: &[u32],
    first: &[u32],
    rows: &[u32],
    mask: u32,
    item: i32,
    x: i32,
    y: i32,
    z: i32,
) -> u32 {
    let slot = find_block(coords, slots, 0u32, mask, item, x >> 2i32, y >> 2i32, z >> 2i32);
    lookup_row(occupancy, first, rows, slot, x, y, z)
}

/// Voxel rows and weights of the corners around every point, and how many there are. One unit a point.
///
/// `counts` has one more place than there are points, for a 0. `fault[0]` is the first point with a negative batch id.
#[cube(launch_unchecked)]
fn find_corners_kernel(
    points: &[u32],
    batch: &[i32],
    coords: &[Vector<i32, Const<4>>],
    slots: &[u32],
    occupancy: &[u32],
    first: &[u32],
    index_rows: &[u32],
    rows: &mut [Vector<i32, Const<4>>],
    weights: &mut [Vector<f32, Const<4>>],
    counts: &mut [u32],
    fault: &mut [Atomic<u32>],
    n: u32,
    mask: u32,
    origin_x: u32,
    origin_y: u32,
    origin_z: u32,
    size_x: u32,
    size_y: u32,
    size_z: u32,
    #[comptime] shape: CornerShape,
) {
    let at = ABSOLUTE_POS as u32;
    if at == n {
        counts[at as usize] = 0u32;
    }
    if at < n {
        let p = (3u32 * at) as usize;
        let u_x = position(points[p], origin_x, size_x);
        let u_y = position(points[p + 1usize], origin_y, size_y);
        let u_z = position(points[p + 2usize], origin_z, size_z);
        let mut item = 0i32;
        if comptime!(shape.batched) {
            item = batch[at as usize];
            if item < 0i32 {
                fault[0].fetch_min(at);
            }
        }
        let mut low_rows = Vector::<i32, Const<4>>::new(-1i32);
        let mut high_rows = Vector::<i32, Const<4>>::new(-1i32);
        let mut low_weights = Vector::<f32, Const<4>>::new(0.0f32);
        let mut high_weights = Vector::<f32, Const<4>>::new(0.0f32);
        let mut count = 0u32;
        if comptime!(shape.nearest) {
            let (x, inside_x) = rounded_half_up(u_x);
            let (y, inside_y) = rounded_half_up(u_y);
            let (z, inside_z) = rounded_half_up(u_z);
            let mut row = EMPTY.runtime();
            if inside_x && inside_y && inside_z {
                row = row_at(coords, slots, occupancy, first, index_rows, mask, item, x, y, z);
            }
            low_rows.insert(0usize, i32::cast_from(row));
            low_weights.insert(0usize, select(row == EMPTY, 0.0f32, 1.0f32));
            count += select(row == EMPTY, 0u32, 1u32);
        } else {
            let (x, inside_x) = floor(u_x);
            let (y, inside_y) = floor(u_y);
            let (z, inside_z) = floor(u_z);
            if inside_x && inside_y && inside_z {
                // Axes along which the far corners lie in the next block, and those along which they would lie past `i32`.
                let crossing_x = (x & 3i32) == 3i32;
                let crossing_y = (y & 3i32) == 3i32;
                let crossing_z = (z & 3i32) == 3i32;
                let past_x = x == i32::MAX;
                let past_y = y == i32::MAX;
                let past_z = z == i32::MAX;
                let t_x = f32::reinterpret(u_x) - f32::cast_from(x);
                let t_y = f32::reinterpret(u_y) - f32::cast_from(y);
                let t_z = f32::reinterpret(u_z) - f32::cast_from(z);
                let mut block = Array::<u32>::new(CORNERS);
                let mut weight = Array::<f32>::new(CORNERS);
                let mut sum = 0.0f32;
                #[unroll]
                for j in 0usize..CORNERS {
                    let far_x = comptime!(j & 1 == 1);
                    let far_y = comptime!(j >> 1 & 1 == 1);
                    let far_z = comptime!(j >> 2 == 1);
                    let cell_x = x + comptime!((j & 1) as i32);
                    let cell_y = y + comptime!((j >> 1 & 1) as i32);
                    let cell_z = z + comptime!((j >> 2) as i32);
                    // The block of a nearer corner, where a step away stays in it.
                    let mut slot = EMPTY.runtime();
                    let mut known = false;
                    let mut outside = false;
                    let mut w = 1.0f32 - t_x;
                    if comptime!(far_x) {
                        w = t_x;
                        outside = outside || past_x;
                        if !crossing_x {
                            slot = block[comptime!(j ^ 1)];
                            known = true;
                        }
                    }
                    if comptime!(far_y) {
                        w *= t_y;
                        outside = outside || past_y;
                        if !crossing_y {
                            slot = block[comptime!(j ^ 2)];
                            known = true;
                        }
                    } else {
                        w *= 1.0f32 - t_y;
                    }
                    if comptime!(far_z) {
                        w *= t_z;
                        outside = outside || past_z;
                        if !crossing_z {
                            slot = block[comptime!(j ^ 4)];
                            known = true;
                        }
                    } else {
                        w *= 1.0f32 - t_z;
                    }
                    if !known && !outside {
                        slot = find_block(
                            coords,
                            slots,
                            0u32,
                            mask,
                            item,
                            cell_x >> 2i32,
                            cell_y >> 2i32,
                            cell_z >> 2i32,
                        );
                    }
                    block[j] = slot;
                    let mut row = EMPTY.runtime();
                    if !outside {
                        row = lookup_row(occupancy, first, index_rows, slot, cell_x, cell_y, cell_z);
                    }
                    w = select(row == EMPTY, 0.0f32, w);
                    sum += w;
                    count += select(row == EMPTY, 0u32, 1u32);
                    weight[j] = w;
                    if comptime!(j < 4) {
                        low_rows.insert(j, i32::cast_from(row));
                    } else {
                        high_rows.insert(comptime!(j - 4), i32::cast_from(row));
                    }
                }
                #[unroll]
                for j in 0usize..CORNERS {
                    let mut w = weight[j];
                    if comptime!(shape.renormalize) {
                        // Where all weights are 0 they stay so.
                        let by = select(sum > 0.0f32, sum, 1.0f32);
                        w = f32::reinterpret(divide(w.to_bits(), by.to_bits(), 0u32));
                    }
                    if comptime!(j < 4) {
                        low_weights.insert(j, w);
                    } else {
                        high_weights.insert(comptime!(j - 4), w);
                    }
                }
            }
        }
        let to = (2u32 * at) as usize;
        rows[to] = low_rows;
        rows[to + 1usize] = high_rows;
        weights[to] = low_weights;
        weights[to + 1usize] = high_weights;
        counts[at as usize] = count;
    }
}

/// `floor(u + 0.5)`, the sum rounded, and whether it is inside `i32`.
#[cube]
fn rounded_half_up(u: u32) -> (i32, bool) {
    let mut sum = u;
    if is_finite(u) {
        sum = subtract(u, MINUS_HALF);
    }
    floor(sum)
}

/// Moves the corners that have rows next to each other. One unit a point.
#[cube(launch_unchecked)]
fn gather_corners_kernel(
    rows: &[i32],
    weights: &[f32],
    splits: &[u32],
    rows_out: &mut [u32],
    weights_out: &mut [f32],
    n: u32,
) {
    let at = ABSOLUTE_POS as u32;
    if at < n {
        let mut to = splits[at as usize];
        #[unroll]
        for j in 0u32..comptime!(CORNERS as u32) {
            let from = (comptime!(CORNERS as u32) * at + j) as usize;
            let row = rows[from];
            if row >= 0i32 {
                rows_out[to as usize] = u32::cast_from(row);
                weights_out[to as usize] = weights[from];
                to += 1u32;
            }
        }
    }
}

/// Up to eight voxel rows of every point and their weights: `lattice_core::PointVoxelMap` on a device.
#[derive(Clone, Debug)]
pub struct PointCorners {
    /// Voxel rows `[n_points, 8]` in `i32`, -1 where the voxel is not active.
    pub rows: Buffer,
    /// Weights `[n_points, 8]` in `f32`, 0 where there is no row.
    pub weights: Buffer,
    /// The same corners as a row map, in their order.
    pub map: DeviceRowMap,
}

/// The voxels around every point, as `lattice_core::point_voxel_map` finds them; `Err` names the first point with a negative batch id.
///
/// Rows are the host's. So are weights, except that numbers below the smallest normal one may be 0, and that a sum which divides
/// weights may differ in its last bit. `points`: `[n, 3]` in f32; `batch`: `[n]` in i32. Two launches and a sum; one wait, for the number
/// of rows found.
///
/// # Panics
/// Unless there are as many batch ids as points, for 2^29 points or more, and for a grid that [`VoxelGrid::try_new`] refuses.
pub fn point_corners(
    gpu: &Gpu,
    points: &Buffer,
    batch: Option<&Buffer>,
    index: &BlockIndex,
    grid: &VoxelGrid,
    interpolation: Interpolation,
    renormalize: bool,
) -> Result<PointCorners, usize> {
    let n = points.len / 3;
    check_points("point_corners", n, batch);
    assert!(n < 1 << 29, "point_corners: expected fewer than 2^29 points, found {n}");
    VoxelGrid::try_new(grid.voxel_size, grid.origin).unwrap_or_else(|error| panic!("{error}"));
    let (rows, weights) = (gpu.empty(CORNERS * n, 4), gpu.empty(CORNERS * n, 4));
    let splits = gpu.empty(n + 1, 4);
    let fault = gpu.upload(&[u32::MAX]);
    let shape = CornerShape {
        batched: batch.is_some(),
        nearest: interpolation == Interpolation::Nearest,
        renormalize,
    };
    let ([ox, oy, oz], [sx, sy, sz]) = (grid.origin.map(f32::to_bits), grid.voxel_size.map(f32::to_bits));
    let dim = CubeDim::new_1d(UNITS);
    let listed = index.listed(gpu);
    // SAFETY: one unit a point and one more, checked against the count; the index was built from its rows.
    unsafe {
        find_corners_kernel::launch_unchecked(
            gpu.client(),
            Gpu::cubes(n + 1, UNITS as usize),
            dim,
            points.arg(1),
            batch.unwrap_or(points).arg(1),
            index.all.arg(4),
            listed.slots.arg(1),
            listed.occupancy.arg(1),
            listed.first.arg(1),
            listed.rows.arg(1),
            rows.arg(4),
            weights.arg(4),
            splits.arg(1),
            fault.arg(1),
            n as u32,
            index.mask,
            ox,
            oy,
            oz,
            sx,
            sy,
            sz,
            shape,
        );
    }
    let all = exclusive_sum(gpu, &splits);
    let counted = gpu.download_all(&[&all, &fault]);
    if counted[1][0] != u32::MAX {
        return Err(counted[1][0] as usize);
    }
    let n_entries = counted[0][0] as usize;
    let (entry_rows, entry_weights) = (gpu.empty(n_entries, 4), gpu.empty(n_entries, 4));
    // SAFETY: one unit a point; the splits end at the number of entries.
    unsafe {
        gather_corners_kernel::launch_unchecked(
            gpu.client(),
            Gpu::cubes(n, UNITS as usize),
            dim,
            rows.arg(1),
            weights.arg(1),
            splits.arg(1),
            entry_rows.arg(1),
            entry_weights.arg(1),
            n as u32,
        );
    }
    let sides = [index.n_rows, n];
    let map = DeviceRowMap::from_parts(gpu, sides, entry_rows, Some(entry_weights), splits, Some(CORNERS));
    Ok(PointCorners { rows, weights, map })
}

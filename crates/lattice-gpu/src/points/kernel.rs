//! Kernels that assign points to voxels.

use cubecl::prelude::*;

use super::exact::{floor, is_finite, position};
use crate::support::{MARK, MARKED};

/// Words of what is found of points: smallest and largest value of each column, points left out, and the first faulty one.
pub(crate) const FOUND: usize = 10;

/// What [`locate_points_kernel`] is compiled for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct LocateShape {
    /// Whether points have batch ids; else all are of item 0.
    pub(crate) batched: bool,
    /// Whether points that are not finite are left out; else they are faults.
    pub(crate) drops: bool,
}

/// Cell of every point, and what the cells are. One unit a point.
///
/// Points that are left out, and faulty ones, get a cell of batch id -1. `found[0..4]` start at the largest integer and `found[4..8]` at
/// the smallest, as bounds of the cells; `found[8]` counts points left out; `found[9]` is the first fault, the largest integer for none.
#[cube(launch_unchecked)]
pub(crate) fn locate_points_kernel(
    points: &[u32],
    batch: &[i32],
    cells: &mut [Vector<i32, Const<4>>],
    found: &mut [Atomic<i32>],
    n: u32,
    origin_x: u32,
    origin_y: u32,
    origin_z: u32,
    size_x: u32,
    size_y: u32,
    size_z: u32,
    #[comptime] shape: LocateShape,
) {
    let lowest = Shared::<[Atomic<i32>]>::new_slice(4usize);
    let highest = Shared::<[Atomic<i32>]>::new_slice(4usize);
    let others = Shared::<[Atomic<i32>]>::new_slice(2usize);
    if UNIT_POS < 4u32 {
        lowest[UNIT_POS as usize].store(i32::MAX);
        highest[UNIT_POS as usize].store(i32::MIN);
    }
    if UNIT_POS == 0u32 {
        others[0].store(0i32);
        others[1].store(i32::MAX);
    }
    sync_cube();
    let at = ABSOLUTE_POS as u32;
    if at < n {
        let first = (3u32 * at) as usize;
        let (px, py, pz) = (points[first], points[first + 1usize], points[first + 2usize]);
        let (x, inside_x) = floor(position(px, origin_x, size_x));
        let (y, inside_y) = floor(position(py, origin_y, size_y));
        let (z, inside_z) = floor(position(pz, origin_z, size_z));
        let mut item = 0i32;
        if comptime!(shape.batched) {
            item = batch[at as usize];
        }
        let mut cell = Vector::<i32, Const<4>>::new(-1i32);
        if inside_x && inside_y && inside_z && item >= 0i32 {
            cell.insert(0usize, item);
            cell.insert(1usize, x);
            cell.insert(2usize, y);
            cell.insert(3usize, z);
            #[unroll]
            for column in 0usize..4usize {
                let value = cell.extract(column);
                lowest[column].fetch_min(value);
                highest[column].fetch_max(value);
            }
        } else {
            let finite = is_finite(px) && is_finite(py) && is_finite(pz);
            let mut left_out = false;
            if comptime!(shape.drops) {
                left_out = item >= 0i32 && !finite;
            }
            if left_out {
                others[0].fetch_add(1i32);
            } else {
                others[1].fetch_min(i32::cast_from(at));
            }
        }
        cells[at as usize] = cell;
    }
    sync_cube();
    if UNIT_POS < 4u32 {
        let column = UNIT_POS as usize;
        found[column].fetch_min(lowest[column].load());
        found[column + 4usize].fetch_max(highest[column].load());
    }
    if UNIT_POS == 0u32 {
        let left_out = others[0].load();
        if left_out > 0i32 {
            found[8].fetch_add(left_out);
        }
        let fault = others[1].load();
        if fault < i32::MAX {
            found[9].fetch_min(fault);
        }
    }
}

/// Voxel of every point, and the bounds of every voxel's points in the order. One unit a position of the order.
///
/// `places` and `starts` are the summed marks of the first point of each cell. Points left out stand first and are not marked, since their
/// cell is the one that stands for none: they come out as voxel -1, and `kept` takes those past them. `splits` has a place for each
/// point and one more.
#[cube(launch_unchecked)]
pub(crate) fn split_voxels_kernel(
    order: &[u32],
    places: &[u32],
    starts: &[u32],
    voxel_of_point: &mut [i32],
    splits: &mut [u32],
    kept: &mut [u32],
    n: u32,
    dropped: u32,
    #[comptime] drops: bool,
) {
    let at = ABSOLUTE_POS as u32;
    if at < n {
        let place = places[at as usize];
        let marked = place >= MARK;
        let before = (place & comptime!(MARK - 1)) + starts[(at / MARKED) as usize];
        let voxel = i32::cast_from(select(marked, before, before - 1u32));
        let point = order[at as usize];
        voxel_of_point[point as usize] = voxel;
        if voxel >= 0i32 {
            if marked {
                splits[voxel as usize] = at - dropped;
            }
            if comptime!(drops) {
                kept[(at - dropped) as usize] = point;
            }
        }
        if at == n - 1u32 {
            splits[(voxel + 1i32) as usize] = n - dropped;
        }
    }
}

/// The most points of a voxel. One unit a voxel, of which there are `all[0]`, at most `n`.
#[cube(launch_unchecked)]
pub(crate) fn longest_voxel_kernel(splits: &[u32], all: &[u32], longest: &mut [Atomic<u32>], n: u32) {
    let most = Shared::<[Atomic<u32>]>::new_slice(1usize);
    if UNIT_POS == 0u32 {
        most[0].store(0u32);
    }
    sync_cube();
    let at = ABSOLUTE_POS as u32;
    if at < n && at < all[0] {
        most[0].fetch_max(splits[(at + 1u32) as usize] - splits[at as usize]);
    }
    sync_cube();
    if UNIT_POS == 0u32 {
        let found = most[0].load();
        if found > 0u32 {
            longest[0].fetch_max(found);
        }
    }
}

/// Coordinate and number of points of every voxel; `points` lists them voxel by voxel. One unit a voxel.
#[cube(launch_unchecked)]
pub(crate) fn finish_voxels_kernel(
    cells: &[Vector<i32, Const<4>>],
    points: &[u32],
    splits: &[u32],
    coords: &mut [Vector<i32, Const<4>>],
    counts: &mut [u32],
    n_voxels: u32,
) {
    let at = ABSOLUTE_POS as u32;
    if at < n_voxels {
        let begin = splits[at as usize];
        coords[at as usize] = cells[points[begin as usize] as usize];
        counts[at as usize] = splits[(at + 1u32) as usize] - begin;
    }
}

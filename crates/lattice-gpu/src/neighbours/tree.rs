//! Boxes over the rows of a support.

use cubecl::prelude::*;

use crate::address::UNITS;
use crate::gpu::{Buffer, Gpu};

/// Rows below one box of the lowest level.
pub(crate) const LEAF: u32 = 8;
/// Boxes below one box of a higher level.
pub(crate) const FAN: u32 = 4;

/// Boxes over rows in canonical order, level by level from a single one; the boxes below box `b` are `4 b + 1` to `4 b + 4`.
pub(crate) struct Tree {
    /// Rows in canonical order.
    pub(crate) coords: Buffer,
    /// Smallest and largest value of each column, two vectors a box; the smallest are above the largest where there is no row.
    pub(crate) boxes: Buffer,
    /// Number of the first leaf.
    pub(crate) first_leaf: u32,
}

/// `sorted[at] = coords[order[at]]`. One unit a row.
#[cube(launch_unchecked)]
fn sort_coords_kernel(
    coords: &[Vector<i32, Const<4>>],
    order: &[u32],
    sorted: &mut [Vector<i32, Const<4>>],
    n: u32,
) {
    let at = ABSOLUTE_POS as u32;
    if at < n {
        sorted[at as usize] = coords[order[at as usize] as usize];
    }
}

/// Smaller and larger of two values, column by column.
#[cube]
fn widen(
    low: Vector<i32, Const<4>>,
    high: Vector<i32, Const<4>>,
    other_low: Vector<i32, Const<4>>,
    other_high: Vector<i32, Const<4>>,
) -> (Vector<i32, Const<4>>, Vector<i32, Const<4>>) {
    let mut lowest = low;
    let mut highest = high;
    #[unroll]
    for column in 0usize..4usize {
        lowest.insert(column, min(low.extract(column), other_low.extract(column)));
        highest.insert(column, max(high.extract(column), other_high.extract(column)));
    }
    (lowest, highest)
}

/// The boxes over eight rows each. One unit a leaf, empty past the rows.
#[cube(launch_unchecked)]
fn bound_rows_kernel(
    coords: &[Vector<i32, Const<4>>],
    boxes: &mut [Vector<i32, Const<4>>],
    n: u32,
    first_leaf: u32,
    n_leaves: u32,
) {
    let leaf = ABSOLUTE_POS as u32;
    if leaf < n_leaves {
        let mut low = Vector::<i32, Const<4>>::new(i32::MAX);
        let mut high = Vector::<i32, Const<4>>::new(i32::MIN);
        for item in 0u32..LEAF {
            let at = leaf * LEAF + item;
            if at < n {
                let c = coords[at as usize];
                let (lowest, highest) = widen(low, high, c, c);
                low = lowest;
                high = highest;
            }
        }
        boxes[(2u32 * (first_leaf + leaf)) as usize] = low;
        boxes[(2u32 * (first_leaf + leaf) + 1u32) as usize] = high;
    }
}

/// The boxes over four boxes each, of one level. One unit a box.
#[cube(launch_unchecked)]
fn bound_boxes_kernel(boxes: &mut [Vector<i32, Const<4>>], first: u32, n_boxes: u32) {
    let at = ABSOLUTE_POS as u32;
    if at < n_boxes {
        let node = first + at;
        let mut low = Vector::<i32, Const<4>>::new(i32::MAX);
        let mut high = Vector::<i32, Const<4>>::new(i32::MIN);
        for child in 0u32..FAN {
            let from = (2u32 * (FAN * node + 1u32 + child)) as usize;
            let (lowest, highest) = widen(low, high, boxes[from], boxes[from + 1usize]);
            low = lowest;
            high = highest;
        }
        boxes[(2u32 * node) as usize] = low;
        boxes[(2u32 * node + 1u32) as usize] = high;
    }
}

impl Tree {
    /// The tree of `n` rows, 1 or more; `order` is their canonical order where they do not stand in it. A launch a level.
    ///
    /// Memory: 5 to 22 bytes a row, 16 more where they were sorted.
    pub(crate) fn build(gpu: &Gpu, coords: &Buffer, order: Option<&Buffer>) -> Self {
        let n = coords.len / 4;
        let dim = CubeDim::new_1d(UNITS);
        let sorted = order.map(|order| {
            let sorted = gpu.empty(coords.len, 4);
            // SAFETY: one unit a row, checked against the count; the order lists rows of `coords`.
            unsafe {
                sort_coords_kernel::launch_unchecked(
                    gpu.client(),
                    Gpu::cubes(n, UNITS as usize),
                    dim,
                    coords.arg(4),
                    order.arg(1),
                    sorted.arg(4),
                    n as u32,
                );
            }
            sorted
        });
        let coords = sorted.unwrap_or_else(|| coords.clone());
        // Leaves of a full tree, and the boxes above them.
        let (mut n_leaves, mut first_leaf) = (1usize, 0usize);
        while n_leaves * (LEAF as usize) < n {
            first_leaf += n_leaves;
            n_leaves *= FAN as usize;
        }
        let boxes = gpu.empty(8 * (first_leaf + n_leaves), 4);
        // SAFETY: one unit a box, checked against the count of its level; the boxes below were written by the launch before.
        unsafe {
            bound_rows_kernel::launch_unchecked(
                gpu.client(),
                Gpu::cubes(n_leaves, UNITS as usize),
                dim,
                coords.arg(4),
                boxes.arg(4),
                n as u32,
                first_leaf as u32,
                n_leaves as u32,
            );
            let (mut level, mut first) = (n_leaves / FAN as usize, first_leaf);
            while level > 0 {
                first -= level;
                bound_boxes_kernel::launch_unchecked(
                    gpu.client(),
                    Gpu::cubes(level, UNITS as usize),
                    dim,
                    boxes.arg(4),
                    first as u32,
                    level as u32,
                );
                level /= FAN as usize;
            }
        }
        Self { coords, boxes, first_leaf: first_leaf as u32 }
    }
}

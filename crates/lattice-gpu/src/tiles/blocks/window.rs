//! The window of a row in the blocks that it touches.

use cubecl::prelude::*;

use crate::tiles::geometry::Geometry;

/// Cells of half a block at position 0 of an axis.
const SLABS: [u32; 3] = [0x0055_0055, 0x0000_3333, 0x0F0F_0F0F];

/// Halves of blocks that a window touches along z, where they lie apart: those from the first on that it lies in.
pub(super) fn halves(geometry: &Geometry) -> usize {
    geometry.extent(2).unsigned_abs().div_ceil(2) as usize + 1
}

/// Which of the halves that a window touches a tap along z lies in, where the window begins at the first cell of a half, and at the second.
fn half_of(tap: usize, geometry: &Geometry) -> [usize; 2] {
    let distance = tap * geometry.dilation[2].unsigned_abs() as usize;
    [distance / 2, distance.div_ceil(2)]
}

/// A window by the cell where it begins in the first of the blocks that it touches.
#[derive(CubeType)]
pub(super) struct Window {
    /// By the taps along an axis: the bits of [`cell_bit`] within half a block, and along x and y the bit 64 in the second block.
    pub(super) x: Array<u32>,
    pub(super) y: Array<u32>,
    pub(super) z: Array<u32>,
    /// The first half along z, of the four of two blocks, and whether it begins at the second cell of that.
    pub(super) first_half: u32,
    pub(super) is_odd: bool,
}

/// The window that begins at a cell, which is packed as [`super::marks::mark_needed`] leaves it.
#[cube]
pub(super) fn window_at(begin: u32, #[comptime] geometry: Geometry) -> Window {
    let z = begin >> 4u32;
    Window {
        x: cells_along(begin & 3u32, 0usize, geometry),
        y: cells_along((begin >> 2u32) & 3u32, 1usize, geometry),
        z: cells_along(z, 2usize, geometry),
        first_half: z / 2u32,
        is_odd: z % 2u32 == 1u32,
    }
}

/// See [`Window`].
#[cube]
fn cells_along(begin: u32, #[comptime] axis: usize, #[comptime] geometry: Geometry) -> Array<u32> {
    let mut cells = Array::<u32>::new(comptime!(geometry.size[axis] as usize));
    #[unroll]
    for i in 0u32..comptime!(geometry.size[axis]) {
        let at = begin + i * comptime!(geometry.dilation[axis] as u32);
        // A bit of a position is one of the cell's.
        let mut bits = (at & 1u32) << comptime!(axis as u32);
        if comptime!(axis < 2) {
            bits |= ((at & 2u32) << comptime!(axis as u32 + 2)) | ((at & 4u32) << 4u32);
        }
        cells[i as usize] = bits;
    }
    cells
}

/// Whether a tap along x or y lies in the second block.
#[cube]
fn is_far(cell: u32) -> bool {
    (cell & 64u32) != 0u32
}

/// The halves that a window touches, by pairs of blocks along z: twice the number of a block, and one more for the upper half.
#[cube]
pub(super) fn halves_of(pairs: &Array<u32>, window: &Window, #[comptime] geometry: Geometry) -> Array<u32> {
    let n = comptime!(halves(&geometry));
    let mut numbers = Array::<u32>::new(comptime!(4 * n));
    #[unroll]
    for j in 0usize..n {
        let half = window.first_half + j as u32;
        let shift = half / 2u32 * 16u32;
        #[unroll]
        for xy in 0usize..4usize {
            let block = (pairs[xy] >> shift) & 0xFFFFu32;
            numbers[comptime!(xy * n + j)] = 2u32 * block + half % 2u32;
        }
    }
    numbers
}

/// Of values by blocks and the `halves` of each, those of the blocks that a tap along x lies in, the first or the second of two that follow each other;
/// `n` of them. Then those of a tap along y.
#[cube]
pub(super) fn under(
    cell: u32,
    values: &Array<u32>,
    #[comptime] halves: usize,
    #[comptime] n: usize,
) -> Array<u32> {
    let mut chosen = Array::<u32>::new(n);
    #[unroll]
    for at in 0usize..n {
        let near = comptime!(at / halves * 2 * halves + at % halves);
        chosen[at] = select(is_far(cell), values[comptime!(near + halves)], values[near]);
    }
    chosen
}

/// Of values by halves, that of a tap along z.
#[cube]
pub(super) fn under_tap(
    values: &Array<u32>,
    is_odd: bool,
    #[comptime] tap: usize,
    #[comptime] geometry: Geometry,
) -> u32 {
    let [even, odd] = comptime!(half_of(tap, &geometry));
    let mut value = values[even];
    if comptime!(even != odd) {
        value = select(is_odd, values[odd], value);
    }
    value
}

/// The cells of half a block under some tap along x or y, in the first block or in the `far` one.
#[cube]
pub(super) fn slab(
    cells: &Array<u32>,
    #[comptime] far: bool,
    #[comptime] axis: usize,
    #[comptime] geometry: Geometry,
) -> u32 {
    let mut slab = 0u32;
    #[unroll]
    for i in 0usize..comptime!(geometry.size[axis] as usize) {
        let here = comptime!(SLABS[axis]) << (cells[i] & 31u32);
        let counts = (cells[i] & 64u32) == comptime!(if far { 64u32 } else { 0 });
        slab |= select(counts, here, 0u32);
    }
    slab
}

/// The cells of a half under some tap along z.
#[cube]
pub(super) fn layer(window: &Window, #[comptime] half: usize, #[comptime] geometry: Geometry) -> u32 {
    let mut layer = 0u32;
    #[unroll]
    for tap in 0usize..comptime!(geometry.size[2] as usize) {
        let [even, odd] = comptime!(half_of(tap, &geometry));
        let here = comptime!(SLABS[2]) << window.z[tap];
        if comptime!(even == half && odd == half) {
            layer |= here;
        } else if comptime!(even == half) {
            layer |= select(window.is_odd, 0u32, here);
        } else if comptime!(odd == half) {
            layer |= select(window.is_odd, here, 0u32);
        }
    }
    layer
}

#[cfg(test)]
mod tests {
    use lattice_core::{KernelSpec, RelationKind};

    use super::*;

    #[test]
    fn a_slab_has_the_cells_at_its_positions() {
        for (axis, first) in SLABS.into_iter().enumerate() {
            for at in 0..4u32 {
                let bits = (at & 1) << axis | (at & 2) << (axis + 2);
                for cell in 0..64u32 {
                    let along = cell >> axis & 1 | (cell >> (axis + 3) & 1) << 1;
                    // Halves lie apart along z.
                    let in_half = axis != 2 || cell >> 5 == at >> 1;
                    let is_in = in_half && first << (bits & 31) >> (cell & 31) & 1 == 1;
                    assert_eq!(is_in, along == at, "axis {axis}, position {at}, cell {cell}");
                }
            }
        }
    }

    #[test]
    fn taps_lie_in_the_halves_that_windows_touch() {
        for (size, dilation) in [(3, 1), (3, 2), (2, 1), (2, 4), (5, 1), (4, 1)] {
            let spec = KernelSpec::try_new([size; 3], [1; 3], [0; 3], [dilation; 3]).expect("a kernel");
            let geometry = Geometry::new(RelationKind::Submanifold, &spec);
            for begin in 0..4 {
                for tap in 0..size as usize {
                    let half = half_of(tap, &geometry)[begin % 2];
                    assert_eq!(begin / 2 + half, (begin + tap * dilation as usize) / 2);
                    assert!(half < halves(&geometry), "{size} taps {dilation} apart");
                }
            }
        }
    }
}

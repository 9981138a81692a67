//! The input rows that a target row meets.

use cubecl::prelude::*;

use super::geometry::{Geometry, Placement};
use crate::index::{EMPTY, cell_bit, find_block, hash_block, is_in_block, rank};

/// Words of what is remembered of the block that was looked at last: whether there is one, its coordinates, its occupied cells and its
/// first row.
pub(super) const LAST: usize = 7;

/// The row under the first cell of a block whose leader is known with the bit of its cell, less the first row of the support; or the first
/// position of its rows, where those are listed.
#[cube]
pub(super) fn first_of_block(
    slot: u32,
    leader: u32,
    bit: u32,
    low: u32,
    high: u32,
    first: &[u32],
    first_source: u32,
    #[comptime] listed: bool,
) -> u32 {
    if listed {
        first[slot as usize]
    } else {
        // Rows of a block stand next to each other, in the order of their cells.
        leader - first_source - rank(low, high, bit)
    }
}

/// Position of the input row that meets the target coordinate `c` under `tap`, or `EMPTY`: the row itself, or where it is `listed`.
/// `last` remembers the block that was looked at last.
#[cube]
pub(super) fn input_row(
    c: Vector<i32, Const<4>>,
    tap: u32,
    source: &[Vector<i32, Const<4>>],
    slots: &[u32],
    occupancy: &[u32],
    first: &[u32],
    first_source: u32,
    first_slot: u32,
    mask: u32,
    last: &mut Array<i32>,
    #[comptime] geometry: Geometry,
    #[comptime] listed: bool,
) -> u32 {
    let ky = comptime!(geometry.size[1]);
    let kz = comptime!(geometry.size[2]);
    let mut taps = Array::<u32>::new(3usize);
    taps[0] = tap / comptime!(ky * kz);
    taps[1] = (tap / kz) % ky;
    taps[2] = tap % kz;
    let mut at = Array::<i32>::new(3usize);
    let mut fits = true;
    #[unroll]
    for axis in 0usize..3usize {
        let stride = comptime!(geometry.stride[axis]);
        let base = comptime!(geometry.first[axis]);
        let step = comptime!(geometry.dilation[axis]);
        let padding = comptime!(geometry.padding[axis]);
        let offset = i32::cast_from(taps[axis]) * step + base;
        let q = c.extract(comptime!(axis + 1));
        if comptime!(matches!(geometry.placement, Placement::Multiply)) {
            at[axis] = q * stride + offset - padding;
        } else {
            let scaled = q + padding - offset;
            if comptime!(stride == 1) {
                at[axis] = scaled;
            } else {
                // Division that rounds down: the remainder of a negative number is brought above zero.
                let mut rest = scaled % stride;
                if rest < 0i32 {
                    rest += stride;
                }
                fits = fits && rest == 0i32;
                at[axis] = (scaled - rest) / stride;
            }
        }
    }
    let mut found = EMPTY.runtime();
    if fits {
        let (x, y, z) = (at[0], at[1], at[2]);
        let (bx, by, bz) = (x >> 2i32, y >> 2i32, z >> 2i32);
        if last[0] == 0i32 || last[1] != bx || last[2] != by || last[3] != bz {
            let batch = c.extract(0usize);
            let slot = find_block(source, slots, first_slot, mask, batch, bx, by, bz);
            let mut low = 0u32;
            let mut high = 0u32;
            let mut base = 0u32;
            if slot != EMPTY {
                let leader = slots[slot as usize];
                low = occupancy[(2u32 * slot) as usize];
                high = occupancy[(2u32 * slot + 1u32) as usize];
                let k = source[leader as usize];
                let bit = cell_bit(k.extract(1usize), k.extract(2usize), k.extract(3usize));
                base = first_of_block(slot, leader, bit, low, high, first, first_source, listed);
            }
            last[0] = 1i32;
            last[1] = bx;
            last[2] = by;
            last[3] = bz;
            last[4] = i32::cast_from(low);
            last[5] = i32::cast_from(high);
            last[6] = i32::cast_from(base);
        }
        let (low, high) = (u32::cast_from(last[4]), u32::cast_from(last[5]));
        let bit = cell_bit(x, y, z);
        if (select(bit < 32u32, low, high) >> (bit & 31u32)) & 1u32 == 1u32 {
            found = u32::cast_from(last[6]) + rank(low, high, bit);
        }
    }
    found
}

/// The blocks that the window of a target row touches: at most two along each axis.
#[derive(CubeType)]
pub(super) struct Window {
    /// The bits of a cell by its position along an axis: those of [`cell_bit`], and above them a bit for the farther of two blocks. Put
    /// together along all axes they say the cell among those of all blocks.
    x: Array<u32>,
    y: Array<u32>,
    z: Array<u32>,
    /// Words of occupied cells, two a block, each with the row under its first cell (see [`first_of_block`]).
    words: Array<Vector<u32, Const<2>>>,
}

/// Looks the blocks of a window up, all at once: what one of them waits for, the others wait for too.
#[cube]
pub(super) fn window_of(
    c: Vector<i32, Const<4>>,
    source: &[Vector<i32, Const<4>>],
    slots: &[u32],
    occupancy: &[u32],
    first: &[u32],
    first_source: u32,
    first_slot: u32,
    mask: u32,
    #[comptime] geometry: Geometry,
    #[comptime] listed: bool,
) -> Window {
    let blocks = comptime!(geometry.blocks());
    let mut near = Array::<i32>::new(3usize);
    let mut far = Array::<i32>::new(3usize);
    let mut start = Array::<i32>::new(3usize);
    #[unroll]
    for axis in 0usize..3usize {
        let at = c.extract(comptime!(axis + 1)) * comptime!(geometry.stride[axis])
            + comptime!(geometry.first[axis] - geometry.padding[axis]);
        start[axis] = at;
        near[axis] = at >> 2i32;
        far[axis] = (at + comptime!(geometry.extent(axis))) >> 2i32;
    }
    let mut x = Array::<u32>::new(comptime!(geometry.size[0] as usize));
    let mut y = Array::<u32>::new(comptime!(geometry.size[1] as usize));
    let mut z = Array::<u32>::new(comptime!(geometry.size[2] as usize));
    #[unroll]
    for i in 0usize..comptime!(geometry.size[0] as usize) {
        let at = start[0] + i as i32 * comptime!(geometry.dilation[0]);
        x[i] = cell_bit(at, 0i32, 0i32) | farther(at, near[0], 0usize, geometry);
    }
    #[unroll]
    for i in 0usize..comptime!(geometry.size[1] as usize) {
        let at = start[1] + i as i32 * comptime!(geometry.dilation[1]);
        y[i] = cell_bit(0i32, at, 0i32) | farther(at, near[1], 1usize, geometry);
    }
    #[unroll]
    for i in 0usize..comptime!(geometry.size[2] as usize) {
        let at = start[2] + i as i32 * comptime!(geometry.dilation[2]);
        z[i] = cell_bit(0i32, 0i32, at) | farther(at, near[2], 2usize, geometry);
    }

    let batch = c.extract(0usize);
    // All blocks go on from slot to slot together, until each is found or known to be missing: in a plane, some row's block mostly stands
    // past the slot that it is looked for first, and one after the other they would all wait for theirs.
    let mut found = Array::<u32>::new(blocks);
    let mut leaders = Array::<u32>::new(blocks);
    let mut cells = Array::<u32>::new(blocks);
    #[unroll]
    for b in 0usize..blocks {
        let (bx, by, bz) = block_of(&near, &far, b, geometry);
        found[b] = hash_block(batch, bx, by, bz) & mask;
    }
    let mut searching = true;
    while searching {
        searching = false;
        #[unroll]
        for b in 0usize..blocks {
            leaders[b] = slots[(first_slot + found[b]) as usize];
        }
        #[unroll]
        for b in 0usize..blocks {
            let is_there = leaders[b] != EMPTY;
            let k = source[select(is_there, leaders[b], first_source) as usize];
            let (bx, by, bz) = block_of(&near, &far, b, geometry);
            if is_there && !is_in_block(k, batch, bx, by, bz) {
                found[b] = (found[b] + 1u32) & mask;
                searching = true;
            }
            cells[b] = cell_bit(k.extract(1usize), k.extract(2usize), k.extract(3usize));
        }
    }
    let mut words = Array::<Vector<u32, Const<2>>>::new(comptime!(2 * blocks));
    #[unroll]
    for b in 0usize..blocks {
        let is_there = leaders[b] != EMPTY;
        let slot = first_slot + found[b];
        let low = select(is_there, occupancy[(2u32 * slot) as usize], 0u32);
        let high = select(is_there, occupancy[(2u32 * slot + 1u32) as usize], 0u32);
        let base = first_of_block(slot, leaders[b], cells[b], low, high, first, first_source, listed);
        let mut one = Vector::<u32, Const<2>>::empty();
        one.insert(0usize, low);
        one.insert(1usize, base);
        let mut two = Vector::<u32, Const<2>>::empty();
        two.insert(0usize, high);
        two.insert(1usize, base + u32::cast_from(low.count_ones()));
        words[comptime!(2 * b)] = one;
        words[comptime!(2 * b + 1)] = two;
    }
    Window { x, y, z, words }
}

/// The bit that tells the farther block of a window along an axis.
#[cube]
fn farther(at: i32, near: i32, #[comptime] axis: usize, #[comptime] geometry: Geometry) -> u32 {
    let mut bit = 0u32;
    if comptime!(geometry.crosses(axis)) {
        bit = select(at >> 2i32 != near, comptime!(64u32 << geometry.block_bit(axis)), 0u32);
    }
    bit
}

/// Coordinates of block `b` of a window.
#[cube]
fn block_of(
    near: &Array<i32>,
    far: &Array<i32>,
    #[comptime] b: usize,
    #[comptime] geometry: Geometry,
) -> (i32, i32, i32) {
    let mut at = Array::<i32>::new(3usize);
    #[unroll]
    for axis in 0usize..3usize {
        if comptime!(geometry.crosses(axis) && (b >> geometry.block_bit(axis)) & 1 == 1) {
            at[axis] = far[axis];
        } else {
            at[axis] = near[axis];
        }
    }
    (at[0], at[1], at[2])
}

/// Position of the input row under a tap of a window, or `EMPTY`, as [`input_row`] says it.
#[cube]
pub(super) fn near_row(window: &Window, tap: u32, #[comptime] geometry: Geometry) -> u32 {
    let ky = comptime!(geometry.size[1]);
    let kz = comptime!(geometry.size[2]);
    let cell = window.x[(tap / comptime!(ky * kz)) as usize]
        | window.y[((tap / kz) % ky) as usize]
        | window.z[(tap % kz) as usize];
    let word = window.words[(cell >> 5u32) as usize];
    let (cells, base) = (word.extract(0usize), word.extract(1usize));
    let bit = 1u32 << (cell & 31u32);
    let has = (cells & bit) != 0u32;
    let row = base + u32::cast_from((cells & (bit - 1u32)).count_ones());
    select(has, row, EMPTY.runtime())
}

/// Positions of the input rows under all taps of a window, or `EMPTY`, as [`near_row`] says each: block and word are chosen along one axis
/// after the other, z first, which takes a tenth of the instructions that choosing anew for every tap would.
#[cube]
pub(super) fn near_rows(window: &Window, #[comptime] geometry: Geometry) -> Array<u32> {
    let mut found = Array::<u32>::new(comptime!(geometry.taps() as usize));
    let [nx, ny, nz] = comptime!(geometry.size.map(|n| n as usize));
    // Blocks of a window that lie side by side along x, and along x and y.
    let side = comptime!(1usize << geometry.block_bit(1));
    let flat = comptime!(1usize << geometry.block_bit(2));
    let mut of_z = Array::<Vector<u32, Const<2>>>::new(flat);
    let mut of_yz = Array::<Vector<u32, Const<2>>>::new(side);
    #[unroll]
    for iz in 0usize..nz {
        let z = window.z[iz];
        // The highest bit of a cell within its block is one of z.
        let upper = (z & 32u32) != 0u32;
        #[unroll]
        for b in 0usize..flat {
            of_z[b] = either(upper, window.words[comptime!(2 * b + 1)], window.words[comptime!(2 * b)]);
            if comptime!(geometry.crosses(2)) {
                let far = comptime!(b + flat);
                let word =
                    either(upper, window.words[comptime!(2 * far + 1)], window.words[comptime!(2 * far)]);
                of_z[b] = either(is_far(z, 2usize, geometry), word, of_z[b]);
            }
        }
        #[unroll]
        for iy in 0usize..ny {
            let y = window.y[iy];
            #[unroll]
            for b in 0usize..side {
                of_yz[b] = of_z[b];
                if comptime!(geometry.crosses(1)) {
                    of_yz[b] = either(is_far(y, 1usize, geometry), of_z[comptime!(b + side)], of_z[b]);
                }
            }
            #[unroll]
            for ix in 0usize..nx {
                let x = window.x[ix];
                let mut word = of_yz[0];
                if comptime!(geometry.crosses(0)) {
                    word = either(is_far(x, 0usize, geometry), of_yz[1], of_yz[0]);
                }
                let (cells, base) = (word.extract(0usize), word.extract(1usize));
                let bit = 1u32 << ((x | y | z) & 31u32);
                let row = base + u32::cast_from((cells & (bit - 1u32)).count_ones());
                found[comptime!((ix * ny + iy) * nz + iz)] =
                    select((cells & bit) != 0u32, row, EMPTY.runtime());
            }
        }
    }
    found
}

/// Whether a position of a window along an axis lies in the farther block.
#[cube]
fn is_far(at: u32, #[comptime] axis: usize, #[comptime] geometry: Geometry) -> bool {
    (at & comptime!(64u32 << geometry.block_bit(axis))) != 0u32
}

#[cube]
fn either(first: bool, one: Vector<u32, Const<2>>, other: Vector<u32, Const<2>>) -> Vector<u32, Const<2>> {
    let mut word = Vector::<u32, Const<2>>::empty();
    #[unroll]
    for at in 0usize..2usize {
        let value = select(first, one.extract(at), other.extract(at));
        word.insert(at, value);
    }
    word
}

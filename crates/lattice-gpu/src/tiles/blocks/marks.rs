//! The input rows that a tile meets, marked by the bits of their cells in the blocks that exist.

use cubecl::prelude::*;

use super::window::{halves, halves_of, layer, slab, under, under_tap, window_at};
use super::{BEGIN, NO_BLOCK, OCCUPIED, PLACES, TOUCHED, begin_of, word_of_row};
use crate::index::cell_bit;
use crate::tiles::geometry::Geometry;
use crate::tiles::kernel::MAX_GROUP_TAPS;
use crate::tiles::set::SET;
use crate::tiles::{HALO_ROWS, TILE_ROWS};

/// Marks the input rows that the row of this unit meets, and leaves word of the blocks where they are; the taps that it has.
#[cube]
pub(super) fn mark_needed(
    c: Vector<i32, Const<4>>,
    has_row: bool,
    places: &Array<u32>,
    set: &Shared<[Atomic<u32>]>,
    numbers: &Shared<[u32]>,
    words: &mut Shared<[u32]>,
    #[comptime] geometry: Geometry,
) -> u32 {
    let unit = UNIT_POS;
    let mut begin = Array::<u32>::new(3usize);
    #[unroll]
    for axis in 0usize..3usize {
        begin[axis] = u32::cast_from(begin_of(c, axis, geometry)) & 3u32;
    }
    let cell = begin[0] | (begin[1] << 2u32) | (begin[2] << 4u32);
    words[word_of_row(BEGIN, unit)] = cell;
    let mut pairs = Array::<u32>::new(comptime!(TOUCHED / 2));
    #[unroll]
    for xy in 0usize..comptime!(TOUCHED / 2) {
        let near = numbers[places[xy] as usize];
        let far = numbers[places[comptime!(xy + TOUCHED / 2)] as usize];
        pairs[xy] = select(has_row, near | (far << 16u32), comptime!(NO_BLOCK | NO_BLOCK << 16).runtime());
        words[word_of_row(xy as u32, unit)] = pairs[xy];
    }
    let n = comptime!(halves(&geometry));
    let window = window_at(cell, geometry);
    let at = halves_of(&pairs, &window, geometry);
    let mut occupied = Array::<u32>::new(comptime!(4 * n));
    #[unroll]
    for half in 0usize..comptime!(4 * n) {
        occupied[half] = words[(OCCUPIED + at[half]) as usize];
    }
    #[unroll]
    for xy in 0usize..4usize {
        let across = slab(&window.x, comptime!(xy % 2 == 1), 0usize, geometry)
            & slab(&window.y, comptime!(xy / 2 == 1), 1usize, geometry);
        #[unroll]
        for j in 0usize..n {
            let met = across & layer(&window, j, geometry) & occupied[comptime!(xy * n + j)];
            if met != 0u32 {
                set[(comptime!(PLACES as u32) + at[comptime!(xy * n + j)]) as usize].fetch_or(met);
            }
        }
    }
    let [nx, ny, nz] = comptime!(geometry.size.map(|n| n as usize));
    let mut taps = 0u32;
    #[unroll]
    for ix in 0usize..nx {
        let of_x = under(window.x[ix], &occupied, n, comptime!(2 * n));
        #[unroll]
        for iy in 0usize..ny {
            let of_xy = under(window.y[iy], &of_x, n, n);
            #[unroll]
            for iz in 0usize..nz {
                let cells = under_tap(&of_xy, window.is_odd, iz, geometry);
                let has = (cells >> ((window.x[ix] | window.y[iy] | window.z[iz]) & 31u32)) & 1u32;
                taps |= has << comptime!(((ix * ny + iy) * nz + iz) as u32);
            }
        }
    }
    taps
}

/// Unmarks all rows.
#[cube]
pub(super) fn clear_marks(set: &Shared<[Atomic<u32>]>) {
    #[unroll]
    for at in comptime!((PLACES / TILE_ROWS) as u32)..comptime!((SET / TILE_ROWS) as u32) {
        set[(at * comptime!(TILE_ROWS as u32) + UNIT_POS) as usize].store(0u32);
    }
}

/// Where the input row of a tap is marked that the row of this unit has: the word of the set, and the bit in it.
#[cube]
fn mark_of(tap: u32, words: &Shared<[u32]>, #[comptime] geometry: Geometry) -> (u32, u32) {
    let [_, ny, nz] = comptime!(geometry.size);
    let dilation = comptime!(geometry.dilation.map(|d| d as u32));
    let begin = words[word_of_row(BEGIN, UNIT_POS)];
    let x = (begin & 3u32) + tap / comptime!(ny * nz) * comptime!(dilation[0]);
    let y = ((begin >> 2u32) & 3u32) + (tap / nz) % ny * comptime!(dilation[1]);
    let z = (begin >> 4u32) + tap % nz * comptime!(dilation[2]);
    let pair = words[word_of_row(x / 4u32 + y / 4u32 * 2u32, UNIT_POS)];
    let block = (pair >> (z / 4u32 * 16u32)) & 0xFFFFu32;
    let cell = cell_bit(i32::cast_from(x), i32::cast_from(y), i32::cast_from(z));
    (comptime!(PLACES as u32) + 2u32 * block + cell / 32u32, 1u32 << (cell % 32u32))
}

/// Marks the input rows of one tap after the other from `first` on, of two that share a word together, as long as the halo holds them; the first tap that
/// is left. `taps` are those of the row of this unit; `counts` has a zero for each two taps, and another one for those
/// that a phase begins with.
#[cube]
pub(super) fn mark_phase(
    taps: u32,
    first: u32,
    set: &Shared<[Atomic<u32>]>,
    words: &Shared<[u32]>,
    counts: &Shared<[Atomic<u32>]>,
    #[comptime] geometry: Geometry,
) -> u32 {
    let n_taps = comptime!(geometry.taps());
    let mut tap = first;
    let mut length = 0u32;
    let mut has_room = true;
    while has_room && tap < n_taps {
        let mut places = Array::<u32>::new(2usize);
        let mut bits = Array::<u32>::new(2usize);
        let mut new = 0u32;
        #[unroll]
        for i in 0usize..2usize {
            bits[i] = 0u32;
            places[i] = comptime!(PLACES as u32).runtime();
            if (taps >> (tap + i as u32)) & 1u32 == 1u32 {
                let (place, bit) = mark_of(tap + i as u32, words, geometry);
                places[i] = place;
                // Only one unit is the first to mark a row, and unmarks it where there is no room.
                bits[i] = bit & !set[place as usize].fetch_or(bit);
                new += select(bits[i] != 0u32, 1u32, 0u32);
            }
        }
        let again = select(tap == first && first > 0u32, comptime!(MAX_GROUP_TAPS / 2), 0u32);
        if new > 0u32 {
            counts[(tap / 2u32 + again) as usize].fetch_add(new);
        }
        sync_cube();
        let longer = length + counts[(tap / 2u32 + again) as usize].load();
        if longer > comptime!(HALO_ROWS as u32) {
            has_room = false;
            #[unroll]
            for i in 0usize..2usize {
                if bits[i] != 0u32 {
                    set[places[i] as usize].fetch_and(!bits[i]);
                }
            }
        } else {
            length = longer;
            tap += 2u32;
        }
    }
    sync_cube();
    min(tap, n_taps)
}

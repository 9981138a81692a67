//! The numbers of marked rows in the halo of a phase, and the halo and the table by them.

use cubecl::prelude::*;

use super::window::{halves, halves_of, under, under_tap, window_at};
use super::{BEGIN, BLOCKS, FIRST, OCCUPIED, PLACES, TOUCHED, word_of_row};
use crate::index::rank;
use crate::sort::cube_exclusive_sum;
use crate::tiles::TILE_ROWS;
use crate::tiles::geometry::Geometry;
use crate::tiles::kernel::{NO_LOCAL, row_at};

/// Numbers the marked rows block by block; how many there are.
#[cube]
pub(super) fn number_needed(
    set: &Shared<[Atomic<u32>]>,
    numbers: &mut Shared<[u32]>,
    sums: &mut Shared<[u32]>,
    #[comptime] lanes: u32,
) -> u32 {
    // The halves of blocks that a unit numbers stand next to each other.
    let first = comptime!(2 * BLOCKS as u32 / TILE_ROWS as u32) * UNIT_POS;
    let mut cells = Array::<u32>::new(comptime!(2 * BLOCKS / TILE_ROWS));
    let mut mine = 0u32;
    #[unroll]
    for half in 0usize..comptime!(2 * BLOCKS / TILE_ROWS) {
        cells[half] = set[(first + comptime!((PLACES + half) as u32)) as usize].load();
        mine += u32::cast_from(cells[half].count_ones());
    }
    let (before, needed) = cube_exclusive_sum(mine, sums, lanes);
    let mut number = before;
    #[unroll]
    for half in 0usize..comptime!(2 * BLOCKS / TILE_ROWS) {
        numbers[(first + half as u32) as usize] = number;
        number += u32::cast_from(cells[half].count_ones());
    }
    needed
}

/// Writes the needed rows to the halo, as many as there is room for. Whichever unit it is finds the row of a number by halving the halves of blocks.
#[cube]
pub(super) fn write_halo(
    halo: &mut [u32],
    at_halo: u32,
    room: u32,
    set: &Shared<[Atomic<u32>]>,
    words: &Shared<[u32]>,
    numbers: &Shared<[u32]>,
    rows: &[u32],
    #[comptime] listed: bool,
) {
    for number in range_stepped(UNIT_POS, room, comptime!(TILE_ROWS as u32)) {
        // The last half that begins at this number or before it.
        let mut half = 0u32;
        #[unroll]
        for step in 0u32..comptime!((2 * BLOCKS as u32).ilog2()) {
            let next = half + comptime!(BLOCKS as u32) / (1u32 << step);
            half = select(numbers[next as usize] <= number, next, half);
        }
        // The cell of this rank among the needed ones of the half.
        let mut cells = set[(comptime!(PLACES as u32) + half) as usize].load();
        let mut left = number - numbers[half as usize];
        let mut cell = 0u32;
        #[unroll]
        for step in 0u32..5u32 {
            let width = 16u32 >> step;
            let below = u32::cast_from((cells & ((1u32 << width) - 1u32)).count_ones());
            let is_above = left >= below;
            left -= select(is_above, below, 0u32);
            cells = select(is_above, cells >> width, cells);
            cell += select(is_above, width, 0u32);
        }
        let block = half / 2u32;
        let low = words[(OCCUPIED + 2u32 * block) as usize];
        let high = words[(OCCUPIED + 2u32 * block + 1u32) as usize];
        let position = words[(FIRST + block) as usize] + rank(low, high, cell + 32u32 * (half % 2u32));
        halo[(at_halo + number) as usize] = row_at(position, rows, listed);
    }
}

/// Writes the words of the table for the row of the unit `from`, which took the place of this one, for the taps from `begin` up to `end`.
#[cube]
pub(super) fn write_table(
    table: &mut [u32],
    set: &Shared<[Atomic<u32>]>,
    words: &Shared<[u32]>,
    numbers: &Shared<[u32]>,
    from: u32,
    cube: u32,
    begin: u32,
    end: u32,
    #[comptime] geometry: Geometry,
) {
    let units = comptime!(TILE_ROWS as u32);
    let [nx, ny, nz] = comptime!(geometry.size.map(|n| n as usize));
    let n_taps = comptime!(geometry.taps() as usize);
    let n = comptime!(halves(&geometry));
    let mut pairs = Array::<u32>::new(comptime!(TOUCHED / 2));
    #[unroll]
    for xy in 0usize..comptime!(TOUCHED / 2) {
        pairs[xy] = words[word_of_row(xy as u32, from)];
    }
    let window = window_at(words[word_of_row(BEGIN, from)], geometry);
    let at = halves_of(&pairs, &window, geometry);
    let mut cells = Array::<u32>::new(comptime!(4 * n));
    let mut firsts = Array::<u32>::new(comptime!(4 * n));
    #[unroll]
    for half in 0usize..comptime!(4 * n) {
        cells[half] = set[(comptime!(PLACES as u32) + at[half]) as usize].load();
        firsts[half] = numbers[at[half] as usize];
    }
    let first_word = cube * comptime!(geometry.taps().div_ceil(2));
    let mut even = 0u32;
    #[unroll]
    for ix in 0usize..nx {
        let cells_x = under(window.x[ix], &cells, n, comptime!(2 * n));
        let firsts_x = under(window.x[ix], &firsts, n, comptime!(2 * n));
        #[unroll]
        for iy in 0usize..ny {
            let cells_xy = under(window.y[iy], &cells_x, n, n);
            let firsts_xy = under(window.y[iy], &firsts_x, n, n);
            #[unroll]
            for iz in 0usize..nz {
                let cells = under_tap(&cells_xy, window.is_odd, iz, geometry);
                let number = under_tap(&firsts_xy, window.is_odd, iz, geometry);
                let bit = 1u32 << ((window.x[ix] | window.y[iy] | window.z[iz]) & 31u32);
                let rank = u32::cast_from((cells & (bit - 1u32)).count_ones());
                let local = select((cells & bit) != 0u32, number + rank, NO_LOCAL.runtime());
                // Local numbers of two taps a word; a tap past the last has no row.
                let tap = comptime!((ix * ny + iy) * nz + iz);
                if comptime!(tap % 2 == 0) {
                    even = local;
                }
                let word = first_word + comptime!(tap as u32 / 2);
                if comptime!(tap % 2 == 1 || tap + 1 == n_taps) {
                    let mut odd = NO_LOCAL.runtime();
                    if comptime!(tap % 2 == 1) {
                        odd = local;
                    }
                    if comptime!(tap as u32) >= begin && comptime!(tap as u32) < end {
                        table[(word * units + UNIT_POS) as usize] = even | (odd << 16u32);
                    }
                }
            }
        }
    }
}

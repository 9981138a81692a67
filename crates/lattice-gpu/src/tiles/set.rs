//! The set that the distinct input rows of a tile are gathered in, and what its pairs know of it: first the row itself, then its place in the set, or
//! its number where it is a row of the tile.

use cubecl::prelude::*;

use super::TILE_ROWS;
use super::keys::take_tap;
use super::phases::{WORDS, place_of_word};
use crate::index::EMPTY;

/// Places of the set.
pub(super) const SET: usize = 2048;
/// Places looked at before a set counts as full.
const MAX_STEPS: u32 = 1024;
/// Says of a pair that it holds the number of its row; no support has a row of this number.
pub(super) const NUMBERED: u32 = 1 << 31;
/// Says of a pair that it holds the place of its row in the set; an index has rows below it only.
const PLACED: u32 = 1 << 30;

/// Where the search for a row, or whatever else has a number, begins in a set of so many places, a power of two.
#[cube]
pub(super) fn place_of(id: u32, #[comptime] places: usize) -> u32 {
    (id * 0x9E37_79B1u32) >> comptime!(32 - places.ilog2())
}

/// Gathers the input rows that the row at place `from` has under the taps `here`; a pair then knows the place of its row in the set, or its number, where it
/// is one of the tile's `own`. `flags[0]` becomes 1 where the set is full.
#[cube]
pub(super) fn gather_rows(
    neighbours: &mut Shared<[u32]>,
    set: &Shared<[Atomic<u32>]>,
    flags: &Shared<[Atomic<u32>]>,
    here: u32,
    from: u32,
    tile: u32,
    own: u32,
) {
    let units = comptime!(TILE_ROWS as u32);
    let mut left = here;
    while left != 0u32 {
        let cell = (take_tap(&mut left) * units + from) as usize;
        let id = neighbours[cell];
        if own > 0u32 && id / units == tile {
            neighbours[cell] = NUMBERED | (id % units);
        } else {
            let mut at = place_of(id, SET);
            let mut steps = 0u32;
            let mut searching = true;
            while searching {
                let mut held = set[at as usize].load();
                if held == EMPTY {
                    // Read again rather than trust the answer: a weak exchange may fail without a reason.
                    set[at as usize].compare_exchange_weak(EMPTY, id);
                    held = set[at as usize].load();
                }
                if held == id {
                    neighbours[cell] = PLACED | at;
                    searching = false;
                } else if held != EMPTY {
                    at = (at + 1u32) & comptime!(SET as u32 - 1);
                    steps += 1u32;
                    if steps > MAX_STEPS {
                        // The set is nearly full: far more rows than a halo may have.
                        flags[0].fetch_or(1u32);
                        searching = false;
                    }
                }
            }
        }
    }
}

/// Rows of the set among the places that this unit walks through.
#[cube]
pub(super) fn rows_in_set(set: &Shared<[Atomic<u32>]>) -> u32 {
    let mut mine = 0u32;
    for at in 0u32..WORDS {
        #[unroll]
        for half in 0u32..2u32 {
            let id = set[(place_of_word(at) + half) as usize].load();
            mine += select(id != EMPTY, 1u32, 0u32);
        }
    }
    mine
}

/// Lets the rows of the set know the taps that they stand under.
#[cube]
pub(super) fn mark_taps(taps_of: &Shared<[Atomic<u32>]>, neighbours: &Shared<[u32]>, here: u32, from: u32) {
    let units = comptime!(TILE_ROWS as u32);
    let unit = UNIT_POS;
    let per_unit = comptime!(SET as u32 / TILE_ROWS as u32);
    for at in 0u32..per_unit {
        taps_of[(at * units + unit) as usize].store(0u32);
    }
    sync_cube();
    let mut left = here;
    while left != 0u32 {
        let tap = take_tap(&mut left);
        let known = neighbours[(tap * units + from) as usize];
        if known < NUMBERED {
            taps_of[(known & comptime!(PLACED - 1)) as usize].fetch_or(1u32 << tap);
        }
    }
    sync_cube();
}

/// Rows of the set that stand under some taps, among the places that this unit walks through.
#[cube]
pub(super) fn rows_under(taps_of: &Shared<[Atomic<u32>]>, taps: u32) -> u32 {
    let mut mine = 0u32;
    for at in 0u32..WORDS {
        #[unroll]
        for half in 0u32..2u32 {
            let under = taps_of[(place_of_word(at) + half) as usize].load() & taps;
            mine += select(under != 0u32, 1u32, 0u32);
        }
    }
    mine
}

/// Lets the pairs of the row at place `from` under the taps `here` know their rows again.
#[cube]
pub(super) fn back_to_rows(
    neighbours: &mut Shared<[u32]>,
    set: &Shared<[Atomic<u32>]>,
    here: u32,
    from: u32,
    tile: u32,
) {
    let units = comptime!(TILE_ROWS as u32);
    let mut left = here;
    while left != 0u32 {
        let cell = (take_tap(&mut left) * units + from) as usize;
        let known = neighbours[cell];
        if known >= NUMBERED {
            neighbours[cell] = tile * units + (known & comptime!(NUMBERED - 1));
        } else if known >= PLACED {
            neighbours[cell] = set[(known & comptime!(PLACED - 1)) as usize].load();
        }
    }
}

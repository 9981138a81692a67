//! Numbers of input rows in the halo of a phase, and the table that holds them.

use cubecl::prelude::*;

use super::TILE_ROWS;
use super::kernel::{BuildShape, NO_LOCAL, row_at};
use super::phases::{WORDS, place_of_word};
use super::set::{NUMBERED, SET};
use crate::index::EMPTY;

/// Numbers the rows of the set that a phase holds, from `first_number` on, and writes those to the halo for which there is room: `start` says where the halo of the
/// phase begins, and how many rows it may have. All rows of the set, or, where phases share it, those that stand under `taps`.
#[cube]
pub(super) fn number_rows(
    numbers: &mut Shared<[u32]>,
    halo: &mut [u32],
    set: &Shared<[Atomic<u32>]>,
    taps_of: &Shared<[Atomic<u32>]>,
    start: &Shared<[u32]>,
    rows: &[u32],
    first_number: u32,
    first_halo: u32,
    at_halo: u32,
    shared: bool,
    taps: u32,
    #[comptime] listed: bool,
) {
    let mut number = first_number;
    // Two numbers a word.
    for at in 0u32..WORDS {
        let first_place = place_of_word(at);
        let mut packed = 0u32;
        #[unroll]
        for half in 0u32..2u32 {
            let place = (first_place + half) as usize;
            let id = set[place].load();
            let mut is_in = id != EMPTY;
            if shared {
                is_in = taps_of[place].load() & taps != 0u32;
            }
            if is_in {
                packed |= number << (16u32 * half);
                if number < start[1] {
                    halo[(first_halo + at_halo + number) as usize] = row_at(id, rows, listed);
                }
                number += 1u32;
            }
        }
        numbers[(first_place / 2u32) as usize] = packed;
    }
}

/// Writes the words of the table for the taps from `sub` up to `until` of the row that took this unit's place.
#[cube]
pub(super) fn write_table(
    table: &mut [u32],
    neighbours: &Shared<[u32]>,
    numbers: &Shared<[u32]>,
    here: u32,
    from: u32,
    cube: u32,
    sub: u32,
    until: u32,
    group_begin: u32,
    #[comptime] shape: BuildShape,
) {
    let units = comptime!(TILE_ROWS as u32);
    let unit = UNIT_POS;
    let n_taps = comptime!(shape.geometry.taps());
    let group_taps = comptime!(shape.group_taps);
    // Local numbers of two taps a word.
    let n_words = comptime!(n_taps.div_ceil(2));
    for word in sub / 2u32..until.div_ceil(2u32) {
        let mut packed = 0u32;
        #[unroll]
        for half in 0u32..2u32 {
            let tap = 2u32 * word + half;
            // A tap past the last of the group has no bit.
            let at = min(tap - group_begin, comptime!(group_taps.min(n_taps) - 1));
            let has = tap < until && (here >> at) & 1u32 == 1u32;
            let known = neighbours[(at * units + from) as usize];
            let place = known & comptime!(SET as u32 - 1);
            let two = numbers[(place / 2u32) as usize];
            let number = (two >> (16u32 * (place % 2u32))) & 0xFFFFu32;
            let row = select(known >= NUMBERED, known & comptime!(NUMBERED - 1), number);
            let local = select(has, row, NO_LOCAL.runtime());
            packed |= local << (16u32 * half);
        }
        table[((cube * n_words + word) * units + unit) as usize] = packed;
    }
}

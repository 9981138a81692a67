//! Phases of a tile: the taps whose input rows a halo holds at a time.

use cubecl::prelude::*;

use super::job::Job;
use super::kernel::MAX_GROUP_TAPS;
use super::set::SET;
use super::{HALO_ROWS, TILE_ROWS};

/// Words of two places of the set that a unit walks through.
pub(super) const WORDS: u32 = SET as u32 / TILE_ROWS as u32 / 2;

/// First place of the word of two that a unit comes to in its walk through the set: units next to each other read words next to each other.
#[cube]
pub(super) fn place_of_word(at: u32) -> u32 {
    2u32 * (at * comptime!(TILE_ROWS as u32) + UNIT_POS)
}

/// Bits of the taps of a group from `first` up to `end`, at least one.
#[cube]
pub(super) fn taps_between(first: u32, end: u32) -> u32 {
    (u32::MAX >> (32u32 - (end - first))) << first
}

/// An even number of taps, fewer than `taps`, whose halo should be short enough where that of all has `total` rows; at least two.
#[cube]
pub(super) fn fewer_taps(taps: u32, total: u32) -> u32 {
    let share = taps * comptime!(HALO_ROWS as u32 * 9 / 10) / total;
    max(min(share, taps - 1u32) / 2u32 * 2u32, 2u32)
}

/// Claims room for the `length` rows of a phase's halo and describes it, for the taps from `begin` up to `end`; `start` then says where the halo begins, and
/// how many of its rows there is room for. One unit of a tile.
#[cube]
pub(super) fn claim(
    counters: &mut [Atomic<u32>],
    spans: &mut [u32],
    start: &mut Shared<[u32]>,
    length: u32,
    begin: u32,
    end: u32,
    span: u32,
    job: &Job,
) {
    let at = counters[job.first_counter as usize].fetch_add(length);
    let room = select(at + length <= job.halo_capacity, length, 0u32);
    start[0] = at;
    start[1] = room;
    counters[(job.first_counter + 1u32) as usize].fetch_add(1u32);
    spans[span as usize] = at;
    spans[(span + 1u32) as usize] = room;
    spans[(span + 2u32) as usize] = begin;
    spans[(span + 3u32) as usize] = end;
}

/// The end of the phase that begins with a tap of a group: as many taps up to `end` as the halo holds beside `own` rows, and of two that share
/// a word both. `first` itself where it holds no two. `taps_of` are the taps of the group that every row of the set stands under; `counts`
/// are overwritten.
#[cube]
pub(super) fn end_of_phase(
    taps_of: &Shared<[Atomic<u32>]>,
    counts: &Shared<[Atomic<u32>]>,
    first: u32,
    end: u32,
    own: u32,
) -> u32 {
    let unit = UNIT_POS;
    if unit < MAX_GROUP_TAPS {
        counts[unit as usize].store(0u32);
    }
    sync_cube();
    // A row joins the halo with the first tap that it stands under.
    let taps = taps_between(first, end);
    for at in 0u32..2u32 * WORDS {
        let under = taps_of[(at * comptime!(TILE_ROWS as u32) + unit) as usize].load() & taps;
        if under != 0u32 {
            counts[under.trailing_zeros() as usize].fetch_add(1u32);
        }
    }
    sync_cube();
    let mut total = own;
    let mut until = first;
    #[unroll]
    for tap in 0u32..MAX_GROUP_TAPS {
        // Zero for taps before the first, and past the end.
        total += counts[tap as usize].load();
        if tap >= first && tap < end && total <= comptime!(HALO_ROWS as u32) {
            until = tap + 1u32;
        }
    }
    select(until < end, until / 2u32 * 2u32, until)
}

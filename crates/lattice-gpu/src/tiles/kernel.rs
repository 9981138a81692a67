//! The kernel that builds tiles.

use cubecl::prelude::*;

use super::geometry::Geometry;
use super::phases::{WORDS, end_of_phase, fewer_taps, place_of_word, taps_between};
use super::places::{PLANE, PLANE_KEY_BITS, place_by_counting, place_in_planes};
use super::window::{LAST, input_row, near_row, near_rows, window_of};
use super::{CHUNK_ROWS, HALO_ROWS, TILE_ROWS};
use crate::index::EMPTY;
use crate::sort::cube_exclusive_sum;

/// Output row of a tile's place that has none.
pub(crate) const NO_ROW: u32 = u32::MAX;
/// Local number of a missing input row.
pub(crate) const NO_LOCAL: u32 = HALO_ROWS as u32;
/// Places of the set that a tile's distinct input rows are gathered in.
pub(super) const SET: usize = 2048;
/// Places looked at before a set counts as full.
const MAX_STEPS: u32 = 1024;
/// Says of a pair that it holds the number of its row; no support has a row of this number.
const NUMBERED: u32 = 1 << 31;
/// Says of a pair that it holds the place of its row in the set; an index has rows below it only.
const PLACED: u32 = 1 << 30;
/// Most taps of a group: a row's taps are bits of a word.
pub(crate) const MAX_GROUP_TAPS: u32 = 32;
/// Words of a phase: where its halo starts, how long it is, its first tap and the end of its taps.
pub(crate) const SPAN_WORDS: u32 = 4;

/// What the builder is compiled for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct BuildShape {
    pub(crate) geometry: Geometry,
    /// Taps whose neighbours are held at a time: a multiple of 8.
    pub(crate) group_taps: u32,
    /// Whether rows of a block are listed, rather than next to each other: input rows go by their positions in the list then, and by
    /// their numbers only in the halo.
    pub(crate) listed: bool,
    /// Units of a plane, 8 to 32; 0 where planes are of no use.
    pub(crate) lanes: u32,
    /// Whether there is memory to say of every row of the set which taps it stands under.
    pub(crate) shares: bool,
}

impl BuildShape {
    /// Words of the spans of a tile: most phases are of two taps.
    pub(crate) fn span_words(&self) -> u32 {
        let taps = self.geometry.taps();
        let phases = taps.div_ceil(self.group_taps) * (self.group_taps.min(taps.next_multiple_of(2)) / 2);
        (phases + 1) * SPAN_WORDS
    }
}

/// The row at a position.
#[cube]
fn row_at(position: u32, rows: &[u32], #[comptime] listed: bool) -> u32 {
    let mut row = position;
    if listed {
        row = rows[position as usize];
    }
    row
}

/// Where the search for a row begins in the set.
#[cube]
fn place_of(id: u32) -> u32 {
    (id * 0x9E37_79B1u32) >> 21u32
}

/// A relation among those whose tiles are built together: where its parts begin.
#[derive(CubeType, CubeLaunch, Clone, Copy)]
pub(crate) struct Job {
    /// Its first tile among those of all, past them where there is no such relation; and that by which chunks and spans count.
    pub(crate) first_tile: u32,
    pub(crate) first_spans: u32,
    /// Output rows.
    pub(crate) n_out: u32,
    /// Its first output row among `targets`, and its first input row among `source`.
    pub(crate) first_target: u32,
    pub(crate) first_source: u32,
    /// The table of its input rows.
    pub(crate) first_slot: u32,
    pub(crate) mask: u32,
    /// Its part of `halo`.
    pub(crate) first_halo: u32,
    pub(crate) halo_capacity: u32,
    pub(crate) first_counter: u32,
    /// 1 where source and target are one support whose positions are those of tiles: the rows of a tile are then its first input rows,
    /// numbered as they stand, so that the eight rows that a chunk reads under a tap mostly lie in different banks.
    pub(crate) same: u32,
}

impl Job {
    /// The job as a kernel argument.
    pub(super) fn arg(&self) -> JobLaunch {
        JobLaunch::new(
            self.first_tile,
            self.first_spans,
            self.n_out,
            self.first_target,
            self.first_source,
            self.first_slot,
            self.mask,
            self.first_halo,
            self.halo_capacity,
            self.first_counter,
            self.same,
        )
    }
}

/// Builds one tile a cube of 256 units.
///
/// `order` lists the target rows in the order that tiles take them, where `ordered` is 1. `tile_rows[tile, place]`: output row or `NO_ROW`.
/// `table[tile, tap / 2, place]`: local numbers of two taps, 16 bits each. `chunks[tile, tap]`: bit `c` where a row of chunk `c` has the
/// tap. `halo`: input rows. `spans[tile]`: how many phases, and from the fourth word on four words a phase. `counters`: halo rows used,
/// phases, pairs. Rows and places in the halo are those of the tile's relation.
#[cube(launch_unchecked)]
pub(crate) fn build_tiles_kernel(
    targets: &[Vector<i32, Const<4>>],
    order: &[u32],
    source: &[Vector<i32, Const<4>>],
    slots: &[u32],
    occupancy: &[u32],
    first: &[u32],
    rows: &[u32],
    tile_rows: &mut [u32],
    table: &mut [u32],
    chunks: &mut [u32],
    halo: &mut [u32],
    spans: &mut [u32],
    counters: &mut [Atomic<u32>],
    jobs: Sequence<Job>,
    ordered: u32,
    #[comptime] shape: BuildShape,
) {
    // The number of the tile among those of all relations, and in its own.
    let cube = CUBE_POS as u32;
    let job = jobs.index(0usize);
    let mut first_tile = job.first_tile;
    let mut first_spans = job.first_spans;
    let mut n_out = job.n_out;
    let mut first_target = job.first_target;
    let mut first_source = job.first_source;
    let mut first_slot = job.first_slot;
    let mut mask = job.mask;
    let mut first_halo = job.first_halo;
    let mut halo_capacity = job.halo_capacity;
    let mut first_counter = job.first_counter;
    let mut same = job.same;
    #[unroll]
    for at in 1usize..jobs.len() {
        let job = jobs.index(at);
        let is_it = cube >= job.first_tile;
        first_tile = select(is_it, job.first_tile, first_tile);
        first_spans = select(is_it, job.first_spans, first_spans);
        n_out = select(is_it, job.n_out, n_out);
        first_target = select(is_it, job.first_target, first_target);
        first_source = select(is_it, job.first_source, first_source);
        first_slot = select(is_it, job.first_slot, first_slot);
        mask = select(is_it, job.mask, mask);
        first_halo = select(is_it, job.first_halo, first_halo);
        halo_capacity = select(is_it, job.halo_capacity, halo_capacity);
        first_counter = select(is_it, job.first_counter, first_counter);
        same = select(is_it, job.same, same);
    }
    let tile = cube - first_tile;
    let small = first_spans + tile;
    if tile * comptime!(TILE_ROWS as u32) >= n_out {
        terminate!();
    }
    let geometry = comptime!(shape.geometry);
    let n_taps = comptime!(geometry.taps());
    let group_taps = comptime!(shape.group_taps);
    let n_groups = comptime!(n_taps.div_ceil(group_taps));
    let one_group = comptime!(n_groups == 1);
    let span_words = comptime!(shape.span_words());
    let is_near = comptime!(geometry.is_near());
    let listed = comptime!(shape.listed);
    let units = comptime!(TILE_ROWS as u32);
    let unit = UNIT_POS;
    // Places within a plane and within a chunk.
    let lane = unit % comptime!(shape.lanes.max(1));
    let per_unit = comptime!(SET as u32 / TILE_ROWS as u32);

    let mut neighbours = Shared::<[u32]>::new_slice(comptime!(group_taps.min(n_taps) as usize * TILE_ROWS));
    let set = Shared::<[Atomic<u32>]>::new_slice(SET);
    let mut numbers = Shared::<[u32]>::new_slice(comptime!(SET / 2));
    let taps_of = Shared::<[Atomic<u32>]>::new_slice(comptime!(if shape.shares { SET } else { 1 }));
    let mut keys = Shared::<[u32]>::new_slice(TILE_ROWS);
    let mut sums = Shared::<[u32]>::new_slice(TILE_ROWS);
    let mut places = Shared::<[u32]>::new_slice(TILE_ROWS);
    let counts = Shared::<[Atomic<u32>]>::new_slice(comptime!(MAX_GROUP_TAPS as usize));
    let mut masks = Shared::<[u32]>::new_slice(TILE_ROWS);
    let chunk_masks = Shared::<[Atomic<u32>]>::new_slice(comptime!(TILE_ROWS / CHUNK_ROWS));
    let mut bits = Shared::<[u32]>::new_slice(comptime!(MAX_GROUP_TAPS as usize));
    let flags = Shared::<[Atomic<u32>]>::new_slice(2usize);
    let mut start = Shared::<[u32]>::new_slice(2usize);

    // The row of this unit, in the order that tiles take rows.
    let position = tile * units + unit;
    let mut row = NO_ROW.runtime();
    if position < n_out {
        row = position;
        if ordered == 1u32 {
            row = order[position as usize];
        }
    }
    let has_row = row != NO_ROW;
    // Input rows that need no search: where source and target are one, those of the tile itself.
    let mut own = select(same == 1u32, min(n_out - tile * units, units), 0u32);
    let c = targets[(first_target + select(has_row, row, 0u32)) as usize];
    let mut last = Array::<i32>::new(LAST);
    last[0] = 0i32;

    // Which taps the row has. With at most 32 taps they are the sort key.
    let mut key = 0u32;
    let mut taps_of_row = 0u32;
    if unit < MAX_GROUP_TAPS {
        counts[unit as usize].store(0u32);
    }
    sync_cube();
    if comptime!(n_taps <= MAX_GROUP_TAPS) {
        if is_near {
            let window = window_of(
                c,
                source,
                slots,
                occupancy,
                first,
                first_source,
                first_slot,
                mask,
                geometry,
                listed,
            );
            let positions = near_rows(&window, geometry);
            #[unroll]
            for tap in 0u32..n_taps {
                let found = positions[tap as usize];
                if one_group {
                    neighbours[(tap * units + unit) as usize] = found;
                }
                taps_of_row |= select(found != EMPTY, 1u32 << tap, 0u32);
            }
        } else {
            for tap in 0u32..n_taps {
                let found = input_row(
                    c,
                    tap,
                    source,
                    slots,
                    occupancy,
                    first,
                    first_source,
                    first_slot,
                    mask,
                    &mut last,
                    geometry,
                    listed,
                );
                if one_group {
                    neighbours[(tap * units + unit) as usize] = found;
                }
                taps_of_row |= select(found != EMPTY, 1u32 << tap, 0u32);
            }
        }
        taps_of_row = select(has_row, taps_of_row, 0u32);
        // Brings the units of a plane together, which searched for their rows each on its own way.
        sync_cube();
        if comptime!(shape.lanes >= n_taps) {
            // A lane for each tap keeps what its plane has of it.
            let mut of_tap = 0u32;
            #[unroll]
            for tap in 0u32..n_taps {
                let peers = plane_ballot((taps_of_row & comptime!(1u32 << tap)) != 0u32).extract(0usize);
                of_tap = select(lane == tap, u32::cast_from(peers.count_ones()), of_tap);
            }
            if lane < n_taps && of_tap != 0u32 {
                counts[lane as usize].fetch_add(of_tap);
            }
        } else {
            for tap in 0u32..n_taps {
                let has = (taps_of_row >> tap) & 1u32 == 1u32;
                if comptime!(shape.lanes > 0) {
                    let peers = plane_ballot(has).extract(0usize);
                    if lane == 0u32 && peers != 0u32 {
                        counts[tap as usize].fetch_add(u32::cast_from(peers.count_ones()));
                    }
                } else if has {
                    counts[tap as usize].fetch_add(1u32);
                }
            }
        }
        sync_cube();
        // The rarest tap becomes the highest bit.
        if unit < n_taps {
            let mine = counts[unit as usize].load();
            let mut above = 0u32;
            for other in 0u32..n_taps {
                let theirs = counts[other as usize].load();
                if theirs > mine || (theirs == mine && other < unit) {
                    above += 1u32;
                }
            }
            bits[unit as usize] = above;
        }
        sync_cube();
        let mut left = taps_of_row;
        while left != 0u32 {
            key |= 1u32 << bits[left.trailing_zeros() as usize];
            left &= left - 1u32;
        }
        // Rank of the set among Gray codes: neighbours in this order differ in few taps.
        key ^= key >> 1u32;
        key ^= key >> 2u32;
        key ^= key >> 4u32;
        key ^= key >> 8u32;
        key ^= key >> 16u32;
    }
    // Rows that are none come last.
    if comptime!(shape.lanes == PLANE && n_taps <= PLANE_KEY_BITS) {
        let key = select(has_row, key, comptime!((1u32 << PLANE_KEY_BITS) - 1));
        let (place, owner) = place_in_planes(key, &mut keys);
        places[place as usize] = owner;
        tile_rows[(cube * units + place) as usize] = plane_shuffle(row, owner % PLANE);
    } else {
        let place = place_by_counting(select(has_row, key, u32::MAX), &mut keys);
        places[place as usize] = unit;
        tile_rows[(cube * units + place) as usize] = row;
    }
    sync_cube();
    // From here on a unit works for the row that took its place.
    let from = places[unit as usize];

    let mut n_phases = 0u32;
    if unit == 0u32 {
        flags[1].store(0u32);
    }
    for group in 0u32..n_groups {
        let group_begin = group * group_taps;
        let group_end = min(group_begin + group_taps, n_taps);
        if comptime!(!one_group) {
            // Not before everybody has read those of the group before.
            sync_cube();
            taps_of_row = 0u32;
        }
        if comptime!(!one_group && is_near) {
            let window = window_of(
                c,
                source,
                slots,
                occupancy,
                first,
                first_source,
                first_slot,
                mask,
                geometry,
                listed,
            );
            for tap in group_begin..group_end {
                let found = near_row(&window, tap, geometry);
                neighbours[((tap - group_begin) * units + unit) as usize] = found;
                taps_of_row |= select(found != EMPTY, 1u32 << (tap - group_begin), 0u32);
            }
        } else if comptime!(!one_group) {
            for tap in group_begin..group_end {
                let found = input_row(
                    c,
                    tap,
                    source,
                    slots,
                    occupancy,
                    first,
                    first_source,
                    first_slot,
                    mask,
                    &mut last,
                    geometry,
                    listed,
                );
                neighbours[((tap - group_begin) * units + unit) as usize] = found;
                taps_of_row |= select(found != EMPTY, 1u32 << (tap - group_begin), 0u32);
            }
        }
        if comptime!(!one_group) {
            taps_of_row = select(has_row, taps_of_row, 0u32);
        }
        // Taps of the group that the row at this place has.
        masks[unit as usize] = taps_of_row;
        sync_cube();
        let of_place = masks[from as usize];
        count_taps(&chunk_masks, &flags, of_place, group_end - group_begin, shape);
        // All taps of the group at once; where the set does not hold their rows, fewer of them, and so on. Two always fit.
        let mut span_taps = group_taps.runtime();
        let mut begin = group_begin;
        while begin < group_end {
            let end = min(begin + span_taps, group_end);
            for at in 0u32..per_unit {
                set[(at * units + unit) as usize].store(EMPTY);
            }
            if unit == 0u32 {
                flags[0].store(0u32);
            }
            sync_cube();
            // Gather the distinct input rows; a pair then knows the place of its row in the set, or its number.
            let here = of_place & taps_between(begin - group_begin, end - group_begin);
            let mut left = here;
            while left != 0u32 {
                let cell = (u32::cast_from(left.trailing_zeros()) * units + from) as usize;
                left &= left - 1u32;
                let id = neighbours[cell];
                if own > 0u32 && id / units == tile {
                    neighbours[cell] = NUMBERED | (id % units);
                } else {
                    let mut at = place_of(id);
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
            sync_cube();
            let mut mine = 0u32;
            for at in 0u32..WORDS {
                #[unroll]
                for half in 0u32..2u32 {
                    let id = set[(place_of_word(at) + half) as usize].load();
                    mine += select(id != EMPTY, 1u32, 0u32);
                }
            }
            let (before_all, in_set) = cube_exclusive_sum(mine, &mut sums, comptime!(shape.lanes));
            let all = in_set + own;
            let overfull = flags[0].load() != 0u32;
            let too_long = all > comptime!(HALO_ROWS as u32);
            // Where the halo is too long, the rows of the tile are gathered like all others, for phases to hold those only that they need.
            let anew = too_long && !overfull && own > 0u32;
            // Phases of fewer taps then share the set, whose rows know the taps that they stand under.
            let shared = comptime!(shape.shares) && too_long && !overfull && !anew;
            let mut holds_all = !overfull && (!too_long || shared);
            if shared {
                for at in 0u32..per_unit {
                    taps_of[(at * units + unit) as usize].store(0u32);
                }
                sync_cube();
                let mut left = here;
                while left != 0u32 {
                    let tap = u32::cast_from(left.trailing_zeros());
                    left &= left - 1u32;
                    let known = neighbours[(tap * units + from) as usize];
                    if known < NUMBERED {
                        taps_of[(known & comptime!(PLACED - 1)) as usize].fetch_or(1u32 << tap);
                    }
                }
                sync_cube();
            }
            let mut sub = begin;
            while holds_all && sub < end {
                let mut until = end;
                let mut before = before_all;
                let mut total = all;
                if shared {
                    let (first, last) = (sub - group_begin, end - group_begin);
                    until = group_begin + end_of_phase(&taps_of, &counts, first, last, own);
                    holds_all = until > sub;
                }
                if shared && holds_all {
                    let taps = taps_between(sub - group_begin, until - group_begin);
                    let mut mine = 0u32;
                    for at in 0u32..WORDS {
                        #[unroll]
                        for half in 0u32..2u32 {
                            let under = taps_of[(place_of_word(at) + half) as usize].load() & taps;
                            mine += select(under != 0u32, 1u32, 0u32);
                        }
                    }
                    let (before_some, some) = cube_exclusive_sum(mine, &mut sums, comptime!(shape.lanes));
                    before = before_some;
                    total = some + own;
                }
                if holds_all {
                    if unit == 0u32 {
                        let at = counters[first_counter as usize].fetch_add(total);
                        let has_room = at + total <= halo_capacity;
                        start[0] = at;
                        start[1] = select(has_room, total, 0u32);
                        counters[(first_counter + 1u32) as usize].fetch_add(1u32);
                        let span = small * span_words + (n_phases + 1u32) * SPAN_WORDS;
                        spans[span as usize] = at;
                        spans[(span + 1u32) as usize] = select(has_room, total, 0u32);
                        spans[(span + 2u32) as usize] = sub;
                        spans[(span + 3u32) as usize] = until;
                    }
                    sync_cube();
                    let at_halo = start[0];
                    let mut number = before + own;
                    if unit < own && unit < start[1] {
                        halo[(first_halo + at_halo + unit) as usize] =
                            row_at(tile * units + unit, rows, listed);
                    }
                    let taps = taps_between(sub - group_begin, until - group_begin);
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
                    sync_cube();
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
                    n_phases += 1u32;
                    sub = until;
                    sync_cube();
                }
            }
            if !holds_all {
                // Back to the rows themselves.
                let mut left = here;
                while left != 0u32 {
                    let cell = (u32::cast_from(left.trailing_zeros()) * units + from) as usize;
                    left &= left - 1u32;
                    let known = neighbours[cell];
                    if known >= NUMBERED {
                        neighbours[cell] = tile * units + (known & comptime!(NUMBERED - 1));
                    } else if known >= PLACED {
                        neighbours[cell] = set[(known & comptime!(PLACED - 1)) as usize].load();
                    }
                }
                if anew {
                    own = 0u32;
                } else {
                    if end - sub <= 2u32 {
                        // Two taps fit without the rows of the tile itself.
                        own = 0u32;
                    }
                    // Two taps share a word, so that a phase begins with an even one. The set may hold far more rows than were counted.
                    let most = max(all, comptime!(2 * HALO_ROWS as u32));
                    span_taps = fewer_taps(end - sub, select(overfull, most, all));
                }
                sync_cube();
            }
            begin = sub;
        }
        if unit < group_end - group_begin {
            let mut word = 0u32;
            for chunk in 0u32..comptime!((TILE_ROWS / CHUNK_ROWS) as u32) {
                word |= ((chunk_masks[chunk as usize].load() >> unit) & 1u32) << chunk;
            }
            chunks[(small * n_taps + group_begin + unit) as usize] = word;
        }
    }
    if unit == 0u32 {
        spans[(small * span_words) as usize] = n_phases;
        counters[(first_counter + 2u32) as usize].fetch_add(flags[1].load());
    }
}

/// Marks the taps of every chunk and adds the pairs of the group to `flags[1]`; `of_place` are the taps of the row at this place.
#[cube]
fn count_taps(
    chunk_masks: &Shared<[Atomic<u32>]>,
    flags: &Shared<[Atomic<u32>]>,
    of_place: u32,
    taps: u32,
    #[comptime] shape: BuildShape,
) {
    let unit = UNIT_POS;
    let here = of_place & (u32::MAX >> (32u32 - taps));
    let pairs = u32::cast_from(here.count_ones());
    if comptime!(shape.lanes > 0) {
        let sum = plane_sum(pairs);
        let lane = unit % comptime!(shape.lanes);
        let of_chunk = unit % comptime!(CHUNK_ROWS as u32);
        if lane == 0u32 {
            flags[1].fetch_add(sum);
        }
        // Taps of the eight rows of a chunk.
        let mut together = here;
        together |= plane_shuffle_xor(together, 1u32);
        together |= plane_shuffle_xor(together, 2u32);
        together |= plane_shuffle_xor(together, 4u32);
        if of_chunk == 0u32 {
            chunk_masks[(unit / comptime!(CHUNK_ROWS as u32)) as usize].store(together);
        }
    } else {
        if unit < comptime!((TILE_ROWS / CHUNK_ROWS) as u32) {
            chunk_masks[unit as usize].store(0u32);
        }
        sync_cube();
        flags[1].fetch_add(pairs);
        chunk_masks[(unit / comptime!(CHUNK_ROWS as u32)) as usize].fetch_or(here);
    }
}

//! The kernel that builds tiles.

use cubecl::prelude::*;

use super::blocks::{self, FLAGS, NOT_FOUND, NUMBER_WORDS, SET_WORDS, START_WORDS, needed_of_blocks};
use super::chunks::{count_taps, write_chunks};
use super::geometry::Geometry;
use super::job::{Job, job_of};
use super::keys::{KEY_WORDS, rank_of_taps};
use super::numbers::{number_rows, write_table};
use super::phases::{claim, end_of_phase, fewer_taps, taps_between};
use super::places::{PLANE, PLANE_KEY_BITS, place_by_counting, place_in_planes};
use super::set::{SET, back_to_rows, gather_rows, mark_taps, rows_in_set, rows_under};
use super::window::{LAST, input_row, near_row, near_rows, window_of};
use super::{CHUNK_ROWS, HALO_ROWS, TILE_ROWS};
use crate::index::EMPTY;
use crate::sort::cube_exclusive_sum;
use crate::support::is_canonical;

/// Output row of a tile's place that has none.
pub(crate) const NO_ROW: u32 = u32::MAX;
/// Local number of a missing input row.
pub(crate) const NO_LOCAL: u32 = HALO_ROWS as u32;
/// Most taps of a group: a row's taps are bits of a word.
pub(crate) const MAX_GROUP_TAPS: u32 = 32;
/// Whether tiles are built whatever their rows are, or left out where these stand in canonical order, or where they do not.
pub(super) const ANYHOW: u32 = 0;
pub(super) const UNLESS_CANONICAL: u32 = 1;
pub(super) const IF_CANONICAL: u32 = 2;
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
    /// Whether rows are found block by block, see [`blocks`].
    pub(crate) by_blocks: bool,
    /// Whether there is memory to say of every row of the set which taps it stands under.
    pub(crate) shares: bool,
}

impl BuildShape {
    /// Words of shared memory for the neighbours of a group of taps, or what blocks take in their place.
    fn neighbour_words(&self) -> usize {
        let neighbours = self.group_taps.min(self.geometry.taps()) as usize * TILE_ROWS;
        if self.by_blocks { neighbours.max(blocks::WORDS) } else { neighbours }
    }

    /// Words of the spans of a tile: most phases are of two taps.
    pub(crate) fn span_words(&self) -> u32 {
        let taps = self.geometry.taps();
        let phases = taps.div_ceil(self.group_taps) * (self.group_taps.min(taps.next_multiple_of(2)) / 2);
        (phases + 1) * SPAN_WORDS
    }
}

/// The row at a position.
#[cube]
pub(super) fn row_at(position: u32, rows: &[u32], #[comptime] listed: bool) -> u32 {
    let mut row = position;
    if listed {
        row = rows[position as usize];
    }
    row
}

/// Builds one tile a cube of 256 units.
///
/// `order` lists the target rows in the order that tiles take them, where `ordered` is 1. `tile_rows[tile, place]`: output row or `NO_ROW`.
/// `table[tile, tap / 2, place]`: local numbers of two taps, 16 bits each. `chunks[tile, tap]`: bit `c` where a row of chunk `c` has the
/// tap. `halo`: input rows. `spans[tile]`: how many phases, and from the fourth word on four words a phase. `counters`: halo rows used,
/// phases, pairs. Rows and places in the halo are those of the tile's relation.
///
/// Where `unless` is not [`ANYHOW`] nothing is built if the rows are not as expected: `description` says whether they stand in canonical order,
/// and the counter at `repeated` whether some repeat each other.
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
    description: &[i32],
    jobs: Sequence<Job>,
    ordered: u32,
    unless: u32,
    repeated: u32,
    #[comptime] shape: BuildShape,
) {
    if unless != ANYHOW {
        // Not `==` of two conditions, which SPIR-V has no form for in CubeCL 0.11.
        let left_out = select(is_canonical(description), UNLESS_CANONICAL, IF_CANONICAL);
        if unless == left_out || counters[repeated as usize].load() != 0u32 {
            terminate!();
        }
    }
    // The number of the tile among those of all relations, and in its own.
    let cube = CUBE_POS as u32;
    let job = job_of(cube, &jobs);
    let first_tile = job.first_tile;
    let first_spans = job.first_spans;
    let n_out = job.n_out;
    let first_target = job.first_target;
    let first_source = job.first_source;
    let first_slot = job.first_slot;
    let mask = job.mask;
    let first_halo = job.first_halo;
    let first_counter = job.first_counter;
    let same = job.same;
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
    let by_blocks = comptime!(shape.by_blocks);
    let units = comptime!(TILE_ROWS as u32);
    let unit = UNIT_POS;
    // Places within a plane and within a chunk.
    let lane = unit % comptime!(shape.lanes.max(1));
    let per_unit = comptime!(SET as u32 / TILE_ROWS as u32);

    let mut neighbours = Shared::<[u32]>::new_slice(comptime!(shape.neighbour_words()));
    let set = Shared::<[Atomic<u32>]>::new_slice(SET_WORDS);
    let mut numbers = Shared::<[u32]>::new_slice(NUMBER_WORDS);
    let taps_of = Shared::<[Atomic<u32>]>::new_slice(comptime!(if shape.shares { SET } else { 1 }));
    let mut keys = Shared::<[u32]>::new_slice(TILE_ROWS);
    let mut sums = Shared::<[u32]>::new_slice(TILE_ROWS);
    let mut places = Shared::<[u32]>::new_slice(TILE_ROWS);
    let counts = Shared::<[Atomic<u32>]>::new_slice(comptime!(MAX_GROUP_TAPS as usize));
    let mut masks = Shared::<[u32]>::new_slice(TILE_ROWS);
    let chunk_masks = Shared::<[Atomic<u32>]>::new_slice(comptime!(TILE_ROWS / CHUNK_ROWS));
    let mut bits = Shared::<[u32]>::new_slice(KEY_WORDS);
    let flags = Shared::<[Atomic<u32>]>::new_slice(FLAGS);
    let mut start = Shared::<[u32]>::new_slice(START_WORDS);

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
    // Stands for rows that are none.
    let mut first_row = 0u32;
    if by_blocks {
        first_row = tile * units;
        if ordered == 1u32 {
            first_row = order[first_row as usize];
        }
    }
    let c = targets[(first_target + select(has_row, row, first_row)) as usize];
    let mut last = Array::<i32>::new(LAST);
    last[0] = 0i32;

    // Which taps the row has. With at most 32 taps they are the sort key.
    let mut key = 0u32;
    let mut taps_of_row = 0u32;
    if unit < MAX_GROUP_TAPS {
        counts[unit as usize].store(0u32);
    }
    sync_cube();
    let mut needed = NOT_FOUND.runtime();
    if by_blocks {
        let origin = targets[(first_target + first_row) as usize];
        let (taps, of_blocks) = needed_of_blocks(
            c,
            has_row,
            origin,
            source,
            slots,
            occupancy,
            first,
            &set,
            &mut numbers,
            &mut neighbours,
            &mut sums,
            &flags,
            &mut start,
            cube,
            &job,
            shape,
        );
        taps_of_row = taps;
        needed = of_blocks;
        if unit == 0u32 && needed <= comptime!(HALO_ROWS as u32) {
            // Long before somebody waits for it.
            let span = small * span_words + SPAN_WORDS;
            claim(counters, spans, &mut start, needed, 0u32, n_taps.runtime(), span, &job);
        }
    }
    if comptime!(n_taps <= MAX_GROUP_TAPS) {
        if comptime!(is_near && !by_blocks) {
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
        } else if needed == NOT_FOUND {
            if by_blocks {
                // Everybody has left the words that blocks took.
                sync_cube();
                taps_of_row = 0u32;
            }
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
        key = rank_of_taps(taps_of_row, &counts, &mut bits, lane, shape);
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
    let mut groups = n_groups.runtime();
    if by_blocks {
        masks[unit as usize] = taps_of_row;
        if needed != NOT_FOUND {
            sync_cube();
            count_taps(&chunk_masks, &flags, masks[from as usize], n_taps.runtime(), shape);
            n_phases = blocks::write_phases(
                table,
                halo,
                spans,
                counters,
                rows,
                &set,
                &neighbours,
                &mut numbers,
                &mut sums,
                &mut start,
                &places,
                &counts,
                needed,
                taps_of_row,
                small * span_words,
                &job,
                shape,
            );
            write_chunks(chunks, &chunk_masks, small * n_taps, n_taps.runtime());
            groups = 0u32;
        }
    }
    for group in 0u32..groups {
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
            let here = of_place & taps_between(begin - group_begin, end - group_begin);
            gather_rows(&mut neighbours, &set, &flags, here, from, tile, own);
            sync_cube();
            let mine = rows_in_set(&set);
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
                mark_taps(&taps_of, &neighbours, here, from);
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
                    let mine = rows_under(&taps_of, taps);
                    let (before_some, some) = cube_exclusive_sum(mine, &mut sums, comptime!(shape.lanes));
                    before = before_some;
                    total = some + own;
                }
                if holds_all {
                    if unit == 0u32 {
                        let span = small * span_words + (n_phases + 1u32) * SPAN_WORDS;
                        claim(counters, spans, &mut start, total, sub, until, span, &job);
                    }
                    sync_cube();
                    let at_halo = start[0];
                    if unit < own && unit < start[1] {
                        halo[(first_halo + at_halo + unit) as usize] =
                            row_at(tile * units + unit, rows, listed);
                    }
                    let taps = taps_between(sub - group_begin, until - group_begin);
                    number_rows(
                        &mut numbers,
                        halo,
                        &set,
                        &taps_of,
                        &start,
                        rows,
                        before + own,
                        first_halo,
                        at_halo,
                        shared,
                        taps,
                        listed,
                    );
                    sync_cube();
                    write_table(
                        table,
                        &neighbours,
                        &numbers,
                        here,
                        from,
                        cube,
                        sub,
                        until,
                        group_begin,
                        shape,
                    );
                    n_phases += 1u32;
                    sub = until;
                    sync_cube();
                }
            }
            if !holds_all {
                back_to_rows(&mut neighbours, &set, here, from, tile);
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
        write_chunks(chunks, &chunk_masks, small * n_taps + group_begin, group_end - group_begin);
    }
    if unit == 0u32 {
        spans[(small * span_words) as usize] = n_phases;
        counters[(first_counter + 2u32) as usize].fetch_add(flags[1].load());
    }
}

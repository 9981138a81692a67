//! The kernel that builds tiles.

use cubecl::prelude::*;

use super::launch::{Geometry, Placement};
use super::{CHUNK_ROWS, HALO_ROWS, TILE_ROWS};
use crate::index::{EMPTY, find_block, lookup_row};

/// Output row of a tile's place that has none.
pub(crate) const NO_ROW: u32 = u32::MAX;
/// Local number of a missing input row.
pub(crate) const NO_LOCAL: u32 = HALO_ROWS as u32;
/// Places of the set that a tile's distinct input rows are gathered in.
const SET: usize = 2048;
/// Places looked at before a set counts as full.
const MAX_STEPS: u32 = 1024;
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
    /// Whether `order` lists the target rows in the order that tiles take them.
    pub(crate) ordered: bool,
    /// Whether source and target are one support in the order of tiles: the rows of a tile are then its first input rows, numbered
    /// as they stand, so that the eight rows that a chunk reads under a tap mostly lie in different banks.
    pub(crate) same: bool,
}

impl BuildShape {
    /// Words of the spans of a tile: most phases are of two taps.
    pub(crate) fn span_words(&self) -> u32 {
        let taps = self.geometry.taps();
        let phases = taps.div_ceil(self.group_taps) * (self.group_taps.min(taps.next_multiple_of(2)) / 2);
        (phases + 1) * SPAN_WORDS
    }
}

/// Where the search for a row begins in the set.
#[cube]
fn place_of(id: u32) -> u32 {
    (id * 0x9E37_79B1u32) >> 21u32
}

/// Input row that meets the target coordinate `c` under `tap`, or `EMPTY`. `cache` holds the block looked at last and its slot.
#[cube]
fn input_row(
    c: Vector<i32, Const<4>>,
    tap: u32,
    source: &[Vector<i32, Const<4>>],
    slots: &[u32],
    occupancy: &[u32],
    first: &[u32],
    rows: &[u32],
    mask: u32,
    cache: &mut Array<i32>,
    #[comptime] geometry: Geometry,
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
        if cache[0] != bx || cache[1] != by || cache[2] != bz || cache[4] == 0i32 {
            cache[0] = bx;
            cache[1] = by;
            cache[2] = bz;
            cache[3] = i32::cast_from(find_block(source, slots, mask, c.extract(0usize), bx, by, bz));
            cache[4] = 1i32;
        }
        found = lookup_row(occupancy, first, rows, u32::cast_from(cache[3]), x, y, z);
    }
    found
}

/// Builds one tile a cube of 256 units.
///
/// `tile_rows[tile, place]`: output row or `NO_ROW`. `table[tile, tap / 2, place]`: local numbers of two taps, 16 bits each.
/// `chunks[tile, tap]`: bit `c` where a row of chunk `c` has the tap. `halo`: input rows. `spans[tile]`: how many phases, and from
/// the fourth word on four words a phase. `counters`: halo rows used, phases, pairs.
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
    n_out: u32,
    n_tiles: u32,
    mask: u32,
    halo_capacity: u32,
    #[comptime] shape: BuildShape,
) {
    let tile = CUBE_POS as u32;
    if tile >= n_tiles {
        terminate!();
    }
    let geometry = comptime!(shape.geometry);
    let n_taps = comptime!(geometry.taps());
    let group_taps = comptime!(shape.group_taps);
    let n_groups = comptime!(n_taps.div_ceil(group_taps));
    let one_group = comptime!(n_groups == 1);
    let span_words = comptime!(shape.span_words());
    let same = comptime!(shape.same);
    let units = comptime!(TILE_ROWS as u32);
    let unit = UNIT_POS;

    let mut neighbours = Shared::<[u32]>::new_slice(comptime!(group_taps.min(n_taps) as usize * TILE_ROWS));
    let set = Shared::<[Atomic<u32>]>::new_slice(SET);
    let mut numbers = Shared::<[u32]>::new_slice(SET);
    let mut keys = Shared::<[u32]>::new_slice(TILE_ROWS);
    let mut sums = Shared::<[u32]>::new_slice(TILE_ROWS);
    let mut places = Shared::<[u32]>::new_slice(TILE_ROWS);
    let counts = Shared::<[Atomic<u32>]>::new_slice(comptime!(MAX_GROUP_TAPS as usize));
    let words = Shared::<[Atomic<u32>]>::new_slice(comptime!(MAX_GROUP_TAPS as usize));
    let mut bits = Shared::<[u32]>::new_slice(comptime!(MAX_GROUP_TAPS as usize));
    let flags = Shared::<[Atomic<u32>]>::new_slice(2usize);
    let mut start = Shared::<[u32]>::new_slice(2usize);

    // The row of this unit, in the order that tiles take rows.
    let position = tile * units + unit;
    let mut row = NO_ROW.runtime();
    if position < n_out {
        if comptime!(shape.ordered) {
            row = order[position as usize];
        } else {
            row = position;
        }
    }
    let has_row = row != NO_ROW;
    // Input rows that need no search: where source and target are one, those of the tile itself.
    let mut own = 0u32;
    if same {
        own = min(n_out - tile * units, units);
    }
    let c = targets[select(has_row, row, 0u32) as usize];
    let mut cache = Array::<i32>::new(5usize);
    cache[4] = 0i32;

    // Which taps the row has. With at most 32 taps they are the sort key.
    let mut key = 0u32;
    if unit < MAX_GROUP_TAPS {
        counts[unit as usize].store(0u32);
    }
    sync_cube();
    if comptime!(n_taps <= MAX_GROUP_TAPS) {
        let mut taps_of_row = 0u32;
        for tap in 0u32..n_taps {
            let mut found = EMPTY.runtime();
            if has_row {
                found = input_row(c, tap, source, slots, occupancy, first, rows, mask, &mut cache, geometry);
            }
            if one_group {
                neighbours[(tap * units + unit) as usize] = found;
            }
            if found != EMPTY {
                taps_of_row |= 1u32 << tap;
                counts[tap as usize].fetch_add(1u32);
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
        for tap in 0u32..n_taps {
            key |= ((taps_of_row >> tap) & 1u32) << bits[tap as usize];
        }
        // Rank of the set among Gray codes: neighbours in this order differ in few taps.
        key ^= key >> 1u32;
        key ^= key >> 2u32;
        key ^= key >> 4u32;
        key ^= key >> 8u32;
        key ^= key >> 16u32;
    }
    // Rows that are none come last.
    key = select(has_row, key, u32::MAX);
    keys[unit as usize] = key;
    sync_cube();
    let mut place = 0u32;
    for other in 0u32..units {
        let theirs = keys[other as usize];
        if theirs < key || (theirs == key && other < unit) {
            place += 1u32;
        }
    }
    places[place as usize] = unit;
    tile_rows[(tile * units + place) as usize] = row;
    sync_cube();
    // From here on a unit works for the row that took its place.
    let from = places[unit as usize];

    let mut n_phases = 0u32;
    for group in 0u32..n_groups {
        let group_begin = group * group_taps;
        let group_end = min(group_begin + group_taps, n_taps);
        if comptime!(!one_group) {
            for tap in group_begin..group_end {
                let mut found = EMPTY.runtime();
                if has_row {
                    found =
                        input_row(c, tap, source, slots, occupancy, first, rows, mask, &mut cache, geometry);
                }
                neighbours[((tap - group_begin) * units + unit) as usize] = found;
            }
        }
        // All taps of the group at once; where their halo is too long, half of them, and so on. Two always fit.
        let mut span_taps = group_taps.runtime();
        let mut begin = group_begin;
        while begin < group_end {
            let end = min(begin + span_taps, group_end);
            for at in 0u32..comptime!(SET as u32 / TILE_ROWS as u32) {
                set[(at * units + unit) as usize].store(EMPTY);
            }
            if unit < MAX_GROUP_TAPS {
                words[unit as usize].store(0u32);
            }
            if unit < 2u32 {
                flags[unit as usize].store(0u32);
            }
            sync_cube();
            // Gather the distinct input rows.
            let mut pairs = 0u32;
            for tap in begin..end {
                let id = neighbours[((tap - group_begin) * units + from) as usize];
                if id != EMPTY {
                    pairs += 1u32;
                    words[(tap - begin) as usize].fetch_or(1u32 << (unit / CHUNK_ROWS as u32));
                }
                let elsewhere = id != EMPTY && !(own > 0u32 && id / units == tile);
                if elsewhere {
                    let mut at = place_of(id);
                    let mut steps = 0u32;
                    let mut searching = true;
                    while searching {
                        set[at as usize].compare_exchange_weak(EMPTY, id);
                        let held = set[at as usize].load();
                        if held == id {
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
            flags[1].fetch_add(pairs);
            sync_cube();
            // Number them: a sum over units, then within a unit's places.
            let per_unit = comptime!(SET as u32 / TILE_ROWS as u32);
            let mut mine = 0u32;
            for at in 0u32..per_unit {
                if set[(unit * per_unit + at) as usize].load() != EMPTY {
                    mine += 1u32;
                }
            }
            sums[unit as usize] = mine;
            sync_cube();
            let mut step = 1u32;
            while step < units {
                let mut before = 0u32;
                if unit >= step {
                    before = sums[(unit - step) as usize];
                }
                sync_cube();
                sums[unit as usize] += before;
                sync_cube();
                step *= 2u32;
            }
            let total = sums[comptime!(TILE_ROWS - 1)] + own;
            let too_long = total > comptime!(HALO_ROWS as u32) || flags[0].load() != 0u32;
            if !too_long {
                if unit == 0u32 {
                    let at = counters[0].fetch_add(total);
                    let fits = at + total <= halo_capacity;
                    start[0] = at;
                    start[1] = select(fits, total, 0u32);
                    counters[1].fetch_add(1u32);
                    counters[2].fetch_add(flags[1].load());
                    let span = tile * span_words + (n_phases + 1u32) * SPAN_WORDS;
                    spans[span as usize] = at;
                    spans[(span + 1u32) as usize] = select(fits, total, 0u32);
                    spans[(span + 2u32) as usize] = begin;
                    spans[(span + 3u32) as usize] = end;
                }
                sync_cube();
                let at_halo = start[0];
                let mut number = sums[unit as usize] - mine + own;
                if unit < own && unit < start[1] {
                    halo[(at_halo + unit) as usize] = tile * units + unit;
                }
                for at in 0u32..per_unit {
                    let id = set[(unit * per_unit + at) as usize].load();
                    if id != EMPTY {
                        numbers[(unit * per_unit + at) as usize] = number;
                        if number < start[1] {
                            halo[(at_halo + number) as usize] = id;
                        }
                        number += 1u32;
                    }
                }
                sync_cube();
                // Local numbers of two taps a word.
                let n_words = comptime!(n_taps.div_ceil(2));
                for word in begin / 2u32..end / 2u32 + end % 2u32 {
                    let mut packed = 0u32;
                    #[unroll]
                    for half in 0u32..2u32 {
                        let tap = 2u32 * word + half;
                        let mut local = NO_LOCAL.runtime();
                        if tap < end {
                            let id = neighbours[((tap - group_begin) * units + from) as usize];
                            if id != EMPTY && own > 0u32 && id / units == tile {
                                local = id % units;
                            } else if id != EMPTY {
                                let mut at = place_of(id);
                                let mut searching = true;
                                while searching {
                                    if set[at as usize].load() == id {
                                        local = numbers[at as usize];
                                        searching = false;
                                    } else {
                                        at = (at + 1u32) & comptime!(SET as u32 - 1);
                                    }
                                }
                            }
                        }
                        packed |= local << (16u32 * half);
                    }
                    table[((tile * n_words + word) * units + unit) as usize] = packed;
                }
                if unit < end - begin {
                    chunks[(tile * n_taps + begin + unit) as usize] = words[unit as usize].load();
                }
                n_phases += 1u32;
                begin = end;
            } else {
                if span_taps == 2u32 {
                    // Two taps fit without the rows of the tile itself.
                    own = 0u32;
                }
                span_taps = max(span_taps / 2u32, 2u32);
            }
            sync_cube();
        }
    }
    if unit == 0u32 {
        spans[(tile * span_words) as usize] = n_phases;
    }
}

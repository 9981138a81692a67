//! The kernel that builds tiles.

use cubecl::prelude::*;

use super::launch::{Geometry, Placement};
use super::{CHUNK_ROWS, HALO_ROWS, TILE_ROWS};
use crate::index::{EMPTY, find_block, hash_block, lookup_row, row_of_cell};
use crate::sort::cube_exclusive_sum;

/// Output row of a tile's place that has none.
pub(crate) const NO_ROW: u32 = u32::MAX;
/// Local number of a missing input row.
pub(crate) const NO_LOCAL: u32 = HALO_ROWS as u32;
/// Places of the set that a tile's distinct input rows are gathered in.
const SET: usize = 2048;
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
    /// Whether `order` lists the target rows in the order that tiles take them.
    pub(crate) ordered: bool,
    /// Whether source and target are one support in the order of tiles: the rows of a tile are then its first input rows, numbered
    /// as they stand, so that the eight rows that a chunk reads under a tap mostly lie in different banks.
    pub(crate) same: bool,
    /// Units of a plane, 8 to 32; 0 where planes are of no use.
    pub(crate) lanes: u32,
}

impl BuildShape {
    /// Whether the window of a target row touches at most two blocks along each axis.
    fn is_near(&self) -> bool {
        let extent = |a: usize| (self.geometry.size[a] as i32 - 1) * self.geometry.dilation[a];
        matches!(self.geometry.placement, Placement::Multiply) && (0..3).all(|a| extent(a) <= 4)
    }

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

/// Blocks that the window of a target row touches: the two along each axis, x as the low bit.
#[derive(CubeType)]
struct NearBlocks {
    /// Input coordinate under the first tap.
    start: Array<i32>,
    /// Occupied cells, 0 where there is no block.
    low: Array<u32>,
    high: Array<u32>,
    /// First position of its rows.
    first: Array<u32>,
}

/// Looks the blocks of a window up, all at once: what one of them waits for, the others wait for too.
#[cube]
fn near_blocks(
    c: Vector<i32, Const<4>>,
    source: &[Vector<i32, Const<4>>],
    slots: &[u32],
    occupancy: &[u32],
    first: &[u32],
    mask: u32,
    #[comptime] geometry: Geometry,
) -> NearBlocks {
    let mut start = Array::<i32>::new(3usize);
    let mut near = Array::<i32>::new(3usize);
    let mut far = Array::<i32>::new(3usize);
    #[unroll]
    for axis in 0usize..3usize {
        let at = c.extract(comptime!(axis + 1)) * comptime!(geometry.stride[axis])
            + comptime!(geometry.first[axis] - geometry.padding[axis]);
        start[axis] = at;
        near[axis] = at >> 2i32;
        far[axis] = (at + comptime!((geometry.size[axis] as i32 - 1) * geometry.dilation[axis])) >> 2i32;
    }
    let batch = c.extract(0usize);
    let mut found = Array::<u32>::new(8usize);
    let mut leaders = Array::<u32>::new(8usize);
    #[unroll]
    for b in 0usize..8usize {
        let (bx, by, bz) = block_of(&near, &far, b);
        found[b] = hash_block(batch, bx, by, bz) & mask;
    }
    #[unroll]
    for b in 0usize..8usize {
        leaders[b] = slots[found[b] as usize];
    }
    #[unroll]
    for b in 0usize..8usize {
        let leader = leaders[b];
        let k = source[select(leader != EMPTY, leader, 0u32) as usize];
        let (bx, by, bz) = block_of(&near, &far, b);
        let is_it = k.extract(0usize) == batch
            && k.extract(1usize) >> 2i32 == bx
            && k.extract(2usize) >> 2i32 == by
            && k.extract(3usize) >> 2i32 == bz;
        // Where another block has taken its slot, it stands further on.
        if leader == EMPTY {
            found[b] = EMPTY;
        } else if !is_it {
            found[b] = find_block(source, slots, mask, batch, bx, by, bz);
        }
    }
    let mut low = Array::<u32>::new(8usize);
    let mut high = Array::<u32>::new(8usize);
    let mut begin = Array::<u32>::new(8usize);
    #[unroll]
    for b in 0usize..8usize {
        let is_there = found[b] != EMPTY;
        let slot = select(is_there, found[b], 0u32);
        low[b] = select(is_there, occupancy[(2u32 * slot) as usize], 0u32);
        high[b] = select(is_there, occupancy[(2u32 * slot + 1u32) as usize], 0u32);
        begin[b] = first[slot as usize];
    }
    NearBlocks { start, low, high, first: begin }
}

/// Coordinates of block `b` of a window.
#[cube]
fn block_of(near: &Array<i32>, far: &Array<i32>, #[comptime] b: usize) -> (i32, i32, i32) {
    let mut at = Array::<i32>::new(3usize);
    #[unroll]
    for axis in 0usize..3usize {
        if comptime!((b >> axis) & 1 == 1) {
            at[axis] = far[axis];
        } else {
            at[axis] = near[axis];
        }
    }
    (at[0], at[1], at[2])
}

/// Input row under a tap of a window, or `EMPTY`.
#[cube]
fn near_row(blocks: &NearBlocks, rows: &[u32], tap: u32, #[comptime] geometry: Geometry) -> u32 {
    let ky = comptime!(geometry.size[1]);
    let kz = comptime!(geometry.size[2]);
    let x = blocks.start[0] + i32::cast_from(tap / comptime!(ky * kz)) * comptime!(geometry.dilation[0]);
    let y = blocks.start[1] + i32::cast_from((tap / kz) % ky) * comptime!(geometry.dilation[1]);
    let z = blocks.start[2] + i32::cast_from(tap % kz) * comptime!(geometry.dilation[2]);
    let b = select(x >> 2i32 != blocks.start[0] >> 2i32, 1u32, 0u32)
        | select(y >> 2i32 != blocks.start[1] >> 2i32, 2u32, 0u32)
        | select(z >> 2i32 != blocks.start[2] >> 2i32, 4u32, 0u32);
    let b = b as usize;
    row_of_cell(rows, blocks.low[b], blocks.high[b], blocks.first[b], x, y, z)
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
    first_counter: u32,
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
    let is_near = comptime!(shape.is_near());
    let units = comptime!(TILE_ROWS as u32);
    let unit = UNIT_POS;
    // Places within a plane and within a chunk.
    let lane = unit % comptime!(shape.lanes.max(1));
    let of_chunk = unit % comptime!(CHUNK_ROWS as u32);

    let mut neighbours = Shared::<[u32]>::new_slice(comptime!(group_taps.min(n_taps) as usize * TILE_ROWS));
    let set = Shared::<[Atomic<u32>]>::new_slice(SET);
    let mut numbers = Shared::<[u32]>::new_slice(SET);
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
    let mut taps_of_row = 0u32;
    if unit < MAX_GROUP_TAPS {
        counts[unit as usize].store(0u32);
    }
    sync_cube();
    if comptime!(n_taps <= MAX_GROUP_TAPS) {
        if is_near {
            let blocks = near_blocks(c, source, slots, occupancy, first, mask, geometry);
            #[unroll]
            for tap in 0u32..n_taps {
                let mut found = near_row(&blocks, rows, tap, geometry);
                found = select(has_row, found, EMPTY.runtime());
                if one_group {
                    neighbours[(tap * units + unit) as usize] = found;
                }
                taps_of_row |= select(found != EMPTY, 1u32 << tap, 0u32);
            }
        } else {
            for tap in 0u32..n_taps {
                let mut found = EMPTY.runtime();
                if has_row {
                    found =
                        input_row(c, tap, source, slots, occupancy, first, rows, mask, &mut cache, geometry);
                }
                if one_group {
                    neighbours[(tap * units + unit) as usize] = found;
                }
                taps_of_row |= select(found != EMPTY, 1u32 << tap, 0u32);
            }
        }
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
    // Rows that are none come last; one less leaves room to compare with the next key.
    key = select(has_row, min(key, comptime!(u32::MAX - 2)), comptime!(u32::MAX - 1));
    keys[unit as usize] = key;
    sync_cube();
    // Rows of smaller keys, and of equal ones before this unit.
    let mut place = 0u32;
    let own_eight = unit / 8u32;
    for eight in 0u32..own_eight {
        #[unroll]
        for i in 0u32..8u32 {
            place += select(keys[(8u32 * eight + i) as usize] <= key, 1u32, 0u32);
        }
    }
    #[unroll]
    for i in 0u32..8u32 {
        let other = 8u32 * own_eight + i;
        place += select(keys[other as usize] < key + select(other < unit, 1u32, 0u32), 1u32, 0u32);
    }
    for eight in own_eight + 1u32..comptime!(TILE_ROWS as u32 / 8) {
        #[unroll]
        for i in 0u32..8u32 {
            place += select(keys[(8u32 * eight + i) as usize] < key, 1u32, 0u32);
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
            // Not before everybody has read those of the group before.
            sync_cube();
            taps_of_row = 0u32;
        }
        if comptime!(!one_group && is_near) {
            let blocks = near_blocks(c, source, slots, occupancy, first, mask, geometry);
            for tap in group_begin..group_end {
                let found = near_row(&blocks, rows, tap, geometry);
                let found = select(has_row, found, EMPTY.runtime());
                neighbours[((tap - group_begin) * units + unit) as usize] = found;
                taps_of_row |= select(found != EMPTY, 1u32 << (tap - group_begin), 0u32);
            }
        } else if comptime!(!one_group) {
            for tap in group_begin..group_end {
                let mut found = EMPTY.runtime();
                if has_row {
                    found =
                        input_row(c, tap, source, slots, occupancy, first, rows, mask, &mut cache, geometry);
                }
                neighbours[((tap - group_begin) * units + unit) as usize] = found;
                taps_of_row |= select(found != EMPTY, 1u32 << (tap - group_begin), 0u32);
            }
        }
        // Taps of the group that the row at this place has.
        masks[unit as usize] = taps_of_row;
        sync_cube();
        let of_place = masks[from as usize];
        // All taps of the group at once; where their halo is too long, fewer of them, and so on. Two always fit.
        let mut span_taps = group_taps.runtime();
        let mut begin = group_begin;
        while begin < group_end {
            let end = min(begin + span_taps, group_end);
            for at in 0u32..comptime!(SET as u32 / TILE_ROWS as u32) {
                set[(at * units + unit) as usize].store(EMPTY);
            }
            if unit < comptime!((TILE_ROWS / CHUNK_ROWS) as u32) {
                chunk_masks[unit as usize].store(0u32);
            }
            if unit < 2u32 {
                flags[unit as usize].store(0u32);
            }
            sync_cube();
            // Gather the distinct input rows; a pair then knows the place of its row in the set, or its number.
            let first_tap = begin - group_begin;
            let here = of_place & ((u32::MAX >> (32u32 - (end - begin))) << first_tap);
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
            let pairs = u32::cast_from(here.count_ones());
            if comptime!(shape.lanes > 0) {
                // Units leave the search one by one; plane operations ask those that have arrived.
                sync_cube();
                let sum = plane_sum(pairs);
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
                flags[1].fetch_add(pairs);
                chunk_masks[(unit / comptime!(CHUNK_ROWS as u32)) as usize].fetch_or(here);
            }
            sync_cube();
            // Number them: a sum over units, then within a unit's places.
            let per_unit = comptime!(SET as u32 / TILE_ROWS as u32);
            let mut mine = 0u32;
            for at in 0u32..per_unit {
                if set[(unit * per_unit + at) as usize].load() != EMPTY {
                    mine += 1u32;
                }
            }
            let (before_mine, in_set) = cube_exclusive_sum(mine, &mut sums, comptime!(shape.lanes));
            let total = in_set + own;
            let too_long = total > comptime!(HALO_ROWS as u32) || flags[0].load() != 0u32;
            if !too_long {
                if unit == 0u32 {
                    let at = counters[first_counter as usize].fetch_add(total);
                    let fits = at + total <= halo_capacity;
                    start[0] = at;
                    start[1] = select(fits, total, 0u32);
                    counters[(first_counter + 1u32) as usize].fetch_add(1u32);
                    counters[(first_counter + 2u32) as usize].fetch_add(flags[1].load());
                    let span = tile * span_words + (n_phases + 1u32) * SPAN_WORDS;
                    spans[span as usize] = at;
                    spans[(span + 1u32) as usize] = select(fits, total, 0u32);
                    spans[(span + 2u32) as usize] = begin;
                    spans[(span + 3u32) as usize] = end;
                }
                sync_cube();
                let at_halo = start[0];
                let mut number = before_mine + own;
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
                        // A tap past the last of the phase has no bit.
                        if tap < end && (here >> (tap - group_begin)) & 1u32 == 1u32 {
                            let known = neighbours[((tap - group_begin) * units + from) as usize];
                            if known >= NUMBERED {
                                local = known & comptime!(NUMBERED - 1);
                            } else {
                                local = numbers[(known & comptime!(PLACED - 1)) as usize];
                            }
                        }
                        packed |= local << (16u32 * half);
                    }
                    table[((tile * n_words + word) * units + unit) as usize] = packed;
                }
                if unit < end - begin {
                    let mut word = 0u32;
                    for chunk in 0u32..comptime!((TILE_ROWS / CHUNK_ROWS) as u32) {
                        word |= ((chunk_masks[chunk as usize].load() >> (first_tap + unit)) & 1u32) << chunk;
                    }
                    chunks[(tile * n_taps + begin + unit) as usize] = word;
                }
                n_phases += 1u32;
                begin = end;
            } else {
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
                if span_taps == 2u32 {
                    // Two taps fit without the rows of the tile itself.
                    own = 0u32;
                }
                // As few taps as their halo should be short enough with; half of them where it was too long to be counted. Two taps share
                // a word, so that a phase begins with an even one.
                let halves = select(flags[0].load() != 0u32, 2u32, 1u32);
                let parts = max(total.div_ceil(comptime!(HALO_ROWS as u32 * 4 / 5)), 1u32 + halves);
                let fewer = (end - begin).div_ceil(parts).div_ceil(2u32) * 2u32;
                span_taps = max(min(fewer, span_taps / 2u32 * 2u32 - 2u32), 2u32);
            }
            sync_cube();
        }
    }
    if unit == 0u32 {
        spans[(tile * span_words) as usize] = n_phases;
    }
}

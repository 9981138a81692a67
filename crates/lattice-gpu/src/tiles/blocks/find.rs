//! The blocks that the windows of a tile touch: each is put into a set once, listed and looked up.

use cubecl::prelude::*;

use super::{FIRST, FOUND, LIST, NO_BLOCK, OCCUPIED, PLACES, TAKEN, TOUCHED, begin_of};
use crate::index::{EMPTY, cell_bit, hash_block, is_in_block};
use crate::tiles::TILE_ROWS;
use crate::tiles::geometry::Geometry;
use crate::tiles::job::Job;
use crate::tiles::set::place_of;
use crate::tiles::window::first_of_block;

/// Places looked at before a set counts as full.
const MAX_STEPS: u32 = 64;
/// Slots that are looked at together.
const AT_ONCE: usize = 4;
/// Blocks are told apart by their distance from that of the tile's first row: so many bits an axis, and above them those of the batch item.
const AXIS_BITS: u32 = 10;
/// Most batch items of a tile, all bits of a key being those of no block.
const BATCHES: u32 = (1 << (32 - 3 * AXIS_BITS)) - 1;

/// Puts the blocks that a window touches into the set; their places. `flags[0]` becomes 1 where some have no key, or no place.
#[cube]
pub(super) fn touch(
    c: Vector<i32, Const<4>>,
    origin: Vector<i32, Const<4>>,
    set: &Shared<[Atomic<u32>]>,
    flags: &Shared<[Atomic<u32>]>,
    #[comptime] geometry: Geometry,
) -> Array<u32> {
    let batch = c.extract(0usize) - origin.extract(0usize);
    let mut has_key = batch >= 0i32 && batch < comptime!(BATCHES as i32);
    // The parts of keys that are those of the first and of the second block along each axis.
    let mut parts = Array::<u32>::new(6usize);
    #[unroll]
    for axis in 0usize..3usize {
        let begin = begin_of(c, axis, geometry);
        let middle = (origin.extract(comptime!(axis + 1)) >> 2i32) - comptime!(1i32 << (AXIS_BITS - 1));
        let near = (begin >> 2i32) - middle;
        let far = ((begin + comptime!(geometry.extent(axis))) >> 2i32) - middle;
        has_key = has_key && near >= 0i32 && far < comptime!(1i32 << AXIS_BITS);
        parts[comptime!(2 * axis)] = u32::cast_from(near) << comptime!(AXIS_BITS * axis as u32);
        parts[comptime!(2 * axis + 1)] = u32::cast_from(far) << comptime!(AXIS_BITS * axis as u32);
    }
    if !has_key {
        flags[0].fetch_or(1u32);
    }
    let high = u32::cast_from(batch) << comptime!(3 * AXIS_BITS);
    let mut keys = Array::<u32>::new(TOUCHED);
    let mut places = Array::<u32>::new(TOUCHED);
    #[unroll]
    for b in 0usize..TOUCHED {
        keys[b] = high
            | parts[comptime!(b & 1)]
            | parts[comptime!(2 + (b >> 1 & 1))]
            | parts[comptime!(4 + (b >> 2))];
        places[b] = place_of(keys[b], PLACES);
    }
    // All go on from place to place together, as what one of them waits for, the others wait for too.
    let mut steps = 0u32;
    let mut searching = true;
    while searching {
        searching = false;
        let mut held = Array::<u32>::new(TOUCHED);
        #[unroll]
        for b in 0usize..TOUCHED {
            held[b] = set[places[b] as usize].load();
        }
        #[unroll]
        for b in 0usize..TOUCHED {
            if held[b] == EMPTY {
                // Read again rather than trust the answer: a weak exchange may fail without a reason.
                set[places[b] as usize].compare_exchange_weak(EMPTY, keys[b]);
            }
        }
        #[unroll]
        for b in 0usize..TOUCHED {
            held[b] = set[places[b] as usize].load();
        }
        #[unroll]
        for b in 0usize..TOUCHED {
            if held[b] != keys[b] {
                searching = true;
                let next = (places[b] + 1u32) & comptime!(PLACES as u32 - 1);
                places[b] = select(held[b] == EMPTY, places[b], next);
            }
        }
        steps += 1u32;
        if searching && steps > MAX_STEPS {
            flags[0].fetch_or(1u32);
            searching = false;
        }
    }
    places
}

/// Lists the places of the set that are taken, so that units have a block each.
#[cube]
pub(super) fn list_taken(
    set: &Shared<[Atomic<u32>]>,
    words: &mut Shared<[u32]>,
    flags: &Shared<[Atomic<u32>]>,
) {
    #[unroll]
    for at in 0u32..comptime!((PLACES / TILE_ROWS) as u32) {
        let place = at * comptime!(TILE_ROWS as u32) + UNIT_POS;
        if set[place as usize].load() != EMPTY {
            let item = flags[TAKEN].fetch_add(1u32);
            words[(LIST + item) as usize] = place;
        }
    }
}

/// Looks the listed blocks up and numbers those that exist. `flags[0]` becomes 1 where these are too many.
#[cube]
pub(super) fn look_up(
    origin: Vector<i32, Const<4>>,
    source: &[Vector<i32, Const<4>>],
    slots: &[u32],
    occupancy: &[u32],
    first: &[u32],
    set: &Shared<[Atomic<u32>]>,
    numbers: &mut Shared<[u32]>,
    words: &mut Shared<[u32]>,
    flags: &Shared<[Atomic<u32>]>,
    job: &Job,
    #[comptime] listed: bool,
) {
    let first_source = job.first_source;
    let first_slot = job.first_slot;
    let mask = job.mask;
    let axis = comptime!((1u32 << AXIS_BITS) - 1);
    let middle = comptime!(1i32 << (AXIS_BITS - 1));
    for item in range_stepped(UNIT_POS, flags[TAKEN].load(), comptime!(TILE_ROWS as u32)) {
        let place = words[(LIST + item) as usize];
        let key = set[place as usize].load();
        let bx = i32::cast_from(key & axis) - middle + (origin.extract(1usize) >> 2i32);
        let by = i32::cast_from((key >> AXIS_BITS) & axis) - middle + (origin.extract(2usize) >> 2i32);
        let bz = i32::cast_from((key >> comptime!(2 * AXIS_BITS)) & axis) - middle
            + (origin.extract(3usize) >> 2i32);
        let batch = i32::cast_from(key >> comptime!(3 * AXIS_BITS)) + origin.extract(0usize);
        let mut within = hash_block(batch, bx, by, bz) & mask;
        let mut number = NO_BLOCK.runtime();
        let mut searching = true;
        while searching {
            // The search mostly ends at the first slot; of a hundred blocks some go on, and all wait for them.
            let mut leaders = Array::<u32>::new(AT_ONCE);
            let mut lows = Array::<u32>::new(AT_ONCE);
            let mut highs = Array::<u32>::new(AT_ONCE);
            #[unroll]
            for i in 0usize..AT_ONCE {
                let slot = first_slot + ((within + i as u32) & mask);
                leaders[i] = slots[slot as usize];
                lows[i] = occupancy[(2u32 * slot) as usize];
                highs[i] = occupancy[(2u32 * slot + 1u32) as usize];
            }
            let mut found = comptime!(AT_ONCE as u32).runtime();
            let mut leader = EMPTY.runtime();
            let mut low = 0u32;
            let mut high = 0u32;
            let mut bit = 0u32;
            #[unroll]
            for back in 0usize..AT_ONCE {
                let i = comptime!(AT_ONCE - 1 - back);
                let is_taken = leaders[i] != EMPTY;
                let k = source[select(is_taken, leaders[i], first_source) as usize];
                if !is_taken || is_in_block(k, batch, bx, by, bz) {
                    found = comptime!(i as u32).runtime();
                    leader = leaders[i];
                    low = lows[i];
                    high = highs[i];
                    bit = cell_bit(k.extract(1usize), k.extract(2usize), k.extract(3usize));
                }
            }
            searching = found == comptime!(AT_ONCE as u32);
            if searching {
                within = (within + AT_ONCE as u32) & mask;
            } else if leader != EMPTY {
                number = flags[FOUND].fetch_add(1u32);
                if number < NO_BLOCK {
                    let slot = first_slot + ((within + found) & mask);
                    words[(OCCUPIED + 2u32 * number) as usize] = low;
                    words[(OCCUPIED + 2u32 * number + 1u32) as usize] = high;
                    words[(FIRST + number) as usize] =
                        first_of_block(slot, leader, bit, low, high, first, first_source, listed);
                } else {
                    flags[0].fetch_or(1u32);
                }
            }
        }
        numbers[place as usize] = number;
    }
}

//! The places that rows of a tile take: in the order of their keys, equal ones in the order of their units.

use cubecl::prelude::*;

use super::TILE_ROWS;

/// Units of the planes that [`place_in_planes`] sorts in.
pub(super) const PLANE: u32 = 32;
/// Bits of the keys that it takes: the others of a word hold a lane.
pub(super) const PLANE_KEY_BITS: u32 = 27;

/// Place of this unit's key: keys that are smaller, and equal ones of units before this one. One unit a row; `keys` has a word for each.
#[cube]
pub(super) fn place_by_counting(key: u32, keys: &mut Shared<[u32]>) -> u32 {
    let unit = UNIT_POS;
    // Leaves room to compare with the next key.
    let key = min(key, comptime!(u32::MAX - 1));
    keys[unit as usize] = key;
    sync_cube();
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
    place
}

/// A place and the unit whose key takes it: every unit answers for one key, which another unit of its plane may have given. Planes of
/// [`PLANE`] units sort their keys of [`PLANE_KEY_BITS`] and look each up among those of the other planes: a third of the work that
/// counting takes.
#[cube]
pub(super) fn place_in_planes(key: u32, keys: &mut Shared<[u32]>) -> (u32, u32) {
    let lane = UNIT_POS % PLANE;
    let plane = UNIT_POS / PLANE;
    // Brings the units of a plane together, which made their keys in loops of their own: on some compilers a plane operation asks only those
    // that have arrived.
    sync_cube();
    // Bitonic: of two lanes that differ in one bit, one keeps the smaller key.
    let mut sorted = (key << 5u32) | lane;
    #[unroll]
    for stage in 1u32..6u32 {
        #[unroll]
        for step in 0u32..stage {
            let bit = comptime!(1u32 << (stage - 1 - step));
            let other = plane_shuffle_xor(sorted, bit);
            let ascends = (lane >> stage) & 1u32 == (lane >> comptime!(stage - 1 - step)) & 1u32;
            sorted = select(ascends, min(sorted, other), max(sorted, other));
        }
    }
    let key = sorted >> 5u32;
    keys[UNIT_POS as usize] = key;
    sync_cube();
    let mut place = 0u32;
    #[unroll]
    for other in 0u32..comptime!(TILE_ROWS as u32 / PLANE) {
        // Equal keys of planes before come first.
        let bound = key + select(other < plane, 1u32, 0u32);
        let first = other * PLANE;
        let mut below = 0u32;
        #[unroll]
        for half in 0u32..5u32 {
            let step = comptime!(16u32 >> half);
            below += select(keys[(first + below + (step - 1u32)) as usize] < bound, step, 0u32);
        }
        below += select(keys[(first + below) as usize] < bound, 1u32, 0u32);
        place += select(other == plane, lane, below);
    }
    (place, plane * PLANE + sorted % PLANE)
}

//! Keys that rows of a tile are sorted by: rows that have the same taps stand together.

use cubecl::prelude::*;

use super::kernel::{BuildShape, MAX_GROUP_TAPS};

/// Sets that there are of four taps.
const SETS_OF_FOUR: u32 = 16;
/// Words that keys are made with.
pub(super) const KEY_WORDS: usize = (MAX_GROUP_TAPS + SETS_OF_FOUR * MAX_GROUP_TAPS / 4) as usize;

/// The lowest tap of a set, which is taken out of it.
#[cube]
pub(super) fn take_tap(taps: &mut u32) -> u32 {
    let tap = u32::cast_from(taps.trailing_zeros());
    *taps &= *taps - 1u32;
    tap
}

/// A row's rank among the sets of taps: the rarest tap of the tile is the highest bit of a set, and neighbours in this order differ in few taps. `counts` are
/// zero before; `bits` are [`KEY_WORDS`] words. For kernels of at most 32 taps.
#[cube]
pub(super) fn rank_of_taps(
    taps_of_row: u32,
    counts: &Shared<[Atomic<u32>]>,
    bits: &mut Shared<[u32]>,
    lane: u32,
    #[comptime] shape: BuildShape,
) -> u32 {
    let n_taps = comptime!(shape.geometry.taps());
    let unit = UNIT_POS;
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
    // What each set of four taps that follow each other has in a key.
    let of_four = unit % SETS_OF_FOUR;
    let first = 4u32 * (unit / SETS_OF_FOUR);
    if first < n_taps {
        let mut key = 0u32;
        #[unroll]
        for i in 0u32..4u32 {
            // A tap past the last is in no set.
            let tap = min(first + i, comptime!(n_taps - 1));
            let bit = 1u32 << bits[tap as usize];
            key |= select((of_four >> i) & 1u32 == 1u32, bit, 0u32);
        }
        bits[(MAX_GROUP_TAPS + unit) as usize] = key;
    }
    sync_cube();
    let mut key = 0u32;
    #[unroll]
    for four in 0u32..comptime!(n_taps.div_ceil(4)) {
        let set = (taps_of_row >> (4u32 * four)) & 15u32;
        key |= bits[(comptime!(MAX_GROUP_TAPS) + SETS_OF_FOUR * four + set) as usize];
    }
    // Rank of the set among Gray codes: neighbours in this order differ in few taps.
    key ^= key >> 1u32;
    key ^= key >> 2u32;
    key ^= key >> 4u32;
    key ^= key >> 8u32;
    key ^= key >> 16u32;
    key
}

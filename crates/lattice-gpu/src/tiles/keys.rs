//! Keys that rows of a tile are sorted by: rows that have the same taps stand together.

use cubecl::prelude::*;

use super::kernel::BuildShape;

/// The lowest tap of a set, which is taken out of it.
#[cube]
pub(super) fn take_tap(taps: &mut u32) -> u32 {
    let tap = u32::cast_from(taps.trailing_zeros());
    *taps &= *taps - 1u32;
    tap
}

/// A row's rank among the sets of taps: the rarest tap of the tile is the highest bit of a set, and neighbours in this order differ in few taps. `counts` are
/// zero before; `bits` are the places of taps among the bits afterwards. For kernels of at most 32 taps.
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
    let mut key = 0u32;
    let mut left = taps_of_row;
    while left != 0u32 {
        key |= 1u32 << bits[take_tap(&mut left) as usize];
    }
    // Rank of the set among Gray codes: neighbours in this order differ in few taps.
    key ^= key >> 1u32;
    key ^= key >> 2u32;
    key ^= key >> 4u32;
    key ^= key >> 8u32;
    key ^= key >> 16u32;
    key
}

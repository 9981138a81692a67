//! Which chunks of rows have a tap.

use cubecl::prelude::*;

use super::CHUNK_ROWS;
use super::TILE_ROWS;
use super::kernel::BuildShape;

/// Marks the taps of every chunk and adds the pairs of the group to `flags[1]`; `of_place` are the taps of the row at this place.
#[cube]
pub(super) fn count_taps(
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

/// Writes for each of so many taps, from `first` on, the chunks that have it; a unit a tap.
#[cube]
pub(super) fn write_chunks(chunks: &mut [u32], chunk_masks: &Shared<[Atomic<u32>]>, first: u32, taps: u32) {
    let unit = UNIT_POS;
    if unit < taps {
        let mut word = 0u32;
        for chunk in 0u32..comptime!((TILE_ROWS / CHUNK_ROWS) as u32) {
            word |= ((chunk_masks[chunk as usize].load() >> unit) & 1u32) << chunk;
        }
        chunks[(first + unit) as usize] = word;
    }
}

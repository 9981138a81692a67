//! Reading tiles place by place: what kernels do that list pairs.

use cubecl::prelude::*;

use super::{CHUNK_ROWS, HALO_ROWS, TILE_ROWS};

/// Local number of a tap at this unit's place of a tile, [`HALO_ROWS`] or more where there is none. One unit a place.
#[cube]
pub(crate) fn local_number(table: &[u32], chunks: &[u32], tile: u32, tap: u32, #[comptime] taps: u32) -> u32 {
    let mut local = comptime!(HALO_ROWS as u32).runtime();
    // A bit says whether any row of the place's chunk has the tap.
    if (chunks[(tile * taps + tap) as usize] >> (UNIT_POS / CHUNK_ROWS as u32)) & 1u32 == 1u32 {
        let words = comptime!(taps.div_ceil(2));
        let word = table[((tile * words + tap / 2u32) * comptime!(TILE_ROWS as u32) + UNIT_POS) as usize];
        local = (word >> (16u32 * (tap % 2u32))) & 0xFFFFu32;
    }
    local
}

//! The tiles of one tap under which every row meets itself: a plain product in the form of a relation.

use std::sync::Arc;

use cubecl::prelude::*;
use lattice_core::Result;

use super::halo::{Halos, TileCounts};
use super::kernel::{NO_LOCAL, NO_ROW, SPAN_WORDS};
use super::launch::{Tiles, check_table};
use super::{CHUNK_ROWS, TILE_ROWS};
use crate::gpu::Gpu;

/// Units of a cube: one a place of a tile.
const UNITS: u32 = TILE_ROWS as u32;
/// Words of the spans of a tile: one phase.
const WORDS: u32 = 2 * SPAN_WORDS;

/// Every tile's rows are its halo, numbered as they stand. One cube a tile.
#[cube(launch_unchecked)]
fn identity_tiles_kernel(
    rows: &mut [u32],
    table: &mut [u32],
    chunks: &mut [u32],
    halo: &mut [u32],
    spans: &mut [u32],
    n: u32,
    n_tiles: u32,
) {
    let tile = CUBE_POS as u32;
    if tile >= n_tiles {
        terminate!();
    }
    let first = tile * UNITS;
    let count = min(n - first, UNITS);
    let at = first + UNIT_POS;
    let has_row = UNIT_POS < count;
    rows[at as usize] = select(has_row, at, NO_ROW);
    table[at as usize] = select(has_row, UNIT_POS, NO_LOCAL) | comptime!(NO_LOCAL << 16);
    halo[at as usize] = select(has_row, at, 0u32);
    if UNIT_POS == 0u32 {
        // One bit a chunk; a shift by all bits is undefined.
        chunks[tile as usize] = u32::MAX >> (32u32 - count.div_ceil(CHUNK_ROWS as u32));
        let span = tile * WORDS;
        spans[span as usize] = 1u32;
        spans[(span + SPAN_WORDS) as usize] = first;
        spans[(span + SPAN_WORDS + 1u32) as usize] = count;
        spans[(span + SPAN_WORDS + 2u32) as usize] = 0u32;
        spans[(span + SPAN_WORDS + 3u32) as usize] = 1u32;
    }
}

impl Tiles {
    /// The tiles of one tap under which every one of `n` rows meets itself. One launch, no wait.
    ///
    /// # Errors
    /// As [`Tiles::build`].
    pub fn identity(gpu: &Gpu, n: usize) -> Result<Self> {
        check_table(n, 1)?;
        let n_tiles = n.div_ceil(TILE_ROWS);
        let places = || gpu.empty(n_tiles * TILE_ROWS, 4);
        let (halo, counts) = (places(), TileCounts { halo_rows: n, phases: n_tiles, n_pairs: n });
        let tiles = Self {
            rows: places(),
            table: places(),
            chunks: gpu.empty(n_tiles, 4),
            halos: (Halos::counted(halo.clone(), counts), 0),
            spans: gpu.empty(n_tiles * WORDS as usize, 4),
            n_tiles,
            taps: 1,
            span_words: WORDS,
            n_in: n,
            n_out: n,
            most_pairs: n,
            order: Arc::default(),
            gpu: gpu.clone(),
        };
        if n_tiles > 0 {
            // SAFETY: one unit a place, of which every table has one.
            unsafe {
                identity_tiles_kernel::launch_unchecked(
                    gpu.client(),
                    Gpu::cubes(n_tiles, 1),
                    CubeDim::new_1d(UNITS),
                    tiles.rows.arg(1),
                    tiles.table.arg(1),
                    tiles.chunks.arg(1),
                    halo.arg(1),
                    tiles.spans.arg(1),
                    n as u32,
                    n_tiles as u32,
                );
            }
        }
        Ok(tiles)
    }
}

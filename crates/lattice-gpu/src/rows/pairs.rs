//! Row maps over the pairs of a relation, listed from its tiles.

use cubecl::prelude::*;
use lattice_core::PairWeights;

use super::map::DeviceRowMap;
use crate::gpu::{Buffer, Gpu};
use crate::points::share_of;
use crate::sort::exclusive_sum;
use crate::tiles::{HALO_ROWS, NO_ROW, SPAN_WORDS, TILE_ROWS, Tiles, local_number};

/// Units of a cube: one a place of a tile.
const UNITS: u32 = TILE_ROWS as u32;

/// What the kernels are compiled for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct PairShape {
    taps: u32,
    span_words: u32,
    weights: Weights,
}

/// [`PairWeights`] without the numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Weights {
    One,
    Mean,
    Taps,
}

/// `counts[row]`: pairs of a row; `sums[row]`: their weights by tap, where taps have weights. One cube a tile.
#[cube(launch_unchecked)]
fn count_entries_kernel(
    tile_rows: &[u32],
    table: &[u32],
    chunks: &[u32],
    tap_weights: &[f32],
    counts: &mut [u32],
    sums: &mut [f32],
    n_out: u32,
    n_tiles: u32,
    #[comptime] shape: PairShape,
) {
    let tile = CUBE_POS as u32;
    if tile >= n_tiles {
        terminate!();
    }
    let mut count = 0u32;
    let mut sum = 0.0f32;
    for tap in 0u32..comptime!(shape.taps) {
        if local_number(table, chunks, tile, tap, comptime!(shape.taps)) < comptime!(HALO_ROWS as u32) {
            count += 1u32;
            if comptime!(matches!(shape.weights, Weights::Taps)) {
                sum += tap_weights[tap as usize];
            }
        }
    }
    let row = tile_rows[(tile * UNITS + UNIT_POS) as usize];
    if row != NO_ROW {
        counts[row as usize] = count;
        if comptime!(matches!(shape.weights, Weights::Taps)) {
            sums[row as usize] = sum;
        }
    }
    // The last split is the sum of all.
    if tile == 0u32 && UNIT_POS == 0u32 {
        counts[n_out as usize] = 0u32;
    }
}

/// Writes the entries of every row, in the order of the taps. One cube a tile.
#[cube(launch_unchecked)]
fn write_entries_kernel(
    tile_rows: &[u32],
    table: &[u32],
    chunks: &[u32],
    halo: &[u32],
    spans: &[u32],
    splits: &[u32],
    tap_weights: &[f32],
    sums: &[f32],
    rows: &mut [u32],
    weights: &mut [f32],
    n_tiles: u32,
    #[comptime] shape: PairShape,
) {
    let tile = CUBE_POS as u32;
    if tile >= n_tiles {
        terminate!();
    }
    let row = tile_rows[(tile * UNITS + UNIT_POS) as usize];
    if row != NO_ROW {
        let mut at = splits[row as usize];
        let mut share = 0.0f32;
        if comptime!(matches!(shape.weights, Weights::Mean)) {
            // A row without pairs writes none.
            share = share_of(max(splits[row as usize + 1usize] - at, 1u32));
        }
        let n_phases = spans[(tile * comptime!(shape.span_words)) as usize];
        for phase in 0u32..n_phases {
            let span = tile * comptime!(shape.span_words) + (phase + 1u32) * SPAN_WORDS;
            let at_halo = spans[span as usize];
            for tap in spans[(span + 2u32) as usize]..spans[(span + 3u32) as usize] {
                let local = local_number(table, chunks, tile, tap, comptime!(shape.taps));
                if local < comptime!(HALO_ROWS as u32) {
                    rows[at as usize] = halo[(at_halo + local) as usize];
                    if comptime!(matches!(shape.weights, Weights::Mean)) {
                        weights[at as usize] = share;
                    }
                    if comptime!(matches!(shape.weights, Weights::Taps)) {
                        let sum = sums[row as usize];
                        let weight = tap_weights[tap as usize];
                        // A row whose weights sum to 0 keeps them.
                        weights[at as usize] = weight / select(sum > 0.0f32, sum, 1.0f32);
                    }
                    at += 1u32;
                }
            }
        }
    }
}

impl DeviceRowMap {
    /// One entry a pair of a relation, from the tiles of its forward direction. Five launches at most; nothing is waited for, but for
    /// kernels of more than 512 taps.
    ///
    /// # Panics
    /// Unless weights by tap are as many as the taps.
    pub fn from_tiles(tiles: &Tiles, weights: &PairWeights) -> Self {
        let (gpu, taps, n_out) = (tiles.gpu(), tiles.taps(), tiles.n_out());
        let kind = match weights {
            PairWeights::One => Weights::One,
            PairWeights::Mean => Weights::Mean,
            PairWeights::Taps(_) => Weights::Taps,
        };
        let longest = Some(taps as usize);
        let n = [tiles.n_in(), n_out];
        if tiles.n_tiles == 0 {
            return Self::from_parts(gpu, n, gpu.empty(0, 4), None, gpu.upload(&[0u32]), longest);
        }
        let shape = PairShape { taps, span_words: tiles.span_words, weights: kind };
        let splits = gpu.empty(n_out + 1, 4);
        let rows = gpu.empty(tiles.most_pairs(), 4);
        let entry_weights = (kind != Weights::One).then(|| gpu.empty(rows.len, 4));
        let tap_weights: Option<Buffer> = match weights {
            PairWeights::Taps(values) => {
                assert_eq!(values.len(), taps as usize, "from_tiles: one weight a tap");
                Some(gpu.upload(values))
            }
            _ => None,
        };
        let sums = tap_weights.as_ref().map(|_| gpu.empty(n_out, 4));
        // What the shape says is absent is not touched.
        let (absent, written) = (gpu.empty(1, 4), gpu.empty(1, 4));
        let (dim, halo) = (CubeDim::new_1d(UNITS), tiles.halo());
        // SAFETY: every kernel checks its tile; rows of tiles are below `n_out`, and each stands in one place. Entries were counted, and
        // there are no more than the tiles say.
        unsafe {
            count_entries_kernel::launch_unchecked(
                gpu.client(),
                Gpu::cubes(tiles.n_tiles, 1),
                dim,
                tiles.rows.arg(1),
                tiles.table.arg(1),
                tiles.chunks.arg(1),
                tap_weights.as_ref().unwrap_or(&absent).arg(1),
                splits.arg(1),
                sums.as_ref().unwrap_or(&written).arg(1),
                n_out as u32,
                tiles.n_tiles as u32,
                shape,
            );
            exclusive_sum(gpu, &splits);
            write_entries_kernel::launch_unchecked(
                gpu.client(),
                Gpu::cubes(tiles.n_tiles, 1),
                dim,
                tiles.rows.arg(1),
                tiles.table.arg(1),
                tiles.chunks.arg(1),
                halo.arg(1),
                tiles.spans.arg(1),
                splits.arg(1),
                tap_weights.as_ref().unwrap_or(&absent).arg(1),
                sums.as_ref().unwrap_or(&absent).arg(1),
                rows.arg(1),
                entry_weights.as_ref().unwrap_or(&written).arg(1),
                tiles.n_tiles as u32,
                shape,
            );
        }
        Self::from_parts(gpu, n, rows, entry_weights, splits, longest)
    }
}

//! Lists the pairs of tiles by tap.

use cubecl::prelude::*;

use crate::arena::Life;
use crate::gpu::{Buffer, Gpu};
use crate::sort::exclusive_sum;
use crate::tiles::{HALO_ROWS, SPAN_WORDS, TILE_ROWS, Tiles, local_number};

/// Units of a cube: one a place of a tile.
const UNITS: u32 = TILE_ROWS as u32;

/// Sizes that the kernels are compiled for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct ListShape {
    taps: u32,
    span_words: u32,
    lanes: u32,
}

impl ListShape {
    fn planes(&self) -> u32 {
        UNITS / self.lanes
    }
}

/// `counts[tap, tile]`: pairs of a tile under a tap. One cube a tile.
#[cube(launch_unchecked)]
fn count_pairs_kernel(
    table: &[u32],
    chunks: &[u32],
    counts: &mut [u32],
    n_tiles: u32,
    #[comptime] shape: ListShape,
) {
    let tile = CUBE_POS as u32;
    if tile >= n_tiles {
        terminate!();
    }
    let taps = comptime!(shape.taps);
    let found = Shared::<[Atomic<u32>]>::new_slice(comptime!(shape.taps as usize));
    let mut tap = UNIT_POS;
    while tap < taps {
        found[tap as usize].store(0u32);
        tap += UNITS;
    }
    sync_cube();
    let lane = UNIT_POS % comptime!(shape.lanes);
    for tap in 0u32..taps {
        let has = local_number(table, chunks, tile, tap, taps) < comptime!(HALO_ROWS as u32);
        let peers = plane_ballot(has).extract(0usize);
        if peers != 0u32 && lane == 0u32 {
            found[tap as usize].fetch_add(u32::cast_from(peers.count_ones()));
        }
    }
    sync_cube();
    let mut tap = UNIT_POS;
    while tap < taps {
        counts[(tap * n_tiles + tile) as usize] = found[tap as usize].load();
        tap += UNITS;
    }
}

/// Writes the pairs of a tile to their places: those of a tap in the order of the tile's places. One cube a tile; the first also writes
/// where the pairs of each tap start, and last their number.
#[cube(launch_unchecked)]
fn write_pairs_kernel(
    tile_rows: &[u32],
    table: &[u32],
    chunks: &[u32],
    halo: &[u32],
    spans: &[u32],
    starts: &[u32],
    total: &[u32],
    in_rows: &mut [u32],
    out_rows: &mut [u32],
    splits: &mut [u32],
    n_tiles: u32,
    #[comptime] shape: ListShape,
) {
    let tile = CUBE_POS as u32;
    if tile >= n_tiles {
        terminate!();
    }
    let taps = comptime!(shape.taps);
    let lanes = comptime!(shape.lanes);
    let planes = comptime!(shape.planes());
    let lane = UNIT_POS % lanes;
    let plane = UNIT_POS / lanes;
    if tile == 0u32 {
        let mut tap = UNIT_POS;
        while tap < taps {
            splits[tap as usize] = starts[(tap * n_tiles) as usize];
            tap += UNITS;
        }
        if UNIT_POS == 0u32 {
            splits[taps as usize] = total[0];
        }
    }
    // Pairs of a tap in each plane.
    let mut of_plane = Shared::<[u32]>::new_slice(comptime!((shape.taps * shape.planes()) as usize));
    for tap in 0u32..taps {
        let has = local_number(table, chunks, tile, tap, taps) < comptime!(HALO_ROWS as u32);
        let peers = plane_ballot(has).extract(0usize);
        if lane == 0u32 {
            of_plane[(tap * planes + plane) as usize] = u32::cast_from(peers.count_ones());
        }
    }
    sync_cube();
    let row = tile_rows[(tile * UNITS + UNIT_POS) as usize];
    let n_phases = spans[(tile * comptime!(shape.span_words)) as usize];
    for phase in 0u32..n_phases {
        let span = tile * comptime!(shape.span_words) + (phase + 1u32) * SPAN_WORDS;
        let at_halo = spans[span as usize];
        let begin = spans[(span + 2u32) as usize];
        let end = spans[(span + 3u32) as usize];
        for tap in begin..end {
            let local = local_number(table, chunks, tile, tap, taps);
            let has = local < comptime!(HALO_ROWS as u32);
            // Units that wrote a pair of the tap before may be late, and a ballot asks those that have arrived.
            sync_cube();
            let peers = plane_ballot(has).extract(0usize);
            if has {
                let mut at = starts[(tap * n_tiles + tile) as usize];
                for before in 0u32..plane {
                    at += of_plane[(tap * planes + before) as usize];
                }
                at += u32::cast_from((peers & ((1u32 << lane) - 1u32)).count_ones());
                in_rows[at as usize] = halo[(at_halo + local) as usize];
                out_rows[at as usize] = row;
            }
        }
    }
}

/// Most pairs that there is room made for without counting them: 8 MB of each list.
const UNCOUNTED_PAIRS: usize = 1 << 21;

/// Input and output rows of all pairs by tap, and where those of each tap start. Waits for the number of pairs where nobody knows it
/// and there may be many.
pub(super) fn list_pairs(gpu: &Gpu, tiles: &Tiles) -> [Buffer; 3] {
    let taps = tiles.taps();
    let n_tiles = tiles.n_tiles;
    if n_tiles == 0 {
        return [gpu.empty(0, 4), gpu.empty(0, 4), gpu.upload(&vec![0u32; taps as usize + 1])];
    }
    let lanes = gpu.client().properties().hardware.plane_size_max.min(UNITS);
    let shape = ListShape { taps, span_words: tiles.span_words, lanes };
    let counts = gpu.room(taps as usize * n_tiles, 4, Life::Passing);
    let splits = gpu.empty(taps as usize + 1, 4);
    let dim = CubeDim::new_1d(UNITS);
    // SAFETY: every kernel checks its tile; tables are those of the tiles.
    unsafe {
        count_pairs_kernel::launch_unchecked(
            gpu.client(),
            Gpu::cubes(n_tiles, 1),
            dim,
            tiles.table.arg(1),
            tiles.chunks.arg(1),
            counts.arg(1),
            n_tiles as u32,
            shape,
        );
    }
    let total = exclusive_sum(gpu, &counts);
    let most = tiles.most_pairs();
    let n_pairs = if most <= UNCOUNTED_PAIRS { most } else { tiles.n_pairs() };
    let (in_rows, out_rows) = (gpu.empty(n_pairs, 4), gpu.empty(n_pairs, 4));
    let halo = tiles.halo();
    // SAFETY: as above; the pairs were counted, so their places lie within both buffers.
    unsafe {
        write_pairs_kernel::launch_unchecked(
            gpu.client(),
            Gpu::cubes(n_tiles, 1),
            dim,
            tiles.rows.arg(1),
            tiles.table.arg(1),
            tiles.chunks.arg(1),
            halo.arg(1),
            tiles.spans.arg(1),
            counts.arg(1),
            total.arg(1),
            in_rows.arg(1),
            out_rows.arg(1),
            splits.arg(1),
            n_tiles as u32,
            shape,
        );
    }
    [in_rows, out_rows, splits]
}

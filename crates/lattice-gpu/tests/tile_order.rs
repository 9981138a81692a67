//! The order in which kernels take tiles, against the work of each by its pairs.
#![cfg(feature = "cubecl")]
#![allow(clippy::unwrap_used, reason = "tests")]

mod harness;

use std::collections::{BTreeMap, BTreeSet};

use harness::{Numbers, devices, upload_support};
use lattice_core::{KernelSpec, RelationKind};
use lattice_gpu::index::BlockIndex;
use lattice_gpu::tiles::{CHUNK_ROWS, Geometry, TILE_ROWS, Tiles};

#[test]
fn full_tiles_come_first() {
    // Dense and sparse rows, of few taps and of many; one tile, several, and more than a cube has units.
    for (rows, reach, size) in [(900, 5, 3), (5000, 12, 3), (3000, 40, 5), (100, 3, 3), (270_000, 100, 3)] {
        let support = Numbers(rows as u64).support(rows, reach);
        let spec = KernelSpec::cube(size, 1).unwrap();
        for (name, gpu) in devices() {
            let coords = upload_support(&gpu, &support);
            let index = BlockIndex::build(&gpu, &coords, rows);
            let geometry = Geometry::new(RelationKind::Submanifold, &spec);
            let tiles = Tiles::build(&gpu, &index, &coords, rows, None, geometry).unwrap();
            let place_of: BTreeMap<u32, usize> =
                tiles.rows_to_host(&gpu).into_iter().enumerate().map(|(place, row)| (row, place)).collect();
            let chunks: BTreeSet<(usize, u32, usize)> = tiles
                .pairs_to_host(&gpu)
                .into_iter()
                .map(|(_, out, tap)| (place_of[&out] / TILE_ROWS, tap, place_of[&out] / CHUNK_ROWS))
                .collect();
            let taps: BTreeSet<(usize, u32)> = chunks.iter().map(|&(tile, tap, _)| (tile, tap)).collect();
            let mut work = vec![0; tiles.n_tiles()];
            chunks.iter().for_each(|&(tile, ..)| work[tile] += 1);
            taps.iter().for_each(|&(tile, _)| work[tile] += 4);
            let mut expected: Vec<u32> = (0..tiles.n_tiles() as u32).collect();
            let most = work.iter().max().unwrap() + 1;
            expected.sort_by_key(|&tile| std::cmp::Reverse(work[tile as usize] * 16 / most));
            let found = gpu.download::<u32>(&tiles.by_falling_work());
            assert_eq!(found, expected, "{rows} rows on {name}");
        }
    }
}

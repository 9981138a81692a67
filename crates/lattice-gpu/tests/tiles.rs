//! Tiles of rows that lie in unusual ways, against the pairs of the host.
#![cfg(feature = "cubecl")]
#![allow(clippy::unwrap_used, reason = "tests")]

mod harness;

use std::collections::BTreeSet;

use harness::{Numbers, cases, devices, upload_support};
use lattice_core::{Coord, KernelSpec, Relation, Support};
use lattice_gpu::Gpu;
use lattice_gpu::index::BlockIndex;
use lattice_gpu::tiles::{Geometry, Tiles};

/// All cells of a box.
fn cells(size: [i32; 3]) -> impl Iterator<Item = [i32; 3]> {
    (0..size[0]).flat_map(move |x| (0..size[1]).flat_map(move |y| (0..size[2]).map(move |z| [x, y, z])))
}

fn support(rows: impl IntoIterator<Item = Coord>) -> Support {
    Support::canonical(rows.into_iter().collect::<BTreeSet<_>>().into_iter().collect()).unwrap()
}

/// Rows of source and target that tiles find in different ways.
fn scenes() -> Vec<(&'static str, Support, Support)> {
    let dense = |size: i32| support(cells([size; 3]).map(|[x, y, z]| [0, x - 5, y - 7, z]));
    // Each target row touches eight blocks that no other one touches.
    let corners = |size: [i32; 3]| cells(size).map(|at| at.map(|v| 8 * v + 3));
    let around = |size: [i32; 3]| {
        support(
            corners(size).flat_map(|[x, y, z]| cells([2; 3]).map(move |[i, j, k]| [0, x + i, y + j, z + k])),
        )
    };
    let targets = |size: [i32; 3]| support(corners(size).map(|[x, y, z]| [0, x, y, z]));
    let far = support((0..6).flat_map(|at| {
        cells([5, 4, 3]).map(move |[x, y, z]| [0, x + 50_000 * at, y - 1_000_000 * (at % 3), z - 70_000 * at])
    }));
    let batches = support((0..9).flat_map(|batch| cells([4, 3, 5]).map(move |[x, y, z]| [batch, x, y, z])));
    let spread = support(cells([8; 3]).map(|at| at.map(|v| 3 * v)).map(|[x, y, z]| [0, x - 4, y - 6, z + 1]));
    vec![
        ("a halo that fits", dense(9), dense(9)),
        ("a halo of two taps", dense(24), spread),
        ("blocks that are farther apart than their keys tell", far.clone(), far),
        ("more blocks than there are numbers", around([4, 4, 5]), targets([4, 4, 5])),
        ("more blocks than there are places", around([6; 3]), targets([6; 3])),
        ("many batch items", batches.clone(), batches),
        (
            "rows in any order",
            Support::try_new(dense(9).coords().iter().rev().copied().collect()).unwrap(),
            dense(9),
        ),
    ]
}

/// The tiles of a relation of rows of `target` with those of `source`, which hold the pairs of the host.
fn checked_tiles(what: &str, gpu: &Gpu, [source, target]: [&Support; 2], spec: &KernelSpec) -> Tiles {
    let relation = Relation::onto(source, target, spec).unwrap();
    let mut expected: Vec<_> =
        relation.edges().iter().map(|e| (e.in_row, e.out_row, u32::from(e.tap))).collect();
    expected.sort_unstable();
    let coords = upload_support(gpu, source);
    let index = match source.is_canonical() {
        true => BlockIndex::of_canonical(gpu, &coords, source.n_rows()),
        false => BlockIndex::build(gpu, &coords, source.n_rows()),
    };
    let targets = upload_support(gpu, target);
    let geometry = Geometry::of(&relation);
    let tiles = Tiles::build(gpu, &index, &targets, target.n_rows(), None, geometry).unwrap();
    let mut found = tiles.pairs_to_host(gpu);
    found.sort_unstable();
    assert_eq!(found.len(), expected.len(), "{what}");
    assert_eq!(found, expected, "{what}");
    assert_eq!(tiles.n_pairs(), expected.len(), "{what}");
    tiles
}

#[test]
fn tiles_of_rows_that_lie_in_unusual_ways_hold_all_pairs() {
    let spec = KernelSpec::cube(3, 1).unwrap();
    for (device, gpu) in devices() {
        for (name, source, target) in cases(&gpu, "ways that rows lie", scenes(), 6) {
            let what = format!("{name} on {device}");
            let tiles = checked_tiles(&what, &gpu, [&source, &target], &spec);
            if name == "a halo that fits" {
                // Devices that held too few taps at a time had two phases a tile, and four.
                assert_eq!(tiles.phases(), tiles.n_tiles(), "{what}");
            }
            if name == "a halo of two taps" {
                // 256 rows of 27 input rows each, of which no two meet the same: 512 fit, and two taps share a word.
                assert_eq!((tiles.n_tiles(), tiles.phases()), (2, 2 * 14), "{what}");
                assert_eq!(tiles.halo_rows(), 27 * target.n_rows(), "{what}");
            }
        }
    }
}

#[test]
fn windows_of_all_sizes_that_touch_eight_blocks_are_found() {
    let rows = Numbers(12).support(2000, 9);
    let rows = Support::canonical(rows.coords().to_vec()).unwrap();
    let sizes = [
        ([2, 3, 5], [1; 3]),
        ([3; 3], [2, 1, 2]),
        ([2; 3], [4, 3, 1]),
        ([2; 3], [1; 3]),
        ([4, 2, 3], [1, 1, 2]),
    ];
    for (device, gpu) in devices() {
        for (size, dilation) in cases(&gpu, "sizes of windows", sizes, 2) {
            let spec = KernelSpec::try_new(size, [1; 3], [0; 3], dilation).unwrap();
            checked_tiles(&format!("{size:?}, {dilation:?} apart, on {device}"), &gpu, [&rows, &rows], &spec);
        }
    }
}

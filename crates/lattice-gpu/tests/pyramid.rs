//! Levels that are made together, and the tiles between them, against those of `lattice-core`.
#![cfg(feature = "cubecl")]
#![allow(clippy::unwrap_used, reason = "tests")]

mod harness;

use harness::{Numbers, cases, devices, upload_support};
use lattice_core::{Coord, Form, KernelSpec, Relation, RelationKind, Support, SupportPolicy, downsample};
use lattice_gpu::index::BlockIndex;
use lattice_gpu::support::{NewRows, Pyramid, canonical_order, describe_with, lookup};
use lattice_gpu::tiles::{ExpectedRelation, Geometry, Tiles};
use lattice_gpu::{Buffer, Gpu};

fn rows(gpu: &Gpu, coords: &Buffer) -> Vec<Coord> {
    gpu.download::<i32>(coords).as_chunks::<4>().0.to_vec()
}

fn pyramid_of(gpu: &Gpu, support: &Support) -> Pyramid {
    let coords = upload_support(gpu, support);
    let bounds = support.bounds().unwrap();
    let order = (!support.is_canonical()).then(|| canonical_order(gpu, &coords, &bounds).unwrap());
    Pyramid::build(gpu, &coords, order.as_ref())
}

fn level_of(support: &Support, level: usize) -> Support {
    downsample(support, [2 << level; 3]).unwrap()
}

#[test]
fn levels_are_those_of_the_host() {
    let mut numbers = Numbers(5);
    let mut supports = vec![Support::try_new(vec![[3, -1, 0, 5]]).unwrap()];
    for (n, reach) in [(40, 5), (3000, 20), (20_000, 400), (5000, 1_000_000)] {
        let given = numbers.support(n, reach);
        supports.push(Support::canonical(given.coords().to_vec()).unwrap());
        supports.push(given);
    }
    for (device, gpu) in devices() {
        for support in &supports {
            let found = pyramid_of(&gpu, support);
            assert_eq!(found.n_levels(), 4);
            for level in 0..4 {
                let expected = level_of(support, level);
                let (coords, n) = found.rows(level);
                assert_eq!(n, expected.n_rows(), "level {level} on {device}");
                assert!(rows(&gpu, coords) == expected.coords(), "level {level} on {device}");
                // The index of a level answers as one that was built alone does.
                let queries = upload_support(&gpu, &expected);
                let all: Vec<i32> = (0..n as i32).collect();
                assert_eq!(
                    gpu.download::<i32>(&lookup(&gpu, found.index_of(level), &queries)),
                    all,
                    "{device}"
                );
            }
        }
    }
}

#[test]
fn levels_that_are_marked_with_the_description_are_the_same() {
    let mut numbers = Numbers(9);
    let given = numbers.support(9000, 30);
    let mut repeated = given.coords().to_vec();
    repeated.extend_from_slice(&given.coords()[..700]);
    let canonical = Support::canonical(given.coords().to_vec()).unwrap();
    for (device, gpu) in devices() {
        for support in [&given, &canonical] {
            let coords = upload_support(&gpu, support);
            let NewRows { index, found, marks, tiles } =
                describe_with(&gpu, &coords, support.n_rows(), true, None);
            assert_eq!(found.canonical, support.is_canonical());
            assert!(tiles.is_none());
            let (marks, counts) = marks.unwrap();
            let order = (!found.canonical).then(|| index.order(&gpu).unwrap());
            let levels = Pyramid::of_marks(&gpu, &coords, order, &marks, &counts);
            assert_eq!(levels.n_levels(), counts.len());
            for (level, &count) in counts.iter().enumerate() {
                let (coords, n) = levels.rows(level);
                let expected = level_of(support, level);
                assert_eq!((n, count as usize), (expected.n_rows(), n), "{device}");
                assert!(rows(&gpu, coords) == expected.coords(), "level {level} on {device}");
            }
            let unmarked = describe_with(&gpu, &coords, support.n_rows(), false, None);
            assert!(unmarked.marks.is_none());
        }
        // Not every place of an order of repeated rows is written; nothing that stands there is followed.
        let coords = gpu.upload(repeated.as_flattened());
        let marked = describe_with(&gpu, &coords, repeated.len(), true, None);
        assert_eq!(marked.found.duplicates, 700, "{device}");
    }
}

/// Pairs `(in, out, tap)` of tiles, sorted.
fn pairs(gpu: &Gpu, tiles: &Tiles) -> Vec<(u32, u32, u32)> {
    let mut found = tiles.pairs_to_host(gpu);
    found.sort_unstable();
    found
}

#[test]
fn tiles_that_are_built_before_rows_are_described_are_those_that_are_built_after() {
    let given = Numbers(10).support(5000, 24);
    let canonical = Support::canonical(given.coords().to_vec()).unwrap();
    let mut repeated = given.coords().to_vec();
    repeated.extend_from_slice(&given.coords()[..300]);
    for (device, gpu) in devices() {
        for spec in
            [KernelSpec::cube(3, 1).unwrap(), KernelSpec::try_new([5, 1, 3], [1; 3], [0; 3], [1; 3]).unwrap()]
        {
            let geometry = Geometry::new(RelationKind::Submanifold, &spec);
            for (support, expects) in
                [(&given, false), (&canonical, true), (&given, true), (&canonical, false)]
            {
                let (coords, n) = (upload_support(&gpu, support), support.n_rows());
                let expected = Some(ExpectedRelation { geometry, canonical: expects });
                let new = describe_with(&gpu, &coords, n, false, expected);
                assert_eq!(new.found.canonical, support.is_canonical());
                assert_eq!(new.tiles.is_some(), expects == support.is_canonical(), "{device}");
                let order = (!support.is_canonical()).then(|| new.index.order(&gpu).unwrap());
                let after = Tiles::build(&gpu, &new.index, &coords, n, order, geometry).unwrap();
                if let Some(tiles) = new.tiles {
                    assert_eq!(tiles.rows_to_host(&gpu), after.rows_to_host(&gpu), "{device}");
                    assert_eq!(pairs(&gpu, &tiles), pairs(&gpu, &after), "{device}");
                    assert_eq!(tiles.n_pairs(), after.n_pairs());
                }
            }
            // Rows that repeat each other have no list to be followed.
            let coords = gpu.upload(repeated.as_flattened());
            let expected = Some(ExpectedRelation { geometry, canonical: false });
            let new = describe_with(&gpu, &coords, repeated.len(), false, expected);
            assert_eq!(new.found.duplicates, 300);
            assert!(new.tiles.is_none(), "{device}");
        }
    }
}

#[test]
fn tiles_between_levels_have_the_pairs_of_the_host() {
    let dense = Numbers(6).support(4000, 12);
    for (device, gpu) in devices() {
        let pyramid = pyramid_of(&gpu, &dense);
        let level = |at: usize| level_of(&dense, at);
        let [one, two, three] =
            [KernelSpec::cube(3, 1), KernelSpec::cube(2, 2), KernelSpec::cube(3, 2)].map(|s| s.unwrap());
        let all = [
            ([0, 0], Relation::submanifold(&level(0), &one)),
            ([3, 3], Relation::submanifold(&level(3), &one)),
            ([0, 1], Relation::onto(&level(0), &level(1), &two)),
            ([2, 3], Relation::onto(&level(2), &level(3), &two)),
            ([1, 2], Relation::forward(&level(1), &three, SupportPolicy::Floor)),
            ([0, 2], Relation::onto(&level(0), &level(2), &KernelSpec::cube(4, 4).unwrap())),
        ];
        for (levels, relation) in cases(&gpu, "relations between levels", all, 2) {
            let relation = relation.unwrap();
            let mut expected: Vec<_> =
                relation.edges().iter().map(|e| (e.in_row, e.out_row, u32::from(e.tap))).collect();
            expected.sort_unstable();
            let geometry = Geometry::of(&relation);
            let tiles = pyramid.tiles(&gpu, levels, geometry).unwrap().unwrap();
            assert_eq!(pairs(&gpu, &tiles), expected, "{levels:?} on {device}");
            assert_eq!(tiles.n_pairs(), expected.len(), "{levels:?} on {device}");
            // The other way round, as gradients and inverse convolutions go.
            let [from, onto] = levels;
            let back = pyramid.tiles(&gpu, [onto, from], geometry.swapped()).unwrap().unwrap();
            let mut found: Vec<_> =
                back.pairs_to_host(&gpu).into_iter().map(|(o, i, tap)| (i, o, tap)).collect();
            found.sort_unstable();
            assert_eq!(found, expected, "{levels:?} swapped on {device}");
        }
    }
}

#[test]
fn halos_end_up_in_room_of_their_length() {
    let support = Numbers(8).support(20_000, 40);
    let relation = Relation::submanifold(&support, &KernelSpec::cube(3, 1).unwrap()).unwrap();
    for (device, gpu) in devices() {
        let coords = upload_support(&gpu, &support);
        let index = BlockIndex::build(&gpu, &coords, support.n_rows());
        let geometry = Geometry::of(&relation);
        let alone =
            Tiles::build(&gpu, &index, &coords, support.n_rows(), index.order(&gpu), geometry).unwrap();
        let pyramid = pyramid_of(&gpu, &support);
        let of_level = |level| pyramid.tiles(&gpu, [level, level], geometry).unwrap().unwrap();
        let levels = [0, 1, 2].map(of_level);
        for tiles in levels.iter().map(AsRef::as_ref).chain([&alone]) {
            // The others of their build move with the first.
            let (bytes, staged) = (tiles.bytes(), tiles.halo_rows());
            let places = 256 * tiles.n_tiles();
            let most = 4 * (places * 15 + tiles.n_tiles() * (27 + 4 * 29 * 14) + staged + 128);
            assert!(bytes <= most, "{device}: {bytes} bytes, expected {most} at most");
        }
        assert_eq!(alone.n_pairs(), relation.n_pairs(), "{device}");
        assert_eq!(pairs(&gpu, &alone).len(), relation.n_pairs(), "{device}");
        // 2 MB of room each: more than may wait for their counts at a time.
        let build =
            |_| Tiles::build(&gpu, &index, &coords, support.n_rows(), index.order(&gpu), geometry).unwrap();
        let many: Vec<_> = (0..70).map(build).collect();
        assert!(many.iter().all(|tiles| tiles.n_pairs() == relation.n_pairs()), "{device}");
        assert_eq!(pairs(&gpu, &many[0]), pairs(&gpu, &many[69]), "{device}");
    }
}

#[test]
fn long_halos_are_left_to_those_who_count() {
    // So many rows that room for the longest halos of 27 taps is not made without counting; of 8 taps it is.
    let support = Support::canonical(
        (0..110)
            .flat_map(|x| (0..110).flat_map(move |y| (0..110).map(move |z| [0, 2 * x, 2 * y, 2 * z])))
            .collect(),
    )
    .unwrap();
    for (device, gpu) in devices() {
        if harness::is_software(&gpu) {
            println!("many rows: left out on a software device");
            continue;
        }
        let pyramid = pyramid_of(&gpu, &support);
        let cube = |size, stride| KernelSpec::cube(size, stride).unwrap();
        let subm = Geometry::new(RelationKind::Submanifold, &cube(3, 1));
        assert!(pyramid.tiles(&gpu, [0, 0], subm).unwrap().is_none(), "{device}");
        assert!(pyramid.tiles(&gpu, [2, 2], subm).unwrap().is_some(), "{device}");
        let down = Geometry::new(RelationKind::Forward, &cube(2, 2));
        let found = pyramid.tiles(&gpu, [0, 1], down).unwrap().unwrap();
        assert_eq!(found.n_pairs(), support.n_rows(), "{device}");
    }
}

#[test]
fn rows_in_any_order_give_the_pairs_of_rows_in_canonical_order() {
    let given = Numbers(7).support(2000, 9);
    let relation = Relation::submanifold(&given, &KernelSpec::cube(3, 1).unwrap()).unwrap();
    let mut expected: Vec<_> =
        relation.edges().iter().map(|e| (e.in_row, e.out_row, u32::from(e.tap))).collect();
    expected.sort_unstable();
    for (device, gpu) in devices() {
        let coords = upload_support(&gpu, &given);
        let order = canonical_order(&gpu, &coords, &given.bounds().unwrap()).unwrap();
        let index = BlockIndex::build(&gpu, &coords, given.n_rows());
        let geometry = Geometry::of(&relation);
        // An order from elsewhere, and that in which the index lists its rows, where those of a tile stand first in its halo.
        for order in [&order, index.order(&gpu).unwrap()] {
            let tiles = Tiles::build(&gpu, &index, &coords, given.n_rows(), Some(order), geometry).unwrap();
            assert_eq!(pairs(&gpu, &tiles), expected, "{device}");
        }
    }
}

//! Row maps against dense matrices, definitions and corners.

#![allow(clippy::unwrap_used, reason = "tests")]

use lattice_core::{
    Error, Interpolation, KernelSpec, MapOrigin, NonFinite, PointVoxelMap, Relation, RowEntries, RowMap,
    Support, SupportPolicy, VoxelGrid, point_voxel_map, quantize,
};
use lattice_testkit::{algebra, points as judge, pooling, strategies};
use proptest::prelude::*;
use rstest::rstest;

type Entry = (u32, u32, f32);

/// All entries as (output row, input row, weight), in order.
fn entries(map: &RowMap) -> Vec<Entry> {
    let row = |(out, w): (usize, &[usize])| {
        let weight = |e: usize| map.weights().map_or(1.0, |w| w[e]);
        (w[0]..w[1]).map(move |e| (out as u32, map.rows()[e], weight(e))).collect::<Vec<_>>()
    };
    map.splits().windows(2).enumerate().flat_map(row).collect()
}

/// `out[o] = Σ weight · x[row]` with one channel.
fn mix(map: &RowMap, x: &[f64]) -> Vec<f64> {
    let mut y = vec![0.0; map.n_out()];
    for (out, row, weight) in entries(map) {
        y[out as usize] += f64::from(weight) * x[row as usize];
    }
    y
}

fn assert_close(found: &[f64], expected: &[f64]) {
    assert_eq!(found.len(), expected.len());
    for (at, (a, b)) in found.iter().zip(expected).enumerate() {
        assert!((a - b).abs() <= 1e-5 * b.abs().max(1.0), "row {at}: {a} is not {b}");
    }
}

/// The stable transpose by a sort.
fn transposed(map: &RowMap) -> Vec<Entry> {
    let mut turned: Vec<Entry> = entries(map).iter().map(|&(out, row, weight)| (row, out, weight)).collect();
    turned.sort_by_key(|entry| entry.0);
    turned
}

/// A map with rows of many lengths, empty ones among them, and a repeated input row here and there.
fn large(n_in: usize, n_out: usize, weighted: bool) -> RowMap {
    let mut state = 12_345u64;
    let mut next = |n: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % n
    };
    let mut splits = vec![0];
    let mut rows = Vec::new();
    for _ in 0..n_out {
        let n = if next(500) == 0 { 700 } else { next(9) };
        rows.extend((0..n).map(|_| next(n_in) as u32));
        splits.push(rows.len());
    }
    let weights = weighted.then(|| (0..rows.len()).map(|e| e as f32 * 0.5).collect());
    RowMap::try_new(n_in, splits, rows, weights).unwrap()
}

fn relation(rows: &[[i32; 4]], size: u32, stride: u32) -> Relation {
    let source = Support::try_new(rows.to_vec()).unwrap();
    Relation::forward(&source, &KernelSpec::cube(size, stride).unwrap(), SupportPolicy::Floor).unwrap()
}

fn edges(relation: &Relation) -> Vec<(u32, u32, u16)> {
    relation.edges().iter().map(|e| (e.in_row, e.out_row, e.tap)).collect()
}

#[rstest]
#[case::no_splits(vec![], vec![], None)]
#[case::not_from_zero(vec![1, 2], vec![0, 1], None)]
#[case::falling(vec![0, 2, 1, 2], vec![0, 1], None)]
#[case::short_of_the_entries(vec![0, 1], vec![0, 1], None)]
#[case::past_the_entries(vec![0, 3], vec![0, 1], None)]
#[case::too_few_weights(vec![0, 2], vec![0, 1], Some(vec![1.0]))]
fn parts_that_do_not_fit_are_shape_errors(
    #[case] splits: Vec<usize>,
    #[case] rows: Vec<u32>,
    #[case] weights: Option<Vec<f32>>,
) {
    assert!(matches!(
        RowMap::try_new(2, splits, rows, weights),
        Err(Error::Shape { op: "RowMap::try_new", .. })
    ));
}

#[test]
fn rows_outside_the_input_are_named() {
    assert!(matches!(
        RowMap::try_new(2, vec![0, 3], vec![0, 1, 2], None),
        Err(Error::OutOfRange { row: 2, .. })
    ));
    assert!(matches!(
        RowMap::gather(2, &[0, 1, -1, 2]),
        Err(Error::OutOfRange { op: "RowMap::gather", row: 3, .. })
    ));
    assert!(matches!(RowMap::gather(2, &[0, -2]), Err(Error::OutOfRange { row: 1, .. })));
    assert!(matches!(RowMap::gather(0, &[0]), Err(Error::OutOfRange { row: 0, .. })));
    assert!(matches!(RowMap::try_new(1 << 32, vec![0], vec![], None), Err(Error::Limit { .. })));
    assert!(matches!(RowMap::gather(usize::MAX, &[]), Err(Error::Limit { .. })));
}

#[test]
fn a_gather_copies_rows_and_skips_missing_ones() {
    let map = RowMap::gather(4, &[3, -1, 0, 3]).unwrap();
    assert_eq!(
        (map.n_in(), map.n_out(), map.splits(), map.rows()),
        (4, 4, &[0, 1, 1, 2, 3][..], &[3, 0, 3][..])
    );
    assert!(map.is_gather() && map.weights().is_none());
    let back = map.transpose();
    assert_eq!((back.splits(), back.rows()), (&[0, 1, 1, 1, 3][..], &[2, 0, 3][..]));
    assert!(!back.is_gather());
    assert!(
        !RowMap::try_new(1, vec![0, 1], vec![0], Some(vec![1.0])).unwrap().is_gather(),
        "weights must be applied"
    );
}

#[test]
fn empty_maps_turn_around() {
    for (n_in, n_out) in [(0, 0), (3, 0), (0, 3), (2, 3)] {
        let map = RowMap::try_new(n_in, vec![0; n_out + 1], vec![], None).unwrap();
        let back = map.transpose();
        assert_eq!((back.n_in(), back.n_out(), back.rows().len()), (n_out, n_in, 0));
        assert!(map.is_gather());
    }
}

#[test]
fn a_map_and_its_transpose_are_two_sides_of_one() {
    let map = large(50, 60, true);
    let before = map.bytes();
    let back = map.transpose();
    assert_eq!(back.id(), map.transpose().id());
    assert_eq!(map.clone().transpose().id(), back.id());
    assert_eq!(back.transpose().id(), map.id());
    assert!(back.is_transposed() && !map.is_transposed());
    // Its entries are made when they are read, once, and count from then on.
    assert!(back.known_entries().is_none() && map.bytes() == before);
    let first: *const u32 = back.rows().as_ptr();
    assert_eq!(first, map.transpose().rows().as_ptr());
    assert_eq!(map.bytes(), before + 8 * 51 + 8 * map.rows().len());
    assert_eq!(back.bytes(), map.bytes());
}

#[test]
fn maps_over_relations_and_from_elsewhere_are_listed_when_read() {
    let support = Support::try_new(vec![[0, 0, 0, 0], [0, 1, 0, 0], [0, 2, 0, 0]]).unwrap();
    let spec = KernelSpec::cube(2, 2).unwrap();
    let relation = Relation::forward(&support, &spec, SupportPolicy::Floor).unwrap();
    for map in [RowMap::from_relation_sum(&relation), RowMap::from_relation_avg(&relation)] {
        assert!(matches!(map.origin(), MapOrigin::Pairs(_)) && map.known_entries().is_none());
        assert_eq!((map.n_in(), map.n_out(), map.bytes()), (3, 2, 0));
        assert_eq!(map.transpose().splits(), [0, 1, 2, 3]);
        assert_eq!((map.splits(), map.rows()), (&[0, 2, 3][..], &[0, 1, 2][..]));
    }
    let reads = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let counter = reads.clone();
    let map = RowMap::made_elsewhere(3, 2, [Some(2), Some(1)], move || {
        counter.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        RowEntries { splits: vec![0, 2, 3], rows: vec![2, 0, 1], weights: Some(vec![0.5, 0.25, 4.0]) }
    })
    .unwrap();
    assert_eq!((map.n_in(), map.n_out()), (3, 2));
    assert_eq!(reads.load(std::sync::atomic::Ordering::Relaxed), 0);
    assert_eq!(map.transpose().weights(), Some(&[0.25, 4.0, 0.5][..]));
    assert_eq!((map.rows(), map.transpose().rows()), (&[2, 0, 1][..], &[0, 1, 0][..]));
    assert_eq!(reads.load(std::sync::atomic::Ordering::Relaxed), 1);
    assert!(RowMap::made_elsewhere(usize::MAX, 1, [None; 2], RowEntries::default).is_err());
}

#[rstest]
#[case::few_inputs(3, 30_000)]
#[case::square(40_000, 40_000)]
#[case::many_inputs(900_000, 25_000)]
fn large_transposes_are_stable_on_any_number_of_threads(#[case] n_in: usize, #[case] n_out: usize) {
    for weighted in [false, true] {
        let expected = transposed(&large(n_in, n_out, weighted));
        assert!(expected.len() > 1 << 16, "large enough for the parallel way");
        for threads in [1, 2, 7] {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            let back = pool.install(|| {
                let back = large(n_in, n_out, weighted).transpose();
                back.entries();
                back
            });
            assert!(
                (back.n_in(), back.n_out()) == (n_out, n_in) && entries(&back) == expected,
                "{threads} threads"
            );
        }
    }
}

#[test]
fn one_long_row_turns_around() {
    let n = 100_000;
    let map = RowMap::try_new(n, vec![0, 0, n, n], (0..n as u32).rev().collect(), None).unwrap();
    let back = map.transpose();
    assert!(back.is_gather() && back.n_out() == n && back.rows().iter().all(|&row| row == 1));
}

#[test]
fn large_gathers_and_means_agree_on_any_number_of_threads() {
    let rows: Vec<i32> = (0..90_000).map(|i| i * 7919 % 30_011 - 1).collect();
    let points: Vec<[f32; 3]> =
        (0..90_000u32).map(|i| [(i * 31 % 977) as f32 * 0.1, (i % 89) as f32, 0.5]).collect();
    let grid = VoxelGrid::cubic(1.5).unwrap();
    let run = |threads: usize| {
        rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap().install(|| {
            let voxels = quantize(&points, None, &grid, NonFinite::Error).unwrap();
            let corners =
                point_voxel_map(&points, None, &voxels.support, &grid, Interpolation::Linear, false).unwrap();
            let corners = RowMap::from_point_voxel_map(&corners, voxels.support.n_rows()).unwrap();
            let maps = [
                RowMap::gather(30_010, &rows).unwrap(),
                RowMap::voxel_sum(&voxels),
                RowMap::voxel_mean(&voxels),
                corners,
            ];
            maps.map(|map| (entries(&map), entries(&map.transpose())))
        })
    };
    let one = run(1);
    assert!(one == run(2) && one == run(7));
    assert!(one[0].0.iter().all(|&(out, row, _)| rows[out as usize] == row as i32));
    assert_eq!(one[0].0.len(), rows.iter().filter(|row| **row >= 0).count());
}

#[test]
fn trilinear_of_the_worked_example() {
    let coarse = Support::try_new(vec![[0, -1, 0, 0], [0, 0, 0, 0], [0, 2, 0, 0]]).unwrap();
    let fine: Vec<[i32; 4]> = [-3, -2, -1, 0, 1, 3, 6].iter().map(|&x| [0, x, 0, 0]).collect();
    let fine = Support::try_new(fine).unwrap();
    let spec = KernelSpec::try_new([3, 1, 1], [2, 1, 1], [1, 0, 0], [1; 3]).unwrap();
    let map = RowMap::trilinear(&Relation::target_transposed(&coarse, &fine, &spec).unwrap(), [2, 1, 1]);
    assert_eq!(mix(&map, &[10.0, 20.0, 40.0]), [10.0, 10.0, 15.0, 20.0, 20.0, 40.0, 0.0]);
}

#[test]
fn trilinear_weights_of_another_geometry_stay_finite() {
    let plain = relation(&[[0, 0, 0, 0], [0, 1, 0, 0], [0, 5, 5, 5]], 3, 2);
    for stride in [[0; 3], [1; 3], [u32::MAX; 3]] {
        assert!(
            RowMap::trilinear(&plain, stride).weights().unwrap().iter().all(|w| w.is_finite()),
            "{stride:?}"
        );
    }
}

#[test]
fn a_point_map_that_does_not_fit_is_an_error() {
    let map = PointVoxelMap { rows: vec![[-1; 8], [2; 8]], weights: vec![[0.5; 8]; 2] };
    assert!(matches!(RowMap::from_point_voxel_map(&map, 2), Err(Error::OutOfRange { row: 1, .. })));
    assert_eq!(RowMap::from_point_voxel_map(&map, 3).unwrap().splits(), [0, 0, 8]);
    let short = PointVoxelMap { weights: vec![[0.5; 8]], ..map };
    assert!(matches!(RowMap::from_point_voxel_map(&short, 3), Err(Error::Shape { .. })));
}

fn small_map() -> impl Strategy<Value = RowMap> {
    (1usize..12, proptest::collection::vec(proptest::collection::vec(0u32..12, 0..5), 0..12), any::<bool>())
        .prop_map(|(n_in, lists, weighted)| {
            let mut splits = vec![0];
            let mut rows = Vec::new();
            for list in lists {
                rows.extend(list.iter().map(|row| row % n_in as u32));
                splits.push(rows.len());
            }
            let weights = weighted.then(|| (0..rows.len()).map(|e| e as f32 * 0.25 - 1.0).collect());
            RowMap::try_new(n_in, splits, rows, weights).unwrap()
        })
}

proptest! {
    #[test]
    fn a_transpose_is_the_adjoint(map in small_map()) {
        let back = map.transpose();
        prop_assert_eq!(entries(&back), transposed(&map));
        let x: Vec<f64> = (0..map.n_in()).map(|i| i as f64 - 3.5).collect();
        let g: Vec<f64> = (0..map.n_out()).map(|o| 0.5 * o as f64 - 1.0).collect();
        let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
        prop_assert!((dot(&g, &mix(&map, &x)) - dot(&mix(&back, &g), &x)).abs() < 1e-9);
        // Back again: the map itself.
        prop_assert_eq!(entries(&back.transpose()), entries(&map));
    }

    #[test]
    fn relation_sums_means_and_trilinear_weights_match_their_definitions(
        rows in strategies::support(),
        size in 1u32..4,
        stride in 1u32..4,
    ) {
        let relation = relation(&rows, size, stride);
        let x: Vec<f64> = (0..rows.len()).map(|i| (i * 7 % 13) as f64 - 4.0).collect();
        let (pairs, n_out) = (edges(&relation), relation.n_out());
        assert_close(&mix(&RowMap::from_relation_sum(&relation), &x), &pooling::pool_sum(&x, 1, &pairs, n_out));
        assert_close(&mix(&RowMap::from_relation_avg(&relation), &x), &pooling::pool_avg(&x, 1, &pairs, n_out));

        let geometry = pooling::trilinear_kernel([stride; 3]);
        let spec = KernelSpec::try_new(geometry.size, geometry.stride, geometry.padding, geometry.dilation).unwrap();
        let up = Relation::transposed(&Support::try_new(rows).unwrap(), &spec).unwrap();
        let weights = pooling::trilinear_weights([stride; 3]);
        let expected = pooling::trilinear(&x, 1, &edges(&up), &weights, up.n_out());
        assert_close(&mix(&RowMap::trilinear(&up, [stride; 3]), &x), &expected);
    }

    #[test]
    fn voxel_sums_and_means_match_their_definition((points, batch) in strategies::points(4.0, 60), holes in any::<u64>()) {
        let mut points = points;
        for (at, p) in points.iter_mut().enumerate() {
            if holes >> (at % 64) & 7 == 7 {
                p[at % 3] = f32::NAN;
            }
        }
        let grid = VoxelGrid::cubic(0.8).unwrap();
        let found = quantize(&points, Some(&batch), &grid, NonFinite::Drop).unwrap();
        let expected = judge::quantize(&points, Some(&batch), &judge::Grid::cubic(0.8));
        let x: Vec<f64> = (0..points.len()).map(|i| (i * 5 % 11) as f64 - 2.0).collect();
        let (sum, mean) = (RowMap::voxel_sum(&found), RowMap::voxel_mean(&found));
        assert_close(&mix(&sum, &x), &judge::voxelize_sum(&x, 1, &expected));
        assert_close(&mix(&mean, &x), &judge::voxelize_mean(&x, 1, &expected));
        let g: Vec<f64> = (0..found.support.n_rows()).map(|v| v as f64 - 1.0).collect();
        prop_assert!(sum.transpose().is_gather());
        assert_close(&mix(&sum.transpose(), &g), &judge::voxelize_sum_grad(&g, 1, &expected));
        assert_close(&mix(&mean.transpose(), &g), &judge::voxelize_mean_grad(&g, 1, &expected));
    }

    #[test]
    fn devoxelization_matches_its_definition((points, batch) in strategies::points(4.0, 40), rows in strategies::support()) {
        let support = Support::try_new(rows.clone()).unwrap();
        let grid = VoxelGrid::cubic(0.9).unwrap();
        let found = point_voxel_map(&points, Some(&batch), &support, &grid, Interpolation::Linear, true).unwrap();
        let how = judge::Interpolation::Linear;
        let expected = judge::point_voxel_map(&points, Some(&batch), &rows, &judge::Grid::cubic(0.9), how, true);
        let map = RowMap::from_point_voxel_map(&found, rows.len()).unwrap();
        let f: Vec<f64> = (0..rows.len()).map(|v| (v * 3 % 17) as f64).collect();
        let g: Vec<f64> = (0..points.len()).map(|p| p as f64 - 9.0).collect();
        assert_close(&mix(&map, &f), &judge::devoxelize(&f, 1, &expected));
        assert_close(&mix(&map.transpose(), &g), &judge::devoxelize_grad(&g, 1, &expected, rows.len()));
    }

    #[test]
    fn gathers_match_their_definition(rows in proptest::collection::vec(-1i32..9, 0..40)) {
        let map = RowMap::gather(9, &rows).unwrap();
        let x: Vec<f64> = (0..9).map(f64::from).collect();
        prop_assert_eq!(mix(&map, &x), algebra::gather(&x, 1, &rows, 0.0));
        let g: Vec<f64> = (0..rows.len()).map(|o| o as f64).collect();
        prop_assert_eq!(mix(&map.transpose(), &g), algebra::gather_grad(&g, 1, &rows, 9));
    }
}

//! Quantization and point-voxel maps against their definitions, the worked examples and the corners.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::collections::HashMap;

use lattice_core::{
    Coord, Error, Interpolation, NonFinite, PointVoxelMap, RowMap, Support, VoxelGrid, Voxelization,
    point_voxel_map, quantize,
};
use lattice_testkit::{patterns, points as judge, strategies};
use proptest::prelude::*;
use rstest::rstest;

fn judge_grid(grid: &VoxelGrid) -> judge::Grid {
    judge::Grid { voxel_size: grid.voxel_size, origin: grid.origin }
}

fn assert_voxels(found: &Voxelization, expected: &judge::Voxels) {
    assert_eq!(found.support.coords(), expected.coords);
    assert!(found.support.is_canonical());
    assert_eq!(found.voxel_of_point, expected.voxel_of_point);
    assert_eq!(found.counts, expected.counts);
}

fn assert_map(found: &PointVoxelMap, expected: &judge::PointVoxelMap) {
    assert_eq!(found.rows, expected.rows);
    let bits = |weights: &[[f32; 8]]| weights.iter().map(|w| w.map(f32::to_bits)).collect::<Vec<_>>();
    assert_eq!(bits(&found.weights), bits(&expected.weights));
}

/// `Σ weight · feature` of every point.
fn devoxelized(map: &PointVoxelMap, features: &[f32]) -> Vec<f32> {
    let value = |(rows, weights): (&[i32; 8], &[f32; 8])| {
        rows.iter()
            .zip(weights)
            .filter(|(row, _)| **row >= 0)
            .map(|(&row, w)| w * features[row as usize])
            .sum()
    };
    map.rows.iter().zip(&map.weights).map(value).collect()
}

#[test]
fn quantize_of_the_first_worked_example() {
    let points = [[0.3, 0.3, 0.3], [1.6, 0.0, 0.0], [0.4, 0.1, 0.45], [-0.2, 0.0, 0.0], [0.1, 0.9, 0.0]];
    let grid = VoxelGrid::cubic(0.5).unwrap();
    let found = quantize(&points, Some(&[0, 0, 0, 0, 2]), &grid, NonFinite::Error).unwrap();
    // By first occurrence: [0,0,0,0], [0,3,0,0], [0,-1,0,0], [2,0,1,0] with counts 2, 1, 1, 1.
    assert_eq!(found.support.coords(), [[0, -1, 0, 0], [0, 0, 0, 0], [0, 3, 0, 0], [2, 0, 1, 0]]);
    assert_eq!(found.voxel_of_point, [1, 2, 1, 0, 3]);
    assert_eq!(found.counts, [1, 2, 1, 1]);
    assert_eq!(found.dropped, 0);
}

#[test]
fn quantize_of_the_second_worked_example_shifts_by_the_origin() {
    let grid = VoxelGrid::try_new([3.0, 1.0, 1.0], [-1.0, 0.5, 0.0]).unwrap();
    let points = [[0.0, 0.0, 0.0], [5.9, 1.0, 0.0], [6.0, 1.0, 0.0]];
    let found = quantize(&points, None, &grid, NonFinite::Error).unwrap();
    assert_eq!(found.support.coords(), [[0, 0, -1, 0], [0, 2, 0, 0]]);
    assert_eq!((found.voxel_of_point, found.counts), (vec![0, 1, 1], vec![1, 2]));
}

/// Voxels A = (0, 0, 0): 10, B = (1, 0, 0): 20, C = (0, 1, 0): 40.
#[rstest]
#[case([0.25, 0.5, 0.0], [0, 1, 2, -1, -1, -1, -1, -1], [0.375, 0.125, 0.375, 0.0], 21.25, 24.285_715, 40.0)]
#[case([0.75, 0.0, 0.0], [0, 1, 2, -1, -1, -1, -1, -1], [0.25, 0.75, 0.0, 0.0], 17.5, 17.5, 20.0)]
#[case([-0.5, 0.0, 0.0], [-1, 0, -1, 2, -1, -1, -1, -1], [0.0, 0.5, 0.0, 0.0], 5.0, 10.0, 10.0)]
#[case([1.25, 0.0, 0.0], [1, -1, -1, -1, -1, -1, -1, -1], [0.75, 0.0, 0.0, 0.0], 15.0, 20.0, 20.0)]
fn interpolation_of_the_third_worked_example(
    #[case] point: [f32; 3],
    #[case] rows: [i32; 8],
    #[case] weights: [f32; 4],
    #[case] linear: f32,
    #[case] renormalized: f32,
    #[case] nearest: f32,
) {
    let support = Support::try_new(vec![[0, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0]]).unwrap();
    let grid = VoxelGrid::cubic(1.0).unwrap();
    let map = |how, renormalize| point_voxel_map(&[point], None, &support, &grid, how, renormalize).unwrap();
    let features = [10.0, 20.0, 40.0];
    let found = map(Interpolation::Linear, false);
    assert_eq!(found.rows, [rows]);
    assert_eq!((&found.weights[0][..4], &found.weights[0][4..]), (&weights[..], &[0.0; 4][..]));
    assert_eq!(devoxelized(&found, &features), [linear]);
    assert!((devoxelized(&map(Interpolation::Linear, true), &features)[0] - renormalized).abs() < 1e-5);
    let found = map(Interpolation::Nearest, false);
    assert_eq!(devoxelized(&found, &features), [nearest]);
    assert_eq!((&found.rows[0][1..], &found.weights[0][1..]), (&[-1; 7][..], &[0.0; 7][..]));
}

#[test]
fn voxelize_of_the_fourth_worked_example() {
    let points = [0.2, 2.5, 2.9, 0.4].map(|x| [x, 0.0, 0.0]);
    let features = [[2.0, 8.0], [1.0, 1.0], [5.0, 3.0], [4.0, 0.0]];
    let found = quantize(&points, None, &VoxelGrid::cubic(1.0).unwrap(), NonFinite::Error).unwrap();
    assert_eq!(found.support.coords(), [[0, 0, 0, 0], [0, 2, 0, 0]]);
    let mixed = |map: &RowMap, x: &[[f32; 2]]| -> Vec<[f32; 2]> {
        let row = |w: &[usize]| {
            (w[0]..w[1]).fold([0.0; 2], |sum, e| {
                let (x, weight) = (x[map.rows()[e] as usize], map.weights().map_or(1.0, |w| w[e]));
                [sum[0] + weight * x[0], sum[1] + weight * x[1]]
            })
        };
        map.splits().windows(2).map(row).collect()
    };
    let (sum, mean) = (RowMap::voxel_sum(&found), RowMap::voxel_mean(&found));
    assert_eq!(mixed(&sum, &features), [[6.0, 8.0], [6.0, 4.0]]);
    assert_eq!(mixed(&mean, &features), [[3.0, 4.0], [3.0, 2.0]]);
    let gradient = mixed(&mean.transpose(), &[[1.0, 2.0], [3.0, 4.0]]);
    assert_eq!(gradient, [[0.5, 1.0], [1.5, 2.0], [1.5, 2.0], [0.5, 1.0]]);
}

#[test]
fn points_that_are_not_finite_are_named_or_dropped() {
    let points = [
        [0.5, 0.5, 0.5],
        [1.5, f32::NAN, 0.0],
        [2.5, 0.0, f32::INFINITY],
        [0.7, 0.1, 0.2],
        [f32::NEG_INFINITY, 0.0, 0.0],
    ];
    let grid = VoxelGrid::cubic(1.0).unwrap();
    let refused = quantize(&points, None, &grid, NonFinite::Error).unwrap_err();
    assert!(matches!(refused, Error::OutOfRange { op: "quantize", row: 1, .. }), "{refused}");
    let found = quantize(&points, None, &grid, NonFinite::Drop).unwrap();
    assert_eq!((found.voxel_of_point, found.counts, found.dropped), (vec![0, -1, -1, 0, -1], vec![2], 3));
    let none = quantize(&points[1..3], None, &grid, NonFinite::Drop).unwrap();
    assert_eq!((none.support.n_rows(), none.voxel_of_point, none.dropped), (0, vec![-1, -1], 2));
    for how in [Interpolation::Nearest, Interpolation::Linear] {
        let map = point_voxel_map(&points, None, &found.support, &grid, how, true).unwrap();
        for at in [1, 2, 4] {
            assert_eq!((map.rows[at], map.weights[at]), ([-1; 8], [0.0; 8]));
        }
        assert!(map.rows[0].contains(&0) || how == Interpolation::Nearest);
    }
}

#[rstest]
#[case::above(2_147_483_648.0, false)]
#[case::last(2_147_483_520.0, true)]
#[case::first(-2_147_483_648.0, true)]
#[case::below(-2_147_483_904.0, false)]
#[case::overflows(f32::MAX, false)]
fn voxels_outside_i32_are_errors(#[case] x: f32, #[case] fits: bool) {
    let points = [[0.0; 3], [0.0, x, 0.0]];
    for non_finite in [NonFinite::Error, NonFinite::Drop] {
        match quantize(&points, None, &VoxelGrid::cubic(1.0).unwrap(), non_finite) {
            Ok(found) => assert!(fits && found.support.coords().contains(&[0, 0, x as i32, 0])),
            Err(error) => {
                assert!(!fits && matches!(error, Error::OutOfRange { op: "quantize", row: 1, .. }), "{error}")
            }
        }
    }
    let tiny = VoxelGrid::cubic(f32::MIN_POSITIVE).unwrap();
    assert!(matches!(
        quantize(&[[1.0; 3]], None, &tiny, NonFinite::Drop),
        Err(Error::OutOfRange { row: 0, .. })
    ));
}

#[test]
fn corners_past_the_ends_of_i32_are_missing() {
    let support =
        Support::try_new(vec![[0, i32::MIN, 0, 0], [0, 2_147_483_520, 0, 0], [0, i32::MAX, 0, 0]]).unwrap();
    let points = [
        [-2_147_483_648.0, 0.0, 0.0],
        [2_147_483_520.0, 0.0, 0.0],
        [2_147_483_648.0, 0.0, 0.0],
        [f32::MIN, 0.0, 0.0],
    ];
    let grid = VoxelGrid::cubic(1.0).unwrap();
    for how in [Interpolation::Nearest, Interpolation::Linear] {
        let found = point_voxel_map(&points, None, &support, &grid, how, false).unwrap();
        assert_eq!(found.rows.iter().map(|rows| rows[0]).collect::<Vec<_>>(), [0, 1, -1, -1]);
        assert!(found.rows.iter().all(|rows| rows[1..].iter().all(|row| *row == -1)));
    }
}

#[test]
fn bad_arguments_are_errors() {
    let grid = VoxelGrid::cubic(1.0).unwrap();
    let points = [[0.0; 3], [1.0; 3]];
    let support = Support::try_new(vec![]).unwrap();
    let map = |batch| point_voxel_map(&points, Some(batch), &support, &grid, Interpolation::Linear, false);
    let voxels = |batch| quantize(&points, Some(batch), &grid, NonFinite::Drop);
    assert!(matches!(voxels(&[0]), Err(Error::Shape { op: "quantize", .. })));
    assert!(matches!(map(&[0; 3]), Err(Error::Shape { op: "point_voxel_map", .. })));
    assert!(matches!(voxels(&[0, -1]), Err(Error::OutOfRange { op: "quantize", row: 1, .. })));
    assert!(matches!(map(&[0, -1]), Err(Error::OutOfRange { op: "point_voxel_map", row: 1, .. })));
    for bad in [0.0, -1.0, f32::NAN, f32::INFINITY] {
        assert!(matches!(VoxelGrid::try_new([1.0, bad, 1.0], [0.0; 3]), Err(Error::Value { .. })), "{bad}");
        let by_hand = VoxelGrid { voxel_size: [1.0, 1.0, bad], origin: [0.0; 3] };
        assert!(matches!(
            quantize(&points, None, &by_hand, NonFinite::Drop),
            Err(Error::Value { op: "quantize", .. })
        ));
    }
    assert!(VoxelGrid::try_new([1.0; 3], [0.0, f32::NAN, 0.0]).is_err());
}

#[test]
fn no_points_make_no_voxels() {
    let grid = VoxelGrid::cubic(1.0).unwrap();
    let found = quantize(&[], Some(&[]), &grid, NonFinite::Error).unwrap();
    assert!(found.support.is_empty() && found.voxel_of_point.is_empty() && found.counts.is_empty());
    let map = point_voxel_map(&[], None, &found.support, &grid, Interpolation::Linear, true).unwrap();
    assert_eq!(map, PointVoxelMap::default());
    let away =
        point_voxel_map(&[[0.5; 3]], None, &found.support, &grid, Interpolation::Linear, true).unwrap();
    assert_eq!((away.rows, away.weights), (vec![[-1; 8]], vec![[0.0; 8]]));
}

#[test]
fn many_points_agree_with_a_table_on_any_number_of_threads() {
    let points: Vec<[f32; 3]> =
        patterns::points(50_000).iter().map(|p| [p[0] % 90.0 - 41.3, p[1], -p[2]]).collect();
    let batch: Vec<i32> = (0..points.len() as i32).map(|i| i % 3).collect();
    let holes: Vec<[f32; 3]> = points
        .iter()
        .enumerate()
        .map(|(i, p)| if i % 997 == 5 { [f32::NAN, p[1], p[2]] } else { *p })
        .collect();
    let grid = VoxelGrid::try_new([0.3, 0.7, 0.9], [0.1, -3.0, 2.0]).unwrap();
    let run = |threads: usize, points: &[[f32; 3]]| {
        rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap().install(|| {
            let found = quantize(points, Some(&batch), &grid, NonFinite::Drop).unwrap();
            let map = |how| point_voxel_map(points, Some(&batch), &found.support, &grid, how, true).unwrap();
            let maps = [map(Interpolation::Nearest), map(Interpolation::Linear)];
            (found.support.coords().to_vec(), found.voxel_of_point, found.counts, found.dropped, maps)
        })
    };
    for points in [&points, &holes] {
        let one = run(1, points);
        assert!(run(2, points) == one && run(7, points) == one);
        let rows: HashMap<Coord, i32> = one.0.iter().enumerate().map(|(row, c)| (*c, row as i32)).collect();
        let mut counts = vec![0; one.0.len()];
        for (at, p) in points.iter().enumerate() {
            let row = judge::voxel_of(p, batch[at], &judge_grid(&grid)).map_or(-1, |c| rows[&c]);
            assert_eq!(one.1[at], row);
            if row >= 0 {
                counts[row as usize] += 1;
            }
        }
        assert!(one.2 == counts && one.2.iter().sum::<u32>() as usize + one.3 == points.len());
    }
}

#[test]
fn a_real_sweep_is_quantized_as_defined() {
    let scan = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../../shared/data/noncommercial/outdoor_kitti_object_000001.bin"
    );
    let Ok(bytes) = std::fs::read(scan) else {
        println!("skipped: no scan folder");
        return;
    };
    let value = |at: usize| f32::from_le_bytes(std::array::from_fn(|i| bytes[4 * at + i]));
    let points: Vec<[f32; 3]> = (0..bytes.len() / 16).map(|p| [0, 1, 2].map(|a| value(4 * p + a))).collect();
    let grid = VoxelGrid::cubic(0.05).unwrap();
    let found = quantize(&points, None, &grid, NonFinite::Error).unwrap();
    assert!(found.support.n_rows() > 10_000 && found.support.n_rows() < points.len());
    for (p, &voxel) in points.iter().zip(&found.voxel_of_point) {
        assert_eq!(judge::voxel_of(p, 0, &judge_grid(&grid)), Some(found.support.coords()[voxel as usize]));
    }
}

fn grid() -> impl Strategy<Value = VoxelGrid> {
    let edge = || prop_oneof![Just(0.5f32), Just(1.0), Just(0.1), 0.05f32..3.0];
    let origin = || prop_oneof![Just(0.0f32), Just(0.25), -2.0f32..2.0];
    ([edge(), edge(), edge()], [origin(), origin(), origin()])
        .prop_map(|(s, o)| VoxelGrid::try_new(s, o).unwrap())
}

proptest! {
    #[test]
    fn quantize_matches_its_definition((points, batch) in strategies::points(6.0, 80), grid in grid(), with_batch in any::<bool>()) {
        let batch = with_batch.then_some(&batch[..]);
        let found = quantize(&points, batch, &grid, NonFinite::Error).unwrap();
        assert_voxels(&found, &judge::quantize(&points, batch, &judge_grid(&grid)));
    }

    #[test]
    fn huge_and_tiny_points_match_their_definition(points in proptest::collection::vec([-2.2e9f32..2.2e9, -2e9f32..2e9, -1.0f32..1.0], 1..40)) {
        let grid = VoxelGrid::cubic(1.0).unwrap();
        let expected = judge::quantize(&points, None, &judge_grid(&grid));
        match quantize(&points, None, &grid, NonFinite::Error) {
            Ok(found) => assert_voxels(&found, &expected),
            Err(error) => {
                let first = expected.voxel_of_point.iter().position(|v| *v < 0);
                let named = match error { Error::OutOfRange { row, .. } => Some(row), _ => None };
                prop_assert!(first.is_some() && named == first);
            }
        }
    }

    #[test]
    fn point_voxel_maps_match_their_definition(
        (points, batch) in strategies::points(4.0, 40),
        coords in strategies::support(),
        grid in grid(),
        linear in any::<bool>(),
        renormalize in any::<bool>(),
    ) {
        let support = Support::try_new(coords.clone()).unwrap();
        let (how, judge_how) = match linear {
            true => (Interpolation::Linear, judge::Interpolation::Linear),
            false => (Interpolation::Nearest, judge::Interpolation::Nearest),
        };
        let found = point_voxel_map(&points, Some(&batch), &support, &grid, how, renormalize).unwrap();
        let expected = judge::point_voxel_map(&points, Some(&batch), &coords, &judge_grid(&grid), judge_how, renormalize);
        assert_map(&found, &expected);
    }

    #[test]
    fn renormalised_weights_sum_to_one_or_zero((points, batch) in strategies::points(4.0, 40), coords in strategies::support()) {
        let support = Support::try_new(coords).unwrap();
        let grid = VoxelGrid::cubic(0.7).unwrap();
        let map = point_voxel_map(&points, Some(&batch), &support, &grid, Interpolation::Linear, true).unwrap();
        for weights in &map.weights {
            let sum: f32 = weights.iter().sum();
            prop_assert!(sum == 0.0 || (sum - 1.0).abs() < 1e-6);
        }
    }
}

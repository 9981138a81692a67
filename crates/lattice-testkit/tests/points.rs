//! The worked examples of points, voxels and neighbours.

use lattice_testkit::coords::{Coord, canonical, row_of};
use lattice_testkit::gradcheck::{assert_pullback, dot};
use lattice_testkit::neighbours::{knn, radius};
use lattice_testkit::points::*;
use lattice_testkit::strategies;
use lattice_testkit::tolerances::{F64, PRINTED, assert_close};
use proptest::prelude::*;

fn line(xs: &[i32]) -> Vec<Coord> {
    xs.iter().map(|&x| [0, x, 0, 0]).collect()
}

/// Asserts voxels and their counts by coordinate, `first_seen` being the order of the example.
#[track_caller]
fn assert_voxels(found: &Voxels, first_seen: &[Coord], voxel_of_point: &[i32], counts: &[u32]) {
    assert_eq!(found.coords, canonical(first_seen));
    for (coord, count) in first_seen.iter().zip(counts) {
        assert_eq!(found.counts[row_of(&found.coords, coord).expect("a voxel")], *count);
    }
    for (row, voxel) in voxel_of_point.iter().enumerate() {
        assert_eq!(found.coords[found.voxel_of_point[row] as usize], first_seen[*voxel as usize]);
    }
}

#[test]
fn quantization_gives_the_worked_examples() {
    let points = [[0.3, 0.3, 0.3], [1.6, 0.0, 0.0], [0.4, 0.1, 0.45], [-0.2, 0.0, 0.0], [0.1, 0.9, 0.0]];
    let found = quantize(&points, Some(&[0, 0, 0, 0, 2]), &Grid::cubic(0.5));
    let voxels = [[0, 0, 0, 0], [0, 3, 0, 0], [0, -1, 0, 0], [2, 0, 1, 0]];
    assert_voxels(&found, &voxels, &[0, 1, 0, 2, 3], &[2, 1, 1, 1]);

    let grid = Grid { voxel_size: [3.0, 1.0, 1.0], origin: [-1.0, 0.5, 0.0] };
    let found = quantize(&[[0.0, 0.0, 0.0], [5.9, 1.0, 0.0], [6.0, 1.0, 0.0]], None, &grid);
    assert_voxels(&found, &[[0, 0, -1, 0], [0, 2, 0, 0]], &[0, 1, 1], &[1, 2]);
}

#[test]
fn points_that_are_not_finite_or_too_far_have_no_voxel() {
    let found = quantize(
        &[[f32::NAN, 0.0, 0.0], [1.0, 0.0, 0.0], [0.0, f32::INFINITY, 3e38]],
        None,
        &Grid::cubic(1.0),
    );
    assert_eq!(found.voxel_of_point, [-1, 0, -1]);
    assert_eq!(voxel_of(&[2_147_483_648.0, 0.0, 0.0], 0, &Grid::cubic(1.0)), None);
    assert_eq!(voxel_of(&[-2_147_483_648.0, 0.0, 0.0], 0, &Grid::cubic(1.0)), Some([0, i32::MIN, 0, 0]));
}

#[test]
fn point_voxel_maps_give_the_worked_example() {
    let voxels = [[0, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0]];
    let feats = [10.0, 20.0, 40.0];
    let points = [[0.25, 0.5, 0.0], [0.75, 0.0, 0.0], [-0.5, 0.0, 0.0], [1.25, 0.0, 0.0]];
    let grid = Grid::cubic(1.0);
    let build = |mode, renormalize| point_voxel_map(&points, None, &voxels, &grid, mode, renormalize);
    let linear = build(Interpolation::Linear, false);
    assert_eq!(
        linear.rows,
        [
            [0, 1, 2, -1, -1, -1, -1, -1],
            [0, 1, 2, -1, -1, -1, -1, -1],
            [-1, 0, -1, 2, -1, -1, -1, -1],
            [1, -1, -1, -1, -1, -1, -1, -1]
        ]
    );
    assert_eq!(linear.weights[0], [0.375, 0.125, 0.375, 0.0, 0.0, 0.0, 0.0, 0.0]);
    assert_eq!(linear.weights[1][..4], [0.25, 0.75, 0.0, 0.0]);
    assert_eq!(linear.weights[2][..4], [0.0, 0.5, 0.0, 0.0]);
    assert_eq!(linear.weights[3][..2], [0.75, 0.0]);
    assert_eq!(devoxelize(&feats, 1, &linear), [21.25, 17.5, 5.0, 15.0]);
    let renormalized = devoxelize(&feats, 1, &build(Interpolation::Linear, true));
    assert_close(&[170.0 / 7.0, 17.5, 10.0, 20.0], &renormalized, PRINTED);
    assert_eq!(devoxelize(&feats, 1, &build(Interpolation::Nearest, false)), [40.0, 20.0, 10.0, 20.0]);
}

#[test]
fn voxelization_gives_the_worked_example() {
    let points = [0.2, 2.5, 2.9, 0.4].map(|x| [x, 0.0, 0.0]);
    let feats = [2.0, 8.0, 1.0, 1.0, 5.0, 3.0, 4.0, 0.0];
    let voxels = quantize(&points, None, &Grid::cubic(1.0));
    assert_eq!(voxels.coords, line(&[0, 2]));
    assert_eq!(voxelize_mean(&feats, 2, &voxels), [3.0, 4.0, 3.0, 2.0]);
    assert_eq!(voxelize_sum(&feats, 2, &voxels), [6.0, 8.0, 6.0, 4.0]);
    let g = [1.0, 2.0, 3.0, 4.0];
    let dx = voxelize_mean_grad(&g, 2, &voxels);
    assert_eq!(dx, [0.5, 1.0, 1.5, 2.0, 1.5, 2.0, 0.5, 1.0]);
    assert_pullback(|x| voxelize_mean(x, 2, &voxels), &feats, &g, &dx);
    assert_pullback(|x| voxelize_sum(x, 2, &voxels), &feats, &g, &voxelize_sum_grad(&g, 2, &voxels));
}

#[test]
fn neighbours_give_the_worked_example() {
    let sites = line(&[0, 1, 3, 6]);
    let near = knn(&sites, &sites, 2);
    assert_eq!(near.splits, [0, 2, 4, 6, 8]);
    assert_eq!(near.source_rows, [0, 1, 1, 0, 2, 1, 3, 2]);
    assert_eq!(near.distances, [0.0, 1.0, 0.0, 1.0, 0.0, 4.0, 0.0, 9.0]);
    assert_eq!(near.neighbour_ids, [0, 1, 0, 1, 0, 1, 0, 1]);
    let within = radius(&sites, &sites, 2.0, None);
    assert_eq!(within.splits, [0, 2, 5, 7, 8]);
    assert_eq!(within.source_rows, [0, 1, 1, 0, 2, 2, 1, 3]);
    assert_eq!(within.distances, [0.0, 1.0, 0.0, 1.0, 4.0, 0.0, 4.0, 0.0]);
    assert_eq!(radius(&sites, &sites, 2.0, Some(1)).source_rows, [0, 1, 2, 3]);
}

#[test]
fn neighbours_stay_within_their_batch_and_their_number() {
    let sites = [[0, 0, 0, 0], [1, 0, 0, 0], [1, 1, 0, 0]];
    assert_eq!(knn(&sites, &sites, 5).splits, [0, 1, 3, 5]);
    let ball: Vec<Coord> = (0..125).map(|i| [0, i % 5 - 2, i / 5 % 5 - 2, i / 25 - 2]).collect();
    assert_eq!(radius(&ball, &[[0; 4]], 1.0, None).source_rows.len(), 7);
    assert_eq!(radius(&ball, &[[0; 4]], 2.0, None).source_rows.len(), 33);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn devoxelize_gradient_is_the_adjoint((points, batch) in strategies::points(4.0, 40)) {
        let grid = Grid::cubic(0.5);
        let voxels = quantize(&points, Some(&batch), &grid);
        prop_assert_eq!(voxels.counts.iter().sum::<u32>() as usize, points.len());
        let map = point_voxel_map(&points, Some(&batch), &voxels.coords, &grid, Interpolation::Linear, false);
        let f: Vec<f64> = (0..voxels.coords.len() * 2).map(|at| at as f64 - 3.0).collect();
        let g: Vec<f64> = (0..points.len() * 2).map(|at| (at % 7) as f64).collect();
        let back = devoxelize_grad(&g, 2, &map, voxels.coords.len());
        assert_close(&[dot(&g, &devoxelize(&f, 2, &map))], &[dot(&back, &f)], F64.scaled(100.0));
    }
}

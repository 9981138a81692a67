//! Points to voxels and back, and neighbour search, against their definitions by loops.
#![allow(clippy::unwrap_used, reason = "tests")]

mod harness;

use burn::tensor::{DType, Device, Int, Tensor, TensorData};
use burn_lattice::core::Neighbours;
use burn_lattice::ops::{
    self, DevoxelizeOptions, NonFinite, SparseQuantization, VoxelGrid, VoxelReduction, VoxelizeOptions,
};
use burn_lattice::{Error, Interpolation, SparseTensor, trace};
use harness::*;
use lattice_testkit::points::{self as oracle, Grid};
use lattice_testkit::tolerances::{EXACT, F32, PRINTED, assert_close};
use lattice_testkit::{neighbours, strategies};
use proptest::prelude::*;
use rstest::rstest;

fn positions(points: &[[f32; 3]], device: &Device) -> Tensor<2> {
    let flat: Vec<f32> = points.iter().flatten().copied().collect();
    Tensor::from_data(TensorData::new(flat, [points.len(), 3]), (device, DType::F32))
}

fn integers<const D: usize>(values: &[i32], shape: [usize; D]) -> Tensor<D, Int> {
    Tensor::from_data(TensorData::new(values.to_vec(), shape), &inference())
}

fn ids(values: &[i32]) -> Tensor<1, Int> {
    integers(values, [values.len()])
}

fn ints<const D: usize>(tensor: Tensor<D, Int>) -> Vec<i64> {
    tensor.into_data().iter::<i64>().collect()
}

fn grid(size: [f32; 3], origin: [f32; 3]) -> VoxelGrid {
    VoxelGrid::try_new(size, origin).unwrap()
}

/// The voxel of each point as a coordinate, and the points of each voxel.
fn assigned(q: &SparseQuantization) -> (Vec<Option<Coord>>, Vec<(Coord, i64)>) {
    let coords = q.support().to_host().coords();
    let of_point = ints(q.voxel_of_point(&inference()));
    let counts = ints(q.counts(&inference()));
    let cells = of_point.iter().map(|&row| usize::try_from(row).ok().map(|row| coords[row])).collect();
    (cells, coords.iter().copied().zip(counts).collect())
}

#[test]
fn points_fall_into_the_voxels_of_the_worked_example() {
    let points = [[0.3, 0.3, 0.3], [1.6, 0.0, 0.0], [0.4, 0.1, 0.45], [-0.2, 0.0, 0.0], [0.1, 0.9, 0.0]];
    let q = ops::sparse_quantize(
        positions(&points, &inference()),
        Some(ids(&[0, 0, 0, 0, 2])),
        &grid([0.5; 3], [0.0; 3]),
        NonFinite::Error,
    )
    .unwrap();
    let (cells, counts) = assigned(&q);
    let voxels = [[0, 0, 0, 0], [0, 3, 0, 0], [0, -1, 0, 0], [2, 0, 1, 0]];
    assert_eq!(cells, [voxels[0], voxels[1], voxels[0], voxels[2], voxels[3]].map(Some));
    for (voxel, count) in voxels.into_iter().zip([2, 1, 1, 1]) {
        assert!(counts.contains(&(voxel, count)));
    }
    assert!(q.support().to_host().is_canonical());
}

#[test]
fn a_grid_may_be_anisotropic_and_shifted() {
    let points = [[0.0, 0.0, 0.0], [5.9, 1.0, 0.0], [6.0, 1.0, 0.0]];
    let q = ops::sparse_quantize(
        positions(&points, &inference()),
        None,
        &grid([3.0, 1.0, 1.0], [-1.0, 0.5, 0.0]),
        NonFinite::Error,
    )
    .unwrap();
    let (cells, counts) = assigned(&q);
    assert_eq!(cells, [[0, 0, -1, 0], [0, 2, 0, 0], [0, 2, 0, 0]].map(Some));
    assert!(counts.contains(&([0, 0, -1, 0], 1)) && counts.contains(&([0, 2, 0, 0], 2)));
}

#[test]
fn points_that_are_not_finite_are_refused_or_dropped() {
    let points = positions(&[[0.0, 0.0, 0.0], [f32::NAN, 0.0, 0.0], [0.5, f32::INFINITY, 0.0]], &inference());
    let unit = grid([1.0; 3], [0.0; 3]);
    let refused = ops::sparse_quantize(points.clone(), None, &unit, NonFinite::Error);
    assert!(matches!(refused, Err(Error::OutOfRange { row: 1, .. })));
    let q = ops::sparse_quantize(points.clone(), None, &unit, NonFinite::Drop).unwrap();
    assert_eq!((q.dropped(), q.n_points()), (2, 3));
    assert_eq!(ints(q.voxel_of_point(&inference())), [0, -1, -1]);
    let feats = tensor(&[1.0, f64::NAN, 5.0], [3, 1], DType::F32, &inference());
    let x = ops::voxelize_with_quantization(&q, feats, VoxelReduction::Mean, [1; 3], None).unwrap();
    assert_eq!(read(x.feats()), [1.0]);
    let options = DevoxelizeOptions::new(unit);
    assert_eq!(read(&ops::devoxelize(&x, points, None, &options).unwrap()), [1.0, 0.0, 0.0]);
}

#[rstest]
#[case::mean(VoxelReduction::Mean, [[3.0, 4.0], [3.0, 2.0]])]
#[case::sum(VoxelReduction::Sum, [[6.0, 8.0], [6.0, 4.0]])]
fn voxelization_gives_the_worked_example(#[case] reduction: VoxelReduction, #[case] expected: [[f64; 2]; 2]) {
    let points = [0.2, 2.5, 2.9, 0.4].map(|x| [x, 0.0, 0.0]);
    let feats = tensor(&[2.0, 8.0, 1.0, 1.0, 5.0, 3.0, 4.0, 0.0], [4, 2], DType::F32, &inference());
    let options = VoxelizeOptions::cubic(1.0).unwrap().with_reduction(reduction).with_stride([2; 3]);
    let x = ops::voxelize(positions(&points, &inference()), feats, None, &options).unwrap();
    assert_eq!(coords_of(&x), line(&[0, 2]));
    assert_eq!((x.stride(), x.batch_counts()), ([2; 3], None));
    assert_close(expected.as_flattened(), &read(x.feats()), PRINTED);
}

#[test]
fn the_gradient_of_a_mean_is_shared_by_its_points() {
    let device = training();
    let points = [0.2, 2.5, 2.9, 0.4].map(|x| [x, 0.0, 0.0]);
    let feats = tensor(&[2.0, 8.0, 1.0, 1.0, 5.0, 3.0, 4.0, 0.0], [4, 2], DType::F32, &device).require_grad();
    let options = VoxelizeOptions::cubic(1.0).unwrap();
    let x = ops::voxelize(positions(&points, &device), feats.clone(), None, &options).unwrap();
    let g = tensor(&[1.0, 2.0, 3.0, 4.0], [2, 2], DType::F32, &device);
    let grads = (x.into_feats() * g).sum().backward();
    assert_close(&[0.5, 1.0, 1.5, 2.0, 1.5, 2.0, 0.5, 1.0], &read(&feats.grad(&grads).unwrap()), PRINTED);
}

#[test]
fn a_template_keeps_its_identity() {
    let points = positions(&[[0.2, 0.0, 0.0], [1.5, 0.0, 0.0]], &inference());
    let q = ops::sparse_quantize(points, None, &grid([1.0; 3], [0.0; 3]), NonFinite::Error).unwrap();
    let feats = |v: f64| tensor(&[v, v], [2, 1], DType::F32, &inference());
    let first = ops::voxelize_with_quantization(&q, feats(1.0), VoxelReduction::Mean, [1; 3], None).unwrap();
    let again =
        ops::voxelize_with_quantization(&q, feats(2.0), VoxelReduction::Sum, [1; 3], Some(&first)).unwrap();
    assert!(again.same_coords(&first) && again.manager().same_manager(first.manager()));
    let other = sparse(&line(&[0, 1]), &[0.0, 0.0], &inference());
    let foreign = ops::voxelize_with_quantization(&q, feats(2.0), VoxelReduction::Sum, [1; 3], Some(&other));
    assert!(matches!(foreign, Err(Error::Identity { .. })));
    let strided = ops::voxelize_with_quantization(&q, feats(2.0), VoxelReduction::Sum, [2; 3], Some(&first));
    assert!(matches!(strided, Err(Error::StrideMismatch { .. })));
}

fn corner_voxels(device: &Device) -> SparseTensor {
    sparse(&[[0, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0]], &[10.0, 20.0, 40.0], device)
}

#[rstest]
#[case::inside([0.25, 0.5, 0.0], [0, 1, 2, -1], [0.375, 0.125, 0.375, 0.0], 21.25, 24.285_714, 40.0)]
#[case::edge([0.75, 0.0, 0.0], [0, 1, 2, -1], [0.25, 0.75, 0.0, 0.0], 17.5, 17.5, 20.0)]
#[case::outside_left([-0.5, 0.0, 0.0], [-1, 0, -1, 2], [0.0, 0.5, 0.0, 0.0], 5.0, 10.0, 10.0)]
#[case::outside_right([1.25, 0.0, 0.0], [1, -1, -1, -1], [0.75, 0.0, 0.0, 0.0], 15.0, 20.0, 20.0)]
fn points_read_the_voxels_of_the_worked_example(
    #[case] point: [f32; 3],
    #[case] rows: [i64; 4],
    #[case] weights: [f64; 4],
    #[case] linear: f64,
    #[case] renormalized: f64,
    #[case] nearest: f64,
) {
    let device = inference();
    let voxels = corner_voxels(&device);
    let at = || positions(&[point], &device);
    let unit = grid([1.0; 3], [0.0; 3]);
    let map = ops::build_point_voxel_map(at(), None, voxels.support(), &unit, Interpolation::Linear, false)
        .unwrap();
    assert_eq!(ints(map.rows(&device))[..4], rows);
    assert_eq!(ints(map.rows(&device))[4..], [-1; 4]);
    assert_close(&weights, &read(&map.weights(&device))[..4], PRINTED);
    let options = DevoxelizeOptions::new(unit);
    let value =
        |options: DevoxelizeOptions| read(&ops::devoxelize(&voxels, at(), None, &options).unwrap())[0];
    assert_close(&[linear], &[value(options)], PRINTED);
    assert_close(&[renormalized], &[value(options.with_renormalize(true))], PRINTED);
    assert_close(&[nearest], &[value(options.with_interpolation(Interpolation::Nearest))], PRINTED);
    assert_close(&[linear], &read(&ops::devoxelize_with_map(&voxels, &map).unwrap()), PRINTED);
    assert_close(
        &[linear],
        &read(&ops::interpolate_point_features(voxels.feats().clone(), &map).unwrap()),
        PRINTED,
    );
}

#[test]
fn bad_points_are_errors() {
    let device = inference();
    let unit = grid([1.0; 3], [0.0; 3]);
    let quantize = |points: Tensor<2>, batch: Option<Tensor<1, Int>>| {
        ops::sparse_quantize(points, batch, &unit, NonFinite::Error)
    };
    let two = || positions(&[[0.0; 3], [1.0; 3]], &device);
    assert!(
        VoxelGrid::try_new([1.0, 0.0, 1.0], [0.0; 3]).is_err() && VoxelizeOptions::cubic(f32::NAN).is_err()
    );
    assert!(matches!(quantize(Tensor::zeros([2, 4], &device), None), Err(Error::Shape { .. })));
    assert!(matches!(
        quantize(tensor(&[0.0; 3], [1, 3], DType::F64, &device), None),
        Err(Error::Dtype { .. })
    ));
    assert!(matches!(quantize(two(), Some(ids(&[0]))), Err(Error::Shape { .. })));
    assert!(matches!(quantize(two(), Some(ids(&[0, -1]))), Err(Error::OutOfRange { row: 1, .. })));
    assert!(matches!(
        quantize(positions(&[[3e9, 0.0, 0.0]], &device), None),
        Err(Error::OutOfRange { row: 0, .. })
    ));
    let feats = Tensor::zeros([3, 1], &device);
    let options = VoxelizeOptions::cubic(1.0).unwrap();
    assert!(matches!(ops::voxelize(two(), feats.clone(), None, &options), Err(Error::Shape { .. })));
    let voxels = corner_voxels(&device);
    let other = sparse(&line(&[5]), &[1.0], &device);
    let map = ops::build_point_voxel_map(two(), None, voxels.support(), &unit, Interpolation::Linear, false)
        .unwrap();
    assert!(matches!(ops::devoxelize_with_map(&other, &map), Err(Error::Identity { .. })));
    assert!(matches!(
        ops::interpolate_point_features(Tensor::zeros([4, 1], &device), &map),
        Err(Error::Shape { .. })
    ));
    assert!("median".parse::<VoxelReduction>().is_err());
}

#[test]
fn no_points_are_legal() {
    let device = inference();
    let none = || Tensor::<2>::zeros([0, 3], (&device, DType::F32));
    let x =
        ops::voxelize(none(), Tensor::zeros([0, 4], &device), None, &VoxelizeOptions::cubic(1.0).unwrap())
            .unwrap();
    assert_eq!(x.feats().dims(), [0, 4]);
    let options = DevoxelizeOptions::new(grid([1.0; 3], [0.0; 3]));
    assert_eq!(ops::devoxelize(&corner_voxels(&device), none(), None, &options).unwrap().dims(), [0, 1]);
    assert_eq!(
        read(&ops::devoxelize(&x, positions(&[[0.0; 3]], &device), None, &options).unwrap()),
        [0.0; 4]
    );
}

#[test]
fn the_bridge_leaves_records() {
    let device = inference();
    let points = || positions(&[[0.2, 0.0, 0.0], [0.7, 0.0, 0.0]], &device);
    let (_, records) = trace::record(|| {
        let x = ops::voxelize(
            points(),
            Tensor::ones([2, 1], &device),
            None,
            &VoxelizeOptions::cubic(1.0).unwrap(),
        )
        .unwrap();
        ops::devoxelize(&x, points(), None, &DevoxelizeOptions::new(grid([1.0; 3], [0.0; 3]))).unwrap();
    });
    let kinds: Vec<_> = records.iter().map(|r| r.kind.as_str()).collect();
    assert_eq!(kinds, ["voxelize.mean", "devoxelize.linear"]);
    assert_eq!((records[0].rows_in, records[0].rows_out), (2, 1));
}

fn host(found: &ops::NeighbourRelation) -> neighbours::Neighbours {
    let Neighbours { splits, source_rows, distances, neighbour_ids } = found.to_host().clone();
    neighbours::Neighbours { splits, source_rows, distances, neighbour_ids }
}

#[test]
fn neighbours_follow_the_worked_example() {
    let x = sparse(&line(&[0, 1, 3, 6]), &[1.0, 2.0, 3.0, 4.0], &inference());
    let found = ops::knn_relation(&x, None, 2).unwrap();
    assert_eq!(ints(found.source_rows(&inference())), [0, 1, 1, 0, 2, 1, 3, 2]);
    assert_eq!(ints(found.query_rows(&inference())), [0, 0, 1, 1, 2, 2, 3, 3]);
    assert_eq!(read(&found.distances(&inference())), [0.0, 1.0, 0.0, 1.0, 0.0, 4.0, 0.0, 9.0]);
    assert_eq!(found.splits(), [0, 2, 4, 6, 8]);
    assert_eq!(
        read(&ops::gather_neighbor_features(&x, &found).unwrap()),
        [1.0, 2.0, 2.0, 1.0, 3.0, 2.0, 4.0, 3.0]
    );
    let found = ops::radius_relation(&x, None, 2.0, None).unwrap();
    assert_eq!(ints(found.source_rows(&inference())), [0, 1, 1, 0, 2, 2, 1, 3]);
    assert_eq!(read(&found.distances(&inference())), [0.0, 1.0, 0.0, 1.0, 4.0, 0.0, 4.0, 0.0]);
    assert_eq!(found.splits(), [0, 2, 5, 7, 8]);
    assert_eq!(ints(found.neighbour_ids(&inference())), [0, 1, 0, 1, 2, 0, 1, 0]);
}

#[test]
fn bad_neighbour_questions_are_errors() {
    let x = sparse(&line(&[0, 1]), &[1.0, 2.0], &inference());
    assert!(matches!(ops::knn_relation(&x, None, 0), Err(Error::Value { .. })));
    assert!(matches!(ops::radius_relation(&x, None, -1.0, None), Err(Error::Value { .. })));
    assert!(matches!(ops::radius_relation(&x, None, 1.0, Some(0)), Err(Error::Value { .. })));
    let coarse = x.with_stride([2; 3]).unwrap();
    assert!(matches!(ops::knn_relation(&x, Some(&coarse), 1), Err(Error::StrideMismatch { .. })));
    let found = ops::knn_relation(&x, None, 1).unwrap();
    let other = sparse(&line(&[3]), &[1.0], &inference());
    assert!(matches!(ops::gather_neighbor_features(&other, &found), Err(Error::Identity { .. })));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn the_bridge_matches_its_definition(
        (cloud, batch) in strategies::points(6.0, 60), size in prop::sample::select(vec![0.5f32, 1.0, 1.7]), seed in any::<u64>(),
    ) {
        let by_definition = Grid { voxel_size: [size; 3], origin: [0.25, 0.0, -1.0] };
        let grid = grid(by_definition.voxel_size, by_definition.origin);
        let expected = oracle::quantize(&cloud, Some(&batch), &by_definition);
        let device = inference();
        let q = ops::sparse_quantize(positions(&cloud, &device), Some(ids(&batch)), &grid, NonFinite::Error).unwrap();
        prop_assert_eq!(q.support().to_host().coords(), &expected.coords[..]);
        prop_assert_eq!(&q.to_host().voxel_of_point, &expected.voxel_of_point);
        let values = Seeded::new(seed).values(cloud.len() * 3);
        for dtype in dtypes() {
            // Weights are f32 for every element type.
            let close = if dtype == DType::F64 { F32 } else { tolerance(dtype) };
            let feats = || tensor(&values, [cloud.len(), 3], dtype, &device);
            let sums = ops::voxelize_with_quantization(&q, feats(), VoxelReduction::Sum, [1; 3], None).unwrap();
            assert_close(&oracle::voxelize_sum(&values, 3, &expected), &read(sums.feats()), close.scaled(8.0));
            let means = ops::voxelize_with_quantization(&q, feats(), VoxelReduction::Mean, [1; 3], None).unwrap();
            assert_close(&oracle::voxelize_mean(&values, 3, &expected), &read(means.feats()), close);
            for (interpolation, its) in [
                (Interpolation::Nearest, oracle::Interpolation::Nearest),
                (Interpolation::Linear, oracle::Interpolation::Linear),
            ] {
                for renormalize in [false, true] {
                    let map = oracle::point_voxel_map(&cloud, Some(&batch), &expected.coords, &by_definition, its, renormalize);
                    let options = DevoxelizeOptions::new(grid).with_interpolation(interpolation).with_renormalize(renormalize);
                    let found = ops::devoxelize(&means, positions(&cloud, &device), Some(ids(&batch)), &options).unwrap();
                    let voxel_values = read(means.feats());
                    assert_close(&oracle::devoxelize(&voxel_values, 3, &map), &read(&found), close.scaled(2.0));
                }
            }
        }
    }

    #[test]
    fn neighbours_match_their_definition(
        pair in strategies::support_pair(), k in 1usize..6, radius in prop::sample::select(vec![0.0, 1.0, 1.5, 3.0]), most in 1usize..9,
    ) {
        let (source, query) = pair;
        let x = sparse_at(&source, Tensor::ones([source.len(), 1], &inference()), [1; 3]);
        let asking = sparse_at(&query, Tensor::ones([query.len(), 1], &inference()), [1; 3]);
        let found = ops::knn_relation(&x, Some(&asking), k).unwrap();
        prop_assert_eq!(host(&found), neighbours::knn(&source, &query, k));
        let found = ops::radius_relation(&x, Some(&asking), radius, Some(most)).unwrap();
        prop_assert_eq!(host(&found), neighbours::radius(&source, &query, radius, Some(most)));
        let found = ops::radius_relation(&x, Some(&asking), radius, None).unwrap();
        prop_assert_eq!(host(&found), neighbours::radius(&source, &query, radius, None));
    }
}

#[test]
fn gradients_are_central_differences() {
    let device = training();
    let mut random = Seeded::new(3);
    let cloud: Vec<[f32; 3]> =
        (0..40).map(|_| [0; 3].map(|_| (random.next() % 400) as f32 / 100.0)).collect();
    let unit = grid([1.0; 3], [0.0; 3]);
    let q = ops::sparse_quantize(positions(&cloud, &device), None, &unit, NonFinite::Error).unwrap();
    let feats = random.values(cloud.len() * 2);
    for reduction in [VoxelReduction::Mean, VoxelReduction::Sum] {
        check_gradients(std::slice::from_ref(&feats), |leaves| {
            let feats = leaves[0].clone().reshape([cloud.len(), 2]);
            ops::voxelize_with_quantization(&q, feats, reduction, [1; 3], None).unwrap().into_feats()
        });
    }
    let n = q.support().n_rows();
    let voxel_feats = random.values(n * 2);
    let voxels = |leaf: &Tensor<1>| {
        SparseTensor::from_support(q.support().clone(), leaf.clone().reshape([n, 2])).unwrap()
    };
    for interpolation in [Interpolation::Nearest, Interpolation::Linear] {
        let options = DevoxelizeOptions::new(unit).with_interpolation(interpolation).with_renormalize(true);
        check_gradients(std::slice::from_ref(&voxel_feats), |leaves| {
            ops::devoxelize(&voxels(&leaves[0]), positions(&cloud, &device), None, &options).unwrap()
        });
    }
    check_gradients(std::slice::from_ref(&voxel_feats), |leaves| {
        let x = voxels(&leaves[0]);
        let near = ops::knn_relation(&x, None, 3).unwrap();
        ops::gather_neighbor_features(&x, &near).unwrap()
    });
}

#[test]
fn voxelizing_then_reading_nearest_at_the_corner_gives_the_voxel() {
    let device = inference();
    let x = sparse(&[[0, 3, -2, 1], [1, 3, -2, 1]], &[7.0, 9.0], &device);
    let options = DevoxelizeOptions::new(grid([0.5; 3], [0.0; 3])).with_interpolation(Interpolation::Nearest);
    let points = positions(&[[1.5, -1.0, 0.5], [1.5, -1.0, 0.5]], &device);
    assert_close(
        &[7.0, 9.0],
        &read(&ops::devoxelize(&x, points, Some(ids(&[0, 1])), &options).unwrap()),
        EXACT,
    );
}

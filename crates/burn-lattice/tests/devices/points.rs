//! Points and their voxels, and neighbours.

use burn::tensor::{DType, Device, Int, Tensor, TensorData};
use burn_lattice::ops::{
    self, DevoxelizeOptions, NeighbourRelation, NonFinite, VoxelGrid, VoxelReduction, VoxelizeOptions,
};
use burn_lattice::{Interpolation, SparseTensor, Support};

use super::compare::{
    Coord, Results, on_every_device, read, sparse, surface, tensor, values, whole, with_gradients,
};
use super::devices;

/// Points `[n, 3]` of a rough cloud within 6 of the origin, some of them on the borders of voxels, and their batch ids.
fn cloud(n: usize, device: &Device) -> (Tensor<2>, Tensor<1, Int>) {
    let place: Vec<f32> = values(3 * n, 5).into_iter().map(|v| 6.0 * v).collect();
    let ids: Vec<i32> = (0..n as i32).map(|i| i * 7 % 3).collect();
    let points = Tensor::from_data(TensorData::new(place, [n, 3]), (device, DType::F32));
    (points, Tensor::from_data(TensorData::new(ids, [n]), (device, DType::I32)))
}

/// The same tensor where `like` is differentiated.
fn beside(points: &Tensor<2>, like: &Tensor<2>) -> Tensor<2> {
    match like.device().is_autodiff() {
        true => Tensor::from_inner(points.clone()),
        false => points.clone(),
    }
}

#[test]
fn point_operations_agree() {
    let n = 700;
    let fine = VoxelGrid::try_new([0.75, 0.3, 0.1], [0.1, -6.0, 0.0]).unwrap();
    // Voxels of more than 512 points have long rows.
    let coarse = VoxelGrid::cubic(20.0).unwrap();
    on_every_device(|device, dtype| {
        let mut r = Results::new();
        let (points, ids) = cloud(n, device);
        let x = || [tensor([n, 6], 3, dtype, device)];
        for (grid, reduction, batched) in [
            (fine, VoxelReduction::Mean, false),
            (fine, VoxelReduction::Sum, true),
            (coarse, VoxelReduction::Mean, true),
            (coarse, VoxelReduction::Sum, false),
        ] {
            let name = format!("voxelize {reduction:?} {batched} {:?}", grid.voxel_size);
            let options = VoxelizeOptions::new(grid).with_reduction(reduction);
            let ids = batched.then(|| ids.clone());
            with_gradients(&mut r, &name, x(), |[x]| {
                let points = beside(&points, &x);
                ops::voxelize(points, x, ids.clone(), &options).unwrap().into_feats()
            });
            for (interpolation, renormalize) in [
                (Interpolation::Nearest, false),
                (Interpolation::Linear, false),
                (Interpolation::Linear, true),
            ] {
                let name = format!("{name} and back, {interpolation:?} {renormalize}");
                let back = DevoxelizeOptions::new(grid)
                    .with_interpolation(interpolation)
                    .with_renormalize(renormalize);
                with_gradients(&mut r, &name, x(), |[x]| {
                    let points = beside(&points, &x);
                    let voxels = ops::voxelize(points.clone(), x, ids.clone(), &options).unwrap();
                    ops::devoxelize(&voxels, points, ids.clone(), &back).unwrap()
                });
            }
        }
        let coords = surface(14);
        let feats = || [tensor([coords.len(), 5], 4, dtype, device)];
        with_gradients(&mut r, "nearest neighbours", feats(), |[x]| {
            let x = sparse(&coords, x);
            ops::gather_neighbor_features(&x, &ops::knn_relation(&x, None, 5).unwrap()).unwrap()
        });
        for most in [None, Some(4)] {
            with_gradients(&mut r, &format!("neighbours within a radius, {most:?}"), feats(), |[x]| {
                let x = sparse(&coords, x);
                ops::gather_neighbor_features(&x, &ops::radius_relation(&x, None, 2.5, most).unwrap())
                    .unwrap()
            });
        }
        r
    });
}

#[test]
fn points_on_a_device_have_the_voxels_of_the_host() {
    for (name, device) in devices::gpus() {
        let grid = VoxelGrid::try_new([0.75, 0.3, 0.1], [0.1, -6.0, 0.0]).unwrap();
        let find = |device: &Device| {
            let (points, ids) = cloud(3000, device);
            let points = points.clone().slice_assign([70..71, 1..2], points.slice([0..1, 0..1]) * f32::NAN);
            let found =
                ops::sparse_quantize(points.clone(), Some(ids.clone()), &grid, NonFinite::Drop).unwrap();
            let map = ops::build_point_voxel_map(
                points,
                Some(ids),
                found.support(),
                &grid,
                Interpolation::Linear,
                false,
            );
            (found, map.unwrap())
        };
        let ((found, map), (expected, expected_map)) = (find(&device), find(&Device::flex()));
        assert!(!found.support().to_host().is_read(), "{name}: nothing was read yet");
        assert_eq!((found.n_points(), found.dropped()), (3000, 1), "{name}");
        assert!(found.support().same_rows(expected.support()), "{name}: voxels");
        for on in [&device, &Device::flex()] {
            assert_eq!(whole(found.voxel_of_point(on)), whole(expected.voxel_of_point(on)), "{name}");
            assert_eq!(whole(found.counts(on)), whole(expected.counts(on)), "{name}");
            assert_eq!(whole(map.rows(on)), whole(expected_map.rows(on)), "{name}");
            assert_eq!(read(&map.weights(on)), read(&expected_map.weights(on)), "{name}");
        }
        assert_eq!(found.to_host().counts, expected.to_host().counts, "{name}");
        assert_eq!(map.to_host(), expected_map.to_host(), "{name}");
    }
}

#[test]
fn rows_on_a_device_have_the_neighbours_of_the_host() {
    let (coords, queries) = (surface(14), surface(9));
    for (name, device) in devices::gpus() {
        type Find = fn(&SparseTensor, &SparseTensor) -> NeighbourRelation;
        let searches: [(&str, Find); 4] = [
            ("7 nearest", |source, query| ops::knn_relation(source, Some(query), 7).unwrap()),
            // More than a device keeps.
            ("100 nearest", |source, query| ops::knn_relation(source, Some(query), 100).unwrap()),
            ("within 3", |source, query| ops::radius_relation(source, Some(query), 3.0, None).unwrap()),
            ("9 within 3", |source, query| ops::radius_relation(source, Some(query), 3.0, Some(9)).unwrap()),
        ];
        for (what, find) in searches {
            let run = |device: &Device| {
                let rows =
                    |coords: &[Coord]| sparse(coords, tensor([coords.len(), 2], 1, DType::F32, device));
                find(&rows(&coords), &rows(&queries))
            };
            let (found, expected) = (run(&device), run(&Device::flex()));
            assert_eq!(found.n_queries(), expected.n_queries(), "{what} on {name}");
            assert_eq!(found.n_pairs(), expected.n_pairs(), "{what} on {name}");
            for on in [&device, &Device::flex()] {
                assert_eq!(whole(found.source_rows(on)), whole(expected.source_rows(on)), "{what} on {name}");
                assert_eq!(whole(found.query_rows(on)), whole(expected.query_rows(on)), "{what} on {name}");
                assert_eq!(
                    whole(found.neighbour_ids(on)),
                    whole(expected.neighbour_ids(on)),
                    "{what} on {name}"
                );
                assert_eq!(read(&found.distances(on)), read(&expected.distances(on)), "{what} on {name}");
            }
            assert_eq!(found.to_host(), expected.to_host(), "{what} on {name}");
        }
    }
}

#[test]
fn a_device_finds_what_is_wrong_with_points() {
    for (name, device) in devices::gpus() {
        let grid = VoxelGrid::cubic(0.5).unwrap();
        let texts = |device: &Device| -> Vec<String> {
            let points = |rows: &[[f32; 3]]| {
                let data = TensorData::new(rows.as_flattened().to_vec(), [rows.len(), 3]);
                Tensor::<2>::from_data(data, (device, DType::F32))
            };
            let ids = |ids: &[i32]| {
                Tensor::<1, Int>::from_data(TensorData::new(ids.to_vec(), [ids.len()]), (device, DType::I32))
            };
            let good = points(&[[1.0, 2.0, 3.0]; 3]);
            let infinite = points(&[[1.0; 3], [2.0; 3], [1.0, f32::INFINITY, 0.0]]);
            let far = points(&[[1.0; 3], [2.0; 3], [1.0, 0.0, 3e9]]);
            let quantized = [
                ops::sparse_quantize(infinite.clone(), None, &grid, NonFinite::Error),
                ops::sparse_quantize(far, None, &grid, NonFinite::Drop),
                ops::sparse_quantize(good.clone(), Some(ids(&[0, -1, 0])), &grid, NonFinite::Drop),
                ops::sparse_quantize(good.clone(), Some(ids(&[0, 1])), &grid, NonFinite::Drop),
                ops::sparse_quantize(good.clone().narrow(1, 0, 2), None, &grid, NonFinite::Drop),
            ];
            let voxels = Support::try_new(vec![[0, 2, 4, 6]]).unwrap();
            let mapped = [ids(&[3, 0, -2]), ids(&[1])].map(|ids| {
                let linear = Interpolation::Linear;
                ops::build_point_voxel_map(good.clone(), Some(ids), &voxels, &grid, linear, false)
                    .unwrap_err()
            });
            let texts = quantized.map(|found| found.unwrap_err().to_string());
            texts.into_iter().chain(mapped.map(|error| error.to_string())).collect()
        };
        assert_eq!(texts(&device), texts(&Device::flex()), "{name}");
        let empty = Tensor::<2>::zeros([0, 3], (&device, DType::F32));
        let found = ops::sparse_quantize(empty, None, &grid, NonFinite::Error).unwrap();
        assert_eq!((found.n_points(), found.support().n_rows()), (0, 0), "{name}");
    }
}

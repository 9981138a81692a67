//! Every operation on every GPU that is found, against the CPU: values and gradients, in each element type of the device.
#![allow(clippy::unwrap_used, reason = "tests")]

#[path = "harness/devices.rs"]
mod devices;

use burn::module::{Module, ModuleMapper, Param};
use burn::tensor::{DType, Device, Int, Tensor, TensorData};
use burn_lattice::nn::SubmConv3dConfig;
use burn_lattice::ops::{
    self, Axis, ConvEpilogue, ConvOptions, DevoxelizeOptions, NeighbourRelation, NonFinite, NormAffine,
    PoolMode, PoolOptions, Target, VoxelGrid, VoxelReduction, VoxelizeOptions,
};
use burn_lattice::{
    Activation, DeviceInfo, Error, Interpolation, Join, KernelSpec, SparseTensor, Support, SupportPolicy,
    routes,
};

type Coord = [i32; 4];

/// Named results of one device.
type Results = Vec<(String, Vec<f64>)>;

/// Values in -1..1, multiples of 1/64, which every element type holds exactly.
fn values(len: usize, seed: usize) -> Vec<f32> {
    (0..len).map(|i| ((i * 37 + seed * 101 + i / 7 * 13) % 127) as f32 / 64.0 - 63.0 / 64.0).collect()
}

fn tensor<const D: usize>(shape: [usize; D], seed: usize, dtype: DType, device: &Device) -> Tensor<D> {
    let values: Vec<f64> = values(shape.iter().product(), seed).into_iter().map(f64::from).collect();
    Tensor::from_data(TensorData::new(values, shape), (device, dtype))
}

fn read<const D: usize>(tensor: &Tensor<D>) -> Vec<f64> {
    tensor.clone().into_data().iter::<f64>().collect()
}

/// Rows of a rough surface in two batch items, in no order.
fn surface(side: i32) -> Vec<Coord> {
    let mut rows = Vec::new();
    for b in 0..2 {
        for x in -side / 2..side - side / 2 {
            for y in 0..side {
                rows.push([b, x, y - 3, (x * x + 3 * y + b).rem_euclid(7) - 2]);
            }
        }
    }
    let n = rows.len();
    (0..n).map(|i| rows[i * 7919 % n]).collect()
}

fn sparse(coords: &[Coord], feats: Tensor<2>) -> SparseTensor {
    SparseTensor::from_support(Support::try_new(coords.to_vec()).unwrap(), feats).unwrap()
}

/// How far results may be apart, of their largest value.
fn tolerance(dtype: DType) -> f64 {
    match dtype {
        DType::F16 => 4e-3,
        DType::BF16 => 3e-2,
        _ => 2e-5,
    }
}

#[track_caller]
fn compare(device: &str, dtype: DType, expected: &Results, found: &Results) {
    assert_eq!(expected.len(), found.len());
    for ((name, expected), (_, found)) in expected.iter().zip(found) {
        assert_eq!(expected.len(), found.len(), "{name} on {device} in {dtype:?}: length");
        let largest = expected.iter().fold(1.0f64, |most, v| most.max(v.abs()));
        for (at, (a, b)) in expected.iter().zip(found).enumerate() {
            let close = (a - b).abs() <= tolerance(dtype) * largest;
            assert!(close, "{name} on {device} in {dtype:?}: element {at} is {b}, on the CPU {a}");
        }
    }
}

/// Runs `work` on the CPU and on every GPU in the element types of both, and compares.
#[track_caller]
fn on_every_device(work: impl Fn(&Device, DType) -> Results) {
    for (name, device) in devices::gpus() {
        for dtype in DeviceInfo::of(&device).dtypes {
            compare(&name, dtype, &work(&Device::flex(), dtype), &work(&device, dtype));
        }
    }
}

/// Values of `f` without gradients, and values and gradients of all its inputs with them.
fn with_gradients<const N: usize>(
    results: &mut Results,
    name: &str,
    inputs: [Tensor<2>; N],
    f: impl Fn([Tensor<2>; N]) -> Tensor<2>,
) {
    results.push((format!("{name}, inference"), read(&f(inputs.clone()))));
    let leaves = inputs.map(|input| Tensor::from_inner(input).require_grad());
    let y = f(leaves.clone());
    results.push((format!("{name}, training"), read(&y)));
    let g = Tensor::from_inner(tensor(y.dims(), 99, y.dtype(), &y.device().without_autodiff()));
    let grads = (y * g).sum().backward();
    for (at, leaf) in leaves.iter().enumerate() {
        let grad = leaf.grad(&grads).unwrap_or_else(|| panic!("{name}: input {at} has no gradient"));
        results.push((format!("{name}, gradient {at}"), read(&grad)));
    }
}

/// A convolution of `x [n, c_in]`, a weight as `[taps * c_in / groups, c_out]` and a bias `[1, c_out]`.
fn convolution(
    results: &mut Results,
    name: &str,
    (device, dtype): (&Device, DType),
    coords: &[Coord],
    [c_in, c_out, groups, taps]: [usize; 4],
    run: impl Fn(&SparseTensor, Tensor<3>, Option<Tensor<1>>) -> SparseTensor,
) {
    let inputs = [
        tensor([coords.len(), c_in], 1, dtype, device),
        tensor([taps * c_in / groups, c_out], 2, dtype, device),
        tensor([1, c_out], 3, dtype, device),
    ];
    with_gradients(results, name, inputs, |[x, w, b]| {
        let w = w.reshape([taps, c_in / groups, c_out]);
        run(&sparse(coords, x).with_stride([2; 3]).unwrap(), w, Some(b.reshape([c_out]))).into_feats()
    });
}

fn options(size: u32, stride: u32) -> ConvOptions {
    ConvOptions::new(KernelSpec::cube(size, stride).unwrap())
}

#[test]
fn convolutions_of_every_kind_agree() {
    let coords = surface(24);
    let target = Support::try_new(surface(17)).unwrap();
    on_every_device(|device, dtype| {
        let on = (device, dtype);
        let mut r = Results::new();
        for (c_in, c_out, groups) in
            [(1, 3, 1), (5, 8, 1), (16, 32, 1), (32, 16, 1), (64, 96, 1), (12, 12, 12), (8, 12, 4)]
        {
            let name = format!("subm3 {c_in}->{c_out} in {groups}");
            convolution(&mut r, &name, on, &coords, [c_in, c_out, groups, 27], |x, w, b| {
                ops::subm_conv3d(x, w, b, &options(3, 1).with_groups(groups)).unwrap()
            });
        }
        convolution(&mut r, "subm5", on, &coords, [4, 4, 1, 125], |x, w, b| {
            ops::subm_conv3d(x, w, b, &options(5, 1)).unwrap()
        });
        convolution(&mut r, "pointwise", on, &coords, [9, 7, 1, 1], |x, w, b| {
            ops::subm_conv3d(x, w, b, &options(1, 1)).unwrap()
        });
        convolution(&mut r, "pointwise in groups", on, &coords, [8, 4, 2, 1], |x, w, b| {
            ops::subm_conv3d(x, w, b, &options(1, 1).with_groups(2)).unwrap()
        });
        for (size, stride) in [(2, 2), (3, 2)] {
            let taps = size as usize * size as usize * size as usize;
            let shape = [16, 16, 1, taps];
            let name = |what: &str| format!("{what} k{size}s{stride}");
            let o = options(size, stride);
            convolution(&mut r, &name("strided"), on, &coords, shape, |x, w, b| {
                ops::conv3d(x, w, b, &o, None).unwrap()
            });
            convolution(&mut r, &name("reach"), on, &coords, shape, |x, w, b| {
                let o = o.with_policy(SupportPolicy::KernelReach { range: None });
                ops::conv3d(x, w, b, &o, None).unwrap()
            });
            convolution(&mut r, &name("target"), on, &coords, shape, |x, w, b| {
                ops::conv3d(x, w, b, &o, Some(&Target::from(&target))).unwrap()
            });
            convolution(&mut r, &name("transposed"), on, &coords, shape, |x, w, b| {
                ops::conv_transpose3d(x, w, b, &o, None).unwrap()
            });
            convolution(&mut r, &name("transposed target"), on, &coords, shape, |x, w, b| {
                ops::conv_transpose3d(x, w, b, &o, Some(&Target::from(&target))).unwrap()
            });
            convolution(&mut r, &name("generative"), on, &coords, shape, |x, w, b| {
                ops::generative_conv_transpose3d(x, w, b, &o, None).unwrap()
            });
            convolution(&mut r, &name("inverse"), on, &coords, shape, |x, w, b| {
                let down = ops::conv3d(x, w.clone(), None, &o, None).unwrap();
                ops::inverse_conv3d(&down, w, b, &o).unwrap()
            });
        }
        // Its relation is given pair by pair.
        convolution(&mut r, "bev", on, &lifted(&coords), [6, 8, 1, 9], |x, w, b| {
            ops::bev_convolution(x, w, b, 2, Axis::Z).unwrap()
        });
        r
    });
}

/// The same rows with z from 0 on.
fn lifted(coords: &[Coord]) -> Vec<Coord> {
    coords.iter().map(|c| [c[0], c[1], c[2], c[3] + 2]).collect()
}

#[test]
fn every_route_of_a_device_agrees() {
    let coords = surface(20);
    for (name, device) in devices::gpus() {
        for dtype in DeviceInfo::of(&device).dtypes {
            let run = |device: &Device| {
                let x = sparse(&coords, tensor([coords.len(), 32], 1, dtype, device));
                let w = tensor([27, 32, 48], 2, dtype, device);
                ops::subm_conv3d(&x, w, None, &options(3, 1)).map(|y| read(y.feats()))
            };
            let expected = vec![("subm3".to_string(), run(&Device::flex()).unwrap())];
            let mut ran = Vec::new();
            for route in routes::CONV_ROUTES {
                let _forced = routes::force(route.name).unwrap();
                if let Ok(found) = run(&device) {
                    ran.push(route.name);
                    compare(&name, dtype, &expected, &vec![(route.name.to_string(), found)]);
                }
            }
            assert!(ran.len() >= 2, "{name}: the table has two routes at least for one group, ran {ran:?}");
        }
    }
}

#[test]
fn fused_convolutions_agree() {
    let coords = surface(20);
    on_every_device(|device, dtype| {
        let mut r = Results::new();
        let activations =
            [Activation::None, Activation::Relu, Activation::LeakyRelu(0.1), Activation::LeakyRelu(-0.5)];
        for (c, activation) in [16, 17, 64].into_iter().flat_map(|c| activations.map(|a| (c, a))) {
            for parts in 0..4 {
                let conv = SubmConv3dConfig::new([16, c]).init(device).map(&mut Seed { seed: 0, dtype });
                let x = sparse(&coords, tensor([coords.len(), 16], 1, dtype, device));
                let vector = |seed| tensor([c], seed, DType::F32, device);
                let epilogue = ConvEpilogue {
                    scale_shift: (parts & 1 == 1).then(|| (vector(7), vector(8))),
                    residual: (parts & 2 == 2).then(|| tensor([coords.len(), c], 9, dtype, device)),
                    activation,
                };
                let y = conv.try_forward(&x, epilogue).unwrap();
                r.push((format!("fused 16->{c} {activation:?}, parts {parts}"), read(y.feats())));
            }
        }
        r
    });
}

/// Sets parameters that do not depend on a device's random numbers, in one element type.
struct Seed {
    seed: usize,
    dtype: DType,
}

impl ModuleMapper for Seed {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        self.seed += 1;
        param.map(|t| tensor(t.dims(), self.seed, self.dtype, &t.device()))
    }
}

#[test]
fn row_operations_agree() {
    let coords = surface(24);
    let other = surface(17);
    let pool = PoolOptions::cube(3, 2).unwrap();
    on_every_device(|device, dtype| {
        let mut r = Results::new();
        for channels in [1, 5, 16] {
            let x = tensor([coords.len(), channels], 1, dtype, device);
            for mode in [PoolMode::Sum, PoolMode::Avg, PoolMode::Max] {
                with_gradients(&mut r, &format!("pool {mode:?} {channels}"), [x.clone()], |[x]| {
                    ops::pool3d(&sparse(&coords, x), mode, &pool).unwrap().into_feats()
                });
                // Rows of very many entries.
                with_gradients(&mut r, &format!("global {mode:?} {channels}"), [x.clone()], |[x]| {
                    ops::global_pool(&sparse(&coords, x), mode, None).unwrap()
                });
            }
        }
        let pair = [tensor([coords.len(), 8], 1, dtype, device), tensor([other.len(), 8], 2, dtype, device)];
        for join in [Join::Inner, Join::Outer, Join::Left] {
            with_gradients(&mut r, &format!("join {join:?}"), pair.clone(), |[a, b]| {
                let a = sparse(&coords, a);
                let rows = Support::try_new(other.clone()).unwrap();
                let b = SparseTensor::with_manager(rows, b, [1; 3], a.manager().clone()).unwrap();
                ops::sparse_add(&a, &b, join).unwrap().into_feats()
            });
        }
        r
    });
}

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

/// Whole numbers of a tensor.
fn whole<const D: usize>(tensor: Tensor<D, Int>) -> Vec<i64> {
    tensor.into_data().iter::<i64>().collect()
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

#[test]
fn batch_norms_agree() {
    let coords = surface(40);
    on_every_device(|device, dtype| {
        let mut r = Results::new();
        for (channels, activation) in [
            (1, Activation::None),
            (7, Activation::Relu),
            (64, Activation::LeakyRelu(0.125)),
            (33, Activation::LeakyRelu(-0.5)),
        ] {
            for with_residual in [false, true] {
                let inputs = [
                    tensor([coords.len(), channels], 1, dtype, device) * 3.0 + 2.0,
                    tensor([1, channels], 2, DType::F32, device),
                    tensor([1, channels], 3, DType::F32, device),
                    tensor([coords.len(), channels], 4, dtype, device),
                ];
                let name = format!("batch norm {channels} {activation:?} {with_residual}");
                with_gradients(&mut r, &name, inputs, |[x, gamma, beta, residual]| {
                    let x = sparse(&coords, x);
                    let affine = NormAffine::new(gamma.reshape([channels]), beta.reshape([channels]));
                    let other = x.with_feats(residual.clone()).unwrap();
                    let given = with_residual.then_some(&other);
                    let y = ops::batch_norm_residual(&x, affine, given, 1e-5, activation).unwrap();
                    // Every input has a gradient, if only zero.
                    y.into_feats() + residual * 0.0
                });
            }
        }
        r
    });
}

#[test]
fn two_runs_on_a_device_give_equal_bits() {
    let coords = surface(30);
    for (name, device) in devices::gpus() {
        let run = || {
            let mut r = Results::new();
            convolution(&mut r, "subm3", (&device, DType::F32), &coords, [16, 24, 1, 27], |x, w, b| {
                ops::subm_conv3d(x, w, b, &options(3, 1)).unwrap()
            });
            r
        };
        assert_eq!(run(), run(), "on {name}");
    }
}

/// Coordinates as an integer tensor of 32 bits.
fn coordinates(coords: &[Coord], device: &Device) -> Tensor<2, Int> {
    let flat: Vec<i32> = coords.iter().flatten().copied().collect();
    Tensor::from_data(TensorData::new(flat, [coords.len(), 4]), (device, DType::I32))
}

#[test]
fn supports_that_were_made_on_a_device_hold_the_rows_of_the_host() {
    let mut sorted = surface(24);
    sorted.sort_unstable();
    for (name, device) in devices::gpus() {
        for coords in [surface(24), sorted.clone()] {
            let made = Support::from_tensor(coordinates(&coords, &device)).unwrap();
            let given = Support::try_new(coords.clone()).unwrap();
            assert_eq!(made.to_host().bounds(), given.to_host().bounds(), "{name}");
            assert_eq!(made.to_host().is_canonical(), given.to_host().is_canonical(), "{name}");
            assert!(!made.to_host().is_read(), "{name}: nothing was read yet");
            let feats = |device: &Device| tensor([coords.len(), 4], 1, DType::F32, device);
            let on_device = SparseTensor::from_support(made, feats(&device)).unwrap().with_stride([6; 3]);
            let on_host =
                SparseTensor::from_support(given, feats(&Device::flex())).unwrap().with_stride([6; 3]);
            let (on_device, on_host) = (on_device.unwrap(), on_host.unwrap());
            let weight = |device: &Device, taps| tensor([taps, 4, 4], 2, DType::F32, device);
            for (size, stride) in [(2, 2), (3, 2), (3, 3), (2, 6)] {
                let o = options(size, stride);
                let reach = o.with_policy(SupportPolicy::KernelReach { range: Some([20, 30, 40]) });
                let taps = o.spec.taps();
                type Run = fn(&SparseTensor, Tensor<3>, &[ConvOptions; 2]) -> SparseTensor;
                let runs: [(&str, Run); 5] = [
                    ("strided", |x, w, o| ops::conv3d(x, w, None, &o[0], None).unwrap()),
                    ("reach", |x, w, o| ops::conv3d(x, w, None, &o[1], None).unwrap()),
                    ("transposed", |x, w, o| ops::conv_transpose3d(x, w, None, &o[0], None).unwrap()),
                    ("generative", |x, w, o| {
                        ops::generative_conv_transpose3d(x, w, None, &o[0], None).unwrap()
                    }),
                    ("down and up", |x, w, o| {
                        let down = ops::conv3d(x, w.clone(), None, &o[0], None).unwrap();
                        ops::inverse_conv3d(&down, w, None, &o[0]).unwrap()
                    }),
                ];
                for (kind, run) in runs {
                    let what = format!("{kind} k{size}s{stride} on {name}");
                    let found = run(&on_device, weight(&device, taps), &[o, reach]);
                    let expected = run(&on_host, weight(&Device::flex(), taps), &[o, reach]);
                    assert_eq!(found.n_rows(), expected.n_rows(), "rows of {what}");
                    assert_eq!(
                        found.support().to_host().bounds(),
                        expected.support().to_host().bounds(),
                        "bounds of {what}"
                    );
                    let rows: Vec<i64> = found.coords().into_data().iter::<i64>().collect();
                    let host = expected.support().to_host().coords().as_flattened();
                    assert!(
                        rows.iter().eq(&host.iter().map(|&v| i64::from(v)).collect::<Vec<_>>()),
                        "{what}"
                    );
                    assert!(found.support().same_rows(expected.support()), "rows of {what}");
                    compare(
                        &name,
                        DType::F32,
                        &vec![(what.clone(), read(expected.feats()))],
                        &vec![(what, read(found.feats()))],
                    );
                }
            }
        }
    }
}

/// A tensor on coordinates that were made on the device, and autodiff where the features have it.
fn made(coords: &[Coord], feats: Tensor<2>) -> SparseTensor {
    let rows = coordinates(coords, &feats.device());
    SparseTensor::from_support(Support::from_tensor(rows).unwrap(), feats).unwrap()
}

#[test]
fn joins_selections_and_grids_of_rows_on_a_device_agree() {
    let coords = surface(24);
    let other: Vec<Coord> = surface(17).into_iter().map(|c| [c[0], c[1] + 2, c[2], c[3]]).collect();
    let window = ops::BevWindow::new([30, 30, 4]).with_offset([-13, -4, -1]);
    on_every_device(|device, dtype| {
        let mut r = Results::new();
        let rows = |r: &mut Results, name: &str, y: &SparseTensor| {
            let flat = y.support().to_host().coords().as_flattened().iter().map(|&v| f64::from(v)).collect();
            r.push((format!("{name}, rows"), flat));
            r.push((
                format!("{name}, canonical"),
                vec![f64::from(u8::from(y.support().to_host().is_canonical()))],
            ));
            let (low, high) = y.support().to_host().bounds().unwrap();
            r.push((format!("{name}, bounds"), [low, high].concat().into_iter().map(f64::from).collect()));
        };
        let pair = [tensor([coords.len(), 8], 1, dtype, device), tensor([other.len(), 8], 2, dtype, device)];
        type Both = fn(&SparseTensor, &SparseTensor) -> SparseTensor;
        let joins: [(&str, Both); 8] = [
            ("inner", |a, b| ops::sparse_mul(a, b, Join::Inner).unwrap()),
            ("outer", |a, b| ops::sparse_sub(a, b, Join::Outer).unwrap()),
            ("left", |a, b| ops::sparse_add(a, b, Join::Left).unwrap()),
            ("right", |a, b| ops::sparse_add(a, b, Join::Right).unwrap()),
            ("generative", |a, b| ops::generative_add(a, b).unwrap()),
            ("generative, swapped", |a, b| ops::generative_add(b, a).unwrap()),
            ("cat", |a, b| ops::cat(&[a, b], Join::Outer).unwrap()),
            ("reindex", |a, b| ops::reindex_sparse(a, b, -1.0).unwrap() + b.clone()),
        ];
        for (name, join) in joins {
            let run = |[a, b]: [Tensor<2>; 2]| {
                let a = made(&coords, a);
                let rows = Support::from_tensor(coordinates(&other, &b.device())).unwrap();
                let b = SparseTensor::with_manager(rows, b, [1; 3], a.manager().clone()).unwrap();
                join(&a, &b)
            };
            rows(&mut r, name, &run(pair.clone()));
            with_gradients(&mut r, name, pair.clone(), |pair| run(pair).into_feats());
        }
        // Equal rows under two identities meet without a join, under that of the left operand.
        let twice = made(&coords, pair[0].clone());
        let again = made(&coords, pair[0].clone());
        let sum = ops::sparse_add(&twice, &again, Join::Inner).unwrap();
        r.push((
            "one identity".into(),
            vec![f64::from(u8::from(sum.support().same_identity(twice.support())))],
        ));

        type Choose = fn(&SparseTensor) -> SparseTensor;
        let selections: [(&str, Choose); 5] = [
            ("crop", |x| ops::crop(x, [-3, -2, -1], [5, 9, 3]).unwrap()),
            ("half open", |x| ops::crop_half_open(x, None, Some([5, 9, 3])).unwrap()),
            ("mask", |x| {
                let mask =
                    x.feats().clone().without_autodiff().narrow(1, 0, 1).flatten::<1>(0, 1).greater_elem(0.0);
                ops::prune_mask(x, mask).unwrap()
            }),
            ("top", |x| {
                let x = x.clone().with_batch_counts(&x.support().to_host().batch_counts()).unwrap();
                let rows = ops::topk_rows(&x, &[90, 4000], 0.5).unwrap();
                ops::prune(&x, rows).unwrap()
            }),
            ("flat", |x| ops::bev_reduction(x, Axis::Z).unwrap()),
        ];
        for (name, choose) in selections {
            rows(&mut r, name, &choose(&made(&coords, pair[0].clone())));
            with_gradients(&mut r, name, [pair[0].clone()], |[x]| choose(&made(&coords, x)).into_feats());
        }
        let lifted: Vec<Coord> = coords.iter().map(|c| [c[0], c[1] + 12, c[2] + 3, c[3] + 2]).collect();
        with_gradients(&mut r, "dense", [pair[0].clone()], |[x]| {
            ops::to_dense(&made(&lifted, x), [2, 24, 30, 8]).unwrap().flatten::<1>(0, 4).reshape([-1, 8])
        });
        with_gradients(&mut r, "folded", [pair[0].clone()], |[x]| {
            let image = ops::bev_height_compression(&made(&coords, x), &window, Axis::Z).unwrap();
            image.flatten::<1>(0, 3).reshape([-1, 8])
        });
        for mode in [PoolMode::Sum, PoolMode::Avg, PoolMode::Max] {
            with_gradients(&mut r, &format!("global {mode:?}"), [pair[0].clone()], |[x]| {
                ops::global_pool(&made(&coords, x), mode, Some(3 - usize::from(mode == PoolMode::Max)))
                    .unwrap()
            });
            let pool = PoolOptions::cube(3, 2).unwrap();
            with_gradients(&mut r, &format!("pool {mode:?}"), [pair[0].clone()], |[x]| {
                let x = made(&coords, x).with_batch_counts(&[coords.len() / 2; 2]).unwrap();
                let y = ops::pool3d(&x, mode, &pool).unwrap();
                assert_eq!(y.batch_counts().unwrap(), y.support().to_host().batch_counts());
                y.into_feats()
            });
        }
        for stride in [2, 3] {
            with_gradients(&mut r, &format!("upsampled by {stride}"), [pair[0].clone()], |[x]| {
                let x = made(&coords, x).with_stride([6; 3]).unwrap();
                ops::trilinear_upsample3d(&x, [stride; 3], None).unwrap().into_feats()
            });
        }
        r
    });
}

#[test]
fn work_between_points_and_predictions_reads_no_rows_back() {
    for (name, device) in devices::gpus() {
        let coords = surface(24);
        let x = made(&coords, tensor([coords.len(), 8], 1, DType::F32, &device));
        let down = ops::pool3d(&x, PoolMode::Max, &PoolOptions::cube(2, 2).unwrap()).unwrap();
        let up = ops::trilinear_upsample3d(&down, [2; 3], Some(&Target::from(&x))).unwrap();
        let joined = ops::sparse_add(&up, &x, Join::Outer).unwrap();
        let kept = ops::crop(&joined, [-4; 3], [4; 3]).unwrap();
        let pooled = ops::global_pool(&kept, PoolMode::Avg, Some(2)).unwrap();
        for (what, tensor) in [("input", &x), ("pooled", &down), ("joined", &joined), ("kept", &kept)] {
            assert!(!tensor.support().to_host().is_read(), "{what} rows were read on {name}");
        }
        assert_eq!(pooled.dims(), [2, 8], "{name}");
    }
}

#[test]
fn a_device_finds_what_is_wrong_with_coordinates() {
    for (name, device) in devices::gpus() {
        let support = |rows: &[Coord]| Support::from_tensor(coordinates(rows, &device));
        let error = support(&[[0, 1, 2, 3], [0, 0, 0, 0], [0, 1, 2, 3]]).unwrap_err();
        assert!(matches!(error, Error::DuplicateCoord { row: 2, .. }), "{name}: {error}");
        let error = support(&[[0, 1, 2, 3], [-1, 0, 0, 0]]).unwrap_err();
        assert!(matches!(error, Error::OutOfRange { row: 1, .. }), "{name}: {error}");
        let error = Support::from_tensor(coordinates(&surface(3), &device).narrow(1, 0, 3)).unwrap_err();
        assert!(matches!(error, Error::Shape { .. }), "{name}: {error}");
        assert_eq!(support(&[]).unwrap().n_rows(), 0, "{name}");
        // Children of the last coordinates would leave 32 bits.
        let far = support(&[[0, i32::MAX, 0, 0], [0, 0, 0, 0]]).unwrap();
        let x = SparseTensor::from_support(far, Tensor::ones([2, 4], (&device, DType::F32))).unwrap();
        let x = x.with_stride([2; 3]).unwrap();
        let weight = Tensor::ones([8, 4, 4], (&device, DType::F32));
        let error = ops::conv_transpose3d(&x, weight, None, &options(2, 2), None).unwrap_err();
        assert!(matches!(error, Error::OutOfRange { row: 0, .. }), "{name}: {error}");
    }
}

#[test]
fn a_gpu_refuses_what_it_cannot_compute() {
    for (name, device) in devices::gpus() {
        let far = [[0, i32::MAX, 0, 0], [0, 1 - i32::MAX, 0, 0]];
        let x = sparse(&far, Tensor::ones([2, 4], (&device, DType::F32)));
        let weight = Tensor::ones([27, 4, 4], (&device, DType::F32));
        let error = ops::subm_conv3d(&x, weight, None, &options(3, 1)).unwrap_err();
        assert!(matches!(error, Error::Limit { .. }), "{name}: {error}");
        let x = sparse(&far, Tensor::ones([2, 4], (&Device::flex(), DType::F32)));
        let weight = Tensor::ones([27, 4, 4], (&device, DType::F32));
        let error = ops::subm_conv3d(&x, weight, None, &options(3, 1)).unwrap_err();
        assert!(error.to_string().contains("device"), "{name}: {error}");
        if device.supports_dtype(DType::F64) {
            let double = Tensor::<2>::ones([2, 4], (&device, DType::F64));
            let error =
                SparseTensor::from_support(Support::try_new(far.to_vec()).unwrap(), double).unwrap_err();
            assert!(matches!(error, Error::Dtype { .. }), "{name}: {error}");
        }
    }
}

#[test]
fn empty_tensors_are_legal() {
    on_every_device(|device, dtype| {
        let mut r = Results::new();
        let empty = || sparse(&[], Tensor::zeros([0, 8], (device, dtype)));
        let target = Support::try_new(surface(5)).unwrap();
        let w = || Tensor::<3>::ones([27, 8, 4], (device, dtype));
        let y = ops::subm_conv3d(&empty(), w(), None, &options(3, 1)).unwrap();
        r.push(("subm3".into(), read(y.feats())));
        let bias = Tensor::<1>::ones([4], (device, dtype));
        let y = ops::conv3d(&empty(), w(), Some(bias), &options(3, 1), Some(&Target::from(&target))).unwrap();
        r.push(("target".into(), read(y.feats())));
        let y = ops::pool3d(&empty(), PoolMode::Max, &PoolOptions::cube(2, 2).unwrap()).unwrap();
        r.push(("pool".into(), read(y.feats())));
        let y = ops::global_pool(&empty(), PoolMode::Sum, Some(2)).unwrap();
        r.push(("global".into(), read(&y)));
        r
    });
}

//! Operations of rows: pooling, joins, selections, grids and norms, with their gradients.

use burn::tensor::{DType, Tensor};
use burn_lattice::ops::{self, Axis, NormAffine, PoolMode, PoolOptions, Target};
use burn_lattice::{Activation, Join, SparseTensor, Support};

use super::compare::{
    Coord, Results, coordinates, made, on_every_device, options, read, sparse, surface, tensor,
    with_gradients,
};
use super::devices;

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

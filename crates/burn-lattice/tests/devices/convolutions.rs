//! Convolutions of every kind and route, with their gradients.

use burn::module::Module;
use burn::tensor::{DType, Device, Tensor};
use burn_lattice::nn::SubmConv3dConfig;
use burn_lattice::ops::{self, Axis, ConvEpilogue, Target};
use burn_lattice::routes::DeviceClass;
use burn_lattice::{Activation, DeviceInfo, SparseTensor, Support, SupportPolicy, routes, trace};

use super::compare::{
    Coord, Results, Seed, compare, on_every_device, options, read, sparse, surface, tensor, with_gradients,
};
use super::devices;

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

/// The same rows with z from 0 on.
fn lifted(coords: &[Coord]) -> Vec<Coord> {
    coords.iter().map(|c| [c[0], c[1], c[2], c[3] + 2]).collect()
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

/// Kernels that have equally many operands, of other kinds: where kernels are kept on disk, the second run found that of the first.
#[test]
fn kernels_of_equally_many_operands_are_told_apart() {
    let coords = surface(12);
    on_every_device(|device, dtype| {
        let mut r = Results::new();
        for (bias, has_residual) in [(true, false), (false, true)] {
            let config = SubmConv3dConfig::new([16, 16]).with_bias(bias);
            let conv = config.init(device).map(&mut Seed { seed: 0, dtype });
            let x = sparse(&coords, tensor([coords.len(), 16], 1, dtype, device));
            let vector = |seed| tensor([16], seed, DType::F32, device);
            let epilogue = ConvEpilogue {
                scale_shift: Some((vector(7), vector(8))),
                residual: has_residual.then(|| tensor([coords.len(), 16], 9, dtype, device)),
                activation: Activation::LeakyRelu(0.25),
            };
            let y = conv.try_forward(&x, epilogue).unwrap();
            r.push((format!("bias {bias}, residual {has_residual}"), read(y.feats())));
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

#[test]
fn tables_that_a_device_holds_are_counted() {
    // Halos get all the room that they might need, 30 MB here, until somebody waits for their counts, as the report does.
    let coords = surface(200);
    let n = coords.len();
    let bytes = |device: &Device| {
        let x = sparse(&coords, tensor([n, 4], 1, DType::F32, device));
        ops::subm_conv3d(&x, tensor([27, 4, 4], 2, DType::F32, device), None, &options(3, 1)).unwrap();
        x.manager().report().device_bytes
    };
    assert_eq!(bytes(&Device::flex()), 0);
    for (name, device) in devices::gpus() {
        let bytes = bytes(&device);
        // A table of 16 bits a tap is 56 bytes a row, the rows that tiles stage and write 4 each; spconv has 216 in all.
        assert!((58 * n..=108 * n).contains(&bytes), "{name}: {bytes} bytes of {n} rows");
    }
}

/// A layer's weights are put in the order of the kernels once, though rows of tensors made from data have room between them on some devices,
/// and views have other strides.
#[test]
fn weights_are_put_in_order_once() {
    let coords = surface(12);
    for (name, device) in devices::gpus() {
        let dtype = DType::F16;
        if !DeviceInfo::of(&device).takes(dtype) {
            continue;
        }
        let x = sparse(&coords, tensor([coords.len(), 96], 1, dtype, &device));
        let taps = tensor([27, 96, 20], 2, dtype, &device);
        let view = tensor::<3>([27, 20, 96], 2, dtype, &device).swap_dims(1, 2);
        let linear = tensor::<2>([96, 20], 3, dtype, &device).transpose();
        let bias = tensor([20], 4, DType::F32, &device);
        let units = match DeviceClass::of(&device) {
            DeviceClass::Gpu(units) => units.manual || units.f16,
            DeviceClass::Cpu => panic!("a GPU"),
        };
        let derives_once = |layer: &str, run: &dyn Fn() -> Tensor<2>| {
            let before = trace::derived_forms();
            let first = read(&run());
            let derived = trace::derived_forms();
            assert_eq!(derived > before, units, "{layer} on {name}: weights have an order for matrix units");
            assert_eq!(first, read(&run()), "{layer} on {name}");
            assert_eq!(derived, trace::derived_forms(), "{layer} on {name}: derived again");
        };
        let conv = |weight: &Tensor<3>, bias: Option<Tensor<1>>| {
            ops::subm_conv3d(&x, weight.clone(), bias, &options(3, 1)).unwrap().into_feats()
        };
        derives_once("from data", &|| conv(&taps, Some(bias.clone())));
        derives_once("a view", &|| conv(&view, None));
        // Two views of one memory are two weights.
        let square = tensor::<3>([27, 96, 96], 5, dtype, &device);
        let turned = square.clone().swap_dims(1, 2);
        let copy = Tensor::<3>::from_data(turned.to_data(), (&device, dtype));
        derives_once("a square weight", &|| conv(&square, None));
        derives_once("the same, turned", &|| conv(&turned, None));
        assert_eq!(
            read(&conv(&turned, None)),
            read(&conv(&copy, None)),
            "{name}: a turned weight is another one"
        );
        // So are a bias and its beginning.
        let long = tensor::<1>([256], 6, DType::F32, &device);
        let wide = tensor::<2>([256, 96], 7, dtype, &device);
        let narrow = wide.clone().narrow(0, 0, 128);
        let linear_of = |weight: &Tensor<2>, bias: Tensor<1>| {
            read(&ops::linear_features(x.feats().clone(), weight.clone(), Some(bias)).unwrap())
        };
        let all = linear_of(&wide, long.clone());
        let some = linear_of(&narrow, long.narrow(0, 0, 128));
        for (all, some) in all.chunks(256).zip(some.chunks(128)) {
            let close = all.iter().zip(some).all(|(a, b)| (a - b).abs() <= 0.02 + 0.01 * a.abs());
            assert!(close, "{name}: the first channels of a wider layer");
        }
        derives_once("linear", &|| {
            ops::linear_features(x.feats().clone(), linear.clone(), Some(bias.clone())).unwrap()
        });
    }
}

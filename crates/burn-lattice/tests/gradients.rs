//! Gradients of every differentiable operation against central differences in f64, on the training device.
#![allow(clippy::unwrap_used, reason = "tests")]

mod harness;

use burn::tensor::{DType, Tensor};
use burn_lattice::ops::{
    self, ActivationKind, ConvOptions, DropoutKey, GeluApproximation, NormAffine, Target,
};
use burn_lattice::{Activation, Join, Result, SparseTensor};
use harness::*;
use lattice_testkit::offsets::Kernel;
use rstest::rstest;

const C_IN: usize = 4;
const C_OUT: usize = 6;

fn leaf(leaves: &[Tensor<1>], at: usize, shape: [usize; 2]) -> Tensor<2> {
    leaves[at].clone().reshape(shape)
}

type Conv = fn(&SparseTensor, Tensor<3>, Option<Tensor<1>>, &ConvOptions, &Target) -> Result<SparseTensor>;

/// Gradients of a convolution for `x`, weight and bias; `x` stands at `stride`.
fn check_conv(kernel: Kernel, stride: [u32; 3], groups: usize, conv: Conv) {
    let coords = Seeded::new(1).coords(14, 2, 2);
    let onto = Target::from(&support(&Seeded::new(2).coords(12, 2, 3)));
    let options = ConvOptions::new(spec(&kernel)).with_groups(groups);
    let mut seeded = Seeded::new(3);
    let leaves = [
        seeded.values(coords.len() * C_IN),
        seeded.values(kernel.taps() * C_IN / groups * C_OUT),
        seeded.values(C_OUT),
    ];
    check_gradients(&leaves, |leaves| {
        let x = sparse_at(&coords, leaf(leaves, 0, [coords.len(), C_IN]), stride);
        let weight = leaves[1].clone().reshape([kernel.taps(), C_IN / groups, C_OUT]);
        conv(&x, weight, Some(leaves[2].clone()), &options, &onto).unwrap().into_feats()
    });
}

const TWO: Kernel = Kernel::new([2, 2, 1], [2; 3], [0; 3], [1; 3]);
const THREE: Kernel = Kernel::new([3, 1, 3], [1; 3], [0; 3], [1; 3]);

fn convolutions() -> Vec<(&'static str, Kernel, usize, Conv)> {
    vec![
        ("submanifold", THREE, 1, |x, w, b, o, _| ops::subm_conv3d(x, w, b, o)),
        ("submanifold in groups", THREE, 2, |x, w, b, o, _| ops::subm_conv3d(x, w, b, o)),
        ("pointwise", Kernel::cube(1, 1), 1, |x, w, b, o, _| ops::subm_conv3d(x, w, b, o)),
        ("pointwise in groups", Kernel::cube(1, 1), 2, |x, w, b, o, _| ops::subm_conv3d(x, w, b, o)),
        ("strided", TWO, 1, |x, w, b, o, _| ops::conv3d(x, w, b, o, None)),
        ("onto a target", THREE, 1, |x, w, b, o, t| ops::conv3d(x, w, b, o, Some(t))),
        ("transposed", TWO, 1, |x, w, b, o, _| ops::conv_transpose3d(x, w, b, o, None)),
        ("transposed onto a target", TWO, 2, |x, w, b, o, t| ops::conv_transpose3d(x, w, b, o, Some(t))),
        ("generative", TWO, 1, |x, w, b, o, _| ops::generative_conv_transpose3d(x, w, b, o, None)),
        ("normalized", THREE, 1, |x, w, b, o, _| ops::normalized_subm_conv3d(x, w, b, o, 1e-2)),
        ("normalized in groups", THREE, 2, |x, w, b, o, _| ops::normalized_subm_conv3d(x, w, b, o, 1e-2)),
        ("normalized transposed", TWO, 1, |x, w, b, o, _| {
            ops::normalized_conv_transpose3d(x, w, b, o, None, 1e-2)
        }),
        ("normalized onto a target", TWO, 1, |x, w, b, o, t| {
            ops::normalized_conv_transpose3d(x, w, b, o, Some(t), 1e-2)
        }),
        ("normalized generative", TWO, 1, |x, w, b, o, _| {
            ops::normalized_generative_conv_transpose3d(x, w, b, o, None, 1e-2)
        }),
    ]
}

#[test]
fn every_convolution() {
    for (name, kernel, groups, conv) in convolutions() {
        println!("{name}");
        // At stride 2 everything that makes a tensor finer is possible, and targets are given at the output's stride.
        check_conv(kernel, [2; 3], groups, conv);
    }
}

#[test]
fn inverse_convolution() {
    let coords = Seeded::new(4).coords(14, 2, 2);
    let options = ConvOptions::new(spec(&TWO));
    let mut seeded = Seeded::new(5);
    let fine = sparse_at(&coords, Tensor::ones([coords.len(), 1], (&training(), widest())), [1; 3]);
    let ones = Tensor::ones([TWO.taps(), 1, 1], (&training(), widest()));
    let coarse = ops::conv3d(&fine, ones, None, &options, None).unwrap();
    let leaves = [seeded.values(coarse.n_rows() * C_IN), seeded.values(TWO.taps() * C_IN * C_OUT)];
    check_gradients(&leaves, |leaves| {
        let x = coarse.with_feats(leaf(leaves, 0, [coarse.n_rows(), C_IN])).unwrap();
        let weight = leaves[1].clone().reshape([TWO.taps(), C_IN, C_OUT]);
        ops::inverse_conv3d(&x, weight, None, &options).unwrap().into_feats()
    });
}

#[test]
fn a_residual_network_end_to_end() {
    let coords = Seeded::new(6).coords(16, 2, 2);
    let subm = ConvOptions::new(spec(&THREE));
    let down = ConvOptions::new(spec(&TWO));
    let mut seeded = Seeded::new(7);
    let leaves = [
        seeded.values(coords.len() * 3),
        seeded.values(THREE.taps() * 3 * 3),
        seeded.values(TWO.taps() * 3 * 3),
        seeded.values(TWO.taps() * 3 * 3),
        seeded.values(6 * 3),
    ];
    check_gradients(&leaves, |leaves| {
        let weight = |at: usize, taps: usize| leaves[at].clone().reshape([taps, 3, 3]);
        let x = sparse_at(&coords, leaf(leaves, 0, [coords.len(), 3]), [1; 3]);
        let a = ops::subm_conv3d(&x, weight(1, THREE.taps()), None, &subm).unwrap();
        let a = ops::silu(&ops::batch_norm(&a, NormAffine::default(), None, 1e-2).unwrap());
        let coarse = ops::conv3d(&a, weight(2, TWO.taps()), None, &down, None).unwrap();
        let up = ops::conv_transpose3d(&coarse, weight(3, TWO.taps()), None, &down, Some(&Target::from(&x)))
            .unwrap();
        let joined = Tensor::cat(vec![up.into_feats(), a.into_feats()], 1);
        ops::linear_features(joined, leaf(leaves, 4, [3, 6]), None).unwrap()
    });
}

#[rstest]
#[case(ActivationKind::Sigmoid)]
#[case(ActivationKind::Tanh)]
#[case(ActivationKind::Silu)]
#[case(ActivationKind::Gelu(GeluApproximation::None))]
#[case(ActivationKind::Gelu(GeluApproximation::Tanh))]
#[case(ActivationKind::Gelu(GeluApproximation::Fast))]
#[case(ActivationKind::LeakyRelu { negative_slope: 0.2 })]
#[case(ActivationKind::Softplus { beta: 2.0, threshold: 20.0 })]
#[case(ActivationKind::Relu)]
fn activations(#[case] kind: ActivationKind) {
    // Away from 0, where two of them have a corner.
    let x: Vec<f64> = Seeded::new(8).values(24).iter().map(|v| v * 3.0 + 0.01).collect();
    check_gradients(&[x], |leaves| ops::activation_features(leaf(leaves, 0, [6, 4]), kind).unwrap());
}

#[test]
fn linear() {
    let mut seeded = Seeded::new(9);
    let leaves = [seeded.values(5 * 3), seeded.values(4 * 3), seeded.values(4)];
    check_gradients(&leaves, |leaves| {
        ops::linear_features(leaf(leaves, 0, [5, 3]), leaf(leaves, 1, [4, 3]), Some(leaves[2].clone()))
            .unwrap()
    });
}

#[test]
fn norms_with_their_statistics() {
    let coords = Seeded::new(10).coords(9, 3, 3);
    let n = coords.len();
    let mut seeded = Seeded::new(11);
    let leaves = [seeded.values(n * 4), seeded.values(4), seeded.values(4)];
    let forms: [fn(&SparseTensor, NormAffine) -> Result<SparseTensor>; 5] = [
        |x, affine| ops::batch_norm(x, affine, None, 1e-2),
        |x, affine| ops::layer_norm(x, affine, 1e-2),
        |x, affine| ops::group_norm(x, 2, affine, 1e-2),
        |x, affine| ops::instance_norm(x, affine, 1e-2),
        |x, affine| {
            let bias = affine.bias.clone().unwrap();
            let y = ops::rms_norm(x, affine.scale, 1e-2)?;
            y.with_feats(y.feats().clone() + bias.unsqueeze())
        },
    ];
    for norm in forms {
        check_gradients(&leaves, |leaves| {
            let x = sparse_at(&coords, leaf(leaves, 0, [n, 4]), [1; 3]);
            norm(&x, NormAffine::new(leaves[1].clone(), leaves[2].clone())).unwrap().into_feats()
        });
    }
}

#[test]
fn batch_norm_with_its_residual_and_activation() {
    let coords = Seeded::new(16).coords(11, 3, 3);
    let n = coords.len();
    let mut seeded = Seeded::new(17);
    let leaves = [seeded.values(n * 5), seeded.values(5), seeded.values(5), seeded.values(n * 5)];
    for activation in [
        Activation::None,
        Activation::Relu,
        Activation::LeakyRelu(0.3),
        // Its sign does not tell what passed: a step of its own.
        Activation::LeakyRelu(-0.4),
    ] {
        check_gradients(&leaves, |leaves| {
            let x = sparse_at(&coords, leaf(leaves, 0, [n, 5]), [1; 3]);
            let residual = x.with_feats(leaf(leaves, 3, [n, 5])).unwrap();
            let affine = NormAffine::new(leaves[1].clone(), leaves[2].clone());
            ops::batch_norm_residual(&x, affine, Some(&residual), 1e-2, activation).unwrap().into_feats()
        });
    }
}

#[test]
fn dropout_has_the_gradient_of_its_mask() {
    let x = Seeded::new(12).values(40);
    let key = DropoutKey { seed: 5, call: 1 };
    check_gradients(&[x], |leaves| ops::dropout_features(leaf(leaves, 0, [10, 4]), 0.4, key).unwrap());
}

#[test]
fn joins_with_their_own_rows() {
    let (a, b) = (Seeded::new(13).coords(12, 2, 2), Seeded::new(14).coords(12, 2, 2));
    let mut seeded = Seeded::new(15);
    let leaves = [seeded.values(a.len() * 2), seeded.values(b.len() * 2)];
    for join in [Join::Inner, Join::Left, Join::Right, Join::Outer] {
        check_gradients(&leaves, |leaves| {
            let x = sparse_at(&a, leaf(leaves, 0, [a.len(), 2]), [1; 3]);
            let y = sparse_at(&b, leaf(leaves, 1, [b.len(), 2]), [1; 3]);
            ops::sparse_add(&x, &y, join).unwrap().into_feats()
        });
    }
}

/// Features and weight that are constants of a plain device do not keep a bias from its gradient: one for each row.
#[test]
fn a_bias_alone_has_its_gradient() {
    let device = inference();
    let coords = line(&(0..9).collect::<Vec<_>>());
    let plain = |seed, shape: [usize; 2]| {
        tensor::<2>(&Seeded::new(seed).values(shape[0] * shape[1]), shape, DType::F32, &device)
    };
    let bias = || tensor::<1>(&[0.5, -1.0], [2], DType::F32, &training()).require_grad();
    let gradient = |bias: &Tensor<1>, y: Tensor<2>| read(&bias.grad(&y.sum().backward()).unwrap());
    let b = bias();
    let y = ops::linear_features(plain(1, [9, 3]), plain(2, [2, 3]), Some(b.clone())).unwrap();
    assert_eq!(gradient(&b, y), [9.0, 9.0]);
    let b = bias();
    let x = sparse_at(&coords, plain(3, [9, 3]), [1; 3]);
    let weight = plain(4, [27 * 3, 2]).reshape([27, 3, 2]);
    let options = ConvOptions::new(spec(&Kernel::cube(3, 1)));
    let y = ops::subm_conv3d(&x, weight, Some(b.clone()), &options).unwrap();
    assert_eq!(gradient(&b, y.into_feats()), [9.0, 9.0]);
}

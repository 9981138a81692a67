//! Feature operations against their definitions: linear, activations, norms, dropout.
#![allow(clippy::unwrap_used, reason = "tests")]
#![allow(clippy::approx_constant, reason = "the examples are written as they are printed")]

mod harness;

use burn::tensor::{DType, Tensor};
use burn_lattice::ops::{self, ActivationKind, DropoutKey, GeluApproximation, NormAffine, NormStatistics};
use burn_lattice::{Activation, Error, SparseTensor};
use harness::*;
use lattice_testkit::features as definition;
use lattice_testkit::normalisation::{self, Sets};
use lattice_testkit::tolerances::{EXACT, PRINTED, Tolerance, assert_close};
use rstest::rstest;

/// Rows of features at `[0, row, 0, 0]`.
fn rows_of(feats: Tensor<2>) -> SparseTensor {
    let rows = feats.dims()[0] as i32;
    sparse_at(&line(&(0..rows).collect::<Vec<_>>()), feats, [1; 3])
}

fn kind_of(activation: definition::Activation) -> ActivationKind {
    use definition::Activation as From;
    match activation {
        From::Relu => ActivationKind::Relu,
        From::Sigmoid => ActivationKind::Sigmoid,
        From::Tanh => ActivationKind::Tanh,
        From::Silu => ActivationKind::Silu,
        From::Gelu => ActivationKind::Gelu(GeluApproximation::None),
        From::GeluTanh => ActivationKind::Gelu(GeluApproximation::Tanh),
        From::GeluFast => ActivationKind::Gelu(GeluApproximation::Fast),
        From::LeakyRelu { alpha } => ActivationKind::LeakyRelu { negative_slope: alpha },
        From::Softplus { beta, threshold } => ActivationKind::Softplus { beta, threshold },
    }
}

#[rstest]
#[case::gelu_none(ops::ActivationKind::Gelu(GeluApproximation::None), [-0.15865529, 0., 0.84134471, 1.9544998])]
#[case::gelu_tanh(ops::ActivationKind::Gelu(GeluApproximation::Tanh), [-0.15880799, 0., 0.84119201, 1.9545977])]
#[case::gelu_fast(ops::ActivationKind::Gelu(GeluApproximation::Fast), [-0.15420423, 0., 0.84579575, 1.9356586])]
#[case::silu(ops::ActivationKind::Silu, [-0.26894143, 0., 0.73105860, 1.7615942])]
#[case::softplus(
    ops::ActivationKind::Softplus { beta: 1.0, threshold: 20.0 },
    [0.31326166, 0.69314718, 1.3132616, 2.1269279]
)]
#[case::softplus_of_beta_2(
    ops::ActivationKind::Softplus { beta: 2.0, threshold: 20.0 },
    [0.06346402, 0.34657359, 1.0634639, 2.0090749]
)]
#[case::leaky_relu(ops::ActivationKind::LeakyRelu { negative_slope: 0.01 }, [-0.01, 0., 1., 2.])]
fn worked_examples_of_activations(#[case] kind: ActivationKind, #[case] expected: [f64; 4]) {
    let x = rows_of(tensor(&[-1., 0., 1., 2.], [2, 2], DType::F32, &inference()));
    let y = ops::activation(&x, kind).unwrap();
    assert_close(&expected, &read(y.feats()), PRINTED);
    assert!(y.same_coords(&x));
}

#[rstest]
fn activations_and_their_gradients_match_in_every_element_type(
    #[values(DType::F32, DType::F64, DType::F16, DType::BF16)] dtype: DType,
) {
    if !devices::has(dtype) {
        return;
    }
    let mut values =
        vec![0.0, 0.5, -0.5, 3.0, -3.0, 7.5, -7.5, 12.0, -12.0, 25.0, -25.0, 90.0, -90.0, 200.0, -200.0];
    values.extend(Seeded::new(1).values(31));
    let shape = [values.len() / 2, 2];
    let device = training();
    let g = Seeded::new(2).values(values.len());
    for activation in definition::Activation::ALL {
        let leaf = tensor(&values, shape, dtype, &device).require_grad();
        let x = read(&leaf);
        let y = ops::activation(&rows_of(leaf.clone()), kind_of(activation)).unwrap();
        assert_eq!(y.dtype(), dtype);
        assert_close(&activation.apply(&x), &read(y.feats()), tolerance(dtype));
        let grads = (y.feats().clone() * tensor(&g, shape, dtype, &device)).sum().backward();
        assert_close(&activation.grad(&x, &g), &read(&leaf.grad(&grads).unwrap()), tolerance(dtype));
    }
}

#[test]
fn named_forms_are_the_general_one() {
    let x = rows_of(tensor(&Seeded::new(3).values(20), [5, 4], DType::F32, &inference()));
    let same = |named: SparseTensor, kind: ActivationKind| {
        assert_close(&read(ops::activation(&x, kind).unwrap().feats()), &read(named.feats()), EXACT);
        let bare = ops::activation_features(x.feats().clone(), kind).unwrap();
        assert_close(&read(&bare), &read(named.feats()), EXACT);
    };
    same(ops::relu(&x), ActivationKind::Relu);
    same(ops::sigmoid(&x), ActivationKind::Sigmoid);
    same(ops::tanh(&x), ActivationKind::Tanh);
    same(ops::silu(&x), ActivationKind::Silu);
    same(ops::gelu(&x, GeluApproximation::Tanh), ActivationKind::Gelu(GeluApproximation::Tanh));
    same(ops::leaky_relu(&x, 0.2).unwrap(), ActivationKind::LeakyRelu { negative_slope: 0.2 });
    same(ops::softplus(&x, 2.0, 1.0).unwrap(), ActivationKind::Softplus { beta: 2.0, threshold: 1.0 });
}

#[test]
fn nan_passes_through_activations() {
    let device = inference();
    let x = rows_of(tensor(&[f64::NAN, 1.0], [1, 2], DType::F32, &device));
    for activation in definition::Activation::ALL {
        let y = read(ops::activation(&x, kind_of(activation)).unwrap().feats());
        assert!(y[0].is_nan() && !y[1].is_nan(), "{activation:?}");
    }
}

#[test]
fn activation_names_are_read_and_attributes_checked() {
    for name in ["relu", "sigmoid", "gelu", "silu", "leaky_relu", "tanh", "softplus"] {
        assert_eq!(name.parse::<ActivationKind>().unwrap().name(), name);
    }
    let read = |name: &str| name.parse::<ActivationKind>().unwrap();
    assert_eq!(read("leaky_relu"), ActivationKind::LeakyRelu { negative_slope: 0.01 });
    assert_eq!(read("softplus"), ActivationKind::Softplus { beta: 1.0, threshold: 20.0 });
    assert!(matches!("elu".parse::<ActivationKind>(), Err(Error::Value { .. })));
    assert!(matches!("sometimes".parse::<GeluApproximation>(), Err(Error::Value { .. })));

    let from = ActivationKind::from_attributes;
    assert_eq!(from("gelu", "fast", 0.1, 1.0, 20.0).unwrap(), ActivationKind::Gelu(GeluApproximation::Fast));
    assert_eq!(
        from("gelu", "precise", 0.1, 1.0, 20.0).unwrap(),
        ActivationKind::Gelu(GeluApproximation::None)
    );
    let leaky = from("leaky_relu", "none", 0.1, 1.0, 20.0).unwrap();
    assert_eq!(leaky, ActivationKind::LeakyRelu { negative_slope: 0.1 });
    for (kind, approximate, alpha, beta) in [
        ("relu", "none", -0.1, 1.0),
        ("relu", "none", 0.1, 0.0),
        ("relu", "some", 0.1, 1.0),
        ("prelu", "none", 0.1, 1.0),
    ] {
        assert!(from(kind, approximate, alpha, beta, 20.0).is_err(), "{kind} {approximate} {alpha} {beta}");
    }
    let x = rows_of(Tensor::ones([1, 1], &inference()));
    assert!(matches!(ops::leaky_relu(&x, -1.0), Err(Error::Value { .. })));
    assert!(matches!(ops::leaky_relu(&x, f64::NAN), Err(Error::Value { .. })));
    assert!(matches!(ops::softplus(&x, 0.0, 20.0), Err(Error::Value { .. })));
}

#[test]
fn worked_example_linear() {
    let device = inference();
    let x = rows_of(tensor(&[1., 2.], [1, 2], DType::F32, &device));
    let weight = tensor(&[1., 0., 0., 1., 1., 1.], [3, 2], DType::F32, &device);
    let bias = tensor(&[0., 0., 10.], [3], DType::F32, &device);
    let y = ops::linear(&x, weight.clone(), Some(bias.clone())).unwrap();
    assert_eq!(read(y.feats()), [1., 2., 13.]);
    assert!(y.same_coords(&x));
    let bare = ops::linear_features(x.feats().clone(), weight, Some(bias)).unwrap();
    assert_eq!(read(&bare), [1., 2., 13.]);
}

#[rstest]
fn linear_and_its_gradients_match(
    #[values(DType::F32, DType::F64, DType::F16, DType::BF16)] dtype: DType,
    #[values((0, 3, 5), (1, 1, 1), (7, 17, 33), (300, 32, 20))] size: (usize, usize, usize),
) {
    if !devices::has(dtype) {
        return;
    }
    let (rows, c_in, c_out) = size;
    let mut seeded = Seeded::new(4);
    let (x, w, b) = (seeded.values(rows * c_in), seeded.values(c_in * c_out), seeded.values(c_out));
    let g = seeded.values(rows * c_out);
    let device = training();
    let x_leaf = tensor(&x, [rows, c_in], dtype, &device).require_grad();
    let w_leaf = tensor(&w, [c_out, c_in], dtype, &device).require_grad();
    let b_leaf = tensor(&b, [c_out], dtype, &device).require_grad();
    let y = ops::linear(&rows_of(x_leaf.clone()), w_leaf.clone(), Some(b_leaf.clone())).unwrap();
    let expected = definition::linear(&x, &w, Some(&b), c_in, c_out);
    assert_close(&expected, &read(y.feats()), tolerance(dtype).scaled(4.0));
    let grads = (y.feats().clone() * tensor(&g, [rows, c_out], dtype, &device)).sum().backward();
    let (dx, dw, db) = definition::linear_grads(&x, &w, &g, c_in, c_out);
    let scaled = |n: usize| tolerance(dtype).scaled((n as f64).sqrt() * 2.0);
    assert_close(&dx, &read(&x_leaf.grad(&grads).unwrap()), scaled(c_out));
    assert_close(&dw, &read(&w_leaf.grad(&grads).unwrap()), scaled(rows));
    assert_close(&db, &read(&b_leaf.grad(&grads).unwrap()), scaled(rows));
}

#[test]
fn linear_refuses_what_does_not_fit() {
    let device = inference();
    let x = rows_of(Tensor::ones([2, 3], &device));
    let ones = |shape: [usize; 2]| Tensor::<2>::ones(shape, &device);
    let error = ops::linear(&x, ones([5, 4]), None).unwrap_err();
    assert!(matches!(error, Error::Channels { expected: 4, found: 3, .. }), "{error}");
    let error = ops::linear(&x, ones([5, 3]), Some(Tensor::ones([3], &device))).unwrap_err();
    assert!(matches!(error, Error::Shape { .. }), "{error}");
    let error = ops::linear_features(ones([2, 3]), ones([5, 3]).cast(burn::tensor::FloatDType::F64), None)
        .unwrap_err();
    assert!(matches!(error, Error::Dtype { .. }), "{error}");
}

/// `X` of the worked examples of norms.
const X: [f64; 6] = [1., 2., 3., 4., 8., 0.];

#[test]
fn worked_examples_of_norms() {
    let x = rows_of(tensor(&X, [2, 3], DType::F32, &inference()));
    let y = ops::layer_norm(&x, NormAffine::default(), 1e-5).unwrap();
    let expected = [-1.2247356, 0., 1.2247356, 0., 1.2247443, -1.2247443];
    assert_close(&expected, &read(y.feats()), PRINTED);
    let y = ops::rms_norm(&x, None, 1e-5).unwrap();
    let expected = [0.46290955, 0.9258191, 1.3887286, 0.77459645, 1.5491929, 0.];
    assert_close(&expected, &read(y.feats()), PRINTED);
    let y = ops::batch_norm(&x, NormAffine::default(), None, 1e-5).unwrap();
    let expected = [-0.9999978, -0.9999994, 0.9999978, 0.9999978, 0.9999994, -0.9999978];
    assert_close(&expected, &read(y.feats()), PRINTED);
}

/// Rows of batch items 0, 2 and 3, mixed.
fn batched() -> Vec<Coord> {
    let items = [0, 2, 3, 2, 0, 0, 3, 2, 2, 0, 2];
    items.iter().enumerate().map(|(row, &item)| [item, row as i32, 0, 0]).collect()
}

#[derive(Clone, Copy, Debug)]
enum Norm {
    Batch,
    Layer,
    Group(usize),
    Instance,
}

#[rstest]
fn norms_and_their_gradients_match(
    #[values(Norm::Batch, Norm::Layer, Norm::Group(1), Norm::Group(2), Norm::Group(6), Norm::Instance)] norm: Norm,
    #[values(DType::F32, DType::F64, DType::F16, DType::BF16)] dtype: DType,
) {
    if !devices::has(dtype) {
        return;
    }
    let coords = batched();
    let (rows, c, eps) = (coords.len(), 6, 1e-3);
    let items: Vec<i32> = coords.iter().map(|c| c[0]).collect();
    let sets = match norm {
        Norm::Batch => Sets::Channel,
        Norm::Layer => Sets::Row,
        Norm::Group(groups) => Sets::ItemGroup { batch: items, groups },
        Norm::Instance => Sets::instance(&items, c),
    };
    let mut seeded = Seeded::new(6);
    let (x, scale, bias) = (seeded.values(rows * c), seeded.values(c), seeded.values(c));
    let g = seeded.values(rows * c);
    let device = training();
    let x_leaf = tensor(&x, [rows, c], dtype, &device).require_grad();
    let scale_leaf = tensor(&scale, [c], dtype, &device).require_grad();
    let bias_leaf = tensor(&bias, [c], dtype, &device).require_grad();
    let input = sparse_at(&coords, x_leaf.clone(), [1; 3]);
    let affine = NormAffine::new(scale_leaf.clone(), bias_leaf.clone());
    let y = match norm {
        Norm::Batch => ops::batch_norm(&input, affine, None, eps),
        Norm::Layer => ops::layer_norm(&input, affine, eps),
        Norm::Group(groups) => ops::group_norm(&input, groups, affine, eps),
        Norm::Instance => ops::instance_norm(&input, affine, eps),
    }
    .unwrap();
    assert_eq!(y.dtype(), dtype);
    assert!(y.same_coords(&input));
    let expected = normalisation::normalize(&x, c, &sets, &scale, &bias, eps);
    assert_close(&expected, &read(y.feats()), tolerance(dtype));
    let grads = (y.feats().clone() * tensor(&g, [rows, c], dtype, &device)).sum().backward();
    let (dx, dscale, dbias) = normalisation::normalize_grads(&x, &g, c, &sets, &scale, eps);
    assert_close(&dx, &read(&x_leaf.grad(&grads).unwrap()), tolerance(dtype).scaled(4.0));
    assert_close(&dscale, &read(&scale_leaf.grad(&grads).unwrap()), tolerance(dtype).scaled(4.0));
    assert_close(&dbias, &read(&bias_leaf.grad(&grads).unwrap()), tolerance(dtype).scaled(4.0));
}

#[rstest]
fn rms_norm_and_its_gradients_match(#[values(DType::F32, DType::F64, DType::F16, DType::BF16)] dtype: DType) {
    if !devices::has(dtype) {
        return;
    }
    let (rows, c, eps) = (9, 5, 1e-3);
    let mut seeded = Seeded::new(7);
    let (x, scale, g) = (seeded.values(rows * c), seeded.values(c), seeded.values(rows * c));
    let device = training();
    let x_leaf = tensor(&x, [rows, c], dtype, &device).require_grad();
    let scale_leaf = tensor(&scale, [c], dtype, &device).require_grad();
    let y = ops::rms_norm(&rows_of(x_leaf.clone()), Some(scale_leaf.clone()), eps).unwrap();
    assert_close(&normalisation::rms_norm(&x, &scale, eps), &read(y.feats()), tolerance(dtype).scaled(2.0));
    let grads = (y.feats().clone() * tensor(&g, [rows, c], dtype, &device)).sum().backward();
    let (dx, dscale) = normalisation::rms_norm_grads(&x, &g, &scale, eps);
    assert_close(&dx, &read(&x_leaf.grad(&grads).unwrap()), tolerance(dtype).scaled(4.0));
    assert_close(&dscale, &read(&scale_leaf.grad(&grads).unwrap()), tolerance(dtype).scaled(4.0));
}

#[test]
fn batch_norm_takes_given_statistics() {
    let device = inference();
    let (c, eps) = (4, 1e-5);
    let mut seeded = Seeded::new(8);
    let (x, mean) = (seeded.values(28), seeded.values(c));
    let var: Vec<f64> = seeded.values(c).iter().map(|v| v.abs() + 0.5).collect();
    let (scale, bias) = (seeded.values(c), seeded.values(c));
    let vector = |v: &[f64]| tensor(v, [c], widest(), &device);
    let y = ops::batch_norm(
        &rows_of(tensor(&x, [7, c], widest(), &device)),
        NormAffine::new(vector(&scale), vector(&bias)),
        Some(NormStatistics { mean: vector(&mean), var: vector(&var) }),
        eps,
    )
    .unwrap();
    let expected = normalisation::batch_norm_fixed(&x, &mean, &var, &scale, &bias, eps);
    assert_close(&expected, &read(y.feats()), tolerance(widest()));
}

#[test]
fn statistics_are_not_taken_in_half_precision() {
    let device = inference();
    // 2048 + 1 is not a half-precision number, and neither is the sum of 5000 ones.
    let feats: Vec<f64> = (0..5000).map(|i| if i % 2 == 0 { 3.0 } else { 1.0 }).collect();
    let x = rows_of(tensor(&feats, [5000, 1], DType::F16, &device));
    let loose = Tolerance { name: "half statistics", rtol: 1e-3, atol: 1e-3 };
    let expected: Vec<f64> = feats.iter().map(|v| v - 2.0).collect();
    for y in [
        ops::batch_norm(&x, NormAffine::default(), None, 1e-5).unwrap(),
        ops::instance_norm(&x, NormAffine::default(), 1e-5).unwrap(),
    ] {
        assert_close(&expected, &read(y.feats()), loose);
    }
}

#[test]
fn statistics_of_many_rows_keep_their_digits() {
    let device = inference();
    // In one running f32 sum the mean of so many would be wrong in its third digit.
    let rows = 1 << 20;
    let feats: Vec<f64> = (0..rows * 2).map(|at| 0.1 + 1e-3 * f64::from(at % 7 - 3)).collect();
    let x = rows_of(tensor(&feats, [rows as usize, 2], DType::F32, &device));
    let (mean, var) = normalisation::channel_statistics(&feats[..700], 2);
    let expected = normalisation::batch_norm_fixed(&feats[..140], &mean, &var, &[1.0; 2], &[0.0; 2], 1e-5);
    let loose = Tolerance { name: "statistics", rtol: 1e-3, atol: 1e-3 };
    for y in [
        ops::batch_norm(&x, NormAffine::default(), None, 1e-5).unwrap(),
        ops::instance_norm(&x, NormAffine::default(), 1e-5).unwrap(),
    ] {
        assert_close(&expected, &read(y.feats())[..140], loose);
    }
}

#[test]
fn a_bias_gradient_over_many_rows_keeps_its_digits() {
    let device = training();
    let rows = 1 << 20;
    for (dtype, g) in [(DType::F32, 0.1), (DType::F16, 1.0 / 1024.0), (DType::BF16, 1.0 / 1024.0)] {
        let bias = Tensor::<1>::zeros([3], (&device, dtype)).require_grad();
        let x = Tensor::<2>::zeros([rows, 1], (&device, dtype));
        let y = ops::linear_features(x, Tensor::zeros([3, 1], (&device, dtype)), Some(bias.clone())).unwrap();
        let grads = (y * g).sum().backward();
        // A GPU's units sum some thousand rows each, one after the other: an f32 loses four bits by then.
        let rounded = tolerance(dtype);
        let rtol = if devices::on_gpu() { rounded.rtol.max(4e-5) } else { rounded.rtol };
        let allowed = Tolerance { rtol, ..rounded };
        assert_close(&[rows as f64 * g; 3], &read(&bias.grad(&grads).unwrap()), allowed);
    }
}

#[test]
fn a_tensor_without_rows_passes_every_feature_operation() {
    let device = inference();
    let x = sparse_at(&[], tensor(&[], [0, 4], DType::F32, &device), [1; 3]);
    let none = NormAffine::default;
    for y in [
        ops::batch_norm(&x, none(), None, 1e-5).unwrap(),
        ops::batch_norm_residual(&x, none(), Some(&x), 1e-5, Activation::Relu).unwrap(),
        ops::layer_norm(&x, none(), 1e-5).unwrap(),
        ops::rms_norm(&x, None, 1e-5).unwrap(),
        ops::group_norm(&x, 2, none(), 1e-5).unwrap(),
        ops::instance_norm(&x, none(), 1e-5).unwrap(),
        ops::gelu(&x, GeluApproximation::None),
        ops::dropout(&x, 0.5, DropoutKey::default()).unwrap(),
        ops::linear(&x, Tensor::ones([4, 4], &device), None).unwrap(),
    ] {
        assert_eq!(y.feats().dims(), [0, 4]);
        assert!(y.same_coords(&x));
    }
}

#[test]
fn norms_refuse_what_does_not_fit() {
    let device = inference();
    let x = rows_of(Tensor::ones([3, 4], &device));
    let wrong = || NormAffine::with_scale(Tensor::ones([3], &device));
    for eps in [0.0, -1e-5, f64::NAN] {
        for result in [
            ops::batch_norm(&x, NormAffine::default(), None, eps),
            ops::layer_norm(&x, NormAffine::default(), eps),
            ops::rms_norm(&x, None, eps),
            ops::group_norm(&x, 2, NormAffine::default(), eps),
            ops::instance_norm(&x, NormAffine::default(), eps),
        ] {
            assert!(matches!(result, Err(Error::Value { .. })), "eps {eps}");
        }
    }
    for result in [
        ops::batch_norm(&x, wrong(), None, 1e-5),
        ops::layer_norm(&x, wrong(), 1e-5),
        ops::rms_norm(&x, wrong().scale, 1e-5),
        ops::group_norm(&x, 2, wrong(), 1e-5),
        ops::instance_norm(&x, wrong(), 1e-5),
    ] {
        assert!(matches!(result, Err(Error::Shape { .. })));
    }
    for groups in [0, 3, 5] {
        assert!(matches!(ops::group_norm(&x, groups, NormAffine::default(), 1e-5), Err(Error::Value { .. })));
    }
}

#[test]
fn a_norm_with_a_residual_refuses_what_does_not_fit() {
    let device = inference();
    let x = rows_of(Tensor::ones([3, 4], &device));
    let run = |residual: &SparseTensor| {
        ops::batch_norm_residual(&x, NormAffine::default(), Some(residual), 1e-5, Activation::None)
    };
    assert!(run(&x).is_ok());
    assert!(matches!(run(&rows_of(Tensor::ones([3, 4], &device))), Err(Error::Identity { .. })));
    let narrow = x.with_feats(Tensor::ones([3, 2], &device)).unwrap();
    assert!(matches!(run(&narrow), Err(Error::Channels { .. })));
    let half = x.with_feats(Tensor::ones([3, 4], (&device, DType::F16))).unwrap();
    assert!(matches!(run(&half), Err(Error::Dtype { .. })));
}

#[test]
fn dropout_drops_by_seed_and_call_and_scales_the_rest() {
    let device = training();
    let (rows, c, p) = (400, 25, 0.3);
    let x = Seeded::new(9).values(rows * c);
    for dtype in dtypes() {
        let leaf = tensor(&x, [rows, c], dtype, &device).require_grad();
        let key = DropoutKey { seed: 1, call: 2 };
        let y = ops::dropout(&rows_of(leaf.clone()), p, key).unwrap();
        let keep = key.mask(rows * c, p);
        assert_close(&definition::dropout(&x, &keep, p), &read(y.feats()), tolerance(dtype));
        let g = Seeded::new(10).values(rows * c);
        let grads = (y.feats().clone() * tensor(&g, [rows, c], dtype, &device)).sum().backward();
        assert_close(
            &definition::dropout(&g, &keep, p),
            &read(&leaf.grad(&grads).unwrap()),
            tolerance(dtype),
        );
    }
}

#[test]
fn masks_are_the_same_again_and_differ_between_calls_and_seeds() {
    let (n, p) = (20_000, 0.3);
    let mask = |seed, call| DropoutKey { seed, call }.mask(n, p);
    assert_eq!(mask(3, 0), mask(3, 0));
    assert_eq!(&mask(3, 0)[..100], &DropoutKey { seed: 3, call: 0 }.mask(100, p)[..], "element by element");
    let both = |a: &[bool], b: &[bool]| a.iter().zip(b).filter(|(a, b)| **a && **b).count() as f64 / n as f64;
    for (a, b) in [(mask(3, 0), mask(3, 1)), (mask(3, 0), mask(4, 0)), (mask(0, 1), mask(1, 0))] {
        let kept = a.iter().filter(|kept| **kept).count() as f64 / n as f64;
        assert!((kept - 0.7).abs() < 0.02, "{kept} of the elements stay");
        assert!((both(&a, &b) - 0.49).abs() < 0.02, "masks are independent");
    }
}

#[test]
fn dropout_checks_its_probability_and_passes_on_at_zero() {
    let x = rows_of(tensor(&Seeded::new(11).values(6), [2, 3], DType::F32, &inference()));
    for p in [-0.1, 1.0, 2.0, f64::NAN] {
        assert!(matches!(ops::dropout(&x, p, DropoutKey::default()), Err(Error::Value { .. })), "p {p}");
    }
    let y = ops::dropout(&x, 0.0, DropoutKey::default()).unwrap();
    assert_close(&read(x.feats()), &read(y.feats()), EXACT);
}

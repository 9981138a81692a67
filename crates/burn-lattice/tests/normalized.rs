//! The weight-normalized family against its definition.
#![allow(clippy::unwrap_used, reason = "tests")]

mod harness;

use burn::tensor::{DType, Tensor};
use burn_lattice::Error;
use burn_lattice::ops::{self, ConvOptions, Target};
use harness::*;
use lattice_testkit::convolution::{Channels, normalized, normalized_grads};
use lattice_testkit::offsets::Kernel;
use lattice_testkit::relations;
use lattice_testkit::tolerances::{PRINTED, assert_close};
use rstest::rstest;

#[test]
fn worked_example_divides_by_the_norm_of_present_weights() {
    let device = inference();
    let x = sparse(&line(&[0, 1, 3]), &[1., 2., 3., 4., 5., 6.], &device);
    let weight = tensor(&[1., 0., 10., 1., 100., 0.], [3, 2, 1], DType::F32, &device);
    let options = ConvOptions::new(spec(&Kernel::line(3, 1, 0, 1)));
    let y = ops::normalized_subm_conv3d(&x, weight, None, &options, 1e-8).unwrap();
    assert_close(&[3.104_362_36, 3.465_516_40, 5.572_208_26], &read(y.feats()), PRINTED);
    assert!(y.same_coords(&x));
}

#[derive(Clone, Copy, Debug)]
enum Form {
    Submanifold,
    Transposed,
    TransposedOnto,
    Generative,
}

#[rstest]
fn every_form_matches_its_definition(
    #[values(Form::Submanifold, Form::Transposed, Form::TransposedOnto, Form::Generative)] form: Form,
    #[values(DType::F32, DType::F64, DType::F16, DType::BF16)] dtype: DType,
    #[values((1, 1, 1), (3, 8, 1), (8, 12, 4))] channels: (usize, usize, usize),
) {
    if !devices::has(dtype) {
        return;
    }
    let channels = Channels::grouped(channels.0, channels.1, channels.2);
    let Channels { c_in, c_out, groups } = channels;
    let source = Seeded::new(3).coords(50, 2, 3);
    let onto = Seeded::new(4).coords(60, 2, 6);
    let (kernel, eps) = match form {
        Form::Submanifold => (Kernel::cube(3, 1), 1e-8),
        _ => (Kernel::new([3, 2, 2], [2; 3], [0; 3], [1; 3]), 1e-3),
    };
    let pairs = match form {
        Form::Submanifold => relations::submanifold(&source, &kernel),
        Form::Transposed => relations::transposed(&source, &kernel),
        Form::TransposedOnto => relations::target_transposed(&source, &onto, &kernel),
        Form::Generative => relations::generative(&source, kernel.size, kernel.stride),
    };
    let mut seeded = Seeded::new(5);
    let x = seeded.values(pairs.n_in() * c_in);
    let w = seeded.values(channels.weight_len(pairs.taps));
    let b = seeded.values(c_out);
    let g = seeded.values(pairs.n_out() * c_out);

    let device = training();
    let x_leaf = tensor(&x, [pairs.n_in(), c_in], dtype, &device).require_grad();
    let w_leaf = tensor(&w, [pairs.taps, c_in / groups, c_out], dtype, &device).require_grad();
    let bias = Some(tensor(&b, [c_out], dtype, &device));
    let options = ConvOptions::new(spec(&kernel)).with_groups(groups);
    let stride = if matches!(form, Form::Submanifold) { [1; 3] } else { [2; 3] };
    let input = sparse_at(&source, x_leaf.clone(), stride);
    let target = Target::from(&support(&onto));
    let y = match form {
        Form::Submanifold => ops::normalized_subm_conv3d(&input, w_leaf.clone(), bias, &options, eps),
        Form::Transposed => {
            ops::normalized_conv_transpose3d(&input, w_leaf.clone(), bias, &options, None, eps)
        }
        Form::TransposedOnto => {
            ops::normalized_conv_transpose3d(&input, w_leaf.clone(), bias, &options, Some(&target), eps)
        }
        Form::Generative => {
            ops::normalized_generative_conv_transpose3d(&input, w_leaf.clone(), bias, &options, None, eps)
        }
    }
    .unwrap();
    assert_eq!(coords_of(&y), pairs.target);
    assert_eq!(y.dtype(), dtype);
    let expected = normalized(&x, &w, Some(&b), eps, &pairs.edges, pairs.n_out(), channels);
    assert_close(&expected, &read(y.feats()), tolerance(dtype).scaled(2.0));

    let grads = (y.feats().clone() * tensor(&g, [pairs.n_out(), c_out], dtype, &device)).sum().backward();
    let (dx, dw) = normalized_grads(&x, &w, &g, eps, &pairs.edges, pairs.n_out(), channels);
    let size = |values: &[f64]| values.iter().fold(1.0f64, |m, v| m.max(v.abs()));
    assert_close(&dx, &read(&x_leaf.grad(&grads).unwrap()), tolerance(dtype).scaled(4.0 * size(&dx)));
    assert_close(&dw, &read(&w_leaf.grad(&grads).unwrap()), tolerance(dtype).scaled(4.0 * size(&dw)));
}

#[test]
fn a_row_without_pairs_is_the_bias_in_every_element_type() {
    let device = inference();
    for dtype in dtypes() {
        let x = sparse_at(&line(&[0]), tensor(&[1.0], [1, 1], dtype, &device), [2, 1, 1]);
        let weight = tensor(&[1.0, 1.0], [2, 1, 1], dtype, &device);
        let bias = tensor(&[0.5], [1], dtype, &device);
        let options = ConvOptions::new(spec(&Kernel::line(2, 2, 0, 1)));
        let target = Target::from(&support(&line(&[0, 9])));
        let y =
            ops::normalized_conv_transpose3d(&x, weight, Some(bias), &options, Some(&target), 1e-8).unwrap();
        assert_close(&[1.5, 0.5], &read(y.feats()), PRINTED);
        assert_eq!(read(y.feats())[1], 0.5, "{dtype:?}");
    }
}

#[test]
fn a_trivial_kernel_is_the_plain_product_in_every_form() {
    let device = inference();
    let coords = Seeded::new(6).coords(20, 1, 3);
    let x = sparse(&coords, &Seeded::new(7).values(coords.len() * 3), &device);
    let weight = tensor(&Seeded::new(8).values(12), [1, 3, 4], DType::F32, &device);
    let options = ConvOptions::new(spec(&Kernel::cube(1, 1)));
    let plain = ops::subm_conv3d(&x, weight.clone(), None, &options).unwrap();
    let forms = [
        ops::normalized_subm_conv3d(&x, weight.clone(), None, &options, 1e-8).unwrap(),
        ops::normalized_conv_transpose3d(&x, weight.clone(), None, &options, None, 1e-8).unwrap(),
        ops::normalized_generative_conv_transpose3d(&x, weight, None, &options, None, 1e-8).unwrap(),
    ];
    for y in forms {
        assert_eq!(read(y.feats()), read(plain.feats()));
        assert!(y.same_coords(&x));
    }
}

#[test]
fn wrong_input_is_an_error() {
    let device = inference();
    let x = sparse(&line(&[0, 1]), &[1., 2.], &device);
    let weight = || Tensor::<3>::ones([27, 1, 1], &device);
    let options = ConvOptions::new(spec(&Kernel::cube(3, 1)));
    for eps in [0.0, -1.0, f64::NAN, f64::INFINITY] {
        let error = ops::normalized_subm_conv3d(&x, weight(), None, &options, eps).unwrap_err();
        assert!(matches!(error, Error::Value { .. }), "eps {eps}: {error}");
    }
    let bias = Some(Tensor::ones([2], &device));
    let error = ops::normalized_subm_conv3d(&x, weight(), bias, &options, 1e-8).unwrap_err();
    assert!(matches!(error, Error::Shape { .. }), "{error}");
    let half = weight().cast(burn::tensor::FloatDType::F16);
    let error = ops::normalized_subm_conv3d(&x, half, None, &options, 1e-8).unwrap_err();
    assert!(matches!(error, Error::Dtype { .. }), "{error}");
    let error = ops::normalized_conv_transpose3d(
        &x,
        weight(),
        None,
        &ConvOptions::new(spec(&Kernel::cube(3, 2))),
        None,
        1e-8,
    );
    assert!(matches!(error.unwrap_err(), Error::Value { .. }), "2 does not divide 1");
    let padded = ConvOptions::new(spec(&Kernel::new([3; 3], [1; 3], [1; 3], [1; 3])));
    let error =
        ops::normalized_generative_conv_transpose3d(&x, weight(), None, &padded, None, 1e-8).unwrap_err();
    assert!(matches!(error, Error::Value { .. }), "{error}");
}

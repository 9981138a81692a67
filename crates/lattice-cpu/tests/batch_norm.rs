//! Batch norm of training against its definition by loops, and its gradient.
#![allow(clippy::unwrap_used, reason = "tests")]

mod cases;

use cases::{Element, Numbers, assert_close, available, wide};
use half::{bf16, f16};
use lattice_cpu::*;
use lattice_testkit::normalisation::{Sets, channel_statistics, normalize, normalize_grads};
use rstest::rstest;

const EPS: f64 = 1e-3;

/// `v` where it is above 0, else `slope · v`.
fn slope_of(activation: Activation) -> f64 {
    match activation {
        Activation::Relu => 0.0,
        Activation::LeakyRelu(slope) => f64::from(slope),
        _ => 1.0,
    }
}

/// Vectors in the type of sums, with the `f64` values they hold.
fn vector<T: Element>(numbers: &mut Numbers, c: usize) -> (Vec<T::Acc>, Vec<f64>) {
    let values: Vec<T::Acc> = (0..c).map(|_| Acc::from_f64(numbers.unit() + 1.5)).collect();
    let wide = values.iter().map(|v| v.to_f64()).collect();
    (values, wide)
}

fn matches_the_loops<T: Element>(n: usize, c: usize, with_residual: bool, activation: Activation) {
    let mut numbers = Numbers(71);
    let x: Vec<T> = (0..n * c).map(|at| T::of(numbers.unit() * 2.0 + (at % c) as f64 * 0.25)).collect();
    let residual: Vec<T> = numbers.values(n * c);
    let g: Vec<T> = numbers.values(n * c);
    let (gamma, wide_gamma) = vector::<T>(&mut numbers, c);
    let (beta, wide_beta) = vector::<T>(&mut numbers, c);
    let mut expected = normalize(&wide(&x), c, &Sets::Channel, &wide_gamma, &wide_beta, EPS);
    if with_residual {
        expected.iter_mut().zip(wide(&residual)).for_each(|(v, r)| *v += r);
    }
    let slope = slope_of(activation);
    expected.iter_mut().for_each(|v| *v = if *v > 0.0 { *v } else { *v * slope });
    let (mean, var) = channel_statistics(&wide(&x), c);
    let shape = BatchNormShape { gamma: &gamma, beta: &beta, eps: EPS, activation };
    for isa in available() {
        with_isa(isa, || {
            let mut y = vec![T::of(9.0); n * c];
            let moments = batch_norm_train(&x, shape, with_residual.then_some(&residual[..]), &mut y);
            assert_close(&format!("result {isa:?}"), &y, &expected, &vec![20.0; n * c]);
            for j in 0..if n == 0 { 0 } else { c } {
                assert!(
                    (moments.mean[j] - mean[j]).abs() < 1e-10 && (moments.variance[j] - var[j]).abs() < 1e-9
                );
            }
            // The gradient passes where this result, rounded as it is, is above 0.
            let h: Vec<f64> = wide(&g)
                .iter()
                .zip(&y)
                .map(|(g, &y)| if slope == 1.0 || y.into() > 0.0 { *g } else { g * slope })
                .collect();
            let (dx, dgamma, dbeta) = normalize_grads(&wide(&x), &h, c, &Sets::Channel, &wide_gamma, EPS);
            let of = |values: &[f64]| values.iter().map(|&v| Acc::from_f64(v)).collect::<Vec<T::Acc>>();
            let (mean, var) = (of(&moments.mean), of(&moments.variance));
            let tape = BatchNormTape { x: &x, y: Some(&y), mean: &mean, var: &var };
            let mut found = vec![T::of(9.0); n * c];
            let mut d_residual = vec![T::of(9.0); n * c];
            let grads = batch_norm_train_grad(
                &g,
                tape,
                shape,
                &mut found,
                with_residual.then_some(&mut d_residual[..]),
            );
            assert_close(&format!("dx {isa:?}"), &found, &dx, &vec![20.0; n * c]);
            if with_residual {
                assert_close(&format!("d_residual {isa:?}"), &d_residual, &h, &vec![0.0; n * c]);
            }
            let close = |found: &[f64], expected: &[f64]| {
                found.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-4 * (1.0 + n as f64).sqrt())
            };
            assert!(close(&grads.gamma, &dgamma) && close(&grads.beta, &dbeta), "{isa:?}");
        })
        .unwrap();
    }
}

#[rstest]
fn batch_norm_and_its_gradient_match_the_loops(
    #[values((0, 5), (1, 3), (2, 1), (700, 7), (2500, 20), (900, 48))] (n, c): (usize, usize),
    #[values(false, true)] residual: bool,
    #[values(Activation::None, Activation::Relu, Activation::LeakyRelu(0.25))] activation: Activation,
) {
    matches_the_loops::<f32>(n, c, residual, activation);
    matches_the_loops::<f64>(n, c, residual, activation);
    matches_the_loops::<f16>(n, c, residual, activation);
    matches_the_loops::<bf16>(n, c, residual, activation);
}

#[test]
fn a_mean_far_above_the_spread_loses_no_digits() {
    // 4096 ± 1: a variance by mean of squares minus square of mean would keep one digit in f32.
    let x: Vec<f32> = (0..20_000).map(|at| 4096.0 + if at % 2 == 0 { 1.0 } else { -1.0 }).collect();
    let shape = BatchNormShape { gamma: &[1.0], beta: &[0.0], eps: 1e-12, activation: Activation::None };
    let mut y = vec![0.0; x.len()];
    let moments = batch_norm_train(&x, shape, None, &mut y);
    assert_eq!((moments.mean[0], moments.variance[0]), (4096.0, 1.0));
    assert!(y.iter().all(|v| (v.abs() - 1.0).abs() < 1e-6));
}

#[test]
#[should_panic(expected = "a slope below 0")]
fn a_negative_slope_is_refused() {
    let shape =
        BatchNormShape { gamma: &[1.0f32], beta: &[0.0], eps: 1.0, activation: Activation::LeakyRelu(-0.5) };
    let tape = BatchNormTape { x: &[1.0f32], y: Some(&[1.0]), mean: &[0.0], var: &[1.0] };
    batch_norm_train_grad(&[1.0], tape, shape, &mut [0.0], None);
}

//! Convolutions against plain loops in `f64`: every instruction set, dtype and awkward channel count.
#![allow(clippy::unwrap_used, reason = "tests")]

mod cases;

use cases::{Element, Numbers, assert_close, available, edges, random_relation, wide};
use half::{bf16, f16};
use lattice_core::{KernelSpec, Relation, Support, SupportPolicy};
use lattice_cpu::*;
use lattice_testkit::convolution::{Channels, convolve, convolve_input_grad, convolve_weight_grad};
use proptest::prelude::*;
use rstest::rstest;

/// Forward product and both gradients of one random case, on every instruction set.
fn check<T: Element>(relation: &Relation, shape: ConvShape, seed: u64) {
    let mut numbers = Numbers(seed);
    let channels = Channels::grouped(shape.c_in, shape.c_out, shape.groups);
    let x: Vec<T> = numbers.values(relation.n_in() * shape.c_in);
    let g: Vec<T> = numbers.values(relation.n_out() * shape.c_out);
    let w: Vec<T> = numbers.values(shape.weights(relation.taps()));
    let pairs = edges(relation);
    let abs = |v: &[T]| -> Vec<f64> { wide(v).iter().map(|v| v.abs()).collect() };
    let (n_in, n_out, taps) = (relation.n_in(), relation.n_out(), relation.taps());
    let y = convolve(&wide(&x), &wide(&w), None, &pairs, n_out, channels);
    let y_abs = convolve(&abs(&x), &abs(&w), None, &pairs, n_out, channels);
    let dx = convolve_input_grad(&wide(&g), &wide(&w), &pairs, n_in, channels);
    let dx_abs = convolve_input_grad(&abs(&g), &abs(&w), &pairs, n_in, channels);
    let dw = convolve_weight_grad(&wide(&x), &wide(&g), &pairs, taps, channels);
    let dw_abs = convolve_weight_grad(&abs(&x), &abs(&g), &pairs, taps, channels);
    for isa in available() {
        with_isa(isa, || {
            let what = |op: &str| format!("{op} {} {shape:?} {isa:?}", std::any::type_name::<T>());
            // Whatever stands in the outputs before must not matter.
            let mut out = vec![T::of(7.0); y.len()];
            conv_forward(&x, &w, relation, shape, &Epilogue::default(), &mut out);
            assert_close(&what("forward"), &out, &y, &y_abs);
            let mut out = vec![T::of(7.0); dx.len()];
            conv_input_grad(&g, &w, relation, shape, &mut out);
            assert_close(&what("input gradient"), &out, &dx, &dx_abs);
            let mut out = vec![T::of(7.0); dw.len()];
            conv_weight_grad(&x, &g, relation, shape, &mut out);
            assert_close(&what("weight gradient"), &out, &dw, &dw_abs);
        })
        .unwrap();
    }
}

fn check_all_dtypes(relation: &Relation, shape: ConvShape, seed: u64) {
    check::<f32>(relation, shape, seed);
    check::<f64>(relation, shape, seed);
    check::<f16>(relation, shape, seed);
    check::<bf16>(relation, shape, seed);
}

#[rstest]
fn any_channel_counts_match_the_loops(
    #[values(
        (1, 1), (1, 7), (3, 8), (7, 3), (8, 16), (16, 16), (17, 31), (31, 17), (32, 33), (33, 32), (48, 48), (64, 64), (96, 100),
        (100, 96), (128, 160), (160, 128), (256, 64), (64, 256)
    )]
    (c_in, c_out): (usize, usize),
) {
    let relation = random_relation(&mut Numbers(1), 60, 70, 5, 0.3);
    check_all_dtypes(&relation, ConvShape::dense(c_in, c_out), 2);
}

#[rstest]
fn groups_and_depthwise_match_the_loops(
    #[values(
        (8, 8, 2), (12, 6, 3), (64, 64, 4), (96, 48, 2), (33, 66, 3), (16, 32, 16), (160, 320, 2), (5, 5, 5), (64, 64, 64),
        (33, 33, 33), (1, 4, 1)
    )]
    (c_in, c_out, groups): (usize, usize, usize),
) {
    let relation = random_relation(&mut Numbers(3), 50, 40, 6, 0.35);
    check_all_dtypes(&relation, ConvShape { c_in, c_out, groups }, 4);
}

#[rstest]
#[case::many_blocks(1500, 1700, 9, 0.2, 16, 24)]
#[case::many_taps(90, 80, 125, 0.2, 8, 12)]
#[case::more_rows_out_than_in(3, 1100, 4, 0.5, 20, 6)]
#[case::no_input_rows(0, 20, 3, 0.5, 4, 5)]
#[case::no_output_rows(20, 0, 3, 0.5, 4, 5)]
#[case::no_rows(0, 0, 3, 0.5, 4, 5)]
#[case::no_edges(20, 30, 3, 0.0, 4, 5)]
#[case::all_edges(40, 600, 3, 1.0, 40, 33)]
fn any_relation_matches_the_loops(
    #[case] n_in: usize,
    #[case] n_out: usize,
    #[case] taps: usize,
    #[case] density: f64,
    #[case] c_in: usize,
    #[case] c_out: usize,
) {
    let relation = random_relation(&mut Numbers(5), n_in, n_out, taps, density);
    check_all_dtypes(&relation, ConvShape::dense(c_in, c_out), 6);
}

#[test]
fn no_input_channels_give_the_epilogue_of_zero() {
    let relation = random_relation(&mut Numbers(5), 9, 11, 3, 0.5);
    for isa in available() {
        let mut out = vec![3.0f32; 22];
        let bias = [1.0, 2.0];
        let epilogue = Epilogue { bias: Some(&bias), ..Epilogue::default() };
        with_isa(isa, || conv_forward(&[], &[], &relation, ConvShape::dense(0, 2), &epilogue, &mut out))
            .unwrap();
        assert_eq!(out, [1.0, 2.0].repeat(11));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn random_cases_match_the_loops(
        seed: u64, n_in in 0usize..90, n_out in 0usize..140, taps in 1usize..40, density in 0.0..0.5,
        c_in in 1usize..70, c_out in 1usize..70,
    ) {
        let relation = random_relation(&mut Numbers(seed), n_in, n_out, taps, density);
        check::<f32>(&relation, ConvShape::dense(c_in, c_out), seed ^ 1);
    }

    #[test]
    fn gradients_are_the_adjoints(seed: u64, c_in in 1usize..40, c_out in 1usize..40) {
        let mut numbers = Numbers(seed);
        let relation = random_relation(&mut numbers, 60, 50, 7, 0.3);
        let shape = ConvShape::dense(c_in, c_out);
        let x: Vec<f32> = numbers.values(60 * c_in);
        let g: Vec<f32> = numbers.values(50 * c_out);
        let w: Vec<f32> = numbers.values(shape.weights(7));
        let (mut y, mut dx, mut dw) = (vec![0.0; g.len()], vec![0.0; x.len()], vec![0.0; w.len()]);
        conv_forward(&x, &w, &relation, shape, &Epilogue::default(), &mut y);
        conv_input_grad(&g, &w, &relation, shape, &mut dx);
        conv_weight_grad(&x, &g, &relation, shape, &mut dw);
        let dot = |a: &[f32], b: &[f32]| -> f64 { a.iter().zip(b).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum() };
        let (by_y, by_x, by_w) = (dot(&y, &g), dot(&x, &dx), dot(&w, &dw));
        let size = y.iter().zip(&g).map(|(y, g)| f64::from((y * g).abs())).sum::<f64>();
        prop_assert!((by_y - by_x).abs() <= 1e-5 * size + 1e-5, "{} {}", by_y, by_x);
        prop_assert!((by_y - by_w).abs() <= 1e-5 * size + 1e-5, "{} {}", by_y, by_w);
    }
}

fn epilogue_matches<T: Element>(c_out: usize, activation: Activation) {
    let mut numbers = Numbers(11);
    let relation = random_relation(&mut numbers, 80, 600, 4, 0.3);
    let shape = ConvShape::dense(10, c_out);
    let x: Vec<T> = numbers.values(80 * 10);
    let w: Vec<T> = numbers.values(shape.weights(4));
    let (bias, residual): (Vec<T>, Vec<T>) = (numbers.values(c_out), numbers.values(600 * c_out));
    let (scale, shift): (Vec<f32>, Vec<f32>) = (numbers.values(c_out), numbers.values(c_out));
    let sums =
        convolve(&wide(&x), &wide(&w), Some(&wide(&bias)), &edges(&relation), 600, Channels::new(10, c_out));
    let expected: Vec<f64> = sums
        .iter()
        .enumerate()
        .map(|(at, sum)| {
            let c = at % c_out;
            let residual: f64 = residual[at].into();
            let v = sum * f64::from(scale[c]) + f64::from(shift[c]) + residual;
            match activation {
                Activation::Relu => v.max(0.0),
                Activation::LeakyRelu(slope) if v < 0.0 => v * f64::from(slope),
                _ => v,
            }
        })
        .collect();
    let magnitude = vec![30.0; expected.len()];
    for isa in available() {
        let epilogue = Epilogue {
            bias: Some(&bias),
            scale_shift: Some((&scale, &shift)),
            residual: Some(&residual),
            activation,
        };
        let mut out = vec![T::of(0.0); expected.len()];
        with_isa(isa, || conv_forward(&x, &w, &relation, shape, &epilogue, &mut out)).unwrap();
        assert_close(&format!("{c_out} {activation:?} {isa:?}"), &out, &expected, &magnitude);
    }
}

#[rstest]
fn the_epilogue_is_bias_scale_shift_residual_activation(
    #[values(1, 5, 16, 70)] c_out: usize,
    #[values(Activation::None, Activation::Relu, Activation::LeakyRelu(0.1))] activation: Activation,
) {
    epilogue_matches::<f32>(c_out, activation);
    epilogue_matches::<f64>(c_out, activation);
    epilogue_matches::<f16>(c_out, activation);
    epilogue_matches::<bf16>(c_out, activation);
}

#[test]
fn relu_keeps_nan() {
    let mut out = [0.0f32; 3];
    let epilogue = Epilogue { activation: Activation::Relu, ..Epilogue::default() };
    gemm(&[f32::NAN, -1.0, 2.0], &[1.0], 3, 1, 1, &epilogue, &mut out);
    assert!(out[0].is_nan() && out[1] == 0.0 && out[2] == 2.0);
}

#[rstest]
fn gemm_matches_the_loops(
    #[values((1, 1, 1), (7, 300, 5), (600, 20, 70), (1030, 3, 33), (13, 129, 128), (5, 0, 4), (0, 4, 4))]
    (m, k, n): (usize, usize, usize),
) {
    fn run<T: Element>([m, k, n]: [usize; 3]) {
        let mut numbers = Numbers(9);
        let (a, b, g): (Vec<T>, Vec<T>, Vec<T>) =
            (numbers.values(m * k), numbers.values(k * n), numbers.values(m * n));
        let transposed: Vec<T> = (0..n * k).map(|i| b[i % k.max(1) * n + i / k.max(1)]).collect();
        let (wide_a, wide_b, wide_g) = (wide(&a), wide(&b), wide(&g));
        let mut expected = vec![0.0; m * n];
        let mut gradient = vec![0.0; k * n];
        for i in 0..m {
            for l in 0..k {
                for j in 0..n {
                    expected[i * n + j] += wide_a[i * k + l] * wide_b[l * n + j];
                    gradient[l * n + j] += wide_a[i * k + l] * wide_g[i * n + j];
                }
            }
        }
        for isa in available() {
            with_isa(isa, || {
                let mut out = vec![T::of(5.0); m * n];
                gemm(&a, &b, m, k, n, &Epilogue::default(), &mut out);
                assert_close("gemm", &out, &expected, &vec![k as f64; m * n]);
                let mut out = vec![T::of(5.0); m * n];
                gemm_transposed(&a, &transposed, m, k, n, &Epilogue::default(), &mut out);
                assert_close("gemm_transposed", &out, &expected, &vec![k as f64; m * n]);
                let mut out = vec![T::of(5.0); k * n];
                gemm_weight_grad(&a, &g, m, k, n, &mut out);
                assert_close("gemm_weight_grad", &out, &gradient, &vec![m as f64; k * n]);
            })
            .unwrap();
        }
    }
    run::<f32>([m, k, n]);
    run::<f64>([m, k, n]);
    run::<f16>([m, k, n]);
    run::<bf16>([m, k, n]);
}

fn on_x(xs: &[i32]) -> Support {
    Support::try_new(xs.iter().map(|&x| [0, x, 0, 0]).collect()).unwrap()
}

fn kernel(size: u32, stride: u32, padding: u32) -> KernelSpec {
    KernelSpec::try_new([size, 1, 1], [stride, 1, 1], [padding, 0, 0], [1; 3]).unwrap()
}

const X: [f32; 6] = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0];
const W: [f32; 6] = [1.0, 0.0, 10.0, 1.0, 100.0, 0.0];

#[test]
fn a_submanifold_convolution_by_hand() {
    let relation = Relation::submanifold(&on_x(&[0, 1, 3]), &kernel(3, 1, 0)).unwrap();
    let shape = ConvShape::dense(2, 1);
    for isa in available() {
        with_isa(isa, || {
            let mut y = [0.0; 3];
            conv_forward(&X, &W, &relation, shape, &Epilogue::default(), &mut y);
            assert_eq!(y, [312.0, 35.0, 56.0]);
            let epilogue = Epilogue { bias: Some(&[0.5]), ..Epilogue::default() };
            conv_forward(&X, &W, &relation, shape, &epilogue, &mut y);
            assert_eq!(y, [312.5, 35.5, 56.5]);
            let g = [1.0, 2.0, 3.0];
            let mut dx = [0.0; 6];
            conv_input_grad(&g, &W, &relation, shape, &mut dx);
            assert_eq!(dx, [12.0, 1.0, 120.0, 2.0, 30.0, 3.0]);
            let mut dw = [0.0; 6];
            conv_weight_grad(&X, &g, &relation, shape, &mut dw);
            assert_eq!(dw, [2.0, 4.0, 22.0, 28.0, 3.0, 4.0]);
            assert_eq!(channel_sums(&g, 1), [6.0]);
        })
        .unwrap();
    }
}

#[test]
fn a_strided_convolution_by_hand() {
    let relation = Relation::forward(&on_x(&[0, 1, 3]), &kernel(2, 2, 0), SupportPolicy::Floor).unwrap();
    let mut y = [0.0; 2];
    conv_forward(&X, &W[..4], &relation, ConvShape::dense(2, 1), &Epilogue::default(), &mut y);
    assert_eq!(y, [35.0, 56.0]);
}

#[test]
fn a_transposed_convolution_onto_a_target_by_hand() {
    let relation =
        Relation::target_transposed(&on_x(&[0, 1]), &on_x(&[-1, 0, 1, 2, 5]), &kernel(3, 2, 1)).unwrap();
    let mut y = [0.0; 5];
    conv_forward(
        &[1.0, 2.0],
        &[1.0, 10.0, 100.0],
        &relation,
        ConvShape::dense(1, 1),
        &Epilogue::default(),
        &mut y,
    );
    assert_eq!(y, [1.0, 10.0, 102.0, 20.0, 0.0]);
}

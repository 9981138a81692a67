//! The worked examples of convolution, and its gradients against central differences.

use lattice_testkit::convolution::*;
use lattice_testkit::coords::Coord;
use lattice_testkit::gradcheck::{assert_pullback, dot};
use lattice_testkit::offsets::Kernel;
use lattice_testkit::relations::{Pairs, forward, submanifold, target_transposed};
use lattice_testkit::tolerances::{F64, PRINTED, assert_close};
use lattice_testkit::{patterns, strategies};
use proptest::prelude::*;

const COORDS: [Coord; 3] = [[0, 0, 0, 0], [0, 1, 0, 0], [0, 3, 0, 0]];
const X: [f64; 6] = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0];
const W: [f64; 6] = [1.0, 0.0, 10.0, 1.0, 100.0, 0.0];
const CHANNELS: Channels = Channels::new(2, 1);

fn subm() -> Pairs {
    submanifold(&COORDS, &Kernel::line(3, 1, 0, 1))
}

#[test]
fn submanifold_convolution_gives_the_worked_example() {
    let pairs = subm();
    assert_eq!(pairs.edges, [(0, 0, 1), (1, 0, 2), (0, 1, 0), (1, 1, 1), (2, 2, 1)]);
    assert_eq!(convolve(&X, &W, None, &pairs.edges, 3, CHANNELS), [312.0, 35.0, 56.0]);
    assert_eq!(convolve(&X, &W, Some(&[0.5]), &pairs.edges, 3, CHANNELS), [312.5, 35.5, 56.5]);
}

#[test]
fn strided_convolution_gives_the_worked_example() {
    let pairs = forward(&COORDS, &Kernel::line(2, 2, 0, 1));
    assert_eq!(pairs.target, [[0, 0, 0, 0], [0, 1, 0, 0]]);
    assert_eq!(pairs.edges, [(0, 0, 0), (1, 0, 1), (2, 1, 1)]);
    assert_eq!(convolve(&X, &W[..4], None, &pairs.edges, 2, CHANNELS), [35.0, 56.0]);
}

#[test]
fn normalized_convolution_gives_the_worked_example() {
    let pairs = subm();
    assert_eq!(denominator(6, &W, &pairs.edges, 3, CHANNELS), [10101.0, 102.0, 101.0]);
    let y = normalized(&X, &W, None, 1e-8, &pairs.edges, 3, CHANNELS);
    assert_close(&[3.10436236, 3.46551640, 5.57220826], &y, PRINTED);
}

#[test]
fn gradients_give_the_worked_example() {
    let pairs = subm();
    let g = [1.0, 2.0, 3.0];
    assert_eq!(convolve_input_grad(&g, &W, &pairs.edges, 3, CHANNELS), [12.0, 1.0, 120.0, 2.0, 30.0, 3.0]);
    assert_eq!(convolve_weight_grad(&X, &g, &pairs.edges, 3, CHANNELS), [2.0, 4.0, 22.0, 28.0, 3.0, 4.0]);
    assert_eq!(bias_grad(&g, 1), [6.0]);
}

#[test]
fn transposed_convolution_onto_a_target_gives_the_worked_example() {
    let sources = [[0, 0, 0, 0], [0, 1, 0, 0]];
    let targets = [-1, 0, 1, 2, 5].map(|x| [0, x, 0, 0]);
    let pairs = target_transposed(&sources, &targets, &Kernel::line(3, 2, 1, 1));
    let y = convolve(&[1.0, 2.0], &[1.0, 10.0, 100.0], None, &pairs.edges, 5, Channels::new(1, 1));
    assert_eq!(y, [1.0, 10.0, 102.0, 20.0, 0.0]);
}

#[test]
fn a_row_without_pairs_is_its_bias() {
    assert_eq!(convolve(&[], &W, Some(&[7.0]), &[], 2, CHANNELS), [7.0, 7.0]);
    assert_eq!(normalized(&[], &W, None, 1e-8, &[], 2, CHANNELS), [0.0, 0.0]);
}

#[test]
fn groups_are_convolutions_side_by_side() {
    let pairs = subm();
    let channels = Channels::grouped(4, 6, 2);
    let (x, w) = (patterns::features(3, 4), patterns::weights(channels.weight_len(3)));
    let y = convolve(&x, &w, None, &pairs.edges, 3, channels);
    for group in 0..2 {
        let own_x: Vec<f64> = (0..6).map(|at| x[at / 2 * 4 + group * 2 + at % 2]).collect();
        let own_w: Vec<f64> = (0..18).map(|at| w[at / 3 * 6 + group * 3 + at % 3]).collect();
        let own_y: Vec<f64> = (0..9).map(|at| y[at / 3 * 6 + group * 3 + at % 3]).collect();
        assert_close(&convolve(&own_x, &own_w, None, &pairs.edges, 3, Channels::new(2, 3)), &own_y, F64);
    }
}

#[test]
fn the_dense_layout_maps_to_taps_with_z_fastest() {
    let dense: Vec<f64> = (0..2 * 2 * 3 * 4 * 5).map(f64::from).collect();
    let major = kernel_major(&dense, 2, [2, 3, 4], 5);
    let (co, i, j, l, ci) = (1, 1, 2, 3, 4);
    assert_eq!(
        major[(((i * 3 + j) * 4 + l) * 5 + ci) * 2 + co],
        dense[(((co * 2 + i) * 3 + j) * 4 + l) * 5 + ci]
    );
    assert_eq!(major[1], dense[2 * 3 * 4 * 5]);
}

#[test]
fn gradients_agree_with_central_differences() {
    let pairs = forward(&patterns::Pattern::Block(2).coords(9, 2), &Kernel::cube(2, 1));
    for channels in [Channels::new(3, 2), Channels::grouped(4, 2, 2)] {
        let x = patterns::features(pairs.n_in(), channels.c_in);
        let w = patterns::weights(channels.weight_len(pairs.taps));
        let g: Vec<f64> = patterns::weights(pairs.n_out() * channels.c_out);
        let (edges, n_in, n_out) = (&pairs.edges, pairs.n_in(), pairs.n_out());
        let plain = |x: &[f64], w: &[f64]| convolve(x, w, None, edges, n_out, channels);
        assert_pullback(|x| plain(x, &w), &x, &g, &convolve_input_grad(&g, &w, edges, n_in, channels));
        assert_pullback(|w| plain(&x, w), &w, &g, &convolve_weight_grad(&x, &g, edges, pairs.taps, channels));
        let norm = |x: &[f64], w: &[f64]| normalized(x, w, None, 1e-3, edges, n_out, channels);
        let (dx, dw) = normalized_grads(&x, &w, &g, 1e-3, edges, n_out, channels);
        assert_pullback(|x| norm(x, &w), &x, &g, &dx);
        assert_pullback(|w| norm(&x, w), &w, &g, &dw);
    }
}

proptest! {
    #[test]
    fn input_gradient_is_the_adjoint(
        (coords, x) in strategies::support_with_values(3), kernel in strategies::kernel(),
    ) {
        let pairs = forward(&coords, &kernel);
        let channels = Channels::new(3, 2);
        let w = patterns::weights(channels.weight_len(pairs.taps));
        let g = patterns::features(pairs.n_out(), 2);
        let y = convolve(&x, &w, None, &pairs.edges, pairs.n_out(), channels);
        let dx = convolve_input_grad(&g, &w, &pairs.edges, pairs.n_in(), channels);
        let dw = convolve_weight_grad(&x, &g, &pairs.edges, pairs.taps, channels);
        assert_close(&[dot(&g, &y); 2], &[dot(&dx, &x), dot(&dw, &w)], F64.scaled(1e3));
    }
}

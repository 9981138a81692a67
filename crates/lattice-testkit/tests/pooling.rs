//! The worked examples of pooling and upsampling, and their gradients against central differences.

use lattice_testkit::coords::Coord;
use lattice_testkit::gradcheck::{assert_pullback, dot};
use lattice_testkit::offsets::Kernel;
use lattice_testkit::pooling::*;
use lattice_testkit::relations::{forward, target_transposed, transposed};
use lattice_testkit::strategies;
use lattice_testkit::tolerances::{F64, PRINTED, assert_close};
use proptest::prelude::*;

const X: [f64; 5] = [1.0, 4.0, 2.0, 2.0, 7.0];

fn line(xs: &[i32]) -> Vec<Coord> {
    xs.iter().map(|&x| [0, x, 0, 0]).collect()
}

#[test]
fn pooling_by_two_gives_the_worked_example() {
    let pairs = forward(&line(&[-3, -1, 0, 1, 4]), &Kernel::line(2, 2, 0, 1));
    assert_eq!(pairs.target, line(&[-2, -1, 0, 2]));
    assert_eq!(pool_sum(&X, 1, &pairs.edges, 4), [1.0, 4.0, 4.0, 7.0]);
    assert_eq!(pool_avg(&X, 1, &pairs.edges, 4), [1.0, 4.0, 2.0, 7.0]);
    assert_eq!(pool_max(&X, 1, &pairs.edges, 4), [1.0, 4.0, 2.0, 7.0]);
    assert_eq!(pool_max_grad(&X, &[1.0; 4], 1, &pairs.edges, 5), [1.0, 1.0, 0.5, 0.5, 1.0]);
}

#[test]
fn overlapping_pooling_gives_the_worked_example() {
    let pairs = forward(&line(&[-3, -1, 0, 1, 4]), &Kernel::line(3, 2, 0, 1));
    assert_eq!(pool_sum(&X, 1, &pairs.edges, 4), [1.0, 5.0, 8.0, 7.0]);
    assert_close(&[1.0, 2.5, 2.6666667, 7.0], &pool_avg(&X, 1, &pairs.edges, 4), PRINTED);
    assert_eq!(pool_max(&X, 1, &pairs.edges, 4), [1.0, 4.0, 4.0, 7.0]);
}

#[test]
fn transposed_pooling_gives_the_worked_example() {
    let pairs = target_transposed(&line(&[-1, 0, 2]), &line(&[-3, -1, 0, 3, 8]), &Kernel::line(3, 2, 1, 1));
    assert_eq!(pool_transpose(&[10.0, 20.0, 40.0], 1, &pairs.edges, 5), [10.0, 15.0, 20.0, 40.0, 0.0]);
}

#[test]
fn trilinear_upsampling_gives_the_worked_example() {
    let kernel = trilinear_kernel([2, 1, 1]);
    assert_eq!(kernel, Kernel::line(3, 2, 1, 1));
    let weights = trilinear_weights([2, 1, 1]);
    assert_eq!(weights, [0.5, 1.0, 0.5]);
    let pairs = target_transposed(&line(&[-1, 0, 2]), &line(&[-3, -2, -1, 0, 1, 3, 6]), &kernel);
    let y = trilinear(&[10.0, 20.0, 40.0], 1, &pairs.edges, &weights, 7);
    assert_eq!(y, [10.0, 10.0, 15.0, 20.0, 20.0, 40.0, 0.0]);
}

#[test]
fn trilinear_weights_fall_off_linearly() {
    let third = trilinear_weights([3, 1, 1]);
    assert_close(&[1.0 / 3.0, 2.0 / 3.0, 1.0, 2.0 / 3.0, 1.0 / 3.0], &third, F64);
    assert_eq!(trilinear_weights([1, 1, 1]), [1.0]);
    assert_eq!(trilinear_weights([2, 2, 2])[0], 0.125);
    let reached = transposed(&line(&[1]), &trilinear_kernel([2, 1, 1]));
    assert_eq!(reached.target, line(&[1, 2, 3]));
}

#[test]
fn global_pooling_gives_the_worked_example() {
    let (x, batch) = ([1.0, 3.0, 5.0], [0, 0, 2]);
    assert_eq!(global_sum(&x, 1, &batch, 4), [4.0, 0.0, 5.0, 0.0]);
    assert_eq!(global_avg(&x, 1, &batch, 4), [2.0, 0.0, 5.0, 0.0]);
    assert_eq!(global_max(&x, 1, &batch, 4), None);
    assert_eq!(global_max(&x[..2], 1, &batch[..2], 1), Some(vec![3.0]));
    assert_eq!(global_max(&[], 1, &[], 0), None);
}

#[test]
fn max_hands_on_nan_and_gives_0_to_rows_without_pairs() {
    let y = pool_max(&[f64::NAN, -1.0, -3.0], 1, &[(0, 0, 0), (1, 0, 1), (2, 2, 0)], 3);
    assert!(y[0].is_nan());
    assert_eq!(y[1..], [0.0, -3.0]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn linear_pooling_gradients_are_adjoints(
        (coords, x) in strategies::support_with_values(2), kernel in strategies::kernel(),
    ) {
        let pairs = forward(&coords, &kernel);
        let (edges, n_in, n_out) = (&pairs.edges, pairs.n_in(), pairs.n_out());
        let g: Vec<f64> = (0..n_out * 2).map(|at| (at % 5) as f64 - 2.0).collect();
        let weights: Vec<f64> = (0..pairs.taps).map(|k| 1.0 + k as f64).collect();
        let forward = [
            dot(&g, &pool_sum(&x, 2, edges, n_out)),
            dot(&g, &pool_avg(&x, 2, edges, n_out)),
            dot(&g, &trilinear(&x, 2, edges, &weights, n_out)),
        ];
        let backward = [
            dot(&pool_sum_grad(&g, 2, edges, n_in), &x),
            dot(&pool_avg_grad(&g, 2, edges, n_in), &x),
            dot(&trilinear_grad(&g, 2, edges, &weights, n_in), &x),
        ];
        assert_close(&forward, &backward, F64.scaled(100.0));
    }

    #[test]
    fn ties_share_the_gradient_of_the_maximum(
        coords in strategies::scattered(4, 40), kernel in strategies::kernel(),
    ) {
        let pairs = forward(&coords, &kernel);
        let x: Vec<f64> = (0..coords.len()).map(|at| (at % 3) as f64).collect();
        let g = vec![1.0; pairs.n_out()];
        let dx = pool_max_grad(&x, &g, 1, &pairs.edges, pairs.n_in());
        let with_pairs = (0..pairs.n_out() as u32).filter(|o| pairs.edges.iter().any(|e| e.1 == *o)).count();
        assert_close(&[with_pairs as f64], &[dx.iter().sum()], F64);
        // without ties the maximum is differentiable
        let x: Vec<f64> = (0..coords.len()).map(|at| (at * 7 % 41) as f64 + at as f64 * 0.01).collect();
        let analytic = pool_max_grad(&x, &g, 1, &pairs.edges, pairs.n_in());
        assert_pullback(|x| pool_max(x, 1, &pairs.edges, pairs.n_out()), &x, &g, &analytic);
    }
}

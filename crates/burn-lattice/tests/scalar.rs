//! Look-up, exponential, rounding and softmax on bare features.
#![allow(clippy::unwrap_used, reason = "tests")]

mod harness;

use burn::tensor::{DType, Int, Tensor};
use burn_lattice::{Error, ops};
use harness::*;
use lattice_testkit::tolerances::{EXACT, F32, assert_close};

fn ids(values: &[i64]) -> Tensor<1, Int> {
    Tensor::from_data(values, &inference())
}

#[test]
fn lookup_takes_rows_by_number_and_repeats_them() {
    let table = tensor(&[1., 2., 3., 4., 5., 6.], [3, 2], DType::F32, &inference());
    let y = ops::embedding_lookup(table, ids(&[2, 0, 2])).unwrap();
    assert_close(&[5., 6., 1., 2., 5., 6.], &read(&y), EXACT);
}

#[test]
fn an_id_outside_the_table_is_named() {
    let table = || tensor(&[1., 2.], [2, 1], DType::F32, &inference());
    for bad in [2, -1] {
        let error = ops::embedding_lookup(table(), ids(&[0, bad])).unwrap_err();
        assert!(matches!(error, Error::OutOfRange { row: 1, .. }), "{error}");
    }
    assert_eq!(ops::embedding_lookup(table(), ids(&[])).unwrap().dims(), [0, 1]);
}

#[test]
fn repeated_rows_add_their_gradients() {
    check_gradients(&[vec![0.5, -1.0, 2.0, 0.25]], |leaves| {
        let device = leaves[0].device();
        let ids = Tensor::<1, Int>::from_data([1i64, 0, 1], &device);
        let y = ops::embedding_lookup(leaves[0].clone().reshape([2, 2]), ids).unwrap();
        y.clone() * y
    });
}

#[test]
fn halves_round_to_the_even_integer() {
    let x = tensor(&[0.5, 1.5, 2.5, -0.5, -1.5, 0.49, 2.51], [7, 1], DType::F32, &inference());
    let y: Vec<f64> = read(&ops::round_features(x).unwrap()).iter().map(|v| v + 0.0).collect();
    assert_close(&[0., 2., 2., 0., -2., 0., 3.], &y, EXACT);
}

#[test]
fn exponential_and_softmax_follow_their_formulas() {
    for dtype in dtypes() {
        let x = tensor(&[0., 1., -2., 3.], [2, 2], dtype, &inference());
        let exp: Vec<f64> = [0f64, 1., -2., 3.].iter().map(|v| v.exp()).collect();
        assert_close(&exp, &read(&ops::exp_features(x.clone()).unwrap()), tolerance(dtype));
        let soft = |a: f64, b: f64| 1.0 / (1.0 + (b - a).exp());
        let expected = [soft(0., 1.), soft(1., 0.), soft(-2., 3.), soft(3., -2.)];
        assert_close(&expected, &read(&ops::softmax_features(x).unwrap()), tolerance(dtype));
    }
}

#[test]
fn softmax_of_large_values_does_not_overflow() {
    let x = tensor(&[1e30, 1e30], [1, 2], DType::F32, &inference());
    assert_close(&[0.5, 0.5], &read(&ops::softmax_features(x).unwrap()), F32);
}

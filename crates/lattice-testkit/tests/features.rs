//! The worked examples of feature-only operations, and their gradients against central differences.

use lattice_testkit::features::*;
use lattice_testkit::gradcheck::{assert_pullback, central_differences};
use lattice_testkit::normalisation::*;
use lattice_testkit::patterns;
use lattice_testkit::tolerances::{F64, PRINTED, assert_close};

const X: [f64; 6] = [1.0, 2.0, 3.0, 4.0, 8.0, 0.0];

#[test]
fn activations_have_the_published_values() {
    let table: [(Activation, [f64; 4]); 7] = [
        (Activation::Gelu, [-0.15865529, 0.0, 0.84134471, 1.9544998]),
        (Activation::GeluTanh, [-0.15880799, 0.0, 0.84119201, 1.9545977]),
        (Activation::GeluFast, [-0.15420423, 0.0, 0.84579575, 1.9356586]),
        (Activation::Silu, [-0.26894143, 0.0, 0.73105860, 1.7615942]),
        (
            Activation::Softplus { beta: 1.0, threshold: 20.0 },
            [0.31326166, std::f64::consts::LN_2, 1.3132616, 2.1269279],
        ),
        (
            Activation::Softplus { beta: 2.0, threshold: 20.0 },
            [0.06346402, std::f64::consts::LN_2 / 2.0, 1.0634639, 2.0090749],
        ),
        (Activation::LeakyRelu { alpha: 0.01 }, [-0.01, 0.0, 1.0, 2.0]),
    ];
    for (kind, expected) in table {
        assert_close(&expected, &kind.apply(&[-1.0, 0.0, 1.0, 2.0]), PRINTED);
    }
    assert_eq!(Activation::Relu.apply(&[-1.0, 0.0, 2.0]), [0.0, 0.0, 2.0]);
    assert_eq!(Activation::Softplus { beta: 1.0, threshold: 20.0 }.value(100.0), 100.0);
}

#[test]
fn activations_have_the_derivative_of_their_values() {
    let x: Vec<f64> = (-30..30).map(|v| f64::from(v) * 0.37 + 0.05).collect();
    for kind in Activation::ALL {
        assert_pullback(|x| kind.apply(x), &x, &vec![1.0; x.len()], &kind.grad(&x, &vec![1.0; x.len()]));
    }
}

#[test]
fn erf_has_its_known_values() {
    let known = [
        (0.0, 0.0),
        (0.5, 0.520_499_877_813_046_5),
        (1.0, 0.842_700_792_949_714_9),
        (2.0, 0.995_322_265_018_952_7),
        (3.0, 0.999_977_909_503_001_4),
        (-1.0, -0.842_700_792_949_714_9),
        (6.0, 1.0),
    ];
    for (x, value) in known {
        assert_close(&[value], &[erf(x)], F64);
    }
    assert!((erf(2.5) - erf(2.499_999_999_9)).abs() < 1e-11, "both branches meet");
}

#[test]
fn linear_gives_the_worked_example() {
    let w = [1.0, 0.0, 0.0, 1.0, 1.0, 1.0];
    assert_eq!(linear(&[1.0, 2.0], &w, Some(&[0.0, 0.0, 10.0]), 2, 3), [1.0, 2.0, 13.0]);
    let (dx, dw, db) = linear_grads(&[1.0, 2.0], &w, &[1.0, 2.0, 3.0], 2, 3);
    assert_eq!(dx, [4.0, 5.0]);
    assert_eq!(dw, [1.0, 2.0, 2.0, 4.0, 3.0, 6.0]);
    assert_eq!(db, [1.0, 2.0, 3.0]);
}

#[test]
fn layer_and_rms_norm_give_the_worked_example() {
    let (ones, zeros) = ([1.0; 3], [0.0; 3]);
    let layer = normalize(&X, 3, &Sets::Row, &ones, &zeros, 1e-5);
    assert_close(&[-1.2247356, 0.0, 1.2247356, 0.0, 1.2247443, -1.2247443], &layer, PRINTED);
    let rms = rms_norm(&X, &ones, 1e-5);
    assert_close(&[0.46290955, 0.9258191, 1.3887286, 0.77459645, 1.5491929, 0.0], &rms, PRINTED);
}

#[test]
fn batch_norm_gives_the_worked_example() {
    let (ones, zeros) = ([1.0; 3], [0.0; 3]);
    let (mean, var) = channel_statistics(&X, 3);
    assert_eq!(mean, [2.5, 5.0, 1.5]);
    assert_eq!(var, [2.25, 9.0, 2.25]);
    let y = normalize(&X, 3, &Sets::Channel, &ones, &zeros, 1e-5);
    let first = [-0.9999978, -0.9999994, 0.9999978];
    assert_close(&[first, first.map(|v| -v)].concat(), &y, PRINTED);
    assert_close(&y, &batch_norm_fixed(&X, &mean, &var, &ones, &zeros, 1e-5), F64);
    assert_close(&[0.25, 0.5, 0.15], &running(&zeros, &mean, 0.1), F64);
    assert_close(&[1.125, 1.8, 1.125], &running(&ones, &var, 0.1), F64);
    let unbiased: Vec<f64> = var.iter().map(|v| v * 2.0).collect();
    assert_close(&[1.35, 2.7, 1.35], &running(&ones, &unbiased, 0.1), F64);
}

#[test]
fn one_group_of_one_item_is_the_whole_array() {
    let sets = Sets::ItemGroup { batch: vec![0, 0], groups: 1 };
    let y = normalize(&X, 3, &sets, &[1.0; 3], &[0.0; 3], 0.0);
    let (mean, var) = (3.0, 20.0 / 3.0);
    let expected: Vec<f64> = X.iter().map(|x| (x - mean) / f64::sqrt(var)).collect();
    assert_close(&expected, &y, F64);
    // with a single item instance norm is batch norm
    let instance = normalize(&X, 3, &Sets::instance(&[0, 0], 3), &[1.0; 3], &[0.0; 3], 1e-5);
    assert_close(&normalize(&X, 3, &Sets::Channel, &[1.0; 3], &[0.0; 3], 1e-5), &instance, F64);
}

#[test]
fn norm_gradients_agree_with_central_differences() {
    let (n, c, eps) = (7, 4, 1e-3);
    let x = patterns::features(n, c);
    let (scale, shift) = ([1.0, -2.0, 0.5, 3.0], [0.1, 0.2, 0.3, 0.4]);
    let g = patterns::weights(n * c);
    let batch = vec![0, 2, 2, 0, 2, 0, 0];
    let grouped = Sets::ItemGroup { batch: batch.clone(), groups: 2 };
    for sets in [Sets::Channel, Sets::Row, grouped, Sets::instance(&batch, c)] {
        let (dx, dscale, dshift) = normalize_grads(&x, &g, c, &sets, &scale, eps);
        assert_pullback(|x| normalize(x, c, &sets, &scale, &shift, eps), &x, &g, &dx);
        assert_pullback(|scale| normalize(&x, c, &sets, scale, &shift, eps), &scale, &g, &dscale);
        assert_pullback(|shift| normalize(&x, c, &sets, &scale, shift, eps), &shift, &g, &dshift);
    }
    let (dx, dscale) = rms_norm_grads(&x, &g, &scale, eps);
    assert_pullback(|x| rms_norm(x, &scale, eps), &x, &g, &dx);
    assert_pullback(|scale| rms_norm(&x, scale, eps), &scale, &g, &dscale);
    let (dx, dw, db) = linear_grads(&x, &scale, &g[..n], c, 1);
    assert_pullback(|x| linear(x, &scale, Some(&[1.0]), c, 1), &x, &g[..n], &dx);
    assert_pullback(|w| linear(&x, w, Some(&[1.0]), c, 1), &scale, &g[..n], &dw);
    assert_pullback(|b| linear(&x, &scale, Some(b), c, 1), &[1.0], &g[..n], &db);
}

#[test]
fn rounding_takes_halves_to_even() {
    let x = [0.5, 1.5, 2.5, -0.5, -1.5, 2.4, 2.6, -2.6, 3.0];
    assert_eq!(x.map(round_half_even), [0.0, 2.0, 2.0, 0.0, -2.0, 2.0, 3.0, -3.0, 3.0]);
}

#[test]
fn softmax_rows_sum_to_one_and_dropout_scales_what_it_keeps() {
    let y = softmax(&[1000.0, 1000.0, 0.0, f64::ln(3.0)], 2);
    assert_close(&[0.5, 0.5, 0.25, 0.75], &y, F64);
    assert_eq!(dropout(&[1.0, 2.0], &[false, true], 0.5), [0.0, 4.0]);
}

#[test]
fn central_differences_find_a_polynomials_gradient() {
    let found = central_differences(|x| x[0] * x[0] * x[1] + 3.0 * x[1], &[2.0, 5.0]);
    assert_close(&[20.0, 7.0], &found, F64.scaled(1e3));
}

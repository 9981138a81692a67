//! Gradients by central differences in `f64`, and the comparison with analytic ones.

use crate::tolerances::{Tolerance, assert_close};

/// Step of the central difference.
pub const STEP: f64 = 1e-4;

/// How far an analytic gradient may be from the difference quotient.
pub const GRADIENT: Tolerance = Tolerance { name: "gradient", rtol: 1e-4, atol: 1e-6 };

/// `(f(x + h) - f(x - h)) / 2h` for every component of `x`.
pub fn central_differences(f: impl Fn(&[f64]) -> f64, x: &[f64]) -> Vec<f64> {
    (0..x.len())
        .map(|at| {
            let moved = |step: f64| {
                let mut moved = x.to_vec();
                moved[at] += step;
                f(&moved)
            };
            (moved(STEP) - moved(-STEP)) / (2.0 * STEP)
        })
        .collect()
}

/// Asserts that `analytic` is the gradient of the scalar function `f` at `x`.
#[track_caller]
pub fn assert_gradient(f: impl Fn(&[f64]) -> f64, x: &[f64], analytic: &[f64]) {
    assert_close(&central_differences(f, x), analytic, GRADIENT);
}

/// Asserts that `pull(g)` is the gradient of `x -> <g, f(x)>`, for a function with many results.
#[track_caller]
pub fn assert_pullback(f: impl Fn(&[f64]) -> Vec<f64>, x: &[f64], g: &[f64], analytic: &[f64]) {
    assert_gradient(|x| dot(g, &f(x)), x, analytic);
}

/// `Σ a·b`; lengths must agree. With it adjoints are checked: `<y, A x> == <Aᵀ y, x>`.
#[track_caller]
pub fn dot(a: &[f64], b: &[f64]) -> f64 {
    assert_eq!(a.len(), b.len(), "dot: lengths differ");
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

//! Functions of one value, as plain loops that are compiled for each instruction set.

use rayon::prelude::*;

use crate::isa::engine;

/// Values of a task.
const TASK: usize = 1 << 14;

/// `e^x` for `x <= 0` within two units in the last place, 0 below -87; NaN for NaN and where an infinity was subtracted from itself.
#[inline(always)]
pub(crate) fn exp(x: f32) -> f32 {
    // Where f32 counts in ones: a sum with it is rounded to a whole number, which stands in the lowest bits.
    const ONES: f32 = 12_582_912.0;
    let shifted = (x * std::f32::consts::LOG2_E).max(-126.0) + ONES;
    let powers = shifted - ONES;
    // What is left, in two steps: the product with the first part of ln 2 is exact.
    let rest = x - powers * 0.693_359_4 - powers * -2.121_944_4e-4;
    let mut sum = 1.987_569_1e-4f32;
    for coefficient in [1.398_199_9e-3, 8.333_452e-3, 4.166_579_6e-2, 0.166_666_65, 0.5, 1.0, 1.0] {
        sum = sum * rest + coefficient;
    }
    let whole = shifted.to_bits().wrapping_sub(ONES.to_bits());
    let scale = f32::from_bits(whole.wrapping_add(127) << 23);
    if x < -87.0 { 0.0 } else { sum * scale }
}

/// `out[i] = x / 2 · (1 + erf(x / √2))`, within `8e-7` of itself for `x` down to -5, and within `1.2e-7 · |x|` below; NaN for NaN and for minus
/// infinity, as the formula has it. Deterministic: the same bits for any number of threads.
///
/// # Panics
/// When the slices differ in length.
pub fn gelu(x: &[f32], out: &mut [f32]) {
    assert_eq!(x.len(), out.len(), "gelu: lengths of input and output");
    let engine = engine();
    out.par_chunks_mut(TASK).zip(x.par_chunks(TASK)).for_each(|(out, x)| {
        engine.vectorize(|| {
            for (out, &x) in out.iter_mut().zip(x) {
                *out = x * below(x);
            }
        });
    });
}

/// The share of a normal distribution below `x`: its tail is `e^(-x²/2)` times a function that falls slowly, a polynomial of `1 / (1 + 0.3 |x|)`
/// fitted for the least relative error (3.4e-9 up to 14; a tail beyond is 0 in f32).
#[inline(always)]
fn below(x: f32) -> f32 {
    const TAIL: [f32; 10] = [
        -0.020_612_946,
        0.112_376_414,
        -0.228_069,
        0.191_583_7,
        -0.079_249_01,
        0.096_058_73,
        0.078_425_266,
        0.110_227_39,
        0.119_572_83,
        0.119_686_63,
    ];
    let t = if x < 0.0 { -x } else { x };
    let u = 1.0 / (1.0 + 0.3 * t);
    let mut sum = 0.0;
    for coefficient in TAIL {
        sum = (sum + coefficient) * u;
    }
    let tail = sum * exp(-0.5 * (t * t));
    if x < 0.0 { tail } else { 1.0 - tail }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::{Isa, with_isa};

    #[test]
    fn exponentials_are_within_two_units_in_the_last_place() {
        for i in 0..870_000 {
            let x = -(i as f32) / 10_000.0;
            let (found, expected) = (exp(x), f64::from(x).exp());
            let unit = f64::from(f32::EPSILON) * expected;
            assert!(
                (f64::from(found) - expected).abs() <= 2.0 * unit,
                "exp({x}): {found}, expected {expected}"
            );
        }
        assert_eq!((exp(-88.0), exp(f32::NEG_INFINITY)), (0.0, 0.0));
        assert!(exp(f32::NAN).is_nan());
    }

    /// `1 - erf(z)` for `z >= 0`: a series of `erf` near 0, a continued fraction elsewhere.
    fn erfc(z: f64) -> f64 {
        if z < 2.5 {
            let (mut term, mut sum) = (z, z);
            for n in 1..80 {
                term *= -z * z / f64::from(n);
                sum += term / f64::from(2 * n + 1);
            }
            1.0 - sum * std::f64::consts::FRAC_2_SQRT_PI
        } else {
            let fraction = (1..=80).rev().fold(0.0, |below, k| f64::from(k) / 2.0 / (z + below));
            (-z * z).exp() * std::f64::consts::FRAC_2_SQRT_PI / 2.0 / (z + fraction)
        }
    }

    #[test]
    fn gelu_matches_its_definition_on_every_instruction_set() {
        let x: Vec<f32> = (-140_000..=140_000).map(|i| i as f32 / 10_000.0).collect();
        for isa in Isa::ALL.into_iter().filter(|isa| isa.is_available()) {
            let mut out = vec![f32::NAN; x.len()];
            with_isa(isa, || gelu(&x, &mut out)).unwrap();
            for (&x, &found) in x.iter().zip(&out) {
                let wide = f64::from(x);
                let tail = 0.5 * erfc(wide.abs() / std::f64::consts::SQRT_2);
                let expected = if x < 0.0 { wide * tail } else { wide * (1.0 - tail) };
                let error = (f64::from(found) - expected).abs();
                let allowed =
                    if x >= -5.0 { 8e-7 * expected.abs() } else { f64::from(f32::EPSILON) * wide.abs() };
                assert!(error <= allowed, "{isa:?}: gelu({x}) is {found}, expected {expected}");
            }
        }
    }

    #[test]
    fn gelu_of_what_is_no_number() {
        let mut out = [0.0; 4];
        gelu(&[f32::NAN, f32::INFINITY, -1e30, 0.0], &mut out);
        assert!(out[0].is_nan());
        assert_eq!(out[1..], [f32::INFINITY, 0.0, 0.0]);
        gelu(&[f32::NEG_INFINITY], &mut out[..1]);
        assert!(out[0].is_nan());
    }
}

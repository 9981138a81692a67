//! How close is close: one tolerance per number format, rounding to a format, and the assertion that uses them.

use half::{bf16, f16};

/// `|found - expected| <= atol + rtol·|expected|`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Tolerance {
    /// Appears in messages.
    pub name: &'static str,
    /// Relative part.
    pub rtol: f64,
    /// Absolute part.
    pub atol: f64,
}

/// Two double-precision evaluations of one formula.
pub const F64: Tolerance = Tolerance { name: "f64", rtol: 1e-10, atol: 1e-10 };
/// Single precision against the definition.
pub const F32: Tolerance = Tolerance { name: "f32", rtol: 1e-5, atol: 1e-5 };
/// Half precision, accumulated in single precision and rounded once.
pub const F16: Tolerance = Tolerance { name: "f16", rtol: 2e-3, atol: 2e-3 };
/// Brain floats, accumulated in single precision and rounded once: eight significant bits.
pub const BF16: Tolerance = Tolerance { name: "bf16", rtol: 1.6e-2, atol: 1.6e-2 };
/// Values printed with eight digits in a worked example.
pub const PRINTED: Tolerance = Tolerance { name: "printed digits", rtol: 1e-6, atol: 1e-7 };
/// Equal values; NaN equals NaN.
pub const EXACT: Tolerance = Tolerance { name: "exact", rtol: 0.0, atol: 0.0 };

impl Tolerance {
    /// The same tolerance for results that are sums of terms as large as `magnitude`: the absolute part grows with it.
    pub fn scaled(self, magnitude: f64) -> Self {
        Self { atol: self.atol * magnitude.max(1.0), ..self }
    }

    /// Whether `found` is close to `expected`. NaN is close to NaN, an infinity to itself.
    pub fn accepts(self, expected: f64, found: f64) -> bool {
        (expected.is_nan() && found.is_nan())
            || expected == found
            || (found - expected).abs() <= self.atol + self.rtol * expected.abs() && expected.is_finite()
    }
}

/// Values rounded to single precision, as an `f32` tensor holds them.
pub fn rounded_f32(values: &[f64]) -> Vec<f64> {
    values.iter().map(|&v| f64::from(v as f32)).collect()
}

/// Values rounded to half precision.
pub fn rounded_f16(values: &[f64]) -> Vec<f64> {
    values.iter().map(|&v| f16::from_f64(v).to_f64()).collect()
}

/// Values rounded to brain floats.
pub fn rounded_bf16(values: &[f64]) -> Vec<f64> {
    values.iter().map(|&v| bf16::from_f64(v).to_f64()).collect()
}

/// Values widened to `f64`, from `f32`, `f16`, `bf16` or integers.
pub fn widened<T: Copy + Into<f64>>(values: &[T]) -> Vec<f64> {
    values.iter().map(|&v| v.into()).collect()
}

/// Asserts that two arrays have one length and agree within the tolerance; else says how many values differ, and where
/// and how far apart the worst one is.
#[track_caller]
pub fn assert_close(expected: &[f64], found: &[f64], tolerance: Tolerance) {
    if let Err(message) = compare(expected, found, tolerance) {
        panic!("{message}");
    }
}

/// What [`assert_close`] checks, as a value: `Err` holds the message.
pub fn compare(expected: &[f64], found: &[f64], tolerance: Tolerance) -> Result<(), String> {
    if expected.len() != found.len() {
        return Err(format!("expected {} values, found {}", expected.len(), found.len()));
    }
    let excess = |at: &usize| {
        let error = (found[*at] - expected[*at]).abs() - tolerance.rtol * expected[*at].abs();
        if error.is_nan() { f64::INFINITY } else { error }
    };
    let wrong: Vec<usize> =
        (0..expected.len()).filter(|&at| !tolerance.accepts(expected[at], found[at])).collect();
    let Some(worst) = wrong.iter().copied().max_by(|a, b| excess(a).total_cmp(&excess(b))) else {
        return Ok(());
    };
    Err(format!(
        "{} of {} values differ by more than {} (rtol {:e}, atol {:e}); first at {}: expected {:?}, found {:?}; \
         worst at {worst}: expected {:?}, found {:?}, apart by {:e}",
        wrong.len(),
        expected.len(),
        tolerance.name,
        tolerance.rtol,
        tolerance.atol,
        wrong[0],
        expected[wrong[0]],
        found[wrong[0]],
        expected[worst],
        found[worst],
        (found[worst] - expected[worst]).abs(),
    ))
}

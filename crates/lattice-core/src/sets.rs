//! Set operations.

use crate::{Error, Result, Support};

/// Distinct rows divided by the stride, rounding down.
///
/// # Errors
/// A stride with a zero component.
pub fn downsample(support: &Support, stride: [u32; 3]) -> Result<Support> {
    if stride.contains(&0) {
        return Err(Error::Value { op: "downsample", what: format!("expected a positive stride, found {stride:?}") });
    }
    if stride == [1; 3] {
        return Ok(support.clone());
    }
    let div = |v: i32, s: u32| i64::from(v).div_euclid(i64::from(s)) as i32;
    Support::canonical(
        support.coords().iter().map(|c| [c[0], div(c[1], stride[0]), div(c[2], stride[1]), div(c[3], stride[2])]).collect(),
    )
}

//! Routes that the environment forces, checked before a network runs.

use anyhow::Result;
use burn::tensor::DType;
use burn_lattice::routes::{self, ConvProblem};
use lattice_cpu::ConvShape;

/// Refuses a `LATTICE_ROUTE` that the convolutions of our networks (f32, one group) cannot take.
///
/// # Errors
/// An unknown route, or one that does not fit; the message says what it needs.
pub fn check_for_networks() -> Result<()> {
    let shape = ConvShape { c_in: 32, c_out: 32, groups: 1 };
    Ok(routes::check_forced(&ConvProblem { dtype: DType::F32, rows: 1, shape, pointwise: false })?)
}

//! Routes that the environment forces, checked before a network runs.

use anyhow::Result;
use burn::tensor::{DType, Device};
use burn_lattice::routes::{self, ConvProblem, DeviceClass};
use lattice_cpu::ConvShape;

/// Refuses a `LATTICE_ROUTE` that the convolutions of our networks (one group) cannot take on a device.
///
/// # Errors
/// An unknown route, or one that does not fit; the message says what it needs.
pub fn check_for_networks(device: &Device, dtype: DType) -> Result<()> {
    let shape = ConvShape { c_in: 32, c_out: 32, groups: 1 };
    let device = DeviceClass::of(device);
    Ok(routes::check_forced(&ConvProblem { dtype, rows: 1, shape, pointwise: false, device })?)
}

//! Points and the voxels around them: which voxel holds a point, and which voxels it reads.
//!
//! Everything is found where the points lie, with the results of `lattice-core`: positions in voxels are computed in integers (see
//! `exact`), so the same points fall into the same voxels on every device.

mod corners;
mod exact;
mod kernel;
mod launch;

pub use corners::{PointCorners, point_corners};
#[doc(hidden)]
pub use exact::{Calculation, calculate};
pub(crate) use exact::{from_integer, share_of};
pub use launch::{Quantized, Voxels, quantize};

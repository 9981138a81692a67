//! Networks of the field, built from the public modules of `burn-lattice`.
//!
//! * [`MinkUNet`]: residual U-Net for segmentation, 14, 18 and 34 layers deep.
//! * [`SecondEncoder`]: strided encoder of voxel detectors, down to a dense bird's-eye view.
//!
//! [`seed_parameters`] makes the same weights for a seed on every device. No trained weights here yet.

mod minkunet;
mod residual;
mod second;
mod seed;

pub use minkunet::*;
pub use residual::*;
pub use second::*;
pub use seed::*;

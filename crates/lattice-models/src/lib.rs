//! Networks of the field, built from the public modules of `burn-lattice`.
//!
//! * [`MinkUNet`]: residual U-Net for segmentation, 14, 18, 34 and 42 convolutions deep.
//! * [`Spvcnn`]: a MinkUNet with a branch of points.
//! * [`PtV3`]: Point Transformer V3, and its block [`PtBlock`].
//! * [`SparseResNet`]: residual encoder.
//! * [`SecondEncoder`]: strided encoder of voxel detectors, plain or residual, down to a dense bird's-eye view.
//! * [`VoxelNext`]: fully sparse detector backbone.
//! * [`CompletionNet`]: generative decoder with pruning.
//!
//! [`zoo`] lists them by name, [`ModelSpec`] makes one. [`seed_parameters`] makes the same weights for a seed on every device. No trained weights here yet.

mod completion;
mod detector;
mod layers;
mod minkunet;
mod ptv3;
mod residual;
mod second;
mod seed;
mod serialization;
mod sparse_resnet;
mod spvcnn;
mod voxelnext;
mod zoo;

pub use burn_lattice::PatchRun;
pub use completion::*;
pub use detector::SecondLevel;
pub use minkunet::*;
pub use ptv3::*;
pub use residual::*;
pub use second::*;
pub use seed::*;
pub use serialization::*;
pub use sparse_resnet::*;
pub use spvcnn::*;
pub use voxelnext::*;
pub use zoo::*;

//! The strided encoder of voxel detectors, down to a dense bird's-eye view.
//!
//! Source: Yan, Mao, Li, "SECOND" (Sensors 2018); the layer list is the one detectors share under the name VoxelBackBone8x.
//! Axes here are x, y, z; that list's kernels are written z first. No weights are shipped.

use burn::config::Config;
use burn::module::Module;
use burn::tensor::{Device, Tensor};
use burn_lattice::nn::{Conv3dConfig, ConvBlock, ConvBlockConfig, ConvEpilogue};
use burn_lattice::ops;
use burn_lattice::trace::scope;
use burn_lattice::{Error, Result, SparseTensor};

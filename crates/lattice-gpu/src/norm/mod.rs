//! Batch norm over the rows of a batch, with the residual and the activation that follow, and its gradient: two launches each, or
//! three on devices whose cubes do not see what others wrote. [`batch_norm_shared`] is one over the rows of several devices: a launch more, and
//! a sum over the devices.
//!
//! Statistics are in f32: units merge the mean and the squared deviations of a few rows at a time, and the
//! results of units and cubes are merged in a fixed order.

mod fold;
mod gradient_sums;
mod launch;
mod moments;
mod row_kernels;
mod share;
mod shared;

pub use fold::fold;
pub use launch::{
    BatchNormGrads, BatchNormTape, BatchNormWith, BatchNormed, Running, batch_norm, batch_norm_grad,
};
pub use shared::{Sharing, batch_norm_shared, batch_norm_shared_grad};

//! Batch norm over the rows of a batch, with the residual and the activation that follow, and its gradient: two launches each, or
//! three on devices whose cubes do not see what others wrote.
//!
//! Statistics are in f32: units merge the mean and the squared deviations of a few rows at a time, and the
//! results of units and cubes are merged in a fixed order.

mod kernel;
mod launch;

pub use launch::{BatchNormGrads, BatchNormWith, BatchNormed, Running, batch_norm, batch_norm_grad};

//! Batch norm over the rows of a batch, with the residual and the activation that follow, and its gradient: three launches each.
//!
//! Statistics are in f32: a cube finds the mean and the squared deviations of its rows in two passes, and the cubes' results are
//! merged in a fixed order.

mod kernel;
mod launch;

pub use launch::{BatchNormGrads, BatchNormWith, BatchNormed, Running, batch_norm, batch_norm_grad};

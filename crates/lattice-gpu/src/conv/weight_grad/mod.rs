//! Weight gradients: `dw[tap] = Σ outer(x[i], g[o])` over the pairs of each tap.
//!
//! Pairs lie grouped by tap and are cut into segments of one length. Each segment is summed in order, and the segments of each tap are
//! added in order, by a second kernel or, on matrix units, by the cube that comes last: the same bits every time.

mod kernel;
mod launch;
mod list;
mod mma;
mod pairs;
mod segment;

pub use launch::{pointwise_weight_grad, weight_grad};
pub use pairs::DevicePairs;

//! Weight gradients: `dw[tap] = Σ outer(x[i], g[o])` over the pairs of each tap.
//!
//! Pairs lie grouped by tap and are cut into segments of one length. A first kernel sums each segment in order, a second adds the
//! segments of each tap in order: no atomics, the same bits every time.

mod kernel;
mod launch;
mod list;
mod mma;
mod pairs;
mod segment;

pub use launch::{pointwise_weight_grad, weight_grad};
pub use pairs::DevicePairs;

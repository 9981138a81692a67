//! Stable radix sort of rows by 64-bit keys, and sums over ranges.
//!
//! Keys are two words, so that devices without 64-bit integers sort them too. A pass takes eight bits: cubes count the digits of
//! their rows, one scan places them, and cubes move their rows. The order is the same on every device.

mod kernel;
mod launch;
mod scan;

pub use launch::{Keys, sort_rows};
pub use scan::exclusive_sum;
pub(crate) use scan::{SUM_UNITS, cube_exclusive_sum, plane_lanes, sum_segments};

//! Supports made on the device: what rows hold, their canonical order, and the distinct rows of coarser, finer and selected ones.
//!
//! Rows come out in canonical order, bit for bit those of `lattice-core`: a sort by Morton keys where the input is in another order,
//! then a mark on every row that differs from the one before, one sum over the marks, and one pass that moves the marked rows.
//! Each function waits for the device once, for the number of rows.

mod kernel;
mod launch;
mod order;

pub(crate) use kernel::{MARK, MARKED};
pub(crate) use launch::Uncounted;
pub use launch::{Created, children, coarser, expanded, kept, lookup, pyramid, reached};
pub use order::{Described, canonical_order, describe};

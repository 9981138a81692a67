//! Supports made on the device: what rows hold, their canonical order, and the distinct rows of coarser, finer and selected ones.
//!
//! Rows come out in canonical order, bit for bit those of `lattice-core`: a sort by Morton keys where the input is in another order,
//! then a mark on every row that differs from the one before, one sum over the marks, and one pass that moves the marked rows.
//! Each function waits for the device once, for the number of rows.

mod cells;
mod compare;
mod join;
mod kernel;
mod launch;
mod order;
mod pyramid;
mod select;

pub use cells::{CellGrid, batch_counts, batch_ids, cells};
pub use compare::same_rows;
pub use join::{Joined, count_up, inverse, join_appended, join_inner, join_outer};
pub(crate) use kernel::{MARK, MARKED};
pub(crate) use launch::Uncounted;
pub use launch::{Created, children, coarser, expanded, flattened, kept, lookup, reached};
pub(crate) use order::is_canonical;
pub use order::{Described, NewRows, bounds, canonical_order, describe, describe_with};
pub(crate) use pyramid::LEVELS;
pub use pyramid::{LevelMarks, Pyramid};
pub use select::{Named, inside, named, top_rows};

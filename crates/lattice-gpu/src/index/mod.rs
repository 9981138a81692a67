//! The index of a support: which row stands at a coordinate.
//!
//! Coordinates are grouped into blocks of 4 x 4 x 4 cells. A hash table without keys holds a *leader* row for each block (its
//! coordinate is the key), 64 occupancy bits and the first position of the block's rows; `rows[first + rank]` is the row of the
//! cell whose bit has that rank. Which slot a block takes and which of its rows leads it depend on timing; what a lookup answers
//! does not.

mod kernel;
mod launch;

pub(crate) use kernel::{EMPTY, find_block, hash_block, lookup_row, row_of_cell};
pub use launch::BlockIndex;
pub(crate) use launch::LIST;

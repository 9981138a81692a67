//! The index of a support: which row stands at a coordinate.
//!
//! Coordinates are grouped into blocks of 4 x 4 x 4 cells. A hash table without keys holds a *leader* row for each block (its
//! coordinate is the key) and 64 occupancy bits. In canonical order a block's rows stand next to each other in the order of their bits, so
//! that the leader's row and the ranks of both bits say the row of any cell. Rows in another order are listed block by block: `rows[first +
//! rank]` is the row of the cell whose bit has that rank; up to 2^20 of them come in canonical order so. Which slot a block takes and which of its rows leads it depend on timing; what a
//! lookup answers does not.

mod kernel;
mod launch;
mod order;

pub(crate) use kernel::{
    DESCRIPTION, EMPTY, cell_bit, clear_slot, describe_row, find_block, hash_block, is_in_block, lookup_row,
    rank,
};
pub use launch::BlockIndex;
pub(crate) use launch::{LIST, Tables};

//! Sparse mixing of rows: pooling, joins, scatter and gather over a [`lattice_core::RowMap`], and maxima with their gradients.
//!
//! One unit owns one output row and one vector of channels, and walks the entries of its row in order. A row with very many
//! entries (a global pool) is cut into pieces, whose results lie in f32 and are combined in order, level by level: no atomics, the
//! same bits every time.

mod concat;
mod gather;
mod grouped;
mod kernel;
mod launch;
mod map;
mod pairs;
mod transpose;

pub use concat::concat_columns;
pub use launch::{max_rows, max_rows_grad, mix_rows};
pub use map::DeviceRowMap;

//! Neighbour search among the rows of supports: the `k` nearest, or all within a radius, exactly as `lattice-core` finds them.
//!
//! Rows in canonical order that are near in number are near in space, so boxes over eight consecutive rows, over four such boxes, and
//! so on up to one, are a search tree that needs no pointers. A unit answers one query: it visits nearer boxes first and leaves out
//! those that cannot hold a neighbour. Distances are integers, equal ones are told apart by their row.

mod kernel;
mod launch;
mod tree;

pub use launch::{MOST_NEIGHBOURS, Neighbours, SearchRows, knn, radius};

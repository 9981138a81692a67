//! Definitions by loops, test strategies and tolerances (development only).
//!
//! Every operation of the library is written here once more, straight from its formula, in `f64` and plain loops over
//! slices. Nothing is shared with the code under test: no type, no index, no helper. Coordinates are `[i32; 4]`
//! (`[batch, x, y, z]`), features are row-major `&[f64]`, pairs are `(in_row, out_row, tap)`.
//!
//! Functions panic on arguments that make no sense: their callers are tests. They are slow on purpose (most scan their
//! rows for every lookup) and not meant for more than some thousand rows.

pub mod algebra;
pub mod bev;
pub mod convolution;
pub mod coords;
pub mod entropy;
pub mod features;
pub mod gradcheck;
pub mod neighbours;
pub mod normalisation;
pub mod offsets;
pub mod patterns;
pub mod points;
pub mod pooling;
pub mod quantization;
pub mod relations;
pub mod strategies;
pub mod tolerances;
pub mod views;

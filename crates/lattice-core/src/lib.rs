//! Coordinates, supports and relations of sparse voxel tensors, in plain Rust.
//!
//! * [`Support`]: distinct integer rows `[batch, x, y, z]` with an identity and, where this crate created them, the canonical
//!   order: batch-major, then Morton order.
//! * [`Relation`]: which input row meets which output row under which kernel tap.
//! * [`Voxelization`], [`PointVoxelMap`]: the bridge between points and voxels.
//! * [`CdfTable`], [`range_encode`], [`rans_encode`]: entropy coding in two frozen formats.
//! * [`RowMap`]: any linear mixing of rows (pooling, joins, scatter and gather), with its transpose.
//! * [`AttributeValues`]: what scans carry beside positions, as file formats and the codec share it.
//!
//! Not for features: no floating point tensor lives here. Kernels over these maps are in `lattice-cpu`; tensors, modules and
//! gradients are in `burn-lattice`.
#![forbid(unsafe_code)]

mod attachments;
mod attribute;
mod coord;
mod entropy;
mod error;
mod kernel;
mod morton;
mod occupancy;
mod points;
mod relation;
mod row_map;
mod sets;
mod support;

pub use attachments::{Attachments, Form};
pub use attribute::AttributeValues;
pub use coord::*;
pub use entropy::*;
pub use error::*;
pub use kernel::*;
pub use morton::*;
pub use occupancy::*;
pub use points::*;
pub use relation::*;
pub use row_map::*;
pub use sets::*;
pub use support::*;

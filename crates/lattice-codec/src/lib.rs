//! Compression of voxelized point clouds: lossless geometry, counts and attributes, in a checked container.
//!
//! * [`Occupied::of`] sorts and merges the voxels of points; [`compress`] writes them with their counts and attributes.
//! * [`Reader`] reads a stream batch by batch, [`decompress`] all of it: the same voxels, in canonical order.
//! * [`observe()`] tells what the network is asked about voxels: what `examples/train_network` trains it with.
//! * [`Grid::centre`] gives a voxel's centre: no point of the voxel is farther from it than half a voxel along any axis, so
//!   `voxel_size · sqrt(3) / 2` in space.
//!
//! # How it works
//! Voxels are cut into blocks of up to [`MAX_BLOCK_VOXELS`] in canonical order, each with its own models and checksum, so that blocks are coded on
//! several threads and memory is bounded. A block is an octree, coded level by level: for each cell which of its eight children are occupied,
//! bit by bit, with the probabilities of several contexts (cells around, children already known, order, density, elevation from the sensor)
//! mixed by weights that learn. Cells with one child, of which the fine levels of a scan are full, take a shorter way. With [`Model::Learned`] a small
//! trained network that sees cells farther away has the last word on these bits, and goes on learning from them. Attributes are predicted from
//! the voxels coded before that touch a voxel. All of it is integer arithmetic: encoder and decoder agree on every machine.
//!
//! Not the frozen formats of `lattice_core` (range coder, rANS): those take distributions of whole symbols that are known beforehand, and
//! cost a division and a search a symbol; here every bit changes the next bit's probability, and a bit costs one product.
//!
//! Not for floats beyond the grid: positions come back as voxel centres. Not for meshes.
#![forbid(unsafe_code)]

mod block;
mod channel;
mod cloud;
mod coder;
mod error;
mod features;
mod geometry;
mod header;
mod judge;
mod lone;
mod mix;
mod model;
mod network;
mod observe;
mod occupancy;
mod octree;
mod residual;
mod stream;
mod window;

pub use block::MAX_BLOCK_VOXELS;
pub use cloud::{Attribute, Grid, Occupied, VoxelCloud};
pub use error::{CodecError, Result};
pub use header::{AttributeInfo, Header};
pub use lattice_core::AttributeValues as Values;
pub use model::{Model, ParseModelError};
pub use observe::{Event, N_FEATURES, N_HEADS, N_HIDDEN, observe};
pub use stream::{CompressOptions, Limits, Reader, compress, decompress};

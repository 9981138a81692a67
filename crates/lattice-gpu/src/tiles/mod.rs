//! Relations in the form that convolution kernels read: tiles of output rows with their halos.
//!
//! A *tile* is 256 output rows. Its *halo* is the list of distinct input rows that they meet: a kernel stages those rows once in
//! shared memory, whatever the number of taps, and then works on local numbers. Rows of a tile are sorted by the set of taps they
//! have, so that most chunks of eight rows share it, and a bit for each (tap, chunk) says where work is.
//!
//! Where the halo of a tile passes [`HALO_ROWS`], its taps are split into phases, each with a halo of its own.

mod blocks;
mod chunks;
mod geometry;
mod given;
mod halo;
mod identity;
mod job;
mod kernel;
mod keys;
mod launch;
mod numbers;
mod order;
mod phases;
mod places;
mod read;
mod report;
mod set;
mod window;

pub use geometry::{Geometry, Placement};
pub(crate) use halo::Halos;
pub(crate) use kernel::{NO_ROW, SPAN_WORDS};
pub(crate) use launch::build_together;
pub use launch::{ExpectedRelation, Tiles, check_table};
pub(crate) use read::local_number;
pub use report::TileReport;

/// Output rows of a tile.
pub const TILE_ROWS: usize = 256;
/// Input rows that one phase of a tile may stage.
pub const HALO_ROWS: usize = 512;
/// Rows of a chunk: the finest grain at which a tap is skipped.
pub const CHUNK_ROWS: usize = 8;

//! GPU kernels for sparse voxel networks, written once in CubeCL: the index of a support, relations as tiles, and convolutions.
//!
//! Nothing here knows about Burn or automatic differentiation; `burn-lattice` calls it with buffers.
#![cfg(feature = "cubecl")]
#![allow(
    clippy::duplicate_underscore_argument,
    reason = "the expansion of a kernel names its sizes after its type parameters"
)]

mod address;
#[cfg(feature = "cuda")]
mod ahead;
mod arena;
pub mod conv;
mod gpu;
pub mod index;
mod last;
mod lost;
pub mod neighbours;
pub mod norm;
mod peaks;
pub mod points;
mod queue;
pub mod rows;
pub mod sort;
mod stream;
pub mod support;
pub mod tiles;

#[cfg(feature = "cuda")]
pub use ahead::{compiled_ahead, without_compilers};
pub use arena::Life;
pub use cubecl;
pub use gpu::{Buffer, Gpu};
pub use lost::lost_work;
pub use stream::share_one_stream;

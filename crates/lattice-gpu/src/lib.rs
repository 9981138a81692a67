//! GPU kernels for sparse voxel networks, written once in CubeCL: the index of a support, relations as tiles, and convolutions.
//!
//! Nothing here knows about Burn or automatic differentiation; `burn-lattice` calls it with buffers.
#![cfg(feature = "cubecl")]
#![allow(
    clippy::duplicate_underscore_argument,
    reason = "the expansion of a kernel names its sizes after its type parameters"
)]

mod address;
#[cfg(any(feature = "cuda", feature = "vulkan"))]
mod ahead;
mod arena;
pub mod conv;
#[cfg(not(target_family = "wasm"))]
mod environment;
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
#[cfg(any(feature = "cuda", feature = "vulkan", feature = "check-translations"))]
mod stand_in;
mod stream;
pub mod support;
pub mod tiles;
#[cfg(feature = "check-translations")]
mod translate;

#[cfg(any(feature = "cuda", feature = "vulkan"))]
pub use ahead::{compiled_ahead, without_compilers};
pub use arena::Life;
pub use cubecl;
#[cfg(not(target_family = "wasm"))]
pub use environment::own_environment;
pub use gpu::{Buffer, Gpu};
pub use lost::lost_work;
pub use stream::share_one_stream;
#[cfg(feature = "check-translations")]
pub use translate::{card_of_translator, translations};

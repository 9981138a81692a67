//! Sparse-voxel and point-cloud deep learning on the [Burn](burn) framework.
//!
//! A [`SparseTensor`] binds features `[rows, channels]` to a [`Support`]: distinct integer coordinates
//! `[batch, x, y, z]` with an identity. Every spatial operation has two parts: *geometry*, the [`Relation`] that says which
//! input row meets which output row under which kernel tap, cached by identity in a [`CoordinateManager`]; and *arithmetic*,
//! done by a route of [`routes`] on the device where the features live.
//!
//! * [`ops`]: the functional forms; each returns a `Result` and says its shapes.
//! * [`nn`]: modules in Burn's manner, a `Config` and a `Module` each.
//! * [`quantized`]: weights in codes of 4 or 8 bits that layers run on.
//! * [`routes`]: the table of implementations, how to force one, and [`routes::explain`].
//!
//! Features are differentiable on `device.autodiff()`; coordinates never are. The library aligns coordinates; what they mean
//! is the caller's choice.
//!
//! Not for files or pictures (`lattice-io`), nor for whole networks (`lattice-models`).

#[cfg(all(
    feature = "gpu",
    not(any(feature = "cuda", feature = "metal", feature = "rocm", feature = "vulkan", feature = "webgpu"))
))]
compile_error!("the feature `gpu` is internal: choose cuda, metal, rocm, vulkan or webgpu");

mod backend;
mod device;
mod group;
mod kernel_cache;
mod manager;
mod operators;
mod peaks;
mod streams;
mod support;
mod tensor;

pub mod nn;
pub mod ops;
pub mod quantized;
pub mod routes;
pub mod trace;

pub use backend::{Activation, LatticeBackend, PatchRun};
pub use device::DeviceInfo;
pub use group::Group;
pub use kernel_cache::{keep_kernels, kernels_compiled_ahead, lost_work, without_compilers};
pub use lattice_core as core;
pub use lattice_core::{Error, Interpolation, Join, KernelSpec, RelationKind, SupportPolicy};
pub use manager::{CoordinateKey, CoordinateManager, ManagerReport};
pub use peaks::Peaks;
pub use streams::share_one_stream;
pub use support::{Relation, RowMap, Support};
pub use tensor::SparseTensor;

/// Result of every fallible operation; the error type can be named for code that derives.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What most programs need.
pub mod prelude {
    pub use crate::nn::*;
    pub use crate::{CoordinateManager, Error, Join, KernelSpec, Result, SparseTensor, Support};
    pub use burn::prelude::*;
}

/// The code of the README runs.
#[cfg(doctest)]
#[doc = include_str!("../../../README.md")]
pub struct ReadmeDoctests;

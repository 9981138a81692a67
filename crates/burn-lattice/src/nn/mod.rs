//! Modules in Burn's manner: a `Config` says the options, `init` allocates, `forward` computes.
//!
//! `forward` panics with the text of the [`Error`](crate::Error) where a network is wired wrongly; `try_forward` returns it.
//! Sizes, strides, paddings and dilations are per axis: x, y, z.

mod activation;
mod batch_norm;
mod bev;
mod conv;
mod conv_block;
mod conv_transpose;
mod crop;
mod dropout;
mod group_norm;
pub(crate) mod kernel;
mod layer_weight;
mod layers;
mod linear;
mod norm;
mod normalized;
mod pool;
mod running;

pub use crate::ops::{ConvEpilogue, Target};
pub use activation::*;
pub use batch_norm::*;
pub use bev::*;
pub use conv::*;
pub use conv_block::*;
pub use conv_transpose::*;
pub use crop::*;
pub use dropout::*;
pub use group_norm::*;
pub use layer_weight::*;
pub use layers::*;
pub use linear::*;
pub use norm::*;
pub use normalized::*;
pub use pool::*;
pub use running::*;

use crate::Result;

/// The panic of a module: the error's own text.
pub(crate) fn or_panic<T>(result: Result<T>) -> T {
    result.unwrap_or_else(|error| panic!("{error}"))
}

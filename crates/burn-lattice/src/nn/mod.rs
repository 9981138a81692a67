//! Modules in Burn's manner: a `Config` says the options, `init` allocates, `forward` computes.
//!
//! `forward` panics with the text of the [`Error`] where a network is wired wrongly; `try_forward` returns it.
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
mod linear;
mod norm;
mod normalized;
mod pool;

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
pub use linear::*;
pub use norm::*;
pub use normalized::*;
pub use pool::*;

use burn::module::Param;
use burn::nn::Initializer;
use burn::tensor::{Device, Tensor};

use crate::{Error, KernelSpec, Result};

/// A size of the config as the kernel takes it.
pub(crate) fn triple(op: &'static str, values: [usize; 3]) -> Result<[u32; 3]> {
    let mut out = [0; 3];
    for (to, from) in out.iter_mut().zip(values) {
        *to = u32::try_from(from)
            .map_err(|_| Error::Limit { op, what: format!("expected sizes below 2^32, found {values:?}") })?;
    }
    Ok(out)
}

/// The kernel of a config.
pub(crate) fn kernel_spec(
    op: &'static str,
    size: [usize; 3],
    stride: [usize; 3],
    padding: [usize; 3],
    dilation: [usize; 3],
) -> Result<KernelSpec> {
    KernelSpec::try_new(triple(op, size)?, triple(op, stride)?, triple(op, padding)?, triple(op, dilation)?)
}

/// Weight `[taps, c_in / groups, c_out]`, uniform in ±sqrt(1 / (c_in / groups · taps)).
pub(crate) fn conv_weight(
    op: &'static str,
    channels: [usize; 2],
    groups: usize,
    taps: usize,
    device: &Device,
) -> Result<Param<Tensor<3>>> {
    let [c_in, c_out] = channels;
    if c_in == 0 || c_out == 0 || groups == 0 || !c_in.is_multiple_of(groups) || !c_out.is_multiple_of(groups)
    {
        return Err(Error::Value {
            op,
            what: format!(
                "expected positive channels that groups divide, found {channels:?} in {groups} groups"
            ),
        });
    }
    let bound = 1.0 / ((c_in / groups * taps) as f64).sqrt();
    Ok(Initializer::Uniform { min: -bound, max: bound }.init([taps, c_in / groups, c_out], device))
}

/// Bias of zeros, where a layer has one.
pub(crate) fn conv_bias(bias: bool, c_out: usize, device: &Device) -> Option<Param<Tensor<1>>> {
    bias.then(|| Initializer::Zeros.init([c_out], device))
}

/// The panic of a module: the error's own text.
pub(crate) fn or_panic<T>(result: Result<T>) -> T {
    result.unwrap_or_else(|error| panic!("{error}"))
}

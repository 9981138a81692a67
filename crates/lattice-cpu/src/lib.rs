//! CPU kernels over sparse voxel relations: slices in, slices out.
//!
//! * [`conv_forward`], [`conv_input_grad`], [`conv_weight_grad`]: sparse convolution, with an [`Epilogue`] before its one rounding.
//! * [`gemm`] and its gradients: linear layers and pointwise convolutions, on the same micro-kernels.
//! * [`row_mix`], [`pool_max`], [`segment_max`]: pooling, joins, scatter and gather.
//! * [`batch_norm_train`] and its gradient, [`scale_shift_activation`], [`channel_moments`]: normalisation.
//! * [`patch_attention`]: attention among the rows of patches, without a matrix of all scores.
//! * [`quantize_rows`], [`PackedTaps`], [`conv_packed`], [`conv_int8`]: weights in codes of 4 or 8 bits, and activations in bytes.
//!
//! The instruction set is found at run time ([`detect`]) or forced ([`with_isa`], `LATTICE_CPU_ISA`). Every result has the same
//! bits for any number of threads; instruction sets differ within rounding. Work runs on the current rayon pool.
//!
//! Not for checking user input: slices that do not fit panic. `burn-lattice` checks shapes and returns errors.
#![deny(unsafe_code)]

mod activations;
mod attention;
mod batch_norm;
mod channels;
mod conv;
mod epilogue;
mod functions;
mod gemm;
mod isa;
mod packed;
#[allow(unsafe_code, reason = "one call of the C library, with no memory of ours")]
mod pages;
mod peaks;
mod pointwise;
mod pool;
mod row_mix;
mod scalar;
mod scratch;
#[allow(unsafe_code, reason = "the fence: intrinsics and tiles that threads write at the same time")]
mod simd;

pub use activations::{ActivationCodes, ByteRows};
pub use attention::{PatchRun, patch_attention};
pub use batch_norm::*;
pub use channels::{Moments, channel_moments, channel_sums, scale_shift_activation};
pub use conv::{
    ConvShape, conv_depthwise, conv_edge_loop, conv_forward, conv_input_grad, conv_int8, conv_packed,
    conv_weight_grad,
};
pub use epilogue::{Activation, Epilogue};
pub use functions::gelu;
pub use gemm::*;
pub use isa::{Isa, current_isa, detect, multiplies_bytes, with_isa};
pub use packed::{PackedShape, PackedTaps, PackedWeights, quantize_rows};
pub use pages::keep_pages;
pub use peaks::measure_peaks;
pub use pointwise::*;
pub use pool::*;
pub use row_mix::*;
pub use scalar::{Acc, Scalar};

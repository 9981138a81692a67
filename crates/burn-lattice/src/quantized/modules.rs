//! Layers of packed weights, made from the float modules whose place they take.

use burn::module::{Module, Param};
use burn::tensor::Tensor;

use super::weight::{quantize_taps, rows_of};
use super::{ActivationRange, PackedLayout, QuantizeOptions, QuantizedWeight};
use crate::nn::{
    Conv3d, ConvTranspose3d, GenerativeConvTranspose3d, LayerWeight, Linear, SubmConv3d, kernel::ConvKernel,
    or_panic,
};
use crate::ops::{ConvEpilogue, Target};
use crate::{Error, Result, SparseTensor};

/// Packs a module's weight `[taps, c_in / groups, c_out]`; `range` says how its input features become bytes.
pub(crate) fn pack_taps(
    op: &'static str,
    taps: Tensor<3>,
    kernel_size: [usize; 3],
    layout: PackedLayout,
    options: &QuantizeOptions,
    range: Option<&ActivationRange>,
) -> Result<QuantizedWeight> {
    let [n, c_in, c_out] = taps.dims();
    let mut taps = taps;
    if let Some(range) = range {
        let channels = range.steps().len();
        if channels == 0 || !channels.is_multiple_of(c_in) {
            return Err(Error::Channels { op, expected: c_in, found: channels });
        }
        if range.is_per_channel() {
            let shape = lattice_cpu::PackedShape::try_new(op, 8, 32, n, [c_in, c_out])?;
            let ratios = Tensor::<1>::from_data(range.ratios().as_slice(), &taps.device());
            taps = taps.clone() * rows_of(ratios, shape).cast(crate::ops::float_dtype(taps.dtype()));
        }
    }
    let packed = quantize_taps(op, taps.swap_dims(1, 2), (kernel_size, layout, [c_in, c_out]), options)?;
    Ok(match range {
        Some(range) => packed.with_activations(range),
        None => packed,
    })
}

/// A copy of a bias for a module that does not learn.
fn fixed_bias(bias: &Option<Param<Tensor<1>>>) -> Option<Param<Tensor<1>>> {
    bias.as_ref().map(|b| Param::from_tensor(b.val()).set_require_grad(false))
}

/// [`Linear`] with a packed weight.
#[derive(Module, Debug)]
pub struct QuantizedLinear {
    /// Of the layout `[c_out, c_in]`.
    pub weight: LayerWeight<2>,
    /// `[c_out]`.
    pub bias: Option<Param<Tensor<1>>>,
}

impl QuantizedLinear {
    /// Packs the weight of a module.
    ///
    /// # Errors
    /// As [`quantize_weight`](super::quantize_weight); a module that is packed already.
    pub fn from_linear(linear: &Linear, options: &QuantizeOptions) -> Result<Self> {
        let op = "QuantizedLinear";
        let taps = linear.weight.try_val(op)?.unsqueeze();
        let weight = pack_taps(op, taps, [1; 3], PackedLayout::Linear, options, None)?;
        Ok(Self { weight: weight.into(), bias: fixed_bias(&linear.bias) })
    }

    /// [`Linear::forward`].
    ///
    /// # Panics
    /// With the error of [`try_forward`](Self::try_forward).
    pub fn forward(&self, x: &SparseTensor) -> SparseTensor {
        or_panic(self.try_forward(x))
    }

    /// [`Linear::try_forward`].
    ///
    /// # Errors
    /// Channels or devices that differ; a device with autodiff.
    pub fn try_forward(&self, x: &SparseTensor) -> Result<SparseTensor> {
        self.weight.linear("quantized_linear", x, self.bias.as_ref().map(Param::val))
    }

    /// [`Linear::forward_feats`].
    ///
    /// # Panics
    /// With the error of [`try_forward`](Self::try_forward).
    pub fn forward_feats(&self, feats: Tensor<2>) -> Tensor<2> {
        or_panic(self.weight.linear_features("quantized_linear", feats, self.bias.as_ref().map(Param::val)))
    }
}

/// One packed convolution module, with the calls of its float module.
macro_rules! quantized_conv {
    ($(#[$doc:meta])* $name:ident, $float:ident, $module:literal, $op:literal) => {
        $(#[$doc])*
        #[derive(Module, Debug)]
        pub struct $name {
            /// Of the layout `[c_out, x, y, z, c_in / groups]`.
            pub weight: LayerWeight<3>,
            /// `[c_out]`.
            pub bias: Option<Param<Tensor<1>>>,
            #[module(skip)]
            kernel: ConvKernel,
        }

        impl $name {
            /// Packs the weight of a module.
            ///
            /// # Errors
            /// As [`quantize_weight`](super::quantize_weight); a module that is packed already.
            pub fn from_conv(conv: &$float, options: &QuantizeOptions) -> Result<Self> {
                let kernel = ConvKernel { module: $module, op: $op, ..conv.kernel };
                let taps = conv.weight.try_val($module)?;
                let weight = pack_taps($module, taps, kernel.window.size, PackedLayout::Dense5d, options, None)?;
                Ok(Self { weight: weight.into(), bias: fixed_bias(&conv.bias), kernel })
            }

            /// As the float module's, on the same rows.
            ///
            /// # Panics
            /// With the error of [`try_forward`](Self::try_forward).
            pub fn forward(&self, x: &SparseTensor) -> SparseTensor {
                or_panic(self.try_forward(x, None, ConvEpilogue::default()))
            }

            /// [`forward`](Self::forward) with a target and an epilogue.
            ///
            /// # Errors
            /// As the float module's; a device with autodiff.
            pub fn try_forward(
                &self,
                x: &SparseTensor,
                target: Option<&Target>,
                epilogue: ConvEpilogue,
            ) -> Result<SparseTensor> {
                self.kernel.run(x, &self.weight, &self.bias, target, epilogue)
            }
        }
    };
}

quantized_conv!(
    /// [`SubmConv3d`] with a packed weight.
    QuantizedSubmConv3d, SubmConv3d, "QuantizedSubmConv3d", "quantized_subm_conv3d"
);
quantized_conv!(
    /// [`Conv3d`] with a packed weight: pointwise, strided and onto a target's rows.
    QuantizedConv3d, Conv3d, "QuantizedConv3d", "quantized_conv3d"
);
quantized_conv!(
    /// [`ConvTranspose3d`] with a packed weight, also onto a target's rows and as the inverse of a strided convolution.
    QuantizedConvTranspose3d, ConvTranspose3d, "QuantizedConvTranspose3d", "quantized_conv_transpose3d"
);
quantized_conv!(
    /// [`GenerativeConvTranspose3d`] with a packed weight.
    QuantizedGenerativeConvTranspose3d,
    GenerativeConvTranspose3d,
    "QuantizedGenerativeConvTranspose3d",
    "quantized_generative_conv_transpose3d"
);

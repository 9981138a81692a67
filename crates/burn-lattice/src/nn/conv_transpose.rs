//! Convolutions that refine the support.

use burn::config::Config;
use burn::module::{Module, Param};
use burn::tensor::{Device, Tensor};

use super::{ConvEpilogue, Target, conv_bias, conv_weight, kernel_spec, or_panic};
use crate::ops::{self, ConvKind, ConvOptions};
use crate::{Result, SparseTensor};

/// Options of [`ConvTranspose3d`].
#[derive(Config, Debug)]
pub struct ConvTranspose3dConfig {
    /// Input and output channels.
    pub channels: [usize; 2],
    /// Kernel extent along x, y, z; cells are indexed from 0, also odd kernels.
    #[config(default = "[2, 2, 2]")]
    pub kernel_size: [usize; 3],
    /// Step along x, y, z; divides the tensor stride.
    #[config(default = "[2, 2, 2]")]
    pub stride: [usize; 3],
    /// Shift of the written cells to the negative side.
    #[config(default = "[0, 0, 0]")]
    pub padding: [usize; 3],
    /// Distance of kernel cells along x, y, z.
    #[config(default = "[1, 1, 1]")]
    pub dilation: [usize; 3],
    /// Channel groups.
    #[config(default = 1)]
    pub groups: usize,
    /// Adds a learned vector of `c_out` to every row.
    #[config(default = true)]
    pub bias: bool,
    /// Goes back onto the input rows of the earlier strided convolution with this kernel; without it, and without a target,
    /// the output rows are all that the kernel reaches.
    #[config(default = false)]
    pub inverse: bool,
}

/// Transposed convolution. In a U-Net pass the skip tensor to [`forward_onto`](Self::forward_onto): its rows are then the output's.
#[derive(Module, Debug)]
pub struct ConvTranspose3d {
    /// `[taps, c_in / groups, c_out]`, z fastest among taps.
    pub weight: Param<Tensor<3>>,
    /// `[c_out]`.
    pub bias: Option<Param<Tensor<1>>>,
    kernel_size: [usize; 3],
    stride: [usize; 3],
    padding: [usize; 3],
    dilation: [usize; 3],
    groups: usize,
    inverse: bool,
}

impl ConvTranspose3dConfig {
    /// Allocates the module: weight uniform in ±sqrt(1 / (c_in · taps)), bias zero.
    ///
    /// # Panics
    /// Zero channels, or groups that do not divide them.
    pub fn init(&self, device: &Device) -> ConvTranspose3d {
        let taps = self.kernel_size.iter().product();
        ConvTranspose3d {
            weight: or_panic(conv_weight("ConvTranspose3d", self.channels, self.groups, taps, device)),
            bias: conv_bias(self.bias, self.channels[1], device),
            kernel_size: self.kernel_size,
            stride: self.stride,
            padding: self.padding,
            dilation: self.dilation,
            groups: self.groups,
            inverse: self.inverse,
        }
    }
}

impl ConvTranspose3d {
    pub(crate) fn options(&self) -> Result<ConvOptions> {
        let spec =
            kernel_spec("ConvTranspose3d", self.kernel_size, self.stride, self.padding, self.dilation)?;
        Ok(ConvOptions::new(spec).with_groups(self.groups))
    }

    /// `[n_in, c_in]` to `[n_out, c_out]` at tensor stride `x.stride / stride`.
    ///
    /// # Panics
    /// With the error of [`ops::conv_transpose3d`] or [`ops::inverse_conv3d`].
    pub fn forward(&self, x: &SparseTensor) -> SparseTensor {
        or_panic(self.try_forward(x, None, ConvEpilogue::default()))
    }

    /// [`forward`](Self::forward) onto a target's rows.
    ///
    /// # Panics
    /// With the error of [`ops::conv_transpose3d`].
    pub fn forward_onto(&self, x: &SparseTensor, target: &Target) -> SparseTensor {
        or_panic(self.try_forward(x, Some(target), ConvEpilogue::default()))
    }

    /// [`forward`](Self::forward) with a target and an epilogue, fused on devices without autodiff.
    ///
    /// # Errors
    /// As [`ops::conv_transpose3d`] and [`ops::inverse_conv3d`].
    pub fn try_forward(
        &self,
        x: &SparseTensor,
        target: Option<&Target>,
        epilogue: ConvEpilogue,
    ) -> Result<SparseTensor> {
        let options = self.options()?;
        let kind = if self.inverse { ConvKind::Inverse } else { ConvKind::Transposed };
        let geometry = ops::geometry("conv_transpose3d", kind, x, &options, target)?;
        let bias = self.bias.as_ref().map(Param::val);
        ops::convolve("conv_transpose3d", x, self.weight.val(), bias, geometry, options.groups, epilogue)
    }
}

/// Options of [`GenerativeConvTranspose3d`].
#[derive(Config, Debug)]
pub struct GenerativeConvTranspose3dConfig {
    /// Input and output channels.
    pub channels: [usize; 2],
    /// Kernel extent along x, y, z; cells are indexed from 0.
    #[config(default = "[2, 2, 2]")]
    pub kernel_size: [usize; 3],
    /// Step along x, y, z; divides the tensor stride.
    #[config(default = "[2, 2, 2]")]
    pub stride: [usize; 3],
    /// Channel groups.
    #[config(default = 1)]
    pub groups: usize,
    /// Adds a learned vector of `c_out` to every row.
    #[config(default = true)]
    pub bias: bool,
}

/// Transposed convolution that activates every cell it reaches; prune afterwards. Use it in decoders that complete shapes.
#[derive(Module, Debug)]
pub struct GenerativeConvTranspose3d {
    /// `[taps, c_in / groups, c_out]`, z fastest among taps.
    pub weight: Param<Tensor<3>>,
    /// `[c_out]`.
    pub bias: Option<Param<Tensor<1>>>,
    kernel_size: [usize; 3],
    stride: [usize; 3],
    groups: usize,
}

impl GenerativeConvTranspose3dConfig {
    /// Allocates the module: weight uniform in ±sqrt(1 / (c_in · taps)), bias zero.
    ///
    /// # Panics
    /// Zero channels, or groups that do not divide them.
    pub fn init(&self, device: &Device) -> GenerativeConvTranspose3d {
        let taps = self.kernel_size.iter().product();
        GenerativeConvTranspose3d {
            weight: or_panic(conv_weight(
                "GenerativeConvTranspose3d",
                self.channels,
                self.groups,
                taps,
                device,
            )),
            bias: conv_bias(self.bias, self.channels[1], device),
            kernel_size: self.kernel_size,
            stride: self.stride,
            groups: self.groups,
        }
    }
}

impl GenerativeConvTranspose3d {
    pub(crate) fn options(&self) -> Result<ConvOptions> {
        let spec = kernel_spec("GenerativeConvTranspose3d", self.kernel_size, self.stride, [0; 3], [1; 3])?;
        Ok(ConvOptions::new(spec).with_groups(self.groups))
    }

    /// `[n_in, c_in]` to `[n_out, c_out]` at tensor stride `x.stride / stride`.
    ///
    /// # Panics
    /// With the error of [`ops::generative_conv_transpose3d`].
    pub fn forward(&self, x: &SparseTensor) -> SparseTensor {
        or_panic(self.try_forward(x, None, ConvEpilogue::default()))
    }

    /// [`forward`](Self::forward) with a target and an epilogue, fused on devices without autodiff.
    ///
    /// # Errors
    /// As [`ops::generative_conv_transpose3d`].
    pub fn try_forward(
        &self,
        x: &SparseTensor,
        target: Option<&Target>,
        epilogue: ConvEpilogue,
    ) -> Result<SparseTensor> {
        let options = self.options()?;
        let geometry =
            ops::geometry("generative_conv_transpose3d", ConvKind::Generative, x, &options, target)?;
        let bias = self.bias.as_ref().map(Param::val);
        let op = "generative_conv_transpose3d";
        ops::convolve(op, x, self.weight.val(), bias, geometry, options.groups, epilogue)
    }
}

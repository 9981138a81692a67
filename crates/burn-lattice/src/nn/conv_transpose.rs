//! Convolutions that refine the support.

use burn::config::Config;
use burn::module::{Module, Param};
use burn::tensor::{Device, Tensor};

use super::kernel::{ConvKernel, Window, describe_convolution};
use super::{ConvEpilogue, LayerWeight, Target, or_panic};
use crate::ops::ConvKind;
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
    pub weight: LayerWeight<3>,
    /// `[c_out]`.
    pub bias: Option<Param<Tensor<1>>>,
    #[module(skip)]
    pub(crate) kernel: ConvKernel,
}

impl ConvTranspose3dConfig {
    /// Allocates the module: weight uniform in ±sqrt(1 / (c_in · taps)), bias zero.
    ///
    /// # Panics
    /// Zero channels, or groups that do not divide them.
    pub fn init(&self, device: &Device) -> ConvTranspose3d {
        let Self { kernel_size: size, stride, padding, dilation, .. } = *self;
        let window = Window { size, stride, padding, dilation };
        let kind = if self.inverse { ConvKind::Inverse } else { ConvKind::Transposed };
        let kernel = ConvKernel::new("ConvTranspose3d", "conv_transpose3d", kind, window, self.groups);
        let (weight, bias) = kernel.parameters(self.channels, self.bias, device);
        ConvTranspose3d { weight: weight.into(), bias, kernel }
    }
}

describe_convolution!(ConvTranspose3d, GenerativeConvTranspose3d);

impl ConvTranspose3d {
    /// `[n_in, c_in]` to `[n_out, c_out]` at tensor stride `x.stride / stride`.
    ///
    /// # Panics
    /// With the error of [`crate::ops::conv_transpose3d`] or [`crate::ops::inverse_conv3d`].
    pub fn forward(&self, x: &SparseTensor) -> SparseTensor {
        or_panic(self.try_forward(x, None, ConvEpilogue::default()))
    }

    /// [`forward`](Self::forward) onto a target's rows.
    ///
    /// # Panics
    /// With the error of [`crate::ops::conv_transpose3d`].
    pub fn forward_onto(&self, x: &SparseTensor, target: &Target) -> SparseTensor {
        or_panic(self.try_forward(x, Some(target), ConvEpilogue::default()))
    }

    /// [`forward`](Self::forward) with a target and an epilogue, fused on devices without autodiff.
    ///
    /// # Errors
    /// As [`crate::ops::conv_transpose3d`] and [`crate::ops::inverse_conv3d`].
    pub fn try_forward(
        &self,
        x: &SparseTensor,
        target: Option<&Target>,
        epilogue: ConvEpilogue,
    ) -> Result<SparseTensor> {
        self.kernel.run(x, &self.weight, &self.bias, target, epilogue)
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
    pub weight: LayerWeight<3>,
    /// `[c_out]`.
    pub bias: Option<Param<Tensor<1>>>,
    #[module(skip)]
    pub(crate) kernel: ConvKernel,
}

impl GenerativeConvTranspose3dConfig {
    /// Allocates the module: weight uniform in ±sqrt(1 / (c_in · taps)), bias zero.
    ///
    /// # Panics
    /// Zero channels, or groups that do not divide them.
    pub fn init(&self, device: &Device) -> GenerativeConvTranspose3d {
        let window = Window { stride: self.stride, ..Window::new(self.kernel_size) };
        let (module, op) = ("GenerativeConvTranspose3d", "generative_conv_transpose3d");
        let kernel = ConvKernel::new(module, op, ConvKind::Generative, window, self.groups);
        let (weight, bias) = kernel.parameters(self.channels, self.bias, device);
        GenerativeConvTranspose3d { weight: weight.into(), bias, kernel }
    }
}

impl GenerativeConvTranspose3d {
    /// `[n_in, c_in]` to `[n_out, c_out]` at tensor stride `x.stride / stride`.
    ///
    /// # Panics
    /// With the error of [`crate::ops::generative_conv_transpose3d`].
    pub fn forward(&self, x: &SparseTensor) -> SparseTensor {
        or_panic(self.try_forward(x, None, ConvEpilogue::default()))
    }

    /// [`forward`](Self::forward) with a target and an epilogue, fused on devices without autodiff.
    ///
    /// # Errors
    /// As [`crate::ops::generative_conv_transpose3d`].
    pub fn try_forward(
        &self,
        x: &SparseTensor,
        target: Option<&Target>,
        epilogue: ConvEpilogue,
    ) -> Result<SparseTensor> {
        self.kernel.run(x, &self.weight, &self.bias, target, epilogue)
    }
}

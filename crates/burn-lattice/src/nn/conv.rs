//! Convolutions that keep or coarsen the support.

use burn::config::Config;
use burn::module::{Module, Param};
use burn::tensor::{Device, Tensor};

use super::kernel::{ConvKernel, Window, describe_convolution};
use super::{ConvEpilogue, LayerWeight, Target, or_panic};
use crate::ops::ConvKind;
use crate::{Result, SparseTensor};

/// Options of [`SubmConv3d`].
#[derive(Config, Debug)]
pub struct SubmConv3dConfig {
    /// Input and output channels.
    pub channels: [usize; 2],
    /// Kernel extent along x, y, z; odd.
    #[config(default = "[3, 3, 3]")]
    pub kernel_size: [usize; 3],
    /// Distance of kernel cells along x, y, z.
    #[config(default = "[1, 1, 1]")]
    pub dilation: [usize; 3],
    /// Channel groups; `groups = c_in = c_out` is depthwise.
    #[config(default = 1)]
    pub groups: usize,
    /// Adds a learned vector of `c_out` to every row.
    #[config(default = true)]
    pub bias: bool,
}

/// Convolution on the input's own rows; the identity is kept. Use it where the set of active voxels should not grow.
#[derive(Module, Debug)]
pub struct SubmConv3d {
    /// `[taps, c_in / groups, c_out]`, z fastest among taps.
    pub weight: LayerWeight<3>,
    /// `[c_out]`.
    pub bias: Option<Param<Tensor<1>>>,
    #[module(skip)]
    pub(crate) kernel: ConvKernel,
}

impl SubmConv3dConfig {
    /// Allocates the module: weight uniform in ±sqrt(1 / (c_in · taps)), bias zero.
    ///
    /// # Panics
    /// Zero channels, or groups that do not divide them.
    pub fn init(&self, device: &Device) -> SubmConv3d {
        let window = Window { dilation: self.dilation, ..Window::new(self.kernel_size) };
        let kind = ConvKind::Submanifold;
        let kernel = ConvKernel::new("SubmConv3d", "subm_conv3d", kind, window, self.groups);
        let (weight, bias) = kernel.parameters(self.channels, self.bias, device);
        SubmConv3d { weight: weight.into(), bias, kernel }
    }
}

describe_convolution!(SubmConv3d, Conv3d);

impl SubmConv3d {
    /// `[n, c_in]` to `[n, c_out]` on the same identity.
    ///
    /// # Panics
    /// With the error of [`crate::ops::subm_conv3d`].
    pub fn forward(&self, x: &SparseTensor) -> SparseTensor {
        or_panic(self.try_forward(x, ConvEpilogue::default()))
    }

    /// [`forward`](Self::forward) with an epilogue, fused on devices without autodiff.
    ///
    /// # Errors
    /// As [`crate::ops::subm_conv3d`].
    pub fn try_forward(&self, x: &SparseTensor, epilogue: ConvEpilogue) -> Result<SparseTensor> {
        self.kernel.run(x, &self.weight, &self.bias, None, epilogue)
    }
}

/// Options of [`Conv3d`].
#[derive(Config, Debug)]
pub struct Conv3dConfig {
    /// Input and output channels.
    pub channels: [usize; 2],
    /// Kernel extent along x, y, z.
    #[config(default = "[3, 3, 3]")]
    pub kernel_size: [usize; 3],
    /// Step along x, y, z; multiplies the tensor stride.
    #[config(default = "[1, 1, 1]")]
    pub stride: [usize; 3],
    /// Shift of the window to the negative side; odd kernels are centred at 0.
    #[config(default = "[0, 0, 0]")]
    pub padding: [usize; 3],
    /// Distance of kernel cells along x, y, z.
    #[config(default = "[1, 1, 1]")]
    pub dilation: [usize; 3],
    /// Channel groups; `groups = c_in = c_out` is depthwise.
    #[config(default = 1)]
    pub groups: usize,
    /// Adds a learned vector of `c_out` to every row.
    #[config(default = true)]
    pub bias: bool,
    /// Makes every row that a kernel cell reaches, as spconv does, in place of the floor-divided rows.
    #[config(default = false)]
    pub kernel_reach: bool,
    /// Extent of the input grid along x, y, z, which bounds `kernel_reach`.
    pub reach_range: Option<[usize; 3]>,
}

/// Strided convolution, or convolution onto a target's rows.
#[derive(Module, Debug)]
pub struct Conv3d {
    /// `[taps, c_in / groups, c_out]`, z fastest among taps.
    pub weight: LayerWeight<3>,
    /// `[c_out]`.
    pub bias: Option<Param<Tensor<1>>>,
    #[module(skip)]
    pub(crate) kernel: ConvKernel,
}

impl Conv3dConfig {
    /// Allocates the module: weight uniform in ±sqrt(1 / (c_in · taps)), bias zero.
    ///
    /// # Panics
    /// Zero channels, or groups that do not divide them.
    pub fn init(&self, device: &Device) -> Conv3d {
        let Self { kernel_size: size, stride, padding, dilation, .. } = *self;
        let window = Window { size, stride, padding, dilation };
        let kernel = ConvKernel {
            reach: self.kernel_reach,
            reach_range: self.reach_range,
            ..ConvKernel::new("Conv3d", "conv3d", ConvKind::Forward, window, self.groups)
        };
        let (weight, bias) = kernel.parameters(self.channels, self.bias, device);
        Conv3d { weight: weight.into(), bias, kernel }
    }
}

impl Conv3d {
    /// `[n_in, c_in]` to `[n_out, c_out]` at tensor stride `x.stride · stride`.
    ///
    /// # Panics
    /// With the error of [`crate::ops::conv3d`].
    pub fn forward(&self, x: &SparseTensor) -> SparseTensor {
        or_panic(self.try_forward(x, None, ConvEpilogue::default()))
    }

    /// [`forward`](Self::forward) onto a target's rows.
    ///
    /// # Panics
    /// With the error of [`crate::ops::conv3d`].
    pub fn forward_onto(&self, x: &SparseTensor, target: &Target) -> SparseTensor {
        or_panic(self.try_forward(x, Some(target), ConvEpilogue::default()))
    }

    /// [`forward`](Self::forward) with a target and an epilogue, fused on devices without autodiff.
    ///
    /// # Errors
    /// As [`crate::ops::conv3d`].
    pub fn try_forward(
        &self,
        x: &SparseTensor,
        target: Option<&Target>,
        epilogue: ConvEpilogue,
    ) -> Result<SparseTensor> {
        self.kernel.run(x, &self.weight, &self.bias, target, epilogue)
    }
}

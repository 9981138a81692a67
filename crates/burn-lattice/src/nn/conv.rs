//! Convolutions that keep or coarsen the support.

use burn::config::Config;
use burn::module::{Module, Param};
use burn::tensor::{Device, Tensor};

use super::{ConvEpilogue, Target, conv_bias, conv_weight, kernel_spec, or_panic};
use crate::ops::{self, ConvKind, ConvOptions};
use crate::{Result, SparseTensor, SupportPolicy};

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
    pub weight: Param<Tensor<3>>,
    /// `[c_out]`.
    pub bias: Option<Param<Tensor<1>>>,
    kernel_size: [usize; 3],
    dilation: [usize; 3],
    groups: usize,
}

impl SubmConv3dConfig {
    /// Allocates the module: weight uniform in ±sqrt(1 / (c_in · taps)), bias zero.
    ///
    /// # Panics
    /// Zero channels, or groups that do not divide them.
    pub fn init(&self, device: &Device) -> SubmConv3d {
        let taps = self.kernel_size.iter().product();
        SubmConv3d {
            weight: or_panic(conv_weight("SubmConv3d", self.channels, self.groups, taps, device)),
            bias: conv_bias(self.bias, self.channels[1], device),
            kernel_size: self.kernel_size,
            dilation: self.dilation,
            groups: self.groups,
        }
    }
}

impl SubmConv3d {
    pub(crate) fn options(&self) -> Result<ConvOptions> {
        let spec = kernel_spec("SubmConv3d", self.kernel_size, [1; 3], [0; 3], self.dilation)?;
        Ok(ConvOptions::new(spec).with_groups(self.groups))
    }

    /// `[n, c_in]` to `[n, c_out]` on the same identity.
    ///
    /// # Panics
    /// With the error of [`ops::subm_conv3d`].
    pub fn forward(&self, x: &SparseTensor) -> SparseTensor {
        or_panic(self.try_forward(x, ConvEpilogue::default()))
    }

    /// [`forward`](Self::forward) with an epilogue, fused on devices without autodiff.
    ///
    /// # Errors
    /// As [`ops::subm_conv3d`].
    pub fn try_forward(&self, x: &SparseTensor, epilogue: ConvEpilogue) -> Result<SparseTensor> {
        let options = self.options()?;
        let geometry = ops::geometry("subm_conv3d", ConvKind::Submanifold, x, &options, None)?;
        let bias = self.bias.as_ref().map(Param::val);
        ops::convolve("subm_conv3d", x, self.weight.val(), bias, geometry, options.groups, epilogue)
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
    pub weight: Param<Tensor<3>>,
    /// `[c_out]`.
    pub bias: Option<Param<Tensor<1>>>,
    kernel_size: [usize; 3],
    stride: [usize; 3],
    padding: [usize; 3],
    dilation: [usize; 3],
    groups: usize,
    kernel_reach: bool,
    reach_range: Option<[usize; 3]>,
}

impl Conv3dConfig {
    /// Allocates the module: weight uniform in ±sqrt(1 / (c_in · taps)), bias zero.
    ///
    /// # Panics
    /// Zero channels, or groups that do not divide them.
    pub fn init(&self, device: &Device) -> Conv3d {
        let taps = self.kernel_size.iter().product();
        Conv3d {
            weight: or_panic(conv_weight("Conv3d", self.channels, self.groups, taps, device)),
            bias: conv_bias(self.bias, self.channels[1], device),
            kernel_size: self.kernel_size,
            stride: self.stride,
            padding: self.padding,
            dilation: self.dilation,
            groups: self.groups,
            kernel_reach: self.kernel_reach,
            reach_range: self.reach_range,
        }
    }
}

impl Conv3d {
    pub(crate) fn options(&self) -> Result<ConvOptions> {
        let spec = kernel_spec("Conv3d", self.kernel_size, self.stride, self.padding, self.dilation)?;
        let range = self.reach_range.map(|r| super::triple("Conv3d", r)).transpose()?;
        let policy = match self.kernel_reach {
            true => SupportPolicy::KernelReach { range },
            false => SupportPolicy::Floor,
        };
        Ok(ConvOptions::new(spec).with_groups(self.groups).with_policy(policy))
    }

    /// `[n_in, c_in]` to `[n_out, c_out]` at tensor stride `x.stride · stride`.
    ///
    /// # Panics
    /// With the error of [`ops::conv3d`].
    pub fn forward(&self, x: &SparseTensor) -> SparseTensor {
        or_panic(self.try_forward(x, None, ConvEpilogue::default()))
    }

    /// [`forward`](Self::forward) onto a target's rows.
    ///
    /// # Panics
    /// With the error of [`ops::conv3d`].
    pub fn forward_onto(&self, x: &SparseTensor, target: &Target) -> SparseTensor {
        or_panic(self.try_forward(x, Some(target), ConvEpilogue::default()))
    }

    /// [`forward`](Self::forward) with a target and an epilogue, fused on devices without autodiff.
    ///
    /// # Errors
    /// As [`ops::conv3d`].
    pub fn try_forward(
        &self,
        x: &SparseTensor,
        target: Option<&Target>,
        epilogue: ConvEpilogue,
    ) -> Result<SparseTensor> {
        let options = self.options()?;
        let geometry = ops::geometry("conv3d", ConvKind::Forward, x, &options, target)?;
        let bias = self.bias.as_ref().map(Param::val);
        ops::convolve("conv3d", x, self.weight.val(), bias, geometry, options.groups, epilogue)
    }
}

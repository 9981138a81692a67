//! Convolutions whose sums are divided by the norm of the weights that took part in them.

use burn::config::Config;
use burn::module::{Module, Param};
use burn::tensor::{Device, Tensor};

use super::kernel::{ConvKernel, Window, describe_convolution};
use super::{Target, or_panic};
use crate::ops::{self, ConvKind};
use crate::{Result, SparseTensor};

/// Options of [`NormalizedSubmConv3d`].
#[derive(Config, Debug)]
pub struct NormalizedSubmConv3dConfig {
    /// Input and output channels.
    pub channels: [usize; 2],
    /// Kernel extent along x, y, z; odd.
    #[config(default = "[3, 3, 3]")]
    pub kernel_size: [usize; 3],
    /// Distance of kernel cells along x, y, z.
    #[config(default = "[1, 1, 1]")]
    pub dilation: [usize; 3],
    /// Channel groups.
    #[config(default = 1)]
    pub groups: usize,
    /// Adds a learned vector of `c_out` to every row, after the division.
    #[config(default = true)]
    pub bias: bool,
    /// Added under the root; positive.
    #[config(default = 1e-8)]
    pub eps: f64,
}

/// Weight-normalized convolution on the input's own rows: rows at the rim of a shape are scaled by the neighbours they have.
#[derive(Module, Debug)]
pub struct NormalizedSubmConv3d {
    /// `[taps, c_in / groups, c_out]`, z fastest among taps.
    pub weight: Param<Tensor<3>>,
    /// `[c_out]`.
    pub bias: Option<Param<Tensor<1>>>,
    #[module(skip)]
    kernel: ConvKernel,
    eps: f64,
}

impl NormalizedSubmConv3dConfig {
    /// Allocates the module: weight uniform in ±sqrt(1 / (c_in · taps)), bias zero.
    ///
    /// # Panics
    /// Zero channels, groups that do not divide them, or `eps` not above 0.
    pub fn init(&self, device: &Device) -> NormalizedSubmConv3d {
        let op = "NormalizedSubmConv3d";
        or_panic(ops::check_eps(op, self.eps));
        let window = Window { dilation: self.dilation, ..Window::new(self.kernel_size) };
        let kernel = ConvKernel::new(op, op, ConvKind::Submanifold, window, self.groups);
        let (weight, bias) = kernel.parameters(self.channels, self.bias, device);
        NormalizedSubmConv3d { weight, bias, kernel, eps: self.eps }
    }
}

describe_convolution!(NormalizedSubmConv3d, NormalizedConvTranspose3d, NormalizedGenerativeConvTranspose3d);

impl NormalizedSubmConv3d {
    /// What is added under the root.
    pub fn eps(&self) -> f64 {
        self.eps
    }

    /// `[n, c_in]` to `[n, c_out]` on the same identity.
    ///
    /// # Panics
    /// With the error of [`ops::normalized_subm_conv3d`].
    pub fn forward(&self, x: &SparseTensor) -> SparseTensor {
        or_panic(self.try_forward(x))
    }

    /// [`forward`](Self::forward) that returns its error.
    ///
    /// # Errors
    /// As [`ops::normalized_subm_conv3d`].
    pub fn try_forward(&self, x: &SparseTensor) -> Result<SparseTensor> {
        let options = self.kernel.options()?;
        let bias = self.bias.as_ref().map(Param::val);
        ops::normalized_subm_conv3d(x, self.weight.val(), bias, &options, self.eps)
    }
}

/// Options of [`NormalizedConvTranspose3d`].
#[derive(Config, Debug)]
pub struct NormalizedConvTranspose3dConfig {
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
    /// Adds a learned vector of `c_out` to every row, after the division.
    #[config(default = true)]
    pub bias: bool,
    /// Added under the root; positive.
    #[config(default = 1e-8)]
    pub eps: f64,
}

/// Weight-normalized transposed convolution.
#[derive(Module, Debug)]
pub struct NormalizedConvTranspose3d {
    /// `[taps, c_in / groups, c_out]`, z fastest among taps.
    pub weight: Param<Tensor<3>>,
    /// `[c_out]`.
    pub bias: Option<Param<Tensor<1>>>,
    #[module(skip)]
    kernel: ConvKernel,
    eps: f64,
}

impl NormalizedConvTranspose3dConfig {
    /// Allocates the module: weight uniform in ±sqrt(1 / (c_in · taps)), bias zero.
    ///
    /// # Panics
    /// Zero channels, groups that do not divide them, or `eps` not above 0.
    pub fn init(&self, device: &Device) -> NormalizedConvTranspose3d {
        let op = "NormalizedConvTranspose3d";
        or_panic(ops::check_eps(op, self.eps));
        let Self { kernel_size: size, stride, padding, dilation, .. } = *self;
        let window = Window { size, stride, padding, dilation };
        let kernel = ConvKernel::new(op, op, ConvKind::Transposed, window, self.groups);
        let (weight, bias) = kernel.parameters(self.channels, self.bias, device);
        NormalizedConvTranspose3d { weight, bias, kernel, eps: self.eps }
    }
}

impl NormalizedConvTranspose3d {
    /// What is added under the root.
    pub fn eps(&self) -> f64 {
        self.eps
    }

    /// `[n_in, c_in]` to `[n_out, c_out]` at tensor stride `x.stride / stride`.
    ///
    /// # Panics
    /// With the error of [`ops::normalized_conv_transpose3d`].
    pub fn forward(&self, x: &SparseTensor) -> SparseTensor {
        or_panic(self.try_forward(x, None))
    }

    /// [`forward`](Self::forward) onto a target's rows.
    ///
    /// # Panics
    /// With the error of [`ops::normalized_conv_transpose3d`].
    pub fn forward_onto(&self, x: &SparseTensor, target: &Target) -> SparseTensor {
        or_panic(self.try_forward(x, Some(target)))
    }

    /// [`forward`](Self::forward) with a target, that returns its error.
    ///
    /// # Errors
    /// As [`ops::normalized_conv_transpose3d`].
    pub fn try_forward(&self, x: &SparseTensor, target: Option<&Target>) -> Result<SparseTensor> {
        let options = self.kernel.options()?;
        let bias = self.bias.as_ref().map(Param::val);
        ops::normalized_conv_transpose3d(x, self.weight.val(), bias, &options, target, self.eps)
    }
}

/// Options of [`NormalizedGenerativeConvTranspose3d`].
#[derive(Config, Debug)]
pub struct NormalizedGenerativeConvTranspose3dConfig {
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
    /// Adds a learned vector of `c_out` to every row, after the division.
    #[config(default = true)]
    pub bias: bool,
    /// Added under the root; positive.
    #[config(default = 1e-8)]
    pub eps: f64,
}

/// Weight-normalized transposed convolution that activates every cell it reaches.
#[derive(Module, Debug)]
pub struct NormalizedGenerativeConvTranspose3d {
    /// `[taps, c_in / groups, c_out]`, z fastest among taps.
    pub weight: Param<Tensor<3>>,
    /// `[c_out]`.
    pub bias: Option<Param<Tensor<1>>>,
    #[module(skip)]
    kernel: ConvKernel,
    eps: f64,
}

impl NormalizedGenerativeConvTranspose3dConfig {
    /// Allocates the module: weight uniform in ±sqrt(1 / (c_in · taps)), bias zero.
    ///
    /// # Panics
    /// Zero channels, groups that do not divide them, or `eps` not above 0.
    pub fn init(&self, device: &Device) -> NormalizedGenerativeConvTranspose3d {
        let op = "NormalizedGenerativeConvTranspose3d";
        or_panic(ops::check_eps(op, self.eps));
        let window = Window { stride: self.stride, ..Window::new(self.kernel_size) };
        let kernel = ConvKernel::new(op, op, ConvKind::Generative, window, self.groups);
        let (weight, bias) = kernel.parameters(self.channels, self.bias, device);
        NormalizedGenerativeConvTranspose3d { weight, bias, kernel, eps: self.eps }
    }
}

impl NormalizedGenerativeConvTranspose3d {
    /// What is added under the root.
    pub fn eps(&self) -> f64 {
        self.eps
    }

    /// `[n_in, c_in]` to `[n_out, c_out]` at tensor stride `x.stride / stride`.
    ///
    /// # Panics
    /// With the error of [`ops::normalized_generative_conv_transpose3d`].
    pub fn forward(&self, x: &SparseTensor) -> SparseTensor {
        or_panic(self.try_forward(x, None))
    }

    /// [`forward`](Self::forward) with a target, that returns its error.
    ///
    /// # Errors
    /// As [`ops::normalized_generative_conv_transpose3d`].
    pub fn try_forward(&self, x: &SparseTensor, target: Option<&Target>) -> Result<SparseTensor> {
        let options = self.kernel.options()?;
        let bias = self.bias.as_ref().map(Param::val);
        ops::normalized_generative_conv_transpose3d(x, self.weight.val(), bias, &options, target, self.eps)
    }
}

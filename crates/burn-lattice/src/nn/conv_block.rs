//! Convolution, batch norm and activation as one block.

use burn::config::Config;
use burn::module::{Module, Param};
use burn::tensor::{Device, Tensor};

use super::kernel::{ConvKernel, describe_convolution};
use super::{
    BatchNorm, BatchNormConfig, Conv3d, Conv3dConfig, ConvEpilogue, ConvTranspose3d, ConvTranspose3dConfig,
    LayerWeight, SubmConv3d, SubmConv3dConfig, Target, or_panic,
};
use crate::ops::apply_epilogue;
use crate::{Activation, Result, SparseTensor};

/// What follows the convolution and its norm.
#[derive(Config, Debug, Copy, PartialEq)]
pub enum BlockActivation {
    /// Nothing.
    None,
    /// `max(x, 0)`.
    Relu,
    /// `x` where positive, else `slope · x`.
    LeakyRelu(f32),
}

impl From<BlockActivation> for Activation {
    fn from(activation: BlockActivation) -> Self {
        match activation {
            BlockActivation::None => Self::None,
            BlockActivation::Relu => Self::Relu,
            BlockActivation::LeakyRelu(slope) => Self::LeakyRelu(slope),
        }
    }
}

/// The convolution of a [`ConvBlock`]: any of [`SubmConv3d`], [`Conv3d`] and [`ConvTranspose3d`].
#[derive(Module, Debug)]
pub struct BlockConv {
    /// `[taps, c_in / groups, c_out]`, z fastest among taps.
    pub weight: LayerWeight<3>,
    /// `[c_out]`.
    pub bias: Option<Param<Tensor<1>>>,
    #[module(skip)]
    pub(super) kernel: ConvKernel,
}

describe_convolution!(BlockConv);

impl BlockConv {
    /// `[n_in, c_in]` to `[n_out, c_out]`, without the norm and activation of the block.
    ///
    /// # Panics
    /// With the error of the convolution.
    pub fn forward(&self, x: &SparseTensor) -> SparseTensor {
        or_panic(self.try_forward(x, None, ConvEpilogue::default()))
    }

    /// [`forward`](Self::forward) with a target and an epilogue, fused on devices without autodiff.
    ///
    /// # Errors
    /// Those of the convolution.
    pub fn try_forward(
        &self,
        x: &SparseTensor,
        target: Option<&Target>,
        epilogue: ConvEpilogue,
    ) -> Result<SparseTensor> {
        self.kernel.run(x, &self.weight, &self.bias, target, epilogue)
    }
}

/// A module with the fields of a [`BlockConv`].
macro_rules! block_conv_from {
    ($($conv:ident),*) => {$(
        impl From<$conv> for BlockConv {
            fn from($conv { weight, bias, kernel }: $conv) -> Self {
                Self { weight, bias, kernel }
            }
        }
    )*};
}
block_conv_from!(SubmConv3d, Conv3d, ConvTranspose3d);

/// Convolution, batch norm, optional residual and activation.
///
/// On a device without autodiff the norm is folded and everything runs in the convolution's own pass, with one rounding; with
/// autodiff the norm with its residual and activation is a differentiable operation of its own.
#[derive(Module, Debug)]
pub struct ConvBlock {
    /// The convolution.
    pub conv: BlockConv,
    /// The norm, where the block has one.
    pub norm: Option<BatchNorm>,
    #[module(skip)]
    activation: BlockActivation,
}

/// Options of [`ConvBlock`]s.
#[derive(Config, Debug)]
pub struct ConvBlockConfig {
    /// Input and output channels.
    pub channels: [usize; 2],
    /// Kernel extent along x, y, z.
    #[config(default = "[3, 3, 3]")]
    pub kernel_size: [usize; 3],
    /// Step along x, y, z.
    #[config(default = "[1, 1, 1]")]
    pub stride: [usize; 3],
    /// Shift of the window.
    #[config(default = "[0, 0, 0]")]
    pub padding: [usize; 3],
    /// Makes every row that a strided kernel reaches in place of the floor-divided rows; see [`Conv3dConfig`].
    #[config(default = false)]
    pub kernel_reach: bool,
    /// Extent of the input grid, which bounds `kernel_reach`.
    pub reach_range: Option<[usize; 3]>,
    /// Adds a bias before the norm.
    #[config(default = false)]
    pub bias: bool,
    /// Whether a batch norm follows.
    #[config(default = true)]
    pub norm: bool,
    /// `eps` of the batch norm.
    #[config(default = 1e-5)]
    pub norm_eps: f64,
    /// `momentum` of the batch norm: the weight of the new value.
    #[config(default = 0.1)]
    pub norm_momentum: f64,
    /// What comes last.
    #[config(default = "BlockActivation::Relu")]
    pub activation: BlockActivation,
}

impl ConvBlockConfig {
    fn block(&self, conv: BlockConv, device: &Device) -> ConvBlock {
        let norm = self.norm.then(|| {
            BatchNormConfig::new(self.channels[1])
                .with_eps(self.norm_eps)
                .with_momentum(self.norm_momentum)
                .init(device)
        });
        ConvBlock { conv, norm, activation: self.activation }
    }

    /// A block on the input's rows; `stride` and `padding` do not apply.
    ///
    /// # Panics
    /// As [`SubmConv3dConfig::init`].
    pub fn init_subm(&self, device: &Device) -> ConvBlock {
        let conv =
            SubmConv3dConfig::new(self.channels).with_kernel_size(self.kernel_size).with_bias(self.bias);
        self.block(conv.init(device).into(), device)
    }

    /// A strided block.
    ///
    /// # Panics
    /// As [`Conv3dConfig::init`].
    pub fn init_strided(&self, device: &Device) -> ConvBlock {
        let conv = Conv3dConfig::new(self.channels)
            .with_kernel_size(self.kernel_size)
            .with_stride(self.stride)
            .with_padding(self.padding)
            .with_kernel_reach(self.kernel_reach)
            .with_reach_range(self.reach_range)
            .with_bias(self.bias);
        self.block(conv.init(device).into(), device)
    }

    /// A transposed block.
    ///
    /// # Panics
    /// As [`ConvTranspose3dConfig::init`].
    pub fn init_transposed(&self, device: &Device) -> ConvBlock {
        let conv = ConvTranspose3dConfig::new(self.channels)
            .with_kernel_size(self.kernel_size)
            .with_stride(self.stride)
            .with_padding(self.padding)
            .with_bias(self.bias);
        self.block(conv.init(device).into(), device)
    }
}

impl ConvBlock {
    /// What comes last.
    pub fn activation(&self) -> BlockActivation {
        self.activation
    }

    /// `[n_in, c_in]` to `[n_out, c_out]`.
    ///
    /// # Panics
    /// With the error of the convolution.
    pub fn forward(&self, x: &SparseTensor) -> SparseTensor {
        or_panic(self.try_forward(x, None, None))
    }

    /// [`forward`](Self::forward) onto a target's rows.
    ///
    /// # Panics
    /// With the error of the convolution.
    pub fn forward_onto(&self, x: &SparseTensor, target: &Target) -> SparseTensor {
        or_panic(self.try_forward(x, Some(target), None))
    }

    /// [`forward`](Self::forward) with `residual` added before the activation.
    ///
    /// # Panics
    /// With the error of the convolution, or where the residual stands on another identity.
    pub fn forward_residual(&self, x: &SparseTensor, residual: &SparseTensor) -> SparseTensor {
        or_panic(self.try_forward(x, None, Some(residual)))
    }

    /// The general form.
    ///
    /// # Errors
    /// Those of the convolution; [`crate::Error::Identity`] where the residual stands on other rows than the output.
    pub fn try_forward(
        &self,
        x: &SparseTensor,
        target: Option<&Target>,
        residual: Option<&SparseTensor>,
    ) -> Result<SparseTensor> {
        let run = |epilogue: ConvEpilogue| self.conv.try_forward(x, target, epilogue);
        let check = |y: SparseTensor| {
            match residual {
            Some(r) if !r.support().same_identity(y.support()) || r.stride() != y.stride() => {
                Err(crate::Error::Identity {
                    op: "ConvBlock",
                    what: "expected a residual on the output's rows, found another support; align it with a join first".into(),
                })
            }
            _ => Ok(y),
        }
        };
        if x.feats().is_autodiff() {
            let y = check(run(ConvEpilogue::default())?)?;
            let residual = residual.map(|r| r.feats().clone());
            let activation = self.activation.into();
            let feats = y.feats().clone();
            let feats = match &self.norm {
                Some(norm) => norm.forward_epilogue(feats, residual, activation),
                None => apply_epilogue(feats, ConvEpilogue { scale_shift: None, residual, activation }),
            };
            return y.with_feats(feats);
        }
        check(run(ConvEpilogue {
            scale_shift: self.norm.as_ref().map(BatchNorm::folded),
            residual: residual.map(|r| r.feats().clone()),
            activation: self.activation.into(),
        })?)
    }
}

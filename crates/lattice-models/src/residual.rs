//! The residual block of two submanifold convolutions.

use burn::config::Config;
use burn::module::Module;
use burn::tensor::Device;
use burn_lattice::nn::{BlockActivation, ConvBlock, ConvBlockConfig};
use burn_lattice::trace::scope;
use burn_lattice::{Result, SparseTensor};

/// Options of [`ResidualBlock`].
#[derive(Config, Debug)]
pub struct ResidualBlockConfig {
    /// Input and output channels.
    pub channels: [usize; 2],
    /// Kernel extent of both convolutions, the same along every axis.
    #[config(default = 3)]
    pub kernel_size: usize,
    /// Adds a bias before each norm.
    #[config(default = false)]
    pub bias: bool,
    /// `eps` of the norms.
    #[config(default = 1e-5)]
    pub norm_eps: f64,
    /// `momentum` of the norms.
    #[config(default = 0.1)]
    pub norm_momentum: f64,
}

/// `relu(norm(conv(relu(norm(conv(x))))) + shortcut(x))` on the input's rows.
///
/// The shortcut is the input itself, or a pointwise convolution with a norm where the channels differ.
#[derive(Module, Debug)]
pub struct ResidualBlock {
    /// First convolution, with ReLU.
    pub conv1: ConvBlock,
    /// Second convolution; the sum and the last ReLU run in its pass.
    pub conv2: ConvBlock,
    /// Shortcut, where the channels differ.
    pub shortcut: Option<ConvBlock>,
}

impl ResidualBlockConfig {
    /// Allocates the block.
    ///
    /// # Panics
    /// Zero channels or an even kernel.
    pub fn init(&self, device: &Device) -> ResidualBlock {
        let [c_in, c_out] = self.channels;
        let conv = |c_in: usize, size: usize| {
            ConvBlockConfig::new([c_in, c_out])
                .with_kernel_size([size; 3])
                .with_bias(self.bias)
                .with_norm_eps(self.norm_eps)
                .with_norm_momentum(self.norm_momentum)
        };
        ResidualBlock {
            conv1: conv(c_in, self.kernel_size).init_subm(device),
            conv2: conv(c_out, self.kernel_size).init_subm(device),
            shortcut: (c_in != c_out).then(|| {
                conv(c_in, 1).with_bias(false).with_activation(BlockActivation::None).init_subm(device)
            }),
        }
    }
}

impl ResidualBlock {
    /// `[n, c_in]` to `[n, c_out]` on the same identity.
    ///
    /// # Panics
    /// With the error of [`try_forward`](Self::try_forward).
    pub fn forward(&self, x: &SparseTensor) -> SparseTensor {
        self.try_forward(x).unwrap_or_else(|error| panic!("{error}"))
    }

    /// [`forward`](Self::forward) that returns its error.
    ///
    /// # Errors
    /// Channels that differ from the config's, and features of another type than the weights.
    pub fn try_forward(&self, x: &SparseTensor) -> Result<SparseTensor> {
        let y = scope("conv1", || self.conv1.try_forward(x, None, None))?;
        let residual = match &self.shortcut {
            Some(shortcut) => scope("shortcut", || shortcut.try_forward(x, None, None))?,
            None => x.clone(),
        };
        scope("conv2", || self.conv2.try_forward(&y, None, Some(&residual)))
    }
}

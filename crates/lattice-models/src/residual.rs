//! The residual block of two submanifold convolutions.

use burn::config::Config;
use burn::module::Module;
use burn::tensor::Device;
use burn_lattice::SparseTensor;
use burn_lattice::nn::{BlockActivation, ConvBlock, ConvBlockConfig};
use burn_lattice::trace::scope;

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
    /// When the channels differ from the config's.
    pub fn forward(&self, x: &SparseTensor) -> SparseTensor {
        let y = scope("conv1", || self.conv1.forward(x));
        let residual = match &self.shortcut {
            Some(shortcut) => scope("shortcut", || shortcut.forward(x)),
            None => x.clone(),
        };
        scope("conv2", || self.conv2.forward_residual(&y, &residual))
    }
}

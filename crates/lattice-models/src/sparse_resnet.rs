//! SparseResNet21D: a residual encoder with five levels, the backbone of sparse detectors and classifiers.
//!
//! Source: the layer list of torchsparse's backbone of that name (Tang et al., "TorchSparse", MLSys 2022, arXiv:2204.10319). No
//! weights are shipped.

use burn::config::Config;
use burn::module::Module;
use burn::tensor::Device;
use burn_lattice::nn::{ConvBlock, ConvBlockConfig};
use burn_lattice::trace::scope;
use burn_lattice::{Result, SparseTensor};

use crate::minkunet::run_blocks;
use crate::residual::{ResidualBlock, ResidualBlockConfig};

/// Options of [`SparseResNet`]; the defaults are SparseResNet21D.
#[derive(Config, Debug)]
pub struct SparseResNetConfig {
    /// Channels of the input features.
    pub in_channels: usize,
    /// Output channels of each stage.
    #[config(default = "vec![16, 32, 64, 128, 128]")]
    pub channels: Vec<usize>,
    /// Residual blocks of each stage after its convolution.
    #[config(default = "vec![2, 2, 2, 2, 0]")]
    pub blocks: Vec<usize>,
    /// Kernel size of each stage along x, y, z; odd.
    #[config(default = "vec![[3; 3], [3; 3], [3; 3], [3; 3], [1, 3, 1]]")]
    pub kernel_sizes: Vec<[usize; 3]>,
    /// Stride of each stage's convolution along x, y, z.
    #[config(default = "vec![[1; 3], [2; 3], [2; 3], [2; 3], [1, 2, 1]]")]
    pub strides: Vec<[usize; 3]>,
    /// Multiplies every width, rounded down.
    #[config(default = 1.0)]
    pub width: f64,
    /// Makes every row that a strided kernel reaches in place of the floor-divided rows.
    #[config(default = false)]
    pub kernel_reach: bool,
    /// `eps` of the norms.
    #[config(default = 1e-5)]
    pub norm_eps: f64,
    /// `momentum` of the norms: the weight of the new value.
    #[config(default = 0.1)]
    pub norm_momentum: f64,
}

/// A convolution, then residual blocks.
#[derive(Module, Debug)]
pub struct SparseResNetStage {
    /// Convolution with norm and ReLU.
    pub conv: ConvBlock,
    /// Residual blocks on its rows.
    pub blocks: Vec<ResidualBlock>,
}

/// Residual encoder.
#[derive(Module, Debug)]
pub struct SparseResNet {
    /// From fine to coarse.
    pub stages: Vec<SparseResNetStage>,
}

impl SparseResNetConfig {
    /// Allocates the encoder.
    ///
    /// # Panics
    /// Lists of different lengths, zero channels, an even kernel in a stage with residual blocks.
    pub fn init(&self, device: &Device) -> SparseResNet {
        let n = self.channels.len();
        assert!(
            [self.blocks.len(), self.kernel_sizes.len(), self.strides.len()] == [n; 3],
            "SparseResNet: expected one entry a stage in channels, blocks, kernel_sizes and strides, found {n}, {}, {} and {}",
            self.blocks.len(),
            self.kernel_sizes.len(),
            self.strides.len()
        );
        let mut c_in = self.in_channels;
        let stage = |i: usize| {
            let c_out = (self.channels[i] as f64 * self.width) as usize;
            let (size, stride) = (self.kernel_sizes[i], self.strides[i]);
            let config = ConvBlockConfig::new([c_in, c_out])
                .with_kernel_size(size)
                .with_norm_eps(self.norm_eps)
                .with_norm_momentum(self.norm_momentum);
            let conv = if stride == [1; 3] {
                config.init_subm(device)
            } else if self.kernel_reach {
                // Counted from its first tap, a window is centred by half its size.
                let padding = size.map(|k| (k - 1) / 2);
                config.with_stride(stride).with_padding(padding).with_kernel_reach(true).init_strided(device)
            } else {
                config.with_stride(stride).init_strided(device)
            };
            let block = |_| {
                ResidualBlockConfig::new([c_out; 2])
                    .with_kernel_size(size[0])
                    .with_norm_eps(self.norm_eps)
                    .with_norm_momentum(self.norm_momentum)
                    .init(device)
            };
            c_in = c_out;
            SparseResNetStage { conv, blocks: (0..self.blocks[i]).map(block).collect() }
        };
        SparseResNet { stages: (0..n).map(stage).collect() }
    }
}

impl SparseResNet {
    /// `[n, in_channels]` to the output of every stage, from fine to coarse.
    ///
    /// # Panics
    /// With the error of [`try_forward`](Self::try_forward).
    pub fn forward(&self, x: &SparseTensor) -> Vec<SparseTensor> {
        self.try_forward(x).unwrap_or_else(|error| panic!("{error}"))
    }

    /// [`forward`](Self::forward) that returns its error.
    ///
    /// # Errors
    /// Channels that differ from the config's, and what building a relation may meet.
    pub fn try_forward(&self, x: &SparseTensor) -> Result<Vec<SparseTensor>> {
        let mut outputs: Vec<SparseTensor> = Vec::with_capacity(self.stages.len());
        for (i, stage) in self.stages.iter().enumerate() {
            let input = outputs.last().unwrap_or(x);
            let y = scope(&format!("stage{i}"), || {
                let y = scope("conv", || stage.conv.try_forward(input, None, None))?;
                run_blocks(&stage.blocks, y)
            })?;
            outputs.push(y);
        }
        Ok(outputs)
    }
}

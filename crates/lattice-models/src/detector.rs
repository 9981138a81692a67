//! What the encoders of voxel detectors share: convolutions that keep track of the detection grid, and levels made of them.

use burn::module::Module;
use burn::tensor::Device;
use burn_lattice::nn::{ConvBlock, ConvBlockConfig};
use burn_lattice::trace::scope;
use burn_lattice::{Result, SparseTensor};

use crate::minkunet::run_blocks;
use crate::residual::{ResidualBlock, ResidualBlockConfig};

/// One level of a detector's encoder: a strided convolution, but for the first level, then submanifold ones or residual blocks.
#[derive(Module, Debug)]
pub struct SecondLevel {
    /// Strided convolution.
    pub down: Option<ConvBlock>,
    /// Submanifold convolutions.
    pub convs: Vec<ConvBlock>,
    /// Residual blocks, after the convolutions.
    pub blocks: Vec<ResidualBlock>,
}

impl SecondLevel {
    pub(crate) fn run(&self, level: usize, x: &SparseTensor) -> Result<SparseTensor> {
        scope(&format!("level{level}"), || {
            let mut y = match &self.down {
                Some(down) => scope("down", || down.try_forward(x, None, None))?,
                None => x.clone(),
            };
            for (i, conv) in self.convs.iter().enumerate() {
                y = scope(&format!("conv{i}"), || conv.try_forward(&y, None, None))?;
            }
            run_blocks(&self.blocks, y)
        })
    }
}

/// Extent after a strided step: every row that the kernel reaches, or the floor-divided rows.
fn extent(cells: usize, size: usize, stride: usize, padding: usize, reach: bool) -> usize {
    match reach {
        true => (cells + 2 * padding).saturating_sub(size) / stride + 1,
        false => cells.div_ceil(stride),
    }
}

/// Makes the layers of a detector's encoder, from fine to coarse.
pub(crate) struct DetectorLayers<'a> {
    pub(crate) device: &'a Device,
    pub(crate) norm_eps: f64,
    pub(crate) norm_momentum: f64,
    /// Cells along x, y, z after the last strided layer.
    pub(crate) grid: [usize; 3],
    /// Makes every row that a strided kernel reaches.
    pub(crate) reach: bool,
}

impl DetectorLayers<'_> {
    pub(crate) fn block(&self, channels: [usize; 2]) -> ConvBlockConfig {
        ConvBlockConfig::new(channels).with_norm_eps(self.norm_eps).with_norm_momentum(self.norm_momentum)
    }

    /// Submanifold 3x3x3.
    pub(crate) fn subm(&self, channels: [usize; 2]) -> ConvBlock {
        self.block(channels).init_subm(self.device)
    }

    /// Residual block of two biased 3x3x3 convolutions.
    pub(crate) fn residual(&self, channels: usize) -> ResidualBlock {
        ResidualBlockConfig::new([channels; 2])
            .with_bias(true)
            .with_norm_eps(self.norm_eps)
            .with_norm_momentum(self.norm_momentum)
            .init(self.device)
    }

    /// A strided convolution; the grid becomes its output's.
    pub(crate) fn strided(
        &mut self,
        channels: [usize; 2],
        size: [usize; 3],
        stride: [usize; 3],
        padding: [usize; 3],
    ) -> ConvBlock {
        let before = self.grid;
        for axis in 0..3 {
            self.grid[axis] = extent(before[axis], size[axis], stride[axis], padding[axis], self.reach);
        }
        let config = self.block(channels).with_kernel_size(size).with_stride(stride);
        match self.reach {
            true => config.with_padding(padding).with_kernel_reach(true).with_reach_range(Some(before)),
            // Centred kernels need no padding under the floor rule.
            false => config,
        }
        .init_strided(self.device)
    }
}

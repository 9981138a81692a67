//! Strided encoders of voxel detectors, down to a dense bird's-eye view.
//!
//! Source: Yan, Mao, Li, "SECOND" (Sensors 2018), and Yin, Zhou, Krähenbühl, "CenterPoint" (CVPR 2021, arXiv:2006.11275); the layer
//! lists are those that detectors share under the names VoxelBackBone8x and VoxelResBackBone8x. Axes here are x, y, z; those lists
//! write their kernels z first. No weights are shipped.

use burn::config::Config;
use burn::module::Module;
use burn::tensor::{Device, Tensor};
use burn_lattice::nn::ConvBlock;
use burn_lattice::ops::{self, Axis, BevWindow};
use burn_lattice::trace::scope;
use burn_lattice::{Result, SparseTensor};

use crate::detector::{DetectorLayers, SecondLevel};

/// Options of [`SecondEncoder`]; the defaults are VoxelBackBone8x.
#[derive(Config, Debug)]
pub struct SecondEncoderConfig {
    /// Channels of the input features.
    pub in_channels: usize,
    /// Cells of the detection range along x, y, z, such as `[1408, 1600, 41]`; rows must lie inside.
    pub grid: [usize; 3],
    /// Channels of the four levels.
    #[config(default = "[16, 32, 64, 64]")]
    pub levels: [usize; 4],
    /// Channels of the last convolution along z.
    #[config(default = 128)]
    pub out_channels: usize,
    /// Two residual blocks a level in place of submanifold convolutions.
    #[config(default = false)]
    pub residual: bool,
    /// Padding of the last convolution along x, y, z; counts where `kernel_reach` is set.
    #[config(default = "[0, 0, 0]")]
    pub last_padding: [usize; 3],
    /// Makes every row that a strided kernel reaches, as detectors were trained with, in place of the floor-divided rows.
    #[config(default = true)]
    pub kernel_reach: bool,
    /// `eps` of the norms.
    #[config(default = 1e-3)]
    pub norm_eps: f64,
    /// `momentum` of the norms: the weight of the new value.
    #[config(default = 0.01)]
    pub norm_momentum: f64,
}

/// Sparse encoder from voxels to a dense image `[b, out_channels · depth, x cells, y cells]` at an eighth of the resolution.
#[derive(Module, Debug)]
pub struct SecondEncoder {
    /// From fine to coarse.
    pub levels: Vec<SecondLevel>,
    /// Kernel 3, stride 2 along z alone.
    pub last: ConvBlock,
    image: [usize; 3],
}

/// Levels of a [`SecondEncoder`]'s forward pass and its image.
#[derive(Clone, Debug)]
pub struct SecondOutput {
    /// The output of each level, from fine to coarse, and of the last convolution.
    pub levels: Vec<SparseTensor>,
    /// `[b, out_channels · depth, x cells, y cells]`; place `d` along z of channel `k` is image channel `d · out_channels + k`.
    pub image: Tensor<4>,
}

impl SecondOutput {
    /// The image as heads of detectors were trained with it: `[b, out_channels · depth, y cells, x cells]`, where place `d` along z of
    /// channel `k` is image channel `k · depth + d`.
    pub fn head_input(&self) -> Tensor<4> {
        let channels = self.levels.last().map_or(1, SparseTensor::channels);
        let [batch, folded, x, y] = self.image.dims();
        let depth = folded / channels.max(1);
        let split: Tensor<5> = self.image.clone().reshape([batch, depth, channels, x, y]);
        split.permute([0, 2, 1, 4, 3]).reshape([batch, folded, y, x])
    }
}

impl SecondEncoderConfig {
    /// VoxelResBackBone8x, CenterPoint's encoder: residual blocks, 128 channels at the coarsest level.
    pub fn residual(in_channels: usize, grid: [usize; 3]) -> Self {
        Self::new(in_channels, grid).with_levels([16, 32, 64, 128]).with_residual(true)
    }

    /// Allocates the encoder.
    ///
    /// # Panics
    /// Zero channels.
    pub fn init(&self, device: &Device) -> SecondEncoder {
        let mut layers = DetectorLayers {
            device,
            norm_eps: self.norm_eps,
            norm_momentum: self.norm_momentum,
            grid: self.grid,
            reach: self.kernel_reach,
        };
        let mut channels = self.in_channels;
        let mut levels = Vec::new();
        for (i, &c) in self.levels.iter().enumerate() {
            // The coarsest level is not padded along z: 41 cells become 21, 11 and 5.
            let padding = if i == 3 { [1, 1, 0] } else { [1; 3] };
            let down = (i > 0).then(|| layers.strided([channels, c], [3; 3], [2; 3], padding));
            let mut convs = Vec::new();
            if i == 0 {
                convs.push(layers.subm([channels, c]));
            }
            let mut blocks = Vec::new();
            if self.residual {
                blocks.extend((0..2).map(|_| layers.residual(c)));
            } else {
                convs.extend((0..if i == 0 { 1 } else { 2 }).map(|_| layers.subm([c, c])));
            }
            channels = c;
            levels.push(SecondLevel { down, convs, blocks });
        }
        let last = layers.strided([channels, self.out_channels], [1, 1, 3], [1, 1, 2], self.last_padding);
        SecondEncoder { levels, last, image: layers.grid }
    }
}

impl SecondEncoder {
    /// `[n, in_channels]` to the levels and the image.
    ///
    /// # Panics
    /// With the error of [`try_forward`](Self::try_forward).
    pub fn forward(&self, x: &SparseTensor) -> SecondOutput {
        self.try_forward(x).unwrap_or_else(|error| panic!("{error}"))
    }

    /// [`forward`](Self::forward) that returns its error.
    ///
    /// # Errors
    /// A row outside the config's grid; channels that differ from the config's.
    pub fn try_forward(&self, x: &SparseTensor) -> Result<SecondOutput> {
        let mut outputs: Vec<SparseTensor> = Vec::new();
        for (i, level) in self.levels.iter().enumerate() {
            let y = level.run(i, outputs.last().unwrap_or(x))?;
            outputs.push(y);
        }
        let coarsest = outputs.last().unwrap_or(x);
        let y = scope("last", || self.last.try_forward(coarsest, None, None))?;
        let image = scope("bev", || ops::bev_height_compression(&y, &BevWindow::new(self.image), Axis::Z))?;
        outputs.push(y);
        Ok(SecondOutput { levels: outputs, image })
    }

    /// Cells of the image along x, y, z; z is folded into channels.
    pub fn image_cells(&self) -> [usize; 3] {
        self.image
    }
}

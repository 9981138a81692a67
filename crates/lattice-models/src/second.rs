//! The strided encoder of voxel detectors, down to a dense bird's-eye view.
//!
//! Source: Yan, Mao, Li, "SECOND" (Sensors 2018); the layer list is the one detectors share under the name VoxelBackBone8x. Axes
//! here are x, y, z; that list writes its kernels z first. No weights are shipped.

use burn::config::Config;
use burn::module::Module;
use burn::tensor::{Device, Tensor};
use burn_lattice::nn::{ConvBlock, ConvBlockConfig};
use burn_lattice::ops::{self, Axis, BevWindow};
use burn_lattice::trace::scope;
use burn_lattice::{Result, SparseTensor};

/// Options of [`SecondEncoder`].
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

/// One level: a strided convolution, but for the first level, then submanifold ones.
#[derive(Module, Debug)]
pub struct SecondLevel {
    /// Strided convolution.
    pub down: Option<ConvBlock>,
    /// Submanifold convolutions.
    pub convs: Vec<ConvBlock>,
}

/// Sparse encoder from voxels to a dense image `[b, out_channels · depth, h, w]` at an eighth of the resolution.
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

/// Extent after a strided step: every row that the kernel reaches, or the floor-divided rows.
fn extent(cells: usize, size: usize, stride: usize, padding: usize, reach: bool) -> usize {
    match reach {
        true => (cells + 2 * padding).saturating_sub(size) / stride + 1,
        false => cells.div_ceil(stride),
    }
}

impl SecondEncoderConfig {
    /// Allocates the encoder.
    ///
    /// # Panics
    /// Zero channels.
    pub fn init(&self, device: &Device) -> SecondEncoder {
        let block = |channels: [usize; 2]| {
            ConvBlockConfig::new(channels).with_norm_eps(self.norm_eps).with_norm_momentum(self.norm_momentum)
        };
        let mut grid = self.grid;
        let mut strided = |channels: [usize; 2],
                           size: [usize; 3],
                           stride: [usize; 3],
                           padding: [usize; 3]| {
            let before = grid;
            for axis in 0..3 {
                grid[axis] = extent(grid[axis], size[axis], stride[axis], padding[axis], self.kernel_reach);
            }
            let config = block(channels).with_kernel_size(size).with_stride(stride);
            match self.kernel_reach {
                true => config.with_padding(padding).with_kernel_reach(true).with_reach_range(Some(before)),
                // Centred kernels need no padding under the floor rule.
                false => config,
            }
            .init_strided(device)
        };
        let subm = |channels: [usize; 2]| block(channels).init_subm(device);
        let [c1, c2, c3, c4] = self.levels;
        let levels = vec![
            SecondLevel { down: None, convs: vec![subm([self.in_channels, c1]), subm([c1, c1])] },
            SecondLevel {
                down: Some(strided([c1, c2], [3; 3], [2; 3], [1; 3])),
                convs: vec![subm([c2, c2]), subm([c2, c2])],
            },
            SecondLevel {
                down: Some(strided([c2, c3], [3; 3], [2; 3], [1; 3])),
                convs: vec![subm([c3, c3]), subm([c3, c3])],
            },
            SecondLevel {
                down: Some(strided([c3, c4], [3; 3], [2; 3], [1, 1, 0])),
                convs: vec![subm([c4, c4]), subm([c4, c4])],
            },
        ];
        let last = strided([c4, self.out_channels], [1, 1, 3], [1, 1, 2], [0; 3]);
        SecondEncoder { levels, last, image: grid }
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
        let mut outputs = Vec::new();
        let mut y = x.clone();
        for (i, level) in self.levels.iter().enumerate() {
            y = scope(&format!("level{i}"), || -> Result<SparseTensor> {
                let mut y = match &level.down {
                    Some(down) => scope("down", || down.try_forward(&y, None, None))?,
                    None => y,
                };
                for (j, conv) in level.convs.iter().enumerate() {
                    y = scope(&format!("conv{j}"), || conv.try_forward(&y, None, None))?;
                }
                Ok(y)
            })?;
            outputs.push(y.clone());
        }
        let y = scope("last", || self.last.try_forward(&y, None, None))?;
        let image = scope("bev", || ops::bev_height_compression(&y, &BevWindow::new(self.image), Axis::Z))?;
        outputs.push(y);
        Ok(SecondOutput { levels: outputs, image })
    }

    /// Cells of the image along x, y, z; z is folded into channels.
    pub fn image_cells(&self) -> [usize; 3] {
        self.image
    }
}

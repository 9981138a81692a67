//! SPVCNN: a MinkUNet beside a branch of points at full resolution.
//!
//! Source: Tang et al., "Searching Efficient 3D Architectures with Sparse Point-Voxel Convolution" (ECCV 2020, arXiv:2007.16100);
//! widths and places where the branches meet are those of its published network. No weights are shipped.

use burn::config::Config;
use burn::module::Module;
use burn::tensor::{Device, Int, Tensor, activation};
use burn_lattice::nn::{BatchNorm, BatchNormConfig, ConvBlock, Dropout, DropoutConfig, Linear, LinearConfig};
use burn_lattice::ops::{self, NonFinite, VoxelGrid, VoxelReduction};
use burn_lattice::trace::scope;
use burn_lattice::{Interpolation, Result, SparseTensor};

use crate::minkunet::{DecoderStage, EncoderStage, MinkUNet, MinkUNetConfig, run_stem};

/// Options of [`Spvcnn`].
#[derive(Config, Debug)]
pub struct SpvcnnConfig {
    /// Channels of the points' features.
    pub in_channels: usize,
    /// Channels of the output: classes.
    pub classes: usize,
    /// Multiplies every width, rounded down.
    #[config(default = 1.0)]
    pub width: f64,
    /// `eps` of the norms.
    #[config(default = 1e-5)]
    pub norm_eps: f64,
    /// Probability of dropping a feature before the first and the third decoder stage, in training.
    #[config(default = 0.3)]
    pub dropout: f64,
}

/// `relu(norm(x · weight + bias))` on points.
#[derive(Module, Debug)]
pub struct PointTransform {
    /// The linear map.
    pub linear: Linear,
    /// The norm over all points.
    pub norm: BatchNorm,
}

impl PointTransform {
    fn new(channels: [usize; 2], eps: f64, device: &Device) -> Self {
        Self {
            linear: LinearConfig::new(channels).init(device),
            norm: BatchNormConfig::new(channels[1]).with_eps(eps).init(device),
        }
    }

    /// `[points, c_in]` to `[points, c_out]`.
    pub fn forward(&self, feats: Tensor<2>) -> Tensor<2> {
        activation::relu(self.norm.forward_feats(self.linear.forward_feats(feats)))
    }
}

/// Point-voxel U-Net for classes of points.
///
/// Voxels and points exchange features four times: after the stem, the encoder, the second and the fourth decoder stage. Points read
/// the eight voxels around them, with weights divided by the sum of those found; voxels take the mean of their points.
#[derive(Module, Debug)]
pub struct Spvcnn {
    /// Submanifold convolutions at the finest level.
    pub stem: Vec<ConvBlock>,
    /// From fine to coarse.
    pub encoder: Vec<EncoderStage>,
    /// From coarse to fine.
    pub decoder: Vec<DecoderStage>,
    /// Transforms of the points' features between the exchanges.
    pub points: Vec<PointTransform>,
    /// From the last features to scores.
    pub classifier: Linear,
    #[module(skip)]
    dropout: [Dropout; 2],
}

impl SpvcnnConfig {
    /// Allocates the network.
    ///
    /// # Panics
    /// Zero channels, also after multiplying by the width; a dropout outside `[0, 1)`.
    pub fn init(&self, device: &Device) -> Spvcnn {
        let unet = MinkUNetConfig::new(self.in_channels, self.classes)
            .with_stem(vec![3, 3])
            .with_norm_eps(self.norm_eps)
            .with_width(self.width);
        let [_, _, _, deepest] = unet.encoder;
        let [_, middle, _, last] = unet.decoder;
        let transforms = [[unet.stem_channels, deepest], [deepest, middle], [middle, last]];
        let points = transforms.map(|c| PointTransform::new(c, self.norm_eps, device)).into();
        let classifier = LinearConfig::new([last, self.classes]).init(device);
        let MinkUNet { stem, encoder, decoder, head: _ } = unet.init(device);
        let dropout = [1, 2].map(|seed| DropoutConfig::new().with_prob(self.dropout).with_seed(seed).init());
        Spvcnn { stem, encoder, decoder, points, classifier, dropout }
    }
}

/// Points with the grid of their finest voxels; finds the ways between them and each level.
struct Cloud<'a> {
    points: Tensor<2>,
    batch: Option<Tensor<1, Int>>,
    grid: &'a VoxelGrid,
}

impl Cloud<'_> {
    fn level(&self, x: &SparseTensor) -> Result<VoxelGrid> {
        let mut size = self.grid.voxel_size;
        for (edge, stride) in size.iter_mut().zip(x.stride()) {
            *edge *= stride as f32;
        }
        VoxelGrid::try_new(size, self.grid.origin)
    }

    /// Features of the voxels around each point.
    fn read(&self, x: &SparseTensor) -> Result<Tensor<2>> {
        let options = ops::DevoxelizeOptions::new(self.level(x)?)
            .with_interpolation(Interpolation::Linear)
            .with_renormalize(true);
        ops::devoxelize(x, self.points.clone(), self.batch.clone(), &options)
    }

    /// Means of the points' features on the rows of `x`.
    fn write(&self, feats: Tensor<2>, x: &SparseTensor) -> Result<SparseTensor> {
        let grid = self.level(x)?;
        let voxels = ops::sparse_quantize(self.points.clone(), self.batch.clone(), &grid, NonFinite::Error)?;
        let means = ops::voxelize_with_quantization(&voxels, feats, VoxelReduction::Mean, x.stride(), None)?;
        ops::reindex_sparse(&means, x, 0.0)
    }
}

impl Spvcnn {
    /// Draws the masks of the dropouts in the next pass of training by its number, in place of counting passes.
    pub fn set_pass(&self, number: u64) {
        self.dropout.iter().for_each(|dropout| dropout.set_call(number));
    }

    /// Scores `[points, classes]` of points.
    ///
    /// # Panics
    /// With the error of [`try_forward`](Self::try_forward).
    pub fn forward(
        &self,
        points: Tensor<2>,
        feats: Tensor<2>,
        batch: Option<Tensor<1, Int>>,
        grid: &VoxelGrid,
    ) -> Tensor<2> {
        self.try_forward(points, feats, batch, grid).unwrap_or_else(|error| panic!("{error}"))
    }

    /// [`forward`](Self::forward) that returns its error. Differentiable in `feats`.
    ///
    /// # Shapes
    /// `points [n, 3]` in the grid's unit, `feats [n, in_channels]`, `batch [n]`, all 0 where it is left out; result `[n, classes]`.
    /// # Errors
    /// Shapes or element types that do not fit; points that are not finite; negative batch ids.
    pub fn try_forward(
        &self,
        points: Tensor<2>,
        feats: Tensor<2>,
        batch: Option<Tensor<1, Int>>,
        grid: &VoxelGrid,
    ) -> Result<Tensor<2>> {
        let options = ops::VoxelizeOptions::new(*grid);
        let voxels = ops::voxelize(points.clone(), feats, batch.clone(), &options)?;
        self.try_forward_from(&voxels, points, batch, grid)
    }

    /// [`try_forward`](Self::try_forward) from voxels that were made of these points with this grid.
    ///
    /// # Errors
    /// As [`try_forward`](Self::try_forward).
    pub fn try_forward_from(
        &self,
        voxels: &SparseTensor,
        points: Tensor<2>,
        batch: Option<Tensor<1, Int>>,
        grid: &VoxelGrid,
    ) -> Result<Tensor<2>> {
        let cloud = Cloud { points, batch, grid };
        let fine = run_stem(&self.stem, voxels)?;
        let at_points = scope("points0", || cloud.read(&fine))?;
        let mut y = scope("voxels0", || cloud.write(at_points.clone(), &fine))?;

        let mut skips = vec![fine];
        for (level, stage) in self.encoder.iter().enumerate() {
            y = stage.run(level, &y)?;
            skips.push(y.clone());
        }
        let exchange = |i: usize, voxels: &SparseTensor, points: Tensor<2>| {
            scope(&format!("points{}", i + 1), || Ok(cloud.read(voxels)? + self.points[i].forward(points)))
        };
        let coarse = skips.pop().expect("the encoder's last level");
        let mut at_points = exchange(0, &coarse, at_points)?;
        y = coarse;
        for (level, stage) in self.decoder.iter().enumerate() {
            if level % 2 == 0 {
                y = scope(&format!("voxels{}", level / 2 + 1), || cloud.write(at_points.clone(), &y))?;
                y = self.dropout[level / 2].forward(&y);
            }
            let skip = skips.pop().expect("there is one skip a decoder stage");
            y = stage.run(level, y, skip)?;
            if level % 2 == 1 {
                at_points = exchange(level / 2 + 1, &y, at_points)?;
            }
        }
        Ok(scope("classifier", || self.classifier.forward_feats(at_points)))
    }
}

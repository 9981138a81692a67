//! A network that completes shapes: a strided encoder and a generative decoder, which makes children and prunes them.
//!
//! Source: the completion network of Gwak, Choy, Savarese, "Generative Sparse Detection Networks" (ECCV 2020, arXiv:2006.12356) and
//! MinkowskiEngine's example of it, whose channel list is the default. No weights are shipped.

use burn::config::Config;
use burn::module::Module;
use burn::tensor::{Bool, Device, Tensor, TensorData};
use burn_lattice::nn::{
    BatchNorm, BatchNormConfig, BlockActivation, ConvBlock, ConvBlockConfig, ConvEpilogue,
    GenerativeConvTranspose3d, GenerativeConvTranspose3dConfig,
};
use burn_lattice::ops::{self, Target};
use burn_lattice::trace::scope;
use burn_lattice::{Error, Result, SparseTensor, Support};

/// Options of [`CompletionNet`].
#[derive(Config, Debug)]
pub struct CompletionNetConfig {
    /// Channels of the input features.
    pub in_channels: usize,
    /// Channels of the levels, from fine to coarse.
    #[config(default = "vec![16, 32, 64, 128, 256, 512, 1024]")]
    pub levels: Vec<usize>,
    /// Kernel size of the first generative convolution; the others have 2. At 4 the coarsest cells reach into their neighbours.
    #[config(default = 4)]
    pub first_kernel: usize,
    /// `eps` of the norms.
    #[config(default = 1e-5)]
    pub norm_eps: f64,
    /// `momentum` of the norms: the weight of the new value.
    #[config(default = 0.1)]
    pub norm_momentum: f64,
}

/// A step to the next coarser level: kernel 2, stride 2, then 3x3x3; ELU after both norms.
#[derive(Module, Debug)]
pub struct CompletionEncoderStage {
    /// Kernel 2, stride 2; left out at the finest level.
    pub down: Option<ConvBlock>,
    /// Submanifold 3x3x3.
    pub conv: ConvBlock,
}

/// A step to the next finer level: a generative convolution, then 3x3x3, and a score for every row.
#[derive(Module, Debug)]
pub struct CompletionDecoderStage {
    /// Makes children; stride 2.
    pub up: GenerativeConvTranspose3d,
    /// The norm of `up`.
    pub up_norm: BatchNorm,
    /// Submanifold 3x3x3.
    pub conv: ConvBlock,
    /// Pointwise convolution with bias to one channel: keep where it is above 0.
    pub score: ConvBlock,
}

/// Encoder and generative decoder with pruning.
#[derive(Module, Debug)]
pub struct CompletionNet {
    /// From fine to coarse.
    pub encoder: Vec<CompletionEncoderStage>,
    /// From coarse to fine.
    pub decoder: Vec<CompletionDecoderStage>,
}

/// What one decoder stage found.
#[derive(Clone, Debug)]
pub struct CompletionLevel {
    /// Scores `[n, 1]` of the rows before pruning.
    pub scores: SparseTensor,
    /// Whether a row is in the target, where one was given: the labels of the scores.
    pub wanted: Option<Vec<bool>>,
}

/// What [`CompletionNet`] returns.
#[derive(Clone, Debug)]
pub struct CompletionOutput {
    /// Scores of the decoder stages, from coarse to fine.
    pub levels: Vec<CompletionLevel>,
    /// The completed shape: features `[n, levels[0]]` on the rows that were kept at the finest level.
    pub shape: SparseTensor,
}

impl CompletionNetConfig {
    /// Allocates the network.
    ///
    /// # Panics
    /// Fewer than two levels, zero channels.
    pub fn init(&self, device: &Device) -> CompletionNet {
        let n = self.levels.len();
        assert!(n >= 2, "CompletionNet: expected at least two levels, found {n}");
        let block = |channels: [usize; 2]| {
            ConvBlockConfig::new(channels)
                .with_norm_eps(self.norm_eps)
                .with_norm_momentum(self.norm_momentum)
                .with_activation(BlockActivation::None)
        };
        let encoder = (0..n).map(|level| {
            let c = self.levels[level];
            if level == 0 {
                let conv = block([self.in_channels, c]).init_subm(device);
                return CompletionEncoderStage { down: None, conv };
            }
            let down = block([self.levels[level - 1], c]).with_kernel_size([2; 3]).with_stride([2; 3]);
            CompletionEncoderStage {
                down: Some(down.init_strided(device)),
                conv: block([c, c]).init_subm(device),
            }
        });
        let decoder = (0..n - 1).rev().map(|level| {
            let c = self.levels[level];
            let size = if level == n - 2 { self.first_kernel } else { 2 };
            CompletionDecoderStage {
                up: GenerativeConvTranspose3dConfig::new([self.levels[level + 1], c])
                    .with_kernel_size([size; 3])
                    .with_bias(false)
                    .init(device),
                up_norm: BatchNormConfig::new(c)
                    .with_eps(self.norm_eps)
                    .with_momentum(self.norm_momentum)
                    .init(device),
                conv: block([c, c]).init_subm(device),
                score: block([c, 1])
                    .with_kernel_size([1; 3])
                    .with_bias(true)
                    .with_norm(false)
                    .init_subm(device),
            }
        });
        CompletionNet { encoder: encoder.collect(), decoder: decoder.collect() }
    }
}

/// `x` where positive, else `e^x - 1`.
fn elu(x: SparseTensor) -> SparseTensor {
    x.map_feats(|feats| {
        // The exponent of large values is not formed: its gradient would be infinite times zero.
        let below = feats.clone().clamp_max(0.0).exp() - 1.0;
        feats.clamp_min(0.0) + below
    })
}

impl CompletionNet {
    /// Completes `x [n, in_channels]`; see [`try_forward`](Self::try_forward).
    ///
    /// # Panics
    /// With the error of [`try_forward`](Self::try_forward).
    pub fn forward(&self, x: &SparseTensor, target: Option<&Support>) -> CompletionOutput {
        self.try_forward(x, target).unwrap_or_else(|error| panic!("{error}"))
    }

    /// Encodes, then at each finer level makes children, adds the encoder's features (on the rows of both), scores every row and
    /// prunes the rows whose score is not above 0.
    ///
    /// With a target, the rows of the whole shape at the input's stride, rows in the target (divided to the level) are kept whatever
    /// their score, and each level says which were wanted: the way to train.
    ///
    /// # Errors
    /// Channels that differ from the config's; a level at which nothing is kept, since nothing could be made from it.
    pub fn try_forward(&self, x: &SparseTensor, target: Option<&Support>) -> Result<CompletionOutput> {
        let mut skips: Vec<SparseTensor> = Vec::new();
        for (level, stage) in self.encoder.iter().enumerate() {
            let y = scope(&format!("encoder{level}"), || stage.run(skips.last().unwrap_or(x)))?;
            skips.push(y);
        }
        let mut y = skips.pop().unwrap_or_else(|| x.clone());
        let mut levels = Vec::with_capacity(self.decoder.len());
        for (i, stage) in self.decoder.iter().enumerate() {
            let skip = skips.pop().expect("there is one skip a decoder stage");
            let (kept, level) = scope(&format!("decoder{i}"), || stage.run(&y, &skip, target, x.stride()))?;
            levels.push(level);
            y = kept;
        }
        Ok(CompletionOutput { levels, shape: y })
    }
}

impl CompletionEncoderStage {
    fn run(&self, x: &SparseTensor) -> Result<SparseTensor> {
        let y = match &self.down {
            Some(down) => elu(scope("down", || down.try_forward(x, None, None))?),
            None => x.clone(),
        };
        Ok(elu(scope("conv", || self.conv.try_forward(&y, None, None))?))
    }
}

impl CompletionDecoderStage {
    fn run(
        &self,
        x: &SparseTensor,
        skip: &SparseTensor,
        target: Option<&Support>,
        finest: [u32; 3],
    ) -> Result<(SparseTensor, CompletionLevel)> {
        let y = scope("up", || self.up.try_forward(x, None::<&Target>, ConvEpilogue::default()))?;
        let y = elu(self.up_norm.forward(y));
        let y = elu(scope("conv", || self.conv.try_forward(&y, None, None))?);
        let y = scope("add", || ops::generative_add(&y, skip))?;
        let scores = scope("score", || self.score.try_forward(&y, None, None))?;
        let wanted = match target {
            Some(target) => Some(wanted(&y, target, finest)?),
            None => None,
        };
        let mut keep: Vec<bool> = scores.feats().clone().into_data().iter::<f32>().map(|s| s > 0.0).collect();
        if let Some(wanted) = &wanted {
            keep.iter_mut().zip(wanted).for_each(|(keep, wanted)| *keep |= wanted);
        }
        if !keep.is_empty() && keep.iter().all(|keep| !keep) {
            return Err(Error::Value {
                op: "CompletionNet",
                what: format!(
                    "expected scores above 0 at stride {:?}, found none among {} rows; train it, or give a target",
                    y.stride(),
                    keep.len()
                ),
            });
        }
        let n = keep.len();
        let mask = Tensor::<1, Bool>::from_data(TensorData::new(keep, [n]), &y.device());
        let kept = scope("prune", || ops::prune_mask(&y, mask))?;
        Ok((kept, CompletionLevel { scores, wanted }))
    }
}

/// Whether each row of `x` is in a target that is given at stride `finest`.
fn wanted(x: &SparseTensor, target: &Support, finest: [u32; 3]) -> Result<Vec<bool>> {
    let mut step = x.stride();
    for (step, finest) in step.iter_mut().zip(finest) {
        *step /= finest.max(1);
    }
    let coarse = ops::downsample_coords(target, step)?;
    let rows = coarse.to_host().lookup_all(x.support().to_host().coords());
    Ok(rows.into_iter().map(|row| row >= 0).collect())
}

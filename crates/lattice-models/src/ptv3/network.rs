//! The whole network: embedding, encoder with pooling, decoder with unpooling, linear head.

use burn::config::Config;
use burn::module::Module;
use burn::tensor::{Device, Tensor};
use burn_lattice::nn::{
    BatchNorm, BatchNormConfig, ConvEpilogue, Linear, LinearConfig, SubmConv3d, SubmConv3dConfig,
};
use burn_lattice::ops::{self, ActivationKind, GeluApproximation, PoolOptions, Target};
use burn_lattice::trace::scope;
use burn_lattice::{KernelSpec, Result, SparseTensor};

use super::{PtBlock, PtBlockConfig};
use crate::serialization::{Patches, SerialOrder};

/// Options of [`PtV3`]; the defaults are the published network.
#[derive(Config, Debug)]
pub struct PtV3Config {
    /// Channels of the input features.
    pub in_channels: usize,
    /// Channels of the output: classes.
    pub classes: usize,
    /// Channels of the encoder's stages.
    #[config(default = "vec![32, 64, 128, 256, 512]")]
    pub encoder_channels: Vec<usize>,
    /// Blocks of the encoder's stages.
    #[config(default = "vec![2, 2, 2, 6, 2]")]
    pub encoder_depths: Vec<usize>,
    /// Heads of the encoder's stages.
    #[config(default = "vec![2, 4, 8, 16, 32]")]
    pub encoder_heads: Vec<usize>,
    /// Channels of the decoder's stages, from fine to coarse; one fewer than the encoder's.
    #[config(default = "vec![64, 64, 128, 256]")]
    pub decoder_channels: Vec<usize>,
    /// Blocks of the decoder's stages, from fine to coarse.
    #[config(default = "vec![2, 2, 2, 2]")]
    pub decoder_depths: Vec<usize>,
    /// Heads of the decoder's stages, from fine to coarse.
    #[config(default = "vec![4, 4, 8, 16]")]
    pub decoder_heads: Vec<usize>,
    /// Rows of a patch.
    #[config(default = 1024)]
    pub patch_size: usize,
    /// `eps` of the batch norms.
    #[config(default = 1e-3)]
    pub norm_eps: f64,
    /// `momentum` of the batch norms: the weight of the new value.
    #[config(default = 0.01)]
    pub norm_momentum: f64,
}

/// A linear map and a batch norm; GELU follows.
#[derive(Module, Debug)]
pub struct PtProjection {
    /// The linear map.
    pub linear: Linear,
    /// The norm.
    pub norm: BatchNorm,
}

/// Pooling onto a coarser level, but for the first stage, then blocks.
#[derive(Module, Debug)]
pub struct PtEncoderStage {
    /// The linear map before the maximum over 2x2x2 cells, and the norm after it.
    pub down: Option<PtProjection>,
    /// Blocks of the level.
    pub blocks: Vec<PtBlock>,
}

/// The sum of the projected coarse features and the projected skip, then blocks.
#[derive(Module, Debug)]
pub struct PtDecoderStage {
    /// Of the coarse level.
    pub up: PtProjection,
    /// Of the encoder's output at this level.
    pub skip: PtProjection,
    /// Blocks of the level.
    pub blocks: Vec<PtBlock>,
}

/// Point Transformer V3 for per-voxel classes.
#[derive(Module, Debug)]
pub struct PtV3 {
    /// Submanifold 5x5x5 without bias.
    pub embedding: SubmConv3d,
    /// The norm after it; GELU follows.
    pub embedding_norm: BatchNorm,
    /// From fine to coarse.
    pub encoder: Vec<PtEncoderStage>,
    /// From coarse to fine.
    pub decoder: Vec<PtDecoderStage>,
    /// From the last features to scores.
    pub head: Linear,
    patch_size: usize,
}

impl PtV3Config {
    /// Allocates the network.
    ///
    /// # Panics
    /// Lists whose lengths do not fit, zero channels, heads that do not divide the channels.
    pub fn init(&self, device: &Device) -> PtV3 {
        let n = self.encoder_channels.len();
        let fits = n > 0
            && [self.encoder_depths.len(), self.encoder_heads.len()] == [n; 2]
            && [self.decoder_channels.len(), self.decoder_depths.len(), self.decoder_heads.len()]
                == [n - 1; 3];
        assert!(
            fits,
            "PtV3: expected one entry an encoder stage and one fewer for the decoder, found {self:?}"
        );
        let norm = |c: usize| {
            BatchNormConfig::new(c).with_eps(self.norm_eps).with_momentum(self.norm_momentum).init(device)
        };
        let projection = |from: usize, to: usize| PtProjection {
            linear: LinearConfig::new([from, to]).init(device),
            norm: norm(to),
        };
        let blocks = |c: usize, heads: usize, depth: usize| {
            (0..depth).map(|_| PtBlockConfig::new(c, heads).init(device)).collect::<Vec<_>>()
        };
        let widths = &self.encoder_channels;
        let encoder = (0..n).map(|s| PtEncoderStage {
            down: (s > 0).then(|| projection(widths[s - 1], widths[s])),
            blocks: blocks(widths[s], self.encoder_heads[s], self.encoder_depths[s]),
        });
        let mut coarse = widths[n - 1];
        let decoder = (0..n - 1).rev().map(|s| {
            let c = self.decoder_channels[s];
            let stage = PtDecoderStage {
                up: projection(coarse, c),
                skip: projection(widths[s], c),
                blocks: blocks(c, self.decoder_heads[s], self.decoder_depths[s]),
            };
            coarse = c;
            stage
        });
        let (encoder, decoder) = (encoder.collect(), decoder.collect());
        PtV3 {
            embedding: SubmConv3dConfig::new([self.in_channels, widths[0]])
                .with_kernel_size([5; 3])
                .with_bias(false)
                .init(device),
            embedding_norm: norm(widths[0]),
            encoder,
            decoder,
            head: LinearConfig::new([coarse, self.classes]).init(device),
            patch_size: self.patch_size,
        }
    }
}

fn gelu(feats: Tensor<2>) -> Result<Tensor<2>> {
    ops::activation_features(feats, ActivationKind::Gelu(GeluApproximation::None))
}

/// Blocks with the patches of their turn; each order is serialized once a level.
fn run_blocks(
    blocks: &[PtBlock],
    x: SparseTensor,
    patches: &mut [Option<Patches>; 4],
    size: usize,
) -> Result<SparseTensor> {
    let mut y = x;
    for (i, block) in blocks.iter().enumerate() {
        let turn = i % SerialOrder::ALL.len();
        let cut = match &mut patches[turn] {
            Some(cut) => cut,
            empty => empty.insert(Patches::new(y.support(), SerialOrder::ALL[turn], size)?),
        };
        y = scope(&format!("block{i}"), || block.try_forward(&y, cut))?;
    }
    Ok(y)
}

impl PtV3 {
    /// `[n, in_channels]` to scores `[n, classes]` on the same identity.
    ///
    /// # Panics
    /// With the error of [`try_forward`](Self::try_forward).
    pub fn forward(&self, x: &SparseTensor) -> SparseTensor {
        self.try_forward(x).unwrap_or_else(|error| panic!("{error}"))
    }

    /// [`forward`](Self::forward) that returns its error. Orders rows on the host.
    ///
    /// # Errors
    /// Channels that differ from the config's, features of another type than the weights, a patch size of 0.
    pub fn try_forward(&self, x: &SparseTensor) -> Result<SparseTensor> {
        let mut y = scope("embedding", || {
            let y = self.embedding.try_forward(x, ConvEpilogue::default())?;
            let feats = gelu(self.embedding_norm.forward_feats(y.feats().clone()))?;
            y.with_feats(feats)
        })?;
        let cell = KernelSpec::cube(2, 2)?;
        let mut skips = Vec::new();
        for (s, stage) in self.encoder.iter().enumerate() {
            let mut patches = [const { None }; 4];
            let out = scope(&format!("encoder{s}"), || {
                let y = match &stage.down {
                    None => y.clone(),
                    Some(down) => {
                        let wide = down.linear.try_forward(&y)?;
                        let pooled = ops::max_pool3d(&wide, &PoolOptions::new(cell))?;
                        let feats = gelu(down.norm.forward_feats(pooled.feats().clone()))?;
                        pooled.with_feats(feats)?
                    }
                };
                run_blocks(&stage.blocks, y, &mut patches, self.patch_size)
            })?;
            y = out.clone();
            skips.push((out, patches));
        }
        skips.pop();
        for (s, stage) in self.decoder.iter().enumerate() {
            let (skip, mut patches) = skips.pop().expect("there is one skip a decoder stage");
            y = scope(&format!("decoder{s}"), || {
                let project = |p: &PtProjection, x: &SparseTensor| {
                    let wide = p.linear.try_forward(x)?;
                    let feats = gelu(p.norm.forward_feats(wide.feats().clone()))?;
                    wide.with_feats(feats)
                };
                let coarse = project(&stage.up, &y)?;
                let fine = project(&stage.skip, &skip)?;
                // Every fine row lies in one coarse cell: a copy of its features.
                let spread = ops::pool_transpose3d(&coarse, &cell, Some(&Target::from(&fine)))?;
                let feats = fine.feats().clone() + spread.into_feats();
                run_blocks(&stage.blocks, fine.with_feats(feats)?, &mut patches, self.patch_size)
            })?;
        }
        scope("head", || self.head.try_forward(&y))
    }
}

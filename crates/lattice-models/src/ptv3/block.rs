//! The transformer block: conditional position encoding, attention within serialized patches, and an MLP.

use burn::config::Config;
use burn::module::Module;
use burn::tensor::{Device, FloatDType, Tensor, activation};
use burn_lattice::nn::{
    ConvEpilogue, LayerNorm, LayerNormConfig, Linear, LinearConfig, SubmConv3d, SubmConv3dConfig,
};
use burn_lattice::ops::{self, ActivationKind, GeluApproximation};
use burn_lattice::routes::DeviceClass;
use burn_lattice::trace::scope;
use burn_lattice::{Error, Result, SparseTensor};
use rayon::prelude::*;

use crate::serialization::Patches;

/// Scores that one task computes, at most: a few times this many f32 values are alive for each thread, or at once on a GPU.
const SCORES: usize = 1 << 21;
/// The same on a GPU, where few large launches are better.
const GPU_SCORES: usize = 1 << 25;

/// Options of [`PatchAttention`].
#[derive(Config, Debug)]
pub struct PatchAttentionConfig {
    /// Channels of input and output; a multiple of `heads`.
    pub channels: usize,
    /// Attention heads.
    pub heads: usize,
    /// Adds a learned vector to queries, keys and values.
    #[config(default = true)]
    pub qkv_bias: bool,
}

/// Multi-head attention among the rows of each patch: `softmax(q · kᵀ / sqrt(channels / heads)) · v`, then a linear map.
#[derive(Module, Debug)]
pub struct PatchAttention {
    /// Queries, keys and values side by side, `[channels, 3 · channels]`.
    pub qkv: Linear,
    /// `[channels, channels]`.
    pub proj: Linear,
    heads: usize,
}

impl PatchAttentionConfig {
    /// Allocates the module.
    ///
    /// # Panics
    /// Zero channels or heads, or heads that do not divide the channels.
    pub fn init(&self, device: &Device) -> PatchAttention {
        let (c, heads) = (self.channels, self.heads);
        assert!(
            heads > 0 && c.is_multiple_of(heads),
            "PatchAttention: expected heads that divide the channels, found {heads} and {c}"
        );
        PatchAttention {
            qkv: LinearConfig::new([c, 3 * c]).with_bias(self.qkv_bias).init(device),
            proj: LinearConfig::new([c, c]).init(device),
            heads,
        }
    }
}

impl PatchAttention {
    /// `[n, channels]` to `[n, channels]` on the same identity. Memory at inference: the slots' queries, keys and values and a bounded
    /// block of scores; in training all scores, `heads · patch size` values a row. Scores are computed in f32.
    ///
    /// # Errors
    /// Patches of another number of rows; channels or element types that do not fit.
    pub fn try_forward(&self, x: &SparseTensor, patches: &Patches) -> Result<SparseTensor> {
        if patches.n_rows() != x.n_rows() {
            return Err(Error::Shape {
                op: "PatchAttention",
                expected: format!("patches of the tensor's {} rows", x.n_rows()),
                found: format!("patches of {} rows", patches.n_rows()),
            });
        }
        let qkv = self.qkv.try_forward(x)?;
        if x.n_rows() == 0 {
            return self.proj.try_forward(x);
        }
        let dtype = x.feats().dtype();
        let slots = ops::mix_rows(qkv.into_feats(), patches.slots_from_rows(), 0.0).cast(FloatDType::F32);
        let on_gpu = DeviceClass::of(&slots.device()).is_gpu();
        let most = if on_gpu { GPU_SCORES } else { SCORES };
        let mut parts = Vec::new();
        for run in patches.runs() {
            let at_once = (most / (run.length * run.length * self.heads).max(1)).max(1);
            let mut done = 0;
            while done < run.patches {
                let count = at_once.min(run.patches - done);
                let first = run.first + done * run.length;
                parts.push((slots.clone().narrow(0, first, count * run.length), count, run.length));
                done += count;
            }
        }
        let heads = self.heads;
        let attend = |(part, count, length)| attend(part, count, length, heads);
        // The CPU's dense operations run on one thread each; patches do not depend on each other.
        let mixed: Vec<Tensor<2>> = match on_gpu || slots.is_autodiff() {
            true => parts.into_iter().map(attend).collect(),
            false => parts.into_par_iter().map(attend).collect(),
        };
        let mixed = Tensor::cat(mixed, 0);
        let feats = ops::mix_rows(mixed, patches.rows_from_slots(), 0.0).cast(dtype);
        self.proj.try_forward(&x.with_feats(feats)?)
    }
}

/// Attention within `count` patches of `length` slots: `[count · length, 3 c]` to `[count · length, c]`.
fn attend(qkv: Tensor<2>, count: usize, length: usize, heads: usize) -> Tensor<2> {
    let channels = qkv.dims()[1] / 3;
    let width = channels / heads;
    let split: Tensor<5> = qkv.reshape([count, length, 3, heads, width]);
    let split = split.permute([2, 0, 3, 1, 4]);
    let [q, k, v] = [0, 1, 2].map(|i| split.clone().narrow(0, i, 1).reshape([count, heads, length, width]));
    let scores: Tensor<4> = q.mul_scalar((width as f32).powf(-0.5)).matmul(k.swap_dims(2, 3));
    let mixed = activation::softmax(scores, 3).matmul(v);
    mixed.swap_dims(1, 2).reshape([count * length, channels])
}

/// Options of [`PtBlock`].
#[derive(Config, Debug)]
pub struct PtBlockConfig {
    /// Channels of input and output; a multiple of `heads`.
    pub channels: usize,
    /// Attention heads.
    pub heads: usize,
    /// Width of the MLP in multiples of the channels.
    #[config(default = 4)]
    pub mlp_ratio: usize,
}

/// `x + cpe(x)`, then `x + attention(norm(x))`, then `x + mlp(norm(x))`.
///
/// `cpe`, the conditional position encoding, is a submanifold convolution, a linear map and a layer norm. Dropped paths, a means of
/// training, are not part of it.
#[derive(Module, Debug)]
pub struct PtBlock {
    /// Submanifold 3x3x3 with bias.
    pub cpe_conv: SubmConv3d,
    /// Linear map after it.
    pub cpe_linear: Linear,
    /// Layer norm after that.
    pub cpe_norm: LayerNorm,
    /// Layer norm before the attention.
    pub norm1: LayerNorm,
    /// Attention within patches.
    pub attention: PatchAttention,
    /// Layer norm before the MLP.
    pub norm2: LayerNorm,
    /// `[channels, mlp_ratio · channels]`, then GELU.
    pub fc1: Linear,
    /// `[mlp_ratio · channels, channels]`.
    pub fc2: Linear,
}

impl PtBlockConfig {
    /// Allocates the block.
    ///
    /// # Panics
    /// Zero channels, heads or ratio, or heads that do not divide the channels.
    pub fn init(&self, device: &Device) -> PtBlock {
        let c = self.channels;
        let norm = || LayerNormConfig::new(c).init(device);
        let linear = |from: usize, to: usize| LinearConfig::new([from, to]).init(device);
        PtBlock {
            cpe_conv: SubmConv3dConfig::new([c, c]).init(device),
            cpe_linear: linear(c, c),
            cpe_norm: norm(),
            norm1: norm(),
            attention: PatchAttentionConfig::new(c, self.heads).init(device),
            norm2: norm(),
            fc1: linear(c, self.mlp_ratio * c),
            fc2: linear(self.mlp_ratio * c, c),
        }
    }
}

/// `a + b` on one identity.
fn plus(a: SparseTensor, b: SparseTensor) -> Result<SparseTensor> {
    let feats = a.feats().clone() + b.into_feats();
    a.with_feats(feats)
}

impl PtBlock {
    /// `[n, channels]` to `[n, channels]` on the same identity.
    ///
    /// # Panics
    /// With the error of [`try_forward`](Self::try_forward).
    pub fn forward(&self, x: &SparseTensor, patches: &Patches) -> SparseTensor {
        self.try_forward(x, patches).unwrap_or_else(|error| panic!("{error}"))
    }

    /// [`forward`](Self::forward) that returns its error.
    ///
    /// # Errors
    /// Patches of another number of rows; channels or element types that do not fit.
    pub fn try_forward(&self, x: &SparseTensor, patches: &Patches) -> Result<SparseTensor> {
        let encoded = scope("cpe", || {
            let y = self.cpe_conv.try_forward(x, ConvEpilogue::default())?;
            Ok::<_, Error>(self.cpe_norm.forward(&self.cpe_linear.try_forward(&y)?))
        })?;
        let x = plus(x.clone(), encoded)?;
        let mixed = scope("attention", || self.attention.try_forward(&self.norm1.forward(&x), patches))?;
        let x = plus(x, mixed)?;
        let widened = scope("mlp", || {
            let y = self.fc1.try_forward(&self.norm2.forward(&x))?;
            let y = ops::activation(&y, ActivationKind::Gelu(GeluApproximation::None))?;
            self.fc2.try_forward(&y)
        })?;
        plus(x, widened)
    }
}

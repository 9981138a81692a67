//! The transformer block: conditional position encoding, attention within serialized patches, and an MLP.

use burn::config::Config;
use burn::module::Module;
use burn::tensor::Device;
use burn_lattice::nn::{
    ConvEpilogue, LayerNorm, LayerNormConfig, Linear, LinearConfig, SubmConv3d, SubmConv3dConfig,
};
use burn_lattice::ops::{self, ActivationKind, GeluApproximation};
use burn_lattice::trace::scope;
use burn_lattice::{Error, Result, SparseTensor};

use crate::serialization::Patches;

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
    /// `[n, channels]` to `[n, channels]` on the same identity, by [`ops::patch_attention`]. Memory at inference: the slots' queries, keys and
    /// values and a bounded block of scores; in training all scores, `heads · patch size` values a row. Scores are computed in f32, in f64 for f64.
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
        let slots = ops::mix_rows(qkv.into_feats(), patches.slots_from_rows(), 0.0);
        let mixed = ops::patch_attention(slots, patches.runs(), self.heads)?;
        let feats = ops::mix_rows(mixed, patches.rows_from_slots(), 0.0);
        self.proj.try_forward(&x.with_feats(feats)?)
    }
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

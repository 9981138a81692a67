//! MinkUNet: the residual U-Net of sparse segmentation.
//!
//! Source: Choy, Gwak, Savarese, "4D Spatio-Temporal ConvNets" (CVPR 2019, arXiv:1904.08755); depths and channel lists are those
//! of its published configurations; `minkunet42` is the variant of Tang et al., "SPVNAS" (ECCV 2020, arXiv:2007.16100). Kernel cells
//! here are ordered z fastest. No weights are shipped.

use burn::config::Config;
use burn::module::Module;
use burn::tensor::Device;
use burn_lattice::nn::{BlockActivation, ConvBlock, ConvBlockConfig, Target};
use burn_lattice::ops;
use burn_lattice::trace::scope;
use burn_lattice::{Error, Join, Result, SparseTensor};

use crate::residual::{ResidualBlock, ResidualBlockConfig};

/// Options of [`MinkUNet`].
#[derive(Config, Debug)]
pub struct MinkUNetConfig {
    /// Channels of the input features.
    pub in_channels: usize,
    /// Channels of the output: classes.
    pub classes: usize,
    /// Kernel sizes of the stem's convolutions; each is odd.
    #[config(default = "vec![5]")]
    pub stem: Vec<usize>,
    /// Channels of the stem.
    #[config(default = 32)]
    pub stem_channels: usize,
    /// Channels of the four encoder stages.
    #[config(default = "[32, 64, 128, 256]")]
    pub encoder: [usize; 4],
    /// Channels of the four decoder stages.
    #[config(default = "[256, 128, 96, 96]")]
    pub decoder: [usize; 4],
    /// Residual blocks of the encoder's, then the decoder's stages.
    #[config(default = "[2, 2, 2, 2, 2, 2, 2, 2]")]
    pub blocks: [usize; 8],
    /// `eps` of the norms.
    #[config(default = 1e-5)]
    pub norm_eps: f64,
    /// `momentum` of the norms: the weight of the new value.
    #[config(default = 0.1)]
    pub norm_momentum: f64,
}

/// Names that [`MinkUNetConfig::named`] takes.
pub const MINKUNET_NAMES: [&str; 19] = [
    "minkunet14",
    "minkunet14a",
    "minkunet14b",
    "minkunet14c",
    "minkunet14d",
    "minkunet18",
    "minkunet18a",
    "minkunet18b",
    "minkunet18c",
    "minkunet18d",
    "minkunet34",
    "minkunet34a",
    "minkunet34b",
    "minkunet34c",
    "minkunet34d",
    "minkunet42",
    "sparseresunet42",
    "minkunet-bench",
    "minkunet-small",
];

impl MinkUNetConfig {
    /// A published configuration: depth 14, 18 or 34 and a channel list (none, `a`, `b`, `c`, `d`), such as `minkunet34c`;
    /// `minkunet42`, also called `sparseresunet42`, with a stem of two convolutions of 3 in place of one of 5; `minkunet-bench`, the
    /// network of the shared benchmark; or `minkunet-small`, 1.6 million parameters for training in minutes.
    ///
    /// # Errors
    /// [`Error::Value`] for another name.
    pub fn named(name: &str, in_channels: usize, classes: usize) -> Result<Self> {
        let config = Self::new(in_channels, classes);
        match name {
            "minkunet-bench" => return Ok(config.with_stem(vec![3, 3]).with_decoder([128, 64, 32, 32])),
            "minkunet42" | "sparseresunet42" => return Ok(config.with_stem(vec![3, 3])),
            _ => {}
        }
        if name == "minkunet-small" {
            let narrow = config.with_stem(vec![3]).with_stem_channels(16).with_blocks([1; 8]);
            return Ok(narrow.with_encoder([32, 48, 64, 96]).with_decoder([64, 48, 32, 32]));
        }
        let unknown = || Error::Value {
            op: "MinkUNetConfig::named",
            what: format!("expected one of {}, found `{name}`", MINKUNET_NAMES.join(", ")),
        };
        let variant = name
            .strip_prefix("minkunet")
            .filter(|v| v.len() >= 2 && v.is_char_boundary(2))
            .ok_or_else(unknown)?;
        let (depth, list) = variant.split_at(2);
        let blocks = match depth {
            "14" => [1; 8],
            "18" => [2; 8],
            "34" => [2, 3, 4, 6, 2, 2, 2, 2],
            _ => return Err(unknown()),
        };
        let decoder = match (depth, list) {
            (_, "") => [256, 128, 96, 96],
            ("34", "a") => [256, 128, 64, 64],
            ("34", "b") => [256, 128, 64, 32],
            ("34", "c") => [256, 128, 96, 96],
            (_, "a") => [128, 128, 96, 96],
            (_, "b") => [128, 128, 128, 128],
            (_, "c") => [192, 192, 128, 128],
            (_, "d") => [384, 384, 384, 384],
            _ => return Err(unknown()),
        };
        Ok(config.with_blocks(blocks).with_decoder(decoder))
    }

    /// Every width times `width`, rounded down, but for the input and the classes.
    pub fn with_width(mut self, width: f64) -> Self {
        let scale = |c: &mut usize| *c = (*c as f64 * width) as usize;
        scale(&mut self.stem_channels);
        self.encoder.iter_mut().chain(&mut self.decoder).for_each(scale);
        self
    }

    /// Allocates the network; see [`seed_parameters`](crate::seed_parameters) for weights that do not depend on the device.
    ///
    /// # Panics
    /// Zero channels, an empty stem or an even stem kernel.
    pub fn init(&self, device: &Device) -> MinkUNet {
        assert!(!self.stem.is_empty(), "MinkUNet: expected at least one stem kernel size, found none");
        let mut channels = self.in_channels;
        let stem = self.stem.iter().map(|&size| {
            let block =
                self.block([channels, self.stem_channels]).with_kernel_size([size; 3]).init_subm(device);
            channels = self.stem_channels;
            block
        });
        let stem = stem.collect();
        let stage = |c_in: usize, c_out: usize, count: usize| {
            let block = |i: usize| {
                ResidualBlockConfig::new([if i == 0 { c_in } else { c_out }, c_out])
                    .with_norm_eps(self.norm_eps)
                    .with_norm_momentum(self.norm_momentum)
                    .init(device)
            };
            (0..count).map(block).collect::<Vec<_>>()
        };
        let step = |channels: [usize; 2]| self.block(channels).with_kernel_size([2; 3]).with_stride([2; 3]);

        let mut encoder = Vec::new();
        let mut skips = vec![channels];
        for (level, &c_out) in self.encoder.iter().enumerate() {
            encoder.push(EncoderStage {
                down: step([channels, channels]).init_strided(device),
                blocks: stage(channels, c_out, self.blocks[level]),
            });
            channels = c_out;
            skips.push(channels);
        }
        skips.pop();
        let mut decoder = Vec::new();
        for (level, &c_out) in self.decoder.iter().enumerate() {
            let skip = skips.pop().expect("there is one skip a decoder stage");
            decoder.push(DecoderStage {
                up: step([channels, c_out]).init_transposed(device),
                blocks: stage(c_out + skip, c_out, self.blocks[4 + level]),
            });
            channels = c_out;
        }
        let head = ConvBlockConfig::new([channels, self.classes])
            .with_kernel_size([1; 3])
            .with_bias(true)
            .with_norm(false)
            .with_activation(BlockActivation::None)
            .init_subm(device);
        MinkUNet { stem, encoder, decoder, head }
    }

    fn block(&self, channels: [usize; 2]) -> ConvBlockConfig {
        ConvBlockConfig::new(channels).with_norm_eps(self.norm_eps).with_norm_momentum(self.norm_momentum)
    }
}

/// Strided convolution, then residual blocks.
#[derive(Module, Debug)]
pub struct EncoderStage {
    /// Kernel 2, stride 2.
    pub down: ConvBlock,
    /// Residual blocks on the coarser rows.
    pub blocks: Vec<ResidualBlock>,
}

/// Transposed convolution onto the skip's rows, concatenation, then residual blocks.
#[derive(Module, Debug)]
pub struct DecoderStage {
    /// Kernel 2, stride 2, onto the skip's rows.
    pub up: ConvBlock,
    /// Residual blocks on the concatenated channels.
    pub blocks: Vec<ResidualBlock>,
}

/// Residual U-Net for per-voxel classes: stem, four encoder stages, four decoder stages onto the encoder's rows, linear head.
#[derive(Module, Debug)]
pub struct MinkUNet {
    /// Submanifold convolutions at the finest level.
    pub stem: Vec<ConvBlock>,
    /// From fine to coarse.
    pub encoder: Vec<EncoderStage>,
    /// From coarse to fine.
    pub decoder: Vec<DecoderStage>,
    /// Pointwise convolution with bias.
    pub head: ConvBlock,
}

pub(crate) fn run_blocks(blocks: &[ResidualBlock], mut x: SparseTensor) -> Result<SparseTensor> {
    for (i, block) in blocks.iter().enumerate() {
        x = scope(&format!("block{i}"), || block.try_forward(&x))?;
    }
    Ok(x)
}

/// Convolutions one after another.
pub(crate) fn run_stem(stem: &[ConvBlock], x: &SparseTensor) -> Result<SparseTensor> {
    let mut y = x.clone();
    for (i, conv) in stem.iter().enumerate() {
        y = scope(&format!("stem{i}"), || conv.try_forward(&y, None, None))?;
    }
    Ok(y)
}

impl EncoderStage {
    pub(crate) fn run(&self, level: usize, x: &SparseTensor) -> Result<SparseTensor> {
        scope(&format!("encoder{level}"), || {
            let y = scope("down", || self.down.try_forward(x, None, None))?;
            run_blocks(&self.blocks, y)
        })
    }
}

impl DecoderStage {
    /// Takes the coarse tensor, so that it is freed before the wider ones are made.
    pub(crate) fn run(&self, level: usize, x: SparseTensor, skip: SparseTensor) -> Result<SparseTensor> {
        scope(&format!("decoder{level}"), || {
            let up = scope("up", || self.up.try_forward(&x, Some(&Target::from(&skip)), None))?;
            drop(x);
            let joined = scope("cat", || ops::cat(&[up, skip], Join::Inner))?;
            run_blocks(&self.blocks, joined)
        })
    }
}

impl MinkUNet {
    /// `[n, in_channels]` to scores `[n, classes]` on the same identity.
    ///
    /// # Panics
    /// With the error of [`try_forward`](Self::try_forward).
    pub fn forward(&self, x: &SparseTensor) -> SparseTensor {
        self.try_forward(x).unwrap_or_else(|error| panic!("{error}"))
    }

    /// [`forward`](Self::forward) that returns its error.
    ///
    /// # Errors
    /// Channels that differ from the config's, features of another type than the weights, and what building a relation may meet.
    pub fn try_forward(&self, x: &SparseTensor) -> Result<SparseTensor> {
        let y = self.try_features(x)?;
        scope("head", || self.head.try_forward(&y, None, None))
    }

    /// The last decoder stage's features `[n, decoder[3]]`, without the head: the network as a backbone.
    ///
    /// # Errors
    /// As [`try_forward`](Self::try_forward).
    pub fn try_features(&self, x: &SparseTensor) -> Result<SparseTensor> {
        let mut y = run_stem(&self.stem, x)?;
        let mut skips = Vec::with_capacity(self.encoder.len());
        for (level, stage) in self.encoder.iter().enumerate() {
            let coarse = stage.run(level, &y)?;
            skips.push(std::mem::replace(&mut y, coarse));
        }
        for (level, stage) in self.decoder.iter().enumerate() {
            let skip = skips.pop().expect("there is one skip a decoder stage");
            y = stage.run(level, y, skip)?;
        }
        Ok(y)
    }
}

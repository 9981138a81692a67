//! Normalisations of single rows: layer norm and rms norm.

use burn::config::Config;
use burn::module::{Module, Param};
use burn::nn::Initializer;
use burn::tensor::{Device, Tensor};

use super::or_panic;
use crate::ops::{self, NormAffine};
use crate::{Error, Result, SparseTensor};

/// Refuses a norm without channels or with an `eps` that is not positive.
pub(crate) fn check_norm(op: &'static str, channels: usize, eps: f64) -> Result<()> {
    if channels == 0 {
        return Err(Error::Value { op, what: "expected channels above 0, found 0".into() });
    }
    ops::check_eps(op, eps)
}

/// Refuses features with another number of channels than the module's.
pub(crate) fn check_channels(op: &'static str, expected: usize, found: usize) -> Result<()> {
    match expected == found {
        true => Ok(()),
        false => Err(Error::Channels { op, expected, found }),
    }
}

/// Options of [`LayerNorm`].
#[derive(Config, Debug)]
pub struct LayerNormConfig {
    /// Feature channels.
    pub channels: usize,
    /// Added to the variance; positive.
    #[config(default = 1e-5)]
    pub eps: f64,
}

/// `(x - mean) / sqrt(var + eps) · scale + bias` per row, over its channels.
#[derive(Module, Debug)]
pub struct LayerNorm {
    /// Scale `[c]`.
    pub gamma: Param<Tensor<1>>,
    /// Bias `[c]`.
    pub beta: Param<Tensor<1>>,
    eps: f64,
}

impl LayerNormConfig {
    /// Allocates the module: scale 1, bias 0.
    ///
    /// # Panics
    /// Zero channels, `eps` not above 0.
    pub fn init(&self, device: &Device) -> LayerNorm {
        or_panic(check_norm("LayerNorm", self.channels, self.eps));
        LayerNorm {
            gamma: Initializer::Ones.init([self.channels], device),
            beta: Initializer::Zeros.init([self.channels], device),
            eps: self.eps,
        }
    }
}

impl LayerNorm {
    /// What is added to the variance.
    pub fn eps(&self) -> f64 {
        self.eps
    }

    /// Keeps identity and element type.
    ///
    /// # Panics
    /// When the channels differ.
    pub fn forward(&self, x: &SparseTensor) -> SparseTensor {
        x.clone().map_feats(|feats| self.forward_feats(feats))
    }

    /// The same on bare features `[n, c]`.
    ///
    /// # Panics
    /// When the channels differ.
    pub fn forward_feats(&self, feats: Tensor<2>) -> Tensor<2> {
        or_panic(check_channels("LayerNorm", self.gamma.dims()[0], feats.dims()[1]));
        let affine = NormAffine::new(self.gamma.val(), self.beta.val());
        or_panic(ops::layer_norm_features(feats, affine, self.eps))
    }
}

/// Options of [`RmsNorm`].
#[derive(Config, Debug)]
pub struct RmsNormConfig {
    /// Feature channels.
    pub channels: usize,
    /// Added to the mean square; positive.
    #[config(default = 1e-5)]
    pub eps: f64,
}

/// `x / sqrt(mean(x²) + eps) · scale` per row, over its channels.
#[derive(Module, Debug)]
pub struct RmsNorm {
    /// Scale `[c]`.
    pub gamma: Param<Tensor<1>>,
    eps: f64,
}

impl RmsNormConfig {
    /// Allocates the module: scale 1.
    ///
    /// # Panics
    /// Zero channels, `eps` not above 0.
    pub fn init(&self, device: &Device) -> RmsNorm {
        or_panic(check_norm("RmsNorm", self.channels, self.eps));
        RmsNorm { gamma: Initializer::Ones.init([self.channels], device), eps: self.eps }
    }
}

impl RmsNorm {
    /// What is added to the mean square.
    pub fn eps(&self) -> f64 {
        self.eps
    }

    /// Keeps identity and element type.
    ///
    /// # Panics
    /// When the channels differ.
    pub fn forward(&self, x: &SparseTensor) -> SparseTensor {
        x.clone().map_feats(|feats| self.forward_feats(feats))
    }

    /// The same on bare features `[n, c]`.
    ///
    /// # Panics
    /// When the channels differ.
    pub fn forward_feats(&self, feats: Tensor<2>) -> Tensor<2> {
        or_panic(check_channels("RmsNorm", self.gamma.dims()[0], feats.dims()[1]));
        or_panic(ops::rms_norm_features(feats, Some(self.gamma.val()), self.eps))
    }
}

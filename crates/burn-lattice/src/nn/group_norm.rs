//! Normalisations with one set of statistics per batch item: group norm and instance norm.

use burn::config::Config;
use burn::module::{Module, Param};
use burn::nn::Initializer;
use burn::tensor::{Device, Tensor};

use super::norm::{check_channels, check_norm};
use super::or_panic;
use crate::ops::{self, NormAffine};
use crate::{Error, SparseTensor};

type Vector = Option<Param<Tensor<1>>>;

/// Scale 1 and bias 0, where a norm is affine.
fn affine(affine: bool, channels: usize, device: &Device) -> (Vector, Vector) {
    let made = |initializer: Initializer| affine.then(|| initializer.init([channels], device));
    (made(Initializer::Ones), made(Initializer::Zeros))
}

fn values(gamma: &Vector, beta: &Vector) -> NormAffine {
    NormAffine { scale: gamma.as_ref().map(Param::val), bias: beta.as_ref().map(Param::val) }
}

/// Options of [`GroupNorm`].
#[derive(Config, Debug)]
pub struct GroupNormConfig {
    /// Number of channel groups; divides the channels.
    pub groups: usize,
    /// Feature channels.
    pub channels: usize,
    /// Added to the variance; positive.
    #[config(default = 1e-5)]
    pub eps: f64,
    /// Learned scale and bias per channel.
    #[config(default = true)]
    pub affine: bool,
}

/// `(x - mean) / sqrt(var + eps) · scale + bias` with statistics over the rows of a batch item and the channels of a group.
///
/// Use it where batches are small; unlike batch norm it is the same in training and inference.
#[derive(Module, Debug)]
pub struct GroupNorm {
    /// Scale `[c]`.
    pub gamma: Option<Param<Tensor<1>>>,
    /// Bias `[c]`.
    pub beta: Option<Param<Tensor<1>>>,
    groups: usize,
    channels: usize,
    eps: f64,
}

impl GroupNormConfig {
    /// Allocates the module: scale 1, bias 0.
    ///
    /// # Panics
    /// Zero channels, groups that do not divide them, `eps` not above 0.
    pub fn init(&self, device: &Device) -> GroupNorm {
        or_panic(check_norm("GroupNorm", self.channels, self.eps));
        if self.groups == 0 || !self.channels.is_multiple_of(self.groups) {
            or_panic::<()>(Err(Error::Value {
                op: "GroupNorm",
                what: format!(
                    "expected groups that divide {} channels, found {}",
                    self.channels, self.groups
                ),
            }));
        }
        let (gamma, beta) = affine(self.affine, self.channels, device);
        GroupNorm { gamma, beta, groups: self.groups, channels: self.channels, eps: self.eps }
    }
}

impl GroupNorm {
    /// Keeps identity and element type.
    ///
    /// # Panics
    /// When the channels differ.
    pub fn forward(&self, x: &SparseTensor) -> SparseTensor {
        or_panic(check_channels("GroupNorm", self.channels, x.channels()));
        or_panic(ops::group_norm(x, self.groups, values(&self.gamma, &self.beta), self.eps))
    }
}

/// Options of [`InstanceNorm`].
#[derive(Config, Debug)]
pub struct InstanceNormConfig {
    /// Feature channels.
    pub channels: usize,
    /// Added to the variance; positive.
    #[config(default = 1e-5)]
    pub eps: f64,
    /// Learned scale and bias per channel.
    #[config(default = true)]
    pub affine: bool,
}

/// `(x - mean) / sqrt(var + eps) · scale + bias` with statistics over the rows of a batch item, each channel alone.
#[derive(Module, Debug)]
pub struct InstanceNorm {
    /// Scale `[c]`.
    pub gamma: Option<Param<Tensor<1>>>,
    /// Bias `[c]`.
    pub beta: Option<Param<Tensor<1>>>,
    channels: usize,
    eps: f64,
}

impl InstanceNormConfig {
    /// Allocates the module: scale 1, bias 0.
    ///
    /// # Panics
    /// Zero channels, `eps` not above 0.
    pub fn init(&self, device: &Device) -> InstanceNorm {
        or_panic(check_norm("InstanceNorm", self.channels, self.eps));
        let (gamma, beta) = affine(self.affine, self.channels, device);
        InstanceNorm { gamma, beta, channels: self.channels, eps: self.eps }
    }
}

impl InstanceNorm {
    /// Keeps identity and element type.
    ///
    /// # Panics
    /// When the channels differ.
    pub fn forward(&self, x: &SparseTensor) -> SparseTensor {
        or_panic(check_channels("InstanceNorm", self.channels, x.channels()));
        or_panic(ops::instance_norm(x, values(&self.gamma, &self.beta), self.eps))
    }
}

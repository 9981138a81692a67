//! Batch norm over all rows of all batch items.

use burn::config::Config;
use burn::module::{Module, Param};
use burn::nn::Initializer;
use burn::tensor::{Device, FloatDType, Tensor};

use super::{ConvEpilogue, RunningStatistic, or_panic};
use crate::ops::{
    NormAffine, NormStatistics, RunningBlend, apply_epilogue, batch_norm_epilogue, float_dtype,
};
use crate::{Activation, Error, Group, Result, SparseTensor, backend};

/// Options of [`BatchNorm`].
#[derive(Config, Debug)]
pub struct BatchNormConfig {
    /// Feature channels.
    pub channels: usize,
    /// Added to the variance; positive.
    #[config(default = 1e-5)]
    pub eps: f64,
    /// Weight of the new value in the running statistics, in `[0, 1]`.
    #[config(default = 0.1)]
    pub momentum: f64,
    /// Learned scale and bias per channel.
    #[config(default = true)]
    pub affine: bool,
    /// Keeps running statistics and uses them outside training; without, batch statistics always.
    #[config(default = true)]
    pub track_running_stats: bool,
    /// Stores the unbiased variance `N / (N - 1)` in the running statistics, as PyTorch does.
    #[config(default = false)]
    pub unbiased_running_var: bool,
}

/// `(x - mean) / sqrt(var + eps) · scale + bias` per channel, with statistics over all rows of all batch items.
///
/// In training (a device with autodiff) with tracking: batch statistics, which also move the running ones; elsewhere the running
/// ones. Where ranks share a batch ([`Group::share_norms`]), its statistics are those of the rows of all. Statistics are in f32 (f64 for f64 features). Gradients include the dependence of the statistics on `x`.
#[derive(Module, Debug)]
pub struct BatchNorm {
    /// Scale `[c]`.
    pub gamma: Option<Param<Tensor<1>>>,
    /// Bias `[c]`.
    pub beta: Option<Param<Tensor<1>>>,
    /// Running mean `[c]`.
    pub running_mean: RunningStatistic,
    /// Running variance `[c]`.
    pub running_var: RunningStatistic,
    eps: f64,
    momentum: f64,
    track: bool,
    unbiased: bool,
}

impl BatchNormConfig {
    /// Allocates the module: scale 1, bias 0, running mean 0, running variance 1.
    ///
    /// # Panics
    /// Zero channels, `eps` not above 0, momentum outside `[0, 1]`.
    pub fn init(&self, device: &Device) -> BatchNorm {
        or_panic(self.check());
        BatchNorm {
            gamma: self.affine.then(|| Initializer::Ones.init([self.channels], device)),
            beta: self.affine.then(|| Initializer::Zeros.init([self.channels], device)),
            running_mean: RunningStatistic::new(Tensor::zeros([self.channels], device)),
            running_var: RunningStatistic::new(Tensor::ones([self.channels], device)),
            eps: self.eps,
            momentum: self.momentum,
            track: self.track_running_stats,
            unbiased: self.unbiased_running_var,
        }
    }

    fn check(&self) -> Result<()> {
        let fits = self.channels > 0
            && self.eps.is_finite()
            && self.eps > 0.0
            && (0.0..=1.0).contains(&self.momentum);
        if fits {
            return Ok(());
        }
        Err(Error::Value {
            op: "BatchNorm",
            what: format!(
                "expected channels above 0, eps above 0 and momentum in [0, 1], found {}, {} and {}",
                self.channels, self.eps, self.momentum
            ),
        })
    }
}

impl BatchNorm {
    /// What is added to the variance.
    pub fn eps(&self) -> f64 {
        self.eps
    }

    /// Whether it keeps running statistics; without them it uses those of the batch, always.
    pub fn tracks_running_stats(&self) -> bool {
        self.track
    }

    /// Keeps identity, rows and element type.
    ///
    /// # Panics
    /// When the channels differ.
    pub fn forward(&self, x: SparseTensor) -> SparseTensor {
        let channels = self.running_mean.value().dims()[0];
        if x.channels() != channels {
            or_panic::<()>(Err(Error::Channels { op: "BatchNorm", expected: channels, found: x.channels() }));
        }
        x.map_feats(|feats| self.forward_feats(feats))
    }

    /// The same on bare features `[n, c]`.
    pub fn forward_feats(&self, feats: Tensor<2>) -> Tensor<2> {
        self.forward_epilogue(feats, None, Activation::None)
    }

    /// `activation(norm(feats) + residual)`; in training one operation.
    pub(crate) fn forward_epilogue(
        &self,
        feats: Tensor<2>,
        residual: Option<Tensor<2>>,
        activation: Activation,
    ) -> Tensor<2> {
        // A rank without rows still tells the others so.
        let empty = feats.dims()[0] == 0 && Group::sharing().is_none();
        let training = feats.is_autodiff() && self.track;
        if empty || (!training && self.track) {
            let (scale, shift) = self.folded();
            let y = affine(feats, scale, shift);
            return apply_epilogue(y, ConvEpilogue { scale_shift: None, residual, activation });
        }
        let own = NormAffine {
            scale: self.gamma.as_ref().map(Param::val),
            bias: self.beta.as_ref().map(Param::val),
        };
        let running = training.then(|| self.blend());
        let (y, moved) = batch_norm_epilogue(feats, own, residual, running, self.eps, activation);
        self.set_running(moved);
        y
    }

    /// How the statistics of a batch move the running ones.
    fn blend(&self) -> RunningBlend {
        RunningBlend {
            mean: self.running_mean.value(),
            var: self.running_var.value(),
            momentum: self.momentum,
            unbiased: self.unbiased,
        }
    }

    fn set_running(&self, moved: Option<NormStatistics>) {
        if let Some(NormStatistics { mean, var }) = moved {
            self.running_mean.set(mean);
            self.running_var.set(var);
        }
    }

    /// Scale and shift `[c]` of the running statistics: `y = x · scale + shift`.
    pub fn folded(&self) -> (Tensor<1>, Tensor<1>) {
        let statistics = [self.running_mean.value(), self.running_var.value()];
        let affine = [&self.gamma, &self.beta].map(|p| p.as_ref().map(Param::val));
        backend::folded(statistics, affine, self.eps, |[mean, var], [gamma, beta]| {
            fold(mean, var, gamma, beta, self.eps)
        })
    }

    /// Moves the statistics of these features into the running ones without a forward pass of training.
    ///
    /// Used to calibrate a network that was not trained here. Has no effect where there are no rows.
    pub fn observe(&self, feats: &Tensor<2>) {
        let own = NormAffine::default();
        let running = Some(self.blend());
        let (_, moved) = batch_norm_epilogue(feats.clone(), own, None, running, self.eps, Activation::None);
        self.set_running(moved);
    }
}

/// Scale and shift of a norm with these statistics, gamma and beta.
fn fold(
    mean: Tensor<1>,
    var: Tensor<1>,
    gamma: Option<Tensor<1>>,
    beta: Option<Tensor<1>>,
    eps: f64,
) -> (Tensor<1>, Tensor<1>) {
    let inverse = (var + eps).sqrt().recip();
    let scale = match gamma {
        Some(gamma) => inverse.to_device(&gamma.device()) * gamma,
        None => inverse,
    };
    let shift = -(mean.to_device(&scale.device()) * scale.clone());
    match beta {
        Some(beta) => (scale, shift + beta),
        None => (scale, shift),
    }
}

fn affine(feats: Tensor<2>, scale: Tensor<1>, shift: Tensor<1>) -> Tensor<2> {
    let dtype = float_dtype(feats.dtype());
    let compute = match dtype {
        FloatDType::F64 => FloatDType::F64,
        _ => FloatDType::F32,
    };
    let device = feats.device();
    let y = feats.cast(compute) * scale.to_device(&device).cast(compute).unsqueeze()
        + shift.to_device(&device).cast(compute).unsqueeze();
    y.cast(dtype)
}

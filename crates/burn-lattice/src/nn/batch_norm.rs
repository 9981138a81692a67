//! Batch norm over all rows of all batch items.

use burn::config::Config;
use burn::module::{Module, Param, RunningState};
use burn::nn::Initializer;
use burn::tensor::{Device, FloatDType, Tensor};

use super::{ConvEpilogue, or_panic};
use crate::ops::{NormAffine, NormStatistics, apply_epilogue, batch_norm_epilogue, float_dtype};
use crate::{Activation, Error, Result, SparseTensor, backend};

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
/// ones. Statistics are in f32 (f64 for f64 features). Gradients include the dependence of the statistics on `x`.
#[derive(Module, Debug)]
pub struct BatchNorm {
    /// Scale `[c]`.
    pub gamma: Option<Param<Tensor<1>>>,
    /// Bias `[c]`.
    pub beta: Option<Param<Tensor<1>>>,
    /// Running mean `[c]`.
    pub running_mean: RunningState<Tensor<1>>,
    /// Running variance `[c]`.
    pub running_var: RunningState<Tensor<1>>,
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
            running_mean: RunningState::new(Tensor::zeros([self.channels], device)),
            running_var: RunningState::new(Tensor::ones([self.channels], device)),
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
        let rows = feats.dims()[0];
        let training = feats.is_autodiff() && self.track;
        if rows == 0 || (!training && self.track) {
            let (scale, shift) = self.folded();
            let y = affine(feats, scale, shift);
            return apply_epilogue(y, ConvEpilogue { scale_shift: None, residual, activation });
        }
        let own = NormAffine {
            scale: self.gamma.as_ref().map(Param::val),
            bias: self.beta.as_ref().map(Param::val),
        };
        let (y, found) = batch_norm_epilogue(feats, own, residual, self.eps, activation);
        if let Some(found) = found
            && training
        {
            self.update_running(found, rows);
        }
        y
    }

    fn update_running(&self, NormStatistics { mean, var }: NormStatistics, rows: usize) {
        let old_mean = self.running_mean.value_sync();
        let old_var = self.running_var.value_sync();
        let stored = float_dtype(old_mean.dtype());
        // Running statistics have no gradient: they are on the graph's device, but not in the graph.
        let plain = |t: &Tensor<1>| if t.is_autodiff() { t.clone().inner() } else { t.clone() };
        let on_graph =
            |t: Tensor<1>, like: &Tensor<1>| if like.is_autodiff() { Tensor::from_inner(t) } else { t };
        let unbias = if self.unbiased && rows > 1 { rows as f64 / (rows - 1) as f64 } else { 1.0 };
        let [old_m, old_v, new_m, new_v] = [&old_mean, &old_var, &mean, &var].map(plain);
        if let Some([m, v]) = backend::blended([&old_m, &old_v], [&new_m, &new_v], self.momentum, unbias) {
            self.running_mean.update(on_graph(m, &mean));
            self.running_var.update(on_graph(v, &var));
            return;
        }
        let mean = mean.detach().cast(stored);
        let var = var.detach().cast(stored) * unbias;
        let keep = 1.0 - self.momentum;
        let device = mean.device();
        let old_mean = old_mean.to_device(&device);
        let old_var = old_var.to_device(&device);
        self.running_mean.update((old_mean * keep + mean * self.momentum).detach());
        self.running_var.update((old_var * keep + var * self.momentum).detach());
    }

    /// Scale and shift `[c]` of the running statistics: `y = x · scale + shift`.
    pub fn folded(&self) -> (Tensor<1>, Tensor<1>) {
        let (mean, var) = (self.running_mean.value_sync(), self.running_var.value_sync());
        let [gamma, beta] = [&self.gamma, &self.beta].map(|p| p.as_ref().map(Param::val));
        let sources: Vec<_> = [&mean, &var].into_iter().chain(&gamma).chain(&beta).cloned().collect();
        backend::folded(&sources, self.eps, || fold(mean, var, gamma, beta, self.eps))
    }

    /// Moves the statistics of these features into the running ones without a forward pass of training.
    ///
    /// Used to calibrate a network that was not trained here. Has no effect where there are no rows.
    pub fn observe(&self, feats: &Tensor<2>) {
        let own = NormAffine::default();
        let (_, found) = batch_norm_epilogue(feats.clone(), own, None, self.eps, Activation::None);
        if let Some(found) = found {
            self.update_running(found, feats.dims()[0]);
        }
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

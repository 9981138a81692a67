//! Normalisations that need one row or one channel at a time: batch, layer and rms norm.
//!
//! Statistics are in f32 (f64 for f64 features), variances are biased (divided by the count), and the result is rounded once.
//! Gradients include the dependence of the statistics on the features.

use burn::backend::Dispatch;
use burn::tensor::{DType, Tensor};

use super::conv::{ConvEpilogue, apply_epilogue, dtype_name, float_dtype, operand};
use super::precision::{accumulator, widened};
use crate::backend::{
    Activation, BatchNormOptions, BatchNormOutput, LatticeBackend, Operand, RunningOperands,
};
use crate::tensor::check_features;
use crate::{Error, Group, Result, SparseTensor};

/// Given statistics of a batch norm, `[c]` each.
#[derive(Clone, Debug)]
pub struct NormStatistics {
    /// Mean of every channel.
    pub mean: Tensor<1>,
    /// Biased variance of every channel.
    pub var: Tensor<1>,
}

/// Scale and shift per channel, applied after a normalisation.
#[derive(Clone, Debug, Default)]
pub struct NormAffine {
    /// `[c]`; absent is 1.
    pub scale: Option<Tensor<1>>,
    /// `[c]`; absent is 0.
    pub bias: Option<Tensor<1>>,
}

impl NormAffine {
    /// Scale and bias `[c]`.
    pub fn new(scale: Tensor<1>, bias: Tensor<1>) -> Self {
        Self { scale: Some(scale), bias: Some(bias) }
    }

    /// Scale `[c]` alone.
    pub fn with_scale(scale: Tensor<1>) -> Self {
        Self { scale: Some(scale), bias: None }
    }

    /// `y · scale + bias` in the type of `y`.
    pub(crate) fn apply(self, mut y: Tensor<2>) -> Tensor<2> {
        let dtype = accumulator(y.dtype());
        if let Some(scale) = self.scale {
            y = y * scale.cast(dtype).unsqueeze();
        }
        if let Some(bias) = self.bias {
            y = y + bias.cast(dtype).unsqueeze();
        }
        y
    }

    pub(crate) fn check(&self, op: &'static str, channels: usize) -> Result<()> {
        check_vector(op, "scale", self.scale.as_ref(), channels)?;
        check_vector(op, "bias", self.bias.as_ref(), channels)
    }
}

fn check_vector(op: &'static str, name: &str, vector: Option<&Tensor<1>>, channels: usize) -> Result<()> {
    match vector {
        Some(v) if v.dims() != [channels] => Err(Error::Shape {
            op,
            expected: format!("{name} [{channels}]"),
            found: format!("{:?}", v.dims()),
        }),
        _ => Ok(()),
    }
}

pub(crate) fn check_eps(op: &'static str, eps: f64) -> Result<()> {
    match eps.is_finite() && eps > 0.0 {
        true => Ok(()),
        false => Err(Error::Value { op, what: format!("expected a finite eps > 0, found {eps}") }),
    }
}

/// `(x - mean) / sqrt(var + eps) · scale + bias` per channel, over all rows of all batch items.
///
/// Without `statistics` those of these rows are used (of the rows of all ranks within [`crate::Group::share_norms`]); without rows the result is
/// empty. Keeps identity and element type.
///
/// # Errors
/// `eps` not above 0, vectors that do not have one value a channel.
pub fn batch_norm(
    x: &SparseTensor,
    affine: NormAffine,
    statistics: Option<NormStatistics>,
    eps: f64,
) -> Result<SparseTensor> {
    x.with_feats(batch_norm_features(x.feats().clone(), affine, statistics, eps)?)
}

/// [`batch_norm`] on bare features `[n, c]`.
///
/// # Errors
/// As [`batch_norm`].
pub fn batch_norm_features(
    feats: Tensor<2>,
    affine: NormAffine,
    statistics: Option<NormStatistics>,
    eps: f64,
) -> Result<Tensor<2>> {
    let op = "batch_norm";
    let [rows, channels] = feats.dims();
    check_features(op, &feats)?;
    check_eps(op, eps)?;
    affine.check(op, channels)?;
    if let Some(given) = &statistics {
        check_vector(op, "mean", Some(&given.mean), channels)?;
        check_vector(op, "var", Some(&given.var), channels)?;
    }
    let Some(NormStatistics { mean, var }) = statistics else {
        return Ok(batch_norm_epilogue(feats, affine, None, None, eps, Activation::None).0);
    };
    if rows == 0 {
        return Ok(feats);
    }
    Ok(widened(feats, |x| {
        let dtype = accumulator(x.dtype());
        let centred = x - mean.cast(dtype).unsqueeze();
        affine.apply(centred / (var.cast(dtype).unsqueeze() + eps).sqrt())
    }))
}

/// `activation(batch_norm(x) + residual)` with the statistics of these rows: the pass of a block in training, in one operation.
///
/// Without rows the norm does nothing. Keeps identity and element type; differentiable in features, affine and residual.
///
/// # Errors
/// As [`batch_norm`]; [`Error::Identity`] where the residual stands on other rows, and a residual of another shape or type.
pub fn batch_norm_residual(
    x: &SparseTensor,
    affine: NormAffine,
    residual: Option<&SparseTensor>,
    eps: f64,
    activation: Activation,
) -> Result<SparseTensor> {
    let op = "batch_norm_residual";
    check_features(op, x.feats())?;
    check_eps(op, eps)?;
    affine.check(op, x.channels())?;
    if let Some(residual) = residual {
        if !residual.same_coords(x) {
            return Err(Error::Identity {
                op,
                what: "expected a residual on the rows of the input, found another support; align it with a join first".into(),
            });
        }
        if residual.channels() != x.channels() {
            return Err(Error::Channels { op, expected: x.channels(), found: residual.channels() });
        }
        if residual.dtype() != x.dtype() {
            let found = format!("residual {:?}", residual.dtype());
            return Err(Error::Dtype { op, expected: dtype_name(x.dtype()), found });
        }
    }
    let residual = residual.map(|r| r.feats().clone());
    let feats = x.feats().clone();
    x.with_feats(batch_norm_epilogue(feats, affine, residual, None, eps, activation).0)
}

/// Running statistics, and how those of a batch move them: `old * (1 - momentum) + found * momentum`, the variance found multiplied by
/// `n / (n - 1)` first where it should be `unbiased`.
pub(crate) struct RunningBlend {
    pub(crate) mean: Tensor<1>,
    pub(crate) var: Tensor<1>,
    pub(crate) momentum: f64,
    pub(crate) unbiased: bool,
}

/// [`batch_norm_residual`] on checked features, with the running statistics moved where they are given and there are rows.
pub(crate) fn batch_norm_epilogue(
    feats: Tensor<2>,
    affine: NormAffine,
    residual: Option<Tensor<2>>,
    running: Option<RunningBlend>,
    eps: f64,
    activation: Activation,
) -> (Tensor<2>, Option<NormStatistics>) {
    let apart = |residual, activation| ConvEpilogue { scale_shift: None, residual, activation };
    // A rank without rows still tells the others so.
    if feats.dims()[0] == 0 && Group::sharing().is_none() {
        return (apply_epilogue(feats, apart(residual, activation)), None);
    }
    if !passes_by_sign(activation) {
        let (y, moved) = batch_norm_train(feats, affine, residual, running, eps, Activation::None);
        return (apply_epilogue(y, apart(None, activation)), moved);
    }
    batch_norm_train(feats, affine, residual, running, eps, activation)
}

/// `activation(batch_norm(x) + residual)` with the statistics of these rows, in one backend operation, and the running statistics moved
/// by them, in the type they had. Within [`Group::share_norms`] they are those of the rows of all ranks.
///
/// The caller has checked shapes, `eps`, that there are rows somewhere, and that [`passes_by_sign`] holds for the activation.
fn batch_norm_train(
    feats: Tensor<2>,
    affine: NormAffine,
    residual: Option<Tensor<2>>,
    running: Option<RunningBlend>,
    eps: f64,
    activation: Activation,
) -> (Tensor<2>, Option<NormStatistics>) {
    let dtype = accumulator(feats.dtype());
    let channels = feats.dims()[1];
    let device = feats.device();
    let gamma = match affine.scale {
        Some(scale) => scale.cast(dtype),
        None => Tensor::ones([channels], (&device, DType::from(dtype))),
    };
    let beta = match affine.bias {
        Some(bias) => bias.cast(dtype),
        None => Tensor::zeros([channels], (&device, DType::from(dtype))),
    };
    let group = Group::sharing();
    let mut options = BatchNormOptions { eps, activation, momentum: 0.0, unbiased: false, group };
    let mut stored = None;
    let mut operands = RunningOperands { mean: Operand::Absent, var: Operand::Absent };
    if let Some(RunningBlend { mean, var, momentum, unbiased }) = running {
        options = BatchNormOptions { momentum, unbiased, ..options };
        stored = Some(float_dtype(mean.dtype()));
        let beside = |t: Tensor<1>| {
            let t = if t.is_autodiff() { t.inner() } else { t };
            let t = if feats.is_autodiff() { Tensor::from_inner(t) } else { t };
            Operand::Given(t.to_device(&device).cast(dtype).into_dispatch())
        };
        operands = RunningOperands { mean: beside(mean), var: beside(var) };
    }
    let BatchNormOutput { y, moved_mean, moved_var, .. } = <Dispatch as LatticeBackend>::sparse_batch_norm(
        feats.into_dispatch(),
        gamma.into_dispatch(),
        beta.into_dispatch(),
        operand(residual),
        operands,
        options,
    );
    let moved = stored.map(|stored| {
        let [mean, var] = [moved_mean, moved_var].map(|t| Tensor::<1>::from_dispatch(t).cast(stored));
        NormStatistics { mean, var }
    });
    (Tensor::from_dispatch(y), moved)
}

/// True where the sign of an activation's result is that of its input, which [`batch_norm_train`] asks for.
fn passes_by_sign(activation: Activation) -> bool {
    match activation {
        Activation::None | Activation::Relu => true,
        Activation::LeakyRelu(slope) => slope >= 0.0,
        _ => false,
    }
}

/// `(x - mean) / sqrt(var + eps) · scale + bias` per row, over its channels.
///
/// # Errors
/// `eps` not above 0, vectors that do not have one value a channel.
pub fn layer_norm(x: &SparseTensor, affine: NormAffine, eps: f64) -> Result<SparseTensor> {
    x.with_feats(layer_norm_features(x.feats().clone(), affine, eps)?)
}

/// [`layer_norm`] on bare features `[n, c]`.
///
/// # Errors
/// As [`layer_norm`].
pub fn layer_norm_features(feats: Tensor<2>, affine: NormAffine, eps: f64) -> Result<Tensor<2>> {
    let op = "layer_norm";
    check_features(op, &feats)?;
    check_eps(op, eps)?;
    affine.check(op, feats.dims()[1])?;
    if feats.dims().contains(&0) {
        return Ok(feats);
    }
    Ok(widened(feats, |x| {
        let mean = x.clone().mean_dim(1);
        let centred = x - mean;
        let var = (centred.clone() * centred.clone()).mean_dim(1);
        affine.apply(centred / (var + eps).sqrt())
    }))
}

/// `x / sqrt(mean(x²) + eps) · scale` per row, over its channels.
///
/// # Errors
/// `eps` not above 0, a scale that does not have one value a channel.
pub fn rms_norm(x: &SparseTensor, scale: Option<Tensor<1>>, eps: f64) -> Result<SparseTensor> {
    x.with_feats(rms_norm_features(x.feats().clone(), scale, eps)?)
}

/// [`rms_norm`] on bare features `[n, c]`.
///
/// # Errors
/// As [`rms_norm`].
pub fn rms_norm_features(feats: Tensor<2>, scale: Option<Tensor<1>>, eps: f64) -> Result<Tensor<2>> {
    let op = "rms_norm";
    let affine = NormAffine { scale, bias: None };
    check_features(op, &feats)?;
    check_eps(op, eps)?;
    affine.check(op, feats.dims()[1])?;
    if feats.dims().contains(&0) {
        return Ok(feats);
    }
    Ok(widened(feats, |x| {
        let square = (x.clone() * x.clone()).mean_dim(1);
        affine.apply(x / (square + eps).sqrt())
    }))
}

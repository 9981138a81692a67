//! The weight-normalized family: each sum is divided by the norm of the weights that took part in it.
//!
//! `y = num / sqrt(den + eps) + bias` with `num = conv(x, w)` and `den = conv(1, w²)` over the same pairs, so a row at the rim
//! of a shape is scaled by the neighbours it has. A row without pairs is the bias. A pointwise kernel is the plain product.

use burn::tensor::Tensor;

use super::conv::{
    ConvEpilogue, ConvGeometry, ConvKind, ConvOptions, Target, check_generative, convolve, dtype_name,
    float_dtype, geometry,
};
use super::precision::accumulator;
use crate::backend::ConvMap;
use crate::{Error, Result, SparseTensor};

fn normalized(
    op: &'static str,
    x: &SparseTensor,
    weight: Tensor<3>,
    bias: Option<Tensor<1>>,
    geometry: ConvGeometry,
    groups: usize,
    eps: f64,
) -> Result<SparseTensor> {
    if !(eps.is_finite() && eps > 0.0) {
        return Err(Error::Value { op, what: format!("expected a finite eps > 0, found {eps}") });
    }
    if matches!(geometry.map, ConvMap::Pointwise) {
        return convolve(op, x, weight, bias, geometry, groups, ConvEpilogue::default());
    }
    if weight.dtype() != x.dtype() {
        return Err(Error::Dtype {
            op,
            expected: dtype_name(x.dtype()),
            found: format!("weight {:?}", weight.dtype()),
        });
    }
    if let Some(bias) = &bias
        && bias.dims() != [weight.dims()[2]]
    {
        return Err(Error::Shape {
            op,
            expected: format!("bias [{}]", weight.dims()[2]),
            found: format!("{:?}", bias.dims()),
        });
    }
    // Both sums stay in f32 until the one rounding; `eps` would vanish in f16.
    let dtype = float_dtype(x.dtype());
    let wide = accumulator(x.dtype());
    let (x, weight) = (x.astype(wide), weight.cast(wide));
    let squared = weight.clone() * weight.clone();
    let num = convolve(op, &x, weight, None, geometry.clone(), groups, ConvEpilogue::default())?;
    let ones = x.with_feats(x.feats().ones_like().detach())?;
    let den = convolve(op, &ones, squared, None, geometry, groups, ConvEpilogue::default())?;
    let mut feats = num.feats().clone() / (den.into_feats() + eps).sqrt();
    if let Some(bias) = bias {
        feats = feats + bias.cast(wide).unsqueeze();
    }
    num.with_feats(feats.cast(dtype))
}

/// Weight-normalized [`subm_conv3d`](super::subm_conv3d); gradients flow through the norm.
///
/// # Errors
/// `eps` not above 0; otherwise as the plain form.
pub fn normalized_subm_conv3d(
    x: &SparseTensor,
    weight: Tensor<3>,
    bias: Option<Tensor<1>>,
    options: &ConvOptions,
    eps: f64,
) -> Result<SparseTensor> {
    let op = "normalized_subm_conv3d";
    let geometry = geometry(op, ConvKind::Submanifold, x, options, None)?;
    normalized(op, x, weight, bias, geometry, options.groups, eps)
}

/// Weight-normalized [`conv_transpose3d`](super::conv_transpose3d); gradients flow through the norm.
///
/// # Errors
/// `eps` not above 0; otherwise as the plain form.
pub fn normalized_conv_transpose3d(
    x: &SparseTensor,
    weight: Tensor<3>,
    bias: Option<Tensor<1>>,
    options: &ConvOptions,
    target: Option<&Target>,
    eps: f64,
) -> Result<SparseTensor> {
    let op = "normalized_conv_transpose3d";
    let found = match (options.spec.is_pointwise(), target) {
        (true, None) => geometry(op, ConvKind::Submanifold, x, options, None)?,
        _ => geometry(op, ConvKind::Transposed, x, options, target)?,
    };
    normalized(op, x, weight, bias, found, options.groups, eps)
}

/// Weight-normalized [`generative_conv_transpose3d`](super::generative_conv_transpose3d).
///
/// # Errors
/// `eps` not above 0; otherwise as the plain form.
pub fn normalized_generative_conv_transpose3d(
    x: &SparseTensor,
    weight: Tensor<3>,
    bias: Option<Tensor<1>>,
    options: &ConvOptions,
    target: Option<&Target>,
    eps: f64,
) -> Result<SparseTensor> {
    let op = "normalized_generative_conv_transpose3d";
    check_generative(op, &options.spec)?;
    let found = match (options.spec.is_pointwise(), target) {
        (true, None) => geometry(op, ConvKind::Submanifold, x, options, None)?,
        _ => geometry(op, ConvKind::Generative, x, options, target)?,
    };
    normalized(op, x, weight, bias, found, options.groups, eps)
}

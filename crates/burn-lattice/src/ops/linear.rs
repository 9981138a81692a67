//! The linear map of feature rows: `y = x · wᵀ + bias`.

use burn::backend::Dispatch;
use burn::tensor::{DType, Tensor};

use super::conv::{ConvEpilogue, ConvKind, ConvOptions, convolve, dtype_name, float_dtype, geometry};
use crate::backend::{Activation, ConvMap, FusedOperands, LatticeBackend, Operand, cast_bias};
use crate::tensor::check_features;
use crate::{Error, KernelSpec, Result, SparseTensor};

/// Refuses operands that do not fit `[n, c_in]` features.
fn check_linear(
    op: &'static str,
    c_in: usize,
    dtype: DType,
    weight: &Tensor<3>,
    bias: Option<&Tensor<1>>,
) -> Result<()> {
    let [_, weight_in, c_out] = weight.dims();
    check_features(op, weight)?;
    if weight_in != c_in {
        return Err(Error::Channels { op, expected: weight_in, found: c_in });
    }
    if weight.dtype() != dtype {
        return Err(Error::Dtype {
            op,
            expected: dtype_name(dtype),
            found: format!("weight {:?}", weight.dtype()),
        });
    }
    match bias {
        Some(bias) if bias.dims() != [c_out] => {
            Err(Error::Shape { op, expected: format!("bias [{c_out}]"), found: format!("{:?}", bias.dims()) })
        }
        _ => Ok(()),
    }
}

/// `y = x · wᵀ + bias` on the same rows, with f32 products and sums (f64 for f64) and one rounding. Differentiable.
///
/// # Shapes
/// `x [n, c_in]`; `weight [c_out, c_in]`; `bias [c_out]`; result `[n, c_out]` on the input's identity.
/// # Errors
/// Channels, shapes or dtypes that do not fit.
pub fn linear(x: &SparseTensor, weight: Tensor<2>, bias: Option<Tensor<1>>) -> Result<SparseTensor> {
    linear_by_columns("linear", x, weight.transpose(), bias)
}

/// [`linear`] on bare features `[n, c_in]`.
///
/// # Errors
/// As [`linear`].
pub fn linear_features(feats: Tensor<2>, weight: Tensor<2>, bias: Option<Tensor<1>>) -> Result<Tensor<2>> {
    linear_features_by_columns("linear_features", feats, weight.transpose(), bias)
}

/// [`linear`] with the weight as modules store it, `[c_in, c_out]`.
pub(crate) fn linear_by_columns(
    op: &'static str,
    x: &SparseTensor,
    weight: Tensor<2>,
    bias: Option<Tensor<1>>,
) -> Result<SparseTensor> {
    let weight: Tensor<3> = weight.unsqueeze();
    check_linear(op, x.channels(), x.dtype(), &weight, bias.as_ref())?;
    let options = ConvOptions::new(KernelSpec::cube(1, 1)?);
    let geometry = geometry(op, ConvKind::Submanifold, x, &options, None)?;
    convolve(op, x, weight, bias, geometry, 1, ConvEpilogue::default())
}

/// [`linear_features`] with the weight as modules store it, `[c_in, c_out]`.
pub(crate) fn linear_features_by_columns(
    op: &'static str,
    feats: Tensor<2>,
    weight: Tensor<2>,
    bias: Option<Tensor<1>>,
) -> Result<Tensor<2>> {
    let weight: Tensor<3> = weight.unsqueeze();
    check_linear(op, feats.dims()[1], feats.dtype(), &weight, bias.as_ref())?;
    let autodiff =
        feats.is_autodiff() || weight.is_autodiff() || bias.as_ref().is_some_and(Tensor::is_autodiff);
    let bias = bias.map_or(Operand::Absent, |b| {
        Operand::Given(cast_bias(b, float_dtype(feats.dtype())).into_dispatch())
    });
    let (feats, weight, map) = (feats.into_dispatch(), weight.into_dispatch(), ConvMap::Pointwise);
    Ok(Tensor::from_dispatch(if autodiff {
        <Dispatch as LatticeBackend>::sparse_conv(feats, weight, bias, map, 1)
    } else {
        let operands = FusedOperands::bias_alone(bias);
        <Dispatch as LatticeBackend>::sparse_conv_fused(feats, weight, operands, map, 1, Activation::None)
    }))
}

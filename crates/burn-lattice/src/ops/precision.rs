//! Where feature operations compute: f32 for f16, bf16 and f32, f64 for f64, with one rounding back.

use burn::tensor::{DType, FloatDType, Tensor};

use super::conv::float_dtype;

/// The type that values of `dtype` are computed in.
pub(crate) fn accumulator(dtype: DType) -> FloatDType {
    match dtype {
        DType::F64 => FloatDType::F64,
        _ => FloatDType::F32,
    }
}

/// Runs `work` on the features in their accumulator type and rounds the result back once.
pub(crate) fn widened(feats: Tensor<2>, work: impl FnOnce(Tensor<2>) -> Tensor<2>) -> Tensor<2> {
    let dtype = feats.dtype();
    work(feats.cast(accumulator(dtype))).cast(float_dtype(dtype))
}

/// Rows that are summed before partial sums are: one running f32 sum over a million rows is wrong in its third digit.
pub(crate) const SUM_BLOCK: usize = 1024;

/// Mean of every column, `[n, c]` to `[1, c]`, by partial sums over blocks of rows; `n` above 0. Differentiable.
pub(crate) fn column_mean(x: Tensor<2>) -> Tensor<2> {
    let [rows, channels] = x.dims();
    let whole = rows - rows % SUM_BLOCK;
    if whole == 0 {
        return x.mean_dim(0);
    }
    let blocks = x.clone().narrow(0, 0, whole).reshape([whole / SUM_BLOCK, SUM_BLOCK, channels]);
    let mut sums = blocks.sum_dim(1).reshape([whole / SUM_BLOCK, channels]);
    if whole < rows {
        sums = Tensor::cat(vec![sums, x.narrow(0, whole, rows - whole).sum_dim(0)], 0);
    }
    sums.sum_dim(0) * (1.0 / rows as f64)
}

//! Where feature operations compute: f32 for f16, bf16 and f32, f64 for f64, with one rounding back.

use burn::tensor::{DType, FloatDType, Tensor};

use super::conv::float_dtype;
use crate::routes::DeviceClass;

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

/// Whether values lie where the kernels of `lattice-cpu` for single operations read them: in f32 on the CPU, without autodiff.
pub(crate) fn runs_on_cpu_kernels(x: &Tensor<2>) -> bool {
    x.dtype() == DType::F32 && !x.is_autodiff() && DeviceClass::of(&x.device()) == DeviceClass::Cpu
}

/// Rows that are summed before partial sums are: one running f32 sum over a million rows is wrong in its third digit.
pub(crate) const SUM_BLOCK: usize = 1024;

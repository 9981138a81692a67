//! Channels side by side on a GPU, in one launch.

use burn::tensor::{DType, Tensor, bf16, f16};
use burn_cubecl::CubeBackend;
use burn_cubecl::tensor::CubeTensor;
use lattice_gpu::rows::concat_columns as concat;

use super::device::gpu_device;
use super::rows::{Rows, tensor_of};

/// `[n, c_lhs]` and `[n, c_rhs]` as `[n, c_lhs + c_rhs]`. `None` for another device, and with a graph, which has operations of its own.
pub(crate) fn concat_columns(lhs: &Tensor<2>, rhs: &Tensor<2>) -> Option<Tensor<2>> {
    let device = gpu_device(&lhs.device()).filter(|_| !lhs.is_autodiff() && !rhs.is_autodiff())?;
    let rows = |tensor: &Tensor<2>| -> Option<Rows> {
        let primitive: CubeTensor = tensor.clone().try_into_primitive::<CubeBackend>().ok()?;
        Some(Rows::new(primitive))
    };
    let (lhs, rhs) = (rows(lhs)?, rows(rhs)?);
    let ([n, c_lhs], [_, c_rhs]) = (lhs.dims(), rhs.dims());
    if n * (c_lhs + c_rhs) == 0 {
        return None;
    }
    let (operands, channels) = ([&lhs.buffer(), &rhs.buffer()], [c_lhs, c_rhs]);
    let joined = match lhs.dtype() {
        DType::F32 => concat::<f32>(&lhs.gpu, operands, n, channels),
        DType::F16 => concat::<f16>(&lhs.gpu, operands, n, channels),
        DType::BF16 => concat::<bf16>(&lhs.gpu, operands, n, channels),
        _ => return None,
    };
    let tensor = tensor_of(&lhs.gpu, &device, joined, [n, c_lhs + c_rhs], lhs.dtype());
    Some(Tensor::from_primitive::<CubeBackend>(tensor))
}

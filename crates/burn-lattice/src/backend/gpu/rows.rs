//! CubeCL tensors as buffers of `lattice-gpu`, and back.

use burn::backend::{DType, TensorMetadata};
use burn::tensor::Shape;
use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::tensor::CubeTensor;
use burn_cubecl::{CubeBackend, CubeDevice};
use lattice_gpu::{Buffer, Gpu};

use crate::backend::Operand;

/// Runs `$body` with `$T` bound to the element type of `$dtype`.
macro_rules! with_gpu_float {
    ($dtype:expr, $T:ident, $body:expr) => {
        match $dtype {
            DType::F32 => {
                type $T = f32;
                $body
            }
            DType::F16 => {
                type $T = f16;
                $body
            }
            DType::BF16 => {
                type $T = bf16;
                $body
            }
            // Every public operation checks its dtypes against the device before it dispatches.
            other => panic!("features on a GPU must be f32, f16 or bf16, found {other:?}"),
        }
    };
}
pub(super) use with_gpu_float;

/// A contiguous tensor as a buffer, and what is needed to make others like it.
pub(super) struct Rows {
    pub(super) tensor: CubeTensor,
    pub(super) gpu: Gpu,
}

impl Rows {
    pub(super) fn new(tensor: CubeTensor) -> Self {
        let tensor = into_contiguous(tensor);
        Self { gpu: Gpu::new(tensor.client.clone()), tensor }
    }

    pub(super) fn dtype(&self) -> DType {
        self.tensor.dtype
    }

    pub(super) fn dims<const D: usize>(&self) -> [usize; D] {
        let shape = self.tensor.shape();
        std::array::from_fn(|axis| shape[axis])
    }

    pub(super) fn buffer(&self) -> Buffer {
        match self.tensor.shape().num_elements() {
            // Memory without bytes cannot be bound.
            0 => self.gpu.empty(0, 4),
            len => Buffer::from_handle(self.tensor.handle.clone(), len),
        }
    }

    /// A tensor of this one's device.
    pub(super) fn tensor_from<const D: usize>(
        &self,
        buffer: Buffer,
        dims: [usize; D],
        dtype: DType,
    ) -> CubeTensor {
        tensor_of(&self.gpu, &self.tensor.device, buffer, dims, dtype)
    }
}

/// A buffer of a device as a tensor.
pub(super) fn tensor_of<const D: usize>(
    gpu: &Gpu,
    device: &CubeDevice,
    buffer: Buffer,
    dims: [usize; D],
    dtype: DType,
) -> CubeTensor {
    let shape = Shape::from(dims);
    // Small buffers have more room than their elements take.
    let spare = buffer.handle.size_in_used() - (shape.num_elements() * dtype.size()) as u64;
    let handle = if spare > 0 { buffer.handle.offset_end(spare) } else { buffer.handle };
    CubeTensor::new_contiguous(gpu.client().clone(), device.clone(), shape, handle, dtype)
}

impl Operand<CubeBackend> {
    pub(super) fn buffer(self) -> Option<Buffer> {
        match self {
            Self::Given(tensor) => Some(Rows::new(tensor).buffer()),
            Self::Absent => None,
        }
    }
}

//! GPU backends: CubeCL tensors handed to `lattice-gpu` as buffers.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, DType, DispatchDevice, TensorMetadata};
use burn::tensor::{Device, Shape, bf16, f16};
use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::tensor::CubeTensor;
use burn_cubecl::{CubeBackend, CubeDevice};
use lattice_core as core;
use lattice_cpu::ConvShape as Channels;
use lattice_gpu::conv::direct::{conv_direct, pointwise_direct};
use lattice_gpu::conv::mma::{self, After, Direction, Epilogue, MmaPlan};
use lattice_gpu::conv::plain::{conv_plain, pointwise_plain};
use lattice_gpu::conv::{ConvShape, weight_grad};
use lattice_gpu::{Buffer, Gpu, norm, rows};

use super::forms;
use super::{
    Activation, BatchNormGrads, BatchNormOutput, BatchNormTape, ConvMap, FusedOperands, LatticeBackend,
    LatticeKernels, Operand,
};
use crate::routes::{ConvKernel, ConvProblem, DeviceClass, conv_route};
use crate::{Result, RowMap};

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

/// A contiguous tensor as a buffer, and what is needed to make others like it.
struct Rows {
    tensor: CubeTensor,
    gpu: Gpu,
}

impl Rows {
    fn new(tensor: CubeTensor) -> Self {
        let tensor = into_contiguous(tensor);
        Self { gpu: Gpu::new(tensor.client.clone()), tensor }
    }

    fn dtype(&self) -> DType {
        self.tensor.dtype
    }

    fn dims<const D: usize>(&self) -> [usize; D] {
        let shape = self.tensor.shape();
        std::array::from_fn(|axis| shape[axis])
    }

    fn buffer(&self) -> Buffer {
        match self.tensor.shape().num_elements() {
            // Memory without bytes cannot be bound.
            0 => self.gpu.empty(0, 4),
            len => Buffer::from_handle(self.tensor.handle.clone(), len),
        }
    }

    /// A tensor of this one's device.
    fn tensor_from<const D: usize>(&self, buffer: Buffer, dims: [usize; D], dtype: DType) -> CubeTensor {
        let (client, device) = (self.tensor.client.clone(), self.tensor.device.clone());
        let shape = Shape::from(dims);
        // Small buffers have more room than their elements take.
        let spare = buffer.handle.size_in_used() - (shape.num_elements() * dtype.size()) as u64;
        let handle = if spare > 0 { buffer.handle.offset_end(spare) } else { buffer.handle };
        CubeTensor::new_contiguous(client, device, shape, handle, dtype)
    }
}

impl Operand<CubeBackend> {
    fn buffer(self) -> Option<Buffer> {
        match self {
            Self::Given(tensor) => Some(Rows::new(tensor).buffer()),
            Self::Absent => None,
        }
    }
}

fn after(activation: Activation) -> After {
    match activation {
        Activation::Relu => After::Relu,
        Activation::LeakyRelu(slope) => After::LeakyRelu(slope.to_bits()),
        _ => After::Nothing,
    }
}

/// The GPU of a device, if it is one.
fn gpu_device(device: &Device) -> Option<CubeDevice> {
    match device.clone().without_autodiff().as_dispatch() {
        DispatchDevice::Cube(device) => Some(device.clone()),
        _ => None,
    }
}

/// What routes ask of a device; asked of the driver once.
pub(crate) fn device_class(device: &Device) -> DeviceClass {
    gpu_device(device).map_or(DeviceClass::Cpu, |device| class_of(&device))
}

fn class_of(device: &CubeDevice) -> DeviceClass {
    static KNOWN: Mutex<Option<HashMap<u64, DeviceClass>>> = Mutex::new(None);
    let key = forms::key(device);
    // Entries are inserted whole, so a panic elsewhere leaves the map as it should be.
    let lock = || KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(class) = lock().as_ref().and_then(|known| known.get(&key).copied()) {
        return class;
    }
    let class = DeviceClass::Gpu { matrix_units: mma::has_matrix_units(&Gpu::new(device.client())) };
    lock().get_or_insert_default().insert(key, class);
    class
}

/// What the driver calls a device.
pub(crate) fn device_name(device: &Device) -> String {
    gpu_device(device).map_or("cpu".into(), |device| device.client().properties().identity.name.clone())
}

/// Whether there is no card behind a GPU device.
pub(crate) fn is_software(device: &Device) -> bool {
    gpu_device(device).is_some_and(|device| device.client().properties().identity.physical.is_none())
}

/// Whether kernels of this crate compute with features of a type on a device.
pub(crate) fn takes_dtype(device: &Device, dtype: DType) -> bool {
    match gpu_device(device) {
        Some(device) => dtype != DType::F64 && CubeBackend::supports_dtype(&device, dtype),
        None => true,
    }
}

/// Refuses a relation that a GPU cannot hold; a CPU takes all.
pub(crate) fn check_relation(op: &'static str, device: &Device, relation: &core::Relation) -> Result<()> {
    gpu_device(device).map_or(Ok(()), |_| forms::check(op, relation))
}

/// Refuses a row map that a GPU cannot hold; a CPU takes all.
pub(crate) fn check_row_map(op: &'static str, device: &Device, map: &core::RowMap) -> Result<()> {
    gpu_device(device).map_or(Ok(()), |_| forms::check_map(op, map))
}

/// Builds what convolutions read on a GPU, with gradients in training; nothing on the CPU. `check_relation` was asked.
pub(crate) fn prepare(device: &Device, relation: &core::Relation, training: bool) {
    if let Some(device) = gpu_device(device) {
        let gpu = Gpu::new(device.client());
        forms::tiles(&gpu, &device, relation, Direction::Forward);
        if training {
            forms::tiles(&gpu, &device, relation, Direction::Backward);
            forms::pairs(&gpu, &device, relation);
        }
    }
}

/// Sums of a convolution or of its input gradient by the route of the table.
fn convolve(
    x: &Rows,
    weight: &Rows,
    map: &ConvMap,
    channels: Channels,
    direction: Direction,
    epilogue: &Epilogue,
) -> CubeTensor {
    let (gpu, device) = (&x.gpu, &x.tensor.device);
    let shape = ConvShape { c_in: channels.c_in, c_out: channels.c_out, groups: channels.groups };
    let [rows_x, _] = x.dims();
    let (c_from, c_to) = match direction {
        Direction::Forward => (channels.c_in, channels.c_out),
        Direction::Backward => (channels.c_out, channels.c_in),
    };
    let rows = match (map, direction) {
        (ConvMap::Pointwise, _) => rows_x,
        (ConvMap::Relation(relation), Direction::Forward) => relation.n_out(),
        (ConvMap::Relation(relation), Direction::Backward) => relation.n_in(),
    };
    let problem = ConvProblem {
        dtype: x.dtype(),
        rows,
        shape: channels,
        pointwise: matches!(map, ConvMap::Pointwise),
        device: class_of(device),
    };
    let kernel = conv_route(&problem).kernel();
    let (values, w) = (x.buffer(), weight.buffer());
    let y = with_gpu_float!(x.dtype(), T, {
        match (map, kernel) {
            _ if rows * c_to == 0 => gpu.empty(0, 4),
            (ConvMap::Pointwise, ConvKernel::GpuDirect) => {
                pointwise_direct::<T>(gpu, &values, &w, rows, shape, direction, epilogue)
            }
            (ConvMap::Pointwise, _) => {
                pointwise_plain::<T>(gpu, &values, &w, rows, shape, direction, epilogue)
            }
            (ConvMap::Relation(relation), _) => {
                let tiles = forms::tiles(gpu, device, relation.to_host(), direction);
                match kernel {
                    ConvKernel::GpuMma => {
                        let taps = relation.taps() as u32;
                        let plan = MmaPlan::choose(gpu, c_from, c_to);
                        let packed = mma::pack_weights::<T>(gpu, &w, taps, c_from, c_to, plan, direction);
                        mma::conv_mma::<T>(gpu, &values, &packed, &tiles, epilogue)
                    }
                    ConvKernel::GpuPlain => {
                        conv_plain::<T>(gpu, &values, &w, &tiles, shape, direction, epilogue)
                    }
                    _ => conv_direct::<T>(gpu, &values, &w, &tiles, shape, direction, epilogue),
                }
            }
        }
    });
    x.tensor_from(y, [rows, c_to], x.dtype())
}

impl LatticeBackend for CubeBackend {
    fn sparse_conv(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: Operand<Self>,
        map: ConvMap,
        groups: usize,
    ) -> FloatTensor<Self> {
        let operands =
            FusedOperands { bias, scale: Operand::Absent, shift: Operand::Absent, residual: Operand::Absent };
        Self::sparse_conv_fused(x, weight, operands, map, groups, Activation::None)
    }

    fn sparse_conv_fused(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        operands: FusedOperands<Self>,
        map: ConvMap,
        groups: usize,
        activation: Activation,
    ) -> FloatTensor<Self> {
        let (x, weight) = (Rows::new(x), Rows::new(weight));
        let [_, c_in] = x.dims();
        let [_, _, c_out] = weight.dims();
        let epilogue = Epilogue {
            bias: operands.bias.buffer(),
            scale_shift: operands.scale.buffer().zip(operands.shift.buffer()),
            residual: operands.residual.buffer(),
            after: after(activation),
        };
        convolve(&x, &weight, &map, Channels { c_in, c_out, groups }, Direction::Forward, &epilogue)
    }

    fn row_mix(x: FloatTensor<Self>, map: RowMap, fill: f32) -> FloatTensor<Self> {
        let x = Rows::new(x);
        let [_, c] = x.dims();
        let on_device = forms::row_map(&x.gpu, &x.tensor.device, map.to_host());
        let y = with_gpu_float!(x.dtype(), T, rows::mix_rows::<T>(&x.gpu, &x.buffer(), c, &on_device, fill));
        x.tensor_from(y, [map.n_out(), c], x.dtype())
    }

    fn row_max(x: FloatTensor<Self>, map: RowMap) -> FloatTensor<Self> {
        let x = Rows::new(x);
        let [_, c] = x.dims();
        let on_device = forms::row_map(&x.gpu, &x.tensor.device, map.to_host());
        let y = with_gpu_float!(x.dtype(), T, rows::max_rows::<T>(&x.gpu, &x.buffer(), c, &on_device));
        x.tensor_from(y, [map.n_out(), c], x.dtype())
    }

    fn sparse_batch_norm(
        x: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        beta: FloatTensor<Self>,
        residual: Operand<Self>,
        eps: f64,
        activation: Activation,
    ) -> BatchNormOutput<Self> {
        let (x, gamma, beta) = (Rows::new(x), Rows::new(gamma), Rows::new(beta));
        let dims: [usize; 2] = x.dims();
        let residual = residual.buffer();
        let out = with_gpu_float!(x.dtype(), T, {
            let operands = [&gamma.buffer(), &beta.buffer()];
            norm::batch_norm::<T>(
                &x.gpu,
                &x.buffer(),
                dims[1],
                operands,
                residual.as_ref(),
                eps as f32,
                after(activation),
            )
        });
        BatchNormOutput {
            y: x.tensor_from(out.y, dims, x.dtype()),
            mean: x.tensor_from(out.mean, [dims[1]], DType::F32),
            var: x.tensor_from(out.var, [dims[1]], DType::F32),
        }
    }
}

impl LatticeKernels for CubeBackend {
    fn sparse_conv_input_grad(
        grad: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        map: ConvMap,
        groups: usize,
        c_in: usize,
    ) -> FloatTensor<Self> {
        let (grad, weight) = (Rows::new(grad), Rows::new(weight));
        let [_, c_out] = grad.dims();
        convolve(
            &grad,
            &weight,
            &map,
            Channels { c_in, c_out, groups },
            Direction::Backward,
            &Epilogue::none(),
        )
    }

    fn sparse_conv_weight_grad(
        x: FloatTensor<Self>,
        grad: FloatTensor<Self>,
        map: ConvMap,
        groups: usize,
    ) -> FloatTensor<Self> {
        let (x, grad) = (Rows::new(x), Rows::new(grad));
        let ([rows_in, c_in], [_, c_out]) = (x.dims(), grad.dims());
        let shape = ConvShape { c_in, c_out, groups };
        let (gpu, device) = (&x.gpu, &x.tensor.device);
        with_gpu_float!(x.dtype(), T, {
            let (a, b) = (x.buffer(), grad.buffer());
            let (dw, taps) = match &map {
                ConvMap::Pointwise => {
                    (weight_grad::pointwise_weight_grad::<T, T>(gpu, &a, &b, rows_in, shape), 1)
                }
                ConvMap::Relation(relation) => {
                    let pairs = forms::pairs(gpu, device, relation.to_host());
                    (weight_grad::weight_grad::<T, T>(gpu, &a, &b, &pairs, shape), relation.taps())
                }
            };
            x.tensor_from(dw, [taps, c_in / groups, c_out], x.dtype())
        })
    }

    fn row_max_grad(
        x: FloatTensor<Self>,
        y: FloatTensor<Self>,
        grad: FloatTensor<Self>,
        map: RowMap,
    ) -> FloatTensor<Self> {
        let (x, y, grad) = (Rows::new(x), Rows::new(y), Rows::new(grad));
        let [n, c] = x.dims();
        let (gpu, device) = (&x.gpu, &x.tensor.device);
        let there = forms::row_map(gpu, device, map.to_host());
        let back = forms::row_map(gpu, device, &map.to_host().transpose());
        let dx = with_gpu_float!(x.dtype(), T, {
            rows::max_rows_grad::<T>(gpu, [&x.buffer(), &y.buffer(), &grad.buffer()], c, &there, &back)
        });
        x.tensor_from(dx, [n, c], x.dtype())
    }

    fn sparse_batch_norm_grad(
        grad: FloatTensor<Self>,
        x: FloatTensor<Self>,
        tape: BatchNormTape<Self>,
        residual: bool,
    ) -> BatchNormGrads<Self> {
        let (x, grad) = (Rows::new(x), Rows::new(grad));
        let dims: [usize; 2] = x.dims();
        // Without an activation the residual's gradient is the output's, and nothing of `y` is read.
        let passed = (residual && tape.activation == Activation::None).then(|| grad.tensor.clone());
        let gated = residual && passed.is_none();
        let y = tape.y.map_or_else(|| x.buffer(), |y| Rows::new(y).buffer());
        let [mean, var, gamma] = [tape.mean, tape.var, tape.gamma].map(|t| Rows::new(t).buffer());
        let found = with_gpu_float!(x.dtype(), T, {
            norm::batch_norm_grad::<T>(
                &x.gpu,
                [&x.buffer(), &y, &grad.buffer()],
                dims[1],
                [&mean, &var, &gamma],
                tape.eps as f32,
                after(tape.activation),
                gated,
            )
        });
        BatchNormGrads {
            x: x.tensor_from(found.x, dims, x.dtype()),
            gamma: x.tensor_from(found.gamma, [dims[1]], DType::F32),
            beta: x.tensor_from(found.beta, [dims[1]], DType::F32),
            residual: passed.or(found.residual.map(|r| x.tensor_from(r, dims, x.dtype()))),
        }
    }
}

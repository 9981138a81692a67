//! GPU backends: CubeCL tensors handed to `lattice-gpu` as buffers.

use std::any::Any;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, DType, DispatchDevice, TensorMetadata};
use burn::tensor::{Device, Shape, bf16, f16};
use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::tensor::CubeTensor;
use burn_cubecl::{CubeBackend, CubeDevice};
use lattice_core as core;
use lattice_cpu::ConvShape as Channels;
use lattice_gpu::conv::cmma;
use lattice_gpu::conv::direct::{conv_direct, pointwise_direct};
use lattice_gpu::conv::mma::{self, After, Direction, Epilogue, MmaPlan, Multiplied};
use lattice_gpu::conv::plain::{conv_plain, pointwise_plain};
use lattice_gpu::conv::{ConvShape, reverse_taps, weight_grad};
use lattice_gpu::cubecl::ir::{ElemType, FloatKind};
use lattice_gpu::cubecl::prelude::{CubeElement, Float as CubeFloat};
use lattice_gpu::tiles::Tiles;
use lattice_gpu::{Buffer, Gpu, Life, norm, rows};

use super::kept::packed_weight;
use super::{
    Activation, BatchNormGrads, BatchNormOptions, BatchNormOutput, BatchNormTape, ConvMap, FusedOperands,
    LatticeBackend, LatticeKernels, Operand, PackedCall, PackedOperands, RunningOperands,
};
use super::{forms, packed};
use crate::routes::{ConvKernel, ConvProblem, ConvWork, DeviceClass, MatrixUnits, conv_route};
use crate::{Error, Result, RowMap};

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

fn after(activation: Activation) -> After {
    match activation {
        Activation::Relu => After::Relu,
        Activation::LeakyRelu(slope) => After::LeakyRelu(slope.to_bits()),
        _ => After::Nothing,
    }
}

/// The GPU of a device, if it is one.
pub(crate) fn gpu_device(device: &Device) -> Option<CubeDevice> {
    match device.clone().without_autodiff().as_dispatch() {
        DispatchDevice::Cube(device) => Some(device.clone()),
        _ => None,
    }
}

/// What routes ask of a device.
pub(crate) fn device_class(device: &Device) -> DeviceClass {
    gpu_device(device).map_or(DeviceClass::Cpu, |device| known(&device).class)
}

/// What every operation asks of a device.
#[derive(Clone, Copy)]
struct Known {
    class: DeviceClass,
    /// Bytes of the largest buffer.
    longest: u64,
}

/// What is known of a device; asked of the driver once.
fn known(device: &CubeDevice) -> Known {
    static KNOWN: Mutex<Option<HashMap<u64, Known>>> = Mutex::new(None);
    let key = forms::key(device);
    // Entries are inserted whole, so a panic elsewhere leaves the map as it should be.
    let lock = || KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(found) = lock().as_ref().and_then(|known| known.get(&key).copied()) {
        return found;
    }
    let gpu = Gpu::new(device.client());
    gpu.reserve_room();
    let class = DeviceClass::Gpu(MatrixUnits {
        manual: mma::has_matrix_units(&gpu),
        tf32: mma::has_tf32(&gpu),
        bytes: mma::has_byte_units(&gpu),
        f16: cmma::has_fragments(&gpu, ElemType::Float(FloatKind::F16)),
        bf16: cmma::has_fragments(&gpu, ElemType::Float(FloatKind::BF16)),
    });
    let found = Known { class, longest: gpu.client().properties().memory.max_page_size };
    lock().get_or_insert_default().insert(key, found);
    found
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

/// Refuses a result that is larger than a device's largest buffer.
pub(crate) fn check_room(op: &'static str, device: &Device, bytes: u64) -> Result<()> {
    match gpu_device(device).map(|device| known(&device).longest) {
        Some(most) if bytes > most => Err(Error::Limit {
            op,
            what: format!(
                "expected a result of at most {most} bytes, the largest buffer of this device, found {bytes}; split the batch or \
                 take fewer channels"
            ),
        }),
        _ => Ok(()),
    }
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

/// Pairs of a relation; a GPU counts those that nobody listed.
pub(crate) fn n_pairs(device: &Device, relation: &core::Relation) -> usize {
    match gpu_device(device) {
        Some(device) => forms::n_pairs(&Gpu::new(device.client()), &device, relation),
        None => relation.n_pairs(),
    }
}

/// What a convolution over a relation stages and computes there, besides what it must.
pub(crate) fn conv_work(device: &Device, relation: &core::Relation) -> Option<ConvWork> {
    let device = gpu_device(device)?;
    let gpu = Gpu::new(device.client());
    let found = forms::tiles(&gpu, &device, relation, Direction::Forward).report();
    Some(ConvWork {
        tiles: found.tiles,
        phases: found.phases,
        staged_rows: found.staged_rows,
        computed: found.computed,
        table_bytes: found.bytes,
    })
}

/// Bytes and operations a second that a device reaches at best.
pub(crate) fn peaks(device: &Device, dtype: DType) -> Option<[f64; 2]> {
    let gpu = Gpu::new(gpu_device(device)?.client());
    let element = match dtype {
        DType::F16 => FloatKind::F16,
        DType::BF16 => FloatKind::BF16,
        _ => FloatKind::F32,
    };
    Some(gpu.peaks(element))
}

/// Whether the weights of a convolution stay as they are.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Weights {
    /// At inference: what is derived from them is kept.
    Fixed,
    /// In training.
    Changing,
}

/// Sums of a convolution or of its input gradient by the route of the table.
fn convolve(
    x: &Rows,
    weight: &Rows,
    map: &ConvMap,
    channels: Channels,
    direction: Direction,
    epilogue: &Epilogue,
    weights: Weights,
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
        device: known(device).class,
    };
    let kernel = conv_route(&problem).kernel();
    let (values, w) = (x.buffer(), weight.buffer());
    let y = with_gpu_float!(x.dtype(), T, {
        match (map, kernel) {
            _ if rows * c_to == 0 => gpu.empty(0, 4),
            (ConvMap::Pointwise, ConvKernel::GpuDirect) => {
                pointwise_direct::<T>(gpu, &values, &w, rows, shape, direction, epilogue)
            }
            (ConvMap::Pointwise, ConvKernel::GpuMma | ConvKernel::GpuCmma) => {
                let tiles = forms::identity_tiles(gpu, device, rows);
                let units = OnMatrixUnits { kernel, tiles: &tiles, direction, mirrored: false, weights };
                units.run::<T>([&values, &w], [c_from, c_to], epilogue)
            }
            (ConvMap::Pointwise, _) => {
                pointwise_plain::<T>(gpu, &values, &w, rows, shape, direction, epilogue)
            }
            (ConvMap::Relation(relation), _) => {
                let tiles = forms::tiles(gpu, device, relation.to_host(), direction);
                // Tiles of the forward direction serve both where a relation is its own mirror image, with the taps in reverse.
                let mirrored = direction == Direction::Backward && relation.to_host().is_symmetric();
                match kernel {
                    ConvKernel::GpuMma | ConvKernel::GpuCmma => {
                        let units = OnMatrixUnits { kernel, tiles: &tiles, direction, mirrored, weights };
                        units.run::<T>([&values, &w], [c_from, c_to], epilogue)
                    }
                    other => {
                        let w = if mirrored { reverse_taps::<T>(gpu, &w, relation.taps()) } else { w };
                        match other {
                            ConvKernel::GpuPlain => {
                                conv_plain::<T>(gpu, &values, &w, &tiles, shape, direction, epilogue)
                            }
                            _ => conv_direct::<T>(gpu, &values, &w, &tiles, shape, direction, epilogue),
                        }
                    }
                }
            }
        }
    });
    x.tensor_from(y, [rows, c_to], x.dtype())
}

/// A convolution over tiles by matrix units.
struct OnMatrixUnits<'a> {
    kernel: ConvKernel,
    tiles: &'a Tiles,
    direction: Direction,
    /// Whether the tiles are those of the other direction.
    mirrored: bool,
    weights: Weights,
}

impl OnMatrixUnits<'_> {
    fn run<T: CubeFloat + CubeElement + Multiplied>(
        &self,
        [x, weight]: [&Buffer; 2],
        [c_from, c_to]: [usize; 2],
        epilogue: &Epilogue,
    ) -> Buffer {
        let Self { tiles, direction, mirrored, .. } = *self;
        let (gpu, taps) = (tiles.gpu(), tiles.taps());
        let (shape, life) = ([taps as usize, c_from, c_to], self.life());
        if self.kernel == ConvKernel::GpuCmma {
            let pack =
                || cmma::pack_fragments::<T>(gpu, weight, taps, [c_from, c_to], (direction, mirrored), life);
            let packed = self.packed(weight, shape, None, pack);
            return cmma::conv_cmma::<T>(gpu, x, &packed, tiles, epilogue);
        }
        let plan = MmaPlan::fitted(gpu, c_from * T::HALVES, c_to, taps, tiles.n_tiles());
        let pack = || match mirrored {
            true => mma::pack_weights_mirrored::<T>(gpu, weight, taps, [c_from, c_to], plan, life),
            false => mma::pack_weights::<T>(gpu, weight, taps, [c_from, c_to], plan, direction, life),
        };
        let packed = self.packed(weight, shape, Some(plan.packing()), pack);
        mma::conv_mma::<T>(gpu, x, &packed, plan, tiles, epilogue)
    }

    /// Packed weights, kept where they are [`Life::Apart`].
    fn packed<P: Any + Send + Sync>(
        &self,
        weight: &Buffer,
        shape: [usize; 3],
        plan: Option<MmaPlan>,
        pack: impl FnOnce() -> P,
    ) -> Arc<P> {
        match self.life() {
            Life::Apart => packed_weight(weight, shape, plan, pack),
            _ => Arc::new(pack()),
        }
    }

    /// How long packed weights live.
    fn life(&self) -> Life {
        match (self.weights, self.direction) {
            (Weights::Fixed, Direction::Forward) => Life::Apart,
            _ => Life::Passing,
        }
    }
}

/// What follows a convolution in its pass.
pub(super) fn epilogue_of(operands: FusedOperands<CubeBackend>, activation: Activation) -> Epilogue {
    Epilogue {
        bias: operands.bias.buffer(),
        scale_shift: operands.scale.buffer().zip(operands.shift.buffer()),
        residual: operands.residual.buffer(),
        after: after(activation),
    }
}

/// A convolution with everything that follows in its pass.
pub(super) fn fused(
    x: CubeTensor,
    weight: CubeTensor,
    operands: FusedOperands<CubeBackend>,
    map: &ConvMap,
    groups: usize,
    activation: Activation,
    weights: Weights,
) -> CubeTensor {
    let (x, weight) = (Rows::new(x), Rows::new(weight));
    let [_, c_in] = x.dims();
    let [_, _, c_out] = weight.dims();
    let epilogue = epilogue_of(operands, activation);
    let channels = Channels { c_in, c_out, groups };
    convolve(&x, &weight, map, channels, Direction::Forward, &epilogue, weights)
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
        fused(x, weight, operands, &map, groups, Activation::None, Weights::Changing)
    }

    fn sparse_conv_fused(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        operands: FusedOperands<Self>,
        map: ConvMap,
        groups: usize,
        activation: Activation,
    ) -> FloatTensor<Self> {
        fused(x, weight, operands, &map, groups, activation, Weights::Fixed)
    }

    fn packed_conv(
        x: FloatTensor<Self>,
        weight: PackedOperands<Self>,
        operands: FusedOperands<Self>,
        map: ConvMap,
        call: PackedCall,
    ) -> FloatTensor<Self> {
        packed::packed_conv(x, weight, operands, &map, call)
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
        running: RunningOperands<Self>,
        BatchNormOptions { eps, activation, momentum, unbiased, group }: BatchNormOptions,
    ) -> BatchNormOutput<Self> {
        let (x, gamma, beta) = (Rows::new(x), Rows::new(gamma), Rows::new(beta));
        let dims: [usize; 2] = x.dims();
        let residual = residual.buffer();
        let running = match (running.mean.buffer(), running.var.buffer()) {
            (Some(mean), Some(var)) => Some(norm::Running { mean, var, momentum, unbiased }),
            _ => None,
        };
        let with = norm::BatchNormWith {
            residual: residual.as_ref(),
            running: running.as_ref(),
            eps: eps as f32,
            after: after(activation),
        };
        let (values, gamma, beta) = (x.buffer(), gamma.buffer(), beta.buffer());
        let (out, count) = with_gpu_float!(x.dtype(), T, {
            match &group {
                None => (norm::batch_norm::<T>(&x.gpu, &values, dims[1], [&gamma, &beta], with), None),
                Some(group) => {
                    let sum = |from: &Buffer, onto: Buffer| group.sum_buffer(&x.gpu, from, onto);
                    let sharing = norm::Sharing { rank: group.rank(), ranks: group.ranks(), sum: &sum };
                    let vectors = [&gamma, &beta];
                    let (out, count) =
                        norm::batch_norm_shared::<T>(&x.gpu, &values, dims[1], vectors, with, sharing);
                    (out, Some(count))
                }
            }
        });
        let channels = |buffer: Buffer| x.tensor_from(buffer, [dims[1]], DType::F32);
        let [moved_mean, moved_var] = out.moved.map(channels);
        BatchNormOutput {
            y: x.tensor_from(out.y, dims, x.dtype()),
            mean: channels(out.mean),
            var: channels(out.var),
            moved_mean,
            moved_var,
            count: match count {
                Some(count) => Operand::Given(x.tensor_from(count, [1], DType::F32)),
                None => Operand::Absent,
            },
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
            Weights::Changing,
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
        let (values, grads) = (x.buffer(), grad.buffer());
        let from = norm::BatchNormTape {
            rows: [&values, &y, &grads],
            channels: [&mean, &var, &gamma],
            eps: tape.eps as f32,
            after: after(tape.activation),
            residual: gated,
        };
        let found = with_gpu_float!(x.dtype(), T, {
            match tape.shared {
                None => norm::batch_norm_grad::<T>(&x.gpu, dims[1], from),
                Some((group, count)) => {
                    let count = Rows::new(count).buffer();
                    let sum = |from: &Buffer, onto: Buffer| group.sum_buffer(&x.gpu, from, onto);
                    let sharing = norm::Sharing { rank: group.rank(), ranks: group.ranks(), sum: &sum };
                    norm::batch_norm_shared_grad::<T>(&x.gpu, dims[1], from, &count, sharing)
                }
            }
        });
        BatchNormGrads {
            x: x.tensor_from(found.x, dims, x.dtype()),
            gamma: x.tensor_from(found.gamma, [dims[1]], DType::F32),
            beta: x.tensor_from(found.beta, [dims[1]], DType::F32),
            residual: passed.or(found.residual.map(|r| x.tensor_from(r, dims, x.dtype()))),
        }
    }
}

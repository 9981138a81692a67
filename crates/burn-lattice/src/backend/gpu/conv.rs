//! Convolutions by the routes of the table.

use std::any::Any;
use std::sync::Arc;

use burn::backend::DType;
use burn::tensor::{bf16, f16};
use burn_cubecl::CubeBackend;
use burn_cubecl::tensor::CubeTensor;
use lattice_cpu::ConvShape as Channels;
use lattice_gpu::conv::cmma;
use lattice_gpu::conv::direct::{conv_direct, pointwise_direct};
use lattice_gpu::conv::mma::{self, After, Direction, Epilogue, MmaPlan, Multiplied};
use lattice_gpu::conv::plain::{conv_plain, pointwise_plain};
use lattice_gpu::conv::{ConvShape, reverse_taps};
use lattice_gpu::cubecl::prelude::{CubeElement, Float as CubeFloat};
use lattice_gpu::tiles::Tiles;
use lattice_gpu::{Buffer, Life};

use super::device::known;
use super::forms;
use super::kept::{can_be_kept, packed_weight};
use super::rows::{Rows, with_gpu_float};
use crate::backend::{Activation, ConvMap, FusedOperands};
use crate::routes::{ConvKernel, ConvProblem, conv_route};
use crate::trace;

/// Whether the weights of a convolution stay as they are.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Weights {
    /// At inference: what is derived from them is kept.
    Fixed,
    /// In training.
    Changing,
}

/// A tensor's elements without room between their rows: its own memory where it has none.
fn contiguous(tensor: &CubeTensor) -> Buffer {
    Rows::new(tensor.clone()).buffer()
}

/// Sums of a convolution or of its input gradient by the route of the table.
pub(super) fn convolve(
    x: &Rows,
    weight: &CubeTensor,
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
    let values = x.buffer();
    // Kept forms are known by the weight as it lies, so that one whose rows have room between them is not copied for each call.
    let w = || contiguous(weight);
    let y = with_gpu_float!(x.dtype(), T, {
        match (map, kernel) {
            _ if rows * c_to == 0 => gpu.empty(0, 4),
            (ConvMap::Pointwise, ConvKernel::GpuDirect) => {
                pointwise_direct::<T>(gpu, &values, &w(), rows, shape, direction, epilogue)
            }
            (ConvMap::Pointwise, ConvKernel::GpuMma | ConvKernel::GpuCmma) => {
                let tiles = forms::identity_tiles(gpu, device, rows);
                let units = OnMatrixUnits { kernel, tiles: &tiles, direction, mirrored: false, weights };
                units.run::<T>(&values, weight, [c_from, c_to], epilogue)
            }
            (ConvMap::Pointwise, _) => {
                pointwise_plain::<T>(gpu, &values, &w(), rows, shape, direction, epilogue)
            }
            (ConvMap::Relation(relation), _) => {
                let tiles = forms::tiles(gpu, device, relation.to_host(), direction);
                // Tiles of the forward direction serve both where a relation is its own mirror image, with the taps in reverse.
                let mirrored = direction == Direction::Backward && relation.to_host().is_symmetric();
                match kernel {
                    ConvKernel::GpuMma | ConvKernel::GpuCmma => {
                        let units = OnMatrixUnits { kernel, tiles: &tiles, direction, mirrored, weights };
                        units.run::<T>(&values, weight, [c_from, c_to], epilogue)
                    }
                    other => {
                        let w = if mirrored { reverse_taps::<T>(gpu, &w(), relation.taps()) } else { w() };
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
        x: &Buffer,
        weight: &CubeTensor,
        [c_from, c_to]: [usize; 2],
        epilogue: &Epilogue,
    ) -> Buffer {
        let Self { tiles, direction, mirrored, .. } = *self;
        let (gpu, taps) = (tiles.gpu(), tiles.taps());
        let (shape, life) = ([taps as usize, c_from, c_to], self.life(weight));
        if self.kernel == ConvKernel::GpuCmma {
            let (channels, order) = ([c_from, c_to], (direction, mirrored));
            let plan = cmma::CmmaPlan::choose(c_from, c_to);
            let pack =
                || cmma::pack_fragments::<T>(gpu, &contiguous(weight), taps, channels, plan, order, life);
            let packed = self.packed(life, weight, shape, None, pack);
            return cmma::conv_cmma::<T>(gpu, x, &packed, tiles, epilogue);
        }
        let plan = MmaPlan::fitted(gpu, c_from * T::HALVES, c_to, taps, tiles.n_tiles());
        let pack = || match mirrored {
            true => {
                mma::pack_weights_mirrored::<T>(gpu, &contiguous(weight), taps, [c_from, c_to], plan, life)
            }
            false => {
                mma::pack_weights::<T>(gpu, &contiguous(weight), taps, [c_from, c_to], plan, direction, life)
            }
        };
        let packed = self.packed(life, weight, shape, Some(plan.packing()), pack);
        mma::conv_mma::<T>(gpu, x, &packed, plan, tiles, epilogue)
    }

    /// Packed weights of a life, kept where they are [`Life::Apart`].
    fn packed<P: Any + Send + Sync>(
        &self,
        life: Life,
        weight: &CubeTensor,
        shape: [usize; 3],
        plan: Option<MmaPlan>,
        pack: impl FnOnce() -> P,
    ) -> Arc<P> {
        match life {
            Life::Apart => packed_weight(weight, shape, plan, pack),
            _ => {
                trace::count_derived_form();
                Arc::new(pack())
            }
        }
    }

    /// How long packed weights live.
    fn life(&self, weight: &CubeTensor) -> Life {
        match (self.weights, self.direction) {
            (Weights::Fixed, Direction::Forward) if can_be_kept(weight) => Life::Apart,
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
    let x = Rows::new(x);
    let [_, c_in] = x.dims();
    let c_out = weight.meta.shape()[2];
    let epilogue = epilogue_of(operands, activation);
    let channels = Channels { c_in, c_out, groups };
    convolve(&x, &weight, map, channels, Direction::Forward, &epilogue, weights)
}

pub(super) fn after(activation: Activation) -> After {
    match activation {
        Activation::Relu => After::Relu,
        Activation::LeakyRelu(slope) => After::LeakyRelu(slope.to_bits()),
        _ => After::Nothing,
    }
}

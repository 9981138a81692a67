//! The operations of a backend, on GPUs.

use burn::backend::DType;
use burn::backend::tensor::FloatTensor;
use burn::tensor::{bf16, f16};
use burn_cubecl::CubeBackend;
use lattice_cpu::ConvShape as Channels;
use lattice_gpu::conv::mma::{Direction, Epilogue};
use lattice_gpu::conv::{ConvShape, weight_grad};
use lattice_gpu::{Buffer, norm, rows};

use super::conv::{Weights, after, convolve, fused};
use super::rows::{Rows, with_gpu_float};
use super::{forms, packed};
use crate::RowMap;
use crate::backend::{
    Activation, BatchNormGrads, BatchNormOptions, BatchNormOutput, BatchNormTape, ConvMap, FusedOperands,
    LatticeBackend, LatticeKernels, Operand, PackedCall, PackedOperands, RunningOperands,
};

impl LatticeBackend for CubeBackend {
    fn sparse_conv(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: Operand<Self>,
        map: ConvMap,
        groups: usize,
    ) -> FloatTensor<Self> {
        let operands = FusedOperands::bias_alone(bias);
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
        let grad = Rows::new(grad);
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

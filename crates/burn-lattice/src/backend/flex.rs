//! The CPU backend: Flex tensors handed to `lattice-cpu` as slices.

use burn::backend::tensor::FloatTensor;
use burn::backend::{DType, Flex, TensorMetadata};
use burn::tensor::{Element, TensorData, bf16, f16};
use lattice_cpu::{
    Acc, ActivationCodes, BatchNormShape, ConvShape, Epilogue, Moments, PackedTaps, PatchRun, Scalar,
};

use super::{
    Activation, BatchNormGrads, BatchNormOptions, BatchNormOutput, BatchNormTape, ConvMap, FusedOperands,
    LatticeBackend, LatticeKernels, Operand, PackedCall, PackedOperands, RunningOperands,
};
use crate::group::or_unwind;
use crate::routes::{ConvProblem, DeviceClass, conv_route};
use crate::{Group, RowMap};

/// Runs `$body` with `$T` bound to the element type of `$dtype`.
macro_rules! with_float {
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
            DType::F64 => {
                type $T = f64;
                $body
            }
            // Every public operation checks its dtypes before it dispatches.
            other => panic!("features must be f64, f32, f16 or bf16, found {other:?}"),
        }
    };
}

/// The elements of a tensor in row-major order, copied only where its layout is not.
struct Rows(FloatTensor<Flex>);

impl Rows {
    fn new(tensor: FloatTensor<Flex>) -> Self {
        if tensor.is_contiguous() { Self(tensor) } else { Self(tensor.to_contiguous()) }
    }

    fn get<T: Element + bytemuck::Pod>(&self) -> &[T] {
        self.0.as_slice::<T>().expect("`Rows` is contiguous and its callers match on its dtype")
    }
}

impl Operand<Flex> {
    fn rows(self) -> Option<Rows> {
        match self {
            Self::Given(tensor) => Some(Rows::new(tensor)),
            Self::Absent => None,
        }
    }
}

fn tensor_from<T: Element + bytemuck::Pod>(values: Vec<T>, shape: &[usize]) -> FloatTensor<Flex> {
    FloatTensor::<Flex>::from_data(TensorData::new(values, shape.to_vec()))
}

/// Values of every channel in the type of sums.
fn channels<A: Acc + Element + bytemuck::Pod>(values: &[f64]) -> FloatTensor<Flex> {
    tensor_from::<A>(values.iter().map(|&v| A::from_f64(v)).collect(), &[values.len()])
}

fn zeros<T: bytemuck::Zeroable + Clone>(len: usize) -> Vec<T> {
    vec![T::zeroed(); len]
}

/// Sizes of one convolution call.
fn problem(dtype: DType, rows: usize, shape: ConvShape, map: &ConvMap) -> ConvProblem {
    let pointwise = matches!(map, ConvMap::Pointwise);
    ConvProblem { dtype, rows, shape, pointwise, device: DeviceClass::Cpu }
}

/// [`lattice_cpu::gelu`] of f32 values.
pub(crate) fn gelu_on_cpu(x: FloatTensor<Flex>) -> FloatTensor<Flex> {
    let x = Rows::new(x);
    let values = x.get::<f32>();
    let mut out = zeros::<f32>(values.len());
    lattice_cpu::gelu(values, &mut out);
    tensor_from(out, &x.0.shape())
}

/// Attention within patches on f32 rows `[n, 3 c]`.
pub(crate) fn attend_on_cpu(qkv: FloatTensor<Flex>, runs: &[PatchRun], heads: usize) -> FloatTensor<Flex> {
    let qkv = Rows::new(qkv);
    let [n, c] = [qkv.0.shape()[0], qkv.0.shape()[1] / 3];
    let mut out = zeros::<f32>(n * c);
    lattice_cpu::patch_attention(qkv.get::<f32>(), runs, c, heads, &mut out);
    tensor_from(out, &[n, c])
}

fn convolve<T: Scalar + Element + bytemuck::Pod>(
    x: &Rows,
    weight: &Rows,
    map: &ConvMap,
    shape: ConvShape,
    epilogue: &Epilogue<'_, T>,
) -> FloatTensor<Flex> {
    let rows_in = x.0.shape()[0];
    let rows = match map {
        ConvMap::Pointwise => rows_in,
        ConvMap::Relation(relation) => relation.n_out(),
    };
    let mut out = zeros::<T>(rows * shape.c_out);
    let route = conv_route(&problem(x.0.dtype(), rows, shape, map));
    route.run(x.get::<T>(), weight.get::<T>(), map, shape, epilogue, &mut out);
    tensor_from(out, &[rows, shape.c_out])
}

/// A convolution with packed weights; with activations as one of bytes.
fn packed<T: Scalar<Acc = f32> + Element + bytemuck::Pod>(
    x: FloatTensor<Flex>,
    weight: PackedOperands<Flex>,
    operands: FusedOperands<Flex>,
    map: &ConvMap,
    call: PackedCall,
) -> FloatTensor<Flex> {
    match weight.scales.dtype() {
        DType::F16 => packed_scaled::<T, f16>(x, weight, operands, map, call),
        _ => packed_scaled::<T, f32>(x, weight, operands, map, call),
    }
}

fn packed_scaled<T, S>(
    x: FloatTensor<Flex>,
    weight: PackedOperands<Flex>,
    operands: FusedOperands<Flex>,
    map: &ConvMap,
    call: PackedCall,
) -> FloatTensor<Flex>
where
    T: Scalar<Acc = f32> + Element + bytemuck::Pod,
    S: Scalar<Acc = f32> + Element + bytemuck::Pod,
{
    let rows_in = x.shape()[0];
    let shape = ConvShape { c_in: x.shape()[1], c_out: call.weight.c_out(), groups: call.groups };
    let [x, words, scales, biases] = [x, weight.words, weight.scales, weight.biases].map(Rows::new);
    let [bias, scale, shift, residual, activations] =
        [operands.bias, operands.scale, operands.shift, operands.residual, weight.activations]
            .map(Operand::rows);
    let epilogue = Epilogue::<T> {
        bias: bias.as_ref().map(Rows::get),
        scale_shift: scale.as_ref().zip(shift.as_ref()).map(|(a, b)| (a.get(), b.get())),
        residual: residual.as_ref().map(Rows::get),
        activation: call.activation,
    };
    let (rows, relation) = match map {
        ConvMap::Pointwise => (rows_in, None),
        ConvMap::Relation(relation) => (relation.n_out(), Some(relation.to_host())),
    };
    let mut out = zeros::<T>(rows * shape.c_out);
    let weight = PackedTaps::new(call.weight, words.get(), scales.get::<S>(), biases.get::<S>());
    match activations {
        None => lattice_cpu::conv_packed(x.get::<T>(), &weight, relation, shape, &epilogue, &mut out),
        Some(values) => {
            let (steps, zeros) = values.get::<f32>().split_at(shape.c_in);
            let zeros: Vec<u8> = zeros.iter().map(|&z| z as u8).collect();
            let codes = ActivationCodes::new(steps, &zeros);
            lattice_cpu::conv_int8(x.get::<T>(), &codes, &weight, relation, shape, &epilogue, &mut out);
        }
    }
    tensor_from(out, &[rows, shape.c_out])
}

impl LatticeBackend for Flex {
    fn sparse_conv(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: Operand<Self>,
        map: ConvMap,
        groups: usize,
    ) -> FloatTensor<Self> {
        let operands = FusedOperands::bias_alone(bias);
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
        let dtype = x.dtype();
        let shape = ConvShape { c_in: x.shape()[1], c_out: weight.shape()[2], groups };
        let (x, weight) = (Rows::new(x), Rows::new(weight));
        let bias = operands.bias.rows();
        let scale = operands.scale.rows();
        let shift = operands.shift.rows();
        let residual = operands.residual.rows();
        with_float!(dtype, T, {
            let epilogue = Epilogue::<T> {
                bias: bias.as_ref().map(Rows::get),
                scale_shift: scale.as_ref().zip(shift.as_ref()).map(|(a, b)| (a.get(), b.get())),
                residual: residual.as_ref().map(Rows::get),
                activation,
            };
            convolve::<T>(&x, &weight, &map, shape, &epilogue)
        })
    }

    fn packed_conv(
        x: FloatTensor<Self>,
        weight: PackedOperands<Self>,
        operands: FusedOperands<Self>,
        map: ConvMap,
        call: PackedCall,
    ) -> FloatTensor<Self> {
        match x.dtype() {
            DType::F32 => packed::<f32>(x, weight, operands, &map, call),
            DType::F16 => packed::<f16>(x, weight, operands, &map, call),
            DType::BF16 => packed::<bf16>(x, weight, operands, &map, call),
            // The route table leaves f64 to the float routes.
            other => panic!("packed_conv: features must be f32, f16 or bf16, found {other:?}"),
        }
    }

    fn row_mix(x: FloatTensor<Self>, map: RowMap, fill: f32) -> FloatTensor<Self> {
        let channels = x.shape()[1];
        let x = Rows::new(x);
        with_float!(x.0.dtype(), T, {
            let mut out = zeros::<T>(map.n_out() * channels);
            lattice_cpu::row_mix(x.get::<T>(), channels, map.to_host(), fill, &mut out);
            tensor_from(out, &[map.n_out(), channels])
        })
    }

    fn row_max(x: FloatTensor<Self>, map: RowMap) -> FloatTensor<Self> {
        let channels = x.shape()[1];
        let x = Rows::new(x);
        with_float!(x.0.dtype(), T, {
            let mut out = zeros::<T>(map.n_out() * channels);
            lattice_cpu::segment_max(x.get::<T>(), channels, map.to_host(), &mut out);
            tensor_from(out, &[map.n_out(), channels])
        })
    }

    fn sparse_batch_norm(
        x: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        beta: FloatTensor<Self>,
        residual: Operand<Self>,
        running: RunningOperands<Self>,
        BatchNormOptions { eps, activation, momentum, unbiased, group }: BatchNormOptions,
    ) -> BatchNormOutput<Self> {
        let [n, c] = [x.shape()[0], x.shape()[1]];
        let (x, gamma, beta) = (Rows::new(x), Rows::new(gamma), Rows::new(beta));
        let residual = residual.rows();
        with_float!(x.0.dtype(), T, {
            type Sum = <T as Scalar>::Acc;
            let shape =
                BatchNormShape { gamma: gamma.get::<Sum>(), beta: beta.get::<Sum>(), eps, activation };
            let mut y = zeros::<T>(n * c);
            let residual = residual.as_ref().map(Rows::get::<T>);
            let found = lattice_cpu::channel_moments(x.get::<T>(), c);
            let (rows, moments) = match &group {
                None => (n as f64, found),
                Some(group) => shared_moments(group, n, found),
            };
            lattice_cpu::batch_norm_apply(x.get::<T>(), &moments, shape, residual, &mut y);
            let unbias = if unbiased && rows > 1.0 { rows / (rows - 1.0) } else { 1.0 };
            // Without rows nothing was found, so nothing moves.
            let momentum = if rows > 0.0 { momentum } else { 0.0 };
            let moved = |old: Operand<Self>, found: &[f64], factor: f64| match old.rows() {
                Some(old) => {
                    let blend = |(&old, &found): (&Sum, &f64)| {
                        old.to_f64() * (1.0 - momentum) + found * factor * momentum
                    };
                    channels::<Sum>(&old.get::<Sum>().iter().zip(found).map(blend).collect::<Vec<f64>>())
                }
                None => channels::<Sum>(found),
            };
            BatchNormOutput {
                y: tensor_from(y, &[n, c]),
                moved_mean: moved(running.mean, &moments.mean, 1.0),
                moved_var: moved(running.var, &moments.variance, unbias),
                mean: channels::<Sum>(&moments.mean),
                var: channels::<Sum>(&moments.variance),
                count: match group {
                    Some(_) => Operand::Given(channels::<Sum>(&[rows])),
                    None => Operand::Absent,
                },
            }
        })
    }
}

/// Rows and moments of the batch that ranks share, from those of this rank's rows.
fn shared_moments(group: &Group, rows: usize, found: Moments) -> (f64, Moments) {
    let c = found.mean.len();
    let own: Vec<f64> = [rows as f64].into_iter().chain(found.mean).chain(found.variance).collect();
    let given = or_unwind(group.exchange(&own));
    let part = |values: &Vec<f64>| {
        let (mean, variance) = values[1..].split_at(c);
        (values[0], Moments { mean: mean.to_vec(), variance: variance.to_vec() })
    };
    Moments::merged(&given.iter().map(part).collect::<Vec<_>>())
}

/// Sums of a batch that ranks share, from those of this rank's rows.
fn shared_sums(group: &Group, own: &lattice_cpu::BatchNormGrads) -> lattice_cpu::BatchNormGrads {
    let c = own.gamma.len();
    let sums = or_unwind(group.add(&[&own.gamma[..], &own.beta].concat()));
    lattice_cpu::BatchNormGrads { gamma: sums[..c].to_vec(), beta: sums[c..].to_vec() }
}

impl LatticeKernels for Flex {
    fn sparse_conv_input_grad(
        grad: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        map: ConvMap,
        groups: usize,
        c_in: usize,
    ) -> FloatTensor<Self> {
        let shape = ConvShape { c_in, c_out: grad.shape()[1], groups };
        let rows_out = grad.shape()[0];
        let (grad, weight) = (Rows::new(grad), Rows::new(weight));
        with_float!(grad.0.dtype(), T, {
            let (g, w) = (grad.get::<T>(), weight.get::<T>());
            match &map {
                ConvMap::Pointwise => {
                    let mut dx = zeros::<T>(rows_out * c_in);
                    lattice_cpu::pointwise_input_grad(g, w, shape, &mut dx);
                    tensor_from(dx, &[rows_out, c_in])
                }
                ConvMap::Relation(relation) => {
                    let mut dx = zeros::<T>(relation.n_in() * c_in);
                    lattice_cpu::conv_input_grad(g, w, relation.to_host(), shape, &mut dx);
                    tensor_from(dx, &[relation.n_in(), c_in])
                }
            }
        })
    }

    fn sparse_conv_weight_grad(
        x: FloatTensor<Self>,
        grad: FloatTensor<Self>,
        map: ConvMap,
        groups: usize,
    ) -> FloatTensor<Self> {
        let shape = ConvShape { c_in: x.shape()[1], c_out: grad.shape()[1], groups };
        let (x, grad) = (Rows::new(x), Rows::new(grad));
        let taps = match &map {
            ConvMap::Pointwise => 1,
            ConvMap::Relation(relation) => relation.taps(),
        };
        with_float!(x.0.dtype(), T, {
            let (values, g) = (x.get::<T>(), grad.get::<T>());
            let mut dw = zeros::<T>(taps * (shape.c_in / groups) * shape.c_out);
            match &map {
                ConvMap::Pointwise => lattice_cpu::pointwise_weight_grad(values, g, shape, &mut dw),
                ConvMap::Relation(relation) => {
                    lattice_cpu::conv_weight_grad(values, g, relation.to_host(), shape, &mut dw);
                }
            }
            tensor_from(dw, &[taps, shape.c_in / groups, shape.c_out])
        })
    }

    fn row_max_grad(
        x: FloatTensor<Self>,
        y: FloatTensor<Self>,
        grad: FloatTensor<Self>,
        map: RowMap,
    ) -> FloatTensor<Self> {
        let channels = x.shape()[1];
        let (x, y, grad) = (Rows::new(x), Rows::new(y), Rows::new(grad));
        with_float!(x.0.dtype(), T, {
            let mut dx = zeros::<T>(map.n_in() * channels);
            lattice_cpu::segment_max_grad(
                x.get::<T>(),
                y.get(),
                grad.get(),
                channels,
                map.to_host(),
                &mut dx,
            );
            tensor_from(dx, &[map.n_in(), channels])
        })
    }

    fn sparse_batch_norm_grad(
        grad: FloatTensor<Self>,
        x: FloatTensor<Self>,
        tape: BatchNormTape<Self>,
        residual: bool,
    ) -> BatchNormGrads<Self> {
        let BatchNormTape { y, mean, var, gamma, eps, activation, shared } = tape;
        let [n, c] = [x.shape()[0], x.shape()[1]];
        // Without an activation the residual's gradient is the output's.
        let passed = (residual && activation == Activation::None).then(|| grad.clone());
        let gated = residual && passed.is_none();
        let (grad, x, y) = (Rows::new(grad), Rows::new(x), y.map(Rows::new));
        let (mean, var, gamma) = (Rows::new(mean), Rows::new(var), Rows::new(gamma));
        with_float!(x.0.dtype(), T, {
            type Sum = <T as Scalar>::Acc;
            let shape = BatchNormShape { gamma: gamma.get::<Sum>(), beta: gamma.get(), eps, activation };
            let tape = lattice_cpu::BatchNormTape::<T> {
                x: x.get(),
                y: y.as_ref().map(Rows::get),
                mean: mean.get(),
                var: var.get(),
            };
            let mut dx = zeros::<T>(n * c);
            let mut d_residual = gated.then(|| zeros::<T>(n * c));
            let found = lattice_cpu::batch_norm_sums(grad.get(), tape, shape);
            let (all, rows) = match &shared {
                None => (found.clone(), n as f64),
                Some((group, count)) => {
                    let rows = Rows::new(count.clone()).get::<Sum>()[0].to_f64();
                    (shared_sums(group, &found), rows)
                }
            };
            let spread = lattice_cpu::Spread { sums: &all, rows };
            lattice_cpu::batch_norm_spread(
                grad.get(),
                tape,
                shape,
                spread,
                &mut dx,
                d_residual.as_deref_mut(),
            );
            BatchNormGrads {
                x: tensor_from(dx, &[n, c]),
                gamma: channels::<Sum>(&found.gamma),
                beta: channels::<Sum>(&found.beta),
                residual: passed.or(d_residual.map(|d| tensor_from(d, &[n, c]))),
            }
        })
    }
}

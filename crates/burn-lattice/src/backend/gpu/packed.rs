//! Convolutions with packed weights on a GPU. For matrix units codes are put into the order of the kernel once, 4 or 8 bits each as they are
//! stored, and kept while the weight lives.

use burn::backend::DType;
use burn::tensor::{bf16, f16};
use burn_cubecl::CubeBackend;
use burn_cubecl::tensor::CubeTensor;
use lattice_gpu::Life;
use lattice_gpu::conv::dequantize;
use lattice_gpu::conv::mma::{
    Direction, MmaPlan, StoredCodes, conv_bytes, conv_codes, conv_mma, expand_codes, pack_bytes, pack_codes,
};

use super::conv::{Weights, epilogue_of, fused};
use super::forms;
use super::kept::ordered_codes;
use super::rows::{Rows, with_gpu_float};
use crate::backend::{ConvMap, FusedOperands, Operand, PackedCall, PackedOperands};
use crate::routes::PackedKernel;

/// `sparse_conv_fused` with a packed weight: products of bytes where activations are given, else of unpacked codes.
///
/// # Panics
/// For features that the route table does not send here.
pub(super) fn packed_conv(
    x: CubeTensor,
    weight: PackedOperands<CubeBackend>,
    operands: FusedOperands<CubeBackend>,
    map: &ConvMap,
    call: PackedCall,
) -> CubeTensor {
    let x = Rows::new(x);
    let (gpu, device) = (&x.gpu, &x.tensor.device);
    let [rows_in, c_in] = x.dims();
    let (rows, taps) = match map {
        ConvMap::Pointwise => (rows_in, 1),
        ConvMap::Relation(relation) => (relation.n_out(), relation.taps()),
    };
    let c_out = call.weight.c_out();
    let dtype = x.dtype();
    if rows * c_out == 0 {
        return x.tensor_from(gpu.empty(0, 4), [rows, c_out], dtype);
    }
    let [words, scales, biases] = [weight.words, weight.scales, weight.biases];
    let stored = || stored([&words, &scales, &biases].map(CubeTensor::clone), call);
    if call.kernel == PackedKernel::Dequantize {
        let stored = stored();
        let dims = [taps, call.weight.c_in(), c_out];
        let values = with_gpu_float!(dtype, T, dequantize::<T>(gpu, &stored));
        let values = x.tensor_from(values, dims, dtype);
        return fused(x.tensor, values, operands, map, call.groups, call.activation, Weights::Changing);
    }
    let tiles = match map {
        ConvMap::Pointwise => forms::identity_tiles(gpu, device, rows),
        ConvMap::Relation(relation) => forms::tiles(gpu, device, relation.to_host(), Direction::Forward),
    };
    let (values, epilogue) = (x.buffer(), epilogue_of(operands, call.activation));
    let y = match weight.activations {
        Operand::Given(steps) => {
            let plan = MmaPlan::for_bytes(gpu, c_in, c_out, taps as u32, tiles.n_tiles());
            let sources = [&words, &scales, &biases, &steps];
            let codes = ordered_codes(&sources, call.weight, plan.packing(), None, || {
                pack_bytes(gpu, &stored(), &Rows::new(steps.clone()).buffer(), plan, Life::Apart)
            });
            with_gpu_float!(dtype, T, conv_bytes::<T>(gpu, &values, &codes, plan, &tiles, &epilogue))
        }
        Operand::Absent => {
            let expands = call.kernel == PackedKernel::ExpandMma;
            let (taps, n_tiles) = (taps as u32, tiles.n_tiles());
            let plan = if expands {
                MmaPlan::fitted(gpu, c_in, c_out, taps, n_tiles)
            } else {
                MmaPlan::for_codes(gpu, call.weight.bits(), c_in, c_out, taps, n_tiles)
            };
            let sources = [&words, &scales, &biases];
            macro_rules! codes {
                ($T:ty) => {{
                    let codes = ordered_codes(&sources, call.weight, plan.packing(), Some(dtype), || {
                        pack_codes::<$T>(gpu, &stored(), plan, Life::Apart)
                    });
                    if expands {
                        let elements = expand_codes::<$T>(gpu, &codes);
                        conv_mma::<$T>(gpu, &values, &elements, plan, &tiles, &epilogue)
                    } else {
                        conv_codes::<$T>(gpu, &values, &codes, plan, &tiles, &epilogue)
                    }
                }};
            }
            match dtype {
                DType::F16 => codes!(f16),
                DType::BF16 => codes!(bf16),
                // The route table sends no other here.
                other => panic!("packed_conv: features must be f16 or bf16, found {other:?}"),
            }
        }
    };
    x.tensor_from(y, [rows, c_out], dtype)
}

/// A packed weight as the kernels read it.
fn stored([words, scales, biases]: [CubeTensor; 3], call: PackedCall) -> StoredCodes {
    let half_scales = scales.dtype == DType::F16;
    let [words, scales, biases] = [words, scales, biases].map(|tensor| Rows::new(tensor).buffer());
    StoredCodes {
        words,
        scales,
        biases,
        half_scales,
        bits: call.weight.bits(),
        group_size: call.weight.group_size(),
        taps: call.weight.taps() as u32,
        c_in: call.weight.c_in(),
        c_out: call.weight.c_out(),
    }
}

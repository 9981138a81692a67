//! Convolution with matrix instructions whose fragments the kernel lays out itself.
//!
//! Output channels stand along the 16 rows of a fragment and voxels along its 8 columns, so that work is skipped eight voxels at a
//! time. Voxels come from the staged halo, where lanes may point anywhere: no gathered copy is made. Weights are
//! packed into fragment order first, and go from memory to registers.

mod kernel;
mod pack;
mod plan;

use cubecl::prelude::*;

use kernel::{MmaShape, conv_mma_kernel};
pub use pack::{Direction, PackedWeights, pack_weights, pack_weights_mirrored};
pub use plan::MmaPlan;

use super::finish::{check_epilogue, operands_of};
use crate::address::address_of;
use crate::gpu::{Buffer, Gpu};
use crate::tiles::Tiles;

/// What follows the sum, before the one rounding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum After {
    /// Nothing.
    Nothing,
    /// `max(v, 0)`.
    Relu,
    /// `v` above zero, else `slope * v`; the slope by its bits.
    LeakyRelu(u32),
}

/// Operands of the epilogue.
#[derive(Clone, Debug)]
pub struct Epilogue {
    /// `[c_out]`, in the features' type.
    pub bias: Option<Buffer>,
    /// Factor and summand `[c_out]` in f32.
    pub scale_shift: Option<(Buffer, Buffer)>,
    /// `[n_out, c_out]`.
    pub residual: Option<Buffer>,
    /// Last of all.
    pub after: After,
}

impl Epilogue {
    /// No epilogue.
    pub fn none() -> Self {
        Self { bias: None, scale_shift: None, residual: None, after: After::Nothing }
    }
}

/// The convolution `[n_in, c_in]` to `[n_out, c_out]`; one launch.
///
/// # Panics
/// When a buffer does not have its shape, or the weights are of another number of taps.
pub fn conv_mma<F: Float + CubeElement>(
    gpu: &Gpu,
    x: &Buffer,
    weights: &PackedWeights,
    tiles: &Tiles,
    epilogue: &Epilogue,
) -> Buffer {
    let PackedWeights { c_in, c_out, plan, .. } = *weights;
    assert_eq!(x.len, tiles.n_in() * c_in, "conv_mma: length of the features");
    assert_eq!(weights.taps, tiles.taps(), "conv_mma: taps of the weights");
    check_epilogue("conv_mma", epilogue, tiles.n_out(), c_out);
    let y = gpu.empty(tiles.n_out() * c_out, 2);
    if tiles.n_tiles == 0 {
        return y;
    }
    let shape =
        MmaShape { c_in, c_out, taps: tiles.taps, span_words: tiles.span_words, plan, after: epilogue.after };
    let lanes = if c_in.is_multiple_of(8) { 8 } else { 1 };
    let whole = |lanes: &usize| c_out.is_multiple_of(*lanes) && (2 * plan.slices).is_multiple_of(*lanes);
    let y_lanes = [8, 4, 2].into_iter().find(whole).unwrap_or(1);
    // SAFETY: tiles hold rows of the source and the target, whose features `x` and `y` are; the operands have the shapes that
    // the epilogue says.
    unsafe {
        conv_mma_kernel::launch_unchecked::<F>(
            gpu.client(),
            Gpu::cubes(tiles.n_tiles * shape.blocks() as usize, 1),
            CubeDim::new_1d(plan.units() as u32),
            address_of(&[x, &y]),
            lanes,
            y_lanes,
            x.arg(lanes),
            weights.words(),
            operands_of(epilogue, y_lanes),
            y.arg(y_lanes),
            tiles.rows.arg(1),
            tiles.table.arg(1),
            tiles.chunks.arg(1),
            tiles.halo.arg(1),
            tiles.spans.arg(1),
            tiles.n_out as u32,
            shape,
        );
    }
    y
}

/// Whether a device has the instructions of this route, for f16 and bf16.
pub fn has_matrix_units(gpu: &Gpu) -> bool {
    use cubecl::ir::{ElemType, FloatKind};
    let features = gpu.client().features();
    [FloatKind::F16, FloatKind::BF16].into_iter().all(|kind| {
        let elem = ElemType::Float(kind);
        let fits = |c: &cubecl::features::MmaConfig| {
            (c.m, c.n, c.k) == (16, 8, 16)
                && c.a_type == elem
                && c.b_type == elem
                && c.cd_type == ElemType::Float(FloatKind::F32)
        };
        features.matmul.mma.iter().any(fits) && features.matmul.ldmatrix.contains(&elem)
    })
}

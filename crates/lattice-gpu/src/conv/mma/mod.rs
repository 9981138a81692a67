//! Convolution with matrix instructions whose fragments the kernel lays out itself.
//!
//! Output channels stand along the 16 rows of a fragment and voxels along its 8 columns, so that work is skipped eight voxels at a
//! time. Voxels come from the staged halo, where lanes may point anywhere: no gathered copy is made. Weights are
//! packed into fragment order first, and go from memory to registers.

mod kernel;
mod pack;
mod plan;

use cubecl::ir::{ElemType, FloatKind};
use cubecl::prelude::*;

use kernel::{MmaShape, conv_mma_kernel};
pub use pack::{Direction, PackedWeights, pack_weights, pack_weights_mirrored};
pub use plan::MmaPlan;

use super::finish::{check_epilogue, operands_of};
use crate::address::{address_of, room_for};
use crate::arena::Life;
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

/// An element type of features and weights, and what matrix units multiply it as. Sums are in f32.
pub trait Multiplied: Float + CubeElement {
    /// The type that factors are rounded to.
    type As: Float;
    /// Halves of 16 bits of an element.
    const HALVES: usize = size_of::<Self>() / 2;
}

impl Multiplied for half::f16 {
    type As = Self;
}

impl Multiplied for half::bf16 {
    type As = Self;
}

/// Ten bits of the mantissa are multiplied: for those who ask for it.
impl Multiplied for f32 {
    type As = cubecl::prelude::tf32;
}

/// The convolution `[n_in, c_in]` to `[n_out, c_out]`; one launch.
///
/// # Panics
/// When a buffer does not have its shape, or the weights are of another number of taps or packed for another kind of plan.
pub fn conv_mma<F: Multiplied>(
    gpu: &Gpu,
    x: &Buffer,
    weights: &PackedWeights,
    plan: MmaPlan,
    tiles: &Tiles,
    epilogue: &Epilogue,
) -> Buffer {
    let PackedWeights { c_in, c_out, .. } = *weights;
    plan.check();
    assert_eq!(weights.plan, plan.packing(), "conv_mma: the plan that weights are packed for");
    assert_eq!(x.len, tiles.n_in() * c_in, "conv_mma: length of the features");
    assert_eq!(weights.taps, tiles.taps(), "conv_mma: taps of the weights");
    check_epilogue("conv_mma", epilogue, tiles.n_out(), c_out);
    let y = room_for::<F>(gpu, tiles.n_out() * c_out);
    if tiles.n_tiles == 0 {
        return y;
    }
    let shape = MmaShape {
        c_in: c_in * F::HALVES,
        halves: F::HALVES,
        c_out,
        taps: tiles.taps,
        span_words: tiles.span_words,
        plan,
        after: epilogue.after,
    };
    let piece = 8 / F::HALVES;
    let lanes = if c_in.is_multiple_of(piece) { piece } else { 1 };
    let whole = |lanes: &usize| c_out.is_multiple_of(*lanes) && (2 * plan.slices).is_multiple_of(*lanes);
    let y_lanes = [piece, 4, 2].into_iter().find(whole).unwrap_or(1);
    assert!(
        plan.splits() == 1 || gpu.is_coherent(),
        "conv_mma: cubes of this device do not see each other's sums"
    );
    let n_blocks = tiles.n_tiles * shape.blocks() as usize;
    let handed = gpu.room(n_blocks * shape.handed(), 4, Life::Passing);
    let counters = gpu.counters(if plan.splits() == 1 { 0 } else { n_blocks });
    // SAFETY: tiles hold rows of the source and the target, whose features `x` and `y` are; the operands have the shapes that
    // the epilogue says.
    unsafe {
        conv_mma_kernel::launch_unchecked::<F, F::As>(
            gpu.client(),
            Gpu::cubes(tiles.n_tiles * shape.cubes() as usize, 1),
            CubeDim::new_1d(plan.units() as u32),
            address_of(&[x, &y]),
            piece,
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
            handed.arg(if handed.len > 0 { 4 } else { 1 }),
            counters.arg(1),
            tiles.n_out as u32,
            shape,
        );
    }
    y
}

/// Whether a device has the instructions of this route for a kind of elements, multiplied `k` channels at a time.
fn multiplies(gpu: &Gpu, kind: FloatKind, k: u32) -> bool {
    let elem = ElemType::Float(kind);
    let fits = |c: &cubecl::features::MmaConfig| {
        (c.m, c.n, c.k) == (16, 8, k)
            && c.a_type == elem
            && c.b_type == elem
            && c.cd_type == ElemType::Float(FloatKind::F32)
    };
    gpu.client().features().matmul.mma.iter().any(fits)
}

/// Whether a device has the instructions of this route, for f16 and bf16.
pub fn has_matrix_units(gpu: &Gpu) -> bool {
    let loads = &gpu.client().features().matmul.ldmatrix;
    let has = |kind| multiplies(gpu, kind, 16) && loads.contains(&ElemType::Float(kind));
    has(FloatKind::F16) && has(FloatKind::BF16)
}

/// Whether it has them for f32 rounded to tf32.
pub fn has_tf32(gpu: &Gpu) -> bool {
    multiplies(gpu, FloatKind::TF32, 8)
}

//! Convolution with matrix instructions whose fragments the kernel lays out itself.
//!
//! Output channels stand along the 16 rows of a fragment and voxels along its 8 columns, so that work is skipped eight voxels at a
//! time. Voxels come from the staged halo, where lanes may point anywhere: no gathered copy is made. Weights are
//! packed into fragment order first, and go from memory to registers.
//!
//! A weight has one of three forms: elements ([`conv_mma`]), codes of 4 or 8 bits that a lane unpacks into elements
//! ([`conv_codes`], or [`expand_codes`] in a launch before), and codes that are multiplied by features in bytes ([`conv_bytes`]).

mod byte_rows;
mod byte_taps;
mod byte_weights;
mod bytes;
pub(crate) mod codes;
mod form;
mod kernel;
mod pack;
mod places;
mod plan;
mod products;
mod shape;
mod sharing;
mod staging;
mod unpack;
mod writing;

use cubecl::ir::{ElemType, FloatKind, IntKind, UIntKind};
use cubecl::prelude::*;

use byte_rows::quantize_rows;
use byte_weights::byte_layout;
pub use byte_weights::{ByteWeights, pack_bytes};
use codes::check_elements;
pub use codes::{CodeWeights, StoredCodes, expand_codes, pack_codes};
use form::{BesideLaunch, Form, words_at_a_time};
use kernel::conv_mma_kernel;
pub use pack::{Direction, PackedWeights, pack_weights, pack_weights_mirrored};
pub use plan::MmaPlan;
use shape::MmaShape;

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

    /// Which operands there are.
    pub(super) fn operands(&self) -> [bool; 3] {
        [self.bias.is_some(), self.scale_shift.is_some(), self.residual.is_some()]
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
    let PackedWeights { c_in, c_out, taps, .. } = *weights;
    check_call("conv_mma", [c_in, c_out], taps, x, tiles, epilogue);
    check_plan("conv_mma", plan, weights.plan);
    let shape = MmaShape {
        c_in: c_in * F::HALVES,
        halves: F::HALVES,
        c_out,
        taps: tiles.taps,
        span_words: tiles.span_words,
        plan,
        after: epilogue.after,
        form: Form::Floats,
    };
    let lanes = lanes_of(c_in, 8 / F::HALVES);
    let packed = weights.words();
    let source = Source { x, lanes, packed: (&packed, 4), affine: None, row_sums: None, zero_row: None };
    launch::<F, F, F::As>(gpu, source, tiles, epilogue, shape)
}

/// [`conv_mma`] with codes that are unpacked into the elements that matrix units multiply: `scale · code + bias`, rounded to the features'
/// type, as a weight that was dequantized before. One launch.
///
/// # Panics
/// When a buffer does not have its shape, or the weights are of another number of taps or packed for another kind of plan or element.
pub fn conv_codes<F: Multiplied>(
    gpu: &Gpu,
    x: &Buffer,
    weights: &CodeWeights,
    plan: MmaPlan,
    tiles: &Tiles,
    epilogue: &Epilogue,
) -> Buffer {
    let StoredCodes { c_in, c_out, taps, .. } = weights.stored;
    check_call("conv_codes", [c_in, c_out], taps, x, tiles, epilogue);
    check_plan("conv_codes", plan, weights.plan);
    let shape = weights.stored.shape(weights.form, plan, tiles.span_words, epilogue.after);
    check_elements::<F>("conv_codes", shape);
    let source = Source {
        x,
        lanes: lanes_of(c_in, 8),
        packed: (&weights.fragments, words_at_a_time(shape.piece_words())),
        affine: Some((&weights.affine, words_at_a_time(shape.affine_words()))),
        row_sums: None,
        zero_row: None,
    };
    launch::<F, F, F::As>(gpu, source, tiles, epilogue, shape)
}

/// [`conv_mma`] with features in bytes and codes: integers summed exactly over 32 or 64 channels of a group, those sums in f32. Two launches.
///
/// # Panics
/// When a buffer does not have its shape, or the weights are of another number of taps or packed for another kind of plan.
pub fn conv_bytes<F: Float + CubeElement>(
    gpu: &Gpu,
    x: &Buffer,
    weights: &ByteWeights,
    plan: MmaPlan,
    tiles: &Tiles,
    epilogue: &Epilogue,
) -> Buffer {
    let StoredCodes { c_in, c_out, taps, .. } = weights.stored;
    check_call("conv_bytes", [c_in, c_out], taps, x, tiles, epilogue);
    check_plan("conv_bytes", plan, weights.plan);
    let shape = weights.stored.shape(weights.form, plan, tiles.span_words, epilogue.after);
    let layout = byte_layout(&weights.stored, shape);
    let rows = quantize_rows::<F>(gpu, x, &weights.codes, tiles.n_in(), layout, Life::Lasting);
    let halves = |words: &Buffer| Buffer { len: 2 * words.len, ..words.clone() };
    let (bytes, zero_row) = (halves(&rows.bytes), halves(&weights.zero_row));
    let source = Source {
        x: &bytes,
        lanes: 8,
        packed: (&weights.fragments, words_at_a_time(shape.piece_words())),
        affine: Some((&weights.factors, shape.factors_at_a_time())),
        row_sums: Some((&rows.sums, 1)),
        zero_row: Some((&zero_row, 8)),
    };
    launch::<half::f16, F, half::f16>(gpu, source, tiles, epilogue, shape)
}

/// Elements of the longest vector that rows of so many channels consist of, of at most 16 bytes.
fn lanes_of(c_in: usize, most: usize) -> usize {
    [most, most / 2, most / 4].into_iter().find(|&lanes| lanes > 0 && c_in.is_multiple_of(lanes)).unwrap_or(1)
}

/// Panics where buffers do not have the lengths, or the weights not the taps, that tiles and channels ask for.
fn check_call(
    op: &str,
    [c_in, c_out]: [usize; 2],
    taps: u32,
    x: &Buffer,
    tiles: &Tiles,
    epilogue: &Epilogue,
) {
    assert_eq!(x.len, tiles.n_in() * c_in, "{op}: length of the features");
    assert_eq!(taps, tiles.taps(), "{op}: taps of the weights");
    check_epilogue(op, epilogue, tiles.n_out(), c_out);
}

/// Panics for a plan without a kernel, or of another kind than the one that weights are packed for.
fn check_plan(op: &str, plan: MmaPlan, packed_for: MmaPlan) {
    plan.check();
    assert_eq!(packed_for, plan.packing(), "{op}: the plan that weights are packed for");
}

/// Features and weights of a launch.
struct Source<'a> {
    x: &'a Buffer,
    /// Elements of a vector of `x`.
    lanes: usize,
    /// Buffers and the elements of their vectors.
    packed: (&'a Buffer, usize),
    affine: Option<(&'a Buffer, usize)>,
    row_sums: Option<(&'a Buffer, usize)>,
    zero_row: Option<(&'a Buffer, usize)>,
}

/// Launches the kernel on checked operands.
fn launch<X: Float + CubeElement, F: Float + CubeElement, E: Float>(
    gpu: &Gpu,
    source: Source<'_>,
    tiles: &Tiles,
    epilogue: &Epilogue,
    shape: MmaShape,
) -> Buffer {
    let MmaShape { c_out, plan, .. } = shape;
    let y = room_for::<F>(gpu, tiles.n_out() * c_out);
    if tiles.n_tiles == 0 {
        return y;
    }
    let whole = |lanes: &usize| c_out.is_multiple_of(*lanes) && (2 * plan.slices).is_multiple_of(*lanes);
    let y_lanes = [16 / size_of::<F>(), 4, 2].into_iter().find(whole).unwrap_or(1);
    assert!(
        plan.splits() == 1 || gpu.is_coherent(),
        "conv_mma: cubes of this device do not see each other's sums"
    );
    let n_blocks = tiles.n_tiles * shape.blocks() as usize;
    let handed = gpu.room(n_blocks * shape.handed(), 4, Life::Passing);
    let counters = gpu.counters(if plan.splits() == 1 { 0 } else { n_blocks });
    let n_cubes = tiles.n_tiles * shape.cubes() as usize;
    let order = if plan.takes_full_tiles_first(gpu, n_cubes) { tiles.order() } else { None };
    let order_or_none = order.unwrap_or(&tiles.spans);
    let n_cubes = Gpu::cubes(n_cubes, 1);
    let halo = tiles.halo();
    let address = address_of(&[source.x, &y]);
    let arg = |(buffer, lanes): (&Buffer, usize)| buffer.arg(lanes);
    let (packed_lanes, affine_lanes) = (source.packed.1, source.affine.map_or(1, |(_, lanes)| lanes));
    let kernel = (
        ("conv_mma", std::any::type_name::<(X, F, E)>()),
        [source.lanes, y_lanes, packed_lanes, affine_lanes],
        (epilogue.operands(), address, handed.len > 0),
        shape.compiled(),
    );
    gpu.launch(n_cubes, kernel, |client, n_cubes| {
        // SAFETY: tiles hold rows of the source and the target, whose features `x` and `y` are; the operands have the shapes that
        // the epilogue says, packed weights those of `shape`.
        unsafe {
            conv_mma_kernel::launch_unchecked::<X, F, E>(
                client,
                n_cubes,
                CubeDim::new_1d(plan.units() as u32),
                address,
                16 / size_of::<X>(),
                source.lanes,
                y_lanes,
                packed_lanes,
                affine_lanes,
                source.x.arg(source.lanes),
                arg(source.packed),
                BesideLaunch::new(
                    source.affine.map(arg).into(),
                    source.row_sums.map(arg).into(),
                    source.zero_row.map(arg).into(),
                ),
                operands_of(epilogue, y_lanes),
                y.arg(y_lanes),
                tiles.rows.arg(1),
                tiles.table.arg(1),
                tiles.chunks.arg(1),
                halo.arg(1),
                tiles.spans.arg(1),
                order_or_none.arg(1),
                handed.arg(if handed.len > 0 { 4 } else { 1 }),
                counters.arg(1),
                tiles.n_out as u32,
                shape.sizes(order.is_some()),
                shape.compiled(),
            );
        }
    });
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

/// Whether it multiplies signed with unsigned bytes, 32 channels at a time.
pub fn has_byte_units(gpu: &Gpu) -> bool {
    let fits = |c: &cubecl::features::MmaConfig| {
        (c.m, c.n, c.k) == (16, 8, 32)
            && c.a_type == ElemType::Int(IntKind::I8)
            && c.b_type == ElemType::UInt(UIntKind::U8)
            && c.cd_type == ElemType::Int(IntKind::I32)
    };
    gpu.client().features().matmul.mma.iter().any(fits) && has_matrix_units(gpu)
}

/// Whether it has them for f32 rounded to tf32.
pub fn has_tf32(gpu: &Gpu) -> bool {
    multiplies(gpu, FloatKind::TF32, 8)
}

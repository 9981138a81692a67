//! Launchers of weight gradients.

use cubecl::prelude::*;

use super::kernel::{BLOCK, GradShape, add_segments_kernel, sum_blocks_kernel, sum_groups_kernel};
use super::mma;
use super::pairs::DevicePairs;
use super::segment::Cutting;
use crate::address::{UNITS, address_of, lanes_of, room_for};
use crate::arena::Life;
use crate::conv::load::load_lanes;
use crate::conv::mma::has_matrix_units;
use crate::conv::shape::ConvShape;
use crate::gpu::{Buffer, Gpu};

/// Cubes of the first kernel that there should be: some for every core of a large device.
const CUBES: usize = 512;
/// Fewest pairs that are worth a partial sum of their own.
const MIN_SEGMENT: usize = 256;
/// Most pairs that matrix units add up in a row: they cut off what f32 cannot hold, and longer sums would show it.
const MOST_PAIRS: usize = 2048;
/// Units of the kernel for groups that there should be.
const GROUP_UNITS: usize = 1 << 17;
/// Fewest pairs of a segment there.
const MIN_GROUP_SEGMENT: usize = 64;

/// The gradient of a weight: `dw[tap] = Σ outer(x[i], g[o])`, in elements of type `O`. Sums are in f32, in an order that depends on
/// the counts of pairs and channels alone. One launch on matrix units, else two.
///
/// # Shapes
/// `x`: `[n_in, c_in]`; `g`: `[n_out, c_out]`; returns `[taps, c_in / groups, c_out]`. Needs the size of the result and about 8 MB more
/// of working memory.
///
/// # Panics
/// When a buffer does not have its shape.
pub fn weight_grad<F: Float + CubeElement, O: Float + CubeElement>(
    gpu: &Gpu,
    x: &Buffer,
    g: &Buffer,
    pairs: &DevicePairs,
    shape: ConvShape,
) -> Buffer {
    assert_eq!(x.len, pairs.n_in() * shape.c_in, "weight_grad: length of the features");
    assert_eq!(g.len, pairs.n_out() * shape.c_out, "weight_grad: length of the gradient");
    launch::<F, O>(gpu, x, g, Pairs::Listed(pairs), shape)
}

/// [`weight_grad`] of one tap under which every one of `n_rows` rows meets itself: `[1, c_in / groups, c_out]`.
///
/// # Panics
/// When a buffer does not have its shape, or for 2^32 rows or more.
pub fn pointwise_weight_grad<F: Float + CubeElement, O: Float + CubeElement>(
    gpu: &Gpu,
    x: &Buffer,
    g: &Buffer,
    n_rows: usize,
    shape: ConvShape,
) -> Buffer {
    assert!(u32::try_from(n_rows).is_ok(), "pointwise_weight_grad: {n_rows} rows");
    assert_eq!(x.len, n_rows * shape.c_in, "pointwise_weight_grad: length of the features");
    assert_eq!(g.len, n_rows * shape.c_out, "pointwise_weight_grad: length of the gradient");
    launch::<F, O>(gpu, x, g, Pairs::Rows(n_rows), shape)
}

/// The pairs of a weight gradient.
#[derive(Clone, Copy)]
enum Pairs<'a> {
    Listed(&'a DevicePairs),
    /// Every one of so many rows with itself.
    Rows(usize),
}

/// Pairs in segments.
#[derive(Clone, Copy)]
pub(super) struct Cut<'a> {
    /// Where the pairs of each tap start; of no meaning where pairs are rows.
    pub(super) splits: &'a Buffer,
    pub(super) n_rows: u32,
    pub(super) taps: usize,
    pub(super) cutting: Cutting,
    /// Pairs at most, as far as the host knows.
    pub(super) most_pairs: usize,
    /// Segments at most: nobody waits to know how many there are.
    pub(super) n_segments: usize,
}

fn launch<F: Float + CubeElement, O: Float + CubeElement>(
    gpu: &Gpu,
    x: &Buffer,
    g: &Buffer,
    pairs: Pairs<'_>,
    shape: ConvShape,
) -> Buffer {
    shape.check("weight_grad");
    let (taps, most_pairs, n_rows) = match pairs {
        Pairs::Listed(pairs) => (pairs.taps(), pairs.most_pairs(), 0),
        Pairs::Rows(n_rows) => (1, n_rows, n_rows as u32),
    };
    let width = shape.weights(1);
    let dw = room_for::<O>(gpu, taps * width);
    if dw.len == 0 {
        return dw;
    }
    if most_pairs == 0 {
        return gpu.upload(&vec![0u8; dw.len * size_of::<O>()]).first(dw.len);
    }
    let dense = shape.groups == 1;
    let fragments = dense && size_of::<F>() == 2 && has_matrix_units(gpu) && gpu.is_coherent();
    let blocks = match fragments {
        true => mma::blocks_of(shape, most_pairs),
        false => shape.c_in.div_ceil(BLOCK as usize) * shape.c_out.div_ceil(BLOCK as usize),
    };
    let (target, least) = match dense {
        true => (CUBES.div_ceil(blocks), MIN_SEGMENT),
        false => (GROUP_UNITS.div_ceil(width), MIN_GROUP_SEGMENT),
    };
    let cutting = Cutting {
        target: target as u32,
        least: least as u32,
        most: if fragments { MOST_PAIRS as u32 } else { u32::MAX },
        identity: matches!(pairs, Pairs::Rows(_)),
    };
    let n_segments = cutting.most_segments(most_pairs, taps);
    // What is not read where pairs are rows stands in for it.
    let (splits, rows) = match pairs {
        Pairs::Listed(pairs) => (&pairs.splits, [&pairs.in_rows, &pairs.out_rows]),
        Pairs::Rows(_) => (x, [x, x]),
    };
    let cut = Cut { splits, n_rows, taps, cutting, most_pairs, n_segments };
    if fragments {
        mma::sum_fragments::<F, O>(gpu, [x, g], rows, cut, &dw, shape);
        return dw;
    }
    let partials = gpu.room(n_segments * width, 4, Life::Passing);
    let grad = GradShape { c_in: shape.c_in, c_out: shape.c_out, groups: shape.groups, cutting };
    match dense {
        true => sum_blocks::<F>(gpu, [x, g], rows, cut, &partials, blocks, grad),
        false => sum_groups::<F>(gpu, [x, g], rows, cut, &partials, grad),
    }
    let lanes = lanes_of::<f32>(gpu, width);
    // SAFETY: segments ascend tap by tap and `partials` holds all of them; units past the result only wait.
    unsafe {
        add_segments_kernel::launch_unchecked::<O>(
            gpu.client(),
            Gpu::cubes(dw.len / lanes, 16),
            CubeDim::new_1d(UNITS),
            address_of(&[&partials, &dw]),
            lanes,
            partials.arg(lanes),
            splits.arg(1),
            dw.arg(lanes),
            dw.len / lanes,
            width / lanes,
            n_rows,
            taps as u32,
            cutting,
        );
    }
    dw
}

#[allow(clippy::too_many_arguments, reason = "the arguments of the kernel")]
fn sum_blocks<F: Float + CubeElement>(
    gpu: &Gpu,
    [x, g]: [&Buffer; 2],
    [in_rows, out_rows]: [&Buffer; 2],
    cut: Cut<'_>,
    partials: &Buffer,
    blocks: usize,
    shape: GradShape,
) {
    let n_segments = cut.n_segments;
    let (x_lanes, g_lanes) = (load_lanes(shape.c_in), load_lanes(shape.c_out));
    let across = n_segments.min(65_535) as u32;
    let count = CubeCount::Static(across, n_segments.div_ceil(65_535) as u32, blocks as u32);
    // SAFETY: the callers checked the lengths of `x` and `g`, whose rows the pairs are; splits are those of the pairs; the kernel
    // checks channels.
    unsafe {
        sum_blocks_kernel::launch_unchecked::<F>(
            gpu.client(),
            count,
            CubeDim::new_1d(UNITS),
            address_of(&[x, g, partials]),
            x_lanes,
            g_lanes,
            g_lanes,
            x.arg(x_lanes),
            g.arg(g_lanes),
            in_rows.arg(1),
            out_rows.arg(1),
            cut.splits.arg(1),
            partials.arg(g_lanes),
            n_segments as u32,
            cut.n_rows,
            cut.taps as u32,
            shape,
        );
    }
}

fn sum_groups<F: Float + CubeElement>(
    gpu: &Gpu,
    [x, g]: [&Buffer; 2],
    [in_rows, out_rows]: [&Buffer; 2],
    cut: Cut<'_>,
    partials: &Buffer,
    shape: GradShape,
) {
    // SAFETY: as for `sum_blocks`; units past the partial sums do nothing.
    unsafe {
        sum_groups_kernel::launch_unchecked::<F>(
            gpu.client(),
            Gpu::cubes(partials.len, UNITS as usize),
            CubeDim::new_1d(UNITS),
            address_of(&[x, g, partials]),
            x.arg(1),
            g.arg(1),
            in_rows.arg(1),
            out_rows.arg(1),
            cut.splits.arg(1),
            partials.arg(1),
            cut.n_segments,
            cut.n_rows,
            cut.taps as u32,
            shape,
        );
    }
}

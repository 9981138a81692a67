//! Weight gradient with matrix instructions.
//!
//! `dw[tap] = Σ x[in]ᵀ · dy[out]` over the pairs of the tap. A cube takes one tap, a range of its pairs and a block of channels; it
//! stages 64 pairs at a time and keeps its sums in registers. Partial sums go to a workspace and are added in a fixed order.

use cubecl::cmma::{MatrixIdent, MmaDefinition};
use cubecl::prelude::*;

use super::launch::Cut;
use super::segment::segment_bounds;
use crate::address::address_of;
use crate::conv::ConvShape;
use crate::gpu::{Buffer, Gpu};

/// Lanes of a plane on devices with these instructions.
const LANES: u32 = 32;
/// Pairs staged at a time.
const PAIRS: usize = 64;

/// Sizes that the kernel is compiled for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct MmaGradShape {
    pub(crate) c_in: usize,
    pub(crate) c_out: usize,
    /// Fragments of 16 input channels of a block.
    pub(crate) in_slices: usize,
    /// Fragments of 16 output channels of a block.
    pub(crate) out_slices: usize,
    /// Planes of a cube, along output channels first.
    pub(crate) planes_in: usize,
    pub(crate) planes_out: usize,
    /// Whether pair `i` is row `i` with itself.
    pub(crate) identity: bool,
}

/// Where piece `v` of a staged pair stands: rotated so that eight pairs read at the same piece lie in different banks.
#[cube]
fn staged(pair: u32, v: u32, #[comptime] width: u32) -> u32 {
    pair * width + (v ^ ((pair / comptime!(8 / width)) % width))
}

/// Eight channels of a row from `channel` on; zero past the last.
#[cube]
fn channels<F: Float, N: Size>(
    features: &[Vector<F, N>],
    row: u32,
    channel: u32,
    #[comptime] count: u32,
) -> Vector<F, Const<8>> {
    let mut value = Vector::<F, Const<8>>::new(F::from_int(0i64));
    let lanes = N::value();
    if comptime!(lanes == 8) {
        if channel < count {
            value = Vector::cast_from(
                features[row as usize * comptime!(count as usize / 8) + (channel / 8u32) as usize],
            );
        }
    } else {
        #[unroll]
        for i in 0usize..8usize {
            if channel + (i as u32) < count {
                value.insert(
                    i,
                    features[row as usize * comptime!(count as usize) + channel as usize + i].extract(0usize),
                );
            }
        }
    }
    value
}

/// Partial sums `[range, c_in, c_out]` of one segment of pairs and one block of channels a cube.
#[cube(launch_unchecked, address_type = "dynamic")]
pub(crate) fn weight_grad_mma_kernel<F: Float, NX: Size, NY: Size>(
    x: &[Vector<F, NX>],
    dy: &[Vector<F, NY>],
    in_rows: &[u32],
    out_rows: &[u32],
    splits: &[u32],
    partial: &mut [f32],
    n_ranges: u32,
    taps: u32,
    length: u32,
    #[comptime] shape: MmaGradShape,
) {
    let range = CUBE_POS_X + CUBE_POS_Y * 65_535u32;
    if range >= n_ranges {
        terminate!();
    }
    let (begin, end) = segment_bounds(splits, taps, length, range);
    let x_width = comptime!(2 * shape.in_slices as u32);
    let y_width = comptime!(2 * shape.out_slices as u32);
    let units = comptime!((shape.planes_in * shape.planes_out) as u32 * LANES);
    let lane = UNIT_POS % LANES;
    let plane = UNIT_POS / LANES;
    let mine_in = comptime!(shape.in_slices / shape.planes_in);
    let mine_out = comptime!(shape.out_slices / shape.planes_out);
    let first_in = (plane / comptime!(shape.planes_out as u32)) * comptime!(mine_in as u32);
    let first_out = (plane % comptime!(shape.planes_out as u32)) * comptime!(mine_out as u32);
    let blocks_out = comptime!(shape.c_out.div_ceil(16 * shape.out_slices) as u32);
    let channel_in = (CUBE_POS_Z / blocks_out) * comptime!(16 * shape.in_slices as u32);
    let channel_out = (CUBE_POS_Z % blocks_out) * comptime!(16 * shape.out_slices as u32);

    let def = MmaDefinition::<F, F, f32>::new(16usize, 8usize, 16usize);
    let size!(NA) = def.vector_size(MatrixIdent::A);
    let size!(NB) = def.vector_size(MatrixIdent::B);
    let nc = def.vector_size(MatrixIdent::Accumulator);
    let size!(NC) = nc;
    let n_c = comptime!(4 / nc);
    let mut sums = Sequence::<Array<Vector<f32, NC>>>::new();
    #[unroll]
    for _ in 0usize..comptime!(mine_in * mine_out * 2) {
        let mut sum = Array::<Vector<f32, NC>>::new(n_c);
        #[unroll]
        for i in 0usize..n_c {
            sum[i] = Vector::new(0.0f32);
        }
        sums.push(sum);
    }
    let mut xs =
        Shared::<[Vector<F, Const<8>>]>::new_aligned_slice(comptime!(PAIRS * 2 * shape.in_slices), 16usize);
    let mut ys =
        Shared::<[Vector<F, Const<8>>]>::new_aligned_slice(comptime!(PAIRS * 2 * shape.out_slices), 16usize);

    let mut at = begin;
    while at < end {
        sync_cube();
        let mut piece = UNIT_POS;
        while piece < comptime!(PAIRS as u32) * x_width {
            let pair = piece / x_width;
            let v = piece % x_width;
            let mut value = Vector::<F, Const<8>>::new(F::from_int(0i64));
            if at + pair < end {
                let mut row = at + pair;
                if comptime!(!shape.identity) {
                    row = in_rows[row as usize];
                }
                value = channels::<F, NX>(x, row, channel_in + 8u32 * v, comptime!(shape.c_in as u32));
            }
            xs[staged(pair, v, x_width) as usize] = value;
            piece += units;
        }
        let mut piece = UNIT_POS;
        while piece < comptime!(PAIRS as u32) * y_width {
            let pair = piece / y_width;
            let v = piece % y_width;
            let mut value = Vector::<F, Const<8>>::new(F::from_int(0i64));
            if at + pair < end {
                let mut row = at + pair;
                if comptime!(!shape.identity) {
                    row = out_rows[row as usize];
                }
                value = channels::<F, NY>(dy, row, channel_out + 8u32 * v, comptime!(shape.c_out as u32));
            }
            ys[staged(pair, v, y_width) as usize] = value;
            piece += units;
        }
        sync_cube();
        #[unroll]
        for step in 0usize..comptime!(PAIRS / 16) {
            let mut left = Sequence::<Array<Vector<F, NA>>>::new();
            #[unroll]
            for i in 0usize..mine_in {
                let pair = comptime!(16 * step as u32) + (lane / 16u32) * 8u32 + lane % 8u32;
                let v = 2u32 * (first_in + i as u32) + (lane / 8u32) % 2u32;
                let p = staged(pair, v, x_width) as usize;
                left.push(def.load_matrix::<Vector<F, Const<8>>, NA>(
                    &xs[p..p + 1usize],
                    MatrixIdent::A,
                    4usize,
                    true,
                ));
            }
            #[unroll]
            for o in 0usize..mine_out {
                let pair = comptime!(16 * step as u32) + ((lane / 8u32) % 2u32) * 8u32 + lane % 8u32;
                let v = 2u32 * (first_out + o as u32) + lane / 16u32;
                let p = staged(pair, v, y_width) as usize;
                let right = def.load_matrix::<Vector<F, Const<8>>, NB>(
                    &ys[p..p + 1usize],
                    MatrixIdent::B,
                    4usize,
                    true,
                );
                #[unroll]
                for half in 0usize..2usize {
                    let mut b = Array::<Vector<F, NB>>::new(2usize);
                    b[0] = right[comptime!(2 * half)];
                    b[1] = right[comptime!(2 * half + 1)];
                    #[unroll]
                    for i in 0usize..mine_in {
                        let a = left.index(i);
                        let sum = sums.index_mut(comptime!((i * mine_out + o) * 2 + half));
                        def.execute_inplace(a, &b, sum);
                    }
                }
            }
        }
        at += comptime!(PAIRS as u32);
    }

    #[unroll]
    for i in 0usize..mine_in {
        #[unroll]
        for o in 0usize..comptime!(2 * mine_out) {
            let sum = sums.index(comptime!(i * mine_out * 2 + o));
            #[unroll]
            for e in 0usize..4usize {
                let (row, col) = def.position_of_nth(lane, e as u32, MatrixIdent::Accumulator);
                let ci = channel_in + 16u32 * (first_in + i as u32) + row;
                let co = channel_out + 16u32 * first_out + 8u32 * o as u32 + col;
                if ci < comptime!(shape.c_in as u32) && co < comptime!(shape.c_out as u32) {
                    let at = (range as usize * comptime!(shape.c_in) + ci as usize) * comptime!(shape.c_out)
                        + co as usize;
                    partial[at] = sum[comptime!(e / nc)].extract(comptime!(e % nc));
                }
            }
        }
    }
}

/// Fragments of a block of channels, and planes along them, for a number of channels.
const fn slices_of(channels: usize) -> (usize, usize) {
    match channels {
        0..=16 => (1, 1),
        17..=32 => (2, 2),
        _ => (4, 2),
    }
}

/// Blocks of channels that cubes of this kernel take.
pub(crate) const fn blocks_of(shape: ConvShape) -> usize {
    let (in_slices, _) = slices_of(shape.c_in);
    let (out_slices, _) = slices_of(shape.c_out);
    shape.c_in.div_ceil(16 * in_slices) * shape.c_out.div_ceil(16 * out_slices)
}

/// Launches [`weight_grad_mma_kernel`] over segments of pairs; `rows` of input and output, or none where pairs are rows.
pub(crate) fn sum_fragments<F: Float + CubeElement>(
    gpu: &Gpu,
    [x, dy]: [&Buffer; 2],
    rows: Option<[&Buffer; 2]>,
    cut: Cut<'_>,
    partials: &Buffer,
    shape: ConvShape,
) {
    let n_segments = cut.n_segments;
    let (in_slices, planes_in) = slices_of(shape.c_in);
    let (out_slices, planes_out) = slices_of(shape.c_out);
    let compiled = MmaGradShape {
        c_in: shape.c_in,
        c_out: shape.c_out,
        in_slices,
        out_slices,
        planes_in,
        planes_out,
        identity: rows.is_none(),
    };
    let lanes = |c: usize| if c.is_multiple_of(8) { 8 } else { 1 };
    let (x_lanes, y_lanes) = (lanes(shape.c_in), lanes(shape.c_out));
    let [in_rows, out_rows] = rows.unwrap_or([cut.splits, cut.splits]);
    let across = n_segments.min(65_535) as u32;
    let count = CubeCount::Static(across, n_segments.div_ceil(65_535) as u32, blocks_of(shape) as u32);
    // SAFETY: splits are those of the pairs, which name rows of `x` and `dy`; channels are checked by the kernel.
    unsafe {
        weight_grad_mma_kernel::launch_unchecked::<F>(
            gpu.client(),
            count,
            CubeDim::new_1d((planes_in * planes_out) as u32 * LANES),
            address_of(&[x, dy, partials]),
            x_lanes,
            y_lanes,
            x.arg(x_lanes),
            dy.arg(y_lanes),
            in_rows.arg(1),
            out_rows.arg(1),
            cut.splits.arg(1),
            partials.arg(1),
            n_segments as u32,
            cut.taps as u32,
            cut.length as u32,
            compiled,
        );
    }
}

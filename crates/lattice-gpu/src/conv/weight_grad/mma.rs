//! Weight gradient with matrix instructions.
//!
//! `dw[tap] = Σ x[in]ᵀ · dy[out]` over the pairs of the tap. A cube takes a segment of the pairs of one tap and a block of channels; it
//! stages 64 pairs at a time, those that follow being under way meanwhile, and keeps its sums in registers. Where a tap has several
//! segments, their sums go to a workspace, and the cube that comes last adds them in their order.

use cubecl::cmma::{MatrixIdent, MmaDefinition};
use cubecl::prelude::*;

use super::launch::Cut;
use super::segment::{Cutting, find_segment};
use crate::address::address_of;
use crate::arena::Life;
use crate::conv::ConvShape;
use crate::gpu::{Buffer, Gpu};
use crate::last::is_last;

/// Lanes of a plane on devices with these instructions.
const LANES: u32 = 32;
/// Pairs staged at a time.
const PAIRS: usize = 64;
/// Pairs from which on blocks of 128 channels are worth the larger sums that their segments hand over.
const MANY_PAIRS: usize = 1_000_000;
/// Sums of segments, four channels each, that a unit asks for at a time.
const AHEAD: usize = 16;

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
    pub(crate) cutting: Cutting,
}

impl MmaGradShape {
    fn new(shape: ConvShape, most_pairs: usize, cutting: Cutting) -> Self {
        let ConvShape { c_in, c_out, .. } = shape;
        let (in_slices, out_slices) = slices_of(shape, most_pairs);
        let planes_in = in_slices.min(2);
        // Sums of the widest blocks are those of twice as many planes.
        let planes_out = if (in_slices, out_slices) == (8, 8) { 4 } else { out_slices.min(2) };
        Self { c_in, c_out, in_slices, out_slices, planes_in, planes_out, cutting }
    }

    /// Blocks of channels, a cube each.
    fn blocks(&self) -> usize {
        blocks_between([self.c_in, self.c_out], (self.in_slices, self.out_slices))
    }

    fn units(&self) -> u32 {
        (self.planes_in * self.planes_out) as u32 * LANES
    }

    /// Fragments of 16 by 8 channels of a plane.
    fn fragments(&self) -> usize {
        2 * self.in_slices / self.planes_in * (self.out_slices / self.planes_out)
    }

    /// Sums of a segment, of all blocks.
    fn sums(&self) -> usize {
        self.blocks() * self.units() as usize * 4 * self.fragments()
    }

    /// Pieces of eight channels that a unit stages, of rows of `slices` fragments.
    fn pieces(&self, slices: usize) -> usize {
        PAIRS * 2 * slices / self.units() as usize
    }
}

/// Pieces from one staged pair to the next: rows that no rotation by bits fits are one longer.
const fn stride_of(width: u32) -> u32 {
    if width.is_power_of_two() { width } else { width + 1 }
}

/// Where piece `v` of a staged pair stands, so that eight pairs read at the same piece lie in different banks: rotated, or with an empty
/// piece between pairs.
#[cube]
fn staged(pair: u32, v: u32, #[comptime] width: u32) -> u32 {
    let at = pair * comptime!(stride_of(width));
    if comptime!(!width.is_power_of_two()) {
        at + v
    } else if comptime!(width < 8) {
        at + (v ^ ((pair / comptime!(8 / width)) % width))
    } else {
        at + (v ^ (pair % 8u32))
    }
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

/// Rows of the pairs whose pieces a unit stages, `skip` pairs after the first; of the last pair where there are fewer.
#[cube]
fn fetch_rows(
    rows: &mut Array<u32>,
    of_pair: &[u32],
    first: u32,
    skip: u32,
    n: u32,
    #[comptime] slices: usize,
    #[comptime] shape: MmaGradShape,
) {
    let width = comptime!(2 * slices as u32);
    #[unroll]
    for i in 0usize..comptime!(shape.pieces(slices)) {
        let pair = (UNIT_POS + comptime!(i as u32 * shape.units())) / width;
        let at = first + min(skip + pair, n - 1u32);
        if comptime!(shape.cutting.identity) {
            rows[i] = at;
        } else {
            rows[i] = of_pair[at as usize];
        }
    }
}

/// The pieces that a unit stages of such rows; zero past the last pair.
#[cube]
fn fetch_pieces<F: Float, N: Size>(
    pieces: &mut Array<Vector<F, Const<8>>>,
    features: &[Vector<F, N>],
    rows: &Array<u32>,
    channel: u32,
    left: u32,
    #[comptime] count: usize,
    #[comptime] slices: usize,
    #[comptime] shape: MmaGradShape,
) {
    let width = comptime!(2 * slices as u32);
    #[unroll]
    for i in 0usize..comptime!(shape.pieces(slices)) {
        let piece = UNIT_POS + comptime!(i as u32 * shape.units());
        let mut value = Vector::<F, Const<8>>::new(F::from_int(0i64));
        if piece / width < left {
            let at = channel + 8u32 * (piece % width);
            value = channels::<F, N>(features, rows[i], at, comptime!(count as u32));
        }
        pieces[i] = value;
    }
}

/// Puts the pieces of a unit in their places.
#[cube]
fn stage<F: Float>(
    to: &mut Shared<[Vector<F, Const<8>>]>,
    pieces: &Array<Vector<F, Const<8>>>,
    #[comptime] slices: usize,
    #[comptime] shape: MmaGradShape,
) {
    let width = comptime!(2 * slices as u32);
    #[unroll]
    for i in 0usize..comptime!(shape.pieces(slices)) {
        let piece = UNIT_POS + comptime!(i as u32 * shape.units());
        to[staged(piece / width, piece % width, width) as usize] = pieces[i];
    }
}

/// Writes the four sums that a lane has of a fragment: `row` and `column` are those of the fragment's first.
#[cube]
fn write_sums<F: Float, O: Float>(
    dw: &mut [O],
    sums: Vector<f32, Const<4>>,
    tap: u32,
    row: u32,
    column: u32,
    #[comptime] shape: MmaGradShape,
) {
    let def = MmaDefinition::<F, F, f32>::new(16usize, 8usize, 16usize);
    #[unroll]
    for e in 0usize..4usize {
        let (down, right) = def.position_of_nth(UNIT_POS % LANES, e as u32, MatrixIdent::Accumulator);
        let (ci, co) = (row + down, column + right);
        if ci < comptime!(shape.c_in as u32) && co < comptime!(shape.c_out as u32) {
            let at =
                (tap as usize * comptime!(shape.c_in) + ci as usize) * comptime!(shape.c_out) + co as usize;
            dw[at] = O::cast_from(sums.extract(e));
        }
    }
}

/// `dw[tap]` of one block of channels, from one segment of the tap's pairs a cube.
///
/// `partial`: the sums of a segment and block as units hold them, where a tap has several segments.
#[cube(launch_unchecked, address_type = "dynamic")]
pub(crate) fn weight_grad_mma_kernel<F: Float, O: Float, NX: Size, NY: Size>(
    x: &[Vector<F, NX>],
    dy: &[Vector<F, NY>],
    in_rows: &[u32],
    out_rows: &[u32],
    splits: &[u32],
    partial: &mut [Vector<f32, Const<4>>],
    counters: &mut [Atomic<u32>],
    dw: &mut [O],
    n_segments: u32,
    n_rows: u32,
    taps: u32,
    #[comptime] shape: MmaGradShape,
) {
    let number = CUBE_POS_X + CUBE_POS_Y * 65_535u32;
    if number >= n_segments {
        terminate!();
    }
    let segment = find_segment(splits, n_rows, taps, number, shape.cutting);
    if segment.parts == 0u32 {
        terminate!();
    }
    let n_pairs = segment.end - segment.begin;
    let x_width = comptime!(2 * shape.in_slices as u32);
    let y_width = comptime!(2 * shape.out_slices as u32);
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
    let mut xs = Shared::<[Vector<F, Const<8>>]>::new_aligned_slice(
        comptime!(PAIRS * stride_of(2 * shape.in_slices as u32) as usize),
        16usize,
    );
    let mut ys = Shared::<[Vector<F, Const<8>>]>::new_aligned_slice(
        comptime!(PAIRS * stride_of(2 * shape.out_slices as u32) as usize),
        16usize,
    );

    let mut arrived = Shared::<[u32]>::new_slice(1usize);
    let mut x_rows = Array::<u32>::new(comptime!(shape.pieces(shape.in_slices)));
    let mut y_rows = Array::<u32>::new(comptime!(shape.pieces(shape.out_slices)));
    let mut x_pieces = Array::<Vector<F, Const<8>>>::new(comptime!(shape.pieces(shape.in_slices)));
    let mut y_pieces = Array::<Vector<F, Const<8>>>::new(comptime!(shape.pieces(shape.out_slices)));
    let (c_in, c_out) = comptime!((shape.c_in, shape.c_out));
    let (in_slices, out_slices) = comptime!((shape.in_slices, shape.out_slices));
    // Rows are known two stages ahead and their channels one, so that neither is waited for.
    if n_pairs > 0u32 {
        fetch_rows(&mut x_rows, in_rows, segment.begin, 0u32, n_pairs, in_slices, shape);
        fetch_rows(&mut y_rows, out_rows, segment.begin, 0u32, n_pairs, out_slices, shape);
        fetch_pieces::<F, NX>(&mut x_pieces, x, &x_rows, channel_in, n_pairs, c_in, in_slices, shape);
        fetch_pieces::<F, NY>(&mut y_pieces, dy, &y_rows, channel_out, n_pairs, c_out, out_slices, shape);
        fetch_rows(&mut x_rows, in_rows, segment.begin, comptime!(PAIRS as u32), n_pairs, in_slices, shape);
        fetch_rows(&mut y_rows, out_rows, segment.begin, comptime!(PAIRS as u32), n_pairs, out_slices, shape);
    }
    // Counted from the segment's first pair: a position past the last of all might not fit in 32 bits.
    let mut done = 0u32;
    while done < n_pairs {
        sync_cube();
        stage::<F>(&mut xs, &x_pieces, in_slices, shape);
        stage::<F>(&mut ys, &y_pieces, out_slices, shape);
        sync_cube();
        done += comptime!(PAIRS as u32);
        if done < n_pairs {
            let left = n_pairs - done;
            fetch_pieces::<F, NX>(&mut x_pieces, x, &x_rows, channel_in, left, c_in, in_slices, shape);
            fetch_pieces::<F, NY>(&mut y_pieces, dy, &y_rows, channel_out, left, c_out, out_slices, shape);
            let skip = done + comptime!(PAIRS as u32);
            fetch_rows(&mut x_rows, in_rows, segment.begin, skip, n_pairs, in_slices, shape);
            fetch_rows(&mut y_rows, out_rows, segment.begin, skip, n_pairs, out_slices, shape);
        }
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
    }

    let units = comptime!(shape.units() as usize);
    let blocks = comptime!(shape.blocks());
    let fragments = comptime!(shape.fragments());
    let alone = segment.parts == 1u32;
    let mine = (number as usize * blocks + CUBE_POS_Z as usize) * fragments * units + UNIT_POS as usize;
    let row = channel_in + 16u32 * first_in;
    let column = channel_out + 16u32 * first_out;
    #[unroll]
    for i in 0usize..mine_in {
        #[unroll]
        for o in 0usize..comptime!(2 * mine_out) {
            let sum = sums.index(comptime!(i * mine_out * 2 + o));
            let mut four = Vector::<f32, Const<4>>::empty();
            #[unroll]
            for e in 0usize..4usize {
                four.insert(e, sum[comptime!(e / nc)].extract(comptime!(e % nc)));
            }
            if alone {
                let (row, column) = (row + comptime!(16 * i as u32), column + comptime!(8 * o as u32));
                write_sums::<F, O>(dw, four, segment.tap, row, column, shape);
            } else {
                partial[mine + comptime!((i * mine_out * 2 + o) * units)] = four;
            }
        }
    }
    if !alone {
        let counter = segment.tap * comptime!(blocks as u32) + CUBE_POS_Z;
        if is_last(counters, counter, segment.parts, &mut arrived) {
            let first = (segment.first as usize * blocks + CUBE_POS_Z as usize) * fragments * units;
            let mut totals = Array::<Vector<f32, Const<4>>>::new(fragments);
            #[unroll]
            for fragment in 0usize..fragments {
                totals[fragment] = Vector::new(0.0f32);
            }
            let ahead = comptime!(AHEAD.div_ceil(fragments));
            let mut part = 0u32;
            while part < segment.parts {
                // Several are asked for at a time, and added in order.
                let mut found = Array::<Vector<f32, Const<4>>>::new(comptime!(ahead * fragments));
                #[unroll]
                for i in 0usize..ahead {
                    let from = min(part + i as u32, segment.parts - 1u32) as usize;
                    let at = first + from * comptime!(blocks * fragments * units) + UNIT_POS as usize;
                    #[unroll]
                    for fragment in 0usize..fragments {
                        found[comptime!(i * fragments + fragment)] =
                            partial[at + comptime!(fragment * units)];
                    }
                }
                #[unroll]
                for i in 0usize..ahead {
                    if part + (i as u32) < segment.parts {
                        #[unroll]
                        for fragment in 0usize..fragments {
                            totals[fragment] += found[comptime!(i * fragments + fragment)];
                        }
                    }
                }
                part += comptime!(ahead as u32);
            }
            #[unroll]
            for fragment in 0usize..fragments {
                let row = row + comptime!((16 * (fragment / (2 * mine_out))) as u32);
                let column = column + comptime!((8 * (fragment % (2 * mine_out))) as u32);
                write_sums::<F, O>(dw, totals[fragment], segment.tap, row, column, shape);
            }
        }
    }
}

/// Fragments of 16 channels of a block, of the input's and of the output's. Wide blocks read every row fewer times: on a million pairs, 128
/// by 128 channels take 0.7 to 0.8 of the time of four blocks of 64 by 64, and 96 by 96 channels 0.55 (one H200).
fn slices_of(shape: ConvShape, most_pairs: usize) -> (usize, usize) {
    let ConvShape { c_in, c_out, .. } = shape;
    match (widest(c_in), widest(c_out)) {
        (6, 6) => (6, 6),
        (8, 8) if most_pairs >= MANY_PAIRS => (8, 8),
        (wide_in, wide_out) => (wide_in.min(4), wide_out.min(4)),
    }
}

/// Fragments of the widest block for a number of channels; of blocks of 96 and of 128 channels, those that leave fewer empty.
fn widest(channels: usize) -> usize {
    match channels {
        0..=16 => 1,
        17..=32 => 2,
        33..=64 => 4,
        _ if channels.next_multiple_of(96) < channels.next_multiple_of(128) => 6,
        _ => 8,
    }
}

/// Blocks of channels that cubes of this kernel take.
pub(crate) fn blocks_of(shape: ConvShape, most_pairs: usize) -> usize {
    blocks_between([shape.c_in, shape.c_out], slices_of(shape, most_pairs))
}

/// Blocks of so many fragments of the input's and the output's channels.
fn blocks_between([c_in, c_out]: [usize; 2], (in_slices, out_slices): (usize, usize)) -> usize {
    c_in.div_ceil(16 * in_slices) * c_out.div_ceil(16 * out_slices)
}

/// The gradient `dw` from segments of pairs, whose input and output rows are given. One launch.
pub(crate) fn sum_fragments<F: Float + CubeElement, O: Float + CubeElement>(
    gpu: &Gpu,
    [x, dy]: [&Buffer; 2],
    [in_rows, out_rows]: [&Buffer; 2],
    cut: Cut<'_>,
    dw: &Buffer,
    shape: ConvShape,
) {
    let n_segments = cut.n_segments;
    let compiled = MmaGradShape::new(shape, cut.most_pairs, cut.cutting);
    let partials = gpu.room(n_segments * compiled.sums(), 4, Life::Passing);
    let counters = gpu.counters(cut.taps * compiled.blocks());
    let lanes = |c: usize| if c.is_multiple_of(8) { 8 } else { 1 };
    let (x_lanes, y_lanes) = (lanes(shape.c_in), lanes(shape.c_out));
    let across = n_segments.min(65_535) as u32;
    let count = CubeCount::Static(across, n_segments.div_ceil(65_535) as u32, compiled.blocks() as u32);
    let address = address_of(&[x, dy, &partials, dw]);
    let kernel = ("weight_grad_mma", std::any::type_name::<(F, O)>(), x_lanes, y_lanes, address, compiled);
    gpu.launch(count, kernel, |client, count| {
        // SAFETY: splits are those of the pairs, which name rows of `x` and `dy`; channels are checked by the kernel; there is room for the
        // sums of every segment where a tap has several.
        unsafe {
            weight_grad_mma_kernel::launch_unchecked::<F, O>(
                client,
                count,
                CubeDim::new_1d(compiled.units()),
                address,
                x_lanes,
                y_lanes,
                x.arg(x_lanes),
                dy.arg(y_lanes),
                in_rows.arg(1),
                out_rows.arg(1),
                cut.splits.arg(1),
                partials.arg(4),
                counters.arg(1),
                dw.arg(1),
                n_segments as u32,
                cut.n_rows,
                cut.taps as u32,
                compiled,
            );
        }
    });
}

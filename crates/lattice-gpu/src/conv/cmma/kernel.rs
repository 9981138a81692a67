//! The kernel of [`super`].

use cubecl::cmma::{self, Matrix, MatrixIdent, MatrixLayout};
use cubecl::prelude::*;

use super::EDGE;
use super::pack::FRAGMENT_VECTORS;
use crate::conv::finish::{Operands, finish_sum};
use crate::conv::mma::After;
use crate::tiles::{CHUNK_ROWS, HALO_ROWS, NO_ROW, SPAN_WORDS, TILE_ROWS};

/// Planes of a cube.
pub(super) const PLANES: u32 = 8;
/// Rows of a tile that a plane does: two fragments.
const PLANE_ROWS: usize = TILE_ROWS / PLANES as usize;

/// Sizes and options that the kernel is compiled for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct CmmaShape {
    pub(super) c_in: usize,
    pub(super) c_out: usize,
    pub(super) taps: u32,
    pub(super) span_words: u32,
    /// Units of a plane.
    pub(super) lanes: u32,
    /// Fragments of output channels a plane holds.
    pub(super) columns: usize,
    /// Fragments of input channels gathered at a time.
    pub(super) steps: usize,
    pub(super) after: After,
}

impl CmmaShape {
    /// Blocks of output channels, a cube each.
    pub(super) fn blocks(&self) -> u32 {
        self.c_out.div_ceil(EDGE * self.columns) as u32
    }

    /// Vectors of eight that a row takes where it is gathered: one more than it has channels, so that rows fall on different banks.
    fn row_vectors(&self) -> usize {
        2 * self.steps + 1
    }
}

/// Vectors of a plane's gathered rows that a unit takes.
const fn pieces(shape: &CmmaShape) -> usize {
    (PLANE_ROWS * 2 * shape.steps).div_ceil(shape.lanes as usize)
}

/// Asks for the channels from `channel` on of a plane's rows under a tap; rows that lack it get zeros, fragments without the tap nothing.
#[cube]
fn ask<F: Float, N: Size>(
    values: &mut Array<Vector<F, Const<8>>>,
    x: &[Vector<F, N>],
    table: &[u32],
    halo: &[u32],
    at_halo: u32,
    words: u32,
    tap: u32,
    bits: u32,
    channel: u32,
    first_place: u32,
    lane: u32,
    #[comptime] shape: CmmaShape,
) {
    // Where the local numbers of the tap are, two taps a word.
    let at_words = (words + tap / 2u32) * comptime!(TILE_ROWS as u32);
    let half = 16u32 * (tap % 2u32);
    let nx = N::value();
    let width = comptime!(2 * shape.steps as u32);
    let c_in = comptime!(shape.c_in as u32);
    #[unroll]
    for i in 0usize..comptime!(pieces(&shape)) {
        let piece = comptime!(i as u32 * shape.lanes) + lane;
        let row = piece / width;
        let v = piece % width;
        let inside = row < comptime!(PLANE_ROWS as u32);
        let mut value = Vector::<F, Const<8>>::new(F::from_int(0i64));
        if inside && (bits >> (row / comptime!(EDGE as u32) * 2u32)) & 3u32 != 0u32 {
            let place = first_place + row;
            let local = (table[(at_words + place) as usize] >> half) & 0xFFFFu32;
            let from = channel + v * 8u32;
            if local < comptime!(HALO_ROWS as u32) {
                let source = halo[(at_halo + local) as usize] as usize;
                if comptime!(nx == 8) {
                    if from < c_in {
                        value =
                            Vector::cast_from(x[source * comptime!(shape.c_in / 8) + (from / 8u32) as usize]);
                    }
                } else {
                    #[unroll]
                    for k in 0usize..8usize {
                        if from + (k as u32) < c_in {
                            value.insert(
                                k,
                                x[source * comptime!(shape.c_in) + from as usize + k].extract(0usize),
                            );
                        }
                    }
                }
            }
        }
        values[i] = value;
    }
}

/// Puts what was asked for where fragments are loaded from; fragments without the tap keep what the last one left.
#[cube]
fn put<F: Float>(
    values: &Array<Vector<F, Const<8>>>,
    gathered: &mut Shared<[Vector<F, Const<8>>]>,
    bits: u32,
    first_place: u32,
    lane: u32,
    #[comptime] shape: CmmaShape,
) {
    let width = comptime!(2 * shape.steps as u32);
    #[unroll]
    for i in 0usize..comptime!(pieces(&shape)) {
        let piece = comptime!(i as u32 * shape.lanes) + lane;
        let row = piece / width;
        let inside = row < comptime!(PLANE_ROWS as u32);
        if inside && (bits >> (row / comptime!(EDGE as u32) * 2u32)) & 3u32 != 0u32 {
            let at = (first_place + row) * comptime!(shape.row_vectors() as u32) + piece % width;
            gathered[at as usize] = values[i];
        }
    }
}

/// The first tap from one on that a plane's chunks have, or `end`; and which of its chunks, two a fragment of rows.
#[cube]
fn next_tap(
    chunk_bits: &[u32],
    from: u32,
    end: u32,
    tile: u32,
    plane: u32,
    #[comptime] taps: u32,
) -> (u32, u32) {
    let mut tap = from;
    let mut bits = 0u32;
    while tap < end && bits == 0u32 {
        let word = chunk_bits[(tile * taps + tap) as usize];
        bits = (word >> (plane * comptime!((PLANE_ROWS / CHUNK_ROWS) as u32))) & 15u32;
        if bits == 0u32 {
            tap += 1u32;
        }
    }
    (tap, bits)
}

/// `y[o] = epilogue(Σ x[i] · weight[tap])` for one tile and block of output channels a cube; every output row is written once.
#[cube(launch_unchecked, address_type = "dynamic")]
pub(super) fn conv_cmma_kernel<F: Float, N: Size, Y: Size>(
    x: &[Vector<F, N>],
    packed: &[Vector<F, Const<8>>],
    operands: Operands<F, Y>,
    y: &mut [Vector<F, Y>],
    tile_rows: &[u32],
    table: &[u32],
    chunk_bits: &[u32],
    halo: &[u32],
    spans: &[u32],
    n_rows: u32,
    #[comptime] shape: CmmaShape,
) {
    let cube = CUBE_POS_X + CUBE_POS_Y * 65_535u32;
    let tile = cube / comptime!(shape.blocks());
    let block = cube % comptime!(shape.blocks());
    let first_row = tile * comptime!(TILE_ROWS as u32);
    if first_row >= n_rows {
        terminate!();
    }
    let lanes = comptime!(shape.lanes);
    let lane = UNIT_POS % lanes;
    let plane = UNIT_POS / lanes;
    let first_place = plane * comptime!(PLANE_ROWS as u32);
    let c_in = comptime!(shape.c_in as u32);
    let all_steps = comptime!(shape.c_in.div_ceil(EDGE) as u32);
    let all_columns = comptime!(shape.c_out.div_ceil(EDGE) as u32);
    let first_column = block * comptime!(shape.columns as u32);
    let ny = Y::value();
    let row_vectors = comptime!(shape.row_vectors());

    let mut gathered =
        Shared::<[Vector<F, Const<8>>]>::new_aligned_slice(comptime!(TILE_ROWS * row_vectors), 32usize);
    let mut values = Array::<Vector<F, Const<8>>>::new(comptime!(pieces(&shape)));
    let mut finished = Shared::<[f32]>::new_aligned_slice(comptime!(PLANES as usize * EDGE * EDGE), 32usize);
    let mut sums = Sequence::<Matrix<f32>>::new();
    #[unroll]
    for _ in 0usize..comptime!(2 * shape.columns) {
        sums.push(Matrix::<f32>::from_value(
            MatrixIdent::Accumulator,
            EDGE,
            EDGE,
            EDGE,
            MatrixLayout::Undefined,
            0.0f32,
        ));
    }

    let first_span = tile * comptime!(shape.span_words);
    let n_phases = spans[first_span as usize];
    for phase in 0u32..n_phases {
        let span = first_span + (phase + 1u32) * SPAN_WORDS;
        let at_halo = spans[span as usize];
        let begin = spans[(span + 2u32) as usize];
        let end = spans[(span + 3u32) as usize];
        for part in 0u32..comptime!(shape.c_in.div_ceil(EDGE * shape.steps) as u32) {
            let first_step = part * comptime!(shape.steps as u32);
            let channel = first_step * comptime!(EDGE as u32);
            let (first_tap, first_bits) = next_tap(chunk_bits, begin, end, tile, plane, shape.taps);
            let mut tap = first_tap;
            let mut bits = first_bits;
            let words = tile * comptime!(shape.taps.div_ceil(2));
            if tap < end {
                ask::<F, N>(
                    &mut values,
                    x,
                    table,
                    halo,
                    at_halo,
                    words,
                    tap,
                    bits,
                    channel,
                    first_place,
                    lane,
                    shape,
                );
            }
            while tap < end {
                put::<F>(&values, &mut gathered, bits, first_place, lane, shape);
                sync_plane();
                // The rows of the next tap are on their way during the products of this one.
                let (next, next_bits) = next_tap(chunk_bits, tap + 1u32, end, tile, plane, shape.taps);
                if next < end {
                    ask::<F, N>(
                        &mut values,
                        x,
                        table,
                        halo,
                        at_halo,
                        words,
                        next,
                        next_bits,
                        channel,
                        first_place,
                        lane,
                        shape,
                    );
                }
                #[unroll]
                for step in 0usize..comptime!(shape.steps) {
                    let at_step = first_step + step as u32;
                    if at_step * comptime!(EDGE as u32) < c_in {
                        let at = ((tap * all_steps + at_step) * all_columns + first_column) as usize;
                        let mut rows = Sequence::<Matrix<F>>::new();
                        #[unroll]
                        for side in 0usize..2usize {
                            // SAFETY: loaded before it is read.
                            let mut a = unsafe {
                                Matrix::<F>::uninitialized(
                                    MatrixIdent::A,
                                    EDGE,
                                    EDGE,
                                    EDGE,
                                    MatrixLayout::RowMajor,
                                )
                            };
                            // A fragment without the tap holds what the last one left, and is not multiplied.
                            let from = (first_place as usize + comptime!(side * EDGE)) * row_vectors
                                + comptime!(2 * step);
                            cmma::load(
                                &mut a,
                                &gathered[from..from + comptime!((EDGE - 1) * row_vectors + 2)],
                                comptime!(8 * row_vectors as u32).runtime(),
                            );
                            rows.push(a);
                        }
                        #[unroll]
                        for column in 0usize..comptime!(shape.columns) {
                            if first_column + (column as u32) < all_columns {
                                // SAFETY: loaded before it is read.
                                let mut b = unsafe {
                                    Matrix::<F>::uninitialized(
                                        MatrixIdent::B,
                                        EDGE,
                                        EDGE,
                                        EDGE,
                                        MatrixLayout::RowMajor,
                                    )
                                };
                                let from = (at + column) * FRAGMENT_VECTORS;
                                cmma::load(
                                    &mut b,
                                    &packed[from..from + FRAGMENT_VECTORS],
                                    comptime!(EDGE as u32).runtime(),
                                );
                                #[unroll]
                                for side in 0usize..2usize {
                                    if (bits >> comptime!(2 * side as u32)) & 3u32 != 0u32 {
                                        let sum = sums.index(comptime!(side * shape.columns + column));
                                        cmma::execute(rows.index(side), &b, sum, sum);
                                    }
                                }
                            }
                        }
                    }
                }
                sync_plane();
                tap = next;
                bits = next_bits;
            }
        }
    }

    let at_finished = plane as usize * comptime!(EDGE * EDGE);
    #[unroll]
    for side in 0usize..2usize {
        #[unroll]
        for column in 0usize..comptime!(shape.columns) {
            cmma::store(
                &mut finished[at_finished..at_finished + comptime!(EDGE * EDGE)],
                sums.index(comptime!(side * shape.columns + column)),
                comptime!(EDGE as u32).runtime(),
                MatrixLayout::RowMajor,
            );
            sync_plane();
            // A lane writes eight channels of a row.
            let row = lane / 2u32;
            let first = lane % 2u32 * 8u32;
            if row < comptime!(EDGE as u32) {
                let place = first_row + first_place + comptime!((side * EDGE) as u32) + row;
                let out = tile_rows[place as usize];
                if out != NO_ROW {
                    #[unroll]
                    for piece in 0usize..comptime!(8 / ny) {
                        let within = first + comptime!((piece * ny) as u32);
                        let channel = (first_column + column as u32) * comptime!(EDGE as u32) + within;
                        if channel < comptime!(shape.c_out as u32) {
                            let mut sum = Vector::<f32, Y>::empty();
                            #[unroll]
                            for i in 0usize..ny {
                                let at = at_finished + row as usize * EDGE + within as usize + i;
                                sum.insert(i, finished[at]);
                            }
                            let place = channel as usize / ny;
                            let at = out as usize * comptime!(shape.c_out / ny) + place;
                            y[at] = finish_sum(sum, place, at, &operands, comptime!(shape.after));
                        }
                    }
                }
            }
            sync_plane();
        }
    }
}

//! The kernel of [`super`].

use cubecl::cmma::{self, Matrix, MatrixIdent, MatrixLayout};
use cubecl::prelude::*;

use super::EDGE;
use super::pack::FRAGMENT_VECTORS;
use super::plan::CmmaPlan;
use crate::conv::finish::{Operands, finish_sum};
use crate::conv::mma::After;
use crate::tiles::{CHUNK_ROWS, HALO_ROWS, NO_ROW, SPAN_WORDS, TILE_ROWS};

/// What the kernel is compiled for: one kernel serves layers of all sizes, as a kernel takes a driver a second to compile.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct CmmaShape {
    /// Units of a plane.
    pub(super) lanes: u32,
    pub(super) plan: CmmaPlan,
    pub(super) after: After,
}

/// What the kernel is told of sizes when it runs.
#[derive(CubeType, CubeLaunch, Clone, Copy)]
pub(super) struct Sizes {
    pub(super) c_in: u32,
    pub(super) c_out: u32,
    pub(super) taps: u32,
    pub(super) span_words: u32,
    /// Blocks of output channels, a cube each.
    pub(super) blocks: u32,
}

impl CmmaShape {
    /// Vectors of a plane's gathered rows that a unit takes.
    const fn pieces(&self) -> usize {
        (self.plan.rows() * 2 * self.plan.steps).div_ceil(self.lanes as usize)
    }

    /// A bit for each chunk of a plane.
    const fn chunk_mask(&self) -> u32 {
        (1 << (self.plan.rows() / CHUNK_ROWS)) - 1
    }
}

/// No tap.
const NO_TAP: u32 = u32::MAX;

/// Which chunks of a plane have the tap of each lane, the first lane's being `first`; none outside of a phase. The tile's words start at `first_bits`.
#[cube]
fn chunks_of_taps(
    chunk_bits: &[u32],
    first_bits: u32,
    first: u32,
    begin: u32,
    end: u32,
    first_place: u32,
    lane: u32,
    #[comptime] shape: CmmaShape,
) -> u32 {
    let tap = first + lane;
    let mut bits = 0u32;
    if tap >= begin && tap < end {
        let word = chunk_bits[(first_bits + tap) as usize];
        bits = (word >> (first_place / comptime!(CHUNK_ROWS as u32))) & comptime!(shape.chunk_mask());
    }
    bits
}

/// The first tap from one on among those of the lanes that one of the plane's chunks has.
#[cube]
fn tap_from(mine: u32, first: u32, from: u32, lane: u32) -> u32 {
    let tap = first + lane;
    plane_min(select(mine != 0u32 && tap >= from, tap, NO_TAP))
}

/// A word of the table, with what the row of a lane has for a tap and another one.
#[cube]
fn word_of(table: &[u32], first_word: u32, tap: u32, lane_place: u32) -> u32 {
    table[((first_word + tap / 2u32) * comptime!(TILE_ROWS as u32) + lane_place) as usize]
}

/// The input row of a lane's row under a tap, of the word that has it, or [`NO_ROW`].
#[cube]
fn source_of(word: u32, sources: &Shared<[u32]>, tap: u32) -> u32 {
    let local = (word >> (16u32 * (tap % 2u32))) & 0xFFFFu32;
    let has = local < comptime!(HALO_ROWS as u32);
    select(has, sources[select(has, local, 0u32) as usize], NO_ROW)
}

/// Asks for the channels from `channel` on of a plane's rows, each lane knowing the `source` of one; zeros where there is none.
#[cube]
fn ask<F: Float, N: Size>(
    values: &mut Array<Vector<F, Const<8>>>,
    x: &[Vector<F, N>],
    source: u32,
    channel: u32,
    c_in: u32,
    lane: u32,
    #[comptime] shape: CmmaShape,
) {
    let nx = N::value();
    let width = comptime!(2 * shape.plan.steps as u32);
    let rows = comptime!(shape.plan.rows() as u32);
    let mut sources = Array::<u32>::new(comptime!(shape.pieces()));
    #[unroll]
    for i in 0usize..comptime!(shape.pieces()) {
        let row = (comptime!(i as u32 * shape.lanes) + lane) / width;
        sources[i] = plane_shuffle(source, row % rows);
    }
    #[unroll]
    for i in 0usize..comptime!(shape.pieces()) {
        let piece = comptime!(i as u32 * shape.lanes) + lane;
        let from = channel + piece % width * 8u32;
        let mut value = Vector::<F, Const<8>>::new(F::from_int(0i64));
        if sources[i] != NO_ROW && piece < comptime!(rows * width) {
            let source = sources[i] as usize;
            if comptime!(nx == 8) {
                if from < c_in {
                    value = Vector::cast_from(x[source * (c_in / 8u32) as usize + (from / 8u32) as usize]);
                }
            } else {
                #[unroll]
                for k in 0usize..8usize {
                    if from + (k as u32) < c_in {
                        value.insert(k, x[source * c_in as usize + from as usize + k].extract(0usize));
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
    first_row: u32,
    lane: u32,
    #[comptime] shape: CmmaShape,
) {
    let width = comptime!(2 * shape.plan.steps as u32);
    #[unroll]
    for i in 0usize..comptime!(shape.pieces()) {
        let piece = comptime!(i as u32 * shape.lanes) + lane;
        let row = piece / width;
        let inside = row < comptime!(shape.plan.rows() as u32);
        if inside && (bits >> (row / comptime!(EDGE as u32) * 2u32)) & 3u32 != 0u32 {
            let at = (first_row + row) * comptime!(shape.plan.row_vectors() as u32) + piece % width;
            gathered[at as usize] = values[i];
        }
    }
}

/// Adds the products of a plane's gathered rows with the weights of a tap; a fragment without it holds what the last one left, and is skipped.
#[cube]
fn multiply<F: Float>(
    sums: &Sequence<Matrix<f32>>,
    gathered: &Shared<[Vector<F, Const<8>>]>,
    packed: &[Vector<F, Const<8>>],
    tap: u32,
    bits: u32,
    first_step: u32,
    first_column: u32,
    first_row: u32,
    sizes: &Sizes,
    #[comptime] shape: CmmaShape,
) {
    let columns = comptime!(shape.plan.columns);
    let row_vectors = comptime!(shape.plan.row_vectors());
    // Weights have whole plans along both, so that no branch stands around a product.
    let all_steps =
        sizes.c_in.div_ceil(comptime!((EDGE * shape.plan.steps) as u32)) * comptime!(shape.plan.steps as u32);
    let all_columns = sizes.blocks * columns as u32;
    #[unroll]
    for step in 0usize..comptime!(shape.plan.steps) {
        let mut rows = Sequence::<Matrix<F>>::new();
        #[unroll]
        for side in 0usize..comptime!(shape.plan.sides) {
            // SAFETY: loaded before it is read.
            let mut a = unsafe {
                Matrix::<F>::uninitialized(MatrixIdent::A, EDGE, EDGE, EDGE, MatrixLayout::RowMajor)
            };
            let from = (first_row as usize + comptime!(side * EDGE)) * row_vectors + comptime!(2 * step);
            cmma::load(
                &mut a,
                &gathered[from..from + comptime!((EDGE - 1) * row_vectors + 2)],
                comptime!(8 * row_vectors as u32).runtime(),
            );
            rows.push(a);
        }
        let at = (tap * all_steps + first_step + step as u32) * all_columns + first_column;
        #[unroll]
        for column in 0usize..columns {
            // SAFETY: loaded before it is read.
            let mut b = unsafe {
                Matrix::<F>::uninitialized(MatrixIdent::B, EDGE, EDGE, EDGE, MatrixLayout::ColMajor)
            };
            let from = (at as usize + column) * FRAGMENT_VECTORS;
            cmma::load(&mut b, &packed[from..from + FRAGMENT_VECTORS], comptime!(EDGE as u32).runtime());
            #[unroll]
            for side in 0usize..comptime!(shape.plan.sides) {
                let sum = sums.index(comptime!(side * columns + column));
                if (bits >> comptime!(2 * side as u32)) & 3u32 != 0u32 {
                    cmma::execute(rows.index(side), &b, sum, sum);
                }
            }
        }
    }
}

/// `y[o] = epilogue(Σ x[i] · weight[tap])` for rows of one tile and a block of output channels a cube; every output row is written once.
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
    sizes: Sizes,
    #[comptime] shape: CmmaShape,
) {
    let plan = comptime!(shape.plan);
    let cube = CUBE_POS_X + CUBE_POS_Y * 65_535u32;
    let block = cube % sizes.blocks;
    let of_tile = cube / sizes.blocks;
    let part = of_tile % comptime!(plan.parts());
    let tile = of_tile / comptime!(plan.parts());
    let first_of_tile = tile * comptime!(TILE_ROWS as u32);
    if first_of_tile >= n_rows {
        terminate!();
    }
    let lanes = comptime!(shape.lanes);
    let lane = UNIT_POS % lanes;
    let plane = UNIT_POS / lanes;
    // Where a plane's rows are in its cube and in the tile, and where a lane's row is there.
    let first_row = plane * comptime!(plan.rows() as u32);
    let first_place = part * comptime!(plan.planes * plan.rows() as u32) + first_row;
    let lane_place = first_place + lane % comptime!(plan.rows() as u32);
    let first_column = block * comptime!(plan.columns as u32);
    let ny = Y::value();

    let mut gathered = Shared::<[Vector<F, Const<8>>]>::new_aligned_slice(
        comptime!(plan.planes as usize * plan.rows() * plan.row_vectors()),
        32usize,
    );
    let mut sources = Shared::<[u32]>::new_slice(HALO_ROWS);
    let mut values = Array::<Vector<F, Const<8>>>::new(comptime!(shape.pieces()));
    let mut finished =
        Shared::<[f32]>::new_aligned_slice(comptime!(plan.planes as usize * EDGE * EDGE), 32usize);
    let mut sums = Sequence::<Matrix<f32>>::new();
    #[unroll]
    for _ in 0usize..comptime!(plan.sides * plan.columns) {
        sums.push(Matrix::<f32>::from_value(
            MatrixIdent::Accumulator,
            EDGE,
            EDGE,
            EDGE,
            MatrixLayout::Undefined,
            0.0f32,
        ));
    }

    let first_word = tile * sizes.taps.div_ceil(2u32);
    let first_bits = tile * sizes.taps;
    let first_span = tile * sizes.span_words;
    let n_phases = spans[first_span as usize];
    for phase in 0u32..n_phases {
        let span = first_span + (phase + 1u32) * SPAN_WORDS;
        let at_halo = spans[span as usize];
        let n_halo = spans[(span + 1u32) as usize];
        let begin = spans[(span + 2u32) as usize];
        let end = spans[(span + 3u32) as usize];
        sync_cube();
        for i in range_stepped(UNIT_POS, n_halo, CUBE_DIM) {
            sources[i as usize] = halo[(at_halo + i) as usize];
        }
        sync_cube();
        for at_part in 0u32..sizes.c_in.div_ceil(comptime!((EDGE * plan.steps) as u32)) {
            let first_step = at_part * comptime!(plan.steps as u32);
            let channel = first_step * comptime!(EDGE as u32);
            // A tap a lane at a time.
            for group in 0u32..sizes.taps.div_ceil(lanes) {
                let first = group * lanes;
                let mine =
                    chunks_of_taps(chunk_bits, first_bits, first, begin, end, first_place, lane, shape);
                sync_plane();
                let mut tap = tap_from(mine, first, first, lane);
                let mut next = NO_TAP.runtime();
                let mut word = 0u32;
                if tap != NO_TAP {
                    let source = source_of(word_of(table, first_word, tap, lane_place), &sources, tap);
                    ask::<F, N>(&mut values, x, source, channel, sizes.c_in, lane, shape);
                    sync_plane();
                    next = tap_from(mine, first, tap + 1u32, lane);
                    if next != NO_TAP {
                        word = word_of(table, first_word, next, lane_place);
                    }
                }
                while tap != NO_TAP {
                    let bits = plane_shuffle(mine, tap - first);
                    put::<F>(&values, &mut gathered, bits, first_row, lane, shape);
                    sync_plane();
                    // During the products of a tap the rows of the next one are on their way, and so are the numbers of those of the one after.
                    let mut after = NO_TAP.runtime();
                    if next != NO_TAP {
                        let source = source_of(word, &sources, next);
                        ask::<F, N>(&mut values, x, source, channel, sizes.c_in, lane, shape);
                        sync_plane();
                        after = tap_from(mine, first, next + 1u32, lane);
                        if after != NO_TAP {
                            word = word_of(table, first_word, after, lane_place);
                        }
                    }
                    multiply::<F>(
                        &sums,
                        &gathered,
                        packed,
                        tap,
                        bits,
                        first_step,
                        first_column,
                        first_row,
                        &sizes,
                        shape,
                    );
                    sync_plane();
                    tap = next;
                    next = after;
                }
            }
        }
    }

    let at_finished = plane as usize * comptime!(EDGE * EDGE);
    #[unroll]
    for side in 0usize..comptime!(plan.sides) {
        #[unroll]
        for column in 0usize..comptime!(plan.columns) {
            cmma::store(
                &mut finished[at_finished..at_finished + comptime!(EDGE * EDGE)],
                sums.index(comptime!(side * plan.columns + column)),
                comptime!(EDGE as u32).runtime(),
                MatrixLayout::RowMajor,
            );
            sync_plane();
            // A lane writes eight channels of a row.
            let row = lane / 2u32;
            let first = lane % 2u32 * 8u32;
            if row < comptime!(EDGE as u32) {
                let place = first_of_tile + first_place + comptime!((side * EDGE) as u32) + row;
                let out = tile_rows[place as usize];
                if out != NO_ROW {
                    #[unroll]
                    for piece in 0usize..comptime!(8 / ny) {
                        let within = first + comptime!((piece * ny) as u32);
                        let channel = (first_column + column as u32) * comptime!(EDGE as u32) + within;
                        if channel < sizes.c_out {
                            let mut sum = Vector::<f32, Y>::empty();
                            #[unroll]
                            for i in 0usize..ny {
                                let at = at_finished + row as usize * EDGE + within as usize + i;
                                sum.insert(i, finished[at]);
                            }
                            let place = channel as usize / ny;
                            let at = out as usize * (sizes.c_out as usize / ny) + place;
                            y[at] = finish_sum(sum, place, at, &operands, comptime!(shape.after));
                        }
                    }
                }
            }
            sync_plane();
        }
    }
}

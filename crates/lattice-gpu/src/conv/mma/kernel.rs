//! The kernel of [`super`].

use cubecl::cmma::{MatrixIdent, MmaDefinition};
use cubecl::prelude::*;

use super::byte_taps::add_byte_taps;
use super::bytes::{stage_sums, zero_bytes};
use super::form::Beside;
use super::places::{TapsOf, pair_of, staged, staged_places};
use super::plan::{EDGE, LANES};
use super::products::{Strides, add_taps};
use super::shape::{MmaShape, Sizes};
use crate::conv::finish::{OfColumn, Operands, finish, of_column, residual_at};
use crate::last::is_last;
use crate::tiles::{CHUNK_ROWS, HALO_ROWS, NO_ROW, SPAN_WORDS, TILE_ROWS};

/// Chunks of rows whose residuals are asked for at a time.
const FINISHED: usize = 4;

/// A size that the kernel is told, or one that it is compiled for.
#[cube]
fn size(told: u32, #[comptime] known: u32, #[comptime] is_told: bool) -> u32 {
    if is_told { told } else { known.runtime() }
}

/// Asks for the input rows of the pieces of 16 bytes that a unit stages from `first` on; past the last, for that of the last.
#[cube]
fn ask_for_rows(
    rows: &mut Array<u32>,
    halo: &[u32],
    at_halo: u32,
    n_halo: u32,
    first: u32,
    #[comptime] ahead: usize,
    #[comptime] shape: MmaShape,
) {
    let units = comptime!(shape.plan.units() as u32);
    let width = comptime!(shape.plan.depth as u32 / 8);
    #[unroll]
    for i in 0usize..ahead {
        let local = min((first + i as u32 * units) / width, n_halo - 1u32);
        rows[i] = halo[(at_halo + local) as usize];
    }
}

/// `y[o] = epilogue(Σ x[i] · weight[tap])` for one tile a cube; every output row is written once.
///
/// Elements of 32 bits are rounded to `E` and multiplied as such. All positions of channels are in halves of 16 bits, so that a word is a
/// word whatever it holds; `P` elements are 16 bytes.
///
/// Weights are of a [`Form`]: fragments as they are multiplied, or codes that a lane unpacks when it has loaded them, into the same
/// fragments, or codes that are multiplied with bytes. Features in bytes are `X` of 16 bits that nobody computes with.
#[cube(launch_unchecked, address_type = "dynamic")]
pub(super) fn conv_mma_kernel<X: Float, F: Float, E: Float, P: Size, N: Size, Y: Size, W: Size, A: Size>(
    x: &[Vector<X, N>],
    packed: &[Vector<u32, W>],
    beside: Beside<X, P, A>,
    operands: Operands<F, Y>,
    y: &mut [Vector<F, Y>],
    tile_rows: &[u32],
    table: &[u32],
    chunk_bits: &[u32],
    halo: &[u32],
    spans: &[u32],
    handed: &mut [Vector<f32, Const<4>>],
    counters: &mut [Atomic<u32>],
    n_rows: u32,
    sizes: Sizes,
    #[comptime] shape: MmaShape,
) {
    let cube = CUBE_POS_X + CUBE_POS_Y * 65_535u32;
    let is_split = comptime!(shape.plan.splits() > 1);
    let is_told = comptime!(shape.is_told());
    let part_splits = size(sizes.part_splits, comptime!(shape.plan.part_splits as u32), is_told);
    let tap_splits = size(sizes.tap_splits, comptime!(shape.plan.tap_splits as u32), is_told);
    let mut splits = 1u32;
    if is_split {
        splits = part_splits * tap_splits;
    }
    let of_block = cube / splits;
    let split = cube % splits;
    let blocks = size(sizes.blocks, comptime!(shape.blocks()), is_told);
    let tile = of_block / blocks;
    let block = of_block % blocks;
    let first_row = tile * comptime!(TILE_ROWS as u32);
    if first_row >= n_rows {
        terminate!();
    }
    let plan = comptime!(shape.plan);
    let c_in = size(sizes.c_in, comptime!(shape.c_in as u32), is_told);
    let c_out = size(sizes.c_out, comptime!(shape.c_out as u32), is_told);
    let taps = size(sizes.taps, comptime!(shape.taps), is_told);
    let span_words = size(sizes.span_words, comptime!(shape.span_words), is_told);
    let depth = comptime!(plan.depth as u32);
    let width = comptime!(depth / 8);
    let steps = comptime!(plan.depth / EDGE);
    let n_phases = spans[(tile * span_words) as usize];
    let units = comptime!(plan.units() as u32);
    let ahead = comptime!(shape.loads_ahead());
    let lane = UNIT_POS % LANES;
    let plane = UNIT_POS / LANES;
    let row_group = plane / comptime!(plan.slice_groups as u32);
    let slice_group = plane % comptime!(plan.slice_groups as u32);
    let first_slice = block * comptime!((plan.slice_groups * plan.slices) as u32)
        + slice_group * comptime!(plan.slices as u32);
    let pairs = comptime!(shape.pairs());
    let table_staged = comptime!(plan.table_staged);

    let halves = comptime!(shape.halves);
    let def = MmaDefinition::<E, E, f32>::new(16usize, 8usize, comptime!(16 / halves));
    let nc = def.vector_size(MatrixIdent::Accumulator);
    let size!(NC) = nc;
    let n_c = comptime!(4 / nc);
    let (nx, piece_lanes) = (N::value(), P::value());
    let ny = Y::value();

    let mut sums = Sequence::<Array<Vector<f32, NC>>>::new();
    #[unroll]
    for _ in 0usize..comptime!(2 * pairs * plan.slices) {
        let mut sum = Array::<Vector<f32, NC>>::new(n_c);
        #[unroll]
        for i in 0usize..n_c {
            sum[i] = Vector::new(0.0f32);
        }
        sums.push(sum);
    }

    // One row more than a halo may have: zeros, for rows that a tap lacks.
    let mut stage =
        Shared::<[Vector<X, P>]>::new_aligned_slice(comptime!((HALO_ROWS + 1) * plan.depth / 8), 16usize);
    if comptime!(!shape.is_bytes()) && UNIT_POS < width {
        stage[(comptime!(HALO_ROWS as u32) * width + UNIT_POS) as usize] = Vector::new(X::from_int(0i64));
    }
    let mut row_sums = Shared::<[f32]>::new_slice(comptime!(shape.staged_sums()));
    let mut locals =
        Shared::<[u32]>::new_slice(comptime!(if table_staged { shape.phase_words() * TILE_ROWS } else { 1 }));
    let parts = c_in.div_ceil(depth);
    // Of the parts of the channels, and of the taps, those of this cube.
    let mut first_part = 0u32;
    let mut end_part = parts;
    let mut tap_split = 0u32;
    if is_split {
        let each_part = parts.div_ceil(part_splits);
        first_part = split / tap_splits * each_part;
        end_part = min(first_part + each_part, parts);
        tap_split = split % tap_splits;
    }
    let all_slices = size(sizes.all_slices, comptime!(shape.all_slices()), is_told);
    let tap_fragments = parts * comptime!(steps as u32) * all_slices;
    let first_word = tile * taps.div_ceil(2u32) * comptime!(TILE_ROWS as u32);

    for phase in 0u32..n_phases {
        let span = tile * span_words + (phase + 1u32) * SPAN_WORDS;
        let at_halo = spans[span as usize];
        let n_halo = spans[(span + 1u32) as usize];
        let begin = spans[(span + 2u32) as usize];
        let end = spans[(span + 3u32) as usize];
        // A lane holds one tap of the phase: which chunks have it, and which pairs of this plane.
        let mut bits_of_tap = 0u32;
        let mut own_tap = begin + lane < end;
        if is_split {
            own_tap = own_tap && (begin + lane) % tap_splits == tap_split;
        }
        if own_tap {
            bits_of_tap = chunk_bits[(tile * taps + begin + lane) as usize];
        }
        let mut mine = 0u32;
        #[unroll]
        for slot in 0usize..pairs {
            let two = (bits_of_tap >> (2u32 * pair_of(row_group, slot, shape))) & 3u32;
            mine |= two << comptime!(2 * slot as u32);
        }
        let taps_of_plane = plane_ballot(mine != 0u32).extract(0usize);
        // Not before everybody is through with what the last phase staged.
        sync_cube();
        if comptime!(table_staged) {
            let first = first_word + begin / 2u32 * comptime!(TILE_ROWS as u32);
            let n_words = (end.div_ceil(2u32) - begin / 2u32) * comptime!(TILE_ROWS as u32);
            let each = comptime!((shape.phase_words() * TILE_ROWS).div_ceil(plan.units()));
            let mut values = Array::<u32>::new(each);
            #[unroll]
            for i in 0usize..each {
                let at = min(UNIT_POS + i as u32 * units, n_words - 1u32);
                values[i] = table[(first + at) as usize];
            }
            #[unroll]
            for i in 0usize..each {
                let at = UNIT_POS + i as u32 * units;
                if at < n_words {
                    // Sums of rows of bytes are found by local numbers.
                    if comptime!(shape.is_bytes()) {
                        locals[at as usize] = values[i];
                    } else {
                        locals[at as usize] = staged_places(values[i], shape);
                    }
                }
            }
        }
        for part in first_part..end_part {
            if part != first_part {
                sync_cube();
            }
            if comptime!(shape.is_bytes()) {
                stage_sums(&mut row_sums, &beside, halo, at_halo, n_halo, part, shape);
                if UNIT_POS < width {
                    stage[(comptime!(HALO_ROWS as u32) * width + UNIT_POS) as usize] =
                        zero_bytes(&beside, part, shape);
                }
            }
            // Several loads are under way at a time: first the rows, then their channels, then the stores.
            // Rows of the next round are asked for with the channels of this one. In plans for few rows the compiler would keep where they are
            // read in registers, which cost a cube its place on a multiprocessor.
            let in_turn = comptime!(!plan.told);
            let mut first = UNIT_POS;
            let mut rows = Array::<u32>::new(ahead);
            if comptime!(in_turn) && first < n_halo * width {
                ask_for_rows(&mut rows, halo, at_halo, n_halo, first, comptime!(ahead), shape);
            }
            while first < n_halo * width {
                if comptime!(!in_turn) {
                    ask_for_rows(&mut rows, halo, at_halo, n_halo, first, comptime!(ahead), shape);
                }
                let mut values = Array::<Vector<X, P>>::new(ahead);
                #[unroll]
                for i in 0usize..ahead {
                    let channel = part * depth + ((first + i as u32 * units) % width) * 8u32;
                    let mut value = Vector::<X, P>::new(X::from_int(0i64));
                    if comptime!(nx == piece_lanes) {
                        if channel < c_in {
                            value = Vector::cast_from(
                                x[rows[i] as usize * (c_in / 8u32) as usize + (channel / 8u32) as usize],
                            );
                        }
                    } else {
                        // Several vectors make up a piece.
                        let each = comptime!(nx * halves);
                        #[unroll]
                        for k in 0usize..comptime!(piece_lanes / nx) {
                            let half = channel + comptime!((k * each) as u32);
                            if half < c_in {
                                let at =
                                    rows[i] as usize * (c_in / each as u32) as usize + half as usize / each;
                                let some = x[at];
                                #[unroll]
                                for lane in 0usize..nx {
                                    value.insert(comptime!(k * nx + lane), some.extract(lane));
                                }
                            }
                        }
                    }
                    if comptime!(halves == 2) {
                        value = Vector::cast_from(Vector::<E, P>::cast_from(value));
                    }
                    values[i] = value;
                }
                let next = first + comptime!(ahead as u32) * units;
                if comptime!(in_turn) {
                    ask_for_rows(&mut rows, halo, at_halo, n_halo, next, comptime!(ahead), shape);
                }
                #[unroll]
                for i in 0usize..ahead {
                    let piece = first + i as u32 * units;
                    if piece < n_halo * width {
                        stage[staged(piece / width, piece % width, shape) as usize] = values[i];
                    }
                }
                first = next;
            }
            sync_cube();
            // The last channels may be none.
            let mut grains = comptime!((steps / plan.grain) as u32).runtime();
            if comptime!(shape.may_end_early()) {
                grains = min(grains, (c_in - part * depth).div_ceil(comptime!((plan.grain * EDGE) as u32)));
            }
            let taps_of =
                TapsOf { mine, taps: taps_of_plane, begin, first_word, part, grains, row_group, lane };
            if comptime!(shape.is_bytes()) {
                add_byte_taps::<X, P, W, A, NC>(
                    &mut sums,
                    packed,
                    &beside,
                    first_slice,
                    &stage,
                    &row_sums,
                    &locals,
                    table,
                    &taps_of,
                    shape,
                );
            } else {
                let strides = Strides {
                    first: (first_slice * parts + part * comptime!(plan.slices as u32))
                        * comptime!(steps as u32),
                    tap: tap_fragments,
                    slice: first_slice,
                };
                add_taps::<X, E, P, W, A, NC>(
                    &mut sums, packed, &beside, &strides, &stage, &locals, table, &taps_of, shape,
                );
            }
        }
    }

    if is_split {
        let fragments = comptime!(shape.fragments());
        let length = comptime!(fragments * plan.units());
        let first = of_block as usize * splits as usize * length + UNIT_POS as usize;
        #[unroll]
        for fragment in 0usize..fragments {
            let sum = sums.index(fragment);
            let mut four = Vector::<f32, Const<4>>::empty();
            #[unroll]
            for e in 0usize..4usize {
                four.insert(e, sum[comptime!(e / nc)].extract(comptime!(e % nc)));
            }
            handed[first + split as usize * length + comptime!(fragment * plan.units())] = four;
        }
        let mut arrived = Shared::<[u32]>::new_slice(1usize);
        if !is_last(counters, of_block, splits, &mut arrived) {
            terminate!();
        }
        // The sums of all, in their order; those of two cubes are asked for together.
        #[unroll]
        for fragment in 0usize..fragments {
            let sum = sums.index_mut(fragment);
            #[unroll]
            for i in 0usize..n_c {
                sum[i] = Vector::new(0.0f32);
            }
        }
        for pair in 0u32..splits.div_ceil(2u32) {
            let mut theirs = Array::<Vector<f32, Const<4>>>::new(comptime!(2 * fragments));
            #[unroll]
            for side in 0usize..2usize {
                let other = min(2u32 * pair + side as u32, splits - 1u32);
                #[unroll]
                for fragment in 0usize..fragments {
                    theirs[comptime!(side * fragments + fragment)] =
                        handed[first + other as usize * length + comptime!(fragment * plan.units())];
                }
            }
            #[unroll]
            for side in 0usize..2usize {
                if 2u32 * pair + (side as u32) < splits {
                    #[unroll]
                    for fragment in 0usize..fragments {
                        let sum = sums.index_mut(fragment);
                        let four = theirs[comptime!(side * fragments + fragment)];
                        #[unroll]
                        for i in 0usize..n_c {
                            let mut some = Vector::<f32, NC>::empty();
                            #[unroll]
                            for e in 0usize..nc {
                                some.insert(e, four.extract(comptime!(i * nc + e)));
                            }
                            sum[i] += some;
                        }
                    }
                }
            }
        }
    }

    // A lane holds two rows of consecutive output channels: two of each fragment, in the order of `pack_weights`.
    let (row, col) = def.position_of_nth(lane, 0u32, MatrixIdent::Accumulator);
    let held = comptime!(2 * plan.slices);
    let first_channel = first_slice * 16u32 + row * comptime!(held as u32);
    let mut outs = Array::<u32>::new(comptime!(4 * pairs));
    #[unroll]
    for chunk in 0usize..comptime!(2 * pairs) {
        let place = first_row
            + pair_of(row_group, comptime!(chunk / 2), shape) * comptime!(2 * CHUNK_ROWS as u32)
            + comptime!((chunk % 2 * CHUNK_ROWS) as u32)
            + col;
        #[unroll]
        for side in 0usize..2usize {
            let place = place + side as u32;
            outs[comptime!(2 * chunk + side)] = tile_rows[place as usize];
        }
    }
    // What is written might be read next, for all that the compiler knows: operands of several rows are asked for before the first is written.
    let pieces = comptime!(held / ny);
    let mut columns = Sequence::<OfColumn<Y>>::new();
    #[unroll]
    for piece in 0usize..pieces {
        let channel = min(first_channel + comptime!((piece * ny) as u32), c_out - ny as u32);
        columns.push(of_column(&operands, channel as usize / ny));
    }
    let together = comptime!(FINISHED.min(2 * pairs));
    #[unroll]
    for turn in 0usize..comptime!(2 * pairs / together) {
        let mut residuals = Array::<Vector<F, Y>>::new(comptime!(2 * together * pieces));
        #[unroll]
        for row in 0usize..comptime!(2 * together) {
            let out = outs[comptime!(2 * turn * together + row)];
            #[unroll]
            for piece in 0usize..pieces {
                let channel = first_channel + comptime!((piece * ny) as u32);
                let at = out as usize * (c_out / ny as u32) as usize + channel as usize / ny;
                let is_there = out != NO_ROW && channel < c_out;
                residuals[comptime!(row * pieces + piece)] =
                    residual_at(&operands, select(is_there, at, 0usize));
            }
        }
        #[unroll]
        for row in 0usize..comptime!(2 * together) {
            let (chunk, side) = comptime!((turn * together + row / 2, row % 2));
            let out = outs[comptime!(2 * turn * together + row)];
            #[unroll]
            for piece in 0usize..pieces {
                let mut sum = Vector::<f32, Y>::empty();
                #[unroll]
                for i in 0usize..ny {
                    let at = comptime!(piece * ny + i);
                    let nth = comptime!(2 * (at % 2) + side);
                    let of = sums.index(comptime!(chunk * plan.slices + at / 2));
                    sum.insert(i, of[comptime!(nth / nc)].extract(comptime!(nth % nc)));
                }
                let channel = first_channel + comptime!((piece * ny) as u32);
                if out != NO_ROW && channel < c_out {
                    let at = out as usize * (c_out / ny as u32) as usize + channel as usize / ny;
                    let residual = residuals[comptime!(row * pieces + piece)];
                    y[at] = finish(sum, columns.index(piece), residual, &operands, comptime!(shape.after));
                }
            }
        }
    }
}

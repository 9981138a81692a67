//! The kernel of [`super`].

use cubecl::cmma::{MatrixIdent, MmaDefinition};
use cubecl::prelude::*;

use super::byte_taps::add_byte_taps;
use super::bytes::{stage_sums, zero_bytes};
use super::form::Beside;
use super::places::{TapsOf, pair_of};
use super::plan::{EDGE, LANES};
use super::products::{Strides, add_taps};
use super::shape::{MmaShape, Sizes};
use super::sharing::{add_handed, hand_over};
use super::staging::{stage_rows, stage_table};
use super::writing::write_rows;
use crate::conv::finish::Operands;
use crate::last::is_last;
use crate::tiles::{HALO_ROWS, SPAN_WORDS, TILE_ROWS};

/// A size that the kernel is told, or one that it is compiled for.
#[cube]
fn size(told: u32, #[comptime] known: u32, #[comptime] is_told: bool) -> u32 {
    if is_told { told } else { known.runtime() }
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
    order: &[u32],
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
    let mut tile = of_block / blocks;
    if sizes.is_ordered != 0u32 {
        tile = order[tile as usize];
    }
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
            stage_table(&mut locals, table, first_word, begin, end, shape);
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
            stage_rows::<X, E, P, N>(&mut stage, x, halo, at_halo, n_halo, part, c_in, shape);
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
        hand_over::<NC>(handed, &sums, of_block, split, splits, shape);
        let mut arrived = Shared::<[u32]>::new_slice(1usize);
        if !is_last(counters, of_block, splits, &mut arrived) {
            terminate!();
        }
        add_handed::<NC>(&mut sums, &*handed, of_block, splits, shape);
    }

    write_rows::<F, E, Y, NC>(
        y,
        &sums,
        &operands,
        tile_rows,
        &def,
        first_row,
        first_slice,
        row_group,
        c_out,
        lane,
        shape,
    );
}

//! The taps of a plane, one after the other, whose weights are codes that are multiplied with rows of bytes.

use cubecl::prelude::*;

use super::bytes::{add_span, load_factors, unpack_bytes};
use super::form::{Beside, load_codes};
use super::places::{TapsOf, read_voxels, staged, words_of_tap};
use super::shape::MmaShape;

/// The piece where a lane begins to read a grain of its row.
#[cube]
fn piece_of_grain(local: u32, lane: u32, grain: u32, #[comptime] shape: MmaShape) -> u32 {
    let quad = lane % 4u32;
    if comptime!(shape.plan.grain == 1) {
        local * comptime!((shape.plan.depth / 8) as u32) + quad / 2u32
    } else if comptime!(shape.plan.grain == 2) {
        staged(local, 4u32 * grain + quad, shape)
    } else {
        local * 8u32 + quad
    }
}

/// [`add_taps`](super::products::add_taps) for features in bytes. `row_sums`: of each staged row, the sums of its spans.
#[cube]
pub(super) fn add_byte_taps<X: Float, P: Size, W: Size, A: Size, NC: Size>(
    sums: &mut Sequence<Array<Vector<f32, NC>>>,
    packed: &[Vector<u32, W>],
    beside: &Beside<X, P, A>,
    first_slice: u32,
    stage: &Shared<[Vector<X, P>]>,
    row_sums: &Shared<[f32]>,
    locals: &Shared<[u32]>,
    table: &[u32],
    of: &TapsOf,
    #[comptime] shape: MmaShape,
) {
    let plan = comptime!(shape.plan);
    let pairs = comptime!(shape.pairs());
    let (begin, lane, part) = (of.begin, of.lane, of.part);
    let mut weights = Array::<Vector<u32, Const<4>>>::new(comptime!(plan.grain * plan.slices));
    let mut codes = Array::<u32>::new(comptime!(shape.grain_pieces() * shape.piece_words()));
    let mut factors = Array::<f32>::new(comptime!(shape.held_factors()));
    let mut words = Array::<u32>::new(comptime!(2 * pairs));
    let mut grain = 0u32;
    let mut left = of.taps;
    while left != 0u32 {
        let at_tap = u32::cast_from(left.trailing_zeros());
        let tap = begin + at_tap;
        let bits = plane_shuffle(of.mine, at_tap);
        let half = 16u32 * (tap % 2u32);
        words_of_tap(&mut words, table, locals, of, tap, shape);
        load_codes(&mut codes, packed, tap, part, grain, first_slice, lane, shape);
        let first_span =
            part * comptime!(shape.part_spans() as u32) + grain * comptime!(shape.grain_spans() as u32);
        let first_out = first_slice * 16u32 + (lane / 4u32) * comptime!(2 * plan.slices as u32);
        load_factors(&mut factors, beside, tap, first_span, first_out, shape);
        #[unroll]
        for piece in 0usize..comptime!(shape.grain_pieces()) {
            unpack_bytes(&mut weights, &codes, piece, shape);
        }
        #[unroll]
        for pair in 0usize..pairs {
            if (bits >> comptime!(2 * pair as u32)) & 3u32 != 0u32 {
                let mut voxels = Array::<u32>::new(comptime!(2 * 2 * plan.grain));
                // Where the sums of a lane's two columns of each chunk stand.
                let mut columns = Array::<u32>::new(4usize);
                #[unroll]
                for chunk in 0usize..2usize {
                    let word = words[comptime!(2 * pair + chunk)];
                    let local = (word >> half) & 0xFFFFu32;
                    let piece = piece_of_grain(local, lane, grain, shape);
                    read_voxels::<X, P>(&mut voxels, stage, piece, lane, chunk, shape);
                    #[unroll]
                    for side in 0usize..2usize {
                        let of_column =
                            plane_shuffle(word, (lane % 4u32) * 8u32 + comptime!(4 * side as u32));
                        columns[comptime!(2 * chunk + side)] = ((of_column >> half) & 0xFFFFu32)
                            * comptime!(shape.part_spans() as u32)
                            + grain * comptime!(shape.grain_spans() as u32);
                    }
                }
                #[unroll]
                for span in 0usize..comptime!(shape.grain_spans()) {
                    #[unroll]
                    for chunk in 0usize..2usize {
                        let mut of_rows = Array::<f32>::new(2usize);
                        #[unroll]
                        for side in 0usize..2usize {
                            let at = columns[comptime!(2 * chunk + side)] + span as u32;
                            of_rows[side] = row_sums[at as usize];
                        }
                        #[unroll]
                        for slice in 0usize..comptime!(plan.slices) {
                            let sum = sums.index_mut(comptime!((2 * pair + chunk) * plan.slices + slice));
                            add_span(sum, &weights, &voxels, &factors, &of_rows, span, chunk, slice, shape);
                        }
                    }
                }
            }
        }
        let is_last = grain + 1u32 == of.grains;
        left = select(is_last, left & (left - 1u32), left);
        grain = select(is_last, 0u32, grain + 1u32);
    }
}

//! The taps of a plane, one after the other: their weights times the staged rows.

use cubecl::cmma::{MatrixIdent, MmaDefinition};
use cubecl::prelude::*;

use super::form::{Beside, load_codes};
use super::places::{TapsOf, first_piece, read_voxels, swaps_halves, words_of_tap};
use super::plan::{EDGE, LANES};
use super::shape::MmaShape;
use super::unpack::{load_affine, unpack_codes};

/// Where fragments of weights stand, in fragments.
#[derive(CubeType, Clone, Copy)]
pub(super) struct Strides {
    /// The first of the plane and the part, with the first tap. Those of a step follow each other, and steps.
    pub(super) first: u32,
    pub(super) tap: u32,
    /// The plane's first among those of all output channels.
    pub(super) slice: u32,
}

/// Adds the products of the taps of a plane to its sums; weights are elements, or codes that become elements here.
///
/// The next tap's rows are asked for before this one's products, which hide the way there; so are codes of the next grain, and its elements
/// where the plan has registers for them.
#[cube]
pub(super) fn add_taps<X: Float, E: Float, P: Size, W: Size, A: Size, NC: Size>(
    sums: &mut Sequence<Array<Vector<f32, NC>>>,
    packed: &[Vector<u32, W>],
    beside: &Beside<X, P, A>,
    strides: &Strides,
    stage: &Shared<[Vector<X, P>]>,
    locals: &Shared<[u32]>,
    table: &[u32],
    of: &TapsOf,
    #[comptime] shape: MmaShape,
) {
    let plan = comptime!(shape.plan);
    let chunks = comptime!(2 * shape.pairs());
    let held = comptime!(plan.grain * plan.slices);
    let all_grains = comptime!(plan.depth / EDGE / plan.grain);
    let ahead = comptime!(shape.asks_ahead());
    let (begin, lane) = (of.begin, of.lane);
    let mut left = of.taps;
    if left != 0u32 {
        // Two elements a word: a register holds them as the instruction takes them. `others`: of the grains of odd number, or of the next tap.
        let mut weights = Array::<Vector<u32, Const<4>>>::new(held);
        let mut others = Array::<Vector<u32, Const<4>>>::new(comptime!(if ahead { held } else { 1 }));
        let mut codes = Array::<u32>::new(comptime!((shape.grain_pieces() * shape.piece_words()).max(1)));
        let mut affine = Array::<u32>::new(comptime!(shape.grain_pieces() * shape.affine_words()));
        let mut words = Array::<u32>::new(chunks);
        let mut at = Array::<u32>::new(chunks);
        let mut at_tap = u32::cast_from(left.trailing_zeros());
        let mut bits = plane_shuffle(of.mine, at_tap);
        words_of_tap(&mut words, table, locals, of, begin + at_tap, shape);
        if comptime!(shape.codes().is_some()) {
            load_codes(&mut codes, packed, begin + at_tap, of.part, 0u32, strides.slice, lane, shape);
            load_affine(&mut affine, beside, begin + at_tap, of.part, 0u32, strides.slice, lane, shape);
        } else if comptime!(ahead) {
            let fragment = (begin + at_tap) * strides.tap + strides.first;
            load_weights(&mut weights, packed, fragment, lane, shape);
        }
        while left != 0u32 {
            let tap = begin + at_tap;
            let half = 16u32 * (tap % 2u32);
            let fragment = tap * strides.tap + strides.first;
            #[unroll]
            for chunk in 0usize..chunks {
                at[chunk] = first_piece(words[chunk], half, lane, shape);
            }
            // After the last tap comes itself again.
            left &= left - 1u32;
            at_tap = select(left != 0u32, u32::cast_from(left.trailing_zeros()), at_tap);
            let next_bits = plane_shuffle(of.mine, at_tap);
            words_of_tap(&mut words, table, locals, of, begin + at_tap, shape);
            let next_fragment = (begin + at_tap) * strides.tap + strides.first;
            #[unroll]
            for grain in 0usize..all_grains {
                if comptime!(!shape.may_end_early()) || (grain as u32) < of.grains {
                    if comptime!(shape.codes().is_some()) {
                        #[unroll]
                        for piece in 0usize..comptime!(shape.grain_pieces()) {
                            unpack_codes::<E>(&mut weights, &codes, &affine, piece, shape);
                        }
                        let is_last = comptime!(grain as u32 + 1) >= of.grains;
                        let next_tap = begin + select(is_last, at_tap, tap - begin);
                        let next_grain = select(is_last, 0u32, comptime!(grain as u32 + 1));
                        load_codes(
                            &mut codes,
                            packed,
                            next_tap,
                            of.part,
                            next_grain,
                            strides.slice,
                            lane,
                            shape,
                        );
                        load_affine(
                            &mut affine,
                            beside,
                            next_tap,
                            of.part,
                            next_grain,
                            strides.slice,
                            lane,
                            shape,
                        );
                        add_grain::<X, E, P, NC>(sums, &weights, stage, &at, bits, lane, grain, shape);
                    } else if comptime!(!ahead) {
                        let fragment = fragment + comptime!((grain * held) as u32);
                        load_weights(&mut weights, packed, fragment, lane, shape);
                        add_grain::<X, E, P, NC>(sums, &weights, stage, &at, bits, lane, grain, shape);
                    } else {
                        let mut next = next_fragment;
                        if comptime!(grain + 1 < all_grains) {
                            next = fragment + comptime!(((grain + 1) * held) as u32);
                        }
                        if comptime!(grain % 2 == 0) {
                            next += zero_once_here(&weights, held);
                            load_weights(&mut others, packed, next, lane, shape);
                            add_grain::<X, E, P, NC>(sums, &weights, stage, &at, bits, lane, grain, shape);
                        } else {
                            next += zero_once_here(&others, held);
                            load_weights(&mut weights, packed, next, lane, shape);
                            add_grain::<X, E, P, NC>(sums, &others, stage, &at, bits, lane, grain, shape);
                        }
                    }
                }
            }
            if comptime!(ahead && !all_grains.is_multiple_of(2)) {
                #[unroll]
                for i in 0usize..held {
                    weights[i] = others[i];
                }
            }
            bits = next_bits;
        }
    }
}

/// Zero, which is known once weights that were asked for are here. Where it is part of an address, what is asked for there waits for them.
///
/// NVIDIA's assembler counts all loads of weights of a loop in one counter, and who needs the weights of this grain waits until it is at zero: without this, for those of the next
/// grain, too, which were asked for just before so that these products hide the way to them.
///
/// For all that the compiler knows it is some multiple of `held`, as fragments of grains are: so one address serves all loads of a grain.
#[cube]
fn zero_once_here(weights: &Array<Vector<u32, Const<4>>>, #[comptime] held: usize) -> u32 {
    // No launch has cubes along z, which the compiler does not know.
    (weights[0].extract(0usize) & CUBE_POS_Z) * comptime!(held as u32)
}

/// Asks for the weights of some steps of a tap: a lane's part of each fragment.
#[cube]
fn load_weights<W: Size>(
    weights: &mut Array<Vector<u32, Const<4>>>,
    packed: &[Vector<u32, W>],
    first_fragment: u32,
    lane: u32,
    #[comptime] shape: MmaShape,
) {
    let first = first_fragment * LANES + lane;
    #[unroll]
    for step in 0usize..comptime!(shape.plan.grain) {
        #[unroll]
        for slice in 0usize..comptime!(shape.plan.slices) {
            let at = comptime!(step * shape.plan.slices + slice);
            weights[at] = Vector::cast_from(packed[(first + at as u32 * LANES) as usize]);
        }
    }
}

/// The piece where a lane reads a grain of its row, from where it begins to read the row.
#[cube]
fn piece_of_grain(first: u32, #[comptime] grain: usize, #[comptime] shape: MmaShape) -> u32 {
    if comptime!(shape.plan.grain != 2) {
        first
    } else if comptime!(swaps_halves(&shape)) {
        (first ^ comptime!(4 * (grain % 2) as u32)) + comptime!(8 * (grain / 2) as u32)
    } else {
        first + comptime!(4 * grain as u32)
    }
}

/// Adds the products of a grain of a tap: for a group of chunks together where most of them have the tap, else one by one, as the plan has it.
#[cube]
fn add_grain<X: Float, E: Float, P: Size, NC: Size>(
    sums: &mut Sequence<Array<Vector<f32, NC>>>,
    weights: &Array<Vector<u32, Const<4>>>,
    stage: &Shared<[Vector<X, P>]>,
    at: &Array<u32>,
    bits: u32,
    lane: u32,
    #[comptime] grain: usize,
    #[comptime] shape: MmaShape,
) {
    let chunks = comptime!(2 * shape.pairs());
    let group = comptime!(shape.plan.together);
    if comptime!(group == chunks && !shape.plan.singly) {
        // A tap that no chunk of the plane has is none of its taps.
        add_chunks::<X, E, P, NC>(sums, weights, stage, at, lane, grain, 0usize, chunks, shape);
    } else {
        #[unroll]
        for nth in 0usize..comptime!(chunks / group) {
            let first = comptime!(nth * group);
            let mask = (bits >> comptime!(first as u32)) & comptime!((1u32 << group) - 1);
            let mut together = mask != 0u32;
            if comptime!(shape.plan.singly) {
                together = mask.count_ones() > comptime!(group as u32 / 2);
            }
            if together {
                add_chunks::<X, E, P, NC>(sums, weights, stage, at, lane, grain, first, group, shape);
            } else if comptime!(shape.plan.singly && group > 1) && mask != 0u32 {
                #[unroll]
                for chunk in 0usize..group {
                    if (mask >> comptime!(chunk as u32)) & 1u32 != 0u32 {
                        let chunk = comptime!(first + chunk);
                        add_chunks::<X, E, P, NC>(
                            sums, weights, stage, at, lane, grain, chunk, 1usize, shape,
                        );
                    }
                }
            }
        }
    }
}

/// Adds the products of a grain of a tap to the sums of some chunks.
#[cube]
fn add_chunks<X: Float, E: Float, P: Size, NC: Size>(
    sums: &mut Sequence<Array<Vector<f32, NC>>>,
    weights: &Array<Vector<u32, Const<4>>>,
    stage: &Shared<[Vector<X, P>]>,
    at: &Array<u32>,
    lane: u32,
    #[comptime] grain: usize,
    #[comptime] first: usize,
    #[comptime] chunks: usize,
    #[comptime] shape: MmaShape,
) {
    let plan = comptime!(shape.plan);
    let def = MmaDefinition::<E, E, f32>::new(16usize, 8usize, comptime!(16 / shape.halves));
    let size!(NA) = def.vector_size(MatrixIdent::A);
    let size!(NB) = def.vector_size(MatrixIdent::B);
    let mut voxels = Array::<u32>::new(comptime!(chunks * 2 * plan.grain));
    #[unroll]
    for chunk in 0usize..chunks {
        let piece = piece_of_grain(at[comptime!(first + chunk)], grain, shape);
        read_voxels::<X, P>(&mut voxels, stage, piece, lane, chunk, shape);
    }
    #[unroll]
    for step in 0usize..comptime!(plan.grain) {
        let mut left = Sequence::<Array<Vector<E, NA>>>::new();
        #[unroll]
        for slice in 0usize..comptime!(plan.slices) {
            let lanes = weights[comptime!(step * plan.slices + slice)];
            let mut a = Array::<Vector<E, NA>>::new(4usize);
            #[unroll]
            for i in 0usize..4usize {
                a[i] = Vector::<E, NA>::reinterpret(lanes.extract(i));
            }
            left.push(a);
        }
        #[unroll]
        for chunk in 0usize..chunks {
            let mut b = Array::<Vector<E, NB>>::new(2usize);
            #[unroll]
            for i in 0usize..2usize {
                let word = voxels[comptime!((chunk * plan.grain + step) * 2 + i)];
                b[i] = Vector::<E, NB>::reinterpret(word);
            }
            #[unroll]
            for slice in 0usize..comptime!(plan.slices) {
                let sum = sums.index_mut(comptime!((first + chunk) * plan.slices + slice));
                def.execute_inplace(left.index(slice), &b, sum);
            }
        }
    }
}

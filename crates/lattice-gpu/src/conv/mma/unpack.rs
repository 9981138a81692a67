//! Codes to elements, in registers.
//!
//! A lane's words of a piece hold *quads*: the codes of four consecutive input channels of one output channel, in the order of slice, row of
//! the fragment, step. A quad of 8-bit codes is a word, of which bytes 0, 2, 1, 3 are its channels; of 4-bit codes half of one: of
//! the word's digits 0 to 7, digit `k` and `k + 4` are a pair of channels, the first quad having the pairs 0 and 1.

use cubecl::prelude::*;

use super::form::{Beside, piece_of};
use super::shape::MmaShape;

/// A lane's scales and biases of the pieces of a grain, `[piece, slice, row]`.
#[cube]
pub(super) fn load_affine<X: Float, P: Size, A: Size>(
    words: &mut Array<u32>,
    beside: &Beside<X, P, A>,
    tap: u32,
    part: u32,
    grain: u32,
    first_slice: u32,
    lane: u32,
    #[comptime] shape: MmaShape,
) {
    let a = A::value();
    let n = comptime!(shape.affine_words());
    let outs = comptime!(2 * shape.plan.slices as u32);
    let per_out = comptime!(n as u32 / outs);
    let first_out = first_slice * 16u32 + (lane / 4u32) * outs;
    let first = piece_of(part, grain, shape);
    #[comptime]
    match beside.affine.clone() {
        ComptimeOption::Some(affine) =>
        {
            #[unroll]
            for piece in 0usize..comptime!(shape.grain_pieces()) {
                let channel = (first + piece as u32) * comptime!((16 * shape.piece_steps()) as u32);
                let group = channel / comptime!(shape.group_size() as u32);
                let row = tap * comptime!(shape.groups() as u32) + group;
                let at =
                    (row * comptime!(shape.padded_out() as u32) + first_out) * per_out / comptime!(a as u32);
                #[unroll]
                for v in 0usize..comptime!(n / a) {
                    let found = affine[(at + v as u32) as usize];
                    #[unroll]
                    for i in 0usize..a {
                        words[comptime!(piece * n + v * a + i)] = found.extract(i);
                    }
                }
            }
        }
        ComptimeOption::None => {}
    }
}

/// The elements of one piece, as fragments of its steps.
#[cube]
pub(super) fn unpack_codes<E: Float>(
    weights: &mut Array<Vector<u32, Const<4>>>,
    words: &Array<u32>,
    affine: &Array<u32>,
    #[comptime] piece: usize,
    #[comptime] shape: MmaShape,
) {
    let steps = comptime!(shape.piece_steps());
    let slices = comptime!(shape.plan.slices);
    let first = comptime!(piece * shape.piece_words());
    let of_piece = comptime!(piece * shape.affine_words());
    // 0x64006400 in a register: as a constant it would take an instruction of its own beside each mask. No launch has cubes along z, which the
    // compiler does not know.
    let at_1024 = 0x6400u32 * (CUBE_POS_Z + 0x0001_0001u32);
    #[unroll]
    for step in 0usize..steps {
        #[unroll]
        for slice in 0usize..slices {
            let mut four = Vector::<u32, Const<4>>::empty();
            #[unroll]
            for row in 0usize..2usize {
                let quad = comptime!((slice * 2 + row) * steps + step);
                let word = if comptime!(shape.bits() == 8) {
                    words[comptime!(first + quad)]
                } else {
                    words[comptime!(first + quad / 2)]
                };
                #[unroll]
                for side in 0usize..2usize {
                    let pair = comptime!(if shape.bits() == 8 { side } else { quad % 2 * 2 + side });
                    let found = if comptime!(shape.is_wide()) {
                        pair_in_f32::<E>(
                            word,
                            f32::reinterpret(affine[comptime!(of_piece + (slice * 2 + row) * 2)]),
                            f32::reinterpret(affine[comptime!(of_piece + (slice * 2 + row) * 2 + 1)]),
                            pair,
                            shape,
                        )
                    } else {
                        let affine = affine[comptime!(of_piece + slice * 2 + row)];
                        pair_in_f16::<E>(word, affine, at_1024, pair, shape)
                    };
                    four.insert(comptime!(side * 2 + row), found);
                }
            }
            weights[comptime!((piece * steps + step) * slices + slice)] = four;
        }
    }
}

/// Two values `scale · code + bias` in f16, of one rounding: codes are put into the lowest bits of 1024 (twice in `at_1024`), where f16
/// counts in ones, or, as they lie, four bits higher, where the same bits count in sixteens.
#[cube]
fn pair_in_f16<E: Float>(
    word: u32,
    affine: u32,
    at_1024: u32,
    #[comptime] pair: usize,
    #[comptime] shape: MmaShape,
) -> u32 {
    let scale_bias = Vector::<E, Const<2>>::reinterpret(affine);
    let scale = Vector::<E, Const<2>>::new(scale_bias.extract(0usize));
    let bias = Vector::<E, Const<2>>::new(scale_bias.extract(1usize));
    let is_high = comptime!(shape.bits() == 4 && pair % 2 == 1);
    let bits = if comptime!(shape.bits() == 8) {
        // As bytes that are put together: NVIDIA has one instruction for that.
        let bytes = Vector::<u8, Const<4>>::reinterpret(word);
        let base = Vector::<u8, Const<4>>::reinterpret(at_1024);
        let mut two = Vector::<u8, Const<4>>::empty();
        two.insert(0usize, bytes.extract(comptime!(pair)));
        two.insert(1usize, base.extract(1usize));
        two.insert(2usize, bytes.extract(comptime!(pair + 2)));
        two.insert(3usize, base.extract(3usize));
        u32::reinterpret(two)
    } else {
        let mask = comptime!(if is_high { 0x00f0_00f0u32 } else { 0x000f_000fu32 });
        ((word >> comptime!(8 * (pair as u32 / 2))) & mask) | at_1024
    };
    let found = Vector::<E, Const<2>>::reinterpret(bits);
    let code = if comptime!(is_high) {
        fma(found, Vector::new(E::new(0.0625f32)), Vector::new(E::new(-64.0f32)))
    } else {
        found - Vector::new(E::new(1024.0f32))
    };
    u32::reinterpret(fma(code, scale, bias))
}

/// Two values `scale · code + bias` in f32, rounded to the element type then.
#[cube]
fn pair_in_f32<E: Float>(
    word: u32,
    scale: f32,
    bias: f32,
    #[comptime] pair: usize,
    #[comptime] shape: MmaShape,
) -> u32 {
    let first = comptime!(if shape.bits() == 8 { 8 * pair as u32 } else { 4 * pair as u32 });
    let mask = comptime!((1u32 << shape.bits()) - 1);
    let mut two = Vector::<f32, Const<2>>::empty();
    #[unroll]
    for i in 0usize..2usize {
        let shift = comptime!(first + 16 * i as u32);
        // In the lowest bits of 2^23, where f32 counts in ones.
        let code = f32::reinterpret(((word >> shift) & mask) | 0x4b00_0000u32) - 8_388_608.0f32;
        two.insert(i, fma(code, scale, bias));
    }
    u32::reinterpret(Vector::<E, Const<2>>::cast_from(two))
}

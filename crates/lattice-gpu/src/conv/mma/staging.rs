//! What the units of a cube put into shared memory together: where rows of a tile are in its halo, and the channels of a halo.

use cubecl::prelude::*;

use super::places::{staged, staged_places};
use super::shape::MmaShape;
use crate::tiles::TILE_ROWS;

/// Stages the table of the taps of a phase: sums of rows of bytes are found by local numbers, all else by where it is staged.
#[cube]
pub(super) fn stage_table(
    locals: &mut Shared<[u32]>,
    table: &[u32],
    first_word: u32,
    begin: u32,
    end: u32,
    #[comptime] shape: MmaShape,
) {
    let units = comptime!(shape.plan.units() as u32);
    let first = first_word + begin / 2u32 * comptime!(TILE_ROWS as u32);
    let n_words = (end.div_ceil(2u32) - begin / 2u32) * comptime!(TILE_ROWS as u32);
    let each = comptime!((shape.phase_words() * TILE_ROWS).div_ceil(shape.plan.units()));
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

/// Stages the channels of a part for each row of a halo. `E` is what elements of 32 bits are rounded to.
#[cube]
pub(super) fn stage_rows<X: Float, E: Float, P: Size, N: Size>(
    stage: &mut Shared<[Vector<X, P>]>,
    x: &[Vector<X, N>],
    halo: &[u32],
    at_halo: u32,
    n_halo: u32,
    part: u32,
    c_in: u32,
    #[comptime] shape: MmaShape,
) {
    let plan = comptime!(shape.plan);
    let depth = comptime!(plan.depth as u32);
    let width = comptime!(depth / 8);
    let units = comptime!(plan.units() as u32);
    let ahead = comptime!(shape.loads_ahead());
    let halves = comptime!(shape.halves);
    let (nx, piece_lanes) = (N::value(), P::value());
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
                        let at = rows[i] as usize * (c_in / each as u32) as usize + half as usize / each;
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
}

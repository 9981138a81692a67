//! Rows as they are written: the epilogue of a lane's sums.

use cubecl::cmma::{MatrixIdent, MmaDefinition};
use cubecl::prelude::*;

use super::places::pair_of;
use super::shape::MmaShape;
use crate::conv::finish::{OfColumn, Operands, finish, of_column, residual_at};
use crate::tiles::{CHUNK_ROWS, NO_ROW};

/// Chunks of rows whose residuals are asked for at a time.
const FINISHED: usize = 4;

/// Finishes the sums of a lane and writes them. `def` lays out the fragments; `first_row` is the tile's first place.
#[cube]
pub(super) fn write_rows<F: Float, E: Float, Y: Size, NC: Size>(
    y: &mut [Vector<F, Y>],
    sums: &Sequence<Array<Vector<f32, NC>>>,
    operands: &Operands<F, Y>,
    tile_rows: &[u32],
    def: &MmaDefinition<E, E, f32>,
    first_row: u32,
    first_slice: u32,
    row_group: u32,
    c_out: u32,
    lane: u32,
    #[comptime] shape: MmaShape,
) {
    let plan = comptime!(shape.plan);
    let pairs = comptime!(shape.pairs());
    let nc = NC::value();
    let ny = Y::value();
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
        columns.push(of_column(operands, channel as usize / ny));
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
                    residual_at(operands, select(is_there, at, 0usize));
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
                    y[at] = finish(sum, columns.index(piece), residual, operands, comptime!(shape.after));
                }
            }
        }
    }
}

//! The convolution that is always possible: any channels, groups, dtype and device.
//!
//! One unit owns one place of a tile and a small vector of output channels, and reads rows and weights where they lie. Depthwise
//! convolutions are bound by memory and lose nothing by it; others have faster routes.

use cubecl::prelude::*;

use super::finish::{Operands, check_epilogue, finish_sum, operands_of};
use super::mma::{After, Direction, Epilogue};
use super::shape::ConvShape;
use crate::address::{UNITS, address_of, lanes_of, room_for};
use crate::gpu::{Buffer, Gpu};
use crate::tiles::{HALO_ROWS, NO_ROW, SPAN_WORDS, TILE_ROWS, Tiles};

/// What the lanes of a vector of weights stand for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Lanes {
    /// Output channels; rows are read a channel at a time.
    Outputs,
    /// Input channels, whose products are added at the end: the weight of the other direction, read along its rows.
    Inputs,
    /// Channels of a depthwise convolution.
    Both,
}

/// What the kernel is compiled for. `c_x`, `c_y`: channels read and written; `group_x`, `group_y`: those of one group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct DirectShape {
    c_x: usize,
    c_y: usize,
    group_x: usize,
    group_y: usize,
    taps: u32,
    span_words: u32,
    lanes: Lanes,
    /// One tap and row to itself: there are no tiles.
    pointwise: bool,
    after: After,
}

/// Products of one row and one tap, for the output channels from `channel` on.
#[cube]
fn multiply_row<F: Float, X: Size, N: Size>(
    x: &[Vector<F, X>],
    weight: &[Vector<F, N>],
    row: usize,
    tap: usize,
    channel: usize,
    #[comptime] shape: DirectShape,
) -> Vector<f32, N> {
    let lanes = N::value();
    let c_x = comptime!(shape.c_x);
    let c_y = comptime!(shape.c_y);
    let group_x = comptime!(shape.group_x);
    let group_y = comptime!(shape.group_y);
    let mut sum = Vector::<f32, N>::new(0.0f32);
    match comptime!(shape.lanes) {
        Lanes::Outputs => {
            let from = row * c_x + channel / group_y * group_x;
            let at = tap * group_x * c_y + channel;
            for a in 0usize..group_x {
                let value = Vector::<f32, N>::cast_from(x[from + a]);
                sum += value * Vector::cast_from(weight[(at + a * c_y) / lanes]);
            }
        }
        Lanes::Inputs => {
            let first = channel / group_y * group_x;
            let from = (row * c_x + first) / lanes;
            let at = ((tap * group_y + channel % group_y) * c_x + first) / lanes;
            for a in 0usize..comptime!(group_x / lanes) {
                let value = Vector::<f32, N>::cast_from(x[from + a]);
                sum += value * Vector::cast_from(weight[at + a]);
            }
        }
        Lanes::Both => {
            let value = Vector::<f32, N>::cast_from(x[(row * c_x + channel) / lanes]);
            sum = value * Vector::cast_from(weight[(tap * c_x + channel) / lanes]);
        }
    }
    sum
}

/// `y[o] = epilogue(Σ x[i] · weight[tap])`: one unit a place of a tile and a vector of `Y` output channels; no atomics, no shared
/// memory. Places without a row write nothing, every row of the target is written once.
///
/// `x`: `[n_in, c_x]`; `weight`: `[taps, group_x, c_y]`, or `[taps, group_y, c_x]` where lanes are inputs; tables: see
/// [`crate::tiles`]. Rows of a halo are rows of `x`: guaranteed by `Tiles`.
#[cube(launch_unchecked, address_type = "dynamic")]
fn conv_direct_kernel<F: Float, X: Size, N: Size, Y: Size>(
    x: &[Vector<F, X>],
    weight: &[Vector<F, N>],
    operands: Operands<F, Y>,
    y: &mut [Vector<F, Y>],
    tile_rows: &[u32],
    table: &[u32],
    halo: &[u32],
    spans: &[u32],
    n_places: usize,
    #[comptime] shape: DirectShape,
) {
    let lanes = N::value();
    let y_lanes = Y::value();
    let columns = comptime!(shape.c_y / y_lanes);
    if ABSOLUTE_POS < n_places * columns {
        let place = ABSOLUTE_POS / columns;
        let column = ABSOLUTE_POS % columns;
        let channel = column * y_lanes;
        let mut sum = Vector::<f32, N>::new(0.0f32);
        let mut out = place as u32;
        if comptime!(shape.pointwise) {
            sum = multiply_row(x, weight, place, 0usize, channel, shape);
        } else {
            out = tile_rows[place];
            if out != NO_ROW {
                let tile = (place / comptime!(TILE_ROWS)) as u32;
                let within = (place % comptime!(TILE_ROWS)) as u32;
                let n_words = comptime!(shape.taps.div_ceil(2));
                let first_span = tile * comptime!(shape.span_words);
                for phase in 0u32..spans[first_span as usize] {
                    let span = first_span + (phase + 1u32) * SPAN_WORDS;
                    let at_halo = spans[span as usize];
                    for tap in spans[(span + 2u32) as usize]..spans[(span + 3u32) as usize] {
                        let word = table
                            [((tile * n_words + tap / 2u32) * comptime!(TILE_ROWS as u32) + within) as usize];
                        let local = (word >> (16u32 * (tap % 2u32))) & 0xFFFFu32;
                        if local < comptime!(HALO_ROWS as u32) {
                            let row = halo[(at_halo + local) as usize] as usize;
                            sum += multiply_row(x, weight, row, tap as usize, channel, shape);
                        }
                    }
                }
            }
        }
        if out != NO_ROW {
            let mut total = Vector::<f32, Y>::new(0.0f32);
            if comptime!(matches!(shape.lanes, Lanes::Inputs)) {
                #[unroll]
                for lane in 0usize..lanes {
                    total += Vector::new(sum.extract(lane));
                }
            } else {
                total = Vector::<f32, Y>::cast_from(sum);
            }
            let at = out as usize * columns + column;
            y[at] = finish_sum(total, column, at, &operands, comptime!(shape.after));
        }
    }
}

/// The convolution of a weight `[taps, c_in / groups, c_out]` over tiles, or its input gradient; one launch.
///
/// # Shapes
/// Forward: `x` is `[n_in, c_in]`, the result `[n_out, c_out]`. Backward: `x` is the gradient `[n_out, c_out]` of the outputs, `tiles`
/// are those of the swapped relation, the result is `[n_in, c_in]`.
///
/// # Panics
/// When a buffer does not have its shape.
pub fn conv_direct<F: Float + CubeElement>(
    gpu: &Gpu,
    x: &Buffer,
    weight: &Buffer,
    tiles: &Tiles,
    shape: ConvShape,
    direction: Direction,
    epilogue: &Epilogue,
) -> Buffer {
    launch::<F>(gpu, x, weight, Some(tiles), tiles.n_out(), shape, direction, epilogue)
}

/// [`conv_direct`] of one tap under which every row meets itself: a product of `n_rows` rows with a weight `[1, c_in / groups, c_out]`.
///
/// # Panics
/// When a buffer does not have its shape.
pub fn pointwise_direct<F: Float + CubeElement>(
    gpu: &Gpu,
    x: &Buffer,
    weight: &Buffer,
    n_rows: usize,
    shape: ConvShape,
    direction: Direction,
    epilogue: &Epilogue,
) -> Buffer {
    launch::<F>(gpu, x, weight, None, n_rows, shape, direction, epilogue)
}

#[allow(clippy::too_many_arguments, reason = "the arguments of its two callers")]
fn launch<F: Float + CubeElement>(
    gpu: &Gpu,
    x: &Buffer,
    weight: &Buffer,
    tiles: Option<&Tiles>,
    n_out: usize,
    shape: ConvShape,
    direction: Direction,
    epilogue: &Epilogue,
) -> Buffer {
    const OP: &str = "conv_direct";
    shape.check(OP);
    let ConvShape { c_in, c_out, groups } = shape;
    let (c_x, c_y) = match direction {
        Direction::Forward => (c_in, c_out),
        Direction::Backward => (c_out, c_in),
    };
    let taps = tiles.map_or(1, |tiles| tiles.taps);
    assert_eq!(x.len, tiles.map_or(n_out, Tiles::n_in) * c_x, "{OP}: length of the features");
    assert_eq!(weight.len, shape.weights(taps as usize), "{OP}: length of the weight");
    check_epilogue(OP, epilogue, n_out, c_y);
    let y = room_for::<F>(gpu, n_out * c_y);
    if y.len == 0 {
        return y;
    }
    let (group_x, group_y) = (c_x / groups, c_y / groups);
    let (lanes, [x_lanes, w_lanes, y_lanes]) = if group_x == 1 && group_y == 1 {
        let n = lanes_of::<F>(gpu, c_y);
        (Lanes::Both, [n, n, n])
    } else if direction == Direction::Forward {
        let n = lanes_of::<F>(gpu, group_y);
        (Lanes::Outputs, [1, n, n])
    } else {
        let n = lanes_of::<F>(gpu, group_x);
        (Lanes::Inputs, [n, n, 1])
    };
    let n_places = tiles.map_or(n_out, |tiles| tiles.rows.len);
    let span_words = tiles.map_or(0, |tiles| tiles.span_words);
    let pointwise = tiles.is_none();
    let compiled =
        DirectShape { c_x, c_y, group_x, group_y, taps, span_words, lanes, pointwise, after: epilogue.after };
    let table = |of: fn(&Tiles) -> &Buffer| tiles.map_or(x, of).arg(1);
    let halo = tiles.map(Tiles::halo);
    // SAFETY: lengths were checked above; tiles hold rows of the source, whose features `x` are, and of the target; operands that the
    // shape says are absent are not read, and units past the result do nothing.
    unsafe {
        conv_direct_kernel::launch_unchecked::<F>(
            gpu.client(),
            Gpu::cubes(n_places * (c_y / y_lanes), UNITS as usize),
            CubeDim::new_1d(UNITS),
            address_of(&[x, weight, &y]),
            x_lanes,
            w_lanes,
            y_lanes,
            x.arg(x_lanes),
            weight.arg(w_lanes),
            operands_of(epilogue, y_lanes),
            y.arg(y_lanes),
            table(|tiles| &tiles.rows),
            table(|tiles| &tiles.table),
            halo.as_ref().unwrap_or(x).arg(1),
            table(|tiles| &tiles.spans),
            n_places,
            compiled,
        );
    }
    y
}

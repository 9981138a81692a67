//! A register-blocked convolution in plain f32 arithmetic, for one group and any channels, dtype and device.
//!
//! A cube does one tile and 64 output channels: each of its 256 units holds the sums of one chunk of eight rows and eight output
//! channels. Halo rows are staged eight channels at a time in shared memory, as f32; weights go from memory to registers.

use cubecl::prelude::*;

use super::finish::{Operands, check_epilogue, finish_sum, operands_of};
use super::load::{load_channels, load_lanes};
use super::mma::{After, Direction, Epilogue};
use super::shape::ConvShape;
use crate::address::{address_of, room_for};
use crate::gpu::{Buffer, Gpu};
use crate::tiles::{CHUNK_ROWS, HALO_ROWS, NO_ROW, SPAN_WORDS, TILE_ROWS, Tiles};

/// Channels staged at a time.
const DEPTH: u32 = 8;
/// Output channels of a unit.
const COLUMNS: u32 = 8;
/// Output channels of a cube.
const BLOCK: u32 = 64;
/// Units of a cube.
const UNITS: u32 = 256;

/// What the kernel is compiled for. It is told of channels and taps: a kernel takes half a second to compile, and a network has dozens of
/// sizes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct PlainShape {
    /// Whether the weight is `[taps, c_y, c_x]`.
    transposed: bool,
    /// One tap and row to itself: there are no tiles.
    pointwise: bool,
    after: After,
}

/// Weights of four input channels from `channel` on and eight output channels from `column` on, at `[4, 8]`; zeros past the last.
#[cube]
fn load_weights<F: Float, W: Size>(
    weight: &[Vector<F, W>],
    to: &mut Array<f32>,
    tap: u32,
    channel: u32,
    column: u32,
    c_x: u32,
    c_y: u32,
    #[comptime] transposed: bool,
) {
    // Rows of the weight as it lies, and how far its contiguous axis goes.
    let rows = comptime!(if transposed { 8usize } else { 4usize });
    let across = comptime!(if transposed { 4usize } else { 8usize });
    let mut n_rows = c_x;
    let mut n_across = c_y;
    let lanes = W::value();
    let mut first_row = channel;
    let mut first_across = column;
    if comptime!(transposed) {
        n_rows = c_y;
        n_across = c_x;
        first_row = column;
        first_across = channel;
    }
    #[unroll]
    for r in 0usize..rows {
        let row = first_row + r as u32;
        let from = (tap as usize * n_rows as usize + row as usize) * n_across as usize;
        #[unroll]
        for piece in 0usize..comptime!(across / lanes) {
            let at = first_across + comptime!((piece * lanes) as u32);
            let mut value = Vector::<f32, W>::new(0.0f32);
            if row < n_rows && at < n_across {
                value = Vector::cast_from(weight[(from + at as usize) / lanes]);
            }
            #[unroll]
            for lane in 0usize..lanes {
                let a = comptime!(piece * lanes + lane);
                let place = comptime!(if transposed { a * 8 + r } else { r * 8 + a });
                to[place] = value.extract(lane);
            }
        }
    }
}

/// `y[o] = epilogue(Σ x[i] · weight[tap])`: a cube a tile and [`BLOCK`] output channels, a unit [`CHUNK_ROWS`] rows and [`COLUMNS`]
/// channels of it; no atomics. Taps that a chunk lacks are skipped; rows that lack one read a row of zeros.
///
/// `x`: `[n_in, c_x]`; `weight`: `[taps, c_x, c_y]`, or `[taps, c_y, c_x]` when transposed; tables: see [`crate::tiles`]. Halo rows are
/// rows of `x`: guaranteed by `Tiles`.
#[cube(launch_unchecked, address_type = "dynamic")]
fn conv_plain_kernel<F: Float, X: Size, W: Size, Y: Size>(
    x: &[Vector<F, X>],
    weight: &[Vector<F, W>],
    operands: Operands<F, Y>,
    y: &mut [Vector<F, Y>],
    tile_rows: &[u32],
    table: &[Vector<u32, Const<4>>],
    chunk_bits: &[u32],
    halo: &[u32],
    spans: &[u32],
    n_rows: u32,
    n_tiles: u32,
    c_x: u32,
    c_y: u32,
    taps: u32,
    span_words: u32,
    #[comptime] shape: PlainShape,
) {
    let tile = CUBE_POS_X + CUBE_POS_Y * 65_535u32;
    if tile >= n_tiles {
        terminate!();
    }
    let first_span = tile * span_words;
    let mut n_phases = 1u32;
    if comptime!(!shape.pointwise) {
        n_phases = spans[first_span as usize];
    }
    let n_words = taps.div_ceil(2u32);
    let y_lanes = Y::value();
    let unit = UNIT_POS;
    let chunk = unit / comptime!(BLOCK / COLUMNS);
    let column = CUBE_POS_Z * BLOCK + unit % comptime!(BLOCK / COLUMNS) * COLUMNS;
    let first_place = chunk * comptime!(CHUNK_ROWS as u32);

    // Two vectors a row, and one row more than a halo may have: zeros.
    let mut stage = Shared::<[Vector<f32, Const<4>>]>::new_slice(comptime!((HALO_ROWS + 1) * 2));
    if unit < 2u32 {
        stage[(comptime!(2 * HALO_ROWS as u32) + unit) as usize] = Vector::new(0.0f32);
    }
    let mut sums = Array::<f32>::new(comptime!(CHUNK_ROWS * COLUMNS as usize));
    #[unroll]
    for at in 0usize..comptime!(CHUNK_ROWS * COLUMNS as usize) {
        sums[at] = 0.0f32;
    }
    let mut weights = Array::<f32>::new(32usize);
    let mut locals = Array::<u32>::new(comptime!(CHUNK_ROWS));

    for phase in 0u32..n_phases {
        let mut at_halo = 0u32;
        let mut n_halo = min(n_rows - tile * comptime!(TILE_ROWS as u32), comptime!(TILE_ROWS as u32));
        let mut begin = 0u32;
        let mut end = 1u32;
        if comptime!(!shape.pointwise) {
            let span = first_span + (phase + 1u32) * SPAN_WORDS;
            at_halo = spans[span as usize];
            n_halo = spans[(span + 1u32) as usize];
            begin = spans[(span + 2u32) as usize];
            end = spans[(span + 3u32) as usize];
        }
        for part in 0u32..c_x.div_ceil(DEPTH) {
            sync_cube();
            let mut piece = unit;
            while piece < 2u32 * n_halo {
                let local = piece / 2u32;
                let mut row = tile * comptime!(TILE_ROWS as u32) + local;
                if comptime!(!shape.pointwise) {
                    row = halo[(at_halo + local) as usize];
                }
                stage[piece as usize] = load_channels(x, row, part * DEPTH + piece % 2u32 * 4u32, c_x);
                piece += UNITS;
            }
            sync_cube();
            for tap in begin..end {
                let mut has_work = first_place < n_halo;
                if comptime!(!shape.pointwise) {
                    has_work = (chunk_bits[(tile * taps + tap) as usize] >> chunk) & 1u32 == 1u32;
                }
                if has_work && column < c_y {
                    #[unroll]
                    for half in 0u32..2u32 {
                        if comptime!(shape.pointwise) {
                            #[unroll]
                            for lane in 0u32..4u32 {
                                let local = first_place + 4u32 * half + lane;
                                locals[(4u32 * half + lane) as usize] =
                                    2u32 * select(local < n_halo, local, comptime!(HALO_ROWS as u32));
                            }
                        } else {
                            let at = ((tile * n_words + tap / 2u32) * comptime!(TILE_ROWS as u32)
                                + first_place)
                                / 4u32
                                + half;
                            let words = table[at as usize];
                            #[unroll]
                            for lane in 0u32..4u32 {
                                let word = words.extract(comptime!(lane as usize));
                                locals[(4u32 * half + lane) as usize] =
                                    2u32 * ((word >> (16u32 * (tap % 2u32))) & 0xFFFFu32);
                            }
                        }
                    }
                    for half in 0u32..2u32 {
                        let channel = part * DEPTH + 4u32 * half;
                        if channel < c_x {
                            load_weights(
                                weight,
                                &mut weights,
                                tap,
                                channel,
                                column,
                                c_x,
                                c_y,
                                shape.transposed,
                            );
                            #[unroll]
                            for r in 0usize..comptime!(CHUNK_ROWS) {
                                let values = stage[(locals[r] + half) as usize];
                                #[unroll]
                                for k in 0usize..4usize {
                                    let value = values.extract(k);
                                    #[unroll]
                                    for j in 0usize..comptime!(COLUMNS as usize) {
                                        sums[comptime!(r * COLUMNS as usize + j)] +=
                                            value * weights[comptime!(k * COLUMNS as usize + j)];
                                    }
                                }
                            }
                        }
                    }
                }
            }
        }
    }

    #[unroll]
    for r in 0usize..comptime!(CHUNK_ROWS) {
        let place = tile * comptime!(TILE_ROWS as u32) + first_place + r as u32;
        let mut out = select(place < n_rows, place, NO_ROW);
        if comptime!(!shape.pointwise) {
            out = tile_rows[place as usize];
        }
        #[unroll]
        for piece in 0usize..comptime!(COLUMNS as usize / y_lanes) {
            let at = column + comptime!((piece * y_lanes) as u32);
            if out != NO_ROW && at < c_y {
                let mut sum = Vector::<f32, Y>::new(0.0f32);
                #[unroll]
                for lane in 0usize..y_lanes {
                    sum.insert(lane, sums[comptime!(r * COLUMNS as usize + piece * y_lanes + lane)]);
                }
                let vector = at as usize / y_lanes;
                let to = out as usize * (c_y as usize / y_lanes) + vector;
                y[to] = finish_sum(sum, vector, to, &operands, comptime!(shape.after));
            }
        }
    }
}

/// The convolution of a weight `[taps, c_in, c_out]` over tiles, or its input gradient; one launch, 17 KB of shared memory a cube.
///
/// # Shapes
/// As [`conv_direct`](super::direct::conv_direct), with one group.
///
/// # Panics
/// When a buffer does not have its shape, or there are several groups.
pub fn conv_plain<F: Float + CubeElement>(
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

/// [`conv_plain`] of one tap under which every row meets itself: a product of `n_rows` rows with a weight `[1, c_in, c_out]`.
///
/// # Panics
/// When a buffer does not have its shape, or there are several groups.
pub fn pointwise_plain<F: Float + CubeElement>(
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
    const OP: &str = "conv_plain";
    assert_eq!(shape.groups, 1, "{OP}: groups");
    let (c_x, c_y) = match direction {
        Direction::Forward => (shape.c_in, shape.c_out),
        Direction::Backward => (shape.c_out, shape.c_in),
    };
    let taps = tiles.map_or(1, |tiles| tiles.taps);
    assert_eq!(x.len, tiles.map_or(n_out, Tiles::n_in) * c_x, "{OP}: length of the features");
    assert_eq!(weight.len, shape.weights(taps as usize), "{OP}: length of the weight");
    check_epilogue(OP, epilogue, n_out, c_y);
    let y = room_for::<F>(gpu, n_out * c_y);
    if y.len == 0 {
        return y;
    }
    let (x_lanes, w_lanes, y_lanes) = (load_lanes(c_x), load_lanes(shape.c_out), load_lanes(c_y));
    let compiled = PlainShape {
        transposed: direction == Direction::Backward,
        pointwise: tiles.is_none(),
        after: epilogue.after,
    };
    let table = |of: fn(&Tiles) -> &Buffer| tiles.map_or(x, of);
    let halo = tiles.map(Tiles::halo);
    // Without tiles the table is not read; WebGPU wants its stand-in to hold a whole vector all the same, which `x` may not.
    let words = tiles.map_or_else(|| gpu.empty(4, 4), |tiles| tiles.table.clone());
    let n_tiles = n_out.div_ceil(TILE_ROWS);
    let count = CubeCount::Static(
        n_tiles.min(65_535) as u32,
        n_tiles.div_ceil(65_535) as u32,
        c_y.div_ceil(BLOCK as usize) as u32,
    );
    let address = address_of(&[x, weight, &y]);
    let kernel = (
        "conv_plain",
        std::any::type_name::<F>(),
        x_lanes,
        w_lanes,
        y_lanes,
        address,
        epilogue.operands(),
        compiled,
    );
    gpu.launch(count, kernel, |client, count| {
        // SAFETY: lengths were checked above; tiles hold rows of the source, whose features `x` are, and of the target; channels are
        // checked in the kernel; operands that the shape says are absent are not read.
        unsafe {
            conv_plain_kernel::launch_unchecked::<F>(
                client,
                count,
                CubeDim::new_1d(UNITS),
                address,
                x_lanes,
                w_lanes,
                y_lanes,
                x.arg(x_lanes),
                weight.arg(w_lanes),
                operands_of(epilogue, y_lanes),
                y.arg(y_lanes),
                table(|tiles| &tiles.rows).arg(1),
                words.arg(4),
                table(|tiles| &tiles.chunks).arg(1),
                halo.as_ref().unwrap_or(x).arg(1),
                table(|tiles| &tiles.spans).arg(1),
                n_out as u32,
                n_tiles as u32,
                c_x as u32,
                c_y as u32,
                taps,
                tiles.map_or(0, |tiles| tiles.span_words),
                compiled,
            );
        }
    });
    y
}

//! Kernels of weight gradients.

use cubecl::prelude::*;

use super::segment::{Cutting, find_segment, segments_of_tap};
use crate::conv::load::load_channels;

/// Input by output channels of a cube of [`sum_blocks_kernel`].
pub(crate) const BLOCK: u32 = 64;
/// Pairs staged at a time.
const STAGED: u32 = 16;
/// Units of a cube of [`add_segments_kernel`] that share one vector of the result.
pub(crate) const SHARERS: u32 = 16;

/// What the kernels that sum pairs are compiled for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct GradShape {
    pub(crate) c_in: usize,
    pub(crate) c_out: usize,
    pub(crate) groups: usize,
    pub(crate) cutting: Cutting,
}

/// `partials[s] = Σ outer(x[i], g[o])` over the pairs of segment `s`, for one group.
///
/// A cube does one segment (along the first two axes of cubes) and [`BLOCK`] by [`BLOCK`] channels (along the third), a unit 4 x 4 of
/// them. [`STAGED`] pairs at a time lie in shared memory. `partials`: `[n_segments, c_in, c_out]`. Rows are in bounds: guaranteed by
/// `DevicePairs`.
#[cube(launch_unchecked, address_type = "dynamic")]
pub(crate) fn sum_blocks_kernel<F: Float, X: Size, G: Size, P: Size>(
    x: &[Vector<F, X>],
    g: &[Vector<F, G>],
    in_rows: &[u32],
    out_rows: &[u32],
    splits: &[u32],
    partials: &mut [Vector<f32, P>],
    n_segments: u32,
    n_rows: u32,
    taps: u32,
    #[comptime] shape: GradShape,
) {
    let segment = CUBE_POS_X + CUBE_POS_Y * 65_535u32;
    if segment >= n_segments {
        terminate!();
    }
    let c_in = comptime!(shape.c_in as u32);
    let c_out = comptime!(shape.c_out as u32);
    let across = comptime!(c_out.div_ceil(BLOCK));
    let first_in = CUBE_POS_Z / across * BLOCK;
    let first_out = CUBE_POS_Z % across * BLOCK;
    let found = find_segment(splits, n_rows, taps, segment, shape.cutting);
    let (begin, end) = (found.begin, found.end);
    let lanes = P::value();
    let unit = UNIT_POS;
    let (down, right) = (unit / 16u32, unit % 16u32);

    let mut staged_x = Shared::<[Vector<f32, Const<4>>]>::new_slice(comptime!((STAGED * BLOCK / 4) as usize));
    let mut staged_g = Shared::<[Vector<f32, Const<4>>]>::new_slice(comptime!((STAGED * BLOCK / 4) as usize));
    let mut sums = Array::<f32>::new(16usize);
    #[unroll]
    for at in 0usize..16usize {
        sums[at] = 0.0f32;
    }
    // Counted in stages: a position past the last pair might not fit in 32 bits.
    for stage in 0u32..(end - begin).div_ceil(STAGED) {
        let at = begin + stage * STAGED;
        let mut value_x = Vector::<f32, Const<4>>::new(0.0f32);
        let mut value_g = Vector::<f32, Const<4>>::new(0.0f32);
        if down < end - at {
            let pair = at + down;
            let mut i = pair;
            let mut o = pair;
            if comptime!(!shape.cutting.identity) {
                i = in_rows[pair as usize];
                o = out_rows[pair as usize];
            }
            value_x = load_channels(x, i, first_in + 4u32 * right, c_in);
            value_g = load_channels(g, o, first_out + 4u32 * right, c_out);
        }
        staged_x[unit as usize] = value_x;
        staged_g[unit as usize] = value_g;
        sync_cube();
        for p in 0u32..min(end - at, STAGED) {
            let a = staged_x[(p * 16u32 + down) as usize];
            let b = staged_g[(p * 16u32 + right) as usize];
            #[unroll]
            for i in 0usize..4usize {
                #[unroll]
                for j in 0usize..4usize {
                    sums[comptime!(4 * i + j)] += a.extract(i) * b.extract(j);
                }
            }
        }
        sync_cube();
    }
    #[unroll]
    for i in 0usize..4usize {
        let row = first_in + 4u32 * down + i as u32;
        #[unroll]
        for piece in 0usize..comptime!(4 / lanes) {
            let column = first_out + 4u32 * right + comptime!((piece * lanes) as u32);
            if row < c_in && column < c_out {
                let mut sum = Vector::<f32, P>::new(0.0f32);
                #[unroll]
                for lane in 0usize..lanes {
                    sum.insert(lane, sums[comptime!(4 * i + piece * lanes + lane)]);
                }
                let to = (segment as usize * comptime!(shape.c_in) + row as usize) * comptime!(shape.c_out)
                    + column as usize;
                partials[to / lanes] = sum;
            }
        }
    }
}

/// `partials[s, a, j] = Σ x[i, group of j, a] · g[o, j]` over the pairs of segment `s`, for any groups. One unit an element.
///
/// `partials`: `[n_segments, c_in / groups, c_out]`. Rows are in bounds: guaranteed by `DevicePairs`.
#[cube(launch_unchecked, address_type = "dynamic")]
pub(crate) fn sum_groups_kernel<F: Float>(
    x: &[F],
    g: &[F],
    in_rows: &[u32],
    out_rows: &[u32],
    splits: &[u32],
    partials: &mut [f32],
    n_segments: usize,
    n_rows: u32,
    taps: u32,
    #[comptime] shape: GradShape,
) {
    let k = comptime!(shape.c_in / shape.groups);
    let n = comptime!(shape.c_out / shape.groups);
    let len = comptime!(k * shape.c_out);
    let at = ABSOLUTE_POS;
    if at < n_segments * len {
        let segment = at / len;
        let j = at % comptime!(shape.c_out);
        let channel = j / n * k + at % len / comptime!(shape.c_out);
        let mut sum = 0.0f32;
        let found = find_segment(splits, n_rows, taps, segment as u32, shape.cutting);
        for pair in found.begin..found.end {
            let mut i = pair;
            let mut o = pair;
            if comptime!(!shape.cutting.identity) {
                i = in_rows[pair as usize];
                o = out_rows[pair as usize];
            }
            sum += f32::cast_from(x[i as usize * comptime!(shape.c_in) + channel])
                * f32::cast_from(g[o as usize * comptime!(shape.c_out) + j]);
        }
        partials[at] = sum;
    }
}

/// `dw[tap] = Σ partials[s]` over the segments of the tap: [`SHARERS`] units sum a run of segments each, one adds their sums in order.
///
/// A cube of 256 units does 16 vectors of the result. `partials`: `[n_segments, width]` and `dw`: `[taps, width]` in vectors.
#[cube(launch_unchecked, address_type = "dynamic")]
pub(crate) fn add_segments_kernel<O: Float, N: Size>(
    partials: &[Vector<f32, N>],
    splits: &[u32],
    dw: &mut [Vector<O, N>],
    n_vectors: usize,
    width: usize,
    n_rows: u32,
    taps: u32,
    #[comptime] cutting: Cutting,
) {
    let mut shared = Shared::<[Vector<f32, N>]>::new_slice(comptime!((SHARERS * 16) as usize));
    let unit = UNIT_POS;
    let sharer = unit / 16u32;
    let at = CUBE_POS * 16usize + (unit % 16u32) as usize;
    let mut sum = Vector::<f32, N>::new(0.0f32);
    if at < n_vectors {
        let tap = at / width;
        let v = at % width;
        let (begin, count) = segments_of_tap(splits, n_rows, taps, tap as u32, cutting);
        let each = count.div_ceil(SHARERS);
        let first = begin + min(sharer * each, count);
        let end = begin + min((sharer + 1u32) * each, count);
        let mut segment = first;
        while segment < end {
            // Several are asked for at a time, and added in order.
            let mut parts = Array::<Vector<f32, N>>::new(4usize);
            #[unroll]
            for i in 0usize..4usize {
                parts[i] = partials[min(segment + i as u32, end - 1u32) as usize * width + v];
            }
            #[unroll]
            for i in 0usize..4usize {
                if segment + (i as u32) < end {
                    sum += parts[i];
                }
            }
            segment += 4u32;
        }
    }
    shared[unit as usize] = sum;
    sync_cube();
    if sharer == 0u32 && at < n_vectors {
        for other in 1u32..SHARERS {
            sum += shared[(other * 16u32 + unit) as usize];
        }
        dw[at] = Vector::cast_from(sum);
    }
}

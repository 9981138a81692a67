//! The gradients of gamma and beta: sums over the rows.
#![allow(clippy::collapsible_if, reason = "a condition of the compilation stands around one of the device")]

use cubecl::prelude::*;

use super::row_kernels::before_activation;
use super::share::{AHEAD, CHANNELS, Own, PARTS_AHEAD, RUNS, UNITS, own, rows_ahead, sum_runs};
use crate::conv::mma::After;
use crate::last::is_last;

/// Sums of `g` and of `g * normalized x` over the rows of each part: `partial[part, 2, c]`, and, where a device has cubes see what others
/// wrote (`merged`), their sums.
#[cube(launch_unchecked, address_type = "dynamic")]
pub(crate) fn gradient_sums_kernel<F: Float, N: Size>(
    x: &[Vector<F, N>],
    y: &[Vector<F, N>],
    g: &[Vector<F, N>],
    mean: &[Vector<f32, N>],
    var: &[Vector<f32, N>],
    partial: &mut [f32],
    counters: &mut [Atomic<u32>],
    beta: &mut [f32],
    gamma: &mut [f32],
    n: usize,
    c: usize,
    rows: usize,
    parts: usize,
    eps: f32,
    #[comptime] after: After,
    #[comptime] merged: bool,
) {
    let lanes = N::value();
    let shares = comptime!(UNITS * lanes as u32 / CHANNELS);
    let mut shared = Shared::<[f32]>::new_slice(comptime!(UNITS as usize));
    let mut betas = Shared::<[f32]>::new_slice(comptime!((shares * CHANNELS) as usize));
    let mut gammas = Shared::<[f32]>::new_slice(comptime!((shares * CHANNELS) as usize));
    let mut arrived = Shared::<[u32]>::new_slice(1usize);
    let Own { column, share, width, vector, part, first, end } = own(n, c, rows, lanes);
    let mut by_beta = Vector::<f32, N>::new(0.0f32);
    let mut by_gamma = Vector::<f32, N>::new(0.0f32);
    if vector < width {
        let center = mean[vector];
        let inverse = Vector::new(1.0f32) / (var[vector] + Vector::new(eps)).sqrt();
        let stride = comptime!(shares as usize);
        let mut row = first + share as usize;
        while row < end {
            let here = rows_ahead(row, end, stride);
            let mut grads = Array::<Vector<f32, N>>::new(AHEAD);
            let mut values = Array::<Vector<f32, N>>::new(AHEAD);
            #[unroll]
            for i in 0usize..AHEAD {
                let at = min(row + i * stride, end - 1usize) * width + vector;
                grads[i] = before_activation::<F, N>(g[at], y[at], after);
                values[i] = Vector::cast_from(x[at]);
            }
            #[unroll]
            for i in 0usize..AHEAD {
                if i < here {
                    by_beta += grads[i];
                    by_gamma += grads[i] * (values[i] - center) * inverse;
                }
            }
            row += comptime!(AHEAD * shares as usize);
        }
    }
    #[unroll]
    for i in 0usize..lanes {
        let at = share * CHANNELS + column * comptime!(lanes as u32) + comptime!(i as u32);
        betas[at as usize] = by_beta.extract(i);
        gammas[at as usize] = by_gamma.extract(i);
    }
    sync_cube();
    let channel = (CUBE_POS_Y * CHANNELS + UNIT_POS % CHANNELS) as usize;
    let run = UNIT_POS / CHANNELS;
    let each = comptime!(shares / RUNS);
    let mut of_beta = 0.0f32;
    let mut of_gamma = 0.0f32;
    for share in run * each..(run + 1u32) * each {
        let at = (share * CHANNELS + UNIT_POS % CHANNELS) as usize;
        of_beta += betas[at];
        of_gamma += gammas[at];
    }
    let of_beta = sum_runs(of_beta, &mut shared);
    let of_gamma = sum_runs(of_gamma, &mut shared);
    if channel < c && UNIT_POS < CHANNELS {
        partial[2usize * part * c + channel] = of_beta;
        partial[(2usize * part + 1usize) * c + channel] = of_gamma;
    }
    if merged {
        if is_last(counters, CUBE_POS_Y, parts as u32, &mut arrived) {
            add_parts(partial, beta, gamma, CUBE_POS_Y, c, parts, &mut shared);
        }
    }
}

/// Adds the parts of the channels of a group, shared among units as the parts of moments are.
#[cube]
fn add_parts(
    partial: &mut [f32],
    beta: &mut [f32],
    gamma: &mut [f32],
    group: u32,
    c: usize,
    parts: usize,
    shared: &mut Shared<[f32]>,
) {
    let channel = (group * CHANNELS + UNIT_POS % CHANNELS) as usize;
    let run = (UNIT_POS / CHANNELS) as usize;
    let each = parts.div_ceil(comptime!(RUNS as usize));
    let mut first = 0.0f32;
    let mut second = 0.0f32;
    if channel < c {
        let end = min((run + 1usize) * each, parts);
        let mut part = min(run * each, parts);
        while part < end {
            let mut firsts = Array::<f32>::new(PARTS_AHEAD);
            let mut seconds = Array::<f32>::new(PARTS_AHEAD);
            #[unroll]
            for i in 0usize..PARTS_AHEAD {
                let at = 2usize * min(part + i, end - 1usize) * c + channel;
                firsts[i] = partial[at];
                seconds[i] = partial[at + c];
            }
            #[unroll]
            for i in 0usize..PARTS_AHEAD {
                if part + i < end {
                    first += firsts[i];
                    second += seconds[i];
                }
            }
            part += PARTS_AHEAD;
        }
    }
    let first = sum_runs(first, shared);
    let second = sum_runs(second, shared);
    if channel < c && UNIT_POS < CHANNELS {
        beta[channel] = first;
        gamma[channel] = second;
    }
}

/// Adds the parts of the gradients, where cubes do not see what others wrote. One cube a group of channels.
#[cube(launch_unchecked)]
pub(crate) fn add_parts_kernel(
    partial: &mut [f32],
    beta: &mut [f32],
    gamma: &mut [f32],
    c: usize,
    parts: usize,
) {
    let mut shared = Shared::<[f32]>::new_slice(comptime!(UNITS as usize));
    add_parts(partial, beta, gamma, CUBE_POS_X, c, parts, &mut shared);
}

//! Kernels of batch norm.

use cubecl::prelude::*;

use crate::conv::mma::After;

/// Channels of a cube.
pub(crate) const CHANNELS: u32 = 32;
/// Units that share a channel.
pub(crate) const SHARES: u32 = 8;
/// Units of a cube of the statistics' kernels.
pub(crate) const UNITS: u32 = CHANNELS * SHARES;

/// Sums `value` over the units of a cube that share a channel; all of them get the sum.
#[cube]
fn sum_shares(value: f32, sums: &mut Shared<[f32]>) -> f32 {
    sync_cube();
    sums[UNIT_POS as usize] = value;
    sync_cube();
    let mut total = 0.0f32;
    for share in 0u32..SHARES {
        total += sums[(share * CHANNELS + UNIT_POS % CHANNELS) as usize];
    }
    total
}

/// Mean and squared deviations `partial[part, 2, c]` of rows `part * rows ..` of each channel.
#[cube(launch_unchecked, address_type = "dynamic")]
pub(crate) fn moments_kernel<F: Float>(x: &[F], partial: &mut [f32], n: usize, c: usize, rows: usize) {
    let mut sums = Shared::<[f32]>::new_slice(comptime!(UNITS as usize));
    let channel = (CUBE_POS_Y * CHANNELS + UNIT_POS % CHANNELS) as usize;
    let part = CUBE_POS_X as usize;
    let first = part * rows;
    let end = min(first + rows, n);
    let mut sum = 0.0f32;
    if channel < c {
        let mut row = first + (UNIT_POS / CHANNELS) as usize;
        while row < end {
            sum += f32::cast_from(x[row * c + channel]);
            row += comptime!(SHARES as usize);
        }
    }
    let count = f32::cast_from((end - first) as u32);
    let mean = sum_shares(sum, &mut sums) / count;
    let mut square = 0.0f32;
    if channel < c {
        let mut row = first + (UNIT_POS / CHANNELS) as usize;
        while row < end {
            let away = f32::cast_from(x[row * c + channel]) - mean;
            square += away * away;
            row += comptime!(SHARES as usize);
        }
    }
    let square = sum_shares(square, &mut sums);
    if channel < c && UNIT_POS < CHANNELS {
        partial[2usize * part * c + channel] = mean;
        partial[(2usize * part + 1usize) * c + channel] = square;
    }
}

/// Merges the moments of two sets of rows: count, mean and squared deviations of the first take in those of the second.
#[cube]
fn merge(count: &mut f32, center: &mut f32, square: &mut f32, n: f32, mean: f32, deviations: f32) {
    let total = *count + n;
    if n > 0.0f32 {
        let away = mean - *center;
        *center += away * (n / total);
        *square += deviations + away * away * (*count * n / total);
        *count = total;
    }
}

/// Merges the parts of each channel: `mean[c]` and biased `var[c]`. The units that share a channel merge a run of parts each, in order,
/// and one of them merges the runs in order.
///
/// Where there are running statistics, they move: `old * (1 - momentum) + found * momentum`, the variance found times `unbias`.
#[cube(launch_unchecked)]
pub(crate) fn merge_moments_kernel(
    partial: &[f32],
    old_mean: &[f32],
    old_var: &[f32],
    mean: &mut [f32],
    var: &mut [f32],
    moved_mean: &mut [f32],
    moved_var: &mut [f32],
    n: usize,
    c: usize,
    rows: usize,
    parts: usize,
    momentum: f32,
    unbias: f32,
    #[comptime] with_running: bool,
) {
    let mut counts = Shared::<[f32]>::new_slice(comptime!(UNITS as usize));
    let mut centers = Shared::<[f32]>::new_slice(comptime!(UNITS as usize));
    let mut squares = Shared::<[f32]>::new_slice(comptime!(UNITS as usize));
    let channel = (CUBE_POS_X * CHANNELS + UNIT_POS % CHANNELS) as usize;
    let share = (UNIT_POS / CHANNELS) as usize;
    let run = parts.div_ceil(comptime!(SHARES as usize));
    let mut count = 0.0f32;
    let mut center = 0.0f32;
    let mut square = 0.0f32;
    if channel < c {
        let end = min((share + 1usize) * run, parts);
        let mut part = min(share * run, parts);
        while part < end {
            // Several are asked for at a time, and merged in order.
            let mut means = Array::<f32>::new(4usize);
            let mut deviations = Array::<f32>::new(4usize);
            #[unroll]
            for i in 0usize..4usize {
                let at = 2usize * min(part + i, end - 1usize) * c + channel;
                means[i] = partial[at];
                deviations[i] = partial[at + c];
            }
            #[unroll]
            for i in 0usize..4usize {
                let here = part + i;
                if here < end {
                    let n = f32::cast_from((min((here + 1usize) * rows, n) - here * rows) as u32);
                    merge(&mut count, &mut center, &mut square, n, means[i], deviations[i]);
                }
            }
            part += 4usize;
        }
    }
    counts[UNIT_POS as usize] = count;
    centers[UNIT_POS as usize] = center;
    squares[UNIT_POS as usize] = square;
    sync_cube();
    if channel < c && UNIT_POS < CHANNELS {
        for other in 1u32..SHARES {
            let at = (other * CHANNELS + UNIT_POS) as usize;
            merge(&mut count, &mut center, &mut square, counts[at], centers[at], squares[at]);
        }
        let variance = square / max(count, 1.0f32);
        mean[channel] = center;
        var[channel] = variance;
        if comptime!(with_running) {
            let keep = 1.0f32 - momentum;
            moved_mean[channel] = old_mean[channel] * keep + center * momentum;
            moved_var[channel] = old_var[channel] * keep + variance * unbias * momentum;
        }
    }
}

/// `activation((x - mean) / sqrt(var + eps) * gamma + beta + residual)`. One unit an element.
#[cube(launch_unchecked, address_type = "dynamic")]
pub(crate) fn normalize_kernel<F: Float>(
    x: &[F],
    mean: &[f32],
    var: &[f32],
    gamma: &[f32],
    beta: &[f32],
    residual: &[F],
    y: &mut [F],
    c: usize,
    eps: f32,
    #[comptime] with_residual: bool,
    #[comptime] after: After,
) {
    if ABSOLUTE_POS < y.len() {
        let channel = ABSOLUTE_POS % c;
        let scale = gamma[channel] / f32::sqrt(var[channel] + eps);
        let mut value = (f32::cast_from(x[ABSOLUTE_POS]) - mean[channel]) * scale + beta[channel];
        if comptime!(with_residual) {
            value += f32::cast_from(residual[ABSOLUTE_POS]);
        }
        match comptime!(after) {
            After::Nothing => {}
            // Compared rather than `max`: a NaN stays.
            After::Relu => {
                if value < 0.0f32 {
                    value = 0.0f32;
                }
            }
            After::LeakyRelu(slope) => {
                if value < 0.0f32 {
                    value *= comptime!(f32::from_bits(slope));
                }
            }
        }
        y[ABSOLUTE_POS] = F::cast_from(value);
    }
}

/// The gradient before the activation.
#[cube]
fn before_activation<F: Float>(g: &[F], y: &[F], at: usize, #[comptime] after: After) -> f32 {
    let mut value = f32::cast_from(g[at]);
    match comptime!(after) {
        After::Nothing => {}
        After::Relu => {
            if f32::cast_from(y[at]) <= 0.0f32 {
                value = 0.0f32;
            }
        }
        After::LeakyRelu(slope) => {
            if f32::cast_from(y[at]) <= 0.0f32 {
                value *= comptime!(f32::from_bits(slope));
            }
        }
    }
    value
}

/// Sums of `g` and of `g * normalized x` over the rows of each part: `partial[part, 2, c]`.
#[cube(launch_unchecked, address_type = "dynamic")]
pub(crate) fn gradient_sums_kernel<F: Float>(
    x: &[F],
    y: &[F],
    g: &[F],
    mean: &[f32],
    var: &[f32],
    partial: &mut [f32],
    n: usize,
    c: usize,
    rows: usize,
    eps: f32,
    #[comptime] after: After,
) {
    let mut sums = Shared::<[f32]>::new_slice(comptime!(UNITS as usize));
    let channel = (CUBE_POS_Y * CHANNELS + UNIT_POS % CHANNELS) as usize;
    let part = CUBE_POS_X as usize;
    let first = part * rows;
    let end = min(first + rows, n);
    let mut beta = 0.0f32;
    let mut gamma = 0.0f32;
    if channel < c {
        let center = mean[channel];
        let inverse = 1.0f32 / f32::sqrt(var[channel] + eps);
        let mut row = first + (UNIT_POS / CHANNELS) as usize;
        while row < end {
            let at = row * c + channel;
            let grad = before_activation::<F>(g, y, at, after);
            beta += grad;
            gamma += grad * (f32::cast_from(x[at]) - center) * inverse;
            row += comptime!(SHARES as usize);
        }
    }
    let beta = sum_shares(beta, &mut sums);
    let gamma = sum_shares(gamma, &mut sums);
    if channel < c && UNIT_POS < CHANNELS {
        partial[2usize * part * c + channel] = beta;
        partial[(2usize * part + 1usize) * c + channel] = gamma;
    }
}

/// Adds the parts of each channel, shared as in [`merge_moments_kernel`].
#[cube(launch_unchecked)]
pub(crate) fn add_parts_kernel(partial: &[f32], beta: &mut [f32], gamma: &mut [f32], c: usize, parts: usize) {
    let mut sums = Shared::<[f32]>::new_slice(comptime!(UNITS as usize));
    let channel = (CUBE_POS_X * CHANNELS + UNIT_POS % CHANNELS) as usize;
    let share = (UNIT_POS / CHANNELS) as usize;
    let run = parts.div_ceil(comptime!(SHARES as usize));
    let mut first = 0.0f32;
    let mut second = 0.0f32;
    if channel < c {
        for part in min(share * run, parts)..min((share + 1usize) * run, parts) {
            first += partial[2usize * part * c + channel];
            second += partial[(2usize * part + 1usize) * c + channel];
        }
    }
    let first = sum_shares(first, &mut sums);
    let second = sum_shares(second, &mut sums);
    if channel < c && UNIT_POS < CHANNELS {
        beta[channel] = first;
        gamma[channel] = second;
    }
}

/// Gradients of the rows and of the residual. One unit an element.
#[cube(launch_unchecked, address_type = "dynamic")]
pub(crate) fn spread_gradient_kernel<F: Float>(
    x: &[F],
    y: &[F],
    g: &[F],
    mean: &[f32],
    var: &[f32],
    gamma: &[f32],
    beta_sum: &[f32],
    gamma_sum: &[f32],
    dx: &mut [F],
    residual: &mut [F],
    n: f32,
    c: usize,
    eps: f32,
    #[comptime] with_residual: bool,
    #[comptime] after: After,
) {
    if ABSOLUTE_POS < dx.len() {
        let channel = ABSOLUTE_POS % c;
        let inverse = 1.0f32 / f32::sqrt(var[channel] + eps);
        let normalized = (f32::cast_from(x[ABSOLUTE_POS]) - mean[channel]) * inverse;
        let grad = before_activation::<F>(g, y, ABSOLUTE_POS, after);
        let away = grad - (beta_sum[channel] + normalized * gamma_sum[channel]) / n;
        dx[ABSOLUTE_POS] = F::cast_from(away * gamma[channel] * inverse);
        if comptime!(with_residual) {
            residual[ABSOLUTE_POS] = F::cast_from(grad);
        }
    }
}

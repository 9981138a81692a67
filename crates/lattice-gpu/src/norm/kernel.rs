//! Kernels of batch norm. Rows are `[rows, width]` vectors of `N` channels.
//!
//! A cube of the statistics' kernels has a group of channels and a part of the rows. Where a device lets cubes read what others wrote, the
//! cube of a group that comes last puts the parts together; elsewhere a second launch does. Either way in the order of the parts.
#![allow(clippy::collapsible_if, reason = "a condition of the compilation stands around one of the device")]

use cubecl::prelude::*;

use crate::conv::mma::After;
use crate::last::is_last;

/// Channels of a cube.
pub(crate) const CHANNELS: u32 = 32;
/// Units of a cube of the statistics' kernels.
pub(crate) const UNITS: u32 = 256;
/// Runs that the parts of a channel are cut into: units that put them together.
const RUNS: u32 = UNITS / CHANNELS;
/// Rows that a unit asks for at a time.
const AHEAD: usize = 4;
/// Parts that a unit asks for at a time.
const PARTS_AHEAD: usize = 16;
/// Rows of a unit that computes rows.
pub(crate) const ROWS_EACH: usize = 4;

/// The gradient before the activation, of one vector.
#[cube]
fn before_activation<F: Float, N: Size>(
    g: Vector<F, N>,
    y: Vector<F, N>,
    #[comptime] after: After,
) -> Vector<f32, N> {
    let mut value = Vector::<f32, N>::cast_from(g);
    let through = Vector::<f32, N>::cast_from(y).greater_than(&Vector::new(0.0f32));
    match comptime!(after) {
        After::Nothing => {}
        After::Relu => value = select_many(through, value, Vector::new(0.0f32)),
        After::LeakyRelu(slope) => {
            let slope = comptime!(f32::from_bits(slope));
            value = select_many(through, value, value * Vector::new(slope));
        }
    }
    value
}

/// Rows, out of `AHEAD` that are `stride` apart from `row` on, that lie before `end`.
#[cube]
fn rows_ahead(row: usize, end: usize, stride: usize) -> usize {
    min((end - row).div_ceil(stride), AHEAD)
}

/// Takes the moments of `n` further rows into `count`, `mean` and squared deviations `square`.
#[cube]
fn merge<N: Size>(
    count: &mut f32,
    mean: &mut Vector<f32, N>,
    square: &mut Vector<f32, N>,
    n: f32,
    further: Vector<f32, N>,
    deviations: Vector<f32, N>,
) {
    let total = *count + n;
    let away = further - *mean;
    *mean += away * Vector::new(n / total);
    *square += deviations + away * away * Vector::new(*count * n / total);
    *count = total;
}

/// Sums a value over the units that share a channel; all of them get the sum.
#[cube]
fn sum_runs(value: f32, shared: &mut Shared<[f32]>) -> f32 {
    sync_cube();
    shared[UNIT_POS as usize] = value;
    sync_cube();
    let mut total = 0.0f32;
    for run in 0u32..RUNS {
        total += shared[(run * CHANNELS + UNIT_POS % CHANNELS) as usize];
    }
    total
}

/// What [`merge_parts`] writes to the buffers of moved statistics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Moves {
    /// Nothing.
    Nothing,
    /// The running statistics, moved by those found.
    Running,
    /// The number of rows, in the first.
    Count,
}

/// Mean and squared deviations `partial[part, 2, c]` of rows `part * rows ..` of each channel, and, where a device has cubes see what others
/// wrote (`merged`), what [`merge_moments_kernel`] makes of them.
#[cube(launch_unchecked, address_type = "dynamic")]
pub(crate) fn moments_kernel<F: Float, N: Size>(
    x: &[Vector<F, N>],
    partial: &mut [f32],
    counters: &mut [Atomic<u32>],
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
    #[comptime] moves: Moves,
    #[comptime] merged: bool,
) {
    let lanes = N::value();
    let columns = comptime!(CHANNELS / lanes as u32);
    let shares = comptime!(UNITS / columns);
    let mut shared = Shared::<[f32]>::new_slice(comptime!(UNITS as usize));
    let mut counts = Shared::<[f32]>::new_slice(comptime!(shares as usize));
    let mut means = Shared::<[f32]>::new_slice(comptime!((shares * CHANNELS) as usize));
    let mut squares = Shared::<[f32]>::new_slice(comptime!((shares * CHANNELS) as usize));
    let mut arrived = Shared::<[u32]>::new_slice(1usize);
    let column = UNIT_POS % columns;
    let share = UNIT_POS / columns;
    let width = c / lanes;
    let vector = (CUBE_POS_Y * columns + column) as usize;
    let part = CUBE_POS_X as usize;
    let first = part * rows;
    let end = min(first + rows, n);
    // A unit merges its rows a few at a time.
    let mut count = 0.0f32;
    let mut center = Vector::<f32, N>::new(0.0f32);
    let mut square = Vector::<f32, N>::new(0.0f32);
    if vector < width {
        let stride = comptime!(shares as usize);
        let mut row = first + share as usize;
        while row < end {
            let here = rows_ahead(row, end, stride);
            let mut values = Array::<Vector<f32, N>>::new(AHEAD);
            #[unroll]
            for i in 0usize..AHEAD {
                values[i] = Vector::cast_from(x[min(row + i * stride, end - 1usize) * width + vector]);
            }
            let mut sum = Vector::<f32, N>::new(0.0f32);
            #[unroll]
            for i in 0usize..AHEAD {
                sum += values[i] * Vector::new(select(i < here, 1.0f32, 0.0f32));
            }
            let n_here = f32::cast_from(here as u32);
            let middle = sum * Vector::new(1.0f32 / n_here);
            let mut deviations = Vector::<f32, N>::new(0.0f32);
            #[unroll]
            for i in 0usize..AHEAD {
                let away = values[i] - middle;
                deviations += away * away * Vector::new(select(i < here, 1.0f32, 0.0f32));
            }
            merge::<N>(&mut count, &mut center, &mut square, n_here, middle, deviations);
            row += comptime!(AHEAD * shares as usize);
        }
    }
    if column == 0u32 {
        counts[share as usize] = count;
    }
    #[unroll]
    for i in 0usize..lanes {
        let at = share * CHANNELS + column * comptime!(lanes as u32) + comptime!(i as u32);
        means[at as usize] = center.extract(i);
        squares[at as usize] = square.extract(i);
    }
    sync_cube();
    let channel = (CUBE_POS_Y * CHANNELS + UNIT_POS % CHANNELS) as usize;
    let run = UNIT_POS / CHANNELS;
    let each = comptime!(shares / RUNS);
    // The mean of all is known before their deviations are added: a few products a share, and no division.
    let mut sum = 0.0f32;
    #[unroll]
    for i in 0u32..each {
        let share = run * each + i;
        sum += counts[share as usize] * means[(share * CHANNELS + UNIT_POS % CHANNELS) as usize];
    }
    let center = sum_runs(sum, &mut shared) / f32::cast_from((end - first) as u32);
    let mut square = 0.0f32;
    #[unroll]
    for i in 0u32..each {
        let share = run * each + i;
        let at = (share * CHANNELS + UNIT_POS % CHANNELS) as usize;
        let away = means[at] - center;
        square += squares[at] + away * away * counts[share as usize];
    }
    let square = sum_runs(square, &mut shared);
    if channel < c && UNIT_POS < CHANNELS {
        partial[2usize * part * c + channel] = center;
        partial[(2usize * part + 1usize) * c + channel] = square;
    }
    if merged {
        if is_last(counters, CUBE_POS_Y, parts as u32, &mut arrived) {
            merge_parts(
                partial,
                old_mean,
                old_var,
                mean,
                var,
                moved_mean,
                moved_var,
                CUBE_POS_Y,
                n,
                c,
                rows,
                parts,
                momentum,
                unbias,
                &mut shared,
                moves,
            );
        }
    }
}

/// Merges the parts of the channels of a group: `mean[c]` and biased `var[c]`. The units that share a channel add a run of parts each, in
/// order, and then the runs.
///
/// Where there are running statistics, they move: `old * (1 - momentum) + found * momentum`, the variance found times `unbias`; or the rows
/// are written in their place ([`Moves`]).
#[cube]
fn merge_parts(
    partial: &mut [f32],
    old_mean: &[f32],
    old_var: &[f32],
    mean: &mut [f32],
    var: &mut [f32],
    moved_mean: &mut [f32],
    moved_var: &mut [f32],
    group: u32,
    n: usize,
    c: usize,
    rows: usize,
    parts: usize,
    momentum: f32,
    unbias: f32,
    shared: &mut Shared<[f32]>,
    #[comptime] moves: Moves,
) {
    let channel = (group * CHANNELS + UNIT_POS % CHANNELS) as usize;
    let run = (UNIT_POS / CHANNELS) as usize;
    let each = parts.div_ceil(comptime!(RUNS as usize));
    let begin = min(run * each, parts);
    let end = min((run + 1usize) * each, parts);
    let mut sum = 0.0f32;
    if channel < c {
        let mut part = begin;
        while part < end {
            // Several are asked for at a time, and added in order.
            let mut found = Array::<f32>::new(PARTS_AHEAD);
            #[unroll]
            for i in 0usize..PARTS_AHEAD {
                found[i] = partial[2usize * min(part + i, end - 1usize) * c + channel];
            }
            #[unroll]
            for i in 0usize..PARTS_AHEAD {
                sum += found[i] * rows_of_part(part + i, end, rows, n);
            }
            part += PARTS_AHEAD;
        }
    }
    let found = sum_runs(sum, shared) / f32::cast_from(n as u32);
    let mut square = 0.0f32;
    if channel < c {
        let mut part = begin;
        while part < end {
            let mut means = Array::<f32>::new(PARTS_AHEAD);
            let mut deviations = Array::<f32>::new(PARTS_AHEAD);
            #[unroll]
            for i in 0usize..PARTS_AHEAD {
                let at = 2usize * min(part + i, end - 1usize) * c + channel;
                means[i] = partial[at];
                deviations[i] = partial[at + c];
            }
            #[unroll]
            for i in 0usize..PARTS_AHEAD {
                let away = means[i] - found;
                let n_here = rows_of_part(part + i, end, rows, n);
                square += select(n_here > 0.0f32, deviations[i], 0.0f32) + away * away * n_here;
            }
            part += PARTS_AHEAD;
        }
    }
    let square = sum_runs(square, shared);
    if channel < c && UNIT_POS < CHANNELS {
        let variance = square / f32::cast_from(n as u32);
        mean[channel] = found;
        var[channel] = variance;
        if comptime!(moves == Moves::Count) && channel == 0usize {
            moved_mean[0] = f32::cast_from(n as u32);
        }
        if comptime!(moves == Moves::Running) {
            let keep = 1.0f32 - momentum;
            moved_mean[channel] = old_mean[channel] * keep + found * momentum;
            moved_var[channel] = old_var[channel] * keep + variance * unbias * momentum;
        }
    }
}

/// Rows of a part; none from `end` on.
#[cube]
fn rows_of_part(part: usize, end: usize, rows: usize, n: usize) -> f32 {
    let last = min((part + 1usize) * rows, n);
    select(part < end, f32::cast_from((last - min(part * rows, last)) as u32), 0.0f32)
}

/// Puts the parts of the moments together, where cubes do not see what others wrote. One cube a group of channels.
#[cube(launch_unchecked)]
pub(crate) fn merge_moments_kernel(
    partial: &mut [f32],
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
    #[comptime] moves: Moves,
) {
    let mut shared = Shared::<[f32]>::new_slice(comptime!(UNITS as usize));
    merge_parts(
        partial,
        old_mean,
        old_var,
        mean,
        var,
        moved_mean,
        moved_var,
        CUBE_POS_X,
        n,
        c,
        rows,
        parts,
        momentum,
        unbias,
        &mut shared,
        moves,
    );
}

/// `activation((x - mean) / sqrt(var + eps) * gamma + beta + residual)`. A unit has one vector of [`ROWS_EACH`] rows, which are `stride`
/// apart, so that it reads what goes with its channels once.
#[cube(launch_unchecked, address_type = "dynamic")]
pub(crate) fn normalize_kernel<F: Float, N: Size>(
    x: &[Vector<F, N>],
    mean: &[Vector<f32, N>],
    var: &[Vector<f32, N>],
    gamma: &[Vector<f32, N>],
    beta: &[Vector<f32, N>],
    residual: &[Vector<F, N>],
    y: &mut [Vector<F, N>],
    width: usize,
    stride: usize,
    eps: f32,
    #[comptime] with_residual: bool,
    #[comptime] after: After,
) {
    if ABSOLUTE_POS < stride * width {
        let vector = ABSOLUTE_POS % width;
        let scale = gamma[vector] / (var[vector] + Vector::new(eps)).sqrt();
        let center = mean[vector];
        let shift = beta[vector];
        let last = x.len() - width + vector;
        let mut values = Array::<Vector<f32, N>>::new(ROWS_EACH);
        let mut others = Array::<Vector<f32, N>>::new(ROWS_EACH);
        #[unroll]
        for i in 0usize..ROWS_EACH {
            let at = min(ABSOLUTE_POS + i * stride * width, last);
            values[i] = Vector::cast_from(x[at]);
            if with_residual {
                others[i] = Vector::cast_from(residual[at]);
            }
        }
        let zero = Vector::<f32, N>::new(0.0f32);
        #[unroll]
        for i in 0usize..ROWS_EACH {
            let at = ABSOLUTE_POS + i * stride * width;
            let mut value = (values[i] - center) * scale + shift;
            if with_residual {
                value += others[i];
            }
            match comptime!(after) {
                After::Nothing => {}
                // Compared rather than `max`: a NaN stays.
                After::Relu => value = select_many(value.less_than(&zero), zero, value),
                After::LeakyRelu(slope) => {
                    let slope = comptime!(f32::from_bits(slope));
                    value = select_many(value.less_than(&zero), value * Vector::new(slope), value);
                }
            }
            if at <= last {
                y[at] = Vector::cast_from(value);
            }
        }
    }
}

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
    let columns = comptime!(CHANNELS / lanes as u32);
    let shares = comptime!(UNITS / columns);
    let mut shared = Shared::<[f32]>::new_slice(comptime!(UNITS as usize));
    let mut betas = Shared::<[f32]>::new_slice(comptime!((shares * CHANNELS) as usize));
    let mut gammas = Shared::<[f32]>::new_slice(comptime!((shares * CHANNELS) as usize));
    let mut arrived = Shared::<[u32]>::new_slice(1usize);
    let column = UNIT_POS % columns;
    let share = UNIT_POS / columns;
    let width = c / lanes;
    let vector = (CUBE_POS_Y * columns + column) as usize;
    let part = CUBE_POS_X as usize;
    let first = part * rows;
    let end = min(first + rows, n);
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

/// Adds the parts of the channels of a group, shared among units as in [`merge_parts`].
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

/// Gradients of the rows and of the residual. Units have rows as in [`normalize_kernel`]. The sums are those of a batch of `n` rows.
#[cube(launch_unchecked, address_type = "dynamic")]
pub(crate) fn spread_gradient_kernel<F: Float, N: Size>(
    x: &[Vector<F, N>],
    y: &[Vector<F, N>],
    g: &[Vector<F, N>],
    mean: &[Vector<f32, N>],
    var: &[Vector<f32, N>],
    gamma: &[Vector<f32, N>],
    beta_sum: &[Vector<f32, N>],
    gamma_sum: &[Vector<f32, N>],
    dx: &mut [Vector<F, N>],
    residual: &mut [Vector<F, N>],
    n: f32,
    width: usize,
    stride: usize,
    eps: f32,
    #[comptime] with_residual: bool,
    #[comptime] after: After,
) {
    if ABSOLUTE_POS < stride * width {
        let vector = ABSOLUTE_POS % width;
        let inverse = Vector::new(1.0f32) / (var[vector] + Vector::new(eps)).sqrt();
        let center = mean[vector];
        let scale = gamma[vector] * inverse;
        let by_beta = beta_sum[vector] / Vector::new(n);
        let by_gamma = gamma_sum[vector] * inverse / Vector::new(n);
        let last = x.len() - width + vector;
        let mut grads = Array::<Vector<f32, N>>::new(ROWS_EACH);
        let mut values = Array::<Vector<f32, N>>::new(ROWS_EACH);
        #[unroll]
        for i in 0usize..ROWS_EACH {
            let at = min(ABSOLUTE_POS + i * stride * width, last);
            grads[i] = before_activation::<F, N>(g[at], y[at], after);
            values[i] = Vector::cast_from(x[at]);
        }
        #[unroll]
        for i in 0usize..ROWS_EACH {
            let at = ABSOLUTE_POS + i * stride * width;
            let away = grads[i] - by_beta - (values[i] - center) * by_gamma;
            if at <= last {
                dx[at] = Vector::cast_from(away * scale);
                if with_residual {
                    residual[at] = Vector::cast_from(grads[i]);
                }
            }
        }
    }
}

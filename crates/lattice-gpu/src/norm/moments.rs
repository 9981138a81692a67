//! Mean and variance of each channel.
#![allow(clippy::collapsible_if, reason = "a condition of the compilation stands around one of the device")]

use cubecl::prelude::*;

use super::share::{AHEAD, CHANNELS, Own, PARTS_AHEAD, RUNS, UNITS, own, rows_ahead, sum_runs};
use crate::last::is_last;

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
    let shares = comptime!(UNITS * lanes as u32 / CHANNELS);
    let mut shared = Shared::<[f32]>::new_slice(comptime!(UNITS as usize));
    let mut counts = Shared::<[f32]>::new_slice(comptime!(shares as usize));
    let mut means = Shared::<[f32]>::new_slice(comptime!((shares * CHANNELS) as usize));
    let mut squares = Shared::<[f32]>::new_slice(comptime!((shares * CHANNELS) as usize));
    let mut arrived = Shared::<[u32]>::new_slice(1usize);
    let Own { column, share, width, vector, part, first, end } = own(n, c, rows, lanes);
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

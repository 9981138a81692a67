//! Passes over the channels of a feature matrix: normalisation and its statistics.

use rayon::prelude::*;

use crate::scalar::{Acc, Scalar};
use crate::simd::Engine;
use crate::{Activation, Epilogue, isa};

/// Rows of a task.
const ROWS: usize = 1024;

/// Elements of a block of rows: a few arrays of them stay in the second cache.
const BLOCK: usize = 8192;

/// Rows that are summed before their sums are merged in order; depends on the channels alone, so that sums never depend on threads.
pub(crate) fn block_rows(c: usize) -> usize {
    (BLOCK / c).clamp(16, ROWS)
}

/// A block in the type of sums: itself, or converted into `room`.
pub(crate) fn widened<'a, T: Scalar>(engine: Engine, x: &'a [T], room: &'a mut Vec<T::Acc>) -> &'a [T::Acc] {
    match T::as_acc(x) {
        Some(x) => x,
        None => {
            room.resize(x.len(), T::Acc::ZERO);
            T::widen(engine, x, room);
            room
        }
    }
}

/// Columns `at..at + K` of a row.
#[inline(always)]
pub(crate) fn strip<A, const K: usize>(row: &[A], at: usize) -> &[A; K] {
    row[at..].first_chunk().expect("strips end within the row")
}

/// Runs a body for every strip of `c` columns, `K` of them from column `at`: sums of 16 columns stay in registers over all rows.
macro_rules! for_strips {
    ($c:expr, |$width:ident, $at:ident| $body:block) => {{
        let mut $at = 0;
        while $at + 16 <= $c {
            const $width: usize = 16;
            $body
            $at += 16;
        }
        while $at + 4 <= $c {
            const $width: usize = 4;
            $body
            $at += 4;
        }
        while $at < $c {
            const $width: usize = 1;
            $body
            $at += 1;
        }
    }};
}
pub(crate) use for_strips;

/// `out[r, c] = activation(x[r, c] * scale[c] + shift[c])`, in `f32` (`f64` for `f64`), rounded once.
///
/// # Panics
/// When `x` and `out` differ in length or are not whole rows of `scale.len()` channels.
pub fn scale_shift_activation<T: Scalar>(
    x: &[T],
    c: usize,
    scale: &[f32],
    shift: &[f32],
    activation: Activation,
    out: &mut [T],
) {
    let op = "scale_shift_activation";
    assert_eq!(x.len(), out.len(), "{op}: length of the output");
    if x.is_empty() {
        return;
    }
    assert!(
        c > 0 && x.len().is_multiple_of(c),
        "{op}: {} elements are no whole rows of {c} channels",
        x.len()
    );
    let epilogue = Epilogue { scale_shift: Some((scale, shift)), activation, ..Epilogue::default() };
    epilogue.check(op, x.len() / c, c);
    let engine = isa::engine();
    out.par_chunks_mut(ROWS * c).zip(x.par_chunks(ROWS * c)).for_each(|(out, x)| {
        let mut sum = vec![T::Acc::ZERO; c];
        engine.vectorize(|| {
            for (out, x) in out.chunks_exact_mut(c).zip(x.chunks_exact(c)) {
                T::widen(engine, x, &mut sum);
                epilogue.finish(engine, 0, c, 0..c, &mut sum, &mut [], out);
            }
        });
    });
}

/// Mean and variance of every channel.
#[derive(Clone, Debug, PartialEq)]
pub struct Moments {
    /// `[c]`
    pub mean: Vec<f64>,
    /// `[c]`: mean of the squared distances from the mean (divided by the number of rows).
    pub variance: Vec<f64>,
}

impl Moments {
    /// Moments of a batch from those of its parts, each with its rows, merged in their order; also the rows in all. Zeros when there is no row.
    pub fn merged(parts: &[(f64, Self)]) -> (f64, Self) {
        let c = parts.first().map_or(0, |(_, part)| part.mean.len());
        let rows: f64 = parts.iter().map(|(n, _)| n).sum();
        let over = |sum: f64| if rows > 0.0 { sum / rows } else { 0.0 };
        let mean: Vec<f64> =
            (0..c).map(|j| over(parts.iter().map(|(n, part)| n * part.mean[j]).sum())).collect();
        let squares = |j: usize| {
            parts.iter().map(|(n, part)| n * (part.variance[j] + (part.mean[j] - mean[j]).powi(2))).sum()
        };
        let variance = (0..c).map(|j| over(squares(j))).collect();
        (rows, Self { mean, variance })
    }
}

/// Mean and biased variance of each channel of `x: [n, c]`; zeros when there is no row.
///
/// Blocks of rows are summed in `f64` around their own means and merged in order: the same bits for any number of threads.
///
/// # Source
/// The merge is that of Chan, Golub, LeVeque 1979.
/// # Panics
/// When `x` is not whole rows of `c` channels.
pub fn channel_moments<T: Scalar>(x: &[T], c: usize) -> Moments {
    let mut total = Moments { mean: vec![0.0; c], variance: vec![0.0; c] };
    if x.is_empty() {
        return total;
    }
    assert!(
        c > 0 && x.len().is_multiple_of(c),
        "channel_moments: {} elements are no whole rows of {c} channels",
        x.len()
    );
    let engine = isa::engine();
    let block = block_rows(c) * c;
    // Per block the means, then the sums of squares around them.
    let mut parts = vec![0.0; x.len().div_ceil(block) * 2 * c];
    parts.par_chunks_mut(2 * c).zip(x.par_chunks(block)).for_each_init(Vec::new, |wide, (part, x)| {
        let (mean, squares) = part.split_at_mut(c);
        let x = widened(engine, x, wide);
        engine.vectorize(|| {
            for_strips!(c, |K, at| {
                let mut sum = [0.0; K];
                for x in x.chunks_exact(c) {
                    let x = strip::<_, K>(x, at);
                    for k in 0..K {
                        sum[k] += x[k].to_f64();
                    }
                }
                let around = sum.map(|sum| sum / (x.len() / c) as f64);
                let mut sum = [0.0; K];
                for x in x.chunks_exact(c) {
                    let x = strip::<_, K>(x, at);
                    for k in 0..K {
                        let centred = x[k].to_f64() - around[k];
                        sum[k] += centred * centred;
                    }
                }
                mean[at..at + K].copy_from_slice(&around);
                squares[at..at + K].copy_from_slice(&sum);
            });
        });
    });
    let mut seen = 0.0;
    for (part, x) in parts.chunks_exact(2 * c).zip(x.chunks(block)) {
        let (mean, squares) = part.split_at(c);
        let rows = (x.len() / c) as f64;
        let share = rows / (seen + rows);
        for j in 0..c {
            let step = mean[j] - total.mean[j];
            total.mean[j] += step * share;
            total.variance[j] += squares[j] + step * step * seen * share;
        }
        seen += rows;
    }
    for variance in &mut total.variance {
        *variance /= seen;
    }
    total
}

/// Sum over all rows of each channel of `x: [n, c]`: the gradient of a bias. Fixed chunks, `f64`, in order.
///
/// # Panics
/// When `x` is not whole rows of `c` channels.
pub fn channel_sums<T: Scalar>(x: &[T], c: usize) -> Vec<f64> {
    let mut total = vec![0.0; c];
    if x.is_empty() {
        return total;
    }
    assert!(
        c > 0 && x.len().is_multiple_of(c),
        "channel_sums: {} elements are no whole rows of {c} channels",
        x.len()
    );
    let engine = isa::engine();
    let parts: Vec<Vec<f64>> = x
        .par_chunks(ROWS * c)
        .map(|x| {
            let mut wide = vec![T::Acc::ZERO; c];
            let mut sums = vec![0.0; c];
            engine.vectorize(|| {
                for row in x.chunks_exact(c) {
                    T::widen(engine, row, &mut wide);
                    for (sum, v) in sums.iter_mut().zip(&wide) {
                        *sum += v.to_f64();
                    }
                }
            });
            sums
        })
        .collect();
    for part in parts {
        for (total, part) in total.iter_mut().zip(part) {
            *total += part;
        }
    }
    total
}

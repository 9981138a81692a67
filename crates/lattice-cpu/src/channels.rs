//! Passes over the channels of a feature matrix: normalisation and its statistics.

use rayon::prelude::*;

use crate::scalar::{Acc, Scalar};
use crate::{Activation, Epilogue, isa};

/// Rows of a task.
const ROWS: usize = 1024;

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

/// Mean and biased variance of each channel of `x: [n, c]`; zeros when there is no row.
///
/// Chunks of 1024 rows are summed in `f64` around their own means and merged in order: the same bits for any number of threads.
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
    let parts: Vec<(usize, Moments)> = x
        .par_chunks(ROWS * c)
        .map(|x| {
            let rows = x.len() / c;
            let mut wide = vec![T::Acc::ZERO; c];
            let (mut mean, mut squares) = (vec![0.0; c], vec![0.0; c]);
            engine.vectorize(|| {
                for row in x.chunks_exact(c) {
                    T::widen(engine, row, &mut wide);
                    for (mean, v) in mean.iter_mut().zip(&wide) {
                        *mean += v.to_f64();
                    }
                }
                for mean in &mut mean {
                    *mean /= rows as f64;
                }
                for row in x.chunks_exact(c) {
                    T::widen(engine, row, &mut wide);
                    for ((squares, mean), v) in squares.iter_mut().zip(&mean).zip(&wide) {
                        let centred = v.to_f64() - mean;
                        *squares += centred * centred;
                    }
                }
            });
            (rows, Moments { mean, variance: squares })
        })
        .collect();
    let mut seen = 0.0;
    for (rows, part) in parts {
        let rows = rows as f64;
        let all = seen + rows;
        for j in 0..c {
            let step = part.mean[j] - total.mean[j];
            total.mean[j] += step * rows / all;
            total.variance[j] += part.variance[j] + step * step * seen * rows / all;
        }
        seen = all;
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

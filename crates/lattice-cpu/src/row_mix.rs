//! Weighted sums of rows: pooling by sum and mean, joins, scatter, gather, devoxelize.

use lattice_core::RowMap;
use rayon::prelude::*;

use crate::isa;
use crate::scalar::{Acc, Scalar};
use crate::simd::Engine;

/// Output rows of a task.
const ROWS: usize = 256;

/// Entries of a long row that are summed apart: a global pool has few rows with very many entries.
pub(crate) const LONG_ROW: usize = 4096;

/// Entries ahead of the one that is read whose rows are asked for: rows of a gather lie anywhere.
const AHEAD: usize = 16;

/// Asks for the rows of the entries that come `AHEAD` after `entries`.
#[inline(always)]
pub(crate) fn prefetch_ahead<T>(
    engine: Engine,
    x: &[T],
    c: usize,
    rows: &[u32],
    entries: std::ops::Range<usize>,
) {
    for entry in entries {
        if let Some(&row) = rows.get(entry + AHEAD) {
            engine.prefetch(&x[row as usize * c..][..c]);
        }
    }
}

/// `out[o, :] = sum over entries e of row o of weight[e] * x[rows[e], :]`, or `fill` where the row has no entry.
///
/// # Shapes
/// `x`: `[n_in, c]`; `out`: `[n_out, c]`, every element of which is written. The gradient is this function over
/// [`RowMap::transpose`]. Entries are added in order, those of long rows in pieces of 4096: the same bits for any number of threads.
///
/// # Panics
/// When a slice does not have its shape.
pub fn row_mix<T: Scalar>(x: &[T], c: usize, map: &RowMap, fill: f32, out: &mut [T]) {
    let op = "row_mix";
    assert_eq!(x.len(), map.n_in() * c, "{op}: length of the features");
    assert_eq!(out.len(), map.n_out() * c, "{op}: length of the output");
    if out.is_empty() {
        return;
    }
    let engine = isa::engine();
    let fill = T::from_acc(T::Acc::from_f32(fill));
    let (splits, rows) = (map.splits(), map.rows());
    if map.is_gather() {
        out.par_chunks_mut(ROWS * c).enumerate().for_each(|(block, out)| {
            for (r, out) in out.chunks_exact_mut(c).enumerate() {
                let entries = splits[block * ROWS + r]..splits[block * ROWS + r + 1];
                prefetch_ahead(engine, x, c, rows, entries.clone());
                match &rows[entries] {
                    [] => out.fill(fill),
                    [row, ..] => out.copy_from_slice(&x[*row as usize * c..][..c]),
                }
            }
        });
        return;
    }
    let mix = Mix { engine, x, c, rows, weights: map.weights() };
    out.par_chunks_mut(ROWS * c).enumerate().for_each(|(block, out)| {
        let (mut sum, mut wide) = (vec![T::Acc::ZERO; c], vec![T::Acc::ZERO; c]);
        for (r, out) in out.chunks_exact_mut(c).enumerate() {
            let (start, end) = (splits[block * ROWS + r], splits[block * ROWS + r + 1]);
            if start == end {
                out.fill(fill);
                continue;
            }
            prefetch_ahead(engine, x, c, rows, start..end);
            sum.fill(T::Acc::ZERO);
            if end - start <= LONG_ROW {
                mix.add(start, end, &mut sum, &mut wide);
            } else {
                let parts: Vec<Vec<T::Acc>> = (start..end)
                    .into_par_iter()
                    .step_by(LONG_ROW)
                    .map(|start| {
                        let (mut sum, mut wide) = (vec![T::Acc::ZERO; c], vec![T::Acc::ZERO; c]);
                        mix.add(start, end.min(start + LONG_ROW), &mut sum, &mut wide);
                        sum
                    })
                    .collect();
                for part in parts {
                    for (sum, part) in sum.iter_mut().zip(part) {
                        *sum += part;
                    }
                }
            }
            T::narrow(engine, &sum, out);
        }
    });
}

struct Mix<'a, T> {
    engine: Engine,
    x: &'a [T],
    c: usize,
    rows: &'a [u32],
    weights: Option<&'a [f32]>,
}

impl<T: Scalar> Mix<'_, T> {
    /// Adds entries `start..end`.
    fn add(&self, start: usize, end: usize, sum: &mut [T::Acc], wide: &mut [T::Acc]) {
        self.engine.vectorize(|| {
            for entry in start..end {
                let x = &self.x[self.rows[entry] as usize * self.c..][..self.c];
                let x = match T::as_acc(x) {
                    Some(x) => x,
                    None => {
                        T::widen(self.engine, x, wide);
                        &*wide
                    }
                };
                match self.weights {
                    None => {
                        for (sum, &x) in sum.iter_mut().zip(x) {
                            *sum += x;
                        }
                    }
                    Some(weights) => {
                        let weight = T::Acc::from_f32(weights[entry]);
                        for (sum, &x) in sum.iter_mut().zip(x) {
                            *sum += weight * x;
                        }
                    }
                }
            }
        });
    }
}

//! Maxima of rows, over the edges of a relation or the entries of a row map, and their gradients.

use lattice_core::{Relation, RowMap};
use rayon::prelude::*;

use crate::isa;
use crate::row_mix::{LONG_ROW, prefetch_ahead};
use crate::scalar::{Acc, Scalar};
use crate::simd::Engine;

/// Output rows of a task.
const ROWS: usize = 256;

/// `out[o, c] = max over edges (i, o, _) of x[i, c]`; a row without edges is 0, a NaN among the inputs gives NaN.
///
/// # Shapes
/// `x`: `[n_in, c]`; `out`: `[n_out, c]`, every element of which is written.
///
/// # Panics
/// When a slice does not have its shape.
pub fn pool_max<T: Scalar>(x: &[T], c: usize, relation: &Relation, out: &mut [T]) {
    let csr = Csr { n_in: relation.n_in(), splits: relation.out_splits(), rows: relation.in_rows() };
    maxima("pool_max", x, c, csr, out);
}

/// The gradient of [`pool_max`]: `dx[i, c]` is the sum over the edges of `i` whose input equals the maximum `y[o, c]` of
/// `g[o, c] / ties`, where `ties` counts such edges of `o`. A NaN equals nothing.
///
/// # Shapes
/// `x`, `dx`: `[n_in, c]`; `y`, `g`: `[n_out, c]`. Needs `n_out * c` numbers of working memory.
///
/// # Panics
/// When a slice does not have its shape.
pub fn pool_max_grad<T: Scalar>(x: &[T], y: &[T], g: &[T], c: usize, relation: &Relation, dx: &mut [T]) {
    let csr = Csr { n_in: relation.n_in(), splits: relation.out_splits(), rows: relation.in_rows() };
    let transpose = relation.transpose();
    let back = Csr { n_in: relation.n_out(), splits: transpose.out_splits(), rows: transpose.in_rows() };
    maxima_grad("pool_max_grad", [x, y, g], c, csr, back, dx);
}

/// [`pool_max`] over the entries of a row map (its weights do not count): a global maximum per batch item, for example.
///
/// # Panics
/// When a slice does not have its shape.
pub fn segment_max<T: Scalar>(x: &[T], c: usize, map: &RowMap, out: &mut [T]) {
    maxima("segment_max", x, c, Csr { n_in: map.n_in(), splits: map.splits(), rows: map.rows() }, out);
}

/// The gradient of [`segment_max`]; see [`pool_max_grad`].
///
/// # Panics
/// When a slice does not have its shape.
pub fn segment_max_grad<T: Scalar>(x: &[T], y: &[T], g: &[T], c: usize, map: &RowMap, dx: &mut [T]) {
    let transpose = map.transpose();
    let csr = Csr { n_in: map.n_in(), splits: map.splits(), rows: map.rows() };
    let back = Csr { n_in: map.n_out(), splits: transpose.splits(), rows: transpose.rows() };
    maxima_grad("segment_max_grad", [x, y, g], c, csr, back, dx);
}

/// Input rows by output row.
#[derive(Clone, Copy)]
struct Csr<'a> {
    n_in: usize,
    splits: &'a [usize],
    rows: &'a [u32],
}

impl Csr<'_> {
    fn n_out(&self) -> usize {
        self.splits.len() - 1
    }
}

fn maxima<T: Scalar>(op: &str, x: &[T], c: usize, csr: Csr<'_>, out: &mut [T]) {
    assert_eq!(x.len(), csr.n_in * c, "{op}: length of the features");
    assert_eq!(out.len(), csr.n_out() * c, "{op}: length of the output");
    if out.is_empty() {
        return;
    }
    let engine = isa::engine();
    out.par_chunks_mut(ROWS * c).enumerate().for_each(|(block, out)| {
        let (mut best, mut wide) = (vec![T::Acc::ZERO; c], vec![T::Acc::ZERO; c]);
        for (r, out) in out.chunks_exact_mut(c).enumerate() {
            let entries = csr.splits[block * ROWS + r]..csr.splits[block * ROWS + r + 1];
            prefetch_ahead(engine, x, c, csr.rows, entries.clone());
            let entries = &csr.rows[entries];
            if entries.len() <= LONG_ROW {
                max_rows(engine, x, c, entries, &mut best, &mut wide);
            } else {
                let parts: Vec<Vec<T::Acc>> = entries
                    .par_chunks(LONG_ROW)
                    .map(|entries| {
                        let (mut best, mut wide) = (vec![T::Acc::ZERO; c], vec![T::Acc::ZERO; c]);
                        max_rows(engine, x, c, entries, &mut best, &mut wide);
                        best
                    })
                    .collect();
                best.copy_from_slice(&parts[0]);
                for part in &parts[1..] {
                    max_row(&mut best, part);
                }
            }
            T::narrow(engine, &best, out);
        }
    });
}

/// Maximum of the given rows; 0 where there is none.
fn max_rows<T: Scalar>(
    engine: Engine,
    x: &[T],
    c: usize,
    rows: &[u32],
    best: &mut [T::Acc],
    wide: &mut [T::Acc],
) {
    let Some((&first, rest)) = rows.split_first() else {
        return best.fill(T::Acc::ZERO);
    };
    T::widen(engine, &x[first as usize * c..][..c], best);
    engine.vectorize(|| {
        for &row in rest {
            let x = &x[row as usize * c..][..c];
            match T::as_acc(x) {
                Some(x) => max_row(best, x),
                None => {
                    T::widen(engine, x, wide);
                    max_row(best, wide);
                }
            }
        }
    });
}

/// `best = max(best, row)`; a NaN of either stays.
#[inline(always)]
#[allow(clippy::eq_op, reason = "only NaN differs from itself, and `Acc` has no `is_nan`")]
fn max_row<A: Acc>(best: &mut [A], row: &[A]) {
    for (best, &v) in best.iter_mut().zip(row) {
        *best = if v > *best || v != v { v } else { *best };
    }
}

fn maxima_grad<T: Scalar>(
    op: &str,
    [x, y, g]: [&[T]; 3],
    c: usize,
    csr: Csr<'_>,
    back: Csr<'_>,
    dx: &mut [T],
) {
    assert_eq!(
        (x.len(), dx.len()),
        (csr.n_in * c, csr.n_in * c),
        "{op}: lengths of the features and the result"
    );
    assert_eq!(
        (y.len(), g.len()),
        (csr.n_out() * c, csr.n_out() * c),
        "{op}: lengths of the maxima and the gradient"
    );
    if dx.is_empty() {
        return;
    }
    let engine = isa::engine();
    // What each tied edge of an output element receives.
    let mut shares = vec![T::Acc::ZERO; y.len()];
    shares.par_chunks_mut((ROWS * c).max(1)).enumerate().for_each(|(block, shares)| {
        let mut ties = vec![0u32; c];
        for (r, share) in shares.chunks_exact_mut(c).enumerate() {
            let row = block * ROWS + r;
            let y = &y[row * c..][..c];
            ties.fill(0);
            engine.vectorize(|| {
                for &i in &csr.rows[csr.splits[row]..csr.splits[row + 1]] {
                    for ((ties, x), y) in ties.iter_mut().zip(&x[i as usize * c..][..c]).zip(y) {
                        *ties += u32::from(x == y);
                    }
                }
                for ((share, &ties), &g) in share.iter_mut().zip(&ties).zip(&g[row * c..][..c]) {
                    *share = g.to_acc() / T::Acc::from_count(ties.max(1));
                }
            });
        }
    });
    dx.par_chunks_mut(ROWS * c).enumerate().for_each(|(block, dx)| {
        let mut sum = vec![T::Acc::ZERO; c];
        for (r, dx) in dx.chunks_exact_mut(c).enumerate() {
            let row = block * ROWS + r;
            let x = &x[row * c..][..c];
            sum.fill(T::Acc::ZERO);
            engine.vectorize(|| {
                for &o in &back.rows[back.splits[row]..back.splits[row + 1]] {
                    let (y, share) = (&y[o as usize * c..][..c], &shares[o as usize * c..][..c]);
                    for (((sum, x), y), &share) in sum.iter_mut().zip(x).zip(y).zip(share) {
                        *sum += if x == y { share } else { T::Acc::ZERO };
                    }
                }
            });
            T::narrow(engine, &sum, dx);
        }
    });
}

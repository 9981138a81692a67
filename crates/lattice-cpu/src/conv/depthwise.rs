//! Convolution of every channel on its own: two loads a product, so the sums of a row stay in registers and nothing is scattered.

use lattice_core::Relation;
use rayon::prelude::*;

use crate::Epilogue;
use crate::scalar::{Acc, Scalar};
use crate::simd::Engine;

/// Output rows of a task.
const BLOCK: usize = 512;

/// Most segments of the weight gradient, each with partial sums of its own.
const SEGMENTS: usize = 64;

/// `out[o, c] = epilogue(sum over edges (i, o, k) of x[i, c] * w[k, c])`.
pub(super) fn forward<T: Scalar>(
    engine: Engine,
    x: &[T],
    w: &[T],
    relation: &Relation,
    c: usize,
    epilogue: &Epilogue<'_, T>,
    out: &mut [T],
) {
    let mut wide_weights = Vec::new();
    let w = widened(engine, w, &mut wide_weights);
    let (splits, in_rows, taps) = (relation.out_splits(), relation.in_rows(), relation.tap_ids());
    out.par_chunks_mut(BLOCK * c).enumerate().for_each(|(block, out)| {
        let (mut sum, mut wide) = (vec![T::Acc::ZERO; c], vec![T::Acc::ZERO; c]);
        for (r, out) in out.chunks_exact_mut(c).enumerate() {
            let row = block * BLOCK + r;
            let edges = splits[row]..splits[row + 1];
            sum.fill(T::Acc::ZERO);
            for (&i, &tap) in in_rows[edges.clone()].iter().zip(&taps[edges]) {
                let x = &x[i as usize * c..][..c];
                let x = match T::as_acc(x) {
                    Some(x) => x,
                    None => {
                        T::widen(engine, x, &mut wide);
                        &wide
                    }
                };
                multiply_add(engine, &mut sum, x, &w[usize::from(tap) * c..][..c]);
            }
            epilogue.finish(engine, row, c, 0..c, &mut sum, &mut wide, out);
        }
    });
}

/// `dw[k, c] = sum over edges (i, o, k) of x[i, c] * g[o, c]`.
pub(super) fn weight_grad<T: Scalar>(
    engine: Engine,
    x: &[T],
    g: &[T],
    relation: &Relation,
    c: usize,
    dw: &mut [T],
) {
    let (splits, in_rows, taps) = (relation.out_splits(), relation.in_rows(), relation.tap_ids());
    let n_out = relation.n_out();
    let rows = n_out.div_ceil(SEGMENTS).max(BLOCK);
    let partials: Vec<Vec<T::Acc>> = (0..n_out.div_ceil(rows))
        .into_par_iter()
        .map(|segment| {
            let mut sums = vec![T::Acc::ZERO; dw.len()];
            let (mut wide_x, mut wide_g) = (vec![T::Acc::ZERO; c], vec![T::Acc::ZERO; c]);
            for row in segment * rows..n_out.min((segment + 1) * rows) {
                let edges = splits[row]..splits[row + 1];
                T::widen(engine, &g[row * c..][..c], &mut wide_g);
                for (&i, &tap) in in_rows[edges.clone()].iter().zip(&taps[edges]) {
                    let x = &x[i as usize * c..][..c];
                    let x = match T::as_acc(x) {
                        Some(x) => x,
                        None => {
                            T::widen(engine, x, &mut wide_x);
                            &wide_x
                        }
                    };
                    multiply_add(engine, &mut sums[usize::from(tap) * c..][..c], x, &wide_g);
                }
            }
            sums
        })
        .collect();
    for (at, dw) in dw.iter_mut().enumerate() {
        let mut sum = T::Acc::ZERO;
        for partial in &partials {
            sum += partial[at];
        }
        *dw = T::from_acc(sum);
    }
}

/// `sum += a * b`, element by element.
#[inline]
fn multiply_add<A: Acc>(engine: Engine, sum: &mut [A], a: &[A], b: &[A]) {
    engine.vectorize(|| {
        for ((sum, &a), &b) in sum.iter_mut().zip(a).zip(b) {
            *sum += a * b;
        }
    });
}

/// The slice in the type of sums; `buffer` holds it where it has to be converted.
fn widened<'a, T: Scalar>(engine: Engine, slice: &'a [T], buffer: &'a mut Vec<T::Acc>) -> &'a [T::Acc] {
    match T::as_acc(slice) {
        Some(slice) => slice,
        None => {
            buffer.resize(slice.len(), T::Acc::ZERO);
            T::widen(engine, slice, buffer);
            buffer
        }
    }
}

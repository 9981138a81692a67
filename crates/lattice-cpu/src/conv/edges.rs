//! Convolution that walks the pairs of each output row one by one: no tiles, no packing, every element type.

use lattice_core::Relation;
use rayon::prelude::*;

use super::ConvShape;
use crate::isa::engine;
use crate::scalar::Acc;
use crate::{Epilogue, Scalar};

/// Output rows of a task.
const BLOCK: usize = 64;

/// As [`conv_forward`](crate::conv_forward), in plain loops over the output rows' pairs.
///
/// Slow and simple; it needs no view of the relation and no scratch memory but one row. Same bits for any number of threads.
///
/// # Panics
/// As [`conv_forward`](crate::conv_forward).
pub fn conv_edge_loop<T: Scalar>(
    x: &[T],
    w: &[T],
    relation: &Relation,
    shape: ConvShape,
    epilogue: &Epilogue<'_, T>,
    out: &mut [T],
) {
    let op = "conv_edge_loop";
    shape.check(op);
    let ConvShape { c_in, c_out, groups } = shape;
    assert_eq!(x.len(), relation.n_in() * c_in, "{op}: length of the features");
    assert_eq!(w.len(), shape.weights(relation.taps()), "{op}: length of the weights");
    assert_eq!(out.len(), relation.n_out() * c_out, "{op}: length of the output");
    epilogue.check(op, relation.n_out(), c_out);
    if out.is_empty() {
        return;
    }
    let (k, n) = (c_in / groups, c_out / groups);
    let (splits, in_rows, taps) = (relation.out_splits(), relation.in_rows(), relation.tap_ids());
    out.par_chunks_mut(BLOCK * c_out).enumerate().for_each(|(block, out)| {
        let (mut sums, mut wide) = (vec![T::Acc::ZERO; c_out], vec![T::Acc::ZERO; c_out]);
        for (r, out) in out.chunks_exact_mut(c_out).enumerate() {
            let row = block * BLOCK + r;
            sums.fill(T::Acc::ZERO);
            for edge in splits[row]..splits[row + 1] {
                let x = &x[in_rows[edge] as usize * c_in..][..c_in];
                let w = &w[usize::from(taps[edge]) * k * c_out..][..k * c_out];
                for (j, sum) in sums.iter_mut().enumerate() {
                    for (a, x) in x[j / n * k..][..k].iter().enumerate() {
                        *sum += x.to_acc() * w[a * c_out + j].to_acc();
                    }
                }
            }
            epilogue.finish(engine(), row, c_out, 0..c_out, &mut sums, &mut wide, out);
        }
    });
}

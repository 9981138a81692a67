//! Concatenation along channels.

use std::borrow::Borrow;

use burn::tensor::Tensor;

use super::algebra::{align, check_pair};
use super::row_trace::{ROW_MIX, RowTrace};
use crate::{Error, Join, Result, SparseTensor, backend};

/// Channels of all tensors side by side, from left to right. Differentiable.
///
/// Tensors of one identity are concatenated directly and keep it. Otherwise tensors are joined pairwise from the left; rows that
/// a tensor lacks are 0 in its channels.
///
/// # Shapes
/// `[_, c_i]` each, at one stride; result `[rows of the joins, Σ c_i]` in the first tensor's manager.
/// # Errors
/// An empty list; strides, element types or devices that differ.
pub fn cat<T: Borrow<SparseTensor>>(tensors: &[T], join: Join) -> Result<SparseTensor> {
    let Some((first, rest)) = tensors.split_first() else {
        return Err(Error::Shape {
            op: "cat",
            expected: "at least one tensor".into(),
            found: "an empty list".into(),
        });
    };
    let first = first.borrow();
    for other in rest {
        check_pair("cat", first, other.borrow())?;
    }
    if rest.iter().all(|other| first.same_coords(other.borrow())) {
        let trace = RowTrace::start("cat", "join.cat").mapped(first.feats());
        let in_one_pass = match tensors {
            [lhs, rhs] => backend::concat_columns(lhs.borrow().feats(), rhs.borrow().feats()),
            _ => None,
        };
        let feats = in_one_pass
            .unwrap_or_else(|| Tensor::cat(tensors.iter().map(|t| t.borrow().feats().clone()).collect(), 1));
        let read = [tensors.len() * first.n_rows(), first.channels()];
        trace.finish(read, &feats, |_| read[0], ROW_MIX);
        return first.with_feats(feats);
    }
    rest.iter().try_fold(first.clone(), |left, right| cat_pair(&left, right.borrow(), join))
}

fn cat_pair(lhs: &SparseTensor, rhs: &SparseTensor, join: Join) -> Result<SparseTensor> {
    let trace = RowTrace::start("cat", "join.cat");
    let aligned = align(lhs, rhs, Some(join))?;
    let trace = trace.mapped(lhs.feats());
    let feats = Tensor::cat(aligned.feats(lhs, rhs, [0.0; 2]).into(), 1);
    trace.finish(
        [lhs.n_rows() + rhs.n_rows(), lhs.channels()],
        &feats,
        |device| aligned.pairs(device),
        ROW_MIX,
    );
    lhs.derived(aligned.support, feats, lhs.stride(), aligned.counts)
}

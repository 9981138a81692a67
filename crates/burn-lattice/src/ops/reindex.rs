//! Features moved onto another tensor's rows.

use super::mix_rows;
use super::row_groups::entries;
use super::row_trace::{ROW_MIX, RowTrace};
use crate::backend::same_rows;
use crate::tensor::check_features;
use crate::{Error, Join, Result, SparseTensor};

/// The features of `x` on exactly the rows, identity, manager and batch counts of `target`. Rows that `x` lacks are `fill` in
/// every channel, rows that only `x` has are dropped. Differentiable in `x`.
///
/// # Shapes
/// `[n, c]` to `[target rows, c]`; the target's channels do not matter.
/// # Errors
/// [`Error::StrideMismatch`]; a dtype that is not a float.
pub fn reindex_sparse(x: &SparseTensor, target: &SparseTensor, fill: f32) -> Result<SparseTensor> {
    let op = "reindex_sparse";
    check_features(op, x.feats())?;
    if x.stride() != target.stride() {
        return Err(Error::StrideMismatch { op, expected: target.stride(), found: x.stride() });
    }
    if same_rows(&x.device(), x.support().to_host(), target.support().to_host()) {
        return target.with_feats(x.feats().clone());
    }
    let trace = RowTrace::start(op, "join.reindex");
    let map = x.manager().join_on(&x.device(), x.support(), target.support(), Some(Join::Right))?.lhs;
    let trace = trace.mapped(x.feats());
    let feats = mix_rows(x.feats().clone(), &map, fill);
    trace.finish(x.feats().dims(), &feats, |device| entries(&map, device), ROW_MIX);
    target.with_feats(feats)
}

/// New features on the identity of `x`.
///
/// # Errors
/// A number of rows that differs; a dtype that is not a float.
pub fn replace_feature(x: &SparseTensor, feats: burn::tensor::Tensor<2>) -> Result<SparseTensor> {
    x.with_feats(feats)
}

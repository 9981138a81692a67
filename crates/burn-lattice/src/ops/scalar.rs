//! Operations on bare feature matrices that graphs of other libraries name: look-up, exponential, rounding, softmax.

use burn::tensor::{Int, Tensor};

use super::gather_rows;
use super::precision::widened;
use crate::tensor::check_features;
use crate::{Error, Result};

/// Rows of `table` by number: `y[i] = table[ids[i]]`. Differentiable in the table; rows that repeat add their gradients.
///
/// # Shapes
/// `table [n, c]`, `ids [m]`; result `[m, c]`.
/// # Errors
/// [`Error::OutOfRange`] naming the first id below 0 or at or past `n`; a table that is not of floats.
pub fn embedding_lookup(table: Tensor<2>, ids: Tensor<1, Int>) -> Result<Tensor<2>> {
    let op = "embedding_lookup";
    check_features(op, &table)?;
    let n = table.dims()[0];
    let check = |(row, id): (usize, i64)| {
        usize::try_from(id).ok().filter(|&id| id < n).map(|id| id as u32).ok_or_else(|| Error::OutOfRange {
            op,
            row,
            what: format!("expected a row of the table, below {n}, found {id}"),
        })
    };
    let rows = ids.into_data().iter::<i64>().enumerate().map(check).collect::<Result<Vec<u32>>>()?;
    Ok(gather_rows(&table, &rows))
}

/// `e^x`, computed in f32 (f64 for f64) and rounded once. Differentiable.
///
/// # Errors
/// A dtype that is not a float.
pub fn exp_features(feats: Tensor<2>) -> Result<Tensor<2>> {
    check_features("exp", &feats)?;
    Ok(widened(feats, Tensor::exp))
}

/// The nearest integer, halves to the even one: 0.5 to 0, 1.5 to 2, -1.5 to -2. Its gradient is 0.
///
/// # Errors
/// A dtype that is not a float.
pub fn round_features(feats: Tensor<2>) -> Result<Tensor<2>> {
    check_features("round", &feats)?;
    Ok(feats.round())
}

/// Softmax over the channels of each row, shifted by the row's maximum; in f32 (f64 for f64), rounded once. Differentiable.
///
/// # Errors
/// A dtype that is not a float.
pub fn softmax_features(feats: Tensor<2>) -> Result<Tensor<2>> {
    check_features("softmax", &feats)?;
    Ok(widened(feats, |x| burn::tensor::activation::softmax(x, 1)))
}

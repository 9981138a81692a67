//! Choosing rows: by number, by mask, by box, by score.
//!
//! A selection is a new support in the input's manager at the input's stride. Batch counts are recounted where the input has
//! them. Gradients go back to the selected rows.

use burn::tensor::{Bool, Int, Tensor};
use lattice_core as core;

use super::integers::{int_tensor, row_numbers};
use super::mix_rows;
use super::row_groups::picked;
use super::row_trace::{ROW_MIX, RowTrace};
use crate::tensor::check_features;
use crate::{Error, Result, SparseTensor, Support};

fn select(op: &'static str, kind: &'static str, x: &SparseTensor, rows: Vec<u32>) -> Result<SparseTensor> {
    check_features(op, x.feats())?;
    let trace = RowTrace::start(op, kind);
    let support: Support = core::select(x.support().to_host(), &rows)?.into();
    let pairs = rows.len();
    let map = picked(x.n_rows(), rows)?;
    let trace = trace.mapped(x.feats());
    let feats = mix_rows(x.feats().clone(), &map, 0.0);
    trace.finish(x.feats().dims(), &feats, pairs, ROW_MIX);
    let counts = x.recount(&support);
    x.derived(support, feats, x.stride(), counts)
}

/// The rows with the given numbers, in the caller's order. Differentiable.
///
/// # Shapes
/// `rows [m]`; result `[m, c]`.
/// # Errors
/// A number that is not a row, or that occurs twice.
pub fn prune(x: &SparseTensor, rows: Tensor<1, Int>) -> Result<SparseTensor> {
    let rows = row_numbers("prune", rows, x.n_rows())?;
    select("prune", "select.prune", x, rows)
}

/// The rows where the mask is true, ascending. Differentiable.
///
/// # Shapes
/// `mask [n]`; result `[number of true, c]`.
/// # Errors
/// A mask of another length.
pub fn prune_mask(x: &SparseTensor, mask: Tensor<1, Bool>) -> Result<SparseTensor> {
    let op = "prune_mask";
    let [found] = mask.dims();
    if found != x.n_rows() {
        return Err(Error::Shape {
            op,
            expected: format!("a mask of {} values, one a row", x.n_rows()),
            found: format!("{found}"),
        });
    }
    let kept = mask.into_data().iter::<bool>().collect::<Vec<_>>();
    select(op, "select.mask", x, rows_where(kept.len(), |row| kept[row]))
}

fn rows_where(n_rows: usize, keep: impl Fn(usize) -> bool) -> Vec<u32> {
    (0..n_rows).filter(|&row| keep(row)).map(|row| row as u32).collect()
}

fn select_inside(
    op: &'static str,
    x: &SparseTensor,
    inside: impl Fn([i32; 3]) -> bool,
) -> Result<SparseTensor> {
    let coords = x.support().to_host().coords();
    let rows = rows_where(coords.len(), |row| {
        let [_, x, y, z] = coords[row];
        inside([x, y, z])
    });
    select(op, "select.crop", x, rows)
}

fn check_box(op: &'static str, min: [i32; 3], max: [i32; 3]) -> Result<()> {
    match (0..3).all(|axis| min[axis] <= max[axis]) {
        true => Ok(()),
        false => Err(Error::Value {
            op,
            what: format!("expected min <= max on every axis, found {min:?} and {max:?}"),
        }),
    }
}

/// The rows of every batch item with `min <= xyz <= max` on every axis, both ends included, ascending. Logical coordinates.
/// Differentiable.
///
/// # Errors
/// `min` above `max` on an axis.
pub fn crop(x: &SparseTensor, min: [i32; 3], max: [i32; 3]) -> Result<SparseTensor> {
    check_box("crop", min, max)?;
    select_inside("crop", x, |at| (0..3).all(|a| min[a] <= at[a] && at[a] <= max[a]))
}

/// The rows of every batch item with `min <= xyz < max` on every axis, the upper end excluded, ascending; a bound that is left
/// out does not bind. Logical coordinates. Differentiable.
///
/// # Errors
/// `min` above `max` on an axis.
pub fn crop_half_open(
    x: &SparseTensor,
    min: Option<[i32; 3]>,
    max: Option<[i32; 3]>,
) -> Result<SparseTensor> {
    if let (Some(min), Some(max)) = (min, max) {
        check_box("crop_half_open", min, max)?;
    }
    select_inside("crop_half_open", x, |at| {
        (0..3).all(|a| min.is_none_or(|min| min[a] <= at[a]) && max.is_none_or(|max| at[a] < max[a]))
    })
}

/// Numbers of the rows with the largest scores (channel 0) of every batch item, for [`prune`].
///
/// Item `b` gives `min(trunc(counts[b] · rho), rows of b)` rows, in ascending score, items in order. The sort is stable, so
/// among equal scores later rows win; a NaN with a positive sign is above every number. Not differentiable.
///
/// # Shapes
/// `counts`: one value a declared batch item; result `[Σ chosen]`.
/// # Errors
/// No declared batch counts; another number of items; `rho` not above 0; a tensor without channels.
pub fn topk_rows(x: &SparseTensor, counts: &[usize], rho: f64) -> Result<Tensor<1, Int>> {
    let op = "topk_rows";
    if !(rho.is_finite() && rho > 0.0) {
        return Err(Error::Value { op, what: format!("expected a finite rho above 0, found {rho}") });
    }
    let Some(declared) = x.batch_counts() else {
        return Err(Error::Value {
            op,
            what: "expected declared batch counts, found none; use `with_batch_counts` or `sparse_collate`"
                .into(),
        });
    };
    if declared.len() != counts.len() {
        return Err(Error::Shape {
            op,
            expected: format!("{} counts, one a batch item", declared.len()),
            found: format!("{}", counts.len()),
        });
    }
    if x.channels() == 0 {
        return Err(Error::Channels { op, expected: 1, found: 0 });
    }
    let first_channel = x.feats().clone().narrow(1, 0, 1).into_data();
    // Adding 0 makes -0 equal to 0, as numbers compare.
    let scores: Vec<f64> = first_channel.iter::<f64>().map(|score| score + 0.0).collect();
    let mut chosen: Vec<i32> = Vec::new();
    for (mut rows, &count) in x.batch_rows().into_iter().zip(counts) {
        rows.sort_by(|&a, &b| scores[a as usize].total_cmp(&scores[b as usize]));
        let k = ((count as f64 * rho) as usize).min(rows.len());
        chosen.extend(rows[rows.len() - k..].iter().map(|&row| row as i32));
    }
    let n = chosen.len();
    Ok(int_tensor(chosen, [n], &x.device()))
}

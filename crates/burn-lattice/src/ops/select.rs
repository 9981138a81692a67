//! Choosing rows: by number, by mask, by box, by score.
//!
//! A selection is a new support in the input's manager at the input's stride. Batch counts are recounted where the input has
//! them. Gradients go back to the selected rows.

use burn::tensor::{Bool, Int, Tensor};
use lattice_core as core;

use super::integers::{int_tensor, row_numbers};
use super::mix_rows;
use super::row_groups::{entries, picked};
use super::row_trace::{ROW_MIX, RowTrace};
use crate::backend;
use crate::tensor::check_features;
use crate::{Error, Result, RowMap, SparseTensor, Support};

/// Rows that were chosen: their support and the map that copies them.
type Chosen = (core::Support, core::RowMap);

/// The chosen rows of `x`: made on its device, where `there` can, else named by `rows`.
fn select(
    [op, kind]: [&'static str; 2],
    x: &SparseTensor,
    there: impl FnOnce(&core::Support) -> Option<Chosen>,
    rows: impl FnOnce() -> Result<Vec<u32>>,
) -> Result<SparseTensor> {
    check_features(op, x.feats())?;
    let trace = RowTrace::start(op, kind);
    let host = x.support().to_host();
    let (support, map): (Support, RowMap) = match there(host) {
        Some((support, map)) => (support.into(), map.into()),
        None => {
            let rows = rows()?;
            (core::select(host, &rows)?.into(), picked(x.n_rows(), rows)?)
        }
    };
    let trace = trace.mapped(x.feats());
    let feats = mix_rows(x.feats().clone(), &map, 0.0);
    trace.finish(x.feats().dims(), &feats, |device| entries(&map, device), ROW_MIX);
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
    let there = |host: &core::Support| backend::rows_named(&x.device(), host, &rows);
    let named = || row_numbers("prune", rows.clone(), x.n_rows());
    select(["prune", "select.prune"], x, there, named)
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
    let there = |host: &core::Support| backend::rows_where(&x.device(), host, &mask);
    let named = || {
        let kept = mask.clone().into_data().iter::<bool>().collect::<Vec<_>>();
        Ok(rows_where(kept.len(), |row| kept[row]))
    };
    select([op, "select.mask"], x, there, named)
}

fn rows_where(n_rows: usize, keep: impl Fn(usize) -> bool) -> Vec<u32> {
    (0..n_rows).filter(|&row| keep(row)).map(|row| row as u32).collect()
}

/// The rows with `low <= xyz <= high`; no bounds stand for none of them.
fn select_inside(
    op: &'static str,
    x: &SparseTensor,
    bounds: Option<([i32; 3], [i32; 3])>,
) -> Result<SparseTensor> {
    let there = |host: &core::Support| {
        bounds.and_then(|(low, high)| backend::rows_inside(&x.device(), host, low, high))
    };
    let named = || {
        let Some((low, high)) = bounds else { return Ok(Vec::new()) };
        let coords = x.support().to_host().coords();
        let inside = |c: &core::Coord| (0..3).all(|a| low[a] <= c[a + 1] && c[a + 1] <= high[a]);
        Ok(rows_where(coords.len(), |row| inside(&coords[row])))
    };
    select([op, "select.crop"], x, there, named)
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
    select_inside("crop", x, Some((min, max)))
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
    let low = min.unwrap_or([i32::MIN; 3]);
    // The last row inside; nothing lies below the smallest integer.
    let last = max.map_or(Some([i32::MAX; 3]), |max| {
        let last = max.map(|end| end.checked_sub(1));
        last.iter().all(Option::is_some).then(|| last.map(Option::unwrap_or_default))
    });
    select_inside("crop_half_open", x, last.map(|last| (low, last)))
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
    let first_channel = x.feats().clone().narrow(1, 0, 1);
    let wanted: Vec<usize> = counts
        .iter()
        .zip(declared)
        .map(|(&count, &rows)| ((count as f64 * rho) as usize).min(rows))
        .collect();
    let there =
        backend::top_rows(x.support().to_host(), &first_channel.clone().flatten(0, 1), declared, &wanted);
    if let Some(rows) = there {
        return Ok(rows);
    }
    let first_channel = first_channel.into_data();
    // Adding 0 makes -0 equal to 0, as numbers compare.
    let scores: Vec<f64> = first_channel.iter::<f64>().map(|score| score + 0.0).collect();
    let mut chosen: Vec<i32> = Vec::new();
    for (mut rows, &k) in x.batch_rows().into_iter().zip(&wanted) {
        rows.sort_by(|&a, &b| scores[a as usize].total_cmp(&scores[b as usize]));
        chosen.extend(rows[rows.len() - k..].iter().map(|&row| row as i32));
    }
    let n = chosen.len();
    Ok(int_tensor(chosen, [n], &x.device()))
}

//! Global pooling: one feature row a batch item.

use burn::tensor::Tensor;

use super::pool::PoolMode;
use super::row_groups::{entries, grouped};
use super::row_trace::{ROW_MAX, ROW_MIX, RowTrace};
use super::{max_rows, mix_rows};
use crate::backend;
use crate::tensor::check_features;
use crate::{Error, Result, SparseTensor};

/// Most batch items that pooling makes rows for: a stray batch id must not exhaust the memory.
const MAX_ITEMS: usize = 1 << 24;

/// Number of batch items: the given one, else the declared one, else the largest id plus one.
fn item_count(op: &'static str, x: &SparseTensor, batch_size: Option<usize>) -> Result<usize> {
    let items = batch_size.unwrap_or_else(|| x.batch_size());
    if items > MAX_ITEMS {
        return Err(Error::Limit {
            op,
            what: format!("expected at most {MAX_ITEMS} batch items, found {items}"),
        });
    }
    let Some(given) = batch_size else { return Ok(items) };
    if let Some(counts) = x.batch_counts()
        && counts.len() != given
    {
        return Err(Error::Value {
            op,
            what: format!("expected the declared batch size {}, found {given}; leave it out", counts.len()),
        });
    }
    // Bounds say that all is well without reading the rows.
    if x.support().to_host().bounds().is_none_or(|(_, high)| (high[0] as usize) < given) {
        return Ok(given);
    }
    let outside = x.support().to_host().coords().iter().enumerate().find(|(_, c)| c[0] as usize >= given);
    match outside {
        Some((row, c)) => Err(Error::OutOfRange {
            op,
            row,
            what: format!("expected a batch id below the batch size {given}, found {}", c[0]),
        }),
        None => Ok(given),
    }
}

/// Reduces the rows of every batch item. Differentiable; a maximum splits its gradient evenly over ties.
///
/// The batch column says where a row belongs; `batch_size`, or else the declared batch counts, only says how many items there
/// are. An item without rows is 0 in sums and means.
///
/// # Shapes
/// `[n, c]` to a dense `[batch_size, c]` of the same element type.
/// # Errors
/// A batch size that differs from the declared one, or that a batch id passes; a maximum over an item without rows, or over no
/// items.
pub fn global_pool(x: &SparseTensor, mode: PoolMode, batch_size: Option<usize>) -> Result<Tensor<2>> {
    let (op, kind) = match mode {
        PoolMode::Sum => ("global_sum_pool", "global_pool.sum"),
        PoolMode::Avg => ("global_avg_pool", "global_pool.avg"),
        PoolMode::Max => ("global_max_pool", "global_pool.max"),
    };
    check_features(op, x.feats())?;
    let items = item_count(op, x, batch_size)?;
    let trace = RowTrace::start(op, kind);
    let mean = mode == PoolMode::Avg;
    let map = match backend::batch_map(&x.device(), x.support().to_host(), items, mean) {
        Some(made) => made.into(),
        None => {
            let ids: Vec<i32> = x.support().to_host().coords().iter().map(|c| c[0]).collect();
            grouped(op, &ids, items, mean)?
        }
    };
    let trace = trace.mapped(x.feats());
    let (feats, route) = match mode {
        PoolMode::Max => {
            let empty = map.to_host().splits().windows(2).position(|s| s[0] == s[1]);
            if items == 0 || empty.is_some() {
                return Err(Error::Value {
                    op,
                    what: match empty {
                        Some(item) => format!(
                            "expected rows in every batch item, found none in item {item}; use a mean"
                        ),
                        None => "expected at least one batch item, found none".into(),
                    },
                });
            }
            (max_rows(x.feats().clone(), &map), ROW_MAX)
        }
        PoolMode::Sum | PoolMode::Avg => (mix_rows(x.feats().clone(), &map, 0.0), ROW_MIX),
    };
    trace.finish(x.feats().dims(), &feats, |device| entries(&map, device), route);
    Ok(feats)
}

/// [`global_pool`] by sums.
///
/// # Errors
/// As [`global_pool`].
pub fn global_sum_pool(x: &SparseTensor, batch_size: Option<usize>) -> Result<Tensor<2>> {
    global_pool(x, PoolMode::Sum, batch_size)
}

/// [`global_pool`] by means.
///
/// # Errors
/// As [`global_pool`].
pub fn global_avg_pool(x: &SparseTensor, batch_size: Option<usize>) -> Result<Tensor<2>> {
    global_pool(x, PoolMode::Avg, batch_size)
}

/// [`global_pool`] by maxima per channel.
///
/// # Errors
/// As [`global_pool`].
pub fn global_max_pool(x: &SparseTensor, batch_size: Option<usize>) -> Result<Tensor<2>> {
    global_pool(x, PoolMode::Max, batch_size)
}

//! Normalisations with one set of statistics per batch item: group and instance norm.
//!
//! Rows of one batch item need not stand together. Items without rows have no statistics and no output rows.

use burn::tensor::{Tensor, TensorData};
use lattice_core as core;

use super::norm::{NormAffine, check_eps};
use super::precision::{SUM_BLOCK, widened};
use super::rows::mix_rows;
use crate::{Error, Result, RowMap, SparseTensor};

/// The batch items of a tensor: how to average over their rows, and how to hand a value back to each row.
///
/// Rows are summed in blocks and blocks in items, forward and backward: a running f32 sum over all rows would lose digits.
struct Items {
    /// `[n_blocks, n_rows]`: sums the rows of each block; a block lies in one item.
    blocks: RowMap,
    /// `[n_items, n_blocks]`: sums the blocks of each item.
    items: RowMap,
    /// Rows of each item, at least 1.
    counts: Vec<f64>,
}

impl Items {
    fn of(x: &SparseTensor) -> Result<Self> {
        let rows_of_items = x.manager().batch_rows(x.support());
        let mut rows = Vec::with_capacity(x.n_rows());
        let (mut row_splits, mut block_splits) = (vec![0], vec![0]);
        for item in rows_of_items.iter() {
            for block in item.chunks(SUM_BLOCK) {
                rows.extend_from_slice(block);
                row_splits.push(rows.len());
            }
            block_splits.push(row_splits.len() - 1);
        }
        let n_blocks = row_splits.len() - 1;
        let numbers = (0..n_blocks).map(|block| block as u32).collect();
        Ok(Self {
            blocks: core::RowMap::try_new(x.n_rows(), row_splits, rows, None)?.into(),
            items: core::RowMap::try_new(n_blocks, block_splits, numbers, None)?.into(),
            counts: rows_of_items.iter().map(|item| item.len().max(1) as f64).collect(),
        })
    }

    /// Mean over the rows of each item, handed back to every row: `[n, g]` to `[n, g]`.
    fn mean(&self, x: Tensor<2>) -> Tensor<2> {
        let counts = TensorData::new(self.counts.clone(), [self.counts.len(), 1]);
        let counts = Tensor::<2>::from_data(counts, (&x.device(), x.dtype()));
        let means = mix_rows(mix_rows(x, &self.blocks, 0.0), &self.items, 0.0) / counts;
        mix_rows(mix_rows(means, &self.items.transpose(), 0.0), &self.blocks.transpose(), 0.0)
    }
}

/// `(x - mean) / sqrt(var + eps) · scale + bias` with statistics over the rows of a batch item and the channels of a group.
///
/// Variances are biased; statistics are in f32 (f64 for f64 features). Differentiable; keeps identity and element type.
///
/// # Errors
/// Groups that do not divide the channels, `eps` not above 0, vectors that do not have one value a channel.
pub fn group_norm(x: &SparseTensor, groups: usize, affine: NormAffine, eps: f64) -> Result<SparseTensor> {
    normalize("group_norm", x, groups, affine, eps)
}

/// [`group_norm`] with every channel its own group: statistics over the rows of a batch item.
///
/// # Errors
/// `eps` not above 0, vectors that do not have one value a channel.
pub fn instance_norm(x: &SparseTensor, affine: NormAffine, eps: f64) -> Result<SparseTensor> {
    normalize("instance_norm", x, x.channels().max(1), affine, eps)
}

fn normalize(
    op: &'static str,
    x: &SparseTensor,
    groups: usize,
    affine: NormAffine,
    eps: f64,
) -> Result<SparseTensor> {
    let channels = x.channels();
    check_eps(op, eps)?;
    affine.check(op, channels)?;
    if groups == 0 || !channels.is_multiple_of(groups) {
        return Err(Error::Value {
            op,
            what: format!("expected a number of groups that divides {channels} channels, found {groups}"),
        });
    }
    let rows = x.n_rows();
    if rows == 0 || channels == 0 {
        return Ok(x.clone());
    }
    let items = Items::of(x)?;
    let width = channels / groups;
    // Each item's mean over its rows, of each row's mean over the channels of a group; `[n, c]` again at the end.
    let mean = |x: Tensor<2>| {
        let by_group = match width {
            1 => x,
            _ => x.reshape([rows, groups, width]).mean_dim(2).reshape([rows, groups]),
        };
        let mean = items.mean(by_group);
        match width {
            1 => mean,
            _ => mean.reshape([rows, groups, 1]).expand([rows, groups, width]).reshape([rows, channels]),
        }
    };
    let feats = widened(x.feats().clone(), |x| {
        let centred = x.clone() - mean(x);
        let var = mean(centred.clone() * centred.clone());
        affine.apply(centred / (var + eps).sqrt())
    });
    x.with_feats(feats)
}

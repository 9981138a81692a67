//! Neighbour search among the rows of sparse tensors: the k nearest, or all within a radius.
//!
//! Distances are Euclidean between logical coordinates, kept *squared*; the tensor stride does not enter. Only rows of one batch
//! item are neighbours, and a query that is itself a source finds itself first.

use std::sync::Arc;

use burn::tensor::{DType, Device, Int, Tensor, TensorData};
use lattice_core as core;

use super::integers::int_tensor;
use super::mix_rows;
use super::row_groups::picked;
use super::row_trace::{ROW_MIX, RowTrace};
use crate::tensor::check_features;
use crate::{Error, Result, SparseTensor, Support};

/// The neighbours of every query row, ascending by (distance, source row) within a query.
#[derive(Clone, Debug)]
pub struct NeighbourRelation {
    source: Support,
    host: Arc<core::Neighbours>,
}

impl NeighbourRelation {
    /// Support of the sources.
    pub fn source(&self) -> &Support {
        &self.source
    }

    /// Number of queries.
    pub fn n_queries(&self) -> usize {
        self.host.splits.len().saturating_sub(1)
    }

    /// Number of neighbours over all queries.
    pub fn n_pairs(&self) -> usize {
        self.host.source_rows.len()
    }

    /// Bounds of every query's neighbours, `n_queries + 1` long.
    pub fn splits(&self) -> &[usize] {
        &self.host.splits
    }

    /// Source row of every neighbour `[n_pairs]`.
    pub fn source_rows(&self, device: &Device) -> Tensor<1, Int> {
        int_tensor(self.host.source_rows.iter().map(|&row| row as i32).collect(), [self.n_pairs()], device)
    }

    /// Query row of every neighbour `[n_pairs]`.
    pub fn query_rows(&self, device: &Device) -> Tensor<1, Int> {
        let each = self.host.splits.windows(2).enumerate();
        let rows = each.flat_map(|(query, s)| std::iter::repeat_n(query as i32, s[1] - s[0])).collect();
        int_tensor(rows, [self.n_pairs()], device)
    }

    /// Rank of every neighbour within its query, from 0, `[n_pairs]`.
    pub fn neighbour_ids(&self, device: &Device) -> Tensor<1, Int> {
        int_tensor(self.host.neighbour_ids.iter().map(|&id| id as i32).collect(), [self.n_pairs()], device)
    }

    /// Squared distance of every neighbour `[n_pairs]`.
    pub fn distances(&self, device: &Device) -> Tensor<1> {
        let distances = TensorData::new(self.host.distances.clone(), [self.n_pairs()]);
        Tensor::from_data(distances, (device, DType::F32))
    }

    /// The neighbours in host memory.
    pub fn to_host(&self) -> &core::Neighbours {
        &self.host
    }
}

fn check_strides(op: &'static str, source: &SparseTensor, query: &SparseTensor) -> Result<()> {
    match source.stride() == query.stride() {
        true => Ok(()),
        false => Err(Error::StrideMismatch { op, expected: source.stride(), found: query.stride() }),
    }
}

/// The `k` nearest source rows of every query row, fewer where the batch item has fewer. Without a query the sources ask.
///
/// # Errors
/// `k` of 0; strides that differ.
pub fn knn_relation(
    source: &SparseTensor,
    query: Option<&SparseTensor>,
    k: usize,
) -> Result<NeighbourRelation> {
    let query = query.unwrap_or(source);
    check_strides("knn_relation", source, query)?;
    let host = core::knn(source.support().to_host(), query.support().to_host(), k)?;
    Ok(NeighbourRelation { source: source.support().clone(), host: Arc::new(host) })
}

/// The source rows within `radius` of every query row, at most the `max_neighbours` nearest. Without a query the sources ask.
///
/// # Errors
/// A negative or non-finite radius; `max_neighbours` of 0; strides that differ.
pub fn radius_relation(
    source: &SparseTensor,
    query: Option<&SparseTensor>,
    radius: f64,
    max_neighbours: Option<usize>,
) -> Result<NeighbourRelation> {
    let query = query.unwrap_or(source);
    check_strides("radius_relation", source, query)?;
    let host = core::radius(source.support().to_host(), query.support().to_host(), radius, max_neighbours)?;
    Ok(NeighbourRelation { source: source.support().clone(), host: Arc::new(host) })
}

/// The source features of every neighbour, `[n_pairs, c]`, query after query. Differentiable.
///
/// # Errors
/// A relation of other source rows.
pub fn gather_neighbor_features(source: &SparseTensor, relation: &NeighbourRelation) -> Result<Tensor<2>> {
    let op = "gather_neighbor_features";
    check_features(op, source.feats())?;
    if !source.support().same_rows(&relation.source) {
        return Err(Error::Identity {
            op,
            what: "expected a relation whose source is this tensor, found another; build it from this tensor"
                .into(),
        });
    }
    let trace = RowTrace::start(op, "neighbours.gather");
    let map = picked(source.n_rows(), relation.host.source_rows.clone())?;
    let trace = trace.mapped(source.feats());
    let out = mix_rows(source.feats().clone(), &map, 0.0);
    trace.finish(source.feats().dims(), &out, |_| relation.n_pairs(), ROW_MIX);
    Ok(out)
}

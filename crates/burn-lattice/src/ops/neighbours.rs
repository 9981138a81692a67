//! Neighbour search among the rows of sparse tensors: the k nearest, or all within a radius.
//!
//! Distances are Euclidean between logical coordinates, kept *squared*; the tensor stride does not enter. Only rows of one batch
//! item are neighbours, and a query that is itself a source finds itself first. Rows of a tensor on a GPU are searched there, with the
//! results of the CPU, which stay there until the host asks for them.

use std::sync::{Arc, OnceLock};

use burn::tensor::{DType, Device, Int, Tensor, TensorData};
use lattice_core as core;

use super::integers::int_tensor;
use super::mix_rows;
use super::row_groups::picked;
use super::row_trace::{ROW_MIX, RowTrace};
use crate::backend::{self, Found, NeighbourColumn, NeighbourSearch, NeighboursFound};
use crate::tensor::check_features;
use crate::{Error, Result, RowMap, SparseTensor, Support};

/// The neighbours of every query row, ascending by (distance, source row) within a query.
#[derive(Clone, Debug)]
pub struct NeighbourRelation {
    source: Support,
    n_queries: usize,
    found: Arc<NeighboursFound>,
    gather: Arc<OnceLock<RowMap>>,
}

impl NeighbourRelation {
    /// Support of the sources.
    pub fn source(&self) -> &Support {
        &self.source
    }

    /// Number of queries.
    pub fn n_queries(&self) -> usize {
        self.n_queries
    }

    /// Number of neighbours over all queries.
    pub fn n_pairs(&self) -> usize {
        match &*self.found {
            Found::Here(host) => host.source_rows.len(),
            Found::There { on_device, .. } => on_device.n_pairs(),
        }
    }

    /// Bounds of every query's neighbours, `n_queries + 1` long. Reads the neighbours, as [`to_host`](Self::to_host) does.
    pub fn splits(&self) -> &[usize] {
        &self.to_host().splits
    }

    /// Source row of every neighbour `[n_pairs]`.
    pub fn source_rows(&self, device: &Device) -> Tensor<1, Int> {
        self.column(NeighbourColumn::Source, device, |host| {
            host.source_rows.iter().map(|&row| row as i32).collect()
        })
    }

    /// Query row of every neighbour `[n_pairs]`.
    pub fn query_rows(&self, device: &Device) -> Tensor<1, Int> {
        self.column(NeighbourColumn::Query, device, |host| {
            let each = host.splits.windows(2).enumerate();
            each.flat_map(|(query, s)| std::iter::repeat_n(query as i32, s[1] - s[0])).collect()
        })
    }

    /// Rank of every neighbour within its query, from 0, `[n_pairs]`.
    pub fn neighbour_ids(&self, device: &Device) -> Tensor<1, Int> {
        self.column(NeighbourColumn::Rank, device, |host| {
            host.neighbour_ids.iter().map(|&id| id as i32).collect()
        })
    }

    fn column(
        &self,
        column: NeighbourColumn,
        device: &Device,
        on_host: impl Fn(&core::Neighbours) -> Vec<i32>,
    ) -> Tensor<1, Int> {
        let there = self.found.on_device().and_then(|found| found.column(column, device));
        there.unwrap_or_else(|| int_tensor(on_host(self.to_host()), [self.n_pairs()], device))
    }

    /// Squared distance of every neighbour `[n_pairs]`.
    pub fn distances(&self, device: &Device) -> Tensor<1> {
        if let Some(there) = self.found.on_device().and_then(|found| found.distances(device)) {
            return there;
        }
        let distances = TensorData::new(self.to_host().distances.clone(), [self.n_pairs()]);
        Tensor::from_data(distances, (device, DType::F32))
    }

    /// The neighbours in host memory. Reads them, where they were found on a GPU and this is the first call.
    pub fn to_host(&self) -> &core::Neighbours {
        self.found.host()
    }

    /// The map that copies the source row of every neighbour, built once.
    fn gather(&self) -> Result<RowMap> {
        if let Some(built) = self.gather.get() {
            return Ok(built.clone());
        }
        let map = match &*self.found {
            Found::Here(host) => picked(self.source.n_rows(), host.source_rows.clone())?,
            Found::There { on_device, .. } => on_device.row_map().into(),
        };
        Ok(self.gather.get_or_init(|| map).clone())
    }
}

fn check_strides(op: &'static str, source: &SparseTensor, query: &SparseTensor) -> Result<()> {
    match source.stride() == query.stride() {
        true => Ok(()),
        false => Err(Error::StrideMismatch { op, expected: source.stride(), found: query.stride() }),
    }
}

/// Neighbours found where the source's features lie, by the host where no device can.
fn find(
    source: &SparseTensor,
    query: &SparseTensor,
    search: NeighbourSearch,
    on_host: impl Fn(&core::Support, &core::Support) -> Result<core::Neighbours>,
) -> Result<NeighbourRelation> {
    let (rows, queries) = (source.support().to_host(), query.support().to_host());
    let found = match backend::find_neighbours(&source.feats().device(), rows, queries, search) {
        Some(found) => found,
        None => Found::Here(on_host(rows, queries)?),
    };
    Ok(NeighbourRelation {
        source: source.support().clone(),
        n_queries: query.n_rows(),
        found: Arc::new(found),
        gather: Arc::default(),
    })
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
    find(source, query, NeighbourSearch::Nearest(k), |source, query| core::knn(source, query, k))
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
    find(source, query, NeighbourSearch::Within(radius, max_neighbours), |source, query| {
        core::radius(source, query, radius, max_neighbours)
    })
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
    let map = relation.gather()?;
    let trace = trace.mapped(source.feats());
    let out = mix_rows(source.feats().clone(), &map, 0.0);
    trace.finish(source.feats().dims(), &out, |_| relation.n_pairs(), ROW_MIX);
    Ok(out)
}

//! Sparse mixing of rows: the linear maps of pooling, joins, selection, scatter and gather.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use crate::{Error, PointVoxelMap, Relation, Result, Voxelization};

/// `out[o] = Σ weight[e] · x[rows[e]]` over `e` in `splits[o]..splits[o + 1]`; without weights each counts 1.
///
/// # Layout
/// CSR by output row. Memory: `8 · (n_out + 1)` bytes, 4 an entry, 4 more with weights. The transpose is built once and kept.
#[derive(Clone, Debug)]
pub struct RowMap(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    id: u64,
    n_in: usize,
    splits: Vec<usize>,
    rows: Vec<u32>,
    weights: Option<Vec<f32>>,
    transpose: OnceLock<RowMap>,
}

impl RowMap {
    fn make(n_in: usize, splits: Vec<usize>, rows: Vec<u32>, weights: Option<Vec<f32>>) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let id = NEXT.fetch_add(1, Ordering::Relaxed);
        Self(Arc::new(Inner { id, n_in, splits, rows, weights, transpose: OnceLock::new() }))
    }

    /// Takes a CSR apart from its last check: `splits` ascend from 0 to the number of entries, rows are below `n_in`.
    ///
    /// # Errors
    /// [`Error::Shape`] for splits or weights that do not fit, [`Error::OutOfRange`] for a row at or past `n_in`.
    pub fn try_new(n_in: usize, splits: Vec<usize>, rows: Vec<u32>, weights: Option<Vec<f32>>) -> Result<Self> {
        const OP: &str = "RowMap::try_new";
        let ascending = splits.first() == Some(&0) && splits.is_sorted() && splits.last() == Some(&rows.len());
        if !ascending {
            return Err(Error::Shape {
                op: OP,
                expected: format!("splits that ascend from 0 to the {} entries", rows.len()),
                found: format!("{} splits from {:?} to {:?}", splits.len(), splits.first(), splits.last()),
            });
        }
        if let Some(weights) = &weights
            && weights.len() != rows.len()
        {
            return Err(Error::Shape {
                op: OP,
                expected: format!("{} weights, one an entry", rows.len()),
                found: format!("{}", weights.len()),
            });
        }
        if let Some(entry) = rows.iter().position(|&r| r as usize >= n_in) {
            return Err(Error::OutOfRange {
                op: OP,
                row: entry,
                what: format!("expected input rows below {n_in}, found {}", rows[entry]),
            });
        }
        Ok(Self::make(n_in, splits, rows, weights))
    }

    /// One entry an output row, or none where `rows` holds -1.
    ///
    /// # Errors
    /// [`Error::OutOfRange`] for a row below -1 or at or past `n_in`.
    pub fn gather(n_in: usize, rows: &[i32]) -> Result<Self> {
        let mut splits = Vec::with_capacity(rows.len() + 1);
        let mut entries = Vec::with_capacity(rows.len());
        splits.push(0);
        for (out, &row) in rows.iter().enumerate() {
            match usize::try_from(row) {
                Ok(r) if r < n_in => entries.push(row as u32),
                Err(_) if row == -1 => {}
                _ => {
                    return Err(Error::OutOfRange {
                        op: "RowMap::gather",
                        row: out,
                        what: format!("expected -1 or an input row below {n_in}, found {row}"),
                    });
                }
            }
            splits.push(entries.len());
        }
        Ok(Self::make(n_in, splits, entries, None))
    }

    /// Identity: equal for clones.
    pub fn id(&self) -> u64 {
        self.0.id
    }

    /// Rows it reads from.
    pub fn n_in(&self) -> usize {
        self.0.n_in
    }

    /// Rows it makes.
    pub fn n_out(&self) -> usize {
        self.0.splits.len() - 1
    }

    /// Bounds of each output row's entries; `n_out + 1` values.
    pub fn splits(&self) -> &[usize] {
        &self.0.splits
    }

    /// Input row of each entry.
    pub fn rows(&self) -> &[u32] {
        &self.0.rows
    }

    /// Weight of each entry; 1 where there are none.
    pub fn weights(&self) -> Option<&[f32]> {
        self.0.weights.as_deref()
    }

    /// Whether each output row copies at most one input row.
    pub fn is_gather(&self) -> bool {
        self.0.weights.is_none() && self.0.splits.windows(2).all(|w| w[1] - w[0] <= 1)
    }

    /// The adjoint: entries grouped by input row, ascending output row; built once. Its own transpose has this map's values.
    pub fn transpose(&self) -> RowMap {
        self.0.transpose.get_or_init(|| self.build_transpose()).clone()
    }

    fn build_transpose(&self) -> RowMap {
        let mut splits = vec![0; self.n_in() + 1];
        for &row in self.rows() {
            splits[row as usize + 1] += 1;
        }
        for row in 0..self.n_in() {
            splits[row + 1] += splits[row];
        }
        let mut next = splits.clone();
        let mut rows = vec![0; self.rows().len()];
        let mut weights = self.weights().map(|w| vec![0.0; w.len()]);
        for out in 0..self.n_out() {
            for entry in self.splits()[out]..self.splits()[out + 1] {
                let slot = &mut next[self.rows()[entry] as usize];
                rows[*slot] = out as u32;
                if let (Some(to), Some(from)) = (&mut weights, self.weights()) {
                    to[*slot] = from[entry];
                }
                *slot += 1;
            }
        }
        Self::make(self.n_out(), splits, rows, weights)
    }

    /// Bytes of this map and of the transpose built so far.
    pub fn bytes(&self) -> usize {
        let own = size_of_val(self.splits()) + size_of_val(self.rows()) + self.weights().map_or(0, size_of_val);
        own + self.0.transpose.get().map_or(0, RowMap::bytes)
    }

    /// Sum over the pairs of a relation.
    pub fn from_relation_sum(relation: &Relation) -> Self {
        Self::make(relation.n_in(), relation.out_splits().to_vec(), relation.in_rows().to_vec(), None)
    }

    /// Mean over the pairs of a relation.
    pub fn from_relation_avg(relation: &Relation) -> Self {
        let splits = relation.out_splits().to_vec();
        let weights = mean_weights(&splits);
        Self::make(relation.n_in(), splits, relation.in_rows().to_vec(), Some(weights))
    }

    /// Trilinear weights over a relation of size `2 s - 1`, divided by the sum of those present.
    pub fn trilinear(relation: &Relation, stride: [u32; 3]) -> Self {
        let axis = |s: u32| -> Vec<f32> {
            let middle = f64::from(s) - 1.0;
            (0..2 * s - 1).map(|i| (1.0 - (f64::from(i) - middle).abs() / f64::from(s)) as f32).collect()
        };
        let [x, y, z] = stride.map(axis);
        let taps: Vec<f32> =
            x.iter().flat_map(|&a| y.iter().flat_map(move |&b| vec![a * b; 1])).flat_map(|ab| z.iter().map(move |&c| ab * c)).collect();
        let splits = relation.out_splits().to_vec();
        let mut weights: Vec<f32> = relation.tap_ids().iter().map(|&k| taps[usize::from(k)]).collect();
        for bounds in splits.windows(2) {
            let row = &mut weights[bounds[0]..bounds[1]];
            let sum: f32 = row.iter().sum();
            row.iter_mut().for_each(|w| *w /= sum);
        }
        Self::make(relation.n_in(), splits, relation.in_rows().to_vec(), Some(weights))
    }

    /// Sum of each voxel's points.
    pub fn voxel_sum(voxels: &Voxelization) -> Self {
        let points = voxels.voxel_of_point.len();
        let rows: Vec<(u32, u32)> = voxels
            .voxel_of_point
            .iter()
            .enumerate()
            .filter_map(|(p, &v)| u32::try_from(v).ok().map(|v| (v, p as u32)))
            .collect();
        let n_out = voxels.support.n_rows();
        let mut splits = vec![0; n_out + 1];
        for &(v, _) in &rows {
            splits[v as usize + 1] += 1;
        }
        for v in 0..n_out {
            splits[v + 1] += splits[v];
        }
        let mut next = splits.clone();
        let mut entries = vec![0; rows.len()];
        for (v, p) in rows {
            let slot = &mut next[v as usize];
            entries[*slot] = p;
            *slot += 1;
        }
        Self::make(points, splits, entries, None)
    }

    /// Mean of each voxel's points.
    pub fn voxel_mean(voxels: &Voxelization) -> Self {
        let sum = Self::voxel_sum(voxels);
        let weights = mean_weights(sum.splits());
        Self::make(sum.n_in(), sum.splits().to_vec(), sum.rows().to_vec(), Some(weights))
    }

    /// Weighted corners of each point.
    pub fn from_point_voxel_map(map: &PointVoxelMap, n_voxels: usize) -> Result<Self> {
        let mut splits = vec![0];
        let (mut rows, mut weights) = (Vec::new(), Vec::new());
        for (corner_rows, corner_weights) in map.rows.iter().zip(&map.weights) {
            for (&row, &weight) in corner_rows.iter().zip(corner_weights) {
                if let Ok(row) = u32::try_from(row) {
                    rows.push(row);
                    weights.push(weight);
                }
            }
            splits.push(rows.len());
        }
        Self::try_new(n_voxels, splits, rows, Some(weights))
    }
}

fn mean_weights(splits: &[usize]) -> Vec<f32> {
    splits.windows(2).flat_map(|w| std::iter::repeat_n(1.0 / (w[1] - w[0]) as f32, w[1] - w[0])).collect()
}

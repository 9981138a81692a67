//! Sparse mixing of rows: the linear maps of pooling, joins, selection, scatter and gather.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use rayon::prelude::*;

use crate::{Attachments, Error, PointVoxelMap, Relation, Result, Voxelization};

/// Rows a task of a parallel loop takes.
const CHUNK: usize = 16_384;
/// Entries below which a transpose is built by one thread.
const FEW_ENTRIES: usize = 1 << 16;
/// Parts that a transpose counts on their own, at most: each needs a counter for every input row.
const MOST_PARTS: usize = 16;

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
    is_gather: OnceLock<bool>,
    transpose: OnceLock<RowMap>,
    attachments: Attachments,
}

impl RowMap {
    fn make(n_in: usize, splits: Vec<usize>, rows: Vec<u32>, weights: Option<Vec<f32>>) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let id = NEXT.fetch_add(1, Ordering::Relaxed);
        Self(Arc::new(Inner {
            id,
            n_in,
            splits,
            rows,
            weights,
            is_gather: OnceLock::new(),
            transpose: OnceLock::new(),
            attachments: Attachments::default(),
        }))
    }

    /// Takes a CSR apart from its last check: `splits` ascend from 0 to the number of entries, rows are below `n_in`.
    ///
    /// # Errors
    /// [`Error::Shape`] for splits or weights that do not fit, [`Error::OutOfRange`] for a row at or past `n_in`,
    /// [`Error::Limit`] for 2^32 rows or more on either side.
    pub fn try_new(
        n_in: usize,
        splits: Vec<usize>,
        rows: Vec<u32>,
        weights: Option<Vec<f32>>,
    ) -> Result<Self> {
        const OP: &str = "RowMap::try_new";
        let ascending =
            splits.first() == Some(&0) && splits.is_sorted() && splits.last() == Some(&rows.len());
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
        check_size(OP, n_in)?;
        check_size(OP, splits.len() - 1)?;
        if let Some(entry) = position_first(&rows, |&r| r as usize >= n_in) {
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
    /// [`Error::OutOfRange`] for a row below -1 or at or past `n_in`, [`Error::Limit`] for 2^32 rows or more on either side.
    pub fn gather(n_in: usize, rows: &[i32]) -> Result<Self> {
        const OP: &str = "RowMap::gather";
        check_size(OP, n_in)?;
        check_size(OP, rows.len())?;
        let valid = |row: i32| row == -1 || usize::try_from(row).is_ok_and(|row| row < n_in);
        if let Some(out) = position_first(rows, |&row| !valid(row)) {
            let what = format!("expected -1 or an input row below {n_in}, found {}", rows[out]);
            return Err(Error::OutOfRange { op: OP, row: out, what });
        }
        Ok(Self::gather_present(n_in, rows))
    }

    /// One entry an output row, or none where `rows` holds no input row.
    fn gather_present(n_in: usize, rows: &[i32]) -> Self {
        let chunks = rows.par_chunks(CHUNK).map(|rows| {
            let mut part = Part::default();
            for &row in rows {
                part.rows.extend(u32::try_from(row).ok().filter(|&row| (row as usize) < n_in));
                part.ends.push(part.rows.len());
            }
            part
        });
        let map = Part::concat(chunks.collect()).into_map(n_in, false);
        // A fresh cell is empty, so this stores.
        let _ = map.0.is_gather.set(true);
        map
    }

    /// Identity: equal for clones.
    pub fn id(&self) -> u64 {
        self.0.id
    }

    /// Forms that other crates keep with this map.
    pub fn attachments(&self) -> &Attachments {
        &self.0.attachments
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

    /// Whether each output row copies at most one input row. Found once.
    pub fn is_gather(&self) -> bool {
        let short = || self.0.splits.windows(2).all(|w| w[1] - w[0] <= 1);
        *self.0.is_gather.get_or_init(|| self.0.weights.is_none() && short())
    }

    /// The adjoint: entries grouped by input row, ascending output row; built once. Its own transpose has this map's values.
    ///
    /// Cost: linear in entries and rows.
    pub fn transpose(&self) -> RowMap {
        if let Some(built) = self.0.transpose.get() {
            return built.clone();
        }
        // Outside the cell's lock: a parallel build may run other tasks while it waits, and one of them may ask for this very
        // transpose. At worst two callers build it and one result is kept.
        let built = self.build_transpose();
        self.0.transpose.get_or_init(|| built).clone()
    }

    fn build_transpose(&self) -> RowMap {
        let n = self.rows().len();
        // Counters take no more room than entries.
        let n_parts = (n / self.n_in().max(1)).clamp(2, MOST_PARTS);
        match n < FEW_ENTRIES || u32::try_from(n).is_err() {
            true => self.transpose_in_one_part(),
            false => self.transpose_in_parts(n_parts),
        }
    }

    fn transpose_in_one_part(&self) -> RowMap {
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
        for (out, bounds) in self.splits().windows(2).enumerate() {
            for entry in bounds[0]..bounds[1] {
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

    /// Parts of the output rows count their entries by input row, a scan gives each part its places, each part writes. Places are
    /// disjoint: relaxed atomics are plain stores there, and the result does not depend on the number of parts.
    fn transpose_in_parts(&self, n_parts: usize) -> RowMap {
        let (n_in, n) = (self.n_in(), self.rows().len());
        let bound = |part: usize| match part {
            0 => 0,
            _ if part == n_parts => self.n_out(),
            _ => self.splits().partition_point(|&s| s < n / n_parts * part).min(self.n_out()),
        };
        let outs: Vec<_> = (0..n_parts).map(|part| bound(part)..bound(part + 1)).collect();
        let counted = outs.par_iter().map(|outs| {
            let mut counts = zeros(n_in);
            for &row in &self.rows()[self.splits()[outs.start]..self.splits()[outs.end]] {
                *counts[row as usize].get_mut() += 1;
            }
            counts
        });
        let mut counts: Vec<Vec<AtomicU32>> = counted.collect();
        // Counts become the places of a part within its input row; the totals stay.
        let places = |row: usize| {
            counts.iter().fold(0, |before, part| {
                let count = part[row].load(Ordering::Relaxed);
                part[row].store(before, Ordering::Relaxed);
                before + count
            })
        };
        let totals: Vec<u32> = (0..n_in).into_par_iter().with_min_len(CHUNK).map(places).collect();
        let mut splits = Vec::with_capacity(n_in + 1);
        splits.push(0);
        splits.extend(totals.iter().scan(0, |end, &total| {
            *end += total as usize;
            Some(*end)
        }));
        let rows = zeros(n);
        let weights = self.weights().map(|from| (from, zeros(n)));
        outs.into_par_iter().zip(&mut counts).for_each(|(outs, places)| {
            for out in outs {
                for entry in self.splits()[out]..self.splits()[out + 1] {
                    let row = self.rows()[entry] as usize;
                    let place = places[row].get_mut();
                    let slot = splits[row] + *place as usize;
                    *place += 1;
                    rows[slot].store(out as u32, Ordering::Relaxed);
                    if let Some((from, to)) = &weights {
                        to[slot].store(from[entry].to_bits(), Ordering::Relaxed);
                    }
                }
            }
        });
        let bits = |w: Vec<AtomicU32>| w.into_iter().map(|w| f32::from_bits(w.into_inner())).collect();
        let rows = rows.into_iter().map(AtomicU32::into_inner).collect();
        Self::make(self.n_out(), splits, rows, weights.map(|(_, to)| bits(to)))
    }

    /// Bytes of this map and of the transpose built so far.
    pub fn bytes(&self) -> usize {
        let own =
            size_of_val(self.splits()) + size_of_val(self.rows()) + self.weights().map_or(0, size_of_val);
        own + self.0.transpose.get().map_or(0, RowMap::bytes)
    }

    /// Sum over the pairs of a relation.
    pub fn from_relation_sum(relation: &Relation) -> Self {
        Self::make(relation.n_in(), relation.out_splits().to_vec(), relation.in_rows().to_vec(), None)
    }

    /// Mean over the pairs of a relation.
    pub fn from_relation_avg(relation: &Relation) -> Self {
        Self::from_relation_sum(relation).averaged()
    }

    /// Trilinear weights of the taps, divided by the sum of those present in the output row.
    ///
    /// The weight of cell `i` of an axis with stride `s` is `1 - |i - (s - 1)| / s`, never below 0: the relation is meant to have
    /// size `2 s - 1`. A row whose weights sum to 0 reads nothing.
    pub fn trilinear(relation: &Relation, stride: [u32; 3]) -> Self {
        let axis = |a: usize| {
            let s = f64::from(stride[a]);
            (0..relation.spec().size[a]).map(move |i| (1.0 - (f64::from(i) - (s - 1.0)).abs() / s).max(0.0))
        };
        let mut taps = Vec::with_capacity(relation.taps());
        for x in axis(0) {
            for y in axis(1) {
                taps.extend(axis(2).map(|z| (x * y * z) as f32));
            }
        }
        let splits = relation.out_splits().to_vec();
        let mut weights = vec![0.0; relation.tap_ids().len()];
        for_each_row(&splits, &mut weights, |entries, weights| {
            for (weight, &tap) in weights.iter_mut().zip(&relation.tap_ids()[entries]) {
                *weight = taps[usize::from(tap)];
            }
            let sum: f32 = weights.iter().sum();
            if sum > 0.0 {
                weights.iter_mut().for_each(|w| *w /= sum);
            }
        });
        Self::make(relation.n_in(), splits, relation.in_rows().to_vec(), Some(weights))
    }

    /// Sum of each voxel's points, in ascending order of the points. Its transpose comes with it.
    pub fn voxel_sum(voxels: &Voxelization) -> Self {
        let point_to_voxel = Self::gather_present(voxels.support.n_rows(), &voxels.voxel_of_point);
        // Built past the cell of the gather, so that the two maps do not hold each other.
        let sum = point_to_voxel.build_transpose();
        // A fresh cell is empty, so this stores.
        let _ = sum.0.transpose.set(point_to_voxel);
        sum
    }

    /// Mean of each voxel's points.
    pub fn voxel_mean(voxels: &Voxelization) -> Self {
        Self::gather_present(voxels.support.n_rows(), &voxels.voxel_of_point).build_transpose().averaged()
    }

    /// Weighted corners of each point, in the order of the corners.
    ///
    /// # Errors
    /// [`Error::Shape`] unless rows and weights are equally many, [`Error::OutOfRange`] for a row at or past `n_voxels`.
    pub fn from_point_voxel_map(map: &PointVoxelMap, n_voxels: usize) -> Result<Self> {
        const OP: &str = "RowMap::from_point_voxel_map";
        if map.rows.len() != map.weights.len() {
            let expected = format!("weights for {} points", map.rows.len());
            return Err(Error::Shape { op: OP, expected, found: format!("{}", map.weights.len()) });
        }
        let past =
            |rows: &[i32; 8]| rows.iter().any(|&row| usize::try_from(row).is_ok_and(|row| row >= n_voxels));
        if let Some(row) = position_first(&map.rows, past) {
            let what = format!("expected voxel rows below {n_voxels}, found {:?}", map.rows[row]);
            return Err(Error::OutOfRange { op: OP, row, what });
        }
        check_size(OP, n_voxels)?;
        check_size(OP, map.rows.len())?;
        let chunks = map.rows.par_chunks(CHUNK).zip(map.weights.par_chunks(CHUNK)).map(|(rows, weights)| {
            let mut part = Part::default();
            for (rows, weights) in rows.iter().zip(weights) {
                for (&row, &weight) in rows.iter().zip(weights) {
                    if let Ok(row) = u32::try_from(row) {
                        part.rows.push(row);
                        part.weights.push(weight);
                    }
                }
                part.ends.push(part.rows.len());
            }
            part
        });
        Ok(Part::concat(chunks.collect()).into_map(n_voxels, true))
    }

    /// This map without weights, divided by the number of entries of each output row.
    fn averaged(self) -> Self {
        let mut weights = vec![0.0; self.rows().len()];
        for_each_row(self.splits(), &mut weights, |entries, weights| {
            weights.fill(1.0 / entries.len() as f32)
        });
        match Arc::try_unwrap(self.0) {
            Ok(own) => Self::make(own.n_in, own.splits, own.rows, Some(weights)),
            Err(shared) => Self::make(shared.n_in, shared.splits.clone(), shared.rows.clone(), Some(weights)),
        }
    }
}

/// The output rows that one task made.
#[derive(Default)]
struct Part {
    /// End of each row's entries.
    ends: Vec<usize>,
    rows: Vec<u32>,
    weights: Vec<f32>,
}

impl Part {
    /// All parts in order. The ends begin with a 0 then: they are the splits of all rows.
    fn concat(parts: Vec<Self>) -> Self {
        let sum = |len: fn(&Self) -> usize| parts.iter().map(len).sum();
        let mut all = Self {
            ends: Vec::with_capacity(sum(|p| p.ends.len()) + 1),
            rows: Vec::with_capacity(sum(|p| p.rows.len())),
            weights: Vec::with_capacity(sum(|p| p.weights.len())),
        };
        all.ends.push(0);
        for part in parts {
            let base = all.rows.len();
            all.ends.extend(part.ends.iter().map(|end| base + end));
            all.rows.extend(part.rows);
            all.weights.extend(part.weights);
        }
        all
    }

    fn into_map(self, n_in: usize, weighted: bool) -> RowMap {
        RowMap::make(n_in, self.ends, self.rows, weighted.then_some(self.weights))
    }
}

/// Calls `fill` with the entries of every output row and their values, in parallel.
fn for_each_row(
    splits: &[usize],
    values: &mut [f32],
    fill: impl Fn(std::ops::Range<usize>, &mut [f32]) + Sync,
) {
    let n_rows = splits.len() - 1;
    let mut left = values;
    let mut chunks = Vec::with_capacity(n_rows.div_ceil(CHUNK));
    for start in (0..n_rows).step_by(CHUNK) {
        let splits = &splits[start..=n_rows.min(start + CHUNK)];
        let (own, rest) = left.split_at_mut(splits[splits.len() - 1] - splits[0]);
        chunks.push((splits, own));
        left = rest;
    }
    chunks.into_par_iter().for_each(|(splits, values)| {
        for w in splits.windows(2) {
            fill(w[0]..w[1], &mut values[w[0] - splits[0]..w[1] - splits[0]]);
        }
    });
}

/// Position of the first item that `wanted` accepts. Rayon's own search asks a shared flag at every item.
pub(crate) fn position_first<T: Sync>(items: &[T], wanted: impl Fn(&T) -> bool + Sync) -> Option<usize> {
    let in_chunk =
        |(chunk, items): (usize, &[T])| items.iter().position(&wanted).map(|at| chunk * CHUNK + at);
    items.par_chunks(CHUNK).enumerate().find_map_first(in_chunk)
}

fn zeros(n: usize) -> Vec<AtomicU32> {
    std::iter::repeat_with(AtomicU32::default).take(n).collect()
}

/// Row numbers are `u32`.
fn check_size(op: &'static str, n_rows: usize) -> Result<()> {
    match u32::try_from(n_rows) {
        Ok(_) => Ok(()),
        Err(_) => Err(Error::Limit {
            op,
            what: format!("expected fewer than 2^32 rows on each side, found {n_rows}"),
        }),
    }
}

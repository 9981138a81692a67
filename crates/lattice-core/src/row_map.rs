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
/// A map and its transpose are one thing read from two sides: clones and transposes share what was built for either.
///
/// # Layout
/// CSR by output row. Memory: `8 · (n_out + 1)` bytes, 4 an entry, 4 more with weights; made when first read where the map comes from
/// a relation or from a device.
#[derive(Clone, Debug)]
pub struct RowMap {
    both: Arc<Both>,
    /// The side that this handle reads.
    side: usize,
}

/// A map, and on its second side the transpose.
#[derive(Debug)]
struct Both {
    /// Rows that each side makes; the other side reads them.
    n: [usize; 2],
    origin: MapOrigin,
    sides: [Side; 2],
}

#[derive(Debug)]
struct Side {
    id: u64,
    entries: OnceLock<RowEntries>,
    is_gather: OnceLock<bool>,
    attachments: Attachments,
}

impl Side {
    fn new(entries: Option<RowEntries>) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        Self {
            id: NEXT.fetch_add(1, Ordering::Relaxed),
            entries: entries.map_or_else(OnceLock::new, OnceLock::from),
            is_gather: OnceLock::new(),
            attachments: Attachments::default(),
        }
    }
}

/// The entries of a [`RowMap`] in host memory.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RowEntries {
    /// Bounds of each output row's entries; one more than there are rows.
    pub splits: Vec<usize>,
    /// Input row of each entry.
    pub rows: Vec<u32>,
    /// Weight of each entry; 1 where there are none.
    pub weights: Option<Vec<f32>>,
}

/// Where the entries of a map come from.
#[derive(Debug)]
#[non_exhaustive]
pub enum MapOrigin {
    /// They were given, here or to the transpose.
    Given,
    /// One entry a pair of a relation, in the order of the taps.
    Pairs(PairMap),
    /// Another crate made them on a device, and reads them when the host asks.
    Elsewhere(ElsewhereMap),
}

/// A map over the pairs of a relation.
#[derive(Clone, Debug)]
pub struct PairMap {
    /// The relation.
    pub relation: Relation,
    /// What its pairs weigh.
    pub weights: PairWeights,
}

/// What the pairs of a relation weigh in a map over them.
#[derive(Clone, Debug, PartialEq)]
pub enum PairWeights {
    /// Each counts 1.
    One,
    /// Each counts one by the number of pairs of its output row.
    Mean,
    /// Weight of each tap, by the sum over the taps of the output row. A row whose weights sum to 0 reads nothing.
    Taps(Vec<f32>),
}

/// A map whose entries lie on a device.
pub struct ElsewhereMap {
    /// Most entries of a row of the map and of its transpose, where that is known.
    pub longest: [Option<usize>; 2],
    read: Box<dyn Fn() -> RowEntries + Send + Sync>,
}

impl std::fmt::Debug for ElsewhereMap {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ElsewhereMap").field("longest", &self.longest).finish_non_exhaustive()
    }
}

impl RowMap {
    fn with_origin(n_in: usize, n_out: usize, origin: MapOrigin, entries: [Option<RowEntries>; 2]) -> Self {
        let both = Both { n: [n_out, n_in], origin, sides: entries.map(Side::new) };
        Self { both: Arc::new(both), side: 0 }
    }

    fn given(n_in: usize, entries: RowEntries) -> Self {
        Self::with_origin(n_in, entries.splits.len() - 1, MapOrigin::Given, [Some(entries), None])
    }

    /// A map that another crate made on a device: `read` brings its entries when the host first asks. `longest` says how many entries a
    /// row of the map and of its transpose has at most, where that is known.
    ///
    /// The caller answers for what `read` brings: entries of `n_out` rows, each an input row below `n_in`.
    ///
    /// # Errors
    /// [`Error::Limit`] for 2^32 rows or more on either side.
    pub fn made_elsewhere(
        n_in: usize,
        n_out: usize,
        longest: [Option<usize>; 2],
        read: impl Fn() -> RowEntries + Send + Sync + 'static,
    ) -> Result<Self> {
        const OP: &str = "RowMap::made_elsewhere";
        check_size(OP, n_in)?;
        check_size(OP, n_out)?;
        let origin = MapOrigin::Elsewhere(ElsewhereMap { longest, read: Box::new(read) });
        Ok(Self::with_origin(n_in, n_out, origin, [None, None]))
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
        Ok(Self::given(n_in, RowEntries { splits, rows, weights }))
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
        let map = Self::given(n_in, gathered(n_in, rows));
        // A fresh cell is empty, so this stores.
        let _ = map.own().is_gather.set(true);
        map
    }

    fn own(&self) -> &Side {
        &self.both.sides[self.side]
    }

    /// Identity: equal for clones, another one for the transpose.
    pub fn id(&self) -> u64 {
        self.own().id
    }

    /// Forms that other crates keep with this map; the transpose has its own.
    pub fn attachments(&self) -> &Attachments {
        &self.own().attachments
    }

    /// Where the entries come from: those of this map, or of its transpose where it [`is_transposed`](Self::is_transposed).
    pub fn origin(&self) -> &MapOrigin {
        &self.both.origin
    }

    /// Whether this is the transpose of the map that was made first.
    pub fn is_transposed(&self) -> bool {
        self.side == 1
    }

    /// Rows it reads from.
    pub fn n_in(&self) -> usize {
        self.both.n[1 - self.side]
    }

    /// Rows it makes.
    pub fn n_out(&self) -> usize {
        self.both.n[self.side]
    }

    /// The entries, made by the first caller.
    ///
    /// Cost of the first call: linear in entries and rows; where they lie on a device, a wait for it.
    pub fn entries(&self) -> &RowEntries {
        self.both.entries(self.side)
    }

    /// The entries, if somebody read them before.
    pub fn known_entries(&self) -> Option<&RowEntries> {
        self.own().entries.get()
    }

    /// Bounds of each output row's entries; `n_out + 1` values.
    pub fn splits(&self) -> &[usize] {
        &self.entries().splits
    }

    /// Input row of each entry.
    pub fn rows(&self) -> &[u32] {
        &self.entries().rows
    }

    /// Weight of each entry; 1 where there are none.
    pub fn weights(&self) -> Option<&[f32]> {
        self.entries().weights.as_deref()
    }

    /// Whether each output row copies at most one input row. Found once.
    pub fn is_gather(&self) -> bool {
        let short = || self.splits().windows(2).all(|w| w[1] - w[0] <= 1);
        *self.own().is_gather.get_or_init(|| self.weights().is_none() && short())
    }

    /// The adjoint: entries grouped by input row, ascending output row. Its own transpose is this map. Free; its entries are made when
    /// they are first read.
    pub fn transpose(&self) -> RowMap {
        Self { both: self.both.clone(), side: 1 - self.side }
    }

    /// Bytes of the entries of this map and of its transpose, as far as they were read.
    pub fn bytes(&self) -> usize {
        self.both.sides.iter().filter_map(|side| side.entries.get()).map(RowEntries::bytes).sum()
    }

    /// Sum over the pairs of a relation, in the order of the taps.
    pub fn from_relation_sum(relation: &Relation) -> Self {
        Self::from_pairs(relation, PairWeights::One)
    }

    /// Mean over the pairs of a relation.
    pub fn from_relation_avg(relation: &Relation) -> Self {
        Self::from_pairs(relation, PairWeights::Mean)
    }

    fn from_pairs(relation: &Relation, weights: PairWeights) -> Self {
        let origin = MapOrigin::Pairs(PairMap { relation: relation.clone(), weights });
        Self::with_origin(relation.n_in(), relation.n_out(), origin, [None, None])
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
        Self::from_pairs(relation, PairWeights::Taps(taps))
    }

    /// Sum of each voxel's points, in ascending order of the points.
    pub fn voxel_sum(voxels: &Voxelization) -> Self {
        let point_to_voxel = gathered(voxels.support.n_rows(), &voxels.voxel_of_point);
        let sum = point_to_voxel.transposed(voxels.support.n_rows());
        let rows = [voxels.voxel_of_point.len(), voxels.support.n_rows()];
        Self::with_origin(rows[0], rows[1], MapOrigin::Given, [Some(sum), Some(point_to_voxel)])
    }

    /// Mean of each voxel's points.
    pub fn voxel_mean(voxels: &Voxelization) -> Self {
        let n_voxels = voxels.support.n_rows();
        let sum = gathered(n_voxels, &voxels.voxel_of_point).transposed(n_voxels);
        Self::given(voxels.voxel_of_point.len(), sum.averaged())
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
        Ok(Self::given(n_voxels, Part::concat(chunks.collect()).into_entries(true)))
    }
}

impl Both {
    fn entries(&self, side: usize) -> &RowEntries {
        if let Some(known) = self.sides[side].entries.get() {
            return known;
        }
        // Outside the cell's lock: a parallel build may run other tasks while it waits, and one of them may ask for these very
        // entries. At worst two callers build them and one result is kept.
        let built = match &self.origin {
            MapOrigin::Pairs(pairs) if side == 0 => pairs.entries(),
            MapOrigin::Elsewhere(made) if side == 0 => (made.read)(),
            // One side of a given map is never unknown.
            _ => self.entries(1 - side).transposed(self.n[side]),
        };
        self.sides[side].entries.get_or_init(|| built)
    }
}

impl PairMap {
    /// The entries, listed on the host.
    fn entries(&self) -> RowEntries {
        let Self { relation, weights } = self;
        let splits = relation.out_splits().to_vec();
        let sum = |splits| RowEntries { splits, rows: relation.in_rows().to_vec(), weights: None };
        let taps = match weights {
            PairWeights::One => return sum(splits),
            PairWeights::Mean => return sum(splits).averaged(),
            PairWeights::Taps(taps) => taps,
        };
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
        RowEntries { weights: Some(weights), ..sum(splits) }
    }
}

/// One entry an output row, or none where `rows` holds no input row.
fn gathered(n_in: usize, rows: &[i32]) -> RowEntries {
    let chunks = rows.par_chunks(CHUNK).map(|rows| {
        let mut part = Part::default();
        for &row in rows {
            part.rows.extend(u32::try_from(row).ok().filter(|&row| (row as usize) < n_in));
            part.ends.push(part.rows.len());
        }
        part
    });
    Part::concat(chunks.collect()).into_entries(false)
}

impl RowEntries {
    fn n_out(&self) -> usize {
        self.splits.len() - 1
    }

    fn bytes(&self) -> usize {
        let weights = self.weights.as_ref().map_or(0, |w| size_of_val(w.as_slice()));
        size_of_val(self.splits.as_slice()) + size_of_val(self.rows.as_slice()) + weights
    }

    /// Each entry weighs one by the number of entries of its output row.
    fn averaged(mut self) -> Self {
        let mut weights = vec![0.0; self.rows.len()];
        for_each_row(&self.splits, &mut weights, |entries, weights| {
            weights.fill(1.0 / entries.len() as f32);
        });
        self.weights = Some(weights);
        self
    }

    /// Entries grouped by input row, of which there are `n_in`, ascending output row.
    fn transposed(&self, n_in: usize) -> Self {
        let n = self.rows.len();
        // Counters take no more room than entries.
        let n_parts = (n / n_in.max(1)).clamp(2, MOST_PARTS);
        match n < FEW_ENTRIES || u32::try_from(n).is_err() {
            true => self.transposed_in_one_part(n_in),
            false => self.transposed_in_parts(n_in, n_parts),
        }
    }

    fn transposed_in_one_part(&self, n_in: usize) -> Self {
        let mut splits = vec![0; n_in + 1];
        for &row in &self.rows {
            splits[row as usize + 1] += 1;
        }
        for row in 0..n_in {
            splits[row + 1] += splits[row];
        }
        let mut next = splits.clone();
        let mut rows = vec![0; self.rows.len()];
        let mut weights = self.weights.as_ref().map(|w| vec![0.0; w.len()]);
        for (out, bounds) in self.splits.windows(2).enumerate() {
            for entry in bounds[0]..bounds[1] {
                let slot = &mut next[self.rows[entry] as usize];
                rows[*slot] = out as u32;
                if let (Some(to), Some(from)) = (&mut weights, self.weights.as_ref()) {
                    to[*slot] = from[entry];
                }
                *slot += 1;
            }
        }
        Self { splits, rows, weights }
    }

    /// Parts of the output rows count their entries by input row, a scan gives each part its places, each part writes. Places are
    /// disjoint: relaxed atomics are plain stores there, and the result does not depend on the number of parts.
    fn transposed_in_parts(&self, n_in: usize, n_parts: usize) -> Self {
        let n = self.rows.len();
        let bound = |part: usize| match part {
            0 => 0,
            _ if part == n_parts => self.n_out(),
            _ => self.splits.partition_point(|&s| s < n / n_parts * part).min(self.n_out()),
        };
        let outs: Vec<_> = (0..n_parts).map(|part| bound(part)..bound(part + 1)).collect();
        let counted = outs.par_iter().map(|outs| {
            let mut counts = zeros(n_in);
            for &row in &self.rows[self.splits[outs.start]..self.splits[outs.end]] {
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
        let weights = self.weights.as_ref().map(|from| (from, zeros(n)));
        outs.into_par_iter().zip(&mut counts).for_each(|(outs, places)| {
            for out in outs {
                for entry in self.splits[out]..self.splits[out + 1] {
                    let row = self.rows[entry] as usize;
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
        Self { splits, rows, weights: weights.map(|(_, to)| bits(to)) }
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

    fn into_entries(self, weighted: bool) -> RowEntries {
        RowEntries { splits: self.ends, rows: self.rows, weights: weighted.then_some(self.weights) }
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

//! Nearest neighbours and neighbours within a radius, exactly.

use std::collections::BinaryHeap;
use std::ops::{Add, Range};

use rayon::prelude::*;

use crate::coord::sort_rows;
use crate::{Coord, Error, Result, Support};

/// Rows below one box of the lowest level.
const LEAF: usize = 8;
/// Boxes below one box of a higher level.
const FAN: usize = 4;
/// Queries a task takes.
const CHUNK: usize = 256;

/// Neighbours of every query: those of query `q` stand at `splits[q]..splits[q + 1]`, ascending by (distance, source row).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Neighbours {
    /// Bounds per query, one more than there are queries.
    pub splits: Vec<usize>,
    /// Source row of each neighbour.
    pub source_rows: Vec<u32>,
    /// **Squared** Euclidean distances in voxels, found in integers and rounded to `f32` here.
    pub distances: Vec<f32>,
    /// Rank within the query, from 0.
    pub neighbour_ids: Vec<u32>,
}

/// The `k` nearest source rows of every query row in its batch item, fewer where the item has fewer. A query that is a source
/// itself finds itself first.
///
/// Distances are compared exactly, as integers; equal ones by source row. Strides play no part: both supports should stand on one
/// lattice. Cost: a sort of the source unless it is canonical, then about `k + log(n_source)` box visits a query.
///
/// # Errors
/// [`Error::Value`] for `k` 0.
pub fn knn(source: &Support, query: &Support, k: usize) -> Result<Neighbours> {
    if k == 0 {
        return Err(Error::Value { op: "knn", what: "expected k of 1 or more, found 0".into() });
    }
    Ok(search(source, query, Limits { bound: f32::INFINITY, most: Some(k) }))
}

/// The source rows with `d² <= radius²` of every query row in its batch item, all or the nearest `max` of them. `radius²` is taken
/// in `f64`; both sides are rounded to `f32` before they are compared.
///
/// Order, cost and strides as for [`knn`].
///
/// # Errors
/// [`Error::Value`] for a radius that is negative or not finite, or a `max` of 0.
pub fn radius(source: &Support, query: &Support, radius: f64, max: Option<usize>) -> Result<Neighbours> {
    const OP: &str = "radius";
    if !radius.is_finite() || radius < 0.0 {
        let what = format!("expected a finite radius of 0 or more, found {radius}");
        return Err(Error::Value { op: OP, what });
    }
    if max == Some(0) {
        let what = "expected at least 1 neighbour as the most, found 0; use None for no bound".into();
        return Err(Error::Value { op: OP, what });
    }
    Ok(search(source, query, Limits { bound: (radius * radius) as f32, most: max }))
}

/// What a query keeps.
#[derive(Clone, Copy)]
struct Limits {
    /// Largest squared distance, rounded.
    bound: f32,
    /// Largest number of neighbours.
    most: Option<usize>,
}

/// A squared distance, exact.
trait Squared: Copy + Ord + Add<Output = Self> + Send {
    /// The square of a difference of coordinates.
    fn of(difference: u64) -> Self;
    /// Rounded to the nearest `f32`.
    fn rounded(self) -> f32;
}

/// For differences below 2^31: three squares stay below 2^64.
impl Squared for u64 {
    #[inline]
    fn of(difference: u64) -> Self {
        difference * difference
    }

    #[inline]
    fn rounded(self) -> f32 {
        self as f32
    }
}

/// For any differences.
impl Squared for u128 {
    #[inline]
    fn of(difference: u64) -> Self {
        u128::from(difference) * u128::from(difference)
    }

    #[inline]
    fn rounded(self) -> f32 {
        self as f32
    }
}

fn search(source: &Support, query: &Support, limits: Limits) -> Neighbours {
    let tree = Tree::new(source);
    // Without rows there is no distance.
    let reach = source.bounds().zip(query.bounds()).map_or(0, |((low, high), (q_low, q_high))| {
        let axis = |a: usize| i64::from(high[a].max(q_high[a])) - i64::from(low[a].min(q_low[a]));
        (1..4).map(axis).max().unwrap_or(0)
    });
    match reach < 1 << 31 {
        true => tree.search::<u64>(query.coords(), limits),
        false => tree.search::<u128>(query.coords(), limits),
    }
}

/// A box that holds rows: smallest and largest x, y, z.
#[derive(Clone, Copy)]
struct Bounds {
    low: [i32; 3],
    high: [i32; 3],
}

impl Bounds {
    fn of_row(c: &Coord) -> Self {
        Self { low: [c[1], c[2], c[3]], high: [c[1], c[2], c[3]] }
    }

    fn join(self, other: Self) -> Self {
        Self {
            low: [0, 1, 2].map(|a| self.low[a].min(other.low[a])),
            high: [0, 1, 2].map(|a| self.high[a].max(other.high[a])),
        }
    }

    /// Squared distance of a coordinate to the nearest point of the box.
    #[inline]
    fn squared<D: Squared>(&self, c: &Coord) -> D {
        let axis = |a: usize| {
            let v = c[a + 1];
            D::of(u64::from(v.abs_diff(v.clamp(self.low[a], self.high[a]))))
        };
        axis(0) + axis(1) + axis(2)
    }
}

/// Squared distance of two coordinates.
#[inline]
fn squared<D: Squared>(a: &Coord, b: &Coord) -> D {
    let axis = |k: usize| D::of(u64::from(a[k].abs_diff(b[k])));
    axis(1) + axis(2) + axis(3)
}

/// Boxes over the rows of one batch item, which stand in canonical order: those near in number are near in space.
struct Item {
    batch: i32,
    rows: Range<usize>,
    /// From the leaves up to a single box.
    levels: Vec<Vec<Bounds>>,
}

impl Item {
    fn new(coords: &[Coord], rows: Range<usize>) -> Self {
        // No chunk is empty.
        let join = |boxes: &[Bounds]| boxes.iter().copied().reduce(Bounds::join);
        let leaf = |rows: &[Coord]| rows.iter().map(Bounds::of_row).reduce(Bounds::join);
        let mut levels = vec![
            coords[rows.clone()].par_chunks(LEAF).with_min_len(1024).filter_map(leaf).collect::<Vec<_>>(),
        ];
        while let Some(below) = levels.last().filter(|level| level.len() > 1) {
            levels.push(below.chunks(FAN).filter_map(join).collect());
        }
        Self { batch: coords[rows.start][0], rows, levels }
    }
}

/// Rows in canonical order with boxes over them, batch item by batch item.
struct Tree {
    order: Vec<u32>,
    coords: Vec<Coord>,
    /// In ascending batch id.
    items: Vec<Item>,
}

impl Tree {
    fn new(source: &Support) -> Self {
        let order = match source.is_canonical() {
            true => (0..source.n_rows() as u32).collect(),
            false => sort_rows(source.coords()).order,
        };
        let coords: Vec<Coord> = order.iter().map(|&row| source.coords()[row as usize]).collect();
        let mut items = Vec::new();
        let mut start = 0;
        for item in coords.chunk_by(|a, b| a[0] == b[0]) {
            items.push(Item::new(&coords, start..start + item.len()));
            start += item.len();
        }
        Self { order, coords, items }
    }

    fn search<D: Squared>(&self, queries: &[Coord], limits: Limits) -> Neighbours {
        let chunk = |queries: &[Coord]| {
            let mut found = Found { limits, heap: BinaryHeap::new(), all: Vec::new() };
            let mut part = Neighbours::default();
            for query in queries {
                if let Ok(item) = self.items.binary_search_by_key(&query[0], |item| item.batch) {
                    let item = &self.items[item];
                    self.visit::<D>(item, item.levels.len() - 1, 0, query, &mut found);
                }
                found.drain_into(&mut part);
            }
            part
        };
        let parts: Vec<Neighbours> = queries.par_chunks(CHUNK).map(chunk).collect();
        let n = parts.iter().map(|p| p.source_rows.len()).sum();
        let mut all = Neighbours {
            splits: Vec::with_capacity(queries.len() + 1),
            source_rows: Vec::with_capacity(n),
            distances: Vec::with_capacity(n),
            neighbour_ids: Vec::with_capacity(n),
        };
        all.splits.push(0);
        for part in parts {
            let base = all.source_rows.len();
            all.splits.extend(part.splits.iter().map(|end| base + end));
            all.source_rows.extend(part.source_rows);
            all.distances.extend(part.distances);
            all.neighbour_ids.extend(part.neighbour_ids);
        }
        all
    }

    /// Searches below box `at` of a level, nearer boxes first.
    fn visit<D: Squared>(&self, item: &Item, level: usize, at: usize, query: &Coord, found: &mut Found<D>) {
        if level == 0 {
            let first = item.rows.start + at * LEAF;
            for position in first..item.rows.end.min(first + LEAF) {
                found.offer(squared(&self.coords[position], query), self.order[position]);
            }
            return;
        }
        let below = &item.levels[level - 1];
        let first = at * FAN;
        let n = FAN.min(below.len() - first);
        let mut near: [(D, usize); FAN] =
            std::array::from_fn(|i| (below[first + i.min(n - 1)].squared(query), first + i));
        near[..n].sort_unstable();
        for &(squared, at) in &near[..n] {
            if !found.admits(squared) {
                break;
            }
            self.visit(item, level - 1, at, query, found);
        }
    }
}

/// What one query has found so far.
struct Found<D> {
    limits: Limits,
    /// The nearest, the farthest of them on top; used with a largest number.
    heap: BinaryHeap<(D, u32)>,
    /// All; used without.
    all: Vec<(D, u32)>,
}

impl<D: Squared> Found<D> {
    /// Whether rows at this distance or more can still be among the neighbours.
    #[inline]
    fn admits(&self, squared: D) -> bool {
        let full = |most: usize| self.heap.len() >= most;
        squared.rounded() <= self.limits.bound
            && !(self.limits.most.is_some_and(full)
                && self.heap.peek().is_some_and(|worst| squared > worst.0))
    }

    #[inline]
    fn offer(&mut self, squared: D, row: u32) {
        if !self.admits(squared) {
            return;
        }
        match self.limits.most {
            None => self.all.push((squared, row)),
            Some(most) if self.heap.len() < most => self.heap.push((squared, row)),
            Some(_) => {
                if let Some(mut worst) = self.heap.peek_mut()
                    && (squared, row) < *worst
                {
                    *worst = (squared, row);
                }
            }
        }
    }

    /// Writes the neighbours in order, with the end of their list, and starts anew.
    fn drain_into(&mut self, out: &mut Neighbours) {
        self.all.extend(self.heap.drain());
        self.all.sort_unstable();
        for (rank, (squared, row)) in self.all.drain(..).enumerate() {
            out.source_rows.push(row);
            out.distances.push(squared.rounded());
            out.neighbour_ids.push(rank as u32);
        }
        out.splits.push(out.source_rows.len());
    }
}

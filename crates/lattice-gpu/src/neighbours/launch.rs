//! Searches for neighbours.

use cubecl::prelude::*;
use lattice_core::Coord;

use super::kernel::{
    NearestShape, WithinShape, finish_nearest_kernel, finish_within_kernel, move_keys_kernel,
    search_nearest_kernel, search_within_kernel,
};
use super::tree::Tree;
use crate::address::UNITS;
use crate::gpu::{Buffer, Gpu};
use crate::sort::{Keys, exclusive_sum, sort_rows};

/// Neighbours of a query that are kept while it searches, at most.
pub const MOST_NEIGHBOURS: usize = 64;

/// The neighbours of every query: [`lattice_core::Neighbours`] on a device, value for value.
#[derive(Clone, Debug)]
pub struct Neighbours {
    /// Bounds per query `[n_queries + 1]`.
    pub splits: Buffer,
    /// Source row of each neighbour `[n_pairs]`.
    pub source_rows: Buffer,
    /// Query row of each neighbour `[n_pairs]`.
    pub query_rows: Buffer,
    /// Squared distances in voxels `[n_pairs]`, in f32.
    pub distances: Buffer,
    /// Rank within the query, from 0, `[n_pairs]`.
    pub neighbour_ids: Buffer,
    /// Number of neighbours over all queries.
    pub n_pairs: usize,
}

/// Rows of a support on the device.
#[derive(Clone, Copy, Debug)]
pub struct SearchRows<'a> {
    /// `[n, 4]`.
    pub coords: &'a Buffer,
    /// Their canonical order, where they do not stand in it. Not read of queries.
    pub order: Option<&'a Buffer>,
    /// Smallest and largest value of each column.
    pub bounds: (Coord, Coord),
}

/// Largest square of a distance between rows within bounds, where it has 32 bits.
fn largest_square(a: &(Coord, Coord), b: &(Coord, Coord)) -> Option<u32> {
    let axis = |k: usize| {
        let reach = i64::from(a.1[k].max(b.1[k])) - i64::from(a.0[k].min(b.0[k]));
        reach.checked_mul(reach)
    };
    let sum = axis(1)?.checked_add(axis(2)?)?.checked_add(axis(3)?)?;
    u32::try_from(sum).ok()
}

/// Largest whole number up to `most` whose rounding to `f32` is not above `bound`; none where even 0 is.
fn last_within(bound: f32, most: u32) -> Option<u32> {
    if bound < 0.0 {
        return None;
    }
    let (mut low, mut high) = (0u64, u64::from(most) + 1);
    while high - low > 1 {
        let middle = low + (high - low) / 2;
        if middle as f32 <= bound { low = middle } else { high = middle }
    }
    Some(low as u32)
}

/// The `k` nearest source rows of every query in its batch item, as [`lattice_core::knn`] finds them. `None` where the host must: no
/// rows, more than [`MOST_NEIGHBOURS`] of them asked for, rows so far apart that squares of distances pass 32 bits, or so many queries
/// that their neighbours pass them.
///
/// A tree over the source (a launch a level) and three launches; one wait, for the number of neighbours.
///
/// # Panics
/// For `k` 0.
pub fn knn(gpu: &Gpu, source: SearchRows, query: SearchRows, k: usize) -> Option<Neighbours> {
    assert!(k > 0, "knn: k of 0");
    nearest(gpu, source, query, k, largest_square(&source.bounds, &query.bounds)?)
}

/// The source rows with `d² <= radius²` of every query in its batch item, all or the nearest `max` of them, as
/// [`lattice_core::radius`] finds them. `None` as for [`knn`]; without `max` there may be any number, below 2^32 times the queries.
///
/// Without `max` two searches, one that counts, and a sort of the neighbours; one wait.
///
/// # Panics
/// For a radius that is negative or not finite, or a `max` of 0.
pub fn radius(
    gpu: &Gpu,
    source: SearchRows,
    query: SearchRows,
    radius: f64,
    max: Option<usize>,
) -> Option<Neighbours> {
    assert!(
        radius.is_finite() && radius >= 0.0,
        "radius: expected a finite radius of 0 or more, found {radius}"
    );
    assert!(max != Some(0), "radius: a largest number of 0");
    let most = largest_square(&source.bounds, &query.bounds)?;
    let bound = last_within((radius * radius) as f32, most)?;
    match max {
        Some(max) => nearest(gpu, source, query, max, bound),
        None => within(gpu, source, query, bound),
    }
}

fn nearest(gpu: &Gpu, source: SearchRows, query: SearchRows, most: usize, bound: u32) -> Option<Neighbours> {
    let (n, n_queries) = (source.coords.len / 4, query.coords.len / 4);
    let most = most.min(n);
    if most == 0 || most > MOST_NEIGHBOURS || n_queries == 0 || i32::try_from(n_queries * most).is_err() {
        return None;
    }
    let tree = Tree::build(gpu, source.coords, source.order);
    let (found_rows, found_squares) = (gpu.empty(n_queries * most, 4), gpu.empty(n_queries * most, 4));
    let splits = gpu.empty(n_queries + 1, 4);
    let capacity = most.next_power_of_two().max(8) as u32;
    let dim = CubeDim::new_1d(UNITS);
    // SAFETY: one unit a query and one more, checked against the count; the tree holds the rows of the source.
    unsafe {
        search_nearest_kernel::launch_unchecked(
            gpu.client(),
            Gpu::cubes(n_queries + 1, UNITS as usize),
            dim,
            query.coords.arg(4),
            tree.coords.arg(4),
            source.order.unwrap_or(source.coords).arg(1),
            tree.boxes.arg(4),
            found_rows.arg(1),
            found_squares.arg(1),
            splits.arg(1),
            n_queries as u32,
            n as u32,
            tree.first_leaf,
            bound,
            most as u32,
            NearestShape { capacity, ordered: source.order.is_some() },
        );
    }
    let all = exclusive_sum(gpu, &splits);
    let n_pairs = gpu.download::<u32>(&all)[0] as usize;
    let found = Neighbours::room(gpu, splits, n_pairs);
    // SAFETY: one unit a query and slot, checked against their number; the splits end at the number of neighbours.
    unsafe {
        finish_nearest_kernel::launch_unchecked(
            gpu.client(),
            Gpu::cubes(n_queries * most, UNITS as usize),
            dim,
            found_rows.arg(1),
            found_squares.arg(1),
            found.splits.arg(1),
            found.source_rows.arg(1),
            found.query_rows.arg(1),
            found.distances.arg(1),
            found.neighbour_ids.arg(1),
            n_queries as u32,
            most as u32,
        );
    }
    Some(found)
}

fn within(gpu: &Gpu, source: SearchRows, query: SearchRows, bound: u32) -> Option<Neighbours> {
    let (n, n_queries) = (source.coords.len / 4, query.coords.len / 4);
    if n == 0 || n_queries == 0 {
        return None;
    }
    let tree = Tree::build(gpu, source.coords, source.order);
    let (splits, longest) = (gpu.empty(n_queries + 1, 4), gpu.upload(&[0u32]));
    let square_bits = u32::BITS - bound.leading_zeros();
    let shape = WithinShape { writes: false, ordered: source.order.is_some(), square_bits };
    let search = |rows: &Buffer, low: &Buffer, high: &Buffer, shape: WithinShape| {
        // SAFETY: one unit a query and one more, checked against the count; the tree holds the rows of the source. What is written was
        // counted before.
        unsafe {
            search_within_kernel::launch_unchecked(
                gpu.client(),
                Gpu::cubes(n_queries + 1, UNITS as usize),
                CubeDim::new_1d(UNITS),
                query.coords.arg(4),
                tree.coords.arg(4),
                source.order.unwrap_or(source.coords).arg(1),
                tree.boxes.arg(4),
                splits.arg(1),
                longest.arg(1),
                rows.arg(1),
                low.arg(1),
                high.arg(1),
                n_queries as u32,
                n as u32,
                tree.first_leaf,
                bound,
                shape,
            );
        }
    };
    let [unwritten_rows, unwritten_low, unwritten_high] = [(); 3].map(|()| gpu.empty(1, 4));
    search(&unwritten_rows, &unwritten_low, &unwritten_high, shape);
    let all = exclusive_sum(gpu, &splits);
    let counted = gpu.download_all(&[&all, &longest]);
    // The sum may have wrapped.
    if u64::from(counted[1][0]) * n_queries as u64 > u64::from(u32::MAX) {
        return None;
    }
    let n_pairs = counted[0][0] as usize;
    let [rows, low, high] = [(); 3].map(|()| gpu.empty(n_pairs, 4));
    if n_pairs > 0 {
        search(&rows, &low, &high, WithinShape { writes: true, ..shape });
    }
    let bits = square_bits + (usize::BITS - (n_queries - 1).leading_zeros());
    Some(sorted_within(gpu, splits, rows, Keys { low, high, bits }, square_bits, source.order.map(|_| n)))
}

/// Neighbours by (query, square, row) from those by (query, position in the tree). `unordered` is the number of source rows where positions
/// are not rows.
fn sorted_within(
    gpu: &Gpu,
    splits: Buffer,
    rows: Buffer,
    keys: Keys,
    square_bits: u32,
    unordered: Option<usize>,
) -> Neighbours {
    let n = rows.len;
    let (cubes, dim) = (Gpu::cubes(n, UNITS as usize), CubeDim::new_1d(UNITS));
    let by_row = unordered.map(|n_rows| {
        let bits = usize::BITS - n_rows.leading_zeros();
        let (_, order) = sort_rows(gpu, &Keys { low: rows.clone(), high: keys.high.clone(), bits });
        order
    });
    let keys = match &by_row {
        None => keys,
        Some(order) => {
            let moved = Keys { low: gpu.empty(n, 4), high: gpu.empty(n, 4), bits: keys.bits };
            // SAFETY: one unit an entry, checked against the count; the order is a permutation.
            unsafe {
                move_keys_kernel::launch_unchecked(
                    gpu.client(),
                    cubes.clone(),
                    dim,
                    keys.low.arg(1),
                    keys.high.arg(1),
                    order.arg(1),
                    moved.low.arg(1),
                    moved.high.arg(1),
                    n as u32,
                );
            }
            moved
        }
    };
    let (sorted, order) = sort_rows(gpu, &keys);
    let found = Neighbours::room(gpu, splits, n);
    // SAFETY: one unit an entry, checked against the count; both orders are permutations, and keys name queries.
    unsafe {
        finish_within_kernel::launch_unchecked(
            gpu.client(),
            cubes,
            dim,
            rows.arg(1),
            order.arg(1),
            by_row.as_ref().unwrap_or(&order).arg(1),
            sorted.low.arg(1),
            sorted.high.arg(1),
            found.splits.arg(1),
            found.source_rows.arg(1),
            found.query_rows.arg(1),
            found.distances.arg(1),
            found.neighbour_ids.arg(1),
            n as u32,
            square_bits,
            by_row.is_some(),
        );
    }
    found
}

impl Neighbours {
    /// Room for neighbours.
    fn room(gpu: &Gpu, splits: Buffer, n_pairs: usize) -> Self {
        let [source_rows, query_rows, distances, neighbour_ids] = [(); 4].map(|()| gpu.empty(n_pairs, 4));
        Self { splits, source_rows, query_rows, distances, neighbour_ids, n_pairs }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn bounds_are_those_of_rounded_squares() {
        assert_eq!(last_within(4.0, 100), Some(4));
        assert_eq!(last_within(4.5, 100), Some(4));
        assert_eq!(last_within(f32::INFINITY, 100), Some(100));
        assert_eq!(last_within(0.0, u32::MAX), Some(0));
        // Halves go to the even number: 2^24 + 1 down to 2^24, 2^24 + 5 down to 2^24 + 4.
        assert_eq!(last_within(16_777_216.0, u32::MAX), Some(16_777_217));
        assert_eq!(last_within(16_777_220.0, u32::MAX), Some(16_777_221));
    }

    #[test]
    fn squares_are_bounded_by_both_supports() {
        let of = |low: i32, high: i32| ([0, low, low, low], [0, high, high, high]);
        assert_eq!(largest_square(&of(0, 10), &of(-5, 3)), Some(3 * 15 * 15));
        assert_eq!(largest_square(&of(0, 37_837), &of(0, 0)), Some(3 * 37_837 * 37_837));
        assert_eq!(largest_square(&of(0, 37_838), &of(0, 0)), None);
        assert_eq!(largest_square(&of(i32::MIN, i32::MAX), &of(0, 0)), None);
    }
}

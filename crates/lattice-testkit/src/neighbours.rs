//! Nearest neighbours and neighbours within a radius, by comparing every query with every source.

use crate::coords::Coord;

/// Neighbours of every query: those of query `q` stand at `splits[q]..splits[q + 1]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Neighbours {
    /// Bounds per query, one more than there are queries.
    pub splits: Vec<usize>,
    /// Source rows, ascending by (distance, row) within a query.
    pub source_rows: Vec<u32>,
    /// **Squared** Euclidean distances of the integer coordinates.
    pub distances: Vec<f32>,
    /// Rank within the query, from 0.
    pub neighbour_ids: Vec<u32>,
}

/// Squared distance of two coordinates, exactly.
pub fn squared_distance(a: &Coord, b: &Coord) -> i128 {
    (1..4).map(|axis| (i128::from(a[axis]) - i128::from(b[axis])).pow(2)).sum()
}

/// The `k` nearest sources of every query in its batch item, fewer where there are fewer.
pub fn knn(source: &[Coord], query: &[Coord], k: usize) -> Neighbours {
    collect(source, query, |_| true, k)
}

/// Sources with `d² <= radius²` of every query in its batch item, the nearest `max` of them. `radius²` is taken in `f64`
/// and rounded to `f32`, as is `d²`.
pub fn radius(source: &[Coord], query: &[Coord], radius: f64, max: Option<usize>) -> Neighbours {
    let bound = (radius * radius) as f32;
    collect(source, query, |squared| squared as f32 <= bound, max.unwrap_or(usize::MAX))
}

fn collect(source: &[Coord], query: &[Coord], keep: impl Fn(i128) -> bool, most: usize) -> Neighbours {
    let mut found = Neighbours {
        splits: vec![0],
        source_rows: Vec::new(),
        distances: Vec::new(),
        neighbour_ids: Vec::new(),
    };
    for q in query {
        let mut near: Vec<(i128, u32)> = Vec::new();
        for (row, s) in source.iter().enumerate() {
            let squared = squared_distance(s, q);
            if s[0] == q[0] && keep(squared) {
                near.push((squared, row as u32));
            }
        }
        near.sort_unstable();
        near.truncate(most);
        for (rank, (squared, row)) in near.iter().enumerate() {
            found.source_rows.push(*row);
            found.distances.push(*squared as f32);
            found.neighbour_ids.push(rank as u32);
        }
        found.splits.push(found.source_rows.len());
    }
    found
}

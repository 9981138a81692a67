//! Joins of two supports and the operations on them: element-wise, concatenation, reindexing, generative addition; row
//! selection, collation, merging of duplicates, dense grids.

use crate::coords::{Coord, canonical, lookup, union};

/// Which rows of two supports a join keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Join {
    /// Rows of both, in the left operand's order.
    Inner,
    /// All rows of the left operand, in its order.
    Left,
    /// All rows of the right operand, in its order.
    Right,
    /// Rows of either, in canonical order.
    Outer,
}

impl Join {
    /// Every kind of join.
    pub const ALL: [Join; 4] = [Join::Inner, Join::Left, Join::Right, Join::Outer];
}

/// The rows of a join and where each operand has them, `-1` for nowhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Alignment {
    /// Coordinates of the result.
    pub coords: Vec<Coord>,
    /// Row of the left operand for every result row.
    pub lhs_rows: Vec<i32>,
    /// Row of the right operand for every result row.
    pub rhs_rows: Vec<i32>,
}

fn aligned(coords: Vec<Coord>, lhs: &[Coord], rhs: &[Coord]) -> Alignment {
    Alignment { lhs_rows: lookup(lhs, &coords), rhs_rows: lookup(rhs, &coords), coords }
}

/// Aligns two supports.
pub fn align(lhs: &[Coord], rhs: &[Coord], join: Join) -> Alignment {
    let coords = match join {
        Join::Inner => lhs.iter().filter(|c| rhs.contains(c)).copied().collect(),
        Join::Left => lhs.to_vec(),
        Join::Right => rhs.to_vec(),
        Join::Outer => union(lhs, rhs),
    };
    aligned(coords, lhs, rhs)
}

/// The rows of generative addition: the operand with more rows (the left one on ties) in its order, then the other's
/// unmatched rows in theirs.
pub fn generative_union(lhs: &[Coord], rhs: &[Coord]) -> Alignment {
    let (base, other) = if rhs.len() > lhs.len() { (rhs, lhs) } else { (lhs, rhs) };
    let mut coords = base.to_vec();
    coords.extend(other.iter().filter(|c| !base.contains(c)));
    aligned(coords, lhs, rhs)
}

/// Feature rows by row id, `fill` in every channel where the id is negative.
pub fn gather(x: &[f64], c: usize, rows: &[i32], fill: f64) -> Vec<f64> {
    let mut y = Vec::new();
    for &row in rows {
        for channel in 0..c {
            y.push(if row < 0 { fill } else { x[row as usize * c + channel] });
        }
    }
    y
}

/// Gradient of [`gather`]: every row of `g` added to the row it came from.
pub fn gather_grad(g: &[f64], c: usize, rows: &[i32], n_in: usize) -> Vec<f64> {
    let mut dx = vec![0.0; n_in * c];
    for (at, &row) in rows.iter().enumerate().filter(|(_, row)| **row >= 0) {
        for channel in 0..c {
            dx[row as usize * c + channel] += g[at * c + channel];
        }
    }
    dx
}

/// An element-wise operation of two operands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Binary {
    /// `a + b`
    Add,
    /// `a - b`
    Sub,
    /// `a · b`
    Mul,
    /// The larger one; ties share the gradient.
    Maximum,
    /// The smaller one; ties share the gradient.
    Minimum,
}

impl Binary {
    /// Every operation.
    pub const ALL: [Binary; 5] = [Binary::Add, Binary::Sub, Binary::Mul, Binary::Maximum, Binary::Minimum];

    /// The operation on two values.
    pub fn value(self, a: f64, b: f64) -> f64 {
        match self {
            Self::Add => a + b,
            Self::Sub => a - b,
            Self::Mul => a * b,
            Self::Maximum if a >= b => a,
            Self::Minimum if a <= b => a,
            Self::Maximum | Self::Minimum => b,
        }
    }

    /// Derivatives by `a` and by `b`.
    pub fn derivatives(self, a: f64, b: f64) -> (f64, f64) {
        match self {
            Self::Add => (1.0, 1.0),
            Self::Sub => (1.0, -1.0),
            Self::Mul => (b, a),
            Self::Maximum | Self::Minimum if a == b => (0.5, 0.5),
            Self::Maximum if a > b => (1.0, 0.0),
            Self::Minimum if a < b => (1.0, 0.0),
            Self::Maximum | Self::Minimum => (0.0, 1.0),
        }
    }
}

/// `op` on the aligned rows; an operand without the row stands in with its fill, `fills = [lhs, rhs]`.
pub fn binary(op: Binary, lhs: &[f64], rhs: &[f64], c: usize, at: &Alignment, fills: [f64; 2]) -> Vec<f64> {
    let (a, b) = (gather(lhs, c, &at.lhs_rows, fills[0]), gather(rhs, c, &at.rhs_rows, fills[1]));
    a.iter().zip(&b).map(|(a, b)| op.value(*a, *b)).collect()
}

/// Gradients of [`binary`] with respect to both operands.
pub fn binary_grads(
    op: Binary,
    lhs: &[f64],
    rhs: &[f64],
    g: &[f64],
    c: usize,
    at: &Alignment,
    fills: [f64; 2],
) -> (Vec<f64>, Vec<f64>) {
    let (a, b) = (gather(lhs, c, &at.lhs_rows, fills[0]), gather(rhs, c, &at.rhs_rows, fills[1]));
    let by_a: Vec<f64> = (0..g.len()).map(|k| g[k] * op.derivatives(a[k], b[k]).0).collect();
    let by_b: Vec<f64> = (0..g.len()).map(|k| g[k] * op.derivatives(a[k], b[k]).1).collect();
    (gather_grad(&by_a, c, &at.lhs_rows, lhs.len() / c), gather_grad(&by_b, c, &at.rhs_rows, rhs.len() / c))
}

/// Channels of both operands side by side on the aligned rows, missing rows as 0; `channels = [lhs, rhs]`.
pub fn cat(lhs: &[f64], rhs: &[f64], channels: [usize; 2], at: &Alignment) -> Vec<f64> {
    let mut y = Vec::new();
    for row in 0..at.coords.len() {
        y.extend(gather(lhs, channels[0], &at.lhs_rows[row..=row], 0.0));
        y.extend(gather(rhs, channels[1], &at.rhs_rows[row..=row], 0.0));
    }
    y
}

/// Features of `coords` on exactly the rows of `target`, `fill` where missing.
pub fn reindex(coords: &[Coord], x: &[f64], c: usize, target: &[Coord], fill: f64) -> Vec<f64> {
    gather(x, c, &lookup(coords, target), fill)
}

/// Ascending ids of the rows that the mask keeps.
pub fn mask_rows(mask: &[bool]) -> Vec<u32> {
    (0..mask.len() as u32).filter(|&row| mask[row as usize]).collect()
}

/// Ascending ids of the rows with `min <= xyz <= max`, both ends included, on every axis.
pub fn crop_closed(coords: &[Coord], min: [i32; 3], max: [i32; 3]) -> Vec<u32> {
    rows_where(coords, |c| (0..3).all(|a| min[a] <= c[a + 1] && c[a + 1] <= max[a]))
}

/// Ascending ids of the rows with `min <= xyz < max` on every axis; an absent bound does not bind.
pub fn crop_half_open(coords: &[Coord], min: Option<[i32; 3]>, max: Option<[i32; 3]>) -> Vec<u32> {
    rows_where(coords, |c| {
        (0..3).all(|a| min.is_none_or(|min| min[a] <= c[a + 1]) && max.is_none_or(|max| c[a + 1] < max[a]))
    })
}

fn rows_where(coords: &[Coord], keep: impl Fn(&Coord) -> bool) -> Vec<u32> {
    (0..coords.len() as u32).filter(|&row| keep(&coords[row as usize])).collect()
}

/// Rows with the largest scores of every batch item: `k = min(trunc(counts[b]·rho), rows of b)`, ascending by score
/// within the item, items in order. Sorting is stable, so later rows win among equals.
pub fn topk_rows(scores: &[f64], batch_counts: &[usize], counts: &[usize], rho: f64) -> Vec<u32> {
    assert!(rho > 0.0 && counts.len() == batch_counts.len(), "topk_rows: rho > 0, one count per item");
    let (mut rows, mut first) = (Vec::new(), 0);
    for (&n_rows, &count) in batch_counts.iter().zip(counts) {
        let mut item: Vec<u32> = (first..first + n_rows).map(|row| row as u32).collect();
        item.sort_by(|&a, &b| scores[a as usize].total_cmp(&scores[b as usize]));
        let k = ((count as f64 * rho) as usize).min(n_rows);
        rows.extend_from_slice(&item[n_rows - k..]);
        first += n_rows;
    }
    rows
}

/// Puts several `[x, y, z]` clouds into one batch: item number in front, clouds one after another; and the row counts.
pub fn collate(clouds: &[Vec<[i32; 3]>]) -> (Vec<Coord>, Vec<usize>) {
    let mut coords = Vec::new();
    for (item, cloud) in clouds.iter().enumerate() {
        coords.extend(cloud.iter().map(|p| [item as i32, p[0], p[1], p[2]]));
    }
    (coords, clouds.iter().map(Vec::len).collect())
}

/// Distinct coordinates in canonical order and the mean of the features that share each.
pub fn mean_duplicates(coords: &[Coord], x: &[f64], c: usize) -> (Vec<Coord>, Vec<f64>) {
    merge(coords, x, c, true)
}

/// Distinct coordinates in canonical order and the sum (or mean) of the features that share each.
pub(crate) fn merge(coords: &[Coord], x: &[f64], c: usize, mean: bool) -> (Vec<Coord>, Vec<f64>) {
    let kept = canonical(coords);
    let mut y = vec![0.0; kept.len() * c];
    for (at, wanted) in kept.iter().enumerate() {
        let members: Vec<usize> = (0..coords.len()).filter(|&row| coords[row] == *wanted).collect();
        for channel in 0..c {
            let sum: f64 = members.iter().map(|row| x[row * c + channel]).sum();
            y[at * c + channel] = if mean { sum / members.len() as f64 } else { sum };
        }
    }
    (kept, y)
}

/// `[b, x, y, z, c]` grid with every row's features at its cell, 0 elsewhere; `None` when a row lies outside `shape`.
pub fn to_dense(coords: &[Coord], x: &[f64], c: usize, shape: [usize; 4]) -> Option<Vec<f64>> {
    let mut grid = vec![0.0; shape.iter().product::<usize>() * c];
    for (row, coord) in coords.iter().enumerate() {
        let cell = dense_cell(coord, shape)?;
        grid[cell * c..(cell + 1) * c].copy_from_slice(&x[row * c..(row + 1) * c]);
    }
    Some(grid)
}

/// Linear cell `((b·X + x)·Y + y)·Z + z` of a coordinate, `None` outside the shape.
pub fn dense_cell(coord: &Coord, shape: [usize; 4]) -> Option<usize> {
    let mut cell = 0;
    for axis in 0..4 {
        let at = usize::try_from(coord[axis]).ok().filter(|&at| at < shape[axis])?;
        cell = cell * shape[axis] + at;
    }
    Some(cell)
}

//! Set operations on supports: coarser lattices, union, intersection, joins, selection.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::ops::Range;
use std::str::FromStr;

use rayon::prelude::*;

use crate::coord::sort_rows;
use crate::support::check_row_count;
use crate::{Coord, Error, Result, Support, canonical_cmp};

/// Rows a task of a parallel loop takes.
const CHUNK: usize = 16_384;

/// Which rows a join of two supports keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Join {
    /// Rows of both, in the order of the left operand.
    Inner,
    /// All rows of the left operand, under its identity.
    Left,
    /// All rows of the right operand, under its identity.
    Right,
    /// Rows of either, in canonical order.
    Outer,
}

impl Join {
    /// Every kind of join.
    pub const ALL: [Join; 4] = [Join::Inner, Join::Left, Join::Right, Join::Outer];

    /// The lower-case name: `inner`, `left`, `right`, `outer`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Inner => "inner",
            Self::Left => "left",
            Self::Right => "right",
            Self::Outer => "outer",
        }
    }
}

impl FromStr for Join {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        Self::ALL.into_iter().find(|join| join.name() == name).ok_or_else(|| Error::Value {
            op: "join",
            what: format!("expected one of inner, left, right, outer, found {name:?}"),
        })
    }
}

impl std::fmt::Display for Join {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// The rows of a join and where each operand holds them.
#[derive(Clone, Debug)]
pub struct Alignment {
    /// Rows of the result.
    pub support: Support,
    /// Row of the left operand for every result row, -1 where it has none.
    pub lhs_rows: Vec<i32>,
    /// Row of the right operand for every result row, -1 where it has none.
    pub rhs_rows: Vec<i32>,
}

/// The distinct rows of the lattice that is coarser by `stride`: `(b, floor(x / sx), floor(y / sy), floor(z / sz))`, in canonical
/// order. Stride `[1, 1, 1]` returns the same support.
///
/// Cost: linear where the support is canonical and the strides are one power of two, since shifted rows stay in order; else a
/// sort.
///
/// # Errors
/// [`Error::Value`] for a stride with a zero component.
pub fn downsample(support: &Support, stride: [u32; 3]) -> Result<Support> {
    if stride.contains(&0) {
        let what = format!("expected a stride of 1 or more on every axis, found {stride:?}");
        return Err(Error::Value { op: "downsample", what });
    }
    if stride == [1; 3] {
        return Ok(support.clone());
    }
    let power_of_two = stride[0].is_power_of_two() && stride == [stride[0]; 3];
    if support.is_canonical() && power_of_two {
        let shift = stride[0].trailing_zeros();
        let coarser = |row: usize| shifted(&support.coords()[row], shift);
        return Ok(Support::trusted(Runs::of_sorted(support.n_rows(), coarser).heads, true));
    }
    let div = |v: i32, s: u32| i64::from(v).div_euclid(i64::from(s)) as i32;
    let coarser = |c: &Coord| [c[0], div(c[1], stride[0]), div(c[2], stride[1]), div(c[3], stride[2])];
    Support::canonical(support.coords().par_iter().with_min_len(CHUNK).map(coarser).collect())
}

/// The row divided by `2^shift`, rounding down.
#[inline]
pub(crate) fn shifted(c: &Coord, shift: u32) -> Coord {
    [c[0], c[1] >> shift, c[2] >> shift, c[3] >> shift]
}

/// The runs of equal rows in a sorted sequence.
pub(crate) struct Runs {
    /// The row of each run.
    pub heads: Vec<Coord>,
    /// Position of the first row of each run, and the length of the sequence at the end.
    pub starts: Vec<u32>,
}

impl Runs {
    /// Finds the runs among `at(0)..at(n)`, where equal rows stand together. Linear, in chunks of a fixed size.
    pub fn of_sorted(n: usize, at: impl Fn(usize) -> Coord + Sync) -> Self {
        let runs_of = |chunk: usize| {
            let (mut heads, mut starts) = (Vec::new(), Vec::new());
            let mut last = if chunk == 0 { [-1; 4] } else { at(chunk * CHUNK - 1) };
            for i in chunk * CHUNK..n.min((chunk + 1) * CHUNK) {
                let c = at(i);
                // The first row of all starts a run whatever stands in `last`.
                if c != last || i == 0 {
                    heads.push(c);
                    starts.push(i as u32);
                    last = c;
                }
            }
            (heads, starts)
        };
        let chunks: Vec<_> = (0..n.div_ceil(CHUNK)).into_par_iter().map(runs_of).collect();
        let n_runs = chunks.iter().map(|(heads, _)| heads.len()).sum();
        let (mut heads, mut starts) = (Vec::with_capacity(n_runs), Vec::with_capacity(n_runs + 1));
        for chunk in chunks {
            heads.extend(chunk.0);
            starts.extend(chunk.1);
        }
        starts.push(n as u32);
        Self { heads, starts }
    }

    /// Positions that run `run` covers.
    #[inline]
    pub fn range(&self, run: usize) -> Range<usize> {
        self.starts[run] as usize..self.starts[run + 1] as usize
    }
}

/// Rows of either support, in canonical order.
///
/// Cost: a merge where both are canonical, else a sort.
///
/// # Errors
/// [`Error::Limit`] for 2^31 rows or more.
pub fn union(lhs: &Support, rhs: &Support) -> Result<Support> {
    Ok(outer(lhs, rhs)?.support)
}

/// Rows that both supports have, in the order of `lhs`.
pub fn intersection(lhs: &Support, rhs: &Support) -> Support {
    inner(lhs, rhs).support
}

/// Row of `source` that holds each row of `target`, -1 where there is none.
pub fn inverse_map(source: &Support, target: &Support) -> Vec<i32> {
    match source.same_identity(target) {
        true => identity_rows(source.n_rows()),
        false => source.lookup_all(target.coords()),
    }
}

/// Aligns two supports by coordinate.
///
/// Left and right joins keep that operand's support and identity; inner joins come in the order of `lhs`, outer joins in
/// canonical order, both under a new identity.
///
/// # Errors
/// [`Error::Limit`] for 2^31 rows or more.
pub fn align(lhs: &Support, rhs: &Support, join: Join) -> Result<Alignment> {
    Ok(match join {
        Join::Inner => inner(lhs, rhs),
        Join::Outer => outer(lhs, rhs)?,
        Join::Left => Alignment {
            support: lhs.clone(),
            lhs_rows: identity_rows(lhs.n_rows()),
            rhs_rows: inverse_map(rhs, lhs),
        },
        Join::Right => Alignment {
            support: rhs.clone(),
            lhs_rows: inverse_map(lhs, rhs),
            rhs_rows: identity_rows(rhs.n_rows()),
        },
    })
}

fn inner(lhs: &Support, rhs: &Support) -> Alignment {
    let rows = inverse_map(rhs, lhs);
    let lhs_rows: Vec<i32> = (0..lhs.n_rows() as i32).filter(|&row| rows[row as usize] >= 0).collect();
    let rhs_rows = lhs_rows.iter().map(|&row| rows[row as usize]).collect();
    let coords = lhs_rows.iter().map(|&row| lhs.coords()[row as usize]).collect();
    Alignment { support: Support::trusted(coords, lhs.is_canonical()), lhs_rows, rhs_rows }
}

/// The rows of a support in canonical order.
struct Sorted<'a> {
    coords: Cow<'a, [Coord]>,
    /// Row that stands at each position; `None` where that is the position itself.
    order: Option<Vec<u32>>,
}

impl<'a> Sorted<'a> {
    fn new(support: &'a Support) -> Self {
        if support.is_canonical() {
            return Self { coords: Cow::Borrowed(support.coords()), order: None };
        }
        let order = sort_rows(support.coords()).order;
        let coords =
            order.par_iter().with_min_len(CHUNK).map(|&row| support.coords()[row as usize]).collect();
        Self { coords: Cow::Owned(coords), order: Some(order) }
    }

    fn row(&self, position: usize) -> i32 {
        self.order.as_ref().map_or(position as i32, |order| order[position] as i32)
    }
}

/// A piece of an outer join: its rows and where each operand holds them.
#[derive(Default)]
struct Merged {
    coords: Vec<Coord>,
    lhs_rows: Vec<i32>,
    rhs_rows: Vec<i32>,
}

impl Merged {
    /// Merges two ranges of positions.
    fn new(lhs: &Sorted<'_>, rhs: &Sorted<'_>, left: Range<usize>, right: Range<usize>) -> Self {
        let n = left.len() + right.len();
        let mut merged = Self {
            coords: Vec::with_capacity(n),
            lhs_rows: Vec::with_capacity(n),
            rhs_rows: Vec::with_capacity(n),
        };
        let (mut i, mut j) = (left.start, right.start);
        while i < left.end || j < right.end {
            let order = match (i < left.end, j < right.end) {
                (true, true) => canonical_cmp(&lhs.coords[i], &rhs.coords[j]),
                (true, false) => Ordering::Less,
                (false, _) => Ordering::Greater,
            };
            merged.coords.push(if order.is_le() { lhs.coords[i] } else { rhs.coords[j] });
            merged.lhs_rows.push(if order.is_le() { lhs.row(i) } else { -1 });
            merged.rhs_rows.push(if order.is_ge() { rhs.row(j) } else { -1 });
            i += usize::from(order.is_le());
            j += usize::from(order.is_ge());
        }
        merged
    }
}

fn outer(lhs: &Support, rhs: &Support) -> Result<Alignment> {
    let (left, right) = (Sorted::new(lhs), Sorted::new(rhs));
    // Pieces of the left operand and what of the right one falls between their first rows.
    let n_pieces = lhs.n_rows().div_ceil(CHUNK).max(1);
    let start = |piece: usize| match piece {
        0 => (0, 0),
        _ if piece == n_pieces => (lhs.n_rows(), rhs.n_rows()),
        _ => {
            let first = &left.coords[piece * CHUNK];
            (piece * CHUNK, right.coords.partition_point(|c| canonical_cmp(c, first).is_lt()))
        }
    };
    let piece = |piece: usize| {
        let ((i, j), (i_end, j_end)) = (start(piece), start(piece + 1));
        Merged::new(&left, &right, i..i_end, j..j_end)
    };
    let pieces: Vec<Merged> = (0..n_pieces).into_par_iter().map(piece).collect();
    let n_rows = pieces.iter().map(|p| p.coords.len()).sum();
    check_row_count("outer join", n_rows)?;
    let mut all = Merged {
        coords: Vec::with_capacity(n_rows),
        lhs_rows: Vec::with_capacity(n_rows),
        rhs_rows: Vec::with_capacity(n_rows),
    };
    for piece in pieces {
        all.coords.extend(piece.coords);
        all.lhs_rows.extend(piece.lhs_rows);
        all.rhs_rows.extend(piece.rhs_rows);
    }
    Ok(Alignment {
        support: Support::trusted(all.coords, true),
        lhs_rows: all.lhs_rows,
        rhs_rows: all.rhs_rows,
    })
}

/// The rows of generative addition: those of the operand with more rows (`lhs` on ties) in its order, then the other's unmatched
/// rows in theirs, under a new identity.
///
/// # Errors
/// [`Error::Limit`] for 2^31 rows or more.
pub fn generative_union(lhs: &Support, rhs: &Support) -> Result<Alignment> {
    let swapped = rhs.n_rows() > lhs.n_rows();
    let (base, other) = if swapped { (rhs, lhs) } else { (lhs, rhs) };
    let rows_in_base = inverse_map(base, other);
    check_row_count("generative union", base.n_rows() + rows_in_base.iter().filter(|row| **row < 0).count())?;
    let mut coords = base.coords().to_vec();
    let mut base_rows = identity_rows(base.n_rows());
    let mut other_rows = vec![-1; base.n_rows()];
    for (row, &at) in rows_in_base.iter().enumerate() {
        match usize::try_from(at) {
            Ok(at) => other_rows[at] = row as i32,
            Err(_) => {
                coords.push(other.coords()[row]);
                base_rows.push(-1);
                other_rows.push(row as i32);
            }
        }
    }
    let support = Support::trusted(coords, false);
    let (lhs_rows, rhs_rows) = if swapped { (other_rows, base_rows) } else { (base_rows, other_rows) };
    Ok(Alignment { support, lhs_rows, rhs_rows })
}

/// The named rows, in the caller's order.
///
/// # Errors
/// [`Error::OutOfRange`] for a row at or past the number of rows, [`Error::DuplicateCoord`] for a row named twice; both name the
/// position in `rows`.
pub fn select(support: &Support, rows: &[u32]) -> Result<Support> {
    const OP: &str = "select";
    let ascending = rows.is_sorted_by(|a, b| a < b);
    let mut taken = vec![false; if ascending { 0 } else { support.n_rows() }];
    let mut coords = Vec::with_capacity(rows.len().min(support.n_rows()));
    for (at, &row) in rows.iter().enumerate() {
        let Some(&coord) = support.coords().get(row as usize) else {
            let what = format!("expected rows below {}, found {row}", support.n_rows());
            return Err(Error::OutOfRange { op: OP, row: at, what });
        };
        if !ascending && std::mem::replace(&mut taken[row as usize], true) {
            return Err(Error::DuplicateCoord { op: OP, row: at, coord });
        }
        coords.push(coord);
    }
    Ok(Support::trusted(coords, ascending && support.is_canonical()))
}

fn identity_rows(n: usize) -> Vec<i32> {
    (0..n as i32).collect()
}

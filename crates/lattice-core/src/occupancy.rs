//! One octree step: eight children a parent, as bits of a mask.

use rayon::prelude::*;

use crate::coord::sort_rows;
use crate::sets::{Runs, shifted};
use crate::{Coord, Error, Result, Support, canonical_order};

/// Rows a task of a parallel loop takes.
const CHUNK: usize = 16_384;

/// The parents of a support and which of their eight children it holds.
#[derive(Clone, Debug)]
pub struct Occupancy {
    /// Distinct rows divided by 2, in canonical order.
    pub parents: Support,
    /// Bits `1 << child` for every parent, `1..=255`.
    pub masks: Vec<i32>,
}

/// The children that masks name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OccupancyExpansion {
    /// The children: distinct, in canonical order.
    pub coords: Vec<Coord>,
    /// Row of each child's parent.
    pub parent_rows: Vec<u32>,
    /// Child number of each row, `0..8`.
    pub child_indices: Vec<i32>,
}

/// Number of a site among its parent's children: `(x & 1) + 2 (y & 1) + 4 (z & 1)`.
#[inline]
fn child_index(c: &Coord) -> i32 {
    (c[1] & 1) + 2 * (c[2] & 1) + 4 * (c[3] & 1)
}

/// The distinct `floor(c / 2)` in canonical order and the mask of each: bit `(x & 1) + 2 (y & 1) + 4 (z & 1)` per child.
///
/// Cost: linear; no sort where the support is canonical.
pub fn occupancy_downsample(support: &Support) -> Occupancy {
    let coords = support.coords();
    let order = if support.is_canonical() { None } else { Some(sort_rows(coords).order) };
    let at = |i: usize| order.as_ref().map_or(&coords[i], |order| &coords[order[i] as usize]);
    let runs = Runs::of_sorted(coords.len(), |i| shifted(at(i), 1));
    let mask = |run: usize| runs.range(run).fold(0, |mask, i| mask | 1 << child_index(at(i)));
    let masks = (0..runs.heads.len()).into_par_iter().with_min_len(CHUNK).map(mask).collect();
    Occupancy { parents: Support::trusted(runs.heads, true), masks }
}

/// The children that the bits `0..8` of each parent's mask name, in canonical order; higher bits are ignored.
///
/// # Errors
/// [`Error::Shape`] unless there is one mask a parent; [`Error::OutOfRange`] for a child outside `i32`;
/// [`Error::DuplicateCoord`] when two parents are equal and name one child.
pub fn occupancy_expand(parents: &[Coord], masks: &[i32]) -> Result<OccupancyExpansion> {
    const OP: &str = "occupancy_expand";
    check_lengths(OP, "masks, one a parent", parents.len(), masks.len())?;
    let n: usize = masks.iter().map(|m| (m & 0xff).count_ones() as usize).sum();
    let mut coords = Vec::with_capacity(n);
    let mut named = Vec::with_capacity(n);
    for (row, (parent, &mask)) in parents.iter().zip(masks).enumerate() {
        let mut left = mask & 0xff;
        while left != 0 {
            let child = left.trailing_zeros() as i32;
            left &= left - 1;
            coords.push(child_of(OP, row, parent, child)?);
            named.push((row as u32, child));
        }
    }
    let order = canonical_order(&coords);
    let sorted: Vec<Coord> = order.iter().map(|&at| coords[at as usize]).collect();
    if let Some(at) = sorted.windows(2).position(|w| w[0] == w[1]) {
        let row = named[order[at + 1] as usize].0 as usize;
        return Err(Error::DuplicateCoord { op: OP, row, coord: sorted[at] });
    }
    Ok(OccupancyExpansion {
        coords: sorted,
        parent_rows: order.iter().map(|&at| named[at as usize].0).collect(),
        child_indices: order.iter().map(|&at| named[at as usize].1).collect(),
    })
}

/// The child of each parent row, row by row: `(b, 2x + (j & 1), 2y + (j >> 1 & 1), 2z + (j >> 2 & 1))`.
///
/// # Errors
/// [`Error::Shape`] unless there is one child number a parent; [`Error::OutOfRange`] for a child number outside `0..8` or a
/// child outside `i32`.
pub fn child_coords(parents: &[Coord], children: &[i32]) -> Result<Vec<Coord>> {
    const OP: &str = "child_coords";
    check_lengths(OP, "child numbers, one a parent", parents.len(), children.len())?;
    let child = |(row, (parent, &child)): (usize, (&Coord, &i32))| match child {
        0..8 => child_of(OP, row, parent, child),
        _ => Err(Error::OutOfRange {
            op: OP,
            row,
            what: format!("expected a child number in 0..8, found {child}"),
        }),
    };
    parents.iter().zip(children).enumerate().map(child).collect()
}

fn child_of(op: &'static str, row: usize, parent: &Coord, child: i32) -> Result<Coord> {
    let mut fine = *parent;
    for axis in 0..3 {
        let value = 2 * i64::from(parent[axis + 1]) + i64::from(child >> axis & 1);
        fine[axis + 1] = i32::try_from(value).map_err(|_| Error::OutOfRange {
            op,
            row,
            what: format!(
                "expected a parent whose children lie inside i32, found {parent:?} (batch, x, y, z); shift the scene towards \
                 the origin"
            ),
        })?;
    }
    Ok(fine)
}

fn check_lengths(op: &'static str, what: &str, expected: usize, found: usize) -> Result<()> {
    match expected == found {
        true => Ok(()),
        false => Err(Error::Shape { op, expected: format!("{expected} {what}"), found: format!("{found}") }),
    }
}

//! Coordinate sets: lookup, canonical order, set operations, Morton codes, occupancy.
//!
//! A coordinate is `[batch, x, y, z]`. Sets that an operation creates come out in canonical order; every function
//! scans plainly, so costs are quadratic.

use std::cmp::Ordering;

/// `[batch, x, y, z]` of one voxel.
pub type Coord = [i32; 4];

/// Row of the first coordinate equal to `wanted`.
pub fn row_of(coords: &[Coord], wanted: &Coord) -> Option<usize> {
    (0..coords.len()).find(|&row| coords[row] == *wanted)
}

/// For each query the first row of `coords` that equals it, `-1` where there is none.
pub fn lookup(coords: &[Coord], queries: &[Coord]) -> Vec<i32> {
    queries.iter().map(|q| row_of(coords, q).map_or(-1, |row| row as i32)).collect()
}

/// The canonical order: batch, then 96 bits from the top one, each bit position as z, y, x, of values biased by `2^31`.
pub fn canonical_cmp(a: &Coord, b: &Coord) -> Ordering {
    if a[0] != b[0] {
        return if a[0] < b[0] { Ordering::Less } else { Ordering::Greater };
    }
    for position in (0..32).rev() {
        for axis in [3, 2, 1] {
            let bit_a = (((a[axis] as u32) ^ 0x8000_0000) >> position) & 1;
            let bit_b = (((b[axis] as u32) ^ 0x8000_0000) >> position) & 1;
            if bit_a != bit_b {
                return if bit_a < bit_b { Ordering::Less } else { Ordering::Greater };
            }
        }
    }
    Ordering::Equal
}

/// Row ids in canonical order of their coordinates; equal coordinates keep their order.
pub fn canonical_order(coords: &[Coord]) -> Vec<u32> {
    let mut order: Vec<u32> = (0..coords.len() as u32).collect();
    order.sort_by(|&a, &b| canonical_cmp(&coords[a as usize], &coords[b as usize]));
    order
}

/// Distinct coordinates in canonical order.
pub fn canonical(coords: &[Coord]) -> Vec<Coord> {
    let mut sorted = coords.to_vec();
    sorted.sort_by(canonical_cmp);
    sorted.dedup();
    sorted
}

/// Distinct coordinates in the order of their first occurrence.
pub fn distinct(coords: &[Coord]) -> Vec<Coord> {
    let mut kept: Vec<Coord> = Vec::new();
    for coord in coords {
        if !kept.contains(coord) {
            kept.push(*coord);
        }
    }
    kept
}

/// `a / s` rounded towards minus infinity, counted down or up step by step from the truncated quotient.
pub fn floor_div(a: i64, s: i64) -> i64 {
    assert!(s > 0, "floor_div: divisor {s} is not positive");
    let mut quotient = a / s;
    while quotient * s > a {
        quotient -= 1;
    }
    quotient
}

/// The coarser lattice: every axis divided by its stride, rounded down; distinct, in canonical order.
///
/// Stride `[1, 1, 1]` changes nothing: the rows come back in their own order.
pub fn downsample(coords: &[Coord], stride: [u32; 3]) -> Vec<Coord> {
    if stride == [1, 1, 1] {
        return distinct(coords);
    }
    canonical(&coords.iter().map(|c| coarser(c, stride)).collect::<Vec<_>>())
}

/// One coordinate on the lattice that is coarser by `stride`.
pub fn coarser(c: &Coord, stride: [u32; 3]) -> Coord {
    let on = |axis: usize| floor_div(i64::from(c[axis]), i64::from(stride[axis - 1])) as i32;
    [c[0], on(1), on(2), on(3)]
}

/// Coordinates of either set, in canonical order.
pub fn union(lhs: &[Coord], rhs: &[Coord]) -> Vec<Coord> {
    canonical(&[lhs, rhs].concat())
}

/// Coordinates of `lhs` that `rhs` has as well, in `lhs` order.
pub fn intersection(lhs: &[Coord], rhs: &[Coord]) -> Vec<Coord> {
    distinct(lhs).into_iter().filter(|c| rhs.contains(c)).collect()
}

/// The Morton code: bit `3i` is bit `i` of x, `3i+1` of y, `3i+2` of z for `i` in `0..21`, plus `batch · 2^60`, wrapping.
pub fn morton_code(c: &Coord) -> i64 {
    let mut code = 0u64;
    for i in 0..21 {
        for (lane, axis) in [(0, 1), (1, 2), (2, 3)] {
            let bit = ((c[axis] as u32) >> i) & 1;
            code |= u64::from(bit) << (3 * i + lane);
        }
    }
    // the batch id as a signed 64-bit word, moved up by 60 binary places, what overflows is lost
    let mut high = i64::from(c[0]) as u64;
    for _ in 0..60 {
        high = high.wrapping_add(high);
    }
    code.wrapping_add(high) as i64
}

/// [`morton_code`] of every row.
pub fn morton_codes(coords: &[Coord]) -> Vec<i64> {
    coords.iter().map(morton_code).collect()
}

/// Row ids in ascending order of their signed Morton codes, equal codes in row order.
pub fn morton_order(coords: &[Coord]) -> Vec<u32> {
    let codes = morton_codes(coords);
    let mut order: Vec<u32> = (0..coords.len() as u32).collect();
    order.sort_by_key(|&row| codes[row as usize]);
    order
}

/// Positions of every row in `order`: `inverse[order[j]] = j`.
pub fn inverse_order(order: &[u32]) -> Vec<u32> {
    let mut inverse = vec![0; order.len()];
    for (position, &row) in order.iter().enumerate() {
        inverse[row as usize] = position as u32;
    }
    inverse
}

/// Octant of a site in its parent: `(x & 1) + 2·(y & 1) + 4·(z & 1)`.
pub fn child_index(c: &Coord) -> i32 {
    (c[1] & 1) + 2 * (c[2] & 1) + 4 * (c[3] & 1)
}

/// Coordinate of child `0..8` of a parent, `None` when it leaves the range of `i32`.
pub fn child_coord(parent: &Coord, child: i32) -> Option<Coord> {
    let bit = |n: i32| i64::from((child >> n) & 1);
    let fine = |axis: usize, n: i32| i32::try_from(2 * i64::from(parent[axis]) + bit(n)).ok();
    Some([parent[0], fine(1, 0)?, fine(2, 1)?, fine(3, 2)?])
}

/// Parents (canonical order) and for each the set of its octants that are active, as bits `1 << child`.
pub fn occupancy_downsample(coords: &[Coord]) -> (Vec<Coord>, Vec<i32>) {
    let parents = canonical(&coords.iter().map(|c| coarser(c, [2; 3])).collect::<Vec<_>>());
    let mut masks = vec![0; parents.len()];
    for (parent, mask) in parents.iter().zip(&mut masks) {
        for c in coords {
            if coarser(c, [2; 3]) == *parent {
                *mask |= 1 << child_index(c);
            }
        }
    }
    (parents, masks)
}

/// The children that [`occupancy_expand`] found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expansion {
    /// Coordinates of the children.
    pub coords: Vec<Coord>,
    /// Row of each child's parent.
    pub parent_rows: Vec<u32>,
    /// Octant of each child, `0..8`.
    pub child_indices: Vec<i32>,
}

/// Every child named by a bit `0..8` of its parent's mask, in canonical order; higher bits are ignored.
pub fn occupancy_expand(parents: &[Coord], masks: &[i32]) -> Expansion {
    assert_eq!(parents.len(), masks.len(), "occupancy_expand: one mask per parent");
    let mut found = Vec::new();
    for (row, (parent, mask)) in parents.iter().zip(masks).enumerate() {
        for child in 0..8 {
            if (mask >> child) & 1 == 1
                && let Some(coord) = child_coord(parent, child)
            {
                found.push((coord, row as u32, child));
            }
        }
    }
    found.sort_by(|a, b| canonical_cmp(&a.0, &b.0));
    Expansion {
        coords: found.iter().map(|f| f.0).collect(),
        parent_rows: found.iter().map(|f| f.1).collect(),
        child_indices: found.iter().map(|f| f.2).collect(),
    }
}

/// Rows of each batch id, ascending; one list per id up to the largest one.
pub fn batch_rows(coords: &[Coord]) -> Vec<Vec<u32>> {
    let n = coords.iter().map(|c| c[0] + 1).max().unwrap_or(0);
    (0..n).map(|b| (0..coords.len() as u32).filter(|&row| coords[row as usize][0] == b).collect()).collect()
}

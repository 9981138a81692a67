//! Operations on coordinates alone: sets, lookup, Morton order, octree occupancy.
//!
//! Thin forms over `lattice-core` for tensors and supports; nothing here is differentiable.

use burn::tensor::{Device, Int, Tensor, TensorData};
use lattice_core as core;

use super::integers::{coord_rows, coord_tensor, int_tensor};
use crate::{Error, Result, Support};

/// The distinct `floor(row / stride)`, in canonical order; stride 1 gives the same identity.
///
/// # Errors
/// A stride with a zero component.
pub fn downsample_coords(coords: &Support, stride: [u32; 3]) -> Result<Support> {
    Ok(core::downsample(coords.to_host(), stride)?.into())
}

/// Rows of either support, in canonical order.
///
/// # Errors
/// More rows than a support can hold.
pub fn union_coords(lhs: &Support, rhs: &Support) -> Result<Support> {
    Ok(core::union(lhs.to_host(), rhs.to_host())?.into())
}

/// Rows of both supports, in the order of the left one.
pub fn intersection_coords(lhs: &Support, rhs: &Support) -> Support {
    core::intersection(lhs.to_host(), rhs.to_host()).into()
}

/// Row of every query `[n, 4]` in a support, -1 where it has none.
///
/// # Errors
/// A wrong shape, or values outside i32.
pub fn lookup_coords(coords: &Support, queries: Tensor<2, Int>) -> Result<Tensor<1, Int>> {
    let device = queries.device();
    let rows = coords.to_host().lookup_all(&coord_rows("lookup_coords", queries)?);
    let n = rows.len();
    Ok(int_tensor(rows, [n], &device))
}

/// Row of every row of `target` in `source`, -1 where it has none.
pub fn inverse_map(source: &Support, target: &Support, device: &Device) -> Tensor<1, Int> {
    let rows = source.to_host().lookup_all(target.to_host().coords());
    let n = rows.len();
    int_tensor(rows, [n], device)
}

/// Morton code of every row: bits `3i`, `3i + 1`, `3i + 2` are bit `i` of x, y, z for `i` below 21, and the batch id is added
/// from bit 60, wrapping. Signed; not the canonical order.
///
/// # Errors
/// A wrong shape, or values outside i32.
pub fn morton_codes(coords: Tensor<2, Int>) -> Result<Tensor<1, Int>> {
    let device = coords.device();
    let codes = core::morton_codes(&coord_rows("morton_codes", coords)?);
    let n = codes.len();
    Ok(Tensor::from_data(TensorData::new(codes, [n]), (&device, burn::tensor::DType::I64)))
}

/// Row numbers in ascending signed Morton code; equal codes keep their order.
///
/// # Errors
/// As [`morton_codes`].
pub fn morton_order(coords: Tensor<2, Int>) -> Result<Tensor<1, Int>> {
    let device = coords.device();
    let order = core::morton_order(&coord_rows("morton_order", coords)?);
    let n = order.len();
    Ok(int_tensor(order.into_iter().map(|row| row as i32).collect(), [n], &device))
}

/// Coordinates sorted by Morton code.
#[derive(Clone, Debug)]
pub struct CoordinateOrdering {
    /// Sorted coordinates `[n, 4]`.
    pub coords: Tensor<2, Int>,
    /// Row of each sorted coordinate before the sort, `[n]`.
    pub order: Tensor<1, Int>,
    /// Place of each row after the sort, `[n]`.
    pub inverse_rows: Tensor<1, Int>,
}

/// Sorts coordinates `[n, 4]` by Morton code.
///
/// # Errors
/// As [`morton_codes`].
pub fn morton_sort_coords(coords: Tensor<2, Int>) -> Result<CoordinateOrdering> {
    let device = coords.device();
    let sorted = core::morton_sort(&coord_rows("morton_sort_coords", coords)?);
    let rows = |rows: &[u32]| int_tensor(rows.iter().map(|&r| r as i32).collect(), [rows.len()], &device);
    Ok(CoordinateOrdering {
        coords: coord_tensor(&sorted.coords, &device),
        order: rows(&sorted.order),
        inverse_rows: rows(&sorted.inverse_rows),
    })
}

/// One octree step up: parents and which of their eight octants are active.
#[derive(Clone, Debug)]
pub struct SparseOccupancy {
    /// Parents, in canonical order.
    pub parents: Support,
    /// Octants of each parent as bits `1 << (x + 2 y + 4 z)`, `[n_parents]`.
    pub masks: Tensor<1, Int>,
}

/// Halves a support and keeps which octants were active.
pub fn occupancy_downsample(coords: &Support, device: &Device) -> SparseOccupancy {
    let found = core::occupancy_downsample(coords.to_host());
    let n = found.masks.len();
    SparseOccupancy { parents: found.parents.into(), masks: int_tensor(found.masks, [n], device) }
}

/// One octree step down: the active octants of parents.
#[derive(Clone, Debug)]
pub struct OccupancyExpansion {
    /// Children, in canonical order.
    pub support: Support,
    /// Row of each child's parent, `[n]`.
    pub parent_rows: Tensor<1, Int>,
    /// Octant of each child, `[n]`.
    pub child_indices: Tensor<1, Int>,
}

/// 32-bit integers of a rank-1 argument with one value a parent.
fn values(op: &'static str, values: Tensor<1, Int>, n: usize) -> Result<Vec<i32>> {
    let [found] = values.dims();
    if found != n {
        return Err(Error::Shape {
            op,
            expected: format!("{n} values, one a parent"),
            found: format!("{found}"),
        });
    }
    let check = |(row, value): (usize, i64)| {
        i32::try_from(value).map_err(|_| Error::OutOfRange {
            op,
            row,
            what: format!("expected a value inside i32, found {value}"),
        })
    };
    values.into_data().iter::<i64>().enumerate().map(check).collect()
}

/// The children that each parent's mask names; mask bits past the eighth are ignored.
///
/// # Errors
/// Another number of masks; values outside i32.
pub fn occupancy_expand(parents: &Support, masks: Tensor<1, Int>) -> Result<OccupancyExpansion> {
    let device = masks.device();
    let masks = values("occupancy_expand", masks, parents.n_rows())?;
    let found = core::occupancy_expand(parents.to_host().coords(), &masks)?;
    let n = found.child_indices.len();
    Ok(OccupancyExpansion {
        parent_rows: int_tensor(found.parent_rows.iter().map(|&row| row as i32).collect(), [n], &device),
        child_indices: int_tensor(found.child_indices, [n], &device),
        support: Support::try_new(found.coords)?,
    })
}

/// Coordinates `[n, 4]` of given children of parents `[n, 4]`: `2 · parent + octant`.
///
/// # Errors
/// Shapes that do not fit; an octant outside `0..8`; coordinates that leave i32.
pub fn child_coords_from_indices(
    parents: Tensor<2, Int>,
    children: Tensor<1, Int>,
) -> Result<Tensor<2, Int>> {
    let op = "child_coords_from_indices";
    let device = parents.device();
    let parents = coord_rows(op, parents)?;
    let children = values(op, children, parents.len())?;
    Ok(coord_tensor(&core::child_coords(&parents, &children)?, &device))
}

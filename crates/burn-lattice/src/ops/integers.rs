//! Integer and coordinate arguments that come as tensors, checked on their way in.

use burn::tensor::{Device, Int, Tensor, TensorData};
use lattice_core as core;

use crate::{Error, Result};

/// Row numbers, each below `n_rows`.
pub(crate) fn row_numbers(op: &'static str, rows: Tensor<1, Int>, n_rows: usize) -> Result<Vec<u32>> {
    let check = |(at, row): (usize, i64)| match u32::try_from(row) {
        Ok(row) if (row as usize) < n_rows => Ok(row),
        _ => Err(Error::OutOfRange {
            op,
            row: at,
            what: format!("expected a row below {n_rows}, found {row}"),
        }),
    };
    rows.into_data().iter::<i64>().enumerate().map(check).collect()
}

/// `n` batch ids of 0 or more.
pub(crate) fn batch_ids(op: &'static str, ids: Tensor<1, Int>, n: usize) -> Result<Vec<i32>> {
    let [found] = ids.dims();
    if found != n {
        return Err(Error::Shape {
            op,
            expected: format!("{n} batch ids, one a point"),
            found: format!("{found}"),
        });
    }
    let check = |(row, id): (usize, i64)| match i32::try_from(id) {
        Ok(id) if id >= 0 => Ok(id),
        _ => Err(Error::OutOfRange {
            op,
            row,
            what: format!("expected a batch id of 0 or more inside i32, found {id}"),
        }),
    };
    ids.into_data().iter::<i64>().enumerate().map(check).collect()
}

/// Integer rows of `D` columns.
fn integer_rows<const D: usize>(
    op: &'static str,
    rows: Tensor<2, Int>,
    columns: &str,
) -> Result<Vec<[i64; D]>> {
    let [n, found] = rows.dims();
    if found != D {
        return Err(Error::Shape {
            op,
            expected: format!("shape [n, {D}] with columns {columns}"),
            found: format!("[{n}, {found}]"),
        });
    }
    let values: Vec<i64> = rows.into_data().iter::<i64>().collect();
    Ok(values.as_chunks::<D>().0.to_vec())
}

/// Coordinates `[n, 4]`: batch, x, y, z.
pub(crate) fn coord_rows(op: &'static str, coords: Tensor<2, Int>) -> Result<Vec<core::Coord>> {
    core::check_coords_i64(&integer_rows::<4>(op, coords, "batch, x, y, z")?)
}

/// Positions `[n, 3]` as coordinates of a batch item.
pub(crate) fn item_rows(op: &'static str, coords: Tensor<2, Int>, item: i32) -> Result<Vec<core::Coord>> {
    let rows = integer_rows::<3>(op, coords, "x, y, z")?;
    let wide: Vec<[i64; 4]> = rows.iter().map(|&[x, y, z]| [i64::from(item), x, y, z]).collect();
    core::check_coords_i64(&wide)
}

/// Integers as a tensor.
pub(crate) fn int_tensor<const D: usize>(
    values: Vec<i32>,
    shape: [usize; D],
    device: &Device,
) -> Tensor<D, Int> {
    Tensor::from_data(TensorData::new(values, shape), device)
}

/// Coordinates as a tensor `[n, 4]`.
pub(crate) fn coord_tensor(coords: &[core::Coord], device: &Device) -> Tensor<2, Int> {
    int_tensor(coords.iter().flatten().copied().collect(), [coords.len(), 4], device)
}

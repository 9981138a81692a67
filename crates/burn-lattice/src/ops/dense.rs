//! Sparse to dense: features written into a grid over the whole volume.

use burn::tensor::Tensor;
use lattice_core as core;

use super::mix_rows;
use super::row_groups::entries;
use super::row_trace::{ROW_MIX, RowTrace};
use crate::backend::{self, Grid};
use crate::tensor::check_features;
use crate::{Error, Result, RowMap, SparseTensor};

/// Number of cells of a grid.
pub(crate) fn cell_count(op: &'static str, shape: &[usize]) -> Result<usize> {
    let cells = shape.iter().try_fold(1usize, |cells, &extent| cells.checked_mul(extent));
    cells.filter(|&cells| cells < isize::MAX as usize / 16).ok_or_else(|| too_large(op, shape))
}

fn too_large(op: &'static str, shape: &[usize]) -> Error {
    Error::Limit { op, what: format!("expected a grid that fits into memory, found shape {shape:?}") }
}

/// Features `[b, x, y, z, c]` with every row at its cell and 0 elsewhere; batch and logical coordinates count from 0.
/// Differentiable: the gradient gathers the cells of the rows.
///
/// # Shapes
/// `x [n, c]`; `shape` is `[b, x, y, z]`; result `[b, x, y, z, c]`. Memory and time grow with the grid, not with the rows.
/// # Errors
/// A row outside the shape, negative coordinates included; a grid past the address space.
pub fn to_dense(x: &SparseTensor, shape: [usize; 4]) -> Result<Tensor<5>> {
    let op = "to_dense";
    check_features(op, x.feats())?;
    let cells = cell_count(op, &shape)?;
    let trace = RowTrace::start(op, "dense.scatter");
    let [b, nx, ny, nz] = shape;
    let grid =
        Grid { offset: [0; 4], extent: shape, step: [nx * ny * nz, ny * nz, nz, 1], clamped: None, cells };
    let map = match backend::cell_map(&x.device(), x.support().to_host(), &grid, true) {
        Some(made) => made.into(),
        None => scattered(x, shape, cells)?,
    };
    let trace = trace.mapped(x.feats());
    let feats = mix_rows(x.feats().clone(), &map, 0.0);
    trace.finish(x.feats().dims(), &feats, |device| entries(&map, device), ROW_MIX);
    Ok(feats.reshape([b, nx, ny, nz, x.channels()]))
}

/// The map of [`to_dense`], made on the host.
fn scattered(x: &SparseTensor, shape: [usize; 4], cells: usize) -> Result<RowMap> {
    let op = "to_dense";
    let mut row_of_cell: Vec<i32> = Vec::new();
    row_of_cell.try_reserve_exact(cells).map_err(|_| too_large(op, &shape))?;
    row_of_cell.resize(cells, -1);
    for (row, coord) in x.support().to_host().coords().iter().enumerate() {
        let mut cell = 0;
        for axis in 0..4 {
            cell = match usize::try_from(coord[axis]) {
                Ok(at) if at < shape[axis] => cell * shape[axis] + at,
                _ => {
                    return Err(Error::OutOfRange {
                        op,
                        row,
                        what: format!(
                            "expected a coordinate inside {shape:?} from 0, found {coord:?}; crop or shift first"
                        ),
                    });
                }
            };
        }
        row_of_cell[cell] = row as i32;
    }
    Ok(core::RowMap::gather(x.n_rows(), &row_of_cell)?.into())
}

//! NPY: one NumPy array as a cloud.
//!
//! Arrays themselves are read by [`crate::npy_array`], which says why it is of our own.

use crate::error::{Fault, Place};
use crate::npy_array::{self, MAGIC, NpyArray};
use crate::read::{FormatReader, Input};
use crate::scalar::Column;
use crate::{Attribute, PointCloud, table};

pub(crate) struct Npy;

impl FormatReader for Npy {
    fn name(&self) -> &'static str {
        "NPY"
    }

    fn extensions(&self) -> &'static [&'static str] {
        &["npy"]
    }

    fn sniff(&self, head: &[u8]) -> bool {
        head.starts_with(MAGIC)
    }

    fn read(&self, input: &Input<'_>) -> Result<PointCloud, Fault> {
        let columns = npy_array::parse_columns(input.bytes.as_ref(), &Place::File)?;
        table::assemble(position_columns(columns)?, Vec::new(), false)
    }
}

/// Names the columns of an (N, C >= 3) array x, y, z and what follows; columns with names of their own keep them.
pub(super) fn position_columns(mut columns: Vec<Column>) -> Result<Vec<Column>, Fault> {
    if columns.iter().any(|c| !c.name.is_empty()) {
        return Ok(columns);
    }
    if columns.len() < 3 {
        return Err(Fault::new(
            Place::File,
            "an array of N rows and 3 columns or more",
            format!("{} columns", columns.len()),
            "save positions as an (N, 3) array",
        ));
    }
    let extra = table::name_extra_columns(&columns[3..]);
    let names = ["x", "y", "z"].map(str::to_owned).into_iter().chain(extra);
    for (column, name) in columns.iter_mut().zip(names) {
        column.name = name;
    }
    Ok(columns)
}

/// An array of N or (N, 1) labels.
pub(crate) fn labels(bytes: &[u8]) -> Result<Attribute, Fault> {
    let array = NpyArray::from_bytes(bytes)?;
    match array.shape.as_slice() {
        [_] | [_, 1] => Ok(array.data),
        shape => Err(Fault::new(
            Place::File,
            "an array of N or (N, 1) labels",
            format!("shape {shape:?}"),
            "save one label a point",
        )),
    }
}

//! Values while a graph runs.

use std::sync::Arc;

use burn::tensor::{DType, Tensor};
use burn_lattice::SparseTensor;

use crate::array::Array;
use crate::ir::Element;

/// One value of a graph.
#[derive(Clone, Debug)]
pub(super) enum Value {
    /// Features or points `[n, c]` on the device.
    Features(Tensor<2>),
    /// A sparse tensor.
    Sparse(SparseTensor),
    /// Coordinates of a sparse tensor: its rows with their identity, logical there and physical in the graph.
    Rows(SparseTensor),
    /// The number of rows of a sparse tensor.
    Count(SparseTensor),
    /// An array in host memory: coordinates, counts and ids as a caller gave them.
    Array(Arc<Array>),
}

impl Value {
    /// What messages call it.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Features(_) => "features",
            Self::Sparse(_) => "a sparse tensor",
            Self::Rows(_) => "coordinates",
            Self::Count(_) => "a number of rows",
            Self::Array(_) => "an array",
        }
    }
}

/// Element type on a device.
pub(crate) fn dtype_of(element: Element) -> DType {
    match element {
        Element::F64 => DType::F64,
        Element::F16 => DType::F16,
        Element::Bf16 => DType::BF16,
        _ => DType::F32,
    }
}

//! Modules written into a graph.
//!
//! [`Export`] is implemented by every module that the operations of the format can express; implement it for a network of your own by calling
//! its layers in the order of its forward pass.

mod blocks;
mod convolutions;
mod features;
mod networks;
mod pooling;
mod sequence;

pub use blocks::export_block;
pub use networks::{export_network, network_refusal};
pub use pooling::ExportGlobal;

use crate::build::{DenseValue, GraphBuilder, SparseValue};
use crate::error::Result;

/// A module from one sparse tensor to another.
pub trait Export {
    /// Adds the module's operations and weights to a graph.
    ///
    /// # Errors
    /// A module that the operations of the format cannot express.
    fn export(&self, graph: &mut GraphBuilder, x: SparseValue) -> Result<SparseValue>;
}

/// A module whose output may stand on the rows of a target.
pub trait ExportOnto {
    /// [`Export::export`] onto the rows of a target.
    ///
    /// # Errors
    /// As [`Export::export`].
    fn export_onto(
        &self,
        graph: &mut GraphBuilder,
        x: SparseValue,
        target: SparseValue,
    ) -> Result<SparseValue>;
}

/// A module of dense rows, such as one after a global pooling.
pub trait ExportDense {
    /// Adds the module's operations and weights to a graph.
    ///
    /// # Errors
    /// A module that the operations of the format cannot express.
    fn export_dense(&self, graph: &mut GraphBuilder, x: DenseValue) -> Result<DenseValue>;
}

/// A module of features on the features of a sparse tensor.
pub(crate) fn on_features(
    module: &impl ExportDense,
    graph: &mut GraphBuilder,
    x: SparseValue,
) -> Result<SparseValue> {
    let features = graph.decompose(x).features;
    let features = module.export_dense(graph, features)?;
    Ok(graph.with_features(x, features))
}

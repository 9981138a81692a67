//! Convolution, norm, residual and activation as one block.

use burn_lattice::Join;
use burn_lattice::nn::{BlockActivation, ConvBlock};
use burn_lattice::ops::{ActivationKind, BinaryOp};

use super::{Export, ExportDense, ExportOnto, on_features};
use crate::build::{GraphBuilder, SparseValue};
use crate::error::Result;

/// A block, with the rows of a target where one is given, and a residual that is added before its activation.
///
/// # Errors
/// As [`Export::export`].
pub fn export_block(
    block: &ConvBlock,
    graph: &mut GraphBuilder,
    x: SparseValue,
    target: Option<SparseValue>,
    residual: Option<SparseValue>,
) -> Result<SparseValue> {
    let mut y = graph.scope("conv", |graph| match target {
        Some(target) => block.conv.export_onto(graph, x, target),
        None => block.conv.export(graph, x),
    })?;
    let activation = match block.activation() {
        BlockActivation::None => None,
        BlockActivation::Relu => Some(ActivationKind::Relu),
        BlockActivation::LeakyRelu(slope) => {
            Some(ActivationKind::LeakyRelu { negative_slope: f64::from(slope) })
        }
    };
    let features = |graph: &mut GraphBuilder, y: SparseValue, last: bool| -> Result<SparseValue> {
        // Norm and activation follow one another on the features, which are bound to their rows once.
        let mut features = graph.decompose(y).features;
        if let Some(norm) = &block.norm
            && (!last || residual.is_none())
        {
            features = graph.scope("norm", |graph| norm.export_dense(graph, features))?;
        }
        if let (Some(kind), true) = (activation, last) {
            features = graph.activation(features, kind);
        }
        Ok(graph.with_features(y, features))
    };
    match residual {
        None if block.norm.is_some() || activation.is_some() => y = features(graph, y, true)?,
        None => {}
        Some(residual) => {
            if block.norm.is_some() {
                y = features(graph, y, false)?;
            }
            // A residual stands on the rows of the output, so no join can change them.
            y = graph.binary(y, residual, BinaryOp::Add, Join::Inner);
            if activation.is_some() {
                y = features(graph, y, true)?;
            }
        }
    }
    Ok(y)
}

impl Export for ConvBlock {
    fn export(&self, graph: &mut GraphBuilder, x: SparseValue) -> Result<SparseValue> {
        export_block(self, graph, x, None, None)
    }
}

impl ExportOnto for ConvBlock {
    fn export_onto(
        &self,
        graph: &mut GraphBuilder,
        x: SparseValue,
        target: SparseValue,
    ) -> Result<SparseValue> {
        export_block(self, graph, x, Some(target), None)
    }
}

impl Export for burn_lattice::nn::BatchNorm {
    fn export(&self, graph: &mut GraphBuilder, x: SparseValue) -> Result<SparseValue> {
        on_features(self, graph, x)
    }
}

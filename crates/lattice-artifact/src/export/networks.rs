//! The networks of `lattice-models` that the operations of the format can express.

use burn_lattice::Join;
use lattice_models::{MinkUNet, Network, ResidualBlock, SecondEncoder, SecondLevel, SparseResNet};

use super::{Export, ExportOnto, export_block};
use crate::artifact::Artifact;
use crate::build::{GraphBuilder, SparseValue};
use crate::error::{ArtifactError, Result};
use crate::ir::Element;

impl Export for ResidualBlock {
    fn export(&self, graph: &mut GraphBuilder, x: SparseValue) -> Result<SparseValue> {
        let y = graph.scope("conv1", |graph| self.conv1.export(graph, x))?;
        let residual = match &self.shortcut {
            Some(shortcut) => graph.scope("shortcut", |graph| shortcut.export(graph, x))?,
            None => x,
        };
        graph.scope("conv2", |graph| export_block(&self.conv2, graph, y, None, Some(residual)))
    }
}

/// `[n, in_channels]` to scores `[n, classes]`.
impl Export for MinkUNet {
    fn export(&self, graph: &mut GraphBuilder, x: SparseValue) -> Result<SparseValue> {
        let mut y = graph.scope("stem", |graph| self.stem.export(graph, x))?;
        let mut skips = Vec::with_capacity(self.encoder.len());
        for (level, stage) in self.encoder.iter().enumerate() {
            skips.push(y);
            y = graph.scope(format!("encoder.{level}"), |graph| {
                let down = graph.scope("down", |graph| stage.down.export(graph, y))?;
                graph.scope("blocks", |graph| stage.blocks.export(graph, down))
            })?;
        }
        for (level, (stage, skip)) in self.decoder.iter().zip(skips.into_iter().rev()).enumerate() {
            y = graph.scope(format!("decoder.{level}"), |graph| {
                let up = graph.scope("up", |graph| stage.up.export_onto(graph, y, skip))?;
                let joined = graph.cat(up, skip, Join::Inner);
                graph.scope("blocks", |graph| stage.blocks.export(graph, joined))
            })?;
        }
        graph.scope("head", |graph| self.head.export(graph, y))
    }
}

/// A module with one output a level.
pub(super) trait ExportLevels {
    /// Adds the module; one value a level, from fine to coarse.
    fn export_levels(&self, graph: &mut GraphBuilder, x: SparseValue) -> Result<Vec<SparseValue>>;
}

impl ExportLevels for SparseResNet {
    fn export_levels(&self, graph: &mut GraphBuilder, x: SparseValue) -> Result<Vec<SparseValue>> {
        let mut outputs = Vec::with_capacity(self.stages.len());
        let mut y = x;
        for (i, stage) in self.stages.iter().enumerate() {
            y = graph.scope(format!("stages.{i}"), |graph| {
                let y = graph.scope("conv", |graph| stage.conv.export(graph, y))?;
                graph.scope("blocks", |graph| stage.blocks.export(graph, y))
            })?;
            outputs.push(y);
        }
        Ok(outputs)
    }
}

impl Export for SecondLevel {
    fn export(&self, graph: &mut GraphBuilder, x: SparseValue) -> Result<SparseValue> {
        let y = graph.scope("down", |graph| self.down.export(graph, x))?;
        let y = graph.scope("convs", |graph| self.convs.export(graph, y))?;
        graph.scope("blocks", |graph| self.blocks.export(graph, y))
    }
}

/// The sparse levels and the last convolution; the image, which is dense, is left to the reader.
impl ExportLevels for SecondEncoder {
    fn export_levels(&self, graph: &mut GraphBuilder, x: SparseValue) -> Result<Vec<SparseValue>> {
        let mut outputs = Vec::with_capacity(self.levels.len() + 1);
        let mut y = x;
        for (i, level) in self.levels.iter().enumerate() {
            y = graph.scope(format!("levels.{i}"), |graph| level.export(graph, y))?;
            outputs.push(y);
        }
        outputs.push(graph.scope("last", |graph| self.last.export(graph, y))?);
        Ok(outputs)
    }
}

/// Why a network of the list cannot be expressed; none where it can.
pub fn network_refusal(network: &Network) -> Option<&'static str> {
    Some(match network {
        Network::MinkUNet(_) | Network::SparseResNet(_) | Network::Second(_) => return None,
        Network::Spvcnn(_) => "it adds features of points, and no operation of the format adds dense rows",
        Network::PtV3(_) | Network::PtBlock(_) => "the format has no attention",
        Network::VoxelNext(_) => {
            "it makes every row that a strided kernel reaches and merges levels over z, which no operation of the format does"
        }
        Network::Completion(_) => "it prunes rows, and no operation of the format does",
    })
}

/// A network of the list as an artifact: the sparse input `x` at stride 1; the output `scores` of a segmenter, or `level0`, `level1`.. of an
/// encoder, from fine to coarse.
///
/// # Errors
/// A network that the operations of the format cannot express, with the reason.
pub fn export_network(network: &Network, in_channels: usize, element: Element) -> Result<Artifact> {
    if let Some(reason) = network_refusal(network) {
        let what = format!(
            "expected a network that the operations of the format can express, found one that they cannot: {reason}"
        );
        return Err(ArtifactError::build(what));
    }
    let mut graph = GraphBuilder::new(element)?;
    let x = graph.sparse_input("x", Some(in_channels), [1; 3]);
    let levels = match network {
        Network::MinkUNet(unet) => {
            let scores = unet.export(&mut graph, x)?;
            graph.sparse_output("scores", scores);
            Vec::new()
        }
        Network::SparseResNet(encoder) => encoder.export_levels(&mut graph, x)?,
        Network::Second(encoder) => encoder.export_levels(&mut graph, x)?,
        _ => Vec::new(),
    };
    for (i, level) in levels.into_iter().enumerate() {
        graph.sparse_output(&format!("level{i}"), level);
    }
    graph.finish()
}

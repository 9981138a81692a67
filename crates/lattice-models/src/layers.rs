//! Which fields of the networks have layers: a walk over all convolutions and linear maps, in the order in which they run.

use burn_lattice::impl_layers;
use burn_lattice::nn::{LayerMut, Layers};

use crate::{
    CompletionDecoderStage, CompletionEncoderStage, CompletionNet, DecoderStage, EncoderStage, MinkUNet,
    Network, PatchAttention, PointTransform, PtBlock, PtDecoderStage, PtEncoderStage, PtProjection, PtV3,
    ResidualBlock, SecondEncoder, SecondLevel, SparseResNet, SparseResNetStage, Spvcnn, VoxelNext,
};

impl_layers!(
    ResidualBlock { conv1, conv2, shortcut },
    EncoderStage { down, blocks },
    DecoderStage { up, blocks },
    MinkUNet { stem, encoder, decoder, head },
    PointTransform { linear },
    Spvcnn { stem, encoder, decoder, points, classifier },
    PatchAttention { qkv, proj },
    PtBlock { cpe_conv, cpe_linear, attention, fc1, fc2 },
    PtProjection { linear },
    PtEncoderStage { down, blocks },
    PtDecoderStage { up, skip, blocks },
    PtV3 { embedding, encoder, decoder, head },
    SparseResNetStage { conv, blocks },
    SparseResNet { stages },
    SecondLevel { down, convs, blocks },
    SecondEncoder { levels, last },
    VoxelNext { levels, merge, shared },
    CompletionEncoderStage { down, conv },
    CompletionDecoderStage { up, conv, score },
    CompletionNet { encoder, decoder },
);

impl Layers for Network {
    fn visit_layers(&mut self, path: &str, visit: &mut dyn FnMut(LayerMut<'_>)) {
        match self {
            Self::MinkUNet(m) => m.visit_layers(path, visit),
            Self::Spvcnn(m) => m.visit_layers(path, visit),
            Self::PtV3(m) => m.visit_layers(path, visit),
            Self::PtBlock(m) => m.visit_layers(path, visit),
            Self::SparseResNet(m) => m.visit_layers(path, visit),
            Self::Second(m) => m.visit_layers(path, visit),
            Self::VoxelNext(m) => m.visit_layers(path, visit),
            Self::Completion(m) => m.visit_layers(path, visit),
        }
    }
}

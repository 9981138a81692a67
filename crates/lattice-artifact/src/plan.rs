//! A graph that kept every rule: what runs, in order, with typed attributes.

use burn_lattice::KernelSpec;
use burn_lattice::ops::{ActivationKind, BinaryOp, JoinOptions, PoolMode, VoxelReduction};
use burn_lattice::{Interpolation, Join};

use crate::ir::{At, Element, TensorType, Type};

/// Number of a value: arguments first, then results in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ValueId(pub(crate) usize);

/// What an argument of the function is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InputRole {
    /// A dense tensor.
    Tensor,
    /// Coordinates of a sparse tensor.
    SparseCoords,
    /// Features of a sparse tensor.
    SparseFeatures,
    /// The number of valid rows of a sparse tensor.
    SparseActive,
}

impl InputRole {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Tensor, Self::SparseCoords, Self::SparseFeatures, Self::SparseActive];

    /// Name in a graph.
    pub fn name(self) -> &'static str {
        match self {
            Self::Tensor => "tensor",
            Self::SparseCoords => "sparse_coords",
            Self::SparseFeatures => "sparse_features",
            Self::SparseActive => "sparse_active",
        }
    }
}

/// What a result of the function is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OutputRole {
    /// A dense tensor.
    Tensor,
    /// A sparse tensor.
    SparseTensor,
}

impl OutputRole {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Tensor, Self::SparseTensor];

    /// Name in a graph.
    pub fn name(self) -> &'static str {
        match self {
            Self::Tensor => "tensor",
            Self::SparseTensor => "sparse_tensor",
        }
    }
}

/// An argument of the function.
#[derive(Clone, Debug)]
pub struct Input {
    /// The name that callers use.
    pub name: String,
    /// What it is.
    pub role: InputRole,
    /// Its type.
    pub ty: TensorType,
    /// Its value.
    pub value: ValueId,
}

/// A result of the function.
#[derive(Clone, Debug)]
pub struct Output {
    /// The name that callers use.
    pub name: String,
    /// What it is.
    pub role: OutputRole,
    /// Its type.
    pub ty: Type,
    /// Its value.
    pub value: ValueId,
}

/// Three arguments that are one sparse tensor, by their place in [`Plan::inputs`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SparseInput {
    /// Name of the tensor.
    pub name: String,
    /// The argument of its coordinates; features and active rows follow it.
    pub first: usize,
}

/// What a weight is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Family {
    /// `[c_out, kx, ky, kz, c_in]`.
    Conv3d,
    /// `[c_out, c_in]`.
    Linear,
    /// `[n, c]`.
    Embedding,
    /// `[c]`: scales and statistics.
    Channel,
    /// `[c]`.
    Bias,
}

impl Family {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Conv3d, Self::Linear, Self::Embedding, Self::Channel, Self::Bias];

    /// Name in a graph.
    pub fn name(self) -> &'static str {
        match self {
            Self::Conv3d => "conv3d",
            Self::Linear => "linear",
            Self::Embedding => "embedding",
            Self::Channel => "channel",
            Self::Bias => "bias",
        }
    }

    /// Name of its layout.
    pub fn layout(self) -> &'static str {
        match self {
            Self::Conv3d => "conv3d_o_xyz_i",
            Self::Linear => "linear_o_i",
            Self::Embedding => "embedding_n_c",
            Self::Channel => "channel_c",
            Self::Bias => "bias_c",
        }
    }

    /// Axes of its tensor.
    pub fn rank(self) -> usize {
        match self {
            Self::Conv3d => 5,
            Self::Linear | Self::Embedding => 2,
            Self::Channel | Self::Bias => 1,
        }
    }

    /// Whether it may be stored as codes.
    pub fn packs(self) -> bool {
        matches!(self, Self::Conv3d | Self::Linear)
    }
}

/// How a weight is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Packing {
    /// As floats under its key.
    Dense,
    /// As codes with a scale and a bias a group.
    Affine(AffinePacking),
}

/// Codes of `bits` bits; `group_size` neighbours along the input channels share a scale and a bias.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AffinePacking {
    /// 4 or 8.
    pub bits: u32,
    /// Codes that share a scale.
    pub group_size: usize,
    /// Element type of scales and biases: f16 or f32.
    pub scale: Element,
}

/// A weight that the graph declares.
#[derive(Clone, Debug)]
pub struct Weight {
    /// Label of its value.
    pub label: String,
    /// Name with `@`.
    pub symbol: String,
    /// Name in the weight file.
    pub key: String,
    /// What it is for.
    pub family: Family,
    /// How it is stored.
    pub packing: Packing,
    /// Its value.
    pub value: ValueId,
    /// Where it is declared.
    pub at: At,
}

/// Kinds of convolution.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConvolutionKind {
    /// Strided, or onto a target.
    Forward,
    /// On the input's rows.
    Submanifold,
    /// Transposed.
    Transposed,
    /// Every cell that the kernel reaches.
    Generative,
}

/// A convolution.
#[derive(Clone, Copy, Debug)]
pub struct Convolution {
    /// Which.
    pub kind: ConvolutionKind,
    /// Its kernel.
    pub spec: KernelSpec,
    /// Whether the second operand says the output's rows.
    pub targeted: bool,
    /// Of a weight-normalized one, what is added under the root.
    pub eps: Option<f32>,
    /// Whether the last operand is a bias.
    pub biased: bool,
}

/// Size and place of voxels, as the graph gives them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Voxels {
    /// Edges along x, y, z.
    pub size: [f64; 3],
    /// Where voxel 0 starts.
    pub origin: [f64; 3],
}

/// What a node does.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum Op {
    /// Physical rows, features and their number to a sparse tensor.
    Make {
        /// Its stride.
        stride: [u32; 3],
    },
    /// A sparse tensor to physical rows, features and their number.
    Decompose,
    /// Other features on the same rows.
    WithFeatures,
    /// Features on a target's rows.
    Reindex {
        /// Stands in for rows that are missing.
        fill: f32,
    },
    /// A convolution.
    Convolution(Convolution),
    /// Sum, mean or maximum over windows.
    Pool {
        /// Which.
        mode: PoolMode,
        /// The window.
        spec: KernelSpec,
    },
    /// Mean over the coarse rows that reach a fine one.
    PoolTranspose {
        /// The window.
        spec: KernelSpec,
    },
    /// Trilinear interpolation.
    TrilinearUpsample {
        /// The step.
        stride: [u32; 3],
    },
    /// One row a batch item.
    GlobalPool {
        /// Which.
        mode: PoolMode,
        /// Batch items, where they are given.
        batch_size: Option<usize>,
    },
    /// Points to a sparse tensor.
    Voxelize {
        /// The grid.
        voxels: Voxels,
        /// How a voxel's points become its features.
        reduction: VoxelReduction,
        /// Stride of the result.
        stride: [u32; 3],
    },
    /// Voxel features at points.
    Devoxelize {
        /// The grid.
        voxels: Voxels,
        /// Nearest or linear.
        interpolation: Interpolation,
    },
    /// A linear map of rows.
    Linear,
    /// Rows of a table.
    EmbeddingLookup,
    /// `e^x`.
    Exp,
    /// The nearest integer, halves to even.
    Round,
    /// Over channels.
    Softmax,
    /// Element by element.
    Activation(ActivationKind),
    /// With given statistics.
    BatchNorm {
        /// Added to the variance.
        eps: f32,
    },
    /// Over the channels of a row.
    LayerNorm {
        /// Added to the variance.
        eps: f32,
    },
    /// By the root of the mean square of a row.
    RmsNorm {
        /// Added to the mean square.
        eps: f32,
    },
    /// Two sparse tensors, element by element.
    Binary {
        /// Which.
        op: BinaryOp,
        /// Which rows are kept.
        options: JoinOptions,
    },
    /// Channels side by side.
    Cat {
        /// Which rows are kept.
        join: Join,
    },
}

/// One operation, in order.
#[derive(Clone, Debug)]
pub struct Node {
    /// What it does.
    pub op: Op,
    /// Its name after `lattice.`.
    pub name: &'static str,
    /// Values that it reads.
    pub operands: Vec<ValueId>,
    /// Values that it makes.
    pub results: Vec<ValueId>,
    /// Label of its first result.
    pub label: String,
    /// Where it stands.
    pub at: At,
}

/// What is known of a value.
#[derive(Clone, Debug)]
pub(crate) struct ValueInfo {
    pub(crate) label: String,
    pub(crate) ty: Type,
    /// Of a weight, its place in [`Plan::weights`].
    pub(crate) weight: Option<usize>,
}

/// A checked graph.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Arguments in order.
    pub inputs: Vec<Input>,
    /// Results in order.
    pub outputs: Vec<Output>,
    /// Weights in the order of their declaration.
    pub weights: Vec<Weight>,
    /// Operations in order, without weights.
    pub nodes: Vec<Node>,
    pub(crate) values: Vec<ValueInfo>,
}

impl Plan {
    /// Label of a value.
    pub fn label(&self, value: ValueId) -> &str {
        &self.values[value.0].label
    }

    /// Type of a value.
    pub fn ty(&self, value: ValueId) -> &Type {
        &self.values[value.0].ty
    }

    /// The weight that a value is.
    pub fn weight(&self, value: ValueId) -> Option<&Weight> {
        self.values[value.0].weight.map(|i| &self.weights[i])
    }

    /// Element types of the features that a graph computes with.
    pub(crate) fn feature_types(&self) -> Vec<Element> {
        let of = |ty: &Type| match ty {
            Type::Tensor(ty) => Some(ty.element),
            Type::Sparse(ty) => Some(ty.element),
            Type::Weight(_) => None,
        };
        let mut found: Vec<Element> =
            self.values.iter().filter_map(|value| of(&value.ty)).filter(|e| e.is_feature()).collect();
        found.sort_unstable();
        found.dedup();
        found
    }

    /// Sparse inputs: `x_coords`, `x_features`, `x_active` in a row, with their roles, are the sparse input `x`;
    /// `coords`, `features`, `active` are the one named `input`.
    pub fn sparse_inputs(&self) -> Vec<SparseInput> {
        let mut found = Vec::new();
        let roles = [InputRole::SparseCoords, InputRole::SparseFeatures, InputRole::SparseActive];
        for (first, three) in self.inputs.windows(3).enumerate() {
            if (0..3).any(|i| three[i].role != roles[i]) {
                continue;
            }
            let names: [&str; 3] = std::array::from_fn(|i| three[i].name.as_str());
            let name = match names {
                ["coords", "features", "active"] => Some("input"),
                [coords, features, active] => coords
                    .strip_suffix("_coords")
                    .filter(|name| !name.is_empty())
                    .filter(|name| features.strip_suffix("_features") == Some(name))
                    .filter(|name| active.strip_suffix("_active") == Some(name)),
            };
            if let Some(name) = name {
                found.push(SparseInput { name: name.into(), first });
            }
        }
        found
    }

    /// Of each step, which are nodes that run together, the values that no later one reads and that are not returned.
    pub(crate) fn last_uses(&self, steps: &[&[usize]]) -> Vec<Vec<ValueId>> {
        let mut kept = vec![false; self.values.len()];
        self.outputs.iter().for_each(|output| kept[output.value.0] = true);
        let mut last = Vec::with_capacity(steps.len());
        for nodes in steps.iter().rev() {
            let mut dead = Vec::new();
            let touched = nodes.iter().map(|&node| &self.nodes[node]);
            for &value in touched.flat_map(|node| node.operands.iter().chain(&node.results)) {
                if !std::mem::replace(&mut kept[value.0], true) {
                    dead.push(value);
                }
            }
            last.push(dead);
        }
        last.reverse();
        last
    }
}

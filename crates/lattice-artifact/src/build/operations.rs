//! Operations of a graph but for convolutions.

use burn_lattice::ops::{ActivationKind, BinaryOp, GeluApproximation, JoinOptions, PoolMode, VoxelReduction};
use burn_lattice::{Interpolation, Join, KernelSpec};

use super::builder::GraphBuilder;
use super::values::{ArrayValue, DenseValue, SparseInputValues, SparseValue, WeightValue};
use crate::ir::{Attribute, Element, Type};
use crate::plan::Voxels;

pub(super) fn triple(values: [u32; 3]) -> Attribute {
    Attribute::Integers(values.map(i64::from))
}

fn word(mnemonic: &str, word: &str) -> Attribute {
    Attribute::Word { mnemonic: mnemonic.into(), word: word.into() }
}

fn join_word(join: Join) -> Attribute {
    word(
        "join",
        match join {
            Join::Inner => "inner",
            Join::Left => "left",
            Join::Right => "right",
            Join::Outer => "outer",
        },
    )
}

impl GraphBuilder {
    /// A sparse tensor of physical rows, features and their number.
    pub fn make(&mut self, parts: SparseInputValues, stride: [u32; 3]) -> SparseValue {
        let attributes = vec![("stride", triple(stride)), ("coord_order", word("coord", "batch_x_y_z"))];
        let operands = [parts.coords.id, parts.features.id, parts.active.id];
        let ty = self.sparse_type();
        let id = self.push("sparse.make", &operands, attributes, ty);
        SparseValue { id, channels: parts.features.channels }
    }

    /// Physical rows, features and their number. Asked again for the same value, it gives the same parts.
    pub fn decompose(&mut self, x: SparseValue) -> SparseInputValues {
        if let Some(parts) = self.parts.get(&x.id) {
            return *parts;
        }
        let types = vec![
            Type::tensor(&[None, Some(4)], Element::I32),
            Self::dense_type(x.channels, self.element()),
            Type::tensor(&[Some(1)], Element::I32),
        ];
        let ids = self.push_several("sparse.decompose", None, &[x.id], Vec::new(), types);
        let parts = SparseInputValues {
            coords: ArrayValue { id: ids[0] },
            features: DenseValue { id: ids[1], channels: x.channels },
            active: ArrayValue { id: ids[2] },
        };
        self.parts.insert(x.id, parts);
        parts
    }

    /// Other features on the rows of `x`.
    pub fn with_features(&mut self, x: SparseValue, features: DenseValue) -> SparseValue {
        let ty = self.sparse_type();
        let id = self.push("sparse.with_features", &[x.id, features.id], Vec::new(), ty);
        SparseValue { id, channels: features.channels }
    }

    /// Features of `x` on the rows of a target; missing ones are `fill`.
    pub fn reindex(&mut self, x: SparseValue, target: SparseValue, fill: f32) -> SparseValue {
        let ty = self.sparse_type();
        let id = self.push("sparse.reindex", &[x.id, target.id], vec![("fill", Attribute::Float(fill))], ty);
        SparseValue { id, channels: x.channels }
    }

    /// Two tensors, element by element.
    pub fn binary(
        &mut self,
        lhs: SparseValue,
        rhs: SparseValue,
        op: BinaryOp,
        options: impl Into<JoinOptions>,
    ) -> SparseValue {
        let options = options.into();
        let attributes = vec![
            ("op", word("binary_op", op.name())),
            ("join", join_word(options.join)),
            ("lhs_fill", Attribute::Float(options.lhs_fill)),
            ("rhs_fill", Attribute::Float(options.rhs_fill)),
        ];
        let ty = self.sparse_type();
        let id = self.push("sparse.binary", &[lhs.id, rhs.id], attributes, ty);
        SparseValue { id, channels: lhs.channels }
    }

    /// Channels of two tensors side by side.
    pub fn cat(&mut self, lhs: SparseValue, rhs: SparseValue, join: Join) -> SparseValue {
        let ty = self.sparse_type();
        let id = self.push("sparse.cat", &[lhs.id, rhs.id], vec![("join", join_word(join))], ty);
        let channels = lhs.channels.zip(rhs.channels).map(|(a, b)| a + b);
        SparseValue { id, channels }
    }

    fn window(spec: &KernelSpec) -> Vec<(&'static str, Attribute)> {
        vec![
            ("kernel_size", triple(spec.size)),
            ("stride", triple(spec.stride)),
            ("padding", triple(spec.padding)),
            ("dilation", triple(spec.dilation)),
        ]
    }

    /// Sum, mean or maximum over windows.
    pub fn pool(&mut self, x: SparseValue, mode: PoolMode, spec: &KernelSpec) -> SparseValue {
        let mut attributes = Self::window(spec);
        attributes.push(("mode", word("pool_mode", mode.name())));
        let ty = self.sparse_type();
        let id = self.push("pool3d", &[x.id], attributes, ty);
        SparseValue { id, channels: x.channels }
    }

    fn upsample(
        &mut self,
        name: &str,
        x: SparseValue,
        target: Option<SparseValue>,
        attributes: Vec<(&str, Attribute)>,
    ) -> SparseValue {
        let operands: Vec<usize> = [Some(x), target].into_iter().flatten().map(|value| value.id).collect();
        let ty = self.sparse_type();
        let id = self.push(name, &operands, attributes, ty);
        SparseValue { id, channels: x.channels }
    }

    /// Means over the coarse rows that reach a fine one.
    pub fn pool_transpose(
        &mut self,
        x: SparseValue,
        target: Option<SparseValue>,
        spec: &KernelSpec,
    ) -> SparseValue {
        self.upsample("pool_transpose3d", x, target, Self::window(spec))
    }

    /// Trilinear interpolation.
    pub fn trilinear_upsample(
        &mut self,
        x: SparseValue,
        target: Option<SparseValue>,
        stride: [u32; 3],
    ) -> SparseValue {
        self.upsample("trilinear_upsample3d", x, target, vec![("stride", triple(stride))])
    }

    /// One row a batch item; their number is found where it is not given.
    pub fn global_pool(&mut self, x: SparseValue, mode: PoolMode, batch_size: Option<u32>) -> DenseValue {
        let attributes = vec![
            ("mode", word("pool_mode", mode.name())),
            ("batch_size", Attribute::Integer(batch_size.map_or(-1, i64::from))),
        ];
        let ty = Self::dense_type(x.channels, self.element());
        let id = self.push("global_pool", &[x.id], attributes, ty);
        DenseValue { id, channels: x.channels }
    }

    fn grid(voxels: &Voxels) -> Vec<(&'static str, Attribute)> {
        vec![("voxel_size", Attribute::Floats(voxels.size)), ("origin", Attribute::Floats(voxels.origin))]
    }

    /// Points with features to a sparse tensor; operands are `[points, features]` and `[batch indices, active rows]`.
    pub fn voxelize(
        &mut self,
        [points, features]: [DenseValue; 2],
        [batch, active]: [ArrayValue; 2],
        voxels: &Voxels,
        reduction: VoxelReduction,
        stride: [u32; 3],
    ) -> SparseValue {
        let mut attributes = Self::grid(voxels);
        let reduction = match reduction {
            VoxelReduction::Sum => "sum",
            VoxelReduction::Mean => "mean",
        };
        attributes.extend([("reduction", word("voxel_reduction", reduction)), ("stride", triple(stride))]);
        let ty = self.sparse_type();
        let id = self.push("voxelize", &[points.id, features.id, batch.id, active.id], attributes, ty);
        SparseValue { id, channels: features.channels }
    }

    /// Features of voxels at points.
    pub fn devoxelize(
        &mut self,
        points: DenseValue,
        x: SparseValue,
        [batch, active]: [ArrayValue; 2],
        voxels: &Voxels,
        interpolation: Interpolation,
    ) -> DenseValue {
        let mut attributes = Self::grid(voxels);
        let how = if interpolation == Interpolation::Nearest { "nearest" } else { "linear" };
        attributes.push(("interpolation", word("point_interpolation", how)));
        let ty = Self::dense_type(x.channels, self.element());
        let id = self.push("devoxelize", &[points.id, x.id, batch.id, active.id], attributes, ty);
        DenseValue { id, channels: x.channels }
    }

    fn rows(
        &mut self,
        name: &str,
        x: DenseValue,
        weights: &[WeightValue],
        attributes: Vec<(&str, Attribute)>,
        channels: Option<usize>,
    ) -> DenseValue {
        let operands: Vec<usize> = [x.id].into_iter().chain(weights.iter().map(|weight| weight.id)).collect();
        let ty = Self::dense_type(channels, self.element());
        DenseValue { id: self.push(name, &operands, attributes, ty), channels }
    }

    /// `x · weightᵀ + bias`.
    pub fn linear(&mut self, x: DenseValue, weight: WeightValue, bias: Option<WeightValue>) -> DenseValue {
        let weights: Vec<WeightValue> = [Some(weight), bias].into_iter().flatten().collect();
        self.rows("linear", x, &weights, Vec::new(), Some(weight.channels))
    }

    /// Rows of a table by id.
    pub fn embedding_lookup(&mut self, ids: ArrayValue, table: WeightValue) -> DenseValue {
        let channels = Some(table.channels);
        let ty = Self::dense_type(channels, Element::F32);
        DenseValue { id: self.push("embedding_lookup", &[ids.id, table.id], Vec::new(), ty), channels }
    }

    /// `e^x`.
    pub fn exp(&mut self, x: DenseValue) -> DenseValue {
        self.rows("elementwise", x, &[], vec![("kind", Attribute::Text("exp".into()))], x.channels)
    }

    /// The nearest integer, halves to even.
    pub fn round(&mut self, x: DenseValue) -> DenseValue {
        self.rows("elementwise", x, &[], vec![("kind", Attribute::Text("round".into()))], x.channels)
    }

    /// Softmax over channels.
    pub fn softmax(&mut self, x: DenseValue) -> DenseValue {
        self.rows("softmax", x, &[], vec![("axis", Attribute::Integer(-1))], x.channels)
    }

    /// An activation.
    pub fn activation(&mut self, x: DenseValue, kind: ActivationKind) -> DenseValue {
        let (mut alpha, mut beta, mut threshold, mut approximate) = (0.01, 1.0, 20.0, "none");
        match kind {
            ActivationKind::Gelu(GeluApproximation::Tanh) => approximate = "tanh",
            ActivationKind::Gelu(GeluApproximation::Fast) => approximate = "fast",
            ActivationKind::LeakyRelu { negative_slope } => alpha = negative_slope,
            ActivationKind::Softplus { beta: b, threshold: t } => (beta, threshold) = (b, t),
            _ => {}
        }
        let attributes = vec![
            ("kind", word("activation", kind.name())),
            ("approximate", word("gelu_approx", approximate)),
            ("alpha", Attribute::Float(alpha as f32)),
            ("beta", Attribute::Float(beta as f32)),
            ("threshold", Attribute::Float(threshold as f32)),
        ];
        self.rows("activation", x, &[], attributes, x.channels)
    }

    fn eps(eps: f64) -> Vec<(&'static str, Attribute)> {
        vec![("eps", Attribute::Float(eps as f32))]
    }

    /// Batch norm with given statistics; weights are scale, bias, mean and variance.
    pub fn batch_norm(&mut self, x: DenseValue, weights: [WeightValue; 4], eps: f64) -> DenseValue {
        self.rows("batch_norm", x, &weights, Self::eps(eps), x.channels)
    }

    /// Layer norm; weights are scale and bias.
    pub fn layer_norm(&mut self, x: DenseValue, weights: [WeightValue; 2], eps: f64) -> DenseValue {
        self.rows("layer_norm", x, &weights, Self::eps(eps), x.channels)
    }

    /// Rms norm.
    pub fn rms_norm(&mut self, x: DenseValue, scale: WeightValue, eps: f64) -> DenseValue {
        self.rows("rms_norm", x, &[scale], Self::eps(eps), x.channels)
    }
}

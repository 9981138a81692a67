//! The rules of single operations, and their typed form.

use burn_lattice::ops::{ActivationKind, BinaryOp, JoinOptions, PoolMode, VoxelReduction};
use burn_lattice::{Interpolation, Join, KernelSpec};

use super::Faults;
use super::scope::Scope;
use crate::ir::{At, Attribute, Element, Operation, PackingAttribute, SparseType, TensorType, Type};
use crate::plan::{
    AffinePacking, Convolution, ConvolutionKind, Family, Op, Packing, ValueId, Voxels, Weight,
};

/// An operation that keeps its rules.
pub(super) enum Checked {
    /// One that runs.
    Op(Op),
    /// One that names a weight.
    Weight {
        /// Name in the weight file.
        key: String,
        /// What it is for.
        family: Family,
        /// How it is stored.
        packing: Packing,
    },
}

/// An operation whose operands, results and attributes are those of the schema.
pub(super) struct Rules<'a> {
    operation: &'a Operation,
    operands: &'a [ValueId],
    scope: &'a Scope,
    weights: &'a [Weight],
    faults: &'a mut Faults,
    clean: bool,
}

/// Accumulation that convolutions name: f32 sums, rounded once.
const ACCUMULATION: &str = "canonical_f32";

impl<'a> Rules<'a> {
    pub(super) fn of(
        operation: &'a Operation,
        operands: &'a [ValueId],
        scope: &'a Scope,
        weights: &'a [Weight],
        faults: &'a mut Faults,
    ) -> Self {
        Self { operation, operands, scope, weights, faults, clean: true }
    }

    /// The typed operation, or none where a fault was added.
    pub(super) fn check(mut self) -> Option<Checked> {
        let checked = match self.operation.name.as_str() {
            "weight" => self.weight(),
            _ => self.op().map(Checked::Op),
        };
        checked.filter(|_| self.clean)
    }

    fn fault(&mut self, message: String) {
        let at = self.operation.at;
        self.fault_at(at, message);
    }

    fn fault_at(&mut self, at: At, message: String) {
        self.clean = false;
        self.faults.add(at, format!("{}: {message}", self.operation.name));
    }

    fn attribute(&self, name: &str) -> (Option<&'a Attribute>, At) {
        let found = self.operation.attributes.iter().find(|entry| entry.name == name);
        found.map_or((None, self.operation.at), |entry| (Some(&entry.value), entry.at))
    }

    /// Three integers of at least `least`.
    fn triple(&mut self, name: &str, least: i64) -> [u32; 3] {
        let (Some(Attribute::Integers(values)), at) = self.attribute(name) else { return [1; 3] };
        let mut out = [1; 3];
        for (to, &from) in out.iter_mut().zip(values) {
            match u32::try_from(from) {
                Ok(value) if from >= least => *to = value,
                _ => {
                    let found = Attribute::Integers(*values);
                    self.fault_at(
                        at,
                        format!(
                            "expected {name} of at least {least} and below 2^32 on every axis, found {found}"
                        ),
                    );
                    return [1; 3];
                }
            }
        }
        out
    }

    fn float(&mut self, name: &str) -> f32 {
        match self.attribute(name) {
            (Some(Attribute::Float(value)), _) => *value,
            _ => 0.0,
        }
    }

    fn eps(&mut self) -> f32 {
        let value = self.float("eps");
        if value <= 0.0 {
            let at = self.attribute("eps").1;
            self.fault_at(at, format!("expected eps above 0, found {value}"));
        }
        value
    }

    fn integer(&self, name: &str) -> i64 {
        match self.attribute(name) {
            (Some(Attribute::Integer(value)), _) => *value,
            _ => 0,
        }
    }

    fn text(&self, name: &str) -> &'a str {
        match self.attribute(name) {
            (Some(Attribute::Text(text)), _) => text,
            _ => "",
        }
    }

    fn word(&self, name: &str) -> &'a str {
        match self.attribute(name) {
            (Some(Attribute::Word { word, .. }), _) => word,
            _ => "",
        }
    }

    /// A word that the library reads; its own message where it does not.
    fn read<T: std::str::FromStr<Err = burn_lattice::Error>>(&mut self, name: &str) -> Option<T> {
        match self.word(name).parse() {
            Ok(value) => Some(value),
            Err(error) => {
                self.fault(error.to_string());
                None
            }
        }
    }

    fn operand(&self, i: usize) -> &'a Type {
        &self.operation.operand_types[i]
    }

    fn result(&self, i: usize) -> &'a Type {
        &self.operation.result_types[i]
    }

    fn tensor(&self, ty: &'a Type) -> &'a TensorType {
        match ty {
            Type::Tensor(ty) => ty,
            // The schema's kinds were checked before.
            _ => unreachable!("a tensor by the schema"),
        }
    }

    fn sparse(&self, ty: &'a Type) -> &'a SparseType {
        match ty {
            Type::Sparse(ty) => ty,
            _ => unreachable!("a sparse tensor by the schema"),
        }
    }

    /// A tensor of these dimensions; `None` fits any.
    fn shaped(&mut self, name: &str, ty: &TensorType, dims: &[Option<u64>], element: Element) {
        let fits = ty.dims.len() == dims.len()
            && ty.dims.iter().zip(dims).all(|(found, expected)| match (found, expected) {
                (Some(found), Some(expected)) => found == expected,
                (None, Some(_)) => false,
                _ => true,
            });
        if !fits || ty.element != element {
            let expected = TensorType { dims: dims.to_vec(), element };
            self.fault(format!("expected `{name}` of type {expected}, found {ty}"));
        }
    }

    /// Features: rank 2 in an element type.
    fn features(&mut self, name: &str, ty: &TensorType, element: Element) {
        self.shaped(name, ty, &[None, None], element);
    }

    fn same(&mut self, what: &str, expected: Element, found: Element) {
        if expected != found {
            self.fault(format!("expected {what} of type {expected}, found {found}"));
        }
    }

    /// A weight operand of a family; whether it is packed.
    fn family(&mut self, i: usize, name: &str, family: Family) -> bool {
        let Type::Weight(ty) = self.operand(i) else { return false };
        if ty.family != family.name() {
            self.fault(format!("expected `{name}` of family {}, found {ty}", family.name()));
        }
        let weight = self.scope.weight(self.operands[i]).map(|weight| &self.weights[weight]);
        weight.is_some_and(|weight| weight.packing != Packing::Dense)
    }

    fn weight(&mut self) -> Option<Checked> {
        let key = self.text("storage_key").to_owned();
        if key.is_empty() {
            self.fault("expected a storage_key that is not empty, found an empty one".into());
        }
        let Type::Weight(ty) = self.result(0) else { return None };
        let Some(family) = Family::ALL.into_iter().find(|family| family.name() == ty.family) else {
            let known = Family::ALL.map(Family::name).join(", ");
            self.fault(format!("expected a family of {known}, found `{}`", super::cut(&ty.family)));
            return None;
        };
        let layout = self.word("layout");
        if layout != family.layout() {
            self.fault(format!(
                "expected layout {} of family {}, found `{layout}`",
                family.layout(),
                family.name()
            ));
        }
        let packing = self.packing(family)?;
        Some(Checked::Weight { key, family, packing })
    }

    fn packing(&mut self, family: Family) -> Option<Packing> {
        let (Some(Attribute::Packing(packing)), at) = self.attribute("packing") else { return None };
        let PackingAttribute::Affine { kind, group_size, scale_dtype, mode } = packing else {
            return Some(Packing::Dense);
        };
        let bits = match kind.as_str() {
            "int4" => 4,
            "int8" => 8,
            other => {
                self.fault_at(
                    at,
                    format!("expected packing dense, int4 or int8, found `{}`", super::cut(other)),
                );
                return None;
            }
        };
        if mode != "affine" {
            self.fault_at(at, format!("expected packing of mode affine, found `{}`", super::cut(mode)));
        }
        if !matches!(scale_dtype, Element::F16 | Element::F32) {
            self.fault_at(at, format!("expected scales of type f16 or f32, found {scale_dtype}"));
        }
        if !family.packs() {
            let family = family.name();
            self.fault_at(at, format!("expected packing dense for family {family}, found {packing}; conv3d and linear alone may be packed"));
        }
        let Some(group_size) = usize::try_from(*group_size).ok().filter(|&size| size > 0) else {
            self.fault_at(at, format!("expected a group_size above 0, found {group_size}"));
            return None;
        };
        Some(Packing::Affine(AffinePacking { bits, group_size, scale: *scale_dtype }))
    }

    /// A kernel that the library takes.
    fn kernel(
        &mut self,
        size: [u32; 3],
        stride: [u32; 3],
        padding: [u32; 3],
        dilation: [u32; 3],
    ) -> KernelSpec {
        if let Err(error) = KernelSpec::try_new(size, stride, padding, dilation) {
            self.fault(error.to_string());
        }
        KernelSpec { size, stride, padding, dilation }
    }

    /// The kernel of the attributes that the operation has.
    fn spec(&mut self) -> KernelSpec {
        let size = self.triple("kernel_size", 1);
        let stride = self.triple("stride", 1);
        let padding = match self.attribute("padding").0 {
            Some(_) => self.triple("padding", 0),
            None => [0; 3],
        };
        let dilation = self.triple("dilation", 1);
        self.kernel(size, stride, padding, dilation)
    }

    fn convolution(&mut self, kind: ConvolutionKind) -> Option<Op> {
        let name = self.operation.name.as_str();
        let targeted = name.starts_with("target_");
        let normalized = name.contains("normalized");
        let spec = self.spec();
        if kind == ConvolutionKind::Submanifold && !spec.is_odd() {
            self.fault(format!("expected an odd kernel_size on every axis, found {:?}", spec.size));
        }
        let accumulation = self.text("accumulation");
        if accumulation != ACCUMULATION {
            self.fault(format!("expected accumulation \"{ACCUMULATION}\", found {accumulation:?}"));
        }
        let eps = normalized.then(|| self.eps());
        let element = self.sparse(self.operand(0)).element;
        self.same("a result", element, self.sparse(self.result(0)).element);
        let at = 1 + usize::from(targeted);
        let packed = self.family(at, "weight", Family::Conv3d);
        if packed && normalized {
            self.fault(
                "expected a dense weight, found a packed one; weight normalization needs the floats".into(),
            );
        }
        let biased = self.operation.operands.len() > at + 1;
        if biased {
            self.family(at + 1, "bias", Family::Bias);
        }
        Some(Op::Convolution(Convolution { kind, spec, targeted, eps, biased }))
    }

    fn voxels(&mut self) -> Voxels {
        let three = |name: &str| match self.attribute(name).0 {
            Some(Attribute::Floats(values)) => *values,
            _ => [1.0; 3],
        };
        let voxels = Voxels { size: three("voxel_size"), origin: three("origin") };
        // Positions are computed in f32, so the size must be positive there.
        if voxels.size.iter().any(|&edge| !(edge as f32 > 0.0 && (edge as f32).is_finite())) {
            self.fault(format!("expected voxel_size above 0 on every axis, found {:?}", voxels.size));
        }
        voxels
    }

    /// Points, batch ids and active rows, at these operands.
    fn points(&mut self, points: usize, batch: usize, active: &str, at: usize) {
        let of = |i: usize| self.tensor(self.operand(i));
        let (points, batch, count) = (of(points), of(batch), of(at));
        self.shaped("points", points, &[None, Some(3)], Element::F32);
        self.shaped("batch_indices", batch, &[None], Element::I32);
        self.shaped(active, count, &[Some(1)], Element::I32);
    }

    /// A row-wise operation: rank 2 in and out, of one element type.
    fn row_wise(&mut self) -> Element {
        let (input, result) = (self.tensor(self.operand(0)), self.tensor(self.result(0)));
        let element = input.element;
        if !element.is_feature() {
            self.fault(format!("expected `input` of f32, f16 or bf16, found {input}"));
        }
        self.features("input", input, element);
        self.features("result", result, element);
        element
    }

    fn f32_rows(&mut self) {
        let element = self.row_wise();
        self.same("`input`", Element::F32, element);
    }

    fn pair(&mut self) {
        let [lhs, rhs, result] =
            [self.operand(0), self.operand(1), self.result(0)].map(|ty| self.sparse(ty).element);
        self.same("`rhs`", lhs, rhs);
        self.same("a result", lhs, result);
    }

    fn op(&mut self) -> Option<Op> {
        use ConvolutionKind::{Forward, Generative, Submanifold, Transposed};
        Some(match self.operation.name.as_str() {
            "sparse.make" => {
                let [coords, features, active] = [0, 1, 2].map(|i| self.tensor(self.operand(i)));
                let element = self.sparse(self.result(0)).element;
                self.shaped("coords", coords, &[None, Some(4)], Element::I32);
                self.features("features", features, element);
                self.shaped("active", active, &[Some(1)], Element::I32);
                if let (Some(Some(rows)), Some(Some(others))) = (coords.dims.first(), features.dims.first())
                    && rows != others
                {
                    self.fault(format!("expected features of {rows} rows, one a coordinate, found {others}"));
                }
                Op::Make { stride: self.triple("stride", 1) }
            }
            "sparse.decompose" => {
                let element = self.sparse(self.operand(0)).element;
                let [coords, features, active] = [0, 1, 2].map(|i| self.tensor(self.result(i)));
                self.shaped("coords", coords, &[None, Some(4)], Element::I32);
                self.features("features", features, element);
                self.shaped("active", active, &[Some(1)], Element::I32);
                Op::Decompose
            }
            "sparse.with_features" => {
                let element = self.sparse(self.result(0)).element;
                let features = self.tensor(self.operand(1));
                self.features("features", features, element);
                Op::WithFeatures
            }
            "sparse.reindex" => {
                let [input, result] = [self.operand(0), self.result(0)].map(|ty| self.sparse(ty).element);
                self.same("a result", input, result);
                Op::Reindex { fill: self.float("fill") }
            }
            "conv3d" | "target_conv3d" => return self.convolution(Forward),
            "subm_conv3d" | "normalized_subm_conv3d" => return self.convolution(Submanifold),
            "generative_conv_transpose3d" | "normalized_generative_conv_transpose3d" => {
                return self.convolution(Generative);
            }
            name if name.ends_with("conv_transpose3d") => return self.convolution(Transposed),
            "pool3d" => {
                let [input, result] = [self.operand(0), self.result(0)].map(|ty| self.sparse(ty).element);
                self.same("a result", input, result);
                Op::Pool { mode: self.read::<PoolMode>("mode")?, spec: self.spec() }
            }
            "pool_transpose3d" | "trilinear_upsample3d" => {
                let [input, result] = [self.operand(0), self.result(0)].map(|ty| self.sparse(ty).element);
                self.same("a result", input, result);
                match self.operation.name == "pool_transpose3d" {
                    true => Op::PoolTranspose { spec: self.spec() },
                    false => Op::TrilinearUpsample { stride: self.triple("stride", 1) },
                }
            }
            "global_pool" => {
                let element = self.sparse(self.operand(0)).element;
                let result = self.tensor(self.result(0));
                self.features("result", result, element);
                let batch_size = self.integer("batch_size");
                if batch_size < -1 {
                    self.fault(format!("expected a batch_size of at least -1, found {batch_size}"));
                }
                Op::GlobalPool {
                    mode: self.read::<PoolMode>("mode")?,
                    batch_size: usize::try_from(batch_size).ok(),
                }
            }
            "voxelize" => {
                self.points(0, 2, "active_rows", 3);
                let features = self.tensor(self.operand(1));
                self.features("features", features, Element::F32);
                self.same("a result", Element::F32, self.sparse(self.result(0)).element);
                let reduction = self.read::<VoxelReduction>("reduction")?;
                Op::Voxelize { voxels: self.voxels(), reduction, stride: self.triple("stride", 1) }
            }
            "devoxelize" => {
                self.points(0, 2, "point_active_rows", 3);
                let element = self.sparse(self.operand(1)).element;
                let result = self.tensor(self.result(0));
                self.features("result", result, element);
                let interpolation = match self.word("interpolation") {
                    "nearest" => Interpolation::Nearest,
                    _ => Interpolation::Linear,
                };
                Op::Devoxelize { voxels: self.voxels(), interpolation }
            }
            "linear" => {
                self.row_wise();
                self.family(1, "weight", Family::Linear);
                if self.operation.operands.len() > 2 {
                    self.family(2, "bias", Family::Bias);
                }
                Op::Linear
            }
            "embedding_lookup" => {
                let (input, result) = (self.tensor(self.operand(0)), self.tensor(self.result(0)));
                self.shaped("input", input, &[None], Element::I32);
                self.features("result", result, Element::F32);
                self.family(1, "weight", Family::Embedding);
                Op::EmbeddingLookup
            }
            "elementwise" => {
                self.f32_rows();
                match self.text("kind") {
                    "exp" => Op::Exp,
                    "round" => Op::Round,
                    other => {
                        self.fault(format!(
                            "expected kind \"exp\" or \"round\", found {:?}",
                            super::cut(other)
                        ));
                        return None;
                    }
                }
            }
            "softmax" => {
                self.f32_rows();
                let axis = self.integer("axis");
                if axis != -1 && axis != 1 {
                    self.fault(format!("expected axis -1 or 1, found {axis}"));
                }
                Op::Softmax
            }
            "activation" => {
                self.row_wise();
                let [alpha, beta, threshold] =
                    ["alpha", "beta", "threshold"].map(|name| f64::from(self.float(name)));
                let (kind, approximate) = (self.word("kind"), self.word("approximate"));
                match ActivationKind::from_attributes(kind, approximate, alpha, beta, threshold) {
                    Ok(kind) => Op::Activation(kind),
                    Err(error) => {
                        self.fault(error.to_string());
                        return None;
                    }
                }
            }
            "batch_norm" => {
                self.row_wise();
                for (i, (name, family)) in [
                    ("scale", Family::Channel),
                    ("bias", Family::Bias),
                    ("mean", Family::Channel),
                    ("var", Family::Channel),
                ]
                .into_iter()
                .enumerate()
                {
                    self.family(1 + i, name, family);
                }
                Op::BatchNorm { eps: self.eps() }
            }
            "layer_norm" => {
                self.row_wise();
                self.family(1, "scale", Family::Channel);
                self.family(2, "bias", Family::Bias);
                Op::LayerNorm { eps: self.eps() }
            }
            "rms_norm" => {
                self.row_wise();
                self.family(1, "scale", Family::Channel);
                Op::RmsNorm { eps: self.eps() }
            }
            "sparse.binary" => {
                self.pair();
                let op = self.read::<BinaryOp>("op")?;
                let options = JoinOptions::new(self.read::<Join>("join")?)
                    .with_fills(self.float("lhs_fill"), self.float("rhs_fill"));
                Op::Binary { op, options }
            }
            "sparse.cat" => {
                self.pair();
                Op::Cat { join: self.read::<Join>("join")? }
            }
            other => {
                self.fault(format!("expected an operation that runs, found `{other}`"));
                return None;
            }
        })
    }
}

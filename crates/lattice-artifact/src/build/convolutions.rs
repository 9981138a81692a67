//! Convolutions of a graph.

use burn_lattice::KernelSpec;

use super::builder::GraphBuilder;
use super::operations::triple;
use super::values::{SparseValue, WeightValue};
use crate::ir::Attribute;

impl GraphBuilder {
    fn conv(
        &mut self,
        name: &str,
        operands: [Option<SparseValue>; 2],
        (weight, bias): (WeightValue, Option<WeightValue>),
        spec: &KernelSpec,
        eps: Option<f64>,
    ) -> SparseValue {
        let ids: Vec<usize> = operands
            .into_iter()
            .flatten()
            .map(|value| value.id)
            .chain([Some(weight), bias].into_iter().flatten().map(|weight| weight.id))
            .collect();
        let mut attributes = vec![
            ("kernel_size", triple(spec.size)),
            ("accumulation", Attribute::Text("canonical_f32".into())),
        ];
        let submanifold = name.contains("subm");
        if !submanifold {
            attributes.push(("stride", triple(spec.stride)));
        }
        if !submanifold && !name.contains("generative") {
            attributes.push(("padding", triple(spec.padding)));
        }
        if !name.contains("generative") {
            attributes.push(("dilation", triple(spec.dilation)));
        }
        if let Some(eps) = eps {
            attributes.push(("eps", Attribute::Float(eps as f32)));
        }
        let ty = self.sparse_type();
        let id = self.push(name, &ids, attributes, ty);
        SparseValue { id, channels: Some(weight.channels) }
    }

    /// Strided convolution, or one onto the rows of a target.
    pub fn conv3d(
        &mut self,
        x: SparseValue,
        target: Option<SparseValue>,
        weights: (WeightValue, Option<WeightValue>),
        spec: &KernelSpec,
    ) -> SparseValue {
        let name = if target.is_some() { "target_conv3d" } else { "conv3d" };
        self.conv(name, [Some(x), target], weights, spec, None)
    }

    /// Convolution on the input's rows; weight-normalized where `eps` is given.
    pub fn subm_conv3d(
        &mut self,
        x: SparseValue,
        weights: (WeightValue, Option<WeightValue>),
        spec: &KernelSpec,
        eps: Option<f64>,
    ) -> SparseValue {
        let name = if eps.is_some() { "normalized_subm_conv3d" } else { "subm_conv3d" };
        self.conv(name, [Some(x), None], weights, spec, eps)
    }

    /// Transposed convolution; onto the rows of a target where one is given, weight-normalized where `eps` is.
    pub fn conv_transpose3d(
        &mut self,
        x: SparseValue,
        target: Option<SparseValue>,
        weights: (WeightValue, Option<WeightValue>),
        spec: &KernelSpec,
        eps: Option<f64>,
    ) -> SparseValue {
        let name = match (target.is_some(), eps.is_some()) {
            (false, false) => "conv_transpose3d",
            (true, false) => "target_conv_transpose3d",
            (false, true) => "normalized_conv_transpose3d",
            (true, true) => "target_normalized_conv_transpose3d",
        };
        self.conv(name, [Some(x), target], weights, spec, eps)
    }

    /// Transposed convolution that makes every cell it reaches; weight-normalized where `eps` is given.
    pub fn generative_conv_transpose3d(
        &mut self,
        x: SparseValue,
        weights: (WeightValue, Option<WeightValue>),
        spec: &KernelSpec,
        eps: Option<f64>,
    ) -> SparseValue {
        let name = match eps.is_some() {
            true => "normalized_generative_conv_transpose3d",
            false => "generative_conv_transpose3d",
        };
        self.conv(name, [Some(x), None], weights, spec, eps)
    }
}

//! Convolution modules.

use burn::module::Param;
use burn::tensor::{DType, Tensor};
use burn_lattice::nn::{
    BlockConv, Conv3d, ConvTranspose3d, GenerativeConvTranspose3d, LayerWeight, NormalizedConvTranspose3d,
    NormalizedGenerativeConvTranspose3d, NormalizedSubmConv3d, SubmConv3d,
};
use burn_lattice::ops::ConvOptions;
use burn_lattice::{RelationKind, SupportPolicy};

use super::{Export, ExportOnto};
use crate::array::Array;
use crate::build::{GraphBuilder, SparseValue, WeightValue};
use crate::error::{ArtifactError, Result};
use crate::plan::Family;

/// Values of a parameter on the host, f32.
pub(super) fn values<const D: usize>(tensor: Tensor<D>) -> Result<Vec<f32>> {
    match tensor.dtype() {
        DType::F32 | DType::F16 | DType::BF16 | DType::F64 => Ok(tensor.into_data().iter::<f32>().collect()),
        other => Err(ArtifactError::build(format!("expected parameters of floats, found {other:?}"))),
    }
}

/// A vector `[c]`.
pub(super) fn vector(
    graph: &mut GraphBuilder,
    name: &str,
    family: Family,
    tensor: Tensor<1>,
) -> Result<WeightValue> {
    let [n] = tensor.dims();
    let array = Array::from_f32(&[n], &values(tensor)?).map_err(ArtifactError::build)?;
    graph.weight(name, family, &array)
}

/// A convolution's weight `[taps, c_in / groups, c_out]` as `[c_out, kx, ky, kz, c_in]`, zeros between groups, which the format does not have.
fn taps(graph: &mut GraphBuilder, weight: &Tensor<3>, options: &ConvOptions) -> Result<WeightValue> {
    let [taps, group_in, c_out] = weight.dims();
    let (groups, size) = (options.groups, options.spec.size.map(|k| k as usize));
    let (c_in, group_out) = (group_in * groups, c_out / groups);
    let stored = values(weight.clone())?;
    let mut out = vec![0.0; c_out * taps * c_in];
    for tap in 0..taps {
        for i in 0..group_in {
            for o in 0..c_out {
                let input = o / group_out * group_in + i;
                out[(o * taps + tap) * c_in + input] = stored[(tap * group_in + i) * c_out + o];
            }
        }
    }
    let dims = [c_out, size[0], size[1], size[2], c_in];
    let array = Array::from_f32(&dims, &out).map_err(ArtifactError::build)?;
    graph.weight("weight", Family::Conv3d, &array)
}

/// Where a layer's float weight stands.
pub(super) trait FloatWeight<const D: usize> {
    /// The weight.
    ///
    /// # Errors
    /// Where it is packed.
    fn float(&self) -> Result<Tensor<D>>;
}

impl<const D: usize> FloatWeight<D> for Param<Tensor<D>> {
    fn float(&self) -> Result<Tensor<D>> {
        Ok(self.val())
    }
}

impl<const D: usize> FloatWeight<D> for LayerWeight<D> {
    fn float(&self) -> Result<Tensor<D>> {
        self.try_val("artifact export").map_err(|error| ArtifactError::build(error.to_string()))
    }
}

/// Parameters of a convolution and what it says of itself.
struct Layer<'a> {
    kind: RelationKind,
    options: ConvOptions,
    weight: Tensor<3>,
    bias: Option<&'a Param<Tensor<1>>>,
    eps: Option<f64>,
}

impl Layer<'_> {
    fn export(
        &self,
        graph: &mut GraphBuilder,
        x: SparseValue,
        target: Option<SparseValue>,
    ) -> Result<SparseValue> {
        let spec = &self.options.spec;
        if self.options.policy != SupportPolicy::Floor {
            return Err(ArtifactError::build(format!(
                "{}: expected output rows by floor division, found every row that a kernel reaches, which no operation of the format makes; \
                 make the network without `kernel_reach`",
                graph.key("conv")
            )));
        }
        let weight = taps(graph, &self.weight, &self.options)?;
        let bias = match self.bias {
            Some(bias) => Some(vector(graph, "bias", Family::Bias, bias.val())?),
            None => None,
        };
        let weights = (weight, bias);
        match (self.kind, target) {
            (RelationKind::Submanifold, None) => Ok(graph.subm_conv3d(x, weights, spec, self.eps)),
            (RelationKind::Forward, target) => Ok(graph.conv3d(x, target, weights, spec)),
            (RelationKind::Transposed, target) => {
                Ok(graph.conv_transpose3d(x, target, weights, spec, self.eps))
            }
            (RelationKind::Inverse, Some(target)) => {
                Ok(graph.conv_transpose3d(x, Some(target), weights, spec, self.eps))
            }
            (RelationKind::Generative, None) => {
                Ok(graph.generative_conv_transpose3d(x, weights, spec, self.eps))
            }
            (kind, _) => Err(ArtifactError::build(format!(
                "{}: expected a convolution that the format has, found {kind:?} {} a target; give inverse ones their skip tensor as target",
                graph.key("conv"),
                if target.is_some() { "with" } else { "without" }
            ))),
        }
    }
}

/// Implements [`Export`] of convolution modules, and [`ExportOnto`] of those that take a target.
macro_rules! export_convolution {
    ($($module:ident, $module_eps:expr, $onto:tt;)*) => {$(
        impl Export for $module {
            fn export(&self, graph: &mut GraphBuilder, x: SparseValue) -> Result<SparseValue> {
                let eps: fn(&$module) -> Option<f64> = $module_eps;
                let layer = Layer {
                    kind: self.relation_kind(),
                    options: self.options()?,
                    weight: self.weight.float()?,
                    bias: self.bias.as_ref(),
                    eps: eps(self),
                };
                layer.export(graph, x, None)
            }
        }
        export_convolution!(@onto $module, $module_eps, $onto);
    )*};
    (@onto $module:ident, $module_eps:expr, fixed) => {};
    (@onto $module:ident, $module_eps:expr, onto) => {
        impl ExportOnto for $module {
            fn export_onto(&self, graph: &mut GraphBuilder, x: SparseValue, target: SparseValue) -> Result<SparseValue> {
                let eps: fn(&$module) -> Option<f64> = $module_eps;
                let layer = Layer {
                    kind: self.relation_kind(),
                    options: self.options()?,
                    weight: self.weight.float()?,
                    bias: self.bias.as_ref(),
                    eps: eps(self),
                };
                layer.export(graph, x, Some(target))
            }
        }
    };
}

export_convolution! {
    SubmConv3d, |_| None, fixed;
    Conv3d, |_| None, onto;
    ConvTranspose3d, |_| None, onto;
    GenerativeConvTranspose3d, |_| None, fixed;
    BlockConv, |_| None, onto;
    NormalizedSubmConv3d, |module| Some(module.eps()), fixed;
    NormalizedConvTranspose3d, |module| Some(module.eps()), onto;
    NormalizedGenerativeConvTranspose3d, |module| Some(module.eps()), fixed;
}

//! Convolutions.

use burn::tensor::Tensor;
use burn_lattice::nn::ConvEpilogue;
use burn_lattice::ops::{self, ConvOptions, Target};
use burn_lattice::quantized::QuantizedWeight;
use burn_lattice::{RelationKind, SparseTensor};

use super::executor::{Call, fault};
use super::fuse::Group;
use super::value::Value;
use crate::error::Result;
use crate::plan::{Convolution, ConvolutionKind, Node, Op};
use crate::weights::{Bound, Use};

/// The weight of a convolution.
#[allow(clippy::large_enum_variant, reason = "one lives for a call")]
enum Kernel {
    Taps(Tensor<3>),
    Packed(Box<QuantizedWeight>),
}

impl Kernel {
    fn c_out(&self) -> usize {
        match self {
            Self::Taps(weight) => weight.dims()[2],
            Self::Packed(weight) => weight.record().shape().c_out(),
        }
    }

    /// Runs a convolution that is not normalized, with what follows in its pass.
    fn convolve(
        self,
        conv: &Convolution,
        x: &SparseTensor,
        bias: Option<Tensor<1>>,
        target: Option<&Target>,
        epilogue: ConvEpilogue,
    ) -> burn_lattice::Result<SparseTensor> {
        let (kind, options) = (relation_kind(conv.kind), ConvOptions::new(conv.spec));
        match self {
            Self::Taps(weight) => ops::convolve_with(x, weight, bias, kind, &options, target, epilogue),
            Self::Packed(weight) => {
                ops::packed_convolve_with(x, &weight, bias, kind, &options, target, epilogue)
            }
        }
    }
}

/// Operands of a convolution.
struct Operands {
    x: SparseTensor,
    target: Option<Target>,
    weight: Kernel,
    bias: Option<Tensor<1>>,
}

fn relation_kind(kind: ConvolutionKind) -> RelationKind {
    match kind {
        ConvolutionKind::Forward => RelationKind::Forward,
        ConvolutionKind::Submanifold => RelationKind::Submanifold,
        ConvolutionKind::Transposed => RelationKind::Transposed,
        ConvolutionKind::Generative => RelationKind::Generative,
    }
}

impl Call<'_> {
    fn operands(&self, node: &Node, conv: &Convolution) -> Result<Operands> {
        let x = self.sparse(node, 0)?;
        let target = match conv.targeted {
            true => Some(Target::from(&self.sparse(node, 1)?)),
            false => None,
        };
        if !conv.targeted && matches!(conv.kind, ConvolutionKind::Transposed | ConvolutionKind::Generative) {
            self.check_growth(node, x.n_rows(), conv.spec.size)?;
        }
        let at = 1 + usize::from(conv.targeted);
        let used = Use::Convolution { size: conv.spec.size, c_in: x.channels() };
        let weight = match self.weight(node, at, used, x.dtype())? {
            Bound::Taps(weight) => Kernel::Taps(weight),
            Bound::Packed(weight) => Kernel::Packed(weight),
            _ => return Err(fault(node, "expected a weight of a convolution, found another")),
        };
        let bias = match conv.biased {
            true => Some(self.vector(node, at + 1, weight.c_out())?),
            false => None,
        };
        Ok(Operands { x, target, weight, bias })
    }

    /// Runs a convolution with what follows it, in one pass. False where the residual does not stand on the convolution's rows: nothing was done then.
    pub(super) fn group(&mut self, group: &Group) -> Result<bool> {
        let executor = self.executor;
        let plan = executor.artifact().plan();
        let node = &plan.nodes[group.conv];
        let Op::Convolution(conv) = node.op else { return Ok(false) };
        let residual = match group.residual {
            None => None,
            Some(value) => match (&self.values[value.0], self.value(node, 0)?) {
                (Some(Value::Sparse(residual)), Value::Sparse(x)) if residual.same_coords(x) => {
                    Some(residual.feats().clone())
                }
                _ => return Ok(false),
            },
        };
        let Operands { x, target, weight, bias } = self.operands(node, &conv)?;
        let scale_shift = match group.norm {
            None => None,
            Some(norm) => Some(executor.folded(norm, || self.fold(&plan.nodes[norm], weight.c_out()))?),
        };
        let epilogue = ConvEpilogue { scale_shift, residual, activation: group.activation };
        let made = weight.convolve(&conv, &x, bias, target.as_ref(), epilogue);
        self.set(group.result, Value::Sparse(made.map_err(|e| fault(node, e))?));
        Ok(true)
    }

    /// Scale and shift of a batch norm: `y = x · scale + shift`.
    fn fold(&self, node: &Node, channels: usize) -> Result<(Tensor<1>, Tensor<1>)> {
        let Op::BatchNorm { eps } = node.op else { return Err(fault(node, "expected a batch norm")) };
        let [scale, bias, mean, var] = [1, 2, 3, 4].map(|i| self.vector(node, i, channels));
        let scale = scale? / (var? + f64::from(eps)).sqrt();
        let shift = bias? - mean? * scale.clone();
        Ok((scale, shift))
    }

    pub(super) fn convolution(&self, node: &Node, conv: &Convolution) -> Result<Value> {
        let Operands { x, target, weight, bias } = self.operands(node, conv)?;
        let (options, target) = (ConvOptions::new(conv.spec), target.as_ref());
        let Some(eps) = conv.eps.map(f64::from) else {
            let made = weight.convolve(conv, &x, bias, target, ConvEpilogue::default());
            return made.map(Value::Sparse).map_err(|e| fault(node, e));
        };
        let Kernel::Taps(weight) = weight else {
            return Err(fault(
                node,
                "expected a dense weight of a normalized convolution, found a packed one",
            ));
        };
        let made = match conv.kind {
            ConvolutionKind::Forward => return Err(fault(node, "expected a normalized kind, found conv3d")),
            ConvolutionKind::Submanifold => ops::normalized_subm_conv3d(&x, weight, bias, &options, eps),
            ConvolutionKind::Transposed => {
                ops::normalized_conv_transpose3d(&x, weight, bias, &options, target, eps)
            }
            ConvolutionKind::Generative => {
                ops::normalized_generative_conv_transpose3d(&x, weight, bias, &options, target, eps)
            }
        };
        made.map(Value::Sparse).map_err(|e| fault(node, e))
    }
}

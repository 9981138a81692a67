//! Convolutions.

use burn_lattice::ops::{self, ConvOptions, Target};

use super::executor::{Call, fault};
use super::value::Value;
use crate::error::Result;
use crate::plan::{Convolution, ConvolutionKind, Node};
use crate::weights::{Bound, Use};

impl Call<'_> {
    pub(super) fn convolution(&self, node: &Node, conv: &Convolution) -> Result<Value> {
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
        let Bound::Taps(weight) = self.weight(node, at, used, x.dtype())? else {
            return Err(fault(node, "expected a weight of a convolution, found another"));
        };
        let bias = match conv.biased {
            true => Some(self.vector(node, at + 1, weight.dims()[2])?),
            false => None,
        };
        let (options, target) = (ConvOptions::new(conv.spec), target.as_ref());
        let made = match (conv.kind, conv.eps.map(f64::from)) {
            (ConvolutionKind::Forward, _) => ops::conv3d(&x, weight, bias, &options, target),
            (ConvolutionKind::Submanifold, None) => ops::subm_conv3d(&x, weight, bias, &options),
            (ConvolutionKind::Submanifold, Some(eps)) => {
                ops::normalized_subm_conv3d(&x, weight, bias, &options, eps)
            }
            (ConvolutionKind::Transposed, None) => ops::conv_transpose3d(&x, weight, bias, &options, target),
            (ConvolutionKind::Transposed, Some(eps)) => {
                ops::normalized_conv_transpose3d(&x, weight, bias, &options, target, eps)
            }
            (ConvolutionKind::Generative, None) => {
                ops::generative_conv_transpose3d(&x, weight, bias, &options, target)
            }
            (ConvolutionKind::Generative, Some(eps)) => {
                ops::normalized_generative_conv_transpose3d(&x, weight, bias, &options, target, eps)
            }
        };
        made.map(Value::Sparse).map_err(|e| fault(node, e))
    }
}

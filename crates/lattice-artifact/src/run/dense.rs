//! Operations on the rows of dense features.

use burn::tensor::DType;
use burn_lattice::ops::{self, NormAffine, NormStatistics};

use super::executor::{Call, fault};
use super::value::Value;
use crate::error::Result;
use crate::plan::{Node, Op};
use crate::weights::{Bound, Use};

impl Call<'_> {
    pub(super) fn dense(&self, node: &Node) -> Result<Value> {
        if let Op::EmbeddingLookup = node.op {
            let ids = self.ids(node, 0, usize::MAX)?;
            let Bound::Matrix(table) = self.weight(node, 1, Use::Table, DType::F32)? else {
                return Err(fault(node, "expected a table of rows, found another weight"));
            };
            return ops::embedding_lookup(table, ids).map(Value::Features).map_err(|e| fault(node, e));
        }
        let x = self.features(node, 0)?;
        let channels = x.dims()[1];
        let made = match node.op {
            Op::Linear => {
                let weight = self.weight(node, 1, Use::Linear { c_in: channels }, x.dtype())?;
                let c_out = match &weight {
                    Bound::Matrix(weight) => weight.dims()[0],
                    Bound::Packed(weight) => weight.record().shape().c_out(),
                    _ => return Err(fault(node, "expected a weight of a linear map, found another")),
                };
                let bias = match node.operands.len() {
                    3 => Some(self.vector(node, 2, c_out)?),
                    _ => None,
                };
                match weight {
                    Bound::Packed(weight) => ops::packed_linear_features(x, &weight, bias),
                    Bound::Matrix(weight) => ops::linear_features(x, weight, bias),
                    _ => return Err(fault(node, "expected a weight of a linear map, found another")),
                }
            }
            Op::Exp => ops::exp_features(x),
            Op::Round => ops::round_features(x),
            Op::Softmax => ops::softmax_features(x),
            Op::Activation(kind) => ops::activation_features(x, kind),
            Op::BatchNorm { eps } => {
                let [scale, bias, mean, var] = [1, 2, 3, 4].map(|i| self.vector(node, i, channels));
                let statistics = NormStatistics { mean: mean?, var: var? };
                ops::batch_norm_features(x, NormAffine::new(scale?, bias?), Some(statistics), f64::from(eps))
            }
            Op::LayerNorm { eps } => {
                let [scale, bias] = [1, 2].map(|i| self.vector(node, i, channels));
                ops::layer_norm_features(x, NormAffine::new(scale?, bias?), f64::from(eps))
            }
            Op::RmsNorm { eps } => {
                let scale = self.vector(node, 1, channels)?;
                ops::rms_norm_features(x, Some(scale), f64::from(eps))
            }
            _ => return Err(fault(node, "expected an operation on dense rows")),
        };
        made.map(Value::Features).map_err(|e| fault(node, e))
    }
}

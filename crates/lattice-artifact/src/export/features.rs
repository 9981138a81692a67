//! Modules of features: linear maps, norms, activations, dropout.

use burn::module::Param;
use burn::tensor::Tensor;
use burn_lattice::nn::{
    BatchNorm, Dropout, Gelu, LayerNorm, LeakyRelu, Linear, Relu, RmsNorm, Sigmoid, Silu, Softplus, Tanh,
};

use super::convolutions::{FloatWeight, values, vector};
use super::{Export, ExportDense, on_features};
use crate::array::Array;
use crate::build::{DenseValue, GraphBuilder, SparseValue};
use crate::error::{ArtifactError, Result};
use crate::plan::Family;

impl ExportDense for Linear {
    fn export_dense(&self, graph: &mut GraphBuilder, x: DenseValue) -> Result<DenseValue> {
        // `[c_in, c_out]` here, `[c_out, c_in]` in files.
        let weight = self.weight.float()?.transpose();
        let array = Array::from_f32(&weight.dims(), &values(weight)?).map_err(ArtifactError::build)?;
        let weight = graph.weight("weight", Family::Linear, &array)?;
        let bias = match &self.bias {
            Some(bias) => Some(vector(graph, "bias", Family::Bias, bias.val())?),
            None => None,
        };
        Ok(graph.linear(x, weight, bias))
    }
}

impl ExportDense for BatchNorm {
    fn export_dense(&self, graph: &mut GraphBuilder, x: DenseValue) -> Result<DenseValue> {
        if !self.tracks_running_stats() {
            let what = "expected a batch norm with running statistics, found one that uses those of the batch, which no operation of the format does";
            return Err(ArtifactError::build(format!("{}: {what}", graph.key("norm"))));
        }
        let [mean, var] = [&self.running_mean, &self.running_var].map(|statistic| statistic.value());
        let like = |param: &Option<Param<Tensor<1>>>, otherwise: Tensor<1>| {
            param.as_ref().map_or(otherwise, Param::val)
        };
        let (gamma, beta) = (like(&self.gamma, var.ones_like()), like(&self.beta, var.zeros_like()));
        let weights = [
            vector(graph, "gamma", Family::Channel, gamma)?,
            vector(graph, "beta", Family::Bias, beta)?,
            vector(graph, "running_mean", Family::Channel, mean)?,
            vector(graph, "running_var", Family::Channel, var)?,
        ];
        Ok(graph.batch_norm(x, weights, self.eps()))
    }
}

impl ExportDense for LayerNorm {
    fn export_dense(&self, graph: &mut GraphBuilder, x: DenseValue) -> Result<DenseValue> {
        let scale = vector(graph, "gamma", Family::Channel, self.gamma.val())?;
        let bias = vector(graph, "beta", Family::Bias, self.beta.val())?;
        Ok(graph.layer_norm(x, [scale, bias], self.eps()))
    }
}

impl ExportDense for RmsNorm {
    fn export_dense(&self, graph: &mut GraphBuilder, x: DenseValue) -> Result<DenseValue> {
        let scale = vector(graph, "gamma", Family::Channel, self.gamma.val())?;
        Ok(graph.rms_norm(x, scale, self.eps()))
    }
}

/// Activations, which have no weights.
macro_rules! activations {
    ($($module:ident),*) => {$(
        impl ExportDense for $module {
            fn export_dense(&self, graph: &mut GraphBuilder, x: DenseValue) -> Result<DenseValue> {
                Ok(graph.activation(x, self.kind()))
            }
        }
    )*};
}
activations!(Relu, Sigmoid, Tanh, Silu, Gelu, LeakyRelu, Softplus);

/// Dropout is nothing outside of training.
impl ExportDense for Dropout {
    fn export_dense(&self, _: &mut GraphBuilder, x: DenseValue) -> Result<DenseValue> {
        Ok(x)
    }
}

impl Export for Dropout {
    fn export(&self, _: &mut GraphBuilder, x: SparseValue) -> Result<SparseValue> {
        Ok(x)
    }
}

/// Modules of features, on those of a sparse tensor.
macro_rules! on_sparse {
    ($($module:ident),*) => {$(
        impl Export for $module {
            fn export(&self, graph: &mut GraphBuilder, x: SparseValue) -> Result<SparseValue> {
                on_features(self, graph, x)
            }
        }
    )*};
}
on_sparse!(Linear, LayerNorm, RmsNorm, Relu, Sigmoid, Tanh, Silu, Gelu, LeakyRelu, Softplus);

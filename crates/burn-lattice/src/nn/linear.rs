//! The linear map of feature rows.

use burn::config::Config;
use burn::module::{Module, Param};
use burn::nn::Initializer;
use burn::tensor::{Device, Tensor};

use super::{LayerWeight, or_panic};
use crate::{Error, Result, SparseTensor};

/// Options of [`Linear`].
#[derive(Config, Debug)]
pub struct LinearConfig {
    /// Input and output channels.
    pub channels: [usize; 2],
    /// Adds a learned vector of `c_out` to every row.
    #[config(default = true)]
    pub bias: bool,
}

/// `y = x · weight + bias` on every row; the identity is kept. f32 products and sums, never a reduced precision.
#[derive(Module, Debug)]
pub struct Linear {
    /// `[c_in, c_out]`.
    pub weight: LayerWeight<2>,
    /// `[c_out]`.
    pub bias: Option<Param<Tensor<1>>>,
}

impl LinearConfig {
    /// Allocates the module: weight and bias uniform in ±1 / sqrt(c_in).
    ///
    /// # Panics
    /// Zero channels.
    pub fn init(&self, device: &Device) -> Linear {
        let [c_in, c_out] = self.channels;
        or_panic(match c_in > 0 && c_out > 0 {
            true => Ok(()),
            false => Err(Error::Value {
                op: "Linear",
                what: format!("expected positive channels, found {:?}", self.channels),
            }),
        });
        let bound = 1.0 / (c_in as f64).sqrt();
        let initializer = Initializer::Uniform { min: -bound, max: bound };
        Linear {
            weight: initializer.init([c_in, c_out], device).into(),
            bias: self.bias.then(|| initializer.init([c_out], device)),
        }
    }
}

impl Linear {
    /// `[n, c_in]` to `[n, c_out]` on the same identity.
    ///
    /// # Panics
    /// With the error of [`crate::ops::linear`].
    pub fn forward(&self, x: &SparseTensor) -> SparseTensor {
        or_panic(self.try_forward(x))
    }

    /// [`forward`](Self::forward) that returns its error.
    ///
    /// # Errors
    /// As [`crate::ops::linear`].
    pub fn try_forward(&self, x: &SparseTensor) -> Result<SparseTensor> {
        self.weight.linear("linear", x, self.bias.as_ref().map(Param::val))
    }

    /// The same on bare features `[n, c_in]`, such as those of a global pooling.
    ///
    /// # Panics
    /// With the error of [`crate::ops::linear_features`].
    pub fn forward_feats(&self, feats: Tensor<2>) -> Tensor<2> {
        let bias = self.bias.as_ref().map(Param::val);
        or_panic(self.weight.linear_features("linear", feats, bias))
    }
}

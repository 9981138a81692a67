//! Activations as modules. They hold no parameters.

use burn::config::Config;
use burn::module::Module;
use burn::tensor::Tensor;

use super::or_panic;
use crate::SparseTensor;
use crate::ops::{ActivationKind, GeluApproximation};

/// An activation without options, its module and its formula.
macro_rules! plain_activation {
    ($name:ident, $kind:expr, $doc:literal) => {
        #[doc = $doc]
        #[derive(Module, Debug, Default)]
        pub struct $name;

        impl $name {
            /// The module.
            pub fn new() -> Self {
                Self
            }

            /// The formula.
            pub fn kind(&self) -> ActivationKind {
                $kind
            }

            /// Keeps identity and element type.
            pub fn forward(&self, x: &SparseTensor) -> SparseTensor {
                x.clone().map_feats(|feats| self.forward_feats(feats))
            }

            /// The same on bare features `[n, c]`.
            pub fn forward_feats(&self, feats: Tensor<2>) -> Tensor<2> {
                $kind.apply(feats)
            }
        }
    };
}

plain_activation!(Relu, ActivationKind::Relu, "`max(x, 0)`.");
plain_activation!(Sigmoid, ActivationKind::Sigmoid, "`1 / (1 + e^-x)`.");
plain_activation!(Tanh, ActivationKind::Tanh, "`tanh x`.");
plain_activation!(Silu, ActivationKind::Silu, "`x · sigmoid(x)`.");

/// Options of [`Gelu`].
#[derive(Config, Debug)]
pub struct GeluConfig {
    /// The formula.
    #[config(default = "GeluApproximation::None")]
    pub approximation: GeluApproximation,
}

/// The Gaussian error linear unit.
#[derive(Module, Debug)]
pub struct Gelu {
    #[module(skip)]
    approximation: GeluApproximation,
}

impl GeluConfig {
    /// The module.
    pub fn init(&self) -> Gelu {
        Gelu { approximation: self.approximation }
    }
}

impl Gelu {
    /// The formula.
    pub fn kind(&self) -> ActivationKind {
        ActivationKind::Gelu(self.approximation)
    }

    /// Keeps identity and element type.
    pub fn forward(&self, x: &SparseTensor) -> SparseTensor {
        x.clone().map_feats(|feats| self.forward_feats(feats))
    }

    /// The same on bare features `[n, c]`.
    pub fn forward_feats(&self, feats: Tensor<2>) -> Tensor<2> {
        ActivationKind::Gelu(self.approximation).apply(feats)
    }
}

/// Options of [`LeakyRelu`].
#[derive(Config, Debug)]
pub struct LeakyReluConfig {
    /// Slope of the negative side, at least 0.
    #[config(default = 0.01)]
    pub negative_slope: f64,
}

/// `x` where `x >= 0`, else `negative_slope · x`.
#[derive(Module, Debug)]
pub struct LeakyRelu {
    negative_slope: f64,
}

impl LeakyReluConfig {
    /// The module.
    ///
    /// # Panics
    /// A negative slope.
    pub fn init(&self) -> LeakyRelu {
        let negative_slope = self.negative_slope;
        or_panic(ActivationKind::LeakyRelu { negative_slope }.check("LeakyRelu"));
        LeakyRelu { negative_slope }
    }
}

impl LeakyRelu {
    /// The formula.
    pub fn kind(&self) -> ActivationKind {
        ActivationKind::LeakyRelu { negative_slope: self.negative_slope }
    }

    /// Keeps identity and element type.
    pub fn forward(&self, x: &SparseTensor) -> SparseTensor {
        x.clone().map_feats(|feats| self.forward_feats(feats))
    }

    /// The same on bare features `[n, c]`.
    pub fn forward_feats(&self, feats: Tensor<2>) -> Tensor<2> {
        ActivationKind::LeakyRelu { negative_slope: self.negative_slope }.apply(feats)
    }
}

/// Options of [`Softplus`].
#[derive(Config, Debug)]
pub struct SoftplusConfig {
    /// Sharpness, above 0.
    #[config(default = 1.0)]
    pub beta: f64,
    /// Where the straight line takes over, on `beta · x`.
    #[config(default = 20.0)]
    pub threshold: f64,
}

/// `ln(1 + e^(beta · x)) / beta`, and `x` where `beta · x > threshold`.
#[derive(Module, Debug)]
pub struct Softplus {
    beta: f64,
    threshold: f64,
}

impl SoftplusConfig {
    /// The module.
    ///
    /// # Panics
    /// `beta` not above 0.
    pub fn init(&self) -> Softplus {
        let Self { beta, threshold } = *self;
        or_panic(ActivationKind::Softplus { beta, threshold }.check("Softplus"));
        Softplus { beta, threshold }
    }
}

impl Softplus {
    /// The formula.
    pub fn kind(&self) -> ActivationKind {
        ActivationKind::Softplus { beta: self.beta, threshold: self.threshold }
    }

    /// Keeps identity and element type.
    pub fn forward(&self, x: &SparseTensor) -> SparseTensor {
        x.clone().map_feats(|feats| self.forward_feats(feats))
    }

    /// The same on bare features `[n, c]`.
    pub fn forward_feats(&self, feats: Tensor<2>) -> Tensor<2> {
        ActivationKind::Softplus { beta: self.beta, threshold: self.threshold }.apply(feats)
    }
}

//! Element-wise activations. They compute in f32 (f64 for f64 features) and round once.

use std::str::FromStr;

use burn::backend::Flex;
use burn::tensor::{Tensor, activation};

use super::precision::{runs_on_cpu_kernels, widened};
use crate::backend::gelu_on_cpu;
use crate::tensor::check_features;
use crate::{Error, Result, SparseTensor};

/// Which formula [`gelu`] uses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub enum GeluApproximation {
    /// `x / 2 · (1 + erf(x / √2))`; `none` and `precise` in text.
    #[default]
    None,
    /// `x / 2 · (1 + tanh(√(2/π) · (x + 0.044715 · x³)))`.
    Tanh,
    /// `x · sigmoid(1.702 · x)`.
    Fast,
}

impl FromStr for GeluApproximation {
    type Err = Error;

    fn from_str(word: &str) -> Result<Self> {
        match word {
            "none" | "precise" => Ok(Self::None),
            "tanh" => Ok(Self::Tanh),
            "fast" => Ok(Self::Fast),
            _ => Err(Error::Value {
                op: "gelu",
                what: format!("expected one of none, precise, tanh, fast, found `{word}`"),
            }),
        }
    }
}

/// An activation and its attributes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum ActivationKind {
    /// `max(x, 0)`; gradient 0 at 0.
    Relu,
    /// `1 / (1 + e^-x)`.
    Sigmoid,
    /// `tanh x`.
    Tanh,
    /// `x · sigmoid(x)`.
    Silu,
    /// See [`GeluApproximation`].
    Gelu(GeluApproximation),
    /// `x` where `x >= 0`, else `negative_slope · x`.
    LeakyRelu {
        /// At least 0.
        negative_slope: f64,
    },
    /// `x` where `beta · x > threshold`, else `ln(1 + e^(beta · x)) / beta`.
    Softplus {
        /// Sharpness, above 0.
        beta: f64,
        /// Where the straight line takes over.
        threshold: f64,
    },
}

/// The names, with the attributes' defaults: slope 0.01, beta 1, threshold 20, gelu by `erf`.
const KINDS: &[(&str, ActivationKind)] = &[
    ("relu", ActivationKind::Relu),
    ("sigmoid", ActivationKind::Sigmoid),
    ("tanh", ActivationKind::Tanh),
    ("silu", ActivationKind::Silu),
    ("gelu", ActivationKind::Gelu(GeluApproximation::None)),
    ("leaky_relu", ActivationKind::LeakyRelu { negative_slope: 0.01 }),
    ("softplus", ActivationKind::Softplus { beta: 1.0, threshold: 20.0 }),
];

impl FromStr for ActivationKind {
    type Err = Error;

    /// Reads a name such as `leaky_relu`; attributes take their defaults.
    fn from_str(word: &str) -> Result<Self> {
        let found = KINDS.iter().find(|(name, _)| *name == word).map(|(_, kind)| *kind);
        found.ok_or_else(|| Error::Value {
            op: "activation",
            what: format!(
                "expected one of {}, found `{word}`",
                KINDS.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ")
            ),
        })
    }
}

impl ActivationKind {
    /// An activation as graphs write it: a name and all attributes, of which each kind reads its own.
    ///
    /// # Errors
    /// An unknown name or approximation; `alpha` below 0 or `beta` not above 0, whichever kind it is.
    pub fn from_attributes(
        kind: &str,
        approximate: &str,
        alpha: f64,
        beta: f64,
        threshold: f64,
    ) -> Result<Self> {
        let approximation: GeluApproximation = approximate.parse()?;
        Self::LeakyRelu { negative_slope: alpha }.check("activation")?;
        Self::Softplus { beta, threshold }.check("activation")?;
        Ok(match kind.parse()? {
            Self::Gelu(_) => Self::Gelu(approximation),
            Self::LeakyRelu { .. } => Self::LeakyRelu { negative_slope: alpha },
            Self::Softplus { .. } => Self::Softplus { beta, threshold },
            plain => plain,
        })
    }

    /// The name that [`FromStr`] reads.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Relu => "relu",
            Self::Sigmoid => "sigmoid",
            Self::Tanh => "tanh",
            Self::Silu => "silu",
            Self::Gelu(_) => "gelu",
            Self::LeakyRelu { .. } => "leaky_relu",
            Self::Softplus { .. } => "softplus",
        }
    }

    pub(crate) fn check(&self, op: &'static str) -> Result<()> {
        match *self {
            Self::LeakyRelu { negative_slope } if !(negative_slope.is_finite() && negative_slope >= 0.0) => {
                Err(Error::Value {
                    op,
                    what: format!("expected a finite slope of at least 0, found {negative_slope}"),
                })
            }
            Self::Softplus { beta, .. } if !(beta.is_finite() && beta > 0.0) => {
                Err(Error::Value { op, what: format!("expected a finite beta above 0, found {beta}") })
            }
            Self::Softplus { threshold, .. } if threshold.is_nan() => {
                Err(Error::Value { op, what: "expected a threshold that is a number, found NaN".into() })
            }
            _ => Ok(()),
        }
    }

    /// The formula, on checked attributes.
    pub(crate) fn apply(self, feats: Tensor<2>) -> Tensor<2> {
        widened(feats, |x| match self {
            Self::Relu => activation::relu(x),
            Self::Sigmoid => activation::sigmoid(x),
            Self::Tanh => x.tanh(),
            Self::Silu => x.clone() * activation::sigmoid(x),
            Self::Gelu(GeluApproximation::None) if runs_on_cpu_kernels(&x) => {
                let x = x.try_into_primitive::<Flex>().expect("the CPU's tensors are those of Flex");
                Tensor::from_primitive::<Flex>(gelu_on_cpu(x))
            }
            // Written out: a backend's own gelu may have an approximate gradient.
            Self::Gelu(GeluApproximation::None) => {
                x.clone() * ((x * std::f64::consts::FRAC_1_SQRT_2).erf() + 1.0) * 0.5
            }
            Self::Gelu(GeluApproximation::Tanh) => {
                let inner = x.clone() + x.clone() * x.clone() * x.clone() * 0.044_715;
                x * ((inner * 0.797_884_560_802_865_4).tanh() + 1.0) * 0.5
            }
            Self::Gelu(GeluApproximation::Fast) => x.clone() * activation::sigmoid(x * 1.702),
            Self::LeakyRelu { negative_slope } => activation::leaky_relu(x, negative_slope),
            Self::Softplus { beta, threshold } => softplus_formula(x, beta, threshold),
        })
    }
}

/// `ln(1 + e^(beta · x)) / beta`, with `x` itself above the threshold.
fn softplus_formula(x: Tensor<2>, beta: f64, threshold: f64) -> Tensor<2> {
    // Past this the curve is the line in f32, and `exp` is near its end: elements above are computed here too, then replaced.
    let threshold = threshold.min(80.0);
    let scaled = x.clone() * beta;
    let above = scaled.clone().greater_elem(threshold);
    // A product, as the gradient of a division by a number is taken in f32.
    let curve = scaled.mask_fill(above.clone(), threshold).exp().log1p() * (1.0 / beta);
    curve.mask_where(above, x)
}

/// Applies an activation to every feature. Differentiable; keeps identity and element type.
///
/// # Errors
/// A negative slope, or `beta` not above 0.
pub fn activation(x: &SparseTensor, kind: ActivationKind) -> Result<SparseTensor> {
    kind.check("activation")?;
    x.with_feats(kind.apply(x.feats().clone()))
}

/// [`activation`](fn@activation) on bare features `[n, c]`.
///
/// # Errors
/// As [`activation`](fn@activation); also a dtype that is not a float.
pub fn activation_features(feats: Tensor<2>, kind: ActivationKind) -> Result<Tensor<2>> {
    kind.check("activation_features")?;
    check_features("activation_features", &feats)?;
    Ok(kind.apply(feats))
}

/// `max(x, 0)`; gradient 0 at 0.
pub fn relu(x: &SparseTensor) -> SparseTensor {
    x.clone().map_feats(|feats| ActivationKind::Relu.apply(feats))
}

/// `1 / (1 + e^-x)`.
pub fn sigmoid(x: &SparseTensor) -> SparseTensor {
    x.clone().map_feats(|feats| ActivationKind::Sigmoid.apply(feats))
}

/// `tanh x`.
pub fn tanh(x: &SparseTensor) -> SparseTensor {
    x.clone().map_feats(|feats| ActivationKind::Tanh.apply(feats))
}

/// `x · sigmoid(x)`.
pub fn silu(x: &SparseTensor) -> SparseTensor {
    x.clone().map_feats(|feats| ActivationKind::Silu.apply(feats))
}

/// The Gaussian error linear unit by one of its formulas.
pub fn gelu(x: &SparseTensor, approximation: GeluApproximation) -> SparseTensor {
    x.clone().map_feats(|feats| ActivationKind::Gelu(approximation).apply(feats))
}

/// `x` where `x >= 0`, else `negative_slope · x`; the field's usual slope is 0.01.
///
/// # Errors
/// A negative slope.
pub fn leaky_relu(x: &SparseTensor, negative_slope: f64) -> Result<SparseTensor> {
    activation(x, ActivationKind::LeakyRelu { negative_slope })
}

/// `x` where `beta · x > threshold`, else `ln(1 + e^(beta · x)) / beta`; usually beta 1, threshold 20.
///
/// # Errors
/// `beta` not above 0.
pub fn softplus(x: &SparseTensor, beta: f64, threshold: f64) -> Result<SparseTensor> {
    activation(x, ActivationKind::Softplus { beta, threshold })
}

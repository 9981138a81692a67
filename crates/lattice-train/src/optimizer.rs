//! AdamW and SGD over the vector of all parameters.

use burn::tensor::{Bool, Device, Tensor};
use serde::{Deserialize, Serialize};

use crate::{ParameterLayout, Result, TrainError};

/// Which rule moves the parameters.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum OptimizerConfig {
    /// Adam with decoupled weight decay (Loshchilov, Hutter, ICLR 2019).
    AdamW {
        /// Decay of the mean gradient.
        beta1: f64,
        /// Decay of the mean square.
        beta2: f64,
        /// Added to the root of the mean square.
        epsilon: f64,
        /// Share of the rate by which weights shrink; vectors (biases, norms) do not.
        weight_decay: f64,
    },
    /// Gradient descent with momentum; weight decay is added to the gradient of weights.
    Sgd {
        /// Share of the velocity that is kept.
        momentum: f64,
        /// Looks ahead along the velocity.
        nesterov: bool,
        /// Factor of the weights that is added to their gradient; vectors do not decay.
        weight_decay: f64,
    },
}

impl OptimizerConfig {
    /// AdamW with its usual numbers and weight decay 0.01.
    pub fn adamw() -> Self {
        Self::AdamW { beta1: 0.9, beta2: 0.999, epsilon: 1e-8, weight_decay: 0.01 }
    }

    /// SGD with Nesterov momentum 0.9 and weight decay 1e-4.
    pub fn sgd() -> Self {
        Self::Sgd { momentum: 0.9, nesterov: true, weight_decay: 1e-4 }
    }

    /// Refuses numbers that train nothing.
    ///
    /// # Errors
    /// Decays outside `[0, 1)`, an epsilon that is not above 0, a negative weight decay.
    pub fn check(&self) -> Result<()> {
        let share = |v: f64| (0.0..1.0).contains(&v);
        let decays = |v: f64| v.is_finite() && v >= 0.0;
        let fits = match *self {
            Self::AdamW { beta1, beta2, epsilon, weight_decay } => {
                share(beta1) && share(beta2) && epsilon > 0.0 && epsilon.is_finite() && decays(weight_decay)
            }
            Self::Sgd { momentum, weight_decay, .. } => share(momentum) && decays(weight_decay),
        };
        if fits {
            return Ok(());
        }
        let what = format!(
            "expected betas and momentum in [0, 1), an epsilon above 0, a weight decay of 0 or more, found {self:?}"
        );
        Err(TrainError::option("optimizer", what))
    }

    fn state_names(&self) -> &'static [&'static str] {
        match self {
            Self::AdamW { .. } => &["mean", "square"],
            Self::Sgd { .. } => &["velocity"],
        }
    }
}

/// The rule with its state: vectors as long as the parameters.
#[derive(Clone, Debug)]
pub struct Optimizer {
    config: OptimizerConfig,
    matrices: usize,
    pub(crate) state: Vec<Tensor<1>>,
}

impl Optimizer {
    /// State zero, on a device without autodiff.
    pub fn new(config: OptimizerConfig, layout: &ParameterLayout, device: &Device) -> Self {
        let state = config.state_names().iter().map(|_| Tensor::zeros([layout.len()], device)).collect();
        Self { config, matrices: layout.matrix_len(), state }
    }

    /// Names of the state vectors, as checkpoints have them.
    pub(crate) fn state_names(&self) -> &'static [&'static str] {
        self.config.state_names()
    }

    /// The state vectors: AdamW's mean and mean square, or SGD's velocity.
    pub fn state(&self) -> &[Tensor<1>] {
        &self.state
    }

    /// New values after step `step` (from 0) at `rate`. Where `applies` `[1]` is false, values and state stay as they are: decided
    /// on the device, without a wait.
    pub fn step(
        &mut self,
        values: Tensor<1>,
        gradient: Tensor<1>,
        step: usize,
        rate: f64,
        applies: &Tensor<1, Bool>,
    ) -> Tensor<1> {
        let (moved, state) = match self.config {
            OptimizerConfig::AdamW { beta1, beta2, epsilon, weight_decay } => {
                let square =
                    gradient.clone() * gradient.clone() * (1.0 - beta2) + self.state[1].clone() * beta2;
                let mean = gradient * (1.0 - beta1) + self.state[0].clone() * beta1;
                let count = i32::try_from(step).unwrap_or(i32::MAX - 1) + 1;
                let [bias1, bias2] = [beta1, beta2].map(|beta| 1.0 - beta.powi(count));
                let root = (square.clone() / bias2).sqrt() + epsilon;
                let moved =
                    self.shrunk(values.clone(), rate * weight_decay) - mean.clone() / root * (rate / bias1);
                (moved, vec![mean, square])
            }
            OptimizerConfig::Sgd { momentum, nesterov, weight_decay } => {
                let gradient = self.with_decay(gradient, &values, weight_decay);
                let velocity = self.state[0].clone() * momentum + gradient.clone();
                let direction =
                    if nesterov { gradient + velocity.clone() * momentum } else { velocity.clone() };
                (values.clone() - direction * rate, vec![velocity])
            }
        };
        let kept = applies.clone().bool_not().expand(values.dims());
        self.state = state
            .into_iter()
            .zip(&self.state)
            .map(|(new, old)| new.mask_where(kept.clone(), old.clone()))
            .collect();
        moved.mask_where(kept, values)
    }

    /// Weights times `1 - share`, vectors as they are.
    fn shrunk(&self, values: Tensor<1>, share: f64) -> Tensor<1> {
        if share == 0.0 || self.matrices == 0 {
            return values;
        }
        let [n] = values.dims();
        let weights = values.clone().narrow(0, 0, self.matrices) * (1.0 - share);
        if self.matrices == n {
            weights
        } else {
            Tensor::cat(vec![weights, values.narrow(0, self.matrices, n - self.matrices)], 0)
        }
    }

    /// The gradient plus `decay` times the weights.
    fn with_decay(&self, gradient: Tensor<1>, values: &Tensor<1>, decay: f64) -> Tensor<1> {
        if decay == 0.0 || self.matrices == 0 {
            return gradient;
        }
        let [n] = gradient.dims();
        let weights =
            gradient.clone().narrow(0, 0, self.matrices) + values.clone().narrow(0, 0, self.matrices) * decay;
        if self.matrices == n {
            weights
        } else {
            Tensor::cat(vec![weights, gradient.narrow(0, self.matrices, n - self.matrices)], 0)
        }
    }
}

//! A module and the optimizer that moves it, for losses of one's own.

use burn::module::Module;
use burn::tensor::{FloatDType, Tensor};

use crate::{Optimizer, OptimizerConfig, ParameterLayout, Result, TrainError};

/// A module in training on any loss: no scenes, no checkpoints, f32. [`Trainer`](crate::Trainer) is for segmentation.
///
/// ```
/// use burn::nn::LinearConfig;
/// use burn::tensor::{Device, Tensor};
/// use lattice_train::{Descent, OptimizerConfig};
///
/// let device = Device::flex().autodiff();
/// let x = Tensor::<2>::from_floats([[0.0], [1.0], [2.0]], &device);
/// let mut line = Descent::new(LinearConfig::new(1, 1).init(&device), OptimizerConfig::adamw())?;
/// let mut losses = Vec::new();
/// for _ in 0..100 {
///     let error = line.model().forward(x.clone()) - (x.clone() * 2.0 - 1.0);
///     losses.push(line.step((error.clone() * error).mean(), 0.1).into_scalar::<f32>());
/// }
/// assert!(losses[99] < 0.1 * losses[0]);
/// # Ok::<(), lattice_train::TrainError>(())
/// ```
pub struct Descent<M> {
    model: M,
    layout: ParameterLayout,
    values: Tensor<1>,
    optimizer: Optimizer,
    steps: usize,
}

impl<M: Module> Descent<M> {
    /// Takes a module on a device with autodiff.
    ///
    /// # Errors
    /// A module without parameters that require gradients; numbers that train nothing.
    pub fn new(model: M, config: OptimizerConfig) -> Result<Self> {
        config.check()?;
        let layout = ParameterLayout::of(&model);
        if layout.is_empty() {
            let what = "expected a module with parameters on a device with autodiff, found none";
            return Err(TrainError::option("Descent", what));
        }
        let values = layout.values(&model);
        let optimizer = Optimizer::new(config, &layout, &values.device());
        let model = layout.install(model, &values, FloatDType::F32);
        Ok(Self { model, layout, values, optimizer, steps: 0 })
    }

    /// The module with its present parameters; the loss of the next step is made with it.
    pub fn model(&self) -> &M {
        &self.model
    }

    /// One step down the gradient of `loss` `[1]` at a rate; returns the loss, outside of the graph. A gradient that is not finite moves
    /// nothing.
    pub fn step(&mut self, loss: Tensor<1>, rate: f64) -> Tensor<1> {
        let found = loss.clone().inner();
        let gradient = self.layout.gradient(&self.model, &mut loss.backward());
        let finite = (gradient.clone() * gradient.clone()).sum().is_finite();
        self.values = self.optimizer.step(self.values.clone(), gradient, self.steps, rate, &finite);
        self.steps += 1;
        self.model = self.layout.install(self.model.clone(), &self.values, FloatDType::F32);
        found
    }

    /// The module on a device without autodiff, for inference.
    pub fn trained(&self) -> M {
        self.model.valid()
    }
}

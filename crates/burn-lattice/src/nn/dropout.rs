//! Dropout with masks that a seed and a call counter decide.

use std::sync::atomic::{AtomicU64, Ordering};

use burn::config::Config;
use burn::module::{Flag, Module, Param};
use burn::tensor::Tensor;

use super::or_panic;
use crate::SparseTensor;
use crate::ops::{self, DropoutKey};

/// Options of [`Dropout`].
#[derive(Config, Debug)]
pub struct DropoutConfig {
    /// Probability of setting an element to 0, in `[0, 1)`.
    #[config(default = 0.5)]
    pub prob: f64,
    /// Decides the masks, together with the number of the call. Give the layers of a network different seeds.
    #[config(default = 0)]
    pub seed: u64,
}

/// Counts calls; a clone counts on from where it was cloned.
#[derive(Debug, Default)]
struct Calls(AtomicU64);

impl Calls {
    fn next(&self) -> u64 {
        self.0.fetch_add(1, Ordering::Relaxed)
    }
}

impl Clone for Calls {
    fn clone(&self) -> Self {
        Self(AtomicU64::new(self.0.load(Ordering::Relaxed)))
    }
}

/// Sets elements to 0 at random in training (features on a device with autodiff) and scales the others by `1 / (1 - prob)`.
///
/// The masks depend on the seed and on how often this module ran in training, not on threads or devices. Elsewhere, and in a
/// frozen module, it passes its input on.
#[derive(Module, Debug)]
pub struct Dropout {
    /// Probability of setting an element to 0.
    pub prob: f64,
    /// Whether the module takes part in training; freezing clears it.
    pub training: Param<Flag>,
    seed: u64,
    #[module(skip)]
    calls: Calls,
}

impl DropoutConfig {
    /// The module.
    ///
    /// # Panics
    /// A probability outside `[0, 1)`.
    pub fn init(&self) -> Dropout {
        or_panic(ops::check_dropout("Dropout", self.prob));
        Dropout {
            prob: self.prob,
            training: Param::from_bool(true),
            seed: self.seed,
            calls: Calls::default(),
        }
    }
}

impl Dropout {
    /// Sets the number of the next call in training, from which later ones count on: a run that goes on from a checkpoint then draws what it
    /// would have drawn.
    pub fn set_call(&self, number: u64) {
        self.calls.0.store(number, Ordering::Relaxed);
    }

    /// Keeps identity and element type.
    pub fn forward(&self, x: &SparseTensor) -> SparseTensor {
        x.clone().map_feats(|feats| self.forward_feats(feats))
    }

    /// The same on bare features `[n, c]`.
    pub fn forward_feats(&self, feats: Tensor<2>) -> Tensor<2> {
        if self.prob == 0.0 || !self.training.is_enabled() || !feats.is_autodiff() {
            return feats;
        }
        let key = DropoutKey { seed: self.seed, call: self.calls.next() };
        or_panic(ops::dropout_features(feats, self.prob, key))
    }
}

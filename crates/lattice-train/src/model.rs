//! Networks that give each voxel a score a class.

use burn::module::Module;
use burn::tensor::Device;
use burn_lattice::SparseTensor;
use lattice_models::{MINKUNET_NAMES, MinkUNet, MinkUNetConfig, seed_parameters};

use crate::input::INPUT_CHANNELS;
use crate::{Result, TrainError};

/// The network that `lattice train` takes where none is named.
pub const DEFAULT_MODEL: &str = "minkunet-small";

/// A network from features on voxels to scores on the same voxels.
pub trait Segmenter: Module {
    /// `[n, INPUT_CHANNELS]` to `[n, classes]` on the same rows.
    ///
    /// # Errors
    /// What its layers refuse.
    fn scores(&self, x: &SparseTensor) -> burn_lattice::Result<SparseTensor>;
}

impl Segmenter for MinkUNet {
    fn scores(&self, x: &SparseTensor) -> burn_lattice::Result<SparseTensor> {
        self.try_forward(x)
    }
}

/// A network by its name, with weights drawn from a seed.
///
/// # Errors
/// An unknown name, no classes, or more than 254.
pub fn build_model(name: &str, classes: usize, seed: u64, device: &Device) -> Result<MinkUNet> {
    if !(1..255).contains(&classes) {
        return Err(TrainError::option("classes", format!("expected 1 to 254 classes, found {classes}")));
    }
    let config = MinkUNetConfig::named(name, INPUT_CHANNELS, classes).map_err(|_| {
        let what = format!("expected one of {}, found `{name}`", MINKUNET_NAMES.join(", "));
        TrainError::option("--model", what)
    })?;
    Ok(seed_parameters(config.init(device), seed))
}

//! The networks that `lattice run` takes, with the weights' own channels and classes.

use std::path::Path;

use anyhow::{Result, anyhow, bail, ensure};
use burn::tensor::{Device, Tensor};
use burn_lattice::SparseTensor;
use burn_lattice::ops::{self, VoxelGrid};
use lattice_models::{MinkUNet, ModelSpec, Network, PtV3, Spvcnn, Task, zoo_names};

use crate::weights;

/// The network that runs where none is asked for.
const DEFAULT: &str = "minkunet18";

/// Most classes: labels are bytes, and 255 means none.
const MOST_CLASSES: usize = 255;

/// A network that scores voxels or points.
#[allow(clippy::large_enum_variant, reason = "there is one")]
pub enum Segmenter {
    /// Scores of voxels.
    Unet(MinkUNet),
    /// Scores of voxels.
    Transformer(PtV3),
    /// Scores of points.
    Points(Spvcnn),
}

/// The network that the arguments ask for: the weights' own, where their file names one.
///
/// # Errors
/// A name that is not in the list or contradicts the weights; too many classes.
pub fn choose(
    name: Option<&str>,
    weights: Option<&Path>,
    channels: usize,
    classes: usize,
) -> Result<ModelSpec> {
    let known = zoo_names(Some(Task::Segmentation));
    let listed = |name: &str| known.contains(&name);
    if let Some(name) = name
        && !listed(name)
    {
        bail!("--model: expected one of {}, found `{name}`", known.join(", "));
    }
    let of_file = match weights {
        Some(path) => lattice_import::model_of(path).map_err(|e| anyhow!("--weights {e}"))?,
        None => None,
    };
    let Some(spec) = of_file else {
        return Ok(ModelSpec::new(name.unwrap_or(DEFAULT).into(), channels).with_classes(classes));
    };
    if let Some(name) = name
        && name != spec.name
    {
        bail!(
            "--model: expected {}, for which the weights were imported, found {name}; leave it out",
            spec.name
        );
    }
    ensure!(
        listed(&spec.name),
        "--weights: expected weights of a network that scores voxels, found those of {}; run takes {}",
        spec.name,
        known.join(", ")
    );
    ensure!(
        spec.classes <= MOST_CLASSES,
        "--weights: expected at most {MOST_CLASSES} classes, found {}",
        spec.classes
    );
    Ok(spec)
}

impl Segmenter {
    /// Makes the network, with weights of a file or drawn from a seed.
    ///
    /// # Errors
    /// Weights that do not fit.
    pub fn load(spec: &ModelSpec, weights: Option<&Path>, seed: u64, device: &Device) -> Result<Self> {
        /// The module with the file's weights, where there is a file.
        macro_rules! filled {
            ($module:expr) => {
                match weights {
                    Some(path) => weights::load($module, path, &spec.name)?,
                    None => $module,
                }
            };
        }
        Ok(match spec.init(device).map_err(|e| anyhow!("--model: {e}"))?.seeded(seed) {
            Network::MinkUNet(unet) => Self::Unet(filled!(unet)),
            Network::PtV3(transformer) => Self::Transformer(filled!(transformer)),
            Network::Spvcnn(points) => Self::Points(filled!(points)),
            _ => bail!("--model: expected a network that scores voxels, found `{}`", spec.name),
        })
    }

    /// Runs the network: scores of voxels, or of the points themselves.
    ///
    /// # Errors
    /// Those of the network.
    pub fn forward(&self, voxels: &SparseTensor, points: &Tensor<2>, grid: &VoxelGrid) -> Result<Scores> {
        Ok(match self {
            Self::Unet(unet) => Scores::Voxels(unet.try_forward(voxels)?),
            Self::Transformer(transformer) => Scores::Voxels(transformer.try_forward(voxels)?),
            Self::Points(network) => {
                Scores::Points(network.try_forward_from(voxels, points.clone(), None, grid)?)
            }
        })
    }
}

/// What a network scored.
pub enum Scores {
    /// One row a voxel.
    Voxels(SparseTensor),
    /// `[points, classes]`.
    Points(Tensor<2>),
}

impl Scores {
    /// Scores of every point: a voxel's scores belong to its centre.
    ///
    /// # Errors
    /// Those of devoxelization.
    pub fn at(self, points: Tensor<2>, centres: VoxelGrid) -> Result<Tensor<2>> {
        Ok(match self {
            Self::Points(scores) => scores,
            Self::Voxels(scores) => {
                let options = ops::DevoxelizeOptions::new(centres).with_renormalize(true);
                ops::devoxelize(&scores, points, None, &options)?
            }
        })
    }
}

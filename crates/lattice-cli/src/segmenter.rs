//! The networks that `lattice run` takes, with the weights' own channels and classes.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Result, anyhow, bail, ensure};
use burn::module::Module;
use burn::tensor::{Device, FloatDType, Tensor};
use burn_lattice::SparseTensor;
use burn_lattice::nn::{LayerMut, Layers};
use burn_lattice::ops::{self, VoxelGrid};
use lattice_models::{MinkUNet, ModelSpec, Network, PtV3, Spvcnn, Task, zoo_names};
use lattice_train::INPUT_CHANNELS;

use crate::{shipped, weights};

/// The network that runs where none is asked for.
pub const DEFAULT: &str = "minkunet18";

/// Most classes: labels are bytes, and 255 means none.
const MOST_CLASSES: usize = 255;

/// A network that scores voxels or points.
#[allow(clippy::large_enum_variant, reason = "there is one")]
#[derive(Clone)]
pub enum Segmenter {
    /// Scores of voxels.
    Unet(MinkUNet),
    /// Scores of voxels.
    Transformer(PtV3),
    /// Scores of points.
    Points(Spvcnn),
}

/// A network by name, with what its weights say of it.
pub struct Choice<'a> {
    /// The network.
    pub spec: ModelSpec,
    /// Names of the classes, in the order of the scores.
    pub classes: Vec<String>,
    /// Edge of the voxels of the training, where the weights say.
    pub voxel_size: Option<f64>,
    /// Where the weights are.
    pub source: Source<'a>,
}

/// Where a network's weights come from.
#[derive(Clone, Copy)]
pub enum Source<'a> {
    /// Drawn from the seed of the command.
    Seed,
    /// A file.
    File(&'a Path),
    /// Those that come with the command.
    Shipped,
}

/// The network that the arguments ask for: the weights' own, where their file names one; `otherwise` where nothing names any.
///
/// # Errors
/// A name that is not in the list or contradicts the weights; too many classes; weights that cannot be read or whose input cannot be
/// computed.
pub fn choose<'a>(
    name: Option<&str>,
    weights: Option<&'a Path>,
    channels: usize,
    otherwise: &str,
) -> Result<Choice<'a>> {
    let known = zoo_names(Some(Task::Segmentation));
    let listed = |name: &str| known.contains(&name);
    if let Some(name) = name
        && !listed(name)
    {
        bail!("--model: expected one of {}, found `{name}`", known.join(", "));
    }
    let Some(choice) = of_file(weights)? else {
        let classes = weights::lidar_classes();
        let spec = ModelSpec::new(name.unwrap_or(otherwise).into(), channels).with_classes(classes.len());
        let source = weights.map_or(Source::Seed, Source::File);
        return Ok(Choice { spec, classes, voxel_size: None, source });
    };
    let spec = &choice.spec;
    weights::check_name(name, &spec.name)?;
    ensure!(
        listed(&spec.name),
        "--weights: expected weights of a network that scores voxels, found those of {}; known are {}",
        spec.name,
        known.join(", ")
    );
    ensure!(
        spec.classes <= MOST_CLASSES,
        "--weights: expected at most {MOST_CLASSES} classes, found {}",
        spec.classes
    );
    Ok(choice)
}

/// What a file of weights says of its network: trained here, or imported.
fn of_file(weights: Option<&Path>) -> Result<Option<Choice<'_>>> {
    let Some(path) = weights.filter(|path| path.is_file()) else { return Ok(None) };
    let source = Source::File(path);
    if let Some(info) = weights::info(Some(path))? {
        let spec = ModelSpec::new(info.model, INPUT_CHANNELS).with_classes(info.classes.len());
        let (classes, voxel_size) = (info.classes, Some(info.voxel_size));
        return Ok(Some(Choice { spec, classes, voxel_size, source }));
    }
    let imported = lattice_import::model_of(path).map_err(|e| anyhow!("--weights {e}"))?;
    Ok(imported.map(|spec| Choice { classes: names_of(&spec), spec, voxel_size: None, source }))
}

/// Names of the classes of a network whose weights name none: those of another data set have no names here.
fn names_of(spec: &ModelSpec) -> Vec<String> {
    let lidar = weights::lidar_classes();
    match spec.classes == lidar.len() {
        true => lidar,
        false => (0..spec.classes).map(|class| format!("class {class}")).collect(),
    }
}

impl Segmenter {
    /// Makes the network with its weights.
    ///
    /// # Errors
    /// Weights that do not fit.
    pub fn load(choice: &Choice<'_>, seed: u64, device: &Device) -> Result<Self> {
        let spec = &choice.spec;
        /// The module with the weights that were chosen.
        macro_rules! filled {
            ($module:expr) => {
                match choice.source {
                    Source::File(path) => weights::load($module, path, &spec.name)?,
                    Source::Shipped => weights::load_bytes($module, shipped::WEIGHTS, &spec.name)?,
                    Source::Seed => $module,
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

impl Layers for Segmenter {
    fn visit_layers(&mut self, path: &str, visit: &mut dyn FnMut(LayerMut<'_>)) {
        match self {
            Self::Unet(unet) => unet.visit_layers(path, visit),
            Self::Transformer(transformer) => transformer.visit_layers(path, visit),
            Self::Points(points) => points.visit_layers(path, visit),
        }
    }
}

impl Segmenter {
    /// Casts the float weights of layers; norms and biases keep their f32.
    pub fn cast_weights(&mut self, dtype: FloatDType) {
        self.visit_layers("", &mut |mut layer| {
            if let Some(weight) = layer.float_weight() {
                layer.set_float(weight.cast(dtype));
            }
        });
    }

    /// The network on a device.
    pub fn to_device(&self, device: &Device) -> Self {
        match self.clone() {
            Self::Unet(unet) => Self::Unet(unet.to_device(device)),
            Self::Transformer(transformer) => Self::Transformer(transformer.to_device(device)),
            Self::Points(points) => Self::Points(points.to_device(device)),
        }
    }

    /// Modules outside layers that stay float.
    pub fn kept_modules(&mut self) -> Vec<lattice_quantize::KeptModule> {
        match self {
            Self::Unet(unet) => lattice_quantize::kept_modules(unet),
            Self::Transformer(transformer) => lattice_quantize::kept_modules(transformer),
            Self::Points(points) => lattice_quantize::kept_modules(points),
        }
    }

    /// Bytes of the parameters as a file of packed weights stores them, and of as many values in f32.
    pub fn stored_bytes(&mut self) -> (usize, usize) {
        match self {
            Self::Unet(unet) => lattice_quantize::parameter_bytes(unet),
            Self::Transformer(transformer) => lattice_quantize::parameter_bytes(transformer),
            Self::Points(points) => lattice_quantize::parameter_bytes(points),
        }
    }

    /// Writes the network with its packed weights; the bytes of the file.
    ///
    /// # Errors
    /// What the system refuses.
    pub fn save(&mut self, path: &Path, texts: &BTreeMap<String, String>) -> lattice_quantize::Result<usize> {
        match self {
            Self::Unet(unet) => lattice_quantize::save(unet, path, texts),
            Self::Transformer(transformer) => lattice_quantize::save(transformer, path, texts),
            Self::Points(points) => lattice_quantize::save(points, path, texts),
        }
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

//! Weights from a safetensors file, all of them or none, and the network that they are for.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Result, anyhow, bail};
use burn::module::{Module, ModuleMapper, Param};
use burn::tensor::{Device, FloatDType, Tensor};
use burn_lattice::nn::Layers;
use burn_store::{ApplyError, ApplyResult, ModuleSnapshot, SafetensorsStore};
use lattice_scenes::{SceneKind, class_names};
use lattice_train::{SegmentationNet, TensorFile, WeightsInfo, build_model};

/// A network by name, with what its weights say of it.
pub struct Network<'a> {
    weights: Option<&'a Path>,
    /// Name of the network.
    pub model: String,
    /// Names of the classes, in the order of the scores.
    pub classes: Vec<String>,
    /// Edge of the voxels of the training, where the weights say.
    pub voxel_size: Option<f64>,
}

/// The network that weights describe, or that is asked for by name; else `otherwise`, with the lidar classes.
///
/// # Errors
/// Weights that cannot be read or whose input cannot be computed; a name that differs from that in the weights.
pub fn network<'a>(weights: Option<&'a Path>, asked: Option<&str>, otherwise: &str) -> Result<Network<'a>> {
    Ok(match info(weights)? {
        Some(WeightsInfo { model, classes, voxel_size, .. }) => {
            check_name(asked, &model)?;
            Network { weights, model, classes, voxel_size: Some(voxel_size) }
        }
        None => {
            let (model, classes) = (asked.unwrap_or(otherwise).into(), lidar_classes());
            Network { weights, model, classes, voxel_size: None }
        }
    })
}

/// What a file of weights that were trained here says of its network; what is no file is refused when it is loaded, with more to say.
///
/// # Errors
/// A file that cannot be read or whose input cannot be computed.
pub fn info(weights: Option<&Path>) -> Result<Option<WeightsInfo>> {
    match weights {
        Some(path) if path.is_file() => WeightsInfo::read(path).map_err(|e| anyhow!("--weights {e}")),
        _ => Ok(None),
    }
}

/// Refuses a name that differs from that of the network which the weights are of.
///
/// # Errors
/// As said.
pub fn check_name(asked: Option<&str>, model: &str) -> Result<()> {
    match asked {
        Some(asked) if asked != model => {
            bail!("--model: expected {model}, which the weights are of, found {asked}; leave it out")
        }
        _ => Ok(()),
    }
}

/// The classes of networks whose weights name none.
pub fn lidar_classes() -> Vec<String> {
    class_names(SceneKind::Lidar).iter().map(ToString::to_string).collect()
}

impl Network<'_> {
    /// The network with its weights, or with those that a seed draws where it has none.
    ///
    /// # Errors
    /// An unknown name; what [`load`] refuses.
    pub fn load(&self, seed: u64, device: &Device) -> Result<SegmentationNet> {
        let model = build_model(&self.model, self.classes.len(), seed, device)?;
        match self.weights {
            Some(path) => load(model, path, &self.model),
            None => Ok(model),
        }
    }
}

/// Loads every parameter of `model` from a file; `name` is the model's name in messages. Half and double precision become f32; packed
/// weights of `lattice quantize` stay packed.
///
/// # Errors
/// A file that cannot be read, is no safetensors file, lacks a parameter, holds one of another shape or type, or holds tensors that
/// the model does not have.
pub fn load<M: Module + ModuleSnapshot + Layers>(model: M, path: &Path, name: &str) -> Result<M> {
    let file = path.display();
    match std::fs::metadata(path) {
        Err(e) => bail!("--weights {file}: expected a .safetensors file, found: {e}; check the path"),
        Ok(meta) if !meta.is_file() => {
            bail!(
                "--weights {file}: expected a .safetensors file, found a folder or a device; name the file in it"
            )
        }
        Ok(_) => {}
    }
    if TensorFile::read_texts(path).is_ok_and(|texts| texts.contains_key(lattice_quantize::KEY)) {
        let device = model.devices().into_iter().next().unwrap_or_default();
        return lattice_quantize::load(model, path, &device).map_err(|e| anyhow!("--weights {e}"));
    }
    apply(model, SafetensorsStore::from_file(path), &file.to_string(), name)
}

/// Whether the texts of a file name no network.
pub fn says_nothing(texts: &BTreeMap<String, String>) -> bool {
    !["lattice.network", lattice_import::MODEL_KEY].iter().any(|key| texts.contains_key(*key))
}

/// [`load`] of weights that are in memory.
///
/// # Errors
/// As [`load`].
pub fn load_bytes<M: Module + ModuleSnapshot>(model: M, bytes: &[u8], name: &str) -> Result<M> {
    apply(model, SafetensorsStore::from_bytes(Some(bytes.to_vec())), "(shipped)", name)
}

fn apply<M: Module + ModuleSnapshot>(
    mut model: M,
    store: SafetensorsStore,
    file: &str,
    name: &str,
) -> Result<M> {
    let mut store = store.allow_partial(true).validate(false);
    let applied = model.load_from(&mut store).map_err(|e| {
        anyhow!(
            "--weights {file}: expected a complete .safetensors file, found: {e}; save or download it again"
        )
    })?;
    if let Some(fault) = misfit(&applied) {
        bail!(
            "--weights {file}: does not fit {name}: {fault}; name the model it was saved from with --model"
        );
    }
    Ok(model.map(&mut ToF32))
}

/// The first thing that does not fit, with the number of others.
fn misfit(applied: &ApplyResult) -> Option<String> {
    let others = |n: usize| if n > 1 { format!(" (and {} more such)", n - 1) } else { String::new() };
    if let Some(error) = applied.errors.first() {
        let text = match error {
            ApplyError::ShapeMismatch { path, expected, found } => {
                format!("`{path}`: expected shape {:?}, found {:?}", expected.as_slice(), found.as_slice())
            }
            ApplyError::DTypeMismatch { path, expected, found } => {
                format!("`{path}`: expected {expected:?} values, found {found:?}")
            }
            ApplyError::AdapterError { path, message } | ApplyError::LoadError { path, message } => {
                format!("`{path}`: cannot be read: {message}")
            }
        };
        return Some(text + &others(applied.errors.len()));
    }
    if let Some((path, _)) = applied.missing.first() {
        return Some(format!("expected the parameter `{path}`, found none{}", others(applied.missing.len())));
    }
    let path = applied.unused.first()?;
    Some(format!("expected no tensor `{path}`, found one{}", others(applied.unused.len())))
}

/// Networks compute in f32 here, whatever the file stores.
struct ToF32;

impl ModuleMapper for ToF32 {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let (id, tensor, mapper) = param.consume();
        Param::from_mapped_value(id, tensor.cast(FloatDType::F32), mapper)
    }
}

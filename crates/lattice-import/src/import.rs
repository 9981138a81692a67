//! From a checkpoint's tensors to the parameters of a network.

use std::collections::{BTreeMap, HashMap};
use std::io::Read;
use std::path::Path;

use burn::tensor::Device;
use lattice_models::{ModelSpec, ParameterPlace, ParameterRole};
use regex::Regex;
use safetensors::tensor::{Dtype, TensorView};
use serde::Serialize;

use crate::checkpoint::{Stored, Tensors, read_checkpoint};
use crate::layout::{Axes, WeightRule, WeightTarget, fits, to_taps};
use crate::mapping::{EvenKernels, GenerativeTaps, Mapping, MatrixLayout};
use crate::{ImportError, Mismatch, Result, WeightLayout};

/// Key of the metadata that names the network, as JSON of a [`ModelSpec`].
pub const MODEL_KEY: &str = "lattice.model";

/// Parameters of a network, read from a checkpoint.
#[derive(Clone, Debug)]
pub struct Imported {
    /// The network, with the channels and classes of the checkpoint.
    pub spec: ModelSpec,
    /// Shape and values of every parameter by path.
    pub parameters: BTreeMap<String, (Vec<usize>, Vec<f32>)>,
    /// What was done.
    pub report: ImportReport,
}

/// What an import did.
#[derive(Clone, Debug, Serialize)]
pub struct ImportReport {
    /// Layout of the convolution weights, where there are any.
    pub layout: Option<WeightLayout>,
    /// Columns that their kernels' dimensions follow.
    pub axes: Axes,
    /// Tensors that were taken.
    pub taken: usize,
    /// Tensors that hold no parameter, by their name in the file.
    pub ignored: Vec<String>,
    /// Tensors outside the network's part of the file, by their name in the file.
    pub outside: Vec<String>,
}

/// Reads a checkpoint for a network; see [`import`].
///
/// # Errors
/// As [`read_checkpoint`] and [`import`].
pub fn import_file(path: &Path, spec: &ModelSpec, mapping: &Mapping) -> Result<Imported> {
    import(&read_checkpoint(path)?, spec, mapping)
}

/// Turns a checkpoint's tensors into the parameters of a network. Input channels and classes are those of the checkpoint: the spec's
/// are not used where the network's first weight and its head say them.
///
/// # Errors
/// [`ImportError::Mismatch`] with every name that is missing, unknown or does not fit; [`ImportError::Ambiguous`] where weights fit
/// several layouts; a pattern that is not one; an unknown network.
pub fn import(tensors: &Tensors, spec: &ModelSpec, mapping: &Mapping) -> Result<Imported> {
    let named = rename(tensors, mapping)?;
    let spec = widths(spec, &named, mapping)?;
    let network = spec.init(&Device::flex()).map_err(|e| ImportError::Model(e.to_string()))?;
    let places = network.parameters();
    let mut mismatch = Mismatch { model: spec.name.clone(), ..Mismatch::default() };
    for (path, tensor) in &named.tensors {
        if !places.iter().any(|p| p.path == *path) {
            let renamed = if tensor.name == *path { String::new() } else { format!(" (as `{path}`)") };
            mismatch.unknown.push(format!("`{}`{renamed}", tensor.name));
        }
    }
    mismatch.misfits.extend(named.twice);
    let found = |place: &ParameterPlace| named.tensors.get(&place.path);
    for place in &places {
        if found(place).is_none() {
            mismatch.missing.push(format!("`{}` {:?}", place.path, place.shape));
        }
    }
    let layout = common_layout(&places, &named.tensors, mapping, &mut mismatch)?;
    let mut parameters = BTreeMap::new();
    for place in &places {
        let Some(tensor) = found(place) else { continue };
        match convert(place, tensor, layout, mapping) {
            Ok(values) => {
                parameters.insert(place.path.clone(), (place.shape.clone(), values));
            }
            Err(fault) => mismatch.misfits.push(format!("`{}`: {fault}", tensor.name)),
        }
    }
    if !mismatch.is_empty() {
        for list in [&mut mismatch.misfits, &mut mismatch.missing, &mut mismatch.unknown] {
            list.sort();
            list.dedup();
        }
        return Err(ImportError::Mismatch(Box::new(mismatch)));
    }
    let report = ImportReport {
        layout,
        axes: mapping.axes.unwrap_or(Axes::XYZ),
        taken: parameters.len(),
        ignored: named.ignored,
        outside: named.outside,
    };
    Ok(Imported { spec, parameters, report })
}

/// The path in a network that a mapping gives to each tensor of a file; none where it holds no parameter or lies outside.
///
/// # Errors
/// A pattern that is not one.
pub fn paths(tensors: &Tensors, mapping: &Mapping) -> Result<BTreeMap<String, Option<String>>> {
    let renamed = rename(tensors, mapping)?;
    let mut paths: BTreeMap<String, Option<String>> =
        tensors.keys().map(|name| (name.clone(), None)).collect();
    for (path, tensor) in renamed.tensors {
        paths.insert(tensor.name.into(), Some(path));
    }
    Ok(paths)
}

/// A tensor with its name in the file.
struct Named<'a> {
    name: &'a str,
    stored: &'a Stored,
}

/// Tensors by the network's paths.
struct Renamed<'a> {
    tensors: BTreeMap<String, Named<'a>>,
    ignored: Vec<String>,
    outside: Vec<String>,
    /// Names that were given twice.
    twice: Vec<String>,
}

/// Dictionaries that hold the parameters beside other things.
const ROOTS: [&str; 4] = ["state_dict.", "model_state.", "model_state_dict.", "net_state_dict."];
/// Prefixes that wrappers give to all parameters.
const WRAPPERS: [&str; 4] = ["module.", "model.", "net.", "network."];
/// What training leaves beside the parameters.
const TRAINING: [&str; 7] = ["optimizer", "optim", "lr_scheduler", "scheduler", "ema", "scaler", "epoch"];

fn rename<'a>(tensors: &'a Tensors, mapping: &Mapping) -> Result<Renamed<'a>> {
    let pattern = |text: &String| {
        Regex::new(text).map_err(|e| ImportError::Mapping(format!("expected a pattern, found `{text}`: {e}")))
    };
    let ignore: Vec<Regex> = mapping.ignore.iter().map(pattern).collect::<Result<_>>()?;
    let renames: Vec<(Regex, &str)> =
        mapping.rename.iter().map(|(from, to)| Ok((pattern(from)?, to.as_str()))).collect::<Result<_>>()?;

    let mut outside = Vec::new();
    // (name in the file, name inside its part)
    let mut parts: Vec<(&str, &str)> = tensors.keys().map(|name| (name.as_str(), name.as_str())).collect();
    let mut keep_only = |parts: &mut Vec<(&'a str, &'a str)>, prefix: &str| {
        parts.retain_mut(|(name, inner)| match inner.strip_prefix(prefix) {
            Some(rest) => {
                *inner = rest;
                true
            }
            None => {
                outside.push((*name).to_owned());
                false
            }
        });
    };
    if let Some(root) = ROOTS.iter().find(|root| parts.iter().any(|(_, inner)| inner.starts_with(*root))) {
        keep_only(&mut parts, root);
    }
    let of_training = |inner: &str| TRAINING.iter().any(|t| inner.split('.').next() == Some(t));
    while let Some(wrapper) = WRAPPERS.iter().find(|wrapper| {
        let mut own = parts.iter().filter(|(_, inner)| !of_training(inner)).peekable();
        own.peek().is_some() && own.all(|(_, inner)| inner.starts_with(*wrapper))
    }) {
        keep_only(&mut parts, wrapper);
    }
    if let Some(scope) = mapping.scope.iter().find(|s| parts.iter().any(|(_, inner)| inner.starts_with(*s))) {
        keep_only(&mut parts, scope);
    }

    let mut renamed = Renamed { tensors: BTreeMap::new(), ignored: Vec::new(), outside, twice: Vec::new() };
    for (name, inner) in parts {
        if ignore.iter().any(|pattern| pattern.is_match(inner)) {
            renamed.ignored.push(name.into());
            continue;
        }
        let path =
            renames.iter().fold(inner.to_owned(), |path, (from, to)| from.replace(&path, *to).into_owned());
        let tensor = Named { name, stored: &tensors[name] };
        if let Some(other) = renamed.tensors.insert(path.clone(), tensor) {
            renamed.twice.push(format!(
                "`{name}`: expected a place of its own, found `{}` at `{path}` too",
                other.name
            ));
        }
    }
    Ok(renamed)
}

/// The spec with the checkpoint's input channels and classes.
fn widths(spec: &ModelSpec, named: &Renamed<'_>, mapping: &Mapping) -> Result<ModelSpec> {
    let mut spec = spec.clone();
    if mapping.norm_eps.is_some() {
        spec.norm_eps = mapping.norm_eps;
    }
    let probe = ModelSpec { in_channels: 1, classes: 1, ..spec.clone() };
    let network = probe.init(&Device::flex()).map_err(|e| ImportError::Model(e.to_string()))?;
    let places = network.parameters();
    let first = places.iter().find(|p| matches!(p.role, ParameterRole::Convolution(_)) && p.shape[1] == 1);
    if let Some(first) = first
        && let Some(tensor) = named.tensors.get(&first.path)
    {
        let each: usize = first.shape.iter().product();
        let (n, rest) = (tensor.stored.len() / each, tensor.stored.len() % each);
        if n > 0 && rest == 0 {
            spec.in_channels = n;
        }
    }
    let head =
        ["head.conv.bias", "head.bias", "classifier.bias"].iter().find_map(|path| named.tensors.get(*path));
    if let Some(head) = head
        && head.stored.len() > 0
    {
        spec.classes = head.stored.len();
    }
    Ok(spec)
}

/// Kernel and channels of a convolution's weight.
fn target(place: &ParameterPlace) -> Option<WeightTarget> {
    use ParameterRole::{Convolution, Generative, Transposed};
    match place.role {
        Convolution(kernel) | Transposed(kernel) | Generative(kernel) => {
            Some(WeightTarget { kernel, c_in: place.shape[1], c_out: place.shape[2] })
        }
        _ => None,
    }
}

fn rule(place: &ParameterPlace, layout: WeightLayout, mapping: &Mapping) -> WeightRule {
    WeightRule {
        layout,
        axes: mapping.axes.unwrap_or(Axes::XYZ),
        tap_order: mapping.tap_order,
        unit_kernel: mapping.unit_kernel,
        mirrored: matches!(place.role, ParameterRole::Generative(_))
            && mapping.generative == GenerativeTaps::Forward,
    }
}

/// Grouped and plain weights of one library stand side by side: the number of dimensions tells them apart.
fn grouped(layout: WeightLayout, shape: &[usize], target: &WeightTarget) -> WeightLayout {
    let depthwise = shape.len() == 2 && target.kernel != [1; 3];
    match layout {
        WeightLayout::TapsInOut if shape.len() == 4 || depthwise => WeightLayout::TapsGroupInOut,
        layout => layout,
    }
}

/// The one layout that every convolution weight fits, of those that the library may have used.
fn common_layout(
    places: &[ParameterPlace],
    tensors: &BTreeMap<String, Named<'_>>,
    mapping: &Mapping,
    mismatch: &mut Mismatch,
) -> Result<Option<WeightLayout>> {
    if mapping.layout.is_some() {
        return Ok(mapping.layout);
    }
    let mut left = mapping.layouts_tried.clone();
    let mut undecided: Option<(&str, &[usize])> = None;
    let mut faults = false;
    for place in places {
        let (Some(target), Some(tensor)) = (target(place), tensors.get(&place.path)) else { continue };
        let own = mapping.layouts.contains_key(&place.path)
            || (mapping.transposed_layout.is_some() && matches!(place.role, ParameterRole::Transposed(_)));
        let shape = tensor.stored.shape.as_slice();
        if own || shape.len() == 2 && target.kernel == [1; 3] {
            continue;
        }
        let fitting = |layout: &WeightLayout| {
            fits(shape, &rule(place, grouped(*layout, shape, &target), mapping), &target)
        };
        if !mapping.layouts_tried.iter().any(fitting) {
            faults = true;
            continue;
        }
        left.retain(fitting);
        if undecided.is_none() {
            undecided = Some((tensor.name, shape));
        }
    }
    // What fits no layout is named with the others when it is converted.
    if faults || undecided.is_none() {
        return Ok(left.first().or(mapping.layouts_tried.first()).copied());
    }
    match (left.as_slice(), undecided) {
        ([layout], _) => Ok(Some(*layout)),
        ([], Some((name, shape))) => {
            mismatch.misfits.push(format!(
                "`{name}`: expected weights in one layout of {}, found shape {shape:?} beside others in another",
                layout_names(&mapping.layouts_tried).join(", ")
            ));
            Ok(mapping.layouts_tried.first().copied())
        }
        (several, Some((name, shape))) => Err(ImportError::Ambiguous {
            name: name.into(),
            shape: shape.to_vec(),
            candidates: layout_names(several),
        }),
        (_, None) => Ok(None),
    }
}

fn layout_names(layouts: &[WeightLayout]) -> Vec<String> {
    let name = |layout: &WeightLayout| match serde_json::to_value(layout) {
        Ok(serde_json::Value::String(name)) => name,
        _ => format!("{layout:?}"),
    };
    layouts.iter().map(name).collect()
}

fn misfit(place: &ParameterPlace, stored: &Stored, layouts: &[WeightLayout]) -> String {
    let at = &place.path;
    match target(place) {
        Some(WeightTarget { kernel, c_in, c_out }) => format!(
            "expected {c_in} to {c_out} channels over {kernel:?} cells of x, y, z in the layout {}, found shape {:?} (for `{at}`)",
            layout_names(layouts).join(" or "),
            stored.shape
        ),
        None => format!("expected shape {:?}, found {:?} (for `{at}`)", place.shape, stored.shape),
    }
}

/// Values of one parameter.
fn convert(
    place: &ParameterPlace,
    tensor: &Named<'_>,
    common: Option<WeightLayout>,
    mapping: &Mapping,
) -> Result<Vec<f32>, String> {
    let stored = tensor.stored;
    let values = stored.values()?;
    if let Some(at) = values.iter().position(|v| !v.is_finite()) {
        return Err(format!("expected finite values, found {} at {at}", values[at]));
    }
    let Some(target) = target(place) else {
        return match place.role {
            ParameterRole::Linear => linear(place, tensor, values),
            // MinkowskiEngine keeps biases as rows.
            _ if stored.len() == place.shape[0]
                && stored.shape.iter().all(|&d| d == 1 || d == stored.len()) =>
            {
                Ok(values)
            }
            _ => Err(misfit(place, stored, &[])),
        };
    };
    let even = target.kernel.iter().any(|k| k % 2 == 0);
    if even && mapping.even_kernels == EvenKernels::HalfVoxel {
        return Err(format!(
            "expected a kernel of odd sizes, found {:?}: this library centres even kernels between voxels, which no operation here does",
            target.kernel
        ));
    }
    if stored.shape.len() == 2 && target.kernel == [1; 3] && !mapping.layouts.contains_key(&place.path) {
        let by_name = tensor.name.ends_with("kernel").then_some(MatrixLayout::InOut);
        return matrix(place, stored, values, by_name.unwrap_or(mapping.matrix), [target.c_in, target.c_out]);
    }
    let transposed = mapping.transposed_layout.filter(|_| matches!(place.role, ParameterRole::Transposed(_)));
    let layout = mapping.layouts.get(&place.path).copied().or(transposed).or(common);
    let Some(layout) = layout else {
        return Err("expected a layout of convolution weights, found none in the mapping".into());
    };
    let layout = grouped(layout, &stored.shape, &target);
    to_taps(&values, &stored.shape, &rule(place, layout, mapping), &target)
        .ok_or_else(|| misfit(place, stored, &[layout]))
}

/// A linear layer's weight, `[c_in, c_out]` here.
fn linear(place: &ParameterPlace, tensor: &Named<'_>, values: Vec<f32>) -> Result<Vec<f32>, String> {
    let [c_in, c_out] = [place.shape[0], place.shape[1]];
    let layout = if tensor.name.ends_with("kernel") { MatrixLayout::InOut } else { MatrixLayout::OutIn };
    matrix(place, tensor.stored, values, layout, [c_in, c_out])
}

fn matrix(
    place: &ParameterPlace,
    stored: &Stored,
    values: Vec<f32>,
    layout: MatrixLayout,
    [c_in, c_out]: [usize; 2],
) -> Result<Vec<f32>, String> {
    let expected = match layout {
        MatrixLayout::OutIn => [c_out, c_in],
        MatrixLayout::InOut => [c_in, c_out],
    };
    if stored.shape != expected {
        return Err(format!("expected shape {expected:?}, found {:?} (for `{}`)", stored.shape, place.path));
    }
    Ok(match layout {
        MatrixLayout::InOut => values,
        MatrixLayout::OutIn => (0..c_in)
            .flat_map(|i| (0..c_out).map(move |o| [i, o]))
            .map(|[i, o]| values[o * c_in + i])
            .collect(),
    })
}

impl Imported {
    /// Writes a `.safetensors` file of f32 parameters, whose metadata names the network. The file appears when it is complete.
    ///
    /// # Errors
    /// [`ImportError::Write`] where it cannot be written.
    pub fn save(&self, path: &Path) -> Result<()> {
        let write = |e: String| ImportError::Write(e);
        let spec = serde_json::to_string(&self.spec).map_err(|e| write(e.to_string()))?;
        let metadata = HashMap::from([(MODEL_KEY.to_owned(), spec)]);
        let views = self
            .parameters
            .iter()
            .map(|(path, (shape, values))| {
                TensorView::new(Dtype::F32, shape.clone(), bytemuck::cast_slice(values))
                    .map(|view| (path, view))
            })
            .collect::<Result<Vec<_>, _>>()
            .map_err(|e| write(e.to_string()))?;
        let bytes = safetensors::serialize(views, Some(metadata)).map_err(|e| write(e.to_string()))?;
        lattice_io::write_bytes(path, &bytes).map_err(|e| write(e.to_string()))
    }
}

/// The network that a `.safetensors` file says it is for; none where it says nothing, or is no such file, which loading it then says.
///
/// # Errors
/// Metadata of a network that cannot be read.
pub fn model_of(path: &Path) -> Result<Option<ModelSpec>> {
    let fault = |found: String| ImportError::File { path: path.into(), found };
    let Some(text) =
        header(path).and_then(|mut header| header.remove("__metadata__")?.get(MODEL_KEY).cloned())
    else {
        return Ok(None);
    };
    let text = text.as_str().unwrap_or_default();
    serde_json::from_str(text).map(Some).map_err(|e| fault(format!("metadata `{MODEL_KEY}`: {e}")))
}

/// Longest header that is read.
const LONGEST_HEADER: u64 = 100 << 20;

/// The header of a `.safetensors` file: the length of a JSON object in 8 bytes, then the object.
fn header(path: &Path) -> Option<serde_json::Map<String, serde_json::Value>> {
    // A pipe would be waited for.
    std::fs::metadata(path).ok().filter(std::fs::Metadata::is_file)?;
    let mut file = std::fs::File::open(path).ok()?;
    let mut length = [0; 8];
    file.read_exact(&mut length).ok()?;
    let length = Some(u64::from_le_bytes(length)).filter(|length| *length <= LONGEST_HEADER)?;
    let mut text = String::new();
    file.take(length).read_to_string(&mut text).ok()?;
    serde_json::from_str(&text).ok()
}

//! From a checkpoint's tensors to the parameters of a network.

use std::collections::BTreeMap;
use std::path::Path;

use burn::tensor::Device;
use lattice_models::{ModelSpec, ParameterPlace, ParameterRole};
use serde::Serialize;

use crate::checkpoint::{Stored, Tensors, read_checkpoint};
use crate::layout::{Axes, WeightRule, WeightTarget, fits, to_taps};
use crate::mapping::{EvenKernels, GenerativeTaps, Mapping, MatrixLayout};
use crate::paths::{Named, Renamed, rename};
use crate::{ImportError, Mismatch, Result, WeightLayout};

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
        && !head.stored.is_empty()
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

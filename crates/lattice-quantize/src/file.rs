//! Files of quantized networks: packed tensors stay packed. The layout is in `docs/packed-weights.md`.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::tensor::{DType, Device, FloatDType, Int, Tensor, TensorData};
use burn_lattice::core::Error;
use burn_lattice::nn::Layers;
use burn_lattice::quantized::{ActivationRange, PackedLayout, PackedRecord, QuantizedWeight};
use half::f16;
use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use serde::{Deserialize, Serialize};

use crate::{QuantizeError, Result};

/// Name of the text in a file's metadata that says what is packed.
pub const KEY: &str = "lattice.quantized";

/// The version of the layout.
const VERSION: u32 = 1;

/// What is packed, as JSON.
#[derive(Debug, Serialize, Deserialize)]
struct Description {
    version: u32,
    layers: BTreeMap<String, PackedLayer>,
}

/// The record of one layer.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct PackedLayer {
    bits: u32,
    group_size: usize,
    in_channels: usize,
    out_channels: usize,
    kernel_size: [usize; 3],
    layout: String,
    /// `per_tensor` or `per_channel`, where the layer knows how its input features become bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    activations: Option<String>,
}

impl PackedLayer {
    fn of(weight: &QuantizedWeight) -> Self {
        let (record, shape) = (weight.record(), weight.record().shape());
        let granularity = if weight.is_per_channel() { "per_channel" } else { "per_tensor" };
        Self {
            bits: shape.bits(),
            group_size: shape.group_size(),
            in_channels: shape.c_in(),
            out_channels: shape.c_out(),
            kernel_size: record.kernel_size(),
            layout: record.layout().name().into(),
            activations: weight.activations.as_ref().map(|_| granularity.into()),
        }
    }
}

/// One stored tensor.
struct Stored {
    dtype: Dtype,
    dims: Vec<usize>,
    bytes: Vec<u8>,
}

/// The parts of a packed weight's path.
const PARTS: [&str; 4] = ["words", "scales", "biases", "activations"];

/// Collects every parameter of a module.
struct Collect<'a> {
    at: Vec<String>,
    packed: &'a BTreeMap<String, PackedLayer>,
    found: BTreeMap<String, Stored>,
}

/// The layer whose packed weight a parameter belongs to.
fn packed_part<'p>(path: &'p str, packed: &BTreeMap<String, PackedLayer>) -> Option<(&'p str, &'p str)> {
    let (rest, part) = path.rsplit_once('.')?;
    let layer = rest.strip_suffix(".weight")?;
    (PARTS.contains(&part) && packed.contains_key(layer)).then_some((layer, part))
}

impl ModuleVisitor for Collect<'_> {
    fn enter_module(&mut self, name: &str, _container: &str) {
        self.at.push(name.into());
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.at.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let (path, tensor) = (self.at.join("."), param.val());
        let dims = tensor.dims().to_vec();
        let was_half = tensor.dtype() == DType::F16;
        let values: Vec<f32> = tensor.into_data().iter::<f32>().collect();
        // Matrices in half precision, vectors as they are; packed parts in the type that they have.
        let in_half = match packed_part(&path, self.packed) {
            Some(_) => was_half,
            None => was_half || D >= 2 && values.iter().all(|v| v.abs() <= f32::from(f16::MAX)),
        };
        let (dtype, bytes) = match in_half {
            true => (Dtype::F16, values.iter().flat_map(|&v| f16::from_f32(v).to_le_bytes()).collect()),
            false => (Dtype::F32, values.iter().flat_map(|v| v.to_le_bytes()).collect()),
        };
        self.found.insert(path, Stored { dtype, dims, bytes });
    }

    fn visit_int<const D: usize>(&mut self, param: &Param<Tensor<D, Int>>) {
        let dims = param.val().dims().to_vec();
        let words = param.val().into_data().iter::<u32>().flat_map(u32::to_le_bytes).collect();
        self.found.insert(self.at.join("."), Stored { dtype: Dtype::U32, dims, bytes: words });
    }
}

fn collect<M: Module + Layers>(model: &mut M) -> (BTreeMap<String, Stored>, Description) {
    let mut layers = BTreeMap::new();
    model.visit_layers("", &mut |layer| {
        if let Some(weight) = layer.packed() {
            layers.insert(layer.path().to_owned(), PackedLayer::of(weight));
        }
    });
    let mut collect = Collect { at: Vec::new(), packed: &layers, found: BTreeMap::new() };
    model.visit(&mut collect);
    (collect.found, Description { version: VERSION, layers })
}

/// Bytes of all parameters as [`save`] stores them, and as many values in f32: packed words count as the values of their codes.
pub fn parameter_bytes<M: Module + Layers>(model: &mut M) -> (usize, usize) {
    let mut stored = 0;
    let mut values = 0;
    let (tensors, description) = collect(model);
    for (path, tensor) in &tensors {
        stored += tensor.bytes.len();
        if packed_part(path, &description.layers).is_none() {
            values += tensor.dims.iter().product::<usize>();
        }
    }
    model.visit_layers("", &mut |layer| {
        values += layer.packed().map_or(0, |weight| weight.record().shape().values());
    });
    (stored, 4 * values)
}

/// Writes a network to a `.safetensors` file with more texts in its metadata. The file appears when it is complete.
///
/// # Errors
/// What the system refuses.
pub fn save<M: Module + Layers>(
    model: &mut M,
    path: &Path,
    texts: &BTreeMap<String, String>,
) -> Result<usize> {
    let refuse = |what: String| QuantizeError::File { file: path.display().to_string(), what };
    let (tensors, description) = collect(model);
    let mut metadata: HashMap<String, String> = texts.clone().into_iter().collect();
    let text = serde_json::to_string(&description).map_err(|e| refuse(format!("cannot be written: {e}")))?;
    metadata.insert(KEY.into(), text);
    let views = tensors
        .iter()
        .map(|(name, t)| TensorView::new(t.dtype, t.dims.clone(), &t.bytes).map(|view| (name, view)))
        .collect::<Result<Vec<_>, _>>()
        .map_err(|e| refuse(format!("cannot be written: {e}")))?;
    let mut bytes = safetensors::serialize(views, Some(metadata))
        .map_err(|e| refuse(format!("cannot be written: {e}")))?;
    lattice_io::order_safetensors_header(&mut bytes);
    lattice_io::write_bytes(path, &bytes)?;
    Ok(bytes.len())
}

/// [`load_bytes`] of a file.
///
/// # Errors
/// As [`load_bytes`]; a file that is not there.
pub fn load<M: Module + Layers>(model: M, path: &Path, device: &Device) -> Result<M> {
    let file = path.display().to_string();
    let bytes = std::fs::read(path).map_err(|e| QuantizeError::File {
        file: file.clone(),
        what: format!("expected a .safetensors file, found: {e}; check the path"),
    })?;
    load_bytes(model, &bytes, &file, device)
}

/// A network with the packed and float parameters of a file, all of them or an error. Float parameters become f32, packed ones stay as
/// they are; norms that were folded are taken out of `model`.
///
/// # Errors
/// A file that is cut off, is of another version or says nothing of packed weights; layers or shapes that are not the network's; packed
/// tensors whose shapes or types differ from what the file says of them; scales that are not finite; tensors that are missing or left over.
pub fn load_bytes<M: Module + Layers>(mut model: M, bytes: &[u8], file: &str, device: &Device) -> Result<M> {
    let refuse = |what: String| QuantizeError::File { file: file.into(), what };
    let broken = |e: safetensors::SafeTensorError| {
        refuse(format!("expected a complete .safetensors file, found: {e}; save or copy it again"))
    };
    let (_, header) = SafeTensors::read_metadata(bytes).map_err(broken)?;
    let tensors = SafeTensors::deserialize(bytes).map_err(broken)?;
    let text = header.metadata().as_ref().and_then(|texts| texts.get(KEY));
    let text =
        text.ok_or_else(|| refuse(format!("expected packed weights (metadata `{KEY}`), found none")))?;
    let description: Description = serde_json::from_str(text)
        .map_err(|e| refuse(format!("metadata `{KEY}`: expected the record of packed layers, found {e}")))?;
    if description.version != VERSION {
        let found = description.version;
        return Err(refuse(format!(
            "expected packed weights of version {VERSION}, found {found}; quantize the network again"
        )));
    }
    let mut left: BTreeMap<String, ()> = tensors.names().into_iter().map(|n| (n.to_owned(), ())).collect();
    let mut layers = description.layers.clone();
    let mut fault = None;
    model.visit_layers("", &mut |mut layer| {
        layer.drop_norm();
        let path = layer.path().to_owned();
        let Some(record) = layers.remove(&path) else { return };
        let restored = restore(&path, &record, &tensors, &mut left, device)
            .map_err(|what| refuse(format!("layer `{path}`: {what}")));
        let set = restored.and_then(|weight| {
            layer
                .set_packed(weight)
                .map_err(|source| refuse(format!("{source}; name the model it was saved from")))
        });
        if let Err(error) = set {
            fault.get_or_insert(error);
        }
    });
    if let Some(fault) = fault {
        return Err(fault);
    }
    if let Some(path) = layers.keys().next() {
        return Err(refuse(format!(
            "expected layers of this network, found `{path}`; name the model it was saved from"
        )));
    }
    let mut fill = Fill {
        at: Vec::new(),
        packed: &description.layers,
        tensors: &tensors,
        left: &mut left,
        fault: None,
        device,
    };
    let model = model.map(&mut fill);
    if let Some(what) = fill.fault {
        return Err(refuse(what));
    }
    if let Some(name) = left.keys().next() {
        return Err(refuse(format!(
            "expected no tensor `{name}`, found one (and {} more such); name the model it was saved from",
            left.len() - 1
        )));
    }
    Ok(model)
}

/// Values of a float tensor of a file.
fn floats(view: &TensorView<'_>) -> Result<Vec<f32>, String> {
    match view.dtype() {
        Dtype::F32 => {
            Ok(view.data().chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect())
        }
        Dtype::F16 => {
            Ok(view.data().chunks_exact(2).map(|b| f16::from_le_bytes([b[0], b[1]]).to_f32()).collect())
        }
        other => Err(format!("expected f16 or f32 values, found {other:?}")),
    }
}

/// The dimensions of a tensor of a file, which must be so many.
fn dims<const D: usize>(name: &str, view: &TensorView<'_>) -> Result<[usize; D], String> {
    let found = view.shape();
    found.try_into().map_err(|_| format!("tensor `{name}`: expected {D} axes, found shape {found:?}"))
}

/// The packed weight of a layer.
fn restore(
    path: &str,
    layer: &PackedLayer,
    tensors: &SafeTensors<'_>,
    left: &mut BTreeMap<String, ()>,
    device: &Device,
) -> Result<QuantizedWeight, String> {
    let layout = PackedLayout::named(&layer.layout).ok_or_else(|| {
        format!("expected the layout linear, kernel_major or dense_5d, found `{}`", layer.layout)
    })?;
    let text = |e: Error| e.to_string();
    let channels = [layer.in_channels, layer.out_channels];
    let record = PackedRecord::try_new(layer.bits, layer.group_size, channels, layer.kernel_size, layout)
        .map_err(text)?;
    let mut take = |part: &str| {
        let name = format!("{path}.weight.{part}");
        left.remove(&name);
        tensors
            .tensor(&name)
            .map(|view| (name.clone(), view))
            .map_err(|_| format!("expected the tensor `{name}`, found none"))
    };
    let (name, view) = take("words")?;
    if view.dtype() != Dtype::U32 {
        return Err(format!("tensor `{name}`: expected u32 words, found {:?}", view.dtype()));
    }
    let words: Vec<u32> =
        view.data().chunks_exact(4).map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect();
    let words = TensorData::new(words, dims::<3>(&name, &view)?);
    let words = Tensor::<3, Int>::from_data(words, (device, DType::U32));
    let mut affine = |part: &str| {
        let (name, view) = take(part)?;
        let values = floats(&view).map_err(|e| format!("tensor `{name}`: {e}"))?;
        if let Some(bad) = values.iter().find(|v| !v.is_finite()) {
            return Err(format!(
                "tensor `{name}`: expected finite values, found {bad}; quantize the network again"
            ));
        }
        let dtype = if view.dtype() == Dtype::F16 { FloatDType::F16 } else { FloatDType::F32 };
        let data = TensorData::new(values, dims::<3>(&name, &view)?);
        Ok(Tensor::<3>::from_data(data, (device, DType::F32)).cast(dtype))
    };
    let (scales, biases) = (affine("scales")?, affine("biases")?);
    let weight = QuantizedWeight::try_new(words, scales, biases, record).map_err(text)?;
    let Some(granularity) = &layer.activations else { return Ok(weight) };
    let per_channel = match granularity.as_str() {
        "per_tensor" => false,
        "per_channel" => true,
        other => return Err(format!("expected activations per_tensor or per_channel, found `{other}`")),
    };
    let (name, view) = take("activations")?;
    let [two, channels] = dims::<2>(&name, &view)?;
    if two != 2 || channels == 0 || !channels.is_multiple_of(layer.in_channels) {
        return Err(format!("tensor `{name}`: expected shape [2, channels], found {:?}", view.shape()));
    }
    let values = floats(&view).map_err(|e| format!("tensor `{name}`: {e}"))?;
    let range = ActivationRange::from_values(&values, per_channel).map_err(text)?;
    Ok(weight.with_activations(&range))
}

/// Fills the float parameters of a module.
struct Fill<'a> {
    at: Vec<String>,
    packed: &'a BTreeMap<String, PackedLayer>,
    tensors: &'a SafeTensors<'a>,
    left: &'a mut BTreeMap<String, ()>,
    fault: Option<String>,
    device: &'a Device,
}

impl Fill<'_> {
    fn value<const D: usize>(&mut self, path: &str, expected: [usize; D]) -> Result<Tensor<D>, String> {
        let view =
            self.tensors.tensor(path).map_err(|_| format!("expected the parameter `{path}`, found none"))?;
        self.left.remove(path);
        if view.shape() != expected {
            return Err(format!("`{path}`: expected shape {expected:?}, found {:?}", view.shape()));
        }
        let values = floats(&view).map_err(|e| format!("`{path}`: {e}"))?;
        Ok(Tensor::from_data(TensorData::new(values, expected), (self.device, DType::F32)))
    }
}

impl ModuleMapper for Fill<'_> {
    fn enter_module(&mut self, name: &str, _container: &str) {
        self.at.push(name.into());
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.at.pop();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let path = self.at.join(".");
        if packed_part(&path, self.packed).is_some() {
            return param;
        }
        let (id, tensor, mapper) = param.consume();
        let tensor = match self.value(&path, tensor.dims()) {
            Ok(value) => value,
            Err(what) => {
                self.fault.get_or_insert(what);
                tensor
            }
        };
        Param::from_mapped_value(id, tensor, mapper)
    }
}

/// The texts of a `.safetensors` file's metadata; none for what is no such file.
pub fn texts_of(bytes: &[u8]) -> BTreeMap<String, String> {
    let texts = lattice_io::safetensors_texts(&mut &bytes[..]).unwrap_or_default();
    texts.into_iter().filter(|(key, _)| key != KEY).collect()
}

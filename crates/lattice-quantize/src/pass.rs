//! The pass over a network: what is packed, what stays float, and why.

use std::collections::BTreeMap;

use burn::tensor::{FloatDType, Tensor};
use burn_lattice::core::Error;
use burn_lattice::nn::{LayerMut, Layers};
use burn_lattice::quantized::{PackedRecord, QuantizeOptions};

use crate::calibrate::Ranges;
use crate::{QuantizeError, Result};

/// Options of the pass.
#[derive(Clone, Debug, PartialEq)]
pub struct PassOptions {
    /// Bits of a code, 4 or 8.
    pub bits: u32,
    /// Input channels that share a scale; 64 or 32, whichever stores a layer in fewer bytes, where none is asked for.
    pub group_size: Option<usize>,
    /// Element type of scales and biases.
    pub scales: FloatDType,
    /// Keeps the last layer float: its outputs are the scores themselves, and it is small.
    pub keep_last: bool,
}

impl PassOptions {
    /// So many bits, scales in f16, the last layer float.
    pub fn new(bits: u32) -> Self {
        Self { bits, group_size: None, scales: FloatDType::F16, keep_last: true }
    }

    fn layer(&self, group_size: usize) -> QuantizeOptions {
        QuantizeOptions::new(self.bits).with_scales(self.scales).with_group_size(group_size)
    }

    /// Group sizes to choose from, the preferred one first.
    fn group_sizes(&self) -> Vec<usize> {
        self.group_size.map_or(vec![64, 32], |size| vec![size])
    }
}

/// What happens to a layer.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Its weight is packed.
    Pack(PackedRecord),
    /// Its weight stays float.
    Keep {
        /// Why.
        reason: String,
    },
}

/// The decision on one layer.
#[derive(Clone, Debug, PartialEq)]
pub struct Decision {
    /// Path of the layer in its network.
    pub path: String,
    /// What the layer is.
    pub kind: &'static str,
    /// Kernel cells along x, y, z.
    pub kernel_size: [usize; 3],
    /// Input channels of a channel group, and output channels.
    pub channels: [usize; 2],
    /// Channel groups.
    pub groups: usize,
    /// What happens.
    pub action: Action,
    /// Bytes of the weight in f32.
    pub f32_bytes: usize,
    /// Bytes of the weight as it is then stored: packed, or in f16.
    pub bytes: usize,
}

impl Decision {
    /// Whether the weight is packed.
    pub fn is_packed(&self) -> bool {
        matches!(self.action, Action::Pack(_))
    }
}

/// Takes the batch norms of blocks into the weights and biases before them; returns the paths of the layers that took one.
pub fn fold_norms(model: &mut impl Layers) -> Vec<String> {
    let mut folded = Vec::new();
    model.visit_layers("", &mut |mut layer| {
        if layer.has_norm() {
            layer.fold_norm();
            folded.push(layer.path().to_owned());
        }
    });
    folded
}

/// Bytes of a packed layer are worth it from this share of f16 down.
const WORTH: (usize, usize) = (4, 5);

/// Decides on every layer, without a change.
///
/// A layer stays float where it is packed already, is the last one (with [`PassOptions::keep_last`]), or where packing would not save a
/// fifth of f16: rows of few channels are mostly padding, as in depthwise convolutions and first layers.
///
/// # Errors
/// Bits or group sizes that do not exist.
pub fn plan(model: &mut impl Layers, options: &PassOptions) -> Result<Vec<Decision>> {
    let mut found = Vec::new();
    let mut fault = None;
    model.visit_layers("", &mut |layer| match decide(&layer, options) {
        Ok(decision) => found.push(decision),
        Err(source) => {
            fault.get_or_insert(QuantizeError::Layer { path: layer.path().into(), source });
        }
    });
    if let Some(fault) = fault {
        return Err(fault);
    }
    if let Some(last) = found.last_mut().filter(|d| options.keep_last && d.is_packed()) {
        last.action = Action::Keep { reason: "the last layer: its outputs are the scores".into() };
        last.bytes = last.f32_bytes / 2;
    }
    Ok(found)
}

fn decide(layer: &LayerMut<'_>, options: &PassOptions) -> Result<Decision, Error> {
    let (path, kind, kernel_size, groups) =
        (layer.path().to_owned(), layer.kind(), layer.kernel_size(), layer.groups());
    let Some(taps) = layer.float_weight() else {
        let (channels, bytes, values) = layer.packed().map_or(([0; 2], 0, 0), |p| {
            let shape = p.record().shape();
            ([shape.c_in(), shape.c_out()], p.nbytes(), shape.values())
        });
        let action = Action::Keep { reason: "packed already".into() };
        return Ok(Decision {
            path,
            kind,
            kernel_size,
            channels,
            groups,
            action,
            f32_bytes: 4 * values,
            bytes,
        });
    };
    let [n, c_in, c_out] = taps.dims();
    let values = n * c_in * c_out;
    let scale_bytes = if options.scales == FloatDType::F16 { 2 } else { 4 };
    let mut best: Option<(usize, PackedRecord)> = None;
    for size in options.group_sizes() {
        let record = PackedRecord::try_new(options.bits, size, [c_in, c_out], kernel_size, layer.layout())?;
        let bytes = record.shape().bytes(scale_bytes);
        if best.is_none_or(|(least, _)| bytes < least) {
            best = Some((bytes, record));
        }
    }
    let (bytes, record) = best.expect("there is a group size to choose");
    let size = record.shape().group_size();
    let (action, bytes) = if bytes * WORTH.1 > 2 * values * WORTH.0 {
        let reason = format!(
            "rows of {c_in} channels fill groups of {size} too little: {bytes} bytes packed, {} in f16",
            2 * values
        );
        (Action::Keep { reason }, 2 * values)
    } else {
        (Action::Pack(record), bytes)
    };
    Ok(Decision {
        path,
        kind,
        kernel_size,
        channels: [c_in, c_out],
        groups,
        action,
        f32_bytes: 4 * values,
        bytes,
    })
}

/// Packs the layers that a plan says, with the ranges of their input features where there are some.
///
/// # Errors
/// Weights that are not finite, or scales that do not fit; the network may then be packed in part and must be dropped.
pub fn pack(
    model: &mut impl Layers,
    plan: &[Decision],
    options: &PassOptions,
    ranges: &Ranges,
) -> Result<()> {
    let wanted: BTreeMap<&str, &Decision> = plan.iter().map(|d| (d.path.as_str(), d)).collect();
    let mut fault = None;
    model.visit_layers("", &mut |mut layer| {
        let path = layer.path().to_owned();
        let Some(Action::Pack(record)) = wanted.get(path.as_str()).map(|d| &d.action) else { return };
        let options = options.layer(record.shape().group_size());
        if let Err(source) = layer.pack(&options, ranges.get(&path)) {
            fault.get_or_insert(QuantizeError::Layer { path, source });
        }
    });
    fault.map_or(Ok(()), Err)
}

/// The float weights of all layers that have one, by path: what packed layers are compared with later.
pub fn weights_of(model: &mut impl Layers) -> BTreeMap<String, Tensor<3>> {
    let mut found = BTreeMap::new();
    model.visit_layers("", &mut |layer| {
        if let Some(weight) = layer.float_weight() {
            found.insert(layer.path().to_owned(), weight);
        }
    });
    found
}

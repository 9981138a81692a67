//! A walk over the layers of a network that can hold packed weights.

use std::sync::Arc;

use burn::module::Param;
use burn::tensor::{DType, FloatDType, Tensor};

use super::kernel::ConvKernel;
use super::{
    BatchNorm, BlockConv, Conv3d, ConvBlock, ConvTranspose3d, GenerativeConvTranspose3d, LayerWeight, Linear,
    Probe, SubmConv3d,
};
use crate::Result;
use crate::ops::ConvKind;
use crate::quantized::{ActivationRange, PackedLayout, QuantizeOptions, QuantizedWeight, modules::pack_taps};

/// A network or a part of one whose layers can be walked over, in the order of its fields.
pub trait Layers {
    /// Shows every convolution and linear map; `path` is that of `self`, empty for a network.
    fn visit_layers(&mut self, path: &str, visit: &mut dyn FnMut(LayerMut<'_>));
}

/// `path.name`, or the name alone.
pub fn layer_path(path: &str, name: &str) -> String {
    if path.is_empty() { name.into() } else { format!("{path}.{name}") }
}

/// The weight of a layer, by kind.
enum WeightMut<'a> {
    Conv(&'a mut LayerWeight<3>, ConvKernel),
    Linear(&'a mut LayerWeight<2>),
}

/// A layer that can hold a packed weight.
pub struct LayerMut<'a> {
    path: String,
    weight: WeightMut<'a>,
    bias: &'a mut Option<Param<Tensor<1>>>,
    norm: Option<&'a mut Option<BatchNorm>>,
}

impl LayerMut<'_> {
    /// Path of the layer in its network; its tensors are `weight` and `bias` behind it.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// What the layer is: `linear`, `subm`, `conv`, `transposed`, `inverse` or `generative`.
    pub fn kind(&self) -> &'static str {
        match &self.weight {
            WeightMut::Linear(_) => "linear",
            WeightMut::Conv(_, kernel) => match kernel.kind {
                ConvKind::Submanifold => "subm",
                ConvKind::Forward => "conv",
                ConvKind::Transposed => "transposed",
                ConvKind::Inverse => "inverse",
                ConvKind::Generative => "generative",
            },
        }
    }

    /// Kernel cells along x, y, z; 1 for linear maps.
    pub fn kernel_size(&self) -> [usize; 3] {
        match &self.weight {
            WeightMut::Linear(_) => [1; 3],
            WeightMut::Conv(_, kernel) => kernel.window.size,
        }
    }

    /// Channel groups.
    pub fn groups(&self) -> usize {
        match &self.weight {
            WeightMut::Linear(_) => 1,
            WeightMut::Conv(_, kernel) => kernel.groups,
        }
    }

    /// The logical form of its weight when packed.
    pub fn layout(&self) -> PackedLayout {
        match &self.weight {
            WeightMut::Linear(_) => PackedLayout::Linear,
            WeightMut::Conv(..) => PackedLayout::Dense5d,
        }
    }

    /// The float weight `[taps, c_in / groups, c_out]`, where it is float.
    pub fn float_weight(&self) -> Option<Tensor<3>> {
        match &self.weight {
            WeightMut::Linear(weight) => weight.try_val("").ok().map(Tensor::unsqueeze),
            WeightMut::Conv(weight, _) => weight.try_val("").ok(),
        }
    }

    /// The packed weight, where it is packed.
    pub fn packed(&self) -> Option<&QuantizedWeight> {
        match &self.weight {
            WeightMut::Linear(weight) => weight.packed(),
            WeightMut::Conv(weight, _) => weight.packed(),
        }
    }

    /// Whether the layer's block has a norm that [`fold_norm`](Self::fold_norm) takes in.
    pub fn has_norm(&self) -> bool {
        self.norm.as_ref().is_some_and(|norm| norm.is_some())
    }

    /// Takes the norm of the layer's block into weight and bias. No effect without a norm, or where the weight is packed.
    pub fn fold_norm(&mut self) {
        let Some(taps) = self.float_weight() else { return };
        let Some(norm) = self.norm.as_mut().and_then(|norm| norm.take()) else { return };
        let (scale, shift) = norm.folded();
        let (device, dtype) = (taps.device(), taps.dtype());
        let [scale, shift] = [scale, shift].map(|t| t.to_device(&device).cast(FloatDType::F32));
        let bias = match self.bias.take() {
            Some(bias) => bias.val().cast(FloatDType::F32) * scale.clone() + shift,
            None => shift,
        };
        let taps = taps.cast(FloatDType::F32) * scale.reshape([1, 1, -1]);
        self.set_float(taps.cast(crate::ops::float_dtype(dtype)));
        *self.bias = Some(Param::from_tensor(bias));
    }

    /// Takes the norm away and gives the layer a bias of zeros: the form of [`fold_norm`](Self::fold_norm), for values that are loaded.
    pub fn drop_norm(&mut self) {
        if self.norm.as_mut().and_then(|norm| norm.take()).is_some()
            && let Some(taps) = self.float_weight()
        {
            let c_out = taps.dims()[2];
            *self.bias = Some(Param::from_tensor(Tensor::zeros([c_out], (&taps.device(), DType::F32))));
        }
    }

    /// Replaces the weight by a float one, `[taps, c_in / groups, c_out]`.
    pub fn set_float(&mut self, taps: Tensor<3>) {
        match &mut self.weight {
            WeightMut::Linear(weight) => {
                let [_, c_in, c_out] = taps.dims();
                weight.replace(Param::from_tensor(taps.reshape([c_in, c_out])));
            }
            WeightMut::Conv(weight, _) => weight.replace(Param::from_tensor(taps)),
        }
    }

    /// Replaces the weight by a packed one.
    ///
    /// # Errors
    /// Where its channels or kernel size are not the layer's.
    pub fn set_packed(&mut self, packed: QuantizedWeight) -> Result<()> {
        let (record, op) = (packed.record(), "set_packed");
        let found = (record.kernel_size(), record.shape().c_in(), record.shape().c_out());
        if let Some(taps) = self.float_weight() {
            let [_, c_in, c_out] = taps.dims();
            let expected = (self.kernel_size(), c_in, c_out);
            if expected != found {
                return Err(crate::Error::Shape {
                    op,
                    expected: format!("`{}`: kernel size, input and output channels {expected:?}", self.path),
                    found: format!("{found:?}"),
                });
            }
        }
        match &mut self.weight {
            WeightMut::Linear(weight) => weight.replace(packed),
            WeightMut::Conv(weight, _) => weight.replace(packed),
        }
        Ok(())
    }

    /// Packs the float weight in place; `range` says how its input features become bytes.
    ///
    /// # Errors
    /// As [`quantize_weight`](crate::quantized::quantize_weight); a weight that is packed already.
    pub fn pack(&mut self, options: &QuantizeOptions, range: Option<&ActivationRange>) -> Result<()> {
        let taps = match &self.weight {
            WeightMut::Linear(weight) => weight.try_val("pack")?.unsqueeze(),
            WeightMut::Conv(weight, _) => weight.try_val("pack")?,
        };
        let packed = pack_taps("pack", taps, self.kernel_size(), self.layout(), options, range)?;
        self.set_packed(packed)
    }

    /// Has every call of the layer seen, or no longer.
    pub fn set_probe(&mut self, probe: Option<Arc<dyn Probe>>) {
        match &mut self.weight {
            WeightMut::Linear(weight) => weight.set_probe(probe),
            WeightMut::Conv(weight, _) => weight.set_probe(probe),
        }
    }
}

/// A convolution module is a layer.
macro_rules! conv_layers {
    ($($conv:ident),*) => {$(
        impl Layers for $conv {
            fn visit_layers(&mut self, path: &str, visit: &mut dyn FnMut(LayerMut<'_>)) {
                let weight = WeightMut::Conv(&mut self.weight, self.kernel);
                visit(LayerMut { path: path.into(), weight, bias: &mut self.bias, norm: None });
            }
        }
    )*};
}
conv_layers!(SubmConv3d, Conv3d, ConvTranspose3d, GenerativeConvTranspose3d, BlockConv);

impl Layers for Linear {
    fn visit_layers(&mut self, path: &str, visit: &mut dyn FnMut(LayerMut<'_>)) {
        let weight = WeightMut::Linear(&mut self.weight);
        visit(LayerMut { path: path.into(), weight, bias: &mut self.bias, norm: None });
    }
}

impl Layers for ConvBlock {
    fn visit_layers(&mut self, path: &str, visit: &mut dyn FnMut(LayerMut<'_>)) {
        let Self { conv, norm, .. } = self;
        let weight = WeightMut::Conv(&mut conv.weight, conv.kernel);
        visit(LayerMut { path: layer_path(path, "conv"), weight, bias: &mut conv.bias, norm: Some(norm) });
    }
}

impl<L: Layers> Layers for Vec<L> {
    fn visit_layers(&mut self, path: &str, visit: &mut dyn FnMut(LayerMut<'_>)) {
        for (i, part) in self.iter_mut().enumerate() {
            part.visit_layers(&layer_path(path, &i.to_string()), visit);
        }
    }
}

impl<L: Layers> Layers for Option<L> {
    fn visit_layers(&mut self, path: &str, visit: &mut dyn FnMut(LayerMut<'_>)) {
        if let Some(part) = self {
            part.visit_layers(path, visit);
        }
    }
}

/// [`Layers`] of a struct: the fields that have layers, in their order.
///
/// ```
/// use burn_lattice::nn::{ConvBlock, Linear};
/// struct Net {
///     conv: ConvBlock,
///     head: Linear,
/// }
/// burn_lattice::impl_layers!(Net { conv, head });
/// ```
#[macro_export]
macro_rules! impl_layers {
    ($($net:ident { $($field:ident),* $(,)? }),* $(,)?) => {$(
        impl $crate::nn::Layers for $net {
            fn visit_layers(&mut self, path: &str, visit: &mut dyn FnMut($crate::nn::LayerMut<'_>)) {
                $($crate::nn::Layers::visit_layers(
                    &mut self.$field,
                    &$crate::nn::layer_path(path, stringify!($field)),
                    visit,
                );)*
            }
        }
    )*};
}

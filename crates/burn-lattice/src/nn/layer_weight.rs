//! The weight of a layer: a float parameter, or packed.

use std::fmt::{self, Debug, Display, Formatter};
use std::sync::Arc;

use burn::module::{
    Content, Devices, Module, ModuleDisplay, ModuleDisplayDefault, ModuleMapper, ModuleVisitor, Param,
};
use burn::tensor::{Device, Tensor};

use crate::ops::{self, ConvEpilogue, ConvGeometry};
use crate::quantized::QuantizedWeight;
use crate::{Error, Result, SparseTensor};

/// Sees every call of a layer; see [`LayerMut::set_probe`](super::LayerMut::set_probe).
pub trait Probe: Send + Sync + Debug {
    /// Called after the layer has run, in the thread that ran it.
    ///
    /// # Errors
    /// What the layer's call then returns.
    fn see(&self, call: &LayerCall<'_>) -> Result<()>;
}

/// One call of a layer, as a [`Probe`] sees it.
pub struct LayerCall<'a> {
    /// Input features `[n_in, c_in]`.
    pub input: &'a Tensor<2>,
    /// What the layer returned, `[n_out, c_out]`.
    pub output: &'a Tensor<2>,
    /// What it would return with another float weight `[taps, c_in / groups, c_out]`.
    pub with_weight: &'a dyn Fn(Tensor<3>) -> Result<Tensor<2>>,
}

/// A layer's weight with `D` axes: a float parameter, which is learned, or a [`QuantizedWeight`], which is not.
///
/// As a module it is what it holds: a float weight has the path of the field, packed tensors have `words`, `scales`, `biases` and
/// `activations` behind it.
#[derive(Clone, Debug)]
pub struct LayerWeight<const D: usize> {
    held: Held<D>,
    probe: Option<Arc<dyn Probe>>,
}

#[derive(Clone, Debug)]
enum Held<const D: usize> {
    Float(Param<Tensor<D>>),
    Packed(Box<QuantizedWeight>),
}

impl<const D: usize> From<Param<Tensor<D>>> for LayerWeight<D> {
    fn from(weight: Param<Tensor<D>>) -> Self {
        Self { held: Held::Float(weight), probe: None }
    }
}

impl<const D: usize> From<QuantizedWeight> for LayerWeight<D> {
    fn from(weight: QuantizedWeight) -> Self {
        Self { held: Held::Packed(Box::new(weight)), probe: None }
    }
}

impl<const D: usize> LayerWeight<D> {
    /// The float weight.
    ///
    /// # Panics
    /// With the error of [`try_val`](Self::try_val).
    pub fn val(&self) -> Tensor<D> {
        super::or_panic(self.try_val("LayerWeight"))
    }

    /// The float weight; `op` stands in the error.
    ///
    /// # Errors
    /// Where the weight is packed.
    pub fn try_val(&self, op: &'static str) -> Result<Tensor<D>> {
        match &self.held {
            Held::Float(weight) => Ok(weight.val()),
            Held::Packed(_) => Err(Error::Value {
                op,
                what: "expected a float weight, found a packed one; take it from `dequantize_weight`".into(),
            }),
        }
    }

    /// The packed weight, where it is packed.
    pub fn packed(&self) -> Option<&QuantizedWeight> {
        match &self.held {
            Held::Float(_) => None,
            Held::Packed(weight) => Some(weight),
        }
    }

    /// Replaces what is held; the probe stays.
    pub(super) fn replace(&mut self, by: impl Into<Self>) {
        self.held = by.into().held;
    }

    pub(super) fn set_probe(&mut self, probe: Option<Arc<dyn Probe>>) {
        self.probe = probe;
    }
}

impl LayerWeight<3> {
    /// A convolution over a found geometry.
    pub(crate) fn convolve(
        &self,
        op: &'static str,
        x: &SparseTensor,
        bias: Option<Tensor<1>>,
        geometry: ConvGeometry,
        groups: usize,
        epilogue: ConvEpilogue,
    ) -> Result<SparseTensor> {
        let seen = self.probe.as_ref().map(|probe| (probe, bias.clone(), geometry.clone(), epilogue.clone()));
        let y = match &self.held {
            Held::Float(weight) => ops::convolve(op, x, weight.val(), bias, geometry, groups, epilogue)?,
            Held::Packed(weight) => ops::convolve_packed(op, x, weight, bias, geometry, groups, epilogue)?,
        };
        if let Some((probe, bias, geometry, epilogue)) = seen {
            let with_weight = |w| {
                let y = ops::convolve(op, x, w, bias.clone(), geometry.clone(), groups, epilogue.clone())?;
                Ok(y.into_feats())
            };
            probe.see(&LayerCall { input: x.feats(), output: y.feats(), with_weight: &with_weight })?;
        }
        Ok(y)
    }
}

impl LayerWeight<2> {
    /// The linear map of a sparse tensor's rows.
    pub(crate) fn linear(
        &self,
        op: &'static str,
        x: &SparseTensor,
        bias: Option<Tensor<1>>,
    ) -> Result<SparseTensor> {
        let y = match &self.held {
            Held::Float(weight) => ops::linear_by_columns(op, x, weight.val(), bias.clone())?,
            Held::Packed(weight) => ops::linear_packed(op, x, weight, bias.clone())?,
        };
        self.see(op, x.feats(), y.feats(), bias)?;
        Ok(y)
    }

    /// The linear map of bare rows `[n, c_in]`.
    pub(crate) fn linear_features(
        &self,
        op: &'static str,
        feats: Tensor<2>,
        bias: Option<Tensor<1>>,
    ) -> Result<Tensor<2>> {
        let seen = self.probe.as_ref().map(|_| feats.clone());
        let y = match &self.held {
            Held::Float(weight) => ops::linear_features_by_columns(op, feats, weight.val(), bias.clone())?,
            Held::Packed(weight) => ops::linear_features_packed(op, feats, weight, bias.clone())?,
        };
        if let Some(feats) = seen {
            self.see(op, &feats, &y, bias)?;
        }
        Ok(y)
    }

    fn see(
        &self,
        op: &'static str,
        input: &Tensor<2>,
        output: &Tensor<2>,
        bias: Option<Tensor<1>>,
    ) -> Result<()> {
        let Some(probe) = &self.probe else { return Ok(()) };
        let with_weight = |w: Tensor<3>| {
            let [_, c_in, c_out] = w.dims();
            ops::linear_features_by_columns(op, input.clone(), w.reshape([c_in, c_out]), bias.clone())
        };
        probe.see(&LayerCall { input, output, with_weight: &with_weight })
    }
}

impl<const D: usize> Display for LayerWeight<D> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match &self.held {
            Held::Float(weight) => write!(f, "float {:?}", weight.lazy_shape()),
            Held::Packed(weight) => write!(f, "packed {:?}", weight.record()),
        }
    }
}

impl<const D: usize> ModuleDisplayDefault for LayerWeight<D> {
    fn content(&self, content: Content) -> Option<Content> {
        content.add_formatted(&self.to_string()).optional()
    }
}

impl<const D: usize> ModuleDisplay for LayerWeight<D> {}

/// The same call of what is held, with the probe kept.
macro_rules! held {
    ($self:ident, $weight:ident => $call:expr) => {
        Self {
            probe: $self.probe.clone(),
            held: match $self.held {
                Held::Float($weight) => Held::Float($call),
                Held::Packed($weight) => {
                    let $weight = *$weight;
                    Held::Packed(Box::new($call))
                }
            },
        }
    };
}

impl<const D: usize> Module for LayerWeight<D> {
    fn visit<V: ModuleVisitor>(&self, visitor: &mut V) {
        match &self.held {
            Held::Float(weight) => weight.visit(visitor),
            Held::Packed(weight) => weight.visit(visitor),
        }
    }

    fn map<M: ModuleMapper>(self, mapper: &mut M) -> Self {
        held!(self, weight => Module::map(weight, mapper))
    }

    fn to_device(self, device: &Device) -> Self {
        held!(self, weight => weight.to_device(device))
    }

    fn fork(self, device: &Device) -> Self {
        held!(self, weight => weight.fork(device))
    }

    fn collect_devices(&self, devices: Devices) -> Devices {
        match &self.held {
            Held::Float(weight) => weight.collect_devices(devices),
            Held::Packed(weight) => weight.collect_devices(devices),
        }
    }

    fn materialize(self) -> Self {
        held!(self, weight => weight.materialize())
    }

    fn valid(&self) -> Self {
        Self {
            probe: self.probe.clone(),
            held: match &self.held {
                Held::Float(weight) => Held::Float(weight.valid()),
                Held::Packed(weight) => Held::Packed(Box::new(weight.valid())),
            },
        }
    }

    fn train(self) -> Self {
        held!(self, weight => weight.train())
    }
}

//! What the convolution and pooling modules share: their kernel as their config gave it, and how it allocates and runs.

use burn::module::Param;
use burn::nn::Initializer;
use burn::tensor::{Device, Tensor};

use super::LayerWeight;
use crate::ops::{self, ConvEpilogue, ConvKind, ConvOptions, Target};
use crate::{Error, KernelSpec, RelationKind, Result, SparseTensor, SupportPolicy};

/// A size of a config as the kernel takes it.
pub(crate) fn triple(op: &'static str, values: [usize; 3]) -> Result<[u32; 3]> {
    let mut out = [0; 3];
    for (to, from) in out.iter_mut().zip(values) {
        *to = u32::try_from(from)
            .map_err(|_| Error::Limit { op, what: format!("expected sizes below 2^32, found {values:?}") })?;
    }
    Ok(out)
}

/// Sizes of a config along x, y, z.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Window {
    pub(crate) size: [usize; 3],
    pub(crate) stride: [usize; 3],
    pub(crate) padding: [usize; 3],
    pub(crate) dilation: [usize; 3],
}

impl Window {
    /// Stride and dilation 1, no padding.
    pub(crate) fn new(size: [usize; 3]) -> Self {
        Self { size, stride: [1; 3], padding: [0; 3], dilation: [1; 3] }
    }

    /// The kernel, checked; `op` stands in the error.
    pub(crate) fn spec(&self, op: &'static str) -> Result<KernelSpec> {
        let of = |values| triple(op, values);
        KernelSpec::try_new(of(self.size)?, of(self.stride)?, of(self.padding)?, of(self.dilation)?)
    }
}

/// Weight `[taps, c_in / groups, c_out]`, z fastest among taps.
pub(crate) type ConvWeight = Param<Tensor<3>>;
/// Bias `[c_out]`.
pub(crate) type ConvBias = Option<Param<Tensor<1>>>;

/// Bias of zeros, where a layer has one.
pub(crate) fn conv_bias(bias: bool, c_out: usize, device: &Device) -> ConvBias {
    bias.then(|| Initializer::Zeros.init([c_out], device))
}

/// How a convolution places its kernel and its groups.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ConvKernel {
    /// The module, for errors of its config.
    pub(crate) module: &'static str,
    /// The operation, for errors of its input and for traces.
    pub(crate) op: &'static str,
    pub(crate) kind: ConvKind,
    pub(crate) window: Window,
    pub(crate) groups: usize,
    /// Makes every row that the kernel reaches.
    pub(crate) reach: bool,
    /// Bounds `reach`.
    pub(crate) reach_range: Option<[usize; 3]>,
}

impl ConvKernel {
    pub(crate) fn new(
        module: &'static str,
        op: &'static str,
        kind: ConvKind,
        window: Window,
        groups: usize,
    ) -> Self {
        Self { module, op, kind, window, groups, reach: false, reach_range: None }
    }

    /// Weight uniform in ±sqrt(1 / (c_in / groups · taps)), bias zero.
    ///
    /// # Panics
    /// Zero channels, or groups that do not divide them.
    pub(crate) fn parameters(
        &self,
        channels: [usize; 2],
        bias: bool,
        device: &Device,
    ) -> (ConvWeight, ConvBias) {
        let ([c_in, c_out], groups) = (channels, self.groups);
        let divides = |c: usize| c > 0 && groups > 0 && c.is_multiple_of(groups);
        if !divides(c_in) || !divides(c_out) {
            super::or_panic::<()>(Err(Error::Value {
                op: self.module,
                what: format!(
                    "expected positive channels that groups divide, found {channels:?} in {groups} groups"
                ),
            }));
        }
        let taps: usize = self.window.size.iter().product();
        let bound = 1.0 / ((c_in / groups * taps) as f64).sqrt();
        let weight =
            Initializer::Uniform { min: -bound, max: bound }.init([taps, c_in / groups, c_out], device);
        (weight, conv_bias(bias, c_out, device))
    }

    pub(crate) fn options(&self) -> Result<ConvOptions> {
        let range = self.reach_range.map(|r| triple(self.module, r)).transpose()?;
        let policy = if self.reach { SupportPolicy::KernelReach { range } } else { SupportPolicy::Floor };
        let spec = self.window.spec(self.module)?;
        Ok(ConvOptions::new(spec).with_groups(self.groups).with_policy(policy))
    }

    /// The kind of relation that its pairs are of.
    pub(crate) fn relation_kind(&self) -> RelationKind {
        match self.kind {
            ConvKind::Submanifold => RelationKind::Submanifold,
            ConvKind::Forward => RelationKind::Forward,
            ConvKind::Transposed => RelationKind::Transposed,
            ConvKind::Inverse => RelationKind::Inverse,
            ConvKind::Generative => RelationKind::Generative,
        }
    }

    /// The convolution of a module with these parameters.
    pub(crate) fn run(
        &self,
        x: &SparseTensor,
        weight: &LayerWeight<3>,
        bias: &ConvBias,
        target: Option<&Target>,
        epilogue: ConvEpilogue,
    ) -> Result<SparseTensor> {
        let geometry = ops::geometry(self.op, self.kind, x, &self.options()?, target)?;
        let bias = bias.as_ref().map(Param::val);
        weight.convolve(self.op, x, bias, geometry, self.groups, epilogue)
    }
}

/// What convolution modules say of themselves, for those that write them down elsewhere.
macro_rules! describe_convolution {
    ($($module:ident),*) => {$(
        impl $module {
            /// Kernel, groups and which output rows there are.
            ///
            /// # Errors
            /// A config that no kernel can have.
            pub fn options(&self) -> $crate::Result<$crate::ops::ConvOptions> {
                self.kernel.options()
            }

            /// The kind of relation that its pairs are of, where no target is given.
            pub fn relation_kind(&self) -> $crate::RelationKind {
                self.kernel.relation_kind()
            }
        }
    )*};
}
pub(crate) use describe_convolution;

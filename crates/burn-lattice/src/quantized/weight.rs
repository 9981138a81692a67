//! Packed weights as tensors of a device.

use burn::module::{Module, Param, ParamId};
use burn::tensor::{DType, Device, FloatDType, Int, Tensor, TensorData};
use lattice_cpu::{PackedShape, quantize_rows};

use super::{ActivationRange, PackedLayout, PackedRecord};
use crate::{Error, Result};

/// How a weight is packed.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct QuantizeOptions {
    /// Bits of a code, 4 or 8.
    pub bits: u32,
    /// Input channels that share a scale and a bias: 32, 64 or 128; 64, or 32 for rows of fewer channels, where none is asked for.
    pub group_size: Option<usize>,
    /// Element type of scales and biases, f16 or f32; that of the weight where none is asked for.
    pub scales: Option<FloatDType>,
}

impl Default for QuantizeOptions {
    /// 4 bits.
    fn default() -> Self {
        Self { bits: 4, group_size: None, scales: None }
    }
}

impl QuantizeOptions {
    /// So many bits a code.
    pub fn new(bits: u32) -> Self {
        Self { bits, ..Self::default() }
    }

    /// Chooses how many channels share a scale.
    pub fn with_group_size(self, group_size: usize) -> Self {
        Self { group_size: Some(group_size), ..self }
    }

    /// Chooses the element type of scales and biases.
    pub fn with_scales(self, scales: FloatDType) -> Self {
        Self { scales: Some(scales), ..self }
    }
}

/// A packed affine weight: `value = scale · code + bias`. It has no gradient.
///
/// # Layout
/// `words` `[1, c_out, row words]` for one tap, else `[taps, row words, c_out]`; `scales` and `biases` likewise with row groups.
#[derive(Module, Debug)]
pub struct QuantizedWeight {
    /// Codes in 32-bit words, the lowest channel in the lowest bits.
    pub words: Param<Tensor<3, Int>>,
    /// Steps between codes, f16 or f32.
    pub scales: Param<Tensor<3>>,
    /// Values of code 0, in the type of the scales.
    pub biases: Param<Tensor<3>>,
    /// How input features become bytes, `[2, channels]` in f32: steps, then bytes of 0. Where steps differ, the stored values are those
    /// of the weight times `step / largest step` of their input channel.
    pub activations: Option<Param<Tensor<2>>>,
    #[module(skip)]
    state: State,
}

/// What is known of a packed weight without reading its tensors.
#[derive(Clone, Copy, Debug)]
struct State {
    record: PackedRecord,
    /// Input channels have steps of their own.
    per_channel: bool,
}

/// A parameter that is never learned.
fn fixed<const D: usize>(tensor: Tensor<D>) -> Param<Tensor<D>> {
    Param::initialized(ParamId::new(), tensor)
}

impl QuantizedWeight {
    /// Packed tensors, checked against what they are said to be.
    ///
    /// # Errors
    /// Words that are not u32 or not of the storage's shape; scales that are neither f16 nor f32 or not of its shape; biases that differ
    /// from the scales in type or shape.
    pub fn try_new(
        words: Tensor<3, Int>,
        scales: Tensor<3>,
        biases: Tensor<3>,
        record: PackedRecord,
    ) -> Result<Self> {
        let op = "QuantizedWeight";
        let shape = record.shape();
        let expect = |name: &str, expected: [usize; 3], found: [usize; 3]| match expected == found {
            true => Ok(()),
            false => Err(Error::Shape {
                op,
                expected: format!("{name} {expected:?}"),
                found: format!("{found:?}"),
            }),
        };
        if words.dtype() != DType::U32 {
            return Err(Error::Dtype {
                op,
                expected: "u32 for packed words",
                found: format!("{:?}", words.dtype()),
            });
        }
        expect("words", shape.word_dims(), words.dims())?;
        if !matches!(scales.dtype(), DType::F16 | DType::F32) {
            let found = format!("{:?}", scales.dtype());
            return Err(Error::Dtype { op, expected: "f16 or f32 for scales", found });
        }
        expect("scales", shape.scale_dims(), scales.dims())?;
        if biases.dtype() != scales.dtype() {
            let expected = if scales.dtype() == DType::F16 {
                "f16 for biases, as for scales"
            } else {
                "f32 for biases, as for scales"
            };
            return Err(Error::Dtype { op, expected, found: format!("{:?}", biases.dtype()) });
        }
        expect("biases", shape.scale_dims(), biases.dims())?;
        Ok(Self {
            words: Param::initialized(ParamId::new(), words),
            scales: fixed(scales),
            biases: fixed(biases),
            activations: None,
            state: State { record, per_channel: false },
        })
    }

    /// Says how input features become bytes. Where `range` has a step a channel, the stored values must be those of a weight that was
    /// multiplied by [`ActivationRange::ratios`].
    pub fn with_activations(mut self, range: &ActivationRange) -> Self {
        let device = self.words.val().device();
        let channels = range.steps().len();
        let values: Vec<f32> =
            range.steps().iter().copied().chain(range.zeros().iter().map(|&z| f32::from(z))).collect();
        let values = Tensor::from_data(TensorData::new(values, [2, channels]), (&device, DType::F32));
        self.activations = Some(fixed(values));
        self.state.per_channel = range.is_per_channel();
        self
    }

    /// Sizes and logical form.
    pub fn record(&self) -> PackedRecord {
        self.state.record
    }

    /// Whether input channels have steps of their own, and stored values their ratio.
    pub fn is_per_channel(&self) -> bool {
        self.state.per_channel
    }

    /// Bytes of words, scales and biases.
    pub fn nbytes(&self) -> usize {
        self.state.record.shape().bytes(self.scales.val().dtype().size())
    }

    /// How input features become bytes, read from the device.
    ///
    /// # Errors
    /// Steps that are not finite and above 0, or bytes of 0 that are no bytes.
    pub fn activation_range(&self) -> Result<Option<ActivationRange>> {
        let Some(values) = &self.activations else { return Ok(None) };
        let values: Vec<f32> = values.val().into_data().iter::<f32>().collect();
        ActivationRange::from_values(&values, self.state.per_channel).map(Some)
    }

    /// Largest step over step, `[channels]`: what input features are multiplied with before the stored values serve them. Absent where
    /// all steps agree.
    pub(crate) fn input_factors(&self) -> Option<Tensor<1>> {
        let values = self.activations.as_ref().filter(|_| self.state.per_channel)?.val();
        let channels = values.dims()[1];
        let steps = values.narrow(0, 0, 1).reshape([channels]);
        Some(steps.clone().max().expand([channels]) / steps)
    }

    /// The weight in f32 as modules hold it, `[taps, c_in, c_out]`, computed where the words lie: `scale · code + bias`.
    pub fn to_taps(&self) -> Tensor<3> {
        let shape = self.state.record.shape();
        let (words, scales, biases) = (self.words.val(), self.scales.val(), self.biases.val());
        let (words, scales, biases) = match shape.taps() {
            1 => (words.swap_dims(1, 2), scales.swap_dims(1, 2), biases.swap_dims(1, 2)),
            _ => (words, scales, biases),
        };
        let [taps, row_words, c_out] = words.dims();
        let codes = (0..shape.codes_per_word())
            .map(|i| {
                let shifted = words.clone().bitwise_right_shift_scalar(i as u32 * shape.bits());
                let codes = shifted.bitwise_and_scalar(shape.largest_code()).float().cast(FloatDType::F32);
                codes.reshape([taps, row_words, 1, c_out])
            })
            .collect();
        let (groups, group_size) = (shape.row_groups(), shape.group_size());
        let codes: Tensor<4> = Tensor::cat(codes, 2).reshape([taps, groups, group_size, c_out]);
        let affine = |t: Tensor<3>| t.cast(FloatDType::F32).reshape([taps, groups, 1, c_out]);
        let values = codes * affine(scales) + affine(biases);
        let values: Tensor<3> = values.reshape([taps, shape.storage_channels(), c_out]);
        let values = values.narrow(1, 0, shape.c_in());
        match self.input_factors() {
            Some(factors) => values * rows_of(factors, shape),
            None => values,
        }
    }
}

/// Factors of input channels as they stand before a weight's rows, `[1, c_in, c_out]`; channel groups one after another.
pub(crate) fn rows_of(factors: Tensor<1>, shape: PackedShape) -> Tensor<3> {
    let (c_in, c_out) = (shape.c_in(), shape.c_out());
    let groups = factors.dims()[0] / c_in;
    let by_group = factors.reshape([groups, c_in]).swap_dims(0, 1).reshape([1, c_in, groups, 1]);
    by_group.expand([1, c_in, groups, c_out / groups]).reshape([1, c_in, c_out])
}

/// The layout of a weight with `D` axes.
fn layout_of<const D: usize>(op: &'static str, dims: [usize; D]) -> Result<PackedLayout> {
    match D {
        2 => Ok(PackedLayout::Linear),
        3 => Ok(PackedLayout::KernelMajor),
        5 => Ok(PackedLayout::Dense5d),
        _ => Err(Error::Shape {
            op,
            expected: "a weight [c_out, c_in], [taps, c_in, c_out] or [c_out, x, y, z, c_in]".into(),
            found: format!("{dims:?}"),
        }),
    }
}

/// Packs a weight `[c_out, c_in]`, `[taps, c_in, c_out]` or `[c_out, x, y, z, c_in]`, on the host; the tensors lie on the weight's device.
///
/// # Errors
/// Bits other than 4 and 8, group sizes other than 32, 64 and 128; a weight that is neither f16 nor f32, has another rank, no elements,
/// or values that are not finite; scales or biases that f16 does not hold; a device with autodiff.
pub fn quantize_weight<const D: usize>(
    weight: Tensor<D>,
    options: &QuantizeOptions,
) -> Result<QuantizedWeight> {
    let op = "quantize_weight";
    let dims = weight.dims();
    if let Some(0) = dims.iter().min() {
        return Err(Error::Value { op, what: format!("expected every size from 1 on, found {dims:?}") });
    }
    let rows = |kernel_size: [usize; 3], c_in: usize, c_out: usize, rows: Tensor<3>| {
        let record = (kernel_size, layout_of(op, dims)?, [c_in, c_out]);
        quantize_taps(op, rows, record, options)
    };
    match layout_of(op, dims)? {
        PackedLayout::Linear => rows([1; 3], dims[1], dims[0], weight.reshape([1, dims[0], dims[1]])),
        PackedLayout::KernelMajor => {
            let weight: Tensor<3> = weight.reshape([dims[0], dims[1], dims[2]]);
            rows([dims[0], 1, 1], dims[1], dims[2], weight.swap_dims(1, 2))
        }
        PackedLayout::Dense5d => {
            let taps = dims[1] * dims[2] * dims[3];
            let weight: Tensor<3> = weight.reshape([dims[0], taps, dims[4]]);
            rows([dims[1], dims[2], dims[3]], dims[4], dims[0], weight.swap_dims(0, 1))
        }
    }
}

/// Packs rows `[taps, c_out, c_in]`.
pub(crate) fn quantize_taps(
    op: &'static str,
    rows: Tensor<3>,
    (kernel_size, layout, channels): ([usize; 3], PackedLayout, [usize; 2]),
    options: &QuantizeOptions,
) -> Result<QuantizedWeight> {
    let device = rows.device();
    if rows.is_autodiff() {
        return Err(no_gradient(op));
    }
    let dtype = match rows.dtype() {
        DType::F16 => FloatDType::F16,
        DType::F32 => FloatDType::F32,
        other => return Err(Error::Dtype { op, expected: "f16 or f32", found: format!("weight {other:?}") }),
    };
    let scales_in = options.scales.unwrap_or(dtype);
    if !matches!(scales_in, FloatDType::F16 | FloatDType::F32) {
        return Err(Error::Dtype { op, expected: "f16 or f32 for scales", found: format!("{scales_in:?}") });
    }
    let group_size = options.group_size.unwrap_or(PackedShape::default_group_size(channels[0]));
    let record = PackedRecord::try_new(options.bits, group_size, channels, kernel_size, layout)?;
    let shape = record.shape();
    let values: Vec<f32> = rows.into_data().iter::<f32>().collect();
    let packed = quantize_rows(op, &values, &shape)?;
    let largest = packed.scales.iter().chain(&packed.biases).fold(0.0f32, |m, v| m.max(v.abs()));
    if scales_in == FloatDType::F16 && largest > MOST_F16 {
        return Err(Error::Value {
            op,
            what: format!(
                "expected weights whose scales and biases f16 holds, up to {MOST_F16}, found {largest:e}; ask for f32 scales"
            ),
        });
    }
    Ok(tensors_of(packed, record, scales_in, &device))
}

/// Largest finite value of f16.
const MOST_F16: f32 = 65_504.0;

fn tensors_of(
    packed: lattice_cpu::PackedWeights,
    record: PackedRecord,
    scales_in: FloatDType,
    device: &Device,
) -> QuantizedWeight {
    let shape = record.shape();
    let words = TensorData::new(packed.words, shape.word_dims());
    let affine = |values: Vec<f32>| {
        let data = TensorData::new(values, shape.scale_dims());
        fixed(Tensor::<3>::from_data(data, (device, DType::F32)).cast(scales_in))
    };
    QuantizedWeight {
        words: Param::initialized(ParamId::new(), Tensor::from_data(words, (device, DType::U32))),
        scales: affine(packed.scales),
        biases: affine(packed.biases),
        activations: None,
        state: State { record, per_channel: false },
    }
}

/// The refusal of operations that would need a gradient of packed weights.
pub(crate) fn no_gradient(op: &'static str) -> Error {
    Error::Value {
        op,
        what: "expected a device without autodiff, since packed weights have no gradient, found one with it; dequantize the weights to \
               train, or run on `device.without_autodiff()`"
            .into(),
    }
}

/// The weight in its logical form and the type of its scales: the inverse of [`quantize_weight`], but for what packing rounds.
///
/// # Errors
/// Where the form has not `D` axes.
pub fn dequantize_weight<const D: usize>(weight: &QuantizedWeight) -> Result<Tensor<D>> {
    let record = weight.record();
    let dims = record.logical_dims();
    if dims.len() != D {
        return Err(Error::Shape {
            op: "dequantize_weight",
            expected: format!("the layout {} with {} axes", record.layout().name(), dims.len()),
            found: format!("a tensor of {D} axes asked for"),
        });
    }
    let dtype = match weight.scales.val().dtype() {
        DType::F16 => FloatDType::F16,
        _ => FloatDType::F32,
    };
    let taps = weight.to_taps().cast(dtype);
    let taps = match record.layout() {
        PackedLayout::KernelMajor => taps,
        PackedLayout::Linear | PackedLayout::Dense5d => taps.permute([2, 0, 1]),
    };
    let mut shape = [0; D];
    shape.copy_from_slice(&dims);
    Ok(taps.reshape(shape))
}

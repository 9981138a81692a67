//! Convolutions and linear maps with packed weights, by the route that [`PACKED_ROUTES`](crate::routes::PACKED_ROUTES) gives.

use burn::backend::Dispatch;
use burn::tensor::{FloatDType, Tensor};
use lattice_cpu::ConvShape;

use super::conv::{
    ConvEpilogue, ConvGeometry, ConvKind, ConvOptions, Target, check_residual, convolve_by, float_dtype,
    geometry, geometry_of_kind, operand, record,
};
use super::linear::linear_features_by_columns;
use crate::backend::{
    Activation, ConvMap, FusedOperands, LatticeBackend, Operand, PackedCall, PackedOperands, cast_bias,
    check_relation, check_room, prepare,
};
use crate::quantized::QuantizedWeight;
use crate::quantized::weight::no_gradient;
use crate::routes::{self, ConvProblem, DeviceClass, PackedKernel, PackedProblem};
use crate::tensor::check_features;
use crate::trace::{self, Clock};
use crate::{Error, KernelSpec, Relation, RelationKind, Result, SparseTensor};

/// Refuses what a packed weight cannot serve; the channels of the convolution.
fn check_packed(
    op: &'static str,
    feats: &Tensor<2>,
    weight: &QuantizedWeight,
    bias: Option<&Tensor<1>>,
    taps: usize,
    groups: usize,
) -> Result<ConvShape> {
    let shape = weight.record().shape();
    let (c_in, c_out) = (feats.dims()[1], shape.c_out());
    if feats.is_autodiff() {
        return Err(no_gradient(op));
    }
    check_features(op, feats)?;
    if shape.taps() != taps {
        return Err(Error::Shape {
            op,
            expected: format!("a packed weight of {taps} taps"),
            found: format!("one of {}", shape.taps()),
        });
    }
    if groups == 0 || !c_in.is_multiple_of(groups) || !c_out.is_multiple_of(groups) {
        return Err(Error::Value {
            op,
            what: format!(
                "expected groups that divide {c_in} input and {c_out} output channels, found {groups}"
            ),
        });
    }
    if shape.c_in() * groups != c_in {
        return Err(Error::Channels { op, expected: shape.c_in() * groups, found: c_in });
    }
    if let Some(activations) = &weight.activations
        && activations.val().dims()[1] != c_in
    {
        return Err(Error::Channels { op, expected: activations.val().dims()[1], found: c_in });
    }
    let device = weight.words.val().device();
    if device != feats.device() {
        return Err(Error::Value {
            op,
            what: format!(
                "expected a weight on the device of the features, {:?}, found one on {device:?}; move the module with `to_device`",
                feats.device()
            ),
        });
    }
    match bias {
        Some(bias) if bias.dims() != [c_out] => {
            Err(Error::Shape { op, expected: format!("bias [{c_out}]"), found: format!("{:?}", bias.dims()) })
        }
        _ => Ok(ConvShape { c_in, c_out, groups }),
    }
}

/// What the route of a call is chosen by; a forced route that does not fit is refused.
fn problem(
    feats: &Tensor<2>,
    weight: &QuantizedWeight,
    rows: usize,
    shape: ConvShape,
    map: &ConvMap,
) -> Result<PackedProblem> {
    let problem = PackedProblem {
        conv: ConvProblem {
            dtype: feats.dtype(),
            rows,
            shape,
            pointwise: matches!(map, ConvMap::Pointwise),
            device: DeviceClass::of(&feats.device()),
        },
        taps: weight.record().shape().taps(),
        bits: weight.record().shape().bits(),
        activations: weight.activations.is_some(),
    };
    routes::check_forced_packed(&problem)?;
    Ok(problem)
}

/// The kernels of packed weights, on bare features.
fn run(
    kernel: PackedKernel,
    feats: Tensor<2>,
    weight: &QuantizedWeight,
    bias: Option<Tensor<1>>,
    map: ConvMap,
    groups: usize,
    epilogue: ConvEpilogue,
) -> Tensor<2> {
    let dtype = float_dtype(feats.dtype());
    let (activations, feats) = match (kernel, weight.input_factors()) {
        (PackedKernel::Int8 | PackedKernel::Int8Mma, _) => {
            (weight.activations.as_ref().map(|a| a.val()), feats)
        }
        // The stored values are those of a weight that was multiplied by the inverse of these.
        (_, Some(factors)) => (None, (feats.cast(FloatDType::F32) * factors.unsqueeze()).cast(dtype)),
        _ => (None, feats),
    };
    let (scale, shift) = match epilogue.scale_shift {
        Some((scale, shift)) => (Some(scale), Some(shift)),
        None => (None, None),
    };
    let operands = FusedOperands::<Dispatch> {
        bias: operand(bias.map(|b| cast_bias(b, dtype))),
        scale: operand(scale.map(|t| t.cast(FloatDType::F32))),
        shift: operand(shift.map(|t| t.cast(FloatDType::F32))),
        residual: operand(epilogue.residual),
    };
    let packed = PackedOperands::<Dispatch> {
        words: weight.words.val().into_dispatch(),
        scales: weight.scales.val().into_dispatch(),
        biases: weight.biases.val().into_dispatch(),
        activations: activations.map_or(Operand::Absent, |a| Operand::Given(a.into_dispatch())),
    };
    let call =
        PackedCall { weight: weight.record().shape(), groups, activation: epilogue.activation, kernel };
    Tensor::from_dispatch(<Dispatch as LatticeBackend>::packed_conv(
        feats.into_dispatch(),
        packed,
        operands,
        map,
        call,
    ))
}

/// Runs a convolution with a packed weight over a found geometry.
pub(crate) fn convolve_packed(
    op: &'static str,
    x: &SparseTensor,
    weight: &QuantizedWeight,
    bias: Option<Tensor<1>>,
    geometry: ConvGeometry,
    groups: usize,
    epilogue: ConvEpilogue,
) -> Result<SparseTensor> {
    let taps = match &geometry.map {
        ConvMap::Pointwise => 1,
        ConvMap::Relation(relation) => relation.taps(),
    };
    let shape = check_packed(op, x.feats(), weight, bias.as_ref(), taps, groups)?;
    let rows = geometry.support.n_rows();
    let problem = problem(x.feats(), weight, rows, shape, &geometry.map)?;
    let route = routes::packed_route(&problem);
    let dtype = float_dtype(x.dtype());
    // A GPU unpacks in the launch before the convolution.
    if route.kernel == PackedKernel::Dequantize && !problem.conv.device.is_gpu() {
        let taps = weight.to_taps().cast(dtype);
        return convolve_by(Some(route.name), op, x, taps, bias, geometry, groups, epilogue);
    }
    if route.kernel == PackedKernel::Dequantize {
        routes::check_forced(&problem.conv)?;
    }
    check_residual(op, &epilogue, rows, shape.c_out)?;
    let device = x.device();
    check_room(op, &device, (rows as u64).saturating_mul((shape.c_out * x.dtype().size()) as u64))?;
    let mut map_ms = geometry.map_ms;
    if let ConvMap::Relation(relation) = &geometry.map {
        check_relation(op, &device, relation.to_host())?;
        if trace::is_recording() {
            let clock = Clock::start_on(x.feats());
            match problem.conv.device {
                DeviceClass::Cpu => {
                    relation.to_host().out_splits();
                }
                DeviceClass::Gpu(_) => prepare(&device, relation.to_host(), false),
            }
            map_ms += clock.ms_on(x.feats());
        }
    }
    let clock = Clock::start_on(x.feats());
    let feats = run(route.kernel, x.feats().clone(), weight, bias, geometry.map.clone(), groups, epilogue);
    let ms = clock.ms_on(&feats);
    record(op, x, &geometry, shape, route.name, [map_ms, ms]);
    x.derived(geometry.support, feats, geometry.stride, geometry.counts)
}

/// Convolution with a packed weight over a relation of your own; the output stands on the relation's target at `stride`.
///
/// # Shapes
/// `x` on the relation's source; `weight` of the relation's taps with rows of `c_in / groups`; `bias [c_out]`; result `[n_out, c_out]`.
/// # Errors
/// A relation of another support; channels, taps or devices that do not fit; a device with autodiff; a forced route that does not fit.
pub fn packed_conv(
    x: &SparseTensor,
    weight: &QuantizedWeight,
    bias: Option<Tensor<1>>,
    relation: &Relation,
    groups: usize,
    stride: [u32; 3],
) -> Result<SparseTensor> {
    let op = "packed_conv";
    if !relation.source().same_identity(x.support()) {
        return Err(Error::Identity {
            op,
            what: "expected a relation whose source is the input's support, found another; build it from this tensor".into(),
        });
    }
    let geometry = ConvGeometry::related(x, relation.clone(), stride, &Clock::start());
    convolve_packed(op, x, weight, bias, geometry, groups, ConvEpilogue::default())
}

/// [`convolve_with`](super::convolve_with) with a packed weight.
///
/// # Errors
/// As there; channels, taps or devices that do not fit; a device with autodiff; a forced route that does not fit.
pub fn packed_convolve_with(
    x: &SparseTensor,
    weight: &QuantizedWeight,
    bias: Option<Tensor<1>>,
    kind: RelationKind,
    options: &ConvOptions,
    target: Option<&Target>,
    epilogue: ConvEpilogue,
) -> Result<SparseTensor> {
    let (op, geometry) = geometry_of_kind(x, kind, options, target)?;
    convolve_packed(op, x, weight, bias, geometry, options.groups, epilogue)
}

/// [`linear`](super::linear) with a packed weight.
///
/// # Errors
/// A weight of several taps; channels or devices that do not fit; a device with autodiff; a forced route that does not fit.
pub fn packed_linear(
    x: &SparseTensor,
    weight: &QuantizedWeight,
    bias: Option<Tensor<1>>,
) -> Result<SparseTensor> {
    linear_packed("packed_linear", x, weight, bias)
}

pub(crate) fn linear_packed(
    op: &'static str,
    x: &SparseTensor,
    weight: &QuantizedWeight,
    bias: Option<Tensor<1>>,
) -> Result<SparseTensor> {
    let options = ConvOptions::new(KernelSpec::cube(1, 1)?);
    let geometry = geometry(op, ConvKind::Submanifold, x, &options, None)?;
    convolve_packed(op, x, weight, bias, geometry, 1, ConvEpilogue::default())
}

/// [`packed_linear`] on bare features `[n, c_in]`.
///
/// # Errors
/// As [`packed_linear`].
pub fn packed_linear_features(
    feats: Tensor<2>,
    weight: &QuantizedWeight,
    bias: Option<Tensor<1>>,
) -> Result<Tensor<2>> {
    linear_features_packed("packed_linear", feats, weight, bias)
}

pub(crate) fn linear_features_packed(
    op: &'static str,
    feats: Tensor<2>,
    weight: &QuantizedWeight,
    bias: Option<Tensor<1>>,
) -> Result<Tensor<2>> {
    let shape = check_packed(op, &feats, weight, bias.as_ref(), 1, 1)?;
    let rows = feats.dims()[0];
    let problem = problem(&feats, weight, rows, shape, &ConvMap::Pointwise)?;
    let route = routes::packed_route(&problem);
    if route.kernel == PackedKernel::Dequantize && !problem.conv.device.is_gpu() {
        let taps = weight.to_taps().cast(float_dtype(feats.dtype()));
        return linear_features_by_columns(op, feats, taps.reshape([shape.c_in, shape.c_out]), bias);
    }
    let epilogue = ConvEpilogue { activation: Activation::None, ..ConvEpilogue::default() };
    Ok(run(route.kernel, feats, weight, bias, ConvMap::Pointwise, 1, epilogue))
}

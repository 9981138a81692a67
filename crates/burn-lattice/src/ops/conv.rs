//! Convolutions: submanifold, strided, onto a target, transposed and generative.
//!
//! `y[o] = Σ x[i] · weight[tap] + bias` over the pairs `(i, o, tap)` of a relation; cross-correlation, no flip. A row without
//! pairs is the bias. Sums are in f32 (f64 for f64 features), bias included, with one rounding to the features' type.

use burn::backend::Dispatch;
use burn::tensor::{DType, Tensor};
use lattice_cpu::ConvShape;

use crate::backend::{
    Activation, ConvMap, FusedOperands, LatticeBackend, Operand, cast_bias, check_relation, check_room,
    prepare,
};
use crate::routes::{self, ConvProblem, DeviceClass};
use crate::support::BatchCounts;
use crate::tensor::check_features;
use crate::trace::{self, Clock, LayerRecord};
use crate::{
    CoordinateKey, Error, KernelSpec, Relation, RelationKind, Result, SparseTensor, Support, SupportPolicy,
};

/// The rows that an operation's output stands on, where the caller chooses them.
#[derive(Clone, Debug)]
pub enum Target {
    /// Rows, order and identity of a tensor; its stride must be the operation's output stride.
    Tensor(Box<SparseTensor>),
    /// A registered support of the input's manager; its stride must be the operation's output stride.
    Key(CoordinateKey),
    /// A support taken at the operation's output stride.
    Support(Support),
}

impl From<&SparseTensor> for Target {
    fn from(tensor: &SparseTensor) -> Self {
        Self::Tensor(Box::new(tensor.clone()))
    }
}

impl From<&Support> for Target {
    fn from(support: &Support) -> Self {
        Self::Support(support.clone())
    }
}

/// A target's rows, checked against the stride they must have.
pub(crate) fn resolve_target(
    op: &'static str,
    x: &SparseTensor,
    target: &Target,
    stride: [u32; 3],
) -> Result<(Support, BatchCounts)> {
    let (support, found, counts) = match target {
        Target::Tensor(t) => (t.support().clone(), t.stride(), t.batch_counts().map(Into::into)),
        Target::Key(key) => (x.manager().support(key)?, key.stride, None),
        Target::Support(support) => (support.clone(), stride, None),
    };
    if found != stride {
        return Err(Error::StrideMismatch { op, expected: stride, found });
    }
    Ok((support, counts))
}

/// Tensor stride after a strided operation.
pub(crate) fn coarser(op: &'static str, stride: [u32; 3], step: [u32; 3]) -> Result<[u32; 3]> {
    let mut out = [0; 3];
    for axis in 0..3 {
        out[axis] = stride[axis].checked_mul(step[axis]).ok_or_else(|| Error::Limit {
            op,
            what: format!("expected a tensor stride below 2^32, found {stride:?} times {step:?}"),
        })?;
    }
    Ok(out)
}

/// Tensor stride after a transposed operation.
pub(crate) fn finer(op: &'static str, stride: [u32; 3], step: [u32; 3]) -> Result<[u32; 3]> {
    let mut out = [0; 3];
    for axis in 0..3 {
        if step[axis] == 0 || !stride[axis].is_multiple_of(step[axis]) {
            return Err(Error::Value {
                op,
                what: format!(
                    "expected a stride that divides the tensor stride {stride:?} on every axis, found {step:?}; \
                     only a tensor that was made coarser can be made finer"
                ),
            });
        }
        out[axis] = stride[axis] / step[axis];
    }
    Ok(out)
}

/// How a convolution places its kernel and its groups.
#[derive(Clone, Copy, Debug)]
pub struct ConvOptions {
    /// Kernel size, stride, padding and dilation.
    pub spec: KernelSpec,
    /// Channel groups; both channel counts must be multiples of it.
    pub groups: usize,
    /// Which output rows a strided convolution makes.
    pub policy: SupportPolicy,
}

impl ConvOptions {
    /// One group, floor-divided output rows.
    pub fn new(spec: KernelSpec) -> Self {
        Self { spec, groups: 1, policy: SupportPolicy::Floor }
    }

    /// Splits channels into groups.
    pub fn with_groups(self, groups: usize) -> Self {
        Self { groups, ..self }
    }

    /// Chooses which output rows a strided convolution makes.
    pub fn with_policy(self, policy: SupportPolicy) -> Self {
        Self { policy, ..self }
    }
}

/// Where a convolution's output stands and which pairs it sums.
#[derive(Clone, Debug)]
pub(crate) struct ConvGeometry {
    pub(crate) map: ConvMap,
    pub(crate) support: Support,
    pub(crate) stride: [u32; 3],
    pub(crate) counts: BatchCounts,
    pub(crate) map_ms: f64,
}

impl ConvGeometry {
    fn pointwise(x: &SparseTensor) -> Self {
        Self {
            map: ConvMap::Pointwise,
            support: x.support().clone(),
            stride: x.stride(),
            counts: x.batch_counts().map(Into::into),
            map_ms: 0.0,
        }
    }

    pub(super) fn related(x: &SparseTensor, relation: Relation, stride: [u32; 3], clock: &Clock) -> Self {
        let support = relation.target();
        let counts = x.recount(&support);
        Self { map: ConvMap::Relation(relation), support, stride, counts, map_ms: clock.ms() }
    }
}

/// The kinds of convolution, for [`geometry`].
#[derive(Clone, Copy, Debug)]
pub(crate) enum ConvKind {
    Submanifold,
    Forward,
    Transposed,
    Inverse,
    Generative,
}

/// Finds or builds the relation of a convolution.
pub(crate) fn geometry(
    op: &'static str,
    kind: ConvKind,
    x: &SparseTensor,
    options: &ConvOptions,
    target: Option<&Target>,
) -> Result<ConvGeometry> {
    let clock = Clock::start();
    let (spec, manager, source) = (&options.spec, x.manager(), x.support());
    let device = x.device();
    match kind {
        ConvKind::Submanifold => {
            if spec.is_pointwise() {
                return Ok(ConvGeometry::pointwise(x));
            }
            let relation = manager.submanifold(source, spec)?;
            Ok(ConvGeometry::related(x, relation, x.stride(), &clock))
        }
        ConvKind::Forward => {
            let stride = coarser(op, x.stride(), spec.stride)?;
            let Some(target) = target else {
                if spec.is_pointwise() && options.policy == SupportPolicy::Floor {
                    return Ok(ConvGeometry::pointwise(x));
                }
                let relation = manager.forward_on(Some(&device), source, spec, options.policy)?;
                return Ok(ConvGeometry::related(x, relation, stride, &clock));
            };
            // A target is on the lattice of the output, whatever the stride of the matching formula.
            let (support, counts) = resolve_target(op, x, target, stride)?;
            let relation = manager.target(source, &support, spec)?;
            let counts = counts.or_else(|| x.recount(&support));
            Ok(ConvGeometry { counts, ..ConvGeometry::related(x, relation, stride, &clock) })
        }
        ConvKind::Transposed | ConvKind::Inverse | ConvKind::Generative => {
            let stride = finer(op, x.stride(), spec.stride)?;
            if let Some(target) = target {
                let (support, counts) = resolve_target(op, x, target, stride)?;
                let relation = manager.target_transposed(source, &support, spec)?;
                let counts = counts.or_else(|| x.recount(&support));
                return Ok(ConvGeometry { counts, ..ConvGeometry::related(x, relation, stride, &clock) });
            }
            let relation = match kind {
                ConvKind::Generative => {
                    manager.grown_on(Some(&device), RelationKind::Generative, source, spec)?
                }
                ConvKind::Inverse => manager.inverse(source, spec)?,
                _ => manager.grown_on(Some(&device), RelationKind::Transposed, source, spec)?,
            };
            Ok(ConvGeometry::related(x, relation, stride, &clock))
        }
    }
}

/// What runs after the sum and before the one rounding, at inference in the same pass.
#[derive(Clone, Debug, Default)]
pub struct ConvEpilogue {
    /// Per output channel, `y · scale + shift` (a folded norm), both `[c_out]`.
    pub scale_shift: Option<(Tensor<1>, Tensor<1>)>,
    /// Added before the activation, `[n_out, c_out]`.
    pub residual: Option<Tensor<2>>,
    /// Applied last.
    pub activation: Activation,
}

impl ConvEpilogue {
    fn is_autodiff(&self) -> bool {
        let norm = self.scale_shift.iter().flat_map(|(scale, shift)| [scale, shift]);
        norm.into_iter().any(Tensor::is_autodiff) || self.residual.as_ref().is_some_and(Tensor::is_autodiff)
    }
}

fn check_conv(
    op: &'static str,
    x: &SparseTensor,
    weight: &Tensor<3>,
    bias: Option<&Tensor<1>>,
    taps: usize,
    groups: usize,
) -> Result<ConvShape> {
    let [weight_taps, group_in, c_out] = weight.dims();
    if weight_taps != taps {
        return Err(Error::Shape {
            op,
            expected: format!("weight [{taps}, c_in / groups, c_out], one matrix a tap"),
            found: format!("{:?}", weight.dims()),
        });
    }
    let c_in = x.channels();
    if groups == 0 || !c_in.is_multiple_of(groups) || !c_out.is_multiple_of(groups) {
        return Err(Error::Value {
            op,
            what: format!(
                "expected groups that divide {c_in} input and {c_out} output channels, found {groups}"
            ),
        });
    }
    if group_in * groups != c_in {
        return Err(Error::Channels { op, expected: group_in * groups, found: c_in });
    }
    if weight.dtype() != x.dtype() {
        return Err(Error::Dtype {
            op,
            expected: dtype_name(x.dtype()),
            found: format!("weight {:?}", weight.dtype()),
        });
    }
    if weight.device() != x.device() {
        return Err(Error::Value {
            op,
            what: format!(
                "expected a weight on the device of the features, {:?}, found one on {:?}; move the module or the tensor with \
                 `to_device`",
                x.device(),
                weight.device()
            ),
        });
    }
    if let Some(bias) = bias
        && bias.dims() != [c_out]
    {
        return Err(Error::Shape {
            op,
            expected: format!("bias [{c_out}]"),
            found: format!("{:?}", bias.dims()),
        });
    }
    check_features(op, x.feats())?;
    Ok(ConvShape { c_in, c_out, groups })
}

pub(crate) fn dtype_name(dtype: DType) -> &'static str {
    match dtype {
        DType::F64 => "f64",
        DType::F32 => "f32",
        DType::F16 => "f16",
        DType::BF16 => "bf16",
        _ => "a float type",
    }
}

pub(crate) fn operand<const D: usize>(tensor: Option<Tensor<D>>) -> Operand<Dispatch> {
    tensor.map_or(Operand::Absent, |t| Operand::Given(t.into_dispatch()))
}

/// Runs a convolution over a found geometry.
pub(crate) fn convolve(
    op: &'static str,
    x: &SparseTensor,
    weight: Tensor<3>,
    bias: Option<Tensor<1>>,
    geometry: ConvGeometry,
    groups: usize,
    epilogue: ConvEpilogue,
) -> Result<SparseTensor> {
    convolve_by(None, op, x, weight, bias, geometry, groups, epilogue)
}

/// [`convolve`] for a route of another table, which then stands in traces.
#[allow(clippy::too_many_arguments, reason = "those of `convolve` and a name")]
pub(super) fn convolve_by(
    route: Option<&'static str>,
    op: &'static str,
    x: &SparseTensor,
    weight: Tensor<3>,
    bias: Option<Tensor<1>>,
    geometry: ConvGeometry,
    groups: usize,
    epilogue: ConvEpilogue,
) -> Result<SparseTensor> {
    let taps = match &geometry.map {
        ConvMap::Pointwise => 1,
        ConvMap::Relation(relation) => relation.taps(),
    };
    let shape = check_conv(op, x, &weight, bias.as_ref(), taps, groups)?;
    // The bias takes the features' type, as the sum is rounded to it once.
    let bias = bias.map(|b| cast_bias(b, float_dtype(x.dtype())));
    let rows = geometry.support.n_rows();
    check_residual(op, &epilogue, rows, shape.c_out)?;
    let pointwise = matches!(geometry.map, ConvMap::Pointwise);
    let device = x.device();
    let problem = ConvProblem { dtype: x.dtype(), rows, shape, pointwise, device: DeviceClass::of(&device) };
    routes::check_forced(&problem)?;
    let bytes = (rows as u64).saturating_mul((shape.c_out * x.dtype().size()) as u64);
    check_room(op, &device, bytes)?;
    let mut map_ms = geometry.map_ms;
    if let ConvMap::Relation(relation) = &geometry.map {
        check_relation(op, &device, relation.to_host())?;
        if trace::is_recording() {
            let clock = Clock::start_on(x.feats());
            match problem.device {
                DeviceClass::Cpu => {
                    relation.to_host().out_splits();
                }
                DeviceClass::Gpu(_) => prepare(&device, relation.to_host(), false),
            }
            map_ms += clock.ms_on(x.feats());
        }
    }

    let clock = Clock::start_on(x.feats());
    let autodiff = x.feats().is_autodiff()
        || weight.is_autodiff()
        || bias.as_ref().is_some_and(Tensor::is_autodiff)
        || epilogue.is_autodiff();
    let map = geometry.map.clone();
    let feats = if autodiff {
        let y = Tensor::<2>::from_dispatch(<Dispatch as LatticeBackend>::sparse_conv(
            x.feats().clone().into_dispatch(),
            weight.into_dispatch(),
            operand(bias),
            map,
            groups,
        ));
        apply_epilogue(y, epilogue)
    } else {
        let (scale, shift) = match epilogue.scale_shift {
            Some((scale, shift)) => (Some(scale), Some(shift)),
            None => (None, None),
        };
        let operands = FusedOperands::<Dispatch> {
            bias: operand(bias),
            scale: operand(scale.map(|t| t.cast(burn::tensor::FloatDType::F32))),
            shift: operand(shift.map(|t| t.cast(burn::tensor::FloatDType::F32))),
            residual: operand(epilogue.residual),
        };
        Tensor::from_dispatch(<Dispatch as LatticeBackend>::sparse_conv_fused(
            x.feats().clone().into_dispatch(),
            weight.into_dispatch(),
            operands,
            map,
            groups,
            epilogue.activation,
        ))
    };
    let ms = clock.ms_on(&feats);
    let route = route.unwrap_or_else(|| routes::conv_route(&problem).name);
    record(op, x, &geometry, shape, route, [map_ms, ms]);
    x.derived(geometry.support, feats, geometry.stride, geometry.counts)
}

/// Refuses a residual that does not stand on a convolution's rows.
pub(crate) fn check_residual(
    op: &'static str,
    epilogue: &ConvEpilogue,
    rows: usize,
    c_out: usize,
) -> Result<()> {
    match &epilogue.residual {
        Some(residual) if residual.dims() != [rows, c_out] => Err(Error::Shape {
            op,
            expected: format!("residual [{rows}, {c_out}]"),
            found: format!("{:?}", residual.dims()),
        }),
        _ => Ok(()),
    }
}

/// Records a convolution that ran: the milliseconds of its relation and its own.
pub(crate) fn record(
    op: &'static str,
    x: &SparseTensor,
    geometry: &ConvGeometry,
    shape: ConvShape,
    route: &'static str,
    [map_ms, ms]: [f64; 2],
) {
    let rows_out = geometry.support.n_rows();
    trace::push(|| {
        let (kind, pairs) = match &geometry.map {
            ConvMap::Pointwise => ("pointwise".to_string(), rows_out),
            ConvMap::Relation(r) => (format!("{:?}", r.kind()).to_lowercase(), r.n_pairs_on(&x.device())),
        };
        LayerRecord {
            name: op.to_string(),
            kind: format!("conv.{kind}"),
            rows_in: x.n_rows(),
            rows_out,
            pairs,
            c_in: shape.c_in,
            c_out: shape.c_out,
            route,
            map_ms,
            ms,
        }
    });
}

pub(crate) fn float_dtype(dtype: DType) -> burn::tensor::FloatDType {
    use burn::tensor::FloatDType;
    match dtype {
        DType::F64 => FloatDType::F64,
        DType::F16 => FloatDType::F16,
        DType::BF16 => FloatDType::BF16,
        _ => FloatDType::F32,
    }
}

/// The epilogue as separate differentiable operations.
pub(crate) fn apply_epilogue(mut y: Tensor<2>, epilogue: ConvEpilogue) -> Tensor<2> {
    if let Some((scale, shift)) = epilogue.scale_shift {
        let dtype = float_dtype(y.dtype());
        y = y * scale.cast(dtype).unsqueeze() + shift.cast(dtype).unsqueeze();
    }
    if let Some(residual) = epilogue.residual {
        y = y + residual;
    }
    match epilogue.activation {
        Activation::Relu => burn::tensor::activation::relu(y),
        Activation::LeakyRelu(slope) => burn::tensor::activation::leaky_relu(y, f64::from(slope)),
        _ => y,
    }
}

/// Convolution over a relation of your own; the output stands on the relation's target at `stride`. Differentiable.
///
/// # Shapes
/// `x` on the relation's source; `weight [taps, c_in / groups, c_out]`; `bias [c_out]`; result `[n_out, c_out]`.
/// # Errors
/// A relation of another support; shapes, channels or dtypes that do not fit; a forced route that does not fit.
pub fn sparse_conv(
    x: &SparseTensor,
    weight: Tensor<3>,
    bias: Option<Tensor<1>>,
    relation: &Relation,
    groups: usize,
    stride: [u32; 3],
) -> Result<SparseTensor> {
    if !relation.source().same_identity(x.support()) {
        return Err(Error::Identity {
            op: "sparse_conv",
            what: "expected a relation whose source is the input's support, found another; build it from this tensor".into(),
        });
    }
    let geometry = ConvGeometry::related(x, relation.clone(), stride, &Clock::start());
    convolve("sparse_conv", x, weight, bias, geometry, groups, ConvEpilogue::default())
}

/// Convolution on the input's own rows. Kernel sizes must be odd; stride 1, no padding.
///
/// # Shapes
/// `weight [taps, c_in / groups, c_out]`, z fastest among taps; result on the input's identity.
/// # Errors
/// An even kernel size; shapes, channels or dtypes that do not fit.
pub fn subm_conv3d(
    x: &SparseTensor,
    weight: Tensor<3>,
    bias: Option<Tensor<1>>,
    options: &ConvOptions,
) -> Result<SparseTensor> {
    let geometry = geometry("subm_conv3d", ConvKind::Submanifold, x, options, None)?;
    convolve("subm_conv3d", x, weight, bias, geometry, options.groups, ConvEpilogue::default())
}

/// Strided convolution, or convolution onto a target's rows.
///
/// Without a target the output rows are the distinct `floor(row / stride)` in canonical order; at stride 1 without padding
/// they are the input's own rows and identity, for any kernel size. With a target they are the target's.
///
/// # Shapes
/// `weight [taps, c_in / groups, c_out]`; result at tensor stride `x.stride · stride`.
/// # Errors
/// A target at another stride; shapes, channels or dtypes that do not fit.
pub fn conv3d(
    x: &SparseTensor,
    weight: Tensor<3>,
    bias: Option<Tensor<1>>,
    options: &ConvOptions,
    target: Option<&Target>,
) -> Result<SparseTensor> {
    let geometry = geometry("conv3d", ConvKind::Forward, x, options, target)?;
    convolve("conv3d", x, weight, bias, geometry, options.groups, ConvEpilogue::default())
}

/// Transposed convolution: scatters each row to `row · stride + offset - padding`, or onto a target's rows.
///
/// # Shapes
/// `weight [taps, c_in / groups, c_out]`; result at tensor stride `x.stride / stride`.
/// # Errors
/// A stride that does not divide the tensor stride; a target at another stride; shapes that do not fit.
pub fn conv_transpose3d(
    x: &SparseTensor,
    weight: Tensor<3>,
    bias: Option<Tensor<1>>,
    options: &ConvOptions,
    target: Option<&Target>,
) -> Result<SparseTensor> {
    let geometry = geometry("conv_transpose3d", ConvKind::Transposed, x, options, target)?;
    convolve("conv_transpose3d", x, weight, bias, geometry, options.groups, ConvEpilogue::default())
}

/// The reverse of an earlier strided convolution with the same kernel, onto that convolution's input rows.
///
/// # Errors
/// When the manager holds no such convolution's relation; otherwise as [`conv_transpose3d`].
pub fn inverse_conv3d(
    x: &SparseTensor,
    weight: Tensor<3>,
    bias: Option<Tensor<1>>,
    options: &ConvOptions,
) -> Result<SparseTensor> {
    let geometry = geometry("inverse_conv3d", ConvKind::Inverse, x, options, None)?;
    convolve("inverse_conv3d", x, weight, bias, geometry, options.groups, ConvEpilogue::default())
}

/// The geometry of a convolution of a kind, and its name.
pub(crate) fn geometry_of_kind(
    x: &SparseTensor,
    kind: RelationKind,
    options: &ConvOptions,
    target: Option<&Target>,
) -> Result<(&'static str, ConvGeometry)> {
    let (op, kind) = match kind {
        RelationKind::Submanifold => ("subm_conv3d", ConvKind::Submanifold),
        RelationKind::Forward => ("conv3d", ConvKind::Forward),
        RelationKind::Transposed => ("conv_transpose3d", ConvKind::Transposed),
        RelationKind::Inverse => ("inverse_conv3d", ConvKind::Inverse),
        RelationKind::Generative => ("generative_conv_transpose3d", ConvKind::Generative),
        other => {
            return Err(Error::Value {
                op: "convolve_with",
                what: format!(
                    "expected Submanifold, Forward, Transposed, Inverse or Generative, found {other:?}"
                ),
            });
        }
    };
    if matches!(kind, ConvKind::Generative) {
        check_generative(op, &options.spec)?;
    }
    Ok((op, geometry(op, kind, x, options, target)?))
}

/// The convolution of a kind with an epilogue, fused on devices without autodiff: what blocks and graphs run.
///
/// Kinds are [`RelationKind::Submanifold`], `Forward`, `Transposed`, `Inverse` and `Generative`, each as its function of this module; all but the
/// first take a target.
///
/// # Shapes
/// As the function of the kind; an epilogue's residual is `[n_out, c_out]`.
/// # Errors
/// As the function of the kind; another kind.
pub fn convolve_with(
    x: &SparseTensor,
    weight: Tensor<3>,
    bias: Option<Tensor<1>>,
    kind: RelationKind,
    options: &ConvOptions,
    target: Option<&Target>,
    epilogue: ConvEpilogue,
) -> Result<SparseTensor> {
    let (op, geometry) = geometry_of_kind(x, kind, options, target)?;
    convolve(op, x, weight, bias, geometry, options.groups, epilogue)
}

/// Generative transposed convolution: every cell that a kernel reaches becomes active, each once.
///
/// # Errors
/// Padding or dilation; otherwise as [`conv_transpose3d`].
pub fn generative_conv_transpose3d(
    x: &SparseTensor,
    weight: Tensor<3>,
    bias: Option<Tensor<1>>,
    options: &ConvOptions,
    target: Option<&Target>,
) -> Result<SparseTensor> {
    check_generative("generative_conv_transpose3d", &options.spec)?;
    let geometry = geometry("generative_conv_transpose3d", ConvKind::Generative, x, options, target)?;
    convolve(
        "generative_conv_transpose3d",
        x,
        weight,
        bias,
        geometry,
        options.groups,
        ConvEpilogue::default(),
    )
}

pub(crate) fn check_generative(op: &'static str, spec: &KernelSpec) -> Result<()> {
    if spec.padding != [0; 3] || spec.dilation != [1; 3] {
        return Err(Error::Value {
            op,
            what: format!(
                "expected padding 0 and dilation 1, found {:?} and {:?}",
                spec.padding, spec.dilation
            ),
        });
    }
    Ok(())
}

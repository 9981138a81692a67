//! Upsampling without weights: means over the coarse rows that reach a fine row, plain or trilinear.
//!
//! With a target the output has the target's rows, order and identity; without one it has every row that the kernel reaches,
//! in canonical order. A fine row that nothing reaches is 0.

use super::conv::{Target, finer, resolve_target};
use super::mix_rows;
use super::row_groups::entries;
use super::row_trace::{ROW_MIX, RowTrace};
use lattice_core::RelationKind;

use crate::backend::check_row_map;
use crate::manager::MapKind;
use crate::tensor::check_features;
use crate::{Error, KernelSpec, Result, SparseTensor};

fn upsample(
    op: &'static str,
    trace_kind: &'static str,
    x: &SparseTensor,
    spec: &KernelSpec,
    kind: MapKind,
    target: Option<&Target>,
) -> Result<SparseTensor> {
    check_features(op, x.feats())?;
    let stride = finer(op, x.stride(), spec.stride)?;
    let trace = RowTrace::start(op, trace_kind);
    let (relation, counts) = match target {
        Some(target) => {
            let (support, counts) = resolve_target(op, x, target, stride)?;
            (x.manager().target_transposed(x.support(), &support, spec)?, counts)
        }
        None => {
            let device = x.device();
            (x.manager().grown_on(Some(&device), RelationKind::Transposed, x.support(), spec)?, None)
        }
    };
    let map = x.manager().row_map(&relation, kind);
    check_row_map(op, &x.device(), map.to_host())?;
    let trace = trace.mapped(x.feats());
    let feats = mix_rows(x.feats().clone(), &map, 0.0);
    trace.finish(x.feats().dims(), &feats, |device| entries(&map, device), ROW_MIX);
    let support = relation.target();
    let counts = counts.or_else(|| x.recount(&support));
    x.derived(support, feats, stride, counts)
}

/// Every fine row is the mean of the coarse rows that reach it: those `q` with `row = q · stride + offset - padding`, offsets
/// counted from 0. Differentiable.
///
/// # Shapes
/// `[n, c]` to `[n_out, c]` at tensor stride `x.stride / stride`.
/// # Errors
/// A stride that does not divide the tensor stride; a target at another stride.
pub fn pool_transpose3d(
    x: &SparseTensor,
    spec: &KernelSpec,
    target: Option<&Target>,
) -> Result<SparseTensor> {
    upsample("pool_transpose3d", "upsample.mean", x, spec, MapKind::Mean, target)
}

/// Kernel of trilinear upsampling: `2s - 1` cells, shifted back by `s - 1`.
fn trilinear_spec(stride: [u32; 3]) -> Result<KernelSpec> {
    let op = "trilinear_upsample3d";
    if stride.contains(&0) {
        return Err(Error::Value {
            op,
            what: format!("expected a positive stride on every axis, found {stride:?}"),
        });
    }
    let size = stride.map(|s| s.checked_mul(2).map(|twice| twice - 1));
    let [Some(x), Some(y), Some(z)] = size else {
        return Err(Error::Limit { op, what: format!("expected strides below 2^31, found {stride:?}") });
    };
    KernelSpec::try_new([x, y, z], stride, stride.map(|s| s - 1), [1; 3])
}

/// Trilinear interpolation between the coarse rows that exist: weights `1 - |d| / stride` per axis, multiplied over axes, then
/// divided by their sum, so a missing neighbour does not darken the value. Differentiable; weights are f32.
///
/// # Shapes
/// `[n, c]` to `[n_out, c]` at tensor stride `x.stride / stride`.
/// # Errors
/// A stride with a zero component, or one that does not divide the tensor stride; a target at another stride.
pub fn trilinear_upsample3d(
    x: &SparseTensor,
    stride: [u32; 3],
    target: Option<&Target>,
) -> Result<SparseTensor> {
    let spec = trilinear_spec(stride)?;
    upsample("trilinear_upsample3d", "upsample.trilinear", x, &spec, MapKind::Trilinear(stride), target)
}

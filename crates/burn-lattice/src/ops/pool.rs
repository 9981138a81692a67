//! Local pooling over the windows of a strided relation.
//!
//! `y[o] = reduce x[i]` per channel over the pairs `(i, o)` of the forward relation, which a convolution of the same kernel
//! shares: both outputs then have one identity. Means divide by the rows that exist, not by the kernel's volume. A row without
//! pairs (only with padding, or a kernel smaller than its stride) is 0 in every mode. NaN wins a maximum.

use std::str::FromStr;

use super::conv::coarser;
use super::row_groups::entries;
use super::row_trace::{ROW_MAX, ROW_MIX, RowTrace};
use super::{max_rows, mix_rows};
use crate::backend::check_row_map;
use crate::manager::MapKind;
use crate::tensor::check_features;
use crate::{Error, KernelSpec, Result, SparseTensor, SupportPolicy};

/// How pooling reduces the rows that meet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum PoolMode {
    /// Their sum.
    #[default]
    Sum,
    /// Their mean; `avg` in text.
    Avg,
    /// Their maximum per channel.
    Max,
}

impl PoolMode {
    /// The name that [`FromStr`] reads.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Sum => "sum",
            Self::Avg => "avg",
            Self::Max => "max",
        }
    }
}

impl FromStr for PoolMode {
    type Err = Error;

    fn from_str(word: &str) -> Result<Self> {
        match word {
            "sum" => Ok(Self::Sum),
            "avg" => Ok(Self::Avg),
            "max" => Ok(Self::Max),
            _ => Err(Error::Value {
                op: "pool",
                what: format!("expected one of sum, avg, max, found `{word}`"),
            }),
        }
    }
}

/// How pooling places its windows.
#[derive(Clone, Copy, Debug)]
pub struct PoolOptions {
    /// Size, stride, padding and dilation of the window.
    pub spec: KernelSpec,
    /// Which output rows there are.
    pub policy: SupportPolicy,
}

impl PoolOptions {
    /// Floor-divided output rows.
    pub fn new(spec: KernelSpec) -> Self {
        Self { spec, policy: SupportPolicy::Floor }
    }

    /// Windows of `size` voxels, `stride` voxels apart, on every axis.
    ///
    /// # Errors
    /// A size or stride of 0.
    pub fn cube(size: u32, stride: u32) -> Result<Self> {
        Ok(Self::new(KernelSpec::cube(size, stride)?))
    }

    /// Chooses which output rows there are.
    pub fn with_policy(self, policy: SupportPolicy) -> Self {
        Self { policy, ..self }
    }
}

impl Default for PoolOptions {
    /// Windows of 2 voxels, 2 apart.
    fn default() -> Self {
        let spec = KernelSpec { size: [2; 3], stride: [2; 3], padding: [0; 3], dilation: [1; 3] };
        Self::new(spec)
    }
}

/// Pools the rows of every window. Differentiable: sums and means hand their gradient on, a maximum splits it evenly over ties.
///
/// # Shapes
/// `[n, c]` to `[n_out, c]` at tensor stride `x.stride · stride`; rows are the distinct `floor(row / stride)` in canonical order,
/// or the input's own identity at stride 1 without padding.
/// # Errors
/// A kernel with zero size, stride or dilation; a tensor stride past 2^32; on a GPU 2^32 row pairs or more.
pub fn pool3d(x: &SparseTensor, mode: PoolMode, options: &PoolOptions) -> Result<SparseTensor> {
    let (op, kind) = match mode {
        PoolMode::Sum => ("sum_pool3d", "pool.sum"),
        PoolMode::Avg => ("avg_pool3d", "pool.avg"),
        PoolMode::Max => ("max_pool3d", "pool.max"),
    };
    check_features(op, x.feats())?;
    let stride = coarser(op, x.stride(), options.spec.stride)?;
    let trace = RowTrace::start(op, kind);
    let relation = x.manager().forward_on(Some(&x.device()), x.support(), &options.spec, options.policy)?;
    let kind = if mode == PoolMode::Avg { MapKind::Mean } else { MapKind::Sum };
    let map = x.manager().row_map(&relation, kind);
    check_row_map(op, &x.device(), map.to_host())?;
    let trace = trace.mapped(x.feats());
    let (feats, route) = match mode {
        PoolMode::Max => (max_rows(x.feats().clone(), &map), ROW_MAX),
        PoolMode::Sum | PoolMode::Avg => (mix_rows(x.feats().clone(), &map, 0.0), ROW_MIX),
    };
    trace.finish(x.feats().dims(), &feats, |device| entries(&map, device), route);
    let support = relation.target();
    let counts = x.recount(&support);
    x.derived(support, feats, stride, counts)
}

/// [`pool3d`] by sums.
///
/// # Errors
/// As [`pool3d`].
pub fn sum_pool3d(x: &SparseTensor, options: &PoolOptions) -> Result<SparseTensor> {
    pool3d(x, PoolMode::Sum, options)
}

/// [`pool3d`] by means over the rows that exist.
///
/// # Errors
/// As [`pool3d`].
pub fn avg_pool3d(x: &SparseTensor, options: &PoolOptions) -> Result<SparseTensor> {
    pool3d(x, PoolMode::Avg, options)
}

/// [`pool3d`] by maxima per channel.
///
/// # Errors
/// As [`pool3d`].
pub fn max_pool3d(x: &SparseTensor, options: &PoolOptions) -> Result<SparseTensor> {
    pool3d(x, PoolMode::Max, options)
}

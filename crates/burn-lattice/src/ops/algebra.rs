//! Two sparse tensors: alignment of their rows by a join, and element-wise operations on the aligned rows.
//!
//! Rows meet by coordinate, never by value: a feature of 0 is present. Operands of one identity are combined directly, and so
//! are operands whose rows are equal in value and order; all others are aligned by a join, which the manager of the left operand
//! keeps. The result stands in that manager.

use std::str::FromStr;

use burn::tensor::{Device, Tensor};
use lattice_core as core;

use super::conv::dtype_name;
use super::row_groups::entries;
use super::row_trace::{ROW_MIX, RowTrace};
use super::{max_rows, mix_rows};
use crate::backend::same_rows;
use crate::support::BatchCounts;
use crate::tensor::check_features;
use crate::{Error, Join, Result, RowMap, SparseTensor, Support};

/// The rows of a join, and where each comes from in both operands.
#[derive(Clone, Debug)]
pub struct SparseAlignment {
    /// Rows of the result. A left or right join has that operand's identity.
    pub support: Support,
    /// Copies rows of the left operand; a result row that it lacks has no entry.
    pub lhs: RowMap,
    /// Copies rows of the right operand; a result row that it lacks has no entry.
    pub rhs: RowMap,
}

impl SparseAlignment {
    /// Row of the left operand for every result row, -1 where it has none.
    pub fn lhs_rows(&self) -> Vec<i32> {
        source_rows(&self.lhs)
    }

    /// Row of the right operand for every result row, -1 where it has none.
    pub fn rhs_rows(&self) -> Vec<i32> {
        source_rows(&self.rhs)
    }
}

fn source_rows(map: &RowMap) -> Vec<i32> {
    let (splits, rows) = (map.to_host().splits(), map.to_host().rows());
    splits.windows(2).map(|s| if s[0] == s[1] { -1 } else { rows[s[0]] as i32 }).collect()
}

/// Refuses operands on different lattices, of different element types or on different devices.
pub(crate) fn check_pair(op: &'static str, lhs: &SparseTensor, rhs: &SparseTensor) -> Result<()> {
    check_features(op, lhs.feats())?;
    if lhs.stride() != rhs.stride() {
        return Err(Error::StrideMismatch { op, expected: lhs.stride(), found: rhs.stride() });
    }
    if lhs.dtype() != rhs.dtype() {
        return Err(Error::Dtype {
            op,
            expected: dtype_name(lhs.dtype()),
            found: format!("{:?}", rhs.dtype()),
        });
    }
    if lhs.device() != rhs.device() {
        return Err(Error::Value {
            op,
            what: format!(
                "expected operands on one device, found {:?} and {:?}; use `to_device`",
                lhs.device(),
                rhs.device()
            ),
        });
    }
    Ok(())
}

/// Aligns the rows of two tensors of one stride.
///
/// Row order: inner and left follow the left operand, right the right one, outer is canonical.
///
/// # Errors
/// [`Error::StrideMismatch`].
pub fn align_sparse(lhs: &SparseTensor, rhs: &SparseTensor, join: Join) -> Result<SparseAlignment> {
    if lhs.stride() != rhs.stride() {
        return Err(Error::StrideMismatch {
            op: "align_sparse",
            expected: lhs.stride(),
            found: rhs.stride(),
        });
    }
    let maps = lhs.manager().join_on(&lhs.device(), lhs.support(), rhs.support(), Some(join))?;
    Ok(SparseAlignment { support: maps.support, lhs: maps.lhs, rhs: maps.rhs })
}

/// Features `[n, c]` on aligned rows: the row that the map names, or `fill` in every channel. Missing rows are selected, never
/// multiplied by 0, so a NaN elsewhere does not leak. Differentiable.
///
/// # Errors
/// A map that reads another number of rows; a dtype that is not a float.
pub fn gather_aligned_features(feats: Tensor<2>, map: &RowMap, fill: f32) -> Result<Tensor<2>> {
    let op = "gather_aligned_features";
    check_features(op, &feats)?;
    let [rows, _] = feats.dims();
    if rows != map.n_in() {
        return Err(Error::Shape {
            op,
            expected: format!("{} feature rows", map.n_in()),
            found: format!("{rows} rows"),
        });
    }
    Ok(mix_rows(feats, map, fill))
}

/// The rows of a two-operand result and the operands' features on them.
pub(crate) struct Aligned {
    pub(crate) support: Support,
    pub(crate) counts: BatchCounts,
    /// Where each row comes from; `None` where both operands already stand on the rows.
    pub(crate) maps: Option<[RowMap; 2]>,
}

/// Aligns two operands; `None` keeps the rows of the larger one first.
pub(crate) fn align(lhs: &SparseTensor, rhs: &SparseTensor, join: Option<Join>) -> Result<Aligned> {
    if lhs.same_coords(rhs) {
        let counts = lhs.batch_counts().map(Into::into);
        return Ok(Aligned { support: lhs.support().clone(), counts, maps: None });
    }
    // An outer join is in canonical order, so equal rows shorten it only where they already are.
    let shortens = join != Some(Join::Outer) || lhs.support().to_host().is_canonical();
    if shortens && same_rows(&lhs.device(), lhs.support().to_host(), rhs.support().to_host()) {
        let support = if join == Some(Join::Right) { rhs.support() } else { lhs.support() };
        return Ok(Aligned {
            counts: joined_counts(lhs, rhs, support),
            support: support.clone(),
            maps: None,
        });
    }
    let maps = lhs.manager().join_on(&lhs.device(), lhs.support(), rhs.support(), join)?;
    Ok(Aligned {
        counts: joined_counts(lhs, rhs, &maps.support),
        support: maps.support,
        maps: Some([maps.lhs, maps.rhs]),
    })
}

/// Counts of a joined support: an operand's own where its rows are kept whole, recounted where both declare equally many items.
fn joined_counts(lhs: &SparseTensor, rhs: &SparseTensor, support: &Support) -> BatchCounts {
    for operand in [lhs, rhs] {
        if support.same_identity(operand.support()) && operand.batch_counts().is_some() {
            return operand.batch_counts().map(Into::into);
        }
    }
    match (lhs.batch_counts(), rhs.batch_counts()) {
        (Some(a), Some(b)) if a.len() == b.len() => lhs.recount(support),
        _ => None,
    }
}

impl Aligned {
    /// Both operands' features on the result's rows.
    pub(crate) fn feats(&self, lhs: &SparseTensor, rhs: &SparseTensor, fills: [f32; 2]) -> [Tensor<2>; 2] {
        let [a, b] = [lhs.feats().clone(), rhs.feats().clone()];
        match &self.maps {
            None => [a, b],
            Some([left, right]) => [mix_rows(a, left, fills[0]), mix_rows(b, right, fills[1])],
        }
    }

    /// Rows that are read.
    pub(crate) fn pairs(&self, device: &Device) -> usize {
        let read = |maps: &[RowMap; 2]| maps.iter().map(|map| entries(map, device)).sum();
        self.maps.as_ref().map_or(2 * self.support.n_rows(), read)
    }
}

/// An element-wise operation of two tensors.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum BinaryOp {
    /// `a + b`.
    Add,
    /// `a - b`.
    Sub,
    /// `a · b`.
    Mul,
    /// The larger; NaN wins, ties share the gradient.
    Maximum,
    /// The smaller; NaN wins, ties share the gradient.
    Minimum,
}

impl BinaryOp {
    /// Outer for sums and differences, inner for the rest.
    pub fn default_join(&self) -> Join {
        match self {
            Self::Add | Self::Sub => Join::Outer,
            Self::Mul | Self::Maximum | Self::Minimum => Join::Inner,
        }
    }

    /// The name that [`FromStr`] reads.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Add => "add",
            Self::Sub => "sub",
            Self::Mul => "mul",
            Self::Maximum => "maximum",
            Self::Minimum => "minimum",
        }
    }

    fn names(self) -> (&'static str, &'static str) {
        match self {
            Self::Add => ("sparse_add", "join.add"),
            Self::Sub => ("sparse_sub", "join.sub"),
            Self::Mul => ("sparse_mul", "join.mul"),
            Self::Maximum => ("sparse_maximum", "join.maximum"),
            Self::Minimum => ("sparse_minimum", "join.minimum"),
        }
    }

    fn is_choice(self) -> bool {
        matches!(self, Self::Maximum | Self::Minimum)
    }

    fn apply(self, a: Tensor<2>, b: Tensor<2>) -> Tensor<2> {
        match self {
            Self::Add => a + b,
            Self::Sub => a - b,
            Self::Mul => a * b,
            Self::Maximum => larger(a, b),
            Self::Minimum => larger(a.neg(), b.neg()).neg(),
        }
    }
}

impl FromStr for BinaryOp {
    type Err = Error;

    fn from_str(word: &str) -> Result<Self> {
        match word {
            "add" => Ok(Self::Add),
            "sub" => Ok(Self::Sub),
            "mul" => Ok(Self::Mul),
            "maximum" => Ok(Self::Maximum),
            "minimum" => Ok(Self::Minimum),
            _ => Err(Error::Value {
                op: "sparse_binary",
                what: format!("expected one of add, sub, mul, maximum, minimum, found `{word}`"),
            }),
        }
    }
}

/// Maximum per element. The row maximum of `a` above `b`, as it splits gradients over ties and passes NaN on.
fn larger(a: Tensor<2>, b: Tensor<2>) -> Tensor<2> {
    let [n, _] = a.dims();
    let rows = (0..n as u32).flat_map(|row| [row, row + n as u32]).collect();
    let map = core::RowMap::try_new(2 * n, (0..=n).map(|row| 2 * row).collect(), rows, None)
        .expect("two rows for each of the n rows, all below 2 n");
    max_rows(Tensor::cat(vec![a, b], 0), &map.into())
}

/// Which rows a two-operand operation keeps, and what stands in for missing ones.
#[derive(Clone, Copy, Debug)]
pub struct JoinOptions {
    /// Which rows are kept.
    pub join: Join,
    /// Stands in for rows that the left operand lacks.
    pub lhs_fill: f32,
    /// Stands in for rows that the right operand lacks.
    pub rhs_fill: f32,
}

impl JoinOptions {
    /// Fills of 0.
    pub fn new(join: Join) -> Self {
        Self { join, lhs_fill: 0.0, rhs_fill: 0.0 }
    }

    /// Chooses what stands in for missing rows.
    pub fn with_fills(self, lhs_fill: f32, rhs_fill: f32) -> Self {
        Self { lhs_fill, rhs_fill, ..self }
    }
}

impl From<Join> for JoinOptions {
    fn from(join: Join) -> Self {
        Self::new(join)
    }
}

fn check_channels(op: &'static str, lhs: &SparseTensor, rhs: &SparseTensor) -> Result<()> {
    match lhs.channels() == rhs.channels() {
        true => Ok(()),
        false => Err(Error::Channels { op, expected: lhs.channels(), found: rhs.channels() }),
    }
}

fn combine(
    [op, kind]: [&'static str; 2],
    lhs: &SparseTensor,
    rhs: &SparseTensor,
    binary: BinaryOp,
    join: Option<Join>,
    fills: [f32; 2],
) -> Result<SparseTensor> {
    check_pair(op, lhs, rhs)?;
    check_channels(op, lhs, rhs)?;
    if binary.is_choice() && u32::try_from(2 * (lhs.n_rows() + rhs.n_rows())).is_err() {
        return Err(Error::Limit {
            op,
            what: format!("expected fewer than 2^31 rows in all, found {}", lhs.n_rows() + rhs.n_rows()),
        });
    }
    let trace = RowTrace::start(op, kind);
    let aligned = align(lhs, rhs, join)?;
    let trace = trace.mapped(lhs.feats());
    let [a, b] = aligned.feats(lhs, rhs, fills);
    let feats = binary.apply(a, b);
    trace.finish(
        [lhs.n_rows() + rhs.n_rows(), lhs.channels()],
        &feats,
        |device| aligned.pairs(device),
        ROW_MIX,
    );
    lhs.derived(aligned.support, feats, lhs.stride(), aligned.counts)
}

/// `op` on the aligned rows of two tensors. Differentiable in both.
///
/// Choose the join by meaning: inner for strict skips, outer for merges, left or right where one branch owns the rows. Fills
/// matter beyond 0: an outer maximum with fill 0 clamps lone negatives.
///
/// # Shapes
/// Both `[_, c]` at one stride; result `[rows of the join, c]` in the left operand's manager.
/// # Errors
/// Strides, channels, element types or devices that differ.
pub fn sparse_binary(
    lhs: &SparseTensor,
    rhs: &SparseTensor,
    op: BinaryOp,
    options: impl Into<JoinOptions>,
) -> Result<SparseTensor> {
    let options = options.into();
    let (name, kind) = op.names();
    combine([name, kind], lhs, rhs, op, Some(options.join), [options.lhs_fill, options.rhs_fill])
}

/// `a + b` on aligned rows; [`Join::Outer`] is the usual join.
///
/// # Errors
/// As [`sparse_binary`].
pub fn sparse_add(
    lhs: &SparseTensor,
    rhs: &SparseTensor,
    options: impl Into<JoinOptions>,
) -> Result<SparseTensor> {
    sparse_binary(lhs, rhs, BinaryOp::Add, options)
}

/// `a - b` on aligned rows; [`Join::Outer`] is the usual join.
///
/// # Errors
/// As [`sparse_binary`].
pub fn sparse_sub(
    lhs: &SparseTensor,
    rhs: &SparseTensor,
    options: impl Into<JoinOptions>,
) -> Result<SparseTensor> {
    sparse_binary(lhs, rhs, BinaryOp::Sub, options)
}

/// `a · b` on aligned rows; [`Join::Inner`] is the usual join.
///
/// # Errors
/// As [`sparse_binary`].
pub fn sparse_mul(
    lhs: &SparseTensor,
    rhs: &SparseTensor,
    options: impl Into<JoinOptions>,
) -> Result<SparseTensor> {
    sparse_binary(lhs, rhs, BinaryOp::Mul, options)
}

/// The larger value on aligned rows; [`Join::Inner`] is the usual join. Ties share the gradient, half each.
///
/// # Errors
/// As [`sparse_binary`].
pub fn sparse_maximum(
    lhs: &SparseTensor,
    rhs: &SparseTensor,
    options: impl Into<JoinOptions>,
) -> Result<SparseTensor> {
    sparse_binary(lhs, rhs, BinaryOp::Maximum, options)
}

/// The smaller value on aligned rows; [`Join::Inner`] is the usual join. Ties share the gradient, half each.
///
/// # Errors
/// As [`sparse_binary`].
pub fn sparse_minimum(
    lhs: &SparseTensor,
    rhs: &SparseTensor,
    options: impl Into<JoinOptions>,
) -> Result<SparseTensor> {
    sparse_binary(lhs, rhs, BinaryOp::Minimum, options)
}

/// The sum over all rows of both, in the order of the operand with more rows (the left one on ties), then the other's unmatched
/// rows in theirs. For decoders that grow a support: the rows of the larger branch keep their numbers.
///
/// # Errors
/// As [`sparse_binary`].
pub fn generative_add(lhs: &SparseTensor, rhs: &SparseTensor) -> Result<SparseTensor> {
    combine(["generative_add", "join.generative_add"], lhs, rhs, BinaryOp::Add, None, [0.0; 2])
}

//! The builders of relations: checks, the output support, and which formula finds the edges.

use std::sync::Arc;

use super::csr::Csr;
use super::exact::children;
use super::gather::Window;
use super::grown::GrownKernel;
use super::halo::{HaloKernel, coarser};
use super::reach::{check_transposed, kernel_reach_support, transposed_support};
use super::record::{Recipe, Record};
use super::{Edge, Relation, RelationKind};
use crate::kernel::TapOrigin;
use crate::{Error, KernelSpec, Result, Support, downsample};

/// Which output rows a forward relation creates.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum SupportPolicy {
    /// The distinct `floor(c / stride)` of the input rows; size, padding and dilation have no influence. With stride 1 and
    /// padding 0 these are the input rows themselves, under the same identity.
    #[default]
    Floor,
    /// Every `q >= 0` whose window, counted from its first tap (indexed offsets), holds an input row:
    /// `q * s + i * d - p = c`. On each axis `q` stays within `floor((range + 2p - d * (K - 1) - 1) / s)` when the spatial
    /// `range` is known, else within `floor((largest input + 2p - (K - 1)) / s)`. Edges use the same indexed offsets. The rule
    /// of networks that were trained with dense-like bounds.
    KernelReach {
        /// Voxels of the input lattice along x, y, z.
        range: Option<[u32; 3]>,
    },
}

impl Relation {
    /// The relation of a support with itself: `c = q + f` with centred offsets.
    ///
    /// # Errors
    /// [`Error::Value`] unless every size is odd, the stride 1 and the padding 0; what [`KernelSpec::try_new`] refuses.
    pub fn submanifold(support: &Support, spec: &KernelSpec) -> Result<Self> {
        let op = "submanifold relation";
        spec.check(op)?;
        if !spec.is_odd() {
            let what = format!(
                "kernel size expected to be odd on every axis, found {:?}; use a forward relation",
                spec.size
            );
            return Err(Error::Value { op, what });
        }
        if spec.stride != [1; 3] || spec.padding != [0; 3] {
            let what = format!(
                "stride expected to be 1 and padding 0, found {:?} and {:?}; use a forward relation",
                spec.stride, spec.padding
            );
            return Err(Error::Value { op, what });
        }
        Ok(Self::gathered(
            RelationKind::Submanifold,
            spec,
            support,
            support.clone(),
            Window::Over(TapOrigin::Centred),
        ))
    }

    /// The relation onto the support that `policy` creates: `c = q * s + f - p`. Created supports are in canonical order.
    ///
    /// # Errors
    /// What [`KernelSpec::try_new`] refuses; [`Error::OutOfRange`] where [`SupportPolicy::KernelReach`] would create a row outside
    /// `i32`, naming the first input row that does; [`Error::Limit`] when the output passes `i32::MAX` rows.
    pub fn forward(source: &Support, spec: &KernelSpec, policy: SupportPolicy) -> Result<Self> {
        let op = "forward relation";
        spec.check(op)?;
        let (target, origin) = match policy {
            SupportPolicy::Floor if spec.stride == [1; 3] && spec.padding == [0; 3] => {
                (source.clone(), TapOrigin::Centred)
            }
            SupportPolicy::Floor if spec.stride == [1; 3] => {
                (Support::canonical(source.coords().to_vec())?, TapOrigin::Centred)
            }
            SupportPolicy::Floor if matches!(spec.stride, [2, 2, 2] | [4, 4, 4]) => {
                let target = coarser(source, spec.stride[0]);
                let first = spec.first_offsets(TapOrigin::Centred);
                if let Some(kernel) = HaloKernel::new(spec, first) {
                    let csr = kernel.edges(source.index());
                    return Ok(Self::found(RelationKind::Forward, spec, source, target, csr));
                }
                (target, TapOrigin::Centred)
            }
            SupportPolicy::Floor => (downsample(source, spec.stride)?, TapOrigin::Centred),
            SupportPolicy::KernelReach { range } => {
                (kernel_reach_support(op, source, spec, range)?, TapOrigin::Indexed)
            }
        };
        Ok(Self::gathered(RelationKind::Forward, spec, source, target, Window::Over(origin)))
    }

    /// The forward formula `c = q * s + f - p` onto a given support. A `c` outside `i32` is no row of any support, so it has no edge.
    ///
    /// # Errors
    /// What [`KernelSpec::try_new`] refuses.
    pub fn onto(source: &Support, target: &Support, spec: &KernelSpec) -> Result<Self> {
        spec.check("target relation")?;
        Ok(Self::gathered(
            RelationKind::Target,
            spec,
            source,
            target.clone(),
            Window::Over(TapOrigin::Centred),
        ))
    }

    /// The relation onto all `q = c * s + f - p` with indexed offsets. The created support is in canonical order, without
    /// duplicates.
    ///
    /// # Errors
    /// What [`KernelSpec::try_new`] refuses; [`Error::OutOfRange`] for a `q` outside `i32`, naming the first input row that has one;
    /// [`Error::Limit`] when the output passes `i32::MAX` rows.
    pub fn transposed(source: &Support, spec: &KernelSpec) -> Result<Self> {
        let op = "transposed relation";
        spec.check(op)?;
        Self::grown(op, RelationKind::Transposed, spec, source)
    }

    /// [`Relation::transposed`] without padding and dilation.
    ///
    /// # Errors
    /// As [`Relation::transposed`].
    pub fn generative(source: &Support, size: [u32; 3], stride: [u32; 3]) -> Result<Self> {
        let spec = KernelSpec { size, stride, padding: [0; 3], dilation: [1; 3] };
        let op = "generative relation";
        spec.check(op)?;
        Self::grown(op, RelationKind::Generative, &spec, source)
    }

    /// The transposed formula onto a given support: `c = (q + p - f) / s` with indexed offsets, where that is a whole number.
    ///
    /// # Errors
    /// What [`KernelSpec::try_new`] refuses.
    pub fn target_transposed(source: &Support, target: &Support, spec: &KernelSpec) -> Result<Self> {
        spec.check("target-transposed relation")?;
        Ok(Self::gathered(RelationKind::TargetTransposed, spec, source, target.clone(), Window::Under))
    }

    /// A relation onto rows that its kind creates, where these were made elsewhere by the same rule: `target` holds exactly the rows
    /// that [`Relation::forward`] under `policy`, [`Relation::transposed`] or [`Relation::generative`] would create, in canonical
    /// order. Nothing is looked up: pairs are found when they are first read.
    ///
    /// # Errors
    /// What [`KernelSpec::try_new`] refuses; [`Error::Value`] for a kind that creates no rows.
    pub fn onto_created(
        kind: RelationKind,
        source: &Support,
        target: &Support,
        spec: &KernelSpec,
        policy: SupportPolicy,
    ) -> Result<Self> {
        let op = "relation onto created rows";
        spec.check(op)?;
        let window = match (kind, policy) {
            (RelationKind::Forward, SupportPolicy::Floor) => Window::Over(TapOrigin::Centred),
            (RelationKind::Forward, SupportPolicy::KernelReach { .. }) => Window::Over(TapOrigin::Indexed),
            (RelationKind::Transposed | RelationKind::Generative, _) => Window::Under,
            _ => {
                let what = format!("expected a kind that creates its rows, found {kind:?}");
                return Err(Error::Value { op, what });
            }
        };
        Ok(Self::gathered(kind, spec, source, target.clone(), window))
    }

    /// A relation with its rows swapped and its taps kept: from the coarse support of a forward relation back onto its fine
    /// one. It shares the storage of [`Relation::transpose`].
    pub fn inverse(forward: &Relation) -> Self {
        let swapped = forward.transpose();
        let mut record = Record::new(
            RelationKind::Inverse,
            *forward.spec(),
            forward.target().clone(),
            forward.source().clone(),
            Recipe::Shared(swapped),
        );
        record.indexed = forward.0.indexed;
        record.given = forward.0.given;
        Self(Arc::new(record))
    }

    /// A relation from its edges, in any order. The formula of `kind` is not checked; it only names the relation.
    ///
    /// # Errors
    /// [`Error::Value`] when an edge names a row or tap that does not exist, or two edges share output row and tap; what
    /// [`KernelSpec::try_new`] refuses.
    pub fn from_edges(
        source: &Support,
        target: &Support,
        spec: &KernelSpec,
        kind: RelationKind,
        edges: &[Edge],
    ) -> Result<Self> {
        let op = "relation from edges";
        spec.check(op)?;
        let (n_in, n_out, taps) = (source.n_rows(), target.n_rows(), spec.taps());
        let outside =
            |e: &&Edge| e.in_row as usize >= n_in || e.out_row as usize >= n_out || e.tap as usize >= taps;
        if let Some(edge) = edges.iter().find(outside) {
            let what = format!(
                "{edge:?} expected to lie within {n_in} input rows, {n_out} output rows and {taps} taps"
            );
            return Err(Error::Value { op, what });
        }
        let mut edges = edges.to_vec();
        edges.sort_unstable_by_key(Edge::key);
        if let Some(pair) =
            edges.windows(2).find(|pair| (pair[0].out_row, pair[0].tap) == (pair[1].out_row, pair[1].tap))
        {
            let what = format!(
                "{:?} and {:?} share output row and tap, expected one edge at most",
                pair[0], pair[1]
            );
            return Err(Error::Value { op, what });
        }
        let mut splits = vec![0; n_out + 1];
        for edge in &edges {
            splits[edge.out_row as usize + 1] += 1;
        }
        for row in 0..n_out {
            splits[row + 1] += splits[row];
        }
        let csr = Csr {
            splits,
            rows: edges.iter().map(|e| e.in_row).collect(),
            taps: edges.iter().map(|e| e.tap).collect(),
        };
        let recipe = Recipe::Found(Arc::new(csr));
        let mut record = Record::new(kind, *spec, source.clone(), target.clone(), recipe);
        record.given = true;
        Ok(Self(Arc::new(record)))
    }

    fn grown(op: &'static str, kind: RelationKind, spec: &KernelSpec, source: &Support) -> Result<Self> {
        if source.n_rows() as u64 * spec.taps() as u64 <= i32::MAX as u64
            && let Some((target, csr)) = children(source, spec)
        {
            return Ok(Self::found(kind, spec, source, target, csr));
        }
        check_transposed(op, source, spec)?;
        if let Some(kernel) = GrownKernel::new(spec) {
            let (target, csr) = kernel.grow(op, source)?;
            return Ok(Self::found(kind, spec, source, target, csr));
        }
        let target = transposed_support(source, spec)?;
        Ok(Self::gathered(kind, spec, source, target, Window::Under))
    }

    /// A relation onto a support that was created with its pairs.
    fn found(kind: RelationKind, spec: &KernelSpec, source: &Support, target: Support, csr: Csr) -> Self {
        let recipe = Recipe::Found(Arc::new(csr));
        Self(Arc::new(Record::new(kind, *spec, source.clone(), target, recipe)))
    }

    fn gathered(
        kind: RelationKind,
        spec: &KernelSpec,
        source: &Support,
        target: Support,
        window: Window,
    ) -> Self {
        let itself =
            spec.is_odd() && spec.stride == [1; 3] && spec.padding == [0; 3] && source.same_identity(&target);
        let symmetric = itself && matches!(window, Window::Over(TapOrigin::Centred));
        let mut record = Record::new(kind, *spec, source.clone(), target, Recipe::Window(window));
        record.symmetric = symmetric;
        record.indexed = !matches!(window, Window::Over(TapOrigin::Centred));
        Self(Arc::new(record))
    }
}

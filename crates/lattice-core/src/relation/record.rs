//! The record of a relation: its supports, its kernel and its pairs.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak};

use super::csr::Csr;
use super::gather::Window;
use super::tiles::TapTiles;
use super::views::{InputView, NeighbourTable, SortedTable, TapView, once};
use crate::{Attachments, KernelSpec, Support};

/// Identity of a relation, unique within the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RelationId(u64);

impl RelationId {
    fn new() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        Self(NEXT.fetch_add(1, Ordering::Relaxed))
    }
}

/// Which formula pairs the rows. `q` is an output coordinate, `c` an input coordinate, `s` the stride, `p` the padding and `f`
/// the offset of the tap.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum RelationKind {
    /// `c = q * s + f - p` with centred offsets, onto a created, coarser support.
    Forward,
    /// The forward formula onto a given support.
    Target,
    /// The forward formula with stride 1 from a support onto itself; odd sizes.
    Submanifold,
    /// `q = c * s + f - p` with indexed offsets, onto the created support of all such `q`.
    Transposed,
    /// [`RelationKind::Transposed`] without padding and dilation.
    Generative,
    /// The transposed formula onto a given support.
    TargetTransposed,
    /// A forward relation with its rows swapped: from its coarse support back onto its fine one, under the same taps.
    Inverse,
}

/// One product of a sparse convolution: `out[out_row] += in[in_row] * W[tap]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Edge {
    /// Row of the source support.
    pub in_row: u32,
    /// Row of the target support.
    pub out_row: u32,
    /// Kernel tap.
    pub tap: u16,
}

impl Edge {
    /// The canonical order of edges: `(out_row, tap, in_row)`.
    pub fn key(&self) -> (u32, u16, u32) {
        (self.out_row, self.tap, self.in_row)
    }
}

/// The row pairs that one convolution multiplies: `out[o] += in[i] * W[tap]` for every edge `(i, o, tap)`.
///
/// The pair `(i, o)` is listed under a tap **iff** the formula of the relation's [kind](RelationKind) holds for their
/// coordinates within one batch item. Candidates are computed in 64 bits: among rows that exist one outside `i32` matches nothing,
/// and an output row that would be created there is an error. An output row has at most one edge under each tap.
///
/// A relation is immutable and cheap to clone; it owns its supports, so two users of one relation share the identity of its
/// output support. It does not depend on the number of threads. Its pairs are found when they are first read, unless its output
/// support was created with them: what finds them elsewhere by the same formula, such as a GPU, never builds this list.
///
/// # Layout
/// The output CSR: edges of output row `o` stand at `out_splits[o]..out_splits[o + 1]` of `in_rows` and `tap_ids`, in ascending
/// tap. Memory: `6 * pairs + 8 * n_out` bytes. Other orders are views, each built at its first use and kept.
///
/// # Source
/// The "rule book" of Graham et al. 2018 (arXiv:1711.10275); others say "kernel map".
#[derive(Clone)]
pub struct Relation(pub(super) Arc<Record>);

/// How the pairs of a relation are found when they are first read.
pub(super) enum Recipe {
    /// They came with the relation.
    Found(Arc<Csr>),
    /// By the window of every output row.
    Window(Window),
    /// As those of the relation that this one is the kept transpose of, which finds its own by this window.
    Transposed(Window),
    /// They are those of another relation.
    Shared(Relation),
}

/// What a relation holds.
pub(super) struct Record {
    id: RelationId,
    pub(super) kind: RelationKind,
    pub(super) spec: KernelSpec,
    pub(super) source: Support,
    pub(super) target: Support,
    /// True when the rows of the formula are swapped: this is the transpose of a relation of this kind.
    pub(super) adjoint: bool,
    /// The offsets of the formula are the indexed ones.
    pub(super) indexed: bool,
    /// `(i, o, k)` is an edge exactly when `(o, i, taps - 1 - k)` is one: an odd kernel of stride 1 from a support onto itself.
    pub(super) symmetric: bool,
    /// The pairs were given, and may be others than the formula's.
    pub(super) given: bool,
    csr: OnceLock<Arc<Csr>>,
    recipe: Recipe,
    /// Number of pairs, where it is known before they are listed.
    known_pairs: OnceLock<usize>,
    attachments: Attachments,
    pub(super) transpose: OnceLock<Relation>,
    /// The relation that this one is the kept transpose of.
    pub(super) transpose_of: Weak<Record>,
    pub(super) by_input: OnceLock<InputView>,
    pub(super) by_tap: OnceLock<TapView>,
    pub(super) table: OnceLock<NeighbourTable>,
    pub(super) sorted_table: OnceLock<SortedTable>,
    pub(super) tap_tiles: OnceLock<TapTiles>,
}

impl Record {
    pub(super) fn new(
        kind: RelationKind,
        spec: KernelSpec,
        source: Support,
        target: Support,
        recipe: Recipe,
    ) -> Self {
        let indexed =
            !matches!(kind, RelationKind::Forward | RelationKind::Target | RelationKind::Submanifold);
        Self {
            id: RelationId::new(),
            kind,
            spec,
            source,
            target,
            adjoint: false,
            indexed,
            symmetric: false,
            given: false,
            csr: OnceLock::new(),
            recipe,
            known_pairs: OnceLock::new(),
            attachments: Attachments::default(),
            transpose: OnceLock::new(),
            transpose_of: Weak::new(),
            by_input: OnceLock::new(),
            by_tap: OnceLock::new(),
            table: OnceLock::new(),
            sorted_table: OnceLock::new(),
            tap_tiles: OnceLock::new(),
        }
    }

    /// The pairs by output row, found by the first caller.
    pub(super) fn csr(&self) -> &Arc<Csr> {
        once(&self.csr, || match &self.recipe {
            Recipe::Found(csr) => csr.clone(),
            Recipe::Window(window) => {
                Arc::new(window.edges(&self.source, &self.target, &self.spec, self.symmetric))
            }
            Recipe::Transposed(window) => {
                // The original may be gone; its formula is not.
                let original = self.transpose_of.upgrade().map(|original| original.csr().clone());
                let original = original.unwrap_or_else(|| {
                    Arc::new(window.edges(&self.target, &self.source, &self.spec, self.symmetric))
                });
                Arc::new(original.transposed(self.target.n_rows(), self.spec.taps(), self.symmetric))
            }
            Recipe::Shared(other) => other.0.csr().clone(),
        })
    }

    /// The pairs by output row, where they were found already.
    pub(super) fn found_csr(&self) -> Option<&Arc<Csr>> {
        match &self.recipe {
            Recipe::Found(csr) => Some(csr),
            Recipe::Shared(other) => other.0.found_csr(),
            _ => self.csr.get(),
        }
    }

    /// How pairs of the transpose are found.
    pub(super) fn transposed_recipe(&self) -> Recipe {
        match (self.found_csr(), &self.recipe) {
            (None, Recipe::Window(window)) => Recipe::Transposed(*window),
            _ => Recipe::Found(Arc::new(self.csr().transposed(
                self.source.n_rows(),
                self.spec.taps(),
                self.symmetric,
            ))),
        }
    }
}

impl Relation {
    /// Identity of this relation.
    pub fn id(&self) -> RelationId {
        self.0.id
    }

    /// True when both are the same relation, not only equal ones.
    pub fn same_identity(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// The formula that pairs the rows. A [transpose](Relation::transpose) keeps the kind of what it was made from.
    pub fn kind(&self) -> RelationKind {
        self.0.kind
    }

    /// True for the transpose of a relation of this kind: source and target of the formula are swapped.
    pub fn is_adjoint(&self) -> bool {
        self.0.adjoint
    }

    /// True when the pairs were given one by one: the formula of the kind need not hold for them.
    pub fn is_given(&self) -> bool {
        self.0.given
    }

    /// Forms that other crates keep with this relation.
    pub fn attachments(&self) -> &Attachments {
        &self.0.attachments
    }

    /// The kernel.
    pub fn spec(&self) -> &KernelSpec {
        &self.0.spec
    }

    /// Support of the input rows.
    pub fn source(&self) -> &Support {
        &self.0.source
    }

    /// Support of the output rows.
    pub fn target(&self) -> &Support {
        &self.0.target
    }

    /// Input rows.
    pub fn n_in(&self) -> usize {
        self.0.source.n_rows()
    }

    /// Output rows.
    pub fn n_out(&self) -> usize {
        self.0.target.n_rows()
    }

    /// Kernel taps.
    pub fn taps(&self) -> usize {
        self.0.spec.taps()
    }

    /// Edges. Lists them, unless they are listed or their number is [known](Relation::set_pairs).
    pub fn n_pairs(&self) -> usize {
        self.known_pairs().unwrap_or_else(|| self.0.csr().rows.len())
    }

    /// Edges, where they are listed or their number is known.
    pub fn known_pairs(&self) -> Option<usize> {
        self.0.found_csr().map(|csr| csr.rows.len()).or_else(|| self.0.known_pairs.get().copied())
    }

    /// Keeps the number of edges, as counted by someone who found them without listing them here. The first call counts.
    pub fn set_pairs(&self, n_pairs: usize) {
        // A second count of the same edges is the same.
        let _ = self.0.known_pairs.set(n_pairs);
    }

    /// True where every edge `(i, o, k)` has its mirror image `(o, i, taps - 1 - k)`: an odd kernel of stride 1 from a support onto
    /// itself. The transpose is then the relation itself with its taps in reverse.
    pub fn is_symmetric(&self) -> bool {
        self.0.symmetric
    }

    /// Offset of every tap as the formula of the [kind](RelationKind) uses it. A transpose and an inverse have those of the
    /// relation they were made from.
    pub fn offsets(&self) -> Vec<[i32; 3]> {
        match self.0.indexed {
            true => self.0.spec.indexed_offsets(),
            false => self.0.spec.centred_offsets(),
        }
    }

    /// True when the kernel's geometry alone makes sure that every input row has at most one edge, so that gradients need no
    /// sum. False says nothing.
    pub fn input_exclusive(&self) -> bool {
        let windows_over_input =
            matches!(self.0.kind, RelationKind::Forward | RelationKind::Target | RelationKind::Submanifold);
        match windows_over_input != self.0.adjoint {
            true => !self.0.spec.overlaps(),
            false => self.taps() == 1,
        }
    }

    /// All edges in canonical order: ascending `(out_row, tap, in_row)`.
    pub fn edges(&self) -> Vec<Edge> {
        let mut edges = Vec::with_capacity(self.n_pairs());
        self.0.csr().for_each_pair(&(0..self.n_out()), |out_row, in_row, tap| {
            edges.push(Edge { in_row, out_row, tap })
        });
        edges
    }

    /// Bounds of the edges of every output row, `n_out + 1` long.
    pub fn out_splits(&self) -> &[usize] {
        &self.0.csr().splits
    }

    /// Input row of every edge.
    pub fn in_rows(&self) -> &[u32] {
        &self.0.csr().rows
    }

    /// Tap of every edge.
    pub fn tap_ids(&self) -> &[u16] {
        &self.0.csr().taps
    }

    /// Edges of every tap.
    pub fn tap_histogram(&self) -> Vec<usize> {
        let mut histogram = vec![0; self.taps()];
        for &tap in self.tap_ids() {
            histogram[tap as usize] += 1;
        }
        histogram
    }

    /// Output rows that have `0, 1, .. taps` edges; `taps + 1` long.
    pub fn neighbour_histogram(&self) -> Vec<usize> {
        let mut histogram = vec![0; self.taps() + 1];
        for split in self.out_splits().windows(2) {
            histogram[split[1] - split[0]] += 1;
        }
        histogram
    }
}

impl std::fmt::Debug for Relation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Relation")
            .field("id", &self.0.id)
            .field("kind", &self.0.kind)
            .field("adjoint", &self.0.adjoint)
            .field("spec", &self.0.spec)
            .field("n_in", &self.n_in())
            .field("n_out", &self.n_out())
            .field("known_pairs", &self.known_pairs())
            .finish()
    }
}

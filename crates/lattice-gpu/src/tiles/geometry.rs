//! The formula that a relation obeys.

use lattice_core::{KernelSpec, Relation, RelationKind};

/// How the formula of a relation finds an input coordinate `c` from an output coordinate `q` and a tap offset `f`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Placement {
    /// `c = q * stride + f - padding`.
    Multiply,
    /// `c = (q + padding - f) / stride`, where that is whole.
    Divide,
}

/// The formula of a relation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Geometry {
    pub(crate) placement: Placement,
    pub(crate) size: [u32; 3],
    pub(crate) stride: [i32; 3],
    pub(crate) first: [i32; 3],
    pub(crate) dilation: [i32; 3],
    pub(crate) padding: [i32; 3],
}

impl Geometry {
    /// The formula of a kind of relation whose support no policy chose; [`Geometry::of`] is that of any relation.
    pub fn new(kind: RelationKind, spec: &KernelSpec) -> Self {
        let (placement, centred) = match kind {
            RelationKind::Forward | RelationKind::Target | RelationKind::Submanifold => {
                (Placement::Multiply, true)
            }
            RelationKind::Inverse => (Placement::Divide, true),
            _ => (Placement::Divide, false),
        };
        let offsets = if centred { spec.centred_offsets() } else { spec.indexed_offsets() };
        let signed = |v: [u32; 3]| v.map(|v| v as i32);
        Self {
            placement,
            size: spec.size,
            stride: signed(spec.stride),
            first: offsets[0],
            dilation: signed(spec.dilation),
            padding: signed(spec.padding),
        }
    }

    /// The formula that the pairs of a relation obey, whatever its offsets and also for a transpose.
    pub fn of(relation: &Relation) -> Self {
        let spec = relation.spec();
        let signed = |v: [u32; 3]| v.map(|v| v as i32);
        let placement = match relation.kind() {
            RelationKind::Forward | RelationKind::Target | RelationKind::Submanifold => Placement::Multiply,
            _ => Placement::Divide,
        };
        let formula = Self {
            placement,
            size: spec.size,
            stride: signed(spec.stride),
            first: relation.offsets()[0],
            dilation: signed(spec.dilation),
            padding: signed(spec.padding),
        };
        if relation.is_adjoint() { formula.swapped() } else { formula }
    }

    /// The formula with inputs and outputs swapped, under the same taps.
    pub fn swapped(self) -> Self {
        let placement = match self.placement {
            Placement::Multiply => Placement::Divide,
            Placement::Divide => Placement::Multiply,
        };
        Self { placement, ..self }
    }

    /// Whether every row meets itself under some tap, if source and target are one.
    pub(super) fn is_centred(&self) -> bool {
        let has_zero = |a: usize| {
            (0..self.size[a] as i32).any(|i| i * self.dilation[a] + self.first[a] == self.padding[a])
        };
        self.stride == [1; 3] && (0..3).all(has_zero)
    }

    /// Number of taps.
    pub fn taps(&self) -> u32 {
        self.size.iter().product()
    }

    /// Whether no input row meets two output rows, or no output row two input rows, because windows do not overlap.
    fn is_exclusive(&self) -> bool {
        let apart = |a: usize| {
            let steps = 1..self.size[a] as i64;
            steps.into_iter().all(|i| i * i64::from(self.dilation[a]) % i64::from(self.stride[a]) != 0)
        };
        (0..3).all(apart)
    }

    /// Most pairs of a relation between supports of these sizes, and so most rows of all halos, where windows do not overlap.
    pub(super) fn exclusive_pairs(&self, n_in: usize, n_out: usize) -> Option<usize> {
        let rows = match self.placement {
            Placement::Multiply => n_in,
            Placement::Divide => n_out,
        };
        self.is_exclusive().then_some(rows)
    }

    /// Cells from the first to the last of a window along an axis.
    pub(super) fn extent(&self, axis: usize) -> i32 {
        (self.size[axis] as i32 - 1) * self.dilation[axis]
    }

    /// Whether the window of a target row touches at most two blocks along each axis.
    pub(super) fn is_near(&self) -> bool {
        matches!(self.placement, Placement::Multiply) && (0..3).all(|axis| self.extent(axis) <= 4)
    }

    /// Whether the window of some target row touches two blocks of four cells along an axis.
    pub(super) fn crosses(&self, axis: usize) -> bool {
        let first = i64::from(self.first[axis]) - i64::from(self.padding[axis]);
        let starts = (0..4).map(|row| (first + row * i64::from(self.stride[axis])).rem_euclid(4));
        starts.max().unwrap_or(0) + i64::from(self.extent(axis)) >= 4
    }

    /// Place of an axis among those along which windows touch two blocks.
    pub(super) fn block_bit(&self, axis: usize) -> usize {
        (0..axis).filter(|&axis| self.crosses(axis)).count()
    }

    /// Most blocks that a window touches.
    pub(super) fn blocks(&self) -> usize {
        1 << self.block_bit(3)
    }
}

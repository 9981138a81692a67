//! Values of a graph that is being built. They belong to the builder that made them.

/// A sparse tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SparseValue {
    pub(super) id: usize,
    pub(super) channels: Option<usize>,
}

impl SparseValue {
    /// Channels of its features, where they are known.
    pub fn channels(&self) -> Option<usize> {
        self.channels
    }
}

/// Dense features `[n, c]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DenseValue {
    pub(super) id: usize,
    pub(super) channels: Option<usize>,
}

impl DenseValue {
    /// Channels, where they are known.
    pub fn channels(&self) -> Option<usize> {
        self.channels
    }
}

/// An integer array: coordinates, ids or a number of rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ArrayValue {
    pub(super) id: usize,
}

/// A weight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WeightValue {
    pub(super) id: usize,
    /// Output channels of a weight, or channels of a vector.
    pub(super) channels: usize,
}

/// The three arguments of a sparse input.
#[derive(Clone, Copy, Debug)]
pub struct SparseInputValues {
    /// Physical rows `[n, 4]`.
    pub coords: ArrayValue,
    /// Features `[n, c]`.
    pub features: DenseValue,
    /// Number of valid rows.
    pub active: ArrayValue,
}

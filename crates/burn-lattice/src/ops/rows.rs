//! Linear maps and maxima of feature rows: what pooling, joins, selection and the point bridge are made of.

use burn::backend::Dispatch;
use burn::tensor::Tensor;
use lattice_core as core;

use crate::RowMap;
use crate::backend::LatticeBackend;

/// `y[o] = Σ weight[e] · x[row[e]]`, and `fill` in every channel of a row without entries. Differentiable in `x`.
///
/// # Panics
/// When `x` does not have `map.n_in()` rows.
pub fn mix_rows(x: Tensor<2>, map: &RowMap, fill: f32) -> Tensor<2> {
    assert_eq!(x.dims()[0], map.n_in(), "mix_rows: the map reads another number of rows");
    Tensor::from_dispatch(<Dispatch as LatticeBackend>::row_mix(x.into_dispatch(), map.clone(), fill))
}

/// `y[o] = max x[row[e]]` per channel, and 0 where a row has no entry; NaN wins. Gradients split evenly over ties.
///
/// # Panics
/// When `x` does not have `map.n_in()` rows.
pub fn max_rows(x: Tensor<2>, map: &RowMap) -> Tensor<2> {
    assert_eq!(x.dims()[0], map.n_in(), "max_rows: the map reads another number of rows");
    Tensor::from_dispatch(<Dispatch as LatticeBackend>::row_max(x.into_dispatch(), map.clone()))
}

/// The rows of `x` with the given numbers, in their order; differentiable.
///
/// # Panics
/// When a number is not a row of `x`.
pub fn gather_rows(x: &Tensor<2>, rows: &[u32]) -> Tensor<2> {
    let n_in = x.dims()[0];
    let map = core::RowMap::try_new(n_in, (0..=rows.len()).collect(), rows.to_vec(), None)
        .unwrap_or_else(|error| panic!("{error}"));
    mix_rows(x.clone(), &map.into(), 0.0)
}

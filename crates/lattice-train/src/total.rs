//! Sums in one order.
//!
//! Burn sums on GPUs by whichever way is fastest, which adds in an order of its own, or in none. What a run reports and what gradients are
//! clipped by should have the same bits in every run, so it is summed by row maps, whose order is that of the rows.

use burn::tensor::Tensor;
use burn_lattice::RowMap;
use burn_lattice::core::{self, Result};
use burn_lattice::ops::mix_rows;

/// Columns that a long vector is laid out in.
const COLUMNS: usize = 64;

/// The map of `rows` rows onto their sum.
fn all_rows(rows: usize) -> Result<RowMap> {
    let numbers = (0..rows as u32).collect();
    Ok(core::RowMap::try_new(rows, vec![0, rows], numbers, None)?.into())
}

/// Sum of all elements, `[1]`, in an order that depends on the shape alone. Differentiable.
///
/// # Panics
/// For 2^32 rows or more.
pub(crate) fn total(values: Tensor<2>) -> Tensor<1> {
    let [rows, columns] = values.dims();
    let map = |n| all_rows(n).expect("a batch has fewer than 2^32 rows");
    let by_column = mix_rows(values, &map(rows), 0.0).reshape([columns, 1]);
    mix_rows(by_column, &map(columns), 0.0).reshape([1])
}

/// Sums vectors of one length; the maps are made once.
#[derive(Clone, Debug)]
pub(crate) struct Totals {
    /// For the part that fills whole rows of [`COLUMNS`].
    rows: Option<RowMap>,
    rest: RowMap,
    len: usize,
}

impl Totals {
    /// For vectors `[len]`.
    ///
    /// # Errors
    /// For 2^38 elements or more.
    pub(crate) fn new(len: usize) -> Result<Self> {
        let rows = if len < COLUMNS { None } else { Some(all_rows(len / COLUMNS)?) };
        let sums = if rows.is_some() { COLUMNS } else { 0 };
        Ok(Self { rows, rest: all_rows(sums + len % COLUMNS)?, len })
    }

    /// Sum of the elements, `[1]`.
    ///
    /// # Panics
    /// For a vector of another length.
    pub(crate) fn of(&self, values: Tensor<1>) -> Tensor<1> {
        assert_eq!(values.dims(), [self.len], "a total of vectors of one length");
        let left = match &self.rows {
            None => values,
            Some(map) => {
                let whole = self.len / COLUMNS * COLUMNS;
                let rows = values.clone().narrow(0, 0, whole).reshape([self.len / COLUMNS, COLUMNS]);
                let sums: Tensor<1> = mix_rows(rows, map, 0.0).reshape([COLUMNS]);
                match self.len - whole {
                    0 => sums,
                    rest => Tensor::cat(vec![sums, values.narrow(0, whole, rest)], 0),
                }
            }
        };
        let [n] = left.dims();
        mix_rows(left.reshape([n, 1]), &self.rest, 0.0).reshape([1])
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use burn::tensor::{DType, Device, TensorData};

    use super::*;

    #[test]
    fn totals_are_sums() {
        let device = Device::flex();
        for len in [1usize, 63, 64, 65, 10_000] {
            let values: Vec<f32> = (0..len).map(|i| ((i * 37) % 101) as f32 / 50.0 - 1.0).collect();
            let expected: f64 = values.iter().map(|&v| f64::from(v)).sum();
            let tensor = Tensor::<1>::from_data(TensorData::new(values, [len]), (&device, DType::F32));
            let found = Totals::new(len).unwrap().of(tensor.clone()).into_scalar::<f32>();
            assert!((f64::from(found) - expected).abs() < 1e-3, "{len}: {found}, expected {expected}");
            let found = total(tensor.reshape([len, 1])).into_scalar::<f32>();
            assert!((f64::from(found) - expected).abs() < 1e-3, "{len}: {found}, expected {expected}");
        }
    }
}

//! The transpose of a row map, made where the map lies.

use cubecl::prelude::*;

use super::map::DeviceRowMap;
use crate::address::UNITS;
use crate::gpu::{Buffer, Gpu};
use crate::points::share_of;
use crate::sort::{Keys, sort_rows};

/// First position of sorted `values` that is at or above `wanted`.
#[cube]
fn lower_bound(values: &[u32], n: u32, wanted: u32) -> u32 {
    let mut from = 0u32;
    let mut to = n;
    while from < to {
        let middle = from + (to - from) / 2u32;
        if values[middle as usize] < wanted {
            from = middle + 1u32;
        } else {
            to = middle;
        }
    }
    from
}

/// Row whose entries hold `entry`: the last that begins at or before it.
#[cube]
fn row_of_entry(splits: &[u32], n_out: u32, entry: u32) -> u32 {
    lower_bound(splits, n_out + 1u32, entry + 1u32) - 1u32
}

/// `keys[e]`: input row of an entry, `n_in` past the last one; `outs[e]`: its output row. One unit an entry.
#[cube(launch_unchecked)]
fn entry_keys_kernel(
    rows: &[u32],
    splits: &[u32],
    keys: &mut [u32],
    outs: &mut [u32],
    n_entries: u32,
    n_out: u32,
    n_in: u32,
) {
    let entry = ABSOLUTE_POS as u32;
    if entry < n_entries {
        let mut key = n_in;
        let mut out = 0u32;
        if entry < splits[n_out as usize] {
            key = rows[entry as usize];
            out = row_of_entry(splits, n_out, entry);
        }
        keys[entry as usize] = key;
        outs[entry as usize] = out;
    }
}

/// Where the entries of each input row begin among sorted keys. One unit a row, and one for the end.
#[cube(launch_unchecked)]
fn key_splits_kernel(keys: &[u32], splits: &mut [u32], n_entries: u32, n_in: u32) {
    let row = ABSOLUTE_POS as u32;
    if row <= n_in {
        splits[row as usize] = lower_bound(keys, n_entries, row);
    }
}

/// Output rows and weights in the order of the keys. One unit an entry.
#[cube(launch_unchecked)]
fn reorder_kernel(
    order: &[u32],
    outs: &[u32],
    weights: &[f32],
    rows_out: &mut [u32],
    weights_out: &mut [f32],
    n_entries: u32,
    #[comptime] weighted: bool,
) {
    let at = ABSOLUTE_POS as u32;
    if at < n_entries {
        let entry = order[at as usize];
        rows_out[at as usize] = outs[entry as usize];
        if comptime!(weighted) {
            weights_out[at as usize] = weights[entry as usize];
        }
    }
}

/// One by the number of entries of an entry's row. One unit an entry.
#[cube(launch_unchecked)]
fn mean_weights_kernel(splits: &[u32], weights: &mut [f32], n_entries: u32, n_out: u32) {
    let entry = ABSOLUTE_POS as u32;
    if entry < n_entries && entry < splits[n_out as usize] {
        let row = row_of_entry(splits, n_out, entry);
        weights[entry as usize] = share_of(splits[row as usize + 1usize] - splits[row as usize]);
    }
}

impl DeviceRowMap {
    /// The adjoint: entries grouped by input row, ascending output row, those of the host's transpose. `longest` bounds the entries of an
    /// input row; where nobody knows, the device is waited for.
    ///
    /// Cost: a sort of the entries by the bits of a row number, and three launches.
    pub fn transposed(&self, gpu: &Gpu, longest: Option<usize>) -> Self {
        let (n_in, n_out, n) = (self.n_in(), self.n_out(), self.rows.len);
        let sides = [n_out, n_in];
        if n == 0 {
            let splits = gpu.upload(&vec![0u32; n_in + 1]);
            return Self::from_parts(gpu, sides, gpu.empty(0, 4), None, splits, Some(0));
        }
        let keys = Keys {
            low: gpu.empty(n, 4),
            high: gpu.empty(0, 4),
            // Those past the last entry have the key `n_in`.
            bits: usize::BITS - n_in.leading_zeros(),
        };
        let (outs, splits, rows) = (gpu.empty(n, 4), gpu.empty(n_in + 1, 4), gpu.empty(n, 4));
        let weights: Option<Buffer> = self.weights.as_ref().map(|_| gpu.empty(n, 4));
        let dim = CubeDim::new_1d(UNITS);
        // SAFETY: positions are checked against the counts, which are the lengths of the buffers; splits are those of the map, and the
        // order is a permutation of the entries.
        unsafe {
            entry_keys_kernel::launch_unchecked(
                gpu.client(),
                Gpu::cubes(n, UNITS as usize),
                dim,
                self.rows.arg(1),
                self.splits.arg(1),
                keys.low.arg(1),
                outs.arg(1),
                n as u32,
                n_out as u32,
                n_in as u32,
            );
            let (sorted, order) = sort_rows(gpu, &keys);
            key_splits_kernel::launch_unchecked(
                gpu.client(),
                Gpu::cubes(n_in + 1, UNITS as usize),
                dim,
                sorted.low.arg(1),
                splits.arg(1),
                n as u32,
                n_in as u32,
            );
            reorder_kernel::launch_unchecked(
                gpu.client(),
                Gpu::cubes(n, UNITS as usize),
                dim,
                order.arg(1),
                outs.arg(1),
                self.weights.as_ref().unwrap_or(&outs).arg(1),
                rows.arg(1),
                weights.as_ref().unwrap_or(&keys.low).arg(1),
                n as u32,
                weights.is_some(),
            );
        }
        Self::from_parts(gpu, sides, rows, weights, splits, longest)
    }

    /// This map with weights of one by the number of entries of each row. One launch.
    pub fn averaged(&self, gpu: &Gpu) -> Self {
        let n = self.rows.len;
        let weights = gpu.empty(n, 4);
        // SAFETY: positions are checked against the count; splits are those of the map.
        unsafe {
            mean_weights_kernel::launch_unchecked(
                gpu.client(),
                Gpu::cubes(n, UNITS as usize),
                CubeDim::new_1d(UNITS),
                self.splits.arg(1),
                weights.arg(1),
                n as u32,
                self.n_out() as u32,
            );
        }
        Self { weights: Some(weights), ..self.clone() }
    }
}

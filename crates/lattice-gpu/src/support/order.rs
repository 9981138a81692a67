//! What rows hold, and their canonical order.

use cubecl::prelude::*;
use lattice_core::{Coord, KeyLayout, KeyWidth};

use super::kernel::{DESCRIPTION, describe_kernel, pack_keys_kernel};
use crate::address::UNITS;
use crate::gpu::{Buffer, Gpu};
use crate::index::BlockIndex;
use crate::sort::{Keys, sort_rows};

/// What [`describe`] finds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Described {
    /// Smallest and largest value of each column; none without rows.
    pub bounds: Option<(Coord, Coord)>,
    /// Whether every row stands above the one before in canonical order.
    pub canonical: bool,
    /// Rows that repeat a coordinate of another row.
    pub duplicates: usize,
}

/// Smallest and largest value of each column; none without rows. Waits for the device.
pub fn bounds(gpu: &Gpu, coords: &Buffer) -> Option<(Coord, Coord)> {
    let n = coords.len / 4;
    described(gpu, coords, &gpu.empty(2, 4), n).bounds
}

/// Bounds, order and duplicates of the rows of an index. Waits for the device.
pub fn describe(gpu: &Gpu, index: &BlockIndex) -> Described {
    described(gpu, &index.coords, &index.counters, index.n_rows)
}

/// The description of rows; the number of duplicates is the second counter.
fn described(gpu: &Gpu, coords: &Buffer, counters: &Buffer, n: usize) -> Described {
    if n == 0 {
        return Described { bounds: None, canonical: true, duplicates: 0 };
    }
    let mut start = [0i32; DESCRIPTION];
    start[..4].fill(i32::MAX);
    start[4..8].fill(i32::MIN);
    let found = gpu.upload(&start);
    // SAFETY: units past the rows only wait; the description has its ten words.
    unsafe {
        describe_kernel::launch_unchecked(
            gpu.client(),
            Gpu::cubes(n, UNITS as usize),
            CubeDim::new_1d(UNITS),
            coords.arg(4),
            counters.arg(1),
            found.arg(1),
            n as u32,
        );
    }
    let found = gpu.download::<i32>(&found);
    let columns = |from: usize| std::array::from_fn(|column| found[from + column]);
    Described {
        bounds: Some((columns(0), columns(4))),
        canonical: found[8] == 0,
        duplicates: found[9] as usize,
    }
}

/// The rows in canonical order, equal ones in the order they stand in. `None` where keys of these rows pass 64 bits: coordinates
/// that need more than 21 bits an axis, or fewer with many batch items.
pub fn canonical_order(gpu: &Gpu, coords: &Buffer, bounds: &(Coord, Coord)) -> Option<Buffer> {
    let layout = KeyLayout::new(&bounds.0, &bounds.1);
    if layout.width() == KeyWidth::Wide {
        return None;
    }
    let n = coords.len / 4;
    let bits = 3 * layout.axis_bits() + layout.batch_bits();
    let keys = Keys { low: gpu.empty(n, 4), high: gpu.empty(n, 4), bits };
    // SAFETY: one unit a row, checked against the count.
    unsafe {
        pack_keys_kernel::launch_unchecked(
            gpu.client(),
            Gpu::cubes(n, UNITS as usize),
            CubeDim::new_1d(UNITS),
            coords.arg(4),
            keys.low.arg(1),
            keys.high.arg(1),
            n as u32,
            layout.axis_bits(),
            bounds.0[0],
        );
    }
    Some(sort_rows(gpu, &keys).1)
}

//! Rows as cells of a dense grid.

use cubecl::prelude::*;

use crate::address::UNITS;
use crate::gpu::{Buffer, Gpu};

/// A grid over the four columns of a row: batch, x, y, z.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CellGrid {
    /// Value of each column at the first cell.
    pub offset: [i32; 4],
    /// Cells along each column.
    pub extent: [u32; 4],
    /// Cells between neighbours along each column; 0 where a column does not count.
    pub step: [u32; 4],
    /// Column whose values are brought inside, instead of being outside.
    pub clamped: Option<usize>,
}

/// `cells[row]`: the cell of a row; `outside` is set where one has none. One unit a row. `grid` holds offsets, extents and steps.
#[cube(launch_unchecked)]
fn cells_kernel(
    coords: &[Vector<i32, Const<4>>],
    grid: &[u32],
    cells: &mut [i32],
    outside: &mut [Atomic<u32>],
    n: u32,
    #[comptime] clamped: Option<usize>,
) {
    let row = ABSOLUTE_POS as u32;
    if row < n {
        let c = coords[row as usize];
        let mut cell = 0u32;
        let mut fits = true;
        #[unroll]
        for column in 0usize..4usize {
            let value = c.extract(column);
            let offset = i32::cast_from(grid[column]);
            let extent = grid[comptime!(column + 4)];
            let step = grid[comptime!(column + 8)];
            // The difference of two integers as one without a sign: right for values at or above the offset.
            let mut at = u32::cast_from(value) - u32::cast_from(offset);
            let below = value < offset;
            if comptime!(clamped == Some(column)) {
                at = select(below, 0u32, min(at, extent - 1u32));
            } else if step > 0u32 {
                fits = fits && !below && at < extent;
            }
            cell += at * step;
        }
        cells[row as usize] = select(fits, i32::cast_from(cell), -1i32);
        if !fits {
            outside[0].fetch_or(1u32);
        }
    }
}

/// The cell of every row in a grid of fewer than 2^31 cells; `None` where a row lies outside. One wait.
pub fn cells(gpu: &Gpu, coords: &Buffer, grid: &CellGrid) -> Option<Buffer> {
    let n = coords.len / 4;
    let (cells, outside) = (gpu.empty(n, 4), gpu.upload(&[0u32]));
    let mut words = [0u32; 12];
    words[..4].copy_from_slice(&grid.offset.map(|v| v as u32));
    words[4..8].copy_from_slice(&grid.extent);
    words[8..].copy_from_slice(&grid.step);
    // SAFETY: one unit a row, checked against the count; the grid has its twelve words.
    unsafe {
        cells_kernel::launch_unchecked(
            gpu.client(),
            Gpu::cubes(n, UNITS as usize),
            CubeDim::new_1d(UNITS),
            coords.arg(4),
            gpu.upload(&words).arg(1),
            cells.arg(1),
            outside.arg(1),
            n as u32,
            grid.clamped,
        );
    }
    (gpu.download::<u32>(&outside)[0] == 0).then_some(cells)
}

/// The batch ids of rows. One launch.
pub fn batch_ids(gpu: &Gpu, coords: &Buffer) -> Buffer {
    let n = coords.len / 4;
    let ids = gpu.empty(n, 4);
    // SAFETY: one unit a row, checked against the count.
    unsafe {
        batch_ids_kernel::launch_unchecked(
            gpu.client(),
            Gpu::cubes(n, UNITS as usize),
            CubeDim::new_1d(UNITS),
            coords.arg(4),
            ids.arg(1),
            n as u32,
        );
    }
    ids
}

/// `counts[id]`: rows of a batch item. One unit a row; a cube adds what it counted at once where there are few items.
#[cube(launch_unchecked)]
fn count_items_kernel(coords: &[Vector<i32, Const<4>>], counts: &mut [Atomic<u32>], n: u32, items: u32) {
    let own = Shared::<[Atomic<u32>]>::new_slice(comptime!(UNITS as usize));
    own[UNIT_POS as usize].store(0u32);
    sync_cube();
    let row = ABSOLUTE_POS as u32;
    if row < n {
        let id = u32::cast_from(coords[row as usize].extract(0usize));
        if items <= UNITS {
            own[id as usize].fetch_add(1u32);
        } else {
            counts[id as usize].fetch_add(1u32);
        }
    }
    sync_cube();
    if items <= UNITS && UNIT_POS < items {
        let count = own[UNIT_POS as usize].load();
        if count > 0u32 {
            counts[UNIT_POS as usize].fetch_add(count);
        }
    }
}

/// Rows of each of `items` batch items, which no batch id passes. Waits for the device.
pub fn batch_counts(gpu: &Gpu, coords: &Buffer, items: usize) -> Vec<usize> {
    let n = coords.len / 4;
    let counts = gpu.upload(&vec![0u32; items]);
    // SAFETY: one unit a row, checked against the count; batch ids are below the items, as the caller knows.
    unsafe {
        count_items_kernel::launch_unchecked(
            gpu.client(),
            Gpu::cubes(n, UNITS as usize),
            CubeDim::new_1d(UNITS),
            coords.arg(4),
            counts.arg(1),
            n as u32,
            items as u32,
        );
    }
    gpu.download::<u32>(&counts).into_iter().map(|count| count as usize).collect()
}

/// One unit a row.
#[cube(launch_unchecked)]
fn batch_ids_kernel(coords: &[Vector<i32, Const<4>>], ids: &mut [i32], n: u32) {
    let row = ABSOLUTE_POS as u32;
    if row < n {
        ids[row as usize] = coords[row as usize].extract(0usize);
    }
}

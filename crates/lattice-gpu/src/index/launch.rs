//! Builds the block index.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use cubecl::prelude::*;

use super::kernel::{
    COUNTERS, clear_table_kernel, insert_rows_kernel, place_blocks_kernel, place_rows_kernel,
};
use crate::arena::Life;
use crate::gpu::{Buffer, Gpu};

/// Units of a cube of these kernels.
const UNITS: u32 = 256;

/// The index of distinct coordinates on a device.
///
/// Memory: 16 bytes a slot, of which there are two to four a row at most, and 4 bytes a row.
#[derive(Clone, Debug)]
pub struct BlockIndex {
    pub(crate) coords: Buffer,
    pub(crate) slots: Buffer,
    pub(crate) occupancy: Buffer,
    pub(crate) first: Buffer,
    pub(crate) rows: Buffer,
    pub(crate) counters: Buffer,
    pub(crate) mask: u32,
    pub(crate) n_rows: usize,
    /// Counters handed out so far.
    handed_out: Arc<AtomicUsize>,
}

/// Lists of counters that an index has cleared beside its own, for tiles that are built from it.
const SPARE_LISTS: usize = COUNTERS as usize / LIST - 1;
/// Counters of a list.
pub(crate) const LIST: usize = 4;

impl BlockIndex {
    /// The index of `n_rows` coordinates `[batch, x, y, z]`, four launches.
    ///
    /// # Panics
    /// Above 2^30 rows: the table has two slots a row at least, numbered in 32 bits.
    pub fn build(gpu: &Gpu, coords: &Buffer, n_rows: usize) -> Self {
        assert!(n_rows <= 1 << 30, "index: expected at most 2^30 rows, found {n_rows}");
        let n_slots = (2 * n_rows).next_power_of_two().max(64);
        let index = Self {
            coords: coords.clone(),
            slots: gpu.empty(n_slots, 4),
            occupancy: gpu.empty(2 * n_slots, 4),
            first: gpu.empty(n_slots, 4),
            rows: gpu.empty(n_rows, 4),
            counters: gpu.empty(COUNTERS as usize, 4),
            mask: n_slots as u32 - 1,
            n_rows,
            handed_out: Arc::default(),
        };
        let slot_of_row = gpu.room(n_rows, 4, Life::Passing);
        let client = gpu.client();
        let dim = CubeDim::new_1d(UNITS);
        let by_slot = || Gpu::cubes(n_slots, UNITS as usize);
        let by_row = || Gpu::cubes(n_rows, UNITS as usize);
        // SAFETY: every kernel checks its position against the counts given, which are the lengths of the buffers; slots and rows
        // read from the table were written by the kernels before.
        unsafe {
            clear_table_kernel::launch_unchecked(
                client,
                by_slot(),
                dim,
                index.slots.arg(1),
                index.occupancy.arg(1),
                index.counters.arg(1),
                n_slots as u32,
            );
            if n_rows == 0 {
                return index;
            }
            insert_rows_kernel::launch_unchecked(
                client,
                by_row(),
                dim,
                coords.arg(4),
                index.slots.arg(1),
                index.occupancy.arg(1),
                index.counters.arg(1),
                slot_of_row.arg(1),
                n_rows as u32,
                index.mask,
            );
            place_blocks_kernel::launch_unchecked(
                client,
                by_slot(),
                dim,
                index.slots.arg(1),
                index.occupancy.arg(1),
                index.first.arg(1),
                index.counters.arg(1),
                n_slots as u32,
            );
            place_rows_kernel::launch_unchecked(
                client,
                by_row(),
                dim,
                coords.arg(4),
                index.occupancy.arg(1),
                index.first.arg(1),
                slot_of_row.arg(1),
                index.rows.arg(1),
                n_rows as u32,
            );
        }
        index
    }

    /// A list of [`LIST`] counters at zero that nobody else counts with: the buffer that holds it and where it begins.
    pub(crate) fn counters(&self, gpu: &Gpu) -> (Buffer, usize) {
        match self.handed_out.fetch_add(1, Ordering::Relaxed) {
            at if at < SPARE_LISTS => (self.counters.clone(), LIST * (at + 1)),
            _ => (gpu.upload(&[0u32; LIST]), 0),
        }
    }

    /// Cells that hold more than one row. Waits for the device.
    pub fn duplicates(&self, gpu: &Gpu) -> usize {
        gpu.download::<u32>(&self.counters)[1] as usize
    }
}

//! Builds the block index.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use cubecl::prelude::*;

use super::kernel::{
    COUNTERS, DESCRIPTION, PartLaunch, clear_table_kernel, insert_rows_kernel, place_blocks_kernel,
    place_rows_kernel,
};
use super::order::{BUCKET_WORDS, Blocks, MOST_ROWS, list_in_order};
use crate::gpu::{Buffer, Gpu};

/// Units of a cube of these kernels.
const UNITS: u32 = 256;

/// Fewest slots of a table: so many that each of several in one buffer begins where a buffer may.
const LEAST_SLOTS: usize = 128;

/// The index of distinct coordinates on a device.
///
/// Memory: 12 bytes a slot, of which there are two to four a row at most; for rows that are looked up one by one 4 bytes a slot and a row
/// more; until then 8 bytes a row where rows may stand in any order.
#[derive(Clone, Debug)]
pub struct BlockIndex {
    /// `[n_rows, 4]`.
    pub(crate) coords: Buffer,
    /// The rows that leaders are numbered among, and which of them is the first of this index.
    pub(crate) all: Buffer,
    pub(crate) first_row: usize,
    /// Slots of this index and of those that were built with it, and which is the first of this one.
    pub(crate) slots: Buffer,
    pub(crate) occupancy: Buffer,
    pub(crate) first_slot: usize,
    pub(crate) mask: u32,
    /// Counters of all, and where those of this index begin.
    pub(crate) counters: Buffer,
    first_counter: usize,
    pub(crate) n_rows: usize,
    /// Whether rows stand in canonical order, so that those of a block lie next to each other.
    pub(crate) is_canonical: bool,
    /// Counters handed out so far.
    handed_out: Arc<AtomicUsize>,
    /// What lists its rows, until they are listed, where that sorts them.
    blocks: Arc<Mutex<Option<Blocks>>>,
    listed: Arc<OnceLock<Listed>>,
}

/// The rows of an index block by block.
#[derive(Clone, Debug)]
pub(crate) struct Listed {
    /// Slots and occupancy of this index alone.
    pub(crate) slots: Buffer,
    pub(crate) occupancy: Buffer,
    /// First position of a slot's rows.
    pub(crate) first: Buffer,
    /// The row at each position.
    pub(crate) rows: Buffer,
    /// Whether blocks come in canonical order, and rows with them.
    pub(super) in_order: bool,
}

impl Listed {
    /// The rows, where they come in canonical order.
    fn order(&self) -> Option<&Buffer> {
        self.in_order.then_some(&self.rows)
    }
}

/// Lists of counters that an index has cleared beside its own, for tiles that are built from it.
const SPARE_LISTS: usize = COUNTERS as usize / LIST - 1;
/// Counters of a list.
pub(crate) const LIST: usize = 4;

/// Tables of supports whose rows lie in one buffer, before their rows are in them.
pub(crate) struct Tables {
    pub(crate) slots: Buffer,
    pub(crate) occupancy: Buffer,
    pub(crate) counters: Buffer,
    pub(crate) n_slots: usize,
    pub(crate) n_counters: usize,
    /// Stands where nothing is written.
    none: Buffer,
    /// First row and number of rows, first slot and number of slots of each support.
    parts: Vec<[usize; 4]>,
}

impl Tables {
    /// Room for the tables of supports that begin at these rows, with so many.
    ///
    /// # Panics
    /// For supports of more than 2^30 rows: a table has two slots a row at least, numbered in 32 bits.
    pub(crate) fn room(gpu: &Gpu, supports: &[(usize, usize)]) -> Self {
        Self::room_with(gpu, supports, 0)
    }

    /// [`Tables::room`] with so many counters more.
    fn room_with(gpu: &Gpu, supports: &[(usize, usize)], more_counters: usize) -> Self {
        let mut n_slots = 0;
        let n_counters = supports.len() * COUNTERS as usize + more_counters;
        let part = |&(first, n): &(usize, usize)| {
            assert!(n <= 1 << 30, "index: expected at most 2^30 rows, found {n}");
            let slots = (2 * n).next_power_of_two().max(LEAST_SLOTS);
            n_slots += slots;
            [first, n, n_slots - slots, slots]
        };
        let parts: Vec<_> = supports.iter().map(part).collect();
        Self {
            slots: gpu.empty(n_slots, 4),
            occupancy: gpu.empty(2 * n_slots, 4),
            counters: gpu.empty(n_counters, 4),
            n_slots,
            n_counters,
            none: gpu.empty(0, 4),
            parts,
        }
    }

    /// Puts rows in canonical order into cleared tables; one launch for all supports.
    pub(crate) fn insert(self, gpu: &Gpu, all: &Buffer) -> Vec<BlockIndex> {
        self.insert_rows(gpu, all, None)
    }

    /// Puts rows into cleared tables; those of the only support may stand in any order where there is a description of no rows, and are then
    /// described.
    fn insert_rows(self, gpu: &Gpu, all: &Buffer, description: Option<&Buffer>) -> Vec<BlockIndex> {
        let part = |&[first_row, n_rows, first_slot, slots]: &[usize; 4]| {
            PartLaunch::new(first_row as u32, n_rows as u32, first_slot as u32, slots as u32 - 1)
        };
        let end = self.parts.iter().map(|[first, n, ..]| first + n).max().unwrap_or(0);
        let listing = description.map(|description| Blocks {
            leaders: gpu.empty(end, 4),
            slot_of_row: gpu.empty(end, 4),
            description: description.clone(),
        });
        let (leaders, slot_of_row) = listing
            .as_ref()
            .map_or((&self.none, &self.none), |blocks| (&blocks.leaders, &blocks.slot_of_row));
        if end > 0 {
            // SAFETY: rows outside of the parts are left out; slots lie within their tables, and there are no more leaders than rows.
            unsafe {
                insert_rows_kernel::launch_unchecked(
                    gpu.client(),
                    Gpu::cubes(end, UNITS as usize),
                    CubeDim::new_1d(UNITS),
                    all.arg(4),
                    self.slots.arg(1),
                    self.occupancy.arg(1),
                    self.counters.arg(1),
                    description.unwrap_or(&self.none).arg(1),
                    leaders.arg(1),
                    slot_of_row.arg(1),
                    self.parts.iter().map(part).collect(),
                    description.is_some(),
                );
            }
        }
        let index = |(at, &[first_row, n_rows, first_slot, slots]): (usize, &[usize; 4])| BlockIndex {
            coords: all.part(4 * first_row, 4 * n_rows),
            all: all.clone(),
            first_row,
            slots: self.slots.clone(),
            occupancy: self.occupancy.clone(),
            first_slot,
            mask: slots as u32 - 1,
            counters: self.counters.clone(),
            first_counter: at * COUNTERS as usize,
            n_rows,
            is_canonical: description.is_none(),
            handed_out: Arc::default(),
            blocks: Arc::new(Mutex::new(listing.clone().filter(|_| n_rows <= MOST_ROWS))),
            listed: Arc::default(),
        };
        self.parts.iter().enumerate().map(index).collect()
    }
}

impl BlockIndex {
    /// Bytes of its tables, with those of the indices that were built together.
    pub fn bytes(&self) -> usize {
        4 * (self.slots.len + self.occupancy.len + self.counters.len)
    }

    /// The index of `n_rows` distinct coordinates `[batch, x, y, z]` in any order; two launches.
    ///
    /// # Panics
    /// Above 2^30 rows: the table has two slots a row at least, numbered in 32 bits.
    pub fn build(gpu: &Gpu, coords: &Buffer, n_rows: usize) -> Self {
        Self::described(gpu, coords, n_rows).0
    }

    /// [`BlockIndex::build`] for rows in canonical order, which are found without lists of them.
    ///
    /// # Panics
    /// As [`BlockIndex::build`].
    pub fn of_canonical(gpu: &Gpu, coords: &Buffer, n_rows: usize) -> Self {
        let (tables, _) = Self::cleared(gpu, n_rows, 0);
        // The only support of these tables.
        let index = tables.insert(gpu, coords).remove(0);
        Self { coords: coords.clone(), ..index }
    }

    /// The index, once its rows are known to stand in canonical order.
    #[must_use]
    pub(crate) fn in_canonical_order(self) -> Self {
        Self { is_canonical: true, blocks: Arc::default(), listed: Arc::default(), ..self }
    }

    /// The index of rows in any order, and the [description](DESCRIPTION) of these, for whoever reads it. Two launches.
    pub(crate) fn described(gpu: &Gpu, coords: &Buffer, n_rows: usize) -> (Self, Buffer) {
        let (tables, description) = Self::cleared(gpu, n_rows, BUCKET_WORDS);
        let index = tables.insert_rows(gpu, coords, Some(&description)).remove(0);
        (Self { coords: coords.clone(), ..index }, description)
    }

    /// Empty tables for one support, and a description of no rows.
    fn cleared(gpu: &Gpu, n_rows: usize, more_counters: usize) -> (Tables, Buffer) {
        let tables = Tables::room_with(gpu, &[(0, n_rows)], more_counters);
        let description = gpu.empty(DESCRIPTION, 4);
        // SAFETY: positions are checked against the counts given, which are the lengths of the buffers.
        unsafe {
            clear_table_kernel::launch_unchecked(
                gpu.client(),
                Gpu::cubes(tables.n_slots.max(tables.n_counters), UNITS as usize),
                CubeDim::new_1d(UNITS),
                tables.slots.arg(1),
                tables.occupancy.arg(1),
                tables.counters.arg(1),
                description.arg(1),
                tables.n_slots as u32,
                tables.n_counters as u32,
            );
        }
        (tables, description)
    }

    /// The rows in canonical order, up to 2^20 of an index that was built of rows in any order; `None` for others, whose order another
    /// one has to say. Four launches for the first caller.
    pub fn order(&self, gpu: &Gpu) -> Option<&Buffer> {
        self.listed(gpu).order()
    }

    /// The rows block by block, for lookups of any row; listed by the first caller in two launches, or in four that sort them.
    pub(crate) fn listed(&self, gpu: &Gpu) -> &Listed {
        self.listed.get_or_init(|| {
            if let Some(listed) = self.listed_in_order(gpu, false) {
                return listed;
            }
            let n_slots = self.mask as usize + 1;
            let listed = Listed {
                slots: self.slots.part(self.first_slot, n_slots),
                occupancy: self.occupancy.part(2 * self.first_slot, 2 * n_slots),
                first: gpu.empty(n_slots, 4),
                rows: gpu.empty(self.n_rows, 4),
                in_order: false,
            };
            let dim = CubeDim::new_1d(UNITS);
            // SAFETY: every kernel checks its position against the counts given, which are the lengths of the buffers; slots read from the
            // table were written by the kernels before.
            unsafe {
                place_blocks_kernel::launch_unchecked(
                    gpu.client(),
                    Gpu::cubes(n_slots, UNITS as usize),
                    dim,
                    listed.slots.arg(1),
                    listed.occupancy.arg(1),
                    listed.first.arg(1),
                    self.counters.arg(1),
                    n_slots as u32,
                    self.first_counter as u32,
                );
                place_rows_kernel::launch_unchecked(
                    gpu.client(),
                    Gpu::cubes(self.n_rows, UNITS as usize),
                    dim,
                    self.all.arg(4),
                    listed.slots.arg(1),
                    listed.occupancy.arg(1),
                    listed.first.arg(1),
                    listed.rows.arg(1),
                    self.first_row as u32,
                    self.n_rows as u32,
                    self.mask,
                );
            }
            listed
        })
    }

    /// Lists rows in any order, before anyone knows whether they stand in canonical order: where they do, the list is left out, and the
    /// caller goes on with [`BlockIndex::in_canonical_order`].
    pub(crate) fn list_unless_canonical(&self, gpu: &Gpu) {
        if let Some(listed) = self.listed_in_order(gpu, true) {
            self.listed.get_or_init(|| listed);
        }
    }

    /// The rows in canonical order, where they were listed so; what is in it is not to be trusted where rows repeat each other or stand in
    /// canonical order.
    pub(crate) fn known_order(&self) -> Option<&Buffer> {
        self.listed.get()?.order()
    }

    /// The list of rows whose blocks are known.
    fn listed_in_order(&self, gpu: &Gpu, unless_canonical: bool) -> Option<Listed> {
        let blocks = self.blocks.lock().unwrap_or_else(PoisonError::into_inner).take()?;
        let counters = [self.first_counter + 2, COUNTERS as usize];
        (self.n_rows > 0).then(|| list_in_order(gpu, self, &blocks, counters, unless_canonical))
    }

    /// Where a list of [`LIST`] counters at zero begins that nobody else counts with, among the counters of this index; `None` when all are
    /// given away.
    pub(crate) fn spare_list(&self) -> Option<usize> {
        let at = self.handed_out.fetch_add(1, Ordering::Relaxed);
        (at < SPARE_LISTS).then(|| self.first_counter + LIST * (at + 1))
    }

    /// Which counter says how many cells hold more than one row.
    pub(crate) fn repeated_rows(&self) -> usize {
        self.first_counter + 1
    }

    /// Whether its counters lie in a buffer.
    pub(crate) fn counts_in(&self, counters: &Buffer) -> bool {
        self.counters.same_as(counters)
    }

    /// Cells that hold more than one row. Waits for the device.
    pub fn duplicates(&self, gpu: &Gpu) -> usize {
        gpu.download::<u32>(&self.counters)[self.repeated_rows()] as usize
    }
}

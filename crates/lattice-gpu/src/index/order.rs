//! Lists rows block by block in canonical order.
//!
//! A support has several rows a block, and a block says the order of its own, so blocks are sorted instead of rows. Some of them, sorted by
//! every cube for itself, split the others into buckets; each row then adds up the rows of the buckets before its own, those of the
//! blocks before its own in that bucket, and those before it in its block. Coordinates are compared as they are: no key limits them.
//! What chance decides (which row leads a block, where a block is listed) is in no answer.

use cubecl::prelude::*;

use super::kernel::{cell_bit, is_below, rank};
use super::launch::{BlockIndex, Listed};
use crate::arena::Life;
use crate::gpu::{Buffer, Gpu};
use crate::sort::{SUM_UNITS, cube_exclusive_sum, plane_lanes};

/// Units of a cube.
const UNITS: u32 = SUM_UNITS;
/// Buckets that blocks are split into: two blocks a unit are sorted for it.
const BUCKETS: u32 = 2 * UNITS;
/// Words that count what buckets hold: blocks of each, then rows of each.
pub(super) const BUCKET_WORDS: usize = 2 * BUCKETS as usize;
/// Most rows of which blocks are sorted so: the blocks of a bucket, which every row goes through, grow with them.
pub(super) const MOST_ROWS: usize = 1 << 20;
/// Blocks that a row asks for at a time.
const AHEAD: u32 = 4;

/// What inserting rows lists of their blocks.
#[derive(Clone, Debug)]
pub(super) struct Blocks {
    /// Slots that blocks took, in any order.
    pub(super) slots: Buffer,
    /// Slot of each row's block.
    pub(super) slot_of_row: Buffer,
}

/// Coordinates of a block.
#[cube]
fn block_of(c: Vector<i32, Const<4>>) -> Vector<i32, Const<4>> {
    let mut block = c;
    #[unroll]
    for axis in 1usize..4usize {
        let at = c.extract(axis) >> 2i32;
        block.insert(axis, at);
    }
    block
}

/// Finds the bucket of every block: `bucket_of_slot` and `places`, which of its blocks a listed one is. `counters` hold the number of
/// blocks at `n_blocks_at`, and from `first_bucket` on what buckets hold, zero at first. One unit a block.
#[cube(launch_unchecked)]
fn share_blocks_kernel(
    coords: &[Vector<i32, Const<4>>],
    slots: &[u32],
    occupancy: &[u32],
    blocks: &[u32],
    counters: &mut [Atomic<u32>],
    bucket_of_slot: &mut [u32],
    places: &mut [u32],
    n_blocks_at: u32,
    first_bucket: u32,
) {
    let n_blocks = counters[n_blocks_at as usize].load();
    let first = CUBE_POS as u32 * UNITS;
    if first >= n_blocks {
        terminate!();
    }
    let mut splitters = Shared::<[Vector<i32, Const<4>>]>::new_slice(comptime!(BUCKETS as usize));
    let step = max(n_blocks / BUCKETS, 1u32);
    for half in 0u32..2u32 {
        let i = half * UNITS + UNIT_POS;
        let leader = slots[blocks[min(i * step, n_blocks - 1u32) as usize] as usize];
        splitters[i as usize] = block_of(coords[leader as usize]);
    }
    sync_cube();
    // Bitonic: of two blocks that stand a power of two apart, the one further on becomes the later or the earlier one.
    let mut run = 2u32;
    while run <= BUCKETS {
        let mut apart = run / 2u32;
        while apart > 0u32 {
            let at = 2u32 * UNIT_POS - (UNIT_POS & (apart - 1u32));
            let (a, b) = (splitters[at as usize], splitters[(at + apart) as usize]);
            let ascends = (at & run) == 0u32;
            if (ascends && is_below(b, a)) || (!ascends && is_below(a, b)) {
                splitters[at as usize] = b;
                splitters[(at + apart) as usize] = a;
            }
            sync_cube();
            apart /= 2u32;
        }
        run *= 2u32;
    }
    let at = first + UNIT_POS;
    if at < n_blocks {
        let slot = blocks[at as usize];
        let block = block_of(coords[slots[slot as usize] as usize]);
        // The last splitter that is not above the block; the first bucket holds those below all, too.
        let mut bucket = 0u32;
        let mut step = comptime!(BUCKETS / 2).runtime();
        while step > 0u32 {
            let probe = bucket + step;
            if !is_below(block, splitters[probe as usize]) {
                bucket = probe;
            }
            step /= 2u32;
        }
        let rows = u32::cast_from(occupancy[(2u32 * slot) as usize].count_ones())
            + u32::cast_from(occupancy[(2u32 * slot + 1u32) as usize].count_ones());
        bucket_of_slot[slot as usize] = bucket;
        places[at as usize] = counters[(first_bucket + bucket) as usize].fetch_add(1u32);
        counters[(first_bucket + BUCKETS + bucket) as usize].fetch_add(rows);
    }
}

/// Puts the blocks of a bucket next to each other: their coordinates and rows. `starts`: the first block of each bucket and one past the
/// last of all, then the first row of each. One unit a block.
#[cube(launch_unchecked)]
fn gather_blocks_kernel(
    coords: &[Vector<i32, Const<4>>],
    slots: &[u32],
    occupancy: &[u32],
    blocks: &[u32],
    counters: &[u32],
    bucket_of_slot: &[u32],
    places: &[u32],
    blocks_out: &mut [Vector<i32, Const<4>>],
    rows_out: &mut [u32],
    starts: &mut [u32],
    n_blocks_at: u32,
    first_bucket: u32,
    #[comptime] lanes: u32,
) {
    let n_blocks = counters[n_blocks_at as usize];
    let cube = CUBE_POS as u32;
    let at = cube * UNITS + UNIT_POS;
    if cube * UNITS >= n_blocks {
        terminate!();
    }
    let mut sums = Shared::<[u32]>::new_slice(comptime!(SUM_UNITS as usize));
    let mut begins = Shared::<[u32]>::new_slice(comptime!(BUCKETS as usize));
    let own = first_bucket + 2u32 * UNIT_POS;
    let first = counters[own as usize];
    let (before, _) = cube_exclusive_sum(first + counters[(own + 1u32) as usize], &mut sums, lanes);
    begins[(2u32 * UNIT_POS) as usize] = before;
    begins[(2u32 * UNIT_POS + 1u32) as usize] = before + first;
    if cube == 0u32 {
        let first_row = counters[(own + BUCKETS) as usize];
        let second_row = counters[(own + BUCKETS + 1u32) as usize];
        let (rows_before, _) = cube_exclusive_sum(first_row + second_row, &mut sums, lanes);
        starts[(2u32 * UNIT_POS) as usize] = before;
        starts[(2u32 * UNIT_POS + 1u32) as usize] = before + first;
        starts[(comptime!(BUCKETS + 1) + 2u32 * UNIT_POS) as usize] = rows_before;
        starts[(comptime!(BUCKETS + 1) + 2u32 * UNIT_POS + 1u32) as usize] = rows_before + first_row;
        if UNIT_POS == 0u32 {
            starts[comptime!(BUCKETS as usize)] = n_blocks;
        }
    }
    sync_cube();
    if at < n_blocks {
        let slot = blocks[at as usize];
        let to = begins[bucket_of_slot[slot as usize] as usize] + places[at as usize];
        blocks_out[to as usize] = block_of(coords[slots[slot as usize] as usize]);
        rows_out[to as usize] = u32::cast_from(occupancy[(2u32 * slot) as usize].count_ones())
            + u32::cast_from(occupancy[(2u32 * slot + 1u32) as usize].count_ones());
    }
}

/// Writes each row at its position, and the first position of each slot. One unit a row.
#[cube(launch_unchecked)]
fn place_in_order_kernel(
    coords: &[Vector<i32, Const<4>>],
    slots: &[u32],
    occupancy: &[u32],
    slot_of_row: &[u32],
    bucket_of_slot: &[u32],
    starts: &[u32],
    blocks: &[Vector<i32, Const<4>>],
    rows_of_block: &[u32],
    first: &mut [u32],
    rows: &mut [u32],
    n_rows: u32,
) {
    let row = ABSOLUTE_POS as u32;
    if row < n_rows {
        let c = coords[row as usize];
        let block = block_of(c);
        let slot = slot_of_row[row as usize];
        let bucket = bucket_of_slot[slot as usize];
        let mut at = starts[bucket as usize];
        let end = starts[(bucket + 1u32) as usize];
        let mut place = starts[(comptime!(BUCKETS + 1) + bucket) as usize];
        while at < end {
            #[unroll]
            for i in 0u32..AHEAD {
                let other = min(at + i, end - 1u32);
                let count = rows_of_block[other as usize];
                let counts = at + i < end && is_below(blocks[other as usize], block);
                place += select(counts, count, 0u32);
            }
            at += AHEAD;
        }
        if slots[slot as usize] == row {
            first[slot as usize] = place;
        }
        let bit = cell_bit(c.extract(1usize), c.extract(2usize), c.extract(3usize));
        let low = occupancy[(2u32 * slot) as usize];
        let high = occupancy[(2u32 * slot + 1u32) as usize];
        rows[(place + rank(low, high, bit)) as usize] = row;
    }
}

/// Lists the rows of an index whose blocks are known: three launches.
pub(super) fn list_in_order(gpu: &Gpu, index: &BlockIndex, blocks: &Blocks, counters: [usize; 2]) -> Listed {
    let n_slots = index.mask as usize + 1;
    let n = index.n_rows;
    let listed = Listed {
        slots: index.slots.clone(),
        occupancy: index.occupancy.clone(),
        first: gpu.empty(n_slots, 4),
        rows: gpu.empty(n, 4),
        in_order: true,
    };
    let passing = |words: usize| gpu.room(words, 4, Life::Passing);
    let (bucket_of_slot, places) = (passing(n_slots), passing(n));
    let (sorted, rows_of_block) = (passing(4 * n), passing(n));
    let starts = passing(BUCKET_WORDS + 1);
    let [n_blocks_at, first_bucket] = counters.map(|at| at as u32);
    let (dim, lanes) = (CubeDim::new_1d(UNITS), plane_lanes(gpu));
    // There are no more blocks than rows; cubes past the last block end at once.
    let cubes = || Gpu::cubes(n, UNITS as usize);
    gpu.launch(cubes(), "share_blocks", |client, count| {
        // SAFETY: positions are checked against the number of blocks; slots and leaders are those that inserting the rows wrote.
        unsafe {
            share_blocks_kernel::launch_unchecked(
                client,
                count,
                dim,
                index.coords.arg(4),
                listed.slots.arg(1),
                listed.occupancy.arg(1),
                blocks.slots.arg(1),
                index.counters.arg(1),
                bucket_of_slot.arg(1),
                places.arg(1),
                n_blocks_at,
                first_bucket,
            );
        }
    });
    gpu.launch(cubes(), ("gather_blocks", lanes), |client, count| {
        // SAFETY: as above; a block's place is one of those that its bucket counted.
        unsafe {
            gather_blocks_kernel::launch_unchecked(
                client,
                count,
                dim,
                index.coords.arg(4),
                listed.slots.arg(1),
                listed.occupancy.arg(1),
                blocks.slots.arg(1),
                index.counters.arg(1),
                bucket_of_slot.arg(1),
                places.arg(1),
                sorted.arg(4),
                rows_of_block.arg(1),
                starts.arg(1),
                n_blocks_at,
                first_bucket,
                lanes,
            );
        }
    });
    gpu.launch(cubes(), "place_in_order", |client, count| {
        // SAFETY: one unit a row, checked against the count; places are below the sum of all occupied cells, which are not more than
        // the rows.
        unsafe {
            place_in_order_kernel::launch_unchecked(
                client,
                count,
                dim,
                index.coords.arg(4),
                listed.slots.arg(1),
                listed.occupancy.arg(1),
                blocks.slot_of_row.arg(1),
                bucket_of_slot.arg(1),
                starts.arg(1),
                sorted.arg(4),
                rows_of_block.arg(1),
                listed.first.arg(1),
                listed.rows.arg(1),
                n as u32,
            );
        }
    });
    listed
}

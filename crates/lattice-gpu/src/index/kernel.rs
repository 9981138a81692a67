//! Kernels of the block index.

use cubecl::prelude::*;

/// A free slot; no support has a row of this number.
pub(crate) const EMPTY: u32 = u32::MAX;

/// Counters of an index: its own list of four, and lists that tiles count with.
pub(crate) const COUNTERS: u32 = 64;

/// Hash of the block that a coordinate lies in.
#[cube]
pub(crate) fn hash_block(batch: i32, x: i32, y: i32, z: i32) -> u32 {
    let mut h = u32::cast_from(x) * 0x9E37_79B1u32;
    h = (h ^ (h >> 15u32)) + u32::cast_from(y) * 0x85EB_CA77u32;
    h = (h ^ (h >> 13u32)) + u32::cast_from(z) * 0xC2B2_AE3Du32;
    h = (h ^ (h >> 16u32)) + u32::cast_from(batch) * 0x27D4_EB2Fu32;
    h = (h ^ (h >> 15u32)) * 0x2545_F491u32;
    h ^ (h >> 16u32)
}

/// Bit of a cell within its block: the low two bits of x, y, z interleaved, x lowest.
#[cube]
pub(crate) fn cell_bit(x: i32, y: i32, z: i32) -> u32 {
    let (x, y, z) = (u32::cast_from(x), u32::cast_from(y), u32::cast_from(z));
    (x & 1u32)
        | ((y & 1u32) << 1u32)
        | ((z & 1u32) << 2u32)
        | ((x & 2u32) << 2u32)
        | ((y & 2u32) << 3u32)
        | ((z & 2u32) << 4u32)
}

/// Sets every slot free, every occupancy and the counters to zero. One unit a slot.
#[cube(launch_unchecked)]
pub(crate) fn clear_table_kernel(
    slots: &mut [u32],
    occupancy: &mut [u32],
    counters: &mut [u32],
    n_slots: u32,
) {
    let at = ABSOLUTE_POS as u32;
    if at < n_slots {
        slots[at as usize] = EMPTY;
        occupancy[(2u32 * at) as usize] = 0u32;
        occupancy[(2u32 * at + 1u32) as usize] = 0u32;
        // There are at least as many slots as counters.
        if at < COUNTERS {
            counters[at as usize] = 0u32;
        }
    }
}

/// Finds or takes the slot of each row's block and marks its cell. One unit a row.
///
/// `counters[1]` counts cells that were marked twice: duplicate coordinates.
#[cube(launch_unchecked)]
pub(crate) fn insert_rows_kernel(
    coords: &[Vector<i32, Const<4>>],
    slots: &mut [Atomic<u32>],
    occupancy: &mut [Atomic<u32>],
    counters: &mut [Atomic<u32>],
    slot_of_row: &mut [u32],
    n_rows: u32,
    mask: u32,
) {
    let row = ABSOLUTE_POS as u32;
    if row < n_rows {
        let c = coords[row as usize];
        let (batch, x, y, z) = (c.extract(0usize), c.extract(1usize), c.extract(2usize), c.extract(3usize));
        let (bx, by, bz) = (x >> 2i32, y >> 2i32, z >> 2i32);
        let mut slot = hash_block(batch, bx, by, bz) & mask;
        let mut searching = true;
        while searching {
            let mut leader = slots[slot as usize].load();
            if leader == EMPTY {
                // Read again rather than trust the answer: a weak exchange may fail without a reason.
                slots[slot as usize].compare_exchange_weak(EMPTY, row);
                leader = slots[slot as usize].load();
            }
            if leader != EMPTY {
                let k = coords[leader as usize];
                if k.extract(0usize) == batch
                    && k.extract(1usize) >> 2i32 == bx
                    && k.extract(2usize) >> 2i32 == by
                    && k.extract(3usize) >> 2i32 == bz
                {
                    searching = false;
                } else {
                    slot = (slot + 1u32) & mask;
                }
            }
        }
        let bit = cell_bit(x, y, z);
        let flag = 1u32 << (bit & 31u32);
        let before = occupancy[(2u32 * slot + (bit >> 5u32)) as usize].fetch_or(flag);
        if (before & flag) != 0u32 {
            counters[1].fetch_add(1u32);
        }
        slot_of_row[row as usize] = slot;
    }
}

/// Gives every used slot a range of positions. One unit a slot; a cube asks for its sum at once.
#[cube(launch_unchecked)]
pub(crate) fn place_blocks_kernel(
    slots: &[u32],
    occupancy: &[u32],
    first: &mut [u32],
    counters: &mut [Atomic<u32>],
    n_slots: u32,
) {
    let within = Shared::<[Atomic<u32>]>::new_slice(1usize);
    let mut base = Shared::<[u32]>::new_slice(1usize);
    if UNIT_POS == 0u32 {
        within[0].store(0u32);
    }
    sync_cube();
    let at = ABSOLUTE_POS as u32;
    let mut offset = 0u32;
    let used = at < n_slots && slots[min(at, n_slots - 1u32) as usize] != EMPTY;
    if used {
        let count = u32::cast_from(occupancy[(2u32 * at) as usize].count_ones())
            + u32::cast_from(occupancy[(2u32 * at + 1u32) as usize].count_ones());
        offset = within[0].fetch_add(count);
    }
    sync_cube();
    if UNIT_POS == 0u32 {
        base[0] = counters[0].fetch_add(within[0].load());
    }
    sync_cube();
    if used {
        first[at as usize] = base[0] + offset;
    }
}

/// Occupied cells below `bit` of a block.
#[cube]
fn rank(low: u32, high: u32, bit: u32) -> u32 {
    let below = (1u32 << (bit & 31u32)) - 1u32;
    let in_high = u32::cast_from(low.count_ones()) + u32::cast_from((high & below).count_ones());
    select(bit < 32u32, u32::cast_from((low & below).count_ones()), in_high)
}

/// Writes each row at its position. One unit a row.
#[cube(launch_unchecked)]
pub(crate) fn place_rows_kernel(
    coords: &[Vector<i32, Const<4>>],
    occupancy: &[u32],
    first: &[u32],
    slot_of_row: &[u32],
    rows: &mut [u32],
    n_rows: u32,
) {
    let row = ABSOLUTE_POS as u32;
    if row < n_rows {
        let c = coords[row as usize];
        let slot = slot_of_row[row as usize];
        let bit = cell_bit(c.extract(1usize), c.extract(2usize), c.extract(3usize));
        let low = occupancy[(2u32 * slot) as usize];
        let high = occupancy[(2u32 * slot + 1u32) as usize];
        rows[(first[slot as usize] + rank(low, high, bit)) as usize] = row;
    }
}

/// Slot of the block `(bx, by, bz)` of a batch item, or `EMPTY`.
#[cube]
pub(crate) fn find_block(
    coords: &[Vector<i32, Const<4>>],
    slots: &[u32],
    mask: u32,
    batch: i32,
    bx: i32,
    by: i32,
    bz: i32,
) -> u32 {
    let mut slot = hash_block(batch, bx, by, bz) & mask;
    let mut found = EMPTY.runtime();
    let mut searching = true;
    while searching {
        let leader = slots[slot as usize];
        if leader == EMPTY {
            searching = false;
        } else {
            let k = coords[leader as usize];
            if k.extract(0usize) == batch
                && k.extract(1usize) >> 2i32 == bx
                && k.extract(2usize) >> 2i32 == by
                && k.extract(3usize) >> 2i32 == bz
            {
                found = slot;
                searching = false;
            } else {
                slot = (slot + 1u32) & mask;
            }
        }
    }
    found
}

/// Row of the cell `(x, y, z)` of the block in `slot`, or `EMPTY`.
#[cube]
pub(crate) fn lookup_row(
    occupancy: &[u32],
    first: &[u32],
    rows: &[u32],
    slot: u32,
    x: i32,
    y: i32,
    z: i32,
) -> u32 {
    let mut row = EMPTY.runtime();
    if slot != EMPTY {
        let low = occupancy[(2u32 * slot) as usize];
        let high = occupancy[(2u32 * slot + 1u32) as usize];
        row = row_of_cell(rows, low, high, first[slot as usize], x, y, z);
    }
    row
}

/// Row of the cell `(x, y, z)` of a block with these occupied cells, whose rows begin at `first`; `EMPTY` where it is not occupied.
#[cube]
pub(crate) fn row_of_cell(rows: &[u32], low: u32, high: u32, first: u32, x: i32, y: i32, z: i32) -> u32 {
    let bit = cell_bit(x, y, z);
    let word = select(bit < 32u32, low, high);
    let mut row = EMPTY.runtime();
    if (word >> (bit & 31u32)) & 1u32 == 1u32 {
        row = rows[(first + rank(low, high, bit)) as usize];
    }
    row
}

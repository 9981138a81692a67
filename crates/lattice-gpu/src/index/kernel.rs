//! Kernels of the block index.

use cubecl::prelude::*;

/// A free slot; no support has a row of this number.
pub(crate) const EMPTY: u32 = u32::MAX;

/// Counters of an index: its own list of four, and lists that tiles count with.
pub(crate) const COUNTERS: u32 = 128;

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

/// Whether a coordinate lies in a block.
#[cube]
pub(crate) fn is_in_block(c: Vector<i32, Const<4>>, batch: i32, bx: i32, by: i32, bz: i32) -> bool {
    c.extract(0usize) == batch
        && c.extract(1usize) >> 2i32 == bx
        && c.extract(2usize) >> 2i32 == by
        && c.extract(3usize) >> 2i32 == bz
}

/// Occupied cells of the block in a slot.
#[cube]
pub(super) fn cells_in(slot: u32, occupancy: &[u32]) -> u32 {
    u32::cast_from(occupancy[(2u32 * slot) as usize].count_ones())
        + u32::cast_from(occupancy[(2u32 * slot + 1u32) as usize].count_ones())
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

/// Where a support lies among those that are indexed together, and its table among theirs.
#[derive(CubeType, CubeLaunch, Clone, Copy)]
pub(crate) struct Part {
    /// Its first row.
    pub(crate) first_row: u32,
    /// Its rows.
    pub(crate) n_rows: u32,
    /// Its first slot.
    pub(crate) first_slot: u32,
    /// Its slots, a power of two, less one.
    pub(crate) mask: u32,
}

/// Sets a slot free and its occupancy to zero, and a counter to zero.
#[cube]
pub(crate) fn clear_slot(
    at: u32,
    slots: &mut [u32],
    occupancy: &mut [u32],
    counters: &mut [u32],
    n_slots: u32,
    n_counters: u32,
) {
    if at < n_slots {
        slots[at as usize] = EMPTY;
        occupancy[(2u32 * at) as usize] = 0u32;
        occupancy[(2u32 * at + 1u32) as usize] = 0u32;
    }
    if at < n_counters {
        counters[at as usize] = 0u32;
    }
}

/// [`clear_slot`] for every slot and counter, and a description of no rows. One unit a slot, and a counter.
#[cube(launch_unchecked)]
pub(crate) fn clear_table_kernel(
    slots: &mut [u32],
    occupancy: &mut [u32],
    counters: &mut [u32],
    description: &mut [i32],
    n_slots: u32,
    n_counters: u32,
) {
    let at = ABSOLUTE_POS as u32;
    clear_slot(at, slots, occupancy, counters, n_slots, n_counters);
    if at < comptime!(DESCRIPTION as u32) {
        let value = select(at < 4u32, i32::MAX, select(at < 8u32, i32::MIN, 0i32));
        description[at as usize] = value;
    }
}

/// Words of a description: smallest and largest value of each column, and rows that do not stand above the one before.
pub(crate) const DESCRIPTION: usize = 9;

/// Smallest and largest value of each column, and how many rows do not stand above the one before in canonical order; `description` holds
/// those of no rows at first. One unit a row, and any more in the last cube.
#[cube]
pub(crate) fn describe_row(
    coords: &[Vector<i32, Const<4>>],
    description: &mut [Atomic<i32>],
    row: u32,
    n_rows: u32,
) {
    let lowest = Shared::<[Atomic<i32>]>::new_slice(4usize);
    let highest = Shared::<[Atomic<i32>]>::new_slice(4usize);
    let disorder = Shared::<[Atomic<i32>]>::new_slice(1usize);
    if UNIT_POS < 4u32 {
        lowest[UNIT_POS as usize].store(i32::MAX);
        highest[UNIT_POS as usize].store(i32::MIN);
    }
    if UNIT_POS == 0u32 {
        disorder[0].store(0i32);
    }
    sync_cube();
    if row < n_rows {
        let c = coords[row as usize];
        #[unroll]
        for column in 0usize..4usize {
            let value = c.extract(column);
            lowest[column].fetch_min(value);
            highest[column].fetch_max(value);
        }
        if row > 0u32 {
            let before = coords[(row - 1u32) as usize];
            if !is_below(before, c) {
                disorder[0].fetch_add(1i32);
            }
        }
    }
    sync_cube();
    if UNIT_POS < 4u32 {
        let column = UNIT_POS as usize;
        description[column].fetch_min(lowest[column].load());
        description[column + 4usize].fetch_max(highest[column].load());
    }
    if UNIT_POS == 0u32 {
        let rows = disorder[0].load();
        if rows > 0i32 {
            description[8].fetch_add(rows);
        }
    }
}

/// Whether `a` stands before `b` in canonical order: batch, then the axis with the highest differing bit, z above y above x.
#[cube]
fn is_below(a: Vector<i32, Const<4>>, b: Vector<i32, Const<4>>) -> bool {
    let mut axis_a = a.extract(3usize);
    let mut axis_b = b.extract(3usize);
    let mut differ = u32::cast_from(axis_a ^ axis_b);
    #[unroll]
    for step in 0usize..2usize {
        let other_a = a.extract(comptime!(2 - step));
        let other_b = b.extract(comptime!(2 - step));
        let other = u32::cast_from(other_a ^ other_b);
        // Its highest bit is above that of `differ`.
        if differ < other && differ < (differ ^ other) {
            differ = other;
            axis_a = other_a;
            axis_b = other_b;
        }
    }
    let (batch_a, batch_b) = (a.extract(0usize), b.extract(0usize));
    batch_a < batch_b || (batch_a == batch_b && axis_a < axis_b)
}

/// Finds or takes the slot of each row's block and marks its cell. One unit a row of any part, and of the rows between parts. Leaders are
/// numbered among the rows of all parts.
///
/// `counters[1]` counts cells that were marked twice: duplicate coordinates. A single part of rows in `any_order`, from row 0 on, is
/// described on the way (see [`describe_row`]); `leaders` lists those of blocks, which `counters[2]` counts, and `slot_of_row` the slot of each
/// row.
#[cube(launch_unchecked)]
pub(crate) fn insert_rows_kernel(
    coords: &[Vector<i32, Const<4>>],
    slots: &mut [Atomic<u32>],
    occupancy: &mut [Atomic<u32>],
    counters: &mut [Atomic<u32>],
    description: &mut [Atomic<i32>],
    leaders: &mut [u32],
    slot_of_row: &mut [u32],
    parts: Sequence<Part>,
    #[comptime] any_order: bool,
) {
    let row = ABSOLUTE_POS as u32;
    let mut leads = false;
    if any_order {
        describe_row(coords, description, row, parts.index(0usize).n_rows);
    }
    let mut is_row = false;
    let mut first_slot = 0u32;
    let mut mask = 0u32;
    #[unroll]
    for at in 0usize..parts.len() {
        let part = parts.index(at);
        if row >= part.first_row && row - part.first_row < part.n_rows {
            is_row = true;
            first_slot = part.first_slot;
            mask = part.mask;
        }
    }
    if is_row {
        let c = coords[row as usize];
        let (batch, x, y, z) = (c.extract(0usize), c.extract(1usize), c.extract(2usize), c.extract(3usize));
        let (bx, by, bz) = (x >> 2i32, y >> 2i32, z >> 2i32);
        let mut within = hash_block(batch, bx, by, bz) & mask;
        let mut searching = true;
        while searching {
            let slot = first_slot + within;
            let mut leader = slots[slot as usize].load();
            if leader == EMPTY {
                // Read again rather than trust the answer: a weak exchange may fail without a reason.
                slots[slot as usize].compare_exchange_weak(EMPTY, row);
                leader = slots[slot as usize].load();
            }
            if leader != EMPTY {
                let k = coords[leader as usize];
                if is_in_block(k, batch, bx, by, bz) {
                    searching = false;
                    leads = leader == row;
                } else {
                    within = (within + 1u32) & mask;
                }
            }
        }
        let bit = cell_bit(x, y, z);
        let flag = 1u32 << (bit & 31u32);
        let before = occupancy[(2u32 * (first_slot + within) + (bit >> 5u32)) as usize].fetch_or(flag);
        if (before & flag) != 0u32 {
            counters[1].fetch_add(1u32);
        }
        if any_order {
            slot_of_row[row as usize] = first_slot + within;
        }
    }
    // A cube asks for the places of all leaders that it has at once.
    if any_order {
        let leading = Shared::<[Atomic<u32>]>::new_slice(1usize);
        let mut base = Shared::<[u32]>::new_slice(1usize);
        if UNIT_POS == 0u32 {
            leading[0].store(0u32);
        }
        sync_cube();
        let mut place = 0u32;
        if leads {
            place = leading[0].fetch_add(1u32);
        }
        sync_cube();
        if UNIT_POS == 0u32 {
            base[0] = counters[2].fetch_add(leading[0].load());
        }
        sync_cube();
        if leads {
            leaders[(base[0] + place) as usize] = row;
        }
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
    first_counter: u32,
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
        offset = within[0].fetch_add(cells_in(at, occupancy));
    }
    sync_cube();
    if UNIT_POS == 0u32 {
        base[0] = counters[first_counter as usize].fetch_add(within[0].load());
    }
    sync_cube();
    if used {
        first[at as usize] = base[0] + offset;
    }
}

/// Occupied cells below `bit` of a block.
#[cube]
pub(crate) fn rank(low: u32, high: u32, bit: u32) -> u32 {
    let below = (1u32 << (bit & 31u32)) - 1u32;
    let in_high = u32::cast_from(low.count_ones()) + u32::cast_from((high & below).count_ones());
    select(bit < 32u32, u32::cast_from((low & below).count_ones()), in_high)
}

/// Writes each row at its position. One unit a row.
#[cube(launch_unchecked)]
pub(crate) fn place_rows_kernel(
    coords: &[Vector<i32, Const<4>>],
    slots: &[u32],
    occupancy: &[u32],
    first: &[u32],
    rows: &mut [u32],
    first_row: u32,
    n_rows: u32,
    mask: u32,
) {
    let row = ABSOLUTE_POS as u32;
    if row < n_rows {
        let c = coords[(first_row + row) as usize];
        let (batch, x, y, z) = (c.extract(0usize), c.extract(1usize), c.extract(2usize), c.extract(3usize));
        let slot = find_block(coords, slots, 0u32, mask, batch, x >> 2i32, y >> 2i32, z >> 2i32);
        let bit = cell_bit(x, y, z);
        let low = occupancy[(2u32 * slot) as usize];
        let high = occupancy[(2u32 * slot + 1u32) as usize];
        rows[(first[slot as usize] + rank(low, high, bit)) as usize] = row;
    }
}

/// Slot of the block `(bx, by, bz)` of a batch item in the table that begins at `first_slot`, or `EMPTY`.
#[cube]
pub(crate) fn find_block(
    coords: &[Vector<i32, Const<4>>],
    slots: &[u32],
    first_slot: u32,
    mask: u32,
    batch: i32,
    bx: i32,
    by: i32,
    bz: i32,
) -> u32 {
    let mut within = hash_block(batch, bx, by, bz) & mask;
    let mut found = EMPTY.runtime();
    let mut searching = true;
    while searching {
        let leader = slots[(first_slot + within) as usize];
        if leader == EMPTY {
            searching = false;
        } else {
            let k = coords[leader as usize];
            if is_in_block(k, batch, bx, by, bz) {
                found = first_slot + within;
                searching = false;
            } else {
                within = (within + 1u32) & mask;
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
        let bit = cell_bit(x, y, z);
        if (select(bit < 32u32, low, high) >> (bit & 31u32)) & 1u32 == 1u32 {
            row = rows[(first[slot as usize] + rank(low, high, bit)) as usize];
        }
    }
    row
}

//! Lists rows block by block in canonical order.
//!
//! A support has several rows a block, and a block says the order of its own, so blocks are sorted instead of rows. Some of them, sorted by
//! every cube for itself, split the others into buckets; each block then adds up the rows of the buckets before its own and those of the
//! blocks before it in that bucket, and a row those before it in its block. Keys hold all that coordinates can, so that none limits them.
//! What chance decides (which row leads a block, where a block is listed) is in no answer.

use cubecl::prelude::*;

use super::kernel::{cell_bit, cells_in, rank};
use super::launch::{BlockIndex, Listed};
use crate::arena::Life;
use crate::gpu::{Buffer, Gpu};
use crate::sort::{SUM_UNITS, cube_exclusive_sum, plane_lanes};
use crate::support::is_canonical;

/// Units of a cube.
const UNITS: u32 = SUM_UNITS;
/// Buckets that blocks are split into: two blocks a unit are sorted for it.
const BUCKETS: u32 = 2 * UNITS;
/// Words that count what buckets hold: blocks of each, then rows of each.
pub(super) const BUCKET_WORDS: usize = 2 * BUCKETS as usize;
/// Most rows of which blocks are sorted so: the blocks of a bucket, which each of them goes through, grow with them.
pub(super) const MOST_ROWS: usize = 1 << 20;
/// Units that go through the bucket of a block together.
const PARTS: u32 = 8;
/// Cubes that rank blocks, at most.
const RANKING: usize = 1024;
/// Entries that a unit asks for at a time.
const AHEAD: u32 = 4;

/// Lowest bit of the batch id in the last word of an entry.
const BATCH_AT: u32 = 12;

/// What inserting rows lists of their blocks.
#[derive(Clone, Debug)]
pub(super) struct Blocks {
    /// Leaders, in any order.
    pub(super) leaders: Buffer,
    /// Slot of each row's block.
    pub(super) slot_of_row: Buffer,
    /// The description of the rows.
    pub(super) description: Buffer,
}

/// The low ten bits of a value, two places free after each.
#[cube]
fn spread(value: u32) -> u32 {
    let mut bits = value & 0x3FFu32;
    bits = (bits | (bits << 16u32)) & 0x0300_00FFu32;
    bits = (bits | (bits << 8u32)) & 0x0300_F00Fu32;
    bits = (bits | (bits << 4u32)) & 0x030C_30C3u32;
    (bits | (bits << 2u32)) & 0x0924_9249u32
}

/// Ten bits of three axes from `first` on, interleaved, x lowest.
#[cube]
fn interleaved(x: u32, y: u32, z: u32, #[comptime] first: u32) -> u32 {
    spread(x >> first) | (spread(y >> first) << 1u32) | (spread(z >> first) << 2u32)
}

/// A block as four words of which the last counts most: in the order of these, blocks stand in canonical order. The lowest seven bits hold
/// its rows, then come 90 bits of the block's place and the batch id, of 20 bits at most.
#[cube]
fn entry_of(c: Vector<i32, Const<4>>, rows: u32) -> Vector<u32, Const<4>> {
    // Thirty bits an axis, negative ones first.
    let bias = 1u32 << 29u32;
    let x = u32::cast_from(c.extract(1usize) >> 2i32) + bias;
    let y = u32::cast_from(c.extract(2usize) >> 2i32) + bias;
    let z = u32::cast_from(c.extract(3usize) >> 2i32) + bias;
    let low = interleaved(x, y, z, 0u32);
    let middle = interleaved(x, y, z, 10u32);
    let high = interleaved(x, y, z, 20u32);
    let mut entry = Vector::<u32, Const<4>>::empty();
    entry.insert(0usize, ((low & 0x3FFFu32) << 18u32) | rows);
    entry.insert(1usize, (low >> 14u32) | ((middle & 0xFFFFu32) << 16u32));
    entry.insert(2usize, (middle >> 16u32) | ((high & 0x3_FFFFu32) << 14u32));
    entry.insert(3usize, (high >> 18u32) | (u32::cast_from(c.extract(0usize)) << BATCH_AT));
    entry
}

/// Rows of an entry.
#[cube]
fn rows_of(entry: Vector<u32, Const<4>>) -> u32 {
    entry.extract(0usize) & 127u32
}

/// Whether an entry stands before another one.
#[cube]
fn stands_before(a: Vector<u32, Const<4>>, b: Vector<u32, Const<4>>) -> bool {
    let mut before = a.extract(0usize) < b.extract(0usize);
    #[unroll]
    for word in 1usize..4usize {
        let (of_a, of_b) = (a.extract(word), b.extract(word));
        before = of_a < of_b || (of_a == of_b && before);
    }
    before
}

/// The highest bit in which two entries differ, counted from the lowest of all; at least 31.
#[cube]
fn top_of(a: Vector<u32, Const<4>>, b: Vector<u32, Const<4>>) -> u32 {
    let mut top = 31u32.runtime();
    #[unroll]
    for word in 1usize..4usize {
        let differ = a.extract(word) ^ b.extract(word);
        if differ != 0u32 {
            top = comptime!(32 * word as u32 + 31) - u32::cast_from(differ.leading_zeros());
        }
    }
    top
}

/// What 32 bits say of an entry: those of its batch id, counted from the first, that differ among all, then those of its place from bit `top`
/// down. In the order of entries, if not of all.
#[cube]
fn bits_of(entry: Vector<u32, Const<4>>, top: u32, first_batch: u32, batch_bits: u32) -> u32 {
    let word = top / 32u32;
    let bit = top % 32u32;
    let last = entry.extract(3usize);
    let mut upper = entry.extract(0usize);
    let mut lower = 0u32;
    #[unroll]
    for w in 1usize..4usize {
        if word == comptime!(w as u32) {
            upper = entry.extract(w);
            lower = entry.extract(comptime!(w - 1));
        }
    }
    if word == 3u32 {
        upper &= comptime!((1u32 << BATCH_AT) - 1);
    }
    // A shift by all bits is undefined.
    let place = (upper << (31u32 - bit)) | select(bit < 31u32, lower >> min(bit + 1u32, 31u32), 0u32);
    let batch = (last >> BATCH_AT) - first_batch;
    let both = (batch << ((32u32 - batch_bits) & 31u32)) | (place >> batch_bits);
    select(batch_bits > 0u32, both, place)
}

/// Whether rows need no list: those that stand in canonical order, where the host will know that.
#[cube]
fn is_spared(description: &[i32], unless_canonical: u32) -> bool {
    unless_canonical == 1u32 && is_canonical(description)
}

/// Finds the bucket of every block: `buckets`, and `places` among the blocks of it; `entries` are their [entries](entry_of). `counters` hold the number of
/// blocks at `n_blocks_at`, and from `first_bucket` on what buckets hold, zero at first. One unit a block.
#[cube(launch_unchecked)]
fn share_blocks_kernel(
    coords: &[Vector<i32, Const<4>>],
    occupancy: &[u32],
    slot_of_row: &[u32],
    leaders: &[u32],
    counters: &mut [Atomic<u32>],
    description: &[i32],
    entries: &mut [Vector<u32, Const<4>>],
    buckets: &mut [u32],
    places: &mut [u32],
    n_blocks_at: u32,
    first_bucket: u32,
    unless_canonical: u32,
) {
    let n_blocks = counters[n_blocks_at as usize].load();
    let first = CUBE_POS as u32 * UNITS;
    if first >= n_blocks || is_spared(description, unless_canonical) {
        terminate!();
    }
    // Asked for now, used when the splitters are sorted.
    let at = first + UNIT_POS;
    let leader = leaders[min(at, n_blocks - 1u32) as usize];
    let slot = slot_of_row[leader as usize];
    let entry = entry_of(coords[leader as usize], cells_in(slot, occupancy));
    // No row stands before the corner of all smallest values, or behind that of all largest.
    let mut lowest = Vector::<i32, Const<4>>::empty();
    let mut highest = Vector::<i32, Const<4>>::empty();
    #[unroll]
    for column in 0usize..4usize {
        lowest.insert(column, description[column]);
        highest.insert(column, description[comptime!(column + 4)]);
    }
    let first_batch = u32::cast_from(lowest.extract(0usize));
    let batch_bits =
        32u32 - u32::cast_from((u32::cast_from(highest.extract(0usize)) - first_batch).leading_zeros());
    highest.insert(0usize, lowest.extract(0usize));
    let top = top_of(entry_of(lowest, 0u32), entry_of(highest, 0u32));
    let mut splitters = Shared::<[u32]>::new_slice(comptime!(BUCKETS as usize));
    let step = max(n_blocks / BUCKETS, 1u32);
    #[unroll]
    for half in 0u32..2u32 {
        let i = half * UNITS + UNIT_POS;
        let leader = leaders[min(i * step, n_blocks - 1u32) as usize];
        splitters[i as usize] =
            bits_of(entry_of(coords[leader as usize], 0u32), top, first_batch, batch_bits);
    }
    sync_cube();
    // Bitonic: of two places a power of two apart, the one further on takes the larger or the smaller value.
    let mut run = 2u32;
    while run <= BUCKETS {
        let mut apart = run / 2u32;
        while apart > 0u32 {
            let at = 2u32 * UNIT_POS - (UNIT_POS & (apart - 1u32));
            let (a, b) = (splitters[at as usize], splitters[(at + apart) as usize]);
            let ascends = (at & run) == 0u32;
            splitters[at as usize] = select(ascends, min(a, b), max(a, b));
            splitters[(at + apart) as usize] = select(ascends, max(a, b), min(a, b));
            sync_cube();
            apart /= 2u32;
        }
        run *= 2u32;
    }
    if at < n_blocks {
        // The last splitter that is not above the block; the first bucket holds those below all, too.
        let bits = bits_of(entry, top, first_batch, batch_bits);
        let mut bucket = 0u32;
        let mut step = comptime!(BUCKETS / 2).runtime();
        while step > 0u32 {
            let probe = bucket + step;
            if bits >= splitters[probe as usize] {
                bucket = probe;
            }
            step /= 2u32;
        }
        entries[at as usize] = entry;
        buckets[at as usize] = bucket;
        places[at as usize] = counters[(first_bucket + bucket) as usize].fetch_add(1u32);
        counters[(first_bucket + BUCKETS + bucket) as usize].fetch_add(rows_of(entry));
    }
}

/// Puts the entries of a bucket next to each other, and says the slot and the bucket of each. `starts`: the first entry of each bucket and one
/// past the last of all, then the first row of each. One unit a block.
#[cube(launch_unchecked)]
fn gather_blocks_kernel(
    slot_of_row: &[u32],
    leaders: &[u32],
    counters: &[u32],
    entries: &[Vector<u32, Const<4>>],
    buckets: &[u32],
    places: &[u32],
    gathered: &mut [Vector<u32, Const<4>>],
    owners: &mut [Vector<u32, Const<2>>],
    starts: &mut [u32],
    description: &[i32],
    n_blocks_at: u32,
    first_bucket: u32,
    unless_canonical: u32,
    #[comptime] lanes: u32,
) {
    let n_blocks = counters[n_blocks_at as usize];
    let cube = CUBE_POS as u32;
    let at = cube * UNITS + UNIT_POS;
    if cube * UNITS >= n_blocks || is_spared(description, unless_canonical) {
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
        let bucket = buckets[at as usize];
        let to = begins[bucket as usize] + places[at as usize];
        gathered[to as usize] = entries[at as usize];
        let mut owner = Vector::<u32, Const<2>>::empty();
        owner.insert(0usize, slot_of_row[leaders[at as usize] as usize]);
        owner.insert(1usize, bucket);
        owners[to as usize] = owner;
    }
}

/// The first position of the rows of every slot. [`PARTS`] units a block, those of a bucket next to each other: they read the same entries.
/// Cubes go on until all blocks are done.
#[cube(launch_unchecked)]
fn rank_blocks_kernel(
    counters: &[u32],
    entries: &[Vector<u32, Const<4>>],
    owners: &[Vector<u32, Const<2>>],
    starts: &[u32],
    first: &mut [u32],
    description: &[i32],
    n_blocks_at: u32,
    n_cubes: u32,
    unless_canonical: u32,
) {
    if is_spared(description, unless_canonical) {
        terminate!();
    }
    let n_blocks = counters[n_blocks_at as usize];
    let per_cube = comptime!(UNITS / PARTS);
    let within = UNIT_POS % per_cube;
    let part = UNIT_POS / per_cube;
    let places = Shared::<[Atomic<u32>]>::new_slice(comptime!((UNITS / PARTS) as usize));
    let mut begin = CUBE_POS as u32 * per_cube;
    while begin < n_blocks {
        if part == 0u32 {
            places[within as usize].store(0u32);
        }
        sync_cube();
        let at = begin + within;
        let own = entries[min(at, n_blocks - 1u32) as usize];
        let owner = owners[min(at, n_blocks - 1u32) as usize];
        let bucket = owner.extract(1usize);
        let end = starts[(bucket + 1u32) as usize];
        let mut next = starts[bucket as usize] + part;
        let mut before = 0u32;
        while next < end {
            #[unroll]
            for i in 0u32..AHEAD {
                let other = entries[min(next + i * PARTS, end - 1u32) as usize];
                let counts = next + i * PARTS < end && stands_before(other, own);
                before += select(counts, rows_of(other), 0u32);
            }
            next += comptime!(AHEAD * PARTS);
        }
        places[within as usize].fetch_add(before);
        sync_cube();
        if part == 0u32 && at < n_blocks {
            let place = starts[(comptime!(BUCKETS + 1) + bucket) as usize] + places[within as usize].load();
            first[owner.extract(0usize) as usize] = place;
        }
        begin += n_cubes * per_cube;
        // Places are set to zero again by those who read them.
        sync_cube();
    }
}

/// Writes each row at its position. One unit a row.
#[cube(launch_unchecked)]
fn place_in_order_kernel(
    coords: &[Vector<i32, Const<4>>],
    occupancy: &[u32],
    slot_of_row: &[u32],
    first: &[u32],
    rows: &mut [u32],
    description: &[i32],
    n_rows: u32,
    unless_canonical: u32,
) {
    let row = ABSOLUTE_POS as u32;
    if row < n_rows && !is_spared(description, unless_canonical) {
        let slot = slot_of_row[row as usize];
        let c = coords[row as usize];
        let low = occupancy[(2u32 * slot) as usize];
        let high = occupancy[(2u32 * slot + 1u32) as usize];
        let bit = cell_bit(c.extract(1usize), c.extract(2usize), c.extract(3usize));
        rows[(first[slot as usize] + rank(low, high, bit)) as usize] = row;
    }
}

/// Lists the rows of an index whose blocks are known: four launches. `counters` are where the number of blocks and what buckets hold stand
/// among those of the index. Rows in canonical order are left out where the caller asks for that, who then knows them to stand so.
pub(super) fn list_in_order(
    gpu: &Gpu,
    index: &BlockIndex,
    blocks: &Blocks,
    counters: [usize; 2],
    unless_canonical: bool,
) -> Listed {
    let unless_canonical = u32::from(unless_canonical);
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
    let (entries, buckets, places) = (passing(4 * n), passing(n), passing(n));
    let (gathered, owners) = (passing(4 * n), passing(2 * n));
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
                listed.occupancy.arg(1),
                blocks.slot_of_row.arg(1),
                blocks.leaders.arg(1),
                index.counters.arg(1),
                blocks.description.arg(1),
                entries.arg(4),
                buckets.arg(1),
                places.arg(1),
                n_blocks_at,
                first_bucket,
                unless_canonical,
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
                blocks.slot_of_row.arg(1),
                blocks.leaders.arg(1),
                index.counters.arg(1),
                entries.arg(4),
                buckets.arg(1),
                places.arg(1),
                gathered.arg(4),
                owners.arg(2),
                starts.arg(1),
                blocks.description.arg(1),
                n_blocks_at,
                first_bucket,
                unless_canonical,
                lanes,
            );
        }
    });
    let ranking = n.div_ceil((UNITS / PARTS) as usize).min(RANKING);
    gpu.launch(Gpu::cubes(ranking, 1), "rank_blocks", |client, count| {
        // SAFETY: positions are brought below the number of blocks; entries lie between the starts of their buckets.
        unsafe {
            rank_blocks_kernel::launch_unchecked(
                client,
                count,
                dim,
                index.counters.arg(1),
                gathered.arg(4),
                owners.arg(2),
                starts.arg(1),
                listed.first.arg(1),
                blocks.description.arg(1),
                n_blocks_at,
                ranking as u32,
                unless_canonical,
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
                listed.occupancy.arg(1),
                blocks.slot_of_row.arg(1),
                listed.first.arg(1),
                listed.rows.arg(1),
                blocks.description.arg(1),
                n as u32,
                unless_canonical,
            );
        }
    });
    listed
}

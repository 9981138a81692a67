//! The input rows of a tile block by block: each block that the windows of a tile touch is looked up once, whatever the number of rows that touch it, and
//! its rows are numbered by the ranks of their cells among those that the tile needs.
//!
//! Units share what they find in shared memory, which takes far fewer loads and registers than the rows' own ways through the index: the 256 rows of a
//! scan's tile touch some 130 blocks, two thousand times together.

use cubecl::prelude::*;

use super::geometry::Geometry;
use super::job::Job;
use super::kernel::{BuildShape, MAX_GROUP_TAPS, NO_LOCAL, SPAN_WORDS, row_at};
use super::phases::claim;
use super::set::SET;
use super::window::first_of_block;
use super::{HALO_ROWS, TILE_ROWS};
use crate::index::{EMPTY, cell_bit, hash_block, is_in_block, rank};
use crate::sort::cube_exclusive_sum;

/// Blocks that a window touches: two along each axis.
const TOUCHED: usize = 8;
/// Places of the set of touched blocks, the first words of the tile's set. Behind them are the cells that the tile needs of each block that exists.
const PLACES: usize = SET / 2;
/// Blocks that exist among those that a tile touches, at most.
const BLOCKS: usize = (SET - PLACES) / 2;
/// Number of a block that does not exist: one without cells.
const NO_BLOCK: u32 = BLOCKS as u32;
/// Places looked at before a set counts as full.
const MAX_STEPS: u32 = 64;
/// Slots that are looked at together.
const AT_ONCE: usize = 4;
/// Blocks are told apart by their distance from that of the tile's first row: so many bits an axis, and above them those of the batch item.
const AXIS_BITS: u32 = 10;
/// Most batch items of a tile, all bits of a key being those of no block.
const BATCHES: u32 = (1 << (32 - 3 * AXIS_BITS)) - 1;

/// Words of the set, with those of a block that does not exist.
pub(super) const SET_WORDS: usize = SET + 2;
/// Words of numbers: first the number of the block in each place, then that of the first needed row in each half of a block.
pub(super) const NUMBER_WORDS: usize = PLACES + 2;

/// Where things lie in the words that the blocks of a tile take.
///
/// Two words of occupied cells a block, and of one that does not exist.
const OCCUPIED: u32 = 0;
/// The row under the first cell of a block, as [`first_of_block`] says it.
const FIRST: u32 = OCCUPIED + 2 * (BLOCKS as u32 + 1);
/// The places of the set that are taken, until blocks are looked up.
const LIST: u32 = FIRST + BLOCKS as u32;
/// What is known of each row then: its touched blocks, two of 16 bits a word that lie side by side along z, and where its window begins in the first of
/// them.
const ROWS: u32 = LIST;
/// Words of a row.
const ROW_WORDS: u32 = TOUCHED as u32 / 2 + 1;
/// All of them.
pub(super) const WORDS: usize = (ROWS + ROW_WORDS * TILE_ROWS as u32) as usize;

/// Cells of half a block at position 0 of an axis.
const SLABS: [u32; 3] = [0x0055_0055, 0x0000_3333, 0x0F0F_0F0F];

/// Where the number of the tile stands among what a phase reads, behind what [`claim`] writes.
const TILE: usize = 2;
/// Words that a phase reads.
pub(super) const START_WORDS: usize = 3;

/// Rows that are needed where it is not known.
pub(super) const NOT_FOUND: u32 = u32::MAX;

/// Counters among the flags of a tile: [`super::set`] and [`super::chunks`] have the first two.
const TAKEN: usize = 2;
const FOUND: usize = 3;
/// Flags and counters of a tile.
pub(super) const FLAGS: usize = 4;

/// Whether the rows of a tile can be found block by block: where windows of at most 32 taps touch eight blocks.
pub(super) fn fits(geometry: &Geometry) -> bool {
    geometry.is_near()
        && geometry.stride == [1; 3]
        && geometry.blocks() == TOUCHED
        && geometry.taps() <= MAX_GROUP_TAPS
}

/// The cell where a window begins.
#[cube]
fn begin_of(c: Vector<i32, Const<4>>, #[comptime] axis: usize, #[comptime] geometry: Geometry) -> i32 {
    c.extract(comptime!(axis + 1)) + comptime!(geometry.first[axis] - geometry.padding[axis])
}

/// Halves of blocks that a window touches along z, where they lie apart: those from the first on that it lies in.
fn halves(geometry: &Geometry) -> usize {
    geometry.extent(2).unsigned_abs().div_ceil(2) as usize + 1
}

/// Which of the halves that a window touches a tap along z lies in, where the window begins at the first cell of a half, and at the second.
fn half_of(tap: usize, geometry: &Geometry) -> [usize; 2] {
    let distance = tap * geometry.dilation[2].unsigned_abs() as usize;
    [distance / 2, distance.div_ceil(2)]
}

/// A window by the cell where it begins in the first of the blocks that it touches.
#[derive(CubeType)]
struct Window {
    /// By the taps along an axis: the bits of [`cell_bit`] within half a block, and along x and y the bit 64 in the second block.
    x: Array<u32>,
    y: Array<u32>,
    z: Array<u32>,
    /// The first half along z, of the four of two blocks, and whether it begins at the second cell of that.
    first_half: u32,
    is_odd: bool,
}

/// The window that begins at a cell, which is packed as [`mark_needed`] leaves it.
#[cube]
fn window_at(begin: u32, #[comptime] geometry: Geometry) -> Window {
    let z = begin >> 4u32;
    Window {
        x: cells_along(begin & 3u32, 0usize, geometry),
        y: cells_along((begin >> 2u32) & 3u32, 1usize, geometry),
        z: cells_along(z, 2usize, geometry),
        first_half: z / 2u32,
        is_odd: z % 2u32 == 1u32,
    }
}

/// See [`Window`].
#[cube]
fn cells_along(begin: u32, #[comptime] axis: usize, #[comptime] geometry: Geometry) -> Array<u32> {
    let mut cells = Array::<u32>::new(comptime!(geometry.size[axis] as usize));
    #[unroll]
    for i in 0u32..comptime!(geometry.size[axis]) {
        let at = begin + i * comptime!(geometry.dilation[axis] as u32);
        // A bit of a position is one of the cell's.
        let mut bits = (at & 1u32) << comptime!(axis as u32);
        if comptime!(axis < 2) {
            bits |= ((at & 2u32) << comptime!(axis as u32 + 2)) | ((at & 4u32) << 4u32);
        }
        cells[i as usize] = bits;
    }
    cells
}

/// Whether a tap along x or y lies in the second block.
#[cube]
fn is_far(cell: u32) -> bool {
    (cell & 64u32) != 0u32
}

/// The halves that a window touches, by pairs of blocks along z: twice the number of a block, and one more for the upper half.
#[cube]
fn halves_of(pairs: &Array<u32>, window: &Window, #[comptime] geometry: Geometry) -> Array<u32> {
    let n = comptime!(halves(&geometry));
    let mut numbers = Array::<u32>::new(comptime!(4 * n));
    #[unroll]
    for j in 0usize..n {
        let half = window.first_half + j as u32;
        let shift = half / 2u32 * 16u32;
        #[unroll]
        for xy in 0usize..4usize {
            let block = (pairs[xy] >> shift) & 0xFFFFu32;
            numbers[comptime!(xy * n + j)] = 2u32 * block + half % 2u32;
        }
    }
    numbers
}

/// Of values by blocks and the `halves` of each, those of the blocks that a tap along x lies in, the first or the second of two that follow each other;
/// `n` of them. Then those of a tap along y.
#[cube]
fn under(cell: u32, values: &Array<u32>, #[comptime] halves: usize, #[comptime] n: usize) -> Array<u32> {
    let mut chosen = Array::<u32>::new(n);
    #[unroll]
    for at in 0usize..n {
        let near = comptime!(at / halves * 2 * halves + at % halves);
        chosen[at] = select(is_far(cell), values[comptime!(near + halves)], values[near]);
    }
    chosen
}

/// Of values by halves, that of a tap along z.
#[cube]
fn under_tap(
    values: &Array<u32>,
    is_odd: bool,
    #[comptime] tap: usize,
    #[comptime] geometry: Geometry,
) -> u32 {
    let [even, odd] = comptime!(half_of(tap, &geometry));
    let mut value = values[even];
    if comptime!(even != odd) {
        value = select(is_odd, values[odd], value);
    }
    value
}

/// The cells of half a block under some tap along x or y, in the first block or in the `far` one.
#[cube]
fn slab(
    cells: &Array<u32>,
    #[comptime] far: bool,
    #[comptime] axis: usize,
    #[comptime] geometry: Geometry,
) -> u32 {
    let mut slab = 0u32;
    #[unroll]
    for i in 0usize..comptime!(geometry.size[axis] as usize) {
        let here = comptime!(SLABS[axis]) << (cells[i] & 31u32);
        let counts = (cells[i] & 64u32) == comptime!(if far { 64u32 } else { 0 });
        slab |= select(counts, here, 0u32);
    }
    slab
}

/// The cells of a half under some tap along z.
#[cube]
fn layer(window: &Window, #[comptime] half: usize, #[comptime] geometry: Geometry) -> u32 {
    let mut layer = 0u32;
    #[unroll]
    for tap in 0usize..comptime!(geometry.size[2] as usize) {
        let [even, odd] = comptime!(half_of(tap, &geometry));
        let here = comptime!(SLABS[2]) << window.z[tap];
        if comptime!(even == half && odd == half) {
            layer |= here;
        } else if comptime!(even == half) {
            layer |= select(window.is_odd, 0u32, here);
        } else if comptime!(odd == half) {
            layer |= select(window.is_odd, here, 0u32);
        }
    }
    layer
}

/// Looks the blocks up that the windows of the tile's rows touch, marks the input rows that the tile needs and numbers them: the taps that the row of this
/// unit has, and how many rows are needed. [`NOT_FOUND`] where nothing was done, as blocks are too many or too far apart.
///
/// `origin` is the coordinate of the tile's first row, and `c` that of the unit's or, where it has none, the same; `numbers` are [`NUMBER_WORDS`]
/// words.
#[cube]
pub(super) fn needed_of_blocks(
    c: Vector<i32, Const<4>>,
    has_row: bool,
    origin: Vector<i32, Const<4>>,
    source: &[Vector<i32, Const<4>>],
    slots: &[u32],
    occupancy: &[u32],
    first: &[u32],
    first_source: u32,
    first_slot: u32,
    mask: u32,
    set: &Shared<[Atomic<u32>]>,
    numbers: &mut Shared<[u32]>,
    words: &mut Shared<[u32]>,
    sums: &mut Shared<[u32]>,
    flags: &Shared<[Atomic<u32>]>,
    start: &mut Shared<[u32]>,
    cube: u32,
    #[comptime] geometry: Geometry,
    #[comptime] listed: bool,
    #[comptime] lanes: u32,
) -> (u32, u32) {
    let units = comptime!(TILE_ROWS as u32);
    let unit = UNIT_POS;
    #[unroll]
    for at in 0u32..comptime!((PLACES / TILE_ROWS) as u32) {
        set[(at * units + unit) as usize].store(EMPTY);
    }
    #[unroll]
    for at in comptime!((PLACES / TILE_ROWS) as u32)..comptime!((SET / TILE_ROWS) as u32) {
        set[(at * units + unit) as usize].store(0u32);
    }
    if unit < comptime!(FLAGS as u32) {
        flags[unit as usize].store(0u32);
    }
    if unit == 0u32 {
        start[TILE] = cube;
    }
    if unit < 2u32 {
        words[(comptime!(OCCUPIED + 2 * NO_BLOCK) + unit) as usize] = 0u32;
        set[(comptime!(PLACES as u32 + 2 * NO_BLOCK) + unit) as usize].store(0u32);
    }
    sync_cube();
    let places = touch(c, origin, set, flags, geometry);
    sync_cube();
    let mut taps = 0u32;
    let mut needed = NOT_FOUND.runtime();
    let mut goes_on = flags[0].load() == 0u32;
    if goes_on {
        list_taken(set, words, flags);
        sync_cube();
        look_up(
            origin,
            source,
            slots,
            occupancy,
            first,
            first_source,
            first_slot,
            mask,
            set,
            numbers,
            words,
            flags,
            listed,
        );
        sync_cube();
        goes_on = flags[0].load() == 0u32;
    }
    if goes_on {
        taps = mark_needed(c, has_row, &places, set, &*numbers, words, geometry);
        sync_cube();
        needed = number_needed(set, numbers, sums, lanes);
    }
    (taps, needed)
}

/// Puts the blocks that a window touches into the set; their places. `flags[0]` becomes 1 where some have no key, or no place.
#[cube]
fn touch(
    c: Vector<i32, Const<4>>,
    origin: Vector<i32, Const<4>>,
    set: &Shared<[Atomic<u32>]>,
    flags: &Shared<[Atomic<u32>]>,
    #[comptime] geometry: Geometry,
) -> Array<u32> {
    let batch = c.extract(0usize) - origin.extract(0usize);
    let mut has_key = batch >= 0i32 && batch < comptime!(BATCHES as i32);
    // The parts of keys that are those of the first and of the second block along each axis.
    let mut parts = Array::<u32>::new(6usize);
    #[unroll]
    for axis in 0usize..3usize {
        let begin = begin_of(c, axis, geometry);
        let middle = (origin.extract(comptime!(axis + 1)) >> 2i32) - comptime!(1i32 << (AXIS_BITS - 1));
        let near = (begin >> 2i32) - middle;
        let far = ((begin + comptime!(geometry.extent(axis))) >> 2i32) - middle;
        has_key = has_key && near >= 0i32 && far < comptime!(1i32 << AXIS_BITS);
        parts[comptime!(2 * axis)] = u32::cast_from(near) << comptime!(AXIS_BITS * axis as u32);
        parts[comptime!(2 * axis + 1)] = u32::cast_from(far) << comptime!(AXIS_BITS * axis as u32);
    }
    if !has_key {
        flags[0].fetch_or(1u32);
    }
    let high = u32::cast_from(batch) << comptime!(3 * AXIS_BITS);
    let mut keys = Array::<u32>::new(TOUCHED);
    let mut places = Array::<u32>::new(TOUCHED);
    #[unroll]
    for b in 0usize..TOUCHED {
        keys[b] = high
            | parts[comptime!(b & 1)]
            | parts[comptime!(2 + (b >> 1 & 1))]
            | parts[comptime!(4 + (b >> 2))];
        places[b] = (keys[b] * 0x9E37_79B1u32) >> comptime!(32 - (PLACES as u32).ilog2());
    }
    // All go on from place to place together, as what one of them waits for, the others wait for too.
    let mut steps = 0u32;
    let mut searching = true;
    while searching {
        searching = false;
        let mut held = Array::<u32>::new(TOUCHED);
        #[unroll]
        for b in 0usize..TOUCHED {
            held[b] = set[places[b] as usize].load();
        }
        #[unroll]
        for b in 0usize..TOUCHED {
            if held[b] == EMPTY {
                // Read again rather than trust the answer: a weak exchange may fail without a reason.
                set[places[b] as usize].compare_exchange_weak(EMPTY, keys[b]);
            }
        }
        #[unroll]
        for b in 0usize..TOUCHED {
            held[b] = set[places[b] as usize].load();
        }
        #[unroll]
        for b in 0usize..TOUCHED {
            if held[b] != keys[b] {
                searching = true;
                let next = (places[b] + 1u32) & comptime!(PLACES as u32 - 1);
                places[b] = select(held[b] == EMPTY, places[b], next);
            }
        }
        steps += 1u32;
        if searching && steps > MAX_STEPS {
            flags[0].fetch_or(1u32);
            searching = false;
        }
    }
    places
}

/// Lists the places of the set that are taken, so that units have a block each.
#[cube]
fn list_taken(set: &Shared<[Atomic<u32>]>, words: &mut Shared<[u32]>, flags: &Shared<[Atomic<u32>]>) {
    #[unroll]
    for at in 0u32..comptime!((PLACES / TILE_ROWS) as u32) {
        let place = at * comptime!(TILE_ROWS as u32) + UNIT_POS;
        if set[place as usize].load() != EMPTY {
            let item = flags[TAKEN].fetch_add(1u32);
            words[(LIST + item) as usize] = place;
        }
    }
}

/// Looks the listed blocks up and numbers those that exist. `flags[0]` becomes 1 where these are too many.
#[cube]
fn look_up(
    origin: Vector<i32, Const<4>>,
    source: &[Vector<i32, Const<4>>],
    slots: &[u32],
    occupancy: &[u32],
    first: &[u32],
    first_source: u32,
    first_slot: u32,
    mask: u32,
    set: &Shared<[Atomic<u32>]>,
    numbers: &mut Shared<[u32]>,
    words: &mut Shared<[u32]>,
    flags: &Shared<[Atomic<u32>]>,
    #[comptime] listed: bool,
) {
    let axis = comptime!((1u32 << AXIS_BITS) - 1);
    let middle = comptime!(1i32 << (AXIS_BITS - 1));
    for item in range_stepped(UNIT_POS, flags[TAKEN].load(), comptime!(TILE_ROWS as u32)) {
        let place = words[(LIST + item) as usize];
        let key = set[place as usize].load();
        let bx = i32::cast_from(key & axis) - middle + (origin.extract(1usize) >> 2i32);
        let by = i32::cast_from((key >> AXIS_BITS) & axis) - middle + (origin.extract(2usize) >> 2i32);
        let bz = i32::cast_from((key >> comptime!(2 * AXIS_BITS)) & axis) - middle
            + (origin.extract(3usize) >> 2i32);
        let batch = i32::cast_from(key >> comptime!(3 * AXIS_BITS)) + origin.extract(0usize);
        let mut within = hash_block(batch, bx, by, bz) & mask;
        let mut number = NO_BLOCK.runtime();
        let mut searching = true;
        while searching {
            // The search mostly ends at the first slot; of a hundred blocks some go on, and all wait for them.
            let mut leaders = Array::<u32>::new(AT_ONCE);
            let mut lows = Array::<u32>::new(AT_ONCE);
            let mut highs = Array::<u32>::new(AT_ONCE);
            #[unroll]
            for i in 0usize..AT_ONCE {
                let slot = first_slot + ((within + i as u32) & mask);
                leaders[i] = slots[slot as usize];
                lows[i] = occupancy[(2u32 * slot) as usize];
                highs[i] = occupancy[(2u32 * slot + 1u32) as usize];
            }
            let mut found = comptime!(AT_ONCE as u32).runtime();
            let mut leader = EMPTY.runtime();
            let mut low = 0u32;
            let mut high = 0u32;
            let mut bit = 0u32;
            #[unroll]
            for back in 0usize..AT_ONCE {
                let i = comptime!(AT_ONCE - 1 - back);
                let is_taken = leaders[i] != EMPTY;
                let k = source[select(is_taken, leaders[i], first_source) as usize];
                if !is_taken || is_in_block(k, batch, bx, by, bz) {
                    found = comptime!(i as u32).runtime();
                    leader = leaders[i];
                    low = lows[i];
                    high = highs[i];
                    bit = cell_bit(k.extract(1usize), k.extract(2usize), k.extract(3usize));
                }
            }
            searching = found == comptime!(AT_ONCE as u32);
            if searching {
                within = (within + AT_ONCE as u32) & mask;
            } else if leader != EMPTY {
                number = flags[FOUND].fetch_add(1u32);
                if number < NO_BLOCK {
                    let slot = first_slot + ((within + found) & mask);
                    words[(OCCUPIED + 2u32 * number) as usize] = low;
                    words[(OCCUPIED + 2u32 * number + 1u32) as usize] = high;
                    words[(FIRST + number) as usize] =
                        first_of_block(slot, leader, bit, low, high, first, first_source, listed);
                } else {
                    flags[0].fetch_or(1u32);
                }
            }
        }
        numbers[place as usize] = number;
    }
}

/// Marks the input rows that the row of this unit meets, and leaves word of the blocks where they are; the taps that it has.
#[cube]
fn mark_needed(
    c: Vector<i32, Const<4>>,
    has_row: bool,
    places: &Array<u32>,
    set: &Shared<[Atomic<u32>]>,
    numbers: &Shared<[u32]>,
    words: &mut Shared<[u32]>,
    #[comptime] geometry: Geometry,
) -> u32 {
    let unit = UNIT_POS;
    let mut begin = Array::<u32>::new(3usize);
    #[unroll]
    for axis in 0usize..3usize {
        begin[axis] = u32::cast_from(begin_of(c, axis, geometry)) & 3u32;
    }
    let cell = begin[0] | (begin[1] << 2u32) | (begin[2] << 4u32);
    words[(comptime!(ROWS + (ROW_WORDS - 1) * TILE_ROWS as u32) + unit) as usize] = cell;
    let mut pairs = Array::<u32>::new(comptime!(TOUCHED / 2));
    #[unroll]
    for xy in 0usize..comptime!(TOUCHED / 2) {
        let near = numbers[places[xy] as usize];
        let far = numbers[places[comptime!(xy + TOUCHED / 2)] as usize];
        pairs[xy] = select(has_row, near | (far << 16u32), comptime!(NO_BLOCK | NO_BLOCK << 16).runtime());
        words[(comptime!(ROWS + xy as u32 * TILE_ROWS as u32) + unit) as usize] = pairs[xy];
    }
    let n = comptime!(halves(&geometry));
    let window = window_at(cell, geometry);
    let at = halves_of(&pairs, &window, geometry);
    let mut occupied = Array::<u32>::new(comptime!(4 * n));
    #[unroll]
    for half in 0usize..comptime!(4 * n) {
        occupied[half] = words[(OCCUPIED + at[half]) as usize];
    }
    #[unroll]
    for xy in 0usize..4usize {
        let across = slab(&window.x, comptime!(xy % 2 == 1), 0usize, geometry)
            & slab(&window.y, comptime!(xy / 2 == 1), 1usize, geometry);
        #[unroll]
        for j in 0usize..n {
            let met = across & layer(&window, j, geometry) & occupied[comptime!(xy * n + j)];
            if met != 0u32 {
                set[(comptime!(PLACES as u32) + at[comptime!(xy * n + j)]) as usize].fetch_or(met);
            }
        }
    }
    let [nx, ny, nz] = comptime!(geometry.size.map(|n| n as usize));
    let mut taps = 0u32;
    #[unroll]
    for ix in 0usize..nx {
        let of_x = under(window.x[ix], &occupied, n, comptime!(2 * n));
        #[unroll]
        for iy in 0usize..ny {
            let of_xy = under(window.y[iy], &of_x, n, n);
            #[unroll]
            for iz in 0usize..nz {
                let cells = under_tap(&of_xy, window.is_odd, iz, geometry);
                let has = (cells >> ((window.x[ix] | window.y[iy] | window.z[iz]) & 31u32)) & 1u32;
                taps |= has << comptime!(((ix * ny + iy) * nz + iz) as u32);
            }
        }
    }
    taps
}

/// Numbers the marked rows block by block; how many there are.
#[cube]
fn number_needed(
    set: &Shared<[Atomic<u32>]>,
    numbers: &mut Shared<[u32]>,
    sums: &mut Shared<[u32]>,
    #[comptime] lanes: u32,
) -> u32 {
    // The halves of blocks that a unit numbers stand next to each other.
    let first = comptime!(2 * BLOCKS as u32 / TILE_ROWS as u32) * UNIT_POS;
    let mut cells = Array::<u32>::new(comptime!(2 * BLOCKS / TILE_ROWS));
    let mut mine = 0u32;
    #[unroll]
    for half in 0usize..comptime!(2 * BLOCKS / TILE_ROWS) {
        cells[half] = set[(first + comptime!((PLACES + half) as u32)) as usize].load();
        mine += u32::cast_from(cells[half].count_ones());
    }
    let (before, needed) = cube_exclusive_sum(mine, sums, lanes);
    let mut number = before;
    #[unroll]
    for half in 0usize..comptime!(2 * BLOCKS / TILE_ROWS) {
        numbers[(first + half as u32) as usize] = number;
        number += u32::cast_from(cells[half].count_ones());
    }
    needed
}

/// Writes the needed rows to the halo, as many as there is room for. Whichever unit it is finds the row of a number by halving the halves of blocks.
#[cube]
fn write_halo(
    halo: &mut [u32],
    at_halo: u32,
    room: u32,
    set: &Shared<[Atomic<u32>]>,
    words: &Shared<[u32]>,
    numbers: &Shared<[u32]>,
    rows: &[u32],
    #[comptime] listed: bool,
) {
    for number in range_stepped(UNIT_POS, room, comptime!(TILE_ROWS as u32)) {
        // The last half that begins at this number or before it.
        let mut half = 0u32;
        #[unroll]
        for step in 0u32..comptime!((2 * BLOCKS as u32).ilog2()) {
            let next = half + comptime!(BLOCKS as u32) / (1u32 << step);
            half = select(numbers[next as usize] <= number, next, half);
        }
        // The cell of this rank among the needed ones of the half.
        let mut cells = set[(comptime!(PLACES as u32) + half) as usize].load();
        let mut left = number - numbers[half as usize];
        let mut cell = 0u32;
        #[unroll]
        for step in 0u32..5u32 {
            let width = 16u32 >> step;
            let below = u32::cast_from((cells & ((1u32 << width) - 1u32)).count_ones());
            let is_above = left >= below;
            left -= select(is_above, below, 0u32);
            cells = select(is_above, cells >> width, cells);
            cell += select(is_above, width, 0u32);
        }
        let block = half / 2u32;
        let low = words[(OCCUPIED + 2u32 * block) as usize];
        let high = words[(OCCUPIED + 2u32 * block + 1u32) as usize];
        let position = words[(FIRST + block) as usize] + rank(low, high, cell + 32u32 * (half % 2u32));
        halo[(at_halo + number) as usize] = row_at(position, rows, listed);
    }
}

/// Unmarks all rows.
#[cube]
fn clear_marks(set: &Shared<[Atomic<u32>]>) {
    #[unroll]
    for at in comptime!((PLACES / TILE_ROWS) as u32)..comptime!((SET / TILE_ROWS) as u32) {
        set[(at * comptime!(TILE_ROWS as u32) + UNIT_POS) as usize].store(0u32);
    }
}

/// Where the input row of a tap is marked that the row of this unit has: the word of the set, and the bit in it.
#[cube]
fn mark_of(tap: u32, words: &Shared<[u32]>, #[comptime] geometry: Geometry) -> (u32, u32) {
    let [_, ny, nz] = comptime!(geometry.size);
    let dilation = comptime!(geometry.dilation.map(|d| d as u32));
    let begin = words[(comptime!(ROWS + (ROW_WORDS - 1) * TILE_ROWS as u32) + UNIT_POS) as usize];
    let x = (begin & 3u32) + tap / comptime!(ny * nz) * comptime!(dilation[0]);
    let y = ((begin >> 2u32) & 3u32) + (tap / nz) % ny * comptime!(dilation[1]);
    let z = (begin >> 4u32) + tap % nz * comptime!(dilation[2]);
    let pair = words[(ROWS + (x / 4u32 + y / 4u32 * 2u32) * comptime!(TILE_ROWS as u32) + UNIT_POS) as usize];
    let block = (pair >> (z / 4u32 * 16u32)) & 0xFFFFu32;
    let cell = cell_bit(i32::cast_from(x), i32::cast_from(y), i32::cast_from(z));
    (comptime!(PLACES as u32) + 2u32 * block + cell / 32u32, 1u32 << (cell % 32u32))
}

/// Marks the input rows of one tap after the other from `first` on, of two that share a word together, as long as the halo holds them; the first tap that
/// is left, and how many rows are marked. `taps` are those of the row of this unit; `counts` has a zero for each two taps, and another one for those
/// that a phase begins with.
#[cube]
fn mark_phase(
    taps: u32,
    first: u32,
    set: &Shared<[Atomic<u32>]>,
    words: &Shared<[u32]>,
    counts: &Shared<[Atomic<u32>]>,
    #[comptime] geometry: Geometry,
) -> (u32, u32) {
    let n_taps = comptime!(geometry.taps());
    let mut tap = first;
    let mut length = 0u32;
    let mut has_room = true;
    while has_room && tap < n_taps {
        let mut places = Array::<u32>::new(2usize);
        let mut bits = Array::<u32>::new(2usize);
        let mut new = 0u32;
        #[unroll]
        for i in 0usize..2usize {
            bits[i] = 0u32;
            places[i] = comptime!(PLACES as u32).runtime();
            if (taps >> (tap + i as u32)) & 1u32 == 1u32 {
                let (place, bit) = mark_of(tap + i as u32, words, geometry);
                places[i] = place;
                // Only one unit is the first to mark a row, and unmarks it where there is no room.
                bits[i] = bit & !set[place as usize].fetch_or(bit);
                new += select(bits[i] != 0u32, 1u32, 0u32);
            }
        }
        let again = select(tap == first && first > 0u32, comptime!(MAX_GROUP_TAPS / 2), 0u32);
        if new > 0u32 {
            counts[(tap / 2u32 + again) as usize].fetch_add(new);
        }
        sync_cube();
        let longer = length + counts[(tap / 2u32 + again) as usize].load();
        if longer > comptime!(HALO_ROWS as u32) {
            has_room = false;
            #[unroll]
            for i in 0usize..2usize {
                if bits[i] != 0u32 {
                    set[places[i] as usize].fetch_and(!bits[i]);
                }
            }
        } else {
            length = longer;
            tap += 2u32;
        }
    }
    sync_cube();
    (min(tap, n_taps), length)
}

/// Writes the halos and the table, in as many phases as their length asks for; how many. `needed` rows are numbered under all taps; where one phase
/// holds them it is claimed already. `taps` are those of the row of this unit.
#[cube]
pub(super) fn write_phases(
    table: &mut [u32],
    halo: &mut [u32],
    spans: &mut [u32],
    counters: &mut [Atomic<u32>],
    rows: &[u32],
    set: &Shared<[Atomic<u32>]>,
    words: &Shared<[u32]>,
    numbers: &mut Shared<[u32]>,
    sums: &mut Shared<[u32]>,
    start: &mut Shared<[u32]>,
    places: &Shared<[u32]>,
    counts: &Shared<[Atomic<u32>]>,
    needed: u32,
    taps: u32,
    first_span: u32,
    job: &Job,
    #[comptime] shape: BuildShape,
) -> u32 {
    let n_taps = comptime!(shape.geometry.taps());
    let is_split = needed > comptime!(HALO_ROWS as u32);
    if is_split && UNIT_POS < MAX_GROUP_TAPS {
        counts[UNIT_POS as usize].store(0u32);
    }
    let mut n_phases = 0u32;
    let mut begin = 0u32;
    while begin < n_taps {
        let mut end = n_taps.runtime();
        if is_split {
            clear_marks(set);
            sync_cube();
            let (until, length) = mark_phase(taps, begin, set, words, counts, comptime!(shape.geometry));
            end = until;
            number_needed(set, numbers, sums, comptime!(shape.lanes));
            if UNIT_POS == 0u32 {
                let span = first_span + (n_phases + 1u32) * SPAN_WORDS;
                claim(counters, spans, start, length, begin, end, span, job);
            }
        }
        sync_cube();
        write_halo(
            halo,
            job.first_halo + start[0],
            start[1],
            set,
            words,
            &*numbers,
            rows,
            comptime!(shape.listed),
        );
        // Read anew for each phase: what is known before a loop is kept in registers, and these bound how many tiles a multiprocessor has at a time.
        let from = places[UNIT_POS as usize];
        write_table(table, set, words, &*numbers, from, start[TILE], begin, end, comptime!(shape.geometry));
        n_phases += 1u32;
        begin = end;
        // Everybody has read the numbers.
        sync_cube();
    }
    n_phases
}

/// Writes the words of the table for the row of the unit `from`, which took the place of this one, for the taps from `begin` up to `end`.
#[cube]
fn write_table(
    table: &mut [u32],
    set: &Shared<[Atomic<u32>]>,
    words: &Shared<[u32]>,
    numbers: &Shared<[u32]>,
    from: u32,
    cube: u32,
    begin: u32,
    end: u32,
    #[comptime] geometry: Geometry,
) {
    let units = comptime!(TILE_ROWS as u32);
    let [nx, ny, nz] = comptime!(geometry.size.map(|n| n as usize));
    let n_taps = comptime!(geometry.taps() as usize);
    let n = comptime!(halves(&geometry));
    let mut pairs = Array::<u32>::new(comptime!(TOUCHED / 2));
    #[unroll]
    for xy in 0usize..comptime!(TOUCHED / 2) {
        pairs[xy] = words[(comptime!(ROWS + xy as u32 * TILE_ROWS as u32) + from) as usize];
    }
    let window =
        window_at(words[(comptime!(ROWS + (ROW_WORDS - 1) * TILE_ROWS as u32) + from) as usize], geometry);
    let at = halves_of(&pairs, &window, geometry);
    let mut cells = Array::<u32>::new(comptime!(4 * n));
    let mut firsts = Array::<u32>::new(comptime!(4 * n));
    #[unroll]
    for half in 0usize..comptime!(4 * n) {
        cells[half] = set[(comptime!(PLACES as u32) + at[half]) as usize].load();
        firsts[half] = numbers[at[half] as usize];
    }
    let first_word = cube * comptime!(geometry.taps().div_ceil(2));
    let mut even = 0u32;
    #[unroll]
    for ix in 0usize..nx {
        let cells_x = under(window.x[ix], &cells, n, comptime!(2 * n));
        let firsts_x = under(window.x[ix], &firsts, n, comptime!(2 * n));
        #[unroll]
        for iy in 0usize..ny {
            let cells_xy = under(window.y[iy], &cells_x, n, n);
            let firsts_xy = under(window.y[iy], &firsts_x, n, n);
            #[unroll]
            for iz in 0usize..nz {
                let cells = under_tap(&cells_xy, window.is_odd, iz, geometry);
                let number = under_tap(&firsts_xy, window.is_odd, iz, geometry);
                let bit = 1u32 << ((window.x[ix] | window.y[iy] | window.z[iz]) & 31u32);
                let rank = u32::cast_from((cells & (bit - 1u32)).count_ones());
                let local = select((cells & bit) != 0u32, number + rank, NO_LOCAL.runtime());
                // Local numbers of two taps a word; a tap past the last has no row.
                let tap = comptime!((ix * ny + iy) * nz + iz);
                if comptime!(tap % 2 == 0) {
                    even = local;
                }
                let word = first_word + comptime!(tap as u32 / 2);
                if comptime!(tap % 2 == 1 || tap + 1 == n_taps) {
                    let mut odd = NO_LOCAL.runtime();
                    if comptime!(tap % 2 == 1) {
                        odd = local;
                    }
                    if comptime!(tap as u32) >= begin && comptime!(tap as u32) < end {
                        table[(word * units + UNIT_POS) as usize] = even | (odd << 16u32);
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use lattice_core::{KernelSpec, RelationKind};

    use super::*;

    #[test]
    fn a_slab_has_the_cells_at_its_positions() {
        for (axis, first) in SLABS.into_iter().enumerate() {
            for at in 0..4u32 {
                let bits = (at & 1) << axis | (at & 2) << (axis + 2);
                for cell in 0..64u32 {
                    let along = cell >> axis & 1 | (cell >> (axis + 3) & 1) << 1;
                    // Halves lie apart along z.
                    let in_half = axis != 2 || cell >> 5 == at >> 1;
                    let is_in = in_half && first << (bits & 31) >> (cell & 31) & 1 == 1;
                    assert_eq!(is_in, along == at, "axis {axis}, position {at}, cell {cell}");
                }
            }
        }
    }

    #[test]
    fn taps_lie_in_the_halves_that_windows_touch() {
        for (size, dilation) in [(3, 1), (3, 2), (2, 1), (2, 4), (5, 1), (4, 1)] {
            let spec = KernelSpec::try_new([size; 3], [1; 3], [0; 3], [dilation; 3]).expect("a kernel");
            let geometry = Geometry::new(RelationKind::Submanifold, &spec);
            for begin in 0..4 {
                for tap in 0..size as usize {
                    let half = half_of(tap, &geometry)[begin % 2];
                    assert_eq!(begin / 2 + half, (begin + tap * dilation as usize) / 2);
                    assert!(half < halves(&geometry), "{size} taps {dilation} apart");
                }
            }
        }
    }
}

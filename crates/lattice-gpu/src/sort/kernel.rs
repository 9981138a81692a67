//! Kernels of the radix sort.

use cubecl::prelude::*;

/// Values of a digit.
pub(crate) const DIGITS: u32 = 256;
/// Units of a cube.
pub(crate) const UNITS: u32 = 128;
/// Rows that a unit takes.
pub(crate) const ITEMS: u32 = 16;
/// Rows of a cube.
pub(crate) const TILE: u32 = UNITS * ITEMS;

/// Tiles whose counts a unit asks for at a time.
const TILES_AHEAD: usize = 16;

/// Digit of a key at bit `shift`, a multiple of 8.
#[cube]
fn digit(low: u32, high: u32, shift: u32) -> u32 {
    (select(shift < 32u32, low, high) >> (shift % 32u32)) & 255u32
}

/// `counts[digit, tile]`, or `counts[tile, digit]` where the next kernel adds them up itself: rows of a tile with that digit. One cube a
/// tile.
#[cube(launch_unchecked)]
pub(crate) fn count_digits_kernel(
    low: &[u32],
    high: &[u32],
    counts: &mut [u32],
    n: u32,
    n_tiles: u32,
    shift: u32,
    #[comptime] by_tile: bool,
) {
    let tile = CUBE_POS as u32;
    if tile >= n_tiles {
        terminate!();
    }
    let counters = Shared::<[Atomic<u32>]>::new_slice(256usize);
    for at in 0u32..comptime!(DIGITS / UNITS) {
        counters[(at * UNITS + UNIT_POS) as usize].store(0u32);
    }
    let mut words = Array::<u32>::new(comptime!(ITEMS as usize));
    #[unroll]
    for item in 0u32..ITEMS {
        let at = min(tile * TILE + item * UNITS + UNIT_POS, n - 1u32);
        // The other word is not there where keys have one.
        if shift < 32u32 {
            words[item as usize] = low[at as usize];
        } else {
            words[item as usize] = high[at as usize];
        }
    }
    sync_cube();
    #[unroll]
    for item in 0u32..ITEMS {
        if tile * TILE + item * UNITS + UNIT_POS < n {
            let word = words[item as usize];
            counters[digit(word, word, shift) as usize].fetch_add(1u32);
        }
    }
    sync_cube();
    for at in 0u32..comptime!(DIGITS / UNITS) {
        let d = at * UNITS + UNIT_POS;
        if by_tile {
            counts[(tile * DIGITS + d) as usize] = counters[d as usize].load();
        } else {
            counts[(d * n_tiles + tile) as usize] = counters[d as usize].load();
        }
    }
}

/// Where the rows of a tile with each digit go, from `counts[tile, digit]`: after all of smaller digits, and those of the tiles before.
#[cube]
fn starts_from_counts(
    counts: &[u32],
    begins: &mut Shared<[u32]>,
    sums: &mut Shared<[u32]>,
    tile: u32,
    n_tiles: u32,
) {
    // A unit adds up two digits next to each other.
    let mut before = Array::<u32>::new(2usize);
    let mut total = Array::<u32>::new(2usize);
    #[unroll]
    for d in 0usize..2usize {
        before[d] = 0u32;
        total[d] = 0u32;
    }
    let mut first = 0u32;
    while first < n_tiles {
        let mut found = Array::<u32>::new(comptime!(2 * TILES_AHEAD));
        #[unroll]
        for i in 0usize..TILES_AHEAD {
            let at = min(first + i as u32, n_tiles - 1u32) * DIGITS + 2u32 * UNIT_POS;
            found[comptime!(2 * i)] = counts[at as usize];
            found[comptime!(2 * i + 1)] = counts[at as usize + 1usize];
        }
        #[unroll]
        for i in 0usize..TILES_AHEAD {
            let other = first + i as u32;
            #[unroll]
            for d in 0usize..2usize {
                let count = select(other < n_tiles, found[comptime!(2 * i + d)], 0u32);
                total[d] += count;
                before[d] += select(other < tile, count, 0u32);
            }
        }
        first += comptime!(TILES_AHEAD as u32);
    }
    let both = total[0] + total[1];
    sums[UNIT_POS as usize] = both;
    sync_cube();
    let mut step = 1u32;
    while step < UNITS {
        let mut below = 0u32;
        if UNIT_POS >= step {
            below = sums[(UNIT_POS - step) as usize];
        }
        sync_cube();
        sums[UNIT_POS as usize] += below;
        sync_cube();
        step *= 2u32;
    }
    let base = sums[UNIT_POS as usize] - both;
    begins[(2u32 * UNIT_POS) as usize] = base + before[0];
    begins[(2u32 * UNIT_POS + 1u32) as usize] = base + total[0] + before[1];
}

/// Moves every row to its place: where the digit of its tile starts, then the order within the tile. `starts` are `[digit, tile]`, or
/// `by_tile` the counts `[tile, digit]` that they are made of. One cube a tile; planes take consecutive rows, and within a plane the lanes
/// that share a digit find each other by ballots. In the first pass rows stand where they are.
#[cube(launch_unchecked)]
pub(crate) fn move_rows_kernel(
    low: &[u32],
    high: &[u32],
    rows: &[u32],
    starts: &[u32],
    low_out: &mut [u32],
    high_out: &mut [u32],
    rows_out: &mut [u32],
    n: u32,
    n_tiles: u32,
    shift: u32,
    #[comptime] wide: bool,
    #[comptime] first_pass: bool,
    #[comptime] lanes: u32,
    #[comptime] by_tile: bool,
) {
    let tile = CUBE_POS as u32;
    if tile >= n_tiles {
        terminate!();
    }
    let planes = comptime!(UNITS / lanes);
    let lane = UNIT_POS % lanes;
    let plane = UNIT_POS / lanes;
    let counters = Shared::<[Atomic<u32>]>::new_slice(comptime!((planes * DIGITS) as usize));
    let mut begins = Shared::<[u32]>::new_slice(comptime!(if by_tile { DIGITS as usize } else { 1 }));
    let mut sums = Shared::<[u32]>::new_slice(comptime!(if by_tile { UNITS as usize } else { 1 }));
    for at in 0u32..comptime!(planes * DIGITS / UNITS) {
        counters[(at * UNITS + UNIT_POS) as usize].store(0u32);
    }
    // All of a unit's keys and rows are asked for at once.
    let mut lows = Array::<u32>::new(comptime!(ITEMS as usize));
    let mut highs = Array::<u32>::new(comptime!(ITEMS as usize));
    let mut numbers = Array::<u32>::new(comptime!(ITEMS as usize));
    let first = tile * TILE + plane * comptime!(ITEMS * lanes);
    #[unroll]
    for item in 0u32..ITEMS {
        let at = min(first + item * lanes + lane, n - 1u32);
        lows[item as usize] = low[at as usize];
        if comptime!(wide) {
            highs[item as usize] = high[at as usize];
        } else {
            highs[item as usize] = 0u32;
        }
        if comptime!(first_pass) {
            numbers[item as usize] = at;
        } else {
            numbers[item as usize] = rows[at as usize];
        }
    }
    if by_tile {
        starts_from_counts(starts, &mut begins, &mut sums, tile, n_tiles);
    }
    // Also brings the units of a plane together, which ballots ask.
    sync_cube();
    let mut digits = Array::<u32>::new(comptime!(ITEMS as usize));
    let mut ranks = Array::<u32>::new(comptime!(ITEMS as usize));
    #[unroll]
    for item in 0u32..ITEMS {
        let here = first + item * lanes + lane < n;
        let d = select(here, digit(lows[item as usize], highs[item as usize], shift), 0u32);
        // Lanes that hold the same digit.
        let mut peers = plane_ballot(here).extract(0usize);
        #[unroll]
        for bit in 0u32..8u32 {
            let set = ((d >> bit) & 1u32) == 1u32;
            let ballot = plane_ballot(set).extract(0usize);
            peers &= select(set, ballot, !ballot);
        }
        let below = u32::cast_from((peers & ((1u32 << lane) - 1u32)).count_ones());
        let leader = peers.trailing_zeros();
        let mut before = 0u32;
        if here && below == 0u32 {
            before = counters[(plane * DIGITS + d) as usize].fetch_add(u32::cast_from(peers.count_ones()));
        }
        // The leader's answer; also what keeps the rounds of a plane in order.
        before = plane_shuffle(before, select(here, u32::cast_from(leader), lane));
        digits[item as usize] = d;
        ranks[item as usize] = before + below;
    }
    sync_cube();
    // Rows of each digit in the planes before.
    for at in 0u32..comptime!(DIGITS / UNITS) {
        let d = at * UNITS + UNIT_POS;
        let mut sum = 0u32;
        if by_tile {
            sum += begins[d as usize];
        } else {
            sum += starts[(d * n_tiles + tile) as usize];
        }
        for p in 0u32..planes {
            let here = counters[(p * DIGITS + d) as usize].load();
            counters[(p * DIGITS + d) as usize].store(sum);
            sum += here;
        }
    }
    sync_cube();
    #[unroll]
    for item in 0u32..ITEMS {
        if first + item * lanes + lane < n {
            let to =
                counters[(plane * DIGITS + digits[item as usize]) as usize].load() + ranks[item as usize];
            low_out[to as usize] = lows[item as usize];
            if comptime!(wide) {
                high_out[to as usize] = highs[item as usize];
            }
            rows_out[to as usize] = numbers[item as usize];
        }
    }
}

/// `rows[i] = i`. One unit a row.
#[cube(launch_unchecked)]
pub(crate) fn number_rows_kernel(rows: &mut [u32], n: u32) {
    let at = ABSOLUTE_POS as u32;
    if at < n {
        rows[at as usize] = at;
    }
}

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

/// Digit of a key at bit `shift`, a multiple of 8.
#[cube]
fn digit(low: &[u32], high: &[u32], at: u32, shift: u32) -> u32 {
    // The other word is not there where keys have one.
    let mut word = 0u32;
    if shift < 32u32 {
        word += low[at as usize];
    } else {
        word += high[at as usize];
    }
    (word >> (shift % 32u32)) & 255u32
}

/// `counts[digit, tile]`: rows of a tile with that digit. One cube a tile.
#[cube(launch_unchecked)]
pub(crate) fn count_digits_kernel(
    low: &[u32],
    high: &[u32],
    counts: &mut [u32],
    n: u32,
    n_tiles: u32,
    shift: u32,
) {
    let tile = CUBE_POS as u32;
    if tile >= n_tiles {
        terminate!();
    }
    let counters = Shared::<[Atomic<u32>]>::new_slice(256usize);
    for at in 0u32..comptime!(DIGITS / UNITS) {
        counters[(at * UNITS + UNIT_POS) as usize].store(0u32);
    }
    sync_cube();
    for item in 0u32..ITEMS {
        let at = tile * TILE + item * UNITS + UNIT_POS;
        if at < n {
            counters[digit(low, high, at, shift) as usize].fetch_add(1u32);
        }
    }
    sync_cube();
    for at in 0u32..comptime!(DIGITS / UNITS) {
        let d = at * UNITS + UNIT_POS;
        counts[(d * n_tiles + tile) as usize] = counters[d as usize].load();
    }
}

/// Moves every row to its place: `starts[digit, tile]`, then the order within the tile. One cube a tile; planes take consecutive
/// rows, and within a plane the lanes that share a digit find each other by ballots.
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
    #[comptime] lanes: u32,
) {
    let tile = CUBE_POS as u32;
    if tile >= n_tiles {
        terminate!();
    }
    let planes = comptime!(UNITS / lanes);
    let lane = UNIT_POS % lanes;
    let plane = UNIT_POS / lanes;
    let counters = Shared::<[Atomic<u32>]>::new_slice(comptime!((planes * DIGITS) as usize));
    for at in 0u32..comptime!(planes * DIGITS / UNITS) {
        counters[(at * UNITS + UNIT_POS) as usize].store(0u32);
    }
    sync_cube();
    let mut digits = Array::<u32>::new(comptime!(ITEMS as usize));
    let mut ranks = Array::<u32>::new(comptime!(ITEMS as usize));
    let first = tile * TILE + plane * comptime!(ITEMS * lanes);
    #[unroll]
    for item in 0u32..ITEMS {
        let at = first + item * lanes + lane;
        let here = at < n;
        let mut d = 0u32;
        if here {
            d = digit(low, high, at, shift);
        }
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
        let mut sum = starts[(d * n_tiles + tile) as usize];
        for p in 0u32..planes {
            let here = counters[(p * DIGITS + d) as usize].load();
            counters[(p * DIGITS + d) as usize].store(sum);
            sum += here;
        }
    }
    sync_cube();
    #[unroll]
    for item in 0u32..ITEMS {
        let at = first + item * lanes + lane;
        if at < n {
            let to =
                counters[(plane * DIGITS + digits[item as usize]) as usize].load() + ranks[item as usize];
            low_out[to as usize] = low[at as usize];
            if comptime!(wide) {
                high_out[to as usize] = high[at as usize];
            }
            rows_out[to as usize] = rows[at as usize];
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

//! The input rows of a tile block by block: each block that the windows of a tile touch is looked up once, whatever the number of rows that touch it, and
//! its rows are numbered by the ranks of their cells among those that the tile needs.
//!
//! Units share what they find in shared memory, which takes far fewer loads and registers than the rows' own ways through the index: the 256 rows of a
//! scan's tile touch some 130 blocks, two thousand times together.

mod find;
mod marks;
mod numbers;
mod window;

use cubecl::prelude::*;

use self::find::{list_taken, look_up, touch};
use self::marks::{clear_marks, mark_needed, mark_phase};
use self::numbers::{number_needed, write_halo, write_table};
use super::geometry::Geometry;
use super::job::Job;
use super::kernel::{BuildShape, MAX_GROUP_TAPS, SPAN_WORDS};
use super::phases::claim;
use super::set::SET;
use super::{HALO_ROWS, TILE_ROWS};
use crate::index::EMPTY;

/// Blocks that a window touches: two along each axis.
const TOUCHED: usize = 8;
/// Places of the set of touched blocks, the first words of the tile's set. Behind them are the cells that the tile needs of each block that exists.
const PLACES: usize = SET / 2;
/// Blocks that exist among those that a tile touches, at most.
const BLOCKS: usize = (SET - PLACES) / 2;
/// Number of a block that does not exist: one without cells.
const NO_BLOCK: u32 = BLOCKS as u32;

/// Words of the set, with those of a block that does not exist.
pub(super) const SET_WORDS: usize = SET + 2;
/// Words of numbers: first the number of the block in each place, then that of the first needed row in each half of a block.
pub(super) const NUMBER_WORDS: usize = PLACES + 2;

/// Where things lie in the words that the blocks of a tile take.
///
/// Two words of occupied cells a block, and of one that does not exist.
const OCCUPIED: u32 = 0;
/// The row under the first cell of a block, as [`super::window::first_of_block`] says it.
const FIRST: u32 = OCCUPIED + 2 * (BLOCKS as u32 + 1);
/// The places of the set that are taken, until blocks are looked up.
const LIST: u32 = FIRST + BLOCKS as u32;
/// What is known of each row then: its touched blocks, two of 16 bits a word that lie side by side along z, and where its window begins in the first of
/// them.
const ROWS: u32 = LIST;
/// The word of a row that says where its window begins, behind those of its blocks.
const BEGIN: u32 = TOUCHED as u32 / 2;
/// Words of a row.
const ROW_WORDS: u32 = BEGIN + 1;
/// All of them.
pub(super) const WORDS: usize = (ROWS + ROW_WORDS * TILE_ROWS as u32) as usize;

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

/// Where a word of what is known of a unit's row lies.
#[cube]
fn word_of_row(word: u32, unit: u32) -> usize {
    (ROWS + word * comptime!(TILE_ROWS as u32) + unit) as usize
}

/// The cell where a window begins.
#[cube]
fn begin_of(c: Vector<i32, Const<4>>, #[comptime] axis: usize, #[comptime] geometry: Geometry) -> i32 {
    c.extract(comptime!(axis + 1)) + comptime!(geometry.first[axis] - geometry.padding[axis])
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
    set: &Shared<[Atomic<u32>]>,
    numbers: &mut Shared<[u32]>,
    words: &mut Shared<[u32]>,
    sums: &mut Shared<[u32]>,
    flags: &Shared<[Atomic<u32>]>,
    start: &mut Shared<[u32]>,
    cube: u32,
    job: &Job,
    #[comptime] shape: BuildShape,
) -> (u32, u32) {
    let geometry = comptime!(shape.geometry);
    let units = comptime!(TILE_ROWS as u32);
    let unit = UNIT_POS;
    #[unroll]
    for at in 0u32..comptime!((PLACES / TILE_ROWS) as u32) {
        set[(at * units + unit) as usize].store(EMPTY);
    }
    clear_marks(set);
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
            set,
            numbers,
            words,
            flags,
            job,
            comptime!(shape.listed),
        );
        sync_cube();
        goes_on = flags[0].load() == 0u32;
    }
    if goes_on {
        taps = mark_needed(c, has_row, &places, set, &*numbers, words, geometry);
        sync_cube();
        needed = number_needed(set, numbers, sums, comptime!(shape.lanes));
    }
    (taps, needed)
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
            end = mark_phase(taps, begin, set, words, counts, comptime!(shape.geometry));
            let length = number_needed(set, numbers, sums, comptime!(shape.lanes));
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

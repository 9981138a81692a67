//! Where the rows of a plane's taps stand: which chunks are whose, and which of the staged rows a tap reads for them.

use cubecl::prelude::*;

use super::shape::MmaShape;
use crate::tiles::{CHUNK_ROWS, TILE_ROWS};

/// The taps of a phase that a plane has, for one part of the channels.
#[derive(CubeType, Clone, Copy)]
pub(super) struct TapsOf {
    /// Of each tap of the phase, which chunks of the plane have it: a lane holds one.
    pub(super) mine: u32,
    /// The taps that any chunk of the plane has, counted from the phase's first.
    pub(super) taps: u32,
    /// The phase's first tap.
    pub(super) begin: u32,
    /// The tile's first word in the table of local numbers.
    pub(super) first_word: u32,
    pub(super) part: u32,
    /// Grains of the part that have channels.
    pub(super) grains: u32,
    pub(super) row_group: u32,
    pub(super) lane: u32,
}

/// Which pair of chunks of the tile is a plane's `slot`th. Dealt out there and back, so that planes have about equal work: rows are
/// sorted by the taps they have.
#[cube]
pub(super) fn pair_of(row_group: u32, #[comptime] slot: usize, #[comptime] shape: MmaShape) -> u32 {
    let groups = comptime!(shape.plan.row_groups as u32);
    // Pairs whose chunks are multiplied together stay together.
    let run = comptime!((shape.plan.together / 2).max(1) as u32);
    let (turn, nth) = comptime!((slot as u32 / run, slot as u32 % run));
    if comptime!(!shape.plan.dealt) {
        row_group * comptime!(shape.pairs() as u32) + slot as u32
    } else if comptime!(turn.is_multiple_of(2)) {
        (comptime!(turn * groups) + row_group) * run + nth
    } else {
        (comptime!(turn * groups + groups - 1) - row_group) * run + nth
    }
}

/// Where 16 bytes `v` of row `local` stand among the staged rows of `width` such pieces. Where steps are read in pairs of 64 bytes,
/// rows of odd number swap their halves, so that two rows read together meet in different banks half of the time.
#[cube]
pub(super) fn staged(local: u32, v: u32, #[comptime] shape: MmaShape) -> u32 {
    let width = comptime!((shape.plan.depth / 8) as u32);
    if comptime!(swaps_halves(&shape)) {
        local * width + (v ^ ((local % 2u32) * 4u32))
    } else {
        local * width + v
    }
}

/// Pieces of 16 bytes in a unit of places: those of a row, at most four.
fn unit_pieces(shape: &MmaShape) -> usize {
    (shape.plan.depth / 8).min(4)
}

/// Whether rows of odd number swap their halves of 64 bytes.
pub(super) fn swaps_halves(shape: &MmaShape) -> bool {
    shape.plan.depth.is_multiple_of(64) && shape.plan.grain < 4
}

/// Where two rows begin among the staged ones, in units of 64 bytes or of a shorter row, from their local numbers: one in each half of a
/// word.
#[cube]
pub(super) fn staged_places(locals: u32, #[comptime] shape: MmaShape) -> u32 {
    let units = comptime!((shape.plan.depth / 8 / unit_pieces(&shape)) as u32);
    if comptime!(swaps_halves(&shape)) { locals * units + (locals & 0x0001_0001u32) } else { locals * units }
}

/// The piece where a lane begins to read its row of a tap, before a grain is chosen; `word` holds the rows of two taps: their places where
/// the table is staged, else their local numbers.
#[cube]
pub(super) fn first_piece(word: u32, half: u32, lane: u32, #[comptime] shape: MmaShape) -> u32 {
    let mut place = (word >> half) & 0xFFFFu32;
    if comptime!(!shape.plan.table_staged) {
        place = staged_places(place, shape);
    }
    let quad = lane % 4u32;
    if comptime!(shape.plan.grain == 1) { place * 2u32 + quad / 2u32 } else { place * 4u32 + quad }
}

/// Words that hold the local numbers of a tap at a lane's places, one a chunk.
#[cube]
pub(super) fn load_words(
    words: &mut Array<u32>,
    table: &[u32],
    first_word: u32,
    tap: u32,
    row_group: u32,
    lane: u32,
    #[comptime] shape: MmaShape,
) {
    let word = first_word + tap / 2u32 * comptime!(TILE_ROWS as u32);
    #[unroll]
    for slot in 0usize..comptime!(shape.pairs()) {
        let place = pair_of(row_group, slot, shape) * comptime!(2 * CHUNK_ROWS as u32) + lane / 4u32;
        #[unroll]
        for chunk in 0usize..2usize {
            words[comptime!(2 * slot + chunk)] =
                table[(word + place + comptime!((chunk * CHUNK_ROWS) as u32)) as usize];
        }
    }
}

/// The word of a lane's row of a chunk among the staged local numbers.
#[cube]
pub(super) fn local_word(
    locals: &Shared<[u32]>,
    at_words: u32,
    row_group: u32,
    #[comptime] slot: usize,
    #[comptime] chunk: usize,
    #[comptime] shape: MmaShape,
) -> u32 {
    let at = at_words
        + pair_of(row_group, slot, shape) * comptime!(2 * CHUNK_ROWS as u32)
        + comptime!((chunk * CHUNK_ROWS) as u32);
    locals[at as usize]
}

/// The words that hold the local numbers, or places, of a tap at a lane's rows, one a chunk.
#[cube]
pub(super) fn words_of_tap(
    words: &mut Array<u32>,
    table: &[u32],
    locals: &Shared<[u32]>,
    of: &TapsOf,
    tap: u32,
    #[comptime] shape: MmaShape,
) {
    if comptime!(shape.plan.table_staged) {
        let at_words = (tap / 2u32 - of.begin / 2u32) * comptime!(TILE_ROWS as u32) + of.lane / 4u32;
        #[unroll]
        for slot in 0usize..comptime!(shape.pairs()) {
            #[unroll]
            for chunk in 0usize..2usize {
                words[comptime!(2 * slot + chunk)] =
                    local_word(locals, at_words, of.row_group, slot, chunk, shape);
            }
        }
    } else {
        load_words(words, table, of.first_word, tap, of.row_group, of.lane, shape);
    }
}

/// Reads a lane's channels of a grain of a voxel, from `piece` of the staged ones on: eight of every two steps, or four of a single one, in
/// words of two.
///
/// Lane `4 g + t` reads row `g` of its chunk. Eight lanes are served together: two rows. With grains of four steps the even one reads its
/// first 64 bytes and the odd one its second, then the other way about, so that they never meet in a bank.
#[cube]
pub(super) fn read_voxels<F: Float, P: Size>(
    voxels: &mut Array<u32>,
    stage: &Shared<[Vector<F, P>]>,
    piece: u32,
    lane: u32,
    #[comptime] chunk: usize,
    #[comptime] shape: MmaShape,
) {
    let base = comptime!(chunk * shape.plan.grain * 2);
    if comptime!(shape.plan.grain == 1) {
        // A single step: 8 bytes a lane.
        let both = Vector::<u32, Const<4>>::reinterpret(stage[piece as usize]);
        let odd = lane % 2u32 == 1u32;
        voxels[base] = select(odd, both.extract(2usize), both.extract(0usize));
        voxels[comptime!(base + 1)] = select(odd, both.extract(3usize), both.extract(1usize));
    } else if comptime!(shape.plan.grain == 2) {
        let words = Vector::<u32, Const<4>>::reinterpret(stage[piece as usize]);
        #[unroll]
        for i in 0usize..4usize {
            voxels[comptime!(base + i)] = words.extract(i);
        }
    } else {
        let odd = (lane / 4u32) % 2u32;
        let one = Vector::<u32, Const<4>>::reinterpret(stage[(piece + 4u32 * odd) as usize]);
        let two = Vector::<u32, Const<4>>::reinterpret(stage[(piece + 4u32 * (1u32 - odd)) as usize]);
        #[unroll]
        for i in 0usize..4usize {
            voxels[comptime!(base + i)] = select(odd == 0u32, one.extract(i), two.extract(i));
            voxels[comptime!(base + 4 + i)] = select(odd == 0u32, two.extract(i), one.extract(i));
        }
    }
}

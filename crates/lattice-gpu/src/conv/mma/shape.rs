//! What the kernel is compiled for.

use super::After;
use super::form::Form;
use super::plan::{EDGE, MmaPlan};
use crate::tiles::{CHUNK_ROWS, TILE_ROWS};

/// Halo rows that most tiles stay below.
const USUAL_HALO: usize = 384;

/// Sizes and options that the kernel is compiled for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct MmaShape {
    /// Input channels in halves of 16 bits: one a channel, or two where elements have 32 bits, or one for two channels in bytes.
    pub(super) c_in: usize,
    /// Halves of a channel.
    pub(super) halves: usize,
    pub(super) c_out: usize,
    pub(super) taps: u32,
    pub(super) span_words: u32,
    pub(super) plan: MmaPlan,
    pub(super) after: After,
    pub(super) form: Form,
}

impl MmaShape {
    /// Fragments of output channels, rounded up to whole blocks.
    pub(super) fn all_slices(&self) -> u32 {
        (self.c_out.div_ceil(EDGE)).next_multiple_of(self.plan.slice_groups * self.plan.slices) as u32
    }

    /// Blocks of output channels.
    pub(super) fn blocks(&self) -> u32 {
        self.c_out.div_ceil(self.plan.block()) as u32
    }

    /// Cubes of a tile.
    pub(super) fn cubes(&self) -> u32 {
        self.blocks() * self.plan.splits() as u32
    }

    /// Fragments of sums of a plane.
    pub(super) fn fragments(&self) -> usize {
        2 * self.pairs() * self.plan.slices
    }

    /// Sums of one block of a tile that cubes hand each other.
    pub(super) fn handed(&self) -> usize {
        if self.plan.splits() == 1 {
            0
        } else {
            self.plan.splits() * self.plan.units() * 4 * self.fragments()
        }
    }

    /// Pairs of chunks of a plane.
    pub(super) fn pairs(&self) -> usize {
        TILE_ROWS / CHUNK_ROWS / 2 / self.plan.row_groups
    }

    /// Words of local numbers that a phase may have a place.
    pub(super) fn phase_words(&self) -> usize {
        (self.taps.div_ceil(2) as usize).min(17)
    }

    /// Loads of staged rows that a unit has under way: one round for most tiles, within registers that leave room for two cubes of
    /// 256 units on a multiprocessor, where sums and weights do.
    pub(super) fn loads_ahead(&self) -> usize {
        let plan = self.plan;
        let units = plan.units();
        let one_round = (USUAL_HALO * plan.depth / 8).div_ceil(units);
        let held = 4 * plan.slices * (2 * self.pairs() + plan.grain);
        let most = if held > 128 { 12 } else { (100usize.saturating_sub(held) / 4).clamp(4, 6) };
        one_round.clamp(1, most)
    }
}

//! What the kernel is compiled for.

use cubecl::prelude::*;

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

/// What the kernel is told of sizes when it runs.
#[derive(CubeType, CubeLaunch, Clone, Copy)]
pub(super) struct Sizes {
    /// Input channels in halves, and output channels.
    pub(super) c_in: u32,
    pub(super) c_out: u32,
    pub(super) taps: u32,
    pub(super) span_words: u32,
    /// Fragments of output channels, rounded up to whole blocks, and the blocks.
    pub(super) all_slices: u32,
    pub(super) blocks: u32,
    /// Cubes that share the parts of the channels and the taps of a block.
    pub(super) part_splits: u32,
    pub(super) tap_splits: u32,
    /// 1 where tiles are taken in an order of their own, else 0.
    pub(super) is_ordered: u32,
}

/// Taps up to which kernels are compiled for: as many words of local numbers as the shared memory then has.
const TAP_CLASSES: [u32; 4] = [2, 8, 28, 34];

impl MmaShape {
    /// The sizes that the kernel is told.
    pub(super) fn sizes(&self, is_ordered: bool) -> SizesLaunch {
        let plan = self.plan;
        SizesLaunch::new(
            self.c_in as u32,
            self.c_out as u32,
            self.taps,
            self.span_words,
            self.all_slices(),
            self.blocks(),
            plan.part_splits as u32,
            plan.tap_splits as u32,
            u32::from(is_ordered),
        )
    }

    /// What the kernel is compiled for: where it is told of sizes, one shape stands for all of a plan.
    pub(super) fn compiled(self) -> Self {
        if !self.is_told() {
            return self;
        }
        let taps = TAP_CLASSES.into_iter().find(|&most| self.taps <= most).unwrap_or(TAP_CLASSES[3]);
        let part_splits = if self.plan.splits() > 1 { 2 } else { 1 };
        let plan = MmaPlan { part_splits, tap_splits: 1, ..self.plan };
        // Whether the last part may have fewer grains is known, too.
        let c_in = if self.may_end_early() { 1 } else { plan.depth };
        Self { c_in, c_out: plan.block(), taps, span_words: 0, plan, ..self }
    }

    /// Whether the kernel is told of sizes when it runs, rather than compiled for them: codes are read by sizes that it is compiled for.
    pub(super) fn is_told(&self) -> bool {
        self.plan.told && self.form == Form::Floats
    }

    /// Whether the last part of the channels may have fewer grains than others.
    pub(super) fn may_end_early(&self) -> bool {
        let grain = self.plan.grain * EDGE;
        let empty = self.c_in.next_multiple_of(self.plan.depth) - self.c_in;
        self.plan.depth > grain && empty >= grain
    }

    /// Whether the elements of the next grain are asked for before this one's are multiplied: grains take turns with two sets of registers.
    pub(super) fn asks_ahead(&self) -> bool {
        self.plan.ahead && !self.may_end_early()
    }

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
        let most = if self.asks_ahead() {
            20
        } else if held > 128 {
            12
        } else {
            (100usize.saturating_sub(held) / 4).clamp(4, 6)
        };
        one_round.clamp(1, most)
    }
}

//! How a convolution is shared among planes.

use crate::gpu::Gpu;
use crate::tiles::{CHUNK_ROWS, TILE_ROWS};

/// Lanes of a plane on devices with these instructions.
pub(super) const LANES: u32 = 32;
/// Edge of a weight fragment: output channels by input channels.
pub(super) const EDGE: usize = 16;

/// Planes and fragments that a convolution is shared among; see [`MmaPlan::choose`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct MmaPlan {
    /// Planes along the rows of a tile.
    pub row_groups: usize,
    /// Planes along output channels.
    pub slice_groups: usize,
    /// Fragments of 16 output channels a plane holds.
    pub slices: usize,
    /// Input channels staged at a time: 16, 32 or 64.
    pub depth: usize,
    /// Steps of 16 input channels whose weights a plane holds at a time: 2 or 4, within the depth, or 1 at depth 16.
    pub grain: usize,
    /// Whether the next weights are asked for before the present ones are used: twice the registers.
    pub ahead: bool,
}

impl MmaPlan {
    /// The plan that measured best for a number of channels (`examples/conv_timing.rs --plans`).
    pub fn choose(c_in: usize, c_out: usize) -> Self {
        let depth = match c_in {
            0..=16 => 16,
            17..=32 => 32,
            _ => 64,
        };
        let (row_groups, slice_groups, slices, grain) = match c_out {
            0..=16 => (8, 1, 1, 2),
            17..=32 => (8, 1, 2, 2),
            33..=64 => (8, 1, 4, 2),
            65..=96 => (8, 2, 3, 4),
            _ => (4, 2, 4, 2),
        };
        Self { row_groups, slice_groups, slices, depth, grain: grain.min(depth / EDGE), ahead: false }
    }

    /// [`MmaPlan::choose`] for `n_tiles` tiles: where the cubes would leave a device's multiprocessors idle, as on the few rows of deep
    /// levels, cubes take 32 output channels, hold a tap's weights at once, and on the fewest rows have twice the planes. Measured on
    /// the levels of a lidar scan, it takes 0.55 to 0.85 of the time there.
    pub fn fitted(gpu: &Gpu, c_in: usize, c_out: usize, n_tiles: usize) -> Self {
        let best = Self::choose(c_in, c_out);
        // Devices that do not say how many they have get the plan that is best on many rows.
        let Some(multiprocessors) = gpu.client().properties().hardware.num_streaming_multiprocessors else {
            return best;
        };
        let multiprocessors = multiprocessors as usize;
        let cubes = |plan: &Self| n_tiles * c_out.div_ceil(plan.block());
        if cubes(&best) >= 2 * multiprocessors {
            return best;
        }
        let slices = if c_out.next_multiple_of(EDGE).is_multiple_of(2 * EDGE) { 2 } else { 1 };
        let narrow =
            Self { row_groups: 8, slice_groups: 1, slices, grain: best.depth / EDGE, ahead: false, ..best };
        let row_groups = if 5 * cubes(&narrow) < 6 * multiprocessors { 16 } else { 8 };
        Self { row_groups, ..narrow }
    }

    /// Panics for a plan that the kernel has no form for.
    pub(super) fn check(&self) {
        let grain = if self.depth == EDGE { self.grain == 1 } else { [2, 4].contains(&self.grain) };
        let rows = self.row_groups > 0 && TILE_ROWS.is_multiple_of(2 * CHUNK_ROWS * self.row_groups);
        let depth = [16, 32, 64].contains(&self.depth) && self.grain * EDGE <= self.depth;
        assert!(grain && rows && depth, "{self:?}: no kernel has this form");
    }

    pub(super) fn block(&self) -> usize {
        self.slice_groups * self.slices * EDGE
    }
}

//! The order in which cubes take tiles: those with most work first.
//!
//! Tiles differ: on a lidar sweep the fullest has 2.4 times as many taps of chunks as the mean. Where a kernel has a few cubes a multiprocessor, a
//! full tile that is taken last keeps the others waiting; taken first, it leaves short ones to fill the gaps. Results do not depend on it.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use cubecl::prelude::*;

use super::launch::Tiles;
use crate::gpu::{Buffer, Gpu};

/// Units of a cube at most, each for a tile.
const MOST_UNITS: u32 = 1024;
/// Tiles that are put in order at most: with more, the last ones weigh little.
const MOST_TILES: usize = 2048;
/// Words that a cube reads at most.
const MOST_WORDS: usize = 32 * MOST_TILES;
/// Steps of work between none and that of the fullest tile: tiles of one step stay as they are, next to others that meet the same input rows.
const STEPS: u32 = 16;
/// What a tap costs a tile, in chunks of rows, besides the rows that have it.
const TAP: u32 = 4;

/// Each tile to its place among all, by falling steps of work and rising number.
#[cube(launch_unchecked)]
fn order_tiles_kernel(
    chunk_bits: &[u32],
    order: &mut [u32],
    n_tiles: u32,
    taps: u32,
    #[comptime] units: u32,
) {
    let sums = Shared::<[Atomic<u32>]>::new_slice(MOST_TILES);
    let most = Shared::<[Atomic<u32>]>::new_slice(1usize);
    let mut step_of = Shared::<[u32]>::new_slice(MOST_TILES);
    if UNIT_POS == 0u32 {
        most[0].store(0u32);
    }
    for tile in range_stepped(UNIT_POS, n_tiles, units) {
        sums[tile as usize].store(0u32);
    }
    sync_cube();
    for word in range_stepped(UNIT_POS, n_tiles * taps, units) {
        let bits = chunk_bits[word as usize];
        if bits != 0u32 {
            sums[(word / taps) as usize].fetch_add(bits.count_ones() + TAP);
        }
    }
    sync_cube();
    for tile in range_stepped(UNIT_POS, n_tiles, units) {
        most[0].fetch_max(sums[tile as usize].load());
    }
    sync_cube();
    let most = most[0].load() + 1u32;
    for tile in range_stepped(UNIT_POS, n_tiles, units) {
        step_of[tile as usize] = sums[tile as usize].load() * STEPS / most;
    }
    sync_cube();
    let tile = CUBE_POS as u32 * units + UNIT_POS;
    if tile < n_tiles {
        let mine = step_of[tile as usize];
        let mut place = 0u32;
        for other in 0u32..n_tiles {
            let its = step_of[other as usize];
            place += select(its > mine || (its == mine && other < tile), 1u32, 0u32);
        }
        order[place as usize] = tile;
    }
}

/// The order of a relation's tiles, once somebody needs it.
#[derive(Debug, Default)]
pub(super) struct Order {
    asked: AtomicBool,
    order: OnceLock<Buffer>,
}

impl Order {
    /// Tiles that are in order.
    pub(super) fn len(&self) -> usize {
        self.order.get().map_or(0, |order| order.len)
    }
}

impl Tiles {
    /// The order in which full tiles come first; made when it is asked for a second time, since a relation that is used once would pay more than it
    /// gains.
    pub(crate) fn order(&self) -> Option<&Buffer> {
        if self.taps == 1 || self.n_tiles < 2 || !self.can_be_ordered() {
            return None;
        }
        if let Some(order) = self.order.order.get() {
            return Some(order);
        }
        // What is launched while a graph is recorded runs when it is replayed.
        if !self.order.asked.swap(true, Ordering::Relaxed) || self.gpu.client().is_capturing() {
            return None;
        }
        Some(self.order.order.get_or_init(|| self.by_falling_work()))
    }

    fn can_be_ordered(&self) -> bool {
        self.n_tiles <= MOST_TILES && self.n_tiles * self.taps as usize <= MOST_WORDS
    }

    /// The numbers of tiles by falling work in sixteen steps up to the fullest tile's, then rising: a tile's work is the number of its chunks that
    /// have a tap, and four, for each tap that any of them has. One launch.
    ///
    /// # Panics
    /// With more than 2,048 tiles, or 65,536 taps of all tiles.
    pub fn by_falling_work(&self) -> Buffer {
        assert!(self.can_be_ordered(), "by_falling_work: {} tiles of {} taps", self.n_tiles, self.taps);
        let order = self.gpu.empty(self.n_tiles, 4);
        if self.n_tiles == 0 {
            return order;
        }
        let units = MOST_UNITS.min(self.gpu.client().properties().hardware.max_units_per_cube);
        let cubes = Gpu::cubes(self.n_tiles, units as usize);
        self.gpu.launch(cubes, ("order_tiles", units), |client, cubes| {
            // SAFETY: there is a word for each tap of each tile, and room for each tile; places are those of a permutation.
            unsafe {
                order_tiles_kernel::launch_unchecked(
                    client,
                    cubes,
                    CubeDim::new_1d(units),
                    self.chunks.arg(1),
                    order.arg(1),
                    self.n_tiles as u32,
                    self.taps,
                    units,
                );
            }
        });
        order
    }
}

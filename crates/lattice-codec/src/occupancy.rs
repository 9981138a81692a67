//! Which children a cell has, coded child by child from what is known around it.
//!
//! Levels go from coarse to fine and cells in Morton order, so of the cells around a child three things are known: that they are occupied
//! (their parents came before), that they are not (they came before, or have no parent), or that they are still open (their parents are occupied
//! and come later). Surfaces show in these; thin sweeps of a lidar show in the elevation seen from the sensor.

use crate::coder::BitCoder;
use crate::judge::{Head, Judge};
use crate::mix::{Learn, Mixer, Slot, slots};
use crate::window::{AROUND, corner, nine};

/// What the model knows of a cell when its children are coded.
#[derive(Clone, Copy)]
pub(crate) struct Surroundings {
    /// Cells of the same level that are occupied, numbered as in [`crate::window`].
    pub(crate) cells: u32,
    /// Children that are known to be occupied.
    pub(crate) known: u64,
    /// Children that may be occupied: their parents are, and come later.
    pub(crate) open: u64,
    /// Cells of the same level that are occupied and come later: children of these are open.
    pub(crate) later: u32,
    /// Children of the parent.
    pub(crate) siblings: u8,
    /// Levels below, this one's children included: 1 for cells whose children are voxels.
    pub(crate) levels_left: u32,
    /// Elevation of the lower and the upper children, as a number of a bin.
    pub(crate) elevation: [u32; 2],
}

/// Probabilities and weights that learn while a block is coded.
pub(crate) struct OccupancyModel {
    faces: Vec<Slot>,
    causal: Vec<Slot>,
    cells: Vec<Slot>,
    order: Vec<Slot>,
    density: Vec<Slot>,
    elevation: Vec<Slot>,
    ring: Vec<Slot>,
    mixer: Mixer<INPUTS>,
}

const INPUTS: usize = 8;
/// Slots that lie together: those that one cell asks for, so that memory is waited for once and not for every bit.
const LINE: u32 = 4;
/// Lines of a hashed table, a power of 2.
const LINES: u32 = 12;

/// The first slot of a line of `2^width` slots in a table of `2^bits` lines.
#[inline]
pub(crate) fn line(a: u32, b: u32, bits: u32, width: u32) -> usize {
    let mixed = (u64::from(a) << 32 | u64::from(b)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let hashed = (mixed ^ mixed >> 29).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    ((hashed >> (64 - bits)) as usize) << width
}

/// First slots of the lines that the lower or the upper four children ask for.
#[derive(Clone, Copy, Default)]
struct Lines {
    cells: usize,
    order: usize,
    elevation: usize,
}

impl Lines {
    /// For the half that begins with child `c`, after the children `found`.
    #[inline]
    fn of(around: &Surroundings, c: u32, found: u32) -> Self {
        // 0 for the lower half, 1 + its children for the upper one.
        let phase = (c >> 2) * (1 + found);
        let order = (u32::from(around.siblings) * 17 + phase) << LINE;
        Self {
            cells: line(around.cells, phase, LINES, LINE),
            order: order as usize,
            elevation: line(around.elevation[(c >> 2) as usize], c + found.min(1), LINES, LINE),
        }
    }
}

impl OccupancyModel {
    pub(crate) fn new() -> Self {
        Self {
            faces: slots(15),
            causal: slots(16),
            cells: slots(LINES + LINE),
            order: slots(17),
            density: slots(16),
            elevation: slots(LINES + LINE),
            ring: slots(LINES + LINE),
            mixer: Mixer::new(8 * 4 * 4, 20_000),
        }
    }

    /// Codes the children of a cell, of which at least `least` are occupied.
    pub(crate) fn code(
        &mut self,
        coder: &mut impl BitCoder,
        judge: &mut impl Judge,
        around: &Surroundings,
        children: u8,
        least: u32,
    ) -> u8 {
        let mut known = around.known;
        let neighbours = (around.cells.count_ones() - 1).min(15) as usize;
        let crowd = match neighbours {
            0..=1 => 0,
            2..=4 => 1,
            5..=9 => 2,
            _ => 3,
        };
        let level = (around.levels_left.min(4) - 1) as usize;
        let mut found = 0u32;
        let mut lines = Lines::default();
        for c in 0..8u32 {
            if c & 3 == 0 {
                lines = Lines::of(around, c, found);
            }
            if found.count_ones() + 8 - c <= least {
                found |= 0xff << c & 0xff;
                break;
            }
            let near = known >> corner(c) & AROUND;
            let open = around.open >> corner(c) & AROUND;
            let six = |v: u64| {
                (v >> 20 & 1 | v >> 21 & 2 | v >> 15 & 4 | v >> 22 & 8 | v >> 1 & 16 | v >> 32 & 32) as usize
            };
            let faces = &mut self.faces[(c as usize) << 12 | six(open) << 6 | six(near)];
            let causal = &mut self.causal
                [(c as usize) << 13 | nine(near & 0x777) << 4 | (near >> 16 & 7 | near >> 17 & 8) as usize];
            // Where in its line: the children of this half so far, behind a leading 1.
            let half = (1 << (c & 3) | found >> (c & 4)) as usize;
            let cells = &mut self.cells[lines.cells + half];
            let order = &mut self.order[lines.order + half];
            let crowded = (near.count_ones().min(15) as usize) << 4 | open.count_ones().min(15) as usize;
            let density = &mut self.density[(c as usize) << 13 | crowded << 5 | level << 3 | neighbours >> 1];
            let elevation = &mut self.elevation[lines.elevation + half];
            let ring = &mut self.ring[line(
                (near >> 16) as u32 ^ (near as u32) << 20,
                (open >> 16) as u32 ^ (open as u32) << 20 ^ c << 12,
                LINES + LINE,
                0,
            )];
            let inputs = [
                faces.stretch(),
                causal.stretch(),
                cells.stretch(),
                order.stretch(),
                density.stretch(),
                elevation.stretch(),
                ring.stretch(),
                256,
            ];
            let mixed = self.mixer.mix((c as usize) << 4 | level << 2 | crowd, inputs);
            let bit = judge.code(coder, Head::Child(c), children >> c & 1 == 1, mixed.p.clamp(1, 65535));
            self.mixer.learn(&mixed, bit, 12);
            faces.update(bit, 250);
            causal.update(bit, 250);
            cells.update(bit, 250);
            order.update(bit, 250);
            density.update(bit, 250);
            elevation.update(bit, 250);
            ring.update(bit, 250);
            found |= u32::from(bit) << c;
            known |= u64::from(bit) << (21 + corner(c));
        }
        found as u8
    }
}

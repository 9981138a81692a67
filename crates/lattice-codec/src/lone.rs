//! Cells with one child, which a scan's fine levels are full of: which child it is takes three bits in place of eight.

use crate::coder::BitCoder;
use crate::judge::{Head, Judge};
use crate::mix::{Learn, Mixer, Slot, code_with, slots};
use crate::occupancy::{Surroundings, line};

/// Children in the upper half of a window along x, y, z.
const UPPER: [u64; 3] = [0xcccc_cccc_cccc_cccc, 0xff00_ff00_ff00_ff00, 0xffff_ffff_0000_0000];

/// As in [`crate::occupancy`]: lines of 8 slots, for three bits of a number.
const LINE: u32 = 3;
const LINES: u32 = 13;

/// How many bits a context follows before its probability moves no faster.
const LIMIT: usize = 250;

/// Probabilities that learn: whether a cell has one voxel or one child, and which.
pub(crate) struct LoneModel {
    flags: [Vec<Slot>; 3],
    flag_mixer: Mixer<4>,
    level: Vec<Slot>,
    lower: Vec<Slot>,
    upper: Vec<Slot>,
    siblings: Vec<Slot>,
    cells: Vec<Slot>,
    balance: Vec<Slot>,
    mixer: Mixer<6>,
}

impl LoneModel {
    pub(crate) fn new() -> Self {
        Self {
            flags: [slots(11), slots(16), slots(13)],
            flag_mixer: Mixer::new(64, 22_000),
            level: slots(8),
            lower: slots(16),
            upper: slots(16),
            siblings: slots(8 + LINE),
            cells: slots(16),
            balance: slots(12),
            mixer: Mixer::new(8 * 16, 18_000),
        }
    }

    /// Codes whether there is but one voxel (`tail`) or one child below a cell.
    pub(crate) fn flag(
        &mut self,
        coder: &mut impl BitCoder,
        judge: &mut impl Judge,
        around: &Surroundings,
        tail: bool,
        truth: bool,
    ) -> bool {
        let kind = u32::from(tail);
        let left = around.levels_left.min(15);
        let cells = around.cells.count_ones().min(8) - 1;
        let [plain, exact, full] = &mut self.flags;
        let plain =
            &mut plain[(kind << 10 | left << 6 | cells << 3 | (around.siblings.count_ones() - 1)) as usize];
        let exact = &mut exact[line(around.cells, left.min(6) << 1 | kind, 16, 0)];
        let (known, open) = (around.known.count_ones().min(15), around.open.count_ones().min(31) / 2);
        let full = &mut full[(kind << 12 | left << 8 | known << 4 | open) as usize];
        let mixed = self
            .flag_mixer
            .mix((left << 1 | kind) as usize, [plain.stretch(), exact.stretch(), full.stretch(), 256]);
        let head = if tail { Head::Tail } else { Head::Lone };
        let bit = judge.code(coder, head, truth, mixed.p);
        self.flag_mixer.learn(&mixed, bit, 12);
        plain.update(bit, LIMIT);
        exact.update(bit, LIMIT);
        full.update(bit, LIMIT);
        bit
    }

    /// Codes the number of a cell's only child: z, y, x. Where a cell is `alone` on its tail, nothing around tells x and y, whose bits are
    /// nearly even: the level's own probability does.
    pub(crate) fn child(
        &mut self,
        coder: &mut impl BitCoder,
        judge: &mut impl Judge,
        around: &Surroundings,
        truth: u32,
        alone: bool,
    ) -> u32 {
        let left = around.levels_left.min(15);
        let (mut number, mut prefix) = (0, 1u32);
        let last = u32::from(left == 1);
        let cells_line = line(around.cells, last, LINES, LINE);
        let lines = [0, 1].map(|half| line(around.elevation[half], half as u32, LINES, LINE));
        for axis in [2u32, 1, 0] {
            let half = |window: u64| {
                let upper = (window & UPPER[axis as usize]).count_ones() as i32;
                (2 * upper - window.count_ones() as i32).clamp(-3, 3) + 4
            };
            let level = &mut self.level[(left << 3 | prefix) as usize];
            if alone && axis < 2 {
                let bit = code_with(coder, level, truth >> axis & 1 == 1, LIMIT);
                number |= u32::from(bit) << axis;
                prefix = prefix << 1 | u32::from(bit);
                continue;
            }
            let lean = (half(around.known) << 3 | half(around.open / 2)) as u32;
            let balance = &mut self.balance[(prefix << 7 | lean << 1 | last) as usize];
            let cells = &mut self.cells[cells_line + prefix as usize];
            // Elevation tells z; the half that was chosen helps the other two.
            let (lower, upper) = match axis {
                2 => (&mut self.lower[lines[0] + 1], &mut self.upper[lines[1] + 1]),
                _ => {
                    let chosen = lines[(number >> 2 & 1) as usize] + prefix as usize;
                    let siblings = usize::from(around.siblings) << LINE | prefix as usize;
                    (&mut self.lower[chosen], &mut self.siblings[siblings])
                }
            };
            let inputs =
                [level.stretch(), balance.stretch(), cells.stretch(), lower.stretch(), upper.stretch(), 256];
            let mixed = self.mixer.mix((left << 3 | prefix) as usize, inputs);
            let bit = judge.code(coder, Head::Only(prefix), truth >> axis & 1 == 1, mixed.p);
            self.mixer.learn(&mixed, bit, 12);
            for slot in [level, balance, cells, lower, upper] {
                slot.update(bit, LIMIT);
            }
            number |= u32::from(bit) << axis;
            prefix = prefix << 1 | u32::from(bit);
        }
        number
    }
}

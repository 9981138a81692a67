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
    /// Input channels staged at a time: 16, 32, 64, 96 or 128.
    pub depth: usize,
    /// Steps of 16 input channels whose weights a plane holds at a time: 2, or 4 at depth 64, or 1 at depth 16.
    pub grain: usize,
    /// Whether pairs of chunks are dealt out among the planes along rows, there and back, rather than given in runs.
    pub dealt: bool,
    /// Whether local numbers go through shared memory.
    pub table_staged: bool,
    /// Whether the weights of the next grain are asked for before those of this one are multiplied, where registers are to be had: a plane
    /// of 64 rows by 64 channels leaves multiprocessors so few planes that nothing else would hide the way to them.
    pub ahead: bool,
    /// Chunks of eight rows that are multiplied together, and left out together where none has a tap: 1, 2, and so on up to all of a plane's.
    pub together: usize,
    /// Whether chunks of which at most half have a tap are multiplied one by one.
    pub singly: bool,
    /// Whether the kernel is told of its sizes when it runs, so that one serves many layers; sizes in registers leave room for fewer cubes.
    pub told: bool,
    /// Cubes that share the parts of the input channels, `depth` each, and the taps of a block of output channels: where there are few
    /// tiles. They hand each other their sums, so a device has to be coherent for more than one.
    pub part_splits: usize,
    /// Cubes that share the taps.
    pub tap_splits: usize,
}

/// Shared memory that plans of 128 channels at a time take, in bytes.
const DEEP_BYTES: usize = 150_000;

/// Most cubes that share a block of one tile.
const MOST_SPLITS: usize = 4;
/// Most of them where each is left with enough to do: so many taps times parts of the channels.
const MOST_SPLITS_OF_MUCH: usize = 8;
const MUCH: usize = 12;
/// What it takes a cube of wide planes to stage a part's rows, and to hand over its sums, as many taps of a part as take as long.
const STAGING: usize = 6;
const HANDING_OVER: usize = 6;
/// Taps of the kernel that plans were measured with.
const USUAL_TAPS: usize = 27;
/// Fewest taps, and taps times parts of the channels, that are shared.
const LEAST_SHARED: usize = 16;

/// What of a device a plan depends on.
#[derive(Clone, Copy)]
struct Room {
    /// Whether 128 channels at a time fit its shared memory.
    deep: bool,
    multiprocessors: Option<usize>,
    /// Whether cubes see each other's sums.
    coherent: bool,
}

impl Room {
    fn of(gpu: &Gpu) -> Self {
        let hardware = &gpu.client().properties().hardware;
        Self {
            deep: hardware.max_shared_memory_size >= DEEP_BYTES,
            multiprocessors: hardware.num_streaming_multiprocessors.map(|n| n as usize),
            coherent: gpu.is_coherent(),
        }
    }
}

impl MmaPlan {
    /// The plan that measured best for a number of channels on many rows (`examples/conv_timing.rs --plan`), within a device's shared memory.
    pub fn choose(gpu: &Gpu, c_in: usize, c_out: usize) -> Self {
        Self::of_many_rows(Room::of(gpu), c_in, c_out)
    }

    fn of_many_rows(room: Room, c_in: usize, c_out: usize) -> Self {
        let (row_groups, slice_groups, slices) = match c_out {
            0..=16 => (8, 1, 1),
            // Wider rows leave room for two cubes a multiprocessor: with more planes each.
            17..=32 if c_in > 32 => (8, 1, 2),
            17..=32 => (4, 1, 2),
            33..=64 => (4, 1, 4),
            65..=96 => (4, 2, 3),
            _ => (4, 2, 4),
        };
        let depth = match c_in {
            0..=16 => 16,
            17..=32 => 32,
            // Of the depths that leave fewest channels empty, the largest.
            65.. if room.deep && slice_groups == 2 => {
                [128, 96].into_iter().min_by_key(|&depth| c_in.next_multiple_of(depth)).unwrap_or(64)
            }
            _ => 64,
        };
        let wide = c_out > 16;
        Self {
            row_groups,
            slice_groups,
            slices,
            depth,
            grain: if depth == EDGE { 1 } else { 2 },
            dealt: wide,
            table_staged: wide,
            ahead: slices > 2,
            together: 4,
            singly: c_out > 32,
            told: false,
            part_splits: 1,
            tap_splits: 1,
        }
    }

    /// [`MmaPlan::choose`] for `n_tiles` tiles of so many taps. Where the cubes would leave a device's multiprocessors idle, as on the few rows
    /// of deep levels, cubes take 32 output channels, hold a tap's weights at once, and on the fewest rows share the taps and the parts of
    /// the channels; where those cubes would be at work one after the other, smaller cubes of as wide planes as on many rows share the work. Measured on the levels of
    /// scans (`examples/conv_timing.rs --few`, and `--plan`), it takes 0.4 to 0.85 of the time there.
    pub fn fitted(gpu: &Gpu, c_in: usize, c_out: usize, taps: u32, n_tiles: usize) -> Self {
        Self::of_tiles(Room::of(gpu), [c_in, c_out], taps, n_tiles)
    }

    fn of_tiles(room: Room, [c_in, c_out]: [usize; 2], taps: u32, n_tiles: usize) -> Self {
        let best = Self::of_many_rows(room, c_in, c_out);
        // Devices that do not say how many they have get the plan that is best on many rows.
        let Some(multiprocessors) = room.multiprocessors else {
            return best;
        };
        let cubes = |plan: &Self| n_tiles * c_out.div_ceil(plan.block());
        if cubes(&best) >= 2 * multiprocessors {
            // Few enough to be at work all at once: with shorter ways of each plane.
            let at_once = best.slices == 2 && cubes(&best) <= 3 * multiprocessors;
            return if at_once {
                Self { row_groups: 8, dealt: false, table_staged: false, ..best }
            } else {
                best
            };
        }
        let slices = if c_out.next_multiple_of(EDGE).is_multiple_of(2 * EDGE) { 2 } else { 1 };
        let depth = best.depth.min(64);
        let narrow = Self {
            row_groups: 8,
            slice_groups: 1,
            slices,
            depth,
            grain: depth / EDGE,
            ahead: false,
            together: 2,
            singly: false,
            told: true,
            ..best
        };
        let (taps, parts) = (taps as usize, c_in.div_ceil(depth));
        let shares = taps * parts >= LEAST_SHARED && room.coherent;
        if c_in.min(c_out) > 32 && cubes(&narrow) * parts * taps > 2 * multiprocessors * USUAL_TAPS {
            let wide = Self::wide(room, c_in, c_out);
            let parts = c_in.div_ceil(wide.depth);
            return if shares { wide.shared_well(multiprocessors, cubes(&wide), parts, taps) } else { wide };
        }
        if 5 * cubes(&narrow) > 3 * multiprocessors || !shares {
            return narrow;
        }
        // More cubes than are at work at once gain nothing, nor do they with little work. Parts are shared before taps, for which every cube stages the same rows.
        let most = (taps * parts / MUCH).clamp(MOST_SPLITS, MOST_SPLITS_OF_MUCH);
        let wanted = (2 * multiprocessors / cubes(&narrow).max(1)).clamp(1, most);
        let part_splits = (1..=wanted.min(parts)).rev().find(|&n| parts.is_multiple_of(n)).unwrap_or(1);
        narrow.shared(wanted, part_splits, taps)
    }

    /// What layers of 64 channels take on many rows, for any channels: cubes of four planes of 64 rows by 64 output channels, or by 48 where that leaves
    /// fewer empty, two at work on a multiprocessor.
    fn wide(room: Room, c_in: usize, c_out: usize) -> Self {
        let fewer = |channels: usize, than: usize, of: usize| {
            channels.next_multiple_of(of) < channels.next_multiple_of(than)
        };
        Self {
            slices: if fewer(c_out, 4 * EDGE, 3 * EDGE) { 3 } else { 4 },
            depth: if room.deep && fewer(c_in, 64, 96) { 96 } else { 64 },
            told: true,
            ..Self::of_many_rows(room, 64, 64)
        }
    }

    /// The plan of wide planes with each of so many blocks shared by as many cubes as take least time, by this account in taps of a part: a cube stages the
    /// rows of its parts, multiplies its taps of each, and hands over its sums. Two cubes are at work on a multiprocessor at once, one of them in three
    /// quarters of the time; where they leave no room or there are more, they take turns, at best as soon as one is done, at worst when all are, of which
    /// the mean counts.
    ///
    /// In 70 cells measured (64 to 512 channels on 4 to 188 tiles, levels of `lidar` and `indoor`) it takes 1.03 of the time of the best way in the mean. It is
    /// furthest from it, by a third, where tiles differ most: 128 channels on the sparse rows of a sweep.
    fn shared_well(self, multiprocessors: usize, blocks: usize, parts: usize, taps: usize) -> Self {
        let time = |(by_parts, by_taps): (usize, usize)| {
            let turns = (blocks * by_parts * by_taps) as f64 / (2 * multiprocessors) as f64;
            let turns = match turns {
                ..=0.5 => 0.75,
                ..=0.95 => 1.0,
                _ => (turns.ceil() + turns + 0.3) / 2.0,
            };
            turns * (parts / by_parts * (STAGING + taps.div_ceil(by_taps)) + HANDING_OVER) as f64
        };
        let ways = (1..=parts.min(MOST_SPLITS_OF_MUCH))
            .filter(|&n| parts.is_multiple_of(n))
            .flat_map(|by_parts| (1..=MOST_SPLITS_OF_MUCH / by_parts).map(move |by_taps| (by_parts, by_taps)))
            .filter(|&(_, by_taps)| by_taps == 1 || taps >= LEAST_SHARED);
        let best = ways.min_by(|&one, &other| time(one).total_cmp(&time(other)));
        let (part_splits, tap_splits) = best.unwrap_or((1, 1));
        Self { part_splits, tap_splits, ..self }
    }

    /// The plan with each block shared by `wanted` cubes, of which so many share the parts of the channels and the others the taps, where those are enough.
    fn shared(self, wanted: usize, part_splits: usize, taps: usize) -> Self {
        let tap_splits = if taps < LEAST_SHARED { 1 } else { wanted / part_splits };
        Self { part_splits, tap_splits, ..self }
    }

    /// The plan for codes of so many bits that are unpacked in registers. Beside the elements of a tap a lane holds the codes of the next ones, which
    /// take the registers of a second cube a multiprocessor (155 a unit, 126 for floats): where there are cubes for it, half as many codes are held at a
    /// time (116). Sums that cubes share leave 4-bit codes room as they are.
    pub fn for_codes(gpu: &Gpu, bits: u32, c_in: usize, c_out: usize, taps: u32, n_tiles: usize) -> Self {
        let room = Room::of(gpu);
        Self::of_tiles(room, [c_in, c_out], taps, n_tiles).of_codes(room, bits, [c_in, c_out], n_tiles)
    }

    fn of_codes(self, room: Room, bits: u32, [c_in, c_out]: [usize; 2], n_tiles: usize) -> Self {
        let cubes = n_tiles * c_out.div_ceil(self.block()) * self.splits();
        let fills = room.multiprocessors.is_some_and(|multiprocessors| cubes > multiprocessors);
        let narrow = self.told && self.grain == 4 && c_in > self.depth;
        if narrow && fills && (bits == 8 || self.splits() == 1) { Self { grain: 2, ..self } } else { self }
    }

    /// The plan for features in bytes, of which two take a half of 16 bits. Where a plane has 64 output channels it takes 64 rows, too:
    /// products are fast, so that what surrounds them has to serve many.
    pub fn for_bytes(gpu: &Gpu, c_in: usize, c_out: usize, taps: u32, n_tiles: usize) -> Self {
        let fitted = Self::fitted(gpu, c_in.div_ceil(2), c_out, taps, n_tiles);
        match fitted.slices {
            0..=2 => fitted,
            _ => Self { row_groups: 4, depth: fitted.depth.min(64), ..fitted },
        }
    }

    /// The plan as far as the order of packed weights depends on it.
    pub fn packing(&self) -> Self {
        Self {
            row_groups: 1,
            dealt: false,
            table_staged: false,
            ahead: false,
            together: 1,
            singly: false,
            told: false,
            part_splits: 1,
            tap_splits: 1,
            // The grain decides only whether steps lie in pairs.
            grain: self.grain.min(2),
            ..*self
        }
    }

    /// Whether a launch of so many cubes takes full tiles first. Measured, it takes 0.91 to 0.97 of the time where wide planes leave a multiprocessor one
    /// cube or two at a time and there are two to six for each; where all are at work at once or there are more of them, up to 1.05.
    pub(super) fn takes_full_tiles_first(&self, gpu: &Gpu, cubes: usize) -> bool {
        self.is_ordered_within(Room::of(gpu), cubes)
    }

    fn is_ordered_within(&self, room: Room, cubes: usize) -> bool {
        self.slices > 2 && room.multiprocessors.is_some_and(|n| (2 * n + 1..=6 * n).contains(&cubes))
    }

    /// Cubes that share the sums of one block of a tile.
    pub(super) fn splits(&self) -> usize {
        self.part_splits * self.tap_splits
    }

    /// Panics for a plan that the kernel has no form for.
    pub(super) fn check(&self) {
        let rows = self.row_groups > 0 && TILE_ROWS.is_multiple_of(2 * CHUNK_ROWS * self.row_groups);
        let depths: &[usize] = match self.grain {
            1 => &[16],
            2 => &[32, 64, 96, 128],
            4 => &[64],
            _ => &[],
        };
        let depth = depths.contains(&self.depth);
        let splits = self.part_splits > 0 && self.tap_splits > 0;
        let chunks = TILE_ROWS / CHUNK_ROWS / self.row_groups.max(1);
        let together = self.together > 0 && chunks.is_multiple_of(self.together);
        assert!(rows && depth && splits && together, "{self:?}: no kernel has this form");
    }

    /// Units of a cube.
    pub(super) fn units(&self) -> usize {
        self.row_groups * self.slice_groups * LANES as usize
    }

    pub(super) fn block(&self) -> usize {
        self.slice_groups * self.slices * EDGE
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tiles::HALO_ROWS;

    /// Shared memory of a cube on a device that is not deep, and on one that is; registers of a multiprocessor.
    const SHARED_BYTES: [usize; 2] = [99 << 10, 227 << 10];
    const REGISTERS: usize = 65_536;

    /// Every plan that is chosen has a kernel, fits its device, and leaves registers for more than its sums.
    #[test]
    fn chosen_plans_fit() {
        let some = |multiprocessors| Room { deep: true, multiprocessors, coherent: true };
        let rooms = [
            some(Some(132)),
            some(Some(8)),
            some(None),
            Room { deep: false, ..some(Some(64)) },
            Room { coherent: false, ..some(Some(132)) },
        ];
        for room in rooms {
            for (c_in, c_out) in (1..300usize).flat_map(|c| [(c, 300 - c), (c, c), (c, 4 * c)]) {
                for (taps, n_tiles) in
                    [(1, 1), (8, 5), (27, 1), (27, 18), (27, 70), (27, 370), (27, 1001), (343, 30)]
                {
                    let plan = MmaPlan::of_tiles(room, [c_in, c_out], taps, n_tiles);
                    plan.check();
                    for bits in [4, 8] {
                        let of_codes = plan.of_codes(room, bits, [c_in, c_out], n_tiles);
                        of_codes.check();
                        assert_eq!(plan.packing(), of_codes.packing(), "codes serve both");
                    }
                    let sums = TILE_ROWS / CHUNK_ROWS / plan.row_groups * plan.slices * 4;
                    let table = if plan.table_staged { 17 * TILE_ROWS * 4 } else { 4 };
                    let shared = (HALO_ROWS + 1) * plan.depth * 2 + table;
                    assert!(shared <= SHARED_BYTES[usize::from(room.deep)], "{plan:?}: {shared} bytes");
                    assert!(
                        plan.units() * (sums + 64) <= REGISTERS && sums <= 128,
                        "{plan:?}: {sums} sums a lane"
                    );
                    assert!(room.coherent || plan.splits() == 1, "{plan:?}: cubes share sums");
                    assert!(
                        plan.part_splits <= c_in.div_ceil(plan.depth),
                        "{plan:?}: parts of {c_in} channels"
                    );
                    assert!(
                        plan.slices * EDGE <= c_out.next_multiple_of(4 * EDGE),
                        "{plan:?}: {c_out} channels"
                    );
                }
            }
        }
    }

    /// Where narrow cubes would take turns, wide ones share the work; measured on levels of scans.
    #[test]
    fn middling_numbers_of_rows_take_wide_planes() {
        let room = Room { deep: true, multiprocessors: Some(132), coherent: true };
        let chosen = |c: usize, n_tiles| {
            let plan = MmaPlan::of_tiles(room, [c, c], 27, n_tiles);
            (plan.slices, plan.depth, plan.part_splits, plan.tap_splits)
        };
        assert_eq!(chosen(256, 11), (4, 64, 4, 1), "all but full is full");
        assert_eq!(chosen(256, 18), (4, 64, 1, 3));
        assert_eq!(chosen(256, 30), (4, 64, 2, 1));
        assert_eq!(chosen(384, 9), (4, 64, 2, 2));
        assert_eq!(chosen(512, 5), (4, 64, 2, 3));
        assert_eq!(chosen(512, 8), (4, 64, 4, 1));
        assert_eq!(chosen(512, 11), (4, 64, 8, 1));
        assert_eq!(chosen(512, 14), (4, 64, 2, 1));
        assert_eq!(chosen(512, 22), (4, 64, 4, 1));
        assert_eq!(chosen(96, 71), (3, 96, 1, 1));
        assert_eq!(chosen(64, 71), (2, 64, 1, 1), "narrow cubes are at work all at once");
        assert_eq!(chosen(256, 5), (2, 64, 4, 1));
        assert_eq!(chosen(128, 18), (2, 64, 2, 1));
    }

    /// Where there are very few rows more cubes share a block, as long as each has enough to do.
    #[test]
    fn very_few_rows_are_shared_by_more_cubes() {
        let room = Room { deep: true, multiprocessors: Some(132), coherent: true };
        let chosen = |c: usize, taps, n_tiles| {
            let plan = MmaPlan::of_tiles(room, [c, c], taps, n_tiles);
            (plan.part_splits, plan.tap_splits)
        };
        assert_eq!(chosen(512, 27, 2), (8, 1));
        assert_eq!(chosen(256, 27, 2), (4, 2));
        assert_eq!(chosen(128, 27, 2), (2, 2), "half as many taps for each would be too few");
        assert_eq!(chosen(64, 27, 2), (1, 4));
        assert_eq!(chosen(512, 8, 2), (4, 1));
        assert_eq!(chosen(512, 27, 4), (8, 1), "wide planes");
    }

    /// On a lidar sweep of 370 tiles and a third of an indoor scene, not on the whole scene or where narrow cubes are at work all at once.
    #[test]
    fn a_few_cubes_a_multiprocessor_take_full_tiles_first() {
        let room = Room { deep: true, multiprocessors: Some(132), coherent: true };
        let ordered = |c: usize, n_tiles: usize| {
            let plan = MmaPlan::of_tiles(room, [c, c], 27, n_tiles);
            plan.is_ordered_within(room, n_tiles * c.div_ceil(plan.block()) * plan.splits())
        };
        assert_eq!([32, 64, 96, 128, 256].map(|c| ordered(c, 370)), [false, true, true, true, true]);
        assert_eq!([64, 128, 256].map(|c| ordered(c, 1001)), [false; 3]);
        assert!(ordered(64, 333) && !ordered(64, 200));
        let silent = Room { multiprocessors: None, ..room };
        assert!(!MmaPlan::of_tiles(silent, [64, 64], 27, 370).is_ordered_within(silent, 370));
    }

    /// Weights that were packed for many rows serve as many as are at work at once.
    #[test]
    fn few_and_many_tiles_of_narrow_layers_share_packed_weights() {
        let room = Room { deep: true, multiprocessors: Some(132), coherent: true };
        let [some, many] = [370, 1001].map(|n_tiles| MmaPlan::of_tiles(room, [32, 32], 27, n_tiles));
        assert_ne!(some, many);
        assert_eq!(some.packing(), many.packing());
    }
}

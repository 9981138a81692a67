//! The halos of tiles that were built together: how many rows they have is known on the device first.
//!
//! Room for the longest halos that there can be is a hundred bytes a row, and what scans need is six. To ask the device first would keep it
//! idle for a tenth of a millisecond. So tiles are built into the longest room, convolutions read them there, and the counts come along with
//! the next answer that the thread waits for; whoever reads the halos after that first moves them into room of their length.

use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use cubecl::prelude::*;

use crate::arena;
use crate::gpu::{Buffer, Gpu};
use crate::support::LEVELS;

/// Units of a cube that moves halos.
const UNITS: u32 = 256;
/// Bytes that halos of a thread hold together at most while their counts are on the device.
const MOST_WAITING: usize = 128 << 20;
/// Halos begin at multiples of this many rows, so that those of each relation are a buffer of their own.
pub(super) const ALIGNMENT: usize = 128;

/// What the builder counts.
#[derive(Clone, Copy, Debug)]
pub(super) struct TileCounts {
    pub(super) halo_rows: usize,
    pub(super) phases: usize,
    pub(super) n_pairs: usize,
}

/// The halos of relations whose tiles were built together, one part after the other.
#[derive(Debug)]
pub(crate) struct Halos {
    held: Mutex<Held>,
    /// What the builder counted, on the device, and where the counters of each part begin.
    counters: Buffer,
    first_counters: Vec<usize>,
    counts: OnceLock<Vec<TileCounts>>,
}

#[derive(Debug)]
struct Held {
    rows: Buffer,
    /// Where each part begins, and the room it has.
    parts: Vec<(usize, usize)>,
    /// Whether they stay where they are.
    settled: bool,
}

/// Moves parts of halos: `length[i]` rows from `from[i]` on to `to[i]` on. One unit a row of the longest part.
#[cube(launch_unchecked)]
fn move_halos_kernel(
    rows: &[u32],
    moved: &mut [u32],
    from: Sequence<u32>,
    to: Sequence<u32>,
    length: Sequence<u32>,
) {
    let at = ABSOLUTE_POS as u32;
    #[unroll]
    for part in 0usize..from.len() {
        if at < *length.index(part) {
            moved[(*to.index(part) + at) as usize] = rows[(*from.index(part) + at) as usize];
        }
    }
}

impl Halos {
    /// Halos that the builder counts, in parts of `rows`. Where parts `fit` they stay there.
    pub(super) fn uncounted(
        rows: Buffer,
        parts: Vec<(usize, usize)>,
        (counters, first_counters): (Buffer, Vec<usize>),
        fit: bool,
    ) -> Self {
        let held = Mutex::new(Held { rows, parts, settled: fit });
        Self { held, counters, first_counters, counts: OnceLock::new() }
    }

    /// Halos of one relation, of known length.
    pub(super) fn counted(rows: Buffer, counts: TileCounts) -> Arc<Self> {
        let (counters, parts) = (rows.clone(), vec![(0, rows.len)]);
        let held = Mutex::new(Held { rows, parts, settled: true });
        Self { held, counters, first_counters: vec![0], counts: vec![counts].into() }.into()
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        // What is held is written at the end of a move, so a panic elsewhere leaves it as it should be.
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The counts of a part, where they are known.
    pub(super) fn known(&self, part: usize) -> Option<&TileCounts> {
        Some(&self.counts.get()?[part])
    }

    /// The counts of all parts; waits for the device where nobody knows them.
    pub(super) fn counts(&self, gpu: &Gpu) -> &[TileCounts] {
        if let Some(counts) = self.counts.get() {
            return counts;
        }
        // What is read may bring these very counts along.
        let counters = gpu.download::<u32>(&self.counters);
        self.counts.get_or_init(|| self.count(&counters))
    }

    fn count(&self, counters: &[u32]) -> Vec<TileCounts> {
        let of = |&first: &usize| {
            let [halo_rows, phases, n_pairs] = [0, 1, 2].map(|at| counters[first + at] as usize);
            TileCounts { halo_rows, phases, n_pairs }
        };
        self.first_counters.iter().map(of).collect()
    }

    /// Rows that there is room for.
    pub(super) fn room(&self) -> usize {
        self.held().rows.len
    }

    /// Whether nobody has read the counters yet.
    pub(crate) fn is_uncounted(&self) -> bool {
        self.counts.get().is_none()
    }

    /// The counters on the device.
    pub(crate) fn counters(&self) -> &Buffer {
        &self.counters
    }

    /// Takes note of counters that came from the device.
    pub(crate) fn learn(&self, counters: &[u32]) {
        self.counts.get_or_init(|| self.count(counters));
    }

    /// The halos of a part, for a launch that follows.
    pub(super) fn rows(&self, gpu: &Gpu, part: usize) -> Buffer {
        let mut held = self.held();
        if !held.settled {
            self.settle(&mut held, gpu);
        }
        let (first, room) = held.parts[part];
        held.rows.part(first, room)
    }

    /// Moves halos into room of their length, where that is known.
    fn settle(&self, held: &mut Held, gpu: &Gpu) {
        // A recorded graph goes on reading where it has read.
        if gpu.client().is_capturing() {
            held.settled = true;
            return;
        }
        let Some(counts) = self.counts.get() else { return };
        let mut end = 0;
        let place = |counts: &TileCounts| {
            let first = end;
            end += counts.halo_rows.max(1).next_multiple_of(ALIGNMENT);
            (first, counts.halo_rows)
        };
        let parts: Vec<_> = counts.iter().map(place).collect();
        let moved = gpu.empty(end, 4);
        let longest = parts.iter().map(|&(_, length)| length).max().unwrap_or(0);
        // One kernel moves one part and several: those that are not there have no rows.
        let padded = |of: &dyn Fn(usize) -> usize| {
            (0..LEVELS).map(|part| if part < parts.len() { of(part) as u32 } else { 0 }).collect()
        };
        gpu.launch(Gpu::cubes(longest, UNITS as usize), "move_halos", |client, n_cubes| {
            // SAFETY: parts were counted when they were written, so both places have room for so many rows.
            unsafe {
                move_halos_kernel::launch_unchecked(
                    client,
                    n_cubes,
                    CubeDim::new_1d(UNITS),
                    held.rows.arg(1),
                    moved.arg(1),
                    padded(&|part| held.parts[part].0),
                    padded(&|part| parts[part].0),
                    padded(&|part| parts[part].1),
                );
            }
        });
        let room = |(first, length): (usize, usize)| (first, length.max(1).next_multiple_of(ALIGNMENT));
        *held = Held { rows: moved, parts: parts.into_iter().map(room).collect(), settled: true };
    }

    /// Moves halos into room of their length; waits for the device where that is not known.
    fn settle_now(&self, gpu: &Gpu) {
        self.counts(gpu);
        let mut held = self.held();
        if !held.settled {
            self.settle(&mut held, gpu);
        }
    }

    /// Elements that a part holds once it is where it stays; waits for the device where that is not known.
    pub(super) fn settled_len(&self, gpu: &Gpu, part: usize) -> usize {
        self.settle_now(gpu);
        self.held().parts[part].1
    }

    /// Has the counts come along with the next answer that this thread waits for, where they decide how much room is held; to be called when
    /// the builder was launched, with room for all that it may find: halos are moved by these counts. Where such halos hold much room
    /// together, the device is asked for their counts now.
    pub(super) fn ask_for_counts(self: &Arc<Self>, gpu: &Gpu) {
        if self.held().settled {
            return;
        }
        let waiting = arena::ask_for_counts(gpu.client(), self);
        if waiting.iter().map(|halos| 4 * halos.held().rows.len).sum::<usize>() > MOST_WAITING {
            for halos in waiting {
                halos.settle_now(gpu);
            }
        }
    }
}

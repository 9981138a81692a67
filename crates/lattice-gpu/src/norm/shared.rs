//! Batch norm over a batch whose rows lie on several devices: each finds the moments of its own rows, and merges those of all.
//!
//! A device's statistics go into its slot of a buffer that is 0 elsewhere; the sum of these buffers over the devices holds every slot, bit for
//! bit, and each device merges them in one order. Sums of gradients are added as they are.

use cubecl::prelude::*;

use super::launch::{gradient_sums, moments, normalize, spread_gradient};
use super::moments::Moves;
use super::share::UNITS;
use super::{BatchNormGrads, BatchNormTape, BatchNormWith, BatchNormed};
use crate::address::room_for;
use crate::arena::Life;
use crate::gpu::{Buffer, Gpu};

/// A device's place among those that share a batch.
#[derive(Clone, Copy)]
pub struct Sharing<'a> {
    /// Its number, from 0.
    pub rank: usize,
    /// How many there are.
    pub ranks: usize,
    /// Sums a buffer of f32 over the devices; the result may stand in the second one, which is as long.
    pub sum: &'a dyn Fn(&Buffer, Buffer) -> Buffer,
}

/// Where the statistics of channels lie in a slot: each at a multiple of the device's alignment, so that it is a buffer of its own.
#[derive(Clone, Copy)]
struct Slots {
    /// Values of a part of a slot.
    part: usize,
    ranks: usize,
}

/// Parts of a slot: mean, variance, and the number of rows.
const PARTS: usize = 3;

impl Slots {
    fn new(gpu: &Gpu, c: usize, ranks: usize) -> Self {
        Self { part: padded(gpu, c), ranks }
    }

    fn len(self) -> usize {
        self.part * PARTS * self.ranks
    }

    /// The parts of a device's slot.
    fn of(self, slots: &Buffer, rank: usize) -> [Buffer; PARTS] {
        std::array::from_fn(|part| slots.part((rank * PARTS + part) * self.part, self.part))
    }
}

/// Values that fill whole multiples of a device's alignment.
fn padded(gpu: &Gpu, c: usize) -> usize {
    let alignment = (gpu.client().properties().memory.alignment as usize).div_ceil(4).max(4);
    c.next_multiple_of(alignment)
}

/// [`batch_norm`](super::batch_norm) with the statistics of the rows of all devices, and the number of these rows, `[1]` in f32.
///
/// # Panics
/// When a buffer does not have its shape.
pub fn batch_norm_shared<F: Float + CubeElement>(
    gpu: &Gpu,
    x: &Buffer,
    c: usize,
    vectors: [&Buffer; 2],
    with: BatchNormWith<'_>,
    sharing: Sharing<'_>,
) -> (BatchNormed, Buffer) {
    with.check("batch_norm_shared", x, c, vectors);
    let running = with.running;
    let slots = Slots::new(gpu, c, sharing.ranks);
    let own = match x.len {
        // Nobody has written to its slot.
        0 => gpu.upload(&vec![0.0f32; slots.len()]),
        _ => {
            let own = gpu.zeroed_apart(slots.len(), (sharing.rank, sharing.ranks));
            let [mean, var, count] = slots.of(&own, sharing.rank);
            // The second buffer of moved statistics is bound, and not written.
            let unwritten = gpu.room(c, 4, Life::Passing);
            moments::<F>(gpu, (x, vectors[0]), c, [&mean, &var, &count, &unwritten], None, Moves::Count);
            own
        }
    };
    let all = (sharing.sum)(&own, gpu.room(slots.len(), 4, Life::Passing));
    let [mean, var] = [0; 2].map(|_| gpu.empty(c, 4));
    let [moved_mean, moved_var] =
        [0; 2].map(|_| gpu.room(c, 4, if running.is_some() { Life::Apart } else { Life::Lasting }));
    let count = gpu.empty(1, 4);
    let (old_mean, old_var) = running.map_or((vectors[0], vectors[0]), |r| (&r.mean, &r.var));
    // SAFETY: units check their channel against `c`; `all` holds the parts of every slot.
    unsafe {
        merge_slots_kernel::launch_unchecked(
            gpu.client(),
            Gpu::cubes(c, UNITS as usize),
            CubeDim::new_1d(UNITS),
            all.arg(1),
            old_mean.arg(1),
            old_var.arg(1),
            mean.arg(1),
            var.arg(1),
            moved_mean.arg(1),
            moved_var.arg(1),
            count.arg(1),
            c,
            slots.part,
            slots.ranks,
            running.map_or(0.0, |running| running.momentum) as f32,
            running.is_some(),
            running.is_some_and(|running| running.unbiased),
        );
    }
    let y = room_for::<F>(gpu, x.len);
    if x.len > 0 {
        normalize::<F>(gpu, x, c, [&mean, &var], vectors, with, &y);
    }
    let moved = if running.is_some() { [moved_mean, moved_var] } else { [mean.clone(), var.clone()] };
    (BatchNormed { y, mean, var, moved }, count)
}

/// The gradients of [`batch_norm_shared`], whose count of rows is `count`: those of the rows hang on the rows of all devices, those of scale
/// and bias are this device's share of theirs.
///
/// # Panics
/// When a buffer does not have its shape.
pub fn batch_norm_shared_grad<F: Float + CubeElement>(
    gpu: &Gpu,
    c: usize,
    tape: BatchNormTape<'_>,
    count: &Buffer,
    sharing: Sharing<'_>,
) -> BatchNormGrads {
    tape.check("batch_norm_shared_grad", c);
    let [x, ..] = tape.rows;
    let part = padded(gpu, c);
    let halves = |sums: &Buffer| [0, 1].map(|half| sums.part(half * part, c));
    let own = match x.len {
        0 => gpu.upload(&vec![0.0f32; 2 * part]),
        _ => {
            let own = gpu.empty(2 * part, 4);
            let [beta, gamma] = halves(&own);
            gradient_sums::<F>(gpu, c, tape, [&beta, &gamma]);
            own
        }
    };
    let all = (sharing.sum)(&own, gpu.room(2 * part, 4, Life::Passing));
    let [beta_sum, gamma_sum] = halves(&all);
    let [beta, gamma] = halves(&own);
    let grads = BatchNormGrads {
        x: room_for::<F>(gpu, x.len),
        gamma,
        beta,
        residual: tape.residual.then(|| room_for::<F>(gpu, x.len)),
    };
    if x.len > 0 {
        // SAFETY: units check their position against the length of `all`, and `count` has an element.
        unsafe {
            divide_kernel::launch_unchecked(
                gpu.client(),
                Gpu::cubes(all.len, UNITS as usize),
                CubeDim::new_1d(UNITS),
                all.arg(1),
                count.arg(1),
            );
        }
        let onto = (&grads.x, grads.residual.as_ref());
        // The sums are means by now: those of a batch of one row.
        spread_gradient::<F>(gpu, c, tape, [&beta_sum, &gamma_sum], 1.0, onto);
    }
    grads
}

/// `values / count[0]`, in place. A launch of its own, since the kernel that reads the values has as many buffers as a browser's device lets it have.
#[cube(launch_unchecked)]
fn divide_kernel(values: &mut [f32], count: &[f32]) {
    if ABSOLUTE_POS < values.len() {
        values[ABSOLUTE_POS] /= count[0];
    }
}

/// Merges the slots of all devices, in their order: one unit a channel. Running statistics move as in a batch norm of one device, with the rows
/// of all; without any rows nothing moves, and the statistics are 0.
#[cube(launch_unchecked)]
fn merge_slots_kernel(
    slots: &[f32],
    old_mean: &[f32],
    old_var: &[f32],
    mean: &mut [f32],
    var: &mut [f32],
    moved_mean: &mut [f32],
    moved_var: &mut [f32],
    count: &mut [f32],
    c: usize,
    part: usize,
    ranks: usize,
    momentum: f32,
    #[comptime] with_running: bool,
    #[comptime] unbiased: bool,
) {
    let channel = ABSOLUTE_POS;
    if channel < c {
        let mut rows = 0.0f32;
        let mut sum = 0.0f32;
        for rank in 0usize..ranks {
            let at = rank * PARTS * part;
            let n = slots[at + 2usize * part];
            rows += n;
            sum += slots[at + channel] * n;
        }
        let divisor = max(rows, 1.0f32);
        let found = sum / divisor;
        let mut squares = 0.0f32;
        for rank in 0usize..ranks {
            let at = rank * PARTS * part;
            let away = slots[at + channel] - found;
            squares += (slots[at + part + channel] + away * away) * slots[at + 2usize * part];
        }
        let variance = squares / divisor;
        mean[channel] = found;
        var[channel] = variance;
        if channel == 0usize {
            count[0] = rows;
        }
        if with_running {
            let share = select(rows > 0.0f32, momentum, 0.0f32);
            let mut seen = variance;
            if unbiased {
                seen = variance * select(rows > 1.0f32, divisor / max(rows - 1.0f32, 1.0f32), 1.0f32);
            }
            moved_mean[channel] = old_mean[channel] * (1.0f32 - share) + found * share;
            moved_var[channel] = old_var[channel] * (1.0f32 - share) + seen * share;
        }
    }
}

//! Weights in fragment order.

use cubecl::cmma::{MatrixIdent, MmaDefinition};
use cubecl::prelude::*;

use super::Multiplied;
use super::plan::{EDGE, LANES, MmaPlan};
use crate::arena::Life;
use crate::gpu::{Buffer, Gpu};

/// Weights `[taps, c_in, c_out]` in fragment order `[tap, c_out / (16 * held), c_in / 16, held, lane, 8]`, missing channels zero; elements of 32
/// bits rounded to `E`, in steps of eight channels, four a lane. One unit a lane.
///
/// The rows of the `held` fragments that a plane holds are dealt out so that a lane, which has two rows of each, ends up with
/// `2 * held` consecutive output channels.
#[cube(launch_unchecked)]
fn pack_weights_kernel<F: Float, E: Float, P: Size>(
    weight: &[F],
    packed: &mut [Vector<F, P>],
    n_lanes: u32,
    c_in: u32,
    c_out: u32,
    steps: u32,
    slices: u32,
    last_tap: u32,
    #[comptime] held: u32,
    #[comptime] reversed: bool,
    #[comptime] swapped: bool,
    #[comptime] single: bool,
) {
    let at = ABSOLUTE_POS as u32;
    if at < n_lanes {
        let lane = at % LANES;
        let fragment = at / LANES;
        let step = (fragment / held) % steps;
        let slice = (fragment / (held * steps)) % (slices / held) * held + fragment % held;
        let mut tap = fragment / (slices * steps);
        if reversed {
            tap = last_tap - tap;
        }
        let lanes_of_piece = P::value();
        let halves = comptime!(8 / lanes_of_piece as u32);
        let def = MmaDefinition::<E, E, f32>::new(16usize, 8usize, comptime!(16 / halves as usize));
        let mut lanes = Vector::<F, P>::empty();
        #[unroll]
        for i in 0usize..lanes_of_piece {
            let (row, col) = def.position_of_nth(lane, i as u32, MatrixIdent::A);
            let o = (slice / held) * comptime!(16 * held)
                + (row % 8u32) * comptime!(2 * held)
                + (slice % held) * 2u32
                + row / 8u32;
            // A lane of a voxel's row holds eight consecutive halves of two steps, four of each, or four of a single one; the columns of
            // the weights follow. A word has two halves, which are two channels or one.
            let word = col * halves / 2u32;
            let (quad, side) = (word % 4u32, word / 4u32);
            let words = if comptime!(single) {
                step * 8u32 + quad * 2u32 + side
            } else {
                (step / 2u32) * 16u32 + quad * 4u32 + (step % 2u32) * 2u32 + side
            };
            let c = words * 2u32 / halves + (col * halves % 2u32) / halves;
            let mut value = F::from_int(0i64);
            if o < c_out && c < c_in {
                if comptime!(swapped) {
                    value = weight[((tap * c_out + o) * c_in + c) as usize];
                } else {
                    value = weight[((tap * c_in + c) * c_out + o) as usize];
                }
            }
            lanes.insert(i, value);
        }
        if comptime!(halves == 2) {
            lanes = Vector::cast_from(Vector::<E, P>::cast_from(lanes));
        }
        packed[at as usize] = lanes;
    }
}

/// Weights in fragment order.
#[derive(Clone, Debug)]
pub struct PackedWeights {
    pub(super) buffer: Buffer,
    /// Vectors of four words in it.
    n_lanes: usize,
    pub(super) taps: u32,
    pub(super) c_in: usize,
    pub(super) c_out: usize,
    /// The [packing](MmaPlan::packing) of a plan.
    pub(super) plan: MmaPlan,
}

impl PackedWeights {
    /// Fragments that another kernel laid out, `n_lanes` vectors of 16 bytes.
    pub(super) fn of_lanes(
        buffer: Buffer,
        n_lanes: usize,
        taps: u32,
        [c_in, c_out]: [usize; 2],
        plan: MmaPlan,
    ) -> Self {
        Self { buffer, n_lanes, taps, c_in, c_out, plan: plan.packing() }
    }

    /// The fragments as words, four to a lane.
    pub(super) fn words(&self) -> Buffer {
        Buffer { len: 4 * self.n_lanes, ..self.buffer.clone() }
    }
}

/// Which weights a packing reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// `[taps, c_in, c_out]` as they stand.
    Forward,
    /// For the input gradient: `c_in` and `c_out` of the convolution are those of the weight, swapped.
    Backward,
}

/// Packs weights; one launch.
///
/// # Panics
/// When the weight does not have its length, or no kernel has the form of the plan.
pub fn pack_weights<F: Multiplied>(
    gpu: &Gpu,
    weight: &Buffer,
    taps: u32,
    [c_in, c_out]: [usize; 2],
    plan: MmaPlan,
    direction: Direction,
    life: Life,
) -> PackedWeights {
    pack::<F>(gpu, weight, taps, [c_in, c_out], plan, (direction, false), life)
}

/// [`pack_weights`] for the input gradient over the forward tiles of a relation that is its own mirror image: taps run in reverse.
///
/// # Panics
/// As [`pack_weights`].
pub fn pack_weights_mirrored<F: Multiplied>(
    gpu: &Gpu,
    weight: &Buffer,
    taps: u32,
    [c_in, c_out]: [usize; 2],
    plan: MmaPlan,
    life: Life,
) -> PackedWeights {
    pack::<F>(gpu, weight, taps, [c_in, c_out], plan, (Direction::Backward, true), life)
}

fn pack<F: Multiplied>(
    gpu: &Gpu,
    weight: &Buffer,
    taps: u32,
    [c_in, c_out]: [usize; 2],
    plan: MmaPlan,
    (direction, reversed): (Direction, bool),
    life: Life,
) -> PackedWeights {
    plan.check();
    assert_eq!(weight.len, taps as usize * c_in * c_out, "pack_weights: length of the weight");
    let steps = (c_in * F::HALVES).div_ceil(plan.depth) * plan.depth / EDGE;
    let slices = c_out.next_multiple_of(plan.block()) / EDGE;
    let n_lanes = taps as usize * steps * slices * LANES as usize;
    let elements = 8 / F::HALVES;
    let buffer = gpu.room(elements * n_lanes, size_of::<F>(), life);
    let kernel = ("pack_weights", std::any::type_name::<F>(), elements);
    gpu.launch(Gpu::cubes(n_lanes, 256), kernel, |client, count| {
        // SAFETY: one unit a packed vector; weight positions are checked against the channel counts.
        unsafe {
            pack_weights_kernel::launch_unchecked::<F, F::As>(
                client,
                count,
                CubeDim::new_1d(256),
                elements,
                weight.arg(1),
                buffer.arg(elements),
                n_lanes as u32,
                c_in as u32,
                c_out as u32,
                steps as u32,
                slices as u32,
                taps.saturating_sub(1),
                plan.slices as u32,
                reversed,
                direction == Direction::Backward,
                plan.depth == EDGE,
            );
        }
    });
    PackedWeights { buffer, n_lanes, taps, c_in, c_out, plan: plan.packing() }
}

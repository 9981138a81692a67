//! Weights in the fragments of a plan.

use cubecl::prelude::*;

use super::EDGE;
use super::plan::CmmaPlan;
use crate::arena::Life;
use crate::conv::mma::Direction;
use crate::gpu::{Buffer, Gpu};

/// Vectors of eight in a fragment.
pub(super) const FRAGMENT_VECTORS: usize = EDGE * EDGE / 8;

/// Weights `[tap, c_in / 16, c_out / 16, 16, 16]`, rows of a fragment being output channels, so that two channels that are multiplied together lie
/// in one word. Along both there are as many fragments as fill whole plans; missing channels are zero.
#[derive(Clone, Debug)]
pub struct FragmentWeights {
    pub(super) buffer: Buffer,
    pub(super) taps: u32,
    pub(super) c_in: usize,
    pub(super) c_out: usize,
    pub(super) plan: CmmaPlan,
}

/// One unit a vector of eight input channels.
#[cube(launch_unchecked)]
fn pack_fragments_kernel<F: Float>(
    weight: &[F],
    packed: &mut [Vector<F, Const<8>>],
    n_vectors: u32,
    c_in: u32,
    c_out: u32,
    steps: u32,
    columns: u32,
    last_tap: u32,
    #[comptime] reversed: bool,
    #[comptime] swapped: bool,
) {
    let at = ABSOLUTE_POS as u32;
    if at < n_vectors {
        let within = at % comptime!(FRAGMENT_VECTORS as u32);
        let fragment = at / comptime!(FRAGMENT_VECTORS as u32);
        let column = fragment % columns;
        let step = (fragment / columns) % steps;
        let mut tap = fragment / (columns * steps);
        if comptime!(reversed) {
            tap = last_tap - tap;
        }
        let o = column * comptime!(EDGE as u32) + within / 2u32;
        let first = step * comptime!(EDGE as u32) + within % 2u32 * 8u32;
        let mut vector = Vector::<F, Const<8>>::empty();
        #[unroll]
        for i in 0usize..8usize {
            let c = first + i as u32;
            let mut value = F::from_int(0i64);
            if c < c_in && o < c_out {
                if comptime!(swapped) {
                    value = weight[((tap * c_out + o) * c_in + c) as usize];
                } else {
                    value = weight[((tap * c_in + c) * c_out + o) as usize];
                }
            }
            vector.insert(i, value);
        }
        packed[at as usize] = vector;
    }
}

/// Packs weights `[taps, c_in, c_out]`, or in the backward direction `[taps, c_out, c_in]`, the taps in reverse where the tiles are
/// those of the other direction, for convolutions by `plan`; one launch.
///
/// # Panics
/// When the weight does not have its length, or the planes of the plan do not share a tile evenly.
pub fn pack_fragments<F: Float + CubeElement>(
    gpu: &Gpu,
    weight: &Buffer,
    taps: u32,
    [c_in, c_out]: [usize; 2],
    plan: CmmaPlan,
    (direction, reversed): (Direction, bool),
    life: Life,
) -> FragmentWeights {
    assert_eq!(weight.len, taps as usize * c_in * c_out, "pack_fragments: length of the weight");
    plan.check();
    let whole = |channels: usize, fragments| channels.div_ceil(EDGE).next_multiple_of(fragments);
    let (steps, columns) = (whole(c_in, plan.steps), whole(c_out, plan.columns));
    let n_vectors = taps as usize * steps * columns * FRAGMENT_VECTORS;
    let buffer = gpu.room(8 * n_vectors, 2, life);
    let backward = direction == Direction::Backward;
    let kernel = ("pack_fragments", std::any::type_name::<F>(), reversed, backward);
    gpu.launch(Gpu::cubes(n_vectors, 256), kernel, |client, cubes| {
        // SAFETY: one unit a packed vector; weight positions are checked against the channel counts.
        unsafe {
            pack_fragments_kernel::launch_unchecked::<F>(
                client,
                cubes,
                CubeDim::new_1d(256),
                weight.arg(1),
                buffer.arg(8),
                n_vectors as u32,
                c_in as u32,
                c_out as u32,
                steps as u32,
                columns as u32,
                taps.saturating_sub(1),
                reversed,
                backward,
            );
        }
    });
    FragmentWeights { buffer, taps, c_in, c_out, plan }
}

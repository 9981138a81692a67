//! Weights with their taps in reverse.

use cubecl::prelude::*;

use crate::address::{UNITS, address_of, room_for};
use crate::gpu::{Buffer, Gpu};

/// `out[taps - 1 - tap] = weight[tap]`. One unit an element.
#[cube(launch_unchecked, address_type = "dynamic")]
fn reverse_taps_kernel<F: Float>(weight: &[F], out: &mut [F], len: usize, width: usize) {
    let at = ABSOLUTE_POS;
    if at < len {
        let tap = at / width;
        out[len - (tap + 1usize) * width + at % width] = weight[at];
    }
}

/// A weight `[taps, ..]` with its taps in reverse; one launch.
///
/// # Panics
/// Unless the weight is a whole number of taps.
pub fn reverse_taps<F: Float + CubeElement>(gpu: &Gpu, weight: &Buffer, taps: usize) -> Buffer {
    assert!(taps > 0 && weight.len.is_multiple_of(taps), "reverse_taps: length of the weight");
    let out = room_for::<F>(gpu, weight.len);
    if out.len == 0 {
        return out;
    }
    // SAFETY: both buffers hold `len` elements, and units past them do nothing.
    unsafe {
        reverse_taps_kernel::launch_unchecked::<F>(
            gpu.client(),
            Gpu::cubes(weight.len, UNITS as usize),
            CubeDim::new_1d(UNITS),
            address_of(&[weight]),
            weight.arg(1),
            out.arg(1),
            weight.len,
            weight.len / taps,
        );
    }
    out
}

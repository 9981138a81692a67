//! Packed weights to floats, for the kernels that read floats.

use cubecl::prelude::*;

use super::mma::StoredCodes;
use super::mma::codes::{CodeLayout, code_at, scale_at};
use crate::arena::Life;
use crate::gpu::{Buffer, Gpu};

/// Values `[taps, c_in, c_out]`: `scale · code + bias` in f32, rounded to `F`; one unit a value.
#[cube(launch_unchecked)]
fn dequantize_kernel<S: Float, F: Float>(
    words: &[u32],
    scales: &[S],
    biases: &[S],
    values: &mut [F],
    n: u32,
    #[comptime] layout: CodeLayout,
) {
    let at = ABSOLUTE_POS as u32;
    if at < n {
        let o = at % comptime!(layout.c_out);
        let c = (at / comptime!(layout.c_out)) % comptime!(layout.c_in);
        let tap = at / comptime!(layout.c_out * layout.c_in);
        let code = f32::cast_from(code_at(words, tap, c, o, layout));
        let from = scale_at(tap, c / comptime!(layout.group_size), o, layout) as usize;
        values[at as usize] =
            F::cast_from(f32::cast_from(scales[from]) * code + f32::cast_from(biases[from]));
    }
}

/// The values of a packed weight, `[taps, c_in, c_out]`, for the launches that follow; one launch on any device.
///
/// # Panics
/// When a buffer does not have its length.
pub fn dequantize<F: Float + CubeElement>(gpu: &Gpu, stored: &StoredCodes) -> Buffer {
    stored.check();
    let n = stored.taps as usize * stored.c_in * stored.c_out;
    let values = gpu.room(n, size_of::<F>(), Life::Passing);
    macro_rules! launch {
        ($S:ty) => {
            // SAFETY: one unit a value, whose code and scale stand where `check` has seen to it that there are some.
            unsafe {
                dequantize_kernel::launch_unchecked::<$S, F>(
                    gpu.client(),
                    Gpu::cubes(n, 256),
                    CubeDim::new_1d(256),
                    stored.words.arg(1),
                    stored.scales.arg(1),
                    stored.biases.arg(1),
                    values.arg(1),
                    n as u32,
                    stored.layout(),
                )
            }
        };
    }
    match stored.half_scales {
        true => launch!(half::f16),
        false => launch!(f32),
    }
    values
}

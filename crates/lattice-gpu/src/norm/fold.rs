//! A norm of known statistics as a factor and a summand.

use cubecl::prelude::*;

use super::share::UNITS;
use crate::arena::Life;
use crate::gpu::{Buffer, Gpu};

/// `scale = gamma / sqrt(var + eps)` and `shift = beta - mean * scale`; one and zero stand for a gamma and a beta that are absent. One unit
/// a channel.
#[cube(launch_unchecked)]
fn fold_kernel(
    mean: &[f32],
    var: &[f32],
    gamma: &[f32],
    beta: &[f32],
    scale: &mut [f32],
    shift: &mut [f32],
    c: u32,
    eps: f32,
    #[comptime] with_gamma: bool,
    #[comptime] with_beta: bool,
) {
    let channel = ABSOLUTE_POS;
    if channel < c as usize {
        let mut factor = 1.0f32 / (var[channel] + eps).sqrt();
        if comptime!(with_gamma) {
            factor *= gamma[channel];
        }
        let mut summand = -(mean[channel] * factor);
        if comptime!(with_beta) {
            summand += beta[channel];
        }
        scale[channel] = factor;
        shift[channel] = summand;
    }
}

/// Scale and shift `[c]` for which `x · scale + shift` is the norm of these statistics, gamma and beta, all `[c]` in f32. They live long. One
/// launch.
///
/// # Panics
/// When a buffer does not have its length.
pub fn fold(gpu: &Gpu, [mean, var]: [&Buffer; 2], affine: [Option<&Buffer>; 2], eps: f32) -> [Buffer; 2] {
    let c = mean.len;
    for other in [Some(var)].into_iter().chain(affine).flatten() {
        assert_eq!(other.len, c, "fold: channels of the statistics, gamma and beta");
    }
    let [scale, shift] = [0; 2].map(|_| gpu.room(c, 4, Life::Apart));
    if c > 0 {
        let [gamma, beta] = affine.map(|operand| operand.unwrap_or(mean));
        // SAFETY: channels are checked against `c`, the length of every buffer.
        unsafe {
            fold_kernel::launch_unchecked(
                gpu.client(),
                Gpu::cubes(c, UNITS as usize),
                CubeDim::new_1d(UNITS),
                mean.arg(1),
                var.arg(1),
                gamma.arg(1),
                beta.arg(1),
                scale.arg(1),
                shift.arg(1),
                c as u32,
                eps,
                affine[0].is_some(),
                affine[1].is_some(),
            );
        }
    }
    [scale, shift]
}

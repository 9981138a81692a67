//! Launchers of batch norm.

use cubecl::prelude::*;

use super::kernel::{
    CHANNELS, ROWS_EACH, UNITS, add_parts_kernel, gradient_sums_kernel, merge_moments_kernel, moments_kernel,
    normalize_kernel, spread_gradient_kernel,
};
use crate::address::{address_of, lanes_of, room_for};
use crate::arena::Life;
use crate::conv::mma::After;
use crate::gpu::{Buffer, Gpu};

/// Fewest rows of a part, and most parts: what one unit adds up in the end.
const PART_ROWS: usize = 256;
const MOST_PARTS: usize = 256;

/// What goes with the rows of a batch norm.
#[derive(Clone, Copy, Debug)]
pub struct BatchNormWith<'a> {
    /// `[n, c]`, added before the activation.
    pub residual: Option<&'a Buffer>,
    /// Statistics that the batch moves.
    pub running: Option<&'a Running>,
    /// Added to the variance.
    pub eps: f32,
    /// Comes last.
    pub after: After,
}

/// Rows that were normalised, and the statistics found.
#[derive(Clone, Debug)]
pub struct BatchNormed {
    /// `[n, c]`.
    pub y: Buffer,
    /// `[c]` in f32.
    pub mean: Buffer,
    /// Biased, `[c]` in f32.
    pub var: Buffer,
    /// Mean and variance of [`Running`] as the batch moved them; where there is none, those of the batch.
    pub moved: [Buffer; 2],
}

/// Gradients of [`batch_norm`].
#[derive(Clone, Debug)]
pub struct BatchNormGrads {
    /// `[n, c]`.
    pub x: Buffer,
    /// `[c]` in f32.
    pub gamma: Buffer,
    /// `[c]` in f32.
    pub beta: Buffer,
    /// `[n, c]`, where it was asked for.
    pub residual: Option<Buffer>,
}

/// Rows of a part and number of parts.
fn parts_of(n: usize) -> (usize, usize) {
    let rows = n.div_ceil(MOST_PARTS).max(PART_ROWS);
    (rows, n.div_ceil(rows))
}

/// Running statistics that a batch moves: `old * (1 - momentum) + found * momentum`, the variance found multiplied by `unbias` first.
#[derive(Clone, Debug)]
pub struct Running {
    /// Old mean, `[c]` in f32.
    pub mean: Buffer,
    /// Old variance, `[c]` in f32.
    pub var: Buffer,
    /// Share of what is found.
    pub momentum: f64,
    /// 1, or `n / (n - 1)` for running variances without bias.
    pub unbias: f64,
}

/// `activation((x - mean) / sqrt(var + eps) · gamma + beta + residual)` with the mean and biased variance of `x` itself.
///
/// # Shapes
/// `x`, `residual`: `[n, c]` in `F`; `gamma`, `beta`: `[c]` in f32.
///
/// # Panics
/// When a buffer does not have its shape.
pub fn batch_norm<F: Float + CubeElement>(
    gpu: &Gpu,
    x: &Buffer,
    c: usize,
    [gamma, beta]: [&Buffer; 2],
    BatchNormWith { residual, running, eps, after }: BatchNormWith<'_>,
) -> BatchNormed {
    assert_eq!((gamma.len, beta.len), (c, c), "batch_norm: lengths of scale and bias");
    if let Some(Running { mean, var, .. }) = running {
        assert_eq!((mean.len, var.len), (c, c), "batch_norm: lengths of the running statistics");
    }
    assert_eq!(residual.map_or(x.len, |r| r.len), x.len, "batch_norm: length of the residual");
    let n = x.len / c.max(1);
    let y = room_for::<F>(gpu, x.len);
    if x.len == 0 {
        let [mean, var] = [0; 2].map(|_| gpu.upload(&vec![0.0f32; c]));
        // Nothing was found, so nothing moves.
        let moved = running.map_or_else(
            || [mean.clone(), var.clone()],
            |running| [running.mean.clone(), running.var.clone()],
        );
        return BatchNormed { y, mean, var, moved };
    }
    // An output may not be bound twice, so there is room for moved statistics even where there are none.
    let [mean, var] = [0; 2].map(|_| gpu.empty(c, 4));
    let [moved_mean, moved_var] =
        [0; 2].map(|_| gpu.room(c, 4, if running.is_some() { Life::Apart } else { Life::Lasting }));
    let (rows, parts) = parts_of(n);
    let partial = gpu.room(2 * parts * c, 4, Life::Passing);
    let (lanes, groups, merged) = (lanes_of::<F>(gpu, c), c.div_ceil(CHANNELS as usize), gpu.is_coherent());
    let counters = gpu.counters(groups);
    let (old_mean, old_var) = running.map_or((gamma, gamma), |running| (&running.mean, &running.var));
    let momentum = running.map_or(0.0, |running| running.momentum) as f32;
    let unbias = running.map_or(1.0, |running| running.unbias) as f32;
    // SAFETY: units check their channel against `c` and their rows against `n`, whose product is the length of `x` and `y`; parts
    // cover the rows.
    unsafe {
        moments_kernel::launch_unchecked::<F>(
            gpu.client(),
            CubeCount::Static(parts as u32, groups as u32, 1),
            CubeDim::new_1d(UNITS),
            address_of(&[x]),
            lanes,
            x.arg(lanes),
            partial.arg(1),
            counters.arg(1),
            old_mean.arg(1),
            old_var.arg(1),
            mean.arg(1),
            var.arg(1),
            moved_mean.arg(1),
            moved_var.arg(1),
            n,
            c,
            rows,
            parts,
            momentum,
            unbias,
            running.is_some(),
            merged,
        );
        if !merged {
            merge_moments_kernel::launch_unchecked(
                gpu.client(),
                CubeCount::Static(groups as u32, 1, 1),
                CubeDim::new_1d(UNITS),
                partial.arg(1),
                old_mean.arg(1),
                old_var.arg(1),
                mean.arg(1),
                var.arg(1),
                moved_mean.arg(1),
                moved_var.arg(1),
                n,
                c,
                rows,
                parts,
                momentum,
                unbias,
                running.is_some(),
            );
        }
        normalize_kernel::launch_unchecked::<F>(
            gpu.client(),
            Gpu::cubes(n.div_ceil(ROWS_EACH) * (c / lanes), UNITS as usize),
            CubeDim::new_1d(UNITS),
            address_of(&[x]),
            lanes,
            x.arg(lanes),
            mean.arg(lanes),
            var.arg(lanes),
            gamma.arg(lanes),
            beta.arg(lanes),
            residual.unwrap_or(x).arg(lanes),
            y.arg(lanes),
            c / lanes,
            n.div_ceil(ROWS_EACH),
            eps,
            residual.is_some(),
            after,
        );
    }
    let moved = if running.is_some() { [moved_mean, moved_var] } else { [mean.clone(), var.clone()] };
    BatchNormed { y, mean, var, moved }
}

/// The gradients of [`batch_norm`] for `g`, the gradient of `y`; `y` tells what the activation let through.
///
/// # Panics
/// When a buffer does not have its shape.
#[allow(clippy::too_many_arguments, reason = "the operands of the forward pass and its results")]
pub fn batch_norm_grad<F: Float + CubeElement>(
    gpu: &Gpu,
    [x, y, g]: [&Buffer; 3],
    c: usize,
    [mean, var, gamma]: [&Buffer; 3],
    eps: f32,
    after: After,
    residual: bool,
) -> BatchNormGrads {
    assert_eq!((y.len, g.len), (x.len, x.len), "batch_norm_grad: lengths of result and gradient");
    assert_eq!([mean.len, var.len, gamma.len], [c; 3], "batch_norm_grad: lengths of the statistics");
    let n = x.len / c.max(1);
    let [gamma_sum, beta_sum] = match x.len {
        0 => [0; 2].map(|_| gpu.upload(&vec![0.0f32; c])),
        _ => [0; 2].map(|_| gpu.empty(c, 4)),
    };
    let grads = BatchNormGrads {
        x: room_for::<F>(gpu, x.len),
        gamma: gamma_sum,
        beta: beta_sum,
        residual: residual.then(|| room_for::<F>(gpu, x.len)),
    };
    if x.len == 0 {
        return grads;
    }
    let (rows, parts) = parts_of(n);
    let partial = gpu.room(2 * parts * c, 4, Life::Passing);
    let (lanes, groups, merged) = (lanes_of::<F>(gpu, c), c.div_ceil(CHANNELS as usize), gpu.is_coherent());
    let counters = gpu.counters(groups);
    // SAFETY: as in `batch_norm`; every operand has the shape that the forward pass gave it.
    unsafe {
        gradient_sums_kernel::launch_unchecked::<F>(
            gpu.client(),
            CubeCount::Static(parts as u32, groups as u32, 1),
            CubeDim::new_1d(UNITS),
            address_of(&[x]),
            lanes,
            x.arg(lanes),
            y.arg(lanes),
            g.arg(lanes),
            mean.arg(lanes),
            var.arg(lanes),
            partial.arg(1),
            counters.arg(1),
            grads.beta.arg(1),
            grads.gamma.arg(1),
            n,
            c,
            rows,
            parts,
            eps,
            after,
            merged,
        );
        if !merged {
            add_parts_kernel::launch_unchecked(
                gpu.client(),
                CubeCount::Static(groups as u32, 1, 1),
                CubeDim::new_1d(UNITS),
                partial.arg(1),
                grads.beta.arg(1),
                grads.gamma.arg(1),
                c,
                parts,
            );
        }
        spread_gradient_kernel::launch_unchecked::<F>(
            gpu.client(),
            Gpu::cubes(n.div_ceil(ROWS_EACH) * (c / lanes), UNITS as usize),
            CubeDim::new_1d(UNITS),
            address_of(&[x]),
            lanes,
            x.arg(lanes),
            y.arg(lanes),
            g.arg(lanes),
            mean.arg(lanes),
            var.arg(lanes),
            gamma.arg(lanes),
            grads.beta.arg(lanes),
            grads.gamma.arg(lanes),
            grads.x.arg(lanes),
            // Not written where it stands in: an output needs a binding of its own.
            grads.residual.as_ref().unwrap_or(&partial).arg(lanes),
            n as f32,
            c / lanes,
            n.div_ceil(ROWS_EACH),
            eps,
            residual,
            after,
        );
    }
    grads
}

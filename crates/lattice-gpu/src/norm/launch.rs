//! Launchers of batch norm.

use cubecl::prelude::*;

use super::gradient_sums::{add_parts_kernel, gradient_sums_kernel};
use super::moments::{Moves, merge_moments_kernel, moments_kernel};
use super::row_kernels::{ROWS_EACH, normalize_kernel, spread_gradient_kernel};
use super::share::{CHANNELS, UNITS};
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

/// What the gradient of a batch norm reads.
#[derive(Clone, Copy, Debug)]
pub struct BatchNormTape<'a> {
    /// Rows that went in, rows that came out (they tell what the activation let through), and the gradient of these: `[n, c]` in `F`.
    pub rows: [&'a Buffer; 3],
    /// Mean, biased variance and scale, `[c]` in f32.
    pub channels: [&'a Buffer; 3],
    /// Added to the variance.
    pub eps: f32,
    /// Came last.
    pub after: After,
    /// Whether the gradient of the residual is asked for.
    pub residual: bool,
}

/// Rows of a part and number of parts.
fn parts_of(n: usize) -> (usize, usize) {
    let rows = n.div_ceil(MOST_PARTS).max(PART_ROWS);
    (rows, n.div_ceil(rows))
}

/// Running statistics that a batch moves: `old * (1 - momentum) + found * momentum`, the variance found multiplied by `n / (n - 1)` first
/// where it should be `unbiased`.
#[derive(Clone, Debug)]
pub struct Running {
    /// Old mean, `[c]` in f32.
    pub mean: Buffer,
    /// Old variance, `[c]` in f32.
    pub var: Buffer,
    /// Share of what is found.
    pub momentum: f64,
    /// Whether the running variance has no bias.
    pub unbiased: bool,
}

impl BatchNormWith<'_> {
    /// Panics where a buffer does not have its shape.
    pub(super) fn check(&self, op: &str, x: &Buffer, c: usize, [gamma, beta]: [&Buffer; 2]) {
        assert_eq!((gamma.len, beta.len), (c, c), "{op}: lengths of scale and bias");
        if let Some(Running { mean, var, .. }) = self.running {
            assert_eq!((mean.len, var.len), (c, c), "{op}: lengths of the running statistics");
        }
        assert_eq!(self.residual.map_or(x.len, |r| r.len), x.len, "{op}: length of the residual");
    }
}

impl BatchNormTape<'_> {
    /// Panics where a buffer does not have its shape.
    pub(super) fn check(&self, op: &str, c: usize) {
        let [x, y, g] = self.rows.map(|buffer| buffer.len);
        assert_eq!((y, g), (x, x), "{op}: lengths of result and gradient");
        assert_eq!(self.channels.map(|buffer| buffer.len), [c; 3], "{op}: lengths of the statistics");
    }
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
    vectors: [&Buffer; 2],
    with: BatchNormWith<'_>,
) -> BatchNormed {
    with.check("batch_norm", x, c, vectors);
    let running = with.running;
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
    let moves = match running {
        Some(_) => Moves::Running,
        None => Moves::Nothing,
    };
    moments::<F>(gpu, (x, vectors[0]), c, [&mean, &var, &moved_mean, &moved_var], running, moves);
    normalize::<F>(gpu, x, c, [&mean, &var], vectors, with, &y);
    let moved = if running.is_some() { [moved_mean, moved_var] } else { [mean.clone(), var.clone()] };
    BatchNormed { y, mean, var, moved }
}

/// Mean and biased variance of the channels of `x`, and what `moves` says, onto `[mean, var, moved_mean, moved_var]`. There are rows; `other`
/// stands where there are no running statistics, and is not read.
pub(super) fn moments<F: Float + CubeElement>(
    gpu: &Gpu,
    (x, other): (&Buffer, &Buffer),
    c: usize,
    [mean, var, moved_mean, moved_var]: [&Buffer; 4],
    running: Option<&Running>,
    moves: Moves,
) {
    let n = x.len / c;
    let (rows, parts) = parts_of(n);
    let partial = gpu.room(2 * parts * c, 4, Life::Passing);
    let (lanes, groups, merged) = (lanes_of::<F>(gpu, c), c.div_ceil(CHANNELS as usize), gpu.is_coherent());
    let counters = gpu.counters(groups);
    let (old_mean, old_var) = running.map_or((other, other), |running| (&running.mean, &running.var));
    let momentum = running.map_or(0.0, |running| running.momentum) as f32;
    let unbiased = running.is_some_and(|running| running.unbiased) && n > 1;
    let unbias = if unbiased { n as f64 / (n - 1) as f64 } else { 1.0 } as f32;
    let address = address_of(&[x]);
    let kernel = ("moments", std::any::type_name::<F>(), lanes, address, moves, merged);
    gpu.launch(CubeCount::Static(parts as u32, groups as u32, 1), kernel, |client, count| {
        // SAFETY: units check their channel against `c` and their rows against `n`, whose product is the length of `x`; parts cover the
        // rows. Old statistics are read where there are some.
        unsafe {
            moments_kernel::launch_unchecked::<F>(
                client,
                count,
                CubeDim::new_1d(UNITS),
                address,
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
                moves,
                merged,
            );
        }
    });
    if !merged {
        // SAFETY: as above.
        unsafe {
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
                moves,
            );
        }
    }
}

/// Rows with known statistics onto `y`. There are rows.
pub(super) fn normalize<F: Float + CubeElement>(
    gpu: &Gpu,
    x: &Buffer,
    c: usize,
    [mean, var]: [&Buffer; 2],
    [gamma, beta]: [&Buffer; 2],
    BatchNormWith { residual, eps, after, .. }: BatchNormWith<'_>,
    y: &Buffer,
) {
    let (n, lanes) = (x.len / c, lanes_of::<F>(gpu, c));
    let address = address_of(&[x]);
    let kernel = ("normalize", std::any::type_name::<F>(), lanes, address, residual.is_some(), after);
    gpu.launch(Gpu::cubes(n.div_ceil(ROWS_EACH) * (c / lanes), UNITS as usize), kernel, |client, count| {
        // SAFETY: units check their rows against the length of `x` and `y`, and channels are `c`.
        unsafe {
            normalize_kernel::launch_unchecked::<F>(
                client,
                count,
                CubeDim::new_1d(UNITS),
                address,
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
    });
}

/// The gradients of [`batch_norm`].
///
/// # Panics
/// When a buffer does not have its shape.
pub fn batch_norm_grad<F: Float + CubeElement>(
    gpu: &Gpu,
    c: usize,
    tape: BatchNormTape<'_>,
) -> BatchNormGrads {
    tape.check("batch_norm_grad", c);
    let [x, ..] = tape.rows;
    let [gamma, beta] = match x.len {
        0 => [0; 2].map(|_| gpu.upload(&vec![0.0f32; c])),
        _ => [0; 2].map(|_| gpu.empty(c, 4)),
    };
    let grads = BatchNormGrads {
        x: room_for::<F>(gpu, x.len),
        gamma,
        beta,
        residual: tape.residual.then(|| room_for::<F>(gpu, x.len)),
    };
    if x.len > 0 {
        gradient_sums::<F>(gpu, c, tape, [&grads.beta, &grads.gamma]);
        let onto = (&grads.x, grads.residual.as_ref());
        spread_gradient::<F>(gpu, c, tape, [&grads.beta, &grads.gamma], (x.len / c) as f32, onto);
    }
    grads
}

/// Sums over the rows, which are the gradients of beta and gamma. There are rows.
pub(super) fn gradient_sums<F: Float + CubeElement>(
    gpu: &Gpu,
    c: usize,
    BatchNormTape { rows: [x, y, g], channels: [mean, var, _], eps, after, .. }: BatchNormTape<'_>,
    [beta, gamma]: [&Buffer; 2],
) {
    let n = x.len / c;
    let (rows, parts) = parts_of(n);
    let partial = gpu.room(2 * parts * c, 4, Life::Passing);
    let (lanes, groups, merged) = (lanes_of::<F>(gpu, c), c.div_ceil(CHANNELS as usize), gpu.is_coherent());
    let counters = gpu.counters(groups);
    let address = address_of(&[x]);
    let kernel = ("gradient_sums", std::any::type_name::<F>(), lanes, address, after, merged);
    gpu.launch(CubeCount::Static(parts as u32, groups as u32, 1), kernel, |client, count| {
        // SAFETY: as in `moments`; every operand has the shape that the forward pass gave it.
        unsafe {
            gradient_sums_kernel::launch_unchecked::<F>(
                client,
                count,
                CubeDim::new_1d(UNITS),
                address,
                lanes,
                x.arg(lanes),
                y.arg(lanes),
                g.arg(lanes),
                mean.arg(lanes),
                var.arg(lanes),
                partial.arg(1),
                counters.arg(1),
                beta.arg(1),
                gamma.arg(1),
                n,
                c,
                rows,
                parts,
                eps,
                after,
                merged,
            );
        }
    });
    if !merged {
        // SAFETY: as above.
        unsafe {
            add_parts_kernel::launch_unchecked(
                gpu.client(),
                CubeCount::Static(groups as u32, 1, 1),
                CubeDim::new_1d(UNITS),
                partial.arg(1),
                beta.arg(1),
                gamma.arg(1),
                c,
                parts,
            );
        }
    }
}

/// The gradients of rows and residual from the sums `[beta, gamma]` over a batch of `n` rows. There are rows here.
pub(super) fn spread_gradient<F: Float + CubeElement>(
    gpu: &Gpu,
    c: usize,
    BatchNormTape { rows: [x, y, g], channels: [mean, var, gamma], eps, after, .. }: BatchNormTape<'_>,
    [beta_sum, gamma_sum]: [&Buffer; 2],
    n: f32,
    (dx, residual): (&Buffer, Option<&Buffer>),
) {
    let (rows, lanes) = (x.len / c, lanes_of::<F>(gpu, c));
    // Not written where it stands in: an output needs a binding of its own.
    let unused = if residual.is_none() { Some(gpu.room(lanes, 4, Life::Passing)) } else { None };
    let onto = residual.or(unused.as_ref()).unwrap_or(dx);
    let address = address_of(&[x]);
    let kernel = ("spread_gradient", std::any::type_name::<F>(), lanes, address, residual.is_some(), after);
    gpu.launch(
        Gpu::cubes(rows.div_ceil(ROWS_EACH) * (c / lanes), UNITS as usize),
        kernel,
        |client, count| {
            // SAFETY: as in `normalize`; every operand has the shape that the forward pass gave it.
            unsafe {
                spread_gradient_kernel::launch_unchecked::<F>(
                    client,
                    count,
                    CubeDim::new_1d(UNITS),
                    address,
                    lanes,
                    x.arg(lanes),
                    y.arg(lanes),
                    g.arg(lanes),
                    mean.arg(lanes),
                    var.arg(lanes),
                    gamma.arg(lanes),
                    beta_sum.arg(lanes),
                    gamma_sum.arg(lanes),
                    dx.arg(lanes),
                    onto.arg(lanes),
                    n,
                    c / lanes,
                    rows.div_ceil(ROWS_EACH),
                    eps,
                    residual.is_some(),
                    after,
                );
            }
        },
    );
}

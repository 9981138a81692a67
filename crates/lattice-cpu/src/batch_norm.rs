//! Batch normalisation with the statistics of the batch, a residual and an activation in its pass, and its gradient.
//!
//! Three passes over the rows: the moments; the result; and, backward, two column sums and the gradient. Sums are `f64` per block of
//! rows, merged in order, so results have the same bits for any number of threads.

use rayon::prelude::*;

use crate::channels::{block_rows, for_strips, strip, widened};
use crate::scalar::{Acc, Scalar};
use crate::simd::Engine;
use crate::{Activation, Moments, channel_moments, isa};

/// What a batch norm multiplies and adds, besides its rows.
#[derive(Clone, Copy, Debug)]
pub struct BatchNormShape<'a, A> {
    /// Scale, `[c]`.
    pub gamma: &'a [A],
    /// Bias, `[c]`.
    pub beta: &'a [A],
    /// Added to the variance.
    pub eps: f64,
    /// Comes last.
    pub activation: Activation,
}

/// `out = activation((x - mean) / sqrt(var + eps) * gamma + beta + residual)` with the moments of `x` itself, which it returns.
///
/// Computed in the type of sums and rounded once. Without rows nothing is written and the moments are 0.
///
/// # Shapes
/// `x`, `residual`, `out`: `[n, c]`; `c` is the length of `gamma`.
/// # Panics
/// When a slice does not have its shape.
pub fn batch_norm_train<T: Scalar>(
    x: &[T],
    shape: BatchNormShape<'_, T::Acc>,
    residual: Option<&[T]>,
    out: &mut [T],
) -> Moments {
    shape.check("batch_norm_train", x.len());
    let moments = channel_moments(x, shape.gamma.len());
    batch_norm_apply(x, &moments, shape, residual, out);
    moments
}

/// [`batch_norm_train`] with moments that were found elsewhere, such as those of a larger batch that `x` is a part of.
///
/// # Panics
/// When a slice does not have its shape.
pub fn batch_norm_apply<T: Scalar>(
    x: &[T],
    moments: &Moments,
    shape: BatchNormShape<'_, T::Acc>,
    residual: Option<&[T]>,
    out: &mut [T],
) {
    let op = "batch_norm_apply";
    let c = shape.gamma.len();
    shape.check(op, x.len());
    assert_eq!(out.len(), x.len(), "{op}: length of the output");
    assert_eq!((moments.mean.len(), moments.variance.len()), (c, c), "{op}: lengths of the moments");
    assert!(residual.is_none_or(|r| r.len() == x.len()), "{op}: length of the residual");
    if x.is_empty() {
        return;
    }
    let engine = isa::engine();
    let mean: Vec<T::Acc> = moments.mean.iter().map(|&v| Acc::from_f64(v)).collect();
    let scale: Vec<T::Acc> = moments
        .variance
        .iter()
        .zip(shape.gamma)
        .map(|(var, gamma)| Acc::from_f64(gamma.to_f64() / (var + shape.eps).sqrt()))
        .collect();
    let block = block_rows(c) * c;
    out.par_chunks_mut(block).enumerate().for_each_init(
        || [const { Vec::new() }; 3],
        |[x_room, residual_room, out_room], (at, out)| {
            let range = at * block..at * block + out.len();
            let x = widened(engine, &x[range.clone()], x_room);
            let residual = residual.map(|r| widened(engine, &r[range], residual_room));
            written(engine, out, out_room, |out| {
                engine.vectorize(|| {
                    for (r, out) in out.chunks_exact_mut(c).enumerate() {
                        let x = &x[r * c..][..c];
                        for ((((out, &x), &mean), &scale), &beta) in
                            out.iter_mut().zip(x).zip(&mean).zip(&scale).zip(shape.beta)
                        {
                            *out = (x - mean) * scale + beta;
                        }
                        if let Some(residual) = residual {
                            for (out, &residual) in out.iter_mut().zip(&residual[r * c..][..c]) {
                                *out += residual;
                            }
                        }
                    }
                    shape.activation.apply(out);
                });
            });
        },
    );
}

/// What the gradient of [`batch_norm_train`] reads.
#[derive(Clone, Copy, Debug)]
pub struct BatchNormTape<'a, T: Scalar> {
    /// The rows that went in, `[n, c]`.
    pub x: &'a [T],
    /// The rows that came out; needed where there is an activation, whose input was above 0 where they are.
    pub y: Option<&'a [T]>,
    /// Mean of `x`, `[c]`.
    pub mean: &'a [T::Acc],
    /// Biased variance of `x`, `[c]`.
    pub var: &'a [T::Acc],
}

impl<'a, T: Scalar> BatchNormTape<'a, T> {
    /// Panics where a slice does not have its shape; what lets the gradient `g` through.
    fn check(&self, op: &str, g: &[T], shape: &BatchNormShape<'_, T::Acc>) -> Gate<'a, T> {
        let (n, c) = (self.x.len(), shape.gamma.len());
        shape.check(op, n);
        assert_eq!(g.len(), n, "{op}: lengths of the gradients");
        assert_eq!((self.mean.len(), self.var.len()), (c, c), "{op}: lengths of the moments");
        Gate::new(op, shape.activation, self.y, n)
    }
}

/// Gradients of gamma and beta, `[c]` each.
#[derive(Clone, Debug, PartialEq)]
pub struct BatchNormGrads {
    /// For the scale.
    pub gamma: Vec<f64>,
    /// For the bias.
    pub beta: Vec<f64>,
}

/// The gradient of [`batch_norm_train`] for `x`, and for the residual where `d_residual` is given; returns those of gamma and beta.
///
/// With `h = g` where the activation passes it and `u = (x - mean) / sqrt(var + eps)`:
/// `d_residual = h`, `d_beta = sum h`, `d_gamma = sum h u`, `dx = gamma / sqrt(var + eps) * (h - mean h - u * mean (h u))`.
///
/// # Shapes
/// `g`, `dx`, `d_residual`: `[n, c]`.
/// # Panics
/// When a slice does not have its shape; an activation other than none without `y`, or a slope below 0, which hides what passed.
pub fn batch_norm_train_grad<T: Scalar>(
    g: &[T],
    tape: BatchNormTape<'_, T>,
    shape: BatchNormShape<'_, T::Acc>,
    dx: &mut [T],
    d_residual: Option<&mut [T]>,
) -> BatchNormGrads {
    let sums = batch_norm_sums(g, tape, shape);
    let rows = tape.x.len().checked_div(shape.gamma.len()).unwrap_or(0);
    batch_norm_spread(g, tape, shape, Spread { sums: &sums, rows: rows as f64 }, dx, d_residual);
    sums
}

/// The gradients of gamma and beta that the rows of `x` make: of a larger batch that they are a part of, their share.
///
/// # Panics
/// As [`batch_norm_train_grad`].
pub fn batch_norm_sums<T: Scalar>(
    g: &[T],
    tape: BatchNormTape<'_, T>,
    shape: BatchNormShape<'_, T::Acc>,
) -> BatchNormGrads {
    let op = "batch_norm_sums";
    let c = shape.gamma.len();
    let gate = tape.check(op, g, &shape);
    if g.is_empty() {
        return BatchNormGrads { gamma: vec![0.0; c], beta: vec![0.0; c] };
    }
    let sums = column_sums(isa::engine(), g, &tape, &gate, c);
    let (beta, along) = sums.split_at(c);
    let inverse = tape.var.iter().map(|v| 1.0 / (v.to_f64() + shape.eps).sqrt());
    BatchNormGrads {
        gamma: along.iter().zip(inverse).map(|(along, inverse)| along * inverse).collect(),
        beta: beta.to_vec(),
    }
}

/// What the gradients of rows need of the whole batch.
#[derive(Clone, Copy, Debug)]
pub struct Spread<'a> {
    /// Gradients of gamma and beta over all its rows.
    pub sums: &'a BatchNormGrads,
    /// Number of its rows.
    pub rows: f64,
}

/// The gradients of `x`, and of the residual where `d_residual` is given, from those of gamma and beta over the whole batch.
///
/// # Panics
/// As [`batch_norm_train_grad`].
pub fn batch_norm_spread<T: Scalar>(
    g: &[T],
    tape: BatchNormTape<'_, T>,
    shape: BatchNormShape<'_, T::Acc>,
    Spread { sums, rows }: Spread<'_>,
    dx: &mut [T],
    mut d_residual: Option<&mut [T]>,
) {
    let op = "batch_norm_spread";
    let c = shape.gamma.len();
    let gate = tape.check(op, g, &shape);
    assert_eq!(dx.len(), g.len(), "{op}: lengths of the gradients");
    assert_eq!((sums.gamma.len(), sums.beta.len()), (c, c), "{op}: lengths of the sums");
    assert!(
        d_residual.as_ref().is_none_or(|d| d.len() == g.len()),
        "{op}: length of the residual's gradient"
    );
    if g.is_empty() {
        return;
    }
    let engine = isa::engine();
    let inverse: Vec<f64> = tape.var.iter().map(|v| 1.0 / (v.to_f64() + shape.eps).sqrt()).collect();
    let of = |f: &dyn Fn(usize) -> f64| (0..c).map(|j| Acc::from_f64(f(j))).collect::<Vec<T::Acc>>();
    let scale = of(&|j| shape.gamma[j].to_f64() * inverse[j]);
    let level = of(&|j| sums.beta[j] / rows);
    let slant = of(&|j| sums.gamma[j] * inverse[j] / rows);

    let block = block_rows(c) * c;
    let apply = |rooms: &mut [Vec<T::Acc>; 5], at: usize, dx: &mut [T], d_residual: Option<&mut [T]>| {
        let [x_room, y_room, h_room, dx_room, _] = rooms;
        let range = at * block..at * block + dx.len();
        let x = widened(engine, &tape.x[range.clone()], x_room);
        let h = gate.pass(engine, g, range, h_room, y_room);
        if let Some(d_residual) = d_residual {
            T::narrow(engine, h, d_residual);
        }
        written(engine, dx, dx_room, |dx| {
            engine.vectorize(|| {
                for (r, dx) in dx.chunks_exact_mut(c).enumerate() {
                    let (x, h) = (&x[r * c..][..c], &h[r * c..][..c]);
                    let columns = scale.iter().zip(&level).zip(&slant).zip(tape.mean);
                    for (((dx, &x), &h), (((&scale, &level), &slant), &mean)) in
                        dx.iter_mut().zip(x).zip(h).zip(columns)
                    {
                        *dx = scale * (h - level - (x - mean) * slant);
                    }
                }
            });
        });
    };
    let rooms = || [const { Vec::new() }; 5];
    match &mut d_residual {
        None => dx
            .par_chunks_mut(block)
            .enumerate()
            .for_each_init(rooms, |rooms, (at, dx)| apply(rooms, at, dx, None)),
        Some(d_residual) => dx
            .par_chunks_mut(block)
            .zip(d_residual.par_chunks_mut(block))
            .enumerate()
            .for_each_init(rooms, |rooms, (at, (dx, d))| apply(rooms, at, dx, Some(d))),
    }
}

/// `[2, c]`: sums over all rows of `h`, then of `h * (x - mean)`.
fn column_sums<T: Scalar>(
    engine: Engine,
    g: &[T],
    tape: &BatchNormTape<'_, T>,
    gate: &Gate<'_, T>,
    c: usize,
) -> Vec<f64> {
    let block = block_rows(c) * c;
    let mut parts = vec![0.0; g.len().div_ceil(block) * 2 * c];
    parts.par_chunks_mut(2 * c).zip(tape.x.par_chunks(block)).enumerate().for_each_init(
        || [const { Vec::new() }; 3],
        |[x_room, y_room, h_room], (at, (part, x))| {
            let range = at * block..at * block + x.len();
            let x = widened(engine, x, x_room);
            let h = gate.pass(engine, g, range, h_room, y_room);
            let (sums, alongs) = part.split_at_mut(c);
            engine.vectorize(|| {
                for_strips!(c, |K, at| {
                    let mean = strip::<_, K>(tape.mean, at);
                    let (mut sum, mut along) = ([0.0; K], [0.0; K]);
                    for (x, h) in x.chunks_exact(c).zip(h.chunks_exact(c)) {
                        let (x, h) = (strip::<_, K>(x, at), strip::<_, K>(h, at));
                        for k in 0..K {
                            sum[k] += h[k].to_f64();
                            along[k] += (h[k] * (x[k] - mean[k])).to_f64();
                        }
                    }
                    sums[at..at + K].copy_from_slice(&sum);
                    alongs[at..at + K].copy_from_slice(&along);
                });
            });
        },
    );
    let mut total = vec![0.0; 2 * c];
    for part in parts.chunks_exact(2 * c) {
        for (total, part) in total.iter_mut().zip(part) {
            *total += part;
        }
    }
    total
}

/// What of the output's gradient an activation lets through.
struct Gate<'a, T> {
    /// The activation's result and its slope where that is not above 0; `None` passes everything.
    rule: Option<(&'a [T], f32)>,
}

impl<'a, T: Scalar> Gate<'a, T> {
    fn new(op: &str, activation: Activation, y: Option<&'a [T]>, n: usize) -> Self {
        let slope = match activation {
            Activation::None => return Self { rule: None },
            Activation::Relu => 0.0,
            Activation::LeakyRelu(slope) => slope,
        };
        assert!(slope >= 0.0, "{op}: a slope below 0 hides where the activation's input was above 0");
        let y = y.expect("an activation's gradient needs its result");
        assert_eq!(y.len(), n, "{op}: length of the result");
        Self { rule: Some((y, slope)) }
    }

    /// The gradient before the activation of elements `range`.
    fn pass<'b>(
        &self,
        engine: Engine,
        g: &'b [T],
        range: std::ops::Range<usize>,
        h_room: &'b mut Vec<T::Acc>,
        y_room: &mut Vec<T::Acc>,
    ) -> &'b [T::Acc] {
        let g = &g[range.clone()];
        let Some((y, slope)) = self.rule else {
            return widened(engine, g, h_room);
        };
        let y = widened(engine, &y[range], y_room);
        h_room.resize(g.len(), T::Acc::ZERO);
        T::widen(engine, g, h_room);
        engine.vectorize(|| {
            if slope == 0.0 {
                for (h, &y) in h_room.iter_mut().zip(y) {
                    *h = if y <= T::Acc::ZERO { T::Acc::ZERO } else { *h };
                }
            } else {
                let slope = T::Acc::from_f32(slope);
                for (h, &y) in h_room.iter_mut().zip(y) {
                    *h = if y <= T::Acc::ZERO { *h * slope } else { *h };
                }
            }
        });
        h_room
    }
}

/// Has `fill` write a block, in place or through `room`.
fn written<T: Scalar>(
    engine: Engine,
    out: &mut [T],
    room: &mut Vec<T::Acc>,
    fill: impl FnOnce(&mut [T::Acc]),
) {
    if let Some(out) = T::as_acc_mut(out) {
        return fill(out);
    }
    room.resize(out.len(), T::Acc::ZERO);
    fill(room);
    T::narrow(engine, room, out);
}

impl<A> BatchNormShape<'_, A> {
    fn check(&self, op: &str, len: usize) {
        let c = self.gamma.len();
        assert_eq!(self.beta.len(), c, "{op}: length of beta");
        assert!(
            len == 0 || c > 0 && len.is_multiple_of(c),
            "{op}: {len} elements are no whole rows of {c} channels"
        );
    }
}

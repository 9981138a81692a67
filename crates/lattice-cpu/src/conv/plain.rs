//! Gathered products in plain loops: the path of `f64`, which GPUs of most kinds and networks do not use.

use rayon::prelude::*;

use super::{Gradient, Products};
use crate::scalar::{Acc, Scalar};
use crate::simd::Engine;

/// `out = epilogue(sum over pairs of x[in] @ w[tap])`; every element of `out` is written.
pub fn run<T: Scalar>(engine: Engine, job: Products<'_, T>, out: &mut [T]) {
    let Products { x, w, adjoint, pairs, shape, epilogue } = job;
    let (c_in, c_out) = (shape.c_in, shape.c_out);
    let (k, n) = (c_in / shape.groups, c_out / shape.groups);
    if out.is_empty() {
        return;
    }
    out.par_chunks_mut(pairs.block * c_out).enumerate().for_each(|(block, out)| {
        let mut sums = vec![T::Acc::ZERO; out.len()];
        for tap in 0..pairs.taps {
            let w = &w[tap * k * c_out..][..k * c_out];
            let now = pairs.pairs(block, tap);
            let x = &x[now.in_base * c_in..];
            for (&i, &o) in now.in_rows.iter().zip(now.out_local) {
                let x = &x[i as usize * c_in..][..c_in];
                let sum = &mut sums[usize::from(o) * c_out..][..c_out];
                for (j, sum) in sum.iter_mut().enumerate() {
                    let group = j / n;
                    for (a, x) in x[group * k..][..k].iter().enumerate() {
                        // Forward weights are [k, groups * n]; those of the adjoint [n, groups * k].
                        let w = if adjoint { w[j % n * c_in + group * k + a] } else { w[a * c_out + j] };
                        *sum += x.to_acc() * w.to_acc();
                    }
                }
            }
        }
        let mut wide = vec![T::Acc::ZERO; c_out];
        for (r, (sum, out)) in sums.chunks_exact_mut(c_out).zip(out.chunks_exact_mut(c_out)).enumerate() {
            epilogue.finish(engine, block * pairs.block + r, c_out, 0..c_out, sum, &mut wide, out);
        }
    });
}

/// `dw[tap] = sum over pairs of outer(x[in], g[out])`; every element of `dw` is written. Parallel over taps.
pub fn gradient<T: Scalar>(_: Engine, job: Gradient<'_, T>, dw: &mut [T]) {
    let Gradient { x, g, pairs, shape } = job;
    let (c_in, c_out) = (shape.c_in, shape.c_out);
    let (k, n) = (c_in / shape.groups, c_out / shape.groups);
    if dw.is_empty() {
        return;
    }
    dw.par_chunks_mut(k * c_out).enumerate().for_each(|(tap, dw)| {
        let mut sums = vec![T::Acc::ZERO; dw.len()];
        for block in 0..pairs.n_out.div_ceil(pairs.block) {
            let now = pairs.pairs(block, tap);
            let x = &x[now.in_base * c_in..];
            for (&i, &o) in now.in_rows.iter().zip(now.out_local) {
                let x = &x[i as usize * c_in..][..c_in];
                let g = &g[(block * pairs.block + usize::from(o)) * c_out..][..c_out];
                for (a, sums) in sums.chunks_exact_mut(c_out).enumerate() {
                    for (j, (sum, g)) in sums.iter_mut().zip(g).enumerate() {
                        *sum += x[j / n * k + a].to_acc() * g.to_acc();
                    }
                }
            }
        }
        for (dw, sum) in dw.iter_mut().zip(sums) {
            *dw = T::from_acc(sum);
        }
    });
}

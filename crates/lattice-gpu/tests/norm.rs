//! Batch norm of training and its gradient against loops in `f64`, on every device.
#![cfg(feature = "cubecl")]
#![allow(clippy::unwrap_used, reason = "tests")]

mod harness;

use half::f16;
use harness::{Element, Numbers, assert_close, devices, wide};
use lattice_gpu::Gpu;
use lattice_gpu::conv::mma::After;
use lattice_gpu::norm::{BatchNormTape, BatchNormWith, Running, batch_norm, batch_norm_grad, fold};

const EPS: f64 = 1e-3;

fn slope(after: After) -> f64 {
    match after {
        After::Nothing => 1.0,
        After::Relu => 0.0,
        After::LeakyRelu(bits) => f64::from(f32::from_bits(bits)),
    }
}

fn check<T: Element>(device: &str, gpu: &Gpu, n: usize, c: usize, with_residual: bool, after: After) {
    if !T::runs_on(gpu) {
        return;
    }
    let what =
        |part: &str| format!("{part} on {device}, {n} rows of {c}, residual {with_residual}, {after:?}");
    let mut numbers = Numbers(n as u64 + c as u64);
    let x: Vec<T> = numbers.values(n * c);
    let residual: Vec<T> = numbers.values(n * c);
    let g: Vec<T> = numbers.values(n * c);
    let [gamma, beta]: [Vec<f32>; 2] = [0; 2].map(|_| numbers.values(c));
    let (wx, wr, wg) = (wide(&x), wide(&residual), wide(&g));
    let column =
        |values: &[f64], j: usize| -> Vec<f64> { values.iter().skip(j).step_by(c).copied().collect() };
    let mean: Vec<f64> = (0..c).map(|j| column(&wx, j).iter().sum::<f64>() / n as f64).collect();
    let var: Vec<f64> = (0..c)
        .map(|j| column(&wx, j).iter().map(|v| (v - mean[j]).powi(2)).sum::<f64>() / n as f64)
        .collect();
    let normal = |at: usize| (wx[at] - mean[at % c]) / (var[at % c] + EPS).sqrt();
    let [dx, dg, dr] = [&x, &g, &residual].map(|v| gpu.upload(v));
    let [dgamma, dbeta] = [&gamma, &beta].map(|v| gpu.upload(v));
    let old: [Vec<f32>; 2] = [0; 2].map(|_| numbers.values(c));
    let [old_mean, old_var] = old.each_ref().map(|v| gpu.upload(v));
    let running = Running { mean: old_mean, var: old_var, momentum: 0.25, unbiased: true };
    let residual_there = with_residual.then_some(&dr);
    let normed = |running| {
        let with = BatchNormWith { residual: residual_there, running, eps: EPS as f32, after };
        batch_norm::<T>(gpu, &dx, c, [&dgamma, &dbeta], with)
    };
    let out = normed(Some(&running));
    let moved = |old: &[f32], found: &[f64], factor: f64| -> Vec<f64> {
        old.iter().zip(found).map(|(&old, found)| f64::from(old) * 0.75 + found * factor * 0.25).collect()
    };
    let expected = [moved(&old[0], &mean, 1.0), moved(&old[1], &var, n as f64 / (n - 1) as f64)];
    for (name, (found, expected)) in ["moved mean", "moved var"].iter().zip(out.moved.iter().zip(&expected)) {
        assert_close(&what(name), &gpu.download::<f32>(found), expected, &vec![2.0; c]);
    }
    let still = normed(None);
    assert_eq!(
        gpu.download::<u32>(&still.moved[0]),
        gpu.download::<u32>(&still.mean),
        "{}",
        what("no running")
    );
    let before = |at: usize| {
        let residual = if with_residual { wr[at] } else { 0.0 };
        normal(at) * f64::from(gamma[at % c]) + f64::from(beta[at % c]) + residual
    };
    let y: Vec<f64> =
        (0..n * c).map(|at| if before(at) > 0.0 { before(at) } else { before(at) * slope(after) }).collect();
    assert_close(&what("y"), &gpu.download::<T>(&out.y), &y, &vec![8.0; n * c]);
    assert_close(&what("mean"), &gpu.download::<f32>(&out.mean), &mean, &vec![2.0; c]);
    assert_close(&what("var"), &gpu.download::<f32>(&out.var), &var, &vec![2.0; c]);

    let tape = BatchNormTape {
        rows: [&dx, &out.y, &dg],
        channels: [&out.mean, &out.var, &dgamma],
        eps: EPS as f32,
        after,
        residual: with_residual,
    };
    let grads = batch_norm_grad::<T>(gpu, c, tape);
    // The sign that the device rounded to decides what passes.
    let made = wide(&gpu.download::<T>(&out.y));
    let through: Vec<f64> = (0..n * c)
        .map(|at| if made[at] > 0.0 || after == After::Nothing { wg[at] } else { wg[at] * slope(after) })
        .collect();
    let beta_sum: Vec<f64> = (0..c).map(|j| column(&through, j).iter().sum()).collect();
    let products: Vec<f64> = (0..n * c).map(|at| through[at] * normal(at)).collect();
    let gamma_sum: Vec<f64> = (0..c).map(|j| column(&products, j).iter().sum()).collect();
    let expected: Vec<f64> = (0..n * c)
        .map(|at| {
            let j = at % c;
            let away = through[at] - (beta_sum[j] + normal(at) * gamma_sum[j]) / n as f64;
            away * f64::from(gamma[j]) / (var[j] + EPS).sqrt()
        })
        .collect();
    let size = 40.0 * n as f64;
    assert_close(&what("gradient of beta"), &gpu.download::<f32>(&grads.beta), &beta_sum, &vec![size; c]);
    assert_close(&what("gradient of gamma"), &gpu.download::<f32>(&grads.gamma), &gamma_sum, &vec![size; c]);
    assert_close(&what("gradient of x"), &gpu.download::<T>(&grads.x), &expected, &vec![400.0; n * c]);
    if with_residual {
        let found = gpu.download::<T>(&grads.residual.unwrap());
        assert_close(&what("gradient of the residual"), &found, &through, &vec![1.0; n * c]);
    }
}

#[test]
fn batch_norm_and_its_gradient_match_the_loops() {
    for (device, gpu) in devices() {
        for (n, c) in [(2, 1), (300, 20), (1000, 64), (70_000, 3)] {
            for after in [After::Nothing, After::Relu, After::LeakyRelu(0.1f32.to_bits())] {
                for with_residual in [false, true] {
                    check::<f32>(&device, &gpu, n, c, with_residual, after);
                    check::<f16>(&device, &gpu, n, c, with_residual, after);
                }
            }
        }
        let empty = batch_norm::<f32>(
            &gpu,
            &gpu.upload::<f32>(&[]),
            4,
            [&gpu.upload(&[1.0f32; 4]), &gpu.upload(&[0.0f32; 4])],
            BatchNormWith { residual: None, running: None, eps: 1e-3, after: After::Nothing },
        );
        assert_eq!(empty.y.len, 0);
    }
}

#[test]
fn a_norm_of_known_statistics_is_a_factor_and_a_summand() {
    for (device, gpu) in devices() {
        for c in [1, 3, 256, 1000] {
            let mut numbers = Numbers(c as u64);
            let [mean, var, gamma, beta]: [Vec<f32>; 4] = [0; 4].map(|_| numbers.values(c));
            let var: Vec<f32> = var.iter().map(|v| v * v).collect();
            let [on_mean, on_var, on_gamma, on_beta] = [&mean, &var, &gamma, &beta].map(|v| gpu.upload(v));
            for (with_gamma, with_beta) in [(false, false), (true, false), (false, true), (true, true)] {
                let affine = [with_gamma.then_some(&on_gamma), with_beta.then_some(&on_beta)];
                let [scale, shift] = fold(&gpu, [&on_mean, &on_var], affine, EPS as f32);
                let factor = |j: usize| {
                    let inverse = 1.0 / (f64::from(var[j]) + EPS).sqrt();
                    if with_gamma { inverse * f64::from(gamma[j]) } else { inverse }
                };
                let summand = |j: usize| {
                    let beta = if with_beta { f64::from(beta[j]) } else { 0.0 };
                    beta - f64::from(mean[j]) * factor(j)
                };
                let [scales, shifts]: [Vec<f64>; 2] =
                    [(0..c).map(factor).collect(), (0..c).map(summand).collect()];
                let what = |part| format!("{part} of {c} on {device}, gamma {with_gamma}, beta {with_beta}");
                let size = |j: usize| 2.0 + (f64::from(mean[j]) * factor(j)).abs() + factor(j).abs();
                let sizes: Vec<f64> = (0..c).map(size).collect();
                assert_close(&what("scale"), &gpu.download::<f32>(&scale), &scales, &sizes);
                assert_close(&what("shift"), &gpu.download::<f32>(&shift), &shifts, &sizes);
            }
        }
    }
}

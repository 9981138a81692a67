//! Batch norm whose rows lie on several devices against the one over all rows; here one device plays all of them, each on a thread.
#![cfg(feature = "cubecl")]
#![allow(clippy::unwrap_used, reason = "tests")]

mod harness;

use std::sync::{Barrier, Mutex};
use std::thread;

use half::bf16;
use harness::{Element, Numbers, devices, wide};
use lattice_gpu::conv::mma::After;
use lattice_gpu::norm::{
    BatchNormTape, BatchNormWith, Running, Sharing, batch_norm, batch_norm_grad, batch_norm_shared,
    batch_norm_shared_grad,
};
use lattice_gpu::{Buffer, Gpu};

const EPS: f32 = 1e-3;

/// What a device finds: rows, their gradient, the residual's, moved mean and variance, gradients of scale and bias.
struct Found {
    rows: [Vec<f64>; 3],
    moved: [Vec<f64>; 2],
    vectors: [Vec<f64>; 2],
}

/// Operands of all rows.
struct Operands<T> {
    rows: [Vec<T>; 3],
    vectors: [Vec<f32>; 4],
    c: usize,
    after: After,
}

impl<T: Element> Operands<T> {
    /// The pass over rows `from..to`, with those of others where they are `shared`.
    fn run(&self, gpu: &Gpu, [from, to]: [usize; 2], shared: Option<Sharing<'_>>) -> Found {
        let (c, after) = (self.c, self.after);
        let [x, residual, g] = self.rows.each_ref().map(|all| gpu.upload(&all[from * c..to * c]));
        let [gamma, beta, mean, var] = self.vectors.each_ref().map(|v| gpu.upload(v));
        let running = Running { mean, var, momentum: 0.25, unbiased: true };
        let with = BatchNormWith { residual: Some(&residual), running: Some(&running), eps: EPS, after };
        let (out, count) = match shared {
            None => (batch_norm::<T>(gpu, &x, c, [&gamma, &beta], with), None),
            Some(sharing) => {
                let (out, count) = batch_norm_shared::<T>(gpu, &x, c, [&gamma, &beta], with, sharing);
                (out, Some(count))
            }
        };
        let tape = BatchNormTape {
            rows: [&x, &out.y, &g],
            channels: [&out.mean, &out.var, &gamma],
            eps: EPS,
            after,
            residual: true,
        };
        let grads = match (shared, &count) {
            (Some(sharing), Some(count)) => batch_norm_shared_grad::<T>(gpu, c, tape, count, sharing),
            _ => batch_norm_grad::<T>(gpu, c, tape),
        };
        let rows = |buffer: &Buffer| wide(&gpu.download::<T>(buffer));
        let vector = |buffer: &Buffer| wide(&gpu.download::<f32>(buffer));
        Found {
            rows: [&out.y, &grads.x, &grads.residual.unwrap()].map(rows),
            moved: out.moved.each_ref().map(vector),
            vectors: [&grads.gamma, &grads.beta].map(vector),
        }
    }

    /// The pass with the rows cut at `ends`, each part on a thread.
    fn run_apart(&self, gpu: &Gpu, ends: &[usize]) -> Vec<Found> {
        let ranks = ends.len();
        let (given, barrier) = (Mutex::new(vec![Vec::new(); ranks]), Barrier::new(ranks));
        let (given, barrier) = (&given, &barrier);
        thread::scope(|scope| {
            let starts = [0].into_iter().chain(ends.iter().copied());
            let parts = starts.zip(ends).enumerate();
            let threads: Vec<_> = parts
                .map(|(rank, (from, &to))| {
                    let work = move || {
                        let sum = |from: &Buffer, _: Buffer| -> Buffer {
                            given.lock().unwrap()[rank] = gpu.download::<f32>(from);
                            barrier.wait();
                            let all = given.lock().unwrap().clone();
                            barrier.wait();
                            let at = |i: usize| all.iter().map(|part| part[i]).sum();
                            gpu.upload(&(0..all[0].len()).map(at).collect::<Vec<f32>>())
                        };
                        self.run(gpu, [from, to], Some(Sharing { rank, ranks, sum: &sum }))
                    };
                    scope.spawn(work)
                })
                .collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        })
    }
}

fn check<T: Element>(device: &str, gpu: &Gpu, c: usize, ends: &[usize], after: After) {
    if !T::runs_on(gpu) {
        return;
    }
    let n = *ends.last().unwrap();
    let mut numbers = Numbers(n as u64 + c as u64);
    let rows = [0; 3].map(|_| numbers.values(n * c));
    let operands = Operands::<T> { rows, vectors: [0; 4].map(|_| numbers.values(c)), c, after };
    let whole = operands.run(gpu, [0, n], None);
    let parts = operands.run_apart(gpu, ends);
    let close = |what: &str, found: &[f64], expected: &[f64], unit: f64| {
        assert_eq!(found.len(), expected.len(), "{what} on {device}");
        for (i, (f, e)) in found.iter().zip(expected).enumerate() {
            let far = unit * (1.0 + e.abs());
            assert!(
                (f - e).abs() <= far,
                "{what} {i} on {device}, {ends:?} rows of {c}, {after:?}: {f}, expected {e}"
            );
        }
    };
    // Statistics differ in the last digits of f32; rows then by a rounding of their type.
    let unit = if T::NAME == "f32" { 1e-4 } else { 2e-2 };
    for (k, name) in ["y", "gradient of x", "gradient of the residual"].iter().enumerate() {
        let joined: Vec<f64> = parts.iter().flat_map(|part| part.rows[k].clone()).collect();
        close(name, &joined, &whole.rows[k], unit);
    }
    for (k, name) in ["gradient of gamma", "gradient of beta"].iter().enumerate() {
        let summed: Vec<f64> = (0..c).map(|j| parts.iter().map(|part| part.vectors[k][j]).sum()).collect();
        close(name, &summed, &whole.vectors[k], unit * (n as f64).sqrt());
    }
    for part in &parts {
        close("moved mean", &part.moved[0], &whole.moved[0], 1e-5);
        close("moved variance", &part.moved[1], &whole.moved[1], 1e-5);
        assert_eq!(part.moved, parts[0].moved, "all devices have the same bits");
    }
}

#[test]
fn parts_on_several_devices_make_the_norm_of_the_whole() {
    for (device, gpu) in devices() {
        for (c, ends) in [(3, &[200, 500][..]), (20, &[1, 2, 700]), (64, &[400, 400, 3000]), (130, &[600])] {
            check::<f32>(&device, &gpu, c, ends, After::Relu);
            check::<bf16>(&device, &gpu, c, ends, After::LeakyRelu(0.1f32.to_bits()));
        }
    }
}

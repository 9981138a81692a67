//! Times convolutions over the submanifold 3 x 3 x 3 relation of coordinate files.
//!
//! `cargo run --release -p lattice-cpu --example conv_timing -- [--channels 16,32] [--repeats 7] [--threads 2] [--half]
//! [--cpu-time] [--no-ceiling] FILE.i32 ..`
//!
//! `--cpu-time` (Linux) counts the processor time of all threads instead of the wall clock: what remains comparable when others
//! load the machine.
//!
//! A file holds little-endian 32-bit rows `batch, x, y, z`. Prints GFLOP/s (`2 * pairs * c * c / time`; three times that for
//! forward and both gradients) at the least and the median time, and the ceiling: a dense 4096-cubed product.
#![allow(clippy::unwrap_used, reason = "a developer's tool")]

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use half::f16;
use lattice_core::{KernelSpec, Relation, Support};
use lattice_cpu::{ConvShape, Epilogue, Scalar, conv_forward, conv_input_grad, conv_weight_grad, gemm};

/// Report processor time instead of wall clock time.
static CPU_TIME: AtomicBool = AtomicBool::new(false);

struct Options {
    channels: Vec<usize>,
    repeats: usize,
    half: bool,
    files: Vec<String>,
}

fn main() {
    let mut options = Options { channels: vec![16, 32, 64, 128], repeats: 7, half: false, files: Vec::new() };
    let mut ceiling = true;
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--channels" => {
                options.channels = args.next().unwrap().split(',').map(|c| c.parse().unwrap()).collect()
            }
            "--repeats" => options.repeats = args.next().unwrap().parse().unwrap(),
            "--cpu-time" => CPU_TIME.store(true, Ordering::Relaxed),
            "--half" => options.half = true,
            "--no-ceiling" => ceiling = false,
            "--threads" => {
                let n = args.next().unwrap().parse().unwrap();
                rayon::ThreadPoolBuilder::new().num_threads(n).build_global().unwrap();
            }
            _ => options.files.push(arg),
        }
    }
    println!("{:?}, {} threads", lattice_cpu::current_isa(), rayon::current_num_threads());
    if ceiling {
        let n = 4096;
        let (a, b) = (ramp::<f32>(n * n), ramp::<f32>(n * n));
        let mut out = vec![0.0f32; n * n];
        let time = times(3, || gemm(&a, &b, n, n, n, &Epilogue::default(), &mut out));
        report("gemm 4096", 2.0 * (n as f64).powi(3), &time);
        for c in [16, 32, 64, 128] {
            let rows = 262_144;
            let mut out = vec![0.0f32; rows * c];
            let (a, b) = (ramp::<f32>(rows * c), ramp::<f32>(c * c));
            let time = times(options.repeats, || gemm(&a, &b, rows, c, c, &Epilogue::default(), &mut out));
            report(&format!("linear {c}"), 2.0 * (rows * c * c) as f64, &time);
        }
    }
    for file in &options.files {
        let bytes = std::fs::read(file).unwrap();
        let numbers: Vec<i32> =
            bytes.chunks_exact(4).map(|b| i32::from_le_bytes(b.try_into().unwrap())).collect();
        let coords = numbers.chunks_exact(4).map(|c| [c[0], c[1], c[2], c[3]]).collect();
        let support = Support::try_new(coords).unwrap();
        let start = Instant::now();
        let relation = Relation::submanifold(&support, &KernelSpec::cube(3, 1).unwrap()).unwrap();
        let built = start.elapsed();
        relation.tap_tiles();
        relation.transpose().tap_tiles();
        println!(
            "{file}: {} rows, {} pairs; map {:.1} ms, with tiles and transpose {:.1} ms",
            relation.n_out(),
            relation.n_pairs(),
            built.as_secs_f64() * 1e3,
            start.elapsed().as_secs_f64() * 1e3,
        );
        for &c in &options.channels {
            match options.half {
                true => time_channels::<f16>(&relation, c, options.repeats),
                false => time_channels::<f32>(&relation, c, options.repeats),
            }
        }
    }
}

fn time_channels<T: Scalar<Acc = f32>>(relation: &Relation, c: usize, repeats: usize) {
    let shape = ConvShape::dense(c, c);
    let (x, g) = (ramp::<T>(relation.n_in() * c), ramp::<T>(relation.n_out() * c));
    let w = ramp::<T>(shape.weights(relation.taps()));
    let (mut y, mut dx, mut dw) =
        (vec![T::default(); g.len()], vec![T::default(); x.len()], vec![T::default(); w.len()]);
    let flop = 2.0 * relation.n_pairs() as f64 * (c * c) as f64;
    let forward = times(repeats, || conv_forward(&x, &w, relation, shape, &Epilogue::default(), &mut y));
    report(&format!("  {c:>3} forward"), flop, &forward);
    let input = times(repeats, || conv_input_grad(&g, &w, relation, shape, &mut dx));
    report(&format!("  {c:>3} input grad"), flop, &input);
    let weight = times(repeats, || conv_weight_grad(&x, &g, relation, shape, &mut dw));
    report(&format!("  {c:>3} weight grad"), flop, &weight);
    let all: Vec<f64> = (0..repeats).map(|i| forward[i] + input[i] + weight[i]).collect();
    report(&format!("  {c:>3} all three"), 3.0 * flop, &all);
}

/// Small numbers of both signs.
fn ramp<T: Scalar<Acc = f32>>(n: usize) -> Vec<T> {
    (0..n).map(|i| T::from_acc((i % 61) as f32 / 61.0 - 0.5)).collect()
}

/// Seconds, ascending.
fn times(repeats: usize, mut f: impl FnMut()) -> Vec<f64> {
    f();
    let mut times: Vec<f64> = (0..repeats)
        .map(|_| {
            let (start, cpu) = (Instant::now(), cpu_seconds());
            f();
            if CPU_TIME.load(Ordering::Relaxed) { cpu_seconds() - cpu } else { start.elapsed().as_secs_f64() }
        })
        .collect();
    times.sort_by(f64::total_cmp);
    times
}

/// Processor time of all threads so far; 0 where the system does not tell.
fn cpu_seconds() -> f64 {
    let Ok(tasks) = std::fs::read_dir("/proc/self/task") else { return 0.0 };
    let nanos = tasks.filter_map(|task| {
        let text = std::fs::read_to_string(task.ok()?.path().join("schedstat")).ok()?;
        text.split(' ').next()?.parse::<u64>().ok()
    });
    nanos.sum::<u64>() as f64 / 1e9
}

fn report(name: &str, flop: f64, times: &[f64]) {
    let (min, median) = (times[0], times[times.len() / 2]);
    println!(
        "{name:<18} min {:8.2} ms {:6.1} GFLOP/s   median {:8.2} ms {:6.1} GFLOP/s",
        min * 1e3,
        flop / min / 1e9,
        median * 1e3,
        flop / median / 1e9
    );
}

//! Times convolutions with packed weights and with features in bytes against those with float weights, over the submanifold 3 x 3 x 3
//! relation of a wavy surface, or of a file of little-endian 32-bit rows `batch, x, y, z`.
//!
//! `cargo run --release -p lattice-cpu --example packed_timing -- [--channels 16,32,64,128] [--repeats 7] [--threads 1] [FILE.i32]`
//!
//! Prints milliseconds of processor time (Linux; elsewhere of the clock) of the least and the median call: what remains comparable when
//! others load the machine. `LATTICE_CPU_ISA` chooses the instruction set.
#![allow(clippy::unwrap_used, reason = "a developer's tool")]

use std::time::Instant;

use half::f16;
use lattice_core::{KernelSpec, Relation, Support};
use lattice_cpu::{
    ActivationCodes, ByteRows, ConvShape, Epilogue, PackedShape, PackedTaps, conv_forward, conv_int8,
    conv_packed, quantize_rows,
};

fn main() {
    let (mut channels, mut repeats, mut file) = (vec![16, 32, 64, 128, 256], 7, None);
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--channels" => channels = args.next().unwrap().split(',').map(|c| c.parse().unwrap()).collect(),
            "--repeats" => repeats = args.next().unwrap().parse().unwrap(),
            "--threads" => {
                let n = args.next().unwrap().parse().unwrap();
                rayon::ThreadPoolBuilder::new().num_threads(n).build_global().unwrap();
            }
            path => file = Some(path.to_owned()),
        }
    }
    let coords = match file {
        Some(path) => {
            let bytes = std::fs::read(path).unwrap();
            let numbers: Vec<i32> =
                bytes.chunks_exact(4).map(|b| i32::from_le_bytes(b.try_into().unwrap())).collect();
            numbers.chunks_exact(4).map(|c| [c[0], c[1], c[2], c[3]]).collect()
        }
        None => surface(),
    };
    let support = Support::canonical(coords).unwrap();
    let relation = Relation::submanifold(&support, &KernelSpec::cube(3, 1).unwrap()).unwrap();
    relation.tap_tiles();
    println!(
        "{:?}, {} threads; {} rows, {} pairs",
        lattice_cpu::current_isa(),
        rayon::current_num_threads(),
        relation.n_out(),
        relation.n_pairs()
    );
    for c in channels {
        time_channels(&relation, c, repeats);
    }
}

/// A wavy surface with some thickness: about 10 neighbours a row.
fn surface() -> Vec<[i32; 4]> {
    let height = |x: i32, y: i32| (6.0 * (x as f32 / 23.0).sin() + 5.0 * (y as f32 / 17.0).cos()) as i32;
    (0..180).flat_map(|x| (0..180).map(move |y| [0, x, y, height(x, y)])).collect()
}

fn time_channels(relation: &Relation, c: usize, repeats: usize) {
    let shape = ConvShape::dense(c, c);
    let x: Vec<f32> = (0..relation.n_in() * c).map(|i| (i % 61) as f32 / 61.0).collect();
    let rows: Vec<f32> = (0..27 * c * c).map(|i| (i % 97) as f32 / 97.0 - 0.5).collect();
    let mut y = vec![0.0f32; relation.n_out() * c];
    let epilogue = Epilogue::default();
    let codes = ActivationCodes::new(&vec![1.0 / 255.0; c], &vec![0; c]);
    let mut float = 0.0;
    for bits in [8, 4] {
        let packed =
            PackedShape::try_new("timing", bits, PackedShape::default_group_size(c), 27, [c, c]).unwrap();
        let found = quantize_rows("timing", &rows, &packed).unwrap();
        let half = |v: &[f32]| v.iter().map(|&v| f16::from_f32(v)).collect::<Vec<_>>();
        let (scales, biases) = (half(&found.scales), half(&found.biases));
        let weight = PackedTaps::new(packed, &found.words, &scales, &biases);
        if bits == 8 {
            let w = weight.dequantize();
            float =
                report(c, "f32", repeats, float, || conv_forward(&x, &w, relation, shape, &epilogue, &mut y));
            report(c, "bytes of features alone", repeats, float, || {
                ByteRows::quantize(&x, &codes, 1, packed.group_size());
            });
        }
        report(c, &format!("{bits} bits, panels"), repeats, float, || {
            conv_packed(&x, &weight, Some(relation), shape, &epilogue, &mut y);
        });
        report(c, &format!("{bits} bits, bytes"), repeats, float, || {
            conv_int8(&x, &codes, &weight, Some(relation), shape, &epilogue, &mut y);
        });
    }
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

/// Prints and returns the median in milliseconds.
fn report(c: usize, name: &str, repeats: usize, float: f64, mut f: impl FnMut()) -> f64 {
    f();
    let mut times: Vec<f64> = (0..repeats)
        .map(|_| {
            let (start, cpu) = (Instant::now(), cpu_seconds());
            f();
            match cpu_seconds() - cpu {
                spent if spent > 0.0 => spent * 1e3,
                _ => start.elapsed().as_secs_f64() * 1e3,
            }
        })
        .collect();
    times.sort_by(f64::total_cmp);
    let median = times[times.len() / 2];
    let faster = if float > 0.0 { format!("{:6.2} times f32", float / median) } else { String::new() };
    println!("{c:>4} {name:<24} least {:8.2} ms  median {median:8.2} ms {faster}", times[0]);
    median
}

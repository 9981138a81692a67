//! Times attention within patches: `attention_timing [ROWS] [LENGTH] [CHANNELS] [HEADS]`; the best of five, in milliseconds.
use std::time::Instant;

use lattice_cpu::{PatchRun, patch_attention};

#[allow(clippy::expect_used, reason = "a developer's tool")]
fn main() {
    let mut args = std::env::args().skip(1).map(|arg| arg.parse::<usize>().expect("a number"));
    let [rows, length, channels, heads] = [16_384, 1024, 32, 2].map(|usual| args.next().unwrap_or(usual));
    let runs = [PatchRun { first: 0, patches: rows / length, length }];
    let n = rows / length * length;
    let qkv: Vec<f32> = (0..3 * n * channels).map(|i| ((i * 7919) % 2039) as f32 / 1019.5 - 1.0).collect();
    let mut out = vec![0.0; n * channels];
    let best = (0..5)
        .map(|_| {
            let start = Instant::now();
            patch_attention(&qkv, &runs, channels, heads, &mut out);
            start.elapsed().as_secs_f64()
        })
        .fold(f64::INFINITY, f64::min);
    let (products, scores) = ((4 * n * length * channels) as f64, (n * length * heads) as f64);
    println!(
        "{:.2} ms, {:.1} GFLOP/s of products, {:.2} ns a score",
        1e3 * best,
        products / best / 1e9,
        1e9 * best / scores
    );
}

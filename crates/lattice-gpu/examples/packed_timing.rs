//! Times submanifold 3 x 3 x 3 convolutions with f16 weights, with packed codes and with features in bytes, on the levels of a scan.
//!
//! `packed_timing [--device cuda|vulkan] [--channels 32,64] [--levels 0,5] [--plans] FILE.i32 ..`
//!
//! A file holds little-endian 32-bit rows `batch, x, y, z`; level `l` has the rows that are left where they are halved `l` times. Times are
//! means of 100 calls one after the other, in milliseconds; groups have 64 channels, or 32 where there are fewer. `--plans` times other plans, too.
#![allow(clippy::unwrap_used, reason = "a developer's tool")]

use std::collections::BTreeSet;
use std::time::Instant;

use half::f16;
use lattice_core::{KernelSpec, RelationKind, Support};
use lattice_gpu::conv::mma::{
    Direction, Epilogue, MmaPlan, StoredCodes, conv_bytes, conv_codes, conv_mma, expand_codes,
    has_byte_units, pack_bytes, pack_codes, pack_weights,
};
use lattice_gpu::index::BlockIndex;
use lattice_gpu::tiles::{Geometry, Tiles};
use lattice_gpu::{Buffer, Gpu, Life, cubecl};

fn main() {
    run(std::env::args().skip(1));
}

/// Times what the arguments ask for.
pub fn run(mut args: impl Iterator<Item = String>) {
    let mut device = "cuda".to_string();
    let (mut channels, mut levels) = (vec![32, 64, 128, 256], vec![0, 5]);
    let (mut files, mut plans) = (Vec::new(), false);
    let numbers = |text: String| text.split(',').map(|c| c.parse().unwrap()).collect::<Vec<usize>>();
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--device" => device = args.next().unwrap(),
            "--channels" => channels = numbers(args.next().unwrap()),
            "--levels" => levels = numbers(args.next().unwrap()),
            "--plans" => plans = true,
            _ => files.push(arg),
        }
    }
    let device = match device.as_str() {
        "cuda" => cubecl::Device::cuda(0),
        "vulkan" => cubecl::Device::vulkan(Default::default()),
        other => panic!("expected --device cuda or vulkan, found {other}"),
    }
    .unwrap();
    let gpu = Gpu::new(device.client());
    for file in &files {
        let bytes = std::fs::read(file).unwrap();
        let rows: Vec<[i32; 4]> = bytes
            .chunks_exact(16)
            .map(|r| std::array::from_fn(|i| i32::from_le_bytes(r[4 * i..4 * i + 4].try_into().unwrap())))
            .collect();
        for &level in &levels {
            let coarse: BTreeSet<[i32; 4]> =
                rows.iter().map(|&[b, x, y, z]| [b, x >> level, y >> level, z >> level]).collect();
            let support = Support::canonical(coarse.into_iter().collect()).unwrap();
            for &c in &channels {
                time_level(&gpu, &format!("{file} level {level}"), &support, c, plans);
            }
        }
    }
}

fn time_level(gpu: &Gpu, name: &str, support: &Support, c: usize, plans: bool) {
    let spec = KernelSpec::cube(3, 1).unwrap();
    let n = support.n_rows();
    let flat: Vec<i32> = support.coords().iter().flatten().copied().collect();
    let coords = gpu.upload(&flat);
    let index = BlockIndex::of_canonical(gpu, &coords, n);
    let geometry = Geometry::new(RelationKind::Submanifold, &spec);
    let tiles = Tiles::build(gpu, &index, &coords, n, None, geometry).unwrap();
    let ramp = |len: usize| (0..len).map(|i| f16::from_f32(((i * 7919) % 256) as f32 / 128.0 - 1.0));
    let x = gpu.upload(&ramp(n * c).collect::<Vec<_>>());
    let w = gpu.upload(&ramp(27 * c * c).collect::<Vec<_>>());
    let none = Epilogue::none();
    let base = MmaPlan::fitted(gpu, c, c, 27, tiles.n_tiles());
    let weights = pack_weights::<f16>(gpu, &w, 27, [c, c], base, Direction::Forward, Life::Lasting);
    let float = time(gpu, || drop(conv_mma::<f16>(gpu, &x, &weights, base, &tiles, &none)));
    println!("{name}: {n} rows, {c} channels: f16 {float:.4} ms ({})", short(&base));
    for bits in [8, 4] {
        let stored = stored(gpu, bits, c);
        let mut with_codes = candidates(base, plans);
        let of_codes = MmaPlan::for_codes(gpu, bits, c, c, 27, tiles.n_tiles());
        if !with_codes.contains(&of_codes) {
            with_codes.insert(0, of_codes);
        }
        for plan in with_codes {
            let weights = pack_codes::<f16>(gpu, &stored, plan, Life::Lasting);
            let ms = time(gpu, || drop(conv_codes::<f16>(gpu, &x, &weights, plan, &tiles, &none)));
            println!(
                "    {bits}-bit codes in registers {ms:.4} ms, {:.2} times f16 ({})",
                float / ms,
                short(&plan)
            );
            let ms = time(gpu, || {
                let elements = expand_codes::<f16>(gpu, &weights);
                drop(conv_mma::<f16>(gpu, &x, &elements, plan, &tiles, &none));
            });
            println!("    {bits}-bit codes through memory {ms:.4} ms, {:.2} times f16", float / ms);
        }
    }
    if !has_byte_units(gpu) {
        println!("    no matrix units for bytes");
        return;
    }
    let steps: Vec<f32> = (0..2 * c).map(|i| if i < c { 2.0 / 255.0 } else { 127.0 }).collect();
    let steps = gpu.upload(&steps);
    for bits in [8, 4] {
        let stored = stored(gpu, bits, c);
        let best = MmaPlan::for_bytes(gpu, c, c, 27, tiles.n_tiles());
        for plan in candidates(best, plans) {
            let weights = pack_bytes(gpu, &stored, &steps, plan, Life::Lasting);
            let ms = time(gpu, || drop(conv_bytes::<f16>(gpu, &x, &weights, plan, &tiles, &none)));
            println!(
                "    bytes by {bits}-bit codes {ms:.4} ms, {:.2} times f16 ({})",
                float / ms,
                short(&plan)
            );
        }
    }
}

/// A plan, and others like it where they are asked for.
fn candidates(best: MmaPlan, plans: bool) -> Vec<MmaPlan> {
    let mut all = vec![best];
    if plans {
        for (row_groups, slice_groups, slices) in
            [(8, 1, 2), (8, 2, 2), (8, 1, 4), (4, 1, 2), (4, 2, 2), (4, 1, 4), (4, 2, 4), (8, 2, 4)]
        {
            for depth in [best.depth, best.depth.min(64)] {
                let plan = MmaPlan { row_groups, slice_groups, slices, depth, ..best };
                if !all.contains(&plan) {
                    all.push(plan);
                }
            }
        }
    }
    all
}

fn short(plan: &MmaPlan) -> String {
    format!(
        "{}x{}x{}, depth {}, grain {}, splits {}x{}",
        plan.row_groups,
        plan.slice_groups,
        plan.slices,
        plan.depth,
        plan.grain,
        plan.part_splits,
        plan.tap_splits
    )
}

fn stored(gpu: &Gpu, bits: u32, c: usize) -> StoredCodes {
    let group_size = if c >= 64 { 64 } else { 32 };
    let groups = c.div_ceil(group_size);
    let words: Vec<u32> = (0..27 * c * groups * group_size * bits as usize / 32)
        .map(|i| (i as u32).wrapping_mul(2_654_435_761))
        .collect();
    let halves = |value: f32| -> Buffer { gpu.upload(&vec![f16::from_f32(value); 27 * c * groups]) };
    let step = 2.0 / ((1 << bits) - 1) as f32;
    StoredCodes {
        words: gpu.upload(&words),
        scales: halves(step),
        biases: halves(-1.0),
        half_scales: true,
        bits,
        group_size,
        taps: 27,
        c_in: c,
        c_out: c,
    }
}

/// Mean time of 100 calls one after the other between two waits, in milliseconds.
fn time(gpu: &Gpu, call: impl Fn()) -> f64 {
    let wait = || cubecl::future::block_on(gpu.client().sync()).unwrap();
    for _ in 0..5 {
        call();
    }
    wait();
    let start = Instant::now();
    for _ in 0..100 {
        call();
    }
    wait();
    start.elapsed().as_secs_f64() * 10.0
}

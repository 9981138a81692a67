//! Times the index, the tiles and the convolutions of a submanifold 3 x 3 x 3 relation on a device, and checks them.
//!
//! `conv_timing [--device cuda|vulkan] [--channels 32,64] [--plans] [--few] [--plan PLAN ..] [--fragments PLAN ..] FILE.i32 ..`
//!
//! A file holds little-endian 32-bit rows `batch, x, y, z`; they are taken in canonical order. Times are medians of device time.
//! Every convolution is compared with sums in f64 on sampled rows. `--plans` times ways to share a tile among planes, `--few` those for few tiles,
//! `--plan` the one that [`plan_of`] reads, as in `4,1,4,64,2,dsao4`; all without gradients. `--fragments` times only the kernel whose fragments the
//! device lays out, by the plan `PLANES,SIDES,COLUMNS,STEPS`, or by the one that the library chooses for `chosen`.
#![allow(clippy::unwrap_used, reason = "a developer's tool")]

use std::time::Instant;

use half::f16;
use lattice_core::{Form, KernelSpec, Relation, RelationKind, Support};
use lattice_gpu::Life;
use lattice_gpu::conv::ConvShape;
use lattice_gpu::conv::cmma::{CmmaPlan, conv_cmma, pack_fragments};
use lattice_gpu::conv::mma::{Direction, Epilogue, MmaPlan, conv_mma, pack_weights};
use lattice_gpu::conv::weight_grad::{DevicePairs, weight_grad};
use lattice_gpu::index::BlockIndex;
use lattice_gpu::tiles::{Geometry, Tiles};
use lattice_gpu::{Buffer, Gpu, cubecl};

fn main() {
    run(std::env::args().skip(1));
}

/// Times what the arguments ask for.
pub fn run(mut args: impl Iterator<Item = String>) {
    let mut device = "cuda".to_string();
    let (mut channels, mut files, mut plans, mut few) = (vec![16, 32, 64, 96, 128], Vec::new(), false, false);
    let (mut given, mut fragments) = (Vec::new(), Vec::new());
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--device" => device = args.next().unwrap(),
            "--channels" => channels = args.next().unwrap().split(',').map(|c| c.parse().unwrap()).collect(),
            "--plans" => plans = true,
            "--few" => few = true,
            "--plan" => given.push(plan_of(&args.next().unwrap())),
            "--fragments" => fragments.push(args.next().unwrap()),
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
    println!("{device:?}: {:?}", gpu.client().properties().hardware);
    for file in &files {
        run_file(&gpu, file, &channels, [plans, few], &given, &fragments);
    }
}

fn run_file(
    gpu: &Gpu,
    file: &str,
    channels: &[usize],
    [plans, few]: [bool; 2],
    given: &[MmaPlan],
    fragments: &[String],
) {
    let bytes = std::fs::read(file).unwrap();
    let rows: Vec<[i32; 4]> = bytes
        .chunks_exact(16)
        .map(|r| std::array::from_fn(|i| i32::from_le_bytes(r[4 * i..4 * i + 4].try_into().unwrap())))
        .collect();
    let as_they_stand = gpu.upload(rows.as_flattened());
    let support = Support::canonical(rows).unwrap();
    let spec = KernelSpec::cube(3, 1).unwrap();
    let relation = Relation::submanifold(&support, &spec).unwrap();
    let n = support.n_rows();
    let flat: Vec<i32> = support.coords().iter().flatten().copied().collect();
    let coords = gpu.upload(&flat);
    let geometry = Geometry::new(RelationKind::Submanifold, &spec);

    let index = BlockIndex::of_canonical(gpu, &coords, n);
    let tiles = Tiles::build(gpu, &index, &coords, n, None, geometry).unwrap();
    println!(
        "\n{file}: {n} rows, {} pairs, {} phases, halo {:.3} a row, {:.1} bytes a row, duplicates {}",
        tiles.n_pairs(),
        tiles.phases(),
        tiles.halo_rows() as f64 / n as f64,
        tiles.bytes() as f64 / n as f64,
        index.duplicates(gpu)
    );
    check_pairs(gpu, &relation, &tiles);
    if !fragments.is_empty() {
        for &c in channels {
            time_fragments(gpu, &relation, &tiles, c, fragments);
        }
        return;
    }
    time(gpu, "index", || {
        BlockIndex::of_canonical(gpu, &coords, n);
    });
    time(gpu, "index of the rows as they stand", || {
        BlockIndex::build(gpu, &as_they_stand, n);
    });
    time(gpu, "that and its order", || {
        assert!(BlockIndex::build(gpu, &as_they_stand, n).order(gpu).is_some());
    });
    let listed = BlockIndex::build(gpu, &as_they_stand, n);
    if let Some(order) = listed.order(gpu) {
        time(gpu, "tiles in that order", || {
            Tiles::build(gpu, &listed, &as_they_stand, n, Some(order), geometry).unwrap();
        });
    }
    time(gpu, "tiles", || {
        Tiles::build(gpu, &index, &coords, n, None, geometry).unwrap();
    });
    let back = Tiles::build(gpu, &index, &coords, n, None, geometry.swapped()).unwrap();
    let pairs = DevicePairs::from_host(gpu, &relation).unwrap();
    for &c in channels {
        let x = ramp(n * c);
        let w = ramp(27 * c * c);
        let (dx, dw) = (upload(gpu, &x), upload(gpu, &w));
        let best = MmaPlan::choose(gpu, c, c);
        let mut candidates = vec![best];
        if plans {
            // Sums of a plane take 128 registers at most.
            for (row_groups, slice_groups, most_slices) in
                [(8, 1, 4), (8, 2, 4), (4, 1, 4), (4, 2, 4), (2, 2, 2)]
            {
                let slices = (1..=most_slices)
                    .rev()
                    .min_by_key(|&slices| c.next_multiple_of(16 * slices * slice_groups))
                    .unwrap();
                for table_staged in [true, false] {
                    // Registers of the sums, of the weights held and of the voxels; all of a cube's must fit.
                    let registers = 32 / row_groups * slices * 4 + 8 * slices + 44;
                    let fits = registers <= 250 && registers * row_groups * slice_groups * 32 <= 65_536;
                    let depths = if slice_groups == 2 {
                        [best.depth.min(64), best.depth]
                    } else {
                        [best.depth.min(64); 2]
                    };
                    for depth in depths.into_iter().filter(|_| fits) {
                        let grain = best.grain;
                        let plan = MmaPlan {
                            row_groups,
                            slice_groups,
                            slices,
                            depth,
                            grain,
                            dealt: true,
                            table_staged,
                            ahead: false,
                            together: 2,
                            singly: false,
                            told: false,
                            part_splits: 1,
                            tap_splits: 1,
                        };
                        if !candidates.contains(&plan) {
                            candidates.push(plan);
                        }
                    }
                }
            }
        }
        if few {
            candidates.push(MmaPlan::fitted(gpu, c, c, 27, n.div_ceil(256)));
            candidates.extend(few_tiles(best, c));
        }
        candidates.extend(given.iter().filter(|plan| {
            plan.slice_groups * plan.slices * 16 <= c.max(16) && plan.depth * plan.part_splits <= c.max(16)
        }));
        for plan in candidates {
            let weights = pack_weights::<f16>(gpu, &dw, 27, [c, c], plan, Direction::Forward, Life::Lasting);
            let y = conv_mma::<f16>(gpu, &dx, &weights, plan, &tiles, &Epilogue::none());
            let error = sampled_error(&relation, &x, &w, &download(gpu, &y), c);
            let name = format!(
                "conv {c}: rows/{} out/{}x{} depth {} grain {} splits {}x{}{}{}{}{}{} together {}",
                plan.row_groups,
                plan.slice_groups,
                plan.slices,
                plan.depth,
                plan.grain,
                plan.part_splits,
                plan.tap_splits,
                if plan.dealt { " dealt" } else { "" },
                if plan.table_staged { " staged" } else { "" },
                if plan.ahead { " ahead" } else { "" },
                if plan.singly { " one by one" } else { "" },
                if plan.told { " told" } else { "" },
                plan.together
            );
            let ms = time(gpu, &name, || {
                conv_mma::<f16>(gpu, &dx, &weights, plan, &tiles, &Epilogue::none());
            });
            println!(
                "    {:.1} TFLOP/s, error {error:.1e}",
                2.0 * relation.n_pairs() as f64 * (c * c) as f64 / ms / 1e9
            );
            assert!(error < 2e-3, "the error is above rounding");
        }
        if !plans && !few && given.is_empty() {
            gradients(gpu, &relation, &tiles, &back, &pairs, (&x, &dx), (&w, &dw), c);
        }
        let plan = MmaPlan::choose(gpu, c, c);
        time(gpu, "pack weights", || {
            pack_weights::<f16>(gpu, &dw, 27, [c, c], plan, Direction::Forward, Life::Lasting);
        });
    }
}

/// Times the kernel whose fragments the device lays out, by plans in words.
fn time_fragments(gpu: &Gpu, relation: &Relation, tiles: &Tiles, c: usize, plans: &[String]) {
    let (x, w) = (ramp(tiles.n_in() * c), ramp(27 * c * c));
    let (dx, dw) = (upload(gpu, &x), upload(gpu, &w));
    let order = (Direction::Forward, false);
    for words in plans {
        let plan = match words.as_str() {
            "chosen" => CmmaPlan::choose(c, c),
            words => {
                let mut numbers = words.split(',').map(|n| n.parse::<usize>().unwrap());
                let [planes, sides, columns, steps] = std::array::from_fn(|_| numbers.next().unwrap());
                CmmaPlan { planes: planes as u32, sides, columns, steps }
            }
        };
        if plan.columns.max(plan.steps) * 16 > c.max(16) {
            continue;
        }
        let weights = pack_fragments::<f16>(gpu, &dw, 27, [c, c], plan, order, Life::Lasting);
        let y = conv_cmma::<f16>(gpu, &dx, &weights, tiles, &Epilogue::none());
        let error = sampled_error(relation, &x, &w, &download(gpu, &y), c);
        let ms = time(gpu, &format!("fragments {c}: {plan:?}"), || {
            conv_cmma::<f16>(gpu, &dx, &weights, tiles, &Epilogue::none());
        });
        let products = 2.0 * relation.n_pairs() as f64 * (c * c) as f64;
        println!("    {:.1} TFLOP/s, error {error:.1e}", products / ms / 1e9);
        assert!(error < 2e-3, "the error is above rounding");
    }
}

/// A plan in words: `ROW_GROUPS,SLICE_GROUPS,SLICES,DEPTH,GRAIN,FLAGS[,PART_SPLITS,TAP_SPLITS]` with flags `d` (dealt), `s` (table staged), `a` (weights ahead), `o`
/// (few chunks one by one), `t` (told of its sizes) and a number (chunks multiplied together, 2).
fn plan_of(text: &str) -> MmaPlan {
    let mut words = text.split(',');
    let mut number = || words.next().unwrap().parse().unwrap();
    let [row_groups, slice_groups, slices, depth, grain] = std::array::from_fn(|_| number());
    let flags = words.next().unwrap_or_default();
    let mut splits = || words.next().map_or(1, |n| n.parse().unwrap());
    let [part_splits, tap_splits] = std::array::from_fn(|_| splits());
    MmaPlan {
        row_groups,
        slice_groups,
        slices,
        depth,
        grain,
        dealt: flags.contains('d'),
        table_staged: flags.contains('s'),
        ahead: flags.contains('a'),
        together: (1..=8).rev().find(|n| flags.contains(&n.to_string())).unwrap_or(2),
        singly: flags.contains('o'),
        told: flags.contains('t'),
        part_splits,
        tap_splits,
    }
}

/// Ways to share few tiles.
fn few_tiles(best: MmaPlan, c: usize) -> Vec<MmaPlan> {
    let depth = best.depth.min(64);
    let narrow = MmaPlan {
        slice_groups: 1,
        slices: 2,
        depth,
        dealt: true,
        table_staged: true,
        ahead: false,
        together: 2,
        singly: false,
        told: true,
        ..best
    };
    let grains = [depth / 16, 2];
    let mut plans: Vec<_> = [8, 16]
        .into_iter()
        .flat_map(|row_groups| grains.map(|grain| MmaPlan { row_groups, grain, ..narrow }))
        .collect();
    for (part_splits, tap_splits) in [(1, 2), (1, 3), (2, 1), (2, 2), (4, 1)] {
        if part_splits * depth <= c {
            plans.push(MmaPlan { row_groups: 8, grain: depth / 16, part_splits, tap_splits, ..narrow });
        }
    }
    plans
}

/// Times both gradients of the sum of `y * x` (so that the gradient of `y` is `x`), and checks samples of them.
#[allow(clippy::too_many_arguments, reason = "the operands on the host and on the device")]
fn gradients(
    gpu: &Gpu,
    relation: &Relation,
    tiles: &Tiles,
    back: &Tiles,
    pairs: &DevicePairs,
    (x, dx): (&[f16], &Buffer),
    (w, dw): (&[f16], &Buffer),
    c: usize,
) {
    let plan = MmaPlan::choose(gpu, c, c);
    let input_grad = || {
        let weights = pack_weights::<f16>(gpu, dw, 27, [c, c], plan, Direction::Backward, Life::Lasting);
        conv_mma::<f16>(gpu, dx, &weights, plan, back, &Epilogue::none())
    };
    let transposed: Vec<f16> =
        (0..27 * c * c).map(|i| w[(i / (c * c)) * c * c + (i % c) * c + (i / c) % c]).collect();
    let error = sampled_error(&relation.transpose(), x, &transposed, &download(gpu, &input_grad()), c);
    let dgrad = time(gpu, &format!("conv {c} input gradient with packing"), || drop(input_grad()));
    println!("    error {error:.1e}");
    assert!(error < 2e-3, "the error is above rounding");
    let shape = ConvShape::dense(c, c);
    let weight_gradient = || weight_grad::<f16, f32>(gpu, dx, dx, pairs, shape);
    let found: Vec<f32> = gpu.download(&weight_gradient());
    let (mut worst, mut largest) = (0.0f64, 0.0f64);
    for tap in [0u16, 4, 13, 25] {
        let edges: Vec<_> = relation.edges().into_iter().filter(|e| e.tap == tap).collect();
        for (i, o) in [(0, 0), (1, c - 1), (c / 2, 3), (c - 1, c - 1)] {
            let term = |e: &lattice_core::Edge| {
                x[e.in_row as usize * c + i].to_f64() * x[e.out_row as usize * c + o].to_f64()
            };
            let sum: f64 = edges.iter().map(term).sum();
            worst = worst.max((sum - f64::from(found[(tap as usize * c + i) * c + o])).abs());
            largest = largest.max(edges.iter().map(|e| term(e).abs()).sum());
        }
    }
    let wgrad = time(gpu, &format!("conv {c} weight gradient"), || drop(weight_gradient()));
    println!("    error {:.1e}", worst / largest);
    assert!(worst / largest < 3e-5, "the error is above rounding");
    let forward = time(gpu, &format!("conv {c} forward with packing"), || {
        let weights = pack_weights::<f16>(gpu, dw, 27, [c, c], plan, Direction::Forward, Life::Lasting);
        conv_mma::<f16>(gpu, dx, &weights, plan, tiles, &Epilogue::none());
    });
    println!("  conv {c} forward and gradients: {:.4} ms", dgrad + wgrad + forward);
}

fn upload(gpu: &Gpu, values: &[f16]) -> Buffer {
    gpu.upload(values)
}

fn download(gpu: &Gpu, buffer: &Buffer) -> Vec<f16> {
    gpu.download(buffer)
}

fn ramp(len: usize) -> Vec<f16> {
    let mut state = 12345u32;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        f16::from_f32((state >> 8) as f32 / (1 << 23) as f32 - 1.0)
    };
    (0..len).map(|_| next()).collect()
}

fn check_pairs(gpu: &Gpu, relation: &Relation, tiles: &Tiles) {
    let mut found = tiles.pairs_to_host(gpu);
    found.sort_unstable_by_key(|&(i, o, t)| (o, t, i));
    let mut expected: Vec<(u32, u32, u32)> =
        relation.edges().iter().map(|e| (e.in_row, e.out_row, u32::from(e.tap))).collect();
    expected.sort_unstable_by_key(|&(i, o, t)| (o, t, i));
    assert_eq!(found.len(), expected.len(), "pairs");
    assert!(found == expected, "the pairs are those of the host");
    println!("  pairs equal those of the host");
}

/// Largest error of sampled rows against sums in f64, relative to the largest value.
fn sampled_error(relation: &Relation, x: &[f16], w: &[f16], y: &[f16], c: usize) -> f64 {
    let n = relation.n_out();
    let (mut worst, mut largest) = (0.0f64, 0.0f64);
    let step = (n / 211).max(1);
    let mut sums = vec![0.0f64; c];
    let edges: Vec<_> =
        relation.edges().into_iter().filter(|e| (e.out_row as usize).is_multiple_of(step)).collect();
    for run in edges.chunk_by(|a, b| a.out_row == b.out_row) {
        sums.fill(0.0);
        for e in run {
            for i in 0..c {
                let xi = x[e.in_row as usize * c + i].to_f64();
                for (o, sum) in sums.iter_mut().enumerate() {
                    *sum += xi * w[(e.tap as usize * c + i) * c + o].to_f64();
                }
            }
        }
        for (o, &sum) in sums.iter().enumerate() {
            worst = worst.max((sum - y[run[0].out_row as usize * c + o].to_f64()).abs());
            largest = largest.max(sum.abs());
        }
    }
    worst / largest
}

/// Median device time of 30 calls, and the mean time of 100 calls one after the other; in milliseconds.
fn time(gpu: &Gpu, name: &str, call: impl Fn() + Send + Sync) -> f64 {
    for _ in 0..3 {
        call();
    }
    let mut times: Vec<f64> = (0..30)
        .filter_map(|_| {
            let (_, duration) = gpu.client().profile(&call, name).ok()?;
            let ticks = cubecl::future::block_on(duration.resolve())?;
            Some(ticks.duration().as_secs_f64() * 1e3)
        })
        .collect();
    times.sort_by(f64::total_cmp);
    cubecl::future::block_on(gpu.client().sync()).unwrap();
    let start = Instant::now();
    for _ in 0..100 {
        call();
    }
    cubecl::future::block_on(gpu.client().sync()).unwrap();
    let mean = start.elapsed().as_secs_f64() * 10.0;
    let median = times.get(times.len() / 2).copied().unwrap_or(mean);
    println!(
        "  {name}: median {median:.4} ms, min {:.4}, back to back {mean:.4}",
        times.first().copied().unwrap_or(mean)
    );
    median
}

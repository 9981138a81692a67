//! Tiles, convolutions and their gradients against plain loops in `f64`, on every device.
#![cfg(feature = "cubecl")]
#![allow(clippy::unwrap_used, reason = "tests")]

mod harness;

use half::{bf16, f16};
use harness::{Element, Numbers, absolute, assert_close, cases, devices, is_software, upload_support, wide};
use lattice_core::{Form, KernelSpec, Relation, RelationKind, Support, SupportPolicy};
use lattice_gpu::conv::cmma::{CmmaPlan, conv_cmma, has_fragments, pack_fragments};
use lattice_gpu::conv::direct::{conv_direct, pointwise_direct};
use lattice_gpu::conv::mma::{
    After, Direction, Epilogue, MmaPlan, conv_mma, has_matrix_units, has_tf32, pack_weights,
    pack_weights_mirrored,
};
use lattice_gpu::conv::plain::{conv_plain, pointwise_plain};
use lattice_gpu::conv::weight_grad::{DevicePairs, pointwise_weight_grad, weight_grad};
use lattice_gpu::conv::{ConvShape, reverse_taps};
use lattice_gpu::index::BlockIndex;
use lattice_gpu::tiles::{Geometry, Tiles};
use lattice_gpu::{Buffer, Gpu, Life};
use lattice_testkit::convolution::{Channels, convolve, convolve_input_grad, convolve_weight_grad};

const FORWARD: Direction = Direction::Forward;
const BACKWARD: Direction = Direction::Backward;

/// A relation, its tiles in both directions and its pairs.
struct Case {
    relation: Relation,
    edges: Vec<(u32, u32, u16)>,
    tiles: Tiles,
    swapped: Tiles,
    /// Copied from the host, and listed on the device.
    pairs: [DevicePairs; 2],
}

impl Case {
    fn new(gpu: &Gpu, relation: Relation) -> Self {
        let source = upload_support(gpu, relation.source());
        // One buffer where there is one support: tiles then number their own rows without a search.
        let target = match relation.source().same_identity(relation.target()) {
            true => source.clone(),
            false => upload_support(gpu, relation.target()),
        };
        let geometry = Geometry::new(relation.kind(), relation.spec());
        let tiles_of = |from: &Buffer, rows: &Support, onto: &Buffer, n_onto: usize, geometry| {
            let index = match rows.is_canonical() {
                true => BlockIndex::of_canonical(gpu, from, rows.n_rows()),
                false => BlockIndex::build(gpu, from, rows.n_rows()),
            };
            assert_eq!(index.duplicates(gpu), 0);
            Tiles::build(gpu, &index, onto, n_onto, None, geometry).unwrap()
        };
        let (from, onto) = (relation.source(), relation.target());
        let tiles = tiles_of(&source, from, &target, onto.n_rows(), geometry);
        let swapped = tiles_of(&target, onto, &source, from.n_rows(), geometry.swapped());
        let mut expected: Vec<_> =
            relation.edges().iter().map(|e| (e.in_row, e.out_row, u32::from(e.tap))).collect();
        expected.sort_unstable();
        let mut found = tiles.pairs_to_host(gpu);
        found.sort_unstable();
        assert_eq!(found, expected, "pairs of the tiles");
        let mut found: Vec<_> =
            swapped.pairs_to_host(gpu).into_iter().map(|(o, i, tap)| (i, o, tap)).collect();
        found.sort_unstable();
        assert_eq!(found, expected, "pairs of the swapped tiles");
        let pairs = [DevicePairs::from_host(gpu, &relation).unwrap(), DevicePairs::from_tiles(gpu, &tiles)];
        for pairs in &pairs {
            let mut found = pairs.pairs_to_host(gpu);
            assert!(found.is_sorted_by_key(|&(.., tap)| tap), "pairs by tap");
            found.sort_unstable();
            assert_eq!(found, expected, "pairs by tap");
        }
        let edges = relation.edges().iter().map(|e| (e.in_row, e.out_row, e.tap)).collect();
        Self { relation, edges, tiles, swapped, pairs }
    }

    fn check<T: Element>(&self, device: &str, gpu: &Gpu, shape: ConvShape) {
        if !T::runs_on(gpu) {
            return;
        }
        let mut numbers = Numbers(7);
        let (n_in, n_out, taps) = (self.relation.n_in(), self.relation.n_out(), self.relation.taps());
        let what = |op: &str| format!("{op} on {device}, {shape:?}, {taps} taps, {n_in} to {n_out} rows");
        let channels = Channels::grouped(shape.c_in, shape.c_out, shape.groups);
        let x: Vec<T> = numbers.values(n_in * shape.c_in);
        let g: Vec<T> = numbers.values(n_out * shape.c_out);
        let w: Vec<T> = numbers.values(shape.weights(taps));
        let [wx, wg, ww] = [&x, &g, &w].map(|v| wide(v));
        let [ax, ag, aw] = [&wx, &wg, &ww].map(|v| absolute(v));
        let y = convolve(&wx, &ww, None, &self.edges, n_out, channels);
        let y_size = convolve(&ax, &aw, None, &self.edges, n_out, channels);
        let dx = convolve_input_grad(&wg, &ww, &self.edges, n_in, channels);
        let dx_size = convolve_input_grad(&ag, &aw, &self.edges, n_in, channels);
        let dw = convolve_weight_grad(&wx, &wg, &self.edges, taps, channels);
        let dw_size = convolve_weight_grad(&ax, &ag, &self.edges, taps, channels);
        let [x, g, w] = [&x, &g, &w].map(|v| gpu.upload(v));
        let none = Epilogue::none();
        let read = |buffer: &Buffer| gpu.download::<T>(buffer);

        let found = conv_direct::<T>(gpu, &x, &w, &self.tiles, shape, FORWARD, &none);
        assert_close(&what("direct"), &read(&found), &y, &y_size);
        let found = conv_direct::<T>(gpu, &g, &w, &self.swapped, shape, BACKWARD, &none);
        assert_close(&what("input gradient, direct"), &read(&found), &dx, &dx_size);
        if shape.groups == 1 {
            let found = conv_plain::<T>(gpu, &x, &w, &self.tiles, shape, FORWARD, &none);
            assert_close(&what("plain"), &read(&found), &y, &y_size);
            let found = conv_plain::<T>(gpu, &g, &w, &self.swapped, shape, BACKWARD, &none);
            assert_close(&what("input gradient, plain"), &read(&found), &dx, &dx_size);
        }
        if shape.groups == 1 && on_matrix_units::<T>(gpu) {
            for plan in plans(gpu, shape.c_in * T::HALVES, shape.c_out) {
                let found =
                    mma::<T>(gpu, [&x, &w], &self.tiles, [shape.c_in, shape.c_out], plan, FORWARD, &none);
                assert_close(&what(&format!("{plan:?}")), &read(&found), &y, &rounded::<T>(&y_size));
                let found =
                    mma::<T>(gpu, [&g, &w], &self.swapped, [shape.c_out, shape.c_in], plan, BACKWARD, &none);
                let what = what(&format!("input gradient, {plan:?}"));
                assert_close(&what, &read(&found), &dx, &rounded::<T>(&dx_size));
            }
        }
        if shape.groups == 1 && size_of::<T>() == 2 && has_fragments(gpu, T::elem_type_native()) {
            let fragments = |w: &Buffer, channels, plan, direction, reversed| {
                pack_fragments::<T>(gpu, w, taps as u32, channels, plan, (direction, reversed), Life::Passing)
            };
            for plan in fragment_plans(shape.c_in, shape.c_out) {
                let packed = fragments(&w, [shape.c_in, shape.c_out], plan, FORWARD, false);
                let found = conv_cmma::<T>(gpu, &x, &packed, &self.tiles, &none);
                assert_close(&what(&format!("cmma, {plan:?}")), &read(&found), &y, &y_size);
            }
            let back = [shape.c_out, shape.c_in];
            let plan = CmmaPlan::choose(shape.c_out, shape.c_in);
            let packed = fragments(&w, back, plan, BACKWARD, false);
            let found = conv_cmma::<T>(gpu, &g, &packed, &self.swapped, &none);
            assert_close(&what("input gradient, cmma"), &read(&found), &dx, &dx_size);
            if self.relation.is_symmetric() {
                let packed = fragments(&w, back, plan, BACKWARD, true);
                let found = conv_cmma::<T>(gpu, &g, &packed, &self.tiles, &none);
                assert_close(&what("input gradient by mirrored fragments"), &read(&found), &dx, &dx_size);
            }
        }
        for pairs in &self.pairs {
            let found = weight_grad::<T, f32>(gpu, &x, &g, pairs, shape);
            assert_close(&what("weight gradient in f32"), &gpu.download::<f32>(&found), &dw, &dw_size);
            let found = weight_grad::<T, T>(gpu, &x, &g, pairs, shape);
            assert_close(&what("weight gradient"), &read(&found), &dw, &dw_size);
        }
        if self.relation.is_symmetric() {
            let mirrored = reverse_taps::<T>(gpu, &w, taps);
            let found = conv_direct::<T>(gpu, &g, &mirrored, &self.tiles, shape, BACKWARD, &none);
            assert_close(&what("input gradient by mirrored taps"), &read(&found), &dx, &dx_size);
            if shape.groups == 1 && on_matrix_units::<T>(gpu) {
                let (from, onto) = (shape.c_out, shape.c_in);
                let plan = MmaPlan::choose(gpu, from * T::HALVES, onto);
                let packed =
                    pack_weights_mirrored::<T>(gpu, &w, taps as u32, [from, onto], plan, Life::Lasting);
                let found = conv_mma::<T>(gpu, &g, &packed, plan, &self.tiles, &none);
                let what = what("input gradient by mirrored weights");
                assert_close(&what, &read(&found), &dx, &rounded::<T>(&dx_size));
            }
        }
    }

    fn check_dtypes(&self, device: &str, gpu: &Gpu, shape: ConvShape) {
        self.check_most(device, gpu, shape, true);
    }

    /// All types but bf16 where that is not asked for: its kernels differ from those of f16 by the type alone, and each takes long to compile.
    fn check_most(&self, device: &str, gpu: &Gpu, shape: ConvShape, with_bf16: bool) {
        self.check::<f32>(device, gpu, shape);
        if is_software(gpu) {
            println!("{shape:?}: f32 alone on a software device");
            return;
        }
        self.check::<f16>(device, gpu, shape);
        if with_bf16 {
            self.check::<bf16>(device, gpu, shape);
        }
    }
}

/// Ways to share a tile among planes whose fragments the device lays out: the one that is chosen, and one with a single fragment of rows.
fn fragment_plans(c_in: usize, c_out: usize) -> [CmmaPlan; 2] {
    let chosen = CmmaPlan::choose(c_in, c_out);
    [chosen, CmmaPlan { planes: 8, sides: 1, columns: chosen.columns.div_ceil(2), steps: 1 }]
}

/// Whether a device multiplies elements of this type with fragments that kernels lay out.
fn on_matrix_units<T: Element>(gpu: &Gpu) -> bool {
    if T::HALVES == 1 { has_matrix_units(gpu) } else { has_tf32(gpu) }
}

/// Sizes of sums whose factors were rounded: f32 is multiplied as tf32, which has 13 bits less.
fn rounded<T: Element>(size: &[f64]) -> Vec<f64> {
    size.iter().map(|size| if T::HALVES == 1 { *size } else { size * 8192.0 }).collect()
}

/// The plan that is chosen for some channels, in halves of 16 bits, and one of every other form.
fn plans(gpu: &Gpu, c_in: usize, c_out: usize) -> Vec<MmaPlan> {
    let mut plans = all_plans(gpu, c_in, c_out);
    plans.retain(|plan| gpu.is_coherent() || plan.part_splits * plan.tap_splits == 1);
    plans
}

fn all_plans(gpu: &Gpu, c_in: usize, c_out: usize) -> Vec<MmaPlan> {
    let form = |[row_groups, slice_groups, slices]: [usize; 3], depth, grain, dealt, table_staged| MmaPlan {
        row_groups,
        slice_groups,
        slices,
        depth,
        grain,
        dealt,
        table_staged,
        ahead: false,
        together: 2,
        singly: false,
        told: true,
        part_splits: 1,
        tap_splits: 1,
    };
    let shared = |part_splits, tap_splits, plan| MmaPlan { part_splits, tap_splits, ..plan };
    vec![
        MmaPlan::choose(gpu, c_in, c_out),
        // On a device with many multiprocessors, what few and fewer rows take.
        MmaPlan::fitted(gpu, c_in, c_out, 27, 200),
        MmaPlan::fitted(gpu, c_in, c_out, 27, 1),
        MmaPlan { ahead: true, together: 4, singly: true, ..form([4, 1, 4], 64, 2, true, true) },
        MmaPlan { ahead: true, together: 4, ..shared(2, 2, form([4, 1, 3], 96, 2, true, true)) },
        form([4, 1, 2], 16, 1, true, true),
        form([8, 2, 1], 32, 2, false, true),
        form([2, 2, 1], 64, 2, true, false),
        form([4, 1, 4], 64, 2, true, true),
        form([8, 1, 2], 64, 4, false, false),
        shared(2, 1, form([8, 1, 2], 32, 2, true, true)),
        shared(1, 3, form([16, 1, 1], 64, 4, true, true)),
        shared(2, 2, form([4, 1, 2], 64, 4, true, true)),
    ]
}

/// Packs the weight and convolves; the channels are those of the direction.
fn mma<T: Element>(
    gpu: &Gpu,
    [x, w]: [&Buffer; 2],
    tiles: &Tiles,
    [c_in, c_out]: [usize; 2],
    plan: MmaPlan,
    direction: Direction,
    epilogue: &Epilogue,
) -> Buffer {
    let packed = pack_weights::<T>(gpu, w, tiles.taps(), [c_in, c_out], plan, direction, Life::Passing);
    conv_mma::<T>(gpu, x, &packed, plan, tiles, epilogue)
}

fn cube(size: u32, stride: u32) -> KernelSpec {
    KernelSpec::cube(size, stride).unwrap()
}

#[test]
fn any_channels_match_the_loops() {
    let support = Numbers(1).support(600, 5);
    for (device, gpu) in devices() {
        let case = Case::new(&gpu, Relation::submanifold(&support, &cube(3, 1)).unwrap());
        // Vectors on one side alone first.
        let all = [
            (3, 8),
            (8, 3),
            (1, 1),
            (20, 64),
            (64, 70),
            (70, 20),
            (8, 136),
            (136, 70),
            (128, 72),
            (200, 128),
        ];
        for (at, (c_in, c_out)) in cases(&gpu, "channels", all, 1).into_iter().enumerate() {
            case.check_most(&device, &gpu, ConvShape::dense(c_in, c_out), at % 3 == 0);
        }
    }
}

/// A million pairs, from which on blocks of the weight gradient are wide: sums of some channels of some taps.
#[test]
fn wide_blocks_of_the_weight_gradient_match_the_loops() {
    let rows: Vec<_> =
        (0..35).flat_map(|x| (0..35).flat_map(move |y| (0..35).map(move |z| [0, x, y, z]))).collect();
    let relation = Relation::submanifold(&Support::canonical(rows).unwrap(), &cube(3, 1)).unwrap();
    assert!(relation.n_pairs() > 1_000_000, "pairs");
    for (device, gpu) in devices() {
        if !has_matrix_units(&gpu) {
            println!(
                "wide blocks: left out on {device}, which has no matrix units whose fragments kernels lay out"
            );
            continue;
        }
        let pairs = DevicePairs::from_host(&gpu, &relation).unwrap();
        for (c_in, c_out) in [(128, 128), (200, 250), (96, 96), (96, 180)] {
            let (mut numbers, n) = (Numbers(31), relation.n_out());
            let (x, g) = (numbers.values::<f16>(n * c_in), numbers.values::<f16>(n * c_out));
            let (dx, dg) = (gpu.upload(&x), gpu.upload(&g));
            let found: Vec<f32> =
                gpu.download(&weight_grad::<f16, f32>(&gpu, &dx, &dg, &pairs, ConvShape::dense(c_in, c_out)));
            for tap in [0u16, 13, 22] {
                let edges: Vec<_> = relation.edges().into_iter().filter(|e| e.tap == tap).collect();
                for (i, o) in [(0, 0), (c_in - 1, c_out - 1), (c_in / 2 + 1, 3), (7, c_out / 2 + 1)] {
                    let terms = edges.iter().map(|e| {
                        let (i, o) = (e.in_row as usize * c_in + i, e.out_row as usize * c_out + o);
                        x[i].to_f64() * g[o].to_f64()
                    });
                    let (sum, size) = terms.fold((0.0, 0.0), |(sum, size), t| (sum + t, size + t.abs()));
                    let at = (usize::from(tap) * c_in + i) * c_out + o;
                    let error = (f64::from(found[at]) - sum).abs();
                    assert!(
                        error <= 3e-5 * size,
                        "{c_in} by {c_out}, tap {tap}, {i} {o} on {device}: off by {error}"
                    );
                }
            }
        }
    }
}

#[test]
fn groups_match_the_loops() {
    let support = Numbers(2).support(300, 4);
    for (device, gpu) in devices() {
        let case = Case::new(&gpu, Relation::submanifold(&support, &cube(3, 1)).unwrap());
        // Depthwise with and without vectors, a channel multiplier, and wider groups.
        for (c_in, c_out, groups) in [(20, 20, 20), (3, 3, 3), (8, 16, 8), (8, 24, 2), (6, 9, 3)] {
            case.check_dtypes(&device, &gpu, ConvShape { c_in, c_out, groups });
        }
    }
}

#[test]
fn other_relations_match_the_loops() {
    let mut numbers = Numbers(3);
    let fine = numbers.support(700, 6);
    let coarse = numbers.support(60, 3);
    let (empty, one) = (numbers.support(0, 3), numbers.support(1, 3));
    let dilated = KernelSpec::try_new([3, 1, 3], [1; 3], [0; 3], [2, 1, 3]).unwrap();
    for (device, gpu) in devices() {
        let all = [
            Relation::forward(&fine, &cube(2, 2), SupportPolicy::Floor),
            Relation::forward(&fine, &cube(3, 2), SupportPolicy::Floor),
            Relation::target_transposed(&coarse, &fine, &cube(3, 2)),
            Relation::transposed(&coarse, &cube(2, 2)),
            Relation::submanifold(&fine, &dilated),
            Relation::submanifold(&empty, &cube(3, 1)),
            Relation::submanifold(&one, &cube(3, 1)),
            Relation::onto(&empty, &one, &cube(3, 1)),
            Relation::onto(&one, &empty, &cube(3, 1)),
        ];
        for relation in cases(&gpu, "relations", all, 1) {
            let case = Case::new(&gpu, relation.unwrap());
            case.check::<f32>(&device, &gpu, ConvShape::dense(8, 20));
            if !is_software(&gpu) {
                case.check::<f16>(&device, &gpu, ConvShape::dense(8, 20));
            }
        }
    }
}

#[test]
fn kernels_of_many_taps_match_the_loops() {
    let support = Numbers(4).support(500, 4);
    for (device, gpu) in devices() {
        if is_software(&gpu) {
            println!("kernels of many taps: left out on a software device");
            continue;
        }
        let case = Case::new(&gpu, Relation::submanifold(&support, &cube(5, 1)).unwrap());
        case.check_dtypes(&device, &gpu, ConvShape::dense(8, 20));
        case.check::<f32>(&device, &gpu, ConvShape { c_in: 8, c_out: 8, groups: 8 });
        let case = Case::new(&gpu, Relation::submanifold(&support, &cube(7, 1)).unwrap());
        case.check::<f16>(&device, &gpu, ConvShape::dense(8, 20));
        case.check::<f32>(&device, &gpu, ConvShape { c_in: 8, c_out: 8, groups: 8 });
    }
}

#[test]
fn tiles_hold_all_pairs_however_few_taps_a_device_takes_at_a_time() {
    // Rows in no order, so that halos are too long and phases are halved: 10 taps must not become 5.
    let support = Numbers(5).support(3000, 7);
    let relation = Relation::submanifold(&support, &cube(3, 1)).unwrap();
    let mut expected: Vec<_> =
        relation.edges().iter().map(|e| (e.in_row, e.out_row, u32::from(e.tap))).collect();
    expected.sort_unstable();
    for (device, gpu) in devices() {
        let coords = upload_support(&gpu, &support);
        let index = BlockIndex::build(&gpu, &coords, support.n_rows());
        for group_taps in [10, 8, 2] {
            let geometry = Geometry::of(&relation);
            let n = support.n_rows();
            let tiles = Tiles::build_in_groups(&gpu, &index, &coords, n, None, geometry, group_taps).unwrap();
            let mut found = tiles.pairs_to_host(&gpu);
            found.sort_unstable();
            assert_eq!(found.len(), expected.len(), "pairs of {group_taps} taps at a time on {device}");
            assert_eq!(found, expected, "{group_taps} taps at a time on {device}");
        }
    }
}

#[test]
fn many_rows_are_summed_in_segments() {
    // More pairs a tap than one segment holds, with and without groups.
    let support = Numbers(5).support(3000, 7);
    for (device, gpu) in devices() {
        let case = Case::new(&gpu, Relation::submanifold(&support, &cube(3, 1)).unwrap());
        case.check::<f32>(&device, &gpu, ConvShape::dense(8, 8));
        case.check::<f32>(&device, &gpu, ConvShape { c_in: 8, c_out: 8, groups: 8 });
        let run = || {
            let mut numbers = Numbers(6);
            let [x, g] = [0; 2].map(|_| gpu.upload(&numbers.values::<f32>(3000 * 8)));
            gpu.download::<f32>(&weight_grad::<f32, f32>(
                &gpu,
                &x,
                &g,
                &case.pairs[1],
                ConvShape::dense(8, 8),
            ))
        };
        assert_eq!(run(), run(), "two runs give equal bits");
    }
}

/// Once a relation is used a second time its full tiles come first, where a launch has a few cubes a multiprocessor; bits stay as they are.
#[test]
fn full_tiles_that_come_first_change_no_bit() {
    for (device, gpu) in devices() {
        let multiprocessors = gpu.client().properties().hardware.num_streaming_multiprocessors;
        let Some(n) = multiprocessors.filter(|_| has_matrix_units(&gpu)) else {
            println!("{device}: left out, it has no matrix units, or does not say how many multiprocessors");
            continue;
        };
        let rows = 3 * n as usize * 256;
        let support = Numbers(8).support(rows, 40);
        let coords = upload_support(&gpu, &support);
        let index = BlockIndex::build(&gpu, &coords, rows);
        let geometry = Geometry::new(RelationKind::Submanifold, &cube(3, 1));
        let tiles = Tiles::build(&gpu, &index, &coords, rows, None, geometry).unwrap();
        let mut numbers = Numbers(9);
        let [x, w] = [rows * 64, 27 * 64 * 64].map(|n| gpu.upload(&numbers.values::<f16>(n)));
        let plan = MmaPlan::fitted(&gpu, 64, 64, 27, tiles.n_tiles());
        let run = || {
            gpu.download::<u16>(&mma::<f16>(
                &gpu,
                [&x, &w],
                &tiles,
                [64; 2],
                plan,
                FORWARD,
                &Epilogue::none(),
            ))
        };
        // Asks for the counts of the halos, which are moved once they are counted.
        let bytes = tiles.bytes();
        let held = tiles.held_bytes();
        assert_eq!(held, bytes);
        let first = run();
        assert_eq!(tiles.held_bytes(), held, "{device}: nothing is ordered that is used once");
        let second = run();
        assert_eq!(tiles.held_bytes(), held + 4 * tiles.n_tiles(), "{device}: the order is kept");
        assert!(first == second && first == run(), "{device}: equal bits");
    }
}

fn pointwise<T: Element>(device: &str, gpu: &Gpu, n: usize, shape: ConvShape) {
    if !T::runs_on(gpu) {
        return;
    }
    let mut numbers = Numbers(8);
    let what = |op: &str| format!("{op} on {device}, {shape:?}, {n} rows");
    let edges: Vec<_> = (0..n as u32).map(|row| (row, row, 0)).collect();
    let channels = Channels::grouped(shape.c_in, shape.c_out, shape.groups);
    let x: Vec<T> = numbers.values(n * shape.c_in);
    let g: Vec<T> = numbers.values(n * shape.c_out);
    let w: Vec<T> = numbers.values(shape.weights(1));
    let [wx, wg, ww] = [&x, &g, &w].map(|v| wide(v));
    let [ax, ag, aw] = [&wx, &wg, &ww].map(|v| absolute(v));
    let y = convolve(&wx, &ww, None, &edges, n, channels);
    let y_size = convolve(&ax, &aw, None, &edges, n, channels);
    let dx = convolve_input_grad(&wg, &ww, &edges, n, channels);
    let dx_size = convolve_input_grad(&ag, &aw, &edges, n, channels);
    let dw = convolve_weight_grad(&wx, &wg, &edges, 1, channels);
    let dw_size = convolve_weight_grad(&ax, &ag, &edges, 1, channels);
    let [x, g, w] = [&x, &g, &w].map(|v| gpu.upload(v));
    let none = Epilogue::none();
    let read = |buffer: &Buffer| gpu.download::<T>(buffer);
    let found = pointwise_direct::<T>(gpu, &x, &w, n, shape, FORWARD, &none);
    assert_close(&what("pointwise, direct"), &read(&found), &y, &y_size);
    let found = pointwise_direct::<T>(gpu, &g, &w, n, shape, BACKWARD, &none);
    assert_close(&what("pointwise input gradient, direct"), &read(&found), &dx, &dx_size);
    if shape.groups == 1 {
        let found = pointwise_plain::<T>(gpu, &x, &w, n, shape, FORWARD, &none);
        assert_close(&what("pointwise, plain"), &read(&found), &y, &y_size);
        let found = pointwise_plain::<T>(gpu, &g, &w, n, shape, BACKWARD, &none);
        assert_close(&what("pointwise input gradient, plain"), &read(&found), &dx, &dx_size);
    }
    let found = pointwise_weight_grad::<T, T>(gpu, &x, &g, n, shape);
    assert_close(&what("pointwise weight gradient"), &read(&found), &dw, &dw_size);
}

#[test]
fn identity_tiles_are_plain_products() {
    for (device, gpu) in devices() {
        for n in [0usize, 1, 7, 255, 256, 300, 2049] {
            let tiles = Tiles::identity(&gpu, n).unwrap();
            assert_eq!((tiles.n_in(), tiles.n_out(), tiles.n_pairs(), tiles.taps()), (n, n, n, 1));
            let mut pairs = tiles.pairs_to_host(&gpu);
            pairs.sort_unstable();
            assert_eq!(
                pairs,
                (0..n as u32).map(|row| (row, row, 0)).collect::<Vec<_>>(),
                "{n} rows on {device}"
            );
            let mut numbers = Numbers(n as u64);
            let shape = ConvShape::dense(24, 40);
            let x = gpu.upload(&numbers.values::<f32>(n * 24));
            let w = gpu.upload(&numbers.values::<f32>(24 * 40));
            let none = Epilogue::none();
            let found = conv_plain::<f32>(&gpu, &x, &w, &tiles, shape, FORWARD, &none);
            let expected = pointwise_plain::<f32>(&gpu, &x, &w, n, shape, FORWARD, &none);
            let expected: Vec<f64> = wide(&gpu.download::<f32>(&expected));
            assert_close(
                &format!("{n} rows on {device}"),
                &gpu.download::<f32>(&found),
                &expected,
                &vec![24.0; n * 40],
            );
            if f16::runs_on(&gpu) && has_matrix_units(&gpu) {
                let (x, w): (Vec<f16>, Vec<f16>) = (numbers.values(n * 24), numbers.values(24 * 40));
                let [x, w] = [gpu.upload(&x), gpu.upload(&w)];
                let found = mma::<f16>(
                    &gpu,
                    [&x, &w],
                    &tiles,
                    [24, 40],
                    MmaPlan::fitted(&gpu, 24, 40, tiles.taps(), tiles.n_tiles()),
                    FORWARD,
                    &none,
                );
                let expected = pointwise_plain::<f16>(&gpu, &x, &w, n, shape, FORWARD, &none);
                let expected: Vec<f64> = wide(&gpu.download::<f16>(&expected));
                assert_close(
                    &format!("{n} rows in f16 on {device}"),
                    &gpu.download::<f16>(&found),
                    &expected,
                    &vec![24.0; n * 40],
                );
            }
        }
    }
}

#[test]
fn pointwise_products_match_the_loops() {
    for (device, gpu) in devices() {
        let all = [
            ConvShape { c_in: 8, c_out: 12, groups: 4 },
            ConvShape::dense(3, 70),
            ConvShape::dense(70, 3),
            ConvShape::dense(20, 64),
        ];
        for shape in cases(&gpu, "channels", all, 2) {
            for n in [0, 1, 700] {
                pointwise::<f32>(&device, &gpu, n, shape);
                pointwise::<f16>(&device, &gpu, n, shape);
                pointwise::<bf16>(&device, &gpu, n, shape);
            }
        }
    }
}

fn epilogue<T: Element>(device: &str, gpu: &Gpu, case: &Case, c_in: usize, c_out: usize, after: After) {
    if !T::runs_on(gpu) {
        return;
    }
    let mut numbers = Numbers(9);
    let (n_in, n_out, taps) = (case.relation.n_in(), case.relation.n_out(), case.relation.taps());
    let shape = ConvShape::dense(c_in, c_out);
    let mut x: Vec<T> = numbers.values(n_in * c_in);
    x[0] = T::of(f64::NAN);
    let w: Vec<T> = numbers.values(shape.weights(taps));
    let bias: Vec<T> = numbers.values(c_out);
    let [scale, shift]: [Vec<f32>; 2] = [0; 2].map(|_| numbers.values(c_out));
    let residual: Vec<T> = numbers.values(n_out * c_out);
    let channels = Channels::new(c_in, c_out);
    let mut expected = convolve(&wide(&x), &wide(&w), Some(&wide(&bias)), &case.edges, n_out, channels);
    let mut size = convolve(&absolute(&wide(&x)), &absolute(&wide(&w)), None, &case.edges, n_out, channels);
    for (at, v) in expected.iter_mut().enumerate() {
        let j = at % c_out;
        let residual: f64 = residual[at].into();
        *v = *v * f64::from(scale[j]) + f64::from(shift[j]) + residual;
        size[at] += 4.0;
        match after {
            After::Relu if *v < 0.0 => *v = 0.0,
            After::LeakyRelu(slope) if *v < 0.0 => *v *= f64::from(f32::from_bits(slope)),
            _ => {}
        }
    }
    let epilogue = Epilogue {
        bias: Some(gpu.upload(&bias)),
        scale_shift: Some((gpu.upload(&scale), gpu.upload(&shift))),
        residual: Some(gpu.upload(&residual)),
        after,
    };
    let [x, w] = [&x, &w].map(|v| gpu.upload(v));
    let what = |op: &str| format!("{op} with {after:?} on {device}, {c_in} to {c_out} channels");
    let found = conv_direct::<T>(gpu, &x, &w, &case.tiles, shape, FORWARD, &epilogue);
    assert_close(&what("direct"), &gpu.download::<T>(&found), &expected, &size);
    let found = conv_plain::<T>(gpu, &x, &w, &case.tiles, shape, FORWARD, &epilogue);
    assert_close(&what("plain"), &gpu.download::<T>(&found), &expected, &size);
    if size_of::<T>() == 2 && has_fragments(gpu, T::elem_type_native()) {
        let taps = case.tiles.taps();
        for plan in fragment_plans(c_in, c_out) {
            let order = (FORWARD, false);
            let packed = pack_fragments::<T>(gpu, &w, taps, [c_in, c_out], plan, order, Life::Lasting);
            let found = conv_cmma::<T>(gpu, &x, &packed, &case.tiles, &epilogue);
            let what = what(&format!("cmma, {plan:?}"));
            assert_close(&what, &gpu.download::<T>(&found), &expected, &size);
        }
    }
    if on_matrix_units::<T>(gpu) {
        for plan in plans(gpu, c_in * T::HALVES, c_out) {
            let found = mma::<T>(gpu, [&x, &w], &case.tiles, [c_in, c_out], plan, FORWARD, &epilogue);
            let what = what(&format!("{plan:?}"));
            assert_close(&what, &gpu.download::<T>(&found), &expected, &rounded::<T>(&size));
        }
    }
}

#[test]
fn epilogues_match_the_loops_and_keep_nan() {
    let support = Numbers(10).support(300, 3);
    for (device, gpu) in devices() {
        let case = Case::new(&gpu, Relation::submanifold(&support, &cube(3, 1)).unwrap());
        for after in
            cases(&gpu, "epilogues", [After::LeakyRelu(0.1f32.to_bits()), After::Relu, After::Nothing], 1)
        {
            for (c_in, c_out) in cases(&gpu, "channels", [(8, 20), (3, 5)], 1) {
                epilogue::<f32>(&device, &gpu, &case, c_in, c_out, after);
                epilogue::<f16>(&device, &gpu, &case, c_in, c_out, after);
            }
        }
    }
}

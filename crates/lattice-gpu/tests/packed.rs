//! Convolutions with packed codes against plain loops in `f64` on the values that the codes stand for, on every device with matrix units.
#![cfg(feature = "cubecl")]
#![allow(clippy::unwrap_used, reason = "tests")]

mod harness;

use half::{bf16, f16};
use harness::{Element, Numbers, absolute, assert_close, cases, devices, upload_support, wide};
use lattice_core::{KernelSpec, Relation, SupportPolicy};
use lattice_gpu::conv::dequantize;
use lattice_gpu::conv::mma::{
    After, Epilogue, MmaPlan, StoredCodes, conv_bytes, conv_codes, conv_mma, expand_codes, has_byte_units,
    has_matrix_units, pack_bytes, pack_codes,
};
use lattice_gpu::index::BlockIndex;
use lattice_gpu::tiles::{Geometry, Tiles};
use lattice_gpu::{Buffer, Gpu, Life};
use lattice_testkit::convolution::{Channels, convolve};

/// A packed weight on the host.
struct Packed {
    bits: u32,
    group_size: usize,
    taps: usize,
    c_in: usize,
    c_out: usize,
    half_scales: bool,
    words: Vec<u32>,
    scales: Vec<f32>,
    biases: Vec<f32>,
}

impl Packed {
    /// Codes of all values, with scales of either sign and biases that f16 holds where `half_scales`.
    fn random(
        numbers: &mut Numbers,
        (bits, group_size): (u32, usize),
        taps: usize,
        [c_in, c_out]: [usize; 2],
        half_scales: bool,
    ) -> Self {
        let groups = c_in.div_ceil(group_size);
        let n_words = taps * c_out * groups * group_size * bits as usize / 32;
        let words = (0..n_words).map(|_| numbers.next() as u32).collect();
        let round = |v: f64| if half_scales { f16::from_f64(v).to_f32() } else { v as f32 };
        let largest = f64::from((1u32 << bits) - 1);
        let mut several = |size: f64| {
            (0..taps * c_out * groups).map(|_| round(numbers.unit() * size)).collect::<Vec<f32>>()
        };
        let (scales, biases) = (several(1.0 / largest), several(0.5));
        Self { bits, group_size, taps, c_in, c_out, half_scales, words, scales, biases }
    }

    fn groups(&self) -> usize {
        self.c_in.div_ceil(self.group_size)
    }

    /// Two of the plans, other ones for other weights: each is a kernel to compile.
    fn some(&self, plans: Vec<MmaPlan>) -> [MmaPlan; 2] {
        let first = self.c_in + self.bits as usize / 4 + self.group_size / 32;
        [0, 3].map(|more| plans[(first + more) % plans.len()])
    }

    fn stored(&self, gpu: &Gpu) -> StoredCodes {
        let halves = |values: &[f32]| values.iter().map(|&v| f16::from_f32(v)).collect::<Vec<_>>();
        let affine = |values: &[f32]| match self.half_scales {
            true => gpu.upload(&halves(values)),
            false => gpu.upload(values),
        };
        StoredCodes {
            words: gpu.upload(&self.words),
            scales: affine(&self.scales),
            biases: affine(&self.biases),
            half_scales: self.half_scales,
            bits: self.bits,
            group_size: self.group_size,
            taps: self.taps as u32,
            c_in: self.c_in,
            c_out: self.c_out,
        }
    }

    /// Values `[taps, c_in, c_out]`: the layout of storage, by its words.
    fn values(&self) -> Vec<f32> {
        let per_word = 32 / self.bits as usize;
        let row_words = self.groups() * self.group_size / per_word;
        let place = |tap: usize, of_row: usize, per_row: usize, o: usize| match self.taps {
            1 => o * per_row + of_row,
            _ => (tap * per_row + of_row) * self.c_out + o,
        };
        let mut values = Vec::new();
        for tap in 0..self.taps {
            for c in 0..self.c_in {
                for o in 0..self.c_out {
                    let word = self.words[place(tap, c / per_word, row_words, o)];
                    let code = (word >> (c % per_word * self.bits as usize)) & ((1 << self.bits) - 1);
                    let at = place(tap, c / self.group_size, self.groups(), o);
                    values.push(self.scales[at] * code as f32 + self.biases[at]);
                }
            }
        }
        values
    }
}

/// A relation and its tiles.
struct Case {
    relation: Relation,
    edges: Vec<(u32, u32, u16)>,
    tiles: Tiles,
}

impl Case {
    fn new(gpu: &Gpu, relation: Relation) -> Self {
        let source = upload_support(gpu, relation.source());
        let target = match relation.source().same_identity(relation.target()) {
            true => source.clone(),
            false => upload_support(gpu, relation.target()),
        };
        let geometry = Geometry::new(relation.kind(), relation.spec());
        let index = BlockIndex::build(gpu, &source, relation.n_in());
        let tiles = Tiles::build(gpu, &index, &target, relation.n_out(), None, geometry).unwrap();
        let edges = relation.edges().iter().map(|e| (e.in_row, e.out_row, e.tap)).collect();
        Self { relation, edges, tiles }
    }

    /// Features in `T` times codes, by every plan.
    fn check<T: Element>(&self, device: &str, gpu: &Gpu, packed: &Packed, epilogue: bool) {
        if !T::runs_on(gpu) {
            return;
        }
        let mut numbers = Numbers(11);
        let channels = Channels::new(packed.c_in, packed.c_out);
        let x: Vec<T> = numbers.values(self.relation.n_in() * packed.c_in);
        let values: Vec<f64> = packed.values().iter().map(|&v| T::of(f64::from(v)).into()).collect();
        let (n_out, c_out) = (self.relation.n_out(), packed.c_out);
        let mut expected = convolve(&wide(&x), &values, None, &self.edges, n_out, channels);
        let mut size = convolve(&absolute(&wide(&x)), &absolute(&values), None, &self.edges, n_out, channels);
        let operands = operands::<T>(gpu, &mut numbers, epilogue, c_out, &mut expected, &mut size);
        // A value may be rounded to the neighbour where f32 and f64 disagree about what is half way.
        let size: Vec<f64> = size.iter().map(|size| size * 16.0).collect();
        let (x, stored) = (gpu.upload(&x), packed.stored(gpu));
        for plan in packed.some(plans(gpu, packed.c_in, packed.c_out)) {
            let weights = pack_codes::<T>(gpu, &stored, plan, Life::Passing);
            let found = conv_codes::<T>(gpu, &x, &weights, plan, &self.tiles, &operands);
            let what = format!("{} bits of {} on {device}, {plan:?}", packed.bits, packed.group_size);
            assert_close(&what, &gpu.download::<T>(&found), &expected, &size);
            let elements = expand_codes::<T>(gpu, &weights);
            let again = conv_mma::<T>(gpu, &x, &elements, plan, &self.tiles, &operands);
            assert!(bits(gpu, &again) == bits(gpu, &found), "{what}: unpacked in memory or in registers");
        }
    }

    /// Features in bytes times codes, by every plan, against the bytes' values times those of the codes.
    fn check_bytes<T: Element>(&self, device: &str, gpu: &Gpu, packed: &Packed, epilogue: bool) {
        if !T::runs_on(gpu) {
            return;
        }
        let mut numbers = Numbers(12);
        let channels = Channels::new(packed.c_in, packed.c_out);
        let mut x: Vec<T> = numbers.values(self.relation.n_in() * packed.c_in);
        // One step for all, bytes of 0 of their own; values past either end are cut off.
        let step = 1.7f32 / 255.0;
        let zeros: Vec<f32> = (0..packed.c_in).map(|_| numbers.below(256) as f32).collect();
        let steps: Vec<f32> = std::iter::repeat_n(step, packed.c_in).chain(zeros.iter().copied()).collect();
        if !x.is_empty() {
            x[packed.c_in - 1] = T::of(f64::NAN);
        }
        let quantized = |(i, &v): (usize, &T)| {
            let (v, zero): (f64, f32) = (v.into(), zeros[i % packed.c_in]);
            let scaled = (v as f32 * (1.0 / step) + zero).clamp(0.0, 255.0);
            if v.is_nan() { v } else { f64::from(step) * f64::from(scaled.round_ties_even() - zero) }
        };
        let bytes: Vec<f64> = x.iter().enumerate().map(quantized).collect();
        let values: Vec<f64> = packed.values().iter().map(|&v| f64::from(v)).collect();
        let (n_out, c_out) = (self.relation.n_out(), packed.c_out);
        let mut expected = convolve(&bytes, &values, None, &self.edges, n_out, channels);
        let mut size = convolve(&absolute(&bytes), &absolute(&values), None, &self.edges, n_out, channels);
        let operands = operands::<T>(gpu, &mut numbers, epilogue, c_out, &mut expected, &mut size);
        // Bytes less their 0 and codes less their middle are larger than the values; a byte may fall on the other side of a half.
        let most = self.relation.taps() as f64;
        let size: Vec<f64> =
            size.iter().map(|size| 64.0 * size + (0.6 * f64::from(step)) / 1e-5 + most).collect();
        let (x, stored, steps) = (gpu.upload(&x), packed.stored(gpu), gpu.upload(&steps));
        for plan in packed.some(byte_plans(gpu, packed.c_in, packed.c_out)) {
            let weights = pack_bytes(gpu, &stored, &steps, plan, Life::Passing);
            let found = conv_bytes::<T>(gpu, &x, &weights, plan, &self.tiles, &operands);
            let what =
                format!("bytes by {} bits of {} on {device}, {plan:?}", packed.bits, packed.group_size);
            assert_close(&what, &gpu.download::<T>(&found), &expected, &size);
        }
    }
}

/// A result as its 16-bit words.
fn bits(gpu: &Gpu, buffer: &Buffer) -> Vec<u16> {
    gpu.download(buffer)
}

/// A bias, a norm, a residual and an activation, and what they make of sums.
fn operands<T: Element>(
    gpu: &Gpu,
    numbers: &mut Numbers,
    given: bool,
    c_out: usize,
    sums: &mut [f64],
    sizes: &mut [f64],
) -> Epilogue {
    if !given {
        return Epilogue::none();
    }
    let [bias, residual]: [Vec<T>; 2] = [c_out, sums.len()].map(|n| numbers.values(n));
    let [scale, shift]: [Vec<f32>; 2] = [0; 2].map(|_| numbers.values(c_out));
    for (at, (sum, size)) in sums.iter_mut().zip(sizes).enumerate() {
        let (o, added, kept): (usize, f64, f64) = (at % c_out, bias[at % c_out].into(), residual[at].into());
        *sum = (*sum + added) * f64::from(scale[o]) + f64::from(shift[o]) + kept;
        *size += 4.0;
        if *sum < 0.0 {
            *sum = 0.0;
        }
    }
    let upload = |values: &[T]| -> Buffer { gpu.upload(values) };
    Epilogue {
        bias: Some(upload(&bias)),
        scale_shift: Some((gpu.upload(&scale), gpu.upload(&shift))),
        residual: Some(upload(&residual)),
        after: After::Relu,
    }
}

/// The plans that are chosen, and one of every other form.
fn plans(gpu: &Gpu, c_in: usize, c_out: usize) -> Vec<MmaPlan> {
    let form = |[row_groups, slice_groups, slices]: [usize; 3], depth, grain, table_staged| MmaPlan {
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
        told: true,
        part_splits: 1,
        tap_splits: 1,
    };
    let shared = |part_splits, tap_splits, plan| MmaPlan { part_splits, tap_splits, ..plan };
    let mut plans = vec![
        MmaPlan::choose(gpu, c_in, c_out),
        MmaPlan::fitted(gpu, c_in, c_out, 27, 1),
        MmaPlan::for_codes(gpu, 8, c_in, c_out, 27, 100),
        form([4, 1, 2], 16, 1, true),
        form([8, 2, 3], 32, 2, false),
        form([8, 1, 1], 64, 4, true),
        shared(2, 2, form([4, 1, 2], 64, 4, true)),
    ];
    plans.retain(|plan| gpu.is_coherent() || plan.part_splits * plan.tap_splits == 1);
    plans
}

fn byte_plans(gpu: &Gpu, c_in: usize, c_out: usize) -> Vec<MmaPlan> {
    let mut plans = plans(gpu, c_in.div_ceil(2), c_out);
    plans.push(MmaPlan::for_bytes(gpu, c_in, c_out, 27, 1000));
    plans.push(MmaPlan::for_bytes(gpu, c_in, c_out, 27, 1));
    plans
}

fn cube(size: u32, stride: u32) -> KernelSpec {
    KernelSpec::cube(size, stride).unwrap()
}

fn with_units(find: impl Fn(&Gpu) -> bool) -> Vec<(String, Gpu)> {
    let (with, without): (Vec<_>, Vec<_>) = devices().into_iter().partition(|(_, gpu)| find(gpu));
    for (name, _) in without {
        println!("without {name}: it has no matrix units whose fragments kernels lay out");
    }
    with
}

/// Every channel count, group size and number of bits, with scales in f16 or f32.
fn of_every_form(gpu: &Gpu, half_scales: bool, check: impl Fn(&Case, &Packed, bool)) {
    let support = Numbers(21).support(500, 4);
    let case = Case::new(gpu, Relation::submanifold(&support, &cube(3, 1)).unwrap());
    for (c_in, c_out) in [(3, 8), (33, 20), (70, 17), (64, 64), (136, 72), (1, 1), (300, 40)] {
        for group_size in [32, 64, 128] {
            for bits in [4, 8] {
                let of = (bits, group_size);
                let packed = Packed::random(&mut Numbers(5), of, 27, [c_in, c_out], half_scales);
                check(&case, &packed, group_size == 64);
            }
        }
    }
}

macro_rules! forms {
    ($($name:ident, $T:ty, $half_scales:literal, $units:ident, $check:ident;)*) => {$(
        #[test]
        fn $name() {
            for (device, gpu) in with_units($units) {
                of_every_form(&gpu, $half_scales, |case, packed, epilogue| {
                    case.$check::<$T>(&device, &gpu, packed, epilogue);
                });
            }
        }
    )*};
}

forms! {
    codes_become_f16, f16, true, has_matrix_units, check;
    codes_with_f32_scales_become_f16, f16, false, has_matrix_units, check;
    codes_become_bf16, bf16, true, has_matrix_units, check;
    bytes_of_f16, f16, true, has_byte_units, check_bytes;
    bytes_of_f32, f32, false, has_byte_units, check_bytes;
    bytes_of_bf16, bf16, true, has_byte_units, check_bytes;
}

#[test]
fn codes_and_bytes_serve_relations_of_every_kind() {
    let mut numbers = Numbers(23);
    let (fine, coarse) = (numbers.support(700, 6), numbers.support(60, 3));
    let (empty, one) = (numbers.support(0, 3), numbers.support(1, 3));
    let dilated = KernelSpec::try_new([3, 1, 3], [1; 3], [0; 3], [2, 1, 3]).unwrap();
    for (device, gpu) in with_units(has_matrix_units) {
        let all = [
            Relation::forward(&fine, &cube(2, 2), SupportPolicy::Floor),
            Relation::forward(&fine, &cube(3, 2), SupportPolicy::Floor),
            Relation::target_transposed(&coarse, &fine, &cube(3, 2)),
            Relation::transposed(&coarse, &cube(2, 2)),
            Relation::submanifold(&fine, &dilated),
            Relation::submanifold(&fine, &cube(5, 1)),
            Relation::submanifold(&coarse, &cube(7, 1)),
            Relation::submanifold(&empty, &cube(3, 1)),
            Relation::submanifold(&one, &cube(3, 1)),
            Relation::onto(&one, &empty, &cube(3, 1)),
        ];
        for relation in all {
            let case = Case::new(&gpu, relation.unwrap());
            for bits in [4, 8] {
                let packed =
                    Packed::random(&mut Numbers(7), (bits, 32), case.relation.taps(), [40, 20], true);
                case.check::<f16>(&device, &gpu, &packed, false);
                if has_byte_units(&gpu) {
                    case.check_bytes::<f16>(&device, &gpu, &packed, false);
                }
            }
        }
    }
}

#[test]
fn one_tap_has_its_rows_together() {
    for (device, gpu) in with_units(has_matrix_units) {
        let support = Numbers(24).support(300, 4);
        let relation = Relation::submanifold(&support, &cube(1, 1)).unwrap();
        let edges: Vec<_> = (0..300).map(|row| (row, row, 0)).collect();
        let case = Case { relation, edges, tiles: Tiles::identity(&gpu, 300).unwrap() };
        for bits in [4, 8] {
            for (c_in, c_out) in [(100, 10), (64, 96), (256, 20)] {
                let packed = Packed::random(&mut Numbers(8), (bits, 64), 1, [c_in, c_out], true);
                case.check::<f16>(&device, &gpu, &packed, true);
                if has_byte_units(&gpu) {
                    case.check_bytes::<f32>(&device, &gpu, &packed, true);
                }
            }
        }
    }
}

#[test]
fn dequantized_values_are_those_of_the_codes() {
    for (device, gpu) in devices() {
        let all = [(4, 32, 27, [33, 20]), (8, 64, 1, [100, 10]), (8, 128, 8, [3, 7]), (4, 64, 1, [64, 1])];
        for (bits, group_size, taps, channels) in cases(&gpu, "packed weights", all, 2) {
            let packed = Packed::random(&mut Numbers(9), (bits, group_size), taps, channels, false);
            let expected: Vec<f64> = packed.values().iter().map(|&v| f64::from(v)).collect();
            let found = gpu.download::<f32>(&dequantize::<f32>(&gpu, &packed.stored(&gpu)));
            let what = format!("{bits} bits of {group_size}, {taps} taps on {device}");
            assert_close(&what, &found, &expected, &vec![0.1; expected.len()]);
        }
    }
}

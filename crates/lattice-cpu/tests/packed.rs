//! Packed weights and products of bytes against their definitions, on every instruction set of this machine.
#![allow(clippy::unwrap_used, reason = "tests")]

mod cases;

use cases::{Element, Numbers, available, edges, random_relation};
use half::{bf16, f16};
use lattice_core::Relation;
use lattice_cpu::*;
use lattice_testkit::convolution::Channels;
use lattice_testkit::quantization::{PackedRows, byte, convolve_bytes, quantize};
use rstest::rstest;

/// Values with groups of every sign, some of zeros.
fn rows(numbers: &mut Numbers, rows: usize, c_in: usize) -> Vec<Vec<f32>> {
    let row = |i: usize| match i % 5 {
        0 => vec![0.0; c_in],
        1 => numbers.values::<f32>(c_in).iter().map(|v| v.abs()).collect(),
        2 => numbers.values::<f32>(c_in).iter().map(|v| v * 1e-9).collect(),
        _ => numbers.values(c_in),
    };
    (0..rows).map(row).collect()
}

fn shape(bits: u32, group_size: usize, taps: usize, channels: [usize; 2]) -> PackedShape {
    PackedShape::try_new("test", bits, group_size, taps, channels).unwrap()
}

#[rstest]
fn codes_and_their_storage_are_those_of_the_definition(
    #[values(4, 8)] bits: u32,
    #[values(32, 64, 128)] group_size: usize,
    #[values(1, 3, 27)] taps: usize,
    #[values([1, 1], [3, 8], [64, 5], [100, 10], [129, 33])] channels: [usize; 2],
) {
    let mut numbers = Numbers(u64::from(bits) + group_size as u64 + channels[0] as u64);
    let rows = rows(&mut numbers, taps * channels[1], channels[0]);
    let shape = shape(bits, group_size, taps, channels);
    let expected = quantize(&rows, group_size, bits);
    let found = quantize_rows("test", &rows.concat(), &shape).unwrap();
    assert_eq!(found.words, expected.words(taps));
    assert_eq!(found.scales, expected.stored_scales(taps));
    assert_eq!(found.biases, expected.stored_biases(taps));
    let packed = PackedTaps::new(shape, &found.words, &found.scales, &found.biases);
    let values = packed.dequantize();
    for tap in 0..taps {
        for channel in 0..channels[0] {
            for co in 0..channels[1] {
                let at = (tap * channels[0] + channel) * channels[1] + co;
                assert_eq!(values[at], expected.value(tap * channels[1] + co, channel));
            }
        }
    }
}

#[test]
fn sizes_are_those_of_the_worked_example() {
    let conv = shape(4, 32, 27, [3, 8]);
    assert_eq!((conv.word_dims(), conv.scale_dims()), ([27, 4, 8], [27, 1, 8]));
    let linear = shape(8, 64, 1, [100, 10]);
    assert_eq!((linear.word_dims(), linear.scale_dims()), ([1, 10, 32], [1, 10, 2]));
    assert_eq!((PackedShape::default_group_size(63), PackedShape::default_group_size(64)), (32, 64));
    let half = shape(4, 64, 27, [64, 64]);
    let ratio = (2 * half.values()) as f64 / half.bytes(2) as f64;
    assert!((ratio - 3.56).abs() < 0.01, "{ratio}");
}

#[rstest]
#[case::bits(3, 32, [8, 8], "4 or 8 bits, found 3")]
#[case::group(4, 48, [8, 8], "32, 64 or 128, found 48")]
#[case::empty(4, 32, [0, 8], "from 1 to")]
#[case::huge(4, 32, [usize::MAX, 8], "from 1 to")]
fn sizes_that_cannot_be_stored_are_refused(
    #[case] bits: u32,
    #[case] group_size: usize,
    #[case] channels: [usize; 2],
    #[case] says: &str,
) {
    let error =
        PackedShape::try_new("quantize_weight", bits, group_size, 1, channels).unwrap_err().to_string();
    assert!(error.contains(says) && error.starts_with("quantize_weight"), "{error}");
}

#[test]
fn weights_that_are_not_finite_or_too_far_apart_are_refused() {
    let shape = shape(8, 32, 2, [2, 3]);
    for bad in [f32::NAN, f32::INFINITY] {
        let mut rows = vec![0.5; 12];
        rows[9] = bad;
        let error = quantize_rows("quantize_weight", &rows, &shape).unwrap_err().to_string();
        for part in ["finite", "tap 1", "output channel 1", "input channel 1"] {
            assert!(error.contains(part), "{error}");
        }
    }
    let mut rows = vec![0.0; 12];
    (rows[0], rows[1]) = (f32::MAX, f32::MIN);
    assert!(quantize_rows("quantize_weight", &rows, &shape).unwrap_err().to_string().contains("rescale"));
}

struct Case {
    relation: Relation,
    shape: ConvShape,
    packed: PackedShape,
    rows: PackedRows,
    words: Vec<u32>,
}

fn case(numbers: &mut Numbers, taps: usize, shape: ConvShape, bits: u32, group_size: usize) -> Case {
    let k = shape.c_in / shape.groups;
    let relation = random_relation(numbers, 40, 530, taps, 0.05);
    let values = rows(numbers, taps * shape.c_out, k);
    let rows = quantize(&values, group_size, bits);
    let words = rows.words(taps);
    Case { relation, shape, packed: self::shape(bits, group_size, taps, [k, shape.c_out]), rows, words }
}

/// The packed product has the bits of the float product on the dequantized weight.
fn compare<T: Element + Scalar<Acc = f32>>(numbers: &mut Numbers, case: &Case) {
    let Case { relation, shape, packed, .. } = case;
    let narrow = |v: Vec<f32>| v.into_iter().map(f16::from_f32).collect::<Vec<_>>();
    let scales = narrow(case.rows.stored_scales(packed.taps()));
    let biases = narrow(case.rows.stored_biases(packed.taps()));
    let weight = PackedTaps::new(*packed, &case.words, &scales, &biases);
    let x: Vec<T> = numbers.values(relation.n_in() * shape.c_in);
    let bias: Vec<T> = numbers.values(shape.c_out);
    let epilogue = Epilogue { bias: Some(&bias), activation: Activation::Relu, ..Epilogue::default() };
    let wide: Vec<f32> = x.iter().map(|v| v.to_acc()).collect();
    let wide_bias: Vec<f32> = bias.iter().map(|v| v.to_acc()).collect();
    let wide_epilogue =
        Epilogue { bias: Some(&wide_bias), activation: Activation::Relu, ..Epilogue::default() };
    for isa in available() {
        with_isa(isa, || {
            let mut expected = vec![0.0f32; relation.n_out() * shape.c_out];
            conv_edge_loop(&wide, &weight.dequantize(), relation, *shape, &wide_epilogue, &mut expected);
            let mut found = vec![T::default(); expected.len()];
            conv_packed(&x, &weight, Some(relation), *shape, &epilogue, &mut found);
            let magnitude = vec![packed.c_in() as f64 * packed.taps() as f64 / 4.0; expected.len()];
            let expected: Vec<f64> = expected.into_iter().map(f64::from).collect();
            cases::assert_close(&format!("{isa:?} {shape:?}"), &found, &expected, &magnitude);
        })
        .unwrap();
    }
}

#[rstest]
fn packed_products_equal_float_products_on_the_dequantized_weight(
    #[values(4, 8)] bits: u32,
    #[values((32, 1), (64, 8), (128, 5))] (group_size, taps): (usize, usize),
    #[values((3, 5, 1), (33, 70, 1), (150, 17, 1), (64, 64, 1), (66, 10, 2), (12, 12, 12))]
    (c_in, c_out, groups): (usize, usize, usize),
) {
    let mut numbers = Numbers(u64::from(bits) * 1000 + c_in as u64);
    let case = case(&mut numbers, taps, ConvShape { c_in, c_out, groups }, bits, group_size);
    compare::<f32>(&mut numbers, &case);
    compare::<f16>(&mut numbers, &case);
    compare::<bf16>(&mut numbers, &case);
}

#[test]
fn without_a_relation_every_row_meets_itself() {
    let mut numbers = Numbers(3);
    let shape = ConvShape::dense(70, 33);
    let values = rows(&mut numbers, 33, 70);
    let packed = self::shape(8, 64, 1, [70, 33]);
    let found = quantize_rows("test", &values.concat(), &packed).unwrap();
    let weight = PackedTaps::new(packed, &found.words, &found.scales, &found.biases);
    let x: Vec<f32> = numbers.values(700 * 70);
    let (mut expected, mut found) = (vec![0.0; 700 * 33], vec![1.0; 700 * 33]);
    pointwise(&x, &weight.dequantize(), shape, &Epilogue::default(), &mut expected);
    conv_packed(&x, &weight, None, shape, &Epilogue::default(), &mut found);
    assert_eq!(found, expected);
    conv_packed::<f32, f32>(&[], &weight, None, shape, &Epilogue::default(), &mut []);
}

/// Steps of 1 and integer scales, so that f32 holds every sum and the results must be those of integers.
#[rstest]
fn products_of_bytes_are_exact(
    #[values(4, 8)] bits: u32,
    #[values((32, 2), (64, 1), (128, 2))] (group_size, taps): (usize, usize),
    #[values((3, 5, 1), (33, 70, 1), (100, 17, 1), (64, 64, 1), (66, 10, 2))] (c_in, c_out, groups): (
        usize,
        usize,
        usize,
    ),
    #[values(false, true)] extreme: bool,
) {
    let mut numbers = Numbers(u64::from(bits) * 77 + c_in as u64);
    let mut case = case(&mut numbers, taps, ConvShape { c_in, c_out, groups }, bits, group_size);
    let largest = 2usize.pow(bits);
    for row in 0..case.rows.codes.len() {
        let code = |n: &mut Numbers| match extreme {
            true => [0, largest - 1][row % 2] as u32,
            false => n.below(largest) as u32,
        };
        case.rows.codes[row].iter_mut().for_each(|c| *c = code(&mut numbers));
        case.rows.scales[row].fill(if row % 3 == 0 { -1.0 } else { 1.0 });
        case.rows.biases[row].fill(numbers.below(9) as f32 - 4.0);
    }
    let words = case.rows.words(taps);
    let (scales, biases) = (case.rows.stored_scales(taps), case.rows.stored_biases(taps));
    let weight = PackedTaps::new(case.packed, &words, &scales, &biases);
    let zeros: Vec<u8> = (0..c_in).map(|c| if extreme { 0 } else { (c * 37 % 256) as u8 }).collect();
    let codes = ActivationCodes::new(&vec![1.0; c_in], &zeros);
    let n_in = case.relation.n_in();
    let x: Vec<f32> = (0..n_in * c_in)
        .map(|i| if extreme { 300.0 } else { numbers.below(300) as f32 - 10.0 - f32::from(zeros[i % c_in]) })
        .collect();
    let bytes: Vec<u8> = x.iter().enumerate().map(|(i, &v)| byte(v, 1.0, zeros[i % c_in])).collect();
    let channels = Channels::grouped(c_in, c_out, groups);
    let expected = convolve_bytes(&bytes, &zeros, &case.rows, &edges(&case.relation), 530, channels);
    assert!(expected.iter().all(|v| v.abs() < 1 << 24), "f32 holds every sum");
    for isa in available() {
        with_isa(isa, || {
            let mut found = vec![0.5; 530 * c_out];
            conv_int8(
                &x,
                &codes,
                &weight,
                Some(&case.relation),
                case.shape,
                &Epilogue::default(),
                &mut found,
            );
            for (at, (found, expected)) in found.iter().zip(&expected).enumerate() {
                assert_eq!(*found as i64, *expected, "{isa:?} element {at}");
            }
        })
        .unwrap();
    }
}

#[test]
fn bytes_are_those_of_the_definition() {
    let mut numbers = Numbers(9);
    let c_in = 37;
    let x: Vec<f32> = numbers.values::<f32>(200 * c_in).iter().map(|v| v * 5.0).collect();
    let steps: Vec<f32> = (0..c_in).map(|c| 0.01 + c as f32 * 0.003).collect();
    let zeros: Vec<u8> = (0..c_in).map(|c| (c * 11 % 200) as u8).collect();
    for isa in available() {
        with_isa(isa, || {
            let rows = ByteRows::quantize(&x, &ActivationCodes::new(&steps, &zeros), 1, 32);
            assert_eq!(rows.row_bytes(), 40);
            for row in 0..200 {
                let mut sums = [0i64; 2];
                for c in 0..c_in {
                    let expected = byte(x[row * c_in + c], steps[c], zeros[c]);
                    assert_eq!(rows.codes()[row * 40 + c], expected, "{isa:?} row {row} channel {c}");
                    sums[c / 32] += i64::from(expected) - i64::from(zeros[c]);
                }
                assert_eq!(rows.codes()[row * 40 + 37..][..3], [0; 3]);
                assert_eq!(rows.sums()[row * 2..][..2], sums.map(|s| s as f32));
            }
        })
        .unwrap();
    }
}

#[test]
fn rows_that_are_not_finite_stay_so() {
    let mut numbers = Numbers(4);
    let shape = ConvShape::dense(8, 16);
    let values = rows(&mut numbers, 16, 8);
    let packed = self::shape(8, 32, 1, [8, 16]);
    let found = quantize_rows("test", &values.concat(), &packed).unwrap();
    let weight = PackedTaps::new(packed, &found.words, &found.scales, &found.biases);
    let mut x: Vec<f32> = numbers.values(4 * 8);
    (x[9], x[30]) = (f32::NAN, f32::INFINITY);
    let mut y = vec![0.0; 4 * 16];
    let codes = ActivationCodes::new(&[0.01; 8], &[128; 8]);
    for isa in available() {
        with_isa(isa, || conv_int8(&x, &codes, &weight, None, shape, &Epilogue::default(), &mut y)).unwrap();
        for (row, y) in y.chunks(16).enumerate() {
            let broken = row == 1 || row == 3;
            assert!(y.iter().all(|v| v.is_nan() == broken), "{isa:?} row {row}: {y:?}");
        }
    }
}

#[test]
fn miri_packed_products() {
    let mut numbers = Numbers(5);
    let shape = ConvShape::dense(6, 20);
    let relation = random_relation(&mut numbers, 5, 9, 2, 0.3);
    let packed = self::shape(4, 32, 2, [6, 20]);
    let values = rows(&mut numbers, 40, 6);
    let found = quantize_rows("test", &values.concat(), &packed).unwrap();
    let weight = PackedTaps::new(packed, &found.words, &found.scales, &found.biases);
    let x: Vec<f32> = numbers.values(5 * 6);
    let (mut y, mut bytes, mut expected) = (vec![0.0; 9 * 20], vec![0.0; 9 * 20], vec![0.0; 9 * 20]);
    let codes = ActivationCodes::new(&[1.0 / 127.0; 6], &[128; 6]);
    with_isa(Isa::Scalar, || {
        conv_packed(&x, &weight, Some(&relation), shape, &Epilogue::default(), &mut y);
        conv_int8(&x, &codes, &weight, Some(&relation), shape, &Epilogue::default(), &mut bytes);
        conv_edge_loop(&x, &weight.dequantize(), &relation, shape, &Epilogue::default(), &mut expected);
    })
    .unwrap();
    for ((y, bytes), expected) in y.iter().zip(&bytes).zip(&expected) {
        assert!((y - expected).abs() < 1e-5 && (bytes - expected).abs() < 0.1, "{y} {bytes} {expected}");
    }
}

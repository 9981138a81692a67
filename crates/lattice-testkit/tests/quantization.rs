//! The worked examples of packed weights, on the definitions themselves.

use lattice_testkit::quantization::{byte, quantize, quantize_group};

fn linspace(from: f32, to: f32, n: usize) -> Vec<f32> {
    (0..n)
        .map(|i| (f64::from(from) + (f64::from(to) - f64::from(from)) * i as f64 / (n - 1) as f64) as f32)
        .collect()
}

#[test]
fn thirty_two_even_values_in_four_bits() {
    let packed = quantize(&[linspace(-1.0, 0.5, 32)], 32, 4);
    assert_eq!(packed.words(1), [0x3322_1100, 0x7766_5544, 0xbbaa_9988, 0xffee_ddcc]);
    assert_eq!((packed.scales[0][0], packed.biases[0][0]), (0.1, -1.0));
    assert_eq!((packed.value(0, 0), packed.value(0, 31)), (-1.0, 0.5));
}

#[test]
fn thirty_two_even_values_in_eight_bits() {
    let packed = quantize(&[linspace(-1.0, 0.5, 32)], 32, 8);
    let words = packed.words(1);
    assert_eq!((words.len(), words[0], words[7]), (8, 0x1910_0800, 0xfff7_efe6));
    assert!((packed.scales[0][0] - 0.005_882_353_3).abs() < 1e-9);
}

#[test]
fn the_larger_magnitude_and_zero_have_codes() {
    let mut values = vec![3.0, -1.0, 0.5, 2.0];
    values.resize(32, 0.0);
    let (scale, bias, codes) = quantize_group(&values, 4);
    assert_eq!((scale, bias), (3.0 / -11.0, 3.0));
    assert_eq!(codes[..5], [0, 15, 9, 4, 11]);
    let packed = quantize(&[values], 32, 4);
    assert_eq!(packed.words(1), [0xbbbb_49f0, 0xbbbb_bbbb, 0xbbbb_bbbb, 0xbbbb_bbbb]);
    assert_eq!(packed.value(0, 4), 0.0);
}

#[test]
fn a_group_of_zeros_has_the_smallest_step() {
    let (scale, bias, codes) = quantize_group(&[0.0; 64], 8);
    assert_eq!((scale, bias, codes), (-1e-7, 0.0, vec![0; 64]));
}

#[test]
fn bytes_round_halves_to_even_and_stop_at_their_ends() {
    let cases = [(0.5, 0), (1.5, 2), (2.5, 2), (-3.0, 0), (254.6, 255), (1e9, 255)];
    for (v, expected) in cases {
        assert_eq!(byte(v, 1.0, 0), expected, "{v}");
    }
    assert_eq!(byte(-1.0, 0.5, 128), 126);
}

//! Entropy coding: the worked examples, the definition by loops, damaged and hostile streams.
#![allow(clippy::unwrap_used, reason = "tests")]

use half::f16;
use lattice_core::{
    CdfTable, Error, normalized_cdf, range_decode, range_decode_from_prob, range_encode,
    range_encode_from_prob, rans_decode, rans_decode_from_prob, rans_encode, rans_encode_from_prob,
};
use lattice_testkit::entropy as definition;
use proptest::prelude::*;
use rstest::rstest;

fn table(rows: &[&[f32]]) -> CdfTable {
    normalized_cdf(&rows.concat(), [rows.len(), rows[0].len()]).unwrap()
}

fn bounds(cdf: &CdfTable, row: usize) -> Vec<u32> {
    (0..=cdf.alphabet()).map(|s| cdf.bound(row, s)).collect()
}

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
    digits.chunks(2).map(|d| u8::from_str_radix(std::str::from_utf8(d).unwrap(), 16).unwrap()).collect()
}

#[rstest]
#[case(&[0.25; 4], &[0, 16384, 32768, 49152, 65536])]
#[case(&[0.7, 0.1, 0.1, 0.1], &[0, 45873, 52428, 58982, 65536])]
#[case(&[0.1, 0.7, 0.1, 0.1], &[0, 6554, 52428, 58982, 65536])]
#[case(&[0.0, 0.0, 1.0], &[0, 1, 2, 65536])]
#[case(&[2.0, 5.0, 0.0], &[0, 65534, 65535, 65536])]
#[case(&[0.5, 0.5], &[0, 32768, 65536])]
#[case(&[-1.0, 0.5, f32::NAN], &[0, 1, 32769, 65536])]
fn tables_of_the_worked_examples(#[case] prob: &[f32], #[case] expected: &[u32]) {
    assert_eq!(bounds(&table(&[prob]), 0), expected);
}

#[test]
fn the_stored_form_wraps_to_sixteen_bits() {
    let cdf = table(&[&[0.7, 0.1, 0.1, 0.1]]);
    assert_eq!(cdf.to_stored(), [0, -19663, -13108, -6554, 0]);
    assert_eq!(bounds(&table(&[&[1.0 / 16.0; 16]]), 0)[..4], [0, 4096, 8192, 12288]);
    assert_eq!(CdfTable::from_stored(&cdf.to_stored(), [1, 5]).unwrap(), cdf);
}

/// Rows, symbols, range stream, rANS stream.
#[rstest]
#[case::two(
    &[vec![0.6, 0.2, 0.2], vec![0.05, 0.9, 0.05], vec![0.3, 0.3, 0.4], vec![0.01, 0.01, 0.98]], &[0, 1, 2, 0],
    "4d4c584745524e473031 04000000 03000000 5ac0", "4d4c584745524e533031 04000000 03000000 7022e700 aa"
)]
#[case::three(
    &[vec![0.5, 0.25, 0.125, 0.125], vec![0.125, 0.125, 0.25, 0.5]], &[3, 0],
    "4d4c584745524e473031 02000000 04000000 e2", "4d4c584745524e533031 02000000 04000000 01fcf81f"
)]
#[case::four(
    &vec![vec![0.5, 0.5]; 8], &[0, 1, 1, 0, 0, 1, 0, 1],
    "4d4c584745524e473031 08000000 02000000 65 40", "4d4c584745524e533031 08000000 02000000 80298000 00"
)]
fn streams_of_the_worked_examples(
    #[case] rows: &[Vec<f32>],
    #[case] symbols: &[i32],
    #[case] range: &str,
    #[case] rans: &str,
) {
    let (prob, shape) = (rows.concat(), [rows.len(), rows[0].len()]);
    let cdf = normalized_cdf(&prob, shape).unwrap();
    assert_eq!(range_encode(&cdf, symbols).unwrap(), hex(range));
    assert_eq!(range_encode_from_prob(&prob, shape, symbols).unwrap(), hex(range));
    assert_eq!(rans_encode(&cdf, symbols).unwrap(), hex(rans));
    assert_eq!(rans_encode_from_prob(&prob, shape, symbols).unwrap(), hex(rans));
    assert_eq!(range_decode(&cdf, &hex(range)).unwrap(), symbols);
    assert_eq!(range_decode_from_prob(&prob, shape, &hex(range)).unwrap(), symbols);
    assert_eq!(rans_decode(&cdf, &hex(rans)).unwrap(), symbols);
    assert_eq!(rans_decode_from_prob(&prob, shape, &hex(rans)).unwrap(), symbols);
}

#[test]
fn tables_of_examples_two_and_three() {
    let two = table(&[&[0.6, 0.2, 0.2], &[0.05, 0.9, 0.05], &[0.3, 0.3, 0.4], &[0.01, 0.01, 0.98]]);
    let expected = [[0, 39321, 52428], [0, 3278, 62258], [0, 19661, 39322], [0, 656, 1313]];
    for (row, expected) in expected.iter().enumerate() {
        assert_eq!(bounds(&two, row)[..3], *expected);
    }
    let three = table(&[&[0.5, 0.25, 0.125, 0.125], &[0.125, 0.125, 0.25, 0.5]]);
    assert_eq!(bounds(&three, 0)[..4], [0, 32767, 49151, 57344]);
    assert_eq!(bounds(&three, 1)[..4], [0, 8193, 16385, 32769]);
}

#[test]
fn no_rows_make_a_header_and_the_coder_s_end() {
    let cdf = normalized_cdf::<f32>(&[], [0, 4]).unwrap();
    let stream = range_encode(&cdf, &[]).unwrap();
    assert_eq!(stream, hex("4d4c584745524e473031 00000000 04000000 40"));
    assert_eq!(range_decode(&cdf, &stream).unwrap(), [0i32; 0]);
    let stream = rans_encode(&cdf, &[]).unwrap();
    assert_eq!(stream, hex("4d4c584745524e533031 00000000 04000000 00008000"));
    assert_eq!(rans_decode(&cdf, &stream).unwrap(), [0i32; 0]);
}

#[test]
fn half_precision_is_read_as_f32() {
    let prob = [0.7f32, 0.1, 0.1, 0.1].map(f16::from_f32);
    let widened = prob.map(f16::to_f32);
    assert_eq!(normalized_cdf(&prob, [1, 4]).unwrap(), normalized_cdf(&widened, [1, 4]).unwrap());
    assert_ne!(normalized_cdf(&prob, [1, 4]).unwrap(), table(&[&[0.7, 0.1, 0.1, 0.1]]));
}

#[test]
fn the_largest_alphabet_gives_every_symbol_a_frequency() {
    let prob = vec![1.0f32; 65_535];
    let cdf = normalized_cdf(&prob, [1, 65_535]).unwrap();
    assert_eq!(CdfTable::from_stored(&cdf.to_stored(), [1, 65_536]).unwrap(), cdf);
    for symbol in [0, 1, 40_000, 65_534] {
        assert_eq!(range_decode(&cdf, &range_encode(&cdf, &[symbol]).unwrap()).unwrap(), [symbol]);
        assert_eq!(rans_decode(&cdf, &rans_encode(&cdf, &[symbol]).unwrap()).unwrap(), [symbol]);
    }
}

fn text<T: std::fmt::Debug>(result: Result<T, Error>) -> String {
    result.unwrap_err().to_string()
}

#[test]
fn bad_arguments_are_named() {
    assert!(text(normalized_cdf(&[0.5f32], [1, 1])).contains("an alphabet of 2 to 65535 symbols, found 1"));
    assert!(text(normalized_cdf(&vec![0f32; 65_536], [1, 65_536])).contains("found 65536"));
    assert!(text(normalized_cdf(&[0.5f32; 5], [2, 3])).contains("2 rows of 3 values, found 5"));
    assert!(text(normalized_cdf(&[0.5f32; 5], [usize::MAX, 3])).contains("found 5"));
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let error = text(normalized_cdf(&[0.5, 0.5, bad, 0.5], [2, 2]));
        assert!(error.contains("row 1") && error.contains("expected finite probabilities"), "{error}");
    }
    let cdf = table(&[&[0.5, 0.5], &[0.5, 0.5]]);
    assert!(text(range_encode(&cdf, &[0])).contains("range_encode: expected 2 symbols, one a row, found 1"));
    for bad in [-1, 2, i32::MAX, i32::MIN] {
        assert!(text(range_encode(&cdf, &[0, bad])).contains("row 1: expected a symbol in 0..2"));
        assert!(text(rans_encode(&cdf, &[bad, 0])).contains("row 0: expected a symbol in 0..2"));
    }
}

#[rstest]
#[case::first(&[1, 2, 0], "begin with 0, found 1")]
#[case::equal(&[0, 0, 0], "rise strictly, found 0, 0 at symbol 0")]
#[case::last(&[0, 9, 5], "65536 (stored as 0) behind the last symbol, found 5")]
fn stored_tables_are_checked(#[case] row: &[i16], #[case] part: &str) {
    let stored = [&[0, -30_000, 0], row].concat();
    let error = text(CdfTable::from_stored(&stored, [2, 3]));
    assert!(error.contains("row 1") && error.contains(part), "{error}");
}

#[test]
fn damaged_streams_are_refused_with_their_place() {
    let cdf = table(&[&[0.6, 0.2, 0.2], &[0.05, 0.9, 0.05]]);
    let other = table(&[&[0.6, 0.2, 0.2]]);
    let wider = table(&[&[0.6, 0.2, 0.1, 0.1], &[0.6, 0.2, 0.1, 0.1]]);
    let range = range_encode(&cdf, &[2, 0]).unwrap();
    let rans = rans_encode(&cdf, &[2, 0]).unwrap();
    for end in 0..18 {
        assert!(text(range_decode(&cdf, &range[..end])).contains("expected a header of 18 bytes"));
        assert!(text(rans_decode(&cdf, &rans[..end])).contains("expected a header"));
    }
    assert!(text(rans_decode(&cdf, &rans[..21])).contains("expected a header of 22 bytes, found 21"));
    assert!(text(range_decode(&cdf, &rans)).contains("expected `MLXGERNG01`, found `MLXGERNS01`"));
    assert!(text(rans_decode(&cdf, &range)).contains("expected `MLXGERNS01`"));
    assert!(text(range_decode(&other, &range)).contains("byte 10 of the stream: expected 1 rows"));
    assert!(text(rans_decode(&wider, &rans)).contains("byte 14 of the stream: expected 4 symbols"));
    let longer = [&rans[..], &[7]].concat();
    assert!(text(rans_decode(&cdf, &longer)).contains("found 1 more bytes"));
    let halves = table(&[[0.5, 0.5].as_slice(); 20]);
    let long = rans_encode(&halves, &[1; 20]).unwrap();
    assert!(text(rans_decode(&halves, &long[..long.len() - 1])).contains("found the end"));
    let mut state = rans.clone();
    state[18] ^= 1;
    assert!(rans_decode(&cdf, &state).is_err());
    // Trailing bytes of a range stream are ignored; a missing payload reads as zero bits.
    assert_eq!(range_decode(&cdf, &[&range[..], &[1, 2, 3]].concat()).unwrap(), [2, 0]);
    assert_eq!(range_decode(&cdf, &range[..18]).unwrap(), [0, 0]);
}

/// A table of up to 40 rows with some probabilities at the ends, and a symbol a row.
fn case() -> impl Strategy<Value = (usize, Vec<f32>, Vec<i32>)> {
    let shape = (prop_oneof![2usize..8, Just(300)], 0usize..40);
    shape.prop_flat_map(|(alphabet, rows)| {
        let p = prop_oneof![4 => 0f32..1.0, 2 => Just(0.0), 1 => Just(1.0), 1 => -1f32..3.0];
        let prob = prop::collection::vec(p, rows * alphabet);
        let scaled = prob.prop_map(move |p| p.into_iter().map(|p| p * 2.0 / alphabet as f32).collect());
        (Just(alphabet), scaled, prop::collection::vec(0..alphabet as i32, rows))
    })
}

proptest! {
    #[test]
    fn coders_write_and_read_what_their_definition_does((alphabet, prob, symbols) in case(), noise in any::<[u8; 24]>(), cut in 0usize..40) {
        let cdf = normalized_cdf(&prob, [symbols.len(), alphabet]).unwrap();
        let rows: Vec<Vec<u32>> = prob.chunks(alphabet).map(|p| definition::cdf(p).unwrap()).collect();
        for (row, expected) in rows.iter().enumerate() {
            prop_assert_eq!(&bounds(&cdf, row), expected);
        }
        let mut range = range_encode(&cdf, &symbols).unwrap();
        prop_assert_eq!(&range, &definition::range_stream(&rows, alphabet, &symbols));
        prop_assert_eq!(&range_decode(&cdf, &range).unwrap(), &symbols);
        let mut rans = rans_encode(&cdf, &symbols).unwrap();
        prop_assert_eq!(&rans, &definition::rans_stream(&rows, alphabet, &symbols));
        prop_assert_eq!(&rans_decode(&cdf, &rans).unwrap(), &symbols);
        // Any payload decodes as the definition says, to symbols or to an error.
        range.truncate(18);
        range.extend(noise);
        prop_assert_eq!(range_decode(&cdf, &range).unwrap(), definition::range_symbols(&rows, &range));
        rans.truncate(18 + cut);
        let at = rans.len() - noise.len().min(rans.len() - 18);
        rans[at..].iter_mut().zip(noise).for_each(|(byte, noise)| *byte ^= noise);
        if rans.len() >= 22 {
            prop_assert_eq!(rans_decode(&cdf, &rans).ok(), definition::rans_symbols(&rows, &rans));
        } else {
            prop_assert!(rans_decode(&cdf, &rans).is_err());
        }
    }
}

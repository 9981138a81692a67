//! Row mixing, maxima, and passes over channels against plain loops in `f64`.
#![allow(clippy::unwrap_used, reason = "tests")]

mod cases;

use cases::{Element, Numbers, assert_close, available, edges, random_relation, random_row_map, wide};
use half::{bf16, f16};
use lattice_core::{KernelSpec, Relation, RowMap, Support, SupportPolicy};
use lattice_cpu::*;
use lattice_testkit::pooling;
use rstest::rstest;

fn on_each_isa(f: impl Fn(Isa)) {
    for isa in available() {
        with_isa(isa, || f(isa)).unwrap();
    }
}

fn mixing<T: Element>(c: usize, map: &RowMap, longest: usize) {
    let mut numbers = Numbers(21);
    let x: Vec<T> = numbers.values(map.n_in() * c);
    let wide_x = wide(&x);
    let mut expected = vec![0.0; map.n_out() * c];
    for o in 0..map.n_out() {
        let entries = map.splits()[o]..map.splits()[o + 1];
        if entries.is_empty() {
            expected[o * c..(o + 1) * c].fill(-2.0);
        }
        for e in entries {
            let weight = map.weights().map_or(1.0, |w| f64::from(w[e]));
            for j in 0..c {
                expected[o * c + j] += weight * wide_x[map.rows()[e] as usize * c + j];
            }
        }
    }
    on_each_isa(|isa| {
        let mut out = vec![T::of(9.0); expected.len()];
        row_mix(&x, c, map, -2.0, &mut out);
        assert_close(&format!("row_mix {isa:?}"), &out, &expected, &vec![longest as f64; expected.len()]);
    });
}

#[rstest]
fn rows_mix_as_in_the_loops(
    #[values(1, 3, 16, 33)] c: usize,
    #[values((0, 5, 3), (40, 600, 5), (30, 3, 20_000), (7, 0, 3))] (n_in, n_out, longest): (
        usize,
        usize,
        usize,
    ),
    #[values(false, true)] weighted: bool,
) {
    let map = random_row_map(&mut Numbers(20), n_in, n_out, longest, weighted);
    mixing::<f32>(c, &map, longest);
    mixing::<f64>(c, &map, longest);
    mixing::<f16>(c, &map, longest);
    mixing::<bf16>(c, &map, longest);
}

#[test]
fn gathering_copies_rows_and_fills_gaps() {
    let map = RowMap::gather(3, &[2, -1, 0, 0]).unwrap();
    mixing::<f32>(5, &map, 1);
    let mut out = [0.0f64; 4];
    row_mix(&[1.0, 2.0, 3.0], 1, &map, 7.0, &mut out);
    assert_eq!(out, [3.0, 7.0, 1.0, 1.0]);
}

fn maxima<T: Element>(c: usize) {
    let mut numbers = Numbers(31);
    let relation = random_relation(&mut numbers, 90, 600, 6, 0.15);
    // Few distinct values: many ties.
    let x: Vec<T> = (0..90 * c).map(|_| T::of(numbers.below(5) as f64 - 2.0)).collect();
    let g: Vec<T> = numbers.values(600 * c);
    let y = pooling::pool_max(&wide(&x), c, &edges(&relation), 600);
    let dx = pooling::pool_max_grad(&wide(&x), &wide(&g), c, &edges(&relation), 90);
    let map = RowMap::try_new(90, relation.out_splits().to_vec(), relation.in_rows().to_vec(), None).unwrap();
    on_each_isa(|isa| {
        let what = format!("maxima {isa:?}");
        let mut out = vec![T::of(9.0); y.len()];
        pool_max(&x, c, &relation, &mut out);
        assert_eq!(wide(&out), y, "{what}");
        let mut grad = vec![T::of(9.0); dx.len()];
        pool_max_grad(&x, &out, &g, c, &relation, &mut grad);
        assert_close(&what, &grad, &dx, &vec![40.0; dx.len()]);
        let mut out = vec![T::of(9.0); y.len()];
        segment_max(&x, c, &map, &mut out);
        assert_eq!(wide(&out), y, "{what}");
        let mut grad = vec![T::of(9.0); dx.len()];
        segment_max_grad(&x, &out, &g, c, &map, &mut grad);
        assert_close(&what, &grad, &dx, &vec![40.0; dx.len()]);
    });
}

#[rstest]
fn maxima_and_their_gradients_match_the_loops(#[values(1, 3, 16, 40)] c: usize) {
    maxima::<f32>(c);
    maxima::<f64>(c);
    maxima::<f16>(c);
    maxima::<bf16>(c);
}

#[test]
fn a_nan_reaches_the_maximum_wherever_it_stands() {
    for place in 0..3 {
        let mut x = [1.0f32, 2.0, 3.0];
        x[place] = f32::NAN;
        let map = RowMap::try_new(3, vec![0, 3, 3], vec![0, 1, 2], None).unwrap();
        on_each_isa(|_| {
            let mut out = [5.0; 2];
            segment_max(&x, 1, &map, &mut out);
            assert!(out[0].is_nan());
            assert_eq!(out[1], 0.0);
        });
    }
}

#[test]
fn long_segments_have_the_maximum_of_all_their_pieces() {
    let n = 20_000;
    let x: Vec<f32> = (0..n).map(|i| if i == 13_000 { 5.0 } else { -(i as f32) }).collect();
    let map = RowMap::try_new(n, vec![0, n], (0..n as u32).collect(), None).unwrap();
    let (mut out, mut dx) = ([0.0], vec![1.0; n]);
    segment_max(&x, 1, &map, &mut out);
    assert_eq!(out, [5.0]);
    segment_max_grad(&x, &out, &[2.0], 1, &map, &mut dx);
    assert_eq!(dx.iter().position(|&v| v == 2.0), Some(13_000));
    assert_eq!(dx.iter().sum::<f32>(), 2.0);
}

fn channel_passes<T: Element>(n: usize, c: usize) {
    let mut numbers = Numbers(41);
    let x: Vec<T> = (0..n * c).map(|_| T::of(100.0 + numbers.unit())).collect();
    let wide_x = wide(&x);
    let (scale, shift): (Vec<f32>, Vec<f32>) = (numbers.values(c), numbers.values(c));
    let expected: Vec<f64> = wide_x
        .iter()
        .enumerate()
        .map(|(at, v)| (v * f64::from(scale[at % c]) + f64::from(shift[at % c])).max(0.0))
        .collect();
    let column = |j: usize| wide_x.iter().skip(j).step_by(c);
    let mean: Vec<f64> = (0..c).map(|j| column(j).sum::<f64>() / n.max(1) as f64).collect();
    let variance: Vec<f64> =
        (0..c).map(|j| column(j).map(|v| (v - mean[j]).powi(2)).sum::<f64>() / n.max(1) as f64).collect();
    on_each_isa(|isa| {
        let mut out = vec![T::of(9.0); x.len()];
        scale_shift_activation(&x, c, &scale, &shift, Activation::Relu, &mut out);
        assert_close(&format!("scale_shift_activation {isa:?}"), &out, &expected, &vec![100.0; x.len()]);
        let moments = channel_moments(&x, c);
        let sums = channel_sums(&x, c);
        for j in 0..c {
            assert!((moments.mean[j] - mean[j]).abs() < 1e-10, "{isa:?}");
            assert!((moments.variance[j] - variance[j]).abs() < 1e-10, "{isa:?}");
            assert!((sums[j] - mean[j] * n as f64).abs() < 1e-6, "{isa:?}");
        }
    });
}

#[rstest]
fn passes_over_channels_match_the_loops(#[values(0, 1, 3000)] n: usize, #[values(1, 7, 32)] c: usize) {
    channel_passes::<f32>(n, c);
    channel_passes::<f64>(n, c);
    channel_passes::<f16>(n, c);
    channel_passes::<bf16>(n, c);
}

fn on_x(xs: &[i32]) -> Support {
    Support::try_new(xs.iter().map(|&x| [0, x, 0, 0]).collect()).unwrap()
}

fn kernel(size: u32, stride: u32, padding: u32) -> KernelSpec {
    KernelSpec::try_new([size, 1, 1], [stride, 1, 1], [padding, 0, 0], [1; 3]).unwrap()
}

#[rstest]
#[case::size_2(2, [1.0, 4.0, 4.0, 7.0], [1.0, 4.0, 2.0, 7.0], [1.0, 4.0, 2.0, 7.0])]
#[case::size_3(3, [1.0, 5.0, 8.0, 7.0], [1.0, 2.5, 8.0 / 3.0, 7.0], [1.0, 4.0, 4.0, 7.0])]
fn pools_by_hand(#[case] size: u32, #[case] sum: [f32; 4], #[case] mean: [f32; 4], #[case] max: [f32; 4]) {
    let relation =
        Relation::forward(&on_x(&[-3, -1, 0, 1, 4]), &kernel(size, 2, 0), SupportPolicy::Floor).unwrap();
    // The created rows x = -2, -1, 0, 2 may stand in another order.
    let place: Vec<usize> = relation
        .target()
        .coords()
        .iter()
        .map(|c| [-2, -1, 0, 2].iter().position(|x| *x == c[1]).unwrap())
        .collect();
    let x = [1.0, 4.0, 2.0, 2.0, 7.0];
    let mut out = [0.0f32; 4];
    row_mix(&x, 1, &RowMap::from_relation_sum(&relation), 0.0, &mut out);
    assert!(out.iter().zip(&place).all(|(v, &p)| *v == sum[p]), "{out:?}");
    row_mix(&x, 1, &RowMap::from_relation_avg(&relation), 0.0, &mut out);
    assert!(out.iter().zip(&place).all(|(v, &p)| (v - mean[p]).abs() < 1e-6), "{out:?}");
    pool_max(&x, 1, &relation, &mut out);
    assert!(out.iter().zip(&place).all(|(v, &p)| *v == max[p]), "{out:?}");
    if size == 2 {
        let mut dx = [0.0; 5];
        pool_max_grad(&x, &out, &[1.0; 4], 1, &relation, &mut dx);
        assert_eq!(dx, [1.0, 1.0, 0.5, 0.5, 1.0]);
    }
}

#[test]
fn transposed_pooling_and_trilinear_upsampling_by_hand() {
    let (coarse, x) = (on_x(&[-1, 0, 2]), [10.0f32, 20.0, 40.0]);
    let relation = Relation::target_transposed(&coarse, &on_x(&[-3, -1, 0, 3, 8]), &kernel(3, 2, 1)).unwrap();
    let mut out = [1.0; 5];
    row_mix(&x, 1, &RowMap::from_relation_avg(&relation), 0.0, &mut out);
    assert_eq!(out, [10.0, 15.0, 20.0, 40.0, 0.0]);
    let fine = on_x(&[-3, -2, -1, 0, 1, 3, 6]);
    let relation = Relation::target_transposed(&coarse, &fine, &kernel(3, 2, 1)).unwrap();
    let mut out = [1.0; 7];
    row_mix(&x, 1, &RowMap::trilinear(&relation, [2, 1, 1]), 0.0, &mut out);
    assert_eq!(out, [10.0, 10.0, 15.0, 20.0, 20.0, 40.0, 0.0]);
}

#[test]
fn global_pools_by_hand() {
    // Batches 0, 0, 2 of 4.
    let map = RowMap::try_new(3, vec![0, 2, 2, 3, 3], vec![0, 1, 2], None).unwrap();
    let mut out = [9.0f32; 4];
    row_mix(&[1.0, 3.0, 5.0], 1, &map, 0.0, &mut out);
    assert_eq!(out, [4.0, 0.0, 5.0, 0.0]);
}

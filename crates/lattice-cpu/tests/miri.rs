//! Small enough for Miri, which cannot run vector intrinsics: everything around them, on the scalar twins.
//!
//! `MIRIFLAGS="-Zmiri-disable-isolation -Zmiri-tree-borrows -Zmiri-ignore-leaks" cargo +nightly miri test -p lattice-cpu miri_`
//! (tree borrows: the queues under rayon break the stricter stacked rule).
#![allow(clippy::unwrap_used, reason = "tests")]

mod cases;

use cases::{Numbers, random_relation, random_row_map};
use lattice_cpu::*;

#[test]
fn miri_threads_write_disjoint_tiles() {
    let mut numbers = Numbers(1);
    let relation = random_relation(&mut numbers, 12, 530, 2, 0.02);
    let (c_in, c_out) = (3, 70);
    let shape = ConvShape::dense(c_in, c_out);
    let x: Vec<f32> = numbers.values(12 * c_in);
    let w: Vec<f32> = numbers.values(shape.weights(2));
    let mut y = vec![0.0; 530 * c_out];
    let (mut dx, mut dw) = (vec![0.0; x.len()], vec![0.0; w.len()]);
    let pool = rayon::ThreadPoolBuilder::new().num_threads(2).build().unwrap();
    pool.install(|| {
        with_isa(Isa::Scalar, || {
            conv_forward(&x, &w, &relation, shape, &Epilogue::default(), &mut y);
            conv_input_grad(&y, &w, &relation, shape, &mut dx);
            conv_weight_grad(&x, &y, &relation, shape, &mut dw);
        })
        .unwrap();
    });
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(a * b)).sum::<f64>();
    let size = dot(&y, &y);
    assert!((dot(&x, &dx) - size).abs() < 1e-4 * size && (dot(&w, &dw) - size).abs() < 1e-4 * size);
}

#[test]
fn miri_rows_and_channels() {
    let mut numbers = Numbers(2);
    let map = random_row_map(&mut numbers, 6, 5, 3, true);
    let x: Vec<half::f16> = numbers.values(6 * 3);
    let mut y = vec![half::f16::ZERO; 5 * 3];
    with_isa(Isa::Scalar, || {
        row_mix(&x, 3, &map, 0.0, &mut y);
        segment_max(&x, 3, &map, &mut y);
        let mut dx = x.clone();
        segment_max_grad(&x, &y, &y, 3, &map, &mut dx);
        gemm(&x, &x[..3], 6, 3, 1, &Epilogue::default(), &mut y[..6]);
        channel_moments(&x, 3);
    })
    .unwrap();
}

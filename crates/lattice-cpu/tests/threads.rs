//! One, two and seven threads give the same bits.
#![allow(clippy::unwrap_used, reason = "tests")]

mod cases;

use cases::{Element, Numbers, available, random_relation, random_row_map};
use half::f16;
use lattice_core::{Relation, RowMap};
use lattice_cpu::*;

/// The bits of every operation's result.
fn all_operations<T: Element>(relation: &Relation, map: &RowMap, c: [usize; 2]) -> Vec<u64> {
    let mut numbers = Numbers(5);
    let shape = ConvShape::dense(c[0], c[1]);
    let depthwise = ConvShape { c_in: c[0], c_out: c[0], groups: c[0] };
    let (n_in, n_out) = (relation.n_in(), relation.n_out());
    let x: Vec<T> = numbers.values(n_in * c[0]);
    let g: Vec<T> = numbers.values(n_out * c[1]);
    let g_in: Vec<T> = numbers.values(n_out * c[0]);
    let w: Vec<T> = numbers.values(shape.weights(relation.taps()));
    let w_depth: Vec<T> = numbers.values(depthwise.weights(relation.taps()));
    let mut bits = Vec::new();
    let mut keep = |values: &[T]| bits.extend(values.iter().map(|&v| Into::<f64>::into(v).to_bits()));
    let zeros = |n: usize| vec![T::of(0.0); n];
    let mut y = zeros(g.len());
    conv_forward(&x, &w, relation, shape, &Epilogue::default(), &mut y);
    keep(&y);
    let mut dx = zeros(x.len());
    conv_input_grad(&g, &w, relation, shape, &mut dx);
    keep(&dx);
    let mut dw = zeros(w.len());
    conv_weight_grad(&x, &g, relation, shape, &mut dw);
    keep(&dw);
    let mut y_depth = zeros(g_in.len());
    conv_forward(&x, &w_depth, relation, depthwise, &Epilogue::default(), &mut y_depth);
    keep(&y_depth);
    let mut dw_depth = zeros(w_depth.len());
    conv_weight_grad(&x, &g_in, relation, depthwise, &mut dw_depth);
    keep(&dw_depth);
    let mut pooled = zeros(n_out * c[0]);
    pool_max(&x, c[0], relation, &mut pooled);
    keep(&pooled);
    pool_max_grad(&x, &pooled, &g_in, c[0], relation, &mut dx);
    keep(&dx);
    let mut mixed = zeros(map.n_out() * c[0]);
    row_mix(&x, c[0], map, 0.0, &mut mixed);
    keep(&mixed);
    segment_max(&x, c[0], map, &mut mixed);
    keep(&mixed);
    let ones = vec![T::Acc::from_f32(1.0); c[0]];
    let activation = Activation::Relu;
    let shape = BatchNormShape { gamma: &ones, beta: &ones, eps: 1e-3, activation };
    let mut normal = zeros(x.len());
    let found = batch_norm_train(&x, shape, Some(&dx), &mut normal);
    keep(&normal);
    let of = |v: &[f64]| v.iter().map(|&v| Acc::from_f64(v)).collect::<Vec<T::Acc>>();
    let (mean, var) = (of(&found.mean), of(&found.variance));
    let tape = BatchNormTape { x: &x, y: Some(&normal), mean: &mean, var: &var };
    let mut d_residual = zeros(x.len());
    let mut d_normal = zeros(x.len());
    let found = batch_norm_train_grad(&dx, tape, shape, &mut d_normal, Some(&mut d_residual));
    keep(&d_normal);
    keep(&d_residual);
    let moments = channel_moments(&x, c[0]);
    bits.extend(found.gamma.iter().chain(&found.beta).map(|v| v.to_bits()));
    bits.extend(
        moments.mean.iter().chain(&moments.variance).chain(&channel_sums(&x, c[0])).map(|v| v.to_bits()),
    );
    bits
}

#[test]
fn results_do_not_depend_on_the_number_of_threads() {
    let mut numbers = Numbers(3);
    let relation = random_relation(&mut numbers, 3000, 3500, 9, 0.2);
    let map = random_row_map(&mut numbers, 3000, 5, 30_000, true);
    for isa in available() {
        let run = |threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| {
                with_isa(isa, || {
                    let mut bits = all_operations::<f32>(&relation, &map, [16, 20]);
                    bits.extend(all_operations::<f16>(&relation, &map, [5, 8]));
                    bits.extend(all_operations::<f64>(&relation, &map, [3, 4]));
                    bits
                })
                .unwrap()
            })
        };
        let one = run(1);
        assert!(one == run(2) && one == run(7), "{isa:?}");
    }
}

#[test]
fn operations_may_nest_in_a_pool() {
    use rayon::prelude::*;
    let mut numbers = Numbers(3);
    let relation = random_relation(&mut numbers, 700, 900, 5, 0.3);
    let (x, w): (Vec<f32>, Vec<f32>) = (numbers.values(700 * 8), numbers.values(5 * 8 * 8));
    let run = || {
        let mut y = vec![0.0f32; 900 * 8];
        conv_forward(&x, &w, &relation, ConvShape::dense(8, 8), &Epilogue::default(), &mut y);
        y
    };
    let expected = run();
    let pool = rayon::ThreadPoolBuilder::new().num_threads(4).build().unwrap();
    pool.install(|| (0..24).into_par_iter().for_each(|_| assert!(run() == expected)));
}

#[test]
fn a_missing_instruction_set_is_an_error_not_a_fallback() {
    for isa in Isa::ALL {
        assert_eq!(with_isa(isa, current_isa).ok(), isa.is_available().then_some(isa));
    }
    assert!(detect().is_available());
}

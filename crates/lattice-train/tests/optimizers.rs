//! AdamW and SGD against their definitions by loops.
#![allow(clippy::unwrap_used, reason = "tests")]

use burn::tensor::{Bool, Device, Tensor, TensorData};
use lattice_train::{Optimizer, OptimizerConfig, ParameterLayout, build_model};

fn vector(values: &[f64]) -> Tensor<1> {
    Tensor::from_data(TensorData::new(values.to_vec(), [values.len()]), &Device::flex())
}

fn host(tensor: &Tensor<1>) -> Vec<f64> {
    tensor.clone().into_data().iter::<f64>().collect()
}

fn yes(answer: bool) -> Tensor<1, Bool> {
    Tensor::from_data(TensorData::new(vec![answer], [1]), &Device::flex())
}

fn layout() -> ParameterLayout {
    ParameterLayout::of(&build_model("minkunet-small", 2, 0, &Device::flex().autodiff()).unwrap())
}

/// A gradient that changes from step to step.
fn gradient(n: usize, step: usize) -> Vec<f64> {
    (0..n).map(|i| ((i * 7 + step * 13) % 11) as f64 / 5.0 - 1.0).collect()
}

/// Runs `steps` steps and returns the values.
fn run(
    config: OptimizerConfig,
    layout: &ParameterLayout,
    start: &[f64],
    steps: usize,
    rate: f64,
) -> Vec<f64> {
    let mut optimizer = Optimizer::new(config, layout, &Device::flex());
    let mut values = vector(start);
    for step in 0..steps {
        let gradient = vector(&gradient(start.len(), step));
        values = optimizer.step(values, gradient, step, rate, &yes(true));
    }
    host(&values)
}

fn start(n: usize) -> Vec<f64> {
    (0..n).map(|i| (i % 5) as f64 / 4.0 - 0.5).collect()
}

fn assert_close(found: &[f64], expected: &[f64]) {
    for (i, (f, e)) in found.iter().zip(expected).enumerate() {
        assert!((f - e).abs() < 2e-6, "{i}: {f} {e}");
    }
}

#[test]
fn adamw_is_its_definition_and_vectors_do_not_decay() {
    let layout = layout();
    let (n, matrices) = (layout.len(), layout.matrix_len());
    assert!(matrices < n, "the last values are vectors");
    let (rate, decay) = (0.01, 0.1);
    let config = OptimizerConfig::AdamW { beta1: 0.9, beta2: 0.999, epsilon: 1e-8, weight_decay: decay };
    let mut expected = start(n);
    let (mut mean, mut square) = (vec![0.0; n], vec![0.0; n]);
    for step in 0..5 {
        let gradient = gradient(n, step);
        for i in 0..n {
            mean[i] = 0.9 * mean[i] + 0.1 * gradient[i];
            square[i] = 0.999 * square[i] + 0.001 * gradient[i] * gradient[i];
            let m = mean[i] / (1.0 - 0.9f64.powi(step as i32 + 1));
            let v = square[i] / (1.0 - 0.999f64.powi(step as i32 + 1));
            let shrink = if i < matrices { rate * decay * expected[i] } else { 0.0 };
            expected[i] -= shrink + rate * m / (v.sqrt() + 1e-8);
        }
    }
    assert_close(&run(config, &layout, &start(n), 5, rate), &expected);
}

#[test]
fn sgd_is_its_definition_with_and_without_nesterov() {
    let layout = layout();
    let (n, matrices) = (layout.len(), layout.matrix_len());
    for nesterov in [false, true] {
        let config = OptimizerConfig::Sgd { momentum: 0.9, nesterov, weight_decay: 0.1 };
        let mut expected = start(n);
        let mut velocity = vec![0.0; n];
        for step in 0..4 {
            let gradient = gradient(n, step);
            for i in 0..n {
                let g = gradient[i] + if i < matrices { 0.1 * expected[i] } else { 0.0 };
                velocity[i] = 0.9 * velocity[i] + g;
                expected[i] -= 0.01 * if nesterov { g + 0.9 * velocity[i] } else { velocity[i] };
            }
        }
        assert_close(&run(config, &layout, &start(n), 4, 0.01), &expected);
    }
}

#[test]
fn a_step_that_does_not_apply_changes_no_bit() {
    let layout = layout();
    let n = layout.len();
    for config in [OptimizerConfig::adamw(), OptimizerConfig::sgd()] {
        let mut optimizer = Optimizer::new(config, &layout, &Device::flex());
        let first = optimizer.step(vector(&start(n)), vector(&gradient(n, 0)), 0, 0.1, &yes(true));
        let state: Vec<Vec<f64>> = optimizer.state().iter().map(host).collect();
        let bad = vector(&vec![f64::NAN; n]);
        let second = optimizer.step(first.clone(), bad, 1, 0.1, &yes(false));
        assert_eq!(host(&first), host(&second));
        assert_eq!(state, optimizer.state().iter().map(host).collect::<Vec<_>>());
    }
}

#[test]
fn numbers_that_train_nothing_are_refused() {
    for bad in [
        OptimizerConfig::AdamW { beta1: 1.0, beta2: 0.9, epsilon: 1e-8, weight_decay: 0.0 },
        OptimizerConfig::AdamW { beta1: 0.9, beta2: 0.9, epsilon: 0.0, weight_decay: 0.0 },
        OptimizerConfig::Sgd { momentum: -0.1, nesterov: false, weight_decay: 0.0 },
        OptimizerConfig::Sgd { momentum: 0.9, nesterov: false, weight_decay: f64::NAN },
    ] {
        assert!(bad.check().unwrap_err().to_string().starts_with("optimizer: expected"));
    }
}

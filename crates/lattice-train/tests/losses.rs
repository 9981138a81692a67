//! Losses against their definitions by loops, and their gradients against central differences in f64.
#![allow(clippy::unwrap_used, reason = "tests")]

use burn::tensor::{DType, Device, FloatDType, Tensor, TensorData};
use lattice_scenes::Random;
use lattice_train::{ClassWeights, LossConfig, LossTargets, combined_loss};
use rstest::rstest;

const CLASSES: usize = 4;

fn scores(rows: usize, seed: u64) -> Vec<f64> {
    let mut random = Random::new(&[seed]);
    (0..rows * CLASSES).map(|_| 2.0 * random.normal()).collect()
}

/// Labels of which class 3 never occurs and some are to be ignored.
fn labels(rows: usize, seed: u64) -> Vec<u8> {
    let mut random = Random::new(&[seed, 1]);
    (0..rows).map(|_| if random.chance(0.2) { 255 } else { random.below(3) as u8 }).collect()
}

fn softmax(row: &[f64]) -> Vec<f64> {
    let most = row.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let sum: f64 = row.iter().map(|v| (v - most).exp()).sum();
    row.iter().map(|v| (v - most).exp() / sum).collect()
}

fn cross_entropy_by_definition(scores: &[f64], labels: &[u8], weights: &[f32]) -> f64 {
    let (mut sum, mut of) = (0.0, 0.0);
    for (row, &label) in scores.chunks(CLASSES).zip(labels).filter(|(_, label)| **label != 255) {
        let w = f64::from(weights[usize::from(label)]);
        sum -= w * softmax(row)[usize::from(label)].ln();
        of += w;
    }
    if of > 0.0 { sum / of } else { 0.0 }
}

/// The Lovász extension as an integral over thresholds: `∫ (1 - IoU of the rows whose error is above t) dt`.
fn lovasz_by_definition(scores: &[f64], labels: &[u8]) -> f64 {
    let rows: Vec<(Vec<f64>, u8)> = scores
        .chunks(CLASSES)
        .zip(labels)
        .filter(|(_, label)| **label != 255)
        .map(|(row, &label)| (softmax(row), label))
        .collect();
    let mut losses = Vec::new();
    for class in 0..CLASSES {
        let own = |label: u8| usize::from(label) == class;
        let total = rows.iter().filter(|(_, label)| own(*label)).count();
        if total == 0 {
            continue;
        }
        let error = |(p, label): &(Vec<f64>, u8)| if own(*label) { 1.0 - p[class] } else { p[class] };
        let mut thresholds: Vec<f64> = rows.iter().map(error).chain([0.0]).collect();
        thresholds.sort_by(f64::total_cmp);
        let mut sum = 0.0;
        for pair in thresholds.windows(2) {
            let middle = (pair[0] + pair[1]) / 2.0;
            let wrong: Vec<_> = rows.iter().filter(|row| error(row) > middle).collect();
            let missed = wrong.iter().filter(|(_, label)| own(*label)).count();
            let added = wrong.len() - missed;
            let jaccard = 1.0 - (total - missed) as f64 / (total + added) as f64;
            sum += (pair[1] - pair[0]) * jaccard;
        }
        losses.push(sum);
    }
    losses.iter().sum::<f64>() / losses.len().max(1) as f64
}

fn config(cross_entropy: f64, lovasz: f64) -> LossConfig {
    LossConfig { cross_entropy, lovasz, class_weights: ClassWeights::None }
}

fn tensor(values: &[f64]) -> Tensor<2> {
    let device = Device::flex().autodiff();
    let shape = [values.len() / CLASSES, CLASSES];
    Tensor::from_data(TensorData::new(values.to_vec(), shape), (&device, DType::F64))
}

fn loss(values: &[f64], targets: LossTargets<'_>, config: &LossConfig) -> f64 {
    combined_loss(tensor(values), targets, config).into_data().iter::<f64>().next().unwrap()
}

#[rstest]
#[case::cross_entropy(1.0, 0.0)]
#[case::lovasz(0.0, 1.0)]
#[case::both(0.5, 2.0)]
fn losses_are_their_definitions(#[case] cross_entropy: f64, #[case] lovasz: f64) {
    for (rows, seed) in [(1, 0), (2, 1), (17, 2), (300, 3)] {
        let (scores, labels) = (scores(rows, seed), labels(rows, seed));
        let weights = [1.0, 0.5, 3.0, 2.0];
        let targets = LossTargets { labels: &labels, class_weights: &weights };
        let found = loss(&scores, targets, &config(cross_entropy, lovasz));
        let expected = cross_entropy * cross_entropy_by_definition(&scores, &labels, &weights)
            + lovasz * lovasz_by_definition(&scores, &labels);
        assert!((found - expected).abs() < 1e-10 * (1.0 + expected.abs()), "{rows}: {found} {expected}");
    }
}

#[rstest]
#[case::cross_entropy(1.0, 0.0)]
#[case::lovasz(0.0, 1.0)]
#[case::both(1.0, 1.0)]
fn gradients_are_central_differences(#[case] cross_entropy: f64, #[case] lovasz: f64) {
    let rows = 23;
    let (values, labels) = (scores(rows, 5), labels(rows, 5));
    let weights = [1.0, 0.5, 3.0, 2.0];
    let targets = LossTargets { labels: &labels, class_weights: &weights };
    let config = config(cross_entropy, lovasz);
    let leaf = tensor(&values).require_grad();
    let gradients = combined_loss(leaf.clone(), targets, &config).backward();
    let found: Vec<f64> = leaf.grad(&gradients).unwrap().into_data().iter::<f64>().collect();
    let step = 1e-6;
    for i in 0..values.len() {
        let at = |shift: f64| {
            let mut moved = values.clone();
            moved[i] += shift;
            loss(&moved, targets, &config)
        };
        let expected = (at(step) - at(-step)) / (2.0 * step);
        assert!((found[i] - expected).abs() < 1e-7, "{i}: {} {expected}", found[i]);
        assert!(labels[i / CLASSES] != 255 || found[i] == 0.0, "rows to ignore have no gradient");
    }
}

#[test]
fn rows_to_ignore_change_nothing_and_no_rows_at_all_give_zero() {
    let (mut values, mut labels) = (scores(40, 7), labels(40, 7));
    let weights = [1.0; CLASSES];
    let config = config(1.0, 1.0);
    let before = loss(&values, LossTargets { labels: &labels, class_weights: &weights }, &config);
    values.extend(scores(9, 8));
    labels.extend([255; 9]);
    let after = loss(&values, LossTargets { labels: &labels, class_weights: &weights }, &config);
    assert!((before - after).abs() < 1e-12);
    let nothing = LossTargets { labels: &[255; 3], class_weights: &weights };
    assert_eq!(loss(&scores(3, 1), nothing, &config), 0.0);
    let leaf = tensor(&scores(3, 1)).require_grad();
    let gradients = combined_loss(leaf.clone(), nothing, &config).backward();
    assert!(leaf.grad(&gradients).unwrap().into_data().iter::<f64>().all(|g| g == 0.0));
}

#[test]
fn half_precision_scores_are_summed_in_f32() {
    let (values, labels) = (scores(200, 3), labels(200, 3));
    let targets = LossTargets { labels: &labels, class_weights: &[1.0; CLASSES] };
    let whole = loss(&values, targets, &config(1.0, 1.0));
    for half in [FloatDType::F16, FloatDType::BF16] {
        let found = combined_loss(tensor(&values).cast(half), targets, &config(1.0, 1.0));
        assert_eq!(found.dtype(), DType::F32);
        let found = found.into_data().iter::<f64>().next().unwrap();
        assert!((found - whole).abs() < 0.02 * whole, "{half:?}: {found} {whole}");
    }
}

#[test]
fn weights_of_classes_follow_the_points() {
    let counts = [100, 400, 0];
    assert_eq!(ClassWeights::None.resolve(&counts).unwrap(), [1.0; 3]);
    assert_eq!(ClassWeights::InverseFrequency.resolve(&counts).unwrap(), [1.6, 0.4, 1.6]);
    let root = ClassWeights::InverseRoot.resolve(&counts).unwrap();
    assert!((root[0] / root[1] - 2.0).abs() < 1e-6 && root[2] == root[0]);
    assert_eq!(ClassWeights::InverseRoot.resolve(&[0, 0]).unwrap(), [1.0; 2]);
    for bad in [vec![1.0], vec![1.0, -1.0, 1.0], vec![1.0, f32::NAN, 1.0]] {
        let text = ClassWeights::Given(bad).resolve(&counts).unwrap_err().to_string();
        assert!(text.contains("class weights: expected 3 finite numbers"), "{text}");
    }
    assert!(config(0.0, 0.0).check().is_err() && config(-1.0, 2.0).check().is_err());
}

//! Attention within patches against loops in `f64`, by the kernel of the CPU and by tensors, with its gradients.
#![allow(clippy::unwrap_used, reason = "tests")]

mod harness;

use burn::tensor::{DType, Device, Tensor};
use burn_lattice::{Error, PatchRun, ops};
use harness::*;

fn run(first: usize, patches: usize, length: usize) -> PatchRun {
    PatchRun { first, patches, length }
}

/// `softmax(q · kᵀ / √width) · v` of each head among the rows of each patch.
fn by_loops(qkv: &[f64], runs: &[PatchRun], channels: usize, heads: usize) -> Vec<f64> {
    let width = channels / heads;
    let part =
        |row: usize, part: usize, head: usize| &qkv[(3 * row + part) * channels + head * width..][..width];
    let mut out = Vec::new();
    for run in runs.iter().filter(|run| run.length > 0) {
        for patch in 0..run.patches {
            let rows = run.first + patch * run.length..run.first + (patch + 1) * run.length;
            for query in rows.clone() {
                for head in 0..heads {
                    let dot = |key: usize| {
                        let products = part(query, 0, head).iter().zip(part(key, 1, head));
                        (products.map(|(q, k)| q * k).sum::<f64>() / (width as f64).sqrt()).exp()
                    };
                    let weights: Vec<f64> = rows.clone().map(dot).collect();
                    let total: f64 = weights.iter().sum();
                    out.extend((0..width).map(|c| {
                        rows.clone().zip(&weights).map(|(row, w)| w * part(row, 2, head)[c]).sum::<f64>()
                            / total
                    }));
                }
            }
        }
    }
    out
}

#[test]
fn attention_is_that_of_the_loops_with_and_without_autodiff() {
    for (runs, channels, heads) in [
        (vec![run(0, 3, 1)], 2, 1),
        (vec![run(0, 2, 7), run(14, 1, 40)], 6, 3),
        (vec![run(0, usize::MAX, 0), run(0, 2, 33)], 32, 2),
    ] {
        let n = runs.iter().map(|run| run.patches * run.length).sum::<usize>();
        let values = Seeded::new(3).values(3 * n * channels);
        for device in [inference(), training()] {
            for dtype in dtypes() {
                let qkv: Tensor<2> = tensor(&values, [n, 3 * channels], dtype, &device);
                let expected = by_loops(&read(&qkv), &runs, channels, heads);
                let found = ops::patch_attention(qkv, &runs, heads).unwrap();
                assert_eq!((found.dims(), found.dtype()), ([n, channels], dtype));
                // Burn's products on a GPU may round f32 to tf32, whose mantissa is that of f16.
                let rounded = if devices::on_gpu() && dtype == DType::F32 { DType::F16 } else { dtype };
                let allowed = tolerance(rounded);
                for (found, expected) in read(&found).iter().zip(&expected) {
                    let allowed = 4.0 * (allowed.atol + allowed.rtol * expected.abs());
                    assert!((found - expected).abs() <= allowed, "{dtype:?}: {found}, expected {expected}");
                }
            }
        }
    }
}

#[test]
fn gradients_are_central_differences() {
    let runs = [run(0, 2, 3), run(6, 1, 2)];
    check_gradients(&[Seeded::new(5).values(8 * 12)], |leaves| {
        ops::patch_attention(leaves[0].clone().reshape([8, 12]), &runs, 2).unwrap()
    });
}

#[test]
fn what_does_not_fit_is_refused() {
    let device = inference();
    let qkv = || Tensor::<2>::zeros([6, 12], &device);
    let runs = [run(0, 2, 3)];
    for heads in [0, 3, 8] {
        assert!(
            matches!(ops::patch_attention(qkv(), &runs, heads), Err(Error::Shape { .. })),
            "{heads} heads"
        );
    }
    let short = ops::patch_attention(qkv(), &[run(0, 1, 5)], 2).unwrap_err().to_string();
    assert!(short.contains("runs of 6 rows") && short.contains("runs of 5"), "{short}");
    let apart = ops::patch_attention(qkv(), &[run(0, 1, 2), run(3, 1, 3)], 2).unwrap_err().to_string();
    assert!(apart.contains("begins at row 2") && apart.contains("at 3"), "{apart}");
    assert!(ops::patch_attention(qkv(), &[run(0, usize::MAX, 2)], 2).is_err());
    let nothing = ops::patch_attention(Tensor::<2>::zeros([0, 12], &device), &[], 2).unwrap();
    assert_eq!(nothing.dims(), [0, 4]);
}

/// The kernel of the CPU and the formula that autodiff differentiates.
#[test]
fn gelu_is_the_same_with_and_without_autodiff() {
    let values: Vec<f64> = (-400..400).map(|i| f64::from(i) / 40.0).collect();
    let kind = ops::ActivationKind::Gelu(ops::GeluApproximation::None);
    let gelu = |device: &Device| {
        let x: Tensor<2> = tensor(&values, [80, 10], DType::F32, device);
        read(&ops::activation_features(x, kind).unwrap())
    };
    for (plain, formula) in gelu(&inference()).iter().zip(gelu(&training())) {
        assert!((plain - formula).abs() <= 1e-6 + 1e-6 * formula.abs(), "{plain}, by the formula {formula}");
    }
}

//! Gradient checkpointing recomputes activations in the backward pass: gradients must not change by a bit.
#![allow(clippy::unwrap_used, reason = "tests")]

mod harness;

use burn::tensor::{Device, Tensor};
use burn_lattice::Activation;
use burn_lattice::ops::{self, ConvOptions, DropoutKey, NormAffine, PoolMode, PoolOptions, Target};
use harness::*;
use lattice_testkit::offsets::Kernel;

/// A small U-Net with everything that has a backward pass of its own.
fn network(coords: &[Coord], leaves: &[Tensor<1>]) -> Tensor<2> {
    let subm = ConvOptions::new(spec(&Kernel::cube(3, 1)));
    let down = ConvOptions::new(spec(&Kernel::cube(2, 2)));
    let weight = |at: usize, taps: usize| leaves[at].clone().reshape([taps, 4, 4]);
    let x = sparse_at(coords, leaves[0].clone().reshape([coords.len(), 4]), [1; 3]);
    let a = ops::subm_conv3d(&x, weight(1, 27), Some(leaves[4].clone()), &subm).unwrap();
    let a = ops::relu(&ops::batch_norm(&a, NormAffine::default(), None, 1e-3).unwrap());
    let coarse = ops::conv3d(&a, weight(2, 8), None, &down, None).unwrap();
    let coarse = ops::silu(&ops::group_norm(&coarse, 2, NormAffine::default(), 1e-3).unwrap());
    let coarse = ops::dropout(&coarse, 0.25, DropoutKey { seed: 1, call: 0 }).unwrap();
    let up = ops::conv_transpose3d(&coarse, weight(3, 8), None, &down, Some(&Target::from(&x))).unwrap();
    let again = ops::normalized_subm_conv3d(&up, weight(1, 27), None, &subm, 1e-3).unwrap();
    let again =
        ops::batch_norm_residual(&again, NormAffine::default(), Some(&a), 1e-3, Activation::Relu).unwrap();
    let joined = up.with_feats(again.feats().clone() + a.feats().clone()).unwrap();
    let pooled = ops::pool3d(&ops::relu(&joined), PoolMode::Max, &PoolOptions::default()).unwrap();
    ops::global_pool(&pooled, PoolMode::Avg, None).unwrap()
}

#[test]
fn gradients_are_equal_with_and_without_checkpointing() {
    let coords = Seeded::new(1).coords(60, 2, 3);
    let mut seeded = Seeded::new(2);
    let leaves = [
        seeded.values(coords.len() * 4),
        seeded.values(27 * 16),
        seeded.values(8 * 16),
        seeded.values(8 * 16),
        seeded.values(4),
    ];
    let run = |device: &Device| gradients(device, &leaves, 3, |leaves| network(&coords, leaves));
    let plain = run(&training());
    assert!(plain.iter().flatten().any(|g| *g != 0.0));
    assert_eq!(plain, run(&training()), "two runs give equal bits");
    assert_eq!(plain, run(&training().gradient_checkpointing()));
}

#[test]
fn each_operation_alone_survives_checkpointing() {
    let coords = Seeded::new(4).coords(30, 2, 2);
    let subm = ConvOptions::new(spec(&Kernel::cube(3, 1)));
    let mut seeded = Seeded::new(5);
    let leaves = [seeded.values(coords.len() * 2), seeded.values(27 * 4), seeded.values(2)];
    let run = |device: &Device, pointwise: bool, bias: bool| {
        gradients(device, &leaves, 6, |leaves| {
            // A memory-bound step before and after, which checkpointing recomputes.
            let x = sparse_at(&coords, leaves[0].clone().reshape([coords.len(), 2]).tanh(), [1; 3]);
            let bias = bias.then(|| leaves[2].clone() * 2.0);
            let y = match pointwise {
                true => {
                    ops::linear(&x, leaves[1].clone().reshape([54, 2]).narrow(0, 0, 2).exp(), bias.clone())
                        .unwrap()
                }
                false => {
                    ops::subm_conv3d(&x, leaves[1].clone().reshape([27, 2, 2]).exp(), bias.clone(), &subm)
                        .unwrap()
                }
            };
            let y = y.feats().clone().tanh();
            // Every leaf takes part, whichever form this is.
            y + (leaves[2].clone() * 0.5).unsqueeze()
        })
    };
    for pointwise in [false, true] {
        for bias in [false, true] {
            let checkpointed = run(&training().gradient_checkpointing(), pointwise, bias);
            assert_eq!(run(&training(), pointwise, bias), checkpointed);
        }
    }
}

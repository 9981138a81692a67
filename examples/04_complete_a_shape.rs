//! A generative decoder completes shapes of which half the voxels are missing.
//!
//! The encoder goes two levels down; the decoder makes every voxel that its kernel reaches, scores it, and drops those that score below 0.
//!
//! `cargo run --release --example 04_complete_a_shape`

use std::collections::BTreeSet;
use std::error::Error;

use burn::module::Module;
use burn_lattice::nn::{
    BlockActivation, ConvBlock, ConvBlockConfig, GenerativeConvTranspose3d, GenerativeConvTranspose3dConfig,
};
use burn_lattice::ops;
use burn_lattice::prelude::*;
use lattice_models::seed_parameters;
use lattice_scenes::{Random, SceneKind, SceneOptions, generate};
use lattice_train::{Descent, OptimizerConfig};

type Rows = BTreeSet<[i32; 4]>;

const STEPS: usize = 200;

/// The voxels of a generated object, 32 along its longest side.
fn object(seed: u64) -> Rows {
    let cloud = generate(SceneKind::Object, seed, &SceneOptions::default().with_density(0.02));
    cloud
        .positions
        .iter()
        .map(|p| [0, 1, 2].map(|a| (p[a] * 31.9) as i32))
        .map(|[x, y, z]| [0, x, y, z])
        .collect()
}

/// Rows at half the resolution.
fn coarser(rows: &Rows) -> Rows {
    rows.iter().map(|[b, x, y, z]| [*b, x.div_euclid(2), y.div_euclid(2), z.div_euclid(2)]).collect()
}

/// Half of the voxels, each with the feature 1.
fn thinned(rows: &Rows, random: &mut Random, device: &Device) -> Result<SparseTensor> {
    let kept: Vec<[i32; 4]> = rows.iter().filter(|_| random.chance(0.5)).copied().collect();
    let ones = Tensor::ones([kept.len(), 1], device);
    SparseTensor::from_support(Support::try_new(kept)?, ones)
}

#[derive(Module, Debug)]
struct Completion {
    stem: ConvBlock,
    down: Vec<ConvBlock>,
    up: Vec<GenerativeConvTranspose3d>,
    refine: Vec<ConvBlock>,
    occupied: Vec<ConvBlock>,
}

impl Completion {
    fn new(device: &Device) -> Self {
        let down =
            |c| ConvBlockConfig::new(c).with_kernel_size([2; 3]).with_stride([2; 3]).init_strided(device);
        let up = |c| GenerativeConvTranspose3dConfig::new(c).init(device);
        let head = |c| {
            ConvBlockConfig::new([c, 1])
                .with_kernel_size([1; 3])
                .with_bias(true)
                .with_norm(false)
                .with_activation(BlockActivation::None)
                .init_subm(device)
        };
        Self {
            stem: ConvBlockConfig::new([1, 16]).init_subm(device),
            down: vec![down([16, 32]), down([32, 64])],
            up: vec![up([64, 32]), up([32, 16])],
            refine: [32, 16].map(|c| ConvBlockConfig::new([c, c]).init_subm(device)).to_vec(),
            occupied: [32, 16].map(head).to_vec(),
        }
    }

    /// Scores of the voxels that each level makes. What stays is what scores above 0, or in training what should be there.
    fn forward(&self, x: &SparseTensor, truth: Option<&[Rows; 2]>) -> Result<Vec<SparseTensor>> {
        let mut y = self.stem.try_forward(x, None, None)?;
        for block in &self.down {
            y = block.try_forward(&y, None, None)?;
        }
        let mut scores = Vec::new();
        for level in 0..2 {
            let grown = self.up[level].try_forward(&y, None, Default::default())?;
            y = self.refine[level].try_forward(&grown, None, None)?;
            let score = self.occupied[level].try_forward(&y, None, None)?;
            let mut keep: Vec<bool> =
                score.feats().clone().into_data().iter::<f32>().map(|s| s > 0.0).collect();
            if let Some(truth) = truth {
                let rows = score.support().to_host().coords();
                keep = rows.iter().map(|row| truth[level].contains(row)).collect();
            }
            y = ops::prune_mask(&y, Tensor::from_data(keep.as_slice(), &x.device()))?;
            scores.push(score);
        }
        Ok(scores)
    }
}

/// Mean of `log(1 + exp(-s))` where a voxel should be and `log(1 + exp(s))` where not.
fn occupancy_loss(score: &SparseTensor, truth: &Rows) -> Tensor<1> {
    let sign = |row: &[i32; 4]| if truth.contains(row) { -1.0f32 } else { 1.0 };
    let signs: Vec<f32> = score.support().to_host().coords().iter().map(sign).collect();
    let signs = Tensor::<2>::from_data(TensorData::new(signs, [score.n_rows(), 1]), &score.device());
    burn::tensor::activation::softplus(score.feats().clone() * signs, 1.0).mean()
}

/// Intersection over union.
fn iou(a: &Rows, b: &Rows) -> f64 {
    let both = a.intersection(b).count();
    both as f64 / (a.len() + b.len() - both).max(1) as f64
}

fn main() -> Result<(), Box<dyn Error>> {
    let device = Device::flex().autodiff();
    let mut random = Random::new(&[3]);
    let mut training = Descent::new(seed_parameters(Completion::new(&device), 2), OptimizerConfig::adamw())?;
    let shapes: Vec<Rows> = (0..10).map(object).collect();
    for step in 0..STEPS {
        let shape = &shapes[step % shapes.len()];
        let truth = [coarser(shape), shape.clone()];
        let x = thinned(shape, &mut random, &device)?;
        let scores = training.model().forward(&x, Some(&truth))?;
        let loss = occupancy_loss(&scores[0], &truth[0]) + occupancy_loss(&scores[1], &truth[1]);
        let loss = training.step(loss, 0.01 * (1.0 - step as f64 / STEPS as f64));
        if step % 50 == 49 {
            println!("step {}: loss {:.3}", step + 1, loss.into_scalar::<f32>());
        }
    }

    let network = training.trained();
    for seed in 100..103 {
        let shape = object(seed);
        let x = thinned(&shape, &mut random, &Device::flex())?;
        let given: Rows = x.support().to_host().coords().iter().copied().collect();
        let scores = network.forward(&x, None)?;
        let last = scores.last().ok_or("the decoder has two levels")?;
        let values: Vec<f32> = last.feats().clone().into_data().iter().collect();
        let rows = last.support().to_host().coords().iter().zip(values);
        let completed: Rows = rows.filter(|(_, score)| *score > 0.0).map(|(row, _)| *row).collect();
        println!(
            "object {seed}: {} of {} voxels given (IoU {:.2}), {} completed (IoU {:.2})",
            given.len(),
            shape.len(),
            iou(&given, &shape),
            completed.len(),
            iou(&completed, &shape)
        );
    }
    Ok(())
}

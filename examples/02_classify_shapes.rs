//! A classifier of point clouds: strided convolutions, a mean over the voxels of each shape, a linear layer.
//!
//! `cargo run --release --example 02_classify_shapes`

use std::error::Error;

use burn::module::Module;
use burn::nn::loss::CrossEntropyLossConfig;
use burn::nn::{Linear, LinearConfig};
use burn_lattice::nn::{ConvBlock, ConvBlockConfig};
use burn_lattice::ops::{self, VoxelizeOptions};
use burn_lattice::prelude::*;
use lattice_models::seed_parameters;
use lattice_scenes::Random;
use lattice_train::{Descent, OptimizerConfig};

const SHAPES: [&str; 4] = ["ball", "box", "cylinder", "ring"];
const POINTS: usize = 400;
const STEPS: usize = 200;

/// Points on the surface of a shape, of a random size and turned about z.
fn shape(kind: usize, random: &mut Random) -> Vec<f32> {
    use std::f64::consts::TAU;
    let size = random.range(0.6, 1.0);
    let (sin, cos) = random.range(0.0, TAU).sin_cos();
    let mut flat = Vec::with_capacity(3 * POINTS);
    for _ in 0..POINTS {
        let (a, b) = (random.range(0.0, TAU), random.range(-1.0, 1.0));
        let [x, y, z] = match kind {
            0 => [(1.0 - b * b).sqrt() * a.cos(), (1.0 - b * b).sqrt() * a.sin(), b],
            1 => {
                let mut p = [random.range(-0.8, 0.8), random.range(-0.8, 0.8), random.range(-0.8, 0.8)];
                p[random.below(3)] = 0.8 * random.sign();
                p
            }
            2 => [0.7 * a.cos(), 0.7 * a.sin(), b],
            _ => {
                let tube = random.range(0.0, TAU);
                let radius = 0.75 + 0.25 * tube.cos();
                [radius * a.cos(), radius * a.sin(), 0.25 * tube.sin()]
            }
        };
        let turned = [cos * x - sin * y, sin * x + cos * y, z];
        flat.extend(turned.map(|v| (v * size + 0.02 * random.normal()) as f32));
    }
    flat
}

#[derive(Module, Debug)]
struct Classifier {
    blocks: Vec<ConvBlock>,
    head: Linear,
}

impl Classifier {
    fn new(device: &Device) -> Self {
        let down = |channels| {
            ConvBlockConfig::new(channels).with_kernel_size([3; 3]).with_stride([2; 3]).init_strided(device)
        };
        let blocks = vec![ConvBlockConfig::new([1, 16]).init_subm(device), down([16, 32]), down([32, 64])];
        Self { blocks, head: LinearConfig::new(64, SHAPES.len()).init(device) }
    }

    /// Scores `[items, shapes]`.
    fn forward(&self, mut x: SparseTensor, items: usize) -> Result<Tensor<2>> {
        for block in &self.blocks {
            x = block.try_forward(&x, None, None)?;
        }
        Ok(self.head.forward(ops::global_avg_pool(&x, Some(items))?))
    }
}

/// `items` shapes as one sparse tensor, and their kinds.
fn batch(items: usize, random: &mut Random, device: &Device) -> Result<(SparseTensor, Vec<usize>)> {
    let kinds: Vec<usize> = (0..items).map(|_| random.below(SHAPES.len())).collect();
    let flat: Vec<f32> = kinds.iter().flat_map(|&kind| shape(kind, random)).collect();
    let ids: Vec<i32> = (0..items).flat_map(|item| [item as i32; POINTS]).collect();
    let n = ids.len();
    let points = Tensor::from_data(TensorData::new(flat, [n, 3]), device);
    let ids = Tensor::from_data(TensorData::new(ids, [n]), device);
    let ones = Tensor::ones([n, 1], device);
    Ok((ops::voxelize(points, ones, Some(ids), &VoxelizeOptions::cubic(0.1)?)?, kinds))
}

fn main() -> Result<(), Box<dyn Error>> {
    let device = Device::flex().autodiff();
    let mut random = Random::new(&[7]);
    let mut training = Descent::new(seed_parameters(Classifier::new(&device), 1), OptimizerConfig::adamw())?;
    let cross_entropy = CrossEntropyLossConfig::new().init(&device);
    for step in 0..STEPS {
        let (x, kinds) = batch(16, &mut random, &device)?;
        let scores = training.model().forward(x, kinds.len())?;
        let kinds: Vec<i64> = kinds.into_iter().map(|kind| kind as i64).collect();
        let loss = cross_entropy.forward(scores, Tensor::from_data(kinds.as_slice(), &device));
        let loss = training.step(loss, 0.01 * (1.0 - step as f64 / STEPS as f64));
        if step % 50 == 49 {
            println!("step {:>3}: loss {:.3}", step + 1, loss.into_scalar::<f32>());
        }
    }

    // Shapes that it has not seen, on a device without autodiff: norms are folded into the convolutions.
    let plain = Device::flex();
    let classifier = training.trained();
    let (x, kinds) = batch(100, &mut random, &plain)?;
    let found = classifier.forward(x, kinds.len())?.argmax(1).into_data();
    let found: Vec<usize> = found.iter::<i64>().map(|kind| kind as usize).collect();
    let right = |kind: usize| kinds.iter().zip(&found).filter(|(k, f)| **k == kind && k == f).count();
    for (kind, name) in SHAPES.iter().enumerate() {
        println!(
            "{name:<9} {:>2} of {:>2} recognized",
            right(kind),
            kinds.iter().filter(|&&k| k == kind).count()
        );
    }
    Ok(())
}

//! Points to voxels, a convolution on them, a coarser level, and back to points.
//!
//! `cargo run --release --example 01_first_convolution`

use burn_lattice::nn::{ConvBlockConfig, SubmConv3dConfig};
use burn_lattice::ops::{self, DevoxelizeOptions, VoxelGrid, VoxelizeOptions};
use burn_lattice::prelude::*;
use lattice_scenes::{SceneKind, SceneOptions, generate};

fn main() -> Result<()> {
    let device = Device::flex();

    // A generated sweep: 120,000 points, one feature each (their height).
    let scene = generate(SceneKind::Lidar, 1, &SceneOptions::default());
    let positions: Vec<f32> = scene.positions.iter().flatten().map(|&v| v as f32).collect();
    let heights: Vec<f32> = scene.positions.iter().map(|p| p[2] as f32).collect();
    let points = Tensor::<2>::from_data(TensorData::new(positions, [scene.len(), 3]), &device);
    let heights = Tensor::<2>::from_data(TensorData::new(heights, [scene.len(), 1]), &device);

    // A voxel of 10 cm exists where there is a point; its feature is the mean of its points.
    let grid = VoxelGrid::cubic(0.1)?;
    let x = ops::voxelize(points.clone(), heights, None, &VoxelizeOptions::new(grid))?;
    println!("{} points -> {} voxels, {} channel", scene.len(), x.n_rows(), x.channels());

    // A submanifold convolution keeps the rows. What it needs to know of the neighbourhood is found once and kept with the rows.
    let first = SubmConv3dConfig::new([1, 16]).init(&device);
    let second = SubmConv3dConfig::new([16, 16]).init(&device);
    let y = second.forward(&first.forward(&x));
    let report = y.manager().report();
    println!(
        "two 3x3x3 convolutions: {} rows, {} channels, {} relation in {:.1} MB",
        y.n_rows(),
        y.channels(),
        report.relations,
        report.bytes() as f64 / 1e6
    );

    // Half the resolution, twice the channels.
    let down =
        ConvBlockConfig::new([16, 32]).with_kernel_size([2; 3]).with_stride([2; 3]).init_strided(&device);
    let z = down.forward(&y);
    println!("strided by 2: {} rows of {:?} voxels, {} channels", z.n_rows(), z.stride(), z.channels());

    // Every point reads the coarse voxels around it.
    let coarse = VoxelGrid::cubic(0.2)?;
    let at_points = ops::devoxelize(&z, points, None, &DevoxelizeOptions::new(coarse))?;
    println!("back at the points: {:?}", at_points.dims());
    Ok(())
}

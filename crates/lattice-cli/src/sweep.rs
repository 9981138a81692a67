//! Points as the networks that are trained here take them, and labelled scenes scored by a network.

use anyhow::{Context, Result};
use burn::tensor::{Device, FloatDType, Tensor, TensorData};
use burn_lattice::SparseTensor;
use burn_lattice::ops::{self, VoxelGrid};
use lattice_train::{ConfusionMatrix, Dataset, INPUT_CHANNELS, LabelledScene, best_classes, input_features};

use crate::segmenter::{Scores, Segmenter};

/// A scene as a network takes it.
pub struct Sweep {
    voxels: SparseTensor,
    points: Tensor<2>,
    grid: VoxelGrid,
}

impl Sweep {
    /// The points of a labelled scene.
    ///
    /// # Errors
    /// Voxels too small for the scene.
    pub fn new(scene: &LabelledScene, voxel_size: f32, device: &Device) -> Result<Self> {
        Self::of_points(&scene.positions, voxel_size, device)
    }

    /// Points, with the features of networks that are trained here.
    ///
    /// # Errors
    /// Voxels too small for the scene.
    pub fn of_points(positions: &[[f32; 3]], voxel_size: f32, device: &Device) -> Result<Self> {
        let n = positions.len();
        let flat: Vec<f32> = positions.iter().flatten().copied().collect();
        let points = Tensor::<2>::from_data(TensorData::new(flat, [n, 3]), device);
        let features = TensorData::new(input_features(positions, voxel_size), [n, INPUT_CHANNELS]);
        let features = Tensor::<2>::from_data(features, device);
        let grid = VoxelGrid::cubic(voxel_size)?;
        let voxels = ops::voxelize(points.clone(), features, None, &ops::VoxelizeOptions::new(grid))?;
        Ok(Self { voxels, points, grid })
    }

    /// The same with features in f16.
    ///
    /// # Errors
    /// None that can happen: the features have the rows of the voxels.
    pub fn in_f16(&self) -> Result<Self> {
        let feats = self.voxels.feats().clone().cast(FloatDType::F16);
        Ok(Self { voxels: self.voxels.with_feats(feats)?, points: self.points.clone(), grid: self.grid })
    }

    /// Voxels.
    pub fn n_rows(&self) -> usize {
        self.voxels.n_rows()
    }

    /// Runs the network; relations are kept, so that a second run measures the network alone.
    ///
    /// # Errors
    /// Those of the network.
    pub fn forward(&self, model: &Segmenter) -> Result<Scores> {
        model.forward(&self.voxels, &self.points, &self.grid)
    }

    fn classes(&self, model: &Segmenter) -> Result<Vec<u8>> {
        let centres = VoxelGrid::try_new(self.grid.voxel_size, self.grid.voxel_size.map(|s| s / 2.0))?;
        Ok(best_classes(self.forward(model)?.at(self.points.clone(), centres)?)?)
    }
}

/// Scores a network at the points of scenes; `done` hears of each.
///
/// # Errors
/// Scenes that cannot be read, what the network refuses, scores that are not finite.
pub fn score(
    model: &Segmenter,
    scenes: &Dataset,
    voxel_size: f32,
    device: &Device,
    mut done: impl FnMut(),
) -> Result<ConfusionMatrix> {
    let mut matrix = ConfusionMatrix::new(scenes.classes());
    for index in 0..scenes.len() {
        let scene = scenes.scene(index)?;
        let classes = Sweep::new(&scene, voxel_size, device).and_then(|sweep| sweep.classes(model));
        matrix.add(&scene.labels, &classes.with_context(|| scene.name.clone())?);
        done();
    }
    Ok(matrix)
}

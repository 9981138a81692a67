//! Scenes that a network is calibrated, compared and scored on.

use std::path::{Path, PathBuf};

use anyhow::{Result, anyhow, ensure};
use burn::tensor::{Device, FloatDType, Tensor, TensorData};
use burn_lattice::SparseTensor;
use burn_lattice::ops::{self, VoxelGrid};
use lattice_io::Format;
use lattice_scenes::{SceneKind, SceneOptions, class_names};
use lattice_train::{
    ConfusionMatrix, Dataset, GeneratedScenes, INPUT_CHANNELS, LabelledScene, SceneFiles, best_classes,
    input_features,
};

use crate::commands::train::label_map;
use crate::scene;
use crate::segmenter::{Scores, Segmenter};

/// Seed of the first generated sweep; training takes others.
const FIRST_SEED: u64 = 1_000_000;

/// The scans of a folder, in the order of their names.
///
/// # Errors
/// A folder that cannot be listed or holds no scans.
pub fn folder(path: &Path) -> Result<Vec<PathBuf>> {
    let refuse =
        |found: String| anyhow!("--calibrate {}: expected a folder of scans, found {found}", path.display());
    if path.is_file() {
        return Ok(vec![path.to_path_buf()]);
    }
    let entries = std::fs::read_dir(path).map_err(|e| refuse(e.to_string()))?;
    let mut files = Vec::new();
    for entry in entries {
        let file = entry.map_err(|e| refuse(e.to_string()))?.path();
        if file.is_file() && Format::from_path(&file).is_some() {
            files.push(file);
        }
    }
    ensure!(
        !files.is_empty(),
        refuse("no scan in it; put .ply, .npz, .npy, .pcd, .las or .bin files there".into())
    );
    files.sort();
    Ok(files)
}

/// Positions of the points of a scan.
///
/// # Errors
/// A scan that cannot be read or has no points.
pub fn positions(file: &Path) -> Result<Vec<[f32; 3]>> {
    let cloud = scene::load(file, None)?;
    ensure!(!cloud.is_empty(), "{}: expected points, found none; leave the file out", file.display());
    Ok(scene::positions_f32(&cloud))
}

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

/// Labelled scenes to score, or one to measure where there are no labels for the network.
pub struct Scored {
    scenes: Dataset,
    name: String,
    /// Whether the labels are the network's classes.
    labels_fit: bool,
}

impl Scored {
    /// Scenes of a path, or generated sweeps.
    ///
    /// # Errors
    /// Scenes that cannot be found, a label map that is none, no scenes.
    pub fn open(path: Option<&Path>, map: Option<&str>, count: usize, classes: usize) -> Result<Self> {
        let Some(path) = path else {
            ensure!(count > 0, "--scene-count: expected a number above 0, found 0");
            let names = class_names(SceneKind::Lidar).len();
            let generated = GeneratedScenes {
                kind: SceneKind::Lidar,
                first_seed: FIRST_SEED,
                count,
                options: SceneOptions::default(),
            };
            return Ok(Self {
                scenes: Dataset::generated(generated, classes.max(names)),
                name: format!("{count} generated lidar sweeps from seed {FIRST_SEED} on"),
                labels_fit: classes == names,
            });
        };
        let map = map.map(label_map).transpose()?;
        let files = SceneFiles::open(path, map)?;
        Ok(Self {
            scenes: Dataset::files(files, classes),
            name: path.display().to_string(),
            labels_fit: true,
        })
    }

    /// What the scenes are called.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The first scene.
    ///
    /// # Errors
    /// A scene that cannot be read.
    pub fn first(&self) -> Result<LabelledScene> {
        Ok((*self.scenes.scene(0)?).clone())
    }

    /// Scores all scenes; none where the labels are not the network's classes.
    ///
    /// # Errors
    /// Scenes that cannot be read, what the network refuses.
    pub fn score(
        &self,
        model: &Segmenter,
        voxel_size: f32,
        device: &Device,
    ) -> Result<Option<ConfusionMatrix>> {
        if !self.labels_fit {
            return Ok(None);
        }
        let mut matrix = ConfusionMatrix::new(self.scenes.classes());
        for index in 0..self.scenes.len() {
            let scene = self.scenes.scene(index)?;
            let sweep = Sweep::new(&scene, voxel_size, device)?;
            matrix.add(&scene.labels, &sweep.classes(model)?);
        }
        Ok(Some(matrix))
    }
}

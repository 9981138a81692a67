//! Scenes that a network is calibrated, compared and scored on.

use std::path::{Path, PathBuf};

use anyhow::{Result, anyhow, ensure};
use burn::tensor::Device;
use lattice_io::Format;
use lattice_scenes::{SceneKind, SceneOptions, class_names};
use lattice_train::{ConfusionMatrix, Dataset, GeneratedScenes, LabelledScene, SceneFiles};

use crate::commands::train::label_map;
use crate::scene;
use crate::segmenter::Segmenter;
use crate::sweep::score;

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
        score(model, &self.scenes, voxel_size, device, || {}).map(Some)
    }
}

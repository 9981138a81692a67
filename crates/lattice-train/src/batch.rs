//! Scenes to voxels: the host's part of a training step.

use burn::tensor::{Device, Int, Tensor, TensorData};
use burn_lattice::core::{NonFinite, VoxelGrid};
use burn_lattice::ops::{self, VoxelReduction};
use burn_lattice::{CoordinateManager, SparseTensor, Support};

use crate::input::{INPUT_CHANNELS, input_features};
use crate::labels::IGNORED;
use crate::{LabelledScene, Result, TrainError};

/// The voxels of a batch of scenes, ready for a device.
#[derive(Clone, Debug)]
pub struct Batch {
    /// Occupied voxels of all scenes, in canonical order.
    pub support: Support,
    /// Means of the points' features, `[voxels, INPUT_CHANNELS]`.
    pub features: Vec<f32>,
    /// Class of each voxel, 255 where it is ignored.
    pub labels: Vec<u8>,
    /// Points of all scenes.
    pub points: usize,
    /// Number of scenes.
    pub scenes: usize,
}

/// Voxelizes scenes as the items of one batch. Features are the means of [`input_features`]; a voxel's class is that of most of its
/// points, the lowest of equal ones, points to ignore left out.
///
/// # Errors
/// No scenes, a scene without points, a label of `classes` or more, a voxel size that is not above 0 or too small for the scene.
pub fn make_batch(scenes: &[&LabelledScene], voxel_size: f32, classes: usize) -> Result<Batch> {
    if scenes.is_empty() {
        return Err(TrainError::option("batch", "expected at least one scene, found none"));
    }
    let grid = VoxelGrid::cubic(voxel_size)?;
    let mut flat: Vec<f32> = Vec::new();
    let mut features = Vec::new();
    let mut ids: Vec<i32> = Vec::new();
    for (item, scene) in scenes.iter().enumerate() {
        if scene.is_empty() {
            return Err(TrainError::scene(&scene.name, "expected points, found none; leave it out"));
        }
        flat.extend(scene.positions.iter().flatten());
        features.extend(input_features(&scene.positions, voxel_size));
        ids.resize(ids.len() + scene.len(), item as i32);
    }
    let n = ids.len();
    // This thread's part of the library's own path: voxels are found as for inference.
    let host = Device::flex();
    let points = Tensor::<2>::from_data(TensorData::new(flat, [n, 3]), &host);
    let items = Tensor::<1, Int>::from_data(TensorData::new(ids, [n]), &host);
    let quantization = ops::sparse_quantize(points, Some(items), &grid, NonFinite::Error)?;
    let features = Tensor::<2>::from_data(TensorData::new(features, [n, INPUT_CHANNELS]), &host);
    let voxels =
        ops::voxelize_with_quantization(&quantization, features, VoxelReduction::Mean, [1; 3], None)?;
    let labels = scenes.iter().flat_map(|scene| scene.labels.iter().copied());
    let labels = majority(labels, &quantization.to_host().voxel_of_point, voxels.n_rows(), classes)?;
    let features = voxels.feats().clone().into_data().try_into_vec::<f32>();
    Ok(Batch {
        support: voxels.support().clone(),
        features: features.expect("features were made in f32 above"),
        labels,
        points: n,
        scenes: scenes.len(),
    })
}

/// The class that most points of each voxel have.
fn majority(
    labels: impl Iterator<Item = u8>,
    voxel_of_point: &[i32],
    voxels: usize,
    classes: usize,
) -> Result<Vec<u8>> {
    let mut counts = vec![0u32; voxels * classes];
    for (label, &voxel) in labels.zip(voxel_of_point) {
        if label == IGNORED || voxel < 0 {
            continue;
        }
        if usize::from(label) >= classes {
            let what = format!("expected labels below {classes} or 255, found {label}");
            return Err(TrainError::option("batch", what));
        }
        counts[voxel as usize * classes + usize::from(label)] += 1;
    }
    let most = |counts: &[u32]| {
        let best = (1..classes).fold(0, |best, c| if counts[c] > counts[best] { c } else { best });
        if counts[best] == 0 { IGNORED } else { best as u8 }
    };
    Ok(counts.chunks_exact(classes).map(most).collect())
}

impl Batch {
    /// The input of a network on a device, in a manager of its own.
    ///
    /// # Errors
    /// A device that does not compute in f32.
    pub fn to_sparse(&self, device: &Device) -> Result<SparseTensor> {
        let rows = self.support.n_rows();
        let features = TensorData::new(self.features.clone(), [rows, INPUT_CHANNELS]);
        let features = Tensor::<2>::from_data(features, device);
        let manager = CoordinateManager::new();
        Ok(SparseTensor::with_manager(self.support.clone(), features, [1; 3], manager)?)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn scene(points: &[([f32; 3], u8)]) -> LabelledScene {
        LabelledScene {
            name: "s".into(),
            positions: points.iter().map(|p| p.0).collect(),
            labels: points.iter().map(|p| p.1).collect(),
        }
    }

    #[test]
    fn voxels_take_the_class_of_most_of_their_points() {
        let a = scene(&[
            ([0.1, 0.1, 0.1], 2),
            ([0.2, 0.1, 0.1], 1),
            ([0.3, 0.1, 0.1], 1),
            ([1.5, 0.0, 0.0], IGNORED),
            ([2.5, 0.0, 0.0], IGNORED),
            ([2.6, 0.0, 0.0], 2),
            ([3.5, 0.0, 0.0], 2),
            ([3.6, 0.0, 0.0], 1),
        ]);
        let batch = make_batch(&[&a, &a], 1.0, 3).unwrap();
        assert_eq!(batch.labels, [1, IGNORED, 2, 1, 1, IGNORED, 2, 1]);
        assert_eq!(batch.support.to_host().batch_counts(), [4, 4]);
        assert!((batch.features[1] - (0.2 - 0.5)).abs() < 1e-6, "{:?}", batch.features);
    }

    #[test]
    fn labels_past_the_classes_and_empty_scenes_are_refused() {
        let error = |scenes: &[&LabelledScene]| make_batch(scenes, 1.0, 3).unwrap_err().to_string();
        assert!(error(&[&scene(&[([0.0; 3], 3)])]).contains("labels below 3"));
        assert!(error(&[&scene(&[])]).contains("s: expected points"));
        assert!(error(&[]).contains("at least one scene"));
    }
}

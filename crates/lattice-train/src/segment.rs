//! Classes of the points of a scene.

use burn::tensor::{Device, Tensor, TensorData};
use burn_lattice::core::VoxelGrid;
use burn_lattice::ops;

use crate::input::{INPUT_CHANNELS, input_features};
use crate::{Result, Segmenter, TrainError};

/// What a network says of the points of a scene.
#[derive(Clone, Debug)]
pub struct PointClasses {
    /// The class of the highest score of each point, the first of equal ones.
    pub classes: Vec<u8>,
    /// Voxels that the points fall into.
    pub voxels: usize,
}

/// Voxelizes points, runs the network on a device without autodiff, and reads its scores at the points, between voxel centres.
///
/// # Errors
/// Voxels too small for the scene; scores that are not finite; what the network refuses.
pub fn segment<M: Segmenter>(
    model: &M,
    positions: &[[f32; 3]],
    voxel_size: f32,
    device: &Device,
) -> Result<PointClasses> {
    let n = positions.len();
    let flat: Vec<f32> = positions.iter().flatten().copied().collect();
    let points = Tensor::<2>::from_data(TensorData::new(flat, [n, 3]), device);
    let features = TensorData::new(input_features(positions, voxel_size), [n, INPUT_CHANNELS]);
    let features = Tensor::<2>::from_data(features, device);
    let grid = VoxelGrid::cubic(voxel_size)?;
    // A voxel's scores belong to its centre, half a voxel above its corner.
    let centres = VoxelGrid::try_new(grid.voxel_size, grid.voxel_size.map(|s| s / 2.0))?;
    let voxels = ops::voxelize(points.clone(), features, None, &ops::VoxelizeOptions::new(grid))?;
    let scores = model.scores(&voxels)?;
    let options = ops::DevoxelizeOptions::new(centres).with_renormalize(true);
    let scores = ops::devoxelize(&scores, points, None, &options)?;
    Ok(PointClasses { classes: best_classes(scores)?, voxels: voxels.n_rows() })
}

/// The class of the highest score of each row, the first of equal ones.
///
/// # Errors
/// Scores that are not finite: weights or features overflowed.
pub fn best_classes(scores: Tensor<2>) -> Result<Vec<u8>> {
    let [points, classes] = scores.dims();
    let scores: Vec<f32> = scores.into_data().iter::<f32>().collect();
    let rows = scores.chunks_exact(classes.max(1));
    let bad = rows.clone().filter(|row| row.iter().any(|s| !s.is_finite())).count();
    if bad > 0 {
        let what = format!(
            "expected finite scores, found NaN or infinities at {bad} of {points} points; check the weights, or rescale the scan"
        );
        return Err(TrainError::option("network", what));
    }
    let best =
        |row: &[f32]| (1..row.len()).fold(0, |best, c| if row[c] > row[best] { c } else { best }) as u8;
    Ok(rows.map(best).collect())
}

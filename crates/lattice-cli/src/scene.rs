//! What a scene file says, and the voxel size that suits it.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use lattice_io::{PointCloud, ReadOptions};

/// Reads a scene.
///
/// # Errors
/// What the format's reader refuses, with the file's name.
pub fn load(path: &Path, columns: Option<usize>) -> Result<PointCloud> {
    let mut options = ReadOptions::default();
    options.columns = columns;
    lattice_io::read(path, &options).with_context(|| format!("cannot read scene {}", path.display()))
}

/// Smallest and largest corner, or zeros for a cloud without points.
pub fn bounds(cloud: &PointCloud) -> ([f64; 3], [f64; 3]) {
    let Some(first) = cloud.positions.first() else { return ([0.0; 3], [0.0; 3]) };
    let (mut low, mut high) = (*first, *first);
    for p in &cloud.positions {
        for axis in 0..3 {
            low[axis] = low[axis].min(p[axis]);
            high[axis] = high[axis].max(p[axis]);
        }
    }
    (low, high)
}

/// The given voxel size, or 0.05; side / 128 where the longest side is below 1, side / 1000 where it is above 500.
///
/// # Errors
/// A given size that is not above 0.
pub fn voxel_size(given: Option<f64>, cloud: &PointCloud) -> Result<f64> {
    if let Some(size) = given {
        ensure!(size.is_finite() && size > 0.0, "--voxel-size: expected a length above 0, found {size}");
        return Ok(size);
    }
    let (low, high) = bounds(cloud);
    let side = (0..3).map(|a| high[a] - low[a]).fold(0.0, f64::max);
    Ok(match side {
        side if side > 0.0 && side < 1.0 => side / 128.0,
        side if side > 500.0 => side / 1000.0,
        _ => 0.05,
    })
}

/// Positions as features and kernels see them.
pub fn positions_f32(cloud: &PointCloud) -> Vec<[f32; 3]> {
    cloud.positions.iter().map(|p| p.map(|v| v as f32)).collect()
}

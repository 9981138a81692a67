//! What a scene file says, and the voxel size that suits it.

use std::path::Path;

use anyhow::{Result, anyhow, bail, ensure};
use lattice_core::Coord;
use lattice_io::{PointCloud, ReadOptions};
use rayon::prelude::*;

use crate::table;

/// From here on f32 steps are an eighth of a voxel or more.
const COARSE_F32: f64 = (1 << 20) as f64;

/// Reads a scene whose coordinates f32 can hold.
///
/// # Errors
/// What the format's reader refuses, with the file's name; a coordinate outside f32.
pub fn load(path: &Path, columns: Option<usize>) -> Result<PointCloud> {
    let mut options = ReadOptions::default();
    options.columns = columns;
    // The reader's message says all: its sources would only repeat it.
    let cloud = lattice_io::read(path, &options).map_err(|e| anyhow!("{e}"))?;
    let outside = |p: &[f64; 3]| p.iter().any(|v| !(*v as f32).is_finite());
    if let Some(point) = cloud.positions.par_iter().position_first(outside) {
        bail!(
            "{}: point {point}: expected coordinates that float32 holds (up to 3.4e38), found {:?}; rescale the scan",
            path.display(),
            cloud.positions[point]
        );
    }
    Ok(cloud)
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

/// Largest distance from 0 along an axis.
fn reach(cloud: &PointCloud) -> f64 {
    let (low, high) = bounds(cloud);
    low.iter().chain(&high).fold(0.0, |m, v| v.abs().max(m))
}

/// The given voxel size, or 0.05; side / 128 where the longest side is below 1, side / 1000 where it is above 500.
///
/// # Errors
/// A size that is not a length above 0 in f32, or so small that voxel numbers leave i32.
pub fn voxel_size(given: Option<f64>, cloud: &PointCloud) -> Result<f64> {
    let (low, high) = bounds(cloud);
    let side = (0..3).map(|a| high[a] - low[a]).fold(0.0, f64::max);
    let size = match given {
        Some(size) => size,
        None if side > 0.0 && side < 1.0 => side / 128.0,
        None if side > 500.0 => side / 1000.0,
        None => 0.05,
    };
    ensure!(size.is_finite() && size > 0.0, "--voxel-size: expected a finite length above 0, found {size}");
    ensure!(
        (size as f32).is_normal(),
        "--voxel-size: expected a length that float32 holds (1.2e-38 to 3.4e38), found {size:e}"
    );
    let number = reach(cloud) / size;
    ensure!(
        number < 2_147_483_648.0,
        "--voxel-size: expected voxel numbers below 2^31, found {number:.3e} at voxel size {size:e}; use voxels of {:.1e} or more",
        reach(cloud) / 1e9
    );
    Ok(size)
}

/// What a user should know where positions are coarse in f32.
pub fn precision_note(cloud: &PointCloud, voxel_size: f64) -> Option<String> {
    let (reach, size) = (reach(cloud), table::length(voxel_size));
    (reach / voxel_size >= COARSE_F32).then(|| {
        format!(
            "coordinates reach {}, {:.1e} voxels of {size} from the origin: networks see float32, whose steps there are an \
             eighth of a voxel or more; use larger voxels, or subtract an origin from the file",
            table::length(reach),
            reach / voxel_size
        )
    })
}

/// Positions as features and kernels see them.
pub fn positions_f32(cloud: &PointCloud) -> Vec<[f32; 3]> {
    cloud.positions.iter().map(|p| p.map(|v| v as f32)).collect()
}

/// The voxel of every point, `floor(position / size)` in f64: counts do not depend on how f32 rounds at cell borders.
///
/// Where an origin was subtracted, that left an error of an ulp of the file's coordinate: a position so close below a border
/// counts as on it.
pub fn cells(cloud: &PointCloud, size: f64) -> Vec<Coord> {
    let error: [f64; 3] = cloud.origin.map(|o| 4.0 * f64::EPSILON * o.abs() / size);
    let cell = |p: &[f64; 3]| {
        let [x, y, z] = [0, 1, 2].map(|a| {
            let u = p[a] / size;
            let border = u.round();
            (if (u - border).abs() <= error[a] { border } else { u.floor() }) as i32
        });
        [0, x, y, z]
    };
    cloud.positions.par_iter().map(cell).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn cloud(positions: &[[f64; 3]]) -> PointCloud {
        PointCloud { positions: positions.to_vec(), ..PointCloud::default() }
    }

    #[test]
    fn the_default_voxel_size_follows_the_longest_side() {
        let size = |side: f64| voxel_size(None, &cloud(&[[0.0; 3], [0.0, side, 0.0]])).unwrap();
        assert_eq!(size(0.0), 0.05);
        assert_eq!(size(0.5), 0.5 / 128.0);
        assert_eq!(size(1.0), 0.05);
        assert_eq!(size(500.0), 0.05);
        assert_eq!(size(1000.0), 1.0);
        assert_eq!(voxel_size(None, &cloud(&[])).unwrap(), 0.05);
    }

    #[test]
    fn voxel_sizes_that_make_no_grid_are_refused() {
        let scan = cloud(&[[1.0, -2.0, 3.0]]);
        for bad in [0.0, -0.0, -1.0, f64::NAN, f64::INFINITY, 1e-300, 1e300, 1e-30] {
            let text = voxel_size(Some(bad), &scan).unwrap_err().to_string();
            assert!(text.starts_with("--voxel-size: expected"), "{bad}: {text}");
        }
        assert_eq!(voxel_size(Some(1e-6), &scan).unwrap(), 1e-6);
    }

    #[test]
    fn cells_are_rounded_down_and_borders_survive_a_subtracted_origin() {
        assert_eq!(cells(&cloud(&[[-0.1, 0.0, 0.1]]), 0.05), [[0, -2, 0, 2]]);
        let mut scan = cloud(&[[636_014.76 - 636_001.76, 0.0, 0.0]]);
        scan.origin = [636_001.76, 0.0, 0.0];
        assert_eq!(cells(&scan, 1.0), [[0, 13, 0, 0]]);
    }

    #[test]
    fn far_coordinates_are_noted() {
        assert!(precision_note(&cloud(&[[5e6, 0.0, 0.0]]), 0.05).is_some());
        assert!(precision_note(&cloud(&[[100.0, 0.0, 0.0]]), 0.05).is_none());
    }
}

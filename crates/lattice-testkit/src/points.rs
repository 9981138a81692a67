//! Points to voxels and back: quantization, voxelization, point-voxel maps, devoxelization; with gradients.

use crate::coords::{Coord, canonical, row_of};

/// Where voxels lie: edge lengths and the position of coordinate 0, in the points' unit.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Grid {
    /// Edge lengths of a voxel, above 0.
    pub voxel_size: [f32; 3],
    /// Position of the corner of voxel 0.
    pub origin: [f32; 3],
}

impl Grid {
    /// Cubic voxels with origin 0.
    pub const fn cubic(size: f32) -> Self {
        Self { voxel_size: [size; 3], origin: [0.0; 3] }
    }

    /// `(p - origin) / voxel_size` in `f32`: one subtraction, one division.
    pub fn position(&self, p: &[f32; 3]) -> [f32; 3] {
        [0, 1, 2].map(|a| (p[a] - self.origin[a]) / self.voxel_size[a])
    }
}

/// The voxels that points fall into.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Voxels {
    /// Occupied voxels in canonical order.
    pub coords: Vec<Coord>,
    /// Voxel row of every point, `-1` for a point that is not finite or whose voxel lies outside `i32`.
    pub voxel_of_point: Vec<i32>,
    /// Points in every voxel.
    pub counts: Vec<u32>,
}

/// Voxel of one point: `floor((p - origin) / voxel_size)` in `f32`; `None` when not finite or outside `i32`.
pub fn voxel_of(p: &[f32; 3], batch: i32, grid: &Grid) -> Option<Coord> {
    let mut coord = [batch, 0, 0, 0];
    for (axis, u) in grid.position(p).into_iter().enumerate() {
        let cell = f64::from(u.floor());
        if !(f64::from(i32::MIN)..=f64::from(i32::MAX)).contains(&cell) {
            return None;
        }
        coord[axis + 1] = cell as i32;
    }
    Some(coord)
}

/// Quantizes points; batch ids default to 0.
pub fn quantize(points: &[[f32; 3]], batch: Option<&[i32]>, grid: &Grid) -> Voxels {
    let cells: Vec<Option<Coord>> =
        points.iter().enumerate().map(|(row, p)| voxel_of(p, batch.map_or(0, |b| b[row]), grid)).collect();
    let coords = canonical(&cells.iter().flatten().copied().collect::<Vec<_>>());
    let row = |cell: &Option<Coord>| cell.and_then(|c| row_of(&coords, &c)).map_or(-1, |row| row as i32);
    let voxel_of_point: Vec<i32> = cells.iter().map(row).collect();
    let count = |voxel: usize| voxel_of_point.iter().filter(|&&v| v == voxel as i32).count() as u32;
    Voxels { counts: (0..coords.len()).map(count).collect(), voxel_of_point, coords }
}

/// `[voxels, c]`: the sum of the features of every voxel's points.
pub fn voxelize_sum(features: &[f64], c: usize, voxels: &Voxels) -> Vec<f64> {
    let mut y = vec![0.0; voxels.coords.len() * c];
    for (point, &voxel) in voxels.voxel_of_point.iter().enumerate().filter(|(_, voxel)| **voxel >= 0) {
        for channel in 0..c {
            y[voxel as usize * c + channel] += features[point * c + channel];
        }
    }
    y
}

/// `[voxels, c]`: the mean of the features of every voxel's points.
pub fn voxelize_mean(features: &[f64], c: usize, voxels: &Voxels) -> Vec<f64> {
    let sums = voxelize_sum(features, c, voxels);
    sums.iter().enumerate().map(|(at, sum)| sum / f64::from(voxels.counts[at / c])).collect()
}

/// Gradient of [`voxelize_sum`]: every point takes its voxel's row.
pub fn voxelize_sum_grad(g: &[f64], c: usize, voxels: &Voxels) -> Vec<f64> {
    let mut dx = Vec::new();
    for &voxel in &voxels.voxel_of_point {
        for channel in 0..c {
            dx.push(if voxel < 0 { 0.0 } else { g[voxel as usize * c + channel] });
        }
    }
    dx
}

/// Gradient of [`voxelize_mean`]: every point takes its voxel's row divided by the voxel's point count.
pub fn voxelize_mean_grad(g: &[f64], c: usize, voxels: &Voxels) -> Vec<f64> {
    let shared: Vec<f64> = g.iter().enumerate().map(|(at, g)| g / f64::from(voxels.counts[at / c])).collect();
    voxelize_sum_grad(&shared, c, voxels)
}

/// How a point reads the voxels around it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interpolation {
    /// The nearest lattice corner, halves upwards.
    Nearest,
    /// The eight corners of the cell, trilinear weights.
    Linear,
}

/// For every point eight voxel rows (`-1`: none) and their weights; x is the low bit of the corner number.
#[derive(Clone, Debug, PartialEq)]
pub struct PointVoxelMap {
    /// Voxel rows.
    pub rows: Vec<[i32; 8]>,
    /// Weights, 0 where the row is missing.
    pub weights: Vec<[f32; 8]>,
}

/// Builds a point-voxel map in `f32`. Coordinate `c` is the *position* `c`; missing corners weaken the value unless
/// `renormalize` divides by the sum of the weights found (0 stays 0).
pub fn point_voxel_map(
    points: &[[f32; 3]],
    batch: Option<&[i32]>,
    coords: &[Coord],
    grid: &Grid,
    interpolation: Interpolation,
    renormalize: bool,
) -> PointVoxelMap {
    let mut map = PointVoxelMap { rows: Vec::new(), weights: Vec::new() };
    for (point, p) in points.iter().enumerate() {
        let (mut rows, mut weights) = ([-1; 8], [0.0f32; 8]);
        let u = grid.position(p);
        let id = batch.map_or(0, |b| b[point]);
        match interpolation {
            Interpolation::Nearest => {
                if let Some(row) = row_at(coords, id, u.map(|u| (u + 0.5).floor()), [0; 3]) {
                    (rows[0], weights[0]) = (row, 1.0);
                }
            }
            Interpolation::Linear => {
                let base = u.map(f32::floor);
                for corner in 0..8 {
                    let bits = [corner & 1, (corner >> 1) & 1, (corner >> 2) & 1];
                    if let Some(row) = row_at(coords, id, base, bits) {
                        let part =
                            |a: usize| if bits[a] == 1 { u[a] - base[a] } else { 1.0 - (u[a] - base[a]) };
                        rows[corner as usize] = row;
                        weights[corner as usize] = part(0) * part(1) * part(2);
                    }
                }
            }
        }
        let total: f32 = weights.iter().sum();
        if renormalize && total > 0.0 {
            weights = weights.map(|w| w / total);
        }
        map.rows.push(rows);
        map.weights.push(weights);
    }
    map
}

fn row_at(coords: &[Coord], batch: i32, base: [f32; 3], step: [i32; 3]) -> Option<i32> {
    let cell = |a: usize| f64::from(base[a]) + f64::from(step[a]);
    let hit = |c: &Coord| c[0] == batch && (0..3).all(|a| f64::from(c[a + 1]) == cell(a));
    coords.iter().position(hit).map(|row| row as i32)
}

/// `out[p] = Σ weight[p, j]·f[row[p, j]]` over the rows that exist, `[points, c]`.
pub fn devoxelize(features: &[f64], c: usize, map: &PointVoxelMap) -> Vec<f64> {
    let mut out = vec![0.0; map.rows.len() * c];
    for (point, (rows, weights)) in map.rows.iter().zip(&map.weights).enumerate() {
        for (&row, &weight) in rows.iter().zip(weights).filter(|(row, _)| **row >= 0) {
            for channel in 0..c {
                out[point * c + channel] += f64::from(weight) * features[row as usize * c + channel];
            }
        }
    }
    out
}

/// `df[row[p, j]] += weight[p, j]·g[p]`, the gradient of [`devoxelize`].
pub fn devoxelize_grad(g: &[f64], c: usize, map: &PointVoxelMap, n_voxels: usize) -> Vec<f64> {
    let mut df = vec![0.0; n_voxels * c];
    for (point, (rows, weights)) in map.rows.iter().zip(&map.weights).enumerate() {
        for (&row, &weight) in rows.iter().zip(weights).filter(|(row, _)| **row >= 0) {
            for channel in 0..c {
                df[row as usize * c + channel] += f64::from(weight) * g[point * c + channel];
            }
        }
    }
    df
}

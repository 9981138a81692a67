//! Voxel statistics by plain hash sets, and the measured targets.
#![allow(dead_code, reason = "each user of the module needs a part of it")]

pub mod targets;

use std::collections::HashSet;
use std::hash::{BuildHasherDefault, Hasher};

use lattice_io::{Attribute, PointCloud};

/// One multiplication a word; coordinates need no more.
#[derive(Default)]
pub struct CoordHasher(u64);

impl Hasher for CoordHasher {
    fn finish(&self) -> u64 {
        self.0 ^ (self.0 >> 29)
    }

    fn write(&mut self, bytes: &[u8]) {
        for &b in bytes {
            self.write_u64(u64::from(b));
        }
    }

    fn write_u64(&mut self, v: u64) {
        self.0 = (self.0.rotate_left(23) ^ v).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }

    fn write_i32(&mut self, v: i32) {
        self.write_u64(v as u32 as u64);
    }

    fn write_usize(&mut self, _: usize) {}
}

/// Distinct voxels.
pub type Voxels = HashSet<[i32; 3], BuildHasherDefault<CoordHasher>>;

/// Voxels and neighbours of a cloud at one voxel size.
pub struct Occupancy {
    /// Number of voxels.
    pub voxels: usize,
    /// Per cent of the voxels with `i + 1` occupied neighbours, themselves included.
    pub histogram: [f64; 27],
}

impl Occupancy {
    /// Average number of neighbours.
    pub fn neighbours(&self) -> f64 {
        self.histogram.iter().enumerate().map(|(i, h)| (i + 1) as f64 * h / 100.0).sum()
    }
}

/// `floor(position / size)` of all points.
pub fn voxelize(cloud: &PointCloud, size: f64) -> Voxels {
    cloud.positions.iter().map(|p| p.map(|v| (v / size).floor() as i32)).collect()
}

/// Every coordinate halved, rounded down.
pub fn halve(voxels: &Voxels) -> Voxels {
    voxels.iter().map(|c| c.map(|v| v.div_euclid(2))).collect()
}

/// Counts neighbours.
#[allow(clippy::iter_over_hash_type, reason = "counting does not depend on the order")]
pub fn occupancy(voxels: &Voxels) -> Occupancy {
    let mut counts = [0u64; 27];
    for [x, y, z] in voxels {
        let mut k = 0;
        for dx in -1..=1 {
            for dy in -1..=1 {
                for dz in -1..=1 {
                    k += usize::from(voxels.contains(&[x + dx, y + dy, z + dz]));
                }
            }
        }
        counts[k - 1] += 1;
    }
    Occupancy {
        voxels: voxels.len(),
        histogram: counts.map(|c| 100.0 * c as f64 / voxels.len().max(1) as f64),
    }
}

/// Total variation distance of two histograms in per cent: half the sum of the absolute differences, as a fraction.
pub fn distance(a: &[f64; 27], b: &[f64; 27]) -> f64 {
    a.iter().zip(b).map(|(x, y)| (x - y).abs()).sum::<f64>() / 200.0
}

/// Column `i` of a table of histograms.
pub fn column<const N: usize>(table: &[[f64; N]; 27], i: usize) -> [f64; 27] {
    table.map(|row| row[i])
}

/// Per cent of the points by horizontal distance, in the rings of [`targets::Target::ranges`].
pub fn ranges(cloud: &PointCloud) -> [f64; 8] {
    let bounds = [5.0, 10.0, 20.0, 30.0, 40.0, 60.0, 80.0];
    let mut counts = [0.0; 8];
    for p in &cloud.positions {
        let r = p[0].hypot(p[1]);
        counts[bounds.iter().position(|&b| r < b).unwrap_or(7)] += 100.0 / cloud.len() as f64;
    }
    counts
}

/// z of the 1st, 50th and 99th percentile.
pub fn heights(cloud: &PointCloud) -> [f64; 3] {
    let mut z: Vec<f64> = cloud.positions.iter().map(|p| p[2]).collect();
    z.sort_by(f64::total_cmp);
    [0.01, 0.5, 0.99].map(|q| z[((z.len() - 1) as f64 * q) as usize])
}

/// The labels.
pub fn labels(cloud: &PointCloud) -> &[u8] {
    match cloud.attributes.get("label") {
        Some(Attribute::U8(labels)) => labels,
        _ => panic!("a generated cloud has u8 labels"),
    }
}

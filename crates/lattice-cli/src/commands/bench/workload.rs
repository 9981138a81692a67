//! Coordinates to measure on: files, generated scenes and the public patterns.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail};
use burn_lattice::core::{Coord, NonFinite, Support, VoxelGrid, quantize};
use lattice_io::Attribute;
use lattice_scenes::{SceneKind, SceneOptions};

use crate::scene;

/// A named set of distinct rows.
pub(crate) struct Workload {
    pub name: String,
    pub coords: Vec<Coord>,
}

/// Reads rows batch, x, y, z of an integer .npy file.
///
/// # Errors
/// A file that cannot be read, another shape or type, values outside i32, repeated rows.
pub fn read_coords(path: &Path) -> Result<Support> {
    let place = || format!("cannot read coordinates {}", path.display());
    Support::try_new(read_rows(path)?).with_context(place)
}

fn read_rows(path: &Path) -> Result<Vec<Coord>> {
    let place = || format!("cannot read coordinates {}", path.display());
    let array = lattice_io::read_npy_array(path).map_err(|e| anyhow!("{e}"))?;
    if array.shape.len() != 2 || array.shape[1] != 4 {
        bail!(
            "{}: expected shape [n, 4] with columns batch, x, y, z, found {:?}; stack the columns",
            place(),
            array.shape
        );
    }
    let Attribute::I32(values) = array.data else {
        bail!(
            "{}: expected whole numbers inside int32, found other values; save them with .astype(numpy.int32)",
            place()
        );
    };
    Ok(values.as_chunks::<4>().0.to_vec())
}

/// The workloads of some files, or generated ones where there are none.
pub(crate) fn load_all(paths: &[PathBuf]) -> Result<Vec<Workload>> {
    if paths.is_empty() {
        return generated();
    }
    let load = |path: &PathBuf| {
        let name = path.file_stem().and_then(|n| n.to_str()).unwrap_or("coords").to_string();
        Ok(Workload { name, coords: read_coords(path)?.coords().to_vec() })
    };
    paths.iter().map(load).collect()
}

/// A generated sweep at 0.05 m, a generated room at 0.02 m, and a cube of 128 cells a side filled to 15 %.
fn generated() -> Result<Vec<Workload>> {
    let scene = |kind, size: f32, name: &str| -> Result<Workload> {
        let cloud = lattice_scenes::generate(kind, 0, &SceneOptions::default());
        let grid = VoxelGrid::try_new([size; 3], [0.0; 3])?;
        let voxels = quantize(&scene::positions_f32(&cloud), None, &grid, NonFinite::Drop)?;
        Ok(Workload { name: name.into(), coords: voxels.support.coords().to_vec() })
    };
    Ok(vec![
        scene(SceneKind::Lidar, 0.05, "generated-lidar")?,
        scene(SceneKind::Indoor, 0.02, "generated-indoor")?,
        Workload { name: "generated-block".into(), coords: random_block() },
    ])
}

fn random_block() -> Vec<Coord> {
    const SIDE: i32 = 128;
    let mut state = 11u64;
    let mut next = || {
        // xorshift64 (Marsaglia 2003)
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 11) as f64 / (1u64 << 53) as f64
    };
    let mut coords = Vec::new();
    for x in 0..SIDE {
        for y in 0..SIDE {
            for z in 0..SIDE {
                if next() < 0.15 {
                    coords.push([0, x, y, z]);
                }
            }
        }
    }
    coords
}

/// The public coordinate patterns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pattern {
    /// x = 3 i: no neighbours.
    Isolated,
    /// x = i.
    Line,
    /// A square of width ceil(sqrt n).
    Plane,
    /// 97 cells a side, x fastest.
    Grid,
    /// Dense cubes of this side, 3 cells apart.
    Block(i32),
}

impl Pattern {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Isolated,
        Self::Line,
        Self::Plane,
        Self::Grid,
        Self::Block(2),
        Self::Block(3),
        Self::Block(4),
        Self::Block(8),
    ];

    /// Name in reports.
    pub fn name(self) -> String {
        match self {
            Self::Block(side) => format!("block{side}"),
            other => format!("{other:?}").to_lowercase(),
        }
    }

    /// `n` rows of each of `batches` items.
    pub fn coords(self, n: usize, batches: usize) -> Vec<Coord> {
        (0..batches as i32).flat_map(|b| (0..n).map(move |i| self.row(b, i as i32, n))).collect()
    }

    fn row(self, b: i32, i: i32, n: usize) -> Coord {
        match self {
            Self::Isolated => [b, 3 * i, 0, 0],
            Self::Line => [b, i, 0, 0],
            Self::Plane => {
                let width = (n as f64).sqrt().ceil() as i32;
                [b, i % width, i / width, 0]
            }
            Self::Grid => [b, i % 97, i / 97 % 97, i / (97 * 97)],
            Self::Block(side) => {
                let cells = side * side * side;
                let (block, cell) = (i / cells, i % cells);
                let axis = ((n as f64 / f64::from(cells)).cbrt().ceil() as i32).max(1);
                let pitch = side + 3;
                let at = [block % axis, block / axis % axis, block / (axis * axis)];
                let inner = [cell % side, cell / side % side, cell / (side * side)];
                [b, at[0] * pitch + inner[0], at[1] * pitch + inner[1], at[2] * pitch + inner[2]]
            }
        }
    }

    /// Mean neighbours of a full pattern under a kernel of 3.
    pub fn expected_neighbours(self) -> f64 {
        match self {
            Self::Isolated => 1.0,
            Self::Line => 3.0,
            Self::Plane => 9.0,
            Self::Grid => 27.0,
            Self::Block(s) => f64::from(3 * s - 2).powi(3) / f64::from(s).powi(3),
        }
    }
}

/// The public points: buckets of three along x, 0.1 apart.
pub(crate) fn points(n: usize) -> Vec<[f32; 3]> {
    let point = |i: usize| {
        let bucket = i / 3;
        [
            bucket as f32 + 0.1 * (i % 3) as f32,
            (bucket / 17 % 17) as f32 + 0.05,
            (bucket / 289 % 17) as f32 + 0.025,
        ]
    };
    (0..n).map(point).collect()
}

/// Whether rows are distinct.
#[cfg(test)]
fn distinct(coords: &[Coord]) -> bool {
    coords.iter().collect::<std::collections::HashSet<_>>().len() == coords.len()
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn_lattice::core::{KernelSpec, Relation};

    #[test]
    fn patterns_have_distinct_rows_and_a_line_of_four_has_ten_pairs() {
        for pattern in Pattern::ALL {
            assert!(distinct(&pattern.coords(300, 2)), "{}", pattern.name());
        }
        let support = Support::try_new(Pattern::Line.coords(4, 1)).expect("rows are distinct");
        let spec = KernelSpec::cube(3, 1).expect("3 is odd");
        assert_eq!(Relation::submanifold(&support, &spec).expect("it fits").n_pairs(), 10);
    }

    #[test]
    fn a_block_of_two_has_eight_neighbours_a_row() {
        assert_eq!(Pattern::Block(2).expected_neighbours(), 8.0);
    }
}

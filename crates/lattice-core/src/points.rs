//! From points to voxels: which voxel holds a point, and which voxels surround it.

use std::sync::atomic::{AtomicI32, Ordering};

use rayon::prelude::*;

use crate::coord::sort_rows;
use crate::row_map::position_first;
use crate::support::{Block, CoordIndex, block_bit, block_key, check_row_count};
use crate::{Coord, Error, Result, Support};

/// Points a task of a parallel loop takes.
const CHUNK: usize = 8_192;

/// Where voxels lie, in the points' unit.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct VoxelGrid {
    /// Edge lengths of a voxel along x, y, z.
    pub voxel_size: [f32; 3],
    /// Position of the low corner of voxel `(0, 0, 0)`.
    pub origin: [f32; 3],
}

impl VoxelGrid {
    /// Voxels of the given edge lengths.
    ///
    /// # Errors
    /// [`Error::Value`] unless every edge is finite and above 0 and the origin is finite.
    pub fn try_new(voxel_size: [f32; 3], origin: [f32; 3]) -> Result<Self> {
        let grid = Self { voxel_size, origin };
        grid.check("VoxelGrid")?;
        Ok(grid)
    }

    /// Cubic voxels with origin 0.
    ///
    /// # Errors
    /// As [`VoxelGrid::try_new`].
    pub fn cubic(edge: f32) -> Result<Self> {
        Self::try_new([edge; 3], [0.0; 3])
    }

    fn check(&self, op: &'static str) -> Result<()> {
        if self.voxel_size.iter().any(|s| !s.is_finite() || *s <= 0.0) {
            let what =
                format!("expected voxel edges that are finite and above 0, found {:?}", self.voxel_size);
            return Err(Error::Value { op, what });
        }
        if self.origin.iter().any(|o| !o.is_finite()) {
            return Err(Error::Value {
                op,
                what: format!("expected a finite origin, found {:?}", self.origin),
            });
        }
        Ok(())
    }

    /// Voxel of a point: the position rounded down; `None` when that is not inside `i32`.
    #[inline]
    fn cell(&self, p: &[f32; 3]) -> Option<[i32; 3]> {
        let [x, y, z] = self.position(p).map(floor_i32);
        Some([x?, y?, z?])
    }

    /// `(p - origin) / voxel_size`: one subtraction and one division an axis, in `f32`.
    #[inline]
    fn position(&self, p: &[f32; 3]) -> [f32; 3] {
        [0, 1, 2].map(|a| (p[a] - self.origin[a]) / self.voxel_size[a])
    }
}

/// What to do with points that hold NaN or an infinity.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum NonFinite {
    /// Refuse the cloud, naming the first such point.
    #[default]
    Error,
    /// Leave them out: their voxel is -1 and they are counted.
    Drop,
}

/// The voxels that points fall into.
#[derive(Clone, Debug)]
pub struct Voxelization {
    /// Occupied voxels, in canonical order.
    pub support: Support,
    /// Voxel row of every point, -1 for a dropped one.
    pub voxel_of_point: Vec<i32>,
    /// Points in every voxel.
    pub counts: Vec<u32>,
    /// Points that were left out.
    pub dropped: usize,
}

/// How a point reads the voxels around it. Integer coordinate `c` stands for position `c`: to sample at voxel centres, move the
/// origin by half a voxel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Interpolation {
    /// The nearest lattice corner `floor(u + 0.5)`, weight 1, in slot 0.
    Nearest,
    /// The eight corners of the cell, trilinear weights, x as the low bit of the corner number.
    #[default]
    Linear,
}

/// For every point up to eight voxel rows and their weights.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PointVoxelMap {
    /// Voxel rows, -1 where the voxel is not active.
    pub rows: Vec<[i32; 8]>,
    /// Weights, 0 where there is no row.
    pub weights: Vec<[f32; 8]>,
}

/// The voxel of every point, `floor((p - origin) / voxel_size)` evaluated in `f32`, and the distinct voxels in canonical order.
/// Without batch ids all points are of item 0.
///
/// # Errors
/// [`Error::Shape`] unless there are as many batch ids as points; [`Error::OutOfRange`] for a negative batch id, a point that is
/// not finite (with [`NonFinite::Error`]) or a voxel outside `i32`, naming the first; [`Error::Value`] for a bad grid.
pub fn quantize(
    points: &[[f32; 3]],
    batch: Option<&[i32]>,
    grid: &VoxelGrid,
    non_finite: NonFinite,
) -> Result<Voxelization> {
    const OP: &str = "quantize";
    grid.check(OP)?;
    check_lengths(OP, points.len(), batch)?;
    if u32::try_from(points.len()).is_err() {
        let what = format!("expected fewer than 2^32 points, found {}; split the cloud", points.len());
        return Err(Error::Limit { op: OP, what });
    }
    let mut cells: Vec<Coord> = vec![[0; 4]; points.len()];
    let into_cells = |(chunk, cells): (usize, &mut [Coord])| -> Result<usize> {
        let mut dropped = 0;
        for (i, cell) in cells.iter_mut().enumerate() {
            let row = chunk * CHUNK + i;
            let b = batch.map_or(0, |b| b[row]);
            match grid.cell(&points[row]) {
                Some([x, y, z]) if b >= 0 => *cell = [b, x, y, z],
                _ => {
                    check_point(OP, row, &points[row], b, grid, non_finite)?;
                    *cell = DROPPED;
                    dropped += 1;
                }
            }
        }
        Ok(dropped)
    };
    // Chunks in order, so that the first fault is the one reported.
    let chunks: Vec<Result<usize>> = cells.par_chunks_mut(CHUNK).enumerate().map(into_cells).collect();
    let dropped = chunks.into_iter().sum::<Result<usize>>()?;
    // Points that were kept, where some were not.
    let kept: Option<Vec<u32>> =
        (dropped > 0).then(|| (0..points.len() as u32).filter(|&p| cells[p as usize] != DROPPED).collect());
    if dropped > 0 {
        cells.retain(|c| *c != DROPPED);
    }

    let sorted = sort_rows(&cells);
    let n_voxels = sorted.starts.len() - 1;
    check_row_count(OP, n_voxels)?;
    // Every point is written once, by its voxel.
    let voxel_of_point: Vec<AtomicI32> =
        std::iter::repeat_with(|| AtomicI32::new(-1)).take(points.len()).collect();
    (0..n_voxels).into_par_iter().with_min_len(CHUNK).for_each(|voxel| {
        for &cell in &sorted.order[sorted.starts[voxel] as usize..sorted.starts[voxel + 1] as usize] {
            let point = kept.as_ref().map_or(cell, |kept| kept[cell as usize]);
            voxel_of_point[point as usize].store(voxel as i32, Ordering::Relaxed);
        }
    });
    Ok(Voxelization {
        counts: sorted.starts.windows(2).map(|w| w[1] - w[0]).collect(),
        support: Support::from_sorted(&cells, &sorted),
        voxel_of_point: voxel_of_point.into_iter().map(AtomicI32::into_inner).collect(),
        dropped,
    })
}

/// Stands in for the cell of a point that was left out: no batch id is negative.
const DROPPED: Coord = [-1; 4];

/// Why a point has no cell; `Ok` where it may be dropped.
fn check_point(
    op: &'static str,
    row: usize,
    p: &[f32; 3],
    batch: i32,
    grid: &VoxelGrid,
    non_finite: NonFinite,
) -> Result<()> {
    let what = if batch < 0 {
        format!("expected a batch id of 0 or more, found {batch}")
    } else if p.iter().any(|v| !v.is_finite()) {
        match non_finite {
            NonFinite::Drop => return Ok(()),
            NonFinite::Error => format!(
                "expected a finite point, found {p:?}; use `NonFinite::Drop` to leave such points out"
            ),
        }
    } else {
        let u = grid.position(p).map(f32::floor);
        format!("expected a voxel inside i32, found {u:?}; use larger voxels or a nearer origin")
    };
    Err(Error::OutOfRange { op, row, what })
}

/// The whole number at or below `v`; `None` outside `i32` and for NaN. No call into the maths library, so that loops vectorise.
#[inline]
fn floor_i32(v: f32) -> Option<i32> {
    if !(-2_147_483_648.0..2_147_483_648.0).contains(&v) {
        return None;
    }
    let towards_zero = v as i32;
    Some(towards_zero - i32::from(towards_zero as f32 > v))
}

fn check_lengths(op: &'static str, n_points: usize, batch: Option<&[i32]>) -> Result<()> {
    match batch {
        Some(batch) if batch.len() != n_points => {
            let expected = format!("{n_points} batch ids, one a point");
            Err(Error::Shape { op, expected, found: format!("{}", batch.len()) })
        }
        _ => Ok(()),
    }
}

fn check_batch(op: &'static str, n_points: usize, batch: Option<&[i32]>) -> Result<()> {
    check_lengths(op, n_points, batch)?;
    let Some(batch) = batch else { return Ok(()) };
    match position_first(batch, |b| *b < 0) {
        None => Ok(()),
        Some(row) => {
            let what = format!("expected a batch id of 0 or more, found {}", batch[row]);
            Err(Error::OutOfRange { op, row, what })
        }
    }
}

/// The voxels around every point. Positions are `u = (p - origin) / voxel_size` in `f32`; voxel coordinates are compared with
/// them directly, so on a coarser level pass that level's voxel size.
///
/// Weights multiply in order x, y, z. Missing corners weigh nothing, so values fade out at the border unless `renormalize`
/// divides the weights by their sum (all 0 where the sum is 0). Points that are not finite get no rows.
///
/// # Errors
/// [`Error::Shape`] unless there are as many batch ids as points; [`Error::OutOfRange`] for a negative batch id;
/// [`Error::Value`] for a bad grid.
pub fn point_voxel_map(
    points: &[[f32; 3]],
    batch: Option<&[i32]>,
    support: &Support,
    grid: &VoxelGrid,
    interpolation: Interpolation,
    renormalize: bool,
) -> Result<PointVoxelMap> {
    const OP: &str = "point_voxel_map";
    grid.check(OP)?;
    check_batch(OP, points.len(), batch)?;
    let index = support.index();
    let n = points.len();
    let mut map = PointVoxelMap { rows: vec![[-1; 8]; n], weights: vec![[0.0; 8]; n] };
    let chunks = map.rows.par_chunks_mut(CHUNK).zip(map.weights.par_chunks_mut(CHUNK)).enumerate();
    chunks.for_each(|(chunk, (rows, weights))| {
        let mut corners = Corners::new(index);
        for (i, (rows, weights)) in rows.iter_mut().zip(weights).enumerate() {
            let at = chunk * CHUNK + i;
            let b = batch.map_or(0, |b| b[at]);
            let u = grid.position(&points[at]);
            match interpolation {
                Interpolation::Nearest => {
                    let [Some(x), Some(y), Some(z)] = u.map(|v| floor_i32(v + 0.5)) else { continue };
                    if let Some(row) = index.row(&[b, x, y, z]) {
                        (rows[0], weights[0]) = (row as i32, 1.0);
                    }
                }
                Interpolation::Linear => {
                    let [Some(x), Some(y), Some(z)] = u.map(floor_i32) else { continue };
                    *rows = corners.rows(&[b, x, y, z]);
                    *weights =
                        trilinear(rows, [u[0] - x as f32, u[1] - y as f32, u[2] - z as f32], renormalize);
                }
            }
        }
    });
    Ok(map)
}

/// Weights of the corners that have rows, at `t` within the cell.
#[inline]
fn trilinear(rows: &[i32; 8], t: [f32; 3], renormalize: bool) -> [f32; 8] {
    let [x, y, z] = t.map(|t| [1.0 - t, t]);
    let weight = |j: usize| x[j & 1] * y[j >> 1 & 1] * z[j >> 2];
    let weights: [f32; 8] = std::array::from_fn(|j| if rows[j] < 0 { 0.0 } else { weight(j) });
    if !renormalize {
        return weights;
    }
    let sum: f32 = weights.iter().sum();
    if sum > 0.0 { weights.map(|w| w / sum) } else { weights }
}

/// Looks up the eight corners of cells. A cell seldom leaves its block of 4 x 4 x 4 voxels, and the next point is seldom far: most
/// cells need no probe or one.
struct Corners<'a> {
    index: &'a CoordIndex,
    /// Blocks last asked for and their keys, by the parity of the key along x, y, z: the blocks of one cell differ in it.
    recent: [(Coord, Option<&'a Block>); 8],
}

impl<'a> Corners<'a> {
    fn new(index: &'a CoordIndex) -> Self {
        // No block has this key: coordinates are divided by 4.
        Self { index, recent: [([0, i32::MAX, 0, 0], None); 8] }
    }

    #[inline]
    fn block(&mut self, key: Coord) -> Option<&'a Block> {
        let recent = &mut self.recent[(1..4).fold(0, |bits, a| bits | (key[a] as usize & 1) << (a - 1))];
        if recent.0 != key {
            *recent = (key, self.index.block(&key));
        }
        recent.1
    }

    /// Row of each corner of the cell at `base`, x as the low bit; -1 where there is none.
    #[inline]
    fn rows(&mut self, base: &Coord) -> [i32; 8] {
        // The far corner. Past the end of `i32` it stands on the base itself, and the corners that use it are left out.
        let far: Coord = std::array::from_fn(|k| if k == 0 { base[0] } else { base[k].saturating_add(1) });
        let outside = (0..3).fold(0, |bits, a| bits | usize::from(base[a + 1] == i32::MAX) << a);
        let (keys, bits) = ([block_key(base), block_key(&far)], [block_bit(base), block_bit(&far)]);
        // Axes along which the far corners lie in the next block.
        let crossing = (0..3).fold(0, |bits, a| bits | usize::from(keys[0][a + 1] != keys[1][a + 1]) << a);
        let mut blocks = [None; 8];
        for (part, block) in blocks.iter_mut().enumerate() {
            if part & !crossing == 0 {
                *block = self.block([base[0], keys[part & 1][1], keys[part >> 1 & 1][2], keys[part >> 2][3]]);
            }
        }
        // Two bits of a block's bit number for each axis, x on top.
        let axis_bits = |j: usize| bits[j & 1] & 0x30 | bits[j >> 1 & 1] & 0x0c | bits[j >> 2] & 0x03;
        std::array::from_fn(|j| match blocks[j & crossing] {
            Some(block) if j & outside == 0 && block.has(axis_bits(j)) => {
                self.index.rows()[block.rank(axis_bits(j))] as i32
            }
            _ => -1,
        })
    }
}

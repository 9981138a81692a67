//! Bird's-eye views: dropping one coordinate axis of a tensor, to sparse rows or to a dense image.
//!
//! All forms work on logical coordinates, counted from 0. The axis is one of x, y, z; usually z. Dense images are
//! `[b, channels, h, w]` over the two axes that stay, in their order, with `b` the tensor's batch size.

use burn::tensor::Tensor;
use lattice_core as core;
use lattice_core::{Edge, RelationKind};

use super::conv::{ConvEpilogue, ConvGeometry, coarser, convolve};
use super::dense::cell_count;
use super::mix_rows;
use super::row_groups::{entries, grouped};
use super::row_trace::{ROW_MIX, RowTrace};
use crate::backend::{self, ConvMap, Grid};
use crate::tensor::check_features;
use crate::{Error, KernelSpec, Relation, Result, RowMap, SparseTensor, Support};

/// A coordinate axis.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Axis {
    /// Column 1.
    X,
    /// Column 2.
    Y,
    /// Column 3.
    #[default]
    Z,
}

impl Axis {
    /// Number among x, y, z.
    fn index(self) -> usize {
        self as usize
    }

    /// The other two, ascending.
    fn others(self) -> [usize; 2] {
        match self {
            Self::X => [1, 2],
            Self::Y => [0, 2],
            Self::Z => [0, 1],
        }
    }
}

/// Shape and place of a dense window over x, y, z.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BevWindow {
    /// Cells along x, y, z.
    pub shape: [usize; 3],
    /// Coordinate of the first cell.
    pub offset: [i32; 3],
}

impl BevWindow {
    /// A window from coordinate 0.
    pub fn new(shape: [usize; 3]) -> Self {
        Self { shape, offset: [0; 3] }
    }

    /// Moves the first cell.
    pub fn with_offset(self, offset: [i32; 3]) -> Self {
        Self { offset, ..self }
    }

    /// Cell of a coordinate along an axis; may lie outside.
    fn place(&self, coord: &core::Coord, axis: usize) -> i64 {
        i64::from(coord[axis + 1]) - i64::from(self.offset[axis])
    }

    fn inside(&self, op: &'static str, row: usize, coord: &core::Coord, axis: usize) -> Result<usize> {
        let at = self.place(coord, axis);
        usize::try_from(at).ok().filter(|&at| at < self.shape[axis]).ok_or_else(|| Error::OutOfRange {
            op,
            row,
            what: format!("expected a coordinate inside {self:?}, found {coord:?}; crop first"),
        })
    }
}

/// Where the rows of a tensor fall once `axis` is dropped and the others are divided by `step`, and the map that sums or averages them.
fn flattened(
    op: &'static str,
    x: &SparseTensor,
    axis: Axis,
    step: [u32; 3],
    mean: bool,
) -> Result<(Support, RowMap)> {
    let host = x.support().to_host();
    if let Some((support, map)) = backend::flat_map(&x.device(), host, step, axis.index(), mean) {
        return Ok((support.into(), map.into()));
    }
    let flat: Vec<core::Coord> = (x.support().to_host().coords().iter())
        .map(|c| {
            let mut flat = *c;
            for a in 0..3 {
                flat[a + 1] = i64::from(c[a + 1]).div_euclid(i64::from(step[a])) as i32;
            }
            flat[axis.index() + 1] = 0;
            flat
        })
        .collect();
    let support = core::Support::canonical(flat.clone())?;
    let map = grouped(op, &support.lookup_all(&flat), support.n_rows(), mean)?;
    Ok((support.into(), map))
}

fn reduce(trace: RowTrace, feats: Tensor<2>, map: &RowMap) -> Tensor<2> {
    let trace = trace.mapped(&feats);
    let from = feats.dims();
    let out = mix_rows(feats, map, 0.0);
    trace.finish(from, &out, |device| entries(map, device), ROW_MIX);
    out
}

/// Sets the coordinate along `axis` to 0 and averages the rows that meet. Differentiable.
///
/// # Shapes
/// `[n, c]` to `[sites, c]` in canonical order, at the same stride.
/// # Errors
/// A dtype that is not a float.
pub fn bev_reduction(x: &SparseTensor, axis: Axis) -> Result<SparseTensor> {
    let op = "bev_reduction";
    check_features(op, x.feats())?;
    let trace = RowTrace::start(op, "bev.mean");
    let (support, map) = flattened(op, x, axis, [1; 3], true)?;
    let feats = reduce(trace, x.feats().clone(), &map);
    let counts = x.recount(&support);
    x.derived(support, feats, x.stride(), counts)
}

/// Every row times the matrix of its place along the axis: `[n, c_out]` on the input's rows.
fn project(
    op: &'static str,
    x: &SparseTensor,
    weight: Tensor<3>,
    bias: Option<Tensor<1>>,
    axis: Axis,
    first: i64,
) -> Result<SparseTensor> {
    let [taps, _, _] = weight.dims();
    let column = axis.index() + 1;
    let mut edges = Vec::with_capacity(x.n_rows());
    for (row, c) in x.support().to_host().coords().iter().enumerate() {
        let at = i64::from(c[column]) - first;
        match u16::try_from(at) {
            Ok(tap) if usize::from(tap) < taps => {
                edges.push(Edge { in_row: row as u32, out_row: row as u32, tap })
            }
            _ => {
                return Err(Error::OutOfRange {
                    op,
                    row,
                    what: format!(
                        "expected a place below the {taps} matrices along {axis:?}, found {at}; crop first"
                    ),
                });
            }
        }
    }
    let mut size = [1; 3];
    size[axis.index()] = u32::try_from(taps)
        .map_err(|_| Error::Limit { op, what: format!("expected fewer than 2^32 matrices, found {taps}") })?;
    let spec = KernelSpec::try_new(size, [1; 3], [0; 3], [1; 3])?;
    let host = x.support().to_host();
    let relation: Relation =
        core::Relation::from_edges(host, host, &spec, RelationKind::Target, &edges)?.into();
    let geometry = ConvGeometry {
        map: ConvMap::Relation(relation),
        support: x.support().clone(),
        stride: x.stride(),
        counts: x.batch_counts().map(Into::into),
        map_ms: 0.0,
    };
    convolve(op, x, weight, bias, geometry, 1, ConvEpilogue::default())
}

/// Multiplies every row with the matrix of its place along `axis`, sets that coordinate to 0, divides the others by `stride`
/// rounding down, and sums the rows that meet. The bias enters once an input row. Differentiable.
///
/// # Shapes
/// `weight [places, c_in, c_out]`, `bias [c_out]`; result `[sites, c_out]` in canonical order, at tensor stride
/// `x.stride · stride` on the axes that stay.
/// # Errors
/// A coordinate along `axis` outside `0..places`; a stride of 0; channels or dtypes that do not fit.
pub fn bev_convolution(
    x: &SparseTensor,
    weight: Tensor<3>,
    bias: Option<Tensor<1>>,
    stride: u32,
    axis: Axis,
) -> Result<SparseTensor> {
    let op = "bev_convolution";
    if stride == 0 {
        return Err(Error::Value { op, what: "expected a positive stride, found 0".into() });
    }
    let mut step = [stride; 3];
    step[axis.index()] = 1;
    let out_stride = coarser(op, x.stride(), step)?;
    let projected = project(op, x, weight, bias, axis, 0)?;
    let trace = RowTrace::start(op, "bev.sum");
    let (support, map) = flattened(op, x, axis, step, false)?;
    let feats = reduce(trace, projected.into_feats(), &map);
    let counts = x.recount(&support);
    x.derived(support, feats, out_stride, counts)
}

/// Multiplies every row with the matrix of its place along `axis` and sums the rows that meet in a dense image. The bias enters
/// once an input row; cells without rows are 0. Differentiable.
///
/// # Shapes
/// `weight [window extent along axis, c_in, c_out]`, `bias [c_out]`; result `[b, c_out, h, w]`.
/// # Errors
/// A row outside the window; a weight of another extent; channels or dtypes that do not fit.
pub fn dense_bev_convolution(
    x: &SparseTensor,
    weight: Tensor<3>,
    bias: Option<Tensor<1>>,
    window: &BevWindow,
    axis: Axis,
) -> Result<Tensor<4>> {
    let op = "dense_bev_convolution";
    let [taps, _, c_out] = weight.dims();
    if taps != window.shape[axis.index()] {
        return Err(Error::Shape {
            op,
            expected: format!("one matrix a cell along {axis:?}, {}", window.shape[axis.index()]),
            found: format!("{taps}"),
        });
    }
    let [i, j] = axis.others();
    let [batch, height, width] = [x.batch_size(), window.shape[i], window.shape[j]];
    let cells = cell_count(op, &[batch, height, width])?;
    let mut groups = Vec::with_capacity(x.n_rows());
    for (row, c) in x.support().to_host().coords().iter().enumerate() {
        let at = [window.inside(op, row, c, i)?, window.inside(op, row, c, j)?];
        groups.push((c[0] as usize * height + at[0]) * width + at[1]);
    }
    let projected = project(op, x, weight, bias, axis, i64::from(window.offset[axis.index()]))?;
    let trace = RowTrace::start(op, "bev.sum");
    let map = grouped(op, &cell_groups(op, groups, cells)?, cells, false)?;
    let image = reduce(trace, projected.into_feats(), &map);
    Ok(image.reshape([batch, height, width, c_out]).permute([0, 3, 1, 2]))
}

/// Folds `axis`, clamped into the window, into channels: place `d` of channel `k` is image channel `d · c + k`. Rows that meet
/// because they were clamped are summed. Differentiable.
///
/// # Shapes
/// `[n, c]` to `[b, c · depth, h, w]`, with `depth` the window's extent along `axis`.
/// # Errors
/// A row outside the window on an axis that stays; a window without depth.
pub fn bev_height_compression(x: &SparseTensor, window: &BevWindow, axis: Axis) -> Result<Tensor<4>> {
    let op = "bev_height_compression";
    check_features(op, x.feats())?;
    let [i, j] = axis.others();
    let [batch, height, width] = [x.batch_size(), window.shape[i], window.shape[j]];
    let depth = window.shape[axis.index()];
    let deepest = depth.checked_sub(1).ok_or_else(|| Error::Value {
        op,
        what: format!("expected at least one cell along {axis:?}, found none"),
    })?;
    let cells = cell_count(op, &[batch, height, width, depth])?;
    let trace = RowTrace::start(op, "bev.fold");
    let mut grid = Grid {
        offset: [0, window.offset[0], window.offset[1], window.offset[2]],
        extent: [batch, window.shape[0], window.shape[1], window.shape[2]],
        step: [height * width * depth; 4],
        clamped: Some(axis.index() + 1),
        cells,
    };
    (grid.step[i + 1], grid.step[j + 1], grid.step[axis.index() + 1]) = (width * depth, depth, 1);
    let map = match backend::cell_map(&x.device(), x.support().to_host(), &grid, false) {
        Some(made) => made.into(),
        None => {
            let mut groups = Vec::with_capacity(x.n_rows());
            for (row, c) in x.support().to_host().coords().iter().enumerate() {
                let at = [window.inside(op, row, c, i)?, window.inside(op, row, c, j)?];
                let place = usize::try_from(window.place(c, axis.index())).map_or(0, |at| at.min(deepest));
                groups.push(((c[0] as usize * height + at[0]) * width + at[1]) * depth + place);
            }
            grouped(op, &cell_groups(op, groups, cells)?, cells, false)?
        }
    };
    let image = reduce(trace, x.feats().clone(), &map);
    let channels = depth * x.channels();
    Ok(image.reshape([batch, height, width, channels]).permute([0, 3, 1, 2]))
}

/// Cells as group numbers.
fn cell_groups(op: &'static str, groups: Vec<usize>, cells: usize) -> Result<Vec<i32>> {
    if i32::try_from(cells).is_err() {
        return Err(Error::Limit {
            op,
            what: format!("expected an image of fewer than 2^31 cells, found {cells}"),
        });
    }
    Ok(groups.into_iter().map(|cell| cell as i32).collect())
}

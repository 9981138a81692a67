//! Bird's-eye views: four ways to drop one coordinate column (`dim`, 1 to 3) of a support, on logical coordinates.

use crate::algebra::merge;
use crate::coords::{Coord, coarser};

/// The shape and place of a dense grid over x, y, z.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// Cells along x, y, z.
    pub shape: [usize; 3],
    /// Coordinate of the first cell.
    pub offset: [i32; 3],
}

impl Window {
    /// Coordinate minus offset; axis values may lie outside the shape.
    fn place(&self, c: &Coord) -> [i64; 3] {
        [0, 1, 2].map(|a| i64::from(c[a + 1]) - i64::from(self.offset[a]))
    }

    /// The two axes that stay, ascending.
    fn kept_axes(dim: usize) -> [usize; 2] {
        match dim {
            1 => [1, 2],
            2 => [0, 2],
            _ => [0, 1],
        }
    }

    fn inside(&self, at: i64, axis: usize) -> Option<usize> {
        usize::try_from(at).ok().filter(|&at| at < self.shape[axis])
    }
}

fn flattened(coords: &[Coord], dim: usize) -> Vec<Coord> {
    coords
        .iter()
        .map(|c| {
            let mut flat = *c;
            flat[dim] = 0;
            flat
        })
        .collect()
}

/// Column `dim` set to 0, the mean of the rows that meet; canonical order.
pub fn reduction(coords: &[Coord], x: &[f64], c: usize, dim: usize) -> (Vec<Coord>, Vec<f64>) {
    merge(&flattened(coords, dim), x, c, true)
}

/// One linear map for every place along the dropped column.
#[derive(Clone, Copy, Debug)]
pub struct Projection<'a> {
    /// `[taps, c_in, c_out]`
    pub weight: &'a [f64],
    /// `[c_out]`, added once a row.
    pub bias: Option<&'a [f64]>,
    /// Input channels.
    pub c_in: usize,
    /// Output channels.
    pub c_out: usize,
}

impl Projection<'_> {
    /// Places the weight covers.
    pub fn taps(&self) -> usize {
        self.weight.len() / (self.c_in * self.c_out)
    }

    /// `x[row]·w[tap] + bias`.
    fn of_row(&self, x: &[f64], row: usize, tap: usize) -> Vec<f64> {
        let Self { weight, bias, c_in, c_out } = *self;
        (0..c_out)
            .map(|co| {
                let sum: f64 =
                    (0..c_in).map(|ci| x[row * c_in + ci] * weight[(tap * c_in + ci) * c_out + co]).sum();
                sum + bias.map_or(0.0, |b| b[co])
            })
            .collect()
    }
}

/// Every row times the weight of its column `dim`, that column set to 0, the others divided by `stride` rounding down,
/// the **sum** of the rows that meet (bias enters once a row); canonical order. `None` when a column has no weight.
pub fn convolution(
    coords: &[Coord],
    x: &[f64],
    map: &Projection<'_>,
    stride: u32,
    dim: usize,
) -> Option<(Vec<Coord>, Vec<f64>)> {
    let mut y = Vec::new();
    for (row, c) in coords.iter().enumerate() {
        let tap = usize::try_from(c[dim]).ok().filter(|&tap| tap < map.taps())?;
        y.extend(map.of_row(x, row, tap));
    }
    let coarse: Vec<Coord> = flattened(coords, dim).iter().map(|c| coarser(c, [stride; 3])).collect();
    Some(merge(&coarse, &y, map.c_out, false))
}

/// As [`convolution`] into a dense `[n_batches, c_out, h, w]` grid over the two remaining axes (ascending). The weight is
/// picked by the column's place in the window. `None` when a row lies outside the window.
pub fn dense_convolution(
    coords: &[Coord],
    x: &[f64],
    map: &Projection<'_>,
    window: Window,
    dim: usize,
    n_batches: usize,
) -> Option<Vec<f64>> {
    let [first, second] = Window::kept_axes(dim);
    let (height, width) = (window.shape[first], window.shape[second]);
    let mut grid = vec![0.0; n_batches * map.c_out * height * width];
    for (row, c) in coords.iter().enumerate() {
        let at = window.place(c);
        let tap = window.inside(at[dim - 1], dim - 1)?;
        let (i, j) = (window.inside(at[first], first)?, window.inside(at[second], second)?);
        let values = map.of_row(x, row, tap);
        for (co, value) in values.iter().enumerate() {
            grid[((c[0] as usize * map.c_out + co) * height + i) * width + j] += value;
        }
    }
    Some(grid)
}

/// Folds column `dim`, clamped into the window, into channels: dense `[n_batches, c·depth, h, w]`, channel
/// `depth_index·c + channel`, rows that meet are summed. `None` when a remaining axis lies outside the window.
pub fn height_compression(
    coords: &[Coord],
    x: &[f64],
    c: usize,
    window: Window,
    dim: usize,
    n_batches: usize,
) -> Option<Vec<f64>> {
    let [first, second] = Window::kept_axes(dim);
    let (height, width, depth) = (window.shape[first], window.shape[second], window.shape[dim - 1]);
    let mut grid = vec![0.0; n_batches * c * depth * height * width];
    for (row, coord) in coords.iter().enumerate() {
        let at = window.place(coord);
        let d = at[dim - 1].clamp(0, depth as i64 - 1) as usize;
        let (i, j) = (window.inside(at[first], first)?, window.inside(at[second], second)?);
        for channel in 0..c {
            let plane = coord[0] as usize * c * depth + d * c + channel;
            grid[(plane * height + i) * width + j] += x[row * c + channel];
        }
    }
    Some(grid)
}

//! Launchers of row maps.

use cubecl::prelude::*;

use super::kernel::{Combine, ReduceShape, count_ties_kernel, reduce_rows_kernel, spread_gradient_kernel};
use super::map::{DeviceRowMap, Level};
use crate::address::{UNITS, address_of, lanes_of, room_for};
use crate::gpu::{Buffer, Gpu};

/// `out[o] = Σ weight · x[row]` over the entries of row `o`, in f32 and in order; `fill` where it has none.
///
/// The gradient is this function over the transposed map. One launch, or one a level where the map has long rows.
///
/// # Shapes
/// `x`: `[n_in, c]`; returns `[n_out, c]`.
///
/// # Panics
/// When `x` does not have its shape.
pub fn mix_rows<F: Float + CubeElement>(
    gpu: &Gpu,
    x: &Buffer,
    c: usize,
    map: &DeviceRowMap,
    fill: f32,
) -> Buffer {
    reduce_entries::<F>(gpu, x, c, map, map.weights.as_ref(), Combine::Sum, fill)
}

/// `out[o] = max x[row]` over the entries of row `o`, whatever their weights; 0 where it has none, NaN where one is.
///
/// # Shapes
/// `x`: `[n_in, c]`; returns `[n_out, c]`.
///
/// # Panics
/// When `x` does not have its shape.
pub fn max_rows<F: Float + CubeElement>(gpu: &Gpu, x: &Buffer, c: usize, map: &DeviceRowMap) -> Buffer {
    reduce_entries::<F>(gpu, x, c, map, None, Combine::Max, 0.0)
}

/// The gradient of [`max_rows`]: `dx[i]` is the sum over the entries of `i` whose input equals the maximum `y[o]` of `g[o] / ties`,
/// where `ties` counts such entries of `o`. A NaN equals nothing.
///
/// # Shapes
/// `x` and the result: `[n_in, c]`; `y`, `g`: `[n_out, c]`. Needs `n_out * c` f32 numbers of working memory, more where a map has
/// long rows.
///
/// # Panics
/// When a buffer does not have its shape, or `transpose` is not of the shape of the transpose of `map`.
pub fn max_rows_grad<F: Float + CubeElement>(
    gpu: &Gpu,
    [x, y, g]: [&Buffer; 3],
    c: usize,
    map: &DeviceRowMap,
    transpose: &DeviceRowMap,
) -> Buffer {
    assert_eq!(x.len, map.n_in() * c, "max_rows_grad: length of the features");
    assert_eq!(
        (y.len, g.len),
        (map.n_out() * c, map.n_out() * c),
        "max_rows_grad: lengths of maxima and gradient"
    );
    assert_eq!(
        (transpose.n_in(), transpose.n_out()),
        (map.n_out(), map.n_in()),
        "max_rows_grad: rows of the transpose"
    );
    let ties = count_ties::<F>(gpu, [x, y], c, map);
    let split = transpose.levels.len() > 1;
    match split {
        false => spread_gradient::<F, F>(gpu, [x, y, g, &ties], c, transpose, split),
        true => {
            let pieces = spread_gradient::<F, f32>(gpu, [x, y, g, &ties], c, transpose, split);
            combine_pieces::<F>(gpu, pieces, c, &transpose.levels[1..], Combine::Sum, 0.0)
        }
    }
}

/// Entries of each output row that equal its maximum, in f32: `[n_out, c]`.
fn count_ties<F: Float + CubeElement>(
    gpu: &Gpu,
    [x, y]: [&Buffer; 2],
    c: usize,
    map: &DeviceRowMap,
) -> Buffer {
    let level = &map.levels[0];
    let split = map.levels.len() > 1;
    let ties = room_for::<f32>(gpu, level.n_segments * c);
    if ties.len > 0 {
        let lanes = lanes_of::<F>(gpu, c);
        // SAFETY: `max_rows_grad` checked the lengths of `x` and `y`; rows, splits and owners come from a checked `RowMap`, and units
        // past the result do nothing.
        unsafe {
            count_ties_kernel::launch_unchecked::<F>(
                gpu.client(),
                Gpu::cubes(ties.len / lanes, UNITS as usize),
                CubeDim::new_1d(UNITS),
                address_of(&[x, y, &map.rows, &ties]),
                lanes,
                x.arg(lanes),
                y.arg(lanes),
                level.splits.arg(1),
                map.rows.arg(1),
                map.owners.as_ref().unwrap_or(&level.splits).arg(1),
                ties.arg(lanes),
                level.n_segments,
                c / lanes,
                split,
            );
        }
    }
    match split {
        false => ties,
        true => combine_pieces::<f32>(gpu, ties, c, &map.levels[1..], Combine::Sum, 0.0),
    }
}

fn spread_gradient<F: Float + CubeElement, O: Float + CubeElement>(
    gpu: &Gpu,
    [x, y, g, ties]: [&Buffer; 4],
    c: usize,
    transpose: &DeviceRowMap,
    split: bool,
) -> Buffer {
    let level = &transpose.levels[0];
    let dx = room_for::<O>(gpu, level.n_segments * c);
    if dx.len == 0 {
        return dx;
    }
    let lanes = lanes_of::<F>(gpu, c);
    // SAFETY: as for `count_ties`; the transpose has the rows of the map on its two sides, which `max_rows_grad` checked.
    unsafe {
        spread_gradient_kernel::launch_unchecked::<F, O>(
            gpu.client(),
            Gpu::cubes(dx.len / lanes, UNITS as usize),
            CubeDim::new_1d(UNITS),
            address_of(&[x, y, &transpose.rows, &dx]),
            lanes,
            x.arg(lanes),
            y.arg(lanes),
            g.arg(lanes),
            ties.arg(lanes),
            level.splits.arg(1),
            transpose.rows.arg(1),
            transpose.owners.as_ref().unwrap_or(&level.splits).arg(1),
            dx.arg(lanes),
            level.n_segments,
            c / lanes,
            split,
        );
    }
    dx
}

fn reduce_entries<F: Float + CubeElement>(
    gpu: &Gpu,
    x: &Buffer,
    c: usize,
    map: &DeviceRowMap,
    weights: Option<&Buffer>,
    combine: Combine,
    fill: f32,
) -> Buffer {
    assert_eq!(x.len, map.n_in() * c, "length of the features of a row map");
    let entries = Some((&map.rows, weights));
    match map.levels.as_slice() {
        [only] => reduce_level::<F, F>(gpu, x, c, only, entries, combine, fill),
        levels => {
            let pieces = reduce_level::<F, f32>(gpu, x, c, &levels[0], entries, combine, fill);
            combine_pieces::<F>(gpu, pieces, c, &levels[1..], combine, fill)
        }
    }
}

/// Combines f32 results of pieces, level by level; the last gives rows of type `F`.
fn combine_pieces<F: Float + CubeElement>(
    gpu: &Gpu,
    mut pieces: Buffer,
    c: usize,
    levels: &[Level],
    combine: Combine,
    fill: f32,
) -> Buffer {
    let (last, middle) = levels.split_last().expect("a level of rows follows pieces");
    for level in middle {
        pieces = reduce_level::<f32, f32>(gpu, &pieces, c, level, None, combine, fill);
    }
    reduce_level::<f32, F>(gpu, &pieces, c, last, None, combine, fill)
}

/// One level: of the entries `(rows, weights)`, or of consecutive rows of `x`.
fn reduce_level<I: Float + CubeElement, O: Float + CubeElement>(
    gpu: &Gpu,
    x: &Buffer,
    c: usize,
    level: &Level,
    entries: Option<(&Buffer, Option<&Buffer>)>,
    combine: Combine,
    fill: f32,
) -> Buffer {
    let out = room_for::<O>(gpu, level.n_segments * c);
    if out.len == 0 {
        return out;
    }
    let lanes = lanes_of::<I>(gpu, c);
    let weights = entries.and_then(|(_, weights)| weights);
    let shape = ReduceShape { combine, weighted: weights.is_some(), consecutive: entries.is_none() };
    let rows = entries.map_or(&level.splits, |(rows, _)| rows);
    // SAFETY: rows and splits come from a checked `RowMap` and `x` has its rows, as the callers checked; operands that the shape says
    // are absent are not read, and units past the result do nothing.
    unsafe {
        reduce_rows_kernel::launch_unchecked::<I, O>(
            gpu.client(),
            Gpu::cubes(out.len / lanes, UNITS as usize),
            CubeDim::new_1d(UNITS),
            address_of(&[x, rows, &out]),
            lanes,
            x.arg(lanes),
            level.splits.arg(1),
            rows.arg(1),
            weights.unwrap_or(rows).arg(1),
            out.arg(lanes),
            level.n_segments,
            c / lanes,
            fill,
            shape,
        );
    }
    out
}

//! Kernels of row maps. Features are `[rows, width]` vectors of `N` channels.

use cubecl::prelude::*;

/// How entries are combined.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Combine {
    /// Their sum.
    Sum,
    /// Their maximum; a NaN wins.
    Max,
}

/// What [`reduce_rows_kernel`] is compiled for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct ReduceShape {
    pub(crate) combine: Combine,
    /// Whether entries are multiplied by weights.
    pub(crate) weighted: bool,
    /// Whether entry `e` is row `e` of `x`: the pieces of a level before. Else `rows` says which.
    pub(crate) consecutive: bool,
}

/// Vector `v` of the row of an entry, times its weight.
#[cube]
fn entry_value<I: Float, N: Size>(
    x: &[Vector<I, N>],
    rows: &[u32],
    weights: &[f32],
    entry: u32,
    width: usize,
    v: usize,
    #[comptime] shape: ReduceShape,
) -> Vector<f32, N> {
    let mut row = entry;
    if comptime!(!shape.consecutive) {
        row = rows[entry as usize];
    }
    let mut value = Vector::<f32, N>::cast_from(x[row as usize * width + v]);
    if comptime!(shape.weighted) {
        value *= Vector::new(weights[entry as usize]);
    }
    value
}

/// `out[s] = Σ or max of the entries splits[s]..splits[s + 1]`, in order and in f32; `fill` where there is none.
///
/// One unit a vector of `out`; no atomics. `splits`: `[n_segments + 1]`, ascending; rows and entries are in bounds: guaranteed by
/// `DeviceRowMap`.
#[cube(launch_unchecked, address_type = "dynamic")]
pub(crate) fn reduce_rows_kernel<I: Float, O: Float, N: Size>(
    x: &[Vector<I, N>],
    splits: &[u32],
    rows: &[u32],
    weights: &[f32],
    out: &mut [Vector<O, N>],
    n_segments: usize,
    width: usize,
    fill: f32,
    #[comptime] shape: ReduceShape,
) {
    let at = ABSOLUTE_POS;
    if at < n_segments * width {
        let segment = at / width;
        let v = at % width;
        let begin = splits[segment];
        let end = splits[segment + 1usize];
        let mut total = Vector::<f32, N>::new(fill);
        if begin < end {
            total = entry_value(x, rows, weights, begin, width, v, shape);
            for entry in begin + 1u32..end {
                let value = entry_value(x, rows, weights, entry, width, v, shape);
                match comptime!(shape.combine) {
                    Combine::Sum => total += value,
                    Combine::Max => {
                        let wins = value.greater_than(&total).or(value.is_nan());
                        total = select_many(wins, value, total);
                    }
                }
            }
        }
        out[at] = Vector::cast_from(total);
    }
}

/// One where `a` equals `b`, else zero; a NaN equals nothing.
#[cube]
fn equal_lanes<N: Size>(a: Vector<f32, N>, b: Vector<f32, N>) -> Vector<f32, N> {
    select_many(a.equal(&b), Vector::new(1.0f32), Vector::new(0.0f32))
}

/// `ties[s] =` entries of segment `s` whose input equals the maximum `y` of its row.
///
/// One unit a vector of `ties`. `owners[s]` is the output row that the segment is of; without `split` it is `s`.
#[cube(launch_unchecked, address_type = "dynamic")]
pub(crate) fn count_ties_kernel<F: Float, N: Size>(
    x: &[Vector<F, N>],
    y: &[Vector<F, N>],
    splits: &[u32],
    rows: &[u32],
    owners: &[u32],
    ties: &mut [Vector<f32, N>],
    n_segments: usize,
    width: usize,
    #[comptime] split: bool,
) {
    let at = ABSOLUTE_POS;
    if at < n_segments * width {
        let segment = at / width;
        let v = at % width;
        let mut owner = segment;
        if split {
            owner = owners[segment] as usize;
        }
        let best = Vector::<f32, N>::cast_from(y[owner * width + v]);
        let mut count = Vector::<f32, N>::new(0.0f32);
        for entry in splits[segment]..splits[segment + 1usize] {
            count += equal_lanes(Vector::cast_from(x[rows[entry as usize] as usize * width + v]), best);
        }
        ties[at] = count;
    }
}

/// `dx[s] = Σ g[o] / ties[o]` over the output rows `o` of segment `s` whose maximum equals the input.
///
/// One unit a vector of `dx`. Segments are of input rows: splits, rows and owners are those of the transposed map.
#[cube(launch_unchecked, address_type = "dynamic")]
pub(crate) fn spread_gradient_kernel<F: Float, O: Float, N: Size>(
    x: &[Vector<F, N>],
    y: &[Vector<F, N>],
    g: &[Vector<F, N>],
    ties: &[Vector<f32, N>],
    splits: &[u32],
    rows: &[u32],
    owners: &[u32],
    dx: &mut [Vector<O, N>],
    n_segments: usize,
    width: usize,
    #[comptime] split: bool,
) {
    let at = ABSOLUTE_POS;
    if at < n_segments * width {
        let segment = at / width;
        let v = at % width;
        let mut owner = segment;
        if split {
            owner = owners[segment] as usize;
        }
        let value = Vector::<f32, N>::cast_from(x[owner * width + v]);
        let mut sum = Vector::<f32, N>::new(0.0f32);
        for entry in splits[segment]..splits[segment + 1usize] {
            let from = rows[entry as usize] as usize * width + v;
            let wins = value.equal(&Vector::cast_from(y[from]));
            // A tie counts itself; the bound only keeps lanes that do not win from dividing by zero.
            let share = Vector::<f32, N>::cast_from(g[from]) / ties[from].max(Vector::new(1.0f32));
            sum += select_many(wins, share, Vector::new(0.0f32));
        }
        dx[at] = Vector::cast_from(sum);
    }
}

//! Output supports that the reach of a kernel creates.

use rayon::prelude::*;

use super::SupportPolicy;
use crate::support::{BlockTable, NO_BLOCK, block_bit, block_key};
use crate::{Coord, Error, KernelSpec, Result, Support};

/// Rows that are expanded together.
const CHUNK_ROWS: usize = 8192;

/// All `c * s + i * d - p`, none of which lies outside `i32`, in canonical order.
pub(crate) fn transposed_support(source: &Support, spec: &KernelSpec) -> Result<Support> {
    let [s, p, d] = wide(spec);
    expand(source, spec, |axis, c, i| Some(i64::from(c) * s[axis] + i * d[axis] - p[axis]))
}

/// Refuses a support with a `c * s + i * d - p` outside `i32`.
///
/// # Errors
/// [`Error::OutOfRange`] naming the first such row.
pub(crate) fn check_transposed(op: &'static str, source: &Support, spec: &KernelSpec) -> Result<()> {
    let Some((low, high)) = source.bounds() else { return Ok(()) };
    let [s, p, d] = wide(spec);
    let place = |axis: usize, c: i32, i: i64| Some(i64::from(c) * s[axis] + i * d[axis] - p[axis]);
    let fits = |axis: usize, c: i32, i: i64| place(axis, c, i).is_some_and(|q| i32::try_from(q).is_ok());
    match (0..3).all(|a| fits(a, low[a + 1], 0) && fits(a, high[a + 1], i64::from(spec.size[a]) - 1)) {
        true => Ok(()),
        false => check_created(op, source, spec, place),
    }
}

/// All `q >= 0` with `q * s + i * d - p = c` below the bound of the range or of the largest input, in canonical order.
///
/// # Errors
/// [`Error::OutOfRange`] naming the first row with such a coordinate outside `i32`.
pub(crate) fn kernel_reach_support(
    op: &'static str,
    source: &Support,
    spec: &KernelSpec,
    range: Option<[u32; 3]>,
) -> Result<Support> {
    let Some((_, largest)) = source.bounds() else { return Support::canonical(Vec::new()) };
    let [s, p, d] = wide(spec);
    let last = SupportPolicy::last_reached(spec, range, &largest);
    let place = |axis: usize, c: i32, i: i64| {
        let scaled = i64::from(c) + p[axis] - i * d[axis];
        let q = scaled.div_euclid(s[axis]);
        (scaled.rem_euclid(s[axis]) == 0 && (0..=last[axis]).contains(&q)).then_some(q)
    };
    if last.iter().any(|&last| last > i64::from(i32::MAX)) {
        check_created(op, source, spec, place)?;
    }
    expand(source, spec, place)
}

impl SupportPolicy {
    /// The largest `q` along each axis that [`SupportPolicy::KernelReach`] allows, for input rows up to `largest`. Below 0 where it
    /// allows none.
    pub fn last_reached(spec: &KernelSpec, range: Option<[u32; 3]>, largest: &Coord) -> [i64; 3] {
        let [s, p, d] = wide(spec);
        std::array::from_fn(|a| {
            let taps_behind = i64::from(spec.size[a]) - 1;
            match range {
                Some(range) => (i64::from(range[a]) + 2 * p[a] - d[a] * taps_behind - 1).div_euclid(s[a]),
                None => (i64::from(largest[a + 1]) + 2 * p[a] - taps_behind).div_euclid(s[a]),
            }
        })
    }
}

/// Refuses a row that creates a coordinate outside `i32`: one whose positions match along every axis, one of them out of range.
fn check_created(
    op: &'static str,
    source: &Support,
    spec: &KernelSpec,
    place: impl Fn(usize, i32, i64) -> Option<i64> + Sync,
) -> Result<()> {
    let outside = |c: &Coord| {
        let mut found = None;
        for (a, name) in ["x", "y", "z"].into_iter().enumerate() {
            let mut created = (0..spec.size[a]).filter_map(|i| place(a, c[a + 1], i64::from(i))).peekable();
            created.peek()?;
            found = found.or_else(|| created.find(|&q| i32::try_from(q).is_err()).map(|q| (name, q)));
        }
        found
    };
    let Some(row) =
        source.coords().par_iter().with_min_len(CHUNK_ROWS).position_first(|c| outside(c).is_some())
    else {
        return Ok(());
    };
    let coord = source.coords()[row];
    let (axis, q) = outside(&coord).expect("this row was found to have one");
    let what = format!(
        "expected output coordinates inside i32, found {axis} = {q} made from {coord:?} (batch, x, y, z); shift the scene towards \
         the origin"
    );
    Err(Error::OutOfRange { op, row, what })
}

/// The distinct coordinates whose axes are `place(axis, coordinate, tap position)` of one input row, all positions of all axes
/// combined; `None` drops a position, and none lies outside `i32`. Coordinates that coincide meet in one bit of a block.
fn expand(
    source: &Support,
    spec: &KernelSpec,
    place: impl Fn(usize, i32, i64) -> Option<i64> + Sync,
) -> Result<Support> {
    let expand_chunk = |rows: &[Coord]| {
        let mut reached = BlockTable::default();
        let mut axes: [Vec<i32>; 3] = Default::default();
        let mut last = (0, NO_BLOCK);
        for c in rows {
            for (a, axis) in axes.iter_mut().enumerate() {
                axis.clear();
                axis.extend(
                    (0..spec.size[a]).filter_map(|i| place(a, c[a + 1], i64::from(i))).map(|q| q as i32),
                );
            }
            let [xs, ys, zs] = &axes;
            for &x in xs {
                for &y in ys {
                    for &z in zs {
                        let q = [c[0], x, y, z];
                        let key = block_key(&q);
                        if key != last.1 {
                            last = (reached.insert(key, 0), key);
                        }
                        reached.add(last.0, 1 << block_bit(&q));
                    }
                }
            }
        }
        reached
    };
    let chunks: Vec<BlockTable> = source.coords().par_chunks(CHUNK_ROWS).map(expand_chunk).collect();
    let mut chunks = chunks.into_iter();
    let mut all = chunks.next().unwrap_or_default();
    for block in chunks.as_slice().iter().flat_map(BlockTable::blocks) {
        all.insert(block.key, block.occupancy);
    }
    Support::canonical(all.coords())
}

/// Stride, padding and dilation in 64 bits.
fn wide(spec: &KernelSpec) -> [[i64; 3]; 3] {
    [spec.stride, spec.padding, spec.dilation].map(|values| values.map(i64::from))
}

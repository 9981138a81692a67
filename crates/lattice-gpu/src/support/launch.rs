//! Makes supports.

use cubecl::prelude::*;
use lattice_core::{Coord, KernelSpec};

use super::kernel::{
    ExpandShape, MARKED, divide_kernel, expand_kernel, lookup_kernel, mark_flags_kernel, mark_heads_kernel,
    move_marked_kernel, reach_kernel,
};
use super::order::canonical_order;
use crate::address::UNITS;
use crate::gpu::{Buffer, Gpu};
use crate::index::BlockIndex;
use crate::sort::{SUM_UNITS, exclusive_sum, plane_lanes};

/// Rows that were made, and how they relate to those they were made from.
#[derive(Clone, Debug)]
pub struct Created {
    /// `[n_rows, 4]`.
    pub coords: Buffer,
    /// Their number.
    pub n_rows: usize,
    /// The created row that each source row falls into, or the source row of each created row: the function says which.
    pub rows: Buffer,
}

/// Marks, summed: which rows move, and where to.
struct Marks {
    places: Buffer,
    starts: Buffer,
    count: usize,
}

/// Marks whose number is still on the device.
pub(crate) struct Uncounted {
    /// Marked rows before each position among those of its cube, with a bit for its own mark.
    pub(crate) places: Buffer,
    /// Marked rows before each cube.
    pub(crate) starts: Buffer,
    /// One word.
    pub(crate) all: Buffer,
}

impl Uncounted {
    /// Sums the totals of cubes.
    fn summed(gpu: &Gpu, places: Buffer, totals: Buffer) -> Self {
        let all = exclusive_sum(gpu, &totals);
        Self { places, starts: totals, all }
    }

    /// Waits for the number.
    fn counted(self, gpu: &Gpu) -> Marks {
        let count = gpu.download::<u32>(&self.all)[0] as usize;
        Marks { places: self.places, starts: self.starts, count }
    }

    /// Positions whose row differs from the one before, divided by `2^shift`. Rows of -1 in all columns are not marked where they stand
    /// first.
    pub(crate) fn heads(gpu: &Gpu, coords: &Buffer, order: Option<&Buffer>, shift: u32) -> Self {
        let n = coords.len / 4;
        let n_tiles = n.div_ceil(MARKED as usize).max(1);
        let (places, totals) = (gpu.empty(n, 4), gpu.empty(n_tiles, 4));
        // SAFETY: positions are checked against the count; the order lists rows of `coords`.
        unsafe {
            mark_heads_kernel::launch_unchecked(
                gpu.client(),
                Gpu::cubes(n_tiles, 1),
                CubeDim::new_1d(SUM_UNITS),
                coords.arg(4),
                order.unwrap_or(&places).arg(1),
                places.arg(1),
                totals.arg(1),
                n as u32,
                n_tiles as u32,
                shift as i32,
                order.is_some(),
                plane_lanes(gpu),
            );
        }
        Self::summed(gpu, places, totals)
    }
}

impl Marks {
    /// As [`Uncounted::heads`].
    fn heads(gpu: &Gpu, coords: &Buffer, order: Option<&Buffer>, shift: u32) -> Self {
        Uncounted::heads(gpu, coords, order, shift).counted(gpu)
    }

    /// Positions whose flag is not 0.
    fn flags(gpu: &Gpu, flags: &Buffer) -> Self {
        let n = flags.len;
        let n_tiles = n.div_ceil(MARKED as usize).max(1);
        let (places, totals) = (gpu.empty(n, 4), gpu.empty(n_tiles, 4));
        // SAFETY: as for `heads`.
        unsafe {
            mark_flags_kernel::launch_unchecked(
                gpu.client(),
                Gpu::cubes(n_tiles, 1),
                CubeDim::new_1d(SUM_UNITS),
                flags.arg(1),
                places.arg(1),
                totals.arg(1),
                n as u32,
                n_tiles as u32,
                plane_lanes(gpu),
            );
        }
        Uncounted::summed(gpu, places, totals).counted(gpu)
    }

    /// Moves the marked rows; `grouped` asks for the marked row of each row, else for the row of each marked one.
    fn moved(self, gpu: &Gpu, coords: &Buffer, order: Option<&Buffer>, shift: u32, grouped: bool) -> Created {
        let n = coords.len / 4;
        let out = gpu.empty(4 * self.count, 4);
        let rows = gpu.empty(if grouped { n } else { self.count }, 4);
        // SAFETY: marked rows were counted, so their places lie within `out`; rows are those of `coords`.
        unsafe {
            move_marked_kernel::launch_unchecked(
                gpu.client(),
                Gpu::cubes(n, UNITS as usize),
                CubeDim::new_1d(UNITS),
                coords.arg(4),
                order.unwrap_or(&self.places).arg(1),
                self.places.arg(1),
                self.starts.arg(1),
                out.arg(4),
                rows.arg(1),
                n as u32,
                shift as i32,
                order.is_some(),
                grouped,
            );
        }
        Created { coords: out, n_rows: self.count, rows }
    }
}

/// The distinct `floor(row / stride)` in canonical order, and which of them each row falls into. `order` is that of rows which do not
/// stand in canonical order. `None` where keys pass 64 bits (see [`canonical_order`]) or a stride passes `i32`.
///
/// Three launches where the strides are one power of two, a division and a sort more elsewhere; one wait.
///
/// # Panics
/// A stride with a zero component.
pub fn coarser(
    gpu: &Gpu,
    coords: &Buffer,
    order: Option<&Buffer>,
    bounds: &(Coord, Coord),
    stride: [u32; 3],
) -> Option<Created> {
    assert!(!stride.contains(&0), "coarser: a stride of 0");
    if stride[0].is_power_of_two() && stride == [stride[0]; 3] {
        let shift = stride[0].trailing_zeros();
        return Some(Marks::heads(gpu, coords, order, shift).moved(gpu, coords, order, shift, true));
    }
    let (divided, bounds) = divided(gpu, coords, bounds, stride, None)?;
    distinct(gpu, &divided, &bounds)
}

/// The distinct rows once one column of `x, y, z` is set to 0 and the others are divided by a stride, in canonical order, and which of them
/// each row falls into. `None` where keys pass 64 bits or a stride passes `i32`. A division, a sort and three launches; one wait.
///
/// # Panics
/// A stride with a zero component, an axis past 2.
pub fn flattened(
    gpu: &Gpu,
    coords: &Buffer,
    bounds: &(Coord, Coord),
    stride: [u32; 3],
    axis: usize,
) -> Option<Created> {
    assert!(axis < 3, "flattened: axis {axis}");
    let (divided, mut bounds) = divided(gpu, coords, bounds, stride, Some(axis))?;
    (bounds.0[axis + 1], bounds.1[axis + 1]) = (0, 0);
    distinct(gpu, &divided, &bounds)
}

/// Rows divided by a stride, and their bounds; a dropped axis becomes 0. `None` where a stride passes `i32`.
fn divided(
    gpu: &Gpu,
    coords: &Buffer,
    bounds: &(Coord, Coord),
    stride: [u32; 3],
    dropped: Option<usize>,
) -> Option<(Buffer, (Coord, Coord))> {
    assert!(!stride.contains(&0), "a stride of 0");
    let signed: Vec<i32> = stride.iter().map_while(|&s| i32::try_from(s).ok()).collect();
    let &[sx, sy, sz] = signed.as_slice() else { return None };
    let n = coords.len / 4;
    let divided = gpu.empty(coords.len, 4);
    // SAFETY: one unit a row, checked against the count.
    unsafe {
        divide_kernel::launch_unchecked(
            gpu.client(),
            Gpu::cubes(n, UNITS as usize),
            CubeDim::new_1d(UNITS),
            coords.arg(4),
            divided.arg(4),
            n as u32,
            sx,
            sy,
            sz,
            dropped,
        );
    }
    let div = |c: &Coord| [c[0], c[1].div_euclid(sx), c[2].div_euclid(sy), c[3].div_euclid(sz)];
    Some((divided, (div(&bounds.0), div(&bounds.1))))
}

/// The distinct rows in canonical order, and which of them each row is.
pub(super) fn distinct(gpu: &Gpu, coords: &Buffer, bounds: &(Coord, Coord)) -> Option<Created> {
    let order = canonical_order(gpu, coords, bounds)?;
    Some(Marks::heads(gpu, coords, Some(&order), 0).moved(gpu, coords, Some(&order), 0, true))
}

fn expand_shape(spec: &KernelSpec, morton: bool, ordered: bool) -> ExpandShape {
    let signed = |v: [u32; 3]| v.map(|v| v as i32);
    ExpandShape {
        size: spec.size,
        stride: signed(spec.stride),
        dilation: signed(spec.dilation),
        padding: signed(spec.padding),
        morton,
        ordered,
    }
}

fn expand(gpu: &Gpu, coords: &Buffer, order: Option<&Buffer>, shape: ExpandShape) -> Buffer {
    let n = coords.len / 4 * shape.taps() as usize;
    let out = gpu.empty(4 * n, 4);
    // SAFETY: one unit a created row, checked against the count; the order lists rows of `coords`.
    unsafe {
        expand_kernel::launch_unchecked(
            gpu.client(),
            Gpu::cubes(n, UNITS as usize),
            CubeDim::new_1d(UNITS),
            coords.arg(4),
            order.unwrap_or(coords).arg(1),
            out.arg(4),
            n as u32,
            shape,
        );
    }
    out
}

/// All rows that a kernel whose windows tile the finer lattice makes of every row, in canonical order: one launch, no wait. The size
/// is the stride, the same power of two along every axis, without padding and dilation; the caller knows that no row leaves `i32`.
pub fn children(gpu: &Gpu, coords: &Buffer, order: Option<&Buffer>, spec: &KernelSpec) -> Buffer {
    expand(gpu, coords, order, expand_shape(spec, true, order.is_some()))
}

/// The distinct `row * stride + position * dilation - padding` over all taps, in canonical order. `created` bounds them; the caller
/// knows that they stay inside `i32` and are fewer than 2^31 with their repetitions. `None` where keys pass 64 bits.
///
/// An expansion, a sort and three launches; one wait.
pub fn expanded(
    gpu: &Gpu,
    coords: &Buffer,
    spec: &KernelSpec,
    created: &(Coord, Coord),
) -> Option<(Buffer, usize)> {
    let all = expand(gpu, coords, None, expand_shape(spec, false, false));
    let found = distinct(gpu, &all, created)?;
    Some((found.coords, found.n_rows))
}

/// The distinct `q` with `q * stride + position * dilation - padding = row` for some tap and `0 <= q <= last`, in canonical order.
/// `None` where keys pass 64 bits. Two waits.
///
/// # Panics
/// When the candidates are 2^31 or more; the caller asks first.
pub fn reached(
    gpu: &Gpu,
    coords: &Buffer,
    spec: &KernelSpec,
    created: &(Coord, Coord),
    last: [i32; 3],
) -> Option<(Buffer, usize)> {
    let shape = expand_shape(spec, false, false);
    let n = coords.len / 4 * shape.taps() as usize;
    assert!(i32::try_from(n).is_ok(), "reached: {n} candidates");
    let (all, flags) = (gpu.empty(4 * n, 4), gpu.empty(n, 4));
    // SAFETY: one unit a candidate, checked against the count.
    unsafe {
        reach_kernel::launch_unchecked(
            gpu.client(),
            Gpu::cubes(n, UNITS as usize),
            CubeDim::new_1d(UNITS),
            coords.arg(4),
            all.arg(4),
            flags.arg(1),
            n as u32,
            last[0],
            last[1],
            last[2],
            shape,
        );
    }
    let found = kept(gpu, &all, &flags);
    if found.n_rows == 0 {
        return Some((found.coords, 0));
    }
    let distinct = distinct(gpu, &found.coords, created)?;
    Some((distinct.coords, distinct.n_rows))
}

/// The rows whose flag is not 0, in their order, and the row that each was. One wait.
///
/// # Panics
/// Unless there is a flag a row.
pub fn kept(gpu: &Gpu, coords: &Buffer, flags: &Buffer) -> Created {
    assert_eq!(coords.len, 4 * flags.len, "kept: one flag a row");
    Marks::flags(gpu, flags).moved(gpu, coords, None, 0, false)
}

/// Row of every query `[n, 4]` in an index, -1 where it has none. One launch.
pub fn lookup(gpu: &Gpu, index: &BlockIndex, queries: &Buffer) -> Buffer {
    let n = queries.len / 4;
    let found = gpu.empty(n, 4);
    let listed = index.listed(gpu);
    // SAFETY: one unit a query, checked against the count; the index was built from its rows.
    unsafe {
        lookup_kernel::launch_unchecked(
            gpu.client(),
            Gpu::cubes(n, UNITS as usize),
            CubeDim::new_1d(UNITS),
            queries.arg(4),
            index.all.arg(4),
            listed.slots.arg(1),
            listed.occupancy.arg(1),
            listed.first.arg(1),
            listed.rows.arg(1),
            found.arg(1),
            n as u32,
            index.mask,
        );
    }
    found
}

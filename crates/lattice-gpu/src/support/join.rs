//! The rows of two supports aligned by coordinate.

use cubecl::prelude::*;
use lattice_core::Coord;

use super::launch::{distinct, kept, lookup};
use crate::address::UNITS;
use crate::gpu::{Buffer, Gpu};
use crate::index::BlockIndex;

/// The rows of a join, and where each operand holds them.
#[derive(Clone, Debug)]
pub struct Joined {
    /// `[n_rows, 4]`.
    pub coords: Buffer,
    /// Their number.
    pub n_rows: usize,
    /// Row of the left operand for every result row, -1 where it has none.
    pub lhs: Buffer,
    /// Row of the right operand for every result row, -1 where it has none.
    pub rhs: Buffer,
}

/// `flags[i]`: whether a row was found, or was not. One unit a row.
#[cube(launch_unchecked)]
fn found_flags_kernel(found: &[i32], flags: &mut [u32], n: u32, #[comptime] missing: bool) {
    let at = ABSOLUTE_POS as u32;
    if at < n {
        // Two flags are compared as numbers: in SPIR-V the compiler cannot compare booleans.
        let there = select(found[at as usize] >= 0i32, 1u32, 0u32);
        flags[at as usize] = there ^ comptime!(missing as u32);
    }
}

/// `out[i] = values[rows[i]]`. One unit a row.
#[cube(launch_unchecked)]
fn pick_kernel(values: &[i32], rows: &[u32], out: &mut [i32], n: u32) {
    let at = ABSOLUTE_POS as u32;
    if at < n {
        out[at as usize] = values[rows[at as usize] as usize];
    }
}

/// `out[i]`: `i` below `own`, -1 at and past it. One unit a row.
#[cube(launch_unchecked)]
fn count_up_kernel(out: &mut [i32], own: u32, n: u32) {
    let at = ABSOLUTE_POS as u32;
    if at < n {
        out[at as usize] = select(at < own, i32::cast_from(at), -1i32);
    }
}

/// `out[to[i]] = i - first` for the positions `i` from `first` whose target is not -1. One unit a position.
#[cube(launch_unchecked)]
fn scatter_kernel(to: &[i32], out: &mut [i32], first: u32, n: u32) {
    let at = ABSOLUTE_POS as u32;
    if at < n {
        let place = to[(first + at) as usize];
        if place >= 0i32 {
            out[place as usize] = i32::cast_from(at);
        }
    }
}

/// `out[first + i] = rows[i]`. One unit a row.
#[cube(launch_unchecked)]
fn append_rows_kernel(rows: &[u32], out: &mut [i32], first: u32, n: u32) {
    let at = ABSOLUTE_POS as u32;
    if at < n {
        out[(first + at) as usize] = i32::cast_from(rows[at as usize]);
    }
}

/// The rows of `a` and then those of `b`. One unit a row.
#[cube(launch_unchecked)]
fn concat_kernel(
    a: &[Vector<i32, Const<4>>],
    b: &[Vector<i32, Const<4>>],
    out: &mut [Vector<i32, Const<4>>],
    n_a: u32,
    n: u32,
) {
    let at = ABSOLUTE_POS as u32;
    if at < n {
        if at < n_a {
            out[at as usize] = a[at as usize];
        } else {
            out[at as usize] = b[(at - n_a) as usize];
        }
    }
}

fn by_row(n: usize) -> (CubeCount, CubeDim) {
    (Gpu::cubes(n, UNITS as usize), CubeDim::new_1d(UNITS))
}

/// The numbers from 0 up to `own`, then -1 up to `n`. One launch.
pub fn count_up(gpu: &Gpu, own: usize, n: usize) -> Buffer {
    let out = gpu.empty(n, 4);
    let (count, dim) = by_row(n);
    // SAFETY: one unit a row, checked against the count.
    unsafe { count_up_kernel::launch_unchecked(gpu.client(), count, dim, out.arg(1), own as u32, n as u32) };
    out
}

/// Position of every target among the `n` positions from `first` of `to`, -1 for a target that none names; no two name one. Two launches.
///
/// The caller answers for targets below `n_targets`.
pub fn inverse(gpu: &Gpu, to: &Buffer, first: usize, n: usize, n_targets: usize) -> Buffer {
    let out = count_up(gpu, 0, n_targets);
    scatter(gpu, to, first, n, &out);
    out
}

fn scatter(gpu: &Gpu, to: &Buffer, first: usize, n: usize, out: &Buffer) {
    let (count, dim) = by_row(n);
    // SAFETY: one unit a position, checked against the count; targets lie within `out`, as the callers know.
    unsafe {
        scatter_kernel::launch_unchecked(
            gpu.client(),
            count,
            dim,
            to.arg(1),
            out.arg(1),
            first as u32,
            n as u32,
        );
    }
}

fn found_flags(gpu: &Gpu, found: &Buffer, missing: bool) -> Buffer {
    let flags = gpu.empty(found.len, 4);
    let (count, dim) = by_row(found.len);
    // SAFETY: one unit a row, checked against the count.
    unsafe {
        found_flags_kernel::launch_unchecked(
            gpu.client(),
            count,
            dim,
            found.arg(1),
            flags.arg(1),
            found.len as u32,
            missing,
        );
    }
    flags
}

fn concat(gpu: &Gpu, a: &Buffer, b: &Buffer) -> Buffer {
    let (n_a, n) = (a.len / 4, (a.len + b.len) / 4);
    let out = gpu.empty(4 * n, 4);
    let (count, dim) = by_row(n);
    // SAFETY: one unit a row, checked against the counts.
    unsafe {
        concat_kernel::launch_unchecked(
            gpu.client(),
            count,
            dim,
            a.arg(4),
            b.arg(4),
            out.arg(4),
            n_a as u32,
            n as u32,
        );
    }
    out
}

/// `out[i] = values[rows[i]]`, for `rows` of u32 that name values. One launch.
fn pick(gpu: &Gpu, values: &Buffer, rows: &Buffer) -> Buffer {
    let out = gpu.empty(rows.len, 4);
    let (count, dim) = by_row(rows.len);
    // SAFETY: one unit a row, checked against the count; rows name values, as the callers know.
    unsafe {
        pick_kernel::launch_unchecked(
            gpu.client(),
            count,
            dim,
            values.arg(1),
            rows.arg(1),
            out.arg(1),
            rows.len as u32,
        );
    }
    out
}

/// Rows that both have, in the order of the left operand. One wait.
pub fn join_inner(gpu: &Gpu, lhs: &Buffer, rhs: &BlockIndex) -> Joined {
    let found = lookup(gpu, rhs, lhs);
    let both = kept(gpu, lhs, &found_flags(gpu, &found, false));
    let rhs = pick(gpu, &found, &both.rows);
    // Rows are below 2^31, so they read the same as signed numbers.
    Joined { coords: both.coords, n_rows: both.n_rows, lhs: both.rows, rhs }
}

/// Rows of either, in canonical order; `bounds` are those of all. `None` where keys pass 64 bits. One wait.
pub fn join_outer(gpu: &Gpu, lhs: &Buffer, rhs: &Buffer, bounds: &(Coord, Coord)) -> Option<Joined> {
    let all = distinct(gpu, &concat(gpu, lhs, rhs), bounds)?;
    let (n_lhs, n_rhs) = (lhs.len / 4, rhs.len / 4);
    Some(Joined {
        lhs: inverse(gpu, &all.rows, 0, n_lhs, all.n_rows),
        rhs: inverse(gpu, &all.rows, n_lhs, n_rhs, all.n_rows),
        coords: all.coords,
        n_rows: all.n_rows,
    })
}

/// The rows of `base`, then those of `other` that it lacks, in their order: the left operand of the result is `base`. One wait.
pub fn join_appended(gpu: &Gpu, base: &BlockIndex, other: &Buffer) -> Joined {
    let n_base = base.n_rows;
    let found = lookup(gpu, base, other);
    let extra = kept(gpu, other, &found_flags(gpu, &found, true));
    let n_rows = n_base + extra.n_rows;
    let rhs = count_up(gpu, 0, n_rows);
    scatter(gpu, &found, 0, found.len, &rhs);
    let (count, dim) = by_row(extra.n_rows);
    // SAFETY: one unit a row that was appended, checked against the count; there is room for all behind those of the base.
    unsafe {
        append_rows_kernel::launch_unchecked(
            gpu.client(),
            count,
            dim,
            extra.rows.arg(1),
            rhs.arg(1),
            n_base as u32,
            extra.n_rows as u32,
        );
    }
    let lhs = count_up(gpu, n_base, n_rows);
    Joined { coords: concat(gpu, &base.coords, &extra.coords), n_rows, lhs, rhs }
}

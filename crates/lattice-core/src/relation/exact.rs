//! Transposed kernels whose windows tile the finer lattice: size equal to stride, no padding, no dilation. Every fine row has one
//! coarse row and tap, its quotient and remainder, so nothing is searched.

use rayon::prelude::*;

use super::csr::{CHUNK_ROWS, Csr, Piece};
use crate::support::CoordIndex;
use crate::{Coord, KernelSpec, Support};

/// Most children of a row that [`children`] lists.
const MAX_CHILDREN: usize = 512;

/// True for kernels whose windows tile the finer lattice.
pub(crate) fn tiles_lattice(spec: &KernelSpec) -> bool {
    spec.size == spec.stride && spec.padding == [0; 3] && spec.dilation == [1; 3]
}

/// The edges from the coarse rows of `index` onto given fine rows, for a kernel that [`tiles_lattice`].
pub(crate) fn parents(index: &CoordIndex, targets: &[Coord], spec: &KernelSpec) -> Csr {
    let stride = spec.stride.map(i64::from);
    let pieces: Vec<Piece> = targets
        .par_chunks(CHUNK_ROWS)
        .map(|targets| {
            let mut piece = Piece::default();
            piece.counts.reserve(targets.len());
            piece.rows.reserve(targets.len());
            piece.taps.reserve(targets.len());
            // Neighbouring rows often share their parent.
            let mut last = ([-1, 0, 0, 0], None);
            for q in targets {
                let mut parent = [q[0], 0, 0, 0];
                let mut tap = 0;
                for a in 0..3 {
                    let at = i64::from(q[a + 1]);
                    parent[a + 1] = at.div_euclid(stride[a]) as i32;
                    tap = tap * stride[a] + at.rem_euclid(stride[a]);
                }
                if parent != last.0 {
                    last = (parent, index.row(&parent));
                }
                piece.counts.push(u32::from(last.1.is_some()));
                if let Some(row) = last.1 {
                    piece.rows.push(row);
                    piece.taps.push(tap as u16);
                }
            }
            piece
        })
        .collect();
    Csr::from_pieces(&pieces)
}

/// All children of the rows of a support in canonical order, and the edges onto them, for a kernel that [`tiles_lattice`] with one
/// power of two as its stride. `None` for other kernels and where a child would leave `i32`.
pub(crate) fn children(source: &Support, spec: &KernelSpec) -> Option<(Support, Csr)> {
    let stride = spec.stride[0];
    let fits = tiles_lattice(spec)
        && spec.stride == [stride; 3]
        && stride.is_power_of_two()
        && stride > 1
        && spec.taps() <= MAX_CHILDREN;
    if !fits {
        return None;
    }
    let shift = stride.trailing_zeros();
    let (low, high) = source.bounds()?;
    let inside = |c: i32| i32::try_from(i64::from(c) << shift | i64::from(stride - 1)).is_ok();
    if !(1..4).all(|a| inside(low[a]) && inside(high[a])) {
        return None;
    }
    // Children of one row in canonical order: bits of x, y, z interleaved, x lowest.
    let axis = |code: usize, a: u32| (0..shift).fold(0, |v, bit| v | (code >> (3 * bit + a) & 1) << bit);
    let local: Vec<([i32; 3], u16)> = (0..spec.taps())
        .map(|code| {
            let [x, y, z] = [0, 1, 2].map(|a| axis(code, a));
            ([x, y, z].map(|v| v as i32), (((x << shift | y) << shift) | z) as u16)
        })
        .collect();
    let order = canonical_rows(source);
    let n = order.len() * local.len();
    let (mut coords, mut rows, mut taps) = (vec![[0; 4]; n], vec![0; n], vec![0; n]);
    let width = CHUNK_ROWS * local.len();
    coords
        .par_chunks_mut(width)
        .zip(rows.par_chunks_mut(width))
        .zip(taps.par_chunks_mut(width).zip(order.par_chunks(CHUNK_ROWS)))
        .for_each(|((coords, rows), (taps, order))| {
            let lists = coords
                .chunks_exact_mut(local.len())
                .zip(rows.chunks_exact_mut(local.len()))
                .zip(taps.chunks_exact_mut(local.len()));
            for (&row, ((coords, rows), taps)) in order.iter().zip(lists) {
                let c = source.coords()[row as usize];
                rows.fill(row);
                for ((q, tap), (at, number)) in coords.iter_mut().zip(taps).zip(&local) {
                    *q = [c[0], c[1] << shift | at[0], c[2] << shift | at[1], c[3] << shift | at[2]];
                    *tap = *number;
                }
            }
        });
    let splits = (0..=n).collect();
    Some((Support::trusted(coords, true), Csr { splits, rows, taps }))
}

/// The rows of a support in canonical order.
fn canonical_rows(support: &Support) -> Vec<u32> {
    if support.is_canonical() {
        return (0..support.n_rows() as u32).collect();
    }
    // Blocks are in canonical order; within one, bits of x, y, z interleaved with x lowest.
    let index = support.index();
    let pieces: Vec<Vec<u32>> = index
        .blocks()
        .par_chunks(CHUNK_ROWS)
        .map(|blocks| {
            let mut rows = Vec::with_capacity(4 * blocks.len());
            for block in blocks {
                let bits = (0..64u32).map(|code| {
                    let pair = |a: u32| code >> a & 1 | (code >> (a + 3) & 1) << 1;
                    pair(0) << 4 | pair(1) << 2 | pair(2)
                });
                rows.extend(bits.filter(|&bit| block.has(bit)).map(|bit| index.rows()[block.rank(bit)]));
            }
            rows
        })
        .collect();
    pieces.concat()
}

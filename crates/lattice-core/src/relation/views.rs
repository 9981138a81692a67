//! Views of a relation: the same edges in the orders that gradients and GPU kernels read. Each is built once, at its first use.

use std::sync::{Arc, OnceLock};

use rayon::prelude::*;

use super::csr::{CHUNK_ROWS, Csr, cut_transposed, for_each_chunk, piece_bounds};
use super::record::Record;
use super::{Relation, TapTiles};

/// Edges grouped by input row, within one by ascending `(out_row, tap)`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InputView {
    /// Bounds per input row, `n_in + 1` long.
    pub splits: Vec<usize>,
    /// Output row of every edge.
    pub out_rows: Vec<u32>,
    /// Tap of every edge.
    pub taps: Vec<u16>,
}

/// Edges grouped by tap, within one by ascending output row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TapView {
    /// Bounds per tap, `taps + 1` long.
    pub splits: Vec<usize>,
    /// Input row of every edge.
    pub in_rows: Vec<u32>,
    /// Output row of every edge.
    pub out_rows: Vec<u32>,
}

/// The input row of every output row and tap.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NeighbourTable {
    /// `[n_out, taps]`, -1 where there is no edge.
    pub table: Vec<i32>,
    /// `[n_out, words]`: bit `k % 32` of word `k / 32` says that tap `k` has an edge.
    pub masks: Vec<u32>,
    /// Words of a mask: `ceil(taps / 32)`.
    pub words: usize,
}

/// The neighbour table with its rows sorted by mask, so that neighbouring rows have edges under the same taps.
///
/// Masks are compared as signed 32-bit words, word 0 first, ascending; equal masks keep the order of their rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SortedTable {
    /// Output row at every sorted place.
    pub reorder_rows: Vec<u32>,
    /// `[n_out, taps]`: row `r` is row `reorder_rows[r]` of the neighbour table.
    pub table: Vec<i32>,
    /// `[taps, n_out]`: the transpose of `table`.
    pub table_by_tap: Vec<i32>,
    /// `[ceil(n_out / 64), 4, words]`: the masks of 16 consecutive sorted rows or-ed; rows past the end count as 0.
    pub tile_masks: Vec<u32>,
    /// Words of a mask: `ceil(taps / 32)`.
    pub words: usize,
}

impl Relation {
    /// Edges grouped by input row. Costs two passes over the edges and as much memory as the relation.
    pub fn by_input(&self) -> &InputView {
        once(&self.0.by_input, || {
            let Csr { splits, rows, taps } = self.0.csr().regrouped(self.n_in());
            InputView { splits, out_rows: rows, taps }
        })
    }

    /// Edges grouped by tap. Costs two passes over the edges and `8 * pairs` bytes.
    pub fn by_tap(&self) -> &TapView {
        once(&self.0.by_tap, || TapView::new(self.0.csr(), self.taps()))
    }

    /// The input row of every output row and tap. Memory: `4 * n_out * taps` bytes.
    pub fn neighbour_table(&self) -> &NeighbourTable {
        once(&self.0.table, || NeighbourTable::new(self.0.csr(), self.taps()))
    }

    /// The neighbour table with rows sorted by mask. Memory: `8 * n_out * taps` bytes beside the table's own.
    pub fn sorted_table(&self) -> &SortedTable {
        once(&self.0.sorted_table, || SortedTable::new(self.neighbour_table(), self.taps()))
    }

    /// Tiles for CPU kernels. Costs two passes over the edges and `6 * pairs` bytes.
    pub fn tap_tiles(&self) -> &TapTiles {
        once(&self.0.tap_tiles, || TapTiles::new(self))
    }

    /// The adjoint relation: every edge `(in, out, tap)` becomes `(out, in, tap)`, in canonical order. A convolution's gradient
    /// with respect to its input is the convolution over this relation with every `W[tap]` transposed.
    ///
    /// Built once and kept; the transpose of the transpose is the relation itself. A submanifold relation is its own
    /// mirror image (tap `k` becomes `taps - 1 - k` on the same rows), which costs one copy and no sort.
    pub fn transpose(&self) -> Relation {
        if let Some(original) = self.0.transpose_of.upgrade() {
            return Relation(original);
        }
        let build = || {
            let (source, target) = (self.target().clone(), self.source().clone());
            let mut record =
                Record::new(self.0.kind, self.0.spec, source, target, self.0.transposed_recipe());
            record.adjoint = !self.0.adjoint;
            record.indexed = self.0.indexed;
            record.symmetric = self.0.symmetric;
            record.given = self.0.given;
            record.transpose_of = Arc::downgrade(&self.0);
            Relation(Arc::new(record))
        };
        once(&self.0.transpose, build).clone()
    }

    /// Bytes of the edges and of the views built so far, those of the kept transpose included. Supports are not counted.
    pub fn bytes(&self) -> usize {
        let r = &self.0;
        let input = |v: &InputView| {
            size_of_val(&v.splits[..]) + size_of_val(&v.out_rows[..]) + size_of_val(&v.taps[..])
        };
        let tap = |v: &TapView| {
            size_of_val(&v.splits[..]) + size_of_val(&v.in_rows[..]) + size_of_val(&v.out_rows[..])
        };
        let table = |v: &NeighbourTable| size_of_val(&v.table[..]) + size_of_val(&v.masks[..]);
        let sorted = |v: &SortedTable| {
            size_of_val(&v.reorder_rows[..]) + 2 * size_of_val(&v.table[..]) + size_of_val(&v.tile_masks[..])
        };
        r.found_csr().map_or(0, |csr| csr.bytes())
            + r.by_input.get().map_or(0, input)
            + r.by_tap.get().map_or(0, tap)
            + r.table.get().map_or(0, table)
            + r.sorted_table.get().map_or(0, sorted)
            + r.tap_tiles.get().map_or(0, TapTiles::bytes)
            + r.transpose.get().map_or(0, Relation::bytes)
    }
}

/// The value of `cell`, built at its first use. It is built outside the cell's lock: a parallel build may run other tasks while it
/// waits, and one of them may ask for the same view. At worst two callers build it and one result is kept.
pub(super) fn once<T>(cell: &OnceLock<T>, build: impl FnOnce() -> T) -> &T {
    if let Some(built) = cell.get() {
        return built;
    }
    let built = build();
    cell.get_or_init(|| built)
}

impl Csr {
    /// The CSR of the transpose; `symmetric` where it is this one with its taps in reverse.
    pub(super) fn transposed(&self, n_in: usize, taps: usize, symmetric: bool) -> Self {
        match symmetric {
            true => mirrored(self, taps),
            false => transposed(self, n_in),
        }
    }
}

/// The adjoint's CSR in ascending tap.
fn transposed(csr: &Csr, n_in: usize) -> Csr {
    let mut adjoint = csr.regrouped(n_in);
    for_each_chunk(&adjoint.splits, &mut adjoint.rows, &mut adjoint.taps, |splits, rows, taps| {
        let mut sorted = Vec::new();
        for split in splits.windows(2) {
            let pairs = split[0] - splits[0]..split[1] - splits[0];
            let (rows, taps) = (&mut rows[pairs.clone()], &mut taps[pairs]);
            if taps.is_sorted() {
                continue;
            }
            sorted.clear();
            sorted.extend(taps.iter().copied().zip(rows.iter().copied()));
            sorted.sort_unstable();
            for ((tap, row), &pair) in taps.iter_mut().zip(rows).zip(&sorted) {
                (*tap, *row) = pair;
            }
        }
    });
    adjoint
}

/// The transpose of a symmetric CSR: `(i, o, k)` is an edge exactly when `(o, i, taps - 1 - k)` is one, so every row keeps its
/// neighbours and its list runs backwards.
fn mirrored(csr: &Csr, taps: usize) -> Csr {
    let (mut rows, mut tap_ids) = (vec![0; csr.rows.len()], vec![0; csr.rows.len()]);
    let last = (taps - 1) as u16;
    for_each_chunk(&csr.splits, &mut rows, &mut tap_ids, |splits, rows, tap_ids| {
        for split in splits.windows(2) {
            let (from, to) = (split[0]..split[1], split[0] - splits[0]..split[1] - splits[0]);
            for (new, &old) in rows[to.clone()].iter_mut().zip(csr.rows[from.clone()].iter().rev()) {
                *new = old;
            }
            for (new, &old) in tap_ids[to].iter_mut().zip(csr.taps[from].iter().rev()) {
                *new = last - old;
            }
        }
    });
    Csr { splits: csr.splits.clone(), rows, taps: tap_ids }
}

impl TapView {
    fn new(csr: &Csr, taps: usize) -> Self {
        let bounds = piece_bounds(csr.splits.len() - 1, taps);
        let pieces: Vec<_> = bounds.par_iter().map(|r| csr.count(r, taps, |_, tap| tap as usize)).collect();
        let mut splits = vec![0; taps + 1];
        for tap in 0..taps {
            splits[tap + 1] = splits[tap] + pieces.iter().map(|p| p[tap]).sum::<usize>();
        }
        let (mut in_rows, mut out_rows) = (vec![0; csr.rows.len()], vec![0; csr.rows.len()]);
        let in_cuts = cut_transposed(&mut in_rows, &pieces, taps);
        let out_cuts = cut_transposed(&mut out_rows, &pieces, taps);
        let jobs: Vec<_> = bounds.iter().zip(in_cuts.into_iter().zip(out_cuts)).collect();
        jobs.into_par_iter().for_each(|(range, (mut in_rows, mut out_rows))| {
            let mut at = vec![0usize; taps];
            csr.for_each_pair(range, |out_row, in_row, tap| {
                let (tap, at) = (tap as usize, &mut at[tap as usize]);
                (in_rows[tap][*at], out_rows[tap][*at]) = (in_row, out_row);
                *at += 1;
            });
        });
        Self { splits, in_rows, out_rows }
    }
}

impl NeighbourTable {
    fn new(csr: &Csr, taps: usize) -> Self {
        let n_out = csr.splits.len() - 1;
        let words = taps.div_ceil(32);
        let (mut table, mut masks) = (vec![-1; n_out * taps], vec![0u32; n_out * words]);
        let rows = table.par_chunks_mut(taps).zip(masks.par_chunks_mut(words));
        rows.enumerate().with_min_len(CHUNK_ROWS).for_each(|(row, (table, mask))| {
            csr.for_each_pair(&(row..row + 1), |_, in_row, tap| {
                table[tap as usize] = in_row as i32;
                mask[tap as usize / 32] |= 1 << (tap % 32);
            });
        });
        Self { table, masks, words }
    }

    /// The mask of an output row.
    pub fn mask(&self, row: usize) -> &[u32] {
        &self.masks[row * self.words..(row + 1) * self.words]
    }
}

impl SortedTable {
    fn new(natural: &NeighbourTable, taps: usize) -> Self {
        let n_out = natural.masks.len() / natural.words;
        let words = natural.words;
        let reorder_rows: Vec<u32> = match words {
            1 => {
                // The sign bit is flipped so that unsigned order is signed order; rows below it break ties.
                let key = |(row, &mask): (usize, &u32)| u64::from(mask ^ 1 << 31) << 32 | row as u64;
                let mut keys: Vec<u64> = natural.masks.par_iter().enumerate().map(key).collect();
                keys.par_sort_unstable();
                keys.into_par_iter().map(|key| key as u32).collect()
            }
            _ => {
                let signed = |row: u32| natural.mask(row as usize).iter().map(|&word| word as i32);
                let mut rows: Vec<u32> = (0..n_out as u32).collect();
                rows.par_sort_unstable_by(|&a, &b| signed(a).cmp(signed(b)).then(a.cmp(&b)));
                rows
            }
        };
        let mut table = vec![0; n_out * taps];
        table.par_chunks_mut(taps).zip(&reorder_rows).with_min_len(CHUNK_ROWS).for_each(|(sorted, &row)| {
            sorted.copy_from_slice(&natural.table[row as usize * taps..(row as usize + 1) * taps]);
        });
        let mut table_by_tap = vec![0; n_out * taps];
        // Chunks of rows that stay in the cache while their columns are read.
        let lengths: Vec<Vec<usize>> =
            table.chunks(CHUNK_ROWS * taps).map(|rows| vec![rows.len() / taps; taps]).collect();
        let columns = cut_transposed(&mut table_by_tap, &lengths, taps);
        columns.into_par_iter().zip(table.par_chunks(CHUNK_ROWS * taps)).for_each(|(columns, rows)| {
            for (tap, column) in columns.into_iter().enumerate() {
                for (cell, row) in column.iter_mut().zip(rows.chunks_exact(taps)) {
                    *cell = row[tap];
                }
            }
        });
        let mut tile_masks = vec![0; n_out.div_ceil(64) * 4 * words];
        for (tile, rows) in tile_masks.chunks_exact_mut(words).zip(reorder_rows.chunks(16)) {
            for &row in rows {
                for (word, &mask) in tile.iter_mut().zip(natural.mask(row as usize)) {
                    *word |= mask;
                }
            }
        }
        Self { reorder_rows, table, table_by_tap, tile_masks, words }
    }
}

//! Tiles for CPU kernels: blocks of output rows whose pairs are grouped by tap.

use rayon::prelude::*;

use super::Relation;
use super::csr::cut;

/// Pairs by block of output rows, within a block by tap, within a tap by ascending output row.
///
/// Pairs of block `b` and tap `k` stand at `splits[b * taps + k]..splits[b * taps + k + 1]`. The pairs of a block stand at the
/// same place as in the output CSR.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TapTiles {
    /// Output rows of a block; the last one may have fewer.
    pub block: usize,
    /// Bounds, block-major: `blocks * taps + 1` long.
    pub splits: Vec<usize>,
    /// Input row of every pair.
    pub in_rows: Vec<u32>,
    /// Output row of every pair, counted from the first row of its block.
    pub out_local: Vec<u16>,
}

impl TapTiles {
    /// Output rows of a block. At most 65536: rows within a block are stored in 16 bits.
    pub const BLOCK: usize = 512;

    /// Number of blocks.
    pub fn n_blocks(&self, taps: usize) -> usize {
        (self.splits.len() - 1) / taps
    }

    pub(super) fn new(relation: &Relation) -> Self {
        let (taps, csr, n_out) = (relation.taps(), relation.0.csr(), relation.n_out());
        let n_blocks = n_out.div_ceil(Self::BLOCK);
        let range = |b: usize| b * Self::BLOCK..n_out.min((b + 1) * Self::BLOCK);
        let pairs = |b: usize| csr.splits[range(b).end] - csr.splits[range(b).start];
        let mut splits = vec![0; n_blocks * taps + 1];
        let (mut in_rows, mut out_local) = (vec![0; csr.rows.len()], vec![0; csr.rows.len()]);
        let jobs: Vec<_> = splits[1..]
            .chunks_mut(taps)
            .zip(cut(&mut in_rows, (0..n_blocks).map(pairs)))
            .zip(cut(&mut out_local, (0..n_blocks).map(pairs)))
            .collect();
        jobs.into_par_iter().enumerate().for_each_init(
            || vec![0u32; taps],
            |next, (b, ((ends, in_rows), out_local))| {
                let range = range(b);
                let start = csr.splits[range.start];
                next.fill(0);
                for &tap in &csr.taps[start..csr.splits[range.end]] {
                    next[tap as usize] += 1;
                }
                let mut at = 0;
                for (next, end) in next.iter_mut().zip(ends) {
                    at += std::mem::replace(next, at);
                    *end = start + at as usize;
                }
                csr.for_each_pair(&range, |row, in_row, tap| {
                    let slot = &mut next[tap as usize];
                    in_rows[*slot as usize] = in_row;
                    out_local[*slot as usize] = (row as usize - range.start) as u16;
                    *slot += 1;
                });
            },
        );
        Self { block: Self::BLOCK, splits, in_rows, out_local }
    }

    pub(super) fn bytes(&self) -> usize {
        size_of_val(&self.splits[..]) + size_of_val(&self.in_rows[..]) + size_of_val(&self.out_local[..])
    }
}

const _: () = assert!(TapTiles::BLOCK <= 1 << 16, "rows within a block are stored in 16 bits");

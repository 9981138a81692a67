//! Compressed lists of `(row, tap)` pairs, one list an owner row, and the parallel ways to make and regroup them.

use rayon::prelude::*;

/// Owners per parallel piece. Fixed, so that results and memory never depend on the number of threads.
pub(crate) const CHUNK_ROWS: usize = 2048;

/// Pairs grouped by owner row: those of owner `r` stand at `splits[r]..splits[r + 1]`, in ascending order of `(tap, row)` for
/// the CSR of a relation and of `(row, tap)` for that of its adjoint.
#[derive(Debug, Default)]
pub(crate) struct Csr {
    /// Bounds per owner, one more than owners.
    pub splits: Vec<usize>,
    /// The other row of each pair.
    pub rows: Vec<u32>,
    /// The tap of each pair.
    pub taps: Vec<u16>,
}

/// Pairs of consecutive owners, before they are joined with those of other pieces.
#[derive(Default)]
pub(crate) struct Piece {
    /// Pairs of each owner of the piece.
    pub counts: Vec<u32>,
    /// The other row of each pair.
    pub rows: Vec<u32>,
    /// The tap of each pair.
    pub taps: Vec<u16>,
}

impl Csr {
    /// Joins pieces in their order.
    pub fn from_pieces(pieces: &[Piece]) -> Self {
        let owners: usize = pieces.iter().map(|p| p.counts.len()).sum();
        let pairs: usize = pieces.iter().map(|p| p.rows.len()).sum();
        let (mut splits, mut rows, mut taps) = (vec![0; owners + 1], vec![0; pairs], vec![0; pairs]);
        let starts = pieces.iter().scan(0, |at, p| Some(std::mem::replace(at, *at + p.rows.len())));
        let cut_owners = cut(&mut splits[1..], pieces.iter().map(|p| p.counts.len()));
        let cut_rows = cut(&mut rows, pieces.iter().map(|p| p.rows.len()));
        let cut_taps = cut(&mut taps, pieces.iter().map(|p| p.taps.len()));
        let jobs: Vec<_> =
            pieces.iter().zip(starts).zip(cut_owners).zip(cut_rows.into_iter().zip(cut_taps)).collect();
        jobs.into_par_iter().for_each(|(((piece, start), ends), (rows, taps))| {
            rows.copy_from_slice(&piece.rows);
            taps.copy_from_slice(&piece.taps);
            let mut at = start;
            for (end, &count) in ends.iter_mut().zip(&piece.counts) {
                at += count as usize;
                *end = at;
            }
        });
        Self { splits, rows, taps }
    }

    /// The same lists in another order: list `ranks[owner]` becomes that of `owner`.
    pub fn in_order(&self, ranks: &[u32]) -> Self {
        let n = ranks.len();
        let length = |rank: u32| self.splits[rank as usize + 1] - self.splits[rank as usize];
        let sizes: Vec<usize> =
            ranks.par_chunks(CHUNK_ROWS).map(|ranks| ranks.iter().map(|&rank| length(rank)).sum()).collect();
        let (mut splits, mut rows, mut taps) =
            (vec![0; n + 1], vec![0; self.rows.len()], vec![0; self.rows.len()]);
        let starts = sizes.iter().scan(0, |at, &size| Some(std::mem::replace(at, *at + size)));
        let cuts =
            cut(&mut rows, sizes.iter().copied()).into_iter().zip(cut(&mut taps, sizes.iter().copied()));
        let jobs: Vec<_> = starts.zip(splits[1..].chunks_mut(CHUNK_ROWS)).zip(cuts).collect();
        jobs.into_par_iter().zip(ranks.par_chunks(CHUNK_ROWS)).for_each(
            |(((start, ends), (rows, taps)), ranks)| {
                let mut at = 0;
                for (end, &rank) in ends.iter_mut().zip(ranks) {
                    let from = self.splits[rank as usize]..self.splits[rank as usize + 1];
                    let to = at..at + from.len();
                    at = to.end;
                    *end = start + at;
                    // Lists are short: a plain loop beats a call that copies.
                    for (new, old) in rows[to.clone()].iter_mut().zip(&self.rows[from.clone()]) {
                        *new = *old;
                    }
                    for (new, old) in taps[to].iter_mut().zip(&self.taps[from]) {
                        *new = *old;
                    }
                }
            },
        );
        Csr { splits, rows, taps }
    }

    /// The same pairs grouped by their row: the CSR of the adjoint, pairs of a row in ascending order of `(owner, tap)`.
    ///
    /// Two passes: pairs go to buckets of consecutive rows, then each bucket is counted and placed within the cache.
    pub fn regrouped(&self, n_rows: usize) -> Self {
        let owners = self.splits.len() - 1;
        // Buckets of at least 4096 rows, at most 1024 of them: one is sorted within the second-level cache.
        let width = n_rows.div_ceil(1024).next_power_of_two().max(4096);
        let buckets = n_rows.div_ceil(width).max(1);
        let shift = width.trailing_zeros();
        let bounds = piece_bounds(owners, buckets);
        let pieces: Vec<_> =
            bounds.par_iter().map(|r| self.count(r, buckets, |row, _| row as usize >> shift)).collect();
        let pairs = self.rows.len();
        let (mut from, mut to, mut taps) = (vec![0u32; pairs], vec![0u32; pairs], vec![0u16; pairs]);
        let from_cuts = cut_transposed(&mut from, &pieces, buckets);
        let to_cuts = cut_transposed(&mut to, &pieces, buckets);
        let tap_cuts = cut_transposed(&mut taps, &pieces, buckets);
        let jobs: Vec<_> = bounds.iter().zip(from_cuts).zip(to_cuts.into_iter().zip(tap_cuts)).collect();
        jobs.into_par_iter().for_each(|((range, mut from), (mut to, mut taps))| {
            let mut at = vec![0usize; buckets];
            self.for_each_pair(range, |owner, row, tap| {
                let b = row as usize >> shift;
                (from[b][at[b]], to[b][at[b]], taps[b][at[b]]) = (row, owner, tap);
                at[b] += 1;
            });
        });
        let bucket_len: Vec<usize> = (0..buckets).map(|b| pieces.iter().map(|p| p[b]).sum()).collect();
        let (mut splits, mut rows, mut out_taps) = (vec![0; n_rows + 1], vec![0; pairs], vec![0; pairs]);
        let starts = bucket_len.iter().scan(0, |at, &n| Some(std::mem::replace(at, *at + n)));
        let jobs: Vec<_> = starts
            .zip(splits[1..].chunks_mut(width))
            .zip(
                cut(&mut rows, bucket_len.iter().copied())
                    .into_iter()
                    .zip(cut(&mut out_taps, bucket_len.iter().copied())),
            )
            .collect();
        jobs.into_par_iter().enumerate().for_each(|(b, ((start, ends), (rows, out_taps)))| {
            let range = start..start + rows.len();
            let first = b * width;
            for &row in &from[range.clone()] {
                ends[row as usize - first] += 1;
            }
            let mut at = 0;
            let mut next = vec![0usize; ends.len()];
            for (next, end) in next.iter_mut().zip(ends.iter_mut()) {
                *next = at;
                at += *end;
                *end = start + at;
            }
            for pair in range {
                let slot = &mut next[from[pair] as usize - first];
                (rows[*slot], out_taps[*slot]) = (to[pair], taps[pair]);
                *slot += 1;
            }
        });
        Self { splits, rows, taps: out_taps }
    }

    /// Pairs per bucket among the owners of `range`.
    pub fn count(
        &self,
        range: &std::ops::Range<usize>,
        buckets: usize,
        bucket: impl Fn(u32, u16) -> usize,
    ) -> Vec<usize> {
        let mut counts = vec![0; buckets];
        let pairs = self.splits[range.start]..self.splits[range.end];
        for (&row, &tap) in self.rows[pairs.clone()].iter().zip(&self.taps[pairs]) {
            counts[bucket(row, tap)] += 1;
        }
        counts
    }

    /// Calls `visit(owner, row, tap)` for the pairs of the owners of `range`, in order.
    pub fn for_each_pair(&self, range: &std::ops::Range<usize>, mut visit: impl FnMut(u32, u32, u16)) {
        for owner in range.clone() {
            let pairs = self.splits[owner]..self.splits[owner + 1];
            for (&row, &tap) in self.rows[pairs.clone()].iter().zip(&self.taps[pairs]) {
                visit(owner as u32, row, tap);
            }
        }
    }

    /// Bytes of the three arrays.
    pub fn bytes(&self) -> usize {
        size_of_val(&self.splits[..]) + size_of_val(&self.rows[..]) + size_of_val(&self.taps[..])
    }
}

/// Ranges of owners for a regrouping into `buckets`: as many that `pieces x buckets` counters stay small beside the pairs.
pub(crate) fn piece_bounds(owners: usize, buckets: usize) -> Vec<std::ops::Range<usize>> {
    let width = (8 * CHUNK_ROWS).max(4 * buckets);
    (0..owners.div_ceil(width)).map(|i| i * width..owners.min((i + 1) * width)).collect()
}

/// Calls `visit(splits, rows, taps)` in parallel for chunks of owners: the bounds of the chunk's owners and its part of the pairs.
pub(crate) fn for_each_chunk(
    splits: &[usize],
    rows: &mut [u32],
    taps: &mut [u16],
    visit: impl Fn(&[usize], &mut [u32], &mut [u16]) + Sync,
) {
    let owners = splits.len() - 1;
    let chunks: Vec<&[usize]> = (0..owners.div_ceil(CHUNK_ROWS))
        .map(|i| &splits[i * CHUNK_ROWS..=owners.min((i + 1) * CHUNK_ROWS)])
        .collect();
    let lengths = || chunks.iter().map(|chunk| chunk[chunk.len() - 1] - chunk[0]);
    let jobs: Vec<_> =
        chunks.iter().zip(cut(rows, lengths()).into_iter().zip(cut(taps, lengths()))).collect();
    jobs.into_par_iter().for_each(|(splits, (rows, taps))| visit(splits, rows, taps));
}

/// Cuts `all` into consecutive slices of the given lengths.
pub(crate) fn cut<T>(mut all: &mut [T], lengths: impl Iterator<Item = usize>) -> Vec<&mut [T]> {
    lengths.map(|n| all.split_off_mut(..n).expect("the lengths add up to the slice")).collect()
}

/// Cuts `all`, laid out bucket by bucket and within a bucket piece by piece, and hands each piece its slice of every bucket.
/// `counts[piece][bucket]` are the lengths.
pub(crate) fn cut_transposed<'a, T>(
    mut all: &'a mut [T],
    counts: &[Vec<usize>],
    buckets: usize,
) -> Vec<Vec<&'a mut [T]>> {
    let mut cuts: Vec<Vec<&mut [T]>> = counts.iter().map(|_| Vec::with_capacity(buckets)).collect();
    for bucket in 0..buckets {
        for (cut, counts) in cuts.iter_mut().zip(counts) {
            cut.push(all.split_off_mut(..counts[bucket]).expect("the counts add up to the slice"));
        }
    }
    cuts
}

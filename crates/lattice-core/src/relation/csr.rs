//! Compressed lists of `(row, tap)` pairs, one list an owner row, and the parallel ways to make and regroup them.

use rayon::prelude::*;

use crate::support::{Block, CoordIndex};

/// Owners per parallel piece. Fixed, so that results and memory never depend on the number of threads.
pub(crate) const CHUNK_ROWS: usize = 2048;

/// Blocks per parallel piece.
pub(crate) const CHUNK_BLOCKS: usize = 512;

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

/// Groups of consecutive owners.
struct Buckets {
    n: usize,
    /// A bucket has `1 << shift` owners.
    shift: u32,
}

impl Buckets {
    /// Buckets of at least 8192 owners, whose pairs fit the second-level cache, at most 1024 of them.
    fn new(n_owners: usize) -> Self {
        let width = n_owners.div_ceil(1024).next_power_of_two().max(8192);
        Self { n: n_owners.div_ceil(width).max(1), shift: width.trailing_zeros() }
    }
}

/// The lists of a piece, bucket by bucket.
struct Dealt {
    /// Where the lists of each bucket begin, and their number.
    lists: Vec<u32>,
    /// Where the pairs of each bucket begin, and their number.
    pairs: Vec<u32>,
    /// Owner of each list.
    owners: Vec<u32>,
    /// Pairs of each list.
    counts: Vec<u32>,
    rows: Vec<u32>,
    taps: Vec<u16>,
}

impl Piece {
    fn clear(&mut self) {
        self.counts.clear();
        self.rows.clear();
        self.taps.clear();
    }

    /// Deals lists to the buckets of their owners; each bucket takes them in their order.
    fn deal(&self, owners: &[u32], buckets: &Buckets) -> Dealt {
        let (n, n_pairs) = (self.counts.len(), self.rows.len());
        let (mut lists, mut pairs) = (vec![0u32; buckets.n + 1], vec![0u32; buckets.n + 1]);
        for (&owner, &count) in owners.iter().zip(&self.counts) {
            let bucket = (owner >> buckets.shift) as usize;
            lists[bucket + 1] += 1;
            pairs[bucket + 1] += count;
        }
        for bucket in 0..buckets.n {
            lists[bucket + 1] += lists[bucket];
            pairs[bucket + 1] += pairs[bucket];
        }
        let (mut list_at, mut pair_at) = (lists.clone(), pairs.clone());
        let (mut dealt_owners, mut counts) = (vec![0; n], vec![0; n]);
        let (mut rows, mut taps) = (vec![0; n_pairs], vec![0; n_pairs]);
        let mut from = 0;
        for (&owner, &count) in owners.iter().zip(&self.counts) {
            let bucket = (owner >> buckets.shift) as usize;
            let list = list_at[bucket] as usize;
            list_at[bucket] += 1;
            (dealt_owners[list], counts[list]) = (owner, count);
            let (n, to) = (count as usize, pair_at[bucket] as usize);
            pair_at[bucket] += count;
            copy_short(&mut rows[to..to + n], &self.rows[from..from + n]);
            copy_short(&mut taps[to..to + n], &self.taps[from..from + n]);
            from += n;
        }
        Dealt { lists, pairs, owners: dealt_owners, counts, rows, taps }
    }
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

    /// The lists that `make` appends for blocks, chunk after chunk.
    pub fn of_chunks(blocks: &[Block], make: impl Fn(&[Block], &mut Piece) + Sync) -> Self {
        let piece = |blocks: &[Block]| {
            let mut piece = Piece::default();
            make(blocks, &mut piece);
            piece
        };
        Self::from_pieces(&blocks.par_chunks(CHUNK_BLOCKS).map(piece).collect::<Vec<_>>())
    }

    /// The lists that `make` appends for blocks of an index: one for every row of the blocks, in the order of
    /// [`CoordIndex::rows`]; list `n` is that of owner `rows()[n]`.
    ///
    /// Owners come in an order of their own, so writing each list to its place would miss the cache every time. Lists go to
    /// buckets of consecutive owners instead, within the chunk of blocks that made them; then each bucket is put together in its
    /// own part of the result.
    pub fn of_blocks(index: &CoordIndex, make: impl Fn(&[Block], &mut Piece) + Sync) -> Self {
        let n_owners = index.rows().len();
        let buckets = Buckets::new(n_owners);
        // Long chunks, so that what a bucket takes from each is worth a visit.
        let width = (index.blocks().len() / 256).clamp(512, 4096);
        let deal = |piece: &mut Piece, blocks: &[Block]| {
            piece.clear();
            make(blocks, piece);
            piece.deal(&index.rows()[blocks[0].base as usize..], &buckets)
        };
        let chunks: Vec<Dealt> = index.blocks().par_chunks(width).map_init(Piece::default, deal).collect();
        let pairs_of =
            |b: usize| chunks.iter().map(|c| (c.pairs[b + 1] - c.pairs[b]) as usize).sum::<usize>();
        let bucket_pairs: Vec<usize> = (0..buckets.n).into_par_iter().map(pairs_of).collect();
        let pairs: usize = bucket_pairs.iter().sum();
        let (mut splits, mut rows, mut taps) = (vec![0; n_owners + 1], vec![0; pairs], vec![0; pairs]);
        let starts = bucket_pairs.iter().scan(0, |at, &n| Some(std::mem::replace(at, *at + n)));
        let cuts = cut(&mut rows, bucket_pairs.iter().copied())
            .into_iter()
            .zip(cut(&mut taps, bucket_pairs.iter().copied()));
        let jobs: Vec<_> = starts.zip(splits[1..].chunks_mut(1 << buckets.shift)).zip(cuts).collect();
        jobs.into_par_iter().enumerate().for_each(|(b, ((start, ends), (rows, taps)))| {
            let place = |owner: u32| owner as usize - (b << buckets.shift);
            for chunk in &chunks {
                let lists = chunk.lists[b] as usize..chunk.lists[b + 1] as usize;
                for (&owner, &count) in chunk.owners[lists.clone()].iter().zip(&chunk.counts[lists]) {
                    ends[place(owner)] = count as usize;
                }
            }
            let mut at = start;
            for end in ends.iter_mut() {
                at += *end;
                *end = at;
            }
            for chunk in &chunks {
                let lists = chunk.lists[b] as usize..chunk.lists[b + 1] as usize;
                let mut from = chunk.pairs[b] as usize;
                for (&owner, &count) in chunk.owners[lists.clone()].iter().zip(&chunk.counts[lists]) {
                    let (n, end) = (count as usize, ends[place(owner)] - start);
                    copy_short(&mut rows[end - n..end], &chunk.rows[from..from + n]);
                    copy_short(&mut taps[end - n..end], &chunk.taps[from..from + n]);
                    from += n;
                }
            }
        });
        Self { splits, rows, taps }
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

/// Copies a short list: a plain loop beats a call.
#[inline]
fn copy_short<T: Copy>(to: &mut [T], from: &[T]) {
    for (to, &from) in to.iter_mut().zip(from) {
        *to = from;
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

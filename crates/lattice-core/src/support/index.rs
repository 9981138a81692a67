//! Rows by coordinate, block by block of 4 x 4 x 4 voxels.

use std::sync::atomic::{AtomicU32, Ordering};

use rayon::prelude::*;

use super::blocks::{Block, BlockTable, NO_BLOCK, block_bit, block_key};
use crate::Coord;
use crate::coord::sort_by_block;

/// Queries that one task answers.
const CHUNK_QUERIES: usize = 1 << 13;
/// Rows that one task indexes.
const CHUNK_ROWS: usize = 1 << 13;

/// Finds rows by coordinate.
///
/// Neighbouring voxels share a block, so one probe and a population count serve up to 64 of them: ask for the block once
/// ([`CoordIndex::block`]) and test its `occupancy` for the rest. Built in linear time, in parallel: rows in canonical order
/// are runs of blocks already, others are sorted by block. Memory: 4 bytes a row (8 unless the rows are canonical) and 40 to
/// 48 a block.
#[derive(Debug)]
pub struct CoordIndex {
    table: BlockTable,
    rows: Vec<u32>,
    /// Place of every row in `rows`; empty for canonical rows.
    ranks: Vec<u32>,
}

impl CoordIndex {
    /// Indexes distinct rows in canonical order.
    pub(crate) fn of_canonical(coords: &[Coord]) -> Self {
        let (blocks, rows) = Self::runs(coords, |at| at as u32, |_, _| ()).unwrap_or_default();
        Self { table: BlockTable::from_blocks(blocks), rows, ranks: Vec::new() }
    }

    /// Indexes at most `i32::MAX` rows within `bounds`, in any order.
    ///
    /// # Errors
    /// The first row whose coordinate an earlier row has.
    pub(crate) fn try_new(coords: &[Coord], bounds: Option<(Coord, Coord)>) -> Result<Self, usize> {
        let order = sort_by_block(coords, bounds);
        // Every row is written once, so the order of the writes does not show.
        let ranks: Vec<AtomicU32> =
            coords.par_iter().with_min_len(CHUNK_ROWS).map(|_| AtomicU32::new(0)).collect();
        let place = |row: u32, rank: usize| ranks[row as usize].store(rank as u32, Ordering::Relaxed);
        let (blocks, rows) = Self::runs(coords, |at| order[at], place)?;
        let ranks = ranks.into_iter().map(AtomicU32::into_inner).collect();
        Ok(Self { table: BlockTable::from_blocks(blocks), rows, ranks })
    }

    /// The blocks of rows that come block by block, and the rows of each in ascending order of their bit. `place` is told where
    /// every row went.
    ///
    /// # Errors
    /// The first row that repeats an earlier one, where the rows of a block come in ascending order.
    fn runs(
        coords: &[Coord],
        row_at: impl Fn(usize) -> u32 + Sync,
        place: impl Fn(u32, usize) + Sync,
    ) -> Result<(Vec<Block>, Vec<u32>), usize> {
        let n = coords.len();
        let key_at = |at: usize| block_key(&coords[row_at(at) as usize]);
        // A chunk takes the blocks that begin in it. 64 rows fill a block: a longer run holds a repetition among its first 65,
        // and what the other chunks make of its rest is never used.
        let chunk_start = |chunk: usize| {
            let mut at = (chunk * CHUNK_ROWS).min(n);
            if at > 0 && at < n {
                let (before, end) = (key_at(at - 1), n.min(at + 64));
                while at < end && key_at(at) == before {
                    at += 1;
                }
            }
            at
        };
        let n_chunks = n.div_ceil(CHUNK_ROWS);
        let starts: Vec<usize> = (0..=n_chunks).map(chunk_start).collect();
        let mut rows = vec![0; n];
        let mut rest = rows.as_mut_slice();
        let mut jobs = Vec::with_capacity(n_chunks);
        for bounds in starts.windows(2) {
            let (chunk, tail) = rest.split_at_mut(bounds[1] - bounds[0]);
            jobs.push((bounds[0], chunk));
            rest = tail;
        }
        let chunks: Vec<(Vec<Block>, Option<usize>)> = jobs
            .into_par_iter()
            .map(|(start, rows)| {
                let (mut blocks, mut repeated) = (Vec::<Block>::with_capacity(rows.len() / 2), None::<usize>);
                let end = start + rows.len();
                let mut close = |block: &Block, end: usize| {
                    for at in block.base as usize..end {
                        let row = row_at(at);
                        let rank = block.rank(block_bit(&coords[row as usize]));
                        rows[rank - start] = row;
                        place(row, rank);
                    }
                };
                let mut block = Block { key: NO_BLOCK, base: start as u32, occupancy: 0 };
                for at in start..end {
                    let row = row_at(at) as usize;
                    let c = &coords[row];
                    let (key, bit) = (block_key(c), 1 << block_bit(c));
                    if key != block.key {
                        close(&block, at);
                        if block.occupancy != 0 {
                            blocks.push(block);
                        }
                        block = Block { key, base: at as u32, occupancy: 0 };
                    }
                    if block.occupancy & bit != 0 {
                        repeated = Some(repeated.map_or(row, |first| first.min(row)));
                    }
                    block.occupancy |= bit;
                }
                close(&block, end);
                if block.occupancy != 0 {
                    blocks.push(block);
                }
                (blocks, repeated)
            })
            .collect();
        if let Some(row) = chunks.iter().filter_map(|(_, repeated)| *repeated).min() {
            return Err(row);
        }
        let mut blocks = Vec::with_capacity(chunks.iter().map(|(blocks, _)| blocks.len()).sum());
        chunks.iter().for_each(|(chunk, _)| blocks.extend_from_slice(chunk));
        Ok((blocks, rows))
    }

    /// Row of a coordinate.
    #[inline]
    pub fn row(&self, c: &Coord) -> Option<u32> {
        let block = self.block(&block_key(c))?;
        let bit = block_bit(c);
        block.has(bit).then(|| self.rows[block.rank(bit)])
    }

    /// Rows of coordinates in query order, -1 where absent. Parallel; queries next to each other that share a block share
    /// the probe.
    pub fn rows_of(&self, queries: &[Coord]) -> Vec<i32> {
        let mut found = vec![-1; queries.len()];
        found.par_chunks_mut(CHUNK_QUERIES).zip(queries.par_chunks(CHUNK_QUERIES)).for_each(
            |(found, queries)| {
                let mut last: (Coord, Option<&Block>) = (NO_BLOCK, None);
                for (row, c) in found.iter_mut().zip(queries) {
                    let key = block_key(c);
                    if key != last.0 {
                        last = (key, self.block(&key));
                    }
                    if let Some(block) = last.1
                        && block.has(block_bit(c))
                    {
                        *row = self.rows[block.rank(block_bit(c))] as i32;
                    }
                }
            },
        );
        found
    }

    /// The block with this key (see [`block_key`]), when any of its voxels is active.
    #[inline]
    pub fn block(&self, key: &Coord) -> Option<&Block> {
        self.table.get(key)
    }

    /// All blocks, in canonical order of their keys.
    pub fn blocks(&self) -> &[Block] {
        self.table.blocks()
    }

    /// Rows block by block, within a block in ascending order of their bit: see [`Block::rank`].
    pub fn rows(&self) -> &[u32] {
        &self.rows
    }

    /// Rows of one block, in ascending order of their bit.
    pub fn block_rows(&self, block: &Block) -> &[u32] {
        &self.rows[block.base as usize..][..block.occupancy.count_ones() as usize]
    }

    /// Place of every row in [`CoordIndex::rows`]. `None` for rows in canonical order: a block's rows are consecutive there, in
    /// an order of their own.
    pub(crate) fn ranks(&self) -> Option<&[u32]> {
        (self.ranks.len() == self.rows.len()).then_some(&self.ranks)
    }

    /// Bytes held.
    pub fn bytes(&self) -> usize {
        4 * (self.rows.capacity() + self.ranks.capacity()) + self.table.bytes()
    }
}

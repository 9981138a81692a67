//! Rows by coordinate, block by block of 4 x 4 x 4 voxels.

use rayon::prelude::*;

use super::blocks::{Block, BlockTable, NO_BLOCK, block_bit, block_key};
use crate::Coord;
use crate::coord::{Keyed, RowsByBlock, SortKey, sort_by_block};

/// Queries that one task answers.
const CHUNK_QUERIES: usize = 1 << 13;
/// Rows that one task indexes.
const CHUNK_ROWS: usize = 1 << 13;
/// Blocks that one task joins to regions.
const CHUNK_BLOCKS: usize = 1 << 14;

/// Finds rows by coordinate.
///
/// Neighbouring voxels share a block, so one probe and a population count serve up to 64 of them: ask for the block once
/// ([`CoordIndex::block`]) and test its `occupancy` for the rest. Blocks are found the same way, by the 4 x 4 x 4 of them that
/// share a region. Built in linear time, in parallel: rows in canonical order are runs of blocks already, others are sorted by
/// block. Memory: 4 bytes a row, 32 a block and 40 to 48 a region.
#[derive(Debug)]
pub struct CoordIndex {
    /// Blocks of blocks, as bits in canonical order; their base counts blocks.
    regions: BlockTable,
    blocks: Vec<Block>,
    rows: Vec<u32>,
    canonical: bool,
}

impl CoordIndex {
    /// Indexes distinct rows in canonical order.
    pub(crate) fn of_canonical(coords: &[Coord]) -> Self {
        let starts = |at: usize| block_key(&coords[at - 1]) != block_key(&coords[at]);
        let site = |at: usize| (at as u32, block_bit(&coords[at]));
        let (blocks, rows) = runs(coords, starts, site).unwrap_or_default();
        Self { regions: BlockTable::from_blocks(regions(&blocks)), blocks, rows, canonical: true }
    }

    /// Indexes at most `i32::MAX` rows within `bounds`, in any order.
    ///
    /// # Errors
    /// The first row whose coordinate an earlier row has.
    pub(crate) fn try_new(coords: &[Coord], bounds: Option<(Coord, Coord)>) -> Result<Self, usize> {
        fn of_sorted<K: SortKey>(
            coords: &[Coord],
            sorted: &[Keyed<K>],
        ) -> Result<(Vec<Block>, Vec<u32>), usize> {
            let starts = |at: usize| sorted[at - 1].key != sorted[at].key;
            runs(coords, starts, |at| (sorted[at].row, u32::from(sorted[at].tag)))
        }
        let (blocks, rows) = match sort_by_block(coords, bounds) {
            RowsByBlock::Narrow(sorted) => of_sorted(coords, &sorted)?,
            RowsByBlock::Wide(sorted) => of_sorted(coords, &sorted)?,
        };
        Ok(Self { regions: BlockTable::from_blocks(regions(&blocks)), blocks, rows, canonical: false })
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
        let region = self.regions.get(&block_key(key))?;
        let place = region_place(key);
        region.has(place).then(|| &self.blocks[region.rank(place)])
    }

    /// All blocks, in canonical order of their keys.
    pub fn blocks(&self) -> &[Block] {
        &self.blocks
    }

    /// Rows block by block, within a block in ascending order of their bit: see [`Block::rank`].
    pub fn rows(&self) -> &[u32] {
        &self.rows
    }

    /// Rows of one block, in ascending order of their bit.
    pub fn block_rows(&self, block: &Block) -> &[u32] {
        &self.rows[block.base as usize..][..block.occupancy.count_ones() as usize]
    }

    /// Whether the rows are in canonical order: a block's rows are consecutive then, in an order of their own.
    pub(crate) fn is_canonical(&self) -> bool {
        self.canonical
    }

    /// Bytes held.
    pub fn bytes(&self) -> usize {
        4 * self.rows.capacity() + size_of::<Block>() * self.blocks.capacity() + self.regions.bytes()
    }
}

/// The blocks of rows that come block by block, and the rows of each in ascending order of their bit. `starts` tells whether a
/// block begins at a position that is not the first, `site` the row and its bit there.
///
/// # Errors
/// The first row that repeats an earlier one, where the rows of a block come in ascending order.
fn runs(
    coords: &[Coord],
    starts: impl Fn(usize) -> bool + Sync,
    site: impl Fn(usize) -> (u32, u32) + Sync,
) -> Result<(Vec<Block>, Vec<u32>), usize> {
    let n = coords.len();
    // A chunk takes the blocks that begin in it. 64 rows fill a block: a longer run holds a repetition among its first 65, and
    // what the other chunks make of its rest is never used.
    let chunk_start = |chunk: usize| {
        let mut at = (chunk * CHUNK_ROWS).min(n);
        if at > 0 {
            let end = n.min(at + 64);
            while at < end && !starts(at) {
                at += 1;
            }
        }
        at
    };
    let n_chunks = n.div_ceil(CHUNK_ROWS);
    let bounds: Vec<usize> = (0..=n_chunks).map(chunk_start).collect();
    let mut rows = vec![0; n];
    let mut rest = rows.as_mut_slice();
    let mut jobs = Vec::with_capacity(n_chunks);
    for bounds in bounds.windows(2) {
        let (chunk, tail) = rest.split_at_mut(bounds[1] - bounds[0]);
        jobs.push((bounds[0], chunk));
        rest = tail;
    }
    let chunks: Vec<(Vec<Block>, Option<usize>)> = jobs
        .into_par_iter()
        .map(|(start, rows)| {
            let (mut blocks, mut repeated) = (Vec::<Block>::with_capacity(rows.len() / 2), None::<usize>);
            let end = start + rows.len();
            let mut first = start;
            while first < end {
                let mut block = Block {
                    key: block_key(&coords[site(first).0 as usize]),
                    base: first as u32,
                    occupancy: 0,
                };
                let mut at = first;
                loop {
                    let (row, bit) = site(at);
                    if block.has(bit) {
                        repeated = Some(repeated.map_or(row as usize, |first| first.min(row as usize)));
                    }
                    block.occupancy |= 1 << bit;
                    at += 1;
                    if at == end || starts(at) {
                        break;
                    }
                }
                for at in first..at {
                    let (row, bit) = site(at);
                    rows[block.rank(bit) - start] = row;
                }
                blocks.push(block);
                first = at;
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

/// The regions of blocks in canonical order.
fn regions(blocks: &[Block]) -> Vec<Block> {
    let of_chunk = |(chunk, blocks): (usize, &[Block])| {
        let mut regions = Vec::<Block>::with_capacity(blocks.len() / 4);
        for (at, block) in (chunk * CHUNK_BLOCKS..).zip(blocks) {
            let (key, bit) = (block_key(&block.key), 1 << region_place(&block.key));
            match regions.last_mut() {
                Some(last) if last.key == key => last.occupancy |= bit,
                _ => regions.push(Block { key, base: at as u32, occupancy: bit }),
            }
        }
        regions
    };
    let chunks: Vec<Vec<Block>> = blocks.par_chunks(CHUNK_BLOCKS).enumerate().map(of_chunk).collect();
    let mut all = Vec::<Block>::with_capacity(chunks.iter().map(Vec::len).sum());
    for chunk in chunks {
        let mut chunk = chunk.into_iter().peekable();
        // A region may go on where a chunk begins.
        if let (Some(last), Some(first)) = (all.last_mut(), chunk.peek())
            && last.key == first.key
        {
            last.occupancy |= first.occupancy;
            chunk.next();
        }
        all.extend(chunk);
    }
    all
}

/// Bit of a block within its region, 0 to 63, in canonical order: bits of x, y, z interleaved, x lowest.
#[inline]
fn region_place(key: &Coord) -> u32 {
    let spread = |v: i32| (v & 1 | (v & 2) << 2) as u32;
    spread(key[1]) | spread(key[2]) << 1 | spread(key[3]) << 2
}

/// The blocks around one block after another. Those of blocks in a row lie in few regions, which are looked up once.
pub(crate) struct Around<'a> {
    index: &'a CoordIndex,
    /// Key of the region that holds the middle block.
    region: Coord,
    /// Place of the middle block in that region.
    place: usize,
    /// That region and the 26 around it, without blocks where there is none; stale unless its bit of `known` is set.
    near: [Block; 27],
    known: u32,
}

impl<'a> Around<'a> {
    pub fn new(index: &'a CoordIndex) -> Self {
        Self { index, region: NO_BLOCK, place: 0, near: [Block::default(); 27], known: 0 }
    }

    /// Makes the block with this key the middle one.
    #[inline]
    pub fn enter(&mut self, key: &Coord) {
        let region = block_key(key);
        if region != self.region {
            (self.region, self.known) = (region, 0);
        }
        self.place = region_place(key) as usize;
    }

    /// The block in direction `cell`: `9 * (dx + 1) + 3 * (dy + 1) + dz + 1` for a step of -1, 0 or 1 along each axis.
    #[inline]
    pub fn block(&mut self, cell: usize) -> Option<&'a Block> {
        let [at, place] = NEAR[self.place][cell];
        if self.known >> at & 1 == 0 {
            self.find(at as usize);
        }
        let region = &self.near[at as usize];
        region.has(u32::from(place)).then(|| &self.index.blocks[region.rank(u32::from(place))])
    }

    #[cold]
    fn find(&mut self, at: usize) {
        let [batch, x, y, z] = self.region;
        let [dx, dy, dz] = [at / 9, at / 3 % 3, at % 3].map(|step| step as i32 - 1);
        // Keys are coordinates divided by 16, so a step cannot overflow.
        self.near[at] = self.index.regions.get(&[batch, x + dx, y + dy, z + dz]).copied().unwrap_or_default();
        self.known |= 1 << at;
    }
}

/// For every place in a region and direction from it: the direction of the region that lies there, and the place in that one.
const NEAR: [[[u8; 2]; 27]; 64] = {
    let mut near = [[[0; 2]; 27]; 64];
    let mut place = 0;
    while place < 64 {
        let mut cell = 0;
        while cell < 27 {
            let steps = [cell / 9, cell / 3 % 3, cell % 3];
            let (mut region, mut there, mut axis) = (0, 0, 0);
            while axis < 3 {
                // One more than the place along the axis, so that a step back stays positive.
                let at: usize = (place >> axis & 1 | (place >> (axis + 3) & 1) << 1) + steps[axis];
                region = 3 * region + at.div_ceil(4);
                let at = (at + 3) % 4;
                there |= (at & 1) << axis | (at >> 1) << (axis + 3);
                axis += 1;
            }
            near[place][cell] = [region as u8, there as u8];
            cell += 1;
        }
        place += 1;
    }
    near
};

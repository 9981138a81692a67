//! Rows by coordinate: a hash table over blocks of 4 x 4 x 4 voxels, each one 64-bit occupancy word.

use rayon::prelude::*;

use crate::Coord;

/// Marks a free slot of the hash table.
const FREE: u32 = u32::MAX;
/// Queries that one task answers.
const CHUNK_QUERIES: usize = 1 << 13;

/// The active voxels of one 4 x 4 x 4 cell of the lattice.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Block {
    /// Batch and coordinates divided by 4, rounding down.
    pub key: Coord,
    /// Active voxels in the blocks before this one.
    pub base: u32,
    /// Bit `16 * (x mod 4) + 4 * (y mod 4) + z mod 4` of every active voxel.
    pub occupancy: u64,
}

impl Block {
    /// Place in [`CoordIndex::rows`] of the active voxel with this bit.
    #[inline]
    pub fn rank(&self, bit: u32) -> usize {
        self.base as usize + (self.occupancy & ((1u64 << bit) - 1)).count_ones() as usize
    }

    /// Whether the voxel with this bit is active.
    #[inline]
    pub fn has(&self, bit: u32) -> bool {
        self.occupancy >> bit & 1 == 1
    }
}

/// Finds rows by coordinate.
///
/// Neighbouring voxels share a block, so one probe and a population count serve up to 64 of them: ask for the block once
/// ([`CoordIndex::block`]) and test its `occupancy` for the rest. A probe compares all four components of the key, never a
/// hash alone. Built once in row order, in linear time. Memory: 4 bytes a row and 32 to 48 a block.
#[derive(Debug)]
pub struct CoordIndex {
    slots: Vec<u32>,
    shift: u32,
    blocks: Vec<Block>,
    rows: Vec<u32>,
}

impl CoordIndex {
    /// Indexes fewer than `u32::MAX` rows.
    ///
    /// # Errors
    /// The first row whose coordinate an earlier row has.
    pub(crate) fn try_new(coords: &[Coord]) -> Result<Self, usize> {
        let mut index = Self { slots: vec![FREE; 64], shift: 64 - 6, blocks: Vec::new(), rows: Vec::new() };
        let mut block_of_row = Vec::with_capacity(coords.len());
        let mut last = (0, [0, i32::MAX, 0, 0]); // no block has this key: coordinates are divided by 4
        for (row, c) in coords.iter().enumerate() {
            let key = block_key(c);
            if key != last.1 {
                last = (index.find_or_insert(key), key);
            }
            let block = &mut index.blocks[last.0 as usize];
            let bit = block_bit(c);
            if block.has(bit) {
                return Err(row);
            }
            block.occupancy |= 1 << bit;
            block_of_row.push(last.0);
        }
        let mut base = 0;
        for block in &mut index.blocks {
            block.base = base;
            base += block.occupancy.count_ones();
        }
        index.rows = vec![0; coords.len()];
        for (row, (c, &block)) in coords.iter().zip(&block_of_row).enumerate() {
            index.rows[index.blocks[block as usize].rank(block_bit(c))] = row as u32;
        }
        Ok(index)
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
        found.par_chunks_mut(CHUNK_QUERIES).zip(queries.par_chunks(CHUNK_QUERIES)).for_each(|(found, queries)| {
            let mut last: (Coord, Option<&Block>) = ([0, i32::MAX, 0, 0], None);
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
        });
        found
    }

    /// The block with this key (see [`block_key`]), when any of its voxels is active.
    #[inline]
    pub fn block(&self, key: &Coord) -> Option<&Block> {
        let mut slot = hash(key) >> self.shift;
        loop {
            match self.slots[slot as usize] {
                FREE => return None,
                id if self.blocks[id as usize].key == *key => return Some(&self.blocks[id as usize]),
                _ => slot = (slot + 1) & (self.slots.len() as u64 - 1),
            }
        }
    }

    /// All blocks, in order of their first row.
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

    /// Bytes held.
    pub fn bytes(&self) -> usize {
        4 * (self.slots.capacity() + self.rows.capacity()) + size_of::<Block>() * self.blocks.capacity()
    }

    fn find_or_insert(&mut self, key: Coord) -> u32 {
        if (self.blocks.len() + 1) * 2 > self.slots.len() {
            self.grow();
        }
        let mut slot = hash(&key) >> self.shift;
        loop {
            match self.slots[slot as usize] {
                FREE => break,
                id if self.blocks[id as usize].key == key => return id,
                _ => slot = (slot + 1) & (self.slots.len() as u64 - 1),
            }
        }
        let id = self.blocks.len() as u32;
        self.slots[slot as usize] = id;
        self.blocks.push(Block { key, ..Block::default() });
        id
    }

    fn grow(&mut self) {
        let n_slots = self.slots.len() * 4;
        self.shift -= 2;
        self.slots.clear();
        self.slots.resize(n_slots, FREE);
        for (id, block) in self.blocks.iter().enumerate() {
            let mut slot = hash(&block.key) >> self.shift;
            while self.slots[slot as usize] != FREE {
                slot = (slot + 1) & (n_slots as u64 - 1);
            }
            self.slots[slot as usize] = id as u32;
        }
    }
}

/// Key of the block that holds a coordinate.
#[inline]
pub fn block_key(c: &Coord) -> Coord {
    [c[0], c[1] >> 2, c[2] >> 2, c[3] >> 2]
}

/// Bit of a coordinate within its block, 0 to 63, z fastest.
#[inline]
pub fn block_bit(c: &Coord) -> u32 {
    ((c[1] & 3) << 4 | (c[2] & 3) << 2 | (c[3] & 3)) as u32
}

/// Mixes all four components into the top bits.
#[inline]
fn hash(key: &Coord) -> u64 {
    let word = |a: i32, b: i32| u64::from(a as u32) << 32 | u64::from(b as u32);
    let mixed = word(key[0], key[1]).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ word(key[2], key[3]).wrapping_mul(0xd6e8_feb8_6659_fd93);
    (mixed ^ mixed >> 32).wrapping_mul(0xff51_afd7_ed55_8ccd)
}

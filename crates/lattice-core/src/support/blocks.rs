//! Blocks of 4 x 4 x 4 voxels, each one 64-bit occupancy word, and the hash table that finds them.

use std::sync::atomic::{AtomicU32, Ordering};

use rayon::prelude::*;

use crate::Coord;

/// Marks a free slot of the hash table.
const FREE: u32 = u32::MAX;
/// Blocks that one task inserts.
const CHUNK_BLOCKS: usize = 1 << 14;
/// A key that no block has: coordinates are divided by 4.
pub(crate) const NO_BLOCK: Coord = [0, i32::MAX, 0, 0];

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
    /// Place in [`CoordIndex::rows`](crate::CoordIndex::rows) of the active voxel with this bit.
    #[inline]
    pub fn rank(&self, bit: u32) -> usize {
        self.base as usize + (self.occupancy & ((1u64 << bit) - 1)).count_ones() as usize
    }

    /// Whether the voxel with this bit is active.
    #[inline]
    pub fn has(&self, bit: u32) -> bool {
        self.occupancy >> bit & 1 == 1
    }

    /// Coordinate of the voxel with this bit.
    #[inline]
    pub(crate) fn coord(&self, bit: u32) -> Coord {
        let [batch, x, y, z] = self.key;
        let bit = bit as i32;
        [batch, x << 2 | bit >> 4, y << 2 | bit >> 2 & 3, z << 2 | bit & 3]
    }
}

/// Blocks and an open-addressing table of their numbers, at most half full. A probe compares all four components of the key.
#[derive(Debug)]
pub(crate) struct BlockTable {
    slots: Vec<u32>,
    shift: u32,
    blocks: Vec<Block>,
}

impl Default for BlockTable {
    fn default() -> Self {
        Self { slots: vec![FREE; 64], shift: 64 - 6, blocks: Vec::new() }
    }
}

impl BlockTable {
    /// A table of blocks with distinct keys. Parallel: where a block stands in the table depends on the threads, which block a
    /// probe finds does not.
    pub fn from_blocks(blocks: Vec<Block>) -> Self {
        let n_slots = (blocks.len() * 2).next_power_of_two().max(64);
        let shift = 64 - n_slots.trailing_zeros();
        let slots: Vec<AtomicU32> =
            (0..n_slots).into_par_iter().with_min_len(CHUNK_BLOCKS).map(|_| AtomicU32::new(FREE)).collect();
        blocks.par_chunks(CHUNK_BLOCKS).enumerate().for_each(|(chunk, blocks)| {
            for (id, block) in (chunk * CHUNK_BLOCKS..).zip(blocks) {
                let mut slot = hash(&block.key) >> shift;
                // Only whether the slot was free matters; the blocks themselves were there before.
                while slots[slot as usize]
                    .compare_exchange(FREE, id as u32, Ordering::Relaxed, Ordering::Relaxed)
                    .is_err()
                {
                    slot = (slot + 1) & (n_slots as u64 - 1);
                }
            }
        });
        Self { slots: slots.into_iter().map(AtomicU32::into_inner).collect(), shift, blocks }
    }

    /// The block with this key.
    #[inline]
    pub fn get(&self, key: &Coord) -> Option<&Block> {
        let mut slot = hash(key) >> self.shift;
        loop {
            match self.slots[slot as usize] {
                FREE => return None,
                id if self.blocks[id as usize].key == *key => return Some(&self.blocks[id as usize]),
                _ => slot = (slot + 1) & (self.slots.len() as u64 - 1),
            }
        }
    }

    /// Adds voxels to the block with this key, which is made where there is none; returns the number of the block.
    pub fn insert(&mut self, key: Coord, occupancy: u64) -> usize {
        let mut slot = hash(&key) >> self.shift;
        loop {
            match self.slots[slot as usize] {
                FREE => break,
                id if self.blocks[id as usize].key == key => {
                    self.add(id as usize, occupancy);
                    return id as usize;
                }
                _ => slot = (slot + 1) & (self.slots.len() as u64 - 1),
            }
        }
        let id = self.blocks.len();
        self.slots[slot as usize] = id as u32;
        self.blocks.push(Block { key, base: 0, occupancy });
        if self.blocks.len() * 2 > self.slots.len() {
            self.grow();
        }
        id
    }

    /// Adds voxels to a block by its number.
    #[inline]
    pub fn add(&mut self, id: usize, occupancy: u64) {
        self.blocks[id].occupancy |= occupancy;
    }

    /// All blocks.
    pub fn blocks(&self) -> &[Block] {
        &self.blocks
    }

    /// The coordinates of all voxels, block by block.
    pub fn coords(&self) -> Vec<Coord> {
        let voxels = self.blocks.iter().map(|block| block.occupancy.count_ones() as usize).sum();
        let mut coords = Vec::with_capacity(voxels);
        for block in &self.blocks {
            let mut bits = block.occupancy;
            while bits != 0 {
                coords.push(block.coord(bits.trailing_zeros()));
                bits &= bits - 1;
            }
        }
        coords
    }

    /// Bytes held.
    pub fn bytes(&self) -> usize {
        4 * self.slots.capacity() + size_of::<Block>() * self.blocks.capacity()
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
    let mixed = word(key[0], key[1]).wrapping_mul(0x9e37_79b9_7f4a_7c15)
        ^ word(key[2], key[3]).wrapping_mul(0xd6e8_feb8_6659_fd93);
    (mixed ^ mixed >> 32).wrapping_mul(0xff51_afd7_ed55_8ccd)
}

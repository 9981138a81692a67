//! Rows of a support by 4 x 4 x 4 blocks: one 64-bit occupancy word and one look-up serve all rows of a block.

use crate::Coord;

/// Marks a free slot of the hash table.
const FREE: u32 = u32::MAX;

/// The rows of one 4 x 4 x 4 cell of the lattice.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Block {
    /// Batch and coordinates divided by 4.
    pub key: Coord,
    /// Rows of the blocks before this one.
    pub base: u32,
    /// Bit `16 * (x mod 4) + 4 * (y mod 4) + z mod 4` of every active row.
    pub occupancy: u64,
}

impl Block {
    /// Place of an active voxel of this block in [`BlockIndex::rows`].
    pub fn rank(&self, bit: u32) -> usize {
        self.base as usize + (self.occupancy & ((1u64 << bit) - 1)).count_ones() as usize
    }
}

/// Hash table over blocks. Looking up a block compares all four components of its key.
pub(crate) struct BlockTable {
    slots: Vec<u32>,
    shift: u32,
    /// Blocks in order of their first row.
    pub blocks: Vec<Block>,
}

impl Default for BlockTable {
    fn default() -> Self {
        let mut table = Self { slots: Vec::new(), shift: 0, blocks: Vec::new() };
        table.grow(64);
        table
    }
}

impl BlockTable {
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

    /// Number of the block with this key; a new one has no rows.
    pub fn find_or_insert(&mut self, key: Coord) -> usize {
        let mut slot = hash(&key) >> self.shift;
        loop {
            match self.slots[slot as usize] {
                FREE => break,
                id if self.blocks[id as usize].key == key => return id as usize,
                _ => slot = (slot + 1) & (self.slots.len() as u64 - 1),
            }
        }
        let id = self.blocks.len();
        self.slots[slot as usize] = id as u32;
        self.blocks.push(Block { key, ..Block::default() });
        if self.blocks.len() * 2 > self.slots.len() {
            self.grow(self.slots.len() * 4);
        }
        id
    }

    /// The coordinates of all rows, block by block.
    pub fn coords(&self) -> Vec<Coord> {
        let rows = self.blocks.iter().map(|block| block.occupancy.count_ones() as usize).sum();
        let mut coords = Vec::with_capacity(rows);
        for Block { key, occupancy, .. } in &self.blocks {
            let mut bits = *occupancy;
            while bits != 0 {
                let bit = bits.trailing_zeros() as i32;
                bits &= bits - 1;
                coords.push([
                    key[0],
                    key[1] << 2 | bit >> 4,
                    key[2] << 2 | bit >> 2 & 3,
                    key[3] << 2 | bit & 3,
                ]);
            }
        }
        coords
    }

    fn grow(&mut self, n_slots: usize) {
        self.shift = 64 - n_slots.trailing_zeros();
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

/// The blocks of a support and the rows in them. Memory: about `8 * rows + 48 * blocks` bytes.
pub(crate) struct BlockIndex {
    /// The blocks by key.
    pub table: BlockTable,
    /// Rows block by block, within a block in ascending order of their bit.
    pub rows: Vec<u32>,
    /// Place of every row in `rows`.
    pub ranks: Vec<u32>,
}

impl BlockIndex {
    /// Indexes distinct rows, fewer than `u32::MAX` of them.
    pub fn new(coords: &[Coord]) -> Self {
        let mut table = BlockTable::default();
        // Holds the block of every row at first, then its rank.
        let mut ranks = Vec::with_capacity(coords.len());
        let mut last = (0, NO_BLOCK);
        for c in coords {
            let key = block_key(c);
            if key != last.1 {
                last = (table.find_or_insert(key), key);
            }
            table.blocks[last.0].occupancy |= 1 << bit(c);
            ranks.push(last.0 as u32);
        }
        let mut base = 0;
        for block in &mut table.blocks {
            block.base = base;
            base += block.occupancy.count_ones();
        }
        let mut rows = vec![0; coords.len()];
        for (row, (c, rank)) in coords.iter().zip(&mut ranks).enumerate() {
            *rank = table.blocks[*rank as usize].rank(bit(c)) as u32;
            rows[*rank as usize] = row as u32;
        }
        Self { table, rows, ranks }
    }
}

/// A key that no block has: coordinates are divided by 4.
pub(crate) const NO_BLOCK: Coord = [0, i32::MAX, 0, 0];

/// Key of the block that holds a coordinate.
#[inline]
pub(crate) fn block_key(c: &Coord) -> Coord {
    [c[0], c[1] >> 2, c[2] >> 2, c[3] >> 2]
}

/// Bit of a coordinate within its block.
#[inline]
pub(crate) fn bit(c: &Coord) -> u32 {
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

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

/// Hash table over the blocks of a support.
///
/// Looking up a block compares all four components of its key. Memory: about `4 * rows + 48 * blocks` bytes.
pub(crate) struct BlockIndex {
    slots: Vec<u32>,
    shift: u32,
    /// Blocks in order of their first row.
    pub blocks: Vec<Block>,
    /// Rows block by block, within a block in ascending order of their bit.
    pub rows: Vec<u32>,
}

impl BlockIndex {
    /// Indexes distinct rows, fewer than `u32::MAX` of them.
    pub fn new(coords: &[Coord]) -> Self {
        let mut index = Self { slots: Vec::new(), shift: 64, blocks: Vec::new(), rows: Vec::new() };
        index.grow(64);
        let mut block_of_row = Vec::with_capacity(coords.len());
        let mut last = (0, [0, i32::MAX, 0, 0]); // no block has this key: coordinates are divided by 4
        for c in coords {
            let key = block_key(c);
            if key != last.1 {
                last = (index.find_or_insert(key), key);
            }
            index.blocks[last.0 as usize].occupancy |= 1 << bit(c);
            block_of_row.push(last.0);
        }
        let mut base = 0;
        for block in &mut index.blocks {
            block.base = base;
            base += block.occupancy.count_ones();
        }
        index.rows = vec![0; coords.len()];
        for (row, (c, &block)) in coords.iter().zip(&block_of_row).enumerate() {
            index.rows[index.blocks[block as usize].rank(bit(c))] = row as u32;
        }
        index
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

    fn find_or_insert(&mut self, key: Coord) -> u32 {
        if (self.blocks.len() + 1) * 2 > self.slots.len() {
            self.grow(self.slots.len() * 4);
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
    let mixed = word(key[0], key[1]).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ word(key[2], key[3]).wrapping_mul(0xd6e8_feb8_6659_fd93);
    (mixed ^ mixed >> 32).wrapping_mul(0xff51_afd7_ed55_8ccd)
}

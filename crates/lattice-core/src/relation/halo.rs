//! Windows that reach no further than the blocks around the block of their output row.
//!
//! A 4 x 4 x 4 block and its 26 neighbours fill a 12 x 12 x 12 halo: a strip of bits along z for every `(x, y)` and one row number
//! a cell. The halo is filled once a block, from the cells that its windows can see; then a window is read strip by strip. The
//! output rows of a block are its own rows (stride 1) or its 2 x 2 x 2 or single 4 x 4 x 4 cells that hold a row (strides 2 and
//! 4), which are exactly the rows of the coarser support.

use rayon::prelude::*;

use super::csr::{CHUNK_BLOCKS, Csr, Piece};
use crate::support::{Around, Block, CoordIndex};
use crate::{Coord, KernelSpec, Support};

/// Bits of the 2 x 2 x 2 cell at the origin of a block.
const CELL_2: u64 = 0x0033_0033;

/// A kernel whose windows stay within the halo of every block.
pub(crate) struct HaloKernel {
    stride: u32,
    size: [usize; 3],
    dilation: [usize; 3],
    /// Halo coordinate of tap 0 of the output at the block's origin.
    first: [usize; 3],
    /// Bits of a strip that belong to taps, from tap 0 on.
    pattern: u16,
    directions: Vec<Direction>,
}

/// One of the 26 blocks around a block.
struct Direction {
    step: [i32; 3],
    /// The same as [`Around::block`] counts.
    cell: usize,
    /// Bits of a block where an output row would see this direction.
    looks_out: u64,
    /// Bits of the block in this direction that some output row can see.
    looks_in: u64,
}

impl HaloKernel {
    /// `None` unless windows over the input, from tap offset `first` on, fit the halo.
    pub fn new(spec: &KernelSpec, first: [i64; 3]) -> Option<Self> {
        let stride = spec.stride[0];
        if spec.stride != [stride; 3] || !matches!(stride, 1 | 2 | 4) {
            return None;
        }
        let low: [i64; 3] = std::array::from_fn(|a| first[a] - i64::from(spec.padding[a]));
        let high: [i64; 3] =
            std::array::from_fn(|a| low[a] + i64::from(spec.size[a] - 1) * i64::from(spec.dilation[a]));
        let last = 4 - i64::from(stride);
        if (0..3).any(|a| low[a] < -4 || last + high[a] > 7) {
            return None;
        }
        let mut directions = Vec::new();
        for cell in (0..27i32).filter(|&cell| cell != 13) {
            let step = [cell / 9 - 1, cell / 3 % 3 - 1, cell % 3 - 1];
            let (mut looks_out, mut looks_in) = (0u64, 0u64);
            for bit in 0..64i64 {
                let at = [bit / 16, bit / 4 % 4, bit % 4];
                let sees = |a: usize| match step[a] {
                    -1 => at[a] + low[a] < 0,
                    0 => true,
                    _ => at[a] + high[a] > 3,
                };
                let seen = |a: usize| (low[a]..=last + high[a]).contains(&(at[a] + 4 * i64::from(step[a])));
                looks_out |= u64::from((0..3).all(sees)) << bit;
                looks_in |= u64::from((0..3).all(seen)) << bit;
            }
            if looks_out != 0 && looks_in != 0 {
                directions.push(Direction { step, cell: cell as usize, looks_out, looks_in });
            }
        }
        let dilation = spec.dilation.map(|d| d as usize);
        Some(Self {
            stride,
            size: spec.size.map(|k| k as usize),
            dilation,
            first: low.map(|f| (f + 4) as usize),
            // A single tap may have any dilation.
            pattern: (0..spec.size[2] as usize).fold(0, |all, l| all | 1 << (l * dilation[2])),
            directions,
        })
    }

    /// All edges onto the support itself (stride 1) or its [`coarser`] support.
    pub fn edges(&self, index: &CoordIndex) -> Csr {
        let make = |blocks: &[Block], piece: &mut Piece| {
            let (mut halo, mut around) = (Halo::default(), Around::new(index));
            piece.rows.reserve(blocks.len() * 16);
            piece.taps.reserve(blocks.len() * 16);
            for block in blocks {
                let outputs = Outputs::of(index, block, self.stride);
                halo.fill(self, index, &mut around, block, &outputs);
                for &bit in outputs.bits() {
                    halo.push_edges(self, bit, piece);
                }
            }
        };
        match self.stride == 1 && !index.is_canonical() {
            true => Csr::of_blocks(index, make),
            false => Csr::of_chunks(index.blocks(), make),
        }
    }
}

/// Places of the output rows within one block, in their order.
pub(super) struct Outputs {
    bits: [u8; 64],
    len: usize,
}

impl Outputs {
    /// The rows of the block at stride 1, in the order of [`CoordIndex::rows`] or in that of canonical rows; else its
    /// occupied cells in canonical order, each by the bit of its origin.
    pub fn of(index: &CoordIndex, block: &Block, stride: u32) -> Self {
        let mut outputs = Self { bits: [0; 64], len: 0 };
        match stride {
            1 => {
                let canonical = index.is_canonical();
                let mut bits = block.occupancy;
                for (rank, &row) in index.block_rows(block).iter().enumerate() {
                    let at = if canonical { (row - block.base) as usize } else { rank };
                    outputs.bits[at] = bits.trailing_zeros() as u8;
                    bits &= bits - 1;
                }
                outputs.len = block.occupancy.count_ones() as usize;
            }
            2 => {
                for origin in [0, 32, 8, 40, 2, 34, 10, 42] {
                    outputs.bits[outputs.len] = origin;
                    outputs.len += usize::from(block.occupancy & CELL_2 << origin != 0);
                }
            }
            _ => outputs.len = 1,
        }
        outputs
    }

    /// Bits of the output rows.
    pub fn bits(&self) -> &[u8] {
        &self.bits[..self.len]
    }
}

/// The support that is coarser by a stride of 2 or 4 along every axis, in canonical order: blocks are in that order already.
pub(crate) fn coarser(support: &Support, stride: u32) -> Support {
    let (index, shift) = (support.index(), stride.trailing_zeros());
    let pieces: Vec<Vec<Coord>> = index
        .blocks()
        .par_chunks(8 * CHUNK_BLOCKS)
        .map(|blocks| {
            let mut coords = Vec::with_capacity(blocks.len() * 2);
            for block in blocks {
                let cell = |&bit: &u8| {
                    let c = block.coord(u32::from(bit));
                    [c[0], c[1] >> shift, c[2] >> shift, c[3] >> shift]
                };
                coords.extend(Outputs::of(index, block, stride).bits().iter().map(cell));
            }
            coords
        })
        .collect();
    Support::trusted(pieces.concat(), true)
}

/// The cells in and around one block. Cell `(x, y, z)`, each `0..12`, has bit `z` of `strips[12 * x + y]` and entry
/// `16 * (12 * x + y) + z` of `rows`; entries without their bit are stale.
struct Halo {
    strips: [u16; 144],
    rows: Box<[u32; 16 * 144]>,
}

impl Default for Halo {
    fn default() -> Self {
        Self { strips: [0; 144], rows: Box::new([0; 16 * 144]) }
    }
}

impl Halo {
    fn fill(
        &mut self,
        kernel: &HaloKernel,
        index: &CoordIndex,
        around: &mut Around,
        block: &Block,
        outputs: &Outputs,
    ) {
        self.strips = [0; 144];
        self.add(index, block, u64::MAX, [4; 3]);
        let looking = outputs.bits().iter().fold(0, |all, &bit| all | 1u64 << bit);
        around.enter(&block.key);
        for direction in &kernel.directions {
            if looking & direction.looks_out == 0 {
                continue;
            }
            if let Some(near) = around.block(direction.cell) {
                let corner = direction.step.map(|s| (4 * s + 4) as usize);
                self.add(index, near, direction.looks_in, corner);
            }
        }
    }

    /// Enters the rows of a block whose first cell is at `corner`.
    #[inline]
    fn add(&mut self, index: &CoordIndex, block: &Block, seen: u64, corner: [usize; 3]) {
        let mut bits = block.occupancy & seen;
        let corner = (corner[0] * 12 + corner[1], corner[2]);
        while bits != 0 {
            let bit = bits.trailing_zeros();
            bits &= bits - 1;
            let strip = corner.0 + (bit as usize >> 4) * 12 + (bit as usize >> 2 & 3);
            let z = corner.1 + (bit as usize & 3);
            self.strips[strip] |= 1 << z;
            self.rows[strip * 16 + z] = index.rows()[block.rank(bit)];
        }
    }

    #[inline]
    fn push_edges(&self, kernel: &HaloKernel, bit: u8, piece: &mut Piece) {
        let bit = bit as usize;
        let at = [bit >> 4, bit >> 2 & 3, bit & 3];
        let [x, y, z]: [usize; 3] = std::array::from_fn(|a| at[a] + kernel.first[a]);
        let before = piece.rows.len();
        let mut tap = 0;
        for i in 0..kernel.size[0] {
            for j in 0..kernel.size[1] {
                let strip = (x + i * kernel.dilation[0]) * 12 + y + j * kernel.dilation[1];
                let mut near = self.strips[strip] >> z & kernel.pattern;
                let rows = &self.rows[strip * 16 + z..];
                while near != 0 {
                    let step = near.trailing_zeros() as usize;
                    near &= near - 1;
                    piece.rows.push(rows[step]);
                    let l = if kernel.dilation[2] == 1 { step } else { step / kernel.dilation[2] };
                    piece.taps.push((tap + l) as u16);
                }
                tap += kernel.size[2];
            }
        }
        piece.counts.push((piece.rows.len() - before) as u32);
    }
}

//! The 3 x 3 x 3 neighbourhood of every row of a support, found block by block.
//!
//! A 4 x 4 x 4 block and the rows that touch it fill a 6 x 6 x 6 halo: one bit and one row number a cell. The halo is filled once
//! from the words of the block and of those of its 26 neighbours that its rows can see; then the neighbour mask of a row is three
//! shifts and its edges are plain loads.

use super::csr::{Csr, Piece};
use super::halo::Outputs;
use crate::KernelSpec;
use crate::support::{Around, Block, CoordIndex};

/// True for kernels whose taps are all among the 26 neighbours and the row itself, each once.
pub(crate) fn is_neighbourhood(spec: &KernelSpec) -> bool {
    (0..3).all(|a| spec.size[a] == 1 || spec.size[a] == 3 && spec.dilation[a] == 1)
}

/// All edges of a support onto itself under a kernel that [`is_neighbourhood`].
pub(crate) fn neighbourhood(index: &CoordIndex, spec: &KernelSpec) -> Csr {
    let taps = Taps::new(spec);
    let make = |blocks: &[Block], piece: &mut Piece| {
        let (mut halo, mut around) = (Halo::default(), Around::new(index));
        for block in blocks {
            halo.fill(index, &mut around, block);
            halo.push_edges(&Outputs::of(index, block, 1), &taps, piece);
        }
    };
    match index.is_canonical() {
        true => Csr::of_chunks(index.blocks(), make),
        false => Csr::of_blocks(index, make),
    }
}

/// The tap number of each of the 27 cells around a row, and which of them the kernel has.
struct Taps {
    number: [u16; 27],
    mask: u32,
    /// Distance of the cell from that of the row in [`Halo::rows`].
    step: [i16; 27],
}

impl Taps {
    fn new(spec: &KernelSpec) -> Self {
        let mut taps = Self { number: [0; 27], mask: 0, step: [0; 27] };
        let mut number = 0;
        for cell in 0..27u8 {
            let at = [cell / 9, cell / 3 % 3, cell % 3].map(i16::from);
            if (0..3).all(|a| spec.size[a] == 3 || at[a] == 1) {
                taps.mask |= 1 << cell;
                taps.number[cell as usize] = number;
                number += 1;
            }
            taps.step[cell as usize] = (at[0] - 1) * 48 + (at[1] - 1) * 8 + at[2] - 1;
        }
        taps
    }
}

/// The cells in and around one block. Cell `(x, y, z)` of the halo, each `0..6`, has bit `8 * y + z` of `planes[x]` and entry
/// `48 * x + 8 * y + z` of `rows`; entries without their bit are stale.
struct Halo {
    planes: [u64; 6],
    rows: [u32; 288],
}

impl Default for Halo {
    fn default() -> Self {
        Self { planes: [0; 6], rows: [0; 288] }
    }
}

impl Halo {
    fn fill(&mut self, index: &CoordIndex, around: &mut Around, block: &Block) {
        self.planes = [0; 6];
        around.enter(&block.key);
        for direction in &DIRECTIONS {
            if block.occupancy & direction.looks_out == 0 {
                continue;
            }
            let Some(near) = around.block(direction.cell as usize) else { continue };
            let mut bits = near.occupancy & direction.looks_in;
            while bits != 0 {
                let bit = bits.trailing_zeros();
                bits &= bits - 1;
                let at = CELL_OF_BIT[bit as usize] + direction.shift;
                self.set(at as usize, index.rows()[near.rank(bit)]);
            }
        }
        let rows = &index.rows()[block.base as usize..];
        let mut bits = block.occupancy;
        for &row in rows {
            if bits == 0 {
                break;
            }
            self.set(CELL_OF_BIT[bits.trailing_zeros() as usize] as usize, row);
            bits &= bits - 1;
        }
    }

    #[inline]
    fn set(&mut self, cell: usize, row: u32) {
        self.rows[cell] = row;
        self.planes[cell / 48] |= 1 << (cell % 48);
    }

    fn push_edges(&self, outputs: &Outputs, taps: &Taps, piece: &mut Piece) {
        piece.rows.reserve(27 * 64);
        piece.taps.reserve(27 * 64);
        for &bit in outputs.bits() {
            let cell = CELL_OF_BIT[bit as usize] as usize;
            let (plane, shift) = (cell / 48, cell % 48 - 9);
            let window = |x: usize| {
                let strip = self.planes[plane + x - 1] >> shift;
                (strip & 7 | strip >> 5 & 0o70 | strip >> 10 & 0o700) as u32
            };
            let mut near = (window(0) | window(1) << 9 | window(2) << 18) & taps.mask;
            piece.counts.push(near.count_ones());
            while near != 0 {
                let tap = near.trailing_zeros() as usize;
                near &= near - 1;
                piece.rows.push(self.rows[cell.wrapping_add_signed(taps.step[tap] as isize)]);
                piece.taps.push(taps.number[tap]);
            }
        }
    }
}

/// One of the 26 blocks around a block.
struct Direction {
    /// As [`Around::block`] counts.
    cell: u8,
    /// Bits of a block whose neighbourhood reaches the block in this direction.
    looks_out: u64,
    /// Bits of the block in this direction that the halo holds.
    looks_in: u64,
    /// What to add to [`CELL_OF_BIT`] for rows of the block in this direction.
    shift: i16,
}

/// Halo cell of every bit of the middle block.
const CELL_OF_BIT: [i16; 64] = {
    let mut cells = [0; 64];
    let mut bit = 0;
    while bit < 64 {
        cells[bit] = (48 * (bit / 16 + 1) + 8 * (bit / 4 % 4 + 1) + bit % 4 + 1) as i16;
        bit += 1;
    }
    cells
};

const DIRECTIONS: [Direction; 26] = {
    const NONE: Direction = Direction { cell: 0, looks_out: 0, looks_in: 0, shift: 0 };
    let mut directions = [NONE; 26];
    let (mut cell, mut n) = (0, 0);
    while cell < 27 {
        if cell != 13 {
            let step = [cell / 9 - 1, cell / 3 % 3 - 1, cell % 3 - 1];
            let (mut looks_out, mut looks_in) = (0u64, 0u64);
            let mut bit = 0;
            while bit < 64 {
                let at = [bit / 16, bit / 4 % 4, bit % 4];
                let (mut out, mut inside) = (true, true);
                let mut a = 0;
                while a < 3 {
                    let (near, far) = if step[a] < 0 { (0, 3) } else { (3, 0) };
                    out &= step[a] == 0 || at[a] == near;
                    inside &= step[a] == 0 || at[a] == far;
                    a += 1;
                }
                looks_out |= (out as u64) << bit;
                looks_in |= (inside as u64) << bit;
                bit += 1;
            }
            let shift = (4 * (48 * step[0] + 8 * step[1] + step[2])) as i16;
            directions[n] = Direction { cell: cell as u8, looks_out, looks_in, shift };
            n += 1;
        }
        cell += 1;
    }
    directions
};

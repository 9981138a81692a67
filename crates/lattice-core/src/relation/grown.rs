//! Transposed kernels of short reach: the rows that they create, and their edges, block by block.
//!
//! The 4 x 4 x 4 rows of a source block create cells that fall into few blocks of the finer lattice, always in the same pattern:
//! the bits of a source word spread along z, then y, then x, and are cut into words. Words that fall on one block are joined. The
//! rows of a fine block, created or given, read from a window of few source cells, which is filled once; then each row has one
//! short list of taps and cells along every axis.

use rayon::prelude::*;

use super::csr::{CHUNK_BLOCKS, Csr, Piece};
use super::halo::Outputs;
use crate::coord::sort_rows;
use crate::support::{Around, Block, CoordIndex, check_row_count};
use crate::{Coord, KernelSpec, Result, Support};

/// Widest window along an axis: it lies in three blocks.
const WIDTH: usize = 8;
/// Most cells along an axis that one source block creates, whole blocks counted.
const REACH: usize = 32;
/// Largest stride whose phases are listed.
const MAX_STRIDE: u32 = 32;
/// A cell of the window without a row.
const ABSENT: u32 = u32::MAX;

/// A transposed kernel of short reach.
pub(crate) struct GrownKernel {
    axes: [Axis; 3],
}

/// What a kernel does along one axis.
struct Axis {
    stride: i64,
    padding: i64,
    /// Bits of the cells that each of the four places of a source block creates, from the first created block on.
    created: [u32; 4],
    /// Blocks that these cells fill.
    blocks: usize,
    /// One for every `(4 * block + padding) mod stride`.
    phases: Vec<Phase>,
}

/// What the four places of a fine block read along one axis.
#[derive(Default)]
struct Phase {
    /// The first source cell of the window, counted from `(4 * block + padding) / stride`.
    first: i64,
    width: usize,
    /// Parts of the tap and of the window cell of every match, in ascending tap.
    matches: [Vec<(u16, u16)>; 4],
}

impl GrownKernel {
    /// `None` for kernels that reach further than a few blocks.
    pub fn new(spec: &KernelSpec) -> Option<Self> {
        let axis = |a: usize| {
            let [size, stride, padding, dilation] =
                [spec.size, spec.stride, spec.padding, spec.dilation].map(|of| i64::from(of[a]));
            let reach = (-padding).rem_euclid(4) + 3 * stride + (size - 1) * dilation + 1;
            if spec.stride[a] > MAX_STRIDE || reach > REACH as i64 {
                return None;
            }
            let cell = |place: i64, i: i64| (-padding).rem_euclid(4) + place * stride + i * dilation;
            let created = [0, 1, 2, 3].map(|place| (0..size).fold(0, |all, i| all | 1 << cell(place, i)));
            let tap_step: u32 = spec.size[a + 1..].iter().product();
            let cell_step = WIDTH.pow(2 - a as u32) as i64;
            let mut phases = Vec::new();
            for phase in 0..stride {
                // `place + padding = i * dilation + stride * cell` for a cell counted from the quotient of the block.
                let matches = |place: i64| {
                    (0..size).filter_map(move |i| {
                        let left = phase + place - i * dilation;
                        (left.rem_euclid(stride) == 0).then_some((i, left.div_euclid(stride)))
                    })
                };
                let cells = || (0..4).flat_map(matches).map(|(_, cell)| cell);
                let (first, last) = (cells().min().unwrap_or(0), cells().max().unwrap_or(-1));
                let width = usize::try_from(last + 1 - first).ok().filter(|&width| width <= WIDTH)?;
                let parts = |(i, cell): (i64, i64)| {
                    ((i as u32 * tap_step) as u16, ((cell - first) * cell_step) as u16)
                };
                let matches = [0, 1, 2, 3].map(|place| matches(place).map(parts).collect());
                phases.push(Phase { first, width, matches });
            }
            Some(Axis { stride, padding, created, blocks: (reach as usize).div_ceil(4), phases })
        };
        Some(Self { axes: [axis(0)?, axis(1)?, axis(2)?] })
    }

    /// The created support, in canonical order, and the edges onto it. No created row lies outside `i32`.
    ///
    /// # Errors
    /// [`Error::Limit`](crate::Error::Limit) past `i32::MAX` rows.
    pub fn grow(&self, op: &'static str, source: &Support) -> Result<(Support, Csr)> {
        let index = source.index();
        let blocks = self.created_blocks(index);
        let rows = |blocks: &[Block]| blocks.iter().map(|b| b.occupancy.count_ones() as usize).sum::<usize>();
        let n_rows = rows(&blocks);
        check_row_count(op, n_rows)?;
        let chunk = |blocks: &[Block]| {
            let n = rows(blocks);
            let (mut coords, mut piece) = (Vec::with_capacity(n), Piece::default());
            piece.counts.reserve(n);
            piece.rows.reserve(4 * n);
            piece.taps.reserve(4 * n);
            let (mut around, mut window) = (Around::new(index), Window::default());
            for block in blocks {
                window.fill(self, index, &mut around, &block.key);
                for &bit in CANONICAL_BITS.iter().filter(|&&bit| block.has(u32::from(bit))) {
                    coords.push(block.coord(u32::from(bit)));
                    window.push_edges(bit, &mut piece);
                }
            }
            (coords, piece)
        };
        let (coords, pieces): (Vec<Vec<Coord>>, Vec<Piece>) =
            blocks.par_chunks(CHUNK_BLOCKS).map(chunk).unzip();
        Ok((Support::trusted(coords.concat(), true), Csr::from_pieces(&pieces)))
    }

    /// The edges onto given rows.
    pub fn edges(&self, source: &CoordIndex, target: &CoordIndex) -> Csr {
        let make = |blocks: &[Block], piece: &mut Piece| {
            let (mut around, mut window) = (Around::new(source), Window::default());
            for block in blocks {
                window.fill(self, source, &mut around, &block.key);
                for &bit in Outputs::of(target, block, 1).bits() {
                    window.push_edges(bit, piece);
                }
            }
        };
        match target.is_canonical() {
            true => Csr::of_chunks(target.blocks(), make),
            false => Csr::of_blocks(target, make),
        }
    }

    /// The blocks of all created rows, in canonical order of their keys; bases are left at 0.
    fn created_blocks(&self, index: &CoordIndex) -> Vec<Block> {
        let spread = |blocks: &[Block]| {
            let mut created = Vec::with_capacity(8 * blocks.len());
            blocks.iter().for_each(|block| self.spread(block, &mut created));
            created
        };
        let parts: Vec<Vec<Block>> = index.blocks().par_chunks(CHUNK_BLOCKS).map(spread).collect();
        let created = parts.concat();
        let keys: Vec<Coord> = created.iter().map(|block| block.key).collect();
        let sorted = sort_rows(&keys);
        let join = |range: &[u32]| {
            let parts = &sorted.order[range[0] as usize..range[1] as usize];
            let occupancy = parts.iter().fold(0, |all, &at| all | created[at as usize].occupancy);
            Block { key: keys[parts[0] as usize], base: 0, occupancy }
        };
        sorted.starts.par_windows(2).with_min_len(CHUNK_BLOCKS).map(join).collect()
    }

    /// Lists the blocks that the rows of one source block create.
    fn spread(&self, block: &Block, created: &mut Vec<Block>) {
        let [along_x, along_y, along_z] = &self.axes;
        let mut strips = [[0u32; REACH]; REACH];
        let (n_x, n_y) = (4 * along_x.blocks, 4 * along_y.blocks);
        for x in 0..4 {
            let mut plane = [0u32; REACH];
            for y in 0..4 {
                let mut nibble = block.occupancy >> (16 * x + 4 * y) & 15;
                let mut strip = 0;
                while nibble != 0 {
                    strip |= along_z.created[nibble.trailing_zeros() as usize];
                    nibble &= nibble - 1;
                }
                if strip != 0 {
                    each_bit(along_y.created[y], |at| plane[at] |= strip);
                }
            }
            if block.occupancy >> (16 * x) & 0xffff != 0 {
                each_bit(along_x.created[x], |at| {
                    for (strip, &new) in strips[at][..n_y].iter_mut().zip(&plane) {
                        *strip |= new;
                    }
                });
            }
        }
        let first: [i64; 3] = std::array::from_fn(|a| {
            let axis = &self.axes[a];
            i64::from(block.key[a + 1]) * axis.stride + (-axis.padding).div_euclid(4)
        });
        for (x, strips) in strips[..n_x].chunks_exact(4).enumerate() {
            for y in 0..along_y.blocks {
                let all = strips
                    .iter()
                    .flat_map(|plane| &plane[4 * y..4 * y + 4])
                    .fold(0, |all, strip| all | strip);
                for z in (0..along_z.blocks).filter(|z| all >> (4 * z) & 15 != 0) {
                    let cells = strips.iter().flat_map(|plane| &plane[4 * y..4 * y + 4]);
                    let occupancy =
                        cells.rev().fold(0, |word, strip| word << 4 | u64::from(strip >> (4 * z) & 15));
                    let at = |a: usize, step: usize| (first[a] + step as i64) as i32;
                    created.push(Block {
                        key: [block.key[0], at(0, x), at(1, y), at(2, z)],
                        base: 0,
                        occupancy,
                    });
                }
            }
        }
    }
}

/// Calls `visit` with the position of every set bit.
#[inline]
fn each_bit(mut bits: u32, mut visit: impl FnMut(usize)) {
    while bits != 0 {
        visit(bits.trailing_zeros() as usize);
        bits &= bits - 1;
    }
}

/// The source cells that the rows of one fine block read. Cell `(x, y, z)`, each below the width of its axis, is entry
/// `64 * x + 8 * y + z`.
struct Window<'a> {
    rows: [u32; WIDTH * WIDTH * WIDTH],
    phases: [Option<&'a Phase>; 3],
}

impl Default for Window<'_> {
    fn default() -> Self {
        Self { rows: [ABSENT; WIDTH * WIDTH * WIDTH], phases: [None; 3] }
    }
}

impl<'a> Window<'a> {
    fn fill(&mut self, kernel: &'a GrownKernel, index: &CoordIndex, around: &mut Around, key: &Coord) {
        let mut first = [0i64; 3];
        let mut width = [0; 3];
        for (a, axis) in kernel.axes.iter().enumerate() {
            let shifted = 4 * i64::from(key[a + 1]) + axis.padding;
            let phase = &axis.phases[shifted.rem_euclid(axis.stride) as usize];
            first[a] = shifted.div_euclid(axis.stride) + phase.first;
            width[a] = phase.width;
            self.phases[a] = Some(phase);
        }
        for x in 0..width[0] {
            for y in 0..width[1] {
                let strip = (x * WIDTH + y) * WIDTH;
                self.rows[strip..strip + width[2]].fill(ABSENT);
            }
        }
        // A window lies in the block of its first cell and the next two.
        let low = first.map(|f| f >> 2);
        around.enter(&[key[0], low[0] as i32 + 1, low[1] as i32 + 1, low[2] as i32 + 1]);
        let last: [i64; 3] = std::array::from_fn(|a| ((first[a] + width[a] as i64 - 1) >> 2) - low[a]);
        for x in 0..=last[0] {
            for y in 0..=last[1] {
                for z in 0..=last[2] {
                    let Some(block) = around.block((9 * x + 3 * y + z) as usize) else { continue };
                    // Place of the block's first cell in the window.
                    let steps = [x, y, z];
                    let corner: [i64; 3] = std::array::from_fn(|a| (low[a] + steps[a]) * 4 - first[a]);
                    let mut bits = block.occupancy
                        & (0..3).fold(u64::MAX, |mask, a| mask & inside(a, corner[a], width[a] as i64));
                    while bits != 0 {
                        let bit = bits.trailing_zeros();
                        bits &= bits - 1;
                        let at = |a: usize, place: u32| (corner[a] + i64::from(place)) as usize;
                        let cell = (at(0, bit >> 4) * WIDTH + at(1, bit >> 2 & 3)) * WIDTH + at(2, bit & 3);
                        self.rows[cell] = index.rows()[block.rank(bit)];
                    }
                }
            }
        }
    }

    /// Appends the list of one row of the block that the window was filled for.
    #[inline]
    fn push_edges(&self, bit: u8, piece: &mut Piece) {
        let [Some(along_x), Some(along_y), Some(along_z)] = self.phases else { return };
        let before = piece.rows.len();
        let bit = usize::from(bit);
        for &(tap_x, x) in &along_x.matches[bit >> 4] {
            for &(tap_y, y) in &along_y.matches[bit >> 2 & 3] {
                for &(tap_z, z) in &along_z.matches[bit & 3] {
                    let row = self.rows[usize::from(x + y + z)];
                    if row != ABSENT {
                        piece.rows.push(row);
                        piece.taps.push(tap_x + tap_y + tap_z);
                    }
                }
            }
        }
        piece.counts.push((piece.rows.len() - before) as u32);
    }
}

/// Bits of a block whose place along axis `a`, counted from `corner`, lies within `0..width`.
#[inline]
fn inside(a: usize, corner: i64, width: i64) -> u64 {
    let from = (-corner).clamp(0, 4) as u32;
    let to = (width - corner).clamp(0, 4) as u32;
    let places = (1u64 << to) - (1u64 << from.min(to));
    // One bit a place, repeated along the other axes.
    match a {
        0 => [0, 1, 2, 3].into_iter().fold(0, |all, p| all | ((places >> p & 1) * (0xffff << (16 * p)))),
        1 => [0, 1, 2, 3]
            .into_iter()
            .fold(0, |all, p| all | ((places >> p & 1) * (0x000f_000f_000f_000f << (4 * p)))),
        _ => places * 0x1111_1111_1111_1111,
    }
}

/// Bits of a block in canonical order of their coordinates.
const CANONICAL_BITS: [u8; 64] = {
    let mut bits = [0; 64];
    let mut code = 0;
    while code < 64 {
        let (x, y, z) =
            (code & 1 | code >> 2 & 2, code >> 1 & 1 | code >> 3 & 2, code >> 2 & 1 | code >> 4 & 2);
        bits[code] = (x << 4 | y << 2 | z) as u8;
        code += 1;
    }
    bits
};

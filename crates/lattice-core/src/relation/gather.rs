//! Finds the edges of given output rows by looking their window up in the source support.

use rayon::prelude::*;

use super::csr::{CHUNK_ROWS, Csr, Piece};
use super::exact::{parents, tiles_lattice};
use super::grown::GrownKernel;
use super::halo::HaloKernel;
use super::submanifold::{is_neighbourhood, neighbourhood};
use crate::kernel::TapOrigin;
use crate::support::{Block, CoordIndex};
use crate::{Coord, KernelSpec, Support};

/// Where the input coordinate of an output coordinate `q` under tap position `i` lies, on each axis.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Window {
    /// `q * s + f_i - p`
    Over(TapOrigin),
    /// `(q + p - i * d) / s` where that is a whole number
    Under,
}

impl Window {
    /// All edges from `source` onto `target`, by the quickest way that fits; `symmetric` as of the relation.
    pub(super) fn edges(self, source: &Support, target: &Support, spec: &KernelSpec, symmetric: bool) -> Csr {
        let onto_itself = || HaloKernel::new(spec, spec.first_offsets(TapOrigin::Centred));
        match self {
            Self::Over(_) if symmetric && is_neighbourhood(spec) => neighbourhood(source.index(), spec),
            Self::Over(_) if symmetric && let Some(kernel) = onto_itself() => kernel.edges(source.index()),
            Self::Under if tiles_lattice(spec) => parents(source.index(), target.coords(), spec),
            Self::Under if let Some(kernel) = GrownKernel::new(spec) => {
                kernel.edges(source.index(), target.index())
            }
            _ => gather(source.index(), target.coords(), spec, self),
        }
    }
}

/// All edges onto `targets`: rows of the result are target rows, its pairs `(source row, tap)` in ascending tap.
///
/// Per output row the window is cut into 4 x 4 x 4 blocks, each looked up once; consecutive rows that touch the same blocks share
/// the look-ups.
pub(crate) fn gather(index: &CoordIndex, targets: &[Coord], spec: &KernelSpec, window: Window) -> Csr {
    let pieces: Vec<Piece> =
        targets.par_chunks(CHUNK_ROWS).map(|targets| Scan::new(index, spec, window).piece(targets)).collect();
    Csr::from_pieces(&pieces)
}

/// One tap position along an axis that can match.
#[derive(Clone, Copy)]
struct Position {
    /// Part of the tap number.
    tap: u32,
    /// Part of the bit within a block.
    bit: u32,
    /// Number of its block among those that the window touches along the axis.
    group: u32,
}

/// The tap positions of one axis for one output row.
#[derive(Default)]
struct Axis {
    positions: Vec<Position>,
    /// Block coordinates that the window touches, in order of their first position.
    groups: Vec<i32>,
}

struct Scan<'a> {
    index: &'a CoordIndex,
    spec: &'a KernelSpec,
    window: Window,
    first: [i64; 3],
    axes: [Axis; 3],
    cells: Vec<Block>,
    /// Batch and groups that `cells` was filled for.
    filled: (i32, [Vec<i32>; 3]),
}

impl<'a> Scan<'a> {
    fn new(index: &'a CoordIndex, spec: &'a KernelSpec, window: Window) -> Self {
        let first = match window {
            Window::Over(origin) => spec.first_offsets(origin),
            Window::Under => [0; 3],
        };
        let filled = (-1, Default::default()); // batch ids are never negative
        Self { index, spec, window, first, axes: Default::default(), cells: Vec::new(), filled }
    }

    fn piece(mut self, targets: &[Coord]) -> Piece {
        let mut piece = Piece { counts: Vec::with_capacity(targets.len()), ..Piece::default() };
        piece.rows.reserve(targets.len() * 4);
        piece.taps.reserve(targets.len() * 4);
        for q in targets {
            let before = piece.rows.len();
            let possible = (0..3).all(|a| self.scan_axis(a, q[a + 1]));
            if possible {
                self.fill_cells(q[0]);
                self.push_edges(&mut piece);
            }
            piece.counts.push((piece.rows.len() - before) as u32);
        }
        piece
    }

    /// Lists the positions of axis `a` that can match; false when there is none.
    fn scan_axis(&mut self, a: usize, q: i32) -> bool {
        let axis = &mut self.axes[a];
        axis.positions.clear();
        axis.groups.clear();
        let [stride, padding, dilation] =
            [self.spec.stride[a], self.spec.padding[a], self.spec.dilation[a]].map(i64::from);
        let tap_step: u32 = self.spec.size[a + 1..].iter().product();
        for i in 0..self.spec.size[a] {
            let wide = match self.window {
                Window::Over(_) => i64::from(q) * stride + self.first[a] + i64::from(i) * dilation - padding,
                Window::Under => {
                    let scaled = i64::from(q) + padding - i64::from(i) * dilation;
                    match stride {
                        1 => scaled,
                        _ if scaled.rem_euclid(stride) == 0 => scaled.div_euclid(stride),
                        _ => continue,
                    }
                }
            };
            let Ok(c) = i32::try_from(wide) else { continue };
            let block = c >> 2;
            // Coordinates run one way along the axis, so equal blocks follow each other.
            if axis.groups.last() != Some(&block) {
                axis.groups.push(block);
            }
            let group = axis.groups.len() as u32 - 1;
            let bit = ((c & 3) << (4 - 2 * a)) as u32;
            axis.positions.push(Position { tap: i * tap_step, bit, group });
        }
        !axis.positions.is_empty()
    }

    /// Looks up the blocks of the window, unless they are those of the row before.
    fn fill_cells(&mut self, batch: i32) {
        let [x, y, z] = &self.axes;
        let (filled_batch, groups) = &mut self.filled;
        if *filled_batch == batch
            && groups.iter().zip(&self.axes).all(|(filled, axis)| *filled == axis.groups)
        {
            return;
        }
        self.cells.clear();
        for &x in &x.groups {
            for &y in &y.groups {
                self.cells.extend(
                    z.groups
                        .iter()
                        .map(|&z| self.index.block(&[batch, x, y, z]).copied().unwrap_or_default()),
                );
            }
        }
        *filled_batch = batch;
        for (filled, axis) in groups.iter_mut().zip(&self.axes) {
            filled.clone_from(&axis.groups);
        }
    }

    fn push_edges(&self, piece: &mut Piece) {
        let [x, y, z] = &self.axes;
        for px in &x.positions {
            for py in &y.positions {
                let cells = (px.group as usize * y.groups.len() + py.group as usize) * z.groups.len();
                let (bit, tap) = (px.bit | py.bit, px.tap + py.tap);
                for pz in &z.positions {
                    let block = &self.cells[cells + pz.group as usize];
                    let bit = bit | pz.bit;
                    if block.occupancy >> bit & 1 == 1 {
                        piece.rows.push(self.index.rows()[block.rank(bit)]);
                        piece.taps.push((tap + pz.tap) as u16);
                    }
                }
            }
        }
    }
}

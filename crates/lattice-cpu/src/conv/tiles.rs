//! The driver of gathered products: blocks of output rows, each summed in a tile that stays in cache.

use lattice_core::{Relation, TapTiles};
use rayon::prelude::*;

use super::panels::{Columns, Plan};
use super::{ConvShape, Products};
use crate::scratch::{Purpose, with_scratch};
use crate::simd::{Engine, Product, TileMut, split_tiles};
use crate::{Epilogue, Scalar};

/// Most columns of a tile: its sums should stay in the second-level cache beside the rows and the weights.
pub(super) const TILE_COLUMNS: usize = 64;

/// Rows of weights that a micro-kernel walks at a time: its panel stays in the first-level cache while it serves all pairs of a
/// block and tap.
pub(super) const K_BLOCK: usize = 128;

/// Pairs whose rows are converted to `f32` at a time.
const CONVERT_PAIRS: usize = 96;

const _: () = assert!(CONVERT_PAIRS <= IDENTITY_BLOCK, "the static list of row numbers is shared");

/// Pairs by block of output rows, within a block by tap: what `TapTiles` holds, or every row with itself.
pub struct TileRef<'a> {
    /// Output rows of a block.
    pub block: usize,
    /// Kernel taps.
    pub taps: usize,
    /// Output rows.
    pub n_out: usize,
    /// `None`: every row with itself.
    tiles: Option<&'a TapTiles>,
}

/// The pairs of a block and tap.
#[derive(Clone, Copy)]
pub struct Pairs<'a> {
    /// Input row of every pair, counted from `in_base`.
    pub in_rows: &'a [u32],
    /// Output row of every pair within its block.
    pub out_local: &'a [u16],
    /// Row that `in_rows` is counted from.
    pub in_base: usize,
}

/// Rows of a block where the pairs are the rows themselves, and most pairs whose rows are converted together.
pub const IDENTITY_BLOCK: usize = 512;

/// The numbers from 0 on.
pub static IDENTITY: ([u32; IDENTITY_BLOCK], [u16; IDENTITY_BLOCK]) = {
    let mut rows = ([0; IDENTITY_BLOCK], [0; IDENTITY_BLOCK]);
    let mut i = 0;
    while i < IDENTITY_BLOCK {
        (rows.0[i], rows.1[i]) = (i as u32, i as u16);
        i += 1;
    }
    rows
};

impl<'a> TileRef<'a> {
    /// The pairs of a relation.
    pub fn of(relation: &'a Relation) -> Self {
        let tiles = relation.tap_tiles();
        Self { block: tiles.block, taps: relation.taps(), n_out: relation.n_out(), tiles: Some(tiles) }
    }

    /// Every row with itself under one tap: a plain matrix product.
    pub fn identity(rows: usize) -> TileRef<'static> {
        TileRef { block: IDENTITY_BLOCK, taps: 1, n_out: rows, tiles: None }
    }

    /// Pairs of a block and tap.
    pub fn pairs(&self, block: usize, tap: usize) -> Pairs<'a> {
        match self.tiles {
            Some(tiles) => {
                let at = block * self.taps + tap;
                let range = tiles.splits[at]..tiles.splits[at + 1];
                Pairs {
                    in_rows: &tiles.in_rows[range.clone()],
                    out_local: &tiles.out_local[range],
                    in_base: 0,
                }
            }
            None => {
                let in_base = block * self.block;
                let rows = self.block.min(self.n_out - in_base);
                Pairs { in_rows: &IDENTITY.0[..rows], out_local: &IDENTITY.1[..rows], in_base }
            }
        }
    }
}

/// `out = epilogue(sum over pairs of x[in] @ w[tap])`; every element of `out` is written.
pub fn run<T: Scalar<Acc = f32>>(engine: Engine, job: Products<'_, T>, out: &mut [T]) {
    let Products { x, w, adjoint, pairs: tiles, shape, epilogue } = job;
    if out.is_empty() {
        return;
    }
    let plan = Plan::new(engine, shape, tiles.taps, TILE_COLUMNS);
    with_scratch(Purpose::Weights, plan.floats, |packed| {
        plan.pack(engine, w, adjoint, packed);
        let packed = &*packed;
        let ranges: Vec<_> = plan.columns.iter().map(|c| c.range.clone()).collect();
        let job = Job { engine, x, plan: &plan, packed, tiles, shape, epilogue };
        split_tiles(out, shape.c_out, tiles.block, &ranges).into_par_iter().enumerate().for_each(
            |(i, out)| {
                job.block(i / ranges.len(), &plan.columns[i % ranges.len()], out);
            },
        );
    });
}

/// Applies the epilogue to the sums of a block of rows and stores them.
pub(super) fn finish_tile<T: Scalar<Acc = f32>>(
    engine: Engine,
    epilogue: &Epilogue<'_, T>,
    first: usize,
    c_out: usize,
    columns: &Columns,
    tile: &mut [f32],
    out: &mut TileMut<'_, T>,
) {
    let epilogue = *epilogue;
    engine.vectorize(|| {
        let mut wide = [0.0; TILE_COLUMNS];
        for row in 0..out.rows() {
            let sum = &mut tile[row * columns.padded..][..columns.range.len()];
            epilogue.finish(
                engine,
                first + row,
                c_out,
                columns.range.clone(),
                sum,
                &mut wide,
                out.row_mut(row),
            );
        }
    });
}

/// What all blocks share.
struct Job<'a, T> {
    engine: Engine,
    x: &'a [T],
    plan: &'a Plan,
    packed: &'a [f32],
    tiles: &'a TileRef<'a>,
    shape: ConvShape,
    epilogue: &'a Epilogue<'a, T>,
}

impl<T: Scalar<Acc = f32>> Job<'_, T> {
    /// Some columns of a block of output rows.
    fn block(&self, block: usize, columns: &Columns, mut out: TileMut<'_, T>) {
        let rows = out.rows();
        with_scratch(Purpose::Tile, rows * columns.padded, |tile| {
            tile.fill(0.0);
            for tap in 0..self.tiles.taps {
                let pairs = self.tiles.pairs(block, tap);
                let x = &self.x[pairs.in_base * self.shape.c_in..];
                match T::as_acc(x) {
                    Some(x) => {
                        let at = columns.group * self.plan.k;
                        self.tap(x, self.shape.c_in, at, pairs.in_rows, pairs.out_local, columns, tap, tile);
                    }
                    None => self.converted_tap(x, pairs, columns, tap, tile),
                }
            }
            let first = block * self.tiles.block;
            finish_tile(self.engine, self.epilogue, first, self.shape.c_out, columns, tile, &mut out);
        });
    }

    /// The pairs of one tap.
    #[allow(
        clippy::too_many_arguments,
        reason = "a matrix (three), its pairs (two), and where they go (three)"
    )]
    fn tap(
        &self,
        x: &[f32],
        stride: usize,
        at: usize,
        rows: &[u32],
        out_local: &[u16],
        columns: &Columns,
        tap: usize,
        tile: &mut [f32],
    ) {
        if rows.is_empty() {
            return;
        }
        for first in (0..self.plan.k).step_by(K_BLOCK) {
            let k = K_BLOCK.min(self.plan.k - first);
            for &micro in &columns.micro {
                let panel = self.plan.panel(self.packed, columns, tap, micro);
                let width = micro.1 * self.engine.lanes();
                let b = &panel[first * width..][..k * width];
                let (vectors, tile_stride, tile_at) = (micro.1, columns.padded, micro.0);
                let at = at + first;
                let product = Product { x, stride, at, rows, out_local, b, k, vectors, tile_stride, tile_at };
                self.engine.product(&product, tile);
            }
        }
    }

    /// The pairs of one tap, their rows converted to `f32` first.
    fn converted_tap(&self, x: &[T], pairs: Pairs<'_>, columns: &Columns, tap: usize, tile: &mut [f32]) {
        let (k, c_in, engine) = (self.plan.k, self.shape.c_in, self.engine);
        with_scratch(Purpose::Rows, CONVERT_PAIRS * k, |wide| {
            let chunks = pairs.in_rows.chunks(CONVERT_PAIRS).zip(pairs.out_local.chunks(CONVERT_PAIRS));
            for (in_rows, out_local) in chunks {
                for (&row, wide) in in_rows.iter().zip(wide.chunks_exact_mut(k.max(1))) {
                    T::widen(engine, &x[row as usize * c_in + columns.group * k..][..k], wide);
                }
                self.tap(wide, k, 0, &IDENTITY.0[..in_rows.len()], out_local, columns, tap, tile);
            }
        });
    }
}

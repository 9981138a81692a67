//! The driver of gathered products: blocks of output rows, each summed in a tile that stays in cache.

use std::borrow::Cow;

use lattice_core::Relation;
use rayon::prelude::*;

use super::panels::{Columns, Plan};
use super::{ConvShape, Products};
use crate::{Epilogue, Scalar};
use crate::scratch::{Purpose, with_scratch};
use crate::simd::{Engine, Product, TileMut, split_tiles};

/// Rows of weights that a micro-kernel walks at a time: its panel stays in the first-level cache while it serves all pairs of a
/// block and tap.
const K_BLOCK: usize = 128;

/// Pairs whose rows are converted to `f32` at a time.
const CONVERT_PAIRS: usize = 96;

/// Pairs by block of output rows, within a block by tap: what `TapTiles` holds, as slices.
pub struct TileRef<'a> {
    /// Output rows of a block.
    pub block: usize,
    /// Kernel taps.
    pub taps: usize,
    /// Output rows.
    pub n_out: usize,
    /// Bounds, block-major: `blocks * taps + 1` long.
    pub splits: Cow<'a, [usize]>,
    /// Input row of every pair.
    pub in_rows: Cow<'a, [u32]>,
    /// Output row of every pair within its block.
    pub out_local: Cow<'a, [u16]>,
}

/// Rows of a block where the pairs are the rows themselves.
const IDENTITY_BLOCK: usize = 512;

impl<'a> TileRef<'a> {
    /// The pairs of a relation.
    pub fn of(relation: &'a Relation) -> Self {
        let tiles = relation.tap_tiles();
        Self {
            block: tiles.block,
            taps: relation.taps(),
            n_out: relation.n_out(),
            splits: Cow::Borrowed(&tiles.splits),
            in_rows: Cow::Borrowed(&tiles.in_rows),
            out_local: Cow::Borrowed(&tiles.out_local),
        }
    }

    /// Every row with itself under one tap: a plain matrix product.
    pub fn identity(rows: usize) -> TileRef<'static> {
        let block = IDENTITY_BLOCK;
        let splits = (0..=rows.div_ceil(block)).map(|b| (b * block).min(rows)).collect();
        let in_rows = (0..rows as u32).collect();
        let out_local = (0..rows).map(|r| (r % block) as u16).collect();
        TileRef { block, taps: 1, n_out: rows, splits, in_rows, out_local }
    }

    /// Pairs of a block and tap.
    pub fn pairs(&self, block: usize, tap: usize) -> (&[u32], &[u16]) {
        let at = block * self.taps + tap;
        let range = self.splits[at]..self.splits[at + 1];
        (&self.in_rows[range.clone()], &self.out_local[range])
    }
}

/// `out = epilogue(sum over pairs of x[in] @ w[tap])`; every element of `out` is written.
pub fn run<T: Scalar<Acc = f32>>(engine: Engine, job: Products<'_, T>, out: &mut [T]) {
    let Products { x, w, adjoint, pairs: tiles, shape, epilogue } = job;
    if out.is_empty() {
        return;
    }
    let plan = Plan::new(engine, shape, tiles.taps);
    with_scratch(Purpose::Weights, plan.floats, |packed| {
        plan.pack(engine, w, adjoint, packed);
        let packed = &*packed;
        let ranges: Vec<_> = plan.columns.iter().map(|c| c.range.clone()).collect();
        let job = Job { engine, x, plan: &plan, packed, tiles, shape, epilogue };
        split_tiles(out, shape.c_out, tiles.block, &ranges).into_par_iter().enumerate().for_each(|(i, out)| {
            job.block(i / ranges.len(), &plan.columns[i % ranges.len()], out);
        });
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
                let (in_rows, out_local) = self.tiles.pairs(block, tap);
                match T::as_acc(self.x) {
                    Some(x) => {
                        let at = columns.group * self.plan.k;
                        self.tap(x, self.shape.c_in, at, in_rows, out_local, columns, tap, tile);
                    }
                    None => self.converted_tap(in_rows, out_local, columns, tap, tile),
                }
            }
            let (engine, c_out) = (self.engine, self.shape.c_out);
            let epilogue = *self.epilogue;
            let first = block * self.tiles.block;
            engine.vectorize(|| {
                let mut wide = [0.0; 256];
                for row in 0..rows {
                    let sum = &mut tile[row * columns.padded..][..columns.range.len()];
                    epilogue.finish(engine, first + row, c_out, columns.range.clone(), sum, &mut wide, out.row_mut(row));
                }
            });
        });
    }

    /// The pairs of one tap.
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
    fn converted_tap(&self, in_rows: &[u32], out_local: &[u16], columns: &Columns, tap: usize, tile: &mut [f32]) {
        const IDENTITY: [u32; CONVERT_PAIRS] = {
            let mut rows = [0; CONVERT_PAIRS];
            let mut i = 0;
            while i < CONVERT_PAIRS {
                rows[i] = i as u32;
                i += 1;
            }
            rows
        };
        let (k, c_in) = (self.plan.k, self.shape.c_in);
        with_scratch(Purpose::Rows, CONVERT_PAIRS * k, |wide| {
            for (in_rows, out_local) in in_rows.chunks(CONVERT_PAIRS).zip(out_local.chunks(CONVERT_PAIRS)) {
                for (&row, wide) in in_rows.iter().zip(wide.chunks_exact_mut(k.max(1))) {
                    T::widen(self.engine, &self.x[row as usize * c_in + columns.group * k..][..k], wide);
                }
                self.tap(wide, k, 0, &IDENTITY[..in_rows.len()], out_local, columns, tap, tile);
            }
        });
    }
}

//! Convolution with packed weights: the values of a tap are unpacked a panel at a time and serve all pairs of a block of rows.

use lattice_core::Relation;
use rayon::prelude::*;

use super::ConvShape;
use super::panels::{Columns, Plan};
use super::tiles::{IDENTITY, IDENTITY_BLOCK, K_BLOCK, Pairs, TILE_COLUMNS, TileRef, finish_tile};
use crate::isa::engine;
use crate::packed::PackedTaps;
use crate::scratch::{Purpose, with_scratch};
use crate::simd::{Engine, Product, TileMut, split_tiles};
use crate::{Epilogue, Scalar};

/// The pairs of a relation, or every row with itself, with all lengths checked.
pub(super) fn checked_pairs<'a, T: Scalar>(
    op: &str,
    x: &[T],
    weight: (usize, usize, usize),
    relation: Option<&'a Relation>,
    shape: ConvShape,
    epilogue: &Epilogue<'_, T>,
    out: &[T],
) -> TileRef<'a> {
    shape.check(op);
    let rows_in = x.len().checked_div(shape.c_in).unwrap_or(0);
    let (taps, n_in, n_out) = match relation {
        Some(relation) => (relation.taps(), relation.n_in(), relation.n_out()),
        None => (1, rows_in, rows_in),
    };
    assert_eq!(x.len(), n_in * shape.c_in, "{op}: length of the features");
    assert_eq!(
        weight,
        (taps, shape.c_in / shape.groups, shape.c_out),
        "{op}: taps and channels of the weight"
    );
    assert_eq!(out.len(), n_out * shape.c_out, "{op}: length of the output");
    assert!(u32::try_from(n_in).is_ok(), "{op}: {n_in} rows pass 32 bits");
    epilogue.check(op, n_out, shape.c_out);
    match relation {
        // Tiles of an empty relation are never asked for.
        Some(relation) if !out.is_empty() => TileRef::of(relation),
        _ => TileRef::identity(n_out),
    }
}

/// `out[o, :] = epilogue(sum over edges (i, o, k) of x[i, :] @ w[k])` with `w` packed; without a relation every row with itself.
///
/// # Shapes
/// As [`conv_forward`](crate::conv_forward), and equal to it on the dequantized weight within the rounding of f32 sums. No more than
/// one panel of a tap, 128 by 64 values, is unpacked at a time and thread. Deterministic likewise.
///
/// # Panics
/// When a slice does not have its shape.
pub fn conv_packed<T: Scalar<Acc = f32>, S: Scalar<Acc = f32>>(
    x: &[T],
    weight: &PackedTaps<'_, S>,
    relation: Option<&Relation>,
    shape: ConvShape,
    epilogue: &Epilogue<'_, T>,
    out: &mut [T],
) {
    let packed = weight.shape();
    let sizes = (packed.taps(), packed.c_in(), packed.c_out());
    let tiles = &checked_pairs("conv_packed", x, sizes, relation, shape, epilogue, out);
    if out.is_empty() {
        return;
    }
    let engine = engine();
    let plan = Plan::new(engine, shape, tiles.taps, TILE_COLUMNS);
    let ranges: Vec<_> = plan.columns.iter().map(|c| c.range.clone()).collect();
    let job = Job { engine, x, weight, tiles, k: plan.k, shape, epilogue };
    split_tiles(out, shape.c_out, tiles.block, &ranges).into_par_iter().enumerate().for_each(|(i, out)| {
        job.block(i / ranges.len(), &plan.columns[i % ranges.len()], out);
    });
}

/// What all blocks share.
struct Job<'a, T, S: Clone> {
    engine: Engine,
    x: &'a [T],
    weight: &'a PackedTaps<'a, S>,
    tiles: &'a TileRef<'a>,
    k: usize,
    shape: ConvShape,
    epilogue: &'a Epilogue<'a, T>,
}

impl<T: Scalar<Acc = f32>, S: Scalar<Acc = f32>> Job<'_, T, S> {
    /// Some columns of a block of output rows.
    fn block(&self, block: usize, columns: &Columns, mut out: TileMut<'_, T>) {
        with_scratch(Purpose::Tile, out.rows() * columns.padded, |tile| {
            tile.fill(0.0);
            for tap in 0..self.tiles.taps {
                let pairs = self.tiles.pairs(block, tap);
                if !pairs.in_rows.is_empty() {
                    self.tap(pairs, columns, tap, tile);
                }
            }
            let first = block * self.tiles.block;
            finish_tile(self.engine, self.epilogue, first, self.shape.c_out, columns, tile, &mut out);
        });
    }

    /// The pairs of one tap. Rows of half precision are converted first, all of the block's, so that each panel is unpacked once.
    fn tap(&self, pairs: Pairs<'_>, columns: &Columns, tap: usize, tile: &mut [f32]) {
        let (k, c_in, group) = (self.k, self.shape.c_in, columns.group);
        let x = &self.x[pairs.in_base * c_in..];
        if let Some(x) = T::as_acc(x) {
            return self.panels(x, c_in, group * k, pairs.in_rows, pairs.out_local, columns, tap, tile);
        }
        with_scratch(Purpose::Rows, pairs.in_rows.len() * k, |wide| {
            for (&row, wide) in pairs.in_rows.iter().zip(wide.chunks_exact_mut(k)) {
                T::widen(self.engine, &x[row as usize * c_in + group * k..][..k], wide);
            }
            let rows = &IDENTITY.0[..pairs.in_rows.len()];
            self.panels(wide, k, 0, rows, pairs.out_local, columns, tap, tile);
        });
    }

    #[allow(
        clippy::too_many_arguments,
        reason = "a matrix (three), its pairs (two), and where they go (three)"
    )]
    fn panels(
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
        for first in (0..self.k).step_by(K_BLOCK) {
            let k = K_BLOCK.min(self.k - first);
            for &(start, vectors) in &columns.micro {
                let width = vectors * self.engine.lanes();
                let from = columns.range.start + start;
                let cols = from..columns.range.end.min(from + width);
                with_scratch(Purpose::Weights, k * width, |panel| {
                    self.weight.panel(self.engine, tap, first..first + k, cols, width, panel);
                    let product = Product {
                        x,
                        stride,
                        at: at + first,
                        rows,
                        out_local,
                        b: panel,
                        k,
                        vectors,
                        tile_stride: columns.padded,
                        tile_at: start,
                    };
                    self.engine.product(&product, tile);
                });
            }
        }
    }
}

const _: () =
    assert!(lattice_core::TapTiles::BLOCK <= IDENTITY_BLOCK, "the static list of row numbers serves a block");

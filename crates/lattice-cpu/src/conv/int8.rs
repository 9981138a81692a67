//! Convolution of bytes with packed weights: exact sums of integers a group of channels, combined in f32.

use lattice_core::Relation;
use rayon::prelude::*;

use super::ConvShape;
use super::packed::checked_pairs;
use super::panels::{Columns, Plan};
use super::tiles::{Pairs, TILE_COLUMNS, TileRef, finish_tile};
use crate::activations::{ActivationCodes, ByteRows};
use crate::isa::engine;
use crate::packed::{MOST_COLUMNS, PackedTaps};
use crate::scratch::{Purpose, with_scratch};
use crate::simd::{IntEngine, IntProduct, split_tiles};
use crate::{Epilogue, Scalar};

/// As [`conv_packed`](crate::conv_packed), with features in bytes: `x` is what `codes` makes of it, times its steps.
///
/// With `q` the bytes, `z` the bytes of 0, `a` the largest step and signed codes `c` of the weight, whose values are `s · c + b` a group:
/// `y = Σ a · s · Σ (q - z) · c + a · b · Σ (q - z)` over pairs and groups. The inner sums are integers and exact; the outer ones are in
/// f32, taps in ascending order.
///
/// # Panics
/// When a slice does not have its shape, or the codes are not for `c_in` channels.
pub fn conv_int8<T: Scalar<Acc = f32>, S: Scalar<Acc = f32>>(
    x: &[T],
    codes: &ActivationCodes,
    weight: &PackedTaps<'_, S>,
    relation: Option<&Relation>,
    shape: ConvShape,
    epilogue: &Epilogue<'_, T>,
    out: &mut [T],
) {
    let packed = weight.shape();
    let sizes = (packed.taps(), packed.c_in(), packed.c_out());
    let tiles = &checked_pairs("conv_int8", x, sizes, relation, shape, epilogue, out);
    assert_eq!(codes.zeros().len(), shape.c_in, "conv_int8: channels of the activation codes");
    if out.is_empty() {
        return;
    }
    let engine = IntEngine::new(engine());
    let bytes = ByteRows::quantize(x, codes, shape.groups, packed.group_size());
    let zeros = weight.weighted_sums(codes.zeros());
    let plan = Plan::with_lanes(engine.lanes(), engine.max_vectors(), shape, tiles.taps, TILE_COLUMNS);
    let ranges: Vec<_> = plan.columns.iter().map(|c| c.range.clone()).collect();
    let job =
        Job { engine, bytes: &bytes, weight, zeros: &zeros, step: codes.step(), tiles, c_out: shape.c_out };
    split_tiles(out, shape.c_out, tiles.block, &ranges).into_par_iter().enumerate().for_each(
        |(i, mut out)| {
            let (block, columns) = (i / ranges.len(), &plan.columns[i % ranges.len()]);
            with_scratch(Purpose::Tile, out.rows() * columns.padded, |tile| {
                job.block(block, columns, tile);
                let first = block * tiles.block;
                finish_tile(engine.plain(), epilogue, first, shape.c_out, columns, tile, &mut out);
            });
        },
    );
}

/// What all blocks share.
struct Job<'a, S: Clone> {
    engine: IntEngine,
    bytes: &'a ByteRows,
    weight: &'a PackedTaps<'a, S>,
    /// `Σ z · c`, `[taps, row groups, c_out]`.
    zeros: &'a [i32],
    step: f32,
    tiles: &'a TileRef<'a>,
    c_out: usize,
}

impl<S: Scalar<Acc = f32>> Job<'_, S> {
    /// The sums of some columns of a block of output rows.
    fn block(&self, block: usize, columns: &Columns, tile: &mut [f32]) {
        tile.fill(0.0);
        for tap in 0..self.tiles.taps {
            let pairs = self.tiles.pairs(block, tap);
            if pairs.in_rows.is_empty() {
                continue;
            }
            for group in 0..self.bytes.row_groups {
                for &micro in &columns.micro {
                    self.panel(pairs, columns, tap, group, micro, tile);
                }
            }
        }
    }

    /// The pairs of one tap, one scale group and one micro-panel.
    fn panel(
        &self,
        pairs: Pairs<'_>,
        columns: &Columns,
        tap: usize,
        group: usize,
        (start, vectors): (usize, usize),
        tile: &mut [f32],
    ) {
        let packed = self.weight.shape();
        let first = group * packed.group_size();
        let quads = (packed.c_in() - first).min(packed.group_size()).div_ceil(4);
        let width = vectors * self.engine.lanes();
        let from = columns.range.start + start;
        let cols = from..columns.range.end.min(from + width);
        let (mut scales, mut offsets) = self.weight.affine(self.engine.plain(), tap, group, &cols);
        let code_offset = self.weight.code_offset();
        for (scale, offset) in scales.iter_mut().zip(&mut offsets) {
            *offset = self.step * (*offset + code_offset * *scale);
            *scale *= self.step;
        }
        let mut begin = [0; MOST_COLUMNS];
        let at = (tap * self.bytes.row_groups + group) * self.c_out;
        for (begin, zero) in begin.iter_mut().zip(&self.zeros[at + cols.start..at + cols.end]) {
            *begin = -zero;
        }
        let (row_bytes, row_sums) = (self.bytes.row_bytes(), self.bytes.row_sums());
        with_scratch(Purpose::Weights, quads * width, |panel| {
            let panel: &mut [u32] = bytemuck::cast_slice_mut(panel);
            self.weight.quads(self.engine.plain(), tap, group, cols, width, panel);
            let product = IntProduct {
                x: &self.bytes.codes[pairs.in_base * row_bytes..],
                stride: row_bytes,
                at: columns.group * self.bytes.group_bytes + first,
                rows: pairs.in_rows,
                out_local: pairs.out_local,
                b: panel,
                quads,
                vectors,
                begin: &begin,
                scales: &scales,
                offsets: &offsets,
                sums: &self.bytes.sums[pairs.in_base * row_sums..],
                sum_stride: row_sums,
                sum_at: columns.group * self.bytes.row_groups + group,
                tile_stride: columns.padded,
                tile_at: start,
            };
            self.engine.product(&product, tile);
        });
    }
}

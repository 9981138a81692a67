//! Weight gradients: sums of outer products over fixed segments of output rows, added up in order.

use std::ops::Range;

use rayon::prelude::*;

use super::panels::{Columns, Plan};
use super::tiles::{IDENTITY, IDENTITY_BLOCK, Pairs, TileRef};
use super::{ConvShape, Gradient};
use crate::Scalar;
use crate::scratch::{Purpose, with_scratch};
use crate::simd::{Engine, Outer};

/// Most bytes of partial sums, unless those of one segment take more.
const PARTIAL_BYTES: usize = 16 << 20;

/// Most segments.
const MAX_SEGMENTS: usize = 64;

/// Most columns that are summed together: each further part reads the input rows again.
const SUM_COLUMNS: usize = 256;

/// Independent pieces of work that there should be at least, as far as segments and taps give them.
const MIN_PIECES: usize = 64;

/// Floats of rows of both sides that a micro-kernel streams: they should come from the first-level cache,
/// or stream from the second.
const PANEL_FLOATS: usize = 16384;

/// Fewest pairs of such a panel, so that adding to the partial sum stays cheap beside summing.
const MIN_PANEL_PAIRS: usize = 32;

/// `dw[tap] = sum over pairs of outer(x[in], g[out])`; every element of `dw` is written.
pub fn gradient<T: Scalar<Acc = f32>>(engine: Engine, job: Gradient<'_, T>, dw: &mut [T]) {
    let Gradient { x, g, pairs, shape } = job;
    // The plan of the forward product: `floats` and `at` are those of the sums, laid out [columns][tap][k, padded].
    let plan = Plan::new(engine, shape, pairs.taps, SUM_COLUMNS);
    let n_blocks = pairs.n_out.div_ceil(pairs.block);
    if n_blocks == 0 || plan.floats == 0 {
        return dw.fill(T::default());
    }
    let segments = (PARTIAL_BYTES / (4 * plan.floats)).clamp(1, MAX_SEGMENTS).min(n_blocks);
    let tap_parts = MIN_PIECES.div_ceil(segments).min(pairs.taps);
    let job = Job { engine, x, g, pairs, shape, plan: &plan };
    with_scratch(Purpose::Partials, segments * plan.floats, |partials| {
        // One piece: the taps `part` of some columns of a segment; its sums are contiguous.
        let mut pieces = Vec::new();
        for (segment, mut rest) in partials.chunks_exact_mut(plan.floats).enumerate() {
            let blocks = n_blocks * segment / segments..n_blocks * (segment + 1) / segments;
            for columns in &plan.columns {
                for part in 0..tap_parts {
                    let taps = pairs.taps * part / tap_parts..pairs.taps * (part + 1) / tap_parts;
                    let (now, later) = rest.split_at_mut(taps.len() * plan.k * columns.padded);
                    rest = later;
                    pieces.push((blocks.clone(), columns, taps, now));
                }
            }
        }
        pieces
            .into_par_iter()
            .for_each(|(blocks, columns, taps, sums)| job.piece(blocks, columns, taps, sums));
        job.reduce(partials, segments, dw);
    });
}

/// What all pieces share.
struct Job<'a, T> {
    engine: Engine,
    x: &'a [T],
    g: &'a [T],
    pairs: &'a TileRef<'a>,
    shape: ConvShape,
    plan: &'a Plan,
}

impl<T: Scalar<Acc = f32>> Job<'_, T> {
    /// Sums of some taps and columns over some blocks of output rows. Block by block, so that rows stay in cache for all taps.
    fn piece(&self, blocks: Range<usize>, columns: &Columns, taps: Range<usize>, sums: &mut [f32]) {
        let (k, width) = (self.plan.k, columns.padded);
        sums.fill(0.0);
        let most = (PANEL_FLOATS / (k + width)).clamp(MIN_PANEL_PAIRS, IDENTITY_BLOCK);
        with_scratch(Purpose::Rows, most * (k + width), |panels| {
            for block in blocks {
                for (tap, sum) in taps.clone().zip(sums.chunks_exact_mut(k * width)) {
                    let pairs = self.pairs.pairs(block, tap);
                    let total = pairs.in_rows.len();
                    // Panels of equal length: a last short one would cost as much as a whole one.
                    let length = total.div_ceil(total.div_ceil(most).max(1)).max(1);
                    for (in_rows, out_local) in
                        pairs.in_rows.chunks(length).zip(pairs.out_local.chunks(length))
                    {
                        self.panel(columns, block, Pairs { in_rows, out_local, ..pairs }, panels, sum);
                    }
                }
            }
        });
    }

    /// Adds the outer products of some pairs. Rows that are no `f32`, or whose columns are no whole vectors, are copied into
    /// `panels` first.
    fn panel(&self, columns: &Columns, block: usize, pairs: Pairs<'_>, panels: &mut [f32], sum: &mut [f32]) {
        let (engine, k, width, n_pairs) = (self.engine, self.plan.k, columns.padded, pairs.in_rows.len());
        let (c_in, c_out, n) = (self.shape.c_in, self.shape.c_out, columns.range.len());
        let (x_panel, g_panel) = panels.split_at_mut(panels.len() / (k + width) * k);
        let x = &self.x[pairs.in_base * c_in..];
        let (x, x_stride, x_at, x_rows) = match T::as_acc(x) {
            Some(x) => (x, c_in, columns.group * k, pairs.in_rows),
            None => {
                for (&row, to) in pairs.in_rows.iter().zip(x_panel.chunks_exact_mut(k)) {
                    T::widen(engine, &x[row as usize * c_in + columns.group * k..][..k], to);
                }
                (&*x_panel, k, 0, &IDENTITY.0[..n_pairs])
            }
        };
        let g = &self.g[block * self.pairs.block * c_out..];
        let (g, g_stride, g_first, g_rows) = match T::as_acc(g) {
            Some(g) if n == width => (g, c_out, columns.range.start, pairs.out_local),
            _ => {
                for (&row, to) in pairs.out_local.iter().zip(g_panel.chunks_exact_mut(width)) {
                    let (to, pad) = to.split_at_mut(n);
                    T::widen(engine, &g[usize::from(row) * c_out + columns.range.start..][..n], to);
                    pad.fill(0.0);
                }
                (&*g_panel, width, 0, &IDENTITY.1[..n_pairs])
            }
        };
        for &(sum_at, vectors) in &columns.micro {
            let g_at = g_first + sum_at;
            let outer = Outer {
                x,
                x_stride,
                x_at,
                x_rows,
                g,
                g_stride,
                g_at,
                g_rows,
                sum_stride: width,
                sum_at,
                k,
                vectors,
            };
            self.engine.outer(&outer, sum);
        }
    }

    /// Adds the segments in order and stores in the layout of the weights.
    fn reduce(&self, partials: &[f32], segments: usize, dw: &mut [T]) {
        let (engine, plan, c_out) = (self.engine, self.plan, self.shape.c_out);
        dw.par_chunks_mut(plan.k * c_out).enumerate().for_each(|(tap, dw)| {
            let mut total = Vec::new();
            for columns in &plan.columns {
                let len = plan.k * columns.padded;
                total.clear();
                total.resize(len, 0.0f32);
                for segment in 0..segments {
                    let partial = &partials[segment * plan.floats + columns.at + tap * len..][..len];
                    engine.vectorize(|| {
                        for (total, &partial) in total.iter_mut().zip(partial) {
                            *total += partial;
                        }
                    });
                }
                for (row, total) in dw.chunks_exact_mut(c_out).zip(total.chunks_exact(columns.padded)) {
                    T::narrow(engine, &total[..columns.range.len()], &mut row[columns.range.clone()]);
                }
            }
        });
    }
}

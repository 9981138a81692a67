//! Weight gradients: sums of outer products over fixed segments of output rows, added up in order.

use std::ops::Range;

use rayon::prelude::*;

use super::panels::{Columns, Plan};
use super::{ConvShape, Gradient};
use crate::Scalar;
use crate::scratch::{Purpose, with_scratch};
use crate::simd::{Engine, Outer};

/// Most bytes of partial sums, unless the weights alone take more than half of it.
const PARTIAL_BYTES: usize = 16 << 20;

/// Most segments.
const MAX_SEGMENTS: usize = 64;

/// Independent pieces of work that there should be at least, as far as segments and taps give them.
const MIN_PIECES: usize = 64;

/// Blocks of output rows whose taps are summed together: their rows should stay in the second-level cache.
const SUPERBLOCK: usize = 2;

/// Floats of rows of both sides that a micro-kernel streams: most of the first-level cache.
const PANEL_FLOATS: usize = 8192;

/// Fewest pairs of such a panel, so that adding to the partial sum stays cheap beside summing.
const MIN_PANEL_PAIRS: usize = 32;

/// `dw[tap] = sum over pairs of outer(x[in], g[out])`; every element of `dw` is written.
pub fn gradient<T: Scalar<Acc = f32>>(engine: Engine, job: Gradient<'_, T>, dw: &mut [T]) {
    let Gradient { x, g, pairs, shape } = job;
    // The plan of the forward product: `floats` and `at` are those of the sums, laid out [columns][tap][k, padded].
    let plan = Plan::new(engine, shape, pairs.taps);
    let n_blocks = pairs.n_out.div_ceil(pairs.block);
    if n_blocks == 0 || plan.floats == 0 {
        return dw.fill(T::default());
    }
    let segments = (PARTIAL_BYTES / (4 * plan.floats)).clamp(1, MAX_SEGMENTS).min(n_blocks.div_ceil(SUPERBLOCK));
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
        pieces.into_par_iter().for_each(|(blocks, columns, taps, sums)| job.piece(blocks, columns, taps, sums));
        job.reduce(partials, segments, dw);
    });
}

/// What all pieces share.
struct Job<'a, T> {
    engine: Engine,
    x: &'a [T],
    g: &'a [T],
    pairs: &'a super::tiles::TileRef<'a>,
    shape: ConvShape,
    plan: &'a Plan,
}

/// Rows of both sides of some pairs.
struct PairRows {
    x: Vec<u32>,
    g: Vec<u32>,
}

impl<T: Scalar<Acc = f32>> Job<'_, T> {
    /// Sums of some taps and columns over some blocks of output rows.
    fn piece(&self, blocks: Range<usize>, columns: &Columns, taps: Range<usize>, sums: &mut [f32]) {
        let (k, width) = (self.plan.k, columns.padded);
        sums.fill(0.0);
        let most = (PANEL_FLOATS / (k + width)).max(MIN_PANEL_PAIRS);
        with_scratch(Purpose::Rows, most * (k + width), |panels| {
            let mut rows = PairRows { x: Vec::with_capacity(most), g: Vec::with_capacity(most) };
            for start in blocks.clone().step_by(SUPERBLOCK) {
                let now = start..blocks.end.min(start + SUPERBLOCK);
                for (tap, sum) in taps.clone().zip(sums.chunks_exact_mut(k * width)) {
                    // Panels of equal length: a last short one would cost as much as a whole one.
                    let total: usize = now.clone().map(|block| self.pairs.pairs(block, tap).0.len()).sum();
                    let length = total.div_ceil(total.div_ceil(most).max(1));
                    for block in now.clone() {
                        let first = (block * self.pairs.block) as u32;
                        let (in_rows, out_local) = self.pairs.pairs(block, tap);
                        for (&i, &o) in in_rows.iter().zip(out_local) {
                            rows.x.push(i);
                            rows.g.push(first + u32::from(o));
                            if rows.x.len() == length {
                                self.panel(columns, &mut rows, panels, sum);
                            }
                        }
                    }
                    self.panel(columns, &mut rows, panels, sum);
                }
            }
        });
    }

    /// Adds the outer products of some pairs and clears them. Rows that are no `f32`, or whose columns are no whole vectors, are
    /// copied into `panels` first.
    fn panel(&self, columns: &Columns, rows: &mut PairRows, panels: &mut [f32], sum: &mut [f32]) {
        let (engine, k, width) = (self.engine, self.plan.k, columns.padded);
        let (c_in, c_out, n) = (self.shape.c_in, self.shape.c_out, columns.range.len());
        let (x_panel, g_panel) = panels.split_at_mut(panels.len() / (k + width) * k);
        let (x, x_stride, x_at) = match T::as_acc(self.x) {
            Some(x) => (x, c_in, columns.group * k),
            None => {
                for (p, (row, to)) in rows.x.iter_mut().zip(x_panel.chunks_exact_mut(k)).enumerate() {
                    T::widen(engine, &self.x[*row as usize * c_in + columns.group * k..][..k], to);
                    *row = p as u32;
                }
                (&*x_panel, k, 0)
            }
        };
        let (g, g_stride, g_first) = match T::as_acc(self.g) {
            Some(g) if n == width => (g, c_out, columns.range.start),
            _ => {
                for (p, (row, to)) in rows.g.iter_mut().zip(g_panel.chunks_exact_mut(width)).enumerate() {
                    let (to, pad) = to.split_at_mut(n);
                    T::widen(engine, &self.g[*row as usize * c_out + columns.range.start..][..n], to);
                    pad.fill(0.0);
                    *row = p as u32;
                }
                (&*g_panel, width, 0)
            }
        };
        let (x_rows, g_rows) = (&rows.x[..], &rows.g[..]);
        for &(sum_at, vectors) in &columns.micro {
            let g_at = g_first + sum_at;
            let outer =
                Outer { x, x_stride, x_at, x_rows, g, g_stride, g_at, g_rows, sum_stride: width, sum_at, k, vectors };
            self.engine.outer(&outer, sum);
        }
        rows.x.clear();
        rows.g.clear();
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

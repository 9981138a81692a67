//! Weights packed for the micro-kernels.

use std::ops::Range;

use rayon::prelude::*;

use super::ConvShape;
use crate::Scalar;
use crate::simd::Engine;

/// Some output columns of one group.
#[derive(Clone, Debug)]
pub(super) struct Columns {
    /// Group that they belong to.
    pub group: usize,
    /// Their place among all output columns.
    pub range: Range<usize>,
    /// Floats of a tile row: the columns rounded up to whole vectors.
    pub padded: usize,
    /// Micro-panels: first column within the tile, and vectors.
    pub micro: Vec<(usize, usize)>,
    /// Floats of the packed weights of all columns before.
    pub at: usize,
}

/// How the output columns are cut, from shapes and lanes alone.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    /// Input channels of a group.
    pub k: usize,
    /// Kernel taps.
    pub taps: usize,
    /// The cuts, in ascending columns.
    pub columns: Vec<Columns>,
    /// Floats of all packed weights.
    pub floats: usize,
    lanes: usize,
}

impl Plan {
    /// `shape` names the channels of the product that runs: for an input gradient its input is the gradient. A tile
    /// has at most `tile_columns`, a multiple of the lanes.
    pub fn new(engine: Engine, shape: ConvShape, taps: usize, tile_columns: usize) -> Self {
        Self::with_lanes(engine.lanes(), engine.max_vectors(), shape, taps, tile_columns)
    }

    /// [`new`](Self::new) for vectors of so many lanes, of which a micro-kernel holds `most` side by side.
    pub fn with_lanes(lanes: usize, most: usize, shape: ConvShape, taps: usize, tile_columns: usize) -> Self {
        let (k, n) = (shape.c_in / shape.groups, shape.c_out / shape.groups);
        let mut plan = Self { k, taps, columns: Vec::new(), floats: 0, lanes };
        let tiles = n.div_ceil(tile_columns);
        for group in 0..shape.groups {
            for tile in 0..tiles {
                // Whole vectors a tile, evenly: 96 columns are 48 + 48.
                let vectors = n.div_ceil(lanes);
                let cut = |t: usize| (vectors * t / tiles * lanes).min(n);
                let range = group * n + cut(tile)..group * n + cut(tile + 1);
                let vectors = range.len().div_ceil(lanes);
                let parts = vectors.div_ceil(most);
                let bound = |p: usize| vectors * p / parts;
                let micro = (0..parts).map(|p| (bound(p) * lanes, bound(p + 1) - bound(p))).collect();
                let padded = vectors * lanes;
                plan.columns.push(Columns { group, range, padded, micro, at: plan.floats });
                plan.floats += taps * k * padded;
            }
        }
        plan
    }

    /// The packed panel of a tap and a micro-panel: `[k, vectors * lanes]`.
    pub fn panel<'a>(
        &self,
        packed: &'a [f32],
        columns: &Columns,
        tap: usize,
        micro: (usize, usize),
    ) -> &'a [f32] {
        let start = columns.at + (tap * columns.padded + micro.0) * self.k;
        &packed[start..start + self.k * micro.1 * self.lanes]
    }

    /// Packs `[taps, k, groups * n]` weights; columns past the end are 0. With `transposed` the weights are those of the forward
    /// product, `[taps, n, groups * k]`.
    pub fn pack<T: Scalar<Acc = f32>>(&self, engine: Engine, w: &[T], transposed: bool, packed: &mut [f32]) {
        if self.k == 0 {
            return;
        }
        let mut rest = packed;
        let mut jobs = Vec::new();
        for columns in &self.columns {
            let (now, later) = rest.split_at_mut(self.taps * self.k * columns.padded);
            rest = later;
            jobs.extend(
                now.chunks_mut(self.k * columns.padded).enumerate().map(|(tap, panel)| (columns, tap, panel)),
            );
        }
        let per_tap = w.len() / self.taps.max(1);
        let groups = self.columns.last().map_or(1, |c| c.group + 1);
        let n_all = per_tap / self.k; // columns of the untransposed matrix
        let n = n_all / groups;
        jobs.into_par_iter().for_each(|(columns, tap, panel)| {
            let w = &w[tap * per_tap..][..per_tap];
            let mut rest = panel;
            for &(first, vectors) in &columns.micro {
                let width = vectors * self.lanes;
                let (now, later) = rest.split_at_mut(self.k * width);
                rest = later;
                let start = columns.range.start + first;
                let cols = width.min(columns.range.end - start);
                for (k, row) in now.chunks_exact_mut(width).enumerate() {
                    let (row, pad) = row.split_at_mut(cols);
                    pad.fill(0.0);
                    if transposed {
                        let local = start - columns.group * n;
                        for (j, to) in row.iter_mut().enumerate() {
                            *to = w[(local + j) * groups * self.k + columns.group * self.k + k].to_acc();
                        }
                    } else {
                        T::widen(engine, &w[k * n_all + start..][..cols], row);
                    }
                }
            }
        });
    }
}

//! Attention among the rows of patches, without a matrix of all scores.

use rayon::prelude::*;

use crate::functions::exp;
use crate::isa::engine;
use crate::scratch::{Purpose, with_scratch};
use crate::simd::{Engine, Product};

/// Queries whose scores are alive at a time.
const QUERIES: usize = 32;
/// Queries that share packed keys and values.
const SHARED_QUERIES: usize = 256;

/// Patches of one length that stand next to each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PatchRun {
    /// First row.
    pub first: usize,
    /// Number of patches.
    pub patches: usize,
    /// Rows of each.
    pub length: usize,
}

/// Sizes of an attention.
#[derive(Clone, Copy)]
struct Sizes {
    channels: usize,
    heads: usize,
    /// Channels of a head.
    width: usize,
    scale: f32,
}

/// Queries of one patch: a task.
struct Task<'a> {
    /// Rows of the patch.
    patch: std::ops::Range<usize>,
    /// First query.
    first: usize,
    /// `[queries, channels]`.
    out: &'a mut [f32],
}

/// `out[r] = Σ_s softmax_s(q[r] · k[s] / sqrt(channels / heads)) · v[s]` over the rows `s` of `r`'s patch, per head.
///
/// # Shapes
/// `qkv`: `[n, 3 · channels]`, queries, keys and values side by side, each with the channels of a head next to each other; `runs` hold all rows in
/// order; `out`: `[n, channels]`, every element of which is written. Memory: `32 · length` scores a thread, and the keys and values of a head.
/// Deterministic: the same bits for any number of threads. Rows with a NaN among their scores become NaN.
///
/// # Panics
/// When a slice does not have its shape, heads do not divide the channels, or runs do not hold the rows in order.
pub fn patch_attention(qkv: &[f32], runs: &[PatchRun], channels: usize, heads: usize, out: &mut [f32]) {
    let op = "patch_attention";
    assert!(heads > 0 && channels > 0 && channels.is_multiple_of(heads), "{op}: heads divide the channels");
    let n = out.len() / channels;
    assert_eq!((qkv.len(), out.len()), (3 * n * channels, n * channels), "{op}: lengths of input and output");
    assert!(u32::try_from(n).is_ok(), "{op}: {n} rows pass 32 bits");
    let width = channels / heads;
    let sizes = Sizes { channels, heads, width, scale: 1.0 / (width as f32).sqrt() };
    let mut tasks = Vec::new();
    let (mut rest, mut at) = (out, 0);
    for run in runs {
        assert_eq!(run.first, at, "{op}: runs follow one another");
        // Patches without rows are none, however many there are.
        let patches = if run.length == 0 { 0 } else { run.patches };
        for _ in 0..patches {
            let patch = at..at + run.length;
            let (mine, later) = rest.split_at_mut(run.length * channels);
            rest = later;
            let blocks = mine.chunks_mut(SHARED_QUERIES * channels).enumerate();
            tasks.extend(blocks.map(|(block, out)| {
                let first = patch.start + block * SHARED_QUERIES;
                Task { patch: patch.clone(), first, out }
            }));
            at = patch.end;
        }
    }
    assert!(rest.is_empty(), "{op}: runs hold {at} of {n} rows");
    let engine = engine();
    tasks.into_par_iter().for_each(|task| attend(engine, qkv, sizes, task));
}

/// Micro-panels of so many columns: first column and vectors of each.
fn panels(engine: Engine, columns: usize) -> impl Iterator<Item = (usize, usize)> {
    let vectors = columns.div_ceil(engine.lanes());
    let most = engine.max_vectors();
    (0..vectors).step_by(most).map(move |first| (first * engine.lanes(), most.min(vectors - first)))
}

fn attend(engine: Engine, qkv: &[f32], sizes: Sizes, task: Task<'_>) {
    let Sizes { channels, heads, width, .. } = sizes;
    let lanes = engine.lanes();
    let length = task.patch.len();
    let (keys, values) = (length.next_multiple_of(lanes), width.next_multiple_of(lanes));
    let queries = task.out.len() / channels;
    let rows: Vec<u32> = (task.first..task.first + queries).map(|row| row as u32).collect();
    let own: Vec<u32> = (0..QUERIES as u32).collect();
    with_scratch(Purpose::Weights, width * keys + length * values, |packed| {
        let (packed_keys, packed_values) = packed.split_at_mut(width * keys);
        with_scratch(Purpose::Tile, QUERIES * (keys + values), |tile| {
            let (scores, mixed) = tile.split_at_mut(QUERIES * keys);
            for head in 0..heads {
                pack_keys(engine, qkv, sizes, &task.patch, head, packed_keys);
                pack_values(engine, qkv, sizes, &task.patch, head, packed_values);
                for (rows, out) in rows.chunks(QUERIES).zip(task.out.chunks_mut(QUERIES * channels)) {
                    let n = rows.len();
                    let (scores, mixed) = (&mut scores[..n * keys], &mut mixed[..n * values]);
                    let queries = Gathered { x: qkv, stride: 3 * channels, at: head * width, rows };
                    multiply(engine, queries, packed_keys, [width, length], scores);
                    let mut sums = [0.0f32; QUERIES];
                    for (row, sum) in scores.chunks_exact_mut(keys).zip(&mut sums) {
                        *sum = exponentials(engine, &mut row[..length]);
                    }
                    let weights = Gathered { x: scores, stride: keys, at: 0, rows: &own[..n] };
                    multiply(engine, weights, packed_values, [length, width], mixed);
                    for ((out, mixed), sum) in
                        out.chunks_exact_mut(channels).zip(mixed.chunks_exact(values)).zip(sums)
                    {
                        let out = &mut out[head * width..][..width];
                        for (out, &value) in out.iter_mut().zip(mixed) {
                            *out = value / sum;
                        }
                    }
                }
            }
        });
    });
}

/// Rows of features, from a column on: the left side of a product.
struct Gathered<'a> {
    x: &'a [f32],
    /// Floats between two rows of `x`.
    stride: usize,
    /// First column.
    at: usize,
    rows: &'a [u32],
}

/// `out = x @ packed`, with `packed` `[k, n]` in panels and rows of `out` as wide as whole vectors.
fn multiply(engine: Engine, x: Gathered<'_>, packed: &[f32], [k, n]: [usize; 2], out: &mut [f32]) {
    let out_local: [u16; QUERIES] = std::array::from_fn(|row| row as u16);
    out.fill(0.0);
    for (first, vectors) in panels(engine, n) {
        let product = Product {
            x: x.x,
            stride: x.stride,
            at: x.at,
            rows: x.rows,
            out_local: &out_local[..x.rows.len()],
            b: &packed[first * k..][..vectors * engine.lanes() * k],
            k,
            vectors,
            tile_stride: n.next_multiple_of(engine.lanes()),
            tile_at: first,
        };
        engine.product(&product, out);
    }
}

/// Keys of a head times the scale, `[panel, channel, key]`; keys past the last are 0.
fn pack_keys(
    engine: Engine,
    qkv: &[f32],
    sizes: Sizes,
    patch: &std::ops::Range<usize>,
    head: usize,
    packed: &mut [f32],
) {
    let Sizes { channels, width, scale, .. } = sizes;
    for (first, vectors) in panels(engine, patch.len()) {
        let columns = vectors * engine.lanes();
        let panel = &mut packed[first * width..][..columns * width];
        for column in 0..columns {
            let row = patch.start + first + column;
            if row < patch.end {
                let key = &qkv[(3 * row + 1) * channels + head * width..][..width];
                for (channel, &value) in key.iter().enumerate() {
                    panel[channel * columns + column] = value * scale;
                }
            } else {
                panel.iter_mut().skip(column).step_by(columns).for_each(|value| *value = 0.0);
            }
        }
    }
}

/// Values of a head, `[panel, key, channel]`; channels past the last are 0.
fn pack_values(
    engine: Engine,
    qkv: &[f32],
    sizes: Sizes,
    patch: &std::ops::Range<usize>,
    head: usize,
    packed: &mut [f32],
) {
    let Sizes { channels, width, .. } = sizes;
    let length = patch.len();
    for (first, vectors) in panels(engine, width) {
        let columns = vectors * engine.lanes();
        let there = columns.min(width - first);
        let panel = &mut packed[first * length..][..columns * length];
        for (row, to) in patch.clone().zip(panel.chunks_exact_mut(columns)) {
            let (to, pad) = to.split_at_mut(there);
            to.copy_from_slice(&qkv[(3 * row + 2) * channels + head * width + first..][..there]);
            pad.fill(0.0);
        }
    }
}

/// Replaces scores by `exp(score - max)` and returns their sum.
fn exponentials(engine: Engine, scores: &mut [f32]) -> f32 {
    // As many running values as keep a processor's pipelines full, in a fixed order on every instruction set.
    const STREAMS: usize = 32;
    let largest = engine.vectorize(|| {
        let mut largest = [f32::NEG_INFINITY; STREAMS];
        let chunks = scores.chunks_exact(STREAMS);
        for (most, &score) in largest.iter_mut().zip(chunks.remainder()) {
            *most = score;
        }
        for chunk in chunks {
            for (most, &score) in largest.iter_mut().zip(chunk) {
                *most = if score > *most { score } else { *most };
            }
        }
        halve(&mut largest, f32::max)
    });
    engine.vectorize(|| {
        for score in scores.iter_mut() {
            *score = exp(*score - largest);
        }
    });
    engine.vectorize(|| {
        let mut sums = [0.0f32; STREAMS];
        let chunks = scores.chunks_exact(STREAMS);
        for (sum, &score) in sums.iter_mut().zip(chunks.remainder()) {
            *sum = score;
        }
        for chunk in chunks {
            for (sum, &score) in sums.iter_mut().zip(chunk) {
                *sum += score;
            }
        }
        halve(&mut sums, |a, b| a + b)
    })
}

/// Joins the second half of some values with the first until one is left.
#[inline(always)]
fn halve(values: &mut [f32], join: impl Fn(f32, f32) -> f32) -> f32 {
    let mut values = values;
    while values.len() > 1 {
        let half = values.len() / 2;
        let (first, second) = values.split_at_mut(half);
        for (a, &b) in first.iter_mut().zip(&*second) {
            *a = join(*a, b);
        }
        values = first;
    }
    values[0]
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::{Isa, with_isa};

    fn values(len: usize) -> Vec<f32> {
        let mut state = 7u32;
        let mut next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as f32 / (1 << 23) as f32 - 1.0
        };
        (0..len).map(|_| 3.0 * next()).collect()
    }

    /// By loops in `f64`.
    fn loops(qkv: &[f32], runs: &[PatchRun], channels: usize, heads: usize) -> Vec<f64> {
        let width = channels / heads;
        let at = |row: usize, part: usize, head: usize, c: usize| {
            f64::from(qkv[(3 * row + part) * channels + head * width + c])
        };
        let mut out = Vec::new();
        for run in runs {
            for patch in 0..run.patches {
                let rows = run.first + patch * run.length..run.first + (patch + 1) * run.length;
                for r in rows.clone() {
                    for head in 0..heads {
                        let score = |s: usize| {
                            let dot: f64 = (0..width).map(|c| at(r, 0, head, c) * at(s, 1, head, c)).sum();
                            (dot / (width as f64).sqrt()).exp()
                        };
                        let weights: Vec<f64> = rows.clone().map(score).collect();
                        let total: f64 = weights.iter().sum();
                        out.extend((0..width).map(|c| {
                            let mixed: f64 =
                                rows.clone().zip(&weights).map(|(s, w)| w * at(s, 2, head, c)).sum();
                            mixed / total
                        }));
                    }
                }
            }
        }
        out
    }

    #[test]
    fn attention_matches_the_loops_on_every_instruction_set() {
        let run = |first, patches, length| PatchRun { first, patches, length };
        for (runs, channels, heads) in [
            (vec![run(0, 3, 1)], 4, 1),
            (vec![run(0, 2, 17), run(34, 1, 300)], 6, 3),
            (vec![run(0, 1, 33)], 40, 2),
            (vec![run(0, 2, 64), run(128, 3, 5)], 32, 2),
            (vec![run(0, 1, 70)], 100, 1),
        ] {
            let n = runs.iter().map(|run| run.patches * run.length).sum::<usize>();
            let qkv = values(3 * n * channels);
            let expected = loops(&qkv, &runs, channels, heads);
            for isa in Isa::ALL.into_iter().filter(|isa| isa.is_available()) {
                let mut out = vec![f32::NAN; n * channels];
                with_isa(isa, || patch_attention(&qkv, &runs, channels, heads, &mut out)).unwrap();
                // Scores reach 30, so a rounded one moves its weight by up to 2e-6 of itself.
                for (found, expected) in out.iter().zip(&expected) {
                    assert!(
                        (f64::from(*found) - expected).abs() < 1e-5,
                        "{isa:?}: {found}, expected {expected}"
                    );
                }
            }
        }
    }

    #[test]
    fn threads_do_not_change_a_bit() {
        let runs = [PatchRun { first: 0, patches: 2, length: 600 }];
        let qkv = values(3 * 1200 * 8);
        let with_threads = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            let mut out = vec![0.0; 1200 * 8];
            pool.install(|| patch_attention(&qkv, &runs, 8, 2, &mut out));
            out
        };
        assert_eq!(with_threads(1), with_threads(3));
    }

    #[test]
    fn rows_with_a_nan_become_nan_and_others_stay() {
        let runs = [PatchRun { first: 0, patches: 2, length: 4 }];
        let mut qkv = values(3 * 8 * 2);
        qkv[0] = f32::NAN;
        let mut out = vec![0.0; 16];
        patch_attention(&qkv, &runs, 2, 1, &mut out);
        assert!(out[..2].iter().all(|v| v.is_nan()) && out[2..].iter().all(|v| v.is_finite()));
    }
}

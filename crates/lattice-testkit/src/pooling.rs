//! Pooling over the pairs of a relation, transposed pooling, trilinear upsampling, global pooling; with gradients.
//!
//! `x` is `[n_in, c]` row-major; a row without pairs is 0 in every mode.

use crate::offsets::Kernel;
use crate::relations::Edge;
use crate::views::neighbour_counts;

/// `y[o] = Σ x[i]`.
pub fn pool_sum(x: &[f64], c: usize, edges: &[Edge], n_out: usize) -> Vec<f64> {
    let mut y = vec![0.0; n_out * c];
    for &(i, o, _) in edges {
        for channel in 0..c {
            y[o as usize * c + channel] += x[i as usize * c + channel];
        }
    }
    y
}

/// `dx[i] = Σ g[o]`, the gradient of [`pool_sum`].
pub fn pool_sum_grad(g: &[f64], c: usize, edges: &[Edge], n_in: usize) -> Vec<f64> {
    let backwards: Vec<Edge> = edges.iter().map(|&(i, o, k)| (o, i, k)).collect();
    pool_sum(g, c, &backwards, n_in)
}

/// `y[o] = Σ x[i] / max(pairs of o, 1)`: the mean over the rows that exist, not over the kernel's volume.
pub fn pool_avg(x: &[f64], c: usize, edges: &[Edge], n_out: usize) -> Vec<f64> {
    let counts = neighbour_counts(edges, n_out);
    let sums = pool_sum(x, c, edges, n_out);
    sums.iter().enumerate().map(|(at, sum)| sum / counts[at / c].max(1) as f64).collect()
}

/// `dx[i] = Σ g[o] / pairs of o`, the gradient of [`pool_avg`].
pub fn pool_avg_grad(g: &[f64], c: usize, edges: &[Edge], n_in: usize) -> Vec<f64> {
    let counts = neighbour_counts(edges, g.len() / c);
    let shared: Vec<f64> = g.iter().enumerate().map(|(at, g)| g / counts[at / c].max(1) as f64).collect();
    pool_sum_grad(&shared, c, edges, n_in)
}

/// `y[o] = max x[i]` per channel; a NaN among the inputs makes the result NaN.
pub fn pool_max(x: &[f64], c: usize, edges: &[Edge], n_out: usize) -> Vec<f64> {
    let mut y: Vec<Option<f64>> = vec![None; n_out * c];
    for &(i, o, _) in edges {
        for channel in 0..c {
            let (value, best) = (x[i as usize * c + channel], &mut y[o as usize * c + channel]);
            *best = Some(best.map_or(value, |best| larger(best, value)));
        }
    }
    y.into_iter().map(|best| best.unwrap_or(0.0)).collect()
}

/// Gradient of [`pool_max`]: `g[o]` split evenly over the inputs that equal the maximum. A NaN maximum equals none.
pub fn pool_max_grad(x: &[f64], g: &[f64], c: usize, edges: &[Edge], n_in: usize) -> Vec<f64> {
    let y = pool_max(x, c, edges, g.len() / c);
    let mut dx = vec![0.0; n_in * c];
    for channel in 0..c {
        for (o, _) in neighbour_counts(edges, g.len() / c).iter().enumerate() {
            let at = o * c + channel;
            let winners: Vec<usize> = (edges.iter().filter(|e| e.1 as usize == o))
                .map(|e| e.0 as usize * c + channel)
                .filter(|&from| x[from] == y[at])
                .collect();
            for &from in &winners {
                dx[from] += g[at] / winners.len() as f64;
            }
        }
    }
    dx
}

fn larger(a: f64, b: f64) -> f64 {
    if a.is_nan() || b.is_nan() {
        f64::NAN
    } else if b > a {
        b
    } else {
        a
    }
}

/// Transposed pooling over the pairs of a target-transposed (or transposed) relation: every fine row is the mean of the
/// coarse rows that reach it.
pub fn pool_transpose(x: &[f64], c: usize, edges: &[Edge], n_out: usize) -> Vec<f64> {
    pool_avg(x, c, edges, n_out)
}

/// Geometry of trilinear upsampling by `stride`: size `2s-1`, padding `s-1`, dilation 1.
pub fn trilinear_kernel(stride: [u32; 3]) -> Kernel {
    Kernel::new(stride.map(|s| 2 * s - 1), stride, stride.map(|s| s - 1), [1; 3])
}

/// Weight of every tap of [`trilinear_kernel`]: the product over axes of `1 - |i - (s-1)| / s`.
pub fn trilinear_weights(stride: [u32; 3]) -> Vec<f64> {
    let at = |s: u32, i: u32| 1.0 - (f64::from(i) - (f64::from(s) - 1.0)).abs() / f64::from(s);
    let mut weights = Vec::new();
    for i in 0..2 * stride[0] - 1 {
        for j in 0..2 * stride[1] - 1 {
            for l in 0..2 * stride[2] - 1 {
                weights.push(at(stride[0], i) * at(stride[1], j) * at(stride[2], l));
            }
        }
    }
    weights
}

/// Sum of the tap weights that each output row has pairs for.
fn weight_sums(edges: &[Edge], weights: &[f64], n_out: usize) -> Vec<f64> {
    let mut sums = vec![0.0; n_out];
    for &(_, o, k) in edges {
        sums[o as usize] += weights[k as usize];
    }
    sums
}

/// `y[t] = Σ w[k]·x[i] / Σ w[k]` over the pairs of `t`; 0 for a row without pairs.
pub fn trilinear(x: &[f64], c: usize, edges: &[Edge], weights: &[f64], n_out: usize) -> Vec<f64> {
    let sums = weight_sums(edges, weights, n_out);
    let mut y = vec![0.0; n_out * c];
    for &(i, o, k) in edges {
        for channel in 0..c {
            y[o as usize * c + channel] +=
                weights[k as usize] * x[i as usize * c + channel] / sums[o as usize];
        }
    }
    y
}

/// `dx[i] = Σ w[k]·g[t] / Σ w`, the gradient of [`trilinear`].
pub fn trilinear_grad(g: &[f64], c: usize, edges: &[Edge], weights: &[f64], n_in: usize) -> Vec<f64> {
    let sums = weight_sums(edges, weights, g.len() / c);
    let mut dx = vec![0.0; n_in * c];
    for &(i, o, k) in edges {
        for channel in 0..c {
            dx[i as usize * c + channel] +=
                weights[k as usize] * g[o as usize * c + channel] / sums[o as usize];
        }
    }
    dx
}

/// Pairs from every row to its batch item, so that global pooling is pooling over them. Batch ids lie in `0..n_batches`.
pub fn global_edges(batch: &[i32], n_batches: usize) -> Vec<Edge> {
    let mut edges = Vec::new();
    for item in 0..n_batches {
        for (row, &id) in batch.iter().enumerate() {
            assert!((0..n_batches as i32).contains(&id), "batch id {id} outside 0..{n_batches}");
            if id == item as i32 {
                edges.push((row as u32, item as u32, 0));
            }
        }
    }
    edges
}

/// `[n_batches, c]`: the sum of every batch item's rows.
pub fn global_sum(x: &[f64], c: usize, batch: &[i32], n_batches: usize) -> Vec<f64> {
    pool_sum(x, c, &global_edges(batch, n_batches), n_batches)
}

/// `[n_batches, c]`: the mean of every batch item's rows, 0 for an empty item.
pub fn global_avg(x: &[f64], c: usize, batch: &[i32], n_batches: usize) -> Vec<f64> {
    pool_avg(x, c, &global_edges(batch, n_batches), n_batches)
}

/// `[n_batches, c]`: the maximum of every batch item's rows; `None` when an item is empty or there is none.
pub fn global_max(x: &[f64], c: usize, batch: &[i32], n_batches: usize) -> Option<Vec<f64>> {
    let every_item_has_rows = (0..n_batches as i32).all(|item| batch.contains(&item));
    (n_batches > 0 && every_item_has_rows).then(|| pool_max(x, c, &global_edges(batch, n_batches), n_batches))
}

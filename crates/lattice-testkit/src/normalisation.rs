//! Batch, layer, rms, group and instance normalisation in `f64`, with gradients.
//!
//! All but rms are one idea: values are put into sets, each set gets mean 0 and (biased) variance 1, and every channel
//! its scale and shift. `x` is `[n, c]` row-major.

/// What normalisation over sets computes on the way.
#[derive(Clone, Debug)]
pub struct Standardized {
    /// Result before scale and shift.
    pub normal: Vec<f64>,
    /// Mean of every set, 0 for an empty one.
    pub mean: Vec<f64>,
    /// Biased variance of every set, 0 for an empty one.
    pub var: Vec<f64>,
}

/// Subtracts the mean of its set from every value and divides by `sqrt(variance + eps)`; `set_of[at] < n_sets`.
pub fn standardize(x: &[f64], set_of: &[usize], n_sets: usize, eps: f64) -> Standardized {
    let mean: Vec<f64> = (0..n_sets).map(|set| mean_of(x, set_of, set)).collect();
    let squares: Vec<f64> = (0..x.len()).map(|at| (x[at] - mean[set_of[at]]).powi(2)).collect();
    let var: Vec<f64> = (0..n_sets).map(|set| mean_of(&squares, set_of, set)).collect();
    let normal = (0..x.len()).map(|at| (x[at] - mean[set_of[at]]) / (var[set_of[at]] + eps).sqrt()).collect();
    Standardized { normal, mean, var }
}

/// Gradient of [`standardize`]: `(h - mean h - normal·mean(h·normal)) / sqrt(var + eps)`, the means over each set.
pub fn standardize_grad(x: &[f64], h: &[f64], set_of: &[usize], n_sets: usize, eps: f64) -> Vec<f64> {
    let made = standardize(x, set_of, n_sets, eps);
    let along: Vec<f64> = (0..x.len()).map(|at| h[at] * made.normal[at]).collect();
    let mean_h: Vec<f64> = (0..n_sets).map(|set| mean_of(h, set_of, set)).collect();
    let mean_along: Vec<f64> = (0..n_sets).map(|set| mean_of(&along, set_of, set)).collect();
    (0..x.len())
        .map(|at| {
            let set = set_of[at];
            (h[at] - mean_h[set] - made.normal[at] * mean_along[set]) / (made.var[set] + eps).sqrt()
        })
        .collect()
}

fn mean_of(x: &[f64], set_of: &[usize], set: usize) -> f64 {
    let (mut sum, mut count) = (0.0, 0.0);
    for at in 0..x.len() {
        if set_of[at] == set {
            sum += x[at];
            count += 1.0;
        }
    }
    if count == 0.0 { 0.0 } else { sum / count }
}

/// Which values of `[n, c]` share their statistics.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sets {
    /// One set a channel: batch normalisation.
    Channel,
    /// One set a row: layer normalisation.
    Row,
    /// One set for every batch item and group of channels: group normalisation, and instance normalisation when every
    /// channel is its own group.
    ItemGroup {
        /// Batch id of every row, at least 0.
        batch: Vec<i32>,
        /// Number of groups; divides the channels.
        groups: usize,
    },
}

impl Sets {
    /// Instance normalisation: every batch item and channel alone.
    pub fn instance(batch: &[i32], c: usize) -> Self {
        Self::ItemGroup { batch: batch.to_vec(), groups: c }
    }

    /// The set of every value of an `[n, c]` array, and how many sets there are.
    pub fn of(&self, n: usize, c: usize) -> (Vec<usize>, usize) {
        let mut set_of = Vec::new();
        for row in 0..n {
            for channel in 0..c {
                set_of.push(match self {
                    Self::Channel => channel,
                    Self::Row => row,
                    Self::ItemGroup { batch, groups } => {
                        batch[row] as usize * groups + channel / (c / groups)
                    }
                });
            }
        }
        let n_sets = set_of.iter().max().map_or(0, |last| last + 1);
        (set_of, n_sets)
    }
}

/// `standardized·scale[channel] + shift[channel]`.
pub fn normalize(x: &[f64], c: usize, sets: &Sets, scale: &[f64], shift: &[f64], eps: f64) -> Vec<f64> {
    let (set_of, n_sets) = sets.of(x.len() / c, c);
    let normal = standardize(x, &set_of, n_sets, eps).normal;
    normal.iter().enumerate().map(|(at, v)| v * scale[at % c] + shift[at % c]).collect()
}

/// `(dx, dscale, dshift)` of [`normalize`]; statistics depend on `x`.
pub fn normalize_grads(
    x: &[f64],
    g: &[f64],
    c: usize,
    sets: &Sets,
    scale: &[f64],
    eps: f64,
) -> (Vec<f64>, Vec<f64>, Vec<f64>) {
    let (set_of, n_sets) = sets.of(x.len() / c, c);
    let normal = standardize(x, &set_of, n_sets, eps).normal;
    let scaled: Vec<f64> = g.iter().enumerate().map(|(at, g)| g * scale[at % c]).collect();
    let dx = standardize_grad(x, &scaled, &set_of, n_sets, eps);
    let (mut dscale, mut dshift) = (vec![0.0; c], vec![0.0; c]);
    for at in 0..g.len() {
        dscale[at % c] += g[at] * normal[at];
        dshift[at % c] += g[at];
    }
    (dx, dscale, dshift)
}

/// Mean and biased variance of every channel.
pub fn channel_statistics(x: &[f64], c: usize) -> (Vec<f64>, Vec<f64>) {
    let set_of: Vec<usize> = (0..x.len()).map(|at| at % c).collect();
    let made = standardize(x, &set_of, c, 1.0);
    (made.mean, made.var)
}

/// Batch normalisation by given statistics: `(x - mean) / sqrt(var + eps)·scale + shift`.
pub fn batch_norm_fixed(
    x: &[f64],
    mean: &[f64],
    var: &[f64],
    scale: &[f64],
    shift: &[f64],
    eps: f64,
) -> Vec<f64> {
    let c = mean.len();
    let one = |at: usize| (x[at] - mean[at % c]) / (var[at % c] + eps).sqrt() * scale[at % c] + shift[at % c];
    (0..x.len()).map(one).collect()
}

/// `(1 - momentum)·running + momentum·new`, the running statistics after one batch.
pub fn running(running: &[f64], new: &[f64], momentum: f64) -> Vec<f64> {
    running.iter().zip(new).map(|(old, new)| (1.0 - momentum) * old + momentum * new).collect()
}

/// Rms normalisation of every row: `x / sqrt(mean(x²) + eps)·scale`.
pub fn rms_norm(x: &[f64], scale: &[f64], eps: f64) -> Vec<f64> {
    let mut y = Vec::new();
    for row in x.chunks(scale.len()) {
        let root = rms(row, eps);
        y.extend(row.iter().zip(scale).map(|(v, s)| v / root * s));
    }
    y
}

/// `(dx, dscale)` of [`rms_norm`].
pub fn rms_norm_grads(x: &[f64], g: &[f64], scale: &[f64], eps: f64) -> (Vec<f64>, Vec<f64>) {
    let c = scale.len();
    let (mut dx, mut dscale) = (Vec::new(), vec![0.0; c]);
    for (row, g) in x.chunks(c).zip(g.chunks(c)) {
        let root = rms(row, eps);
        let along: f64 = (0..c).map(|k| g[k] * scale[k] * row[k]).sum::<f64>() / c as f64;
        for k in 0..c {
            dx.push(g[k] * scale[k] / root - row[k] * along / root.powi(3));
            dscale[k] += g[k] * row[k] / root;
        }
    }
    (dx, dscale)
}

fn rms(row: &[f64], eps: f64) -> f64 {
    (row.iter().map(|v| v * v).sum::<f64>() / row.len() as f64 + eps).sqrt()
}

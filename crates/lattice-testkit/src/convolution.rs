//! Sparse convolution in `f64`: `y[o] = Σ x[i]·w[k]` over the pairs of a relation, its gradients, and the
//! weight-normalized form.
//!
//! Features are row-major `[rows, channels]`. Weights are `[taps, c_in/groups, c_out]`; output channel `co` belongs to
//! group `co / (c_out/groups)` and reads that group's `c_in/groups` input channels.

use crate::relations::Edge;

/// Channel counts of one convolution.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Channels {
    /// Input channels, a multiple of `groups`.
    pub c_in: usize,
    /// Output channels, a multiple of `groups`.
    pub c_out: usize,
    /// Number of groups, at least 1.
    pub groups: usize,
}

impl Channels {
    /// One group.
    pub const fn new(c_in: usize, c_out: usize) -> Self {
        Self { c_in, c_out, groups: 1 }
    }

    /// Any number of groups, which must divide both channel counts.
    pub fn grouped(c_in: usize, c_out: usize, groups: usize) -> Self {
        let divides = |c: usize| groups > 0 && c.is_multiple_of(groups);
        assert!(divides(c_in) && divides(c_out), "groups must divide the channels");
        Self { c_in, c_out, groups }
    }

    /// Values of a weight with this many taps.
    pub fn weight_len(&self, taps: usize) -> usize {
        taps * (self.c_in / self.groups) * self.c_out
    }

    /// Calls `visit(ci, co, index into the weight)` for every product of one tap.
    fn each_product(&self, tap: usize, mut visit: impl FnMut(usize, usize, usize)) {
        let (per_in, per_out) = (self.c_in / self.groups, self.c_out / self.groups);
        for group in 0..self.groups {
            for local in 0..per_in {
                for co in group * per_out..(group + 1) * per_out {
                    visit(group * per_in + local, co, (tap * per_in + local) * self.c_out + co);
                }
            }
        }
    }
}

/// `y[o] = Σ x[i]·w[k] (+ bias)`, `[n_out, c_out]`; a row without pairs is the bias alone.
pub fn convolve(
    x: &[f64],
    w: &[f64],
    bias: Option<&[f64]>,
    edges: &[Edge],
    n_out: usize,
    channels: Channels,
) -> Vec<f64> {
    let mut y = vec![0.0; n_out * channels.c_out];
    for &(i, o, k) in edges {
        let (x_row, y_row) = (i as usize * channels.c_in, o as usize * channels.c_out);
        channels.each_product(k as usize, |ci, co, at| y[y_row + co] += x[x_row + ci] * w[at]);
    }
    if let Some(bias) = bias {
        for o in 0..n_out {
            for co in 0..channels.c_out {
                y[o * channels.c_out + co] += bias[co];
            }
        }
    }
    y
}

/// `dx[i] = Σ w[k]·g[o]`, `[n_in, c_in]`.
pub fn convolve_input_grad(
    g: &[f64],
    w: &[f64],
    edges: &[Edge],
    n_in: usize,
    channels: Channels,
) -> Vec<f64> {
    let mut dx = vec![0.0; n_in * channels.c_in];
    for &(i, o, k) in edges {
        let (x_row, y_row) = (i as usize * channels.c_in, o as usize * channels.c_out);
        channels.each_product(k as usize, |ci, co, at| dx[x_row + ci] += w[at] * g[y_row + co]);
    }
    dx
}

/// `dw[k] = Σ outer(x[i], g[o])`, in the weight's layout.
pub fn convolve_weight_grad(
    x: &[f64],
    g: &[f64],
    edges: &[Edge],
    taps: usize,
    channels: Channels,
) -> Vec<f64> {
    let mut dw = vec![0.0; channels.weight_len(taps)];
    for &(i, o, k) in edges {
        let (x_row, y_row) = (i as usize * channels.c_in, o as usize * channels.c_out);
        channels.each_product(k as usize, |ci, co, at| dw[at] += x[x_row + ci] * g[y_row + co]);
    }
    dw
}

/// `db = Σ g[o]` over all output rows, those without pairs included.
pub fn bias_grad(g: &[f64], c_out: usize) -> Vec<f64> {
    let mut db = vec![0.0; c_out];
    for (at, value) in g.iter().enumerate() {
        db[at % c_out] += value;
    }
    db
}

/// The weight-normalized convolution: `num / sqrt(den + eps) + bias`, `num = conv(x, w)`, `den = conv(1, w²)`.
pub fn normalized(
    x: &[f64],
    w: &[f64],
    bias: Option<&[f64]>,
    eps: f64,
    edges: &[Edge],
    n_out: usize,
    channels: Channels,
) -> Vec<f64> {
    let num = convolve(x, w, None, edges, n_out, channels);
    let den = denominator(x.len(), w, edges, n_out, channels);
    let bias_of = |at: usize| bias.map_or(0.0, |b| b[at % channels.c_out]);
    (0..num.len()).map(|at| num[at] / (den[at] + eps).sqrt() + bias_of(at)).collect()
}

/// `den[o, co]`: the squared weights that meet output `o`, summed over its pairs and input channels.
pub fn denominator(x_len: usize, w: &[f64], edges: &[Edge], n_out: usize, channels: Channels) -> Vec<f64> {
    let ones = vec![1.0; x_len];
    let squared: Vec<f64> = w.iter().map(|v| v * v).collect();
    convolve(&ones, &squared, None, edges, n_out, channels)
}

/// Gradients of [`normalized`] with respect to `x` and `w`, in that order.
///
/// With `u = sqrt(den + eps)`: `dnum = g/u`, `dden = -g·num/(2u³)`, `dx` from `dnum` alone, and
/// `dw = wgrad(x, dnum) + 2·w·wgrad(1, dden)`.
pub fn normalized_grads(
    x: &[f64],
    w: &[f64],
    g: &[f64],
    eps: f64,
    edges: &[Edge],
    n_out: usize,
    channels: Channels,
) -> (Vec<f64>, Vec<f64>) {
    let num = convolve(x, w, None, edges, n_out, channels);
    let den = denominator(x.len(), w, edges, n_out, channels);
    let u: Vec<f64> = den.iter().map(|d| (d + eps).sqrt()).collect();
    let d_num: Vec<f64> = (0..num.len()).map(|at| g[at] / u[at]).collect();
    let d_den: Vec<f64> = (0..num.len()).map(|at| -g[at] * num[at] / (2.0 * u[at].powi(3))).collect();
    let taps = w.len() / channels.weight_len(1);
    let dx = convolve_input_grad(&d_num, w, edges, x.len() / channels.c_in, channels);
    let from_num = convolve_weight_grad(x, &d_num, edges, taps, channels);
    let from_den = convolve_weight_grad(&vec![1.0; x.len()], &d_den, edges, taps, channels);
    (dx, (0..w.len()).map(|at| from_num[at] + 2.0 * w[at] * from_den[at]).collect())
}

/// The `[taps, c_in, c_out]` form of a dense `[c_out, kx, ky, kz, c_in]` weight.
pub fn kernel_major(dense: &[f64], c_out: usize, size: [usize; 3], c_in: usize) -> Vec<f64> {
    let [kx, ky, kz] = size;
    let mut out = vec![0.0; dense.len()];
    for co in 0..c_out {
        for i in 0..kx {
            for j in 0..ky {
                for l in 0..kz {
                    for ci in 0..c_in {
                        let from = (((co * kx + i) * ky + j) * kz + l) * c_in + ci;
                        let tap = (i * ky + j) * kz + l;
                        out[(tap * c_in + ci) * c_out + co] = dense[from];
                    }
                }
            }
        }
    }
    out
}

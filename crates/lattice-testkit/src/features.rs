//! Operations on feature values alone: linear maps, activations, softmax, rounding. All in `f64`.

/// `y = x·Wᵀ + b`, `x` `[n, c_in]`, `w` `[c_out, c_in]`.
pub fn linear(x: &[f64], w: &[f64], bias: Option<&[f64]>, c_in: usize, c_out: usize) -> Vec<f64> {
    let mut y = Vec::new();
    for row in 0..x.len() / c_in {
        for co in 0..c_out {
            let sum: f64 = (0..c_in).map(|ci| x[row * c_in + ci] * w[co * c_in + ci]).sum();
            y.push(sum + bias.map_or(0.0, |b| b[co]));
        }
    }
    y
}

/// `(dx, dw, db)` of [`linear`]: `g·W`, `gᵀ·x`, column sums of `g`.
pub fn linear_grads(
    x: &[f64],
    w: &[f64],
    g: &[f64],
    c_in: usize,
    c_out: usize,
) -> (Vec<f64>, Vec<f64>, Vec<f64>) {
    let (mut dx, mut dw, mut db) = (vec![0.0; x.len()], vec![0.0; w.len()], vec![0.0; c_out]);
    for row in 0..x.len() / c_in {
        for co in 0..c_out {
            let g = g[row * c_out + co];
            db[co] += g;
            for ci in 0..c_in {
                dx[row * c_in + ci] += g * w[co * c_in + ci];
                dw[co * c_in + ci] += g * x[row * c_in + ci];
            }
        }
    }
    (dx, dw, db)
}

/// An element-wise activation.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Activation {
    /// `max(x, 0)`, derivative 0 at 0.
    Relu,
    /// `1 / (1 + e^-x)`
    Sigmoid,
    /// `tanh x`
    Tanh,
    /// `x·sigmoid(x)`
    Silu,
    /// `x/2·(1 + erf(x/√2))`
    Gelu,
    /// `x/2·(1 + tanh(√(2/π)·(x + 0.044715·x³)))`
    GeluTanh,
    /// `x·sigmoid(1.702·x)`
    GeluFast,
    /// `x` for `x >= 0`, else `alpha·x`.
    LeakyRelu {
        /// Slope of the negative side, at least 0.
        alpha: f64,
    },
    /// `x` where `beta·x > threshold`, else `log(1 + exp(beta·x)) / beta`.
    Softplus {
        /// Sharpness, above 0.
        beta: f64,
        /// Where the line takes over.
        threshold: f64,
    },
}

impl Activation {
    /// Every kind with its default attributes, and some with others.
    pub const ALL: [Activation; 11] = [
        Activation::Relu,
        Activation::Sigmoid,
        Activation::Tanh,
        Activation::Silu,
        Activation::Gelu,
        Activation::GeluTanh,
        Activation::GeluFast,
        Activation::LeakyRelu { alpha: 0.01 },
        Activation::LeakyRelu { alpha: 0.2 },
        Activation::Softplus { beta: 1.0, threshold: 20.0 },
        Activation::Softplus { beta: 2.0, threshold: 20.0 },
    ];

    /// The activation's value at `x`.
    pub fn value(self, x: f64) -> f64 {
        match self {
            Self::Relu if x > 0.0 || x.is_nan() => x,
            Self::Relu => 0.0,
            Self::Sigmoid => sigmoid(x),
            Self::Tanh => x.tanh(),
            Self::Silu => x * sigmoid(x),
            Self::Gelu => 0.5 * x * (1.0 + erf(x * std::f64::consts::FRAC_1_SQRT_2)),
            Self::GeluTanh => 0.5 * x * (1.0 + tanh_argument(x).tanh()),
            Self::GeluFast => x * sigmoid(1.702 * x),
            Self::LeakyRelu { .. } if x >= 0.0 => x,
            Self::LeakyRelu { alpha } => alpha * x,
            Self::Softplus { beta, threshold } if beta * x > threshold => x,
            Self::Softplus { beta, .. } => (1.0 + (beta * x).exp()).ln() / beta,
        }
    }

    /// The activation's derivative at `x`.
    pub fn derivative(self, x: f64) -> f64 {
        match self {
            Self::Relu => f64::from(u8::from(x > 0.0)),
            Self::Sigmoid => sigmoid(x) * (1.0 - sigmoid(x)),
            Self::Tanh => 1.0 - x.tanh() * x.tanh(),
            Self::Silu => sigmoid(x) + x * sigmoid(x) * (1.0 - sigmoid(x)),
            Self::Gelu => {
                let density = (-0.5 * x * x).exp() / (2.0 * std::f64::consts::PI).sqrt();
                0.5 * (1.0 + erf(x * std::f64::consts::FRAC_1_SQRT_2)) + x * density
            }
            Self::GeluTanh => {
                let t = tanh_argument(x).tanh();
                let inner = GELU_TANH_SCALE * (1.0 + 3.0 * 0.044_715 * x * x);
                0.5 * (1.0 + t) + 0.5 * x * (1.0 - t * t) * inner
            }
            Self::GeluFast => {
                let s = sigmoid(1.702 * x);
                s + 1.702 * x * s * (1.0 - s)
            }
            Self::LeakyRelu { .. } if x >= 0.0 => 1.0,
            Self::LeakyRelu { alpha } => alpha,
            Self::Softplus { beta, threshold } if beta * x > threshold => 1.0,
            Self::Softplus { beta, .. } => sigmoid(beta * x),
        }
    }

    /// [`Activation::value`] of every element.
    pub fn apply(self, x: &[f64]) -> Vec<f64> {
        x.iter().map(|&x| self.value(x)).collect()
    }

    /// `g` times [`Activation::derivative`], element by element.
    pub fn grad(self, x: &[f64], g: &[f64]) -> Vec<f64> {
        x.iter().zip(g).map(|(&x, &g)| g * self.derivative(x)).collect()
    }
}

/// `√(2/π)` as the formula writes it.
const GELU_TANH_SCALE: f64 = 0.797_884_560_802_865_4;

fn tanh_argument(x: f64) -> f64 {
    GELU_TANH_SCALE * (x + 0.044_715 * x * x * x)
}

/// `1 / (1 + e^-x)`
pub fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

/// The error function: `2/√π·Σ (-1)^n x^(2n+1) / (n!·(2n+1))` near 0, its continued fraction beyond 2.5.
pub fn erf(x: f64) -> f64 {
    if x.is_nan() {
        return x;
    }
    let size = x.abs();
    let value = if size < 2.5 {
        let (mut power, mut sum, mut n) = (size, 0.0, 0.0);
        for _ in 0..80 {
            sum += power / (2.0 * n + 1.0);
            n += 1.0;
            power *= -size * size / n;
        }
        2.0 / std::f64::consts::PI.sqrt() * sum
    } else {
        // erfc(x)·√π·e^(x²) = 1/(x + (1/2)/(x + 1/(x + (3/2)/(x + ...))))
        let fraction = (1..=80).rev().fold(size, |below, n| size + 0.5 * f64::from(n) / below);
        1.0 - (-size * size).exp() / (std::f64::consts::PI.sqrt() * fraction)
    };
    if x < 0.0 { -value } else { value }
}

/// Rounds to the nearest integer, halves to the even one.
pub fn round_half_even(x: f64) -> f64 {
    let below = x.floor();
    let part = x - below;
    if x.is_nan() || part == 0.0 {
        x
    } else if part < 0.5 || (part == 0.5 && below % 2.0 == 0.0) {
        below
    } else {
        below + 1.0
    }
}

/// Softmax over the last axis of `[rows, c]`, the row's maximum subtracted first.
pub fn softmax(x: &[f64], c: usize) -> Vec<f64> {
    let mut y = Vec::new();
    for row in x.chunks(c) {
        let largest = row.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let total: f64 = row.iter().map(|v| (v - largest).exp()).sum();
        y.extend(row.iter().map(|v| (v - largest).exp() / total));
    }
    y
}

/// Dropout by a given keep mask: `x·keep/(1-p)`. The gradient is the same map.
pub fn dropout(x: &[f64], keep: &[bool], p: f64) -> Vec<f64> {
    x.iter().zip(keep).map(|(x, keep)| if *keep { x / (1.0 - p) } else { 0.0 }).collect()
}

//! Rows of a batch norm: normalized with their residual and activation, and their gradients. Rows are `[rows, width]` vectors of `N` channels.

use cubecl::prelude::*;

use crate::conv::mma::After;

/// Rows of a unit.
pub(crate) const ROWS_EACH: usize = 4;

/// The gradient before the activation, of one vector.
#[cube]
pub(super) fn before_activation<F: Float, N: Size>(
    g: Vector<F, N>,
    y: Vector<F, N>,
    #[comptime] after: After,
) -> Vector<f32, N> {
    let mut value = Vector::<f32, N>::cast_from(g);
    let through = Vector::<f32, N>::cast_from(y).greater_than(&Vector::new(0.0f32));
    match comptime!(after) {
        After::Nothing => {}
        After::Relu => value = select_many(through, value, Vector::new(0.0f32)),
        After::LeakyRelu(slope) => {
            let slope = comptime!(f32::from_bits(slope));
            value = select_many(through, value, value * Vector::new(slope));
        }
    }
    value
}

/// `activation((x - mean) / sqrt(var + eps) * gamma + beta + residual)`. A unit has one vector of [`ROWS_EACH`] rows, which are `stride`
/// apart, so that it reads what goes with its channels once.
#[cube(launch_unchecked, address_type = "dynamic")]
pub(crate) fn normalize_kernel<F: Float, N: Size>(
    x: &[Vector<F, N>],
    mean: &[Vector<f32, N>],
    var: &[Vector<f32, N>],
    gamma: &[Vector<f32, N>],
    beta: &[Vector<f32, N>],
    residual: &[Vector<F, N>],
    y: &mut [Vector<F, N>],
    width: usize,
    stride: usize,
    eps: f32,
    #[comptime] with_residual: bool,
    #[comptime] after: After,
) {
    if ABSOLUTE_POS < stride * width {
        let vector = ABSOLUTE_POS % width;
        let scale = gamma[vector] / (var[vector] + Vector::new(eps)).sqrt();
        let center = mean[vector];
        let shift = beta[vector];
        let last = x.len() - width + vector;
        let mut values = Array::<Vector<f32, N>>::new(ROWS_EACH);
        let mut others = Array::<Vector<f32, N>>::new(ROWS_EACH);
        #[unroll]
        for i in 0usize..ROWS_EACH {
            let at = min(ABSOLUTE_POS + i * stride * width, last);
            values[i] = Vector::cast_from(x[at]);
            if with_residual {
                others[i] = Vector::cast_from(residual[at]);
            }
        }
        let zero = Vector::<f32, N>::new(0.0f32);
        #[unroll]
        for i in 0usize..ROWS_EACH {
            let at = ABSOLUTE_POS + i * stride * width;
            let mut value = (values[i] - center) * scale + shift;
            if with_residual {
                value += others[i];
            }
            match comptime!(after) {
                After::Nothing => {}
                // Compared rather than `max`: a NaN stays.
                After::Relu => value = select_many(value.less_than(&zero), zero, value),
                After::LeakyRelu(slope) => {
                    let slope = comptime!(f32::from_bits(slope));
                    value = select_many(value.less_than(&zero), value * Vector::new(slope), value);
                }
            }
            if at <= last {
                y[at] = Vector::cast_from(value);
            }
        }
    }
}

/// Gradients of the rows and of the residual. Units have rows as in [`normalize_kernel`]. The sums are those of a batch of `n` rows.
#[cube(launch_unchecked, address_type = "dynamic")]
pub(crate) fn spread_gradient_kernel<F: Float, N: Size>(
    x: &[Vector<F, N>],
    y: &[Vector<F, N>],
    g: &[Vector<F, N>],
    mean: &[Vector<f32, N>],
    var: &[Vector<f32, N>],
    gamma: &[Vector<f32, N>],
    beta_sum: &[Vector<f32, N>],
    gamma_sum: &[Vector<f32, N>],
    dx: &mut [Vector<F, N>],
    residual: &mut [Vector<F, N>],
    n: f32,
    width: usize,
    stride: usize,
    eps: f32,
    #[comptime] with_residual: bool,
    #[comptime] after: After,
) {
    if ABSOLUTE_POS < stride * width {
        let vector = ABSOLUTE_POS % width;
        let inverse = Vector::new(1.0f32) / (var[vector] + Vector::new(eps)).sqrt();
        let center = mean[vector];
        let scale = gamma[vector] * inverse;
        let by_beta = beta_sum[vector] / Vector::new(n);
        let by_gamma = gamma_sum[vector] * inverse / Vector::new(n);
        let last = x.len() - width + vector;
        let mut grads = Array::<Vector<f32, N>>::new(ROWS_EACH);
        let mut values = Array::<Vector<f32, N>>::new(ROWS_EACH);
        #[unroll]
        for i in 0usize..ROWS_EACH {
            let at = min(ABSOLUTE_POS + i * stride * width, last);
            grads[i] = before_activation::<F, N>(g[at], y[at], after);
            values[i] = Vector::cast_from(x[at]);
        }
        #[unroll]
        for i in 0usize..ROWS_EACH {
            let at = ABSOLUTE_POS + i * stride * width;
            let away = grads[i] - by_beta - (values[i] - center) * by_gamma;
            if at <= last {
                dx[at] = Vector::cast_from(away * scale);
                if with_residual {
                    residual[at] = Vector::cast_from(grads[i]);
                }
            }
        }
    }
}

//! What happens to a sum before it is rounded: bias, folded normalisation, residual, activation.

use std::ops::Range;

use crate::scalar::{Acc, Scalar};
use crate::simd::Engine;

/// An activation function.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[non_exhaustive]
pub enum Activation {
    /// `v`
    #[default]
    None,
    /// `max(v, 0)`; NaN stays NaN.
    Relu,
    /// `v` where `v > 0`, else `slope * v`.
    LeakyRelu(f32),
}

impl Activation {
    #[inline(always)]
    pub(crate) fn apply<A: Acc>(self, values: &mut [A]) {
        match self {
            Self::None => {}
            Self::Relu => {
                for v in values {
                    *v = if *v < A::ZERO { A::ZERO } else { *v };
                }
            }
            Self::LeakyRelu(slope) => {
                let slope = A::from_f32(slope);
                for v in values {
                    *v = if *v > A::ZERO { *v } else { *v * slope };
                }
            }
        }
    }
}

/// `activation((sum + bias) * scale + shift + residual)`, in the type of sums, before the one rounding.
#[derive(Clone, Copy, Debug)]
pub struct Epilogue<'a, T> {
    /// `[c_out]`, added to every row.
    pub bias: Option<&'a [T]>,
    /// `[c_out]` each: the scale and the shift of a folded normalisation.
    pub scale_shift: Option<(&'a [f32], &'a [f32])>,
    /// `[n_out, c_out]`, added row by row.
    pub residual: Option<&'a [T]>,
    /// Comes last.
    pub activation: Activation,
}

impl<T> Default for Epilogue<'_, T> {
    /// Nothing: the sum is rounded and stored.
    fn default() -> Self {
        Self { bias: None, scale_shift: None, residual: None, activation: Activation::None }
    }
}

impl<T: Scalar> Epilogue<'_, T> {
    /// Panics when a slice does not fit `[n_out, c_out]`.
    pub(crate) fn check(&self, op: &str, n_out: usize, c_out: usize) {
        if let Some(bias) = self.bias {
            assert_eq!(bias.len(), c_out, "{op}: length of the bias");
        }
        if let Some((scale, shift)) = self.scale_shift {
            assert_eq!((scale.len(), shift.len()), (c_out, c_out), "{op}: lengths of scale and shift");
        }
        if let Some(residual) = self.residual {
            assert_eq!(residual.len(), n_out * c_out, "{op}: length of the residual");
        }
    }

    /// Applies to columns `cols` of output row `row`, whose sums are `sum`, and stores. `wide` is room for one row where there is a bias
    /// or a residual.
    #[inline(always)]
    #[allow(clippy::too_many_arguments, reason = "one call a row of the innermost loop: no struct to fill")]
    pub(crate) fn finish(
        &self,
        engine: Engine,
        row: usize,
        c_out: usize,
        cols: Range<usize>,
        sum: &mut [T::Acc],
        wide: &mut [T::Acc],
        out: &mut [T],
    ) {
        if let Some(bias) = self.bias {
            let wide = &mut wide[..sum.len()];
            T::widen(engine, &bias[cols.clone()], wide);
            for (v, &b) in sum.iter_mut().zip(&*wide) {
                *v += b;
            }
        }
        if let Some((scale, shift)) = self.scale_shift {
            for ((v, &scale), &shift) in sum.iter_mut().zip(&scale[cols.clone()]).zip(&shift[cols.clone()]) {
                *v = *v * T::Acc::from_f32(scale) + T::Acc::from_f32(shift);
            }
        }
        if let Some(residual) = self.residual {
            let wide = &mut wide[..sum.len()];
            T::widen(engine, &residual[row * c_out..][cols], wide);
            for (v, &r) in sum.iter_mut().zip(&*wide) {
                *v += r;
            }
        }
        self.activation.apply(sum);
        T::narrow(engine, sum, out);
    }
}

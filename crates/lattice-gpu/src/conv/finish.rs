//! What follows the sums of a convolution, in kernels whose units hold vectors of output channels.

use cubecl::prelude::*;

use super::mma::{After, Epilogue};
use crate::gpu::Buffer;

/// The operands of an epilogue. One that is absent takes no binding: devices have as few as eight.
#[derive(CubeType, CubeLaunch)]
pub(crate) struct Operands<F: Float, N: Size> {
    /// Which of them there are. CubeCL hashes of an option what is in it, and not whether it is there: by their options alone, kernels of
    /// bias, scale and shift and of scale, shift and residual have one hash, by which either is kept on disk for both.
    #[cube(comptime)]
    #[allow(dead_code, reason = "nobody reads it: it tells kernels apart")]
    present: [bool; 3],
    /// `[c_out]`
    bias: ComptimeOption<Box<[Vector<F, N>]>>,
    /// `[c_out]`
    scale: ComptimeOption<Box<[Vector<f32, N>]>>,
    /// `[c_out]`; there is one with a scale.
    shift: ComptimeOption<Box<[Vector<f32, N>]>>,
    /// `[n_out, c_out]`
    residual: ComptimeOption<Box<[Vector<F, N>]>>,
}

/// Refuses operands that do not fit a result `[n_out, c_out]`.
pub(crate) fn check_epilogue(op: &str, epilogue: &Epilogue, n_out: usize, c_out: usize) {
    if let Some(bias) = &epilogue.bias {
        assert_eq!(bias.len, c_out, "{op}: length of the bias");
    }
    if let Some((scale, shift)) = &epilogue.scale_shift {
        assert_eq!((scale.len, shift.len), (c_out, c_out), "{op}: lengths of scale and shift");
    }
    if let Some(residual) = &epilogue.residual {
        assert_eq!(residual.len, n_out * c_out, "{op}: length of the residual");
    }
}

/// The operands as arguments of a kernel whose vectors have `lanes` channels.
pub(crate) fn operands_of<F: Float, N: Size>(epilogue: &Epilogue, lanes: usize) -> OperandsLaunch<F, N> {
    let arg = |buffer: Option<&Buffer>| buffer.map(|buffer| buffer.arg(lanes));
    let scale_shift = epilogue.scale_shift.as_ref();
    OperandsLaunch::new(
        epilogue.operands(),
        arg(epilogue.bias.as_ref()).into(),
        arg(scale_shift.map(|(scale, _)| scale)).into(),
        arg(scale_shift.map(|(_, shift)| shift)).into(),
        arg(epilogue.residual.as_ref()).into(),
    )
}

/// What an epilogue has for a vector of output channels; what is absent is zero and not used.
#[derive(CubeType, Clone, Copy)]
pub(crate) struct OfColumn<N: Size> {
    bias: Vector<f32, N>,
    scale: Vector<f32, N>,
    shift: Vector<f32, N>,
}

/// The operands of the `column`th vector of a row.
#[cube]
pub(crate) fn of_column<F: Float, N: Size>(operands: &Operands<F, N>, column: usize) -> OfColumn<N> {
    let mut of =
        OfColumn::<N> { bias: Vector::new(0.0f32), scale: Vector::new(0.0f32), shift: Vector::new(0.0f32) };
    #[comptime]
    match operands.bias.clone() {
        ComptimeOption::Some(bias) => of.bias = Vector::cast_from(bias[column]),
        ComptimeOption::None => {}
    }
    #[comptime]
    match operands.scale.clone() {
        ComptimeOption::Some(scale) => of.scale = scale[column],
        ComptimeOption::None => {}
    }
    #[comptime]
    match operands.shift.clone() {
        ComptimeOption::Some(shift) => of.shift = shift[column],
        ComptimeOption::None => {}
    }
    of
}

/// The `at`th vector of the residual; zero where there is none.
#[cube]
pub(crate) fn residual_at<F: Float, N: Size>(operands: &Operands<F, N>, at: usize) -> Vector<F, N> {
    let mut found = Vector::<F, N>::new(F::from_int(0i64));
    #[comptime]
    match operands.residual.clone() {
        ComptimeOption::Some(residual) => found = residual[at],
        ComptimeOption::None => {}
    }
    found
}

/// `after((sum + bias) * scale + shift + residual)` of one vector, rounded once.
#[cube]
pub(crate) fn finish<F: Float, N: Size>(
    sum: Vector<f32, N>,
    of: &OfColumn<N>,
    residual: Vector<F, N>,
    operands: &Operands<F, N>,
    #[comptime] after: After,
) -> Vector<F, N> {
    let mut value = sum;
    #[comptime]
    match operands.bias.clone() {
        ComptimeOption::Some(_) => value += of.bias,
        ComptimeOption::None => {}
    }
    #[comptime]
    match operands.scale.clone() {
        ComptimeOption::Some(_) => value *= of.scale,
        ComptimeOption::None => {}
    }
    #[comptime]
    match operands.shift.clone() {
        ComptimeOption::Some(_) => value += of.shift,
        ComptimeOption::None => {}
    }
    #[comptime]
    match operands.residual.clone() {
        ComptimeOption::Some(_) => value += Vector::cast_from(residual),
        ComptimeOption::None => {}
    }
    let zero = Vector::<f32, N>::new(0.0f32);
    match comptime!(after) {
        After::Nothing => {}
        // Compared rather than `max`: a NaN stays.
        After::Relu => value = select_many(value.less_than(&zero), zero, value),
        After::LeakyRelu(slope) => {
            let slope = comptime!(f32::from_bits(slope));
            value = select_many(value.greater_than(&zero), value, value * Vector::new(slope));
        }
    }
    Vector::cast_from(value)
}

/// [`finish`] of the vector that is the `column`th of its row and the `at`th of the result.
#[cube]
pub(crate) fn finish_sum<F: Float, N: Size>(
    sum: Vector<f32, N>,
    column: usize,
    at: usize,
    operands: &Operands<F, N>,
    #[comptime] after: After,
) -> Vector<F, N> {
    finish(sum, &of_column(operands, column), residual_at(operands, at), operands, after)
}

#[cfg(test)]
mod tests {
    use super::*;
    use cubecl_common::hash::StableHasher;

    /// Kernels are kept on disk by this hash, so two of equal hashes would be taken for one another.
    #[test]
    fn kernels_of_other_operands_have_other_hashes() {
        let hash = |present: [bool; 3]| {
            let option = |is_there: bool| match is_there {
                true => ComptimeOptionCompilationArg::Some(BufferCompilationArg { inplace: None }),
                false => ComptimeOptionCompilationArg::None,
            };
            let [bias, scale, residual] = present;
            StableHasher::hash_one(&OperandsCompilationArg::<f32, Const<4>> {
                present,
                bias: option(bias),
                scale: option(scale),
                shift: option(scale),
                residual: option(residual),
            })
        };
        let all: Vec<_> = (0..8).map(|bits| hash([0, 1, 2].map(|at| bits >> at & 1 == 1))).collect();
        let distinct: std::collections::HashSet<_> = all.iter().collect();
        assert_eq!(distinct.len(), all.len());
    }
}

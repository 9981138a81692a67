//! Channels of two lists of rows side by side.

use cubecl::prelude::*;

use crate::address::{UNITS, address_of, lanes_of, room_for};
use crate::gpu::{Buffer, Gpu};

/// One unit a vector of the result. Lengths of rows are in vectors.
#[cube(launch_unchecked, address_type = "dynamic")]
fn concat_kernel<F: Float, N: Size>(
    lhs: &[Vector<F, N>],
    rhs: &[Vector<F, N>],
    out: &mut [Vector<F, N>],
    n: usize,
    of_lhs: usize,
    of_rhs: usize,
) {
    let at = ABSOLUTE_POS;
    if at < n {
        let row = at / (of_lhs + of_rhs);
        let column = at % (of_lhs + of_rhs);
        if column < of_lhs {
            out[at] = lhs[row * of_lhs + column];
        } else {
            out[at] = rhs[row * of_rhs + column - of_lhs];
        }
    }
}

/// `[n, c_lhs]` and `[n, c_rhs]` as `[n, c_lhs + c_rhs]`; one launch.
///
/// # Panics
/// When an operand does not have its shape.
pub fn concat_columns<F: Float + CubeElement>(
    gpu: &Gpu,
    [lhs, rhs]: [&Buffer; 2],
    n: usize,
    [c_lhs, c_rhs]: [usize; 2],
) -> Buffer {
    assert_eq!([lhs.len, rhs.len], [n * c_lhs, n * c_rhs], "concat_columns: lengths of the operands");
    let out = room_for::<F>(gpu, n * (c_lhs + c_rhs));
    let lanes = lanes_of::<F>(gpu, c_lhs).min(lanes_of::<F>(gpu, c_rhs));
    let vectors = out.len / lanes;
    if vectors > 0 {
        // SAFETY: one unit a vector, checked against the count; operands have the lengths that were checked.
        unsafe {
            concat_kernel::launch_unchecked::<F>(
                gpu.client(),
                Gpu::cubes(vectors, UNITS as usize),
                CubeDim::new_1d(UNITS),
                address_of(&[lhs, rhs, &out]),
                lanes,
                lhs.arg(lanes),
                rhs.arg(lanes),
                out.arg(lanes),
                vectors,
                c_lhs / lanes,
                c_rhs / lanes,
            );
        }
    }
    out
}

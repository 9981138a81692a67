//! Plain matrix products on the micro-kernels of the convolution: linear layers and pointwise convolutions.

use crate::conv::tiles::TileRef;
use crate::conv::{ConvShape, Products};
use crate::isa::engine;
use crate::{Epilogue, Scalar};

/// `out = epilogue(a @ b)`.
///
/// # Shapes
/// `a`: `[m, k]`; `b`: `[k, n]`; `out`: `[m, n]`, every element of which is written; `m` is below `2^32`. Deterministic as
/// [`conv_forward`](crate::conv_forward).
///
/// # Panics
/// When a slice does not have its shape.
pub fn gemm<T: Scalar>(
    a: &[T],
    b: &[T],
    m: usize,
    k: usize,
    n: usize,
    epilogue: &Epilogue<'_, T>,
    out: &mut [T],
) {
    product("gemm", a, b, [m, k, n], false, epilogue, out);
}

/// `out = epilogue(a @ b^T)`: [`gemm`] with `b` given as `[n, k]`, as linear layers' input gradients need it.
///
/// # Panics
/// When a slice does not have its shape.
pub fn gemm_transposed<T: Scalar>(
    a: &[T],
    b: &[T],
    m: usize,
    k: usize,
    n: usize,
    epilogue: &Epilogue<'_, T>,
    out: &mut [T],
) {
    product("gemm_transposed", a, b, [m, k, n], true, epilogue, out);
}

/// `out = a^T @ b`, with `a`: `[m, k]`, `b`: `[m, n]`, `out`: `[k, n]`: the weight gradient of a linear layer. Summed as
/// [`conv_weight_grad`](crate::conv_weight_grad) does.
///
/// # Panics
/// When a slice does not have its shape.
pub fn gemm_weight_grad<T: Scalar>(a: &[T], b: &[T], m: usize, k: usize, n: usize, out: &mut [T]) {
    let op = "gemm_weight_grad";
    assert_eq!((a.len(), b.len(), out.len()), (m * k, m * n, k * n), "{op}: lengths of a, b and the result");
    assert!(u32::try_from(m).is_ok(), "{op}: {m} rows pass 32 bits");
    if !out.is_empty() {
        let pairs = &TileRef::identity(m);
        T::weight_grad(
            engine(),
            crate::conv::Gradient { x: a, g: b, pairs, shape: ConvShape::dense(k, n) },
            out,
        );
    }
}

fn product<T: Scalar>(
    op: &str,
    a: &[T],
    b: &[T],
    [m, k, n]: [usize; 3],
    adjoint: bool,
    epilogue: &Epilogue<'_, T>,
    out: &mut [T],
) {
    assert_eq!((a.len(), b.len(), out.len()), (m * k, k * n, m * n), "{op}: lengths of a, b and the result");
    assert!(u32::try_from(m).is_ok(), "{op}: {m} rows pass 32 bits");
    epilogue.check(op, m, n);
    if !out.is_empty() {
        let (pairs, shape) = (&TileRef::identity(m), ConvShape::dense(k, n));
        T::products(engine(), Products { x: a, w: b, adjoint, pairs, shape, epilogue }, out);
    }
}

//! Convolutions of one tap that map each row to itself: plain products, in groups of channels.

use crate::conv::tiles::TileRef;
use crate::conv::{ConvShape, Gradient, Products};
use crate::isa::engine;
use crate::{Epilogue, Scalar};

/// `out[r, :] = epilogue(x[r, :] @ w)`, per group of channels.
///
/// # Shapes
/// `x`: `[m, c_in]`; `w`: `[c_in / groups, c_out]`; `out`: `[m, c_out]`, every element of which is written. Deterministic as
/// [`conv_forward`](crate::conv_forward).
///
/// # Panics
/// When a slice does not have its shape, or the channels do not divide into the groups.
pub fn pointwise<T: Scalar>(x: &[T], w: &[T], shape: ConvShape, epilogue: &Epilogue<'_, T>, out: &mut [T]) {
    let rows = rows("pointwise", x.len(), w.len(), out.len(), shape);
    epilogue.check("pointwise", rows, shape.c_out);
    if !out.is_empty() {
        let pairs = &TileRef::identity(rows);
        T::products(engine(), Products { x, w, adjoint: false, pairs, shape, epilogue }, out);
    }
}

/// `dx[r, :] = g[r, :] @ w^T`: the gradient of [`pointwise`] with respect to `x`; `shape` is that of the forward product.
///
/// # Panics
/// As [`pointwise`].
pub fn pointwise_input_grad<T: Scalar>(g: &[T], w: &[T], shape: ConvShape, dx: &mut [T]) {
    let rows = rows("pointwise_input_grad", dx.len(), w.len(), g.len(), shape);
    if !dx.is_empty() {
        let pairs = &TileRef::identity(rows);
        let shape = ConvShape { c_in: shape.c_out, c_out: shape.c_in, groups: shape.groups };
        let epilogue = &Epilogue::default();
        T::products(engine(), Products { x: g, w, adjoint: true, pairs, shape, epilogue }, dx);
    }
}

/// `dw = x^T @ g`: the gradient of [`pointwise`] with respect to `w`.
///
/// # Panics
/// As [`pointwise`].
pub fn pointwise_weight_grad<T: Scalar>(x: &[T], g: &[T], shape: ConvShape, dw: &mut [T]) {
    let rows = rows("pointwise_weight_grad", x.len(), dw.len(), g.len(), shape);
    if !dw.is_empty() {
        T::weight_grad(engine(), Gradient { x, g, pairs: &TileRef::identity(rows), shape }, dw);
    }
}

/// Checks lengths; returns the number of rows.
fn rows(op: &str, inputs: usize, weights: usize, outputs: usize, shape: ConvShape) -> usize {
    shape.check(op);
    assert_eq!(weights, shape.weights(1), "{op}: length of the weights");
    let rows = inputs.checked_div(shape.c_in).unwrap_or(outputs / shape.c_out.max(1));
    assert_eq!(
        (inputs, outputs),
        (rows * shape.c_in, rows * shape.c_out),
        "{op}: lengths of input and output"
    );
    assert!(u32::try_from(rows).is_ok(), "{op}: {rows} rows pass 32 bits");
    rows
}

//! Sparse convolution over a relation, and its two gradients.

mod depthwise;
mod edges;
mod int8;
mod packed;
mod panels;
pub(crate) mod plain;
pub(crate) mod tiles;
pub(crate) mod weight_grad;

pub use edges::conv_edge_loop;
pub use int8::conv_int8;
use lattice_core::Relation;
pub use packed::conv_packed;

use crate::isa::engine;
use crate::{Epilogue, Scalar};
use tiles::TileRef;

/// Channels of a convolution.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ConvShape {
    /// Input channels, a multiple of `groups`.
    pub c_in: usize,
    /// Output channels, a multiple of `groups`.
    pub c_out: usize,
    /// Output channel `j` sees the input channels of its group alone; at least 1.
    pub groups: usize,
}

impl ConvShape {
    /// One group.
    pub fn dense(c_in: usize, c_out: usize) -> Self {
        Self { c_in, c_out, groups: 1 }
    }

    /// Every channel on its own.
    pub fn is_depthwise(&self) -> bool {
        self.groups == self.c_in && self.groups == self.c_out && self.groups > 1
    }

    /// Elements of the weights: `taps * c_in / groups * c_out`.
    pub fn weights(&self, taps: usize) -> usize {
        taps * (self.c_in / self.groups) * self.c_out
    }

    pub(crate) fn check(&self, op: &str) {
        let Self { c_in, c_out, groups } = *self;
        let fits = groups > 0 && c_in.is_multiple_of(groups) && c_out.is_multiple_of(groups);
        assert!(fits, "{op}: {c_in} input and {c_out} output channels do not divide into {groups} groups");
    }
}

/// Arguments of a gathered product.
pub struct Products<'a, T> {
    /// `[n_in, c_in]`
    pub x: &'a [T],
    /// `[taps, c_in / groups, c_out]`; with `adjoint` `[taps, c_out / groups, c_in]`
    pub w: &'a [T],
    /// The weights are those of the product that this one is the adjoint of.
    pub adjoint: bool,
    /// The pairs.
    pub pairs: &'a TileRef<'a>,
    /// Channels of `x` and of the output.
    pub shape: ConvShape,
    /// What happens to each sum.
    pub epilogue: &'a Epilogue<'a, T>,
}

/// Arguments of a weight gradient.
pub struct Gradient<'a, T> {
    /// `[n_in, c_in]`
    pub x: &'a [T],
    /// `[n_out, c_out]`
    pub g: &'a [T],
    /// The pairs.
    pub pairs: &'a TileRef<'a>,
    /// Channels.
    pub shape: ConvShape,
}

/// `out[o, :] = epilogue(sum over edges (i, o, k) of x[i, :] @ w[k])`, per group of channels.
///
/// # Shapes
/// `x`: `[n_in, c_in]`; `w`: `[taps, c_in / groups, c_out]`; `out`: `[n_out, c_out]`, every element of which is written.
///
/// Blocks of output rows run in parallel; within one, taps are added in ascending order: the result has the same bits for any
/// number of threads. Sums are kept in `f32` (`f64` for `f64`) and rounded once.
///
/// # Panics
/// When a slice does not have its shape, or the channels do not divide into the groups.
pub fn conv_forward<T: Scalar>(
    x: &[T],
    w: &[T],
    relation: &Relation,
    shape: ConvShape,
    epilogue: &Epilogue<'_, T>,
    out: &mut [T],
) {
    let op = "conv_forward";
    shape.check(op);
    assert_eq!(x.len(), relation.n_in() * shape.c_in, "{op}: length of the features");
    assert_eq!(w.len(), shape.weights(relation.taps()), "{op}: length of the weights");
    assert_eq!(out.len(), relation.n_out() * shape.c_out, "{op}: length of the output");
    epilogue.check(op, relation.n_out(), shape.c_out);
    if out.is_empty() {
        return;
    }
    if shape.is_depthwise() {
        return depthwise::forward(engine(), x, w, relation, shape.c_in, epilogue, out);
    }
    let pairs = &TileRef::of(relation);
    T::products(engine(), Products { x, w, adjoint: false, pairs, shape, epilogue }, out);
}

/// [`conv_forward`] where every channel is a group of its own; bound by memory, so it walks rows and packs nothing.
///
/// # Panics
/// As [`conv_forward`]; also when `shape` is not depthwise.
pub fn conv_depthwise<T: Scalar>(
    x: &[T],
    w: &[T],
    relation: &Relation,
    shape: ConvShape,
    epilogue: &Epilogue<'_, T>,
    out: &mut [T],
) {
    assert!(shape.is_depthwise(), "conv_depthwise: {shape:?} is not depthwise");
    conv_forward(x, w, relation, shape, epilogue, out);
}

/// `dx[i, :] = sum over edges (i, o, k) of g[o, :] @ w[k]^T`: the gradient of [`conv_forward`] with respect to `x`.
///
/// # Shapes
/// `g`: `[n_out, c_out]`; `w`: `[taps, c_in / groups, c_out]`; `dx`: `[n_in, c_in]`, every element of which is written. `shape` is
/// that of the forward product. Runs over [`Relation::transpose`]; deterministic as [`conv_forward`].
///
/// # Panics
/// As [`conv_forward`].
pub fn conv_input_grad<T: Scalar>(g: &[T], w: &[T], relation: &Relation, shape: ConvShape, dx: &mut [T]) {
    let op = "conv_input_grad";
    shape.check(op);
    assert_eq!(g.len(), relation.n_out() * shape.c_out, "{op}: length of the gradient");
    assert_eq!(w.len(), shape.weights(relation.taps()), "{op}: length of the weights");
    assert_eq!(dx.len(), relation.n_in() * shape.c_in, "{op}: length of the result");
    if dx.is_empty() {
        return;
    }
    let transpose = relation.transpose();
    let epilogue = &Epilogue::default();
    if shape.is_depthwise() {
        return depthwise::forward(engine(), g, w, &transpose, shape.c_in, epilogue, dx);
    }
    let pairs = &TileRef::of(&transpose);
    let shape = ConvShape { c_in: shape.c_out, c_out: shape.c_in, groups: shape.groups };
    T::products(engine(), Products { x: g, w, adjoint: true, pairs, shape, epilogue }, dx);
}

/// `dw[k] = sum over edges (i, o, k) of outer(x[i, :], g[o, :])`: the gradient of [`conv_forward`] with respect to `w`.
///
/// # Shapes
/// `x`: `[n_in, c_in]`; `g`: `[n_out, c_out]`; `dw`: `[taps, c_in / groups, c_out]`, every element of which is written.
///
/// Segments of output rows, cut from shapes alone, are summed apart and then in order: the same bits for any number of threads.
/// Their partial sums take at most 16 MiB, or once the weights in `f32` where that is more.
///
/// # Panics
/// As [`conv_forward`].
pub fn conv_weight_grad<T: Scalar>(x: &[T], g: &[T], relation: &Relation, shape: ConvShape, dw: &mut [T]) {
    let op = "conv_weight_grad";
    shape.check(op);
    assert_eq!(x.len(), relation.n_in() * shape.c_in, "{op}: length of the features");
    assert_eq!(g.len(), relation.n_out() * shape.c_out, "{op}: length of the gradient");
    assert_eq!(dw.len(), shape.weights(relation.taps()), "{op}: length of the result");
    if dw.is_empty() {
        return;
    }
    if shape.is_depthwise() {
        return depthwise::weight_grad(engine(), x, g, relation, shape.c_in, dw);
    }
    let pairs = &TileRef::of(relation);
    T::weight_grad(engine(), Gradient { x, g, pairs, shape }, dw);
}

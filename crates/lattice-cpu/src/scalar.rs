//! Element types and what they are summed in.

use std::ops::{Add, AddAssign, Div, Mul, Sub};

use half::{bf16, f16};

use crate::conv::{Gradient, Products, plain, tiles, weight_grad};
use crate::simd::Engine;

/// What elements are summed in.
pub trait Acc:
    Copy
    + Send
    + Sync
    + PartialOrd
    + Add<Output = Self>
    + AddAssign
    + Sub<Output = Self>
    + Mul<Output = Self>
    + Div<Output = Self>
    + sealed::Sealed
    + 'static
{
    /// 0.
    const ZERO: Self;
    /// From `f32`, exactly.
    fn from_f32(value: f32) -> Self;
    /// From a count.
    fn from_count(count: u32) -> Self;
    /// To `f64`, exactly.
    fn to_f64(self) -> f64;
    /// From `f64`: to nearest.
    fn from_f64(value: f64) -> Self;
}

/// An element type of features and weights.
///
/// `f32`, `f16` and `bf16` are summed in `f32` and rounded once; `f64` is summed in `f64` by plain loops.
pub trait Scalar:
    Copy + Send + Sync + Default + PartialEq + std::fmt::Debug + sealed::Sealed + 'static
{
    /// What sums are kept in.
    type Acc: Acc;
    /// To the type of sums, exactly.
    fn to_acc(self) -> Self::Acc;
    /// From the type of sums: to nearest, ties to even.
    fn from_acc(value: Self::Acc) -> Self;
    /// The slice itself where no conversion is needed.
    #[doc(hidden)]
    fn as_acc(slice: &[Self]) -> Option<&[Self::Acc]>;
    /// As `as_acc`, to write to.
    #[doc(hidden)]
    fn as_acc_mut(slice: &mut [Self]) -> Option<&mut [Self::Acc]>;
    /// Converts a slice; lengths are equal.
    #[doc(hidden)]
    fn widen(engine: Engine, from: &[Self], to: &mut [Self::Acc]);
    /// Converts a slice; lengths are equal.
    #[doc(hidden)]
    fn narrow(engine: Engine, from: &[Self::Acc], to: &mut [Self]);
    /// The gathered products of a relation: micro-kernels, or plain loops for `f64`.
    #[doc(hidden)]
    fn products(engine: Engine, job: Products<'_, Self>, out: &mut [Self]);
    /// The weight gradient of a relation: micro-kernels, or plain loops for `f64`.
    #[doc(hidden)]
    fn weight_grad(engine: Engine, job: Gradient<'_, Self>, dw: &mut [Self]);
}

mod sealed {
    pub trait Sealed {}
    impl Sealed for f32 {}
    impl Sealed for f64 {}
    impl Sealed for half::f16 {}
    impl Sealed for half::bf16 {}
}

macro_rules! acc {
    ($ty:ty) => {
        impl Acc for $ty {
            const ZERO: Self = 0.0;
            #[inline(always)]
            fn from_f32(value: f32) -> Self {
                value.into()
            }
            #[inline(always)]
            fn from_count(count: u32) -> Self {
                count as Self
            }
            #[inline(always)]
            fn to_f64(self) -> f64 {
                self.into()
            }
            #[inline(always)]
            fn from_f64(value: f64) -> Self {
                value as Self
            }
        }
    };
}
acc!(f32);
acc!(f64);

/// Copies a short row without calling `memcpy`, whose call costs as much as the row.
#[inline(always)]
fn copy<A: Copy>(from: &[A], to: &mut [A]) {
    assert_eq!(from.len(), to.len());
    let (from, from_rest) = from.as_chunks::<16>();
    let (to, to_rest) = to.as_chunks_mut::<16>();
    for (to, from) in to.iter_mut().zip(from) {
        *to = *from;
    }
    if !from_rest.is_empty() {
        to_rest.copy_from_slice(from_rest);
    }
}

macro_rules! itself {
    ($ty:ty, $run:ident, $grad:ident) => {
        impl Scalar for $ty {
            type Acc = $ty;
            #[inline(always)]
            fn to_acc(self) -> $ty {
                self
            }
            #[inline(always)]
            fn from_acc(value: $ty) -> Self {
                value
            }
            fn as_acc(slice: &[Self]) -> Option<&[$ty]> {
                Some(slice)
            }
            fn as_acc_mut(slice: &mut [Self]) -> Option<&mut [$ty]> {
                Some(slice)
            }
            #[inline(always)]
            fn widen(_: Engine, from: &[Self], to: &mut [$ty]) {
                copy(from, to);
            }
            #[inline(always)]
            fn narrow(_: Engine, from: &[$ty], to: &mut [Self]) {
                copy(from, to);
            }
            fn products(engine: Engine, job: Products<'_, Self>, out: &mut [Self]) {
                $run::run(engine, job, out);
            }
            fn weight_grad(engine: Engine, job: Gradient<'_, Self>, dw: &mut [Self]) {
                $grad::gradient(engine, job, dw);
            }
        }
    };
}
itself!(f32, tiles, weight_grad);
itself!(f64, plain, plain);

macro_rules! half {
    ($ty:ty, $widen:ident, $narrow:ident) => {
        impl Scalar for $ty {
            type Acc = f32;
            #[inline(always)]
            fn to_acc(self) -> f32 {
                self.to_f32()
            }
            #[inline(always)]
            fn from_acc(value: f32) -> Self {
                Self::from_f32(value)
            }
            fn as_acc(_: &[Self]) -> Option<&[f32]> {
                None
            }
            fn as_acc_mut(_: &mut [Self]) -> Option<&mut [f32]> {
                None
            }
            fn widen(engine: Engine, from: &[Self], to: &mut [f32]) {
                engine.$widen(from, to);
            }
            fn narrow(engine: Engine, from: &[f32], to: &mut [Self]) {
                engine.$narrow(from, to);
            }
            fn products(engine: Engine, job: Products<'_, Self>, out: &mut [Self]) {
                tiles::run(engine, job, out);
            }
            fn weight_grad(engine: Engine, job: Gradient<'_, Self>, dw: &mut [Self]) {
                weight_grad::gradient(engine, job, dw);
            }
        }
    };
}
half!(f16, widen_f16, narrow_f16);
half!(bf16, widen_bf16, narrow_bf16);
